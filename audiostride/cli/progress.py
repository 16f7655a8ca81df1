"""What the terminal shows while a command works: progress bars and lines, on stderr."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from ..training.report import Report

if TYPE_CHECKING:
    from ..data.batches import LabelledClips
    from ..models.classifier import AudioClassifier
    from ..training.sweep import Outcome, Planned

_STRIDES_EVERY_S = 0.5


class ProgressDisplay:
    """Progress bars on a terminal; without one a line when each step of the work is done.

    Use it as a context manager and pass its `report` to a training run, or its `progress` to other work.

    Args:
        quiet: show nothing, as one of several processes is enough.

    Attributes:
        run_dir: printed when the training starts.
    """

    def __init__(self, quiet: bool = False) -> None:
        self.console = Console(stderr=True, quiet=quiet)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        self.bars = Progress(*columns, console=self.console, disable=quiet or not self.console.is_terminal)
        self.tasks: dict[str, TaskID] = {}
        self.model: AudioClassifier | None = None
        self.run_dir: Path | None = None
        self.strides = ""
        self.strides_read = 0.0

    def __enter__(self) -> "ProgressDisplay":
        self.bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bars.stop()

    def report(self) -> Report:
        """Its methods as the callbacks of a training run."""
        return Report(self.progress, self.on_start, self.on_step, self.on_epoch, self.print)

    def print(self, text: str) -> None:
        """Print a line above the progress bars."""
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def progress(self, what: str, done: int, total: int, note: str = "") -> None:
        """Show that `done` of `total` steps of some work are done."""
        if what not in self.tasks:
            self.tasks[what] = self.bars.add_task(what, total=total, note=note)
        self.bars.update(self.tasks[what], completed=done, total=total, note=note)
        if done == total:
            self.bars.remove_task(self.tasks.pop(what))

    def on_start(self, model: "AudioClassifier", sets: Sequence["LabelledClips"], bad_files: Sequence[str]) -> None:
        """Say what is going to be trained on what."""
        self.model = model
        if self.run_dir:  # only now it exists: recipe and data were accepted
            self.print(f"run directory: {self.run_dir}")
        for line in bad_files:
            self.print(f"left out: {line}")
        for data in sets:
            sizes = ", ".join(f"{len(data.indexes(split))} {split}" for split in ("train", "validation", "test"))
            tasks = ", ".join(f"{task} ({len(model.labels[task])} classes)" for task in data.labels)
            self.print(f"{tasks}: {sizes} clips")

    def on_step(self, step: int, n_steps: int, loss: float, clips_per_s: float) -> None:
        """Move the bar; show loss, speed and the strides as they move."""
        if self.model and time.monotonic() - self.strides_read > _STRIDES_EVERY_S:
            self.strides, self.strides_read = format_strides(self.model.trunk.strides()), time.monotonic()
        self.progress("training", step, n_steps, f"loss {loss:.3f}  {clips_per_s:.0f} clips/s  {self.strides}")

    def on_epoch(self, record: dict[str, Any]) -> None:
        """Print a line for each epoch, with the validation accuracy of every task."""
        if record["split"] == "train":
            return
        accuracy = "  ".join(f"{task} {100 * s['accuracy']:.1f} %" for task, s in record["tasks"].items())
        loss = sum(s["loss"] for s in record["tasks"].values())
        speed, strides = record["clips_per_s"], format_strides(record["strides"])
        self.print(
            f"epoch {record['epoch']}: {record['split']} {accuracy}  loss {loss:.3f}  {speed:.0f} clips/s  {strides}"
        )

    def on_run(self, run: "Outcome | Planned") -> None:
        """Say which run of a sweep begins, and what became of it."""
        state = getattr(run, "state", "starting")
        self.print(f"{run.path}: {state}")
        if error := getattr(run, "error", ""):
            self.print(f"  {error}")


def format_strides(strides: Sequence[Sequence[float]]) -> str:
    """Strides of all blocks in one line; nothing of a network without.

    Example:
        >>> format_strides([[2.0, 2.0], [1.25, 1.0]])
        'strides 2.00x2.00 1.25x1.00'
    """
    return " ".join(["strides", *("x".join(f"{s:.2f}" for s in block) for block in strides)]) if strides else ""
