"""Clips that are the same recording, cut or encoded again: found by their highest peaks, proven by correlation.

Wherever a sound is cut, and whatever its level, format and rate become, its peaks stay where they are. So a short piece
around each of a clip's highest peaks is compared with those of all other clips. Two pieces that are alike say by how
much one clip is shifted against the other; then the waveforms, so shifted, are proportional all along, or they are not.
Copies that were played faster or through a room are not found.
"""

import warnings
from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import soxr
import torch

from ..errors import DataWarning
from .bad_files import decode_all
from .clips import Clips, Progress

MAX_CLIPS, MAX_S = 10_000, 60
"""Clips that are compared, and seconds of each from its begin."""

PROOF = 0.9
"""Correlation of the waveforms of two copies; see docs/data.md for what others have."""

_PIECE, _APART = 256, 200  # samples around a peak, and between two of a clip
_ALIKE = 0.5  # correlation of two pieces of a pair that is looked at
_MAX_PEAKS, _MAX_PIECES = 16, 100_000  # of a clip, of all: they are compared each with each
_NEIGHBOURS, _PARTNERS, _SHIFTS = 16, 5, 3  # looked at: of a piece, of a clip, of a pair
_QUIET = 1e-4  # peak of what is taken for silence
_FINE = 8  # parts of a sample by which clips may be shifted


class Copies(NamedTuple):
    """Two clips that hold the same recording.

    Attributes:
        first, second: their numbers.
        correlation: of their waveforms where they overlap, from `PROOF` to 1.
    """

    first: int
    second: int
    correlation: float


def near_duplicates(
    clips: Clips,
    sample_rate: int = 8000,
    splits: Sequence[str] | None = None,
    max_clips: int = MAX_CLIPS,
    progress: Progress | None = None,
) -> list[Copies]:
    """Pairs of clips that hold the same recording, at least over about half of the shorter one, the surest first.

    Segments of one file are no copies of each other, nor is silence. Each clip is decoded once; pieces of all clips, up
    to 100,000, are then compared each with each.

    Args:
        clips: the clips; those that cannot be read are left out.
        sample_rate: at which they are compared, in Hz; half a model's, as encoders change the upper half most.
        splits: of each clip; where there are more than `max_clips`, all but "train" come first.
        max_clips: clips to compare; which, if not all, a warning says.
        progress: called after each clip.

    Example:
        >>> from audiostride.data.clips import ArrayClips
        >>> waveforms = np.random.RandomState(0).uniform(-0.5, 0.5, (3, 8000)).astype(np.float32)
        >>> waveforms[2] = 0.1 * np.roll(waveforms[0], -2000)
        >>> near_duplicates(ArrayClips(["a", "b", "c"], {}, [""] * 3, waveforms=waveforms, sample_rate=8000))
        [Copies(first=0, second=2, correlation=1.0)]
    """
    rows = _chosen(len(clips), splits, max_clips)
    n_peaks = min(_MAX_PEAKS, max(4, _MAX_PIECES // max(1, len(rows))))
    pieces: list[np.ndarray] = []
    places: list[tuple[int, int]] = []

    @lru_cache(maxsize=256)
    def read(index: int) -> np.ndarray:
        return _band_passed(clips.read(index, sample_rate, 0, MAX_S * sample_rate))

    for n, waveform in decode_all(clips.select(rows), sample_rate, length=MAX_S * sample_rate):
        if isinstance(waveform, np.ndarray):
            waveform = _band_passed(waveform)
            for at in _peaks(waveform, n_peaks):
                pieces.append(_unit(waveform[at - _PIECE // 2 :][:_PIECE]) * np.sign(waveform[at]))
                places.append((rows[n], at))
        if progress:
            progress("looking for copies", n + 1, len(rows))
    found = []
    for first, second, shifts in _pairs_alike(np.array(pieces), places):
        if clips.names[first] != clips.names[second]:
            value = max(_correlation(read(first), read(second), shift) for shift in shifts)
            if value > PROOF:
                found.append(Copies(first, second, round(value, 3)))
    return sorted(found, key=lambda pair: -pair.correlation)


def name_copies(clips: Clips, copies: Sequence[Copies], splits: Sequence[str], advice: str) -> str:
    """A line on copies, with the splits that they are in, and what to do; "" if there are none.

    Example:
        >>> clips = Clips(["a.wav", "b.mp3"], {}, ["train", "test"])
        >>> name_copies(clips, [Copies(0, 1, 0.97)], clips.splits, "remove one")
        '1 pair of clips hold the same recording, cut or encoded again: a.wav (train) and b.mp3 (test); remove one'
    """
    if not copies:
        return ""
    names = [" and ".join(clips.title(i) + f" ({splits[i]})" * bool(splits[i]) for i in pair[:2]) for pair in copies]
    pairs = "1 pair" if len(copies) == 1 else f"{len(copies)} pairs"
    more = ", ..." * (len(names) > 5)
    return f"{pairs} of clips hold the same recording, cut or encoded again: {', '.join(names[:5])}{more}; {advice}"


def _chosen(n: int, splits: Sequence[str] | None, max_clips: int) -> list[int]:
    if n <= max_clips:
        return list(range(n))
    what = f"copies are looked for among {max_clips:,} of {n:,} clips, those for validation and test first"
    warnings.warn(what, DataWarning, stacklevel=3)
    train = np.array([splits is None or split in ("", "train") for split in splits or [""] * n])
    shuffled = np.random.RandomState(0).permutation(n)
    return sorted(shuffled[np.argsort(train[shuffled], kind="stable")][:max_clips].tolist())


def _band_passed(waveform: np.ndarray) -> np.ndarray:
    """Band-passed by a sine squared, the most at half the Nyquist frequency.

    Hum and rumble, which different recordings share, are removed, and so is what lossy encoders change the most.
    """
    return np.convolve(waveform, [-0.25, 0, 0.5, 0, -0.25], "same").astype(np.float32)


def _unit(waveform: np.ndarray) -> np.ndarray:
    return waveform / max(float(np.linalg.norm(waveform)), 1e-12)


def _peaks(waveform: np.ndarray, n: int) -> list[int]:
    """Where the highest peaks are, about `n` over all of a clip, that have half a piece on both sides.

    A peak that is the highest far and wide in a clip is so in all parts of the clip, too.
    """
    half, apart = _PIECE // 2, max(_APART, len(waveform) // n)
    level = np.abs(waveform[half:-half])
    found: list[int] = []
    while len(found) < n and level.max(initial=0) > _QUIET:
        at = int(level.argmax())
        found.append(at + half)
        level[max(0, at - apart) : at + apart] = 0
    return found


def _pairs_alike(pieces: np.ndarray, places: list[tuple[int, int]]) -> list[tuple[int, int, list[int]]]:
    """Clips that have alike pieces, each with its best partners, and how many samples the second may be late."""
    votes: dict[tuple[int, int], dict[int, float]] = defaultdict(lambda: defaultdict(float))
    if len(pieces):
        everything, owner = torch.from_numpy(pieces).float(), torch.tensor([clip for clip, _ in places])
        for begin in range(0, len(places), 256):
            alike = everything[begin : begin + 256] @ everything.T
            alike[owner[begin : begin + 256, None] == owner] = 0
            values, others = alike.topk(min(_NEIGHBOURS, len(places)))
            good = values > _ALIKE
            found = good.nonzero()[:, 0].tolist(), others[good].tolist(), values[good].tolist()
            for row, other, value in zip(*found, strict=True):
                (first, a), (second, b) = sorted((places[begin + row], places[other]))
                votes[first, second][b - a] += value
    partners, pairs = Counter[int](), []
    for (first, second), shifts in sorted(votes.items(), key=lambda item: -max(item[1].values())):
        if min(partners[first], partners[second]) < _PARTNERS:
            partners.update((first, second))
            pairs.append((first, second, sorted(shifts, key=lambda shift: -shifts[shift])[:_SHIFTS]))
    return sorted(pairs)


def _correlation(first: np.ndarray, second: np.ndarray, late: int) -> float:
    """Of two waveforms where they overlap, the second `late` samples after the first, to an eighth of a sample."""
    a, b = (first, second[late:]) if late >= 0 else (first[-late:], second)
    n = min(len(a), len(b))
    if n < 0.45 * min(len(first), len(second)):
        return 0.0
    fine = soxr.resample(b[:n], 1, _FINE)
    return max(_cosine(a[early:n], fine[part::_FINE]) for early in (0, 1) for part in range(_FINE))


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    n = min(len(a), len(b))
    return abs(float(_unit(a[:n]) @ _unit(b[:n])))
