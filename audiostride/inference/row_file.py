"""Predictions as rows of CSV or JSON lines, and a file of them that an interrupted batch continues."""

import csv
import hashlib
import io
import json
import os
from collections.abc import Iterable
from pathlib import Path

import safetensors.torch

from ..errors import UsageError
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


class RowFile:
    """A file of rows, CSV or JSON lines by its ending, that an interrupted batch can be continued in.

    Beside it lies a journal, `FILE.journal`: what the rows were made by, then a line for each sound
    that is done, with the length of the file at that point. Continuing cuts off what came after.

    Args:
        path: ends in .csv or .jsonl.
        made_by: what must be the same to continue: model and options.
        resume: continue the file if it is there.

    Attributes:
        done: for each sound that is done whether it failed.

    Raises:
        UsageError: if the ending is another, the file is there and `resume` is not set, or it cannot be continued.

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
            raise UsageError(
                f"{path}: rows are written to .csv or .jsonl, not to {path.suffix or 'a name without an ending'}"
            )
        self.as_csv = path.suffix == ".csv"
        self.journal_path = path.with_name(path.name + ".journal")
        self.done: dict[str, bool] = {}
        if path.exists() and not resume:
            raise UsageError(f"{path}: already exists; continue it with --resume, or choose another --out")
        if path.exists():
            self._continue(path, made_by)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            header = CSV_HEADER if self.as_csv else ""
            path.write_text(header, encoding="utf-8")
            self.journal_path.write_text(json.dumps({"made_by": made_by, "bytes": len(header)}) + "\n")
        # Names that are no UTF-8 come back from the file system, and go back to it, as surrogates.
        self.file = path.open("a", encoding="utf-8", errors="surrogateescape", newline="")
        self.journal = self.journal_path.open("a")

    def _continue(self, path: Path, made_by: dict[str, object]) -> None:
        try:
            lines = self.journal_path.read_bytes().splitlines(keepends=True)
            entries = [json.loads(line) for line in lines if line.endswith(b"\n")]
            began, length = dict(entries[0]["made_by"]), entries[0]["bytes"]
            done = [(entry["file"], entry["bytes"], entry["failed"]) for entry in entries[1:]]
        except FileNotFoundError as error:
            raise UsageError(f"{path}: cannot be continued: its journal {self.journal_path} is missing") from error
        except (ValueError, IndexError, KeyError, TypeError) as error:
            raise UsageError(f"{self.journal_path}: is not a journal of {path}") from error
        if began != made_by:
            changed = sorted(key for key in began | made_by if began.get(key) != made_by.get(key))
            raise UsageError(f"{path}: was started with another {', '.join(changed)}; choose another --out")
        kept = 1
        for name, end, failed in done:
            if end > path.stat().st_size:  # lost in a power cut
                break
            self.done[name] = failed
            kept, length = kept + 1, end
        os.truncate(path, length)
        os.truncate(self.journal_path, sum(len(line) for line in lines[:kept]))

    def write(self, rows: SoundRows) -> None:
        """Append rows of a sound; after its last ones the journal says that it is done."""
        self.file.write(format_rows(rows.rows, self.as_csv))
        if rows.last:
            self.file.flush()
            self.done[rows.name] = rows.failed
            entry = {"file": rows.name, "bytes": os.fstat(self.file.fileno()).st_size, "failed": rows.failed}
            self.journal.write(json.dumps(entry) + "\n")
            self.journal.flush()

    def __enter__(self) -> "RowFile":
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()
        self.journal.close()


def fingerprint(model: AudioClassifier) -> str:
    """SHA-256 of a classifier's weights and settings.

    Example:
        >>> from audiostride import create_model
        >>> len(fingerprint(create_model("audio_cnn_small_strided", heads={"word": 2})))
        64
    """
    weights = safetensors.torch.save({name: t.contiguous() for name, t in model.state_dict().items()})
    return hashlib.sha256(weights + json.dumps(model.config()).encode()).hexdigest()
