"""Classifying many sounds: files, folders, patterns and a pipe, a row for each prediction."""

import statistics
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..models.calibration import NONE
from ..models.classifier import AudioClassifier
from ..windows import window_hop
from .embedding import Sound, embed_sounds


class Row(NamedTuple):
    """One prediction: of a sound or of one of its windows, for one task, one of its likeliest classes.

    Attributes:
        file: name of the sound.
        task: the task.
        start_s: begin of what was classified, in seconds.
        end_s: its end, in seconds.
        rank: 1 for the likeliest class, 2 for the next, ...
        label: the class; at rank 1 "none" if the sound is none of the classes, see `models.calibration`.
        score: its probability, 0 to 1; with "none" that of the likeliest class.
        error: why there is no prediction, all else but `file` is None then; None where there is one.
    """

    file: str
    task: str | None = None
    start_s: float | None = None
    end_s: float | None = None
    rank: int | None = None
    label: str | None = None
    score: float | None = None
    error: str | None = None


class SoundRows(NamedTuple):
    """Rows of one sound, in order of time; a long sound's windows come in several of them.

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


def predict_sounds(
    model: AudioClassifier,
    sounds: Iterable[Sound],
    *,
    top_k: int = 1,
    per_window: bool = False,
    batch_size: int = 64,
    workers: int = 2,
    overlap: float = 0.0,
    always: bool = False,
) -> Iterator[SoundRows]:
    """Classify many sounds, in their order.

    Args:
        model: the classifier.
        sounds: from `embedding.open_sounds`.
        top_k: rows for each prediction, the likeliest classes.
        per_window: a row for each window instead of one for the sound.
        batch_size: see `embedding.embed_sounds`.
        workers: see `embedding.embed_sounds`.
        overlap: of windows, see `window_hop`.
        always: name a class where the answer would be "none".

    Raises:
        ValueError: if `top_k` is below 1 or the overlap out of range.

    Example:
        >>> from audiostride import create_model
        >>> from audiostride.inference.embedding import open_sounds
        >>> model = create_model("audio_cnn_small_strided", heads={"word": ["no", "yes"]})
        >>> sounds = open_sounds(["missing.wav"], model.sample_rate)
        >>> [part.rows[0].error for part in predict_sounds(model, sounds)]
        ['missing.wav: No such file or directory']
    """
    if top_k < 1:
        raise ValueError(f"top_k must be at least 1, got {top_k}")
    rate, hop = model.sample_rate, window_hop(model.window_length, overlap)
    total, n_windows = torch.zeros(model.trunk.num_features, dtype=torch.float64), 0
    for piece in embed_sounds(model, sounds, batch_size, workers, overlap):
        rows: list[Row] = []
        if per_window:
            latest = max(0, piece.samples - model.window_length)  # where the window that ends with the sound begins
            starts = [min((n_windows + i) * hop, latest) for i in range(len(piece.embeddings))]
            ends = [min(start + model.window_length, piece.samples) for start in starts]
            times = [(start / rate, end / rate) for start, end in zip(starts, ends, strict=True)]
            rows = _rows(model, piece.name, piece.embeddings, times, top_k, always)
        total += piece.embeddings.double().sum(0)
        n_windows += len(piece.embeddings)
        if piece.last:
            if piece.error is not None:
                rows.append(Row(piece.name, error=piece.error))
            elif not per_window:
                mean = (total / n_windows)[None].to(piece.embeddings)
                rows = _rows(model, piece.name, mean, [(0.0, piece.samples / rate)], top_k, always)
            total, n_windows = torch.zeros_like(total), 0
        if rows or piece.last:
            yield SoundRows(piece.name, rows, piece.last, piece.error is not None)


def stream_latency_ms(model: AudioClassifier) -> float:
    """Time from a window's last sample to its prediction on this machine: the median of five windows, in ms."""
    window = model.silence()
    times = []
    for _ in range(7):
        began = time.perf_counter()
        _rows(model, "", model.embed_windows(window), [(0.0, model.window_s)], top_k=1)
        times.append(1000 * (time.perf_counter() - began))
    return statistics.median(times[2:])


@torch.inference_mode()
def _rows(
    model: AudioClassifier,
    name: str,
    embeddings: Tensor,
    times: Sequence[tuple[float, float]],
    top_k: int,
    always: bool = False,
) -> list[Row]:
    found = {}
    for task, head in model.heads.items():
        logits, n = head(model.take(embeddings)), min(top_k, len(model.labels[task]))
        best = model.probabilities(task, logits).topk(n)
        found[task] = (*(part.tolist() for part in best), model.is_none(task, logits).tolist())
    rows = []
    for i, (start, end) in enumerate(times):
        for task, (scores, indexes, none) in found.items():
            likeliest = [(model.labels[task][k], score) for k, score in zip(indexes[i], scores[i], strict=True)]
            if none[i] and not always:
                likeliest = [(NONE, scores[i][0]), *likeliest[: top_k - 1]]
            rows += [
                Row(name, task, round(start, 3), round(end, 3), rank, label, round(score, 6))
                for rank, (label, score) in enumerate(likeliest, 1)
            ]
    return rows
