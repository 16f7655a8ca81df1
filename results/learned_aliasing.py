"""The page on learned aliasing: how it compares, what was learned, what each part brings."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from cells import accuracy_cell, difference_cell, highest, mmac, numbers, outcome, sample_sd, wrap
from collect import read_rows
from evidence import AFTER, ALIASED_AFTER, ALIASING, FIXED, FOLDING, OURS, SLOW, WIDENED_LESS, Evidence

from audiostride.analysis.tables import Cell, Table, to_markdown
from audiostride.analysis.wording import percent

MATCHED = 1.1
"""A method is of the cost of another if it takes at most so many times its multiply-accumulates."""

COMPARED = (
    "the best other method of its cost",
    "the best of any cost",
    "the widened strided network of its cost",
    "spectral pooling",
)

STORY = (
    "Pooling removes what lies above its cut-off before any ReLU can make use of it; a strided convolution folds it "
    "down, where it gets mixed up with everything else. A layer can learn how much to fold, for each of two groups of "
    "channels, after the ReLU, with learned strides (R = 1) or fixed ones (see [below](#learned-aliasing)). The other "
    "methods are strided convolutions, wider ones, fixed spectral pooling and learned strides without aliasing:"
)


def learned_aliasing(evidence: Evidence) -> str:
    """What learning the aliasing in two groups changes against each rival, and what was learned."""
    tables = _beside_rivals(evidence, (FOLDING, FIXED))
    if not tables:
        return ""
    text = (
        "A convolution followed by low-pass pooling is linear, so modulations above the cut-off are gone before the "
        "first ReLU; a strided convolution folds them down (aliasing), where later layers can use them. Learned "
        "aliasing (docs/layers.md) is learned at a rate of 0.06, the strides at 0.01 (on images at 0.05, as without "
        "aliasing); after the ReLU, a layer pools what has been rectified. In two groups of channels alpha starts at 0 "
        "and 1. One setting serves all tasks; it was chosen by prototype runs with one seed, whose test scores on "
        "pitch, pitch with family, and environmental sounds were seen. Fixed strides with learned aliasing, and "
        "strided networks widened less, were trained on a different CPU (AMD EPYC) from the other methods on sound "
        "(Intel); all methods on images on the AMD one."
    )
    parts = [wrap(text), to_markdown(tables), _alphas(evidence)]
    return "## Learned aliasing\n\n" + "\n\n".join(filter(None, parts)) + "\n"


def aliasing_parts(evidence: Evidence) -> str:
    """What each part of the method brings: slower strides, pooling after the ReLU, one alpha or two groups."""
    tables = _beside_rivals(evidence, (ALIASED_AFTER, ALIASING))
    if not tables:
        return ""
    text, resting = "With a single group alpha starts at 0.1 in every layer and axis.", ""
    if ("pitch", ALIASING) in evidence.cells:
        text += " Learned aliasing before the ReLU was trained on a different CPU (AMD EPYC) from the others (Intel)."
        resting = _resting()
    parts = [wrap(text), _parts(evidence), to_markdown(tables), resting]
    return "## The parts of learned aliasing\n\n" + "\n\n".join(filter(None, parts)) + "\n"


def _beside_rivals(evidence: Evidence, names: Sequence[str]) -> list[Table]:
    """A table for each method: what it is better or worse than each rival by, task by task."""
    header = ["task", "minus strided", "minus the widened strided one", "minus spectral", f"minus {OURS}"]
    tables = []
    for name in names:
        tasks = [task for task in evidence.tasks if (task, name) in evidence.cells]
        found = {task: rivals_of(evidence, task, name) for task in tasks}
        rows = [
            [Cell(task), *(difference_cell(evidence.difference(task, name, rival)) for rival in rivals)]
            for task, rivals in found.items()
        ]
        if rows:
            tables.append(Table(f"{name}, in points, with the 95 % confidence interval", header, rows))
    return tables


def rivals_of(evidence: Evidence, task: str, name: str) -> list[str]:
    """What a method is compared with on a task; of several widened strided networks the cheapest that costs as much."""
    cost = {other: evidence.cells[task, other]["macs_per_second"] for other in evidence.names(task)}
    wide = sorted((other for other in cost if other.startswith("strided, widened")), key=cost.__getitem__)
    equal = [other for other in wide if cost[other] > 0.98 * cost[name]]
    return ["strided", *(equal[:1] or wide[-1:] or [""]), "spectral", OURS]


def verdict(evidence: Evidence) -> str:
    """Learned aliasing in two groups beside the best other method, of its cost and of any, on every task."""
    tables, where, lines = [], [], []
    for name, strides in ((FOLDING, "learned strides"), (FIXED, "fixed strides")):
        found = {task: beside for task in evidence.tasks if (beside := _beside_best(evidence, task, name))}
        if not found:
            continue
        tables.append(_best_table(evidence, name, strides, found))
        for i, rival in enumerate(COMPARED):
            rows = {task: beside.differences[i] for task, beside in found.items()}
            sides = ([t for t, row in rows.items() if row and outcome(row) == s] for s in ("worse", "better"))
            where.append([Cell(strides), Cell(rival), *(Cell(", ".join(tasks) or "-") for tasks in sides)])
        best_on: dict[str, list[str]] = {}
        for task, beside in found.items():
            best_on.setdefault(beside.best.split(",")[0], []).append(f"{task} {_half(beside.differences[0])}")
        said = "; ".join(f"{other} on {', '.join(on)}" for other, on in best_on.items())
        lines.append(wrap(f"- with {strides}: {said}", "  "))
    if not tables:
        return ""
    tables.append(Table("Significant differences", ["with", "compared with", "below it on", "above it on"], where))
    text = (
        "What it is up against changes with the task, and it has to find out by itself which suits. The best other "
        "method of its cost, and half of the interval beside it in points, which is what the two have to differ by to "
        "be told apart with these seeds and test sets:"
    )
    return "\n\n".join([wrap(STORY), to_markdown(tables).rstrip(), wrap(text), "\n".join(lines)]) + "\n"


class _BesideBest(NamedTuple):
    """A method on a task: the best other method of its cost, and how it differs from each of `COMPARED`."""

    best: str
    differences: list[dict[str, Any] | None]


def _beside_best(evidence: Evidence, task: str, name: str) -> _BesideBest | None:
    best, dearer = (_best_other(evidence, task, name, ratio) for ratio in (MATCHED, math.inf))
    if not best:
        return None
    _, strided, spectral, _ = rivals_of(evidence, task, name)
    return _BesideBest(best, [evidence.difference(task, name, other) for other in (best, dearer, strided, spectral)])


def _best_table(evidence: Evidence, name: str, strides: str, found: Mapping[str, _BesideBest]) -> Table:
    rows = []
    for task, (best, differences) in found.items():
        ours, other = evidence.cells[task, name], evidence.cells[task, best]
        cells = [Cell(task), Cell(percent(ours["mean"], ours["sd"])), Cell(mmac(ours))]
        cells += [Cell(f"{best}: {percent(other['mean'], other['sd'])}"), Cell(mmac(other))]
        rows.append([*cells, *map(difference_cell, differences[:2])])
    title = f"Learned aliasing in 2 groups, after the ReLU, with {strides}: accuracy in %, differences in points"
    header = ["task", "accuracy, %", "MMAC", "best other method of its cost, %", "MMAC", "minus it"]
    return Table(title, [*header, "minus the best of any cost"], rows)


def _best_other(evidence: Evidence, task: str, name: str, cost_ratio: float) -> str:
    """The most accurate method without learned aliasing that costs at most so many times what another one does."""
    if (task, name) not in evidence.cells:
        return ""
    limit = cost_ratio * evidence.cells[task, name]["macs_per_second"]
    others = [r for r in ("strided", WIDENED_LESS, "strided, widened", "spectral", OURS) if (task, r) in evidence.cells]
    known = [other for other in others if evidence.cells[task, other]["macs_per_second"] <= limit]
    return max(known, key=lambda other: evidence.cells[task, other]["mean"], default="")


def _half(row: Mapping[str, Any] | None) -> str:
    """Half of an interval, in points."""
    return f"{50 * (row['high'] - row['low']):.1f}" if row else "-"


def _parts(evidence: Evidence) -> str:
    """Accuracy with each part of the method alone: slower strides, pooling after the ReLU, aliasing."""
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
            rows.append([Cell(task), *(accuracy_cell(row, highest(r["mean"] for r in found if r)) for row in found)])
    return to_markdown([Table("What each part brings", ["task", *columns.values()], rows)]) if rows else ""


def _alphas(evidence: Evidence) -> str:
    """What alpha has become in the layers that downsample most: the first two."""
    body = []
    for task in evidence.tasks:
        for name in (ALIASED_AFTER, FOLDING, FIXED):
            known = [run.results["aliasing"] for run in evidence.runs_of(task, name) if run.results.get("aliasing")]
            if not known or (task.startswith("pitch (") and len(evidence.tasks) > 1):
                continue  # one network learned both tasks
            cells = [Cell(task.replace(" (with pitch)", " with pitch")), Cell(name), Cell(f"{len(known)}")]
            body.append(cells + [Cell(_mean_alpha(known, layer, axis)) for axis in (0, 1) for layer in (0, 1)])
    if not body:
        return ""
    header = ["task", "method", "seeds", "time, layer 1", "time, layer 2", "mel, layer 1", "mel, layer 2"]
    text = (
        "What alpha, the share that is folded, became for each group of channels, mean over seeds. One group stays "
        "near a filter, the other folds, mostly more along frequency than along time (for images width and height), on "
        "images least. A network that learns pitch and family "
        "needs channels of each kind; a wider strided network, which folds in all of them, is ahead of it on "
        "pitch:"
    )
    return f"{wrap(text)}\n\n{to_markdown([Table('Learned alpha', header, body)])}"


def _mean_alpha(runs: Sequence[Any], layer: int, axis: int) -> str:
    found = [run[layer][axis] for run in runs]
    groups = zip(*(alpha if isinstance(alpha, list) else [alpha] for alpha in found), strict=True)
    return " and ".join(f"{statistics.fmean(alphas):.2f}" for alphas in groups)


def _resting() -> str:
    """Strides that rest before the end, and batch norm's statistics computed anew."""
    rows = read_rows("resting.csv")
    body = []
    for kind in dict.fromkeys(row["strides"] for row in rows):
        chosen = [row for row in rows if row["strides"] == kind]
        columns = [[float(row[name]) for row in chosen] for name in ("accuracy", "recomputed", "largest_fall")]
        cells = [percent(statistics.fmean(values), sample_sd(values)) for values in columns]
        body.append([Cell(kind), Cell(numbers([int(row["seed"]) for row in chosen])), *map(Cell, cells)])
    if not body:
        return ""
    header = [
        "strides",
        "seeds",
        "accuracy",
        "with recomputed statistics",
        "largest fall in validation accuracy in one epoch, points",
    ]
    text = (
        "Every change in a map's size shifts the running statistics of batch norm. On pitch, plain DiffStride "
        "(R = 1, rate 0.06) with strides that rest for the last third of training, and with statistics recomputed "
        "from training clips before the test (`python results/resting.py notes`):"
    )
    table = Table("Moving strides and batch norm", header, body)
    return f"{wrap(text)}\n\n{to_markdown([table])}"
