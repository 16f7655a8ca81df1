"""Classifying many sounds: files, folders, patterns and a pipe, in batches and in bounded memory.

A sound is read block by block in a thread, cut into windows, and windows of several sounds share a
batch. A bad sound becomes a row with its error; it never stops or moves the others.
"""

import csv
import hashlib
import io
import json
import os
import statistics
import sys
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from ..data.clips import Progress
from ..data.decoding import audio_blocks
from ..data.sounds import STDIN
from ..errors import DataError, UsageError
from ..models.classifier import AudioClassifier
from .streams import pipe_blocks, windows_of


class Sound(NamedTuple):
    """Something to classify.

    Attributes:
        name: what its rows are called by: the path of a file.
        blocks: gives the waveform in pieces, float32 ``(samples,)`` at the classifier's rate.
    """

    name: str
    blocks: Callable[[], Iterable[np.ndarray]]


class Piece(NamedTuple):
    """The next windows of a sound, embedded.

    Attributes:
        name: of the sound.
        embeddings: shape ``(n_windows, num_features)``, on the CPU; n_windows may be 0.
        samples: samples of the sound so far.
        last: whether the sound ends here.
        error: why it ends before its end, or None.
    """

    name: str
    embeddings: Tensor
    samples: int
    last: bool
    error: str | None


class Row(NamedTuple):
    """One answer: of a sound or of one of its windows, for one task, one of its likeliest classes.

    Attributes:
        file: name of the sound.
        task: the task.
        start_s: begin of what was classified, in seconds.
        end_s: its end, in seconds.
        rank: 1 for the likeliest class, 2 for the next, ...
        label: the class.
        score: its probability, 0 to 1.
        error: why there is no answer, all else but `file` is None then; None where there is one.
    """

    file: str
    task: str | None = None
    start_s: float | None = None
    end_s: float | None = None
    rank: int | None = None
    label: str | None = None
    score: float | None = None
    error: str | None = None


class Answer(NamedTuple):
    """Rows of one sound, in order of time; several answers follow each other for one sound's windows.

    Attributes:
        name: of the sound.
        rows: the rows.
        last: whether the sound is done.
        failed: whether it could not be read to its end.
    """

    name: str
    rows: list[Row]
    last: bool
    failed: bool


def open_sounds(names: Iterable[str], sample_rate: int, pcm_rate: int | None = None) -> Iterator[Sound]:
    """The sounds behind names of files; "-" is standard input, see `pipe.pipe_blocks`."""
    for name in names:
        if name == STDIN:
            yield Sound(name, partial(pipe_blocks, cast(io.BufferedIOBase, sys.stdin.buffer), sample_rate, pcm_rate))
        else:
            yield Sound(name, partial(audio_blocks, name, sample_rate))


def embed_sounds(
    model: AudioClassifier, sounds: Iterable[Sound], batch_size: int = 64, workers: int = 2
) -> Iterator[Piece]:
    """Embeddings of all windows of many sounds, in the order of the sounds.

    Memory is bounded by the batch and the workers' blocks, not by the length of a sound or their number.

    Args:
        model: the classifier.
        sounds: from `open_sounds`.
        batch_size: windows that are gathered before the model runs; 1 runs it as soon as a window is there.
        workers: threads that decode; 0 decodes in between.

    Example:
        >>> from audiostride import create_model
        >>> model = create_model("audio_cnn_small_strided", heads={"word": 2})
        >>> sound = Sound("two seconds", lambda: [np.zeros(32000, np.float32)])
        >>> [(piece.embeddings.shape, piece.samples, piece.last) for piece in embed_sounds(model, [sound])]
        [(torch.Size([2, 128]), 32000, False), (torch.Size([0, 128]), 32000, True)]
    """
    held: list[_Read] = []

    def flush() -> Iterator[Piece]:
        sizes = [len(read.windows) for read in held]
        windows = torch.from_numpy(np.concatenate([read.windows for read in held]))
        if sum(sizes):
            embeddings = model.embed_windows(windows.to(model.frontend.window)).cpu()
        else:
            embeddings = torch.zeros(0, model.trunk.num_features)
        for read, part in zip(held, embeddings.split(sizes), strict=True):
            yield Piece(read.name, part, read.samples, read.last, read.error)
        held.clear()

    with closing(_read_ahead(sounds, model.window_length, workers)) as reads:
        for read in reads:
            held.append(read)
            if sum(len(read.windows) for read in held) >= batch_size or len(held) > 2 * batch_size:
                yield from flush()
        if held:
            yield from flush()


def predict_sounds(
    model: AudioClassifier,
    sounds: Iterable[Sound],
    *,
    top_k: int = 1,
    per_window: bool = False,
    batch_size: int = 64,
    workers: int = 2,
) -> Iterator[Answer]:
    """Classify many sounds, in their order.

    Args:
        model: the classifier.
        sounds: from `open_sounds`.
        top_k: rows for each answer, the likeliest classes.
        per_window: a row for each window instead of one for the sound.
        batch_size: see `embed_sounds`.
        workers: see `embed_sounds`.

    Raises:
        ValueError: if `top_k` is below 1.

    Example:
        >>> from audiostride import create_model
        >>> model = create_model("audio_cnn_small_strided", heads={"word": ["no", "yes"]})
        >>> sounds = open_sounds(["missing.wav"], model.frontend.sample_rate)
        >>> [answer.rows[0].error for answer in predict_sounds(model, sounds)]
        ['missing.wav: No such file or directory']
    """
    if top_k < 1:
        raise ValueError(f"top_k must be at least 1, got {top_k}")
    rate = model.frontend.sample_rate
    total, n_windows = torch.zeros(model.trunk.num_features, dtype=torch.float64), 0
    for piece in embed_sounds(model, sounds, batch_size, workers):
        rows: list[Row] = []
        if per_window:
            starts = [(n_windows + i) * model.window_length for i in range(len(piece.embeddings))]
            ends = [min(start + model.window_length, piece.samples) for start in starts]
            times = [(start / rate, end / rate) for start, end in zip(starts, ends, strict=True)]
            rows = _rows(model, piece.name, piece.embeddings, times, top_k)
        total += piece.embeddings.double().sum(0)
        n_windows += len(piece.embeddings)
        if piece.last:
            if piece.error is not None:
                rows.append(Row(piece.name, error=piece.error))
            elif not per_window:
                mean = (total / n_windows)[None].to(piece.embeddings)
                rows = _rows(model, piece.name, mean, [(0.0, piece.samples / rate)], top_k)
            total, n_windows = torch.zeros_like(total), 0
        if rows or piece.last:
            yield Answer(piece.name, rows, piece.last, piece.error is not None)


@torch.inference_mode()
def _rows(
    model: AudioClassifier, name: str, embeddings: Tensor, times: Sequence[tuple[float, float]], top_k: int
) -> list[Row]:
    best = {
        task: model.probabilities(task, head(embeddings.to(model.frontend.window))).topk(
            min(top_k, len(model.labels[task]))
        )
        for task, head in model.heads.items()
    }
    return [
        Row(name, task, round(start, 3), round(end, 3), rank + 1, model.labels[task][index], round(score, 6))
        for i, (start, end) in enumerate(times)
        for task, (scores, indexes) in best.items()
        for rank, (score, index) in enumerate(zip(scores[i].tolist(), indexes[i].tolist(), strict=True))
    ]


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


CSV_HEADER = ",".join(Row._fields) + "\n"


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
        ...     file.write(Answer("a.wav", [Row("a.wav", error="damaged")], last=True, failed=True))
        >>> path.read_text().splitlines()[1]
        'a.wav,,,,,,,damaged'
        >>> with RowFile(path, {"top_k": 1}, resume=True) as file:
        ...     file.done
        {'a.wav': True}
    """

    def __init__(self, path: Path, made_by: dict[str, object], resume: bool = False):
        if path.suffix not in (".csv", ".jsonl"):
            raise UsageError(
                f"{path}: rows are written to .csv or .jsonl, not to {path.suffix or 'a name without ending'}"
            )
        self.as_csv = path.suffix == ".csv"
        self.journal_path = path.with_name(path.name + ".journal")
        self.done: dict[str, bool] = {}
        if path.exists() and not resume:
            raise UsageError(f"{path}: is there already; --resume continues it, or give another --out")
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
            raise UsageError(f"{path}: cannot be continued, its journal {self.journal_path} is missing") from error
        except (ValueError, IndexError, KeyError, TypeError) as error:
            raise UsageError(f"{self.journal_path}: is not a journal of {path}") from error
        if began != made_by:
            changed = sorted(key for key in made_by if began.get(key) != made_by[key])
            raise UsageError(f"{path}: was begun with another {', '.join(changed)}; give another --out")
        kept = 1
        for name, end, failed in done:
            if end > path.stat().st_size:  # lost in a power cut
                break
            self.done[name] = failed
            kept, length = kept + 1, end
        os.truncate(path, length)
        os.truncate(self.journal_path, sum(len(line) for line in lines[:kept]))

    def write(self, answer: Answer) -> None:
        """Append the rows of an answer; after a sound's last answer the journal says that it is done."""
        self.file.write(format_rows(answer.rows, self.as_csv))
        if answer.last:
            self.file.flush()
            self.done[answer.name] = answer.failed
            entry = {"file": answer.name, "bytes": os.fstat(self.file.fileno()).st_size, "failed": answer.failed}
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


def write_embeddings(
    model: AudioClassifier,
    sounds: Sequence[Sound],
    path: Path,
    batch_size: int = 64,
    workers: int = 2,
    progress: Progress | None = None,
) -> int:
    """Embed many sounds into a table: a row each, in their order, a bad one with its error.

    Args:
        model: the classifier.
        sounds: from `open_sounds`.
        path: ends in .npz (arrays `path`, `seconds`, `embedding`, `error`; NaN where there is an error)
            or .parquet (the same columns; null where there is none).
        batch_size: see `embed_sounds`.
        workers: see `embed_sounds`.
        progress: called after each sound.

    Returns:
        How many of the sounds failed.

    Raises:
        UsageError: if the path ends otherwise, or pyarrow is not installed.
    """
    if path.suffix not in (".npz", ".parquet"):
        raise UsageError(f"{path}: embeddings are written to .npz or .parquet, not to {path.suffix or 'that'}")
    if path.suffix == ".parquet":
        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError as error:
            raise UsageError("parquet needs pyarrow: pip install 'audiostride[parquet]'; or write .npz") from error
    names: list[str] = []
    seconds: list[float] = []
    embeddings: list[np.ndarray] = []
    errors: list[str] = []
    size = model.trunk.num_features
    total, n_windows = torch.zeros(size, dtype=torch.float64), 0
    for piece in embed_sounds(model, sounds, batch_size, workers):
        total += piece.embeddings.double().sum(0)
        n_windows += len(piece.embeddings)
        if piece.last:
            failed = piece.error is not None
            names.append(piece.name)
            seconds.append(np.nan if failed else piece.samples / model.frontend.sample_rate)
            embeddings.append(np.full(size, np.nan, np.float32) if failed else (total / n_windows).float().numpy())
            errors.append(piece.error or "")
            total, n_windows = torch.zeros_like(total), 0
            if progress:
                progress("embedding", len(names), len(sounds))
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".part")
    if path.suffix == ".npz":
        with unfinished.open("wb") as file:
            np.savez_compressed(
                file,
                path=np.array(names),
                seconds=np.array(seconds),
                embedding=np.array(embeddings),
                error=np.array(errors),
            )
    else:
        columns = {
            "path": pyarrow.array(names),
            "seconds": pyarrow.array([None if e else s for s, e in zip(seconds, errors, strict=True)]),
            "embedding": pyarrow.array(
                [None if e else v.tolist() for v, e in zip(embeddings, errors, strict=True)],
                pyarrow.list_(pyarrow.float32()),
            ),
            "error": pyarrow.array([e or None for e in errors], pyarrow.string()),
        }
        pyarrow.parquet.write_table(pyarrow.table(columns), unfinished)
    os.replace(unfinished, path)
    return sum(map(bool, errors))


def stream_latency_ms(model: AudioClassifier) -> float:
    """Time from a window's last sample to its answer on this machine: the median of five windows, in ms."""
    window = torch.zeros(1, model.window_length).to(model.frontend.window)
    times = []
    for _ in range(7):
        began = time.perf_counter()
        _rows(model, "", model.embed_windows(window), [(0.0, model.window_s)], top_k=1)
        times.append(1000 * (time.perf_counter() - began))
    return statistics.median(times[2:])


class _Read(NamedTuple):
    name: str
    windows: np.ndarray
    samples: int
    last: bool
    error: str | None


def _read(sound: Sound, window_length: int) -> Iterator[_Read]:
    """Windows of one sound; an error becomes the last item instead of an exception."""
    samples, error = 0, None
    try:
        for part in windows_of(sound.blocks(), window_length):
            samples = part.samples
            yield _Read(sound.name, part.windows, samples, False, None)
    except DataError as problem:
        error = str(problem)
    yield _Read(sound.name, np.zeros((0, window_length), np.float32), samples, True, error)


def _read_ahead(sounds: Iterable[Sound], window_length: int, workers: int) -> Generator[_Read, None, None]:
    """Windows of all sounds in order, while threads read the first block of the next sounds."""
    if workers == 0:
        for sound in sounds:
            yield from _read(sound, window_length)
        return
    coming = iter(sounds)
    ahead: deque[tuple[Iterator[_Read], Future[_Read]]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        while True:
            for sound in islice(coming, 2 * workers - len(ahead)):
                reads = _read(sound, window_length)
                ahead.append((reads, pool.submit(next, reads)))
            if not ahead:
                return
            reads, future = ahead.popleft()
            while not (read := future.result()).last:
                future = pool.submit(next, reads)
                yield read
            yield read
