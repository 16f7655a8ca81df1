"""`TensorBoardLog`: every line of metrics, with cut-offs and cost, as TensorBoard shows it."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import printable
from ..models.cutoffs import AXES
from ..models.log_mel import LogMel
from ..models.network import AudioNetwork, SpectrogramTrunk
from ..models.state import state_at
from .report import Report

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class TensorBoardLog:
    """Writes every line of metrics, with cut-offs and cost, to `RUN_DIR/tensorboard`.

    Args:
        run_dir: the run directory. TensorBoard needs a printable path; with another one nothing is written, and the
            report says so.
        model: the model in training.
        report: whose `on_epoch` is called with each line, too.
    """

    def __init__(self, run_dir: Path, model: AudioNetwork, report: Report):
        from torch.utils.tensorboard import SummaryWriter

        self.model, self.report = model, report
        self.writer: SummaryWriter | None = None
        if printable(run_dir) == os.fspath(run_dir):
            self.writer = SummaryWriter(str(run_dir / "tensorboard"))
        else:
            report.notify(f"{printable(run_dir)}: TensorBoard cannot write to a folder of this name; nothing is logged")

    def on_epoch(self, record: dict[str, Any]) -> None:
        """Log one line of `metrics.jsonl`."""
        if self.writer:
            self._write(self.writer, record)
        self.report.on_epoch(record)

    def close(self) -> None:
        """Finish the log."""
        if self.writer:
            self.writer.close()

    def _write(self, writer: "SummaryWriter", record: Mapping[str, Any]) -> None:
        step, split = record["step"], record["split"]
        for task, scores in record["tasks"].items():
            for name, value in scores.items():
                writer.add_scalar(f"{task}/{name}/{split}", value, step)
        log_mel_cnn = isinstance(self.model.trunk, SpectrogramTrunk) and isinstance(self.model.frontend, LogMel)
        if split != "train" and log_mel_cnn:
            state = state_at(self.model, record["strides"])
            for axis, name in enumerate(AXES):
                for layer, (stride, cutoff) in enumerate(zip(state["strides"], state["cutoffs"], strict=True), start=1):
                    writer.add_scalar(f"stride_{name}/layer{layer}", stride[axis], step)
                    writer.add_scalar(f"cutoff_{name}/layer{layer}", cutoff[axis], step)
                writer.add_scalar(f"total_stride/{name}", state["total_stride"][axis], step)
            writer.add_scalar("cost/macs_per_second", state["macs_per_second"], step)
        if split != "train":
            writer.add_scalar("speed/clips_per_s", record["clips_per_s"], step)
        writer.flush()
