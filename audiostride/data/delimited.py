"""Text tables as people have them: separated by commas, semicolons or tabs, with comments, blanks and BOMs.

Spreadsheets of other countries write `;` into a `.csv`, editors put a byte order mark in front, and tab-separated
files are not quoted: a `"` in a sentence is a character there.
"""

import csv
import itertools
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO

from ..errors import DataError, DataWarning
from ..files import file_status

Block = tuple[list[int], dict[str, list[str]]]
"""Some rows of a table: their line numbers and their columns."""

DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs"}
BLOCK = 4096
"""Rows that are held as Python objects at a time."""

_MAX_LINE = 1 << 20


def delimited_blocks(
    path: Path, delimiter: str, is_header: Callable[[Sequence[str]], bool], fill: bool = False, say: bool = True
) -> Iterator[Block]:
    """The rows of a table, block by block; cells and column names without outer blanks, unnamed columns left out.

    Lines before the header that begin with `#` are comments, unless one of them is the header.

    Args:
        path: text in UTF-8, or in UTF-16 with a byte order mark.
        delimiter: the one that its name promises; another of `DELIMITERS` is used, with a warning, where that alone
            gives a header.
        is_header: whether some column names are those of such a table.
        fill: rows may be shorter than the header; what they lack is "".
        say: warn of another delimiter.

    Raises:
        DataError: names the line and what is wrong with it.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "calls.tsv")
        >>> _ = path.write_text('# by Ann\\nfile\\tsaid\\na.wav\\t"No\\n')
        >>> list(delimited_blocks(path, "\\t", lambda names: "file" in names))
        [([3], {'file': ['a.wav'], 'said': ['"No']})]
    """
    try:
        with open_text(path) as file:
            names, found, rest, before = _header(file, delimiter, is_header)
            if found != delimiter and say:
                what = f"{path}: its columns are separated by {DELIMITERS[found]}, not {DELIMITERS[delimiter]}"
                warnings.warn(f"{what}; read so", DataWarning, stacklevel=2)
            named = [name for name in names if name]
            if len(set(named)) < len(named):
                raise DataError(f"{path}: two columns have the same name: {', '.join(names)}")
            lines: list[int] = []
            rows: list[list[str]] = []
            for line, row in _rows(path, rest, found, len(names), fill, before):
                lines.append(line)
                rows.append(row)
                if len(rows) == BLOCK:
                    yield lines, _columns(names, rows)
                    lines, rows = [], []
            if rows:
                yield lines, _columns(names, rows)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error
    except (UnicodeError, csv.Error) as error:
        raise DataError(f"{path}: is not a UTF-8 {path.suffix[1:].upper()} table ({error})") from error


def open_text(path: Path) -> IO[str]:
    """A text file in UTF-8, with or without a byte order mark, or in UTF-16 with one."""
    file_status(path)
    with path.open("rb") as file:
        utf_16 = file.read(2) in (b"\xff\xfe", b"\xfe\xff")
    return path.open(newline="", encoding="utf-16" if utf_16 else "utf-8-sig")


def _header(
    file: IO[str], delimiter: str, is_header: Callable[[Sequence[str]], bool]
) -> tuple[list[str], str, Iterator[str], int]:
    """Column names, the delimiter, the lines after the header, and how many lines came before these."""
    comment, number = "", 0
    order = [delimiter, *(other for other in DELIMITERS if other != delimiter)]
    for line in iter(lambda: file.readline(_MAX_LINE), ""):
        number += 1
        text = line.strip("\r\n\ufeff")
        if re.fullmatch(r"sep=[,;\t]", text):  # Excel's own hint
            order = [text[4], *(other for other in order if other != text[4])]
        elif text.lstrip().startswith("#"):
            comment = text.lstrip("# \t") if text.lstrip("# \t") else comment
        elif text.strip(" ,;\t"):
            for header, rest, before in ((text, file, number), (comment, itertools.chain([line], file), number - 1)):
                for own in order:
                    names = _cells(header, own)
                    if is_header(names):
                        return names, own, iter(rest), before
            return _cells(text, order[0]), order[0], file, number
    return [], delimiter, file, number


def _cells(text: str, delimiter: str) -> list[str]:
    if delimiter == "\t":
        return [_unquoted(cell) for cell in text.split("\t")]
    return [cell.strip() for cell in next(csv.reader([text], delimiter=delimiter, skipinitialspace=True), [])]


def _unquoted(cell: str) -> str:
    """A cell of a tab-separated table without quotes around all of it; others are part of the text."""
    cell = cell.strip()
    quoted = len(cell) > 1 and cell[0] == cell[-1] == '"' and '"' not in cell[1:-1].replace('""', "")
    return cell[1:-1].replace('""', '"').strip() if quoted else cell


def _rows(
    path: Path, file: Iterator[str], delimiter: str, width: int, fill: bool, before: int
) -> Iterator[tuple[int, list[str]]]:
    """Each row with the number of the line it begins in, after `before` lines."""
    tabs = delimiter == "\t"
    table = csv.reader(
        file, delimiter=delimiter, quoting=csv.QUOTE_NONE if tabs else csv.QUOTE_MINIMAL, skipinitialspace=not tabs
    )
    last = before
    for row in table:
        line, last = last + 1, before + table.line_num
        if not any(cell.strip() for cell in row):
            continue
        row = [_unquoted(cell) if tabs else cell.strip() for cell in row]
        swallowed = next((cell for cell in row if "\n" in cell and _holds_rows(cell, delimiter, width)), None)
        if swallowed:
            raise DataError(
                f"{path}, line {line}: a quote opens here and is not closed before line {last}, "
                "with whole rows in between"
            )
        while len(row) > width and not row[-1]:
            row.pop()  # a delimiter at the end of each line
        if fill and len(row) < width:
            row += [""] * (width - len(row))
        if len(row) != width:
            more = f"; a quote that opens here is closed in line {last}" if last > line else ""
            raise DataError(
                f"{path}, line {line}: has {len(row)} columns, but the header has {width}; "
                f"is the delimiter right?{more}"
            )
        yield line, row


def _holds_rows(cell: str, delimiter: str, width: int) -> bool:
    return width > 1 and any(line.count(delimiter) >= width - 1 for line in cell.split("\n")[1:-1])


def _columns(names: Sequence[str], rows: Sequence[Sequence[str]]) -> dict[str, list[str]]:
    return {name: list(cells) for name, cells in zip(names, zip(*rows, strict=True), strict=True) if name}
