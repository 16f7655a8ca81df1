"""Comparison tables of any set of runs: accuracy, cost, cut-offs, and how certain a difference is.

Runs on the same tasks and data are one row; the settings in which they differ name the methods.
Seeds are averaged over. Every figure is computed from the runs' own files, unrounded, and rounded
only when it is printed, see `tables`. What makes a difference significant: see `significance`.
"""

import itertools
import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import UsageError
from ..models.cutoffs import AXES, LayerCutoff, summarise
from ..training.evaluation import METRICS
from .finished_runs import ALIASING_KEYS, DIFFSTRIDE_KEYS, Run
from .learning_dynamics import striding
from .significance import paired_difference


def compare(runs: Sequence[Run], methods: Mapping[str, str] | None = None) -> dict[str, Any]:
    """All comparisons of a set of runs, as plain data.

    Args:
        runs: from `find_runs`.
        methods: for each run's name what its settings are called; default: `name_methods`.

    Returns:
        "accuracy": for each task and method mean, sd (n - 1) and seeds, with loss, MACs per second of
        audio and parameters, and each of `evaluation.METRICS` that the task has; "mean": the mean over the
        tasks that every method has; "differences": of each two methods, see
        `significance.paired_difference`; "cutoffs": strides and cut-offs of methods that pool;
        "shared_strides": shared versus separate strides.

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
            names[run.name] = " ".join(filter(None, parts))
    return names


def _uses(run: Run, key: str) -> bool:
    return key in run.settings or key not in DIFFSTRIDE_KEYS | ALIASING_KEYS


def striding_runs(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """How the total striding factor of every run with learned strides moved, for `training_plots.striding_figure`.

    Raises:
        UsageError: if no run learned strides along time and mel.
    """
    methods = name_methods(runs)
    learned = [
        run
        for run in runs
        if run.settings.get("model.downsampling") == "diffstride"
        and run.settings["model.name"] in ("audio_cnn", "audio_resnet")
    ]
    if not learned:
        raise UsageError("none of the runs learned strides, so there is nothing to draw")
    return [
        {
            "data": run.title,
            "method": methods[run.name],
            "seed": run.seed,
            "points": striding(Path(run.name), _initial_strides(run)),
        }
        for run in learned
    ]


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
            known = [run.groups.get(task, {}) for run, task in cells[title, first]]
            groups = {clip: group for run in known for clip, group in run.items()}  # test sets that were drawn differ
            found = paired_difference(members[0], members[1], groups if all(known) else None)
            if found:
                rows.append({"task": title, "first": first, "second": second} | found)
    return rows


def _cutoffs(title: str, method: str, group: Sequence[Run]) -> list[dict[str, Any]]:
    if group[0].settings.get("model.downsampling") == "strided" or not all(run.layers for run in group):
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
                "initial_total_stride": _total(_initial_strides(group[0]), first["axis"]),
                "macs_per_second": statistics.fmean(macs),
                "macs_per_second_sd": _sd(macs),
                "parameters": group[0].results["parameters"],
            }
        )
    return rows


def _first(run: Run, axis: str) -> LayerCutoff:
    return next(layer for layer in run.layers if layer.axis == axis)


def _initial_strides(run: Run) -> list[Any] | None:
    """The strides of a run's recipe; None if it began with a trained model, which had its own."""
    return None if run.settings.get("model.init") else run.settings["model.strides"]


def _total(strides: Sequence[float | Sequence[float]] | None, axis: str) -> float | None:
    """Product of strides as a recipe writes them: one for both axes, or a pair."""
    if strides is None:
        return None
    pairs = [(stride, stride) if isinstance(stride, int | float) else stride for stride in strides if stride]
    return float(math.prod(pair[AXES.index(axis)] for pair in pairs))


def _shared(
    runs: Sequence[Run], accuracy: Sequence[Mapping[str, Any]], methods: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Pairs of methods that differ in `model.shared_stride` only."""
    key = "model.shared_stride"
    cells = {(row["task"], row["method"]): row for row in accuracy}
    found: dict[tuple[str, str], dict[bool, str]] = {}
    for run in runs:
        if run.settings.get("model.downsampling") == "diffstride" and key in run.settings:  # a waveform has one axis
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
