"""The page on learned strides: what their settings cost and bring, what was learned."""

import math
import statistics

from cells import accuracy_cell, difference_cell, highest, interval, mmac, numbers, span, wrap
from evidence import Evidence, by_axis, by_value, method_order, plain, task_order

from audiostride.analysis.tables import Cell, Table, to_markdown
from audiostride.analysis.wording import mean_and_sd, percent

NO_LOSS = 0.005
"""A smaller R is said to cost no accuracy where its mean loss against R = 4 is below this."""

PAPER_CUTOFFS = {  # Table 2: Hz, cycles per mel band
    "spoken words": (25.00, 0.2500),
    "instrument family": (38.33, 0.2292),
    "pitch": (37.50, 0.3021),
}

STUDIES = {
    "train.stride_learning_rate": ("The strides' own learning rate", "Strides have a learning rate of their own."),
    "train.stride_cost": (
        "Cost as a term of the loss",
        "The regulariser of the paper's Eq. 6 adds stride_cost times the sum of 1 / (stride in time x stride in mel) "
        "over the layers to the loss, so that large strides pay off; a larger weight trades accuracy for a lower cost. "
        "The paper draws this as its Fig. 4; `audiostride compare RUNS --plot cost.png` draws it for any runs.",
    ),
}


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
        "DiffStride's ramp width R", ["task", "R", "accuracy", "loss", "seeds", "MMAC", "minus R=4, same seeds"], rows
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
        said.append(f"Compared with R=4, R={width:g} {' and '.join(parts)}, at {cost} times the multiply-accumulates.")
    text = (
        "## What R costs\n\nThe paper uses R = 4. A map keeps R more bins than its stride asks for, which has a cost."
    )
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
            mean_and_sd(time["stride"], time["stride_sd"], 2),
            mean_and_sd(mel["stride"], mel["stride_sd"], 2),
        ]
        cells += [mean_and_sd(time["paper"], time["paper_sd"], 1), mean_and_sd(mel["paper"], mel["paper_sd"], 3)]
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
The initial stride is 2 x 2, or 25 Hz and 0.25 cycles per mel band, unless the method's name gives another.
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
    header = ["task", "method", "separate", "shared", "separate minus shared", "MMAC separate", "MMAC shared"]
    return (
        f"## One stride for both axes\n\n{to_markdown([Table('In the form of Table A.7 of the paper', header, rows)])}"
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
    header = ["task", "method", "initial strides", "accuracy", "seeds", "minus default", "MMAC"]
    header += ["all strides, initial", "all strides, final"]
    text = (
        "Does a learned stride recover from initial strides that are too large, as the paper's Table 3 claims for "
        "images, and do different initial strides converge to the same product, the paper's equivalence classes? "
        "*All strides* is the product over the layers, time x mel (height x width); on sound the default has 1 x 1 in "
        "two of six layers."
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
        header = ["task", "method", key.rpartition(".")[2], "accuracy", "loss", "seeds", "minus the default"]
        header += ["MMAC", "first layer: Hz", "cycles/band", "all strides"]
        heading, text = STUDIES.get(key, (f"Other values of `{key}`", ""))
        if said:
            text = f"{text} Compared with {usual}, in points of accuracy: {'; '.join(said)}.".strip()
        table = Table(f"Only `{key}` changed", header, rows)
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
        mean_and_sd(found[axis]["paper"], found[axis]["paper_sd"], digits) if axis in found else "-"
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


def _totals(evidence: Evidence, task: str, name: str) -> str:
    """Product of the strides of all layers, time x mel (a waveform has time alone), mean over runs."""
    totals = [
        [math.prod(axis) for axis in zip(*r.results["strides"], strict=True)] for r in evidence.runs_of(task, name)
    ]
    return " x ".join(f"{statistics.fmean(values):.1f}" for values in zip(*totals, strict=True))
