"""Which clip is for training, validation and test."""

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from ..errors import DataError
from .clips import Clips
from .text_column import Texts

TEST_FRACTION = 0.1
"""Share of a data set without split folders that is set aside for the test."""


def assign_splits(
    clips: Clips, stratify: Sequence[str], seed: int, validation_fraction: float = 0.1, group: str | None = None
) -> list[str]:
    """Split of each clip: the data set's own where it has one, else drawn by a seeded hash.

    Without any split 10 % become the test set. Without a validation set `validation_fraction` of the clips that are
    not the data set's own test is held out. All clips of a group fall on one side, every label is split in the same
    proportion as far as groups allow it, and no label loses its last training clips.

    Args:
        clips: the clips; `clips.splits` is "" where nothing is assigned.
        stratify: a label for each clip, to be evenly represented.
        seed: another seed draws another split.
        validation_fraction: share of the clips before a test set is drawn, in [0, 1); 0: no validation set.
        group: column whose equal values must stay together (speaker, recording); None: each clip alone.

    Returns:
        "train", "validation" or "test" for each clip.

    Raises:
        DataError: if a split comes out empty.

    Example:
        >>> clips = Clips([f"{i}.wav" for i in range(100)], {}, [""] * 100)
        >>> splits = assign_splits(clips, ["a", "b"] * 50, seed=0)
        >>> {name: splits.count(name) for name in ("train", "validation", "test")}
        {'train': 80, 'validation': 10, 'test': 10}
    """
    groups = clips.names if group is None else clips.column(group)
    own = [split or "train" for split in clips.splits]
    strangers = sorted(set(own) - {"train", "validation", "test"})
    if strangers:
        raise DataError(f"the data has splits named {', '.join(strangers)}; say what each is for with the key splits")
    splits = np.array(own, dtype="<U10")
    n_open = int((splits == "train").sum())
    if "test" not in splits:
        _hold_back(splits, "test", TEST_FRACTION, groups, stratify, seed)
        validation_share = validation_fraction * n_open / max(1, int((splits == "train").sum()))
    else:
        validation_share = validation_fraction
    if "validation" not in splits and validation_fraction:
        _hold_back(splits, "validation", min(validation_share, 1.0), groups, stratify, seed)
    for name in ("train", "validation", "test"):
        if name not in splits and (name != "validation" or validation_fraction):
            n_groups = len(set(groups))
            of = "recordings or groups" if n_groups < len(clips) else "clips"
            whole = " (all clips of a recording or group stay in one set)" if n_groups < len(clips) else ""
            raise DataError(
                f"{len(clips)} clips leave nothing for the {name} set: {n_groups} {of}{whole} are too few, as every "
                f"class keeps one to train on; add {of}, name a column with smaller groups with the key group, or set "
                "another train.validation_fraction"
            )
    return splits.tolist()


def resplit(clips: Clips, column: str | None, splits: Mapping[str, str] | None) -> Clips:
    """Say which of a data set's own splits, or values of a column, is for what.

    Args:
        clips: the clips.
        column: column whose values name the splits (a fold, a year); None: the splits they have.
        splits: "train", "validation", "test" or "" (to be drawn) for each value; clips with other
            values are left out. None: leave all as it is.

    Raises:
        DataError: if a value is none the data has.

    Example:
        >>> clips = Clips(["a", "b", "c"], {"fold": ["1", "2", "3"]}, ["", "", ""])
        >>> resplit(clips, "fold", {"1": "train", "3": "test"}).splits
        ['train', 'test']
    """
    if splits is None:
        if column is not None:
            raise DataError(f"split_column {column!r} needs splits, which say what each of its values is for")
        return clips
    values = clips.splits if column is None else clips.column(column)
    missing = sorted(set(splits) - set(values))
    if missing:
        found = ", ".join(repr(value) for value in sorted(set(values))[:20])
        raise DataError(f"splits: there are no clips of {missing[0]!r}; the data has {found}")
    rows = [i for i, value in enumerate(values) if value in splits]
    chosen = clips.select(rows) if len(rows) < len(clips) else clips
    return replace(chosen, splits=Texts(splits[values[i]] for i in rows))


def shared_groups(groups: Sequence[str], splits: Sequence[str]) -> dict[str, list[str]]:
    """Groups with clips in more than one split, and those splits.

    Example:
        >>> shared_groups(["ann", "ann", "bob"], ["train", "test", "test"])
        {'ann': ['test', 'train']}
    """
    sides: dict[str, set[str]] = defaultdict(set)
    for group, split in zip(groups, splits, strict=True):
        if group and split:
            sides[group].add(split)
    return {group: sorted(found) for group, found in sides.items() if len(found) > 1}


def place_in_draw(text: str) -> int:
    """Where a seed and a name, as one text, stand in a draw: 64 bits of a hash, the same on every machine.

    Example:
        >>> sorted(["ann", "bob", "eve"], key=lambda name: place_in_draw(f"1:{name}"))
        ['bob', 'eve', 'ann']
    """
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()[:8], "big")


def _hold_back(
    splits: np.ndarray, name: str, fraction: float, groups: Sequence[str], stratify: Sequence[str], seed: int
) -> None:
    rows = np.flatnonzero(splits == "train")
    # A group counts for the label of its first clip, and its place in the draw is a hash of its name.
    names, first, group = np.unique(_numbers(groups)[rows], return_index=True, return_inverse=True)
    stratum = _numbers(stratify)[rows[first]]
    place = np.array([place_in_draw(f"{seed}:{name}:{groups[rows[i]]}") for i in first], np.uint64)
    order = np.lexsort((place, stratum))
    sizes = {int(s): int(n) for s, n in zip(*np.unique(stratum, return_counts=True), strict=True)}
    taken, rank, previous = np.zeros(len(names), bool), 0, None
    for i in order:
        rank = 0 if stratum[i] != previous else rank + 1
        previous = stratum[i]
        size = sizes[int(previous)]
        taken[i] = rank < (round(fraction * size) or int(size > 2))
    labels = _Labels(stratify, rows)
    lost = labels.lost(taken[group])
    taken[group[lost & taken[group]]] = False
    if not taken.any():  # few groups a label: take some of any label that has others
        for i in np.argsort(place):
            taken[i] = True
            taken[i] = not labels.lost(taken[group]).any()
            if taken.sum() >= max(1, round(fraction * len(names))):
                break
    splits[rows[taken[group]]] = name


class _Labels:
    """Which labels, of one or several a clip, some rows have."""

    def __init__(self, stratify: Sequence[str], rows: np.ndarray) -> None:
        strata, first, self.of = np.unique(_numbers(stratify)[rows], return_index=True, return_inverse=True)
        named = [stratify[rows[i]].split("|") for i in first]
        number = {label: n for n, label in enumerate(sorted({label for labels in named for label in labels if label}))}
        self.has = np.zeros((len(strata), max(1, len(number))), bool)
        for stratum, labels in enumerate(named):
            self.has[stratum, [number[label] for label in labels if label]] = True

    def lost(self, taken: np.ndarray) -> np.ndarray:
        """For each row whether it has a label that no row has that is not taken."""
        left = self.has[np.unique(self.of[~taken])].any(0)
        return (self.has & ~left).any(1)[self.of]


def _numbers(values: Sequence[str]) -> np.ndarray:
    """A number for each value, equal for equal values."""
    number: dict[str, int] = {}
    if isinstance(values, Texts):
        known, rows = np.unique(values.numbers(), return_inverse=True)
        return np.array([number.setdefault(values.value(int(n)), len(number)) for n in known], np.int64)[rows]
    return np.array([number.setdefault(value, len(number)) for value in values], np.int64)
