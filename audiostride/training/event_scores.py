"""Scores of events found in recordings against true ones: by event, and by segments of one second.

Source: Mesaros, Heittola & Virtanen 2016, "Metrics for polyphonic sound event detection"; the counts are those of
`sed_eval`, which a test compares them with.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ..data.annotations import Segment

COLLAR_S, OFFSET_SHARE, SEGMENT_S = 0.2, 0.2, 1.0
"""How far an onset may be off; how far an offset, as a share of the true event's length; length of a segment."""

_RESAMPLES = 1000


class Counts(NamedTuple):
    """Events, or segments, of a class in a recording, or summed over several.

    Attributes:
        correct: found where there is one.
        found: all that were found.
        true: all that there are.
    """

    correct: int
    found: int
    true: int

    @property
    def precision(self) -> float:
        """Share of those found that are true, NaN if none was found."""
        return self.correct / self.found if self.found else math.nan

    @property
    def recall(self) -> float:
        """Share of the true ones that were found, NaN if there is none."""
        return self.correct / self.true if self.true else math.nan

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall, NaN if there is nothing to find and nothing was found."""
        return 2 * self.correct / (self.found + self.true) if self.found + self.true else math.nan


def event_counts(
    found: Sequence[Segment],
    true: Sequence[Segment],
    collar_s: float = COLLAR_S,
    offset_share: float | None = OFFSET_SHARE,
) -> dict[str, Counts]:
    """How many events of one recording are right, by class: each true one may be found once.

    Args:
        found: by the model.
        true: what there is.
        collar_s: how far an onset may be off, and an offset of a short event.
        offset_share: how far an offset may be off as a share of the true event's length; None: offsets do not count.

    Example:
        >>> true = [Segment(1.0, 2.0, "yes"), Segment(3.0, 4.0, "no")]
        >>> event_counts([Segment(1.1, 2.1, "yes"), Segment(3.3, 4.0, "no")], true)
        {'no': Counts(correct=0, found=1, true=1), 'yes': Counts(correct=1, found=1, true=1)}
    """
    counts = {}
    for label in sorted({segment.label for segment in (*found, *true)}):
        mine = [s for s in found if s.label == label]
        theirs = [s for s in true if s.label == label]
        near = [
            [
                j
                for j, t in enumerate(theirs)
                if abs(m.start_s - t.start_s) <= collar_s
                and (
                    offset_share is None
                    or abs(m.end_s - t.end_s) <= max(collar_s, offset_share * (t.end_s - t.start_s))
                )
            ]
            for m in mine
        ]
        counts[label] = Counts(_matching(near), len(mine), len(theirs))
    return counts


def segment_counts(
    found: Sequence[Segment], true: Sequence[Segment], segment_s: float = SEGMENT_S
) -> dict[str, Counts]:
    """In how many segments of a recording a class is found, and is, by class.

    Example:
        >>> segment_counts([Segment(0.5, 1.5, "yes")], [Segment(0.2, 0.8, "yes")])
        {'yes': Counts(correct=1, found=2, true=1)}
    """
    counts = {}
    for label in sorted({segment.label for segment in (*found, *true)}):
        mine, theirs = (
            {
                number
                for s in events
                if s.label == label
                for number in range(math.floor(s.start_s / segment_s), math.ceil(s.end_s / segment_s))
            }
            for events in (found, true)
        )
        counts[label] = Counts(len(mine & theirs), len(mine), len(theirs))
    return counts


def total(counts: Sequence[Mapping[str, Counts]]) -> dict[str, Counts]:
    """Sums over recordings, by class; "" is all classes.

    Example:
        >>> total([{"yes": Counts(1, 1, 2)}, {"no": Counts(0, 1, 0), "yes": Counts(1, 1, 1)}])[""]
        Counts(correct=2, found=3, true=3)
    """
    sums: dict[str, Counts] = {}
    for recording in counts:
        for label, count in recording.items():
            for key in ("", label):
                sums[key] = Counts(*(a + b for a, b in zip(sums.get(key, Counts(0, 0, 0)), count, strict=True)))
    return dict(sorted(sums.items()))


def f1_interval(counts: Sequence[Mapping[str, Counts]], label: str = "", seed: int = 0) -> tuple[float, float] | None:
    """95 % interval of F1 over recordings, drawn with replacement; None for a single one, of which no other is known.

    Example:
        >>> low, high = f1_interval([{"yes": Counts(1, 1, 1)}, {"yes": Counts(0, 1, 1)}] * 8)
        >>> 0.2 < low < 0.4 < 0.6 < high < 0.8
        True
    """
    if len(counts) < 2:
        return None
    table = np.array([total([one]).get(label, Counts(0, 0, 0)) for one in counts], float)
    draws = np.random.default_rng(seed).integers(len(counts), size=(_RESAMPLES, len(counts)))
    correct, found, true = table[draws].sum(1).T
    some = found + true > 0  # a draw of recordings without any event has no F1
    if not some.any():
        return None
    low, high = np.percentile(2 * correct[some] / (found + true)[some], [2.5, 97.5])
    return float(low), float(high)


def _matching(near: Sequence[Sequence[int]]) -> int:
    """Most pairs that can be made where number i may go with any of `near[i]` (Kuhn's augmenting paths)."""
    taken: dict[int, int] = {}

    def place(i: int, seen: set[int]) -> bool:
        for j in near[i]:
            if j not in seen:
                seen.add(j)
                if j not in taken or place(taken[j], seen):
                    taken[j] = i
                    return True
        return False

    return sum(place(i, set()) for i in range(len(near)))
