"""The page on learned aliasing: how it compares, what was learned, what each part brings."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from cells import accuracy_cell, difference_cell, highest, mmac, numbers, outcome, sample_sd, wrap
from collect import read_rows
from evidence import AFTER, ALIASED_AFTER, ALIASING, FIXED, FOLDING, OURS, SLOW, Evidence

from audiostride.analysis.tables import Cell, Table, to_markdown
from audiostride.analysis.wording import percent

STORY = (
    "Pooling removes what lies above its cut-off before any ReLU can make use of it; a strided convolution folds it "
    "down, where it gets mixed up with everything else. A layer can learn how much to fold, for each of two groups of "
    "channels, after the ReLU (see [below](#learned-aliasing)). The other methods are strided convolutions, wider "
    "ones, fixed spectral pooling and learned strides (R = 1) without aliasing:"
)


def learned_aliasing(evidence: Evidence) -> str:
    """What learning the aliasing in two groups changes against each rival, and what was learned."""
    tables = _beside_rivals(evidence, (FOLDING, FIXED))
    if not tables:
        return ""
    text = (
        "A convolution followed by low-pass pooling is linear, so modulations above the cut-off are gone before the "
        "first ReLU; a strided convolution folds them down (aliasing), where later layers can use them. Learned "
        "aliasing (docs/layers.md) is learned at a rate of 0.06, the strides at 0.01; after the ReLU, a layer pools "
        "what has been rectified. In two groups of channels alpha starts at 0 and 1. One setting serves all tasks; it "
        "was chosen by prototype runs with one seed, whose test scores on pitch, pitch with family, and environmental "
        "sounds were seen."
    )
    parts = [wrap(text), to_markdown(tables), _alphas(evidence)]
    return "## Learned aliasing\n\n" + "\n\n".join(filter(None, parts)) + "\n"


def aliasing_parts(evidence: Evidence) -> str:
    """What each part of the method brings: slower strides, pooling after the ReLU, one alpha or two groups."""
    tables = _beside_rivals(evidence, (ALIASED_AFTER, ALIASING))
    if not tables:
        return ""
    text = (
        "With a single group alpha starts at 0.1 in every layer and axis. Learned aliasing before the ReLU was trained "
        "on a different CPU (AMD EPYC) from the others (Intel)."
    )
    parts = [wrap(text), _parts(evidence), to_markdown(tables), _resting()]
    return "## The parts of learned aliasing\n\n" + "\n\n".join(filter(None, parts)) + "\n"


def _beside_rivals(evidence: Evidence, names: Sequence[str]) -> list[Table]:
    """A table for each method: what it is better or worse than each rival by, task by task."""
    header = ["task", "minus strided", "minus strided, widened", "minus spectral", f"minus {OURS}"]
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
    """What a method is compared with on a task; of several widened strided networks the nearest to its cost."""
    wide = [other for other in evidence.names(task) if other.startswith("strided, widened")]
    cost = evidence.cells[task, name]["macs_per_second"]
    nearest = min(wide, key=lambda other: abs(evidence.cells[task, other]["macs_per_second"] - cost), default="")
    return ["strided", nearest, "spectral", OURS]


def verdict(evidence: Evidence) -> str:
    """Learned aliasing in two groups beside the best other method of every task, and where it differs from that."""
    ours = {FOLDING: "learned strides", FIXED: "fixed strides"}
    tried = [name for name in ours if any((task, name) in evidence.cells for task in evidence.tasks)]
    rows, found = [], {}
    for task in evidence.tasks:
        known = [name for name in tried if (task, name) in evidence.cells]
        others = [r for name in known for r in rivals_of(evidence, task, name) if (task, r) in evidence.cells]
        if not others:
            continue
        best = max(others, key=lambda name: evidence.cells[task, name]["mean"])
        row = evidence.cells[task, best]
        cells = [Cell(task), Cell(f"{best}: {percent(row['mean'], row['sd'])}"), Cell(mmac(row))]
        for name in tried:
            difference = evidence.difference(task, name, best)
            cell = evidence.cells.get((task, name))
            cells += [difference_cell(difference), Cell(mmac(cell) if cell else "")]
            if name == FOLDING and difference:
                found[task] = difference
        rows.append(cells)
    if not rows:
        return ""
    columns = [column for name in tried for column in (f"{ours[name]}, minus it", "MMAC/s")]
    header = ["task", "best other method, %", "MMAC/s", *columns]
    table = Table("Learned aliasing in 2 groups, after the ReLU, in points of accuracy", header, rows)
    return "\n\n".join([wrap(STORY), to_markdown([table]).rstrip(), f"{wrap(_told_apart(found))}\n"])


def _told_apart(found: Mapping[str, Mapping[str, Any]]) -> str:
    """Where learned aliasing is significantly below and above the best other method, and what could be seen at all."""
    below, above = (
        ", ".join(task for task, row in found.items() if outcome(row) == side) or "none" for side in ("worse", "better")
    )
    widths = ", ".join(f"{task} {50 * (row['high'] - row['low']):.1f}" for task, row in found.items())
    return (
        "With learned strides it is significantly below the best of the other methods on these tasks: "
        f"{below}; and significantly above it on: {above}. Half of an interval is what two methods have to differ by "
        f"to be told apart with these seeds and test sets: {widths} points."
    )


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
        "near a filter, the other folds, mostly more along frequency than along time. A network that learns pitch and "
        "family needs channels of each kind; a wider strided network, which folds in all of them, is ahead of it on "
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
