"""What has been measured: every run of runs.csv, the method it is of, and how the methods compare."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from audiostride.analysis.comparison import compare
from audiostride.analysis.finished_runs import Run

GROUPED = ("commands", "notes", "esc")
"""Data sets of which groups are known: speakers, instruments (per bank), source recordings."""
TITLES = {
    ("commands", "label"): "spoken words",
    ("notes", "label"): "instrument family",
    ("notes", "pitch"): "pitch",
    ("esc", "label"): "environmental sounds",
    ("digits", "label"): "spoken digits",
    ("cifar10", "label"): "images",
}
OURS = "DiffStride R=1"
WIDENED_LESS = "strided, widened less"
ALIASING = f"{OURS}, learned aliasing"
FOLDING = f"{ALIASING} in 2 groups, after the ReLU"
FIXED = "spectral, learned aliasing in 2 groups, after the ReLU"
ALIASED_AFTER = f"{ALIASING}, after the ReLU"
AFTER = f"{OURS}, after the ReLU"
SLOW = f"{OURS}, stride_learning_rate=0.01"
OF_ALIASING = {"model.aliasing", "train.aliasing_learning_rate", "train.stride_learning_rate"}
"""Settings that belong to learned aliasing and to pooling after the ReLU, as methods: the initial value of alpha, its
learning rate and slower strides."""
PLANNED = (
    "spoken words",
    "instrument family",
    "pitch",
    "instrument family (with pitch)",
    "pitch (with family)",
    "environmental sounds",
    "images",
)
SEEDS = {"strided": 3, WIDENED_LESS: 3, "strided, widened": 3, "spectral": 3, OURS: 3, FOLDING: 3, FIXED: 3}
"""How many seeds of each method are planned on each of these tasks."""
STRIDES = [[2.0, 2.0], [2.0, 2.0], [1.0, 1.0], [2.0, 2.0], [1.0, 1.0], [2.0, 2.0]]
KINDS = {"strided": "strided", "spectral": "spectral", "diffstride": "DiffStride"}


class Method(NamedTuple):
    """What a run does differently from others on the same tasks.

    Attributes:
        kind: of its downsampling.
        smoothness: R, None where there is none.
        shared: whether both axes share a stride.
        aliasing: how aliasing is learned, "" if it is not.
        after_relu: whether what has passed the ReLU is pooled.
        width: "widened" (the widest of its kind), "widened less" or "narrowed" next to the usual channels, else "".
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
    """All runs, compared.

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
        return sorted((name for other, name in self.cells if other == task), key=method_order)

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


def by_validation(runs: Sequence[Run]) -> tuple[list[Run], list[Run]]:
    """Runs whose validation clips are of groups (speakers, instruments) that training has none of, and the others."""
    parts: tuple[list[Run], list[Run]] = ([], [])
    for run in runs:
        sections = [section["data"] for section in json.loads(run.data).values()]
        mixed = any(data.get("group") is None and data.get("path") in GROUPED for data in sections)
        parts[mixed].append(run)
    return parts


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
        wider = sorted((total for total in totals if total > sum(channels)), reverse=True)
        widths = {total: "widened" + " less" * i for i, total in enumerate(wider)}
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
        titles[task] = f"{title} (with {' and '.join(others)})" if others else title
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
        aliasing="" if alpha is None else "learned aliasing" + in_groups(alpha),
        after_relu=after_relu,
        width="narrowed" if width < n_channels else widths.get(width, ""),
        start="" if usual_start in (settings["model.strides"], repr(settings["model.strides"])) else start,
        others=tuple(
            (key, f"{value}")
            for key, value in settings.items()
            if key not in told and repr(value) != usual.get(key, repr(value)) and value is not None
        ),
    )


def in_groups(alpha: float | Sequence[float]) -> str:
    """How many groups of channels have an alpha of their own, in words."""
    return f" in {len(alpha)} groups" if isinstance(alpha, Sequence) else ""


def machine_of(row: Mapping[str, str]) -> str:
    """What a run was trained on, in words."""
    device = f"CPU ({row['processor']})" if row["device"] == "cpu" and row["processor"] else row["device"] or "unknown"
    threads = "1 thread" if row["threads"] == "1" else f"{row['threads']} threads"
    return f"{device}, {threads}, {row.get('precision') or 'float32'}, torch {row['torch']}"


def plain(method: Method) -> Method:
    """The method from the usual initial strides, without further settings."""
    return method._replace(start="", others=())


def by_axis(strides: Sequence[float | Sequence[float]]) -> list[tuple[float, ...]]:
    """Strides as a recipe writes them, one for both axes or a pair, by axis."""
    return list(zip(*(pair if isinstance(pair, list) else [pair, pair] for pair in strides), strict=True))


def by_value(value: Any) -> tuple[bool, float, str]:
    """Key to sort values of a setting by: numbers first."""
    number = isinstance(value, int | float)
    return not number, float(value) if number else 0.0, str(value)


def method_order(name: str) -> tuple[int, int, str]:
    """Baselines first; a name before its variants."""
    first = name.split(",")[0]
    kinds = list(KINDS.values())
    kind = next((i for i, kind in enumerate(kinds) if first.startswith(kind)), len(kinds))
    return kind, name.count(","), name


def task_order(task: str) -> int:
    """Key to sort tasks by: planned ones first."""
    return PLANNED.index(task) if task in PLANNED else len(PLANNED)
