"""Label files of Audacity and Raven: labelled segments of recordings, read and written."""

import csv
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..errors import DataError
from ..files import expand_user, replace_file
from .clips import FileClips
from .decoding import is_audio
from .table import TableBuilder

_RAVEN_LABELS = ("annotation", "species", "label", "class", "common name")


class Segment(NamedTuple):
    """A labelled part of a recording.

    Attributes:
        start_s: where it begins, in seconds.
        end_s: where it ends, in seconds.
        label: what it holds.
        low_hz: lower edge in Hz, where the file says so.
        high_hz: upper edge in Hz, where the file says so.
        score: how likely it is, 0 to 1, where a model says so (Raven only).
    """

    start_s: float
    end_s: float
    label: str
    low_hz: float | None = None
    high_hz: float | None = None
    score: float | None = None


def read_annotated(path: str | os.PathLike[str]) -> FileClips:
    """Read a folder of recordings with a label file for each; no audio is opened.

    `NAME.wav` goes with `NAME.txt` (Audacity) or `NAME.*selections.txt` (Raven). Every segment is a
    clip with the column `label`; a recording without a label file has none, nor has a hidden one. A segment without
    duration (an Audacity point label) is left out.

    Args:
        path: the folder; sub-folders are searched too.

    Raises:
        DataError: if there is no label file, or names the file and line that cannot be read.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> (folder / "may.wav").touch()
        >>> write_audacity(folder / "may.txt", [Segment(1.5, 2.25, "wren")])
        >>> clips = read_annotated(folder)
        >>> clips.title(0), clips.columns
        ('may.wav#t=1.5,2.25', {'label': ['wren']})
    """
    root = expand_user(path)
    if not root.is_dir():
        raise DataError(f"{root}: {'is not a folder' if root.exists() else 'no such folder'}")
    table, spans = TableBuilder(), []
    for recording in sorted(file for file in root.rglob("*") if is_audio(file)):
        beside = [
            recording.with_suffix(".txt"),
            *sorted(recording.parent.glob(_escape(recording.stem) + ".*selections.txt")),
        ]
        for segment in (s for file in beside if file.is_file() for s in read_labels(file)):
            if segment.end_s > segment.start_s:
                table.add(str(recording.relative_to(root)), "", {"label": segment.label})
                spans.append((segment.start_s, segment.end_s))
    if not table.names:
        raise DataError(
            f"{root}: holds no recording with labelled segments (NAME.wav with NAME.txt in the same folder)"
        )
    return FileClips(*table.parts(), spans=np.array(spans), root=root)


def read_labels(path: str | os.PathLike[str]) -> list[Segment]:
    """Segments of one Audacity label file or Raven selection table; which of them, its header says.

    Args:
        path: tab-separated text. Audacity: start, end, label, and frequency lines that begin with a
            backslash. Raven: a header with `Begin Time (s)`, `End Time (s)` and a label column
            (Annotation, Species, Label, Class or Common Name). A selection stands there once for
            each view; it is read once.

    Raises:
        DataError: names the file and line.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "may.selections.txt")
        >>> write_raven(path, [Segment(1.5, 2.25, "wren", 3000.0, 8000.0)])
        >>> read_labels(path)
        [Segment(start_s=1.5, end_s=2.25, label='wren', low_hz=3000.0, high_hz=8000.0, score=None)]
    """
    path = Path(path)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: is not a UTF-8 label file ({error})") from error
    if rows and "Begin Time (s)" in rows[0]:
        return _raven(path, rows)
    return _audacity(path, rows)


def write_audacity(path: str | os.PathLike[str], segments: Sequence[Segment]) -> None:
    """Write segments as an Audacity label file (File > Import > Labels).

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "may.txt")
        >>> write_audacity(path, [Segment(1.5, 2.25, "wren")])
        >>> path.read_text()
        '1.500000\\t2.250000\\twren\\n'
    """
    lines = []
    for segment in segments:
        lines.append(f"{segment.start_s:.6f}\t{segment.end_s:.6f}\t{_one_line(segment.label)}\n")
        if segment.low_hz is not None and segment.high_hz is not None:
            lines.append(f"\\\t{segment.low_hz:.6f}\t{segment.high_hz:.6f}\n")
    replace_file(Path(path), "".join(lines))


def write_raven(path: str | os.PathLike[str], segments: Sequence[Segment]) -> None:
    """Write segments as a Raven selection table, with a column `Score` where there are scores.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "may.selections.txt")
        >>> write_raven(path, [Segment(1.5, 2.25, "wren", low_hz=2000, high_hz=8000)])
        >>> path.read_text().splitlines()[1].split("\\t")[3:]
        ['1.500000', '2.250000', '2000.000000', '8000.000000', 'wren']
    """
    header = "Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tLow Freq (Hz)\tHigh Freq (Hz)\tAnnotation"
    scored = any(segment.score is not None for segment in segments)
    lines = [header + ("\tScore\n" if scored else "\n")]
    for i, segment in enumerate(segments, 1):
        times = f"{segment.start_s:.6f}\t{segment.end_s:.6f}\t{_hertz(segment.low_hz)}\t{_hertz(segment.high_hz)}"
        score = f"\t{'' if segment.score is None else f'{segment.score:.4f}'}" if scored else ""
        lines.append(f"{i}\tSpectrogram 1\t1\t{times}\t{_one_line(segment.label)}{score}\n")
    replace_file(Path(path), "".join(lines))


def _raven(path: Path, rows: list[list[str]]) -> list[Segment]:
    header = rows[0]
    label_column = next((i for i, name in enumerate(header) if name.strip().lower() in _RAVEN_LABELS), None)
    if label_column is None:
        raise DataError(f"{path}: has no label column; one of {', '.join(_RAVEN_LABELS)} is needed")
    places = {name: i for i, name in enumerate(header)}
    found: dict[str, Segment] = {}
    for line, row in enumerate(rows[1:], 2):
        if not row:
            continue
        if len(row) != len(header):
            raise DataError(f"{path}, line {line}: has {len(row)} columns, but the header has {len(header)}")
        start_s = _number(path, line, row[places["Begin Time (s)"]])
        end_s = _number(path, line, row[places["End Time (s)"]] if "End Time (s)" in places else "")
        low, high = (row[places[name]] if name in places else "" for name in ("Low Freq (Hz)", "High Freq (Hz)"))
        low_hz, high_hz = (_number(path, line, text) if text else None for text in (low, high))
        score = _number(path, line, row[places["Score"]]) if "Score" in places and row[places["Score"]] else None
        selection = row[places["Selection"]] if "Selection" in places else str(line)
        found.setdefault(selection, Segment(start_s, end_s, row[label_column], low_hz, high_hz, score))
    return list(found.values())


def _audacity(path: Path, rows: list[list[str]]) -> list[Segment]:
    segments: list[Segment] = []
    for line, row in enumerate(rows, 1):
        if not row:
            continue
        if row[0] == "\\" and segments and len(row) >= 3:
            # Audacity writes -1 for an edge that was not drawn.
            low_hz, high_hz = (None if text.startswith("-") else _number(path, line, text) for text in row[1:3])
            segments[-1] = segments[-1]._replace(low_hz=low_hz, high_hz=high_hz)
            continue
        if len(row) < 3:
            raise DataError(f"{path}, line {line}: is not START<tab>END<tab>LABEL")
        segments.append(Segment(_number(path, line, row[0]), _number(path, line, row[1]), "\t".join(row[2:])))
    return segments


def _number(path: Path, line: int, text: str) -> float:
    try:
        value = float(text.replace(",", "."))  # a decimal comma, as some locales write it
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise DataError(f"{path}, line {line}: {text!r} is not a number >= 0")
    return value


def _one_line(label: str) -> str:
    return " ".join(label.split())


def _hertz(value: float | None) -> str:
    return "" if value is None else f"{value:.6f}"


def _escape(name: str) -> str:
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)
