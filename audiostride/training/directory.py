"""A run directory: the names of its files, where a new one goes, who writes to it, and the recipe it was made with."""

import errno
import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from ..errors import UsageError, printable
from ..files import explain_write_errors
from .processes import broadcast, is_main
from .processes import start as start_processes
from .recipe import Recipe

RECIPE_FILE, RESULTS_FILE, PREDICTIONS_FILE = "recipe.yaml", "results.json", "predictions-test.csv"
STEPS_FILE, METRICS_FILE, CHECKPOINTS = "steps.jsonl", "metrics.jsonl", "checkpoints"
LOCK_FILE = ".lock"


def run_directory(recipe: Recipe, out: str | os.PathLike[str] | None, resume: bool = False) -> Path:
    """Where a run goes: `out`, or `runs/NAME`, `runs/NAME-2`, ... whichever is free, which is made at once.

    With `resume` a run that is already in `out` continues; one that is not there yet begins, so that the same command
    can be given until it ends.

    Raises:
        UsageError: if `out` holds anything and is not to be resumed, or holds no run.
        WriteError: if no directory can be made.
    """
    start_processes()  # one process chooses for all, or a second one would find the first one's directory taken
    return broadcast(_run_directory(recipe, out, resume) if is_main() else Path())


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Make a directory if needed, and lock it against other processes; the lock does not outlive its process.

    If nothing was written to it, it is removed again.

    Raises:
        UsageError: if another process holds it.
        WriteError: if nothing can be written there.
    """
    with explain_write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK_FILE, timeout=0)
        try:
            lock.acquire()
        except Timeout:
            raise UsageError(f"{printable(folder)}: another training is writing here; choose another --out") from None
        except NotImplementedError:
            pass  # some network file systems have no locks: one training per directory is then up to the user
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
                raise
    try:
        yield
    finally:
        with suppress(OSError):
            if [path.name for path in folder.iterdir()] == [LOCK_FILE]:
                (folder / LOCK_FILE).unlink()
                folder.rmdir()
                if folder.parent == Path("runs"):  # made for it, if nothing else is there
                    folder.parent.rmdir()
        lock.release()


def _run_directory(recipe: Recipe, out: str | os.PathLike[str] | None, resume: bool) -> Path:
    if out is not None:
        folder = Path(out)
        if folder.exists() and not folder.is_dir():
            raise UsageError(f"{folder}: is not a directory; choose another --out")
        # Hidden files are what a crash may leave of a file that was being written.
        visible = [path.name for path in folder.iterdir() if path.name[0] != "."] if folder.exists() else []
        if visible and not resume:
            goes_on = "continue its run with --resume, " if CHECKPOINTS in visible else ""
            raise UsageError(f"{folder}: is not empty; {goes_on}choose another --out, or remove it first")
        if visible and RECIPE_FILE not in visible:
            raise UsageError(f"{folder}: holds no run to resume: there is no {RECIPE_FILE}")
        return folder
    if resume:
        raise UsageError("--resume needs --out, the directory of the run to resume")
    for number in itertools.count(1):
        folder = Path("runs", recipe.name if number == 1 else f"{recipe.name}-{number}")
        with explain_write_errors(folder):
            folder.parent.mkdir(exist_ok=True)
            try:
                folder.mkdir()  # of two commands at once, one makes it and the other tries the next number
            except FileExistsError:
                continue
            return folder
    raise AssertionError
