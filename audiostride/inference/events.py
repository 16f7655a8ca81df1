"""Events and frame scores of many sounds, each read block by block in bounded memory."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..errors import DataError
from ..models.classifier import AudioClassifier
from ..models.events import Event, EventFinder, EventSettings
from ..models.frames import frame_blocks, frame_grid
from .embedding import Sound
from .predict import Row, SoundRows

STREAM_BLOCK_S = 0.25
"""New sound that a stream waits for before the model runs."""


class Changes(NamedTuple):
    """What is to differ from the settings that a model's events are found by; None: nothing.

    Attributes:
        threshold: of every class.
        min_ms: shortest event.
        join_ms: longest gap that is ignored.
    """

    threshold: float | None = None
    min_ms: float | None = None
    join_ms: float | None = None

    def applied(self, settings: EventSettings) -> EventSettings:
        """The settings with these changes.

        Example:
            >>> Changes(threshold=3.0).applied(EventSettings((1.0, 2.0)))
            EventSettings(thresholds=(3.0, 3.0), floor=0.0, min_ms=150.0, join_ms=100.0)
        """
        return EventSettings(
            settings.thresholds if self.threshold is None else (self.threshold,) * len(settings.thresholds),
            settings.floor,
            settings.min_ms if self.min_ms is None else self.min_ms,
            settings.join_ms if self.join_ms is None else self.join_ms,
        )


NO_CHANGES = Changes()


def sound_events(
    model: AudioClassifier, sounds: Iterable[Sound], changes: Changes = NO_CHANGES, stream: bool = False
) -> Iterator[SoundRows]:
    """The events of many sounds, a row each; its score is the probability of its class over its frames.

    Args:
        model: the classifier.
        sounds: from `embedding.open_sounds`.
        changes: to the model's own settings.
        stream: rows as soon as their event has ended, in that order; else all of a sound, in order of their start.

    Example:
        >>> from audiostride import create_model
        >>> model = create_model("audio_resnet_pico_strided", heads={"word": ["no", "yes"]})
        >>> silence = Sound("silence", lambda: [np.zeros(32000, np.float32)])
        >>> list(sound_events(model, [silence]))
        [SoundRows(name='silence', rows=[], last=True, failed=False)]
    """
    model.eval()
    grid = frame_grid(model)
    for sound in sounds:
        finders = {
            task: EventFinder(grid.hop_ms, grid.first_ms, kind, changes.applied(model.events_by(task)))
            for task, kind in model.kinds.items()
        }
        rows: list[Row] = []
        error, samples = None, [0]
        try:
            for logits in frame_blocks(model, grid, _counted(sound, samples), STREAM_BLOCK_S if stream else None):
                rows += _rows(model, sound, {t: f.feed(logits[t].numpy()) for t, f in finders.items()})
                if stream and rows:
                    yield SoundRows(sound.name, rows, last=False, failed=False)
                    rows = []
        except DataError as problem:
            error = str(problem)
        end_s = samples[0] / grid.sample_rate
        rows += _rows(model, sound, {task: finder.finish() for task, finder in finders.items()})
        rows = [row._replace(end_s=min(row.end_s or 0.0, round(end_s, 3))) for row in rows]
        rows = rows if stream else sorted(rows, key=lambda row: (row.start_s, row.end_s, row.task, row.label))
        if error is not None:
            rows.append(Row(sound.name, error=error))
        yield SoundRows(sound.name, rows, last=True, failed=error is not None)


def sound_frames(
    model: AudioClassifier, sounds: Iterable[Sound]
) -> Iterator[tuple[str, Tensor, dict[str, Tensor], str | None]]:
    """Times in ms and logits of each task for the next frames of each sound, and at a sound's end its error or None.

    Example:
        >>> from audiostride import create_model
        >>> model = create_model("audio_resnet_pico_strided", heads={"word": ["no", "yes"]})
        >>> silence = Sound("silence", lambda: [np.zeros(16000, np.float32)])
        >>> [(name, len(times_ms), error) for name, times_ms, _, error in sound_frames(model, [silence])]
        [('silence', 25, None), ('silence', 0, None)]
    """
    model.eval()
    grid = frame_grid(model)
    for sound in sounds:
        error, n = None, 0
        try:
            for logits in frame_blocks(model, grid, _counted(sound, [0])):
                times_ms = grid.times_ms(n, len(next(iter(logits.values()))))
                n += len(times_ms)
                yield sound.name, times_ms, logits, None
        except DataError as problem:
            error = str(problem)
        yield sound.name, torch.zeros(0), {}, error


def event_latency_s(model: AudioClassifier, changes: Changes = NO_CHANGES) -> float:
    """How long after its end an event of a stream is known: what a frame sees ahead, the longest gap, and a block.

    Example:
        >>> from audiostride import create_model
        >>> event_latency_s(create_model("audio_resnet_pico_strided", heads={"word": 2}))
        0.99
    """
    grid = frame_grid(model)
    ahead = model.window_s if grid.context is None else grid.context / grid.sample_rate
    gap_ms = max(changes.applied(model.events_by(task)).join_ms for task in model.labels)
    return round(ahead + gap_ms / 1000 + STREAM_BLOCK_S + grid.hop_ms / 1000, 2)


def _counted(sound: Sound, samples: list[int]) -> Iterator[np.ndarray]:
    for block in sound.blocks():
        samples[0] += len(block)
        yield block
    if samples[0] == 0:
        raise DataError("holds no samples")


def _rows(model: AudioClassifier, sound: Sound, found: dict[str, list[Event]]) -> list[Row]:
    rows = []
    for task, events in found.items():
        for event in events:
            score = model.probabilities(task, torch.from_numpy(event.logits))[event.label].item()
            start_s, end_s = round(event.start_ms / 1000, 3), round(event.end_ms / 1000, 3)
            rows.append(Row(sound.name, task, start_s, end_s, 1, model.labels[task][event.label], round(score, 6)))
    return rows
