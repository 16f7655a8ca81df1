"""Comparison tables of any set of runs: accuracy, cost, cut-offs, and how sure a difference is.

Runs on the same tasks and data are one row; the settings in which they differ name the methods.
Seeds are averaged over. Every figure is computed from the runs' own files, unrounded, and rounded
only when it is printed.
"""

import csv
import itertools
import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .classifier import load
from .cutoffs import model_cutoffs, summarise
from .errors import ModelFileError, UsageError
from .run import PREDICTIONS_FILE, RECIPE_FILE, RESULTS_FILE, recipe_of
from .rundir import read_answers, read_results

RESAMPLES = 10_000
_NO_METHOD = {"name", "seed", "tasks", "train.workers"}


class Run(NamedTuple):
    """One finished run.

    Attributes:
        path: its directory.
        seed: its seed.
        data: what its tasks are trained on; runs with equal `data` are comparable.
        title: the same in a few words.
        tasks: the title of each of its tasks in a table.
        settings: every other setting of its recipe, by dotted key.
        results: its `results.json`.
    """

    path: Path
    seed: int
    data: str
    title: str
    tasks: dict[str, str]
    settings: dict[str, Any]
    results: dict[str, Any]


class Cell(NamedTuple):
    """One cell of a printed table."""

    text: str
    best: bool = False


class Table(NamedTuple):
    """A printed table.

    Attributes:
        title: says what it shows, with units.
        header: heading of each column.
        rows: cells of each row.
    """

    title: str
    header: list[str]
    rows: list[list[Cell]]


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
    return list({run.path.resolve(): run for run in finished}.values()), unfinished


def compare(runs: Sequence[Run]) -> dict[str, Any]:
    """All comparisons of a set of runs, as plain data.

    Args:
        runs: from `find_runs`.

    Returns:
        "accuracy": for each task and method mean, sd (n - 1) and seeds, with MACs per second of audio
        and parameters; "mean": the mean over the tasks that every method has; "differences": of each
        two methods, with a 95 % interval; "cutoffs": strides and cut-offs of methods that pool;
        "shared_strides": shared beside separate strides.

    Raises:
        UsageError: if the same run (settings and seed) is given twice.
    """
    methods = name_methods(runs)
    cells: dict[tuple[str, str], list[tuple[Run, str]]] = {}
    for run in runs:
        for task, title in run.tasks.items():
            cells.setdefault((title, methods[run.path]), []).append((run, task))
    for (title, method), members in cells.items():
        if len({run.seed for run, _ in members}) < len(members):
            paths = ", ".join(str(run.path) for run, _ in members)
            raise UsageError(f"{title}, {method}: two runs with the same seed and settings: {paths}")
    accuracy = [_accuracy(title, method, members) for (title, method), members in cells.items()]
    return {
        "runs": [str(run.path) for run in runs],
        "accuracy": accuracy,
        "mean": _mean(accuracy),
        "differences": _differences(cells),
        "cutoffs": [row for group in _by_method(runs, methods) for row in _cutoffs(*group)],
        "shared_strides": _shared(runs, accuracy, methods),
    }


def name_methods(runs: Sequence[Run]) -> dict[Path, str]:
    """A short name for the settings of each run: those that differ among runs on the same data."""
    names = {}
    for group in _groups(runs, lambda run: run.data):
        keys = list(dict.fromkeys(key for run in group for key in run.settings))
        differing = [key for key in keys if len({json.dumps(run.settings.get(key)) for run in group}) > 1]
        for run in group:
            parts = [run.settings.get("model.downsampling", "")]
            parts += [
                f"{key.rpartition('.')[2]}={_short(run.settings.get(key))}"
                for key in differing
                if key != "model.downsampling" and run.settings.get(key) is not None
            ]
            names[run.path] = " ".join(parts)
    return names


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


def tables(found: Mapping[str, Any]) -> list[Table]:
    """What `compare` found as tables for print: accuracy in %, cost in million MACs and thousand parameters."""
    methods = sorted({row["method"] for row in found["accuracy"]}, key=_method_order)
    tasks = list(dict.fromkeys(row["task"] for row in found["accuracy"]))
    cells = {(row["task"], row["method"]): row for row in found["accuracy"]}
    most = max(len(row["seeds"]) for row in found["accuracy"])

    rows = []
    for task in tasks:
        known = [cells[task, method]["mean"] for method in methods if (task, method) in cells]
        best = max(known) if len(set(known)) > 1 else None
        rows.append([Cell(task), *(_accuracy_cell(cells.get((task, method)), best, most) for method in methods)])
    if found["mean"]:
        known = list(found["mean"]["methods"].values())
        best = max(known) if len(set(known)) > 1 else None
        title = f"mean of {len(found['mean']['tasks'])} tasks"
        means = [found["mean"]["methods"].get(method) for method in methods]
        rows.append([Cell(title), *(Cell("-") if m is None else Cell(_percent(m), m == best) for m in means)])
    over = f"mean ± sd over {most} seeds" if most > 1 else "one seed"
    made = [
        Table(f"Test accuracy in %, {over}", ["task", *methods], rows),
        Table(
            "Cost: million multiply-accumulates per second of audio / thousand parameters",
            ["task", *methods],
            [[Cell(task), *(_cost_cell(cells.get((task, method))) for method in methods)] for task in tasks],
        ),
    ]
    if found["differences"]:
        header = ["task", "first", "second", "first - second", "95 % interval", "clips"]
        body = [
            [
                Cell(row["task"]),
                Cell(row["first"]),
                Cell(row["second"]),
                Cell(f"{100 * row['difference']:+.1f}", row["low"] > 0 or row["high"] < 0),
                Cell(f"{100 * row['low']:+.1f} to {100 * row['high']:+.1f}"),
                Cell(str(row["clips"])),
            ]
            for row in found["differences"]
        ]
        made.append(Table("Differences in percentage points, paired bootstrap over test clips", header, body))
    if found["cutoffs"]:
        header = ["data", "method", "axis", "stride", "cut-off", "paper's Table 2", "total stride", "was"]
        body = [_cutoff_cells(row) for row in found["cutoffs"]]
        made.append(
            Table("First layer's stride and cut-off (-6 dB; Hz, cycles per mel band); all layers", header, body)
        )
    if found["shared_strides"]:
        header = ["task", "method", "separate strides", "shared strides", "MMAC/s separate / shared"]
        body = [_shared_cells(row, most) for row in found["shared_strides"]]
        made.append(Table("One stride for both axes against one for each, test accuracy in %", header, body))
    return made


def to_markdown(made: Sequence[Table]) -> str:
    """Tables as Markdown, best values in bold.

    Example:
        >>> print(to_markdown([Table("A", ["task", "x"], [[Cell("t"), Cell("9.0 ± 0.1", True)]])]))
        **A**
        <BLANKLINE>
        | task | x |
        |---|---|
        | t | **9.0 ± 0.1** |
        <BLANKLINE>
    """
    parts = []
    for table in made:
        lines = [f"**{table.title}**", "", _bar(table.header), "|" + "---|" * len(table.header)]
        lines += [_bar(f"**{cell.text}**" if cell.best else cell.text for cell in row) for row in table.rows]
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def to_latex(made: Sequence[Table]) -> str:
    r"""Tables as LaTeX `tabular`s with booktabs rules, best values in bold.

    Example:
        >>> print(to_latex([Table("A", ["task", "x"], [[Cell("a_b"), Cell("9 ± 1", True)]])]))
        % A
        \begin{tabular}{ll}
        \toprule
        task & x \\
        \midrule
        a\_b & \textbf{9 $\pm$ 1} \\
        \bottomrule
        \end{tabular}
        <BLANKLINE>
    """
    parts = []
    for table in made:
        lines = [f"% {table.title}", rf"\begin{{tabular}}{{{'l' * len(table.header)}}}", r"\toprule"]
        lines += [" & ".join(map(_tex, table.header)) + r" \\", r"\midrule"]
        for row in table.rows:
            shown = [rf"\textbf{{{_tex(cell.text)}}}" if cell.best else _tex(cell.text) for cell in row]
            lines.append(" & ".join(shown) + r" \\")
        parts.append("\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n")
    return "\n".join(parts)


def write_comparison(folder: Path, found: Mapping[str, Any]) -> list[Path]:
    """Write `tables.md`, `tables.tex`, `comparison.json` and a CSV for each kind of comparison.

    Returns:
        The files written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    made = tables(found)
    texts = {
        "tables.md": to_markdown(made),
        "tables.tex": to_latex(made),
        "comparison.json": json.dumps(found, indent=1) + "\n",
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    written = [folder / name for name in texts]
    for name in ("accuracy", "differences", "cutoffs", "shared_strides"):
        if found[name]:
            written.append(folder / f"{name}.csv")
            _write_csv(written[-1], found[name])
    return written


def _read_run(folder: Path) -> Run:
    results, recipe = read_results(folder), recipe_of(folder).model_dump()
    tasks = recipe["tasks"]
    titles = {}
    for name, task in tasks.items():
        others = ", ".join(other for other in tasks if other != name)
        titles[name] = f"{_data_title(task)} {name}" + (f" (with {others})" if others else "")
    data = " + ".join(dict.fromkeys(_data_title(task) for task in tasks.values()))
    return Run(
        path=folder,
        seed=results["seed"],
        data=json.dumps(tasks, sort_keys=True),
        title=f"{data} {', '.join(tasks)}",
        tasks=titles,
        settings={key: value for key, value in _flat(recipe).items() if key not in _NO_METHOD},
        results=results,
    )


def _data_title(task: Mapping[str, Any]) -> str:
    data = task["data"]
    return Path(str(data.get("path", data["source"]))).name


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict) and name not in _NO_METHOD:
            flat |= _flat(value, f"{name}.")
        else:
            flat[name] = value
    return flat


def _short(value: Any) -> str:
    return json.dumps(value, separators=(",", ":")).replace('"', "")


def _groups(runs: Iterable[Run], key: Any) -> list[list[Run]]:
    groups: dict[Any, list[Run]] = {}
    for run in runs:
        groups.setdefault(key(run), []).append(run)
    return list(groups.values())


def _by_method(runs: Sequence[Run], methods: Mapping[Path, str]) -> list[tuple[str, str, list[Run]]]:
    groups = _groups(runs, lambda run: (run.data, methods[run.path]))
    return [(group[0].title, methods[group[0].path], group) for group in groups]


def _accuracy(title: str, method: str, members: Sequence[tuple[Run, str]]) -> dict[str, Any]:
    values = [run.results["tasks"][task]["accuracy"] for run, task in members]
    macs = [run.results["macs_per_second"] for run, _ in members]
    return {
        "task": title,
        "method": method,
        "mean": statistics.fmean(values),
        "sd": _sd(values),
        "seeds": [run.seed for run, _ in members],
        "clips": members[0][0].results["tasks"][members[0][1]]["n"],
        "macs_per_second": statistics.fmean(macs),
        "macs_per_second_sd": _sd(macs),
        "parameters": members[0][0].results["parameters"],
    }


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
    correct = {key: [(run.seed, _correct(run.path, task)) for run, task in members] for key, members in cells.items()}
    for (title, first), (other, second) in itertools.combinations(correct, 2):
        if title != other:
            continue
        total: dict[str, list[float]] = {}
        seconds = dict(correct[title, second])
        for seed, answers in correct[title, first]:
            for clip, right in answers.items():
                if clip in seconds.get(seed, {}):
                    entry = total.setdefault(clip, [0.0, 0.0])
                    entry[0] += right - seconds[seed][clip]
                    entry[1] += 1
        if total:
            difference, weight = np.array(list(total.values())).T
            mean, low, high = bootstrap_interval(difference, weight)
            pair = {"task": title, "first": first, "second": second, "difference": mean, "low": low, "high": high}
            rows.append(
                pair | {"clips": len(total), "seeds": sorted(seconds.keys() & dict(correct[title, first]).keys())}
            )
    return rows


def _correct(run_dir: Path, task: str) -> dict[str, bool]:
    answers = read_answers(run_dir)
    if task not in answers:
        raise ModelFileError(f"{run_dir / PREDICTIONS_FILE}: has no answers for the task {task!r}")
    files, truth, label, _ = answers[task]
    return {file: true == said for file, true, said in zip(files, truth, label, strict=True)}


def _cutoffs(title: str, method: str, group: Sequence[Run]) -> list[dict[str, Any]]:
    models = [load(run.path) for run in group]
    if models[0].trunk.settings["downsampling"] == "strided":
        return []
    layers = summarise([model_cutoffs(model) for model in models])
    rows = []
    for number, axis in enumerate(("time", "mel")):
        first = next(row for row in layers if row["axis"] == axis)
        totals = [float(np.prod([stride[number] for stride in model.trunk.strides()])) for model in models]
        initial = float(np.prod([stride[number] for stride in models[0].trunk.settings["strides"]]))
        rows.append(
            {
                "data": title,
                "method": method,
                "axis": axis,
                "seeds": [run.seed for run in group],
                "stride": first["stride"],
                "stride_sd": first["stride_sd"],
                "minus_6db": first["own"]["minus_6db"],
                "paper": first["paper"],
                "total_stride": statistics.fmean(totals),
                "total_stride_sd": _sd(totals),
                "initial_total_stride": initial,
            }
        )
    return rows


def _shared(
    runs: Sequence[Run], accuracy: Sequence[Mapping[str, Any]], methods: Mapping[Path, str]
) -> list[dict[str, Any]]:
    """Pairs of methods that differ in `model.shared_stride` only."""
    key = "model.shared_stride"
    cells = {(row["task"], row["method"]): row for row in accuracy}
    found: dict[tuple[str, str], dict[bool, str]] = {}
    for run in runs:
        if run.settings["model.downsampling"] == "diffstride":
            rest = json.dumps({k: v for k, v in run.settings.items() if k != key}, sort_keys=True)
            for title in run.tasks.values():
                found.setdefault((title, rest), {})[run.settings[key]] = methods[run.path]
    return [
        {"task": title, "separate": dict(cells[title, pair[False]]), "shared": dict(cells[title, pair[True]])}
        for (title, _), pair in found.items()
        if len(pair) == 2
    ]


def _method_order(method: str) -> tuple[int, str]:
    order = ("strided", "spectral", "diffstride")
    first = method.split(" ")[0]
    return order.index(first) if first in order else len(order), method


def _sd(values: Sequence[float]) -> float | None:
    return statistics.stdev(values) if len(values) > 1 else None


def _percent(mean: float, sd: float | None = None) -> str:
    return f"{100 * mean:.1f}" + ("" if sd is None else f" ± {100 * sd:.1f}")


def _accuracy_cell(row: Mapping[str, Any] | None, best: float | None, most: int) -> Cell:
    if row is None:
        return Cell("-")
    fewer = f" ({len(row['seeds'])})" if len(row["seeds"]) < most else ""
    return Cell(_percent(row["mean"], row["sd"]) + fewer, row["mean"] == best)


def _cost_cell(row: Mapping[str, Any] | None) -> Cell:
    if row is None:
        return Cell("-")
    sd = f" ± {row['macs_per_second_sd'] / 1e6:.1f}" if row["macs_per_second_sd"] else ""
    return Cell(f"{row['macs_per_second'] / 1e6:.1f}{sd} / {row['parameters'] / 1e3:.1f}")


def _cutoff_cells(row: Mapping[str, Any]) -> list[Cell]:
    digits = 1 if row["axis"] == "time" else 3
    sd = "" if row["stride_sd"] is None else f" ± {row['stride_sd']:.2f}"
    total_sd = "" if row["total_stride_sd"] is None else f" ± {row['total_stride_sd']:.1f}"
    texts = [row["data"], row["method"], row["axis"], f"{row['stride']:.2f}{sd}", f"{row['minus_6db']:.{digits}f}"]
    texts += [f"{row['paper']:.{digits}f}", f"{row['total_stride']:.1f}{total_sd}", f"{row['initial_total_stride']:g}"]
    return [Cell(text) for text in texts]


def _shared_cells(row: Mapping[str, Any], most: int) -> list[Cell]:
    separate, shared = row["separate"], row["shared"]
    best = max(separate["mean"], shared["mean"])
    macs = f"{separate['macs_per_second'] / 1e6:.1f} / {shared['macs_per_second'] / 1e6:.1f}"
    cells = [_accuracy_cell(side, best, most) for side in (separate, shared)]
    return [Cell(row["task"]), Cell(separate["method"]), *cells, Cell(macs)]


def _bar(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _tex(text: str) -> str:
    for special in "_%&#{}$":
        text = text.replace(special, "\\" + special)
    return text.replace("±", r"$\pm$")


def _write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    flat = [
        {key: " ".join(map(str, value)) if isinstance(value, list) else value for key, value in _flat(row).items()}
        for row in rows
    ]
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, list(flat[0]))
        table.writeheader()
        table.writerows(flat)
