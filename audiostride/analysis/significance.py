"""How certain a difference between two methods is: the definition, in one place.

Two methods are compared on the clips and seeds that both have. Clips of one speaker, instrument or
recording are not independent, and neither are the predictions of one seed; so the 95 % interval comes from a
bootstrap that draws groups of clips and seeds, not clips: one group fewer than there are, with
replacement, and one seed fewer likewise, which makes the variance unbiased. Each of 10,000 draws gives the
mean difference over the drawn seeds and the clips of the drawn groups; the interval runs from the 2.5th to
the 97.5th percentile. A difference is *statistically significant* where its interval leaves out zero.

With a single seed the interval holds for that seed alone. With three it covers the truth more often than 95 %
where seeds differ less than groups do, and about 80 % where all that differs is the seed. With a single group
nothing is known of others, and it is -1 to 1. Intervals are not corrected for the number of comparisons.

The interval of one accuracy is drawn alike, from groups of its clips.

Sources: Owen 2007, The pigeonhole bootstrap (rows and columns drawn); Rao & Wu 1988 (one fewer drawn).
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

RESAMPLES = 10_000


def paired_difference(
    first: Sequence[tuple[int, Mapping[str, float]]],
    second: Sequence[tuple[int, Mapping[str, float]]],
    groups: Mapping[str, str] | None = None,
) -> dict[str, Any] | None:
    """Difference of two methods' accuracy over the clips and seeds that both have, with its 95 % interval.

    Args:
        first: for each run its seed, and for each test clip how correct it is, from 0 to 1.
        second: the same of the other method.
        groups: what each clip belongs to (speaker, instrument, recording); None: each is a group of its own.

    Returns:
        "difference", "low", "high" (-1 to 1), the number of "clips" and of "groups", and the "seeds"; None if
        the methods share no clip.

    Example:
        >>> found = paired_difference([(0, {"a": True, "b": True})], [(0, {"a": True, "b": False}), (1, {"a": True})])
        >>> found["difference"], found["clips"], found["groups"], found["seeds"]
        (0.5, 2, 2, [0])
    """
    others = dict(second)
    shared = [(seed, predictions, others[seed]) for seed, predictions in first if seed in others]
    clips = sorted({clip for _, a, b in shared for clip in a.keys() & b.keys()})
    if not clips:
        return None
    names = [clip if groups is None else groups[clip] for clip in clips]
    numbers = {name: i for i, name in enumerate(dict.fromkeys(names))}
    total, count = np.zeros((2, len(shared), len(numbers)))
    for row, (_, a, b) in enumerate(shared):
        for clip, name in zip(clips, names, strict=True):
            if clip in a and clip in b:
                total[row, numbers[name]] += a[clip] - b[clip]
                count[row, numbers[name]] += 1
    mean, low, high = bootstrap_interval(total, count)
    seeds = sorted(seed for seed, _, _ in shared)
    return {
        "difference": mean, "low": low, "high": high, "clips": len(clips), "groups": len(numbers), "seeds": seeds
    }  # fmt: skip


def accuracy_interval(shares: Sequence[float], groups: Sequence[str]) -> dict[str, Any]:
    """Accuracy of one model, or of models that share the clips among them, with its 95 % interval over groups.

    Args:
        shares: how correct each clip is, from 0 to 1.
        groups: what each clip belongs to (speaker, recording), or its name.

    Returns:
        "accuracy", "low", "high" (0 to 1; None and None for a single group, of which no other is known), and
        the number of "clips" and of "groups".

    Example:
        >>> accuracy_interval([1.0, 0.0, 1.0, 0.0], ["ann", "ann", "bob", "bob"])
        {'accuracy': 0.5, 'low': 0.5, 'high': 0.5, 'clips': 4, 'groups': 2}
    """
    numbers: dict[str, int] = {}
    rows = [numbers.setdefault(group, len(numbers)) for group in groups]
    n_groups, sizes = len(numbers), np.bincount(rows)
    found = {"accuracy": float(np.mean(shares)), "low": None, "high": None, "clips": len(rows), "groups": n_groups}
    if n_groups == 1:
        return found
    # Groups alike are drawn together, as often as all of them: a million clips without groups are two kinds of group.
    totals = np.bincount(rows, weights=shares)
    kinds, copies = np.unique(np.stack([totals, sizes]), axis=1, return_counts=True)
    drawn = _draws(tuple(copies), RESAMPLES, 0)
    correct, clips = drawn @ kinds[0], drawn @ kinds[1]
    low, high = np.percentile(correct / clips, [2.5, 97.5])
    return found | {"low": float(low), "high": float(high)}


def is_significant(row: Mapping[str, Any]) -> bool:
    """Whether the interval of a difference leaves out zero.

    Example:
        >>> is_significant({"low": 0.01, "high": 0.03}), is_significant({"low": -0.01, "high": 0.03})
        (True, False)
    """
    return row["low"] > 0 or row["high"] < 0


def bootstrap_interval(
    total: np.ndarray, count: np.ndarray, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float, float]:
    """Mean paired difference, and its 95 % percentile interval over resampled seeds and groups.

    Args:
        total: differences in correct predictions, summed over the clips of a group, shape ``(n_seeds, n_groups)``.
        count: number of those clips, same shape.
        resamples: number of bootstrap samples.
        seed: of the resampling.

    Returns:
        The difference, lower and upper end.

    Example:
        >>> bootstrap_interval(np.full((3, 20), 2.0), np.full((3, 20), 4.0))
        (0.5, 0.5, 0.5)
    """
    mean = float(total.sum() / count.sum())
    n_seeds, n_groups = total.shape
    if n_groups == 1:
        return mean, -1.0, 1.0
    copies = np.ones(n_groups, int)
    if count.max() <= 1:  # every clip is a group of its own: those that are alike make a few kinds, drawn together
        kinds, copies = np.unique(np.concatenate([total, count]), axis=1, return_counts=True)
        total, count = np.split(kinds, 2)
    drawn_groups = _draws(tuple(copies), resamples, seed)
    drawn_seeds = _draws((1,) * n_seeds, resamples, seed + 1) if n_seeds > 1 else np.ones((resamples, 1))
    differences, clips = (((drawn_seeds @ table) * drawn_groups).sum(axis=1) for table in (total, count))
    low, high = np.percentile(differences[clips > 0] / clips[clips > 0], [2.5, 97.5])
    return mean, float(low), float(high)


def group_draws(n_groups: int) -> np.ndarray:
    """How often each group is in each of some resamples of all, ``(resamples, n_groups)``."""
    return _draws((1,) * n_groups, min(RESAMPLES, max(1000, 10**7 // n_groups)), 0)


@lru_cache(maxsize=8)
def _draws(copies: tuple[int, ...], resamples: int, seed: int) -> np.ndarray:
    """How often each kind is drawn in every resample, which has one fewer than there are copies of all kinds."""
    n = sum(copies)
    return np.random.default_rng(seed).multinomial(n - 1, np.array(copies) / n, size=resamples).astype(float)
