"""Write docs/results.md from runs.csv and images.csv: python results/page.py [FILE]

Every figure and every sentence that depends on one is computed here; nothing is written by hand.
"""

import json
import math
import shlex
import statistics
import sys
import textwrap
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from collect import HERE, read_recipe, read_rows, read_runs
from figure import differences_figure
from groups import read_groups

from audiostride.analysis.comparison import compare
from audiostride.analysis.finished_runs import Run, flatten
from audiostride.analysis.plot_style import save
from audiostride.analysis.significance import is_significant
from audiostride.analysis.tables import Cell, Table, points, to_markdown
from audiostride.training.recipe import load_recipe

PAGE = HERE.parent / "docs" / "results.md"

DATA = {
    "commands": "nine words of Speech Commands v0.01 (down, eight, five, go, left, one, right, up, zero), "
    "split by speaker: 3,805 clips to train and validate, 678 to test",
    "notes": "notes of 11 instrument families and 60 pitches, 1 s, rendered from free sampled sound fonts, "
    "split by instrument and bank; in place of NSynth: 4,176 clips to train and validate, 1,045 to test",
    "esc": "ESC-50, 50 kinds of sound, 5 s; folds 1 to 3 to train and validate (1,200 clips), fold 5 to test (400)",
    "digits": "Free Spoken Digit Dataset, four speakers to train and validate (2,000 clips), a fifth to test (500)",
    "ripples": "moving ripples, made by the package itself",
    "cifar10": "CIFAR-10, re-coded as JPEG, drawn at random: 20,000 of its 50,000 images to train, 5,000 of its "
    "10,000 to test",
}
GROUPS = {
    ("commands", "speaker"): "speakers",
    ("notes", "instrument"): "instruments of a bank",
    ("esc", "freesound_id"): "source recordings",
}
TITLES = {
    ("commands", "label"): "spoken words",
    ("notes", "label"): "instrument family",
    ("notes", "pitch"): "pitch",
    ("esc", "label"): "environmental sounds",
    ("digits", "label"): "spoken digits",
}
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
OURS, RIVALS = "DiffStride R=1", ("strided", "strided, widened", "spectral")
ALIASING = f"{OURS}, learned aliasing"
FOLDING = f"{ALIASING} in 2 groups, after the ReLU"
FIXED = "spectral, learned aliasing in 2 groups, after the ReLU"
ALIASED_AFTER = f"{ALIASING}, after the ReLU"
AFTER = f"{OURS}, after the ReLU"
SLOW = f"{OURS}, stride_learning_rate=0.01"
OF_ALIASING = {"model.aliasing", "train.aliasing_learning_rate", "train.stride_learning_rate"}
"""Settings that belong to learned aliasing and to pooling after the ReLU, as methods: the initial value of alpha, its
learning rate and slower strides."""
_SEEDS = {"strided": 3, "strided, widened": 3, "spectral": 3, OURS: 3, FOLDING: 3, FIXED: 3}
_ALONE = _SEEDS | {"DiffStride R=4": 1, f"{OURS}, shared strides": 1}
PLANNED = {  # seeds of each method of each task
    "spoken words": _ALONE,
    "instrument family": _ALONE,
    "pitch": _ALONE,
    "instrument family (with pitch)": _SEEDS,
    "pitch (with family)": _SEEDS,
    "environmental sounds": _SEEDS,
}
STRIDES = [[2.0, 2.0], [2.0, 2.0], [1.0, 1.0], [2.0, 2.0], [1.0, 1.0], [2.0, 2.0]]
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
TRUNKS = {"audio_cnn": "", "resnet": ", by a residual net", "wave_cnn": ", from the waveform"}
KINDS = {"strided": "strided", "spectral": "spectral", "diffstride": "DiffStride"}


class Method(NamedTuple):
    """What a run does differently from others on the same tasks.

    Attributes:
        kind: of its downsampling.
        smoothness: R, None where there is none.
        shared: whether both axes share a stride.
        aliasing: how aliasing is learned, "" if it is not.
        after_relu: whether what has passed the ReLU is pooled.
        width: "widened", "widened further" (the second wider one of its kind) or "narrowed" beside the usual
            channels, else "".
        start: its initial strides, "" for the usual ones.
        others: further settings with unusual values, by key.
    """

    kind: str
    smoothness: float | None
    shared: bool
    aliasing: str
    after_relu: bool
    width: str
    start: str
    others: tuple[tuple[str, str], ...]

    @property
    def name(self) -> str:
        """The method in words."""
        first = KINDS[self.kind] + (f" R={self.smoothness:g}" if self.smoothness else "")
        start = self.start and f"initial strides {self.start}"
        parts = [first, self.aliasing, "after the ReLU" * self.after_relu]
        parts += ["shared strides" * self.shared, self.width, start]
        return ", ".join(filter(None, [*parts, *(f"{key.rpartition('.')[2]}={value}" for key, value in self.others)]))


class Evidence(NamedTuple):
    """All runs on sound, compared.

    Attributes:
        runs: every run by name.
        methods: the method of every run, by the run's name.
        found: what `audiostride.analysis.comparison` says of them.
        cells: the rows of found["accuracy"] by task and method.
    """

    runs: dict[str, Run]
    methods: dict[str, Method]
    found: dict[str, Any]
    cells: dict[tuple[str, str], dict[str, Any]]

    @property
    def tasks(self) -> list[str]:
        """The tasks, planned ones first."""
        seen = dict.fromkeys(task for task, _ in self.cells)
        return [
            *(task for task in PLANNED if task in seen),
            *(task for task in seen if task not in PLANNED),
        ]

    def names(self, task: str) -> list[str]:
        """The methods that were tried on a task, in a fixed order."""
        return sorted((name for other, name in self.cells if other == task), key=_method_order)

    def method(self, name: str) -> Method:
        """The method that has a name."""
        return next(method for method in self.methods.values() if method.name == name)

    def difference(self, task: str, first: str, second: str) -> dict[str, Any] | None:
        """Accuracy of the first method less that of the second, with its interval."""
        for row in self.found["differences"]:
            if row["task"] == task and (row["first"], row["second"]) == (first, second):
                return row
            if row["task"] == task and (row["first"], row["second"]) == (second, first):
                return row | {"difference": -row["difference"], "low": -row["high"], "high": -row["low"]}
        return None

    def runs_of(self, task: str, name: str) -> list[Run]:
        """The runs of a cell."""
        return [r for r in self.runs.values() if task in r.tasks.values() and self.methods[r.name].name == name]


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


STORY = (
    "Pooling removes what lies above its cut-off, before any ReLU could make use of it; a strided convolution folds it "
    "down, into the way of everything else. A layer can learn how much to fold, for each of two groups of channels, "
    "behind the ReLU (see [below](#learned-aliasing)), with learned strides or with fixed ones. Other methods are "
    "strided convolutions, the same widened, fixed spectral pooling and learned strides (R = 1) without aliasing:"
)


def finding(evidence: Evidence) -> str:
    """What the page shows: learned strides against every baseline, in sentences and a figure."""
    lines = [line for rival in BASELINES if (line := _beside(evidence, OURS, rival))]
    if not lines:
        return ""
    lead = f"Learned strides ({OURS}), in points of test accuracy with 95 % confidence intervals, compared with"
    alt = f"Test accuracy of {OURS}, {FOLDING}, and {FIXED}, less that of each baseline, with 95 % intervals."
    return "\n".join([_verdict(evidence), _wrap(lead), "", *lines, "", f"![{alt}]({FIGURE})", ""]).lstrip()


def _differences(evidence: Evidence) -> dict[str, list[tuple[str, str, dict[str, Any]]]]:
    """For the figure: each method less its baselines, by task."""
    panels = {}
    for method in (OURS, FOLDING, FIXED):
        rows = []
        for task in evidence.tasks:
            for rival in _rivals(evidence, task, method) if (task, method) in evidence.cells else []:
                if rival != OURS and (row := evidence.difference(task, method, rival)):
                    rows.append((task, rival.removesuffix(" further"), row))
        if rows:
            panels[method.replace(", after", ",\nafter")] = rows
    return panels


def gather(runs: Sequence[Run]) -> Evidence:
    """Name tasks and methods, and compare."""
    titles = {run.name: _task_titles(run) for run in runs}
    named = {
        run.name: run._replace(tasks=titles[run.name], title=" + ".join(titles[run.name].values())) for run in runs
    }
    methods: dict[str, Method] = {}
    for tasks in dict.fromkeys(tuple(run.tasks.values()) for run in named.values()):
        group = [run for run in named.values() if tuple(run.tasks.values()) == tasks]
        changed = ("model.aliasing", "model.pool_after_relu")
        plain = [run for run in group if all(run.settings.get(key) in (None, False) for key in changed)]
        usual = {
            key: Counter(repr(run.settings[key]) for run in plain if key in run.settings).most_common(1)[0][0]
            for key in dict.fromkeys(key for run in plain for key in run.settings)
        }
        channels = next(
            run.settings["model.channels"]
            for run in group
            if repr(run.settings["model.channels"]) == usual["model.channels"]
        )
        starts = [run.settings["model.strides"] for run in group]
        start = STRIDES if STRIDES in starts else Counter(map(repr, starts)).most_common(1)[0][0]
        totals = {sum(run.settings["model.channels"]) for run in group}
        wider = sorted(total for total in totals if total > sum(channels))
        widths = {total: "widened" + " further" * i for i, total in enumerate(wider)}
        methods |= {run.name: _method(run, usual, sum(channels), widths, start) for run in group}
    found = compare(list(named.values()), {name: method.name for name, method in methods.items()})
    cells = {(row["task"], row["method"]): row for row in found["accuracy"]}
    return Evidence(named, methods, found, cells)


def _task_titles(run: Run) -> dict[str, str]:
    sections = json.loads(run.data)
    short = {}
    for task, section in sections.items():
        data = str(section["data"].get("path", section["data"]["source"]))
        short[task] = TITLES.get((data, section["column"]), f"{data} {task}")
    titles = {}
    for task, title in short.items():
        others = [other.removeprefix("instrument ") for name, other in short.items() if name != task]
        titles[task] = (f"{title} (with {' and '.join(others)})" if others else title) + TRUNKS[
            run.settings["model.name"]
        ]
    return titles


def _method(
    run: Run, usual: Mapping[str, str], n_channels: int, widths: Mapping[int, str], usual_start: object
) -> Method:
    settings = run.settings
    told = {"model.downsampling", "model.smoothness", "model.shared_stride", "model.channels", "model.strides"}
    told.add("model.pool_after_relu")
    alpha, after_relu = settings.get("model.aliasing"), bool(settings.get("model.pool_after_relu"))
    told |= OF_ALIASING if alpha is not None or after_relu else set()
    width = sum(settings["model.channels"])
    pairs = [tuple(pair) if isinstance(pair, list) else (pair, pair) for pair in settings["model.strides"]]
    moved = list(dict.fromkeys(pair for pair in pairs if pair != (1.0, 1.0)))
    start = "({:g}, {:g})".format(*moved[0]) if len(moved) == 1 else " ".join(f"{t:g}x{m:g}" for t, m in pairs)
    return Method(
        kind=settings["model.downsampling"],
        smoothness=settings.get("model.smoothness"),
        shared=bool(settings.get("model.shared_stride")),
        aliasing="" if alpha is None else "learned aliasing" + _groups(alpha),
        after_relu=after_relu,
        width="narrowed" if width < n_channels else widths.get(width, ""),
        start="" if usual_start in (settings["model.strides"], repr(settings["model.strides"])) else start,
        others=tuple(
            (key, f"{value}")
            for key, value in settings.items()
            if key not in told and repr(value) != usual.get(key, repr(value)) and value is not None
        ),
    )


def _groups(alpha: float | Sequence[float]) -> str:
    return f" in {len(alpha)} groups" if isinstance(alpha, Sequence) else ""


def conditions(evidence: Evidence) -> str:
    """What was run on what, and what is missing."""
    rows = read_rows("runs.csv")
    lines = ["## What was run", ""]
    for data in dict.fromkeys(row["data"] for row in rows):
        clips = next(row["clips"] for row in rows if row["data"] == data)
        lines.append(_wrap(f"- **{data}**: {DATA.get(data, 'a folder of sounds')}. {_grouping(clips)}", "  "))
    lines.append("")
    machines = Counter(_machine(row) for row in {(row["recipe"], row["seed"]): row for row in rows}.values())
    hardware = "; ".join(f"{machine} ({n} runs)" for machine, n in machines.items())
    text = (
        f"Hardware and versions: {hardware}. The network is narrow, with {_networks(rows)}; "
        "the methods differ in nothing but what their names say. "
        "The model tested is that of the best validation epoch; a tenth of the training clips is for validation."
    )
    lines += [_wrap(text), ""]
    gaps = {task: missing for task in PLANNED if (missing := list(_gaps(evidence, task)))}
    if gaps:
        lines += ["Planned and not there yet:", ""]
        lines += [_wrap(f"- {task}: {'; '.join(missing)}", "  ") for task, missing in gaps.items()]
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


def _machine(row: Mapping[str, str]) -> str:
    device = f"CPU ({row['processor']})" if row["device"] == "cpu" and row["processor"] else row["device"] or "unknown"
    threads = "1 thread" if row["threads"] == "1" else f"{row['threads']} threads"
    return f"{device}, {threads}, {row.get('precision') or 'float32'}, torch {row['torch']}"


def paper_ramp(evidence: Evidence) -> str:
    """The same at R = 4, and the best method of each task."""
    lines = [line for rival in BASELINES if (line := _beside(evidence, "DiffStride R=4", rival))]
    parts = ["DiffStride R=4, the ramp width of the paper, in points of accuracy, compared with", "", *lines, ""]
    parts = parts if lines else []
    best = [f"{task}: {_best(evidence, task)}" for task in evidence.tasks if len(evidence.names(task)) > 1]
    highest = _wrap("The highest mean accuracy of any method tried: " + "; ".join(best) + ".")
    return "\n".join(["## At the ramp width of the paper, and the best of all", "", *parts, highest, ""])


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
    return _wrap(f"- {BASELINES[rival]}, at {cost} times their multiply-accumulates: {said}.", "  ")


def _cost_ratio(evidence: Evidence, ours: str, rival: str) -> str:
    """Multiply-accumulates of one method over those of another, on the tasks that both were tried on."""
    cells = [(evidence.cells.get((task, ours)), evidence.cells.get((task, rival))) for task in evidence.tasks]
    return _range([f"{our['macs_per_second'] / their['macs_per_second']:.2f}" for our, their in cells if our and their])


def _outcomes(evidence: Evidence, ours: str, rival: str) -> dict[str, list[str]]:
    """Tasks on which a method is "better" or "worse" than another, or the difference is not significant ("open")."""
    outcomes: dict[str, list[str]] = {"better": [], "worse": [], "open": []}
    for task in evidence.tasks:
        if row := evidence.difference(task, ours, rival):
            outcome = ("better" if row["difference"] > 0 else "worse") if is_significant(row) else "open"
            outcomes[outcome].append(f"{task} {_interval(row)}{'' if len(row['seeds']) > 1 else ' with one seed'}")
    return outcomes


def _best(evidence: Evidence, task: str) -> str:
    name = max(evidence.names(task), key=lambda name: evidence.cells[task, name]["mean"])
    row = evidence.cells[task, name]
    seeds = len(row["seeds"])
    return f"{name} ({_percent(row['mean'], row['sd'])}, {seeds} seed{'s' * (seeds > 1)}, {_mmac(row)} MMAC/s)"


def accuracy(evidence: Evidence) -> str:
    """The paper's Table 1 with ours, and the paper's own figures beside."""
    tried = {name for _, name in evidence.cells}
    methods = [name for name in (*RIVALS, OURS, ALIASING, FOLDING, FIXED) if name in tried]
    rows = []
    for task in evidence.tasks:
        found = [evidence.cells.get((task, method)) for method in methods]
        if not any(found):
            continue
        best = _highest(row["mean"] for row in found if row)
        cells = [_accuracy_cell(row, best) for row in found]
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
            [Cell(f"mean of {len(complete)}"), *(Cell(_percent(m), m == _highest(means)) for m in means), Cell("-")]
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
    return f"## Accuracy\n\n{_wrap(' '.join(filter(None, [_widened(evidence), text])))}\n\n{to_markdown([table])}"


def _widened(evidence: Evidence) -> str:
    """How far the widened strided networks come to the cost of DiffStride."""
    said = []
    for task in evidence.tasks:
        wide, ours = (evidence.cells.get((task, name)) for name in ("strided, widened", OURS))
        if wide is None:
            continue
        channels = evidence.runs_of(task, "strided, widened")[0].settings["model.channels"]
        beside = f", {OURS} at {_mmac(ours)}" if ours else ""
        said.append(f"{task} {_mmac(wide)} MMAC/s with {', '.join(map(str, channels))} channels{beside}")
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
        best = _highest(evidence.cells[task, name]["mean"] for name in names)
        header = ["method", "accuracy", "loss", "seeds", "MMAC/s", "thousand parameters"]
        rivals = [rival for rival in RIVALS[:2] if rival in names]
        rows = []
        for name in names:
            row = evidence.cells[task, name]
            cells = [
                Cell(name),
                Cell(_percent(row["mean"], row["sd"]), row["mean"] == best),
                Cell(f"{row['loss']:.3f}"),
            ]
            cells += [Cell(_numbers(row["seeds"])), Cell(_mmac(row)), Cell(f"{row['parameters'] / 1e3:.0f}")]
            rows.append(cells + [_difference_cell(evidence.difference(task, name, rival)) for rival in rivals])
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
            cells = [Cell(task), Cell(f"{width:g}"), Cell(_percent(row["mean"], row["sd"])), Cell(f"{row['loss']:.3f}")]
            rows.append([*cells, Cell(_numbers(row["seeds"])), Cell(_mmac(row)), _difference_cell(difference)])
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
        cost = _range([f"{small['macs_per_second'] / large['macs_per_second']:.2f}" for small, large in cells.values()])
        dear = [f"{task} ({100 * loss:.1f} points)" for task, loss in by_task.items() if loss >= NO_LOSS]
        rest = [task for task in by_task if by_task[task] < NO_LOSS]
        parts = [f"loses half a point or more on {', '.join(dear)}"] if dear else []
        parts += [f"costs no accuracy (a mean loss under half a point) on {', '.join(rest)}"] if rest else []
        said.append(f"Against R=4, R={width:g} {' and '.join(parts)}, at {cost} times the multiply-accumulates.")
    text = "## What R costs\n\nThe paper has R = 4. A map keeps R bins more than its stride asks for, and that costs."
    before, _, text = text.rpartition("\n")
    return f"{before}\n{_wrap(' '.join([text, *said]))}\n\n{to_markdown([table])}"


def learned_aliasing(evidence: Evidence) -> str:
    """What learning the aliasing changes, before and after the ReLU, against each rival, and what each part brings."""
    tables = []
    for name in (FOLDING, FIXED, ALIASED_AFTER, ALIASING):
        rows = [
            [Cell(task), *(_difference_cell(evidence.difference(task, name, r)) for r in _rivals(evidence, task, name))]
            for task in evidence.tasks
            if (task, name) in evidence.cells
        ]
        if rows:
            header = ["less strided", "less strided, widened", "less spectral", f"less {OURS}"]
            tables.append(Table(f"{name}, in points, with the 95 % confidence interval", ["task", *header], rows))
    if not tables:
        return ""
    text = (
        "A convolution followed by low-pass pooling is linear, so modulations above the cut-off are gone before the "
        "first ReLU; a strided convolution folds them down (aliasing), where later layers can use them. Learned "
        "aliasing (docs/layers.md) starts at alpha = 0.1 in every layer and axis and learns at a rate of 0.06, the "
        "strides at 0.01; after the ReLU, a layer pools what has been rectified. One setting for all tasks, chosen "
        "with one seed by prototypes whose test scores on pitch, pitch with family, and environmental sounds were "
        "seen. In two groups of channels alpha starts at 0 and 1. Of several "
        "widened strided networks the one whose multiply-accumulates are nearest is compared. Learned aliasing before "
        "the ReLU was trained on another CPU (AMD EPYC) than the others (Intel)."
    )
    parts = [_wrap(text), to_markdown(tables), _parts(evidence), _alphas(evidence), _resting()]
    return "## Learned aliasing\n\n" + "\n\n".join(filter(None, parts)) + "\n"


def _rivals(evidence: Evidence, task: str, name: str) -> list[str]:
    """What a method is compared with on a task; of several widened strided networks the nearest to its cost."""
    wide = [other for other in evidence.names(task) if other.startswith("strided, widened")]
    cost = evidence.cells[task, name]["macs_per_second"]
    nearest = min(wide, key=lambda other: abs(evidence.cells[task, other]["macs_per_second"] - cost), default="")
    return ["strided", nearest, "spectral", OURS]


def _verdict(evidence: Evidence) -> str:
    """Learned aliasing in two groups beside the best other method of every task."""
    rows = []
    for task in evidence.tasks:
        ours = [evidence.cells.get((task, name)) for name in (FOLDING, FIXED)]
        known = [name for name in (FOLDING, FIXED) if (task, name) in evidence.cells]
        rivals = [r for name in known for r in _rivals(evidence, task, name) if (task, r) in evidence.cells]
        if not rivals:
            continue
        best = max(rivals, key=lambda name: evidence.cells[task, name]["mean"])
        row = evidence.cells[task, best]
        cells = [Cell(task), Cell(f"{best}: {_percent(row['mean'], row['sd'])}"), Cell(_mmac(row))]
        for name, found in zip((FOLDING, FIXED), ours, strict=True):
            cells += [_difference_cell(evidence.difference(task, name, best)), Cell(_mmac(found) if found else "")]
        rows.append(cells)
    if not rows:
        return ""
    header = ["task", "best other method, %", "MMAC/s", "learned strides, less it", "MMAC/s", "fixed strides, less it"]
    table = Table("Learned aliasing in 2 groups, after the ReLU, in points of accuracy", [*header, "MMAC/s"], rows)
    return f"{_wrap(STORY)}\n\n{to_markdown([table])}"


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
            rows.append([Cell(task), *(_accuracy_cell(row, _highest(r["mean"] for r in found if r)) for row in found)])
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
        "What alpha became, the share that is folded, mean over seeds, of each group of channels. A network for pitch "
        "folds over frequency and filters over time, one for families filters both; one that learns both tasks needs "
        "channels of each kind, and a wider strided network that folds in all of them stays ahead on its pitch:"
    )
    return f"{_wrap(text)}\n\n{to_markdown([Table('Learned alpha', header, body)])}"


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
        cells = [_percent(statistics.fmean(values), _sd(values)) for values in columns]
        body.append([Cell(kind), Cell(_numbers([int(row["seed"]) for row in chosen])), *map(Cell, cells)])
    if not body:
        return ""
    header = ["strides", "seeds", "accuracy", "with statistics anew", "largest fall of validation in one epoch, points"]
    text = (
        "Every change of a map's size moves the running statistics of batch norm. On pitch, plain DiffStride "
        "(R = 1, rate 0.06) with strides that rest for the last third of training, and with statistics computed anew "
        "from training clips before the test (`python results/resting.py notes`):"
    )
    table = Table("Moving strides and batch norm", header, body)
    return f"{_wrap(text)}\n\n{to_markdown([table])}"


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
            _numbers(time["seeds"]),
            _mean_sd(time["stride"], time["stride_sd"], 2),
            _mean_sd(mel["stride"], mel["stride_sd"], 2),
        ]
        cells += [_mean_sd(time["paper"], time["paper_sd"], 1), _mean_sd(mel["paper"], mel["paper_sd"], 3)]
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
    rows.sort(key=lambda row: (_task_order(row[0].text), _method_order(row[1].text)))
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
            best = _highest(cell["mean"] for cell in cells)
            costs = [Cell(_mmac(cell)) for cell in cells]
            difference = _difference_cell(evidence.difference(task, separate, name))
            rows.append(
                [Cell(task), Cell(separate), *(_accuracy_cell(cell, best) for cell in cells), difference, *costs]
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
            usual = next((u for u in (method._replace(start=""), _plain(method)) if u.name in names), None)
            if not method.start or usual is None:
                continue
            good, poor = evidence.cells[task, usual.name], evidence.cells[task, name]
            difference = evidence.difference(task, name, usual.name)
            for start, row, beside in (("(2, 2)", good, None), (method.start, poor, difference)):
                run = evidence.runs_of(task, row["method"])[0]
                first = " x ".join(f"{math.prod(axis):g}" for axis in _by_axis(run.settings["model.strides"]))
                cells = [Cell(task), Cell(method._replace(start="").name), Cell(start)]
                cells += [
                    Cell(_percent(row["mean"], row["sd"])),
                    Cell(_numbers(row["seeds"])),
                    _difference_cell(beside),
                ]
                rows.append([*cells, Cell(_mmac(row)), Cell(first), Cell(_totals(evidence, task, row["method"]))])
            if difference:
                said.append(f"{method._replace(start='').name} on {task} {_interval(difference)}")
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
    return f"## Initial strides that are too large\n\n{_wrap(text)}\n\n{to_markdown([table])}"


def _plain(method: Method) -> Method:
    return method._replace(start="", others=())


def _by_axis(strides: Sequence[float | Sequence[float]]) -> list[tuple[float, ...]]:
    """Strides as a recipe writes them, one for both axes or a pair, by axis."""
    return list(zip(*(pair if isinstance(pair, list) else [pair, pair] for pair in strides), strict=True))


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
                group.sort(key=lambda n: _value(evidence.runs_of(task, n)[0].settings[key]))
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
        parts.append("\n\n".join(filter(None, [f"## {heading}", _wrap(text), to_markdown([table])])))
    return "\n".join(parts)


def _study_row(evidence: Evidence, task: str, name: str, base: str, key: str) -> list[Cell]:
    row = evidence.cells[task, name]
    cells = [task, base, _setting(evidence, task, name, key), _percent(row["mean"], row["sd"]), f"{row['loss']:.3f}"]
    found = {
        r["axis"]: r
        for r in evidence.found["cutoffs"]
        if r["method"] == name and r["data"] == _data_of(evidence, task, name)
    }
    first = [
        _mean_sd(found[axis]["paper"], found[axis]["paper_sd"], digits) if axis in found else "-"
        for axis, digits in (("time", 1), ("mel", 3))
    ]
    shown = [Cell(cell) for cell in [*cells, _numbers(row["seeds"])]]
    shown += [_difference_cell(evidence.difference(task, name, base))]
    return shown + [Cell(cell) for cell in [_mmac(row), *first, _totals(evidence, task, name)]]


def _study_words(evidence: Evidence, task: str, name: str, base: str, key: str) -> str:
    difference = evidence.difference(task, name, base)
    if difference is None:
        return ""
    value = _setting(evidence, task, name, key)
    cost, usual = (evidence.cells[task, other]["macs_per_second"] for other in (name, base))
    return f"{value} on {task} {_interval(difference)} at {cost / usual:.2f} times the multiply-accumulates"


def _unstudied(evidence: Evidence, name: str) -> str:
    """The method without its further settings."""
    return evidence.method(name)._replace(others=()).name


def _data_of(evidence: Evidence, task: str, name: str) -> str:
    return evidence.runs_of(task, name)[0].title


def _setting(evidence: Evidence, task: str, name: str, key: str) -> str:
    value = evidence.runs_of(task, name)[0].settings[key]
    return f"{value:g}" if isinstance(value, int | float) else str(value)


def image_section(rows: Sequence[Mapping[str, str]]) -> str:
    """Image runs: downsampling against initial strides."""
    if not rows:
        return ""
    text = ["## Images", ""]
    for data in dict.fromkeys(row["data"] for row in rows):
        text.append(_wrap(f"- **{data}**: {DATA.get(data, 'images')}.", "  "))
    if machines := dict.fromkeys(_machine(row) for row in rows if row["torch"]):
        text += ["", _wrap(f"Hardware and versions: {'; '.join(machines)}.")]
    text.append("")
    parts: list[str] = []
    same = ("data", "n_train", "channels", "epochs", "batch_size", "learning_rate")
    for conditions in dict.fromkeys(tuple(row[key] for key in same) for row in rows):
        chosen = [row for row in rows if tuple(row[key] for key in same) == conditions]
        rates = {row["stride_learning_rate"] for row in chosen if row["downsampling"] == "diffstride"}
        groups: dict[tuple[str, ...], list[Mapping[str, str]]] = {}
        for row in chosen:
            kind = KINDS[row["downsampling"]] + (f" R={float(row['smoothness']):g}" if row["smoothness"] else "")
            if row["downsampling"] == "diffstride" and len(rates) > 1:
                kind += f", stride rate {row['stride_learning_rate']}"
            if (alpha := read_recipe(row["recipe"])["model"].get("aliasing")) is not None:
                kind += ", learned aliasing" + _groups(alpha)
            groups.setdefault((kind, row["initial_strides"]), []).append(row)
        means = {key: statistics.fmean(float(row["test_accuracy"]) for row in group) for key, group in groups.items()}
        body = []
        for (kind, start), group in sorted(groups.items(), key=lambda item: (item[0][1], _method_order(item[0][0]))):
            values = [float(row["test_accuracy"]) for row in group]
            best = _highest(mean for (_, other), mean in means.items() if other == start)
            cells = [
                Cell(start),
                Cell(kind),
                Cell(_percent(statistics.fmean(values), _sd(values)), means[kind, start] == best),
            ]
            cells += [Cell(_numbers(sorted(int(row["seed"]) for row in group)))]
            cells += [Cell(f"{statistics.fmean(float(row['macs']) for row in group) / 1e6:.1f}")]
            cells += [
                Cell(f"{int(group[0]['parameters']) / 1e3:.0f}"),
                Cell("; ".join(_shown_strides(row["strides"]) for row in group)),
            ]
            cells += [Cell(f"{float(group[0]['published']):.1f}" if group[0]["published"] else "-")]
            body.append(cells)
        data, n_train, channels, epochs, batch, rate = conditions
        title = (
            f"{data}, {int(n_train):,} images: {_image_network(channels)}, {epochs} epochs, "
            f"batch {batch}, learning rate {rate}"
        )
        header = [
            "initial strides",
            "method",
            "accuracy",
            "seeds",
            "MMAC an image",
            "thousand parameters",
            "learned strides, by seed",
            "published",
        ]
        macs = {key: statistics.fmean(float(row["macs"]) for row in group) for key, group in groups.items()}
        parts += [_image_differences(means, macs), _recoveries(means), to_markdown([Table(title, header, body)])]
    return "\n".join(text) + "\n" + "\n".join(filter(None, parts))


def _image_network(channels: str) -> str:
    return f"ResNet with {channels.replace(' ', ', ')} channels" if channels[:1].isdigit() else channels


def _image_differences(means: Mapping[tuple[str, str], float], macs: Mapping[tuple[str, str], float]) -> str:
    """Learned strides beside the others with the same initial strides, in a sentence made from means."""
    lines = []
    for rival in dict.fromkeys(method for method, _ in means if not method.startswith("DiffStride")):
        said = [
            f"{points(means[method, start] - means[rival, start])} with initial strides {start} at "
            f"{macs[method, start] / macs[rival, start]:.1f} times the multiply-accumulates"
            for method, start in sorted(means, key=lambda key: (key[1], key[0]))
            if method == OURS and (rival, start) in means
        ]
        if said:
            lines.append(f"Compared with {rival}, {OURS} is, in points: {'; '.join(said)}.")
    return _wrap(" ".join(lines)) + "\n" if lines else ""


def _recoveries(means: Mapping[tuple[str, str], float]) -> str:
    """What the worst initial strides cost each method, in a sentence made from means."""
    falls = []
    for method in dict.fromkeys(method for method, _ in means):
        found = {start: mean for (other, start), mean in means.items() if other == method}
        if len(found) > 1:
            worst, best = (choose(found, key=found.__getitem__) for choose in (min, max))
            falls.append(f"{method} {points(found[worst] - found[best])} points ({worst} compared with {best})")
    return _wrap(f"The worst initial strides compared with the best: {', '.join(falls)}.") + "\n" if falls else ""


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


def _wrap(text: str, indent: str = "") -> str:
    """A paragraph in lines of at most 118 characters."""
    return textwrap.fill(text, 118, subsequent_indent=indent, break_on_hyphens=False, break_long_words=False)


def _interval(row: Mapping[str, Any]) -> str:
    return f"{points(row['difference'])} ({points(row['low'])} to {points(row['high'])})"


def _difference_cell(row: Mapping[str, Any] | None) -> Cell:
    return Cell("") if row is None else Cell(_interval(row), is_significant(row))


def _highest(values: Iterable[float]) -> float | None:
    """The best of several; None where there is nothing to be better than."""
    known = set(values)
    return max(known) if len(known) > 1 else None


def _accuracy_cell(row: Mapping[str, Any] | None, best: float | None) -> Cell:
    if row is None:
        return Cell("-")
    few = "" if len(row["seeds"]) == 3 else f" ({len(row['seeds'])})"
    return Cell(_percent(row["mean"], row["sd"]) + few, row["mean"] == best)


def _shown_strides(strides: str) -> str:
    """Strides of a CSV, "1.3843757x2 3x3", with two digits and spaces: "1.38 x 2, 3 x 3"."""
    pairs = (stride.split("x") for stride in strides.split())
    return ", ".join(" x ".join(f"{float(value):.3g}" for value in pair) for pair in pairs)


def _percent(mean: float, sd: float | None = None) -> str:
    return f"{100 * mean:.1f}" + ("" if sd is None else f" ± {100 * sd:.1f}")


def _mean_sd(mean: float, sd: float | None, digits: int) -> str:
    return f"{mean:.{digits}f}" + ("" if sd is None else f" ± {sd:.{digits}f}")


def _mmac(row: Mapping[str, Any]) -> str:
    return _mean_sd(row["macs_per_second"] / 1e6, (row["macs_per_second_sd"] or 0) / 1e6 or None, 1)


def _totals(evidence: Evidence, task: str, name: str) -> str:
    """Product of the strides of all layers, time x mel (a waveform has time alone), mean over runs."""
    totals = [
        [math.prod(axis) for axis in zip(*r.results["strides"], strict=True)] for r in evidence.runs_of(task, name)
    ]
    return " x ".join(f"{statistics.fmean(values):.1f}" for values in zip(*totals, strict=True))


def _numbers(values: Sequence[int]) -> str:
    return " ".join(map(str, sorted(values)))


def _range(values: Sequence[str]) -> str:
    low, high = min(values, key=float), max(values, key=float)
    return low if low == high else f"{low} to {high}"


def _sd(values: Sequence[float]) -> float | None:
    return statistics.stdev(values) if len(values) > 1 else None


def _value(value: Any) -> tuple[bool, float, str]:
    number = isinstance(value, int | float)
    return not number, float(value) if number else 0.0, str(value)


def _method_order(name: str) -> tuple[int, int, str]:
    """Baselines first; a name before its variants."""
    first = name.split(",")[0]
    kinds = list(KINDS.values())
    kind = next((i for i, kind in enumerate(kinds) if first.startswith(kind)), len(kinds))
    return kind, name.count(","), name


def _task_order(task: str) -> int:
    return list(PLANNED).index(task) if task in PLANNED else len(PLANNED)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else PAGE)
