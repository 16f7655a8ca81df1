"""Which clip is for training, validation and test."""

import hashlib
from collections import defaultdict
from collections.abc import Sequence

from ..errors import DataError
from .clips import Clips

TEST_FRACTION = 0.1
"""Share of a data set without split folders that is set aside for the test."""


def assign_splits(
    clips: Clips, stratify: Sequence[str], seed: int, validation_fraction: float = 0.1, group: str | None = None
) -> list[str]:
    """Split of each clip: the data set's own where it has one, else drawn by a seeded hash.

    Without any split 10 % become the test set. Without a validation set `validation_fraction` of
    the rest is held back. All clips of a group fall on one side, and every label is split in the
    same proportion.

    Args:
        clips: the clips; `clips.splits` is "" where nothing is assigned.
        stratify: a label for each clip, to be evenly represented.
        seed: another seed draws another split.
        validation_fraction: share of the training clips (before the split) in (0, 1).
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
    splits = [split or "train" for split in clips.splits]
    n_open = splits.count("train")
    if "test" not in splits:
        _hold_back(splits, "test", TEST_FRACTION, groups, stratify, seed)
        validation_share = validation_fraction * n_open / max(1, splits.count("train"))
    else:
        validation_share = validation_fraction
    if "validation" not in splits:
        _hold_back(splits, "validation", min(validation_share, 1.0), groups, stratify, seed)
    for name in ("train", "validation", "test"):
        if name not in splits:
            raise DataError(f"{len(clips)} clips leave nothing for the {name} set; more clips or groups are needed")
    return splits


def _hold_back(
    splits: list[str], name: str, fraction: float, groups: Sequence[str], stratify: Sequence[str], seed: int
) -> None:
    strata: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    stratum_of: dict[str, str] = {}
    for i, (group, label) in enumerate(zip(groups, stratify, strict=True)):
        if splits[i] == "train":
            strata[stratum_of.setdefault(group, label)][group].append(i)
    for members in strata.values():
        ordered = sorted(members, key=lambda group: hashlib.sha256(f"{seed}:{name}:{group}".encode()).digest())
        for group in ordered[: round(fraction * len(ordered)) or int(len(ordered) > 2)]:
            for i in members[group]:
                splits[i] = name
