"""Predictions as rows of CSV or JSON lines, and a file of them in which an interrupted batch resumes."""

import csv
import hashlib
import io
import json
import os
from collections.abc import Iterable
from io import FileIO
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
from filelock import FileLock, Timeout

from ..errors import UsageError, printable
from ..files import explain_write_errors
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
    """A line of the journal: a sound (None: the header), length and digest of the rows so far, end of its line."""

    file: str | None
    bytes: int
    failed: bool
    sha256: str
    journal_bytes: int


class RowFile:
    """A file of rows, CSV or JSON lines by its ending, that an interrupted batch can be resumed in.

    Next to it is a journal, `FILE.journal`: what the rows were made by, then a line for each finished sound with the
    length of the file at that point and a SHA-256 of all before it. Resuming checks them, so that rows somebody
    edited are neither damaged nor mixed up, and drops the rows of the sound that was not finished. The file is locked
    while it is written.

    Args:
        path: ends in .csv or .jsonl.
        made_by: what must be the same to resume: model and options.
        resume: resume the file if there is one.

    Attributes:
        done: for each finished sound whether it failed.

    Raises:
        UsageError: if the ending is another, the file exists and `resume` is not set, another process writes to it, or
            it cannot be resumed.
        WriteError: if it cannot be written.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "rows.csv")
        >>> with RowFile(path, {"top_k": 1}) as file:
        ...     file.write(SoundRows("a.wav", [Row("a.wav", error="damaged")], last=True, failed=True))
        >>> path.read_text().splitlines()[1]
        'a.wav,,,,,,,damaged'
        >>> with RowFile(path, {"top_k": 1}, resume=True) as file:
        ...     file.done
        {'a.wav': True}
    """

    def __init__(self, path: Path, made_by: dict[str, object], resume: bool = False):
        if path.suffix not in (".csv", ".jsonl"):
            ending = path.suffix or "a name without an ending"
            raise UsageError(f"{printable(path)}: rows are written to .csv or .jsonl, not to {ending}")
        self.path, self.as_csv = path, path.suffix == ".csv"
        self.journal_path = path.with_name(path.name + ".journal")
        self.done: dict[str, bool] = {}
        self.length, self.digest = 0, hashlib.sha256()
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
            kept = self._continue(made_by) if path.exists() and not self._is_new() else 0
            with explain_write_errors(path):
                self.journal = self.journal_path.open("r+b" if kept else "wb", buffering=0)
                self.journal.truncate(kept)
                self.journal.seek(kept)
                self.file = path.open("r+b" if kept else "wb", buffering=0)
                self.file.truncate(self.length)
                self.file.seek(self.length)
            if not kept:
                began = {"made_by": made_by, "bytes": len(self._header())}
                self._append(self.journal, json.dumps(began).encode() + b"\n")
                self._add(self._header())
        except BaseException:
            self._unlock()
            raise

    def _header(self) -> bytes:
        return CSV_HEADER.encode() if self.as_csv else b""

    def _is_new(self) -> bool:
        """Whether nothing is in file and journal: an earlier batch was interrupted before its first sound."""
        with self.path.open("rb") as file:
            start = file.read(len(self._header()) + 1)
        began = self.journal_path.is_file() and b"\n" in self.journal_path.read_bytes()
        return not began and self._header().startswith(start)

    def _continue(self, made_by: dict[str, object]) -> int:
        """Check the rows against the journal and read what is done; returns how many bytes of the journal to keep."""
        shown = printable(self.path)
        began, entries = self._read_journal()
        if began != made_by:
            changed = sorted(key for key in began | made_by if began.get(key) != made_by.get(key))
            raise UsageError(f"{shown}: was started with another {', '.join(changed)}; choose another --out")
        kept = 0
        with explain_write_errors(self.path), self.path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            for sound in entries:
                if sound.bytes > size:  # lost in a power cut
                    break
                self.digest.update(file.read(sound.bytes - self.length))
                self.length, kept = sound.bytes, sound.journal_bytes
                if sound.file is not None:
                    self._finish(sound.file, sound.failed)
                if self.digest.hexdigest() != sound.sha256:
                    raise UsageError(
                        f"{shown}: its first {self.length:,} bytes are not those that were written, so it cannot be "
                        "continued; choose another --out"
                    )
            file.seek(self.length)
            if not all(map(self._is_row, file.read().splitlines(keepends=True))):
                raise UsageError(
                    f"{shown}: holds lines after its last row that were not written by this command, so it cannot be "
                    "continued; choose another --out"
                )
        return kept

    def _read_journal(self) -> tuple[dict[str, Any], list[_Finished]]:
        """What the rows were made by, and the header and each finished sound."""
        if not self.journal_path.is_file():
            raise UsageError(
                f"{printable(self.path)}: cannot be continued: its journal {printable(self.journal_path)} is missing"
            )
        lines = [line for line in self.journal_path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
        header = self._header()
        ends = list(accumulate(map(len, lines)))
        try:
            began = json.loads(lines[0])
            if began.keys() != {"made_by", "bytes"} or began["bytes"] != len(header):
                raise ValueError("its first line is of another file")
            made_by = dict(began["made_by"])
            entries = [_Finished(None, len(header), False, hashlib.sha256(header).hexdigest(), ends[0])]
            for line, end in zip(lines[1:], ends[1:], strict=True):
                entry = json.loads(line)
                if {key: type(value) for key, value in entry.items()} != _ENTRY or entry["bytes"] < entries[-1].bytes:
                    raise ValueError("a line is of another kind")
                entries.append(_Finished(**entry, journal_bytes=end))
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
        self._add(format_rows(rows.rows, self.as_csv).encode("utf-8", "surrogateescape"))
        if rows.last:
            self._finish(rows.name, rows.failed)
            entry = {"file": rows.name, "bytes": self.length, "failed": rows.failed, "sha256": self.digest.hexdigest()}
            self._append(self.journal, json.dumps(entry).encode() + b"\n")

    def _finish(self, name: str, failed: bool) -> None:
        self.done[name] = failed
        self.digest.update(json.dumps([name, failed]).encode())  # so that nobody changes the journal, either

    def _add(self, content: bytes) -> None:
        self._append(self.file, content)
        self.length += len(content)
        self.digest.update(content)

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


def fingerprint(model: AudioClassifier) -> str:
    """SHA-256 of a classifier's weights and settings.

    Example:
        >>> from audiostride import create_model
        >>> len(fingerprint(create_model("audio_cnn_small_strided", heads={"word": 2})))
        64
    """
    weights = safetensors.torch.save({name: t.contiguous() for name, t in model.state_dict().items()})
    return hashlib.sha256(weights + json.dumps(model.config()).encode()).hexdigest()
