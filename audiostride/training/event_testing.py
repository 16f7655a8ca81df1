"""Testing the events of a model on annotated recordings, and finding its settings for events on them."""

import itertools
import math
import warnings
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from ..data.annotations import Segment, annotated_recordings
from ..data.clips import Progress
from ..data.decoding import audio_blocks
from ..data.manifest import is_table, read_manifest
from ..errors import DataError, DataWarning, UsageError
from ..models.classifier import AudioClassifier
from ..models.events import EventSettings, default_settings, find_events, tracks
from ..models.frames import FrameGrid, frame_blocks, frame_grid
from .event_scores import Counts, event_counts, f1_interval, segment_counts, total

FEWEST_OF_A_CLASS = 10
"""Events from which on a class has a threshold of its own, not that of all."""

CURVE = np.linspace(0.5, 0.999, 12)
"""Shares of the frames' scores that lie below the thresholds of a curve of precision and recall."""


class Heard(NamedTuple):
    """A recording with its events, and what a model makes of its frames.

    Attributes:
        name: of the recording.
        seconds: its length.
        true: its events, of the task's classes.
        logits: of the task, ``(frames, n_classes)``.
    """

    name: str
    seconds: float
    true: list[Segment]
    logits: np.ndarray


def hear_annotated(
    model: AudioClassifier,
    folder: str | PathLike[str],
    task: str | None = None,
    progress: Progress | None = None,
) -> tuple[str, list[Heard]]:
    """Frame logits of annotated recordings.

    Args:
        model: the classifier.
        folder: with the recordings and their label files, see `annotations.annotated_recordings`; or a table of events,
            see `manifest.read_manifest`: `file`, `start_s`, `end_s` and `label`, else its first column of labels.
        task: whose classes are annotated; None: the one that has most of the labels.
        progress: called after each recording.

    Returns:
        The task and the recordings. Recordings without a label file are left out, and labels that are none of its
        classes, with a warning.

    Raises:
        DataError: if a file cannot be read, there is no annotated recording, or no label is a class.
        UsageError: if there is no such task.
    """
    present = _events_of_table(folder) if is_table(folder) else annotated_recordings(folder)
    recordings = [(path, segments) for path, segments in present.items() if segments is not None]
    if not recordings:
        raise DataError(f"{folder}: holds no recording with a label file (NAME.wav with NAME.txt in the same folder)")
    if task is not None and task not in model.labels:
        raise UsageError(f"the model has no task {task!r}; its tasks: {', '.join(model.labels)}")
    labels = [segment.label for _, segments in recordings for segment in segments]
    known = {name: sum(map(set(classes).__contains__, labels)) for name, classes in model.labels.items()}
    task = task or max(known, key=known.__getitem__)
    if not known[task]:
        shown = ", ".join(sorted(set(labels))[:5]) or "none at all"
        raise DataError(f"{folder}: none of its labels ({shown}) is a class of the task {task}")
    if without := [path for path, segments in present.items() if segments is None]:
        left_out = f"{len(without)} of {len(present)} recordings, which have no label file, such as {without[0]}"
        warnings.warn(f"{folder}: left out {left_out}", DataWarning, stacklevel=2)
    if strange := sorted(set(labels).difference(*model.labels.values())):
        warnings.warn(f"{folder}: left out labels of no class: {', '.join(strange[:5])}", DataWarning, stacklevel=2)
    model.eval()
    grid, heard = frame_grid(model), []
    for number, (path, segments) in enumerate(recordings, 1):
        samples, logits = _frame_logits(model, grid, path, task)
        true = [segment for segment in segments if segment.label in model.labels[task]]
        heard.append(Heard(str(path), samples / grid.sample_rate, true, logits))
        if progress:
            progress("listening", number, len(recordings))
    return task, heard


def event_report(model: AudioClassifier, task: str, heard: Sequence[Heard]) -> dict[str, Any]:
    """Scores of the events that a model finds, as plain data: by event and by segment, by class and in all.

    Returns:
        "task", "recordings", "seconds", "interval" (of F1 in all, 95 %, or None), and for "event" and "segment" a
        dictionary of each class, "" for all, with "precision", "recall", "f1" (None where there is none), "correct",
        "found" and "true"; "onset" is "event" without regard to offsets, and "curve" its `precision_recall`.
    """
    grid, settings = frame_grid(model), model.events_by(task)
    found = [found_segments(one, grid, model.labels[task], model.kinds[task], settings) for one in heard]
    by_event = [event_counts(f, one.true) for f, one in zip(found, heard, strict=True)]
    by_onset = [event_counts(f, one.true, offset_share=None) for f, one in zip(found, heard, strict=True)]
    by_segment = [segment_counts(f, one.true) for f, one in zip(found, heard, strict=True)]
    return {
        "task": task,
        "recordings": len(heard),
        "seconds": sum(one.seconds for one in heard),
        "interval": f1_interval(by_event),
        "event": _plain(total(by_event)),
        "onset": _plain(total(by_onset)),
        "segment": _plain(total(by_segment)),
        "curve": precision_recall(heard, grid, model.labels[task], model.kinds[task], settings),
    }


def precision_recall(
    heard: Sequence[Heard], grid: FrameGrid, labels: Sequence[str], kind: str, settings: EventSettings
) -> list[dict[str, float | None]]:
    """Precision and recall of onsets, all classes together, by the threshold of all of them."""
    scores = np.concatenate([tracks(one.logits, kind).ravel() for one in heard])
    curve = []
    for threshold in sorted(set(np.quantile(scores, CURVE).round(2).tolist())):
        changed = settings._replace(thresholds=(threshold,) * len(labels))
        found = [found_segments(one, grid, labels, kind, changed) for one in heard]
        counts = total([event_counts(f, one.true, offset_share=None) for f, one in zip(found, heard, strict=True)])
        one = counts.get("", Counts(0, 0, 0))
        shares = {"precision": one.precision, "recall": one.recall}
        curve.append({"threshold": threshold} | {k: None if math.isnan(v) else v for k, v in shares.items()})
    return curve


def found_segments(
    heard: Heard, grid: FrameGrid, labels: Sequence[str], kind: str, settings: EventSettings
) -> list[Segment]:
    """The events that settings find in a recording."""
    events = find_events(heard.logits, grid.hop_ms, grid.first_ms, kind, settings)
    return [Segment(e.start_ms / 1000, min(e.end_ms / 1000, heard.seconds), labels[e.label]) for e in events]


def best_settings(
    heard: Sequence[Heard], grid: FrameGrid, labels: Sequence[str], kind: str, offset_share: float | None = None
) -> EventSettings:
    """The settings with the best F1 of events on recordings: first for all classes alike, then each class's threshold.

    Args:
        heard: recordings with their events.
        grid: of the model.
        labels: classes of the task.
        kind: of the task.
        offset_share: see `event_scores.event_counts`; None: onsets only.
    """
    start = default_settings(kind, len(labels))
    scores = np.concatenate([tracks(one.logits, kind).ravel() for one in heard])
    floor = start.floor if kind == "multiclass" else float(np.median(scores))
    candidates = sorted(set(np.quantile(scores, np.linspace(0.5, 0.995, 16)).round(2).tolist()))

    def f1(settings: EventSettings, label: str = "") -> float:
        counts = [
            event_counts(found_segments(one, grid, labels, kind, settings), one.true, offset_share=offset_share)
            for one in heard
        ]
        return float(np.nan_to_num(total(counts).get(label, Counts(0, 0, 0)).f1))

    grids = itertools.product(candidates, (100.0, 200.0, 300.0), (0.0, 100.0, 200.0))
    tried = [EventSettings((t,) * len(labels), floor, shortest, gap) for t, shortest, gap in grids if t > floor]
    best = max(tried, key=f1) if tried else start._replace(floor=floor)
    own = list(best.thresholds)
    for number, label in enumerate(labels):
        if sum(event.label == label for one in heard for event in one.true) >= FEWEST_OF_A_CLASS:
            own[number] = max(candidates, key=lambda t: f1(best._replace(thresholds=(t,) * len(labels)), label))
    refined = best._replace(thresholds=tuple(own))
    return refined if f1(refined) > f1(best) else best


def _events_of_table(path: str | PathLike[str]) -> Mapping[Path, list[Segment] | None]:
    clips = read_manifest(path)
    if clips.spans is None or not clips.columns:
        raise DataError(f"{path}: a table of events needs the columns file, start_s, end_s and label")
    labels = clips.column("label" if "label" in clips.columns else next(iter(clips.columns)))
    events: dict[Path, list[Segment] | None] = {}
    for i, (label, (start_s, end_s)) in enumerate(zip(labels, clips.spans.tolist(), strict=True)):
        own = events.setdefault(clips.path(i), [])
        assert own is not None
        if math.isfinite(start_s + end_s) and label:
            own.append(Segment(start_s, end_s, label))
    return events


def _frame_logits(model: AudioClassifier, grid: FrameGrid, path: Path, task: str) -> tuple[int, np.ndarray]:
    samples = [0]

    def counted() -> Any:
        for block in audio_blocks(path, grid.sample_rate, model.channel):
            samples[0] += len(block)
            yield block

    logits = torch.cat([part[task] for part in frame_blocks(model, grid, counted())])
    return samples[0], logits.numpy()


def _plain(counts: dict[str, Counts]) -> dict[str, Any]:
    def plain(count: Counts) -> dict[str, Any]:
        shares = {"precision": count.precision, "recall": count.recall, "f1": count.f1}
        return {name: None if math.isnan(value) else value for name, value in shares.items()} | count._asdict()

    return {label: plain(count) for label, count in counts.items()}
