"""Which clips of which data set the batches of an epoch hold: a pure function of the seed and the epoch."""

from collections.abc import Sequence

import numpy as np

BLOCKS_AT_ONCE = 16
"""Blocks of a streamed set whose clips are mixed with each other in training."""

Part = tuple[int, np.ndarray]
"""Number of a data set, and positions among its training clips."""


def plan_epoch(
    sizes: Sequence[int],
    batch_size: int,
    mixing: str | float,
    seed: int,
    epoch: int,
    blocks: Sequence[np.ndarray | None] = (),
) -> list[list[Part]]:
    """The batches of one epoch, in order.

    Args:
        sizes: number of training clips of each data set.
        batch_size: clips a batch. A last batch of a single clip is joined to the one before, as
            batch norm cannot learn from it.
        mixing: "proportional": every clip of every set once. "uniform": as many batches from each
            set, as many in all; smaller sets are repeated, of larger ones only a part is used. A number T
            from 1 on is a temperature between the two: a set's share of the batches goes with its
            size to the power 1/T. "joint": every clip of every set once, and every batch has clips of
            all sets, in proportion to their sizes; a set with fewer clips than there are batches is
            missing in some.
        seed: of the run.
        epoch: from 0.
        blocks: for each data set the block of each training clip, where it is streamed, see
            `shuffled`; such a set's batches follow each other block by block.

    Returns:
        For each batch its parts: one, or with the mixing "joint" one of each set that has clips in it.

    Example:
        >>> [[(d, len(rows)) for d, rows in parts] for parts in plan_epoch([5], 2, "uniform", seed=0, epoch=0)]
        [[(0, 2)], [(0, 3)]]
        >>> [[(d, len(rows)) for d, rows in parts] for parts in plan_epoch([6, 2], 4, "joint", seed=0, epoch=0)]
        [[(0, 3), (1, 1)], [(0, 3), (1, 1)]]
    """
    blocks = blocks or [None] * len(sizes)
    if mixing == "joint":
        return _joint_batches(sizes, batch_size, seed, epoch, blocks)
    per_set = [max(1, size // batch_size + (size % batch_size > 1)) for size in sizes]
    batches: list[Part] = []
    for number, (size, wanted) in enumerate(zip(sizes, _batches_of_each(per_set, mixing), strict=True)):
        orders: dict[int, np.ndarray] = {}
        for i in range(wanted):
            # Which time through this set, and where in it, follows from the count of batches so far.
            turn, position = divmod(epoch * wanted + i, per_set[number])
            if turn not in orders:
                orders[turn] = shuffled(size, np.random.default_rng([seed, 1, number, turn]), blocks[number])
            last = position == per_set[number] - 1
            rows = orders[turn][position * batch_size : None if last else (position + 1) * batch_size]
            batches.append((number, rows))
    order = np.random.default_rng([seed, 2, epoch]).permutation(len(batches))
    set_of = np.array([number for number, _ in batches])
    for number in range(len(sizes)):
        if blocks[number] is not None:
            order[set_of[order] == number] = np.flatnonzero(set_of == number)
    return [[batches[i]] for i in order]


def shuffled(size: int, rng: np.random.Generator, blocks: np.ndarray | None = None) -> np.ndarray:
    """A random order of `size` clips; where they are stored in blocks, a few blocks at a time.

    The blocks are put into a random order, and the clips of `BLOCKS_AT_ONCE` of them after another
    are mixed.

    Args:
        size: number of clips.
        rng: where the draws come from.
        blocks: number of the block of each clip, int64 of shape ``(size,)``; None: all are mixed.

    Example:
        >>> blocks = np.arange(10_000) // 100
        >>> order = shuffled(10_000, np.random.default_rng(0), blocks)
        >>> len(np.unique(blocks[order[:1600]])), len(np.unique(order))
        (16, 10000)
    """
    order = rng.permutation(size)
    if blocks is None:
        return order
    numbers, block = np.unique(blocks, return_inverse=True)
    turn = rng.permutation(len(numbers)) // BLOCKS_AT_ONCE
    return order[np.argsort(turn[block[order]], kind="stable")]


def _joint_batches(
    sizes: Sequence[int], batch_size: int, seed: int, epoch: int, blocks: Sequence[np.ndarray | None]
) -> list[list[Part]]:
    n_batches = max(1, -(-sum(sizes) // batch_size))
    batches: list[list[Part]] = [[] for _ in range(n_batches)]
    for number, size in enumerate(sizes):
        order = shuffled(size, np.random.default_rng([seed, 1, number, epoch]), blocks[number])
        for parts, rows in zip(batches, np.array_split(order, n_batches), strict=True):
            if len(rows):
                parts.append((number, rows))
    return batches


def _batches_of_each(per_set: Sequence[int], mixing: str | float) -> list[int]:
    if mixing == "proportional":
        return list(per_set)
    if mixing == "uniform":
        return [-(-sum(per_set) // len(per_set))] * len(per_set)
    shares = [count ** (1 / float(mixing)) for count in per_set]
    return [max(1, round(sum(per_set) * share / sum(shares))) for share in shares]
