"""Sweeps: one recipe trained over a grid of settings and seeds, each run in its own directory.

A sweep is resumed by giving the same command again. Its state is what is in the directory: a run
with readable results is finished and never repeated, a run without them is resumed.
"""

import itertools
import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import AudiostrideError, Interrupted, UsageError
from ..models.parts import TrunkSection
from .directory import RECIPE_FILE, claimed
from .recipe import Recipe, load_recipe
from .run_files import is_finished

Train = Callable[[Recipe, Path], object]
"""Trains a recipe into a directory, as `run.run` does."""


class Planned(NamedTuple):
    """One run of a sweep.

    Attributes:
        path: its run directory.
        recipe: its recipe, resolved.
    """

    path: Path
    recipe: Recipe


class Outcome(NamedTuple):
    """What became of one run of a sweep.

    Attributes:
        path: its run directory.
        state: "finished before", "finished" or "failed".
        error: what went wrong, "" if nothing did.
    """

    path: Path
    state: str
    error: str = ""


def plan_sweep(
    recipe: str, out: Path, grid: Sequence[str] = (), seeds: Sequence[int] = (), overrides: Sequence[str] = ()
) -> list[Planned]:
    """The runs of a sweep, every recipe checked before any training.

    Args:
        recipe: a recipe file or the name of a shipped one.
        out: the sweep's directory, with a sub-directory for each run.
        grid: strings like ``model.downsampling=strided,spectral``: the values of a key, divided by
            commas outside of brackets. Several keys give all their combinations, together with those of
            the recipe's own `sweep`; a key that both name has the values given here.
        seeds: the seeds of each combination; none: those of the recipe's `sweep`, or its one.
        overrides: ``key=value`` settings of every run.

    Raises:
        RecipeError: if one of the recipes is not valid.
        UsageError: if the grid is not `KEY=V1,V2`, a value stands twice, or a directory belongs to
            another recipe.

    Example:
        >>> plan = plan_sweep("ripples", Path("sweep"), ["model.downsampling=strided,diffstride"], [0, 1])
        >>> [run.path.name for run in plan]
        ['strided_seed-0', 'strided_seed-1', 'diffstride_seed-0', 'diffstride_seed-1']
    """
    own = {key: [_text(value) for value in values] for key, values in load_recipe(recipe, overrides).sweep.items()}
    own_seeds = own.pop("seed", [])
    given = [_grid_key(setting) for setting in grid]
    keys = [(key, values) for key, values in own.items() if key not in dict(given)] + given
    for key, values in keys:
        if key == "seed":
            raise UsageError("give seeds with --seeds, not with --set")
        if len(set(values)) < len(values) or "" in values:
            raise UsageError(f"{key}: its values must be distinct and not empty, got {','.join(values)}")
    names = [key for key, _ in keys]
    if len(set(names)) < len(names) or len(set(seeds)) < len(seeds):
        raise UsageError("a key or a seed is given twice")
    planned = []
    for point in itertools.product(*(values for _, values in keys)):
        settings = [f"{key}={value}" for key, value in zip(names, point, strict=True)]
        for seed in [f"seed={seed}" for seed in seeds or own_seeds] or [""]:
            resolved = load_recipe(recipe, [*overrides, "sweep={}", *settings, *filter(None, [seed])])
            name = "_".join(_part(key, value, names) for key, value in zip(names, point, strict=True))
            name = "_".join(filter(None, [name, f"seed-{resolved.seed}"]))
            planned.append(Planned(out / name, resolved))
    check_directories(planned)
    return planned


def check_directories(planned: Sequence[Planned]) -> None:
    """Refuse runs of which two share a directory, or one would go where something else is, see `check_belongs`.

    Raises:
        UsageError: names the directory.
    """
    paths = [run.path for run in planned]
    if len(set(paths)) < len(paths):
        twice = next(path for path in paths if paths.count(path) > 1)
        raise UsageError(f"{twice}: two values differ only in characters that a directory name cannot hold")
    for run in planned:
        check_belongs(run)


def run_sweep(planned: Sequence[Planned], train: Train, on_run: Callable[[Outcome | Planned], None]) -> list[Outcome]:
    """Train every run that is not finished, one after the other; a failed run does not stop the others.

    Args:
        planned: from `plan_sweep`.
        train: trains one recipe into a directory, where it resumes what a killed run left.
        on_run: called with each `Planned` run as it starts and its `Outcome` when it is done.

    Returns:
        What became of each run.

    Raises:
        UsageError: if another process trains in the same directory.
        Interrupted: after SIGTERM or SIGINT; the same sweep resumes there.
    """
    outcomes = []
    with claimed(planned[0].path.parent):
        for run in planned:
            if is_finished(run.path):
                outcome = Outcome(run.path, "finished before")
            else:
                on_run(run)
                try:
                    train(run.recipe, run.path)
                    outcome = Outcome(run.path, "finished")
                except Interrupted:
                    raise
                except AudiostrideError as error:
                    outcome = Outcome(run.path, "failed", str(error))
            on_run(outcome)
            outcomes.append(outcome)
    return outcomes


def check_belongs(run: Planned) -> None:
    """Refuse to touch a directory that is not this run's own.

    Raises:
        UsageError: if it holds something else, or a run of another recipe.
    """
    if not run.path.exists() or (run.path.is_dir() and all(path.name[0] == "." for path in run.path.iterdir())):
        return
    if not (run.path / RECIPE_FILE).is_file():
        raise UsageError(f"{run.path}: already exists and is not a run of this sweep; choose another --out, or move it")
    names_window = "window_s" in run.recipe.model_fields_set
    before = _asked(load_recipe(str(run.path / RECIPE_FILE)), names_window)
    changed = list(_differences(before, _asked(run.recipe, names_window)))
    if changed:
        raise UsageError(
            f"{run.path}: was made with another recipe ({'; '.join(changed[:3])}); choose another --out, or move it"
        )


def plain_name(value: str) -> str:
    """A value as part of a directory's name.

    Example:
        >>> plain_name("[[2, 2], [1, 1]]")
        '2-2-1-1'
    """
    return re.sub(r"[^\w.+-]+", "-", value).strip("-")


def _text(value: Any) -> str:
    """A value of a recipe's sweep as the command line would give it."""
    return value if isinstance(value, str) else json.dumps(value)


def _grid_key(setting: str) -> tuple[str, list[str]]:
    key, equals, values = setting.partition("=")
    if not equals or not key or not values:
        raise UsageError(f"{setting}: a sweep's setting is KEY=VALUE,VALUE,..., such as model.smoothness=1,4")
    parts, depth = [""], 0
    for character in values:
        depth += (character in "[{") - (character in "]}")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return key, [part.strip() for part in parts]


def _part(key: str, value: str, keys: Sequence[str]) -> str:
    last = key.rpartition(".")[2]
    if sum(other.rpartition(".")[2] == last for other in keys) > 1:
        last = key
    return plain_name(value) if last == "downsampling" else f"{last}-{plain_name(value)}"


def _asked(recipe: Recipe, names_window: bool) -> dict[str, Any]:
    """What a recipe decides itself: with `model.init` neither frontend nor trunk, and a window only if it names one."""
    tree = recipe.model_dump()
    if recipe.model.init is None:
        return tree
    tree["model"] = {key: tree["model"][key] for key in TrunkSection.model_fields}
    return {key: value for key, value in tree.items() if key != "frontend" and (key != "window_s" or names_window)}


def _differences(before: object, now: object, key: str = "") -> Iterator[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        for name in [*before, *(name for name in now if name not in before)]:
            yield from _differences(before.get(name), now.get(name), f"{key}.{name}".lstrip("."))
    elif before != now:
        yield f"{key} was {before}, is {now}"
