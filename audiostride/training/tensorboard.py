"""`TensorBoardLog`: every line of metrics, with cut-offs and cost, as TensorBoard shows it."""

import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..files import explain_write_errors
from ..models.cutoffs import AXES
from ..models.network import AudioNetwork, spectrogram_parts
from ..models.state_at_strides import state_at
from .report import Report


class TensorBoardLog:
    """Writes every line of metrics, with cut-offs and cost, to `RUN_DIR/tensorboard`.

    `SummaryWriter` is not used: its thread ends in a traceback on a full disk, and it needs a path in UTF-8.

    Args:
        run_dir: the run directory.
        model: the model in training.
        report: whose `on_epoch` is called with each line, too.

    Raises:
        WriteError: if the file cannot be written, also later.
    """

    def __init__(self, run_dir: Path, model: AudioNetwork, report: Report):
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import RecordWriter

        self.model, self.report = model, report
        name = f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}.{os.getpid()}"
        self.path = run_dir / "tensorboard" / name
        with explain_write_errors(self.path):
            self.path.parent.mkdir(exist_ok=True)
            self.file = self.path.open("wb", buffering=0)
        self.records = RecordWriter(self)
        self._add(Event(file_version="brain.Event:2"))

    def on_epoch(self, record: dict[str, Any]) -> None:
        """Log one line of `metrics.jsonl`."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in self._scalars(record).items()]
        self._add(Event(step=record["step"], summary=Summary(value=values)))
        self.report.on_epoch(record)

    def close(self) -> None:
        """Finish the log."""
        self.file.close()

    def write(self, content: bytes) -> None:
        """Append bytes, for `RecordWriter`."""
        with explain_write_errors(self.path):
            while content:  # an unbuffered write may take a part, on a disk that is nearly full
                content = content[self.file.write(content) :]

    def _add(self, event: Any) -> None:
        event.wall_time = time.time()
        self.records.write(event.SerializeToString())

    def _scalars(self, record: Mapping[str, Any]) -> dict[str, float]:
        split = record["split"]
        found = {f"{task}/{name}/{split}": v for task, scores in record["tasks"].items() for name, v in scores.items()}
        if split == "train":
            return found
        for name in ("window_ms", "frames_per_s", "bands") if "resolution" in record else ():
            found[f"resolution/{name}"] = record["resolution"][name]
        if spectrogram_parts(self.model):
            state = state_at(self.model, record["strides"])
            for axis, name in enumerate(AXES):
                for layer, (stride, cutoff) in enumerate(zip(state["strides"], state["cutoffs"], strict=True), start=1):
                    found[f"stride_{name}/layer{layer}"] = stride[axis]
                    found[f"cutoff_{name}/layer{layer}"] = cutoff[axis]
                found[f"total_stride/{name}"] = state["total_stride"][axis]
            found["cost/macs_per_second"] = state["macs_per_second"]
        return found | {"speed/clips_per_s": record["clips_per_s"]}
