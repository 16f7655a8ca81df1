"""False alarms per hour: the events that a model finds in sound that holds none of its classes, and what it misses."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.special import gammaincinv

from ..data.annotations import Segment
from ..data.clips import Clips, Progress
from ..data.decoding import audio_blocks
from ..errors import UsageError
from ..models.classifier import AudioClassifier
from ..models.events import EventFinder, EventSettings
from ..models.frames import frame_blocks, frame_grid
from .event_testing import Heard, found_segments

FACTORS = tuple(np.geomspace(0.5, 8, 41).tolist())
"""By what the thresholds of all classes are multiplied, above the floor, for the curve of false alarms."""

PER_HOUR = (0.1, 0.5, 1.0, 10.0)
"""False alarms per hour at which the share of events that are missed is told."""


def false_alarms(
    model: AudioClassifier, files: Sequence[str], task: str | None = None, progress: Progress | None = None
) -> dict[str, Any]:
    """Events found in recordings that hold none of the classes, per hour, of each task.

    Args:
        model: the classifier; its events are found by its settings.
        files: the recordings, of any length; each is read in bounded memory.
        task: only this one; None: all.
        progress: called after each recording.

    Returns:
        "recordings", "hours", and "tasks": for each "events", "per_hour", "interval" (95 %, see `poisson_interval`),
        "classes", the events per hour of each class that was found, and "curve": for each of `FACTORS` "factor",
        "events", "per_hour" and "interval" with the settings of `scaled`.

    Raises:
        DataError: if a recording cannot be read.
        UsageError: if there is no such task.
    """
    if task is not None and task not in model.labels:
        raise UsageError(f"the model has no task {task!r}; its tasks: {', '.join(model.labels)}")
    model.eval()
    grid, samples = frame_grid(model), 0
    settings = {
        (name, factor): scaled(model.events_by(name), factor)
        for name in model.labels
        if task in (None, name)
        for factor in (1.0, *FACTORS)
    }
    found: dict[tuple[str, float], Counter[int]] = {key: Counter() for key in settings}
    for number, file in enumerate(files, 1):
        finders = {
            key: EventFinder(grid.hop_ms, grid.first_ms, model.kinds[key[0]], own) for key, own in settings.items()
        }
        lengths: list[int] = []

        def blocks(path: Path = Path(file), lengths: list[int] = lengths) -> Any:
            for block in audio_blocks(path, grid.sample_rate, model.channel):
                lengths.append(len(block))
                yield block

        for logits in frame_blocks(model, grid, blocks()):
            for key, finder in finders.items():
                found[key].update(event.label for event in finder.feed(logits[key[0]].numpy()))
        for key, finder in finders.items():
            found[key].update(event.label for event in finder.finish())
        samples += sum(lengths)
        if progress:
            progress("listening", number, len(files))
    hours = samples / grid.sample_rate / 3600

    def rate(counts: Counter[int]) -> dict[str, Any]:
        n = counts.total()
        return {"events": n, "per_hour": n / hours, "interval": [end / hours for end in poisson_interval(n)]}

    tasks = {
        name: rate(found[name, 1.0])
        | {"classes": {model.labels[name][label]: n / hours for label, n in found[name, 1.0].most_common()}}
        | {"curve": [{"factor": factor} | rate(found[name, factor]) for factor in FACTORS]}
        for name in dict.fromkeys(name for name, _ in settings)
    }
    return {"recordings": len(files), "hours": hours, "tasks": tasks}


def scaled(settings: EventSettings, factor: float) -> EventSettings:
    """Settings whose thresholds are that many times as far above the floor.

    Example:
        >>> scaled(EventSettings((4.0, 6.0), floor=-2.0), 2.0).thresholds
        (10.0, 14.0)
    """
    floor = settings.floor
    return settings._replace(
        thresholds=tuple(floor + factor * (threshold - floor) for threshold in settings.thresholds)
    )


@torch.inference_mode()
def hear_clips(
    model: AudioClassifier, task: str, clips: Clips, labels: np.ndarray, rows: Sequence[int] | np.ndarray
) -> list[Heard]:
    """Frame logits of whole clips, each of which is one event, or in a multilabel task one of each of its classes."""
    model.eval()
    grid, names, heard = frame_grid(model), model.labels[task], []
    for row in rows:
        sound = clips.read(row, grid.sample_rate)
        logits = torch.cat([part[task] for part in frame_blocks(model, grid, [sound])])
        numbers = np.flatnonzero(labels[row] == 1) if model.kinds[task] == "multilabel" else [int(labels[row])]
        true = [Segment(0.0, len(sound) / grid.sample_rate, names[number]) for number in numbers]
        heard.append(Heard(clips.title(row), len(sound) / grid.sample_rate, true, logits.numpy()))
    return heard


def missed_share(model: AudioClassifier, task: str, heard: Sequence[Heard], settings: EventSettings) -> float | None:
    """Share of true events that no event of their class overlaps; None if there is none to be found.

    The first class of a binary task is that there is nothing.
    """
    grid, labels, kind = frame_grid(model), model.labels[task], model.kinds[task]
    missed = n = 0
    for one in heard:
        true = [segment for segment in one.true if kind != "binary" or segment.label == labels[1]]
        found = found_segments(one, grid, labels, kind, settings)
        n += len(true)
        for t in true:
            missed += not any(f.label == t.label and f.start_s < t.end_s and f.end_s > t.start_s for f in found)
    return missed / n if n else None


def at_rate(curve: Sequence[Mapping[str, Any]], per_hour: float) -> Mapping[str, Any] | None:
    """The lowest point of a curve from which on no factor gives more false alarms per hour; None if all give more.

    Example:
        >>> at_rate([{"factor": 1.0, "per_hour": 9.0}, {"factor": 2.0, "per_hour": 0.5}], per_hour=1.0)
        {'factor': 2.0, 'per_hour': 0.5}
    """
    found = None
    for point in reversed(curve):
        if point["per_hour"] > per_hour:
            break
        found = point
    return found


def poisson_interval(n: int, share: float = 0.95) -> tuple[float, float]:
    """Exact interval of the mean of a Poisson distribution of which `n` was seen.

    Source:
        Garwood 1936, "Fiducial limits for the Poisson distribution".

    Example:
        >>> [round(end, 3) for end in poisson_interval(0)], [round(end, 3) for end in poisson_interval(3)]
        ([0.0, 3.689], [0.619, 8.767])
    """
    tail = (1 - share) / 2
    return float(gammaincinv(n, tail)) if n else 0.0, float(gammaincinv(n + 1, 1 - tail))
