"""Predictions as rows of CSV or JSON lines, and a file of them in which an interrupted batch resumes."""

import csv
import hashlib
import io
import json
import os
from collections.abc import Iterable, Mapping
from io import FileIO
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
from filelock import FileLock, Timeout

from ..errors import UsageError, printable
from ..files import explain_write_errors, replace_file, replacing
from ..models.classifier import AudioClassifier
from .predict import Row, SoundRows

CSV_HEADER = ",".join(Row._fields) + "\n"


def format_rows(rows: Iterable[Row], as_csv: bool) -> str:
    r"""Rows as lines of CSV (without its header) or JSON, the same values in both.

    Example:
        >>> format_rows([Row("a.wav", "word", 0.0, 1.0, 1, "yes", 0.75)], as_csv=True)
        'a.wav,word,0.0,1.0,1,yes,0.75,\n'
    """
    if not as_csv:
        return "".join(json.dumps(row._asdict()) + "\n" for row in rows)
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


class _Finished(NamedTuple):
    """A line of the journal: a sound, length of the file at its end, whether it failed, digest of it and its rows."""

    file: str
    bytes: int
    failed: bool
    sha256: str


class RowFile:
    """A file of rows, CSV or JSON lines by its ending, that an interrupted batch can be resumed in.

    Next to it is a journal, `FILE.journal`: what the rows were made by, then a line for each finished sound with the
    length and the SHA-256 of its rows. Resuming checks them, so that rows somebody edited are neither damaged nor mixed
    up, and drops the rows of the sound that was not finished and of those that failed, which are tried again. The file
    is locked while it is written.

    Args:
        path: ends in .csv or .jsonl.
        made_by: what must be the same to resume: model and options.
        resume: resume the file if there is one.

    Attributes:
        done: for each finished sound whether it failed; after resuming none of them did.

    Raises:
        UsageError: if the ending is another, the file exists and `resume` is not set, another process writes to it, or
            it cannot be resumed.
        WriteError: if it cannot be written.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "rows.csv")
        >>> with RowFile(path, {"top_k": 1}) as file:
        ...     file.write(SoundRows("a.wav", [Row("a.wav", error="damaged")], last=True, failed=True))
        ...     file.write(SoundRows("b.wav", [Row("b.wav", label="yes")], last=True, failed=False))
        >>> path.read_text().splitlines()[1:]
        ['a.wav,,,,,,,damaged', 'b.wav,,,,,yes,,']
        >>> with RowFile(path, {"top_k": 1}, resume=True) as file:
        ...     file.done
        {'b.wav': False}
        >>> path.read_text().splitlines()[1:]
        ['b.wav,,,,,yes,,']
    """

    def __init__(self, path: Path, made_by: dict[str, object], resume: bool = False):
        if path.suffix not in (".csv", ".jsonl"):
            ending = path.suffix or "a name without an ending"
            raise UsageError(f"{printable(path)}: rows are written to .csv or .jsonl, not to {ending}")
        self.path, self.as_csv = path, path.suffix == ".csv"
        self.journal_path = path.with_name(path.name + ".journal")
        self.done: dict[str, bool] = {}
        self.length, self.rows = 0, hashlib.sha256()
        if path.exists() and not resume:
            raise UsageError(f"{printable(path)}: already exists; continue it with --resume, or choose another --out")
        with explain_write_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self.lock = FileLock(path.with_name(f".{path.name}.lock"), timeout=0)
            try:
                self.lock.acquire()
            except Timeout as error:
                raise UsageError(f"{printable(path)}: another process writes to it; choose another --out") from error
        try:
            with explain_write_errors(path):
                if not path.exists():
                    self.journal_path.unlink(missing_ok=True)  # of a file that somebody removed
            self._begin(made_by, [] if not path.exists() or self._is_new() else self._find_kept(made_by))
            with explain_write_errors(path):
                self.journal = self.journal_path.open("ab", buffering=0)
                self.file = path.open("ab", buffering=0)
        except BaseException:
            self._unlock()
            raise

    def _begin(self, made_by: dict[str, object], kept: list[tuple[int, _Finished]]) -> None:
        """Write the file with the rows that are kept, then its journal; a kill in between loses nothing."""
        self.length = len(self._header())
        entries: list[dict[str, object]] = [{"made_by": made_by, "bytes": self.length}]
        with replacing(self.path) as partial, partial.open("wb") as new:
            new.write(self._header())
            with self.path.open("rb") if kept else io.BytesIO() as old:
                for start, sound in kept:
                    old.seek(start)
                    new.write(old.read(sound.bytes - start))
                    self.length += sound.bytes - start
                    self.done[sound.file] = False
                    entries.append(sound._replace(bytes=self.length)._asdict())
        replace_file(self.journal_path, "".join(map(_line, entries)))

    def _header(self) -> bytes:
        return CSV_HEADER.encode() if self.as_csv else b""

    def _is_new(self) -> bool:
        """Whether nothing is in file and journal: an earlier batch was interrupted before its first sound."""
        with self.path.open("rb") as file:
            start = file.read(len(self._header()) + 1)
        began = self.journal_path.is_file() and b"\n" in self.journal_path.read_bytes()
        return not began and self._header().startswith(start)

    def _find_kept(self, made_by: dict[str, object]) -> list[tuple[int, _Finished]]:
        """Check the rows against the journal; returns the sounds that are done, and where the rows of each begin."""
        shown, header = printable(self.path), self._header()
        began, entries = self._read_journal()
        if began != made_by:
            changed = sorted(key for key in began | made_by if began.get(key) != made_by.get(key))
            raise UsageError(f"{shown}: was started with another {', '.join(changed)}; choose another --out")
        kept: list[tuple[int, _Finished]] = []
        with explain_write_errors(self.path), self.path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            same, place, end = file.read(len(header)) == header, len(header), len(header)
            for sound in entries if same else ():
                length, end = sound.bytes - end, sound.bytes
                file.seek(place)
                there = place + length <= size
                if there and _digest(hashlib.sha256(file.read(length)), sound.file, sound.failed) == sound.sha256:
                    if not sound.failed:
                        kept.append((place, sound._replace(bytes=place + length)))
                    place += length
                elif not sound.failed:  # else an earlier call that was killed has dropped its rows
                    same = not there  # lost in a power cut
                    break
            if not same and size >= len(header):
                raise UsageError(
                    f"{shown}: its rows after byte {place:,} are not those that were written, so it cannot be "
                    "continued; choose another --out"
                )
            file.seek(place)
            if not all(map(self._is_row, file.read().splitlines(keepends=True))):
                raise UsageError(
                    f"{shown}: holds lines after its last row that were not written by this command, so it cannot be "
                    "continued; choose another --out"
                )
        return kept

    def _read_journal(self) -> tuple[dict[str, Any], list[_Finished]]:
        """What the rows were made by, and each finished sound."""
        if not self.journal_path.is_file():
            raise UsageError(
                f"{printable(self.path)}: cannot be continued: its journal {printable(self.journal_path)} is missing"
            )
        lines = [line for line in self.journal_path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
        try:
            began = json.loads(lines[0])
            if began.keys() != {"made_by", "bytes"} or began["bytes"] != len(self._header()):
                raise ValueError("its first line is of another file")
            made_by, entries, end = dict(began["made_by"]), list[_Finished](), began["bytes"]
            for line in lines[1:]:
                entry = json.loads(line)
                if {key: type(value) for key, value in entry.items()} != _ENTRY or entry["bytes"] < end:
                    raise ValueError("a line is of another kind")
                entries.append(_Finished(**entry))
                end = entries[-1].bytes
        except (ValueError, IndexError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise UsageError(f"{printable(self.journal_path)}: is not a journal of {printable(self.path)}") from error
        return made_by, entries

    def _is_row(self, line: bytes) -> bool:
        """Whether a line is a row, or the begin of one that was cut."""
        if not line.endswith(b"\n"):
            return True
        text = line.decode("utf-8", "surrogateescape")
        try:
            # A line break in a name or a message is within quotes, so that a row may be several lines.
            return (
                '"' in text or len(next(csv.reader([text]))) == len(Row._fields)
                if self.as_csv
                else (json.loads(text).keys() == set(Row._fields))
            )
        except (ValueError, AttributeError, StopIteration, csv.Error):
            return False

    def write(self, rows: SoundRows) -> None:
        """Append rows of a sound; after its last ones the journal says that it is done."""
        content = format_rows(rows.rows, self.as_csv).encode("utf-8", "surrogateescape")
        self._append(self.file, content)
        self.length += len(content)
        self.rows.update(content)
        if rows.last:
            self.done[rows.name] = rows.failed
            digest = _digest(self.rows, rows.name, rows.failed)
            entry = _Finished(rows.name, self.length, rows.failed, digest)._asdict()
            self._append(self.journal, _line(entry).encode())
            self.rows = hashlib.sha256()

    def _append(self, file: FileIO, content: bytes) -> None:
        with explain_write_errors(self.path):
            while content:  # an unbuffered write may take a part, on a disk that is nearly full
                content = content[file.write(content) :]

    def _unlock(self) -> None:
        self.lock.release()
        Path(self.lock.lock_file).unlink(missing_ok=True)

    def __enter__(self) -> "RowFile":
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()
        self.journal.close()
        self._unlock()


_ENTRY = {"file": str, "bytes": int, "failed": bool, "sha256": str}


def _line(entry: Mapping[str, object]) -> str:
    return json.dumps(entry) + "\n"


def _digest(rows: Any, name: str, failed: bool) -> str:
    """SHA-256 of the rows of a sound, a `hashlib` object, and of the rest that the journal says of it."""
    both = rows.copy()
    both.update(json.dumps([name, failed]).encode())
    return str(both.hexdigest())


def fingerprint(model: AudioClassifier) -> str:
    """SHA-256 of a classifier's weights and settings.

    Example:
        >>> from audiostride import create_model
        >>> len(fingerprint(create_model("audio_cnn_small_strided", heads={"word": 2})))
        64
    """
    weights = safetensors.torch.save({name: t.contiguous() for name, t in model.state_dict().items()})
    return hashlib.sha256(weights + json.dumps(model.config()).encode()).hexdigest()
