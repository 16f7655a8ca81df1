"""Comparisons as tables for print: Markdown, LaTeX, CSV. Figures are rounded here and nowhere else."""

import csv
import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import UsageError, printable
from ..files import check_new, replace_files
from ..sections import flatten
from ..training.evaluation import METRICS
from .significance import is_significant
from .wording import mean_and_sd, percent

_TEX = {character: "\\" + character for character in "_%&#{}$"} | {
    "\\": r"\textbackslash{}", "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "<": "$<$", ">": "$>$",
    "|": "$|$", "±": r"$\pm$",
}  # fmt: skip


_TEXTS = ("comparison.json", "tables.md", "tables.tex")
_KINDS = ("accuracy", "differences", "cutoffs", "shared_strides")


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


def tables(found: Mapping[str, Any]) -> list[Table]:
    """What `compare` found as tables for print: accuracy in %, cost in million MACs and thousand parameters."""
    methods = sorted({row["method"] for row in found["accuracy"]}, key=_method_order)
    tasks = list(dict.fromkeys(row["task"] for row in found["accuracy"]))
    cells = {(row["task"], row["method"]): row for row in found["accuracy"]}
    most = max(len(row["seeds"]) for row in found["accuracy"])
    over = f"mean ± sd over {most} seeds" if most > 1 else "one seed"

    def of_task(task: str, name: str = "mean") -> list[Cell]:
        rows = [cells.get((task, method), {}) for method in methods]
        return _best_in_bold(task, [row.get(name) for row in rows], [_score(row, name, most) for row in rows])

    accuracy = [of_task(task) for task in tasks]
    if found["mean"]:
        means = [found["mean"]["methods"].get(method) for method in methods]
        shown = ["-" if mean is None else percent(mean) for mean in means]
        accuracy.append(_best_in_bold(f"mean of {len(found['mean']['tasks'])} tasks", means, shown))
    costs = [[Cell(task), *(Cell(_cost(cells.get((task, method)))) for method in methods)] for task in tasks]
    made = [
        Table(f"Test accuracy in %, {over}", ["task", *methods], accuracy),
        Table(
            "Cost: million multiply-accumulates per second of audio / thousand parameters", ["task", *methods], costs
        ),
    ]
    for name, metric in METRICS.items():
        if scored := [task for task in tasks if any(name in cells.get((task, method), {}) for method in methods)]:
            rows = [of_task(task, name) for task in scored]
            made.append(Table(f"{metric.heading} in %, {over}", ["task", *methods], rows))
    if found["differences"]:
        header = ["task", "first", "second", "first - second", "95 % interval", "clips", "groups", "seeds"]
        title = "Differences in percentage points, bold if statistically significant (groups and seeds resampled)"
        made.append(Table(title, header, [_difference_cells(row) for row in found["differences"]]))
    if found["cutoffs"]:
        header = ["data", "method", "axis", "stride", "-6 dB", "paper's Table 2", "all strides", "at first", "cost"]
        title = (
            "First layer: stride and cut-offs in Hz (time) and cycles per mel band (mel); product of all strides, "
            "learned and initial; cost as above"
        )
        made.append(Table(title, header, [_cutoff_cells(row) for row in found["cutoffs"]]))
    if found["shared_strides"]:
        header = ["task", "method", "separate strides", "shared strides", "cost, separate", "cost, shared"]
        rows = [_shared_cells(row, most) for row in found["shared_strides"]]
        made.append(Table("One stride for both axes versus one for each, test accuracy in %", header, rows))
    return made


def to_markdown(made: Sequence[Table]) -> str:
    """Tables as Markdown, best values in bold.

    Example:
        >>> print(to_markdown([Table("A", ["task", "x"], [[Cell("t"), Cell("9.0 ± 0.1", True)]])]))
        **A**
        <BLANKLINE>
        | task | x |
        |---|---:|
        | t | **9.0 ± 0.1** |
        <BLANKLINE>
    """
    parts = []
    for table in made:
        rule = "|".join("---:" if _is_numeric(table, i) else "---" for i in range(len(table.header)))
        lines = [f"**{table.title}**", "", _bar(table.header), f"|{rule}|"]
        lines += [_bar(f"**{cell.text}**" if cell.best else cell.text for cell in row) for row in table.rows]
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def to_latex(made: Sequence[Table]) -> str:
    r"""Tables as LaTeX `tabular`s with booktabs rules, best values in bold.

    Example:
        >>> print(to_latex([Table("A", ["task", "x"], [[Cell("a_b"), Cell("9 ± 1", True)]])]))
        % A
        \begin{tabular}{lr}
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
        columns = "".join("r" if _is_numeric(table, i) else "l" for i in range(len(table.header)))
        lines = [f"% {table.title}", rf"\begin{{tabular}}{{{columns}}}", r"\toprule"]
        lines += [" & ".join(map(_tex, table.header)) + r" \\", r"\midrule"]
        for row in table.rows:
            shown = [rf"\textbf{{{_tex(cell.text)}}}" if cell.best else _tex(cell.text) for cell in row]
            lines.append(" & ".join(shown) + r" \\")
        parts.append("\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n")
    return "\n".join(parts)


def check_folder(folder: Path) -> None:
    """Refuse a folder for `write_comparison` in which a file of somebody else would be replaced.

    Raises:
        UsageError: if it is no folder, or holds tables but no `comparison.json`, which is written with them.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{printable(folder)}: is not a folder; choose another --out")
    if not (folder / "comparison.json").exists():
        check_new(*(folder / name for name in (*_TEXTS, *(f"{kind}.csv" for kind in _KINDS))))


def write_comparison(folder: Path, found: Mapping[str, Any]) -> list[Path]:
    """Write `tables.md`, `tables.tex`, `comparison.json` and a CSV for each kind of comparison.

    Returns:
        The files written.
    """
    made = tables(found)
    contents = (json.dumps(found, indent=1) + "\n", to_markdown(made), to_latex(made))
    texts = dict(zip(_TEXTS, contents, strict=True)) | {
        f"{kind}.csv": _csv(found[kind]) for kind in _KINDS if found[kind]
    }
    replace_files({folder / name: text for name, text in texts.items()})
    return [folder / name for name in texts]


def points(difference: float) -> str:
    """A difference of shares in percentage points, with its sign.

    Example:
        >>> points(0.012), points(-0.0001)
        ('+1.2', '0.0')
    """
    text = f"{100 * difference:+.1f}"
    return "0.0" if text in ("-0.0", "+0.0") else text


def _method_order(method: str) -> tuple[int, str]:
    order = ("strided", "spectral", "diffstride")
    first = method.split(" ")[0]
    return order.index(first) if first in order else len(order), method


def _best_in_bold(name: str, values: Sequence[float | None], texts: Sequence[str]) -> list[Cell]:
    """A row of its name and texts, the one of the largest value in bold unless all are equal."""
    known = {value for value in values if value is not None}
    best = max(known) if len(known) > 1 else None
    cells = (Cell(text, value is not None and value == best) for text, value in zip(texts, values, strict=True))
    return [Cell(name), *cells]


def _score(row: Mapping[str, Any], name: str, most: int) -> str:
    """A mean and its sd over seeds; of accuracies with their number where it is smaller than that of others."""
    if name not in row:
        return "-"
    n = len(row["seeds"])
    sd = row["sd" if name == "mean" else f"{name}_sd"]
    return percent(row[name], sd) + (f" ({n})" if name == "mean" and n < most else "")


def _cost(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return "-"
    macs = mean_and_sd(row["macs_per_second"] / 1e6, (row["macs_per_second_sd"] or 0) / 1e6 or None, 1)
    return f"{macs} / {row['parameters'] / 1e3:.1f}"


def _difference_cells(row: Mapping[str, Any]) -> list[Cell]:
    texts = [f"{points(row['low'])} to {points(row['high'])}", str(row["clips"]), str(row["groups"])]
    difference = Cell(points(row["difference"]), is_significant(row))
    names = [Cell(row[key]) for key in ("task", "first", "second")]
    return [*names, difference, *map(Cell, texts), Cell(str(len(row["seeds"])))]


def _cutoff_cells(row: Mapping[str, Any]) -> list[Cell]:
    digits, initial = 1 if row["axis"] == "time" else 3, row["initial_total_stride"]
    texts = [row["data"], row["method"], row["axis"], mean_and_sd(row["stride"], row["stride_sd"] or None, 2)]
    texts += [f"{row['minus_6db']:.{digits}f}", mean_and_sd(row["paper"], row["paper_sd"], digits)]
    texts += [mean_and_sd(row["total_stride"], row["total_stride_sd"] or None, 1)]
    return list(map(Cell, [*texts, "-" if initial is None else f"{initial:g}", _cost(row)]))


def _shared_cells(row: Mapping[str, Any], most: int) -> list[Cell]:
    sides = (row["separate"], row["shared"])
    task, *accuracies = _best_in_bold(
        row["task"], [side["mean"] for side in sides], [_score(side, "mean", most) for side in sides]
    )
    return [task, Cell(row["separate"]["method"]), *accuracies, *(Cell(_cost(side)) for side in sides)]


def _bar(cells: Iterable[str]) -> str:
    return "| " + " | ".join(printable(cell).replace("|", "\\|") for cell in cells) + " |"


def _is_numeric(table: Table, column: int) -> bool:
    """Whether a column holds numbers, which are set flush right."""
    texts = [row[column].text for row in table.rows]
    return all(re.fullmatch(r"[-+]?\d.*|-?", text) for text in texts) and any(map(str.strip, texts))


def _tex(text: str) -> str:
    text = "".join(_TEX.get(character, character) for character in printable(text))
    return re.sub(r"(?<!\w)-(?=\d)", "$-$", text)


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    flat = [
        {key: " ".join(map(str, value)) if isinstance(value, list) else value for key, value in flatten(row).items()}
        for row in rows
    ]
    text = io.StringIO()
    table = csv.DictWriter(text, list(dict.fromkeys(key for row in flat for key in row)))
    table.writeheader()
    table.writerows(flat)
    return text.getvalue()
