"""What a command found, as tables and lines for the terminal."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich import box, table
from rich.text import Text

from ..analysis.wording import folding_sentence, mean_and_sd, percent, reference_cells, ripple_sentence
from ..errors import printable

if TYPE_CHECKING:
    from ..data.inspection import Findings
    from ..inference.export import Check
    from ..inference.predict import Row
    from ..training.evaluation import Score


class Table(table.Table):
    """A table in which what is not printable, of labels and names, is shown as escapes."""

    def add_column(self, header: str = "", **options: Any) -> None:  # type: ignore[override]
        super().add_column(printable(header, keep="\n"), **options)

    def add_row(self, *cells: str | Text, **options: Any) -> None:  # type: ignore[override]
        super().add_row(*map(_shown, cells), **options)


def _shown(cell: str | Text) -> str | Text:
    if isinstance(cell, Text):
        return Text(printable(cell.plain, keep="\n"), cell.style)
    return printable(cell, keep="\n")


def _image_strides(strides: str | Sequence[float | Sequence[float] | None]) -> str:
    if isinstance(strides, str):
        return strides
    pairs = (
        [] if s is None else [f"{s:g}"] if isinstance(s, int | float) else [f"{v:.2f}" for v in s] for s in strides
    )
    return " ".join("x".join(pair) or "-" for pair in pairs)


def images_table(rows: Sequence[dict[str, Any]], title: str) -> Table:
    """Accuracy of image runs next to their cost and the published scores."""
    numbers = ("accuracy", "runs", "MMAC per image", "published")
    table = _table(title, ("downsampling", "initial strides"), numbers, ("final strides",))
    for row in rows:
        sd = "" if row["accuracy_sd"] is None else f" ± {row['accuracy_sd']:.1f}"
        published = "-" if row["published"] is None else f"{row['published']:.1f} %"
        table.add_row(
            row["downsampling"],
            _image_strides(row["initial_strides"]),
            f"{row['accuracy']:.1f}{sd} %",
            str(row["n"]),
            f"{row['mmacs']:.0f}",
            published,
            _image_strides(row["strides"]),
        )
    return table


def scores_table(scores: dict[str, "Score"], title: str) -> Table:
    """Accuracy, loss and whatever else each kind of task is scored by."""
    from ..training.evaluation import METRICS

    used = [name for name in METRICS if any(name in score.metrics() for score in scores.values())]
    table = _table(title, ("task",), ("accuracy", *(METRICS[name].short for name in used), "loss", "clips"))
    for task, score in scores.items():
        metrics = score.metrics()
        others = [f"{metrics[name]:.3f}" if name in metrics else "" for name in used]
        table.add_row(task, f"{100 * score.accuracy:.1f} %", *others, f"{score.loss:.4f}", str(score.n))
    return table


def confidence_table(found: Mapping[str, Mapping[str, Any]]) -> Table:
    """How far the scores of each task can be believed, and what the answer none costs and saves."""
    rows = []
    for task, one in found.items():
        interval = "" if not one["interval"] else " ({:.1f} to {:.1f})".format(*(100 * x for x in one["interval"]))
        none = [_percent(one["none"][key]) for key in ("share", "of_right", "of_wrong", "accuracy")]
        error = f"{100 * one['calibration_error']:.1f} %{interval}"
        rows.append([task, error, f"up to {100 * one['perfect']:.1f} %", *none])
    headings = ("task", "calibration error", "by chance", "none", "of right ones", "of wrong ones", "others right")
    return plain_table("How far to believe them", headings, rows)


def calibration_table(found: Mapping[str, Mapping[str, Any]]) -> Table:
    """What `calibrate` found for each task."""
    rows = []
    for task, one in found.items():
        below = "" if one["none_below"] is None else f"{one['none_below']:.3g}"
        kept = "" if one["none_below"] is None else "{:.0f} to {:.0f} %".format(*(100 * share for share in one["kept"]))
        background = "" if "background" not in one else _percent(one["background"]["none"])
        rows.append([task, str(one["clips"]), f"{one['temperature']:.3g}", below, kept, background])
    headings = ("task", "clips", "temperature", "none below", "new clips kept", "background called none")
    return plain_table("Calibration", headings, rows)


def precision_table(task: str, labels: Sequence[str], reached: Sequence[Mapping[str, Any]]) -> Table:
    """From which score on each class is right as often as was asked for; "never" where that is not reached."""
    rows = []
    for label, one in zip(labels, reached, strict=True):
        if not one["clips"]:
            rows.append([label, "never", "", "0"])
            continue
        low, high = (100 * end for end in one["interval"])
        right = f"{100 * one['precision']:.0f} % ({low:.0f} to {high:.0f})"
        rows.append([label, f"{one['threshold']:.3f}", right, str(one["clips"])])
    return plain_table(task, ("class", "from score", "right", "clips"), rows)


def events_table(report: Mapping[str, Any], title: str) -> Table:
    """Events of each class and in all: precision, recall and F1, of onsets alone and of segments, too."""
    table = _table(title, ("class",), ("precision", "recall", "F1", "F1 of onsets", "F1 of segments", "events"))
    for label, counts in report["event"].items():
        shown = [_percent(counts[name]) for name in ("precision", "recall", "f1")]
        if not label and report["interval"]:
            low, high = report["interval"]
            shown[2] += f" ({100 * low:.0f} to {100 * high:.0f})"
        others = [_percent(report[name][label]["f1"]) for name in ("onset", "segment")]
        table.add_row(Text(label or "all", style="" if label else "bold"), *shown, *others, str(counts["true"]))
    return table


def false_alarms_table(found: Mapping[str, Any], title: str) -> Table:
    """Events of each task that cannot be there, per hour, with their 95 % interval and the classes of most of them."""
    table = _table(title, ("task",), ("per hour", "95 % interval", "events", "hours"), ("most often",))
    for task, counts in found["tasks"].items():
        low, high = counts["interval"]
        most = ", ".join(f"{label} {rate:.3g}" for label, rate in list(counts["classes"].items())[:3])
        shown = [f"{counts['per_hour']:.3g}", f"{low:.3g} to {high:.3g}", str(counts["events"])]
        table.add_row(task, *shown, f"{found['hours']:.3g}", Text(most))
    return table


def missed_table(found: Mapping[str, Mapping[str, Mapping[str, Any] | None]]) -> Table:
    """What is missed at a few rates of false alarms, by task; thresholds as multiples of the present ones."""
    rows = []
    for task, points in found.items():
        for per_hour, point in points.items():
            if point is None:
                rows.append([task, f"{per_hour}/h", "none is high enough", "", ""])
                continue
            low, high = point["interval"]
            seen = f"{point['per_hour']:.3g} ({low:.3g} to {high:.3g})"
            rows.append([task, f"{per_hour}/h", f"x {point['factor']:.2f}", seen, _percent(point.get("missed"))])
    headings = ("task", "at most", "thresholds", "false alarms per hour", "events missed")
    return plain_table("What is missed at how many false alarms", headings, rows)


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f} %"


def folds_table(scores: Mapping[str, Any], title: str) -> Table:
    """A row for each fold, their mean ± sd, and the accuracy over all clips with its interval.

    Args:
        scores: of one task, from `summarise_folds`.
        title: of the table.
    """
    from ..training.evaluation import METRICS

    used = [name for name in METRICS if name in scores["mean"]]
    rows = [
        [row["fold"], f"{100 * row['accuracy']:.1f} %", *(f"{row[name]:.3f}" for name in used), f"{row['loss']:.4f}",
         str(row["n"])] for row in scores["folds"]
    ]  # fmt: skip
    mean, sd, pooled = scores["mean"], scores["sd"], scores["pooled"]
    others = [mean_and_sd(mean[name], sd[name], 3) for name in used]
    accuracy = percent(mean["accuracy"], sd["accuracy"])
    rows.append(["mean ± sd", f"{accuracy} %", *others, mean_and_sd(mean["loss"], sd["loss"], 4), ""])
    interval = "" if pooled["low"] is None else f" ({100 * pooled['low']:.1f} to {100 * pooled['high']:.1f})"
    rows.append(
        ["all clips", f"{100 * pooled['accuracy']:.1f} %{interval}", *("" for _ in used), "", str(pooled["clips"])]
    )
    headings = ("fold", "accuracy", *(METRICS[name].short for name in used), "loss", "clips")
    return plain_table(title, headings, rows)


def confusion_table(task: str, labels: Sequence[str], confusion: Sequence[Sequence[int]]) -> Table:
    """A row for each true class: its accuracy, and how many of its clips were taken for which class."""
    table = _table(f"{task}: true class by row", ("class",), ("accuracy", "clips", *labels))
    table.columns[0].no_wrap = True
    for i, (label, row) in enumerate(zip(labels, confusion, strict=True)):
        accuracy = f"{100 * row[i] / sum(row):.1f} %" if sum(row) else ""
        table.add_row(label, accuracy, str(sum(row)), *map(str, row))
    return table


def class_table(task: str, classes: Sequence[Mapping[str, Any]]) -> Table:
    """A row for each class, from `mistakes.class_scores`."""
    rows = []
    for row in classes:
        shares = ["" if row[key] is None else f"{100 * row[key]:.1f} %" for key in ("precision", "recall", "f1")]
        rows.append([row["label"], str(row["clips"]), *shares, row["taken_for"]])
    return plain_table(task, ("class", "clips", "precision", "recall", "F1", "most often taken for"), rows)


def plain_table(title: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """A table of text; the first column is the name of the row."""
    table = _table(title)
    for i, heading in enumerate(headings):
        table.add_column(heading, no_wrap=i == 0)
    for row in rows:
        table.add_row(*row)
    return table


def findings_table(found: "Findings", path: str) -> Table:
    """What `init` saw in a folder or table."""
    rows = [("clips", str(found.clips))]
    rows.append(
        ("splits", ", ".join(f"{n} {split}" for split, n in found.splits.items()) or "none; 80/10/10 will be drawn")
    )
    if found.seconds:
        low, middle, high, total = found.seconds.values()
        rows.append(("length", f"{low:.2f} to {high:.2f} s, median {middle:.2f} s, {total / 3600:.2f} h in all"))
    rows.append(("sample rates", ", ".join(f"{n} at {rate} Hz" for rate, n in found.sample_rates.items())))
    rows.append(("channels", ", ".join(f"{n} with {channels}" for channels, n in found.channels.items())))
    for name, counts in found.columns.items():
        distinct, use = found.distinct[name], {found.label: " (classes)", found.group: " (kept together)"}.get(name, "")
        shown = ", ".join(f"{value or '(empty)'} ({n})" for value, n in list(counts.items())[:12])
        if distinct > 60:
            shown = f"{distinct} values, such as {next(iter(counts))}"
        elif distinct > 12:
            shown += f", ... {distinct} values"
        rows.append((f"column {name}{use}", shown))
    if found.label_columns:
        rows.append(("classes", f"one a column: {', '.join(found.label_columns)}"))
    if found.kind == "multilabel" and found.label:
        rows.append(("several labels", f"separated by {found.separator!r}, or lists"))
    if found.missing:
        rows.append(("no label", "\n".join([f"{len(found.missing)} clips, left out", *found.missing[:5]])))
    if found.energy_hz:
        rows.append(("energy", f"90 % between {found.energy_hz['5']:.0f} and {found.energy_hz['95']:.0f} Hz"))
    rows.append(("bad files", "\n".join([str(len(found.bad_files)), *found.bad_files[:5]])))
    if found.unlabelled:
        rows.append(("without a label", "\n".join([f"{len(found.unlabelled)}, left out", *found.unlabelled[:5]])))
    copies = [" = ".join(names[:3]) for names in found.duplicates[:5]]
    rows.append(("duplicates", "\n".join([str(len(found.duplicates)), *copies])))
    rows.append(
        (
            "in several splits",
            "\n".join(found.leaks)
            or ("none" if found.splits else "audiostride validate checks the splits that are drawn"),
        )
    )
    if found.notes:
        rows.append(("look at", "\n".join(found.notes)))
    return plain_table(path, ("", "found"), rows)


def predictions_table(rows: Sequence["Row"]) -> Table:
    """Predictions of `predict`; columns that would say nothing are left out."""
    table = _table(None)
    tasks = {row.task for row in rows if row.task}
    windows = any(row.start_s for row in rows)
    table.add_column("file", overflow="fold")
    if windows:
        table.add_column("seconds", justify="right")
    if len(tasks) > 1:
        table.add_column("task")
    table.add_column("label")
    table.add_column("score", justify="right")
    for row in rows:
        time = [_span(row)] if windows else []
        task = [row.task or ""] if len(tasks) > 1 else []
        label = Text(row.label) if row.error is None and row.label else Text(row.error or "", style="red")
        score = "" if row.score is None else f"{row.score:.3f}"
        table.add_row(Text(row.file), *time, *task, label, score)
    return table


def stream_line(row: "Row") -> str:
    r"""A prediction of `predict --stream`.

    Example:
        >>> from audiostride.inference.predict import Row
        >>> stream_line(Row("-", "word", 3.0, 4.0, 1, "yes", 0.98))
        '3.0-4.0 s  word: yes 0.980\n'
    """
    return f"{row.error}\n" if row.error else f"{_span(row)} s  {row.task}: {row.label} {row.score:.3f}\n"


def export_table(path: str, check: "Check") -> Table:
    """How an exported file compares with its model."""
    lengths = " and ".join(f"{seconds:.1f} s" for seconds in check.other_lengths_s)
    on = f"{check.windows} windows" + (f" and on clips of {lengths}" if lengths else "")
    table = _table(f"{path}, {'its list of operations ' if check.by_operations else ''}checked on {on}")
    cells = {
        "size": f"{check.size_bytes / 1e6:.2f} MB",
        "flash": _kilobytes(check.flash_bytes),
        "RAM": _kilobytes(check.ram_bytes),
        "RAM, events": _kilobytes(check.recording_ram_bytes),
        "largest logit error": f"{check.max_error:.1e}",
        "labels agree": f"{100 * check.labels_agree:.1f} %",
        "ms per window": "" if check.latency_ms is None else f"{check.latency_ms:.2f}",
        "in PyTorch": f"{check.model_latency_ms:.2f}",
    }
    for heading, cell in cells.items():
        if cell:
            table.add_column(heading, justify="right")
    table.add_row(*filter(None, cells.values()))
    return table


def _kilobytes(n_bytes: int | None) -> str:
    return "" if n_bytes is None else f"{n_bytes / 1000:.0f} kB"


def _table(
    title: str | None,
    texts: Sequence[str] = (),
    numbers: Sequence[str] = (),
    more_texts: Sequence[str] = (),
    pad_edge: bool = True,
) -> Table:
    """An empty table with these headings; numbers are set flush right."""
    table = Table(title=title and printable(title), box=box.SIMPLE_HEAD, title_justify="left", pad_edge=pad_edge)
    for headings, justify in ((texts, "left"), (numbers, "right"), (more_texts, "left")):
        for heading in headings:
            table.add_column(heading, justify=justify)
    return table


def _span(row: "Row") -> str:
    return "" if row.start_s is None else f"{row.start_s:.1f}-{row.end_s:.1f}"


def cutoff_tables(found: Mapping[str, Any]) -> list[Table]:
    """A table for each axis (Hz, cycles per mel band), the reference ranges and what was measured.

    Args:
        found: what `audiostride cutoffs --json` prints.
    """
    tables = []
    runs = f", mean of {len(found['runs'])} runs" if len(found["runs"]) > 1 else ""
    for axis, unit, digits in (("time", "Hz", 1), ("mel", "cycles per mel band", 3)):
        title = f"{axis}: modulations kept, in {unit} (input of {found['seconds']:g} s{runs})"
        sides = [f"{group}\n{edge}" for group in ("own", "so far") for edge in ("f/2S", "full", "-6 dB", "last")]
        sides = [side if side.endswith("f/2S") else side[side.index("\n") :] for side in sides]
        table = _table(title, ("\nlayer",), ("\nstride", *sides, "paper's\nTable 2"), pad_edge=False)
        for row in found["layers"]:
            if row["axis"] == axis:
                values = [*row["own"].values(), *row["cumulative"].values()]
                shown = ["-" if value is None else f"{value:.{digits}f}" for value in values]
                stride = mean_and_sd(row["stride"], row["stride_sd"], 2)
                paper = mean_and_sd(row["paper"], row["paper_sd"], digits + 1)  # as many digits as its table
                table.add_row(str(row["layer"]), stride, *shown, paper)
        masked = any(row["own"]["full_gain"] is not None for row in found["layers"])
        folded = [folding_sentence(row) for row in found["layers"] if row["axis"] == axis]
        notes = [f"onsets of events are known at best to about ±{found['onset_ms']:.0f} ms"] if axis == "time" else []
        notes += filter(None, folded) if masked else []
        table.caption, table.caption_justify = "\n".join(notes) or None, "left"
        if table.rows:  # a raw waveform has no mel axis
            tables.append(table)

    if tables and all(row["own"]["full_gain"] is None for row in found["layers"]):
        tables[-1].caption = "strided convolutions have no cut-off: what lies above f/2S is folded back, not removed"
        tables[-1].caption_justify = "left"

    title = "for comparison: what human listeners need to understand speech"
    references = _table(title, ("range", "in the unit above", "what", "source"), pad_edge=False)
    for row in found["references"]:
        references.add_row(*reference_cells(row))
    for row in found["ripples"]:
        references.add_row(f"{row['modulation']:g} {row['unit']}", "", ripple_sentence(row), "by construction")
    largest = found["measured"]["largest_error"]
    if largest is not None:
        references.caption = f"measured inside the network, each layer's gain matches its mask to within {largest:.1g}"
        references.caption_justify = "left"
    return [*tables, references] if references.rows or largest is not None else tables
