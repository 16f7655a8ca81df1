"""Events: what is heard from when to when, from the logits of frames.

A multiclass task has one track of scores, the largest logit of each frame; a multilabel task has a track for each
class, its logit; a binary task has one, the logit of its second class minus that of its first. An event is where a
track peaks above a threshold: it begins where the score has risen half of the way from the floor to that peak, and ends
where it falls below that again, as a fixed level would cut weak events short and widen loud ones. In a multiclass task
its class is the one with the largest sum of logits over its frames.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

EDGE = 0.5
"""Share of the way from the floor to an event's peak at which it begins and ends."""

MAX_EVENT_S = 600.0
"""A longer event is given in parts, so that memory is bounded."""


class EventSettings(NamedTuple):
    """From which score on a task's classes are events, and which gaps and lengths count.

    Attributes:
        thresholds: score that an event of each class must reach, a logit (see `events`).
        floor: score where nothing is heard.
        min_ms: shorter events are left out.
        join_ms: shorter gaps within an event are ignored.
    """

    thresholds: tuple[float, ...]
    floor: float = 0.0
    min_ms: float = 150.0
    join_ms: float = 100.0

    def as_dict(self) -> dict[str, Any]:
        """Plain data for `config.json`."""
        return self._asdict() | {"thresholds": list(self.thresholds)}


class Event(NamedTuple):
    """Something heard.

    Attributes:
        start_ms: where it begins.
        end_ms: where it ends.
        label: number of its class.
        peak: largest score of its class, a logit as the thresholds.
        logits: mean over its frames, gaps left out, of all classes' logits, ``(n_classes,)``.
    """

    start_ms: float
    end_ms: float
    label: int
    peak: float
    logits: np.ndarray


def default_settings(kind: str, n_classes: int) -> EventSettings:
    """What a task has until its settings were found: thresholds that fit nothing in particular.

    Multiclass: a logit of 6 over a floor of 0; binary and multilabel: even odds over a floor of 1 in 400.

    Example:
        >>> default_settings("multilabel", 2)
        EventSettings(thresholds=(0.0, 0.0), floor=-6.0, min_ms=150.0, join_ms=100.0)
    """
    multiclass = kind == "multiclass"
    return EventSettings((6.0 if multiclass else 0.0,) * n_classes, 0.0 if multiclass else -6.0)


def tracks(logits: np.ndarray, kind: str) -> np.ndarray:
    """The scores that events are found in, ``(frames, tracks)``, from logits ``(frames, n_classes)``.

    Example:
        >>> tracks(np.array([[1.0, 3.0]]), "multiclass"), tracks(np.array([[1.0, 3.0]]), "binary")
        (array([[3.]]), array([[2.]]))
    """
    if kind == "multilabel":
        return logits
    return logits.max(1, keepdims=True) if kind == "multiclass" else logits[:, 1:2] - logits[:, :1]


def find_events(logits: np.ndarray, hop_ms: float, first_ms: float, kind: str, settings: EventSettings) -> list[Event]:
    """All events of one task in a recording, in order of time.

    Args:
        logits: of its frames, ``(frames, n_classes)``.
        hop_ms: time from frame to frame.
        first_ms: centre of the first frame.
        kind: of the task: "multiclass", "binary" or "multilabel".
        settings: of the task.

    Example:
        >>> logits = np.array([[0, 0], [4, 0], [9, 0], [8, 1], [3, 0], [0, 0]], float)
        >>> settings = EventSettings(thresholds=(6.0, 6.0), min_ms=100)
        >>> [event[:4] for event in find_events(logits, 100.0, 0.0, "multiclass", settings)]
        [(150.0, 350.0, 0, 9.0)]
    """
    finder = EventFinder(hop_ms, first_ms, kind, settings)
    return sorted([*finder.feed(logits), *finder.finish()], key=lambda event: event[:3])


class EventFinder:
    """`find_events` for a recording that arrives in pieces: every event as soon as it has ended for certain.

    Example:
        >>> finder = EventFinder(100.0, 0.0, "multiclass", EventSettings((6.0,), join_ms=0))
        >>> [len(finder.feed(np.full((3, 1), score))) for score in (9.0, 9.0, 0.0)]
        [0, 0, 1]
    """

    def __init__(self, hop_ms: float, first_ms: float, kind: str, settings: EventSettings):
        self.hop_ms, self.first_ms, self.kind, self.settings = hop_ms, first_ms, kind, settings
        self._gap = math.floor(settings.join_ms / hop_ms + 1e-9)  # frames
        self._longest = math.ceil(1000 * MAX_EVENT_S / hop_ms)
        self._held = np.zeros((0, len(settings.thresholds)))
        self._start = 0  # number of the first frame that is held
        self._done: dict[int, int] = {}  # of each track the frames that are done
        wanted = {"multilabel": settings.thresholds, "binary": settings.thresholds[1:]}
        self._lowest = wanted.get(kind, (min(settings.thresholds),))  # threshold of each track

    def feed(self, logits: np.ndarray) -> list[Event]:
        """The events that have ended by the end of the next frames ``(frames, n_classes)``."""
        self._held = np.concatenate([self._held, logits])
        return self._ended(final=False)

    def finish(self) -> list[Event]:
        """The events that the recording's end has ended."""
        return self._ended(final=True)

    def _ended(self, final: bool) -> list[Event]:
        scores, n = tracks(self._held, self.kind), len(self._held)
        events: list[Event] = []
        for track in range(scores.shape[1]):
            done = self._done.get(track, 0) - self._start
            open_from = n
            for start, end in _runs(scores[done:, track] >= self._edge(self._lowest[track]), self._gap):
                for first in range(start, end, self._longest):
                    last = min(end, first + self._longest)
                    if not final and last == end and done + end + self._gap >= n:
                        open_from = done + first
                    else:
                        events += self._within(track, scores[:, track], done + first, done + last)
            self._done[track] = open_from + self._start
        keep = min(self._done.values()) - self._start
        self._held, self._start = self._held[keep:], self._start + keep
        return sorted(events, key=lambda event: event[:3])

    def _within(self, track: int, scores: np.ndarray, start: int, end: int) -> Iterator[Event]:
        """The events in a stretch of frames whose scores are high enough for the edge of one."""
        level = self._edge(scores[start:end].max())
        for first, last in _runs(scores[start:end] >= level, self._gap):
            a, b = start + first, start + last
            heard = self._held[a:b][scores[a:b] >= level]  # without the gaps that are ignored
            label = {"multilabel": track, "binary": 1}.get(self.kind, int(heard.sum(0).argmax()))
            peak = float(heard[:, label].max() if self.kind == "multiclass" else scores[a:b].max())
            if (b - a) * self.hop_ms >= self.settings.min_ms and peak >= self.settings.thresholds[label]:
                begin = self.first_ms + (self._start + a - 0.5) * self.hop_ms
                length = (b - a) * self.hop_ms
                yield Event(max(0.0, begin), begin + length, label, peak, heard.mean(0))

    def _edge(self, peak: float) -> float:
        return self.settings.floor + EDGE * (peak - self.settings.floor)


def _runs(on: np.ndarray, gap: int) -> list[tuple[int, int]]:
    """First frame and end of each stretch that is on; a gap of up to `gap` frames is none.

    Example:
        >>> _runs(np.array([0, 1, 1, 0, 1, 0, 0, 1], bool), gap=1)
        [(1, 5), (7, 8)]
    """
    edges = np.flatnonzero(np.diff(np.concatenate([[0], on.astype(np.int8), [0]])))
    runs: list[tuple[int, int]] = []
    for start, end in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        if runs and start - runs[-1][1] <= gap:
            runs[-1] = (runs[-1][0], end)
        else:
            runs.append((start, end))
    return runs


def check_settings(settings: Mapping[str, Any], n_classes: int) -> EventSettings:
    """Event settings from plain data.

    Raises:
        ValueError: names what does not fit.

    Example:
        >>> check_settings({"thresholds": [6.0], "floor": 0.0, "min_ms": 100, "join_ms": -1}, 1)
        Traceback (most recent call last):
            ...
        ValueError: events: join_ms must be a number of at least 0, got -1
    """
    thresholds = settings.get("thresholds")
    if not isinstance(thresholds, Sequence) or len(thresholds) != n_classes or not all(map(_is_number, thresholds)):
        raise ValueError(f"events: thresholds must be {n_classes} numbers, one for each class, got {thresholds!r}")
    numbers = {name: settings.get(name, default) for name, default in EventSettings._field_defaults.items()}
    for name, value in numbers.items():
        if not _is_number(value) or (name != "floor" and value < 0):
            at_least = "" if name == "floor" else " of at least 0"
            raise ValueError(f"events: {name} must be a number{at_least}, got {value!r}")
    return EventSettings(tuple(map(float, thresholds)), **{name: float(value) for name, value in numbers.items()})


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
