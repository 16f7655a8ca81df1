"""Label files of Audacity and Raven: labelled segments of recordings, read and written."""

import os
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..errors import DataError, DataWarning
from ..files import expand_user, replace_file
from .clips import FileClips
from .decoding import is_audio
from .delimited import delimited_blocks, open_text
from .folder import walk
from .manifest import has_times, take_spans
from .table import TableBuilder, key_of, seconds, split_names

_RAVEN_LABELS = ("annotation", "species", "label", "class", "common name")
_RAVEN_COLUMNS = ("selection", "lowfreqhz", "highfreqhz", "score", "confidence", "fileoffsets")
_LABEL_FILE = re.compile(r"(\..*)?[._ -]?(labels?|selections?|annotations?|table|results?)?\.(txt|tsv)", re.I)


class Segment(NamedTuple):
    """A labelled part of a recording.

    Attributes:
        start_s: where it begins, in seconds.
        end_s: where it ends, in seconds.
        label: what it holds.
        low_hz: lower edge in Hz, where the file says so.
        high_hz: upper edge in Hz, where the file says so.
        score: how likely it is, 0 to 1, where a model says so (Raven only).
        file: the recording, where a table of several says so.
    """

    start_s: float
    end_s: float
    label: str
    low_hz: float | None = None
    high_hz: float | None = None
    score: float | None = None
    file: str | None = None


def read_annotated(path: str | os.PathLike[str], label_column: str | None = None) -> FileClips:
    """Read a folder of recordings with label files; no audio is opened.

    `NAME.wav` goes with `NAME.txt` or `NAME_labels.txt` (Audacity), `NAME.*selections.txt` (Raven),
    `NAME.BirdNET.selection.table.txt` and the like in the same folder; a table with a column `Begin Path` or `Begin
    File` may be of many recordings. Every segment is a clip with the column `label`; a recording without a label file
    has none, nor has a hidden one. A segment without duration (an Audacity point label) is left out. Sub-folders are
    searched too; those called like splits (see `split_names`) are splits.

    Args:
        path: the folder.
        label_column: see `read_labels`.

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
    root, table, spans = expand_user(path), TableBuilder(), []
    annotated = annotated_recordings(path, label_column)
    splits = split_names({recording.relative_to(root).parts[0] for recording in annotated})
    for recording, segments in annotated.items():
        name = recording.relative_to(root)
        for segment in segments or []:
            split = splits.get(name.parts[0], "") if len(name.parts) > 1 else ""
            table.add(str(name), split, {"label": segment.label})
            spans.append((segment.start_s, segment.end_s))
    if not table.names:
        raise DataError(f"{root}: holds no recording with labelled segments (NAME.txt in the folder of NAME.wav)")
    return FileClips(*table.parts(), spans=np.array(spans), root=root)


def annotated_recordings(
    path: str | os.PathLike[str], label_column: str | None = None
) -> dict[Path, list[Segment] | None]:
    """The recordings in a folder with their segments, found as `read_annotated` does; None without any label file.

    A label file that holds no segment says that nothing is to be heard.

    Raises:
        DataError: if there is no such folder, or names the file and line that cannot be read.
    """
    root = expand_user(path)
    if not root.is_dir():
        raise DataError(f"{root}: {'is not a folder' if root.exists() else 'no such folder'}")
    pairs, others = _label_files(root)
    recordings = [recording for recording, _ in pairs]
    found: dict[Path, dict[Segment, None]] = {recording: {} for recording in recordings}
    for file, recording in [(file, recording) for recording, files in pairs for file in files] + others:
        for segment in read_labels(file, label_column) if recording else _labels_if_any(file, label_column):
            own = _recording(root, file, segment.file, recordings) if segment.file else recording
            if own is None:
                what = f"{file}: left out, no recording is called so, and no column Begin Path names one"
                warnings.warn(what, DataWarning, stacklevel=3)
                break
            found[own][segment._replace(file=None)] = None
    labelled = {recording for recording, files in pairs if files}
    return {
        recording: [segment for segment in segments if segment.end_s > segment.start_s]
        if segments or recording in labelled
        else None
        for recording, segments in found.items()
    }


def is_annotated(path: str | os.PathLike[str]) -> bool:
    """Whether half of a folder's recordings, or of the first 20, have label files that can be read."""
    root = expand_user(path)
    if not root.is_dir() or any(root.glob("metadata.*")):
        return False
    pairs, _ = _label_files(root)
    first = pairs[:20]
    return 2 * sum(any(_labels_if_any(file, None) for file in files) for _, files in first) > len(first) - 1 and any(
        files for _, files in first
    )


def _label_files(root: Path) -> tuple[list[tuple[Path, list[Path]]], list[tuple[Path, None]]]:
    """Each recording with the label files that are called like it, and the text files that are called like none."""
    pairs, others = [], []
    for relative, _, files in walk(root):
        folder = root / relative
        own: dict[str, list[Path]] = {name: [] for name in files if is_audio(name)}
        for text in files:
            if Path(text).suffix.lower() in (".txt", ".tsv") and text[0] != ".":
                matches = {name: n for name in own if (n := _alike(text, name))}
                for name, n in matches.items():  # A.2.txt is that of A.2.wav rather than of A.wav
                    if n == max(matches.values()):
                        own[name].append(folder / text)
                if not matches:
                    others.append((folder / text, None))
        pairs += [(folder / name, texts) for name, texts in own.items()]
    return sorted(pairs), others


def _alike(text: str, recording: str) -> int:
    """How many letters the names of a label file and its recording share; 0 if the file is for another recording.

    `A.wav` has `A.txt`, `A.wav.txt`, `A_labels.txt`, `A.Table.1.selections.txt` and the like.
    """
    for name in (recording, os.path.splitext(recording)[0]):
        if text.startswith(name) and _LABEL_FILE.fullmatch(text[len(name) :]):
            return len(os.path.splitext(recording)[0])
    return 0


def _labels_if_any(file: Path, label_column: str | None) -> list[Segment]:
    try:
        return read_labels(file, label_column)
    except DataError:  # some other text
        return []


def _recording(root: Path, table: Path, named: str, recordings: Sequence[Path]) -> Path | None:
    """The recording that a table names by a path, perhaps one of another machine."""
    parts = Path(named.replace("\\", "/")).parts
    for place in (Path(named), root / named, table.parent / named):
        if place in recordings:
            return place
    for n in range(len(parts)):  # the longest end of the path that is a recording's
        ends = [recording for recording in recordings if recording.parts[-len(parts) + n :] == parts[n:]]
        if len(ends) == 1:
            return ends[0]
    raise DataError(f"{table}: names {named!r}, which is no recording below {root}, or several")


def read_labels(path: str | os.PathLike[str], label_column: str | None = None) -> list[Segment]:
    """Segments of one Audacity label file or Raven selection table; which of them, its header says.

    Args:
        path: text. Audacity: start, end, label, separated by tabs or blanks, and frequency lines that begin with a
            backslash. Raven, or any table with a header: columns as `read_manifest` has them for times, and a label
            column. A selection that is listed once for each view is read once. Rows may be shorter than the header.
        label_column: of a table; None: the first of Annotation, Species, Label, Class, Common Name.

    Raises:
        DataError: names the file and line.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "may.selections.txt")
        >>> write_raven(path, [Segment(1.5, 2.25, "wren", 3000.0, 8000.0)])
        >>> read_labels(path)
        [Segment(start_s=1.5, end_s=2.25, label='wren', low_hz=3000.0, high_hz=8000.0, score=None, file=None)]
    """
    path = Path(path)
    try:
        with open_text(path) as file:
            lines = file.read().lstrip("\ufeff").splitlines()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error
    except UnicodeError as error:
        raise DataError(f"{path}: is not a UTF-8 label file ({error})") from error
    head = next((line for line in lines if line.strip() and not line.startswith("#")), "")
    if has_times(re.split("[\t,;]", head)):
        return _raven(path, label_column)
    return _audacity(path, lines)


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


def _raven(path: Path, label_column: str | None) -> list[Segment]:
    found: dict[tuple[str, Segment], Segment] = {}
    for lines, block in delimited_blocks(path, "\t", has_times, fill=True, say=False):
        names = {key_of(name): name for name in reversed(list(block))}
        wanted = _RAVEN_LABELS if label_column is None else (label_column,)
        label = next((names[key_of(name)] for name in wanted if key_of(name) in names), None)
        if label is None:
            what = f"label column; one of {', '.join(_RAVEN_LABELS)} is needed, or the key label_column; it has"
            what = what if label_column is None else f"column {label_column!r}, only"
            raise DataError(f"{path}: has no {what} {', '.join(block)}")
        empty = [""] * len(lines)
        texts = {key: block.get(names.get(key, ""), empty) for key in _RAVEN_COLUMNS}
        files = block.get(next((names[key] for key in ("beginpath", "beginfile") if key in names), ""), empty)
        spans = take_spans(path, lines, block, points=True)
        several = len(set(files)) > 1
        for i, (line, (start_s, end_s)) in enumerate(zip(lines, spans, strict=True)):
            if end_s == float("inf"):
                raise DataError(f"{path}, line {line}: has no end of the segment")
            if several and texts["fileoffsets"][i]:  # times run through all the files, the offset is in its own
                offset_s = _number(path, line, texts["fileoffsets"][i])
                start_s, end_s = offset_s, offset_s + end_s - start_s
            low_hz, high_hz, score, confidence = (
                _number(path, line, texts[key][i]) if texts[key][i] else None
                for key in ("lowfreqhz", "highfreqhz", "score", "confidence")
            )
            score = confidence if score is None else score
            segment = Segment(start_s, end_s, block[label][i], low_hz, high_hz, score, files[i] or None)
            number = texts["selection"][i] or str(line)
            found.setdefault((number, segment._replace(low_hz=None, high_hz=None, score=None)), segment)
    return list(found.values())


def _audacity(path: Path, lines: list[str]) -> list[Segment]:
    segments: list[Segment] = []
    for line, text in enumerate(lines, 1):
        if not text.strip():
            continue
        row = text.split("\t") if "\t" in text else text.split(None, 2)
        if row[0] == "\\" and segments and len(row) >= 3:
            # Audacity writes -1 for an edge that was not drawn.
            low_hz, high_hz = (None if edge.startswith("-") else _number(path, line, edge) for edge in row[1:3])
            segments[-1] = segments[-1]._replace(low_hz=low_hz, high_hz=high_hz)
            continue
        if len(row) < 2:
            raise DataError(f"{path}, line {line}: is not START<tab>END<tab>LABEL")
        start_s = _number(path, line, row[0])
        if len(row) == 2 and _is_time(row[1]):
            raise DataError(f"{path}, line {line}: has no label after START and END")
        if len(row) == 2:  # a point label
            row.insert(1, row[0])
        segments.append(Segment(start_s, _number(path, line, row[1]), "\t".join(row[2:]).strip()))
    return segments


def _is_time(text: str) -> bool:
    try:
        return seconds(text) >= 0
    except ValueError:
        return False


def _number(path: Path, line: int, text: str) -> float:
    try:
        return seconds(text)
    except ValueError:
        raise DataError(f"{path}, line {line}: {text!r} is not a number >= 0") from None


def _one_line(label: str) -> str:
    return " ".join(label.split())


def _hertz(value: float | None) -> str:
    return "" if value is None else f"{value:.6f}"
