"""Cross-validation: one recipe trained as often as its data has folds, each time tested on another one.

The runs are those of a sweep over `test_fold`: `sweep.run_sweep` trains them, and resumes them.
"""

from collections.abc import Sequence
from pathlib import Path

from ..data.clips import Progress
from ..data.preparation import fold_names
from ..errors import UsageError
from .recipe import Recipe, load_recipe
from .sweep import Planned, check_directories, plain_name


def plan_crossval(
    recipe: str,
    out: Path,
    column: str | None = None,
    n_folds: int | None = None,
    overrides: Sequence[str] = (),
    progress: Progress | None = None,
) -> list[Planned]:
    """The run of each fold; data and folds are checked before any training.

    Args:
        recipe: a recipe file or the name of a shipped one.
        out: the directory of all runs, with a sub-directory for each fold.
        column: column of the data whose values name the folds; None: they are drawn.
        n_folds: number of folds to draw by the recipe's seed, from 2 on; None: the column names them.
        overrides: ``key=value`` settings of every run.
        progress: called while the data is opened.

    Raises:
        RecipeError: if the recipe is not valid.
        DataError: if the data has no such folds, see `data.preparation.fold_names`.
        UsageError: if not exactly one of `column` and `n_folds` is given, the recipe has its own sweep,
            or a directory belongs to another recipe.

    Example:
        >>> few = ["tasks.rate.data.n_clips=250", "tasks.scale.data.n_clips=250"]
        >>> plan = plan_crossval("ripples", Path("crossval"), n_folds=3, overrides=few)
        >>> [run.path.name for run in plan]
        ['fold-1', 'fold-2', 'fold-3']
        >>> plan[0].recipe.tasks["rate"].data.test_fold.value
        '1'
    """
    if (column is None) == (n_folds is None):
        raise UsageError("give --folds-column NAME, the column that names the folds, or --folds K to draw K of them")
    loaded = load_recipe(recipe, overrides)
    if loaded.sweep:
        raise UsageError(f"{recipe}: has a sweep; set sweep={{}}, and cross-validate one setting at a time")
    planned = []
    for value in fold_names(loaded.tasks, column, n_folds, loaded.seed, progress):
        tree = loaded.model_dump(exclude_unset=True)  # a key counts as set where the recipe sets it
        for task in tree["tasks"].values():
            task["data"]["test_fold"] = {"column": column, "n_folds": n_folds, "value": value}
        planned.append(Planned(out / f"fold-{plain_name(value)}", Recipe.model_validate(tree)))
    check_directories(planned)
    return planned
