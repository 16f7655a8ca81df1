"""A table of clips as a data set: CSV, TSV or JSON lines, one clip or segment a row."""

import csv
import glob
import json
import math
import os
import re
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..errors import DataError
from ..files import expand_user
from ..sections import nearest
from .clips import FileClips
from .delimited import BLOCK, Block, delimited_blocks, open_text
from .table import TableBuilder, key_of, label_text, seconds, split_names

FILE_COLUMNS = (
    "file", "file_name", "filename", "path", "filepath", "audio", "audio_file", "audio_filename", "audio_filepath",
    "audio_path", "wav", "wav_file", "wav_filename", "wav_path", "sound_file", "fname",
)  # fmt: skip
"""The column with the audio file's path has one of these names, in any case, with or without the underscore."""

SUFFIXES = {".csv": ",", ".tsv": "\t", ".jsonl": None}
"""Endings of the tables that can be read, with their delimiter."""

_MAX_LINE = 1 << 20
_UNIT = "(in)?(?P<unit>ms|msec|msecs|milliseconds?|s|sec|secs|seconds?|min|mins|minutes?)?"
_START = re.compile(f"(tmin|t?(start|begin|beginning|onset)(s|time|times|offset)??){_UNIT}")
_END = re.compile(f"(tmax|t?(end|stop|finish|offset)(s|time|times|offset)??){_UNIT}")
_DURATION = re.compile(f"(duration|dur|length|delta)(time)??{_UNIT}")
_PAIRS = (("from", "to"), ("t0", "t1"))  # times where both are there
_IN_SAMPLES = re.compile("(start|begin|onset|end|stop|offset)(time|in)?(samples?|frames?)")


class Rows(NamedTuple):
    """Some rows of a table of clips.

    Attributes:
        lines: where each stands.
        files: as the table names them.
        splits: as the table has them, "" where it has none.
        spans: start and end of each in seconds; 0 and infinity are the whole file.
        columns: the others.
    """

    lines: list[int]
    files: list[str]
    splits: list[str]
    spans: list[tuple[float, float]]
    columns: dict[str, list[str]]


def read_manifest(path: str | os.PathLike[str], root: str | os.PathLike[str] | None = None) -> FileClips:
    """Read a table that names the clips; no audio is opened.

    Args:
        path: a `.csv`, `.tsv` or `.jsonl` file in UTF-8, see `delimited.delimited_blocks`. One of `FILE_COLUMNS` names
            the audio file. `start_s` and `end_s`, both optional, make the row a segment of it; `start`, `Begin Time
            (s)`, `onset`, `end_ms`, `duration` and the like are understood, in seconds unless they say ms. `split`
            (or `subset`, `partition`) says what a clip is for, see `split_names`. All other columns are labels or
            groups. In JSON lines a list is several labels of one clip.
        root: folder that the file names are relative to; by default the table's own.

    Returns:
        One clip a row.

    Raises:
        DataError: names the line and what is wrong with it.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "calls.tsv")
        >>> rows = ["File Start_(s) End_(s) species", "may.wav 1.5 2.25 wren", "may.wav 8  robin"]
        >>> _ = path.write_text("\\n".join(rows).replace(" ", "\\t"))
        >>> clips = read_manifest(path)
        >>> [clips.title(i) for i in range(2)], clips.columns
        (['may.wav#t=1.5,2.25', 'may.wav#t=8,'], {'species': ['wren', 'robin']})
    """
    path = expand_user(path)
    if not path.is_file():
        raise DataError(f"{path}: {'is not a file' if path.exists() else 'no such file'}")
    if not is_table(path):
        raise DataError(f"{path}: is not a table of a known kind; its name must end in {', '.join(SUFFIXES)}")
    table, spans = TableBuilder(), array("d")
    folder = path.parent if root is None else expand_user(root)
    for rows in manifest_rows(path):
        table.extend(rows.files, rows.splits, rows.columns)
        for span in rows.spans:
            spans.extend(span)
    if not table.names:
        raise DataError(f"{path}: has no rows")
    own = split_names(table.splits.distinct())
    table.splits = table.splits.mapped(lambda split: own.get(split, ""))
    return FileClips(*table.parts(), spans=as_spans(spans), root=folder)


def check_root(clips: FileClips, path: str | os.PathLike[str], key: str = "root") -> None:
    """Refuse a table none of whose first files is there.

    Args:
        clips: what `read_manifest` made of it.
        path: the table.
        key: what the reader of an error sets.

    Raises:
        DataError: says where such files are, if they are below the table's folder.
    """
    first = list(dict.fromkeys(clips.names[i] for i in range(min(50, len(clips)))))
    if any((clips.root / name).exists() for name in first):
        return
    tail = Path(first[0].replace("\\", "/"))
    found = next((p for p in expand_user(path).parent.rglob(glob.escape(tail.name)) if p.is_file()), None)
    hint = ""
    if found is not None:
        place = Path(*found.parts[: len(found.parts) - len(tail.parts)]) if found.match(str(tail)) else found.parent
        hint = f"; {found} is there: set {key} to {place}" if found.match(str(tail)) else f"; {found} is there"
    raise DataError(
        f"{path}: none of its files is in {clips.root}, such as {first[0]}; {key} is the folder that they are in{hint}"
    )


def as_spans(bounds: array) -> np.ndarray | None:
    """Starts and ends in turn as `EncodedClips.spans`; None where every clip is a whole file."""
    spans = np.frombuffer(bounds, np.float64).reshape(-1, 2)
    return None if not spans[:, 0].any() and np.isinf(spans[:, 1]).all() else spans


def manifest_rows(path: Path) -> Iterator[Rows]:
    """The rows of a table of clips, block by block.

    Raises:
        DataError: names the line and what is wrong with it.
    """
    delimiter = SUFFIXES[path.suffix.lower()]
    blocks = _json_blocks(path) if delimiter is None else delimited_blocks(path, delimiter, _names_files)
    for lines, block in blocks:
        file = _column(block, FILE_COLUMNS)
        if file is None:
            hint = next((hint for name in block if (hint := nearest(name, FILE_COLUMNS[:4]))), "")
            raise DataError(
                f"{path}, line {lines[0]}: names no file; none of the columns {', '.join(block)} is "
                f"{' or '.join(FILE_COLUMNS[:4])}{hint}"
            )
        files = block.pop(file)
        if "" in files:
            raise DataError(f"{path}, line {lines[files.index('')]}: names no file")
        spans = take_spans(path, lines, block)
        yield Rows(lines, files, _splits(path, lines, block), spans, block)


def _names_files(header: Sequence[str]) -> bool:
    return _column(header, FILE_COLUMNS) is not None


def _column(names: Sequence[str] | Mapping[str, Any], wanted: Sequence[str]) -> str | None:
    """The first of the wanted columns that there is, under the name that it has."""
    there = {key_of(name): name for name in reversed(list(names))}
    return next((there[key_of(name)] for name in wanted if key_of(name) in there), None)


def _splits(path: Path, lines: Sequence[int], block: dict[str, list[str]]) -> list[str]:
    """What the column of splits says; one that is called otherwise counts where all of its values are splits."""
    column = _column(block, ["split"])
    if column is None:
        for name in ("subset", "partition", "set"):
            column = _column(block, [name])
            if column and len(split_names(set(block[column]) - {""})) == len(set(block[column]) - {""}) > 0:
                break
        else:
            return [""] * len(lines)
    values = block.pop(column)
    for strange in set(values) - {""} - set(split_names(set(values))):
        raise DataError(
            f"{path}, line {lines[values.index(strange)]}: the split {strange!r} is not one of train, validation, test"
        )
    return values


def has_times(names: Iterable[str]) -> bool:
    """Whether one of the column names is that of the start of segments."""
    return any(_START.fullmatch(key_of(name)) for name in names)


def take_spans(
    path: Path, lines: Sequence[int], block: dict[str, list[str]], points: bool = False
) -> list[tuple[float, float]]:
    """Start and end of the segments in seconds; their columns are taken out of the block.

    Args:
        path: the table, for errors.
        lines: where each row stands.
        block: the columns.
        points: segments may have no duration.

    Raises:
        DataError: names the line and what is wrong with it.
    """
    samples = next((name for name in block if _IN_SAMPLES.fullmatch(key_of(name))), None)
    if samples and not has_times(block):
        raise DataError(f"{path}: the column {samples!r} counts samples; give start_s and end_s in seconds instead")
    pairs = ([_column(block, [name]) for name in names] for names in _PAIRS)
    start, end = next((pair for pair in pairs if None not in pair), (None, None))
    start = _first(block, _START) or start or (_column(block, ["offset"]) if _first(block, _DURATION) else None)
    starts = _seconds(path, lines, block, start, 0.0)
    end = _first(block, _END) or end
    if end is None and start is not None and (duration := _first(block, _DURATION)):
        lasting = _seconds(path, lines, block, duration, math.inf)
        ends = [a + b for a, b in zip(starts, lasting, strict=True)]
    else:
        ends = _seconds(path, lines, block, end, math.inf)
    for line, start_s, end_s in zip(lines, starts, ends, strict=True):
        if end_s < start_s or (end_s == start_s and not points):
            raise DataError(f"{path}, line {line}: end_s {end_s:g} is not after start_s {start_s:g}")
    return list(zip(starts, ends, strict=True))


def _first(block: Mapping[str, Any], pattern: re.Pattern[str]) -> str | None:
    return next((name for name in block if pattern.fullmatch(key_of(name))), None)


def _seconds(
    path: Path, lines: Sequence[int], block: dict[str, list[str]], column: str | None, default: float
) -> list[float]:
    if column is None:
        return [default] * len(lines)
    name = key_of(column).removeprefix("tmin")
    factor = 0.001 if re.search("ms(ecs?)?$|millisec", name) else 60.0 if re.search("min(ute)?s?$", name) else 1.0
    values = []
    for line, text in zip(lines, block.pop(column), strict=True):
        try:
            values.append(factor * seconds(text) if text else default)
        except ValueError:
            raise DataError(f"{path}, line {line}: {column} is {text!r}, not a number of seconds >= 0") from None
    return values


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


def _json_blocks(path: Path) -> Iterator[Block]:
    number, ended = 0, False
    try:
        with open_text(path) as file:
            while not ended:
                lines: list[int] = []
                rows: list[dict[str, str]] = []
                while len(rows) < BLOCK and not ended:
                    line = file.readline(_MAX_LINE)
                    number, ended = number + 1, not line
                    if line.strip("\ufeff \t\r\n"):
                        lines.append(number)
                        rows.append(_json_row(path, number, line))
                if rows:
                    header = dict.fromkeys(name for row in rows for name in row)
                    yield lines, {name: [row.get(name, "") for row in rows] for name in header}
    except UnicodeError as error:
        raise DataError(f"{path}: is not a UTF-8 table ({error})") from error


def _json_row(path: Path, number: int, line: str) -> dict[str, str]:
    try:
        row = json.loads(line.strip("\ufeff"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}, line {number}: is not JSON ({error})") from None
    if not isinstance(row, dict):
        raise DataError(f"{path}, line {number}: is {type(row).__name__}, not an object with the columns as keys")
    return {name.strip(): label_text(value) for name, value in row.items()}


def is_table(path: str | os.PathLike[str]) -> bool:
    """Whether a path names a table, not a folder, by its ending.

    Example:
        >>> is_table("calls.csv"), is_table("calls")
        (True, False)
    """
    return Path(path).suffix.lower() in SUFFIXES
