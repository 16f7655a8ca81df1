"""What a run writes while it trains: its log files, its checkpoints and the model of the epoch that is kept."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from ..errors import DataError, ModelFileError, UsageError, resources_named
from ..files import JsonLines, explain_write_errors
from ..models.files import WEIGHTS_FILE, save_model
from .checkpoints import (
    Checkpoint,
    Notify,
    list_checkpoints,
    load_checkpoint,
    newest_checkpoint,
    prune_checkpoints,
    save_checkpoint,
)
from .directory import CHECKPOINTS, METRICS_FILE, RESULTS_FILE, STEPS_FILE
from .processes import broadcast, is_main, process_count
from .resuming import RunState
from .run_files import is_finished


class RunFiles:
    """The files of a run in training; only process 0 writes, all processes call.

    Args:
        out: the run directory, which exists.
        conditions: what the result depends on, kept in every checkpoint.
        keep_checkpoints: how many of the newest checkpoints are kept, in addition to the best.
    """

    def __init__(self, out: Path, conditions: Mapping[str, Any], keep_checkpoints: int):
        self.out, self.conditions, self.keep_checkpoints = out, conditions, keep_checkpoints
        self.logs: dict[str, JsonLines] = {}

    def newest(self, resume: bool, notify: Notify) -> Checkpoint | None:
        """The checkpoint to resume from; None to start from the beginning.

        Raises:
            UsageError: if there are checkpoints and `resume` is not set, or a model and no checkpoints any more.
        """
        return broadcast(_find_checkpoint(self.out, resume, notify) if is_main() else None)

    @contextmanager
    def opened(self, run: RunState, found: Checkpoint | None, notify: Notify) -> Iterator[None]:
        """Within this block lines are logged, after those of the checkpoint that the run resumes from.

        Raises:
            DataError: where one is raised in the block; it names the step, at which all is saved first.
            ResourceError: if memory ran out or a worker died; it names the checkpoint to resume from.
        """
        with ExitStack() as stack:
            stack.enter_context(resources_named(self._what_is_saved))
            if is_main():
                if not run.finished or not is_finished(self.out):  # its model will change
                    with explain_write_errors(self.out / RESULTS_FILE):
                        (self.out / RESULTS_FILE).unlink(missing_ok=True)
                for name in (STEPS_FILE, METRICS_FILE):
                    keep, digest = run.log_bytes.get(name, 0), run.log_sha256.get(name, "")
                    self.logs[name] = stack.enter_context(JsonLines(self.out / name, keep, digest))
                if found:  # a kill may have hit the run just after it saved that checkpoint: do what was left to do
                    _restore_best(self.out, run, found, notify)
                    self._prune(run)
            try:
                yield
            except DataError as error:  # data are read between two steps, so the run can resume from here
                if process_count() > 1:
                    raise
                self.save(run)
                raise DataError(
                    f"step {run.step}: {error}\nEverything is saved: fix the data and continue with --resume, or "
                    "continue without the file with --resume --allow-inexact and on_bad_file: skip in the task's data."
                ) from error

    def _what_is_saved(self) -> str:
        saved = list_checkpoints(self.out / CHECKPOINTS)
        if not saved:
            return ". There is no checkpoint yet: train.checkpoint_steps=N saves one every N steps"
        return f". Checkpoint {saved[-1].name} is saved; continue from it with --resume"

    def log(self, name: str, line: Mapping[str, Any]) -> None:
        """Add a line to `STEPS_FILE` or `METRICS_FILE`."""
        if is_main():
            self.logs[name].append(dict(line))

    def save(self, run: RunState) -> None:
        """Save a checkpoint, the model if this is the epoch that is kept, and remove what is no longer needed."""
        run.log_bytes = {name: log.sync() for name, log in self.logs.items()}
        run.log_sha256 = {name: log.sha256.hexdigest() for name, log in self.logs.items()}
        checkpoint = run.checkpoint(self.conditions)
        if is_main():
            save_checkpoint(self.out / CHECKPOINTS, checkpoint)
            if run.best_checkpoint == run.name:
                run.judged.save(self.out)
            self._prune(run)

    def _prune(self, run: RunState) -> None:
        prune_checkpoints(self.out / CHECKPOINTS, self.keep_checkpoints, run.best_checkpoint)


def _find_checkpoint(out: Path, resume: bool, notify: Notify) -> Checkpoint | None:
    folder = out / CHECKPOINTS
    if not resume:
        if list_checkpoints(folder):
            raise UsageError(f"{folder}: holds checkpoints of another run; resume it, or train in another folder")
        return None
    found = newest_checkpoint(folder, notify)
    if found is None and (out / WEIGHTS_FILE).exists() and not any(folder.glob("*.damaged")):
        what = "is finished" if is_finished(out) else "has left a model"
        raise UsageError(f"{out}: the run {what}, but its checkpoints were removed: choose another --out to train anew")
    return found


def _restore_best(out: Path, run: RunState, found: Checkpoint, notify: Notify) -> None:
    """Put the best epoch's model into the run directory."""
    if run.best_checkpoint:
        try:
            best = found
            if run.best_checkpoint != found.name:
                best = load_checkpoint(out / CHECKPOINTS / run.best_checkpoint)
            save_model(out, run.model.config(), best.tensors["model" if run.average is None else "average"])
        except ModelFileError as error:
            notify(f"the model of the best epoch so far is left as it is: {error}")
