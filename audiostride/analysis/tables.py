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

    rows = []
    for task in tasks:
        known = [cells[task, method]["mean"] for method in methods if (task, method) in cells]
        best = max(known) if len(set(known)) > 1 else None
        rows.append([Cell(task), *(_accuracy_cell(cells.get((task, method)), best, most) for method in methods)])
    if found["mean"]:
        known = list(found["mean"]["methods"].values())
        best = max(known) if len(set(known)) > 1 else None
        title = f"mean of {len(found['mean']['tasks'])} tasks"
        means = [found["mean"]["methods"].get(method) for method in methods]
        rows.append([Cell(title), *(Cell("-") if m is None else Cell(percent(m), m == best) for m in means)])
    over = f"mean ± sd over {most} seeds" if most > 1 else "one seed"
    made = [
        Table(f"Test accuracy in %, {over}", ["task", *methods], rows),
        Table(
            "Cost: million multiply-accumulates per second of audio / thousand parameters",
            ["task", *methods],
            [[Cell(task), *(_cost_cell(cells.get((task, method))) for method in methods)] for task in tasks],
        ),
    ]
    for name, metric in METRICS.items():
        scored = {key: row for key, row in cells.items() if name in row}
        if scored:
            body = []
            for task in dict.fromkeys(task for task, _ in scored):
                known = [scored[task, method][name] for method in methods if (task, method) in scored]
                best = max(known) if len(set(known)) > 1 else None
                body.append([Cell(task), *(_metric_cell(scored.get((task, m)), name, best) for m in methods)])
            made.append(Table(f"{metric.heading} in %, {over}", ["task", *methods], body))
    if found["differences"]:
        header = ["task", "first", "second", "first - second", "95 % interval", "clips", "groups", "seeds"]
        body = [
            [
                Cell(row["task"]),
                Cell(row["first"]),
                Cell(row["second"]),
                Cell(points(row["difference"]), is_significant(row)),
                Cell(f"{points(row['low'])} to {points(row['high'])}"),
                Cell(str(row["clips"])),
                Cell(str(row["groups"])),
                Cell(str(len(row["seeds"]))),
            ]
            for row in found["differences"]
        ]
        title = "Differences in percentage points, bold if statistically significant (groups and seeds resampled)"
        made.append(Table(title, header, body))
    if found["cutoffs"]:
        header = ["data", "method", "axis", "stride", "-6 dB", "paper's Table 2", "all strides", "at first", "cost"]
        body = [_cutoff_cells(row) for row in found["cutoffs"]]
        title = (
            "First layer: stride and cut-offs in Hz (time) and cycles per mel band (mel); product of all strides, "
            "learned and initial; cost as above"
        )
        made.append(Table(title, header, body))
    if found["shared_strides"]:
        header = ["task", "method", "separate strides", "shared strides", "cost, separate", "cost, shared"]
        body = [_shared_cells(row, most) for row in found["shared_strides"]]
        made.append(Table("One stride for both axes versus one for each, test accuracy in %", header, body))
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


def _accuracy_cell(row: Mapping[str, Any] | None, best: float | None, most: int) -> Cell:
    if row is None:
        return Cell("-")
    fewer = f" ({len(row['seeds'])})" if len(row["seeds"]) < most else ""
    return Cell(percent(row["mean"], row["sd"]) + fewer, row["mean"] == best)


def _metric_cell(row: Mapping[str, Any] | None, metric: str, best: float | None) -> Cell:
    return Cell("-") if row is None else Cell(percent(row[metric], row[f"{metric}_sd"]), row[metric] == best)


def _cost_cell(row: Mapping[str, Any] | None) -> Cell:
    if row is None:
        return Cell("-")
    macs = mean_and_sd(row["macs_per_second"] / 1e6, (row["macs_per_second_sd"] or 0) / 1e6 or None, 1)
    return Cell(f"{macs} / {row['parameters'] / 1e3:.1f}")


def _cutoff_cells(row: Mapping[str, Any]) -> list[Cell]:
    digits = 1 if row["axis"] == "time" else 3
    texts = [row["data"], row["method"], row["axis"], mean_and_sd(row["stride"], row["stride_sd"] or None, 2)]
    texts += [f"{row['minus_6db']:.{digits}f}", mean_and_sd(row["paper"], row["paper_sd"], digits)]
    initial = row["initial_total_stride"]
    texts.append(mean_and_sd(row["total_stride"], row["total_stride_sd"] or None, 1))
    texts.append("-" if initial is None else f"{initial:g}")
    return [*(Cell(text) for text in texts), _cost_cell(row)]


def _shared_cells(row: Mapping[str, Any], most: int) -> list[Cell]:
    sides = (row["separate"], row["shared"])
    means = {side["mean"] for side in sides}
    best = max(means) if len(means) > 1 else None
    accuracies, costs = [_accuracy_cell(side, best, most) for side in sides], map(_cost_cell, sides)
    return [Cell(row["task"]), Cell(row["separate"]["method"]), *accuracies, *costs]


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
