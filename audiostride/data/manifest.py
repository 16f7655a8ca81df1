"""A table of clips as a data set: CSV, TSV or JSON lines, one clip or segment a row."""

import csv
import json
import math
import os
from array import array
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import IO, Any

import numpy as np

from ..errors import DataError
from .clips import FileClips
from .folder import read_folder
from .table import SPLIT_FOLDERS, TableBuilder, label_text

FILE_COLUMNS = ("file", "file_name", "filename", "path")
"""The column with the audio file's path has one of these names."""

SUFFIXES = {".csv": ",", ".tsv": "\t", ".jsonl": None}
"""Endings of the tables that can be read, with their delimiter."""

_MAX_LINE = 1 << 20
_BLOCK = 4096  # rows that are held as Python objects at a time


def read_manifest(path: str | os.PathLike[str], root: str | os.PathLike[str] | None = None) -> FileClips:
    """Read a table that names the clips; no audio is opened.

    Args:
        path: a `.csv`, `.tsv` or `.jsonl` file in UTF-8. A column `file` (or `file_name`, `filename`,
            `path`) names the audio file. `start_s` and `end_s`, both optional, make the row a segment
            of it, in seconds. `split` (train, validation, test) is optional too. All other columns
            are labels or groups. In JSON lines a list is several labels of one clip.
        root: folder that the file names are relative to; by default the table's own.

    Returns:
        One clip a row.

    Raises:
        DataError: names the line and what is wrong with it.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "calls.tsv")
        >>> rows = ["file start_s end_s species", "may.wav 1.5 2.25 wren", "may.wav 8  robin"]
        >>> _ = path.write_text("\\n".join(rows).replace(" ", "\\t"))
        >>> clips = read_manifest(path)
        >>> [clips.title(i) for i in range(2)], clips.columns
        (['may.wav#t=1.5,2.25', 'may.wav#t=8,'], {'species': ['wren', 'robin']})
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise DataError(f"{path}: {'is not a file' if path.exists() else 'no such file'}")
    if not is_table(path):
        raise DataError(f"{path}: is not a table of a known kind; its name must end in {', '.join(SUFFIXES)}")
    table, spans = TableBuilder(), array("d")
    try:
        for lines, block in _blocks(path):
            files = next((block.pop(column) for column in FILE_COLUMNS if column in block), [])
            if not files:
                near = next((near for name in block for near in get_close_matches(name, FILE_COLUMNS, n=1)), None)
                hint = f"; did you mean {near!r}?" if near else ""
                raise DataError(
                    f"{path}, line {lines[0]}: names no file; none of the columns {', '.join(block)} is "
                    f"{' or '.join(FILE_COLUMNS)}{hint}"
                )
            if "" in files:
                raise DataError(f"{path}, line {lines[files.index('')]}: names no file")
            starts = _seconds(block, "start_s", 0.0, path, lines)
            ends = _seconds(block, "end_s", math.inf, path, lines)
            for line, start_s, end_s in zip(lines, starts, ends, strict=True):
                if end_s <= start_s:
                    raise DataError(f"{path}, line {line}: end_s {end_s:g} is not after start_s {start_s:g}")
                spans.extend((start_s, end_s))
            own_splits = block.pop("split", [""] * len(lines))
            for split in set(own_splits) - {""} - set(SPLIT_FOLDERS):
                raise DataError(
                    f"{path}, line {lines[own_splits.index(split)]}: the split {split!r} is not one of "
                    "train, validation, test"
                )
            table.extend(files, (SPLIT_FOLDERS.get(split, "") for split in own_splits), block)
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: is not a UTF-8 table ({error})") from error
    if not table.names:
        raise DataError(f"{path}: has no rows")
    bounds = np.frombuffer(spans, np.float64).reshape(-1, 2)
    whole = not bounds[:, 0].any() and np.isinf(bounds[:, 1]).all()
    folder = path.parent if root is None else Path(root).expanduser()
    return FileClips(*table.parts(), spans=None if whole else bounds, root=folder)


def write_manifest(path: str | os.PathLike[str], rows: list[Mapping[str, Any]]) -> None:
    """Write rows of equal keys as a table that `read_manifest` reads back.

    Args:
        path: a `.csv`, `.tsv` or `.jsonl` file.
        rows: the rows; `file`, `start_s`, `end_s` and labels.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "calls.csv")
        >>> write_manifest(path, [{"file": "may.wav", "start_s": 1.5, "end_s": 2.25, "species": "wren"}])
        >>> read_manifest(path).columns
        {'species': ['wren']}
    """
    path = Path(path)
    with path.open("w", newline="", encoding="utf-8") as file:
        if path.suffix.lower() == ".jsonl":
            file.writelines(json.dumps(dict(row)) + "\n" for row in rows)
            return
        table = csv.DictWriter(
            file, list(rows[0]) if rows else ["file"], delimiter=SUFFIXES[path.suffix.lower()] or ","
        )
        table.writeheader()
        table.writerows(rows)


Block = tuple[list[int], dict[str, list[str]]]
"""Some rows of a table: their line numbers and their columns."""


def _blocks(path: Path) -> Iterator[Block]:
    delimiter = SUFFIXES[path.suffix.lower()]
    with path.open(newline="", encoding="utf-8-sig") as file:
        yield from _json_blocks(path, file) if delimiter is None else _csv_blocks(path, file, delimiter)


def _csv_blocks(path: Path, file: IO[str], delimiter: str) -> Iterator[Block]:
    table = csv.reader(file, delimiter=delimiter)
    header = next(table, [])
    if len(set(header)) < len(header):
        raise DataError(f"{path}: two columns have the same name: {', '.join(header)}")
    lines: list[int] = []
    rows: list[list[str]] = []
    for values in table:
        if not values:
            continue
        if len(values) != len(header):
            raise DataError(
                f"{path}, line {table.line_num}: has {len(values)} columns, but the header has {len(header)}; "
                "is the delimiter right?"
            )
        lines.append(table.line_num)
        rows.append(values)
        if len(rows) == _BLOCK:
            yield lines, dict(zip(header, map(list, zip(*rows, strict=True)), strict=True))
            lines, rows = [], []
    if rows:
        yield lines, dict(zip(header, map(list, zip(*rows, strict=True)), strict=True))


def _json_blocks(path: Path, file: IO[str]) -> Iterator[Block]:
    number, ended = 0, False
    while not ended:
        lines: list[int] = []
        rows: list[dict[str, str]] = []
        while len(rows) < _BLOCK and not ended:
            line = file.readline(_MAX_LINE)
            number, ended = number + 1, not line
            if line.strip():
                lines.append(number)
                rows.append(_json_row(path, number, line))
        if rows:
            header = dict.fromkeys(name for row in rows for name in row)
            yield lines, {name: [row.get(name, "") for row in rows] for name in header}


def _json_row(path: Path, number: int, line: str) -> dict[str, str]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}, line {number}: is not JSON ({error})") from None
    if not isinstance(row, dict):
        raise DataError(f"{path}, line {number}: is {type(row).__name__}, not an object with the columns as keys")
    return {name: label_text(value) for name, value in row.items()}


def _seconds(block: dict[str, list[str]], column: str, default: float, path: Path, lines: list[int]) -> list[float]:
    values = []
    for line, text in zip(lines, block.pop(column, [""] * len(lines)), strict=True):
        try:
            value = float(text) if text else default
        except ValueError:
            value = math.nan
        if not (0 <= value < math.inf or (value == default and not text)):
            raise DataError(f"{path}, line {line}: {column} is {text!r}, not a number of seconds >= 0")
        values.append(value)
    return values


def read_path(path: str | os.PathLike[str]) -> FileClips:
    """The clips of a folder or of a table, whichever the path is.

    Raises:
        DataError: if it is neither, or cannot be read.
    """
    if is_table(path):
        return read_manifest(path)
    if Path(path).expanduser().is_file():
        raise DataError(f"{path}: is neither a folder nor a table of files, which ends in {', '.join(SUFFIXES)}")
    return read_folder(path)


def is_table(path: str | os.PathLike[str]) -> bool:
    """Whether a path names a table, not a folder, by its ending.

    Example:
        >>> is_table("calls.csv"), is_table("calls")
        (True, False)
    """
    return Path(path).suffix.lower() in SUFFIXES
