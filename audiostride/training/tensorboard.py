"""`TensorBoardLog`: every line of metrics, with cut-offs and cost, as TensorBoard shows it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..models.cutoffs import AXES
from ..models.network import AudioNetwork, SpectrogramTrunk
from ..models.state import state_at


class TensorBoardLog:
    """Writes every line of metrics, with cut-offs and cost, to `RUN_DIR/tensorboard`.

    Args:
        run_dir: the run directory.
        model: the model in training.
    """

    def __init__(self, run_dir: Path, model: AudioNetwork):
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(run_dir / "tensorboard"))
        self.model = model

    def on_epoch(self, record: Mapping[str, Any]) -> None:
        """Log one line of `metrics.jsonl`."""
        step, split = record["step"], record["split"]
        for task, scores in record["tasks"].items():
            for name, value in scores.items():
                self.writer.add_scalar(f"{task}/{name}/{split}", value, step)
        if split != "train" and isinstance(self.model.trunk, SpectrogramTrunk):
            state = state_at(self.model, record["strides"])
            for axis, name in enumerate(AXES):
                for layer, (stride, cutoff) in enumerate(zip(state["strides"], state["cutoffs"], strict=True), start=1):
                    self.writer.add_scalar(f"stride_{name}/layer{layer}", stride[axis], step)
                    self.writer.add_scalar(f"cutoff_{name}/layer{layer}", cutoff[axis], step)
                self.writer.add_scalar(f"total_stride/{name}", state["total_stride"][axis], step)
            self.writer.add_scalar("cost/macs_per_second", state["macs_per_second"], step)
        if split != "train":
            self.writer.add_scalar("speed/clips_per_s", record["clips_per_s"], step)
        self.writer.flush()

    def close(self) -> None:
        """Finish the log."""
        self.writer.close()
