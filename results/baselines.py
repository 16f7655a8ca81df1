"""The page on baselines: how learned strides compare with them on every task."""

import statistics
from typing import Any

from cells import accuracy_cell, difference_cell, highest, interval, mmac, numbers, outcome, span, wrap
from evidence import FIXED, FOLDING, OURS, RIVALS, WIDENED_LESS, Evidence
from learned_aliasing import rivals_of, verdict

from audiostride.analysis.tables import Cell, Table, to_markdown
from audiostride.analysis.wording import percent

FIGURE = "results.png"

BASELINES = {
    "strided, widened": "strided convolutions with more channels",
    "spectral": "spectral pooling at fixed strides",
    "strided": "strided convolutions of the same width",
}
"""Methods that learned strides are compared with, and how the first sentences of the page speak of it."""

PAPER_ACCURACY = {  # Riad et al. 2022, Table 1, single-task: strided, spectral, DiffStride
    "spoken words": ("Speech Commands", 87.3, 88.5, 90.5),
    "instrument family": ("NSynth instrument", 72.6, 72.9, 75.4),
    "pitch": ("NSynth pitch", 91.8, 90.1, 92.2),
}


def finding(evidence: Evidence) -> str:
    """What the page shows: learned strides against every baseline, in sentences and a figure."""
    lines = [line for rival in BASELINES if (line := _beside(evidence, OURS, rival))]
    if not lines:
        return ""
    lead = f"Learned strides ({OURS}), in points of test accuracy with 95 % confidence intervals, compared with"
    alt = "Test accuracy of learned strides, without and with learned aliasing, minus that of each baseline."
    return "\n".join([verdict(evidence), wrap(lead), "", *lines, "", f"![{alt}]({FIGURE})", ""]).lstrip()


def paper_ramp(evidence: Evidence) -> str:
    """The same at R = 4, and the best method of each task."""
    lines = [line for rival in BASELINES if (line := _beside(evidence, "DiffStride R=4", rival))]
    parts = ["DiffStride R=4, the paper's ramp width, in points of accuracy, compared with", "", *lines, ""]
    parts = parts if lines else []
    best = [f"{task}: {_best(evidence, task)}" for task in evidence.tasks if len(evidence.names(task)) > 1]
    best_of_all = wrap("The highest mean accuracy of any method tried: " + "; ".join(best) + ".")
    return "\n".join(["## At the paper's ramp width, and the best of all methods", "", *parts, best_of_all, ""])


def accuracy(evidence: Evidence) -> str:
    """The paper's Table 1 with ours, and the paper's own figures beside."""
    tried = {name for _, name in evidence.cells}
    methods = [name for name in (RIVALS[0], WIDENED_LESS, *RIVALS[1:], OURS, FOLDING, FIXED) if name in tried]
    rows = []
    for task in evidence.tasks:
        found = [evidence.cells.get((task, method)) for method in methods]
        if not any(found):
            continue
        best = highest(row["mean"] for row in found if row)
        cells = [accuracy_cell(row, best) for row in found]
        paper = PAPER_ACCURACY.get(task)
        rows.append(
            [Cell(task), *cells, Cell(" / ".join(f"{v:.1f}" for v in paper[1:]) + f" ({paper[0]})" if paper else "-")]
        )
    if not rows:
        return ""
    complete = [t for t in evidence.tasks if all((t, method) in evidence.cells for method in methods)]
    if len(complete) > 1:
        means = [statistics.fmean(evidence.cells[task, method]["mean"] for task in complete) for method in methods]
        rows.append(
            [Cell(f"mean of {len(complete)}"), *(Cell(percent(m), m == highest(means)) for m in means), Cell("-")]
        )
    table = Table(
        "Test accuracy in %, mean ± sd over seeds (number of seeds, where it is not 3)",
        ["task", *methods, "the paper's strided / spectral / DiffStride R=4"],
        rows,
    )
    text = (
        "The paper's figures are shown for orientation only; they are for other data (all 35 words, NSynth) and a "
        "network 16 times as large, and are not a target here."
    )
    return f"## Accuracy\n\n{wrap(' '.join(filter(None, [_widened(evidence), text])))}\n\n{to_markdown([table])}"


def each_task(evidence: Evidence) -> str:
    """All methods of every task with their cost and differences."""
    made = []
    for task in evidence.tasks:
        names = evidence.names(task)
        best = highest(evidence.cells[task, name]["mean"] for name in names)
        header = ["method", "accuracy", "loss", "seeds", "MMAC", "thousand parameters"]
        rivals = [rival for rival in RIVALS[:2] if rival in names]
        rows = []
        for name in names:
            row = evidence.cells[task, name]
            cells = [
                Cell(name),
                Cell(percent(row["mean"], row["sd"]), row["mean"] == best),
                Cell(f"{row['loss']:.3f}"),
            ]
            cells += [Cell(numbers(row["seeds"])), Cell(mmac(row)), Cell(f"{row['parameters'] / 1e3:.0f}")]
            rows.append(cells + [difference_cell(evidence.difference(task, name, rival)) for rival in rivals])
        clips = evidence.cells[task, names[0]]["clips"]
        made.append(
            Table(f"{task}, {clips:,} in the test set", [*header, *(f"minus {rival}" for rival in rivals)], rows)
        )
    return f"## Every method on every task\n\n{to_markdown(made)}"


def differences(evidence: Evidence) -> dict[str, list[tuple[str, str, dict[str, Any]]]]:
    """For the figure: each method less its baselines, by task."""
    panels = {}
    for method in (OURS, FOLDING, FIXED):
        rows = []
        for task in evidence.tasks:
            for rival in rivals_of(evidence, task, method) if (task, method) in evidence.cells else []:
                if rival != OURS and (row := evidence.difference(task, method, rival)):
                    rows.append((task, rival.removesuffix(" less"), row))
        if rows:
            panels[method.replace(", after", ",\nafter")] = rows
    return panels


def _beside(evidence: Evidence, ours: str, rival: str) -> str:
    """One method compared with another on every task that both were tried on."""
    outcomes = _outcomes(evidence, ours, rival)
    if not any(outcomes.values()):
        return ""
    words = {
        "better": "significantly **better** on",
        "worse": "significantly **worse** on",
        "open": "not significantly different on",
    }
    said = "; ".join(f"{words[key]} {', '.join(found)}" for key, found in outcomes.items() if found)
    cost = _cost_ratio(evidence, ours, rival)
    return wrap(f"- {BASELINES[rival]}, at {cost} times their multiply-accumulates: {said}.", "  ")


def _cost_ratio(evidence: Evidence, ours: str, rival: str) -> str:
    """Multiply-accumulates of one method over those of another, on the tasks that both were tried on."""
    cells = [(evidence.cells.get((task, ours)), evidence.cells.get((task, rival))) for task in evidence.tasks]
    return span([f"{our['macs_per_second'] / their['macs_per_second']:.2f}" for our, their in cells if our and their])


def _outcomes(evidence: Evidence, ours: str, rival: str) -> dict[str, list[str]]:
    """Tasks on which a method is "better" or "worse" than another, or the difference is not significant ("open")."""
    outcomes: dict[str, list[str]] = {"better": [], "worse": [], "open": []}
    for task in evidence.tasks:
        if row := evidence.difference(task, ours, rival):
            outcomes[outcome(row)].append(f"{task} {interval(row)}{'' if len(row['seeds']) > 1 else ' with one seed'}")
    return outcomes


def _best(evidence: Evidence, task: str) -> str:
    name = max(evidence.names(task), key=lambda name: evidence.cells[task, name]["mean"])
    row = evidence.cells[task, name]
    seeds = len(row["seeds"])
    return f"{name} ({percent(row['mean'], row['sd'])}, {seeds} seed{'s' * (seeds > 1)}, {mmac(row)} MMAC)"


def _widened(evidence: Evidence) -> str:
    """How far the widened strided networks come to the cost of learned strides and of learned aliasing."""
    beside: dict[str, dict[str, list[str]]] = {}
    for width, others in (("strided, widened", (OURS, FOLDING)), (WIDENED_LESS, (FIXED,))):
        for task in evidence.tasks:
            wide, *ours = (evidence.cells.get((task, name)) for name in (width, *others))
            if wide is None:
                continue
            channels = evidence.runs_of(task, width)[0].settings["model.channels"]
            size = f"{mmac(wide)} MMAC with {', '.join(map(str, channels))} channels"
            costs = " and ".join(mmac(row) if row else "-" for row in ours)
            beside.setdefault(width, {}).setdefault(size, []).append(f"{task} {costs}")
    if not beside:
        return ""
    whose = {"strided, widened": f"{OURS} and of learned aliasing in 2 groups", WIDENED_LESS: "that with fixed strides"}
    said = [
        f"The size of *{width}*, beside the MMAC of {whose[width]}: "
        + "; ".join(f"{size} (beside {', '.join(tasks)})" for size, tasks in sizes.items())
        for width, sizes in beside.items()
    ]
    lead = (
        "*Widened* is the strided network with more channels, the baseline at a similar cost that the paper leaves out."
    )
    return f"{lead} {'. '.join(said)}."
