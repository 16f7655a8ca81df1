"""Folds: each is the test set once, while the others train. A column of the data names them, or they are drawn."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace

from ..errors import DataError
from .clips import Clips, class_names
from .splits import place_in_draw
from .text_column import Texts


def fold_column(clips: Clips, column: str) -> Sequence[str]:
    """The fold of each clip, as a column of the data names it.

    Raises:
        DataError: if there is no such column, or a clip has nothing in it.

    Example:
        >>> fold_column(Clips(["a.wav", "b.wav"], {"fold": ["1", "2"]}, ["train", "test"]), "fold")
        ['1', '2']
    """
    folds = clips.column(column)
    empty = [i for i, fold in enumerate(folds) if fold == ""]
    if empty:
        raise DataError(
            f"{len(empty)} of {len(clips)} clips have nothing in the column {column!r}, such as "
            f"{clips.title(empty[0])}; every clip needs a fold (the key splits can drop one of the data's own splits)"
        )
    return folds


def draw_folds(groups: Sequence[str], stratify: Sequence[str], n_folds: int, seed: int) -> list[str]:
    """The fold of each clip, "1" to `n_folds`: no group in two, every label spread as evenly as its groups allow.

    Groups are dealt out from the largest to the smallest, equal ones in the order of a seeded hash of their
    names; each goes to the fold that has the smallest share of its labels so far. Where every clip is a
    group of its own, the folds therefore differ by at most one clip of each label.

    Args:
        groups: what each clip belongs to (speaker, recording), or its name.
        stratify: a label for each clip.
        n_folds: number of folds, from 2 on.
        seed: another seed draws other folds.

    Raises:
        DataError: if there are fewer groups than folds.

    Example:
        >>> folds = draw_folds(["ann", "ann", "bob", "eve"], ["yes", "no", "yes", "no"], 2, seed=0)
        >>> folds[0] == folds[1], folds[2] == folds[3], folds[1] == folds[2]
        (True, True, False)
    """
    members: dict[str, Counter[str]] = defaultdict(Counter)
    for group, label in zip(groups, stratify, strict=True):
        members[group][label] += 1
    if len(members) < n_folds:
        raise DataError(f"{len(members)} clips or groups cannot fill {n_folds} folds; ask for fewer folds")
    totals = Counter(stratify)
    held: list[Counter[str]] = [Counter() for _ in range(n_folds)]
    sizes = [0] * n_folds
    fold_of = {}
    for group in sorted(members, key=lambda name: (-members[name].total(), place_in_draw(f"{seed}:fold:{name}"))):
        brings = members[group]
        shares = [sum(n * fold[label] / totals[label] for label, n in brings.items()) for fold in held]
        chosen = min(range(n_folds), key=lambda i: (shares[i], sizes[i]))
        held[chosen].update(brings)
        sizes[chosen] += brings.total()
        fold_of[group] = str(chosen + 1)
    return [fold_of[group] for group in groups]


def hold_out(clips: Clips, folds: Sequence[str], value: str) -> Clips:
    """The same clips with those of one fold for the test and all others for training, whatever splits they had.

    Args:
        clips: the clips.
        folds: the fold of each.
        value: the fold that is tested.

    Raises:
        DataError: if that fold has no clips, or all of them.

    Example:
        >>> clips = Clips(["a", "b", "c"], {"fold": ["1", "2", "3"]}, ["train", "train", "test"])
        >>> hold_out(clips, clips.column("fold"), "2").splits
        ['train', 'test', 'train']
    """
    found = class_names(folds)
    if value not in found:
        raise DataError(f"there are no clips in the fold {value!r}; the data has {', '.join(map(repr, found[:20]))}")
    if len(found) == 1:
        raise DataError(f"all clips are in the fold {value!r}, which leaves none to train on")
    return replace(clips, splits=Texts("test" if fold == value else "train" for fold in folds))
