"""Comparison tables of any set of runs: accuracy, cost, cut-offs, and how sure a difference is.

Runs on the same tasks and data are one row; the settings in which they differ name the methods.
Seeds are averaged over. Every figure is computed from the runs' own files, unrounded, and rounded
only when it is printed, see `tables`.
"""

import itertools
import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..errors import ModelFileError, UsageError
from ..models.classifier import load
from ..models.cost import cost_per_second
from ..models.cutoffs import AXES, LayerCutoff, model_cutoffs, summarise
from ..models.image_frontend import ImageFrontend
from ..training.directory import PREDICTIONS_FILE, RECIPE_FILE, RESULTS_FILE, recipe_of
from .learning_dynamics import striding
from .run_directory import read_answers, read_results

RESAMPLES = 10_000
METRICS = ("auc", "mean_average_precision")
"""What binary and multilabel tasks are scored by besides accuracy."""

_NO_METHOD = {
    "name", "seed", "tasks", "cache", "train.workers", "train.checkpoint_steps", "train.keep_checkpoints",
}  # fmt: skip
_OF_DIFFSTRIDE = {"model.smoothness", "model.shared_stride", "train.stride_learning_rate", "train.stride_cost"}


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
        right: for each task, which of its test clips the run is right about; an answer to a multilabel
            task is right if all of its classes are.
        layers: the cut-offs of every layer.
    """

    name: str
    seed: int
    data: str
    title: str
    tasks: dict[str, str]
    settings: dict[str, Any]
    results: dict[str, Any]
    right: dict[str, dict[str, bool]]
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
    right: Mapping[str, Mapping[str, bool]],
    layers: Sequence[LayerCutoff],
) -> Run:
    """A `Run` from its resolved recipe and what came of it.

    Args:
        name: of the run.
        recipe: the recipe as a mapping.
        results: as in `results.json`.
        right: for each task and test clip whether the answer is right.
        layers: from `cutoffs.model_cutoffs`.
    """
    tasks = recipe["tasks"]
    titles = {}
    for task, section in tasks.items():
        others = ", ".join(other for other in tasks if other != task)
        titles[task] = f"{_data_title(section)} {task}" + (f" (with {others})" if others else "")
    data = " + ".join(dict.fromkeys(_data_title(section) for section in tasks.values()))
    idle = set() if recipe["model"].get("downsampling") == "diffstride" else _OF_DIFFSTRIDE
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
        layers=list(layers),
    )


def compare(runs: Sequence[Run], methods: Mapping[str, str] | None = None) -> dict[str, Any]:
    """All comparisons of a set of runs, as plain data.

    Args:
        runs: from `find_runs`.
        methods: for each run's name what its settings are called; default: `name_methods`.

    Returns:
        "accuracy": for each task and method mean, sd (n - 1) and seeds, with loss, MACs per second of
        audio and parameters, and "auc" or "mean_average_precision" where the task has them; "mean": the
        mean over the tasks that every method has; "differences": of each two methods, with a 95 %
        interval; "cutoffs": strides and cut-offs of methods that pool; "shared_strides": shared beside
        separate strides.

    Raises:
        UsageError: if the same run (settings and seed) is given twice.
    """
    methods = methods or name_methods(runs)
    cells: dict[tuple[str, str], list[tuple[Run, str]]] = {}
    for run in runs:
        for task, title in run.tasks.items():
            cells.setdefault((title, methods[run.name]), []).append((run, task))
    for (title, method), members in cells.items():
        if len({run.seed for run, _ in members}) < len(members):
            names = ", ".join(run.name for run, _ in members)
            raise UsageError(f"{title}, {method}: two runs with the same seed and settings: {names}")
    accuracy = [_accuracy(title, method, members) for (title, method), members in cells.items()]
    return {
        "runs": [run.name for run in runs],
        "accuracy": accuracy,
        "mean": _mean(accuracy),
        "differences": _differences(cells),
        "cutoffs": [row for group in _by_method(runs, methods) for row in _cutoffs(*group)],
        "shared_strides": _shared(runs, accuracy, methods),
    }


def name_methods(runs: Sequence[Run]) -> dict[str, str]:
    """A short name for the settings of each run: those that differ among runs on the same data."""
    names = {}
    for group in _groups(runs, lambda run: run.data):
        differing = [
            key
            for key in dict.fromkeys(key for run in group for key in run.settings)
            if key != "model.downsampling"
            and len({json.dumps(run.settings.get(key)) for run in group if _uses(run, key)}) > 1
        ]
        for run in group:
            parts = [run.settings.get("model.downsampling", "")]
            parts += [
                f"{key.rpartition('.')[2]}={_short(run.settings[key])}"
                for key in differing
                if run.settings.get(key) is not None
            ]
            names[run.name] = " ".join(parts)
    return names


def _uses(run: Run, key: str) -> bool:
    return key in run.settings or key not in _OF_DIFFSTRIDE


def striding_runs(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """How the total striding factor of every run with learned strides moved, for `plots.striding_figure`.

    Raises:
        UsageError: if no run learned strides along time and mel.
    """
    methods = name_methods(runs)
    learned = [
        run
        for run in runs
        if run.settings["model.downsampling"] == "diffstride" and run.settings["model.name"] == "audio_cnn"
    ]
    if not learned:
        raise UsageError("none of the runs learned strides, there is nothing to draw")
    return [
        {
            "data": run.title,
            "method": methods[run.name],
            "seed": run.seed,
            "points": striding(Path(run.name), run.settings["model.strides"]),
        }
        for run in learned
    ]


def bootstrap_interval(
    difference: np.ndarray, weight: np.ndarray, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float, float]:
    """Mean paired difference of clips, and its 95 % percentile interval over resampled clips.

    Args:
        difference: for each clip the difference of correct answers, summed over the runs that tested it.
        weight: number of those runs.
        resamples: number of bootstrap samples.
        seed: of the resampling.

    Returns:
        The difference, lower and upper end.

    Source:
        Efron & Tibshirani 1993, An Introduction to the Bootstrap, Chapter 13.

    Example:
        >>> bootstrap_interval(np.ones(50), np.ones(50))
        (1.0, 1.0, 1.0)
    """
    # Clips with the same outcome are interchangeable, so their counts are drawn instead of the clips.
    kinds, counts = np.unique(np.stack([difference, weight]), axis=1, return_counts=True)
    drawn = np.random.default_rng(seed).multinomial(counts.sum(), counts / counts.sum(), size=resamples)
    means = (drawn @ kinds[0]) / (drawn @ kinds[1])
    low, high = np.percentile(means, [2.5, 97.5])
    return float(difference.sum() / weight.sum()), float(low), float(high)


def _read_run(folder: Path) -> Run:
    results, recipe = read_results(folder), recipe_of(folder).model_dump()
    right = {}
    for task, answers in read_answers(folder).items():
        same = (true == said for true, said in zip(answers.truth, answers.label, strict=True))
        right[task] = dict(zip(answers.files, same, strict=True))
    if missing := [task for task in results["tasks"] if task not in right]:
        raise ModelFileError(f"{folder / PREDICTIONS_FILE}: has no answers for the task {missing[0]!r}")
    model = load(folder)
    # Counted again: what a run of another version wrote down may have been counted by another rule.
    results["macs_per_second"] = cost_per_second(model).macs
    layers = [] if isinstance(model.frontend, ImageFrontend) else model_cutoffs(model)  # of images nothing is in Hz
    return make_run(str(folder), recipe, results, right, layers)


def _data_title(task: Mapping[str, Any]) -> str:
    data = task["data"]
    return Path(str(data.get("path", data["source"]))).name


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A tree of mappings as one mapping with dotted keys.

    Example:
        >>> flatten({"model": {"smoothness": 1}, "seed": 0})
        {'model.smoothness': 1, 'seed': 0}
    """
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            flat |= flatten(value, f"{name}.")
        else:
            flat[name] = value
    return flat


def _short(value: Any) -> str:
    """A setting as a part of a name: 0.1, true, 8,16,32 or 3x3,3x3."""
    if isinstance(value, list):
        return ",".join("x".join(f"{v:g}" for v in part) if isinstance(part, list) else str(part) for part in value)
    return json.dumps(value).strip('"')


def _groups(runs: Iterable[Run], key: Any) -> list[list[Run]]:
    groups: dict[Any, list[Run]] = {}
    for run in runs:
        groups.setdefault(key(run), []).append(run)
    return list(groups.values())


def _by_method(runs: Sequence[Run], methods: Mapping[str, str]) -> list[tuple[str, str, list[Run]]]:
    groups = _groups(runs, lambda run: (run.data, methods[run.name]))
    return [(group[0].title, methods[group[0].name], group) for group in groups]


def _accuracy(title: str, method: str, members: Sequence[tuple[Run, str]]) -> dict[str, Any]:
    scores = [run.results["tasks"][task] for run, task in members]
    macs = [run.results["macs_per_second"] for run, _ in members]
    row = {
        "task": title,
        "method": method,
        "mean": statistics.fmean(score["accuracy"] for score in scores),
        "sd": _sd([score["accuracy"] for score in scores]),
        "seeds": [run.seed for run, _ in members],
        "clips": scores[0]["n"],
        "macs_per_second": statistics.fmean(macs),
        "macs_per_second_sd": _sd(macs),
        "parameters": members[0][0].results["parameters"],
    }
    for name in ("loss", *METRICS):
        values = [score[name] for score in scores if score.get(name) is not None]
        if len(values) == len(scores):
            row |= {name: statistics.fmean(values), f"{name}_sd": _sd(values)}
    return row


def _mean(accuracy: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Mean over the tasks that every method has, from unrounded means; None for a single task."""
    methods = list(dict.fromkeys(row["method"] for row in accuracy))
    by_task: dict[str, dict[str, float]] = {}
    for row in accuracy:
        by_task.setdefault(row["task"], {})[row["method"]] = row["mean"]
    shared = [task for task, means in by_task.items() if len(means) == len(methods)]
    if len(shared) < 2:
        return None
    return {
        "tasks": shared,
        "methods": {method: statistics.fmean(by_task[task][method] for task in shared) for method in methods},
    }


def _differences(cells: Mapping[tuple[str, str], Sequence[tuple[Run, str]]]) -> list[dict[str, Any]]:
    rows = []
    for (title, first), (other, second) in itertools.combinations(cells, 2):
        if title == other:
            members = [[(run.seed, run.right[task]) for run, task in cells[title, name]] for name in (first, second)]
            found = paired_difference(*members)
            if found:
                rows.append({"task": title, "first": first, "second": second} | found)
    return rows


def paired_difference(
    first: Sequence[tuple[int, Mapping[str, bool]]], second: Sequence[tuple[int, Mapping[str, bool]]]
) -> dict[str, Any] | None:
    """Difference of two methods' accuracy over the clips and seeds that both have, with its 95 % interval.

    Args:
        first: for each run its seed, and for each test clip whether it is right.
        second: the same of the other method.

    Returns:
        "difference", "low", "high" (0 to 1), the number of "clips" and the "seeds"; None if they share no clip.

    Example:
        >>> found = paired_difference([(0, {"a": True, "b": True})], [(0, {"a": True, "b": False}), (1, {"a": True})])
        >>> found["difference"], found["clips"], found["seeds"]
        (0.5, 2, [0])
    """
    total: dict[str, list[float]] = {}
    others = dict(second)
    for seed, answers in first:
        for clip in answers.keys() & others.get(seed, {}).keys():
            entry = total.setdefault(clip, [0.0, 0.0])
            entry[0] += answers[clip] - others[seed][clip]
            entry[1] += 1
    if not total:
        return None
    mean, low, high = bootstrap_interval(*np.array(list(total.values())).T)
    seeds = sorted(others.keys() & dict(first).keys())
    return {"difference": mean, "low": low, "high": high, "clips": len(total), "seeds": seeds}


def _cutoffs(title: str, method: str, group: Sequence[Run]) -> list[dict[str, Any]]:
    if group[0].settings["model.downsampling"] == "strided" or not all(run.layers for run in group):
        return []
    macs = [run.results["macs_per_second"] for run in group]
    rows = []
    for first in summarise([run.layers for run in group]):
        if first["layer"] > 1:
            continue
        totals = [math.prod(layer.stride for layer in run.layers if layer.axis == first["axis"]) for run in group]
        rows.append(
            {
                "data": title,
                "method": method,
                "axis": first["axis"],
                "seeds": [run.seed for run in group],
                "stride": first["stride"],
                "stride_sd": first["stride_sd"],
                "minus_6db": first["own"]["minus_6db"],
                "paper": first["paper"],
                "paper_sd": _sd([paper for run in group if (paper := _first(run, first["axis"]).paper) is not None]),
                "total_stride": statistics.fmean(totals),
                "total_stride_sd": _sd(totals),
                "initial_total_stride": _total(group[0].settings["model.strides"], first["axis"]),
                "macs_per_second": statistics.fmean(macs),
                "macs_per_second_sd": _sd(macs),
                "parameters": group[0].results["parameters"],
            }
        )
    return rows


def _first(run: Run, axis: str) -> LayerCutoff:
    return next(layer for layer in run.layers if layer.axis == axis)


def _total(strides: Sequence[float | Sequence[float]], axis: str) -> float:
    """Product of strides as a recipe writes them: one for both axes, or a pair."""
    pairs = [(stride, stride) if isinstance(stride, int | float) else stride for stride in strides]
    return float(math.prod(pair[AXES.index(axis)] for pair in pairs))


def _shared(
    runs: Sequence[Run], accuracy: Sequence[Mapping[str, Any]], methods: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Pairs of methods that differ in `model.shared_stride` only."""
    key = "model.shared_stride"
    cells = {(row["task"], row["method"]): row for row in accuracy}
    found: dict[tuple[str, str], dict[bool, str]] = {}
    for run in runs:
        if run.settings["model.downsampling"] == "diffstride" and key in run.settings:  # a waveform has one axis
            rest = json.dumps({k: v for k, v in run.settings.items() if k != key}, sort_keys=True)
            for title in run.tasks.values():
                found.setdefault((title, rest), {})[run.settings[key]] = methods[run.name]
    return [
        {"task": title, "separate": dict(cells[title, pair[False]]), "shared": dict(cells[title, pair[True]])}
        for (title, _), pair in found.items()
        if len(pair) == 2
    ]


def _sd(values: Sequence[float]) -> float | None:
    return statistics.stdev(values) if len(values) > 1 else None
