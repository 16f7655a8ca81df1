"""A run directory: the names of its files, where a new one goes, and the recipe it was made with."""

import os
from pathlib import Path

from ..errors import ModelFileError, UsageError
from .processes import broadcast, is_main
from .processes import start as start_processes
from .recipe import Recipe, load_recipe

RECIPE_FILE, RESULTS_FILE, PREDICTIONS_FILE = "recipe.yaml", "results.json", "predictions-test.csv"
STEPS_FILE, METRICS_FILE, CHECKPOINTS = "steps.jsonl", "metrics.jsonl", "checkpoints"


def run_directory(recipe: Recipe, out: str | os.PathLike[str] | None, resume: bool = False) -> Path:
    """Where a run goes: `out`, or `runs/NAME`, `runs/NAME-2`, ... whichever is free.

    With `resume` a run that is already in `out` is gone on with; one that is not there yet begins, so
    that the same command can be given until it ends.

    Raises:
        UsageError: if `out` holds anything and is not to be resumed, or holds no run.
    """
    start_processes()  # one process chooses for all, or a second one would find the first one's directory taken
    return broadcast(_run_directory(recipe, out, resume) if is_main() else Path())


def recipe_of(run_dir: Path) -> Recipe:
    """The recipe a run was made with.

    Raises:
        ModelFileError: if there is none.

    Example:
        >>> recipe_of(Path("nowhere"))
        Traceback (most recent call last):
            ...
        audiostride.errors.ModelFileError: nowhere/recipe.yaml: no such file; a run directory is needed
    """
    if not (run_dir / RECIPE_FILE).is_file():
        raise ModelFileError(f"{run_dir / RECIPE_FILE}: no such file; a run directory is needed")
    return load_recipe(str(run_dir / RECIPE_FILE))


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
    folder, number = Path("runs", recipe.name), 1
    while folder.exists():
        number += 1
        folder = Path("runs", f"{recipe.name}-{number}")
    return folder
