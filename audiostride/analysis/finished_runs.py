"""Finished runs as plain data, to be compared: from run directories, or from what was kept of them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import ModelFileError, UsageError
from ..models.classifier import load
from ..models.cost import cost_per_second
from ..models.cutoffs import LayerCutoff, model_cutoffs, why_no_cutoffs
from ..sections import flatten
from ..training.directory import PREDICTIONS_FILE, RECIPE_FILE, RESULTS_FILE
from ..training.predictions_file import correct_shares, read_predictions
from ..training.run_files import read_results, recipe_of

_NO_METHOD = {
    "name", "seed", "tasks", "cache", "train.workers", "train.checkpoint_steps", "train.keep_checkpoints",
}  # fmt: skip
DIFFSTRIDE_KEYS = {"model.smoothness", "model.shared_stride", "train.stride_learning_rate", "train.stride_cost"}
"""Settings that only learned strides make use of."""

ALIASING_KEYS = {"train.aliasing_learning_rate"}
"""Settings that only learned aliasing makes use of."""


class Run(NamedTuple):
    """One finished run, as plain data.

    Attributes:
        name: its directory, or another name that no other run has.
        seed: its seed.
        data: what its tasks are trained on; runs with equal `data` are comparable.
        title: the same in a few words.
        tasks: the title of each of its tasks in a table.
        settings: every other setting of its recipe that it makes use of, by dotted key.
        results: "tasks" with the scores, "macs_per_second", "parameters" and "strides", as in `results.json`.
        right: for each task, how correct each of its test clips is, see `predictions_file.correct_shares`.
        groups: for each task what its test clips belong to (speaker, instrument); a task of which that is
            not known is left out.
        layers: the cut-offs of every layer.
    """

    name: str
    seed: int
    data: str
    title: str
    tasks: dict[str, str]
    settings: dict[str, Any]
    results: dict[str, Any]
    right: dict[str, dict[str, float]]
    groups: dict[str, dict[str, str]]
    layers: list[LayerCutoff]


def find_runs(paths: Sequence[Path]) -> tuple[list[Run], list[Path]]:
    """Finished runs at or below `paths`, and the directories of unfinished ones.

    Raises:
        UsageError: if a path does not exist or no finished run is found.
        ModelFileError: if a file of a run cannot be read.
    """
    finished, unfinished = [], []
    for path in paths:
        if not path.is_dir():
            raise UsageError(f"{path}: no such run directory")
        found = [path] if (path / RECIPE_FILE).is_file() else sorted(file.parent for file in path.rglob(RECIPE_FILE))
        for folder in found:
            if (folder / RESULTS_FILE).is_file():
                finished.append(_read_run(folder))
            else:
                unfinished.append(folder)
    if not finished:
        raise UsageError(f"no finished run at or below {', '.join(map(str, paths))}")
    return list({Path(run.name).resolve(): run for run in finished}.values()), unfinished


def make_run(
    name: str,
    recipe: Mapping[str, Any],
    results: Mapping[str, Any],
    right: Mapping[str, Mapping[str, float]],
    layers: Sequence[LayerCutoff],
    groups: Mapping[str, Mapping[str, str]] | None = None,
) -> Run:
    """A `Run` from its resolved recipe and what came of it.

    Args:
        name: of the run.
        recipe: the recipe as a mapping.
        results: as in `results.json`.
        right: for each task and test clip how correct the prediction is, from 0 to 1.
        layers: from `cutoffs.model_cutoffs`.
        groups: for each task and test clip what it belongs to, where that is known.
    """
    tasks = recipe["tasks"]
    titles = {}
    for task, section in tasks.items():
        others = ", ".join(other for other in tasks if other != task)
        titles[task] = f"{_data_title(section)} {task}" + (f" (with {others})" if others else "")
    data = " + ".join(dict.fromkeys(_data_title(section) for section in tasks.values()))
    idle = set() if recipe["model"].get("downsampling") == "diffstride" else DIFFSTRIDE_KEYS
    if recipe["model"].get("aliasing") is None:
        idle = idle | ALIASING_KEYS
    return Run(
        name=name,
        seed=results["seed"],
        data=json.dumps(tasks, sort_keys=True),
        title=f"{data} {', '.join(tasks)}",
        tasks=titles,
        settings={
            key: value
            for key, value in flatten({k: v for k, v in recipe.items() if k not in _NO_METHOD}).items()
            if key not in _NO_METHOD | idle
        },
        results=dict(results),
        right={task: dict(clips) for task, clips in right.items()},
        groups={task: dict(clips) for task, clips in (groups or {}).items()},
        layers=list(layers),
    )


def _read_run(folder: Path) -> Run:
    results, recipe = read_results(folder), recipe_of(folder).model_dump()
    model, right, groups = load(folder), {}, {}
    for task, predictions in read_predictions(folder).items():
        shares = correct_shares(predictions, model.labels[task], model.kinds[task])
        right[task] = {file: share for file, share in zip(predictions.files, shares, strict=True) if share == share}
        if predictions.groups:
            groups[task] = dict(zip(predictions.files, predictions.groups, strict=True))
    if missing := [task for task in results["tasks"] if task not in right]:
        raise ModelFileError(f"{folder / PREDICTIONS_FILE}: has no predictions for the task {missing[0]!r}")
    # Counted again: what a run of another version wrote down may have been counted by another rule.
    results["macs_per_second"] = cost_per_second(model).macs
    layers = [] if why_no_cutoffs(model) else model_cutoffs(model)
    return make_run(str(folder), recipe, results, right, layers, groups)


def _data_title(task: Mapping[str, Any]) -> str:
    data = task["data"]
    title = Path(str(data.get("path", data["source"]))).name
    fold = data.get("test_fold")
    return f"{title} fold {fold['value']}" if fold else title
