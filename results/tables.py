"""The tables of docs/results.md: a function for each kind, which makes none where there is no run of that kind."""

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from collect import read_recipe, read_rows
from evidence import (
    AFTER,
    ALIASED_AFTER,
    ALIASING,
    FIXED,
    FOLDING,
    OURS,
    PLANNED,
    SEEDS,
    SLOW,
    WIDENED_LESS,
    Evidence,
    by_axis,
    by_value,
    machine_of,
    method_order,
    plain,
    task_order,
)
from groups import read_groups

from audiostride.analysis.significance import is_significant
from audiostride.analysis.tables import Cell, Table, points
from audiostride.analysis.wording import mean_and_sd, percent

MATCHED = 1.1
"""A method is of the cost of another if it takes at most so many times its multiply-accumulates."""

WIDE = "strided, widened"

PAPER_ACCURACY = {  # Riad et al. 2022, Table 1, single-task: strided, spectral, DiffStride
    "spoken words": "87.3 / 88.5 / 90.5 (Speech Commands)",
    "instrument family": "72.6 / 72.9 / 75.4 (NSynth instrument)",
    "pitch": "91.8 / 90.1 / 92.2 (NSynth pitch)",
}
PAPER_CUTOFFS = {  # Table 2: Hz, cycles per mel band
    "spoken words": "25.00, 0.2500",
    "instrument family": "38.33, 0.2292",
    "pitch": "37.50, 0.3021",
}


def best_others(evidence: Evidence) -> Iterable[Table]:
    """Learned aliasing in two groups and the best other method, of its cost and of any, on every task."""
    where = []
    for name, strides in ((FOLDING, "learned strides"), (FIXED, "fixed strides")):
        rows, sides = [], {}
        for task in (task for task in evidence.tasks if (task, name) in evidence.cells):
            best, dearest = (_best_other(evidence, task, name, ratio) for ratio in (MATCHED, math.inf))
            if not best:
                continue
            _, wide, spectral, _ = _rivals(evidence, task, name)
            rivals = {
                "the best other method of its cost": best,
                "the best of any cost": dearest,
                "the widened strided network of its cost": wide,
                "spectral pooling": spectral,
            }
            found = {what: evidence.difference(task, name, rival) for what, rival in rivals.items()}
            for what, row in found.items():
                worse, better = sides.setdefault(what, ([], []))
                if row and is_significant(row):
                    (better if row["difference"] > 0 else worse).append(task)
            first, second, *_ = found.values()
            half = f"{50 * (first['high'] - first['low']):.1f}" if first else "-"
            ours, other = evidence.cells[task, name], evidence.cells[task, best]
            shown = f"{best}: {percent(other['mean'], other['sd'])}"
            rows.append(_row(task, percent(ours["mean"], ours["sd"]), _mmac(ours), shown, _mmac(other)))
            rows[-1] += _row(_difference(first), half, _difference(second))
        if rows:
            title = (
                f"Learned aliasing in 2 groups, after the ReLU, with {strides}: accuracy in %, differences in points"
            )
            header = ["task", "accuracy, %", "MMAC", "best other method of its cost, %", "MMAC", "minus it"]
            yield Table(title, [*header, "half of that interval", "minus the best of any cost"], rows)
        where += [_row(strides, what, *(", ".join(side) or "-" for side in both)) for what, both in sides.items()]
    if where:
        yield Table("Significant differences", ["with", "compared with", "below it on", "above it on"], where)


def minus_baselines(evidence: Evidence, *names: str) -> Iterable[Table]:
    """Methods less each baseline, task by task, with the ratio of their costs."""
    for name in names:
        header = ["task"]
        for rival in ("strided", "the widened strided one", "spectral", *[OURS] * (name != OURS)):
            header += [f"minus {rival}", "times its MMAC"]
        rows = []
        for task in (task for task in evidence.tasks if (task, name) in evidence.cells):
            cells = []
            for rival in (rival for rival in _rivals(evidence, task, name) if rival != name):
                cells += [_difference(evidence.difference(task, name, rival)), _ratio(evidence, task, name, rival)]
            rows.append(_row(task, *cells))
        if rows:
            yield Table(f"{name}, in points, with the 95 % confidence interval", header, rows)


def accuracy(evidence: Evidence) -> Iterable[Table]:
    """The paper's Table 1 with ours, and the paper's own figures."""
    order = ("strided", WIDENED_LESS, WIDE, "spectral", OURS, FOLDING, FIXED)
    methods = [name for name in order if any(name == tried for _, tried in evidence.cells)]
    rows = []
    for task in evidence.tasks:
        found = [evidence.cells.get((task, method)) for method in methods]
        if any(found):
            rows.append(_row(task, *_accuracies(found), PAPER_ACCURACY.get(task, "-")))
    complete = [t for t in evidence.tasks if all((t, method) in evidence.cells for method in methods)]
    if methods and len(complete) > 1:
        means = [statistics.fmean(evidence.cells[task, method]["mean"] for task in complete) for method in methods]
        rows.append(_row(f"mean of {len(complete)}", *(Cell(percent(m), m == _highest(means)) for m in means), "-"))
    if rows:
        title = "Test accuracy in %, mean ± sd over seeds (number of seeds, where it is not 3)"
        yield Table(title, ["task", *methods, "the paper's strided / spectral / DiffStride R=4"], rows)


def each_task(evidence: Evidence) -> Iterable[Table]:
    """All methods of every task with their cost and differences."""
    for task in evidence.tasks:
        names, rows = evidence.names(task), []
        best = _highest(evidence.cells[task, name]["mean"] for name in names)
        rivals = [rival for rival in ("strided", WIDE) if rival in names]
        for name in names:
            row = evidence.cells[task, name]
            shown = Cell(percent(row["mean"], row["sd"]), row["mean"] == best)
            cells = [name, shown, f"{row['loss']:.3f}", _seeds(row), _mmac(row), f"{row['parameters'] / 1e3:.0f}"]
            rows.append(_row(*cells, *(_difference(evidence.difference(task, name, rival)) for rival in rivals)))
        header = ["method", "accuracy", "loss", "seeds", "MMAC", "thousand parameters"]
        title = f"{task}, {evidence.cells[task, names[0]]['clips']:,} in the test set"
        yield Table(title, [*header, *(f"minus {rival}" for rival in rivals)], rows)


def parts_of_aliasing(evidence: Evidence) -> Iterable[Table]:
    """What each part of learned aliasing brings: slower strides, pooling after the ReLU, one alpha or two groups."""
    columns = {
        OURS: "DiffStride R=1",
        SLOW: "strides at 0.01",
        AFTER: "and after the ReLU",
        ALIASING: "and aliasing",
        ALIASED_AFTER: "and both",
        FOLDING: "and both, in 2 groups",
        FIXED: "the same with fixed strides",
    }
    rows = []
    for task in evidence.tasks:
        found = [evidence.cells.get((task, name)) for name in columns]
        if sum(row is not None for row in found[1:]) > 2:
            rows.append(_row(task, *_accuracies(found)))
    if rows:
        yield Table("What each part brings", ["task", *columns.values()], rows)
    yield from minus_baselines(evidence, ALIASED_AFTER, ALIASING)


def learned_alpha(evidence: Evidence) -> Iterable[Table]:
    """What alpha has become in the layers that downsample most: the first two."""
    rows = []
    for task in evidence.tasks:
        if task.startswith("pitch (") and len(evidence.tasks) > 1:
            continue  # one network learned both tasks
        for name in (ALIASED_AFTER, FOLDING, FIXED):
            known = [run.results["aliasing"] for run in evidence.runs_of(task, name) if run.results.get("aliasing")]
            if known:
                alphas = (_mean_alpha(known, layer, axis) for axis in (0, 1) for layer in (0, 1))
                rows.append(_row(task.replace(" (with pitch)", " with pitch"), name, len(known), *alphas))
    if rows:
        header = ["task", "method", "seeds", "time, layer 1", "time, layer 2", "mel, layer 1", "mel, layer 2"]
        yield Table("Learned alpha", header, rows)


def resting() -> Iterable[Table]:
    """Strides that rest before the end, and batch norm's statistics recomputed."""
    rows, found = read_rows("resting.csv"), []
    for kind in dict.fromkeys(row["strides"] for row in rows):
        chosen = [row for row in rows if row["strides"] == kind]
        columns = [[float(row[name]) for row in chosen] for name in ("accuracy", "recomputed", "largest_fall")]
        shown = (percent(statistics.fmean(v), statistics.stdev(v) if len(v) > 1 else None) for v in columns)
        found.append(_row(kind, _seeds({"seeds": [int(row["seed"]) for row in chosen]}), *shown))
    if found:
        header = ["strides", "seeds", "accuracy", "with recomputed statistics"]
        header.append("largest fall in validation accuracy in one epoch, points")
        yield Table("Moving strides and batch norm", header, found)


def ramp_width(evidence: Evidence) -> Iterable[Table]:
    """What the ramp width R costs and brings."""
    rows = []
    for task in evidence.tasks:
        widths = [width for width in (1, 2, 4) if (task, f"DiffStride R={width}") in evidence.cells]
        for width in widths if len(widths) > 1 else ():
            name, widest = f"DiffStride R={width}", "DiffStride R=4"
            row = evidence.cells[task, name]
            cells = [task, width, percent(row["mean"], row["sd"]), f"{row['loss']:.3f}", _seeds(row), _mmac(row)]
            ratio = "" if width == 4 else _ratio(evidence, task, name, widest)
            cells += [_difference(evidence.difference(task, name, widest)), ratio]
            rows.append(_row(*cells))
    if rows:
        header = ["task", "R", "accuracy", "loss", "seeds", "MMAC", "minus R=4, same seeds", "times its MMAC"]
        yield Table("DiffStride's ramp width R", header, rows)


def cutoffs(evidence: Evidence) -> Iterable[Table]:
    """Learned strides of the first layer as cut-offs, as in the paper's Table 2."""
    found = {(row["data"], row["method"], row["axis"]): row for row in evidence.found["cutoffs"]}
    rows = []
    for data, name in dict.fromkeys((data, name) for data, name, _ in found):
        if evidence.method(name).kind != "diffstride" or evidence.method(name).others:
            continue  # the studies of single settings have tables of their own
        time, mel = found[data, name, "time"], found[data, name, "mel"]
        tasks = next(list(r.tasks.values()) for r in evidence.runs.values() if r.title == data)
        trained_on = tasks[0] if len(tasks) == 1 else " and ".join(task.partition(" (")[0] for task in tasks)
        strides = (mean_and_sd(axis["stride"], axis["stride_sd"], 2) for axis in (time, mel))
        paper = (mean_and_sd(axis["paper"], axis["paper_sd"], digits) for axis, digits in ((time, 1), (mel, 3)))
        half = f"{time['minus_6db']:.1f}", f"{mel['minus_6db']:.3f}"
        total = f"{time['total_stride']:.1f} x {mel['total_stride']:.1f}"
        paper_figures = PAPER_CUTOFFS.get(tasks[0], "-")
        rows.append(_row(trained_on, name, _seeds(time), *strides, *paper, *half, paper_figures, total))
    if rows:
        rows.sort(key=lambda row: (task_order(row[0].text), method_order(row[1].text)))
        header = ["trained on", "method", "seeds", "stride, time", "stride, mel", "Hz", "cycles/band", "-6 dB: Hz"]
        header += ["-6 dB: cycles/band", "the paper's Hz, cycles/band", "product of all strides"]
        yield Table("First layer, mean ± sd over seeds", header, rows)


def shared_strides(evidence: Evidence) -> Iterable[Table]:
    """The paper's Table A.7."""
    rows = []
    for task in evidence.tasks:
        for name in (name for name in evidence.names(task) if evidence.method(name).shared):
            separate = evidence.method(name)._replace(shared=False).name
            if (task, separate) in evidence.cells:
                cells = [evidence.cells[task, separate], evidence.cells[task, name]]
                difference = _difference(evidence.difference(task, separate, name))
                rows.append(_row(task, separate, *_accuracies(cells), difference, *map(_mmac, cells)))
    if rows:
        header = ["task", "method", "separate", "shared", "separate minus shared", "MMAC separate", "MMAC shared"]
        yield Table("In the form of Table A.7 of the paper", header, rows)


def initial_strides(evidence: Evidence) -> Iterable[Table]:
    """Good and poor initial strides."""
    rows = []
    for task in evidence.tasks:
        names = evidence.names(task)
        for name in (name for name in names if evidence.method(name).start):
            method = evidence.method(name)
            usual = next((u.name for u in (method._replace(start=""), plain(method)) if u.name in names), None)
            for start, tried in (("(2, 2)", usual), (method.start, name)) if usual else ():
                row, run = evidence.cells[task, tried], evidence.runs_of(task, tried)[0]
                first = " x ".join(f"{math.prod(axis):g}" for axis in by_axis(run.settings["model.strides"]))
                difference = _difference(evidence.difference(task, name, usual)) if tried == name else ""
                cells = [task, method._replace(start="").name, start, percent(row["mean"], row["sd"]), _seeds(row)]
                rows.append(_row(*cells, difference, _mmac(row), first, _totals(evidence, task, tried)))
    if rows:
        header = ["task", "method", "initial strides", "accuracy", "seeds", "minus default", "MMAC"]
        header += ["all strides, initial", "all strides, final"]
        body = [list(row) for row in dict.fromkeys(map(tuple, rows))]
        yield Table("Accuracy and strides from both initial strides", header, body)


def studies(evidence: Evidence) -> dict[str, list[Table]]:
    """Runs that differ in a single further setting, by its key: the strides' learning rate, the regulariser ..."""
    made: dict[str, list[Table]] = {}
    for key in sorted({key for m in evidence.methods.values() if len(m.others) == 1 for key, _ in m.others}):
        rows = []
        for task in evidence.tasks:
            by_base: dict[str, list[str]] = {}
            for name in evidence.names(task):
                if [other for other, _ in evidence.method(name).others] == [key]:
                    by_base.setdefault(evidence.method(name)._replace(others=()).name, []).append(name)
            for base, varied in by_base.items():
                group = [*varied, base] if base in evidence.names(task) else varied
                group.sort(key=lambda name: by_value(evidence.runs_of(task, name)[0].settings[key]))
                rows += [_study_row(evidence, task, name, base, key) for name in group if len(group) > 1]
        if rows:
            header = ["task", "method", key.rpartition(".")[2], "accuracy", "loss", "seeds", "minus the default"]
            header += ["MMAC", "times its MMAC", "first layer: Hz", "cycles/band", "all strides"]
            made[key] = [Table(f"Only `{key}` changed", header, rows)]
    return made


def by_group_and_by_clip(evidence: Evidence, earlier: Evidence) -> Iterable[Table]:
    """Test accuracy by method under both ways to hold validation out, where there are runs of both."""
    columns = [n for n in ("strided", WIDE, "spectral", OURS, FOLDING, FIXED) if any(n == t for _, t in evidence.cells)]
    rows = []
    for task in [task for task in evidence.tasks if task in earlier.tasks]:
        for title, found in (("by group", evidence), ("by clip", earlier)):
            rows.append(_row(task, title, *_accuracies([found.cells.get((task, name)) for name in columns], False)))
    if rows:
        yield Table("Test accuracy in %, by how validation was held out", ["task", "validation", *columns], rows)


def what_was_run(evidence: Evidence) -> Iterable[Table]:
    """Test sets and what is resampled of them, networks, machines, and what is planned but missing."""
    rows = sorted(read_rows("runs.csv"), key=lambda row: row["data"])
    known, tests, sizes = read_groups(), {}, {}
    for row in rows:
        found = known.get(row["clips"], {"n_groups": row["n"], "column": "test items one by one"})
        tests[row["data"]] = _row(
            row["data"], f"{int(float(row['n'])):,}", f"{int(found['n_groups']):,}", found["column"]
        )
        trunk = read_recipe(row["recipe"])["model"]["name"]
        size = (row["data"], f"`{trunk}`", row["channels"], row["epochs"], row["batch_size"])
        sizes.setdefault(size, set()).add((row["recipe"], row["seed"]))
    yield Table("Test sets", ["data", "test items", "groups resampled", "which"], list(tests.values()))
    body = [_row(*size, len(found)) for size, found in sizes.items()]
    yield Table("Networks", ["data", "network", "channels", "epochs", "batch size", "runs"], body)
    machines = Counter(machine_of(row) for row in {(row["recipe"], row["seed"]): row for row in rows}.values())
    yield Table("Hardware and versions", ["machine", "runs"], [_row(*pair) for pair in machines.items()])
    gaps = []
    for task in PLANNED:
        for name, wanted in SEEDS.items():
            there = len(evidence.cells[task, name]["seeds"]) if (task, name) in evidence.cells else 0
            gaps += [_row(task, name, f"{there} of {wanted}")] if there < wanted else []
    if gaps:
        yield Table("Planned but not yet run", ["task", "method", "seeds"], gaps)


def differences(evidence: Evidence) -> dict[str, list[tuple[str, str, dict[str, Any]]]]:
    """For the figure: each method less its baselines, by task."""
    panels = {}
    for method in (OURS, FOLDING, FIXED):
        rows = []
        for task in evidence.tasks:
            for rival in _rivals(evidence, task, method) if (task, method) in evidence.cells else []:
                if rival != OURS and (row := evidence.difference(task, method, rival)):
                    rows.append((task, rival.removesuffix(" less"), row))
        if rows:
            panels[method.replace(", after", ",\nafter")] = rows
    return panels


def _rivals(evidence: Evidence, task: str, name: str) -> list[str]:
    """What a method is compared with on a task; of several widened strided networks the cheapest that costs as much."""
    cost = {other: evidence.cells[task, other]["macs_per_second"] for other in evidence.names(task)}
    wide = sorted((other for other in cost if other.startswith(WIDE)), key=cost.__getitem__)
    equal = [other for other in wide if cost[other] > 0.98 * cost[name]]
    return ["strided", *(equal[:1] or wide[-1:] or [""]), "spectral", OURS]


def _best_other(evidence: Evidence, task: str, name: str, cost_ratio: float) -> str:
    """The most accurate method without learned aliasing that costs at most so many times what another one does."""
    limit = cost_ratio * evidence.cells[task, name]["macs_per_second"]
    cells = {other: evidence.cells.get((task, other)) for other in ("strided", WIDENED_LESS, WIDE, "spectral", OURS)}
    known = {other: row["mean"] for other, row in cells.items() if row and row["macs_per_second"] <= limit}
    return max(known, key=known.__getitem__, default="")


def _study_row(evidence: Evidence, task: str, name: str, base: str, key: str) -> list[Cell]:
    row, run = evidence.cells[task, name], evidence.runs_of(task, name)[0]
    axes = {r["axis"]: r for r in evidence.found["cutoffs"] if (r["method"], r["data"]) == (name, run.title)}
    first = [
        mean_and_sd(axes[axis]["paper"], axes[axis]["paper_sd"], digits) if axis in axes else "-"
        for axis, digits in (("time", 1), ("mel", 3))
    ]
    value = run.settings[key]
    shown = f"{value:g}" if isinstance(value, int | float) else str(value)
    cells = [task, base, shown, percent(row["mean"], row["sd"]), f"{row['loss']:.3f}", _seeds(row)]
    ratio = "" if name == base else _ratio(evidence, task, name, base)
    cells += [_difference(evidence.difference(task, name, base)), _mmac(row), ratio]
    return _row(*cells, *first, _totals(evidence, task, name))


def _totals(evidence: Evidence, task: str, name: str) -> str:
    """Product of the strides of all layers, time x mel (a waveform has time alone), mean over runs."""
    runs = evidence.runs_of(task, name)
    totals = [[math.prod(axis) for axis in zip(*run.results["strides"], strict=True)] for run in runs]
    return " x ".join(f"{statistics.fmean(values):.1f}" for values in zip(*totals, strict=True))


def _mean_alpha(runs: Sequence[Any], layer: int, axis: int) -> str:
    found = [run[layer][axis] for run in runs]
    groups = zip(*(alpha if isinstance(alpha, list) else [alpha] for alpha in found), strict=True)
    return " and ".join(f"{statistics.fmean(alphas):.2f}" for alphas in groups)


def _ratio(evidence: Evidence, task: str, first: str, second: str) -> str:
    """Multiply-accumulates of one method over those of another."""
    rows = [evidence.cells.get((task, name)) for name in (first, second)]
    return f"{rows[0]['macs_per_second'] / rows[1]['macs_per_second']:.2f}" if all(rows) else ""


def _row(*values: object) -> list[Cell]:
    return [value if isinstance(value, Cell) else Cell(f"{value}") for value in values]


def _difference(row: Mapping[str, Any] | None) -> Cell:
    """A difference with its interval in points, bold where it is significant; empty where there is none."""
    if row is None:
        return Cell("")
    return Cell(f"{points(row['difference'])} ({points(row['low'])} to {points(row['high'])})", is_significant(row))


def _accuracies(rows: Sequence[Mapping[str, Any] | None], mark_best: bool = True) -> list[Cell]:
    """Mean and sd of accuracies in percent, and the number of seeds where it is not three."""
    best = _highest(row["mean"] for row in rows if row) if mark_best else None
    few = ["" if row is None or len(row["seeds"]) == 3 else f" ({len(row['seeds'])})" for row in rows]
    return [
        Cell(percent(row["mean"], row["sd"]) + n, row["mean"] == best) if row else Cell("-")
        for row, n in zip(rows, few, strict=True)
    ]


def _highest(values: Iterable[float]) -> float | None:
    """The best of several; None where there is nothing to be better than."""
    known = set(values)
    return max(known) if len(known) > 1 else None


def _mmac(row: Mapping[str, Any]) -> str:
    """Million multiply-accumulates a second."""
    return mean_and_sd(row["macs_per_second"] / 1e6, (row["macs_per_second_sd"] or 0) / 1e6 or None, 1)


def _seeds(row: Mapping[str, Any]) -> str:
    return " ".join(map(str, sorted(row["seeds"])))
