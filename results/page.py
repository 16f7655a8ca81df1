"""Write docs/results.md from runs.csv and images.csv: python results/page.py [FILE]

Every figure and every sentence that depends on one is computed here; nothing is written by hand.
"""

import json
import math
import shlex
import statistics
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cells import accuracy_cell, difference_cell, highest, interval, mean_sd, mmac, numbers, percent, span, wrap
from collect import HERE, read_recipe, read_rows, read_runs
from evidence import (
    ALIASING,
    DATA,
    FIXED,
    FOLDING,
    GROUPS,
    OURS,
    PLANNED,
    RIVALS,
    Evidence,
    by_axis,
    by_value,
    gather,
    machine_of,
    method_order,
    plain,
    task_order,
)
from figure import differences_figure
from groups import read_groups
from images import image_section
from learned_aliasing import learned_aliasing, rivals_of, verdict

from audiostride.analysis.finished_runs import flatten
from audiostride.analysis.plot_style import save
from audiostride.analysis.significance import is_significant
from audiostride.analysis.tables import Cell, Table, to_markdown
from audiostride.training.recipe import load_recipe

PAGE = HERE.parent / "docs" / "results.md"
PAPER_ACCURACY = {  # Riad et al. 2022, Table 1, single-task: strided, spectral, DiffStride
    "spoken words": ("Speech Commands", 87.3, 88.5, 90.5),
    "instrument family": ("NSynth instrument", 72.6, 72.9, 75.4),
    "pitch": ("NSynth pitch", 91.8, 90.1, 92.2),
}
PAPER_CUTOFFS = {  # Table 2: Hz, cycles per mel band
    "spoken words": (25.00, 0.2500),
    "instrument family": (38.33, 0.2292),
    "pitch": (37.50, 0.3021),
}
NO_LOSS = 0.005
"""A smaller R is said to cost no accuracy where its mean loss against R = 4 is below this."""

STUDIES = {
    "train.stride_learning_rate": ("The strides' own learning rate", "Strides have a learning rate of their own."),
    "train.stride_cost": (
        "Cost as a term of the loss",
        "The regulariser of the paper's Eq. 6 adds stride_cost times the sum of 1 / (stride in time x stride in mel) "
        "over the layers to the loss, so that large strides pay; a larger weight buys a lower cost with accuracy. The "
        "paper draws this as its Fig. 4; `audiostride compare RUNS --plot cost.png` draws it of any runs.",
    ),
}


def main(page: Path) -> None:
    """Write the page, and its figure beside it."""
    runs = read_runs()
    evidence = gather(runs) if runs else None
    page.write_text(write_page(evidence), encoding="utf-8")
    print(f"wrote {page}")
    if evidence and (panels := _differences(evidence)):
        save(differences_figure(panels), page.with_name(FIGURE))
        print(f"wrote {page.with_name(FIGURE)}")


def write_page(evidence: Evidence | None) -> str:
    """The whole page as Markdown."""
    images = read_rows("images.csv")
    parts = [HEAD]
    if evidence:
        parts += [
            finding(evidence),
            METHOD,
            conditions(evidence),
            paper_ramp(evidence),
            accuracy(evidence),
            each_task(evidence),
            learned_aliasing(evidence),
            smoothness(evidence),
            cutoffs(evidence),
            shared_strides(evidence),
            starts(evidence),
            studies(evidence),
        ]
    else:
        parts.append("No run on sound has been collected yet.\n")
    parts.append(image_section(images))
    if evidence:
        parts.append(repeat(evidence))
    return "\n".join(part for part in parts if part)


HEAD = """# Results

<!-- Written by `python results/page.py` from results/*.csv; changes made here are lost. -->
"""
FIGURE = "results.png"
BASELINES = {
    "strided, widened": f"strided convolutions widened to the cost of {OURS}",
    "spectral": "spectral pooling at fixed strides",
    "strided": "strided convolutions of the same width",
}
"""Methods that learned strides are compared with, and how the first sentences of the page speak of it."""

METHOD = """## How to read it

Small networks on small sets: the figures compare methods under equal conditions and are no records. Accuracy is of
test clips in percent, mean ± standard deviation (n - 1) over seeds. Cost is in million multiply-accumulates (MMAC) per
second of audio, counted by one rule for all runs. Differences have 95 % confidence intervals from a paired bootstrap
over the seeds that both methods have and over groups of test clips: one group fewer than there are is drawn with
replacement, and one seed fewer, 10,000 times. A difference is **statistically significant** where its interval leaves
out zero. With one seed the interval holds for that seed alone; with three it is too narrow where seeds differ more
than groups do. Intervals are not corrected for the number of comparisons. Bold: the best of a row or column, or a
significant difference.
"""


def finding(evidence: Evidence) -> str:
    """What the page shows: learned strides against every baseline, in sentences and a figure."""
    lines = [line for rival in BASELINES if (line := _beside(evidence, OURS, rival))]
    if not lines:
        return ""
    lead = f"Learned strides ({OURS}), in points of test accuracy with 95 % confidence intervals, compared with"
    alt = f"Test accuracy of {OURS}, {FOLDING}, and {FIXED}, less that of each baseline, with 95 % intervals."
    return "\n".join([verdict(evidence), wrap(lead), "", *lines, "", f"![{alt}]({FIGURE})", ""]).lstrip()


def _differences(evidence: Evidence) -> dict[str, list[tuple[str, str, dict[str, Any]]]]:
    """For the figure: each method less its baselines, by task."""
    panels = {}
    for method in (OURS, FOLDING, FIXED):
        rows = []
        for task in evidence.tasks:
            for rival in rivals_of(evidence, task, method) if (task, method) in evidence.cells else []:
                if rival != OURS and (row := evidence.difference(task, method, rival)):
                    rows.append((task, rival.removesuffix(" further"), row))
        if rows:
            panels[method.replace(", after", ",\nafter")] = rows
    return panels


def conditions(evidence: Evidence) -> str:
    """What was run on what, and what is missing."""
    rows = read_rows("runs.csv")
    lines = ["## What was run", ""]
    for data in dict.fromkeys(row["data"] for row in rows):
        clips = next(row["clips"] for row in rows if row["data"] == data)
        lines.append(wrap(f"- **{data}**: {DATA.get(data, 'a folder of sounds')}. {_grouping(clips)}", "  "))
    lines.append("")
    machines = Counter(machine_of(row) for row in {(row["recipe"], row["seed"]): row for row in rows}.values())
    hardware = "; ".join(f"{machine} ({n} runs)" for machine, n in machines.items())
    text = (
        f"Hardware and versions: {hardware}. The network is narrow, with {_networks(rows)}; "
        "the methods differ in nothing but what their names say. "
        "The model tested is that of the best validation epoch; a tenth of the training clips is for validation."
    )
    lines += [wrap(text), ""]
    gaps = {task: missing for task in PLANNED if (missing := list(_gaps(evidence, task)))}
    if gaps:
        lines += ["Planned and not there yet:", ""]
        lines += [wrap(f"- {task}: {'; '.join(missing)}", "  ") for task, missing in gaps.items()]
    else:
        lines.append("Of the planned runs none is missing.")
    return "\n".join(lines) + "\n"


def _grouping(clips: str) -> str:
    """What is resampled of a test set."""
    row = read_groups().get(clips)
    if row is None:
        return "Resampled: single test clips, as nothing is known of what belongs together."
    what = GROUPS.get((row["data"], row["column"]), f"values of {row['column']}")
    return f"Resampled: the {row['n_groups']} {what} of the test."


def _networks(rows: Sequence[Mapping[str, str]]) -> str:
    """Size and training of the usual network of each data set; those that share them are named together."""
    usual: dict[tuple[str, ...], list[str]] = {}
    for data in dict.fromkeys(row["data"] for row in rows):
        counted = Counter((r["channels"], r["epochs"], r["batch_size"]) for r in rows if r["data"] == data)
        usual.setdefault(counted.most_common(1)[0][0], []).append(data)
    said = []
    for (channels, epochs, batch), names in usual.items():
        where = f" on {' and '.join(names)}" if len(usual) > 1 else ""
        said.append(f"{channels.replace(' ', ', ')} channels, trained for {epochs} epochs in batches of {batch}{where}")
    return "; ".join(said)


def _gaps(evidence: Evidence, task: str) -> Iterable[str]:
    if task not in evidence.tasks:
        yield "everything"
        return
    for name, wanted in PLANNED[task].items():
        there = len(evidence.cells[task, name]["seeds"]) if (task, name) in evidence.cells else 0
        if there < wanted:
            yield f"{name} ({there} of {wanted} seeds)" if there else name


def paper_ramp(evidence: Evidence) -> str:
    """The same at R = 4, and the best method of each task."""
    lines = [line for rival in BASELINES if (line := _beside(evidence, "DiffStride R=4", rival))]
    parts = ["DiffStride R=4, the ramp width of the paper, in points of accuracy, compared with", "", *lines, ""]
    parts = parts if lines else []
    best = [f"{task}: {_best(evidence, task)}" for task in evidence.tasks if len(evidence.names(task)) > 1]
    best_of_all = wrap("The highest mean accuracy of any method tried: " + "; ".join(best) + ".")
    return "\n".join(["## At the ramp width of the paper, and the best of all", "", *parts, best_of_all, ""])


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
            outcome = ("better" if row["difference"] > 0 else "worse") if is_significant(row) else "open"
            outcomes[outcome].append(f"{task} {interval(row)}{'' if len(row['seeds']) > 1 else ' with one seed'}")
    return outcomes


def _best(evidence: Evidence, task: str) -> str:
    name = max(evidence.names(task), key=lambda name: evidence.cells[task, name]["mean"])
    row = evidence.cells[task, name]
    seeds = len(row["seeds"])
    return f"{name} ({percent(row['mean'], row['sd'])}, {seeds} seed{'s' * (seeds > 1)}, {mmac(row)} MMAC/s)"


def accuracy(evidence: Evidence) -> str:
    """The paper's Table 1 with ours, and the paper's own figures beside."""
    tried = {name for _, name in evidence.cells}
    methods = [name for name in (*RIVALS, OURS, ALIASING, FOLDING, FIXED) if name in tried]
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
        "Test accuracy in %, mean ± sd over seeds (their number, where it is not 3)",
        ["task", *methods, "the paper's strided / spectral / DiffStride R=4"],
        rows,
    )
    text = (
        "The paper's figures are shown for orientation only; they are of other data (all 35 words, NSynth) and of a "
        "network 16 times as large, and are no target here."
    )
    return f"## Accuracy\n\n{wrap(' '.join(filter(None, [_widened(evidence), text])))}\n\n{to_markdown([table])}"


def _widened(evidence: Evidence) -> str:
    """How far the widened strided networks come to the cost of DiffStride."""
    said = []
    for task in evidence.tasks:
        wide, ours = (evidence.cells.get((task, name)) for name in ("strided, widened", OURS))
        if wide is None:
            continue
        channels = evidence.runs_of(task, "strided, widened")[0].settings["model.channels"]
        beside = f", {OURS} at {mmac(ours)}" if ours else ""
        said.append(f"{task} {mmac(wide)} MMAC/s with {', '.join(map(str, channels))} channels{beside}")
    if not said:
        return ""
    return (
        "*strided, widened* is the strided network with more channels, the baseline at a like cost that the paper "
        f"leaves out: {'; '.join(said)}."
    )


def each_task(evidence: Evidence) -> str:
    """All methods of every task with their cost and differences."""
    made = []
    for task in evidence.tasks:
        names = evidence.names(task)
        best = highest(evidence.cells[task, name]["mean"] for name in names)
        header = ["method", "accuracy", "loss", "seeds", "MMAC/s", "thousand parameters"]
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
        made.append(Table(f"{task}, {clips:,} test clips", [*header, *(f"less {rival}" for rival in rivals)], rows))
    return f"## Every method on every task\n\n{to_markdown(made)}"


def smoothness(evidence: Evidence) -> str:
    """What the ramp width R costs and brings."""
    rows, losses = [], {}
    widths = (1.0, 2.0, 4.0)
    for task in evidence.tasks:
        for width in widths:
            name = f"DiffStride R={width:g}"
            row = evidence.cells.get((task, name))
            if row is None or not any((task, f"DiffStride R={w:g}") in evidence.cells for w in widths if w != width):
                continue
            difference = evidence.difference(task, name, "DiffStride R=4") if width < 4 else None
            if difference:
                losses.setdefault(width, {})[task] = -difference["difference"]
            cells = [Cell(task), Cell(f"{width:g}"), Cell(percent(row["mean"], row["sd"])), Cell(f"{row['loss']:.3f}")]
            rows.append([*cells, Cell(numbers(row["seeds"])), Cell(mmac(row)), difference_cell(difference)])
    if not rows:
        return ""
    table = Table(
        "DiffStride's ramp width R", ["task", "R", "accuracy", "loss", "seeds", "MMAC/s", "less R=4, same seeds"], rows
    )
    said = []
    for width, by_task in sorted(losses.items()):
        cells = {
            task: (evidence.cells[task, f"DiffStride R={width:g}"], evidence.cells[task, "DiffStride R=4"])
            for task in by_task
        }
        cost = span([f"{small['macs_per_second'] / large['macs_per_second']:.2f}" for small, large in cells.values()])
        dear = [f"{task} ({100 * loss:.1f} points)" for task, loss in by_task.items() if loss >= NO_LOSS]
        rest = [task for task in by_task if by_task[task] < NO_LOSS]
        parts = [f"loses half a point or more on {', '.join(dear)}"] if dear else []
        parts += [f"costs no accuracy (a mean loss under half a point) on {', '.join(rest)}"] if rest else []
        said.append(f"Against R=4, R={width:g} {' and '.join(parts)}, at {cost} times the multiply-accumulates.")
    text = "## What R costs\n\nThe paper has R = 4. A map keeps R bins more than its stride asks for, and that costs."
    before, _, text = text.rpartition("\n")
    return f"{before}\n{wrap(' '.join([text, *said]))}\n\n{to_markdown([table])}"


def cutoffs(evidence: Evidence) -> str:
    """Learned strides of the first layer as cut-offs, as in the paper's Table 2."""
    found = {(row["data"], row["method"], row["axis"]): row for row in evidence.found["cutoffs"]}
    rows = []
    for data, name in dict.fromkeys((data, name) for data, name, _ in found):
        time, mel = found[data, name, "time"], found[data, name, "mel"]
        if evidence.method(name).kind != "diffstride" or evidence.method(name).others:
            continue  # the studies of single settings have tables of their own
        tasks = next(list(r.tasks.values()) for r in evidence.runs.values() if r.title == data)
        paper = PAPER_CUTOFFS.get(tasks[0])
        cells = [tasks[0] if len(tasks) == 1 else " and ".join(task.partition(" (")[0] for task in tasks), name]
        cells += [
            numbers(time["seeds"]),
            mean_sd(time["stride"], time["stride_sd"], 2),
            mean_sd(mel["stride"], mel["stride_sd"], 2),
        ]
        cells += [mean_sd(time["paper"], time["paper_sd"], 1), mean_sd(mel["paper"], mel["paper_sd"], 3)]
        cells += [f"{time['minus_6db']:.1f}", f"{mel['minus_6db']:.3f}"]
        cells += [f"{paper[0]:.2f}, {paper[1]:.4f}" if paper else "-"]
        cells += [f"{time['total_stride']:.1f} x {mel['total_stride']:.1f}"]
        rows.append([Cell(cell) for cell in cells])
    if not rows:
        return ""
    header = [
        "trained on",
        "method",
        "seeds",
        "stride, time",
        "stride, mel",
        "Hz",
        "cycles/band",
        "-6 dB: Hz",
        "-6 dB: cycles/band",
    ]
    header += ["the paper's Hz, cycles/band", "product of all strides"]
    rows.sort(key=lambda row: (task_order(row[0].text), method_order(row[1].text)))
    text = """## Learned cut-offs

What the first layer keeps, in the convention of the paper's Table 2 and at half amplitude; see [cutoffs](cutoffs.md).
The initial stride is 2 x 2 unless the method's name gives another, which is 25 Hz and 0.25 cycles per mel band.
The paper's figures are for its own data.
"""
    return f"{text}\n{to_markdown([Table('First layer, mean ± sd over seeds', header, rows)])}"


def shared_strides(evidence: Evidence) -> str:
    """The paper's Table A.7."""
    rows = []
    for task in evidence.tasks:
        for name in evidence.names(task):
            method = evidence.method(name)
            separate = method._replace(shared=False).name
            if not method.shared or (task, separate) not in evidence.cells:
                continue
            cells = [evidence.cells[task, separate], evidence.cells[task, name]]
            best = highest(cell["mean"] for cell in cells)
            costs = [Cell(mmac(cell)) for cell in cells]
            difference = difference_cell(evidence.difference(task, separate, name))
            rows.append(
                [Cell(task), Cell(separate), *(accuracy_cell(cell, best) for cell in cells), difference, *costs]
            )
    if not rows:
        return ""
    header = ["task", "method", "separate", "shared", "separate less shared", "MMAC/s separate", "MMAC/s shared"]
    return (
        f"## One stride for both axes\n\n{to_markdown([Table('The form of the Table A.7 of the paper', header, rows)])}"
    )


def starts(evidence: Evidence) -> str:
    """Good and poor initial strides."""
    rows, said = [], []
    for task in evidence.tasks:
        names = evidence.names(task)
        for name in names:
            method = evidence.method(name)
            usual = next((u for u in (method._replace(start=""), plain(method)) if u.name in names), None)
            if not method.start or usual is None:
                continue
            good, poor = evidence.cells[task, usual.name], evidence.cells[task, name]
            difference = evidence.difference(task, name, usual.name)
            for start, row, beside in (("(2, 2)", good, None), (method.start, poor, difference)):
                run = evidence.runs_of(task, row["method"])[0]
                first = " x ".join(f"{math.prod(axis):g}" for axis in by_axis(run.settings["model.strides"]))
                cells = [Cell(task), Cell(method._replace(start="").name), Cell(start)]
                cells += [
                    Cell(percent(row["mean"], row["sd"])),
                    Cell(numbers(row["seeds"])),
                    difference_cell(beside),
                ]
                rows.append([*cells, Cell(mmac(row)), Cell(first), Cell(_totals(evidence, task, row["method"]))])
            if difference:
                said.append(f"{method._replace(start='').name} on {task} {interval(difference)}")
    if not rows:
        return ""
    header = ["task", "method", "initial strides", "accuracy", "seeds", "less default", "MMAC/s"]
    header += ["all strides, at first", "all strides, in the end"]
    text = (
        "Does a learned stride recover from initial strides that are too large, as the paper's Table 3 claims for "
        "images, and do different initial strides converge to the same product, the paper's equivalence classes? "
        "*All strides* is the product over the layers, time x mel; the default has 1 x 1 in two of six layers."
    )
    if said:
        text += f" The larger initial strides change accuracy by, in points: {'; '.join(said)}."
    table = Table(
        "Accuracy and strides from both initial strides", header, [list(row) for row in dict.fromkeys(map(tuple, rows))]
    )
    return f"## Initial strides that are too large\n\n{wrap(text)}\n\n{to_markdown([table])}"


def studies(evidence: Evidence) -> str:
    """Runs that differ in a single further setting: the strides' learning rate, the regulariser, and so on."""
    parts = []
    keys = dict.fromkeys(key for m in evidence.methods.values() if len(m.others) == 1 for key, _ in m.others)
    for key in sorted(keys):
        rows, said = [], []
        for task in evidence.tasks:
            names = evidence.names(task)
            varied = [n for n in names if [k for k, _ in evidence.method(n).others] == [key]]
            bases = dict.fromkeys(_unstudied(evidence, name) for name in varied)
            for base in bases:
                group = [n for n in names if n == base or (n in varied and _unstudied(evidence, n) == base)]
                if len(group) < 2:
                    continue
                group.sort(key=lambda n: by_value(evidence.runs_of(task, n)[0].settings[key]))
                rows += [_study_row(evidence, task, name, base, key) for name in group]
                said += filter(None, (_study_words(evidence, task, name, base, key) for name in group))
                usual = _setting(evidence, task, base, key) if base in names else ""
        if not rows:
            continue
        header = ["task", "method", key.rpartition(".")[2], "accuracy", "loss", "seeds", "less the default"]
        header += ["MMAC/s", "first layer: Hz", "cycles/band", "all strides"]
        heading, text = STUDIES.get(key, (f"Other values of `{key}`", ""))
        if said:
            text = f"{text} Compared with {usual}, in points of accuracy: {'; '.join(said)}.".strip()
        table = Table(f"`{key}` alone changed", header, rows)
        parts.append("\n\n".join(filter(None, [f"## {heading}", wrap(text), to_markdown([table])])))
    return "\n".join(parts)


def _study_row(evidence: Evidence, task: str, name: str, base: str, key: str) -> list[Cell]:
    row = evidence.cells[task, name]
    cells = [task, base, _setting(evidence, task, name, key), percent(row["mean"], row["sd"]), f"{row['loss']:.3f}"]
    found = {
        r["axis"]: r
        for r in evidence.found["cutoffs"]
        if r["method"] == name and r["data"] == _data_of(evidence, task, name)
    }
    first = [
        mean_sd(found[axis]["paper"], found[axis]["paper_sd"], digits) if axis in found else "-"
        for axis, digits in (("time", 1), ("mel", 3))
    ]
    shown = [Cell(cell) for cell in [*cells, numbers(row["seeds"])]]
    shown += [difference_cell(evidence.difference(task, name, base))]
    return shown + [Cell(cell) for cell in [mmac(row), *first, _totals(evidence, task, name)]]


def _study_words(evidence: Evidence, task: str, name: str, base: str, key: str) -> str:
    difference = evidence.difference(task, name, base)
    if difference is None:
        return ""
    value = _setting(evidence, task, name, key)
    cost, usual = (evidence.cells[task, other]["macs_per_second"] for other in (name, base))
    return f"{value} on {task} {interval(difference)} at {cost / usual:.2f} times the multiply-accumulates"


def _unstudied(evidence: Evidence, name: str) -> str:
    """The method without its further settings."""
    return evidence.method(name)._replace(others=()).name


def _data_of(evidence: Evidence, task: str, name: str) -> str:
    return evidence.runs_of(task, name)[0].title


def _setting(evidence: Evidence, task: str, name: str, key: str) -> str:
    value = evidence.runs_of(task, name)[0].settings[key]
    return f"{value:g}" if isinstance(value, int | float) else str(value)


def repeat(evidence: Evidence) -> str:
    """The commands that make the runs again."""
    seeds: dict[str, list[int]] = {}
    for run in evidence.runs.values():
        settings, seed = run.name.rsplit(" ", 1)
        seeds.setdefault(_command(settings), []).append(int(seed))
    lines = [f"{command} --seeds {','.join(map(str, sorted(found)))}" for command, found in sorted(seeds.items())]
    images: dict[str, list[int]] = {}
    for row in read_rows("images.csv"):
        images.setdefault(row["recipe"], []).append(int(row["seed"]))
    lines += [
        f"audiostride train-images results/settings/{name}.yaml 'sweep={{seed: {sorted(found)}}}'"
        for name, found in sorted(images.items())
    ]
    return "\n".join(
        [
            "## Again",
            "",
            "With the data in folders of these names in the current directory; `results/settings/` holds the full",
            "recipe of every run, whatever defaults may change:",
            "",
            "```console",
            *lines,
            "```",
            "",
            "Two commands add runs to this page, `python results/collect.py RUN_DIR...` and `python results/page.py`.",
            "`results/runs.csv` has a line for every run and task, and which test clips it classified correctly, so",
            "that the intervals above can be recomputed.",
            "",
        ]
    )


def _command(name: str) -> str:
    """The sweep that trains the settings of a name: a recipe of `recipes/` and what differs from it."""
    settings = read_recipe(name)
    base = HERE / "recipes" / f"{settings['name']}.yaml"
    if not base.is_file():
        return f"audiostride sweep results/settings/{name}.yaml"
    usual = flatten(load_recipe(str(base)).model_dump())
    differing = {
        key: value
        for key, value in flatten(settings).items()
        if (key not in usual or usual[key] != value) and (key in usual or value is not None)
    }
    values = {k: v if isinstance(v, str) else json.dumps(v, separators=(",", ":")) for k, v in differing.items()}
    words = [shlex.quote(f"{key}={value}") for key, value in values.items()]
    return " ".join([f"audiostride sweep results/recipes/{base.name}", *words])


def _totals(evidence: Evidence, task: str, name: str) -> str:
    """Product of the strides of all layers, time x mel (a waveform has time alone), mean over runs."""
    totals = [
        [math.prod(axis) for axis in zip(*r.results["strides"], strict=True)] for r in evidence.runs_of(task, name)
    ]
    return " x ".join(f"{statistics.fmean(values):.1f}" for values in zip(*totals, strict=True))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else PAGE)
