"""Running operations row by row: which rows of its input an operation needs, and how many of each map to keep."""

from collections.abc import Sequence

from .operations import Average, Convolution, Matrix, Operation, Pick, Reduce


def takes_rows(step: Operation) -> bool:
    """Whether an operation adds up all rows of its input before it has an output."""
    return isinstance(step, Reduce) or (isinstance(step, Matrix) and step.axis == "time")


def rows_needed(step: Operation, row: int) -> tuple[int, int]:
    """First and last row of its input that an operation needs for a row; they may be outside of the map."""
    if isinstance(step, Convolution):
        first = row * step.stride[0] - step.padding[0]
        return first, first + step.weight.shape[2] - 1
    if isinstance(step, Average):
        return row * step.size[0], (row + 1) * step.size[0] - 1
    first = row * step.step[0] if isinstance(step, Pick) else row
    return first, first


def rows_kept(steps: Sequence[Operation], shapes: Sequence[tuple[int, ...]], root: Sequence[int]) -> list[int]:
    """How many rows of each map have to be kept at once, if each operation computes a row as soon as it can.

    Args:
        steps: the operations.
        shapes: of the input and of what each operation makes.
        root: for each of these the number of the map in whose memory it is, its own or, if reshaped, another one's.

    Returns:
        A number for each of `shapes`, 0 for vectors and reshaped maps.

    Example:
        >>> import numpy as np
        >>> conv = Convolution((0,), (1, 10, 1), np.ones((1, 1, 3, 1)), np.zeros(1), (1, 1), (1, 0), 1)
        >>> rows_kept([conv, Reduce((1,), (1,), "mean")], [(1, 10, 1), (1, 10, 1), (1,)], [0, 1, 2])
        [3, 1, 0]
    """
    numbers = [i for i, step in enumerate(steps, start=1) if len(shapes[step.sources[0]]) == 3 and root[i] == i]
    at = [0] * len(shapes)  # the row that comes next; of what takes rows, the next one it takes
    made, kept = [0] * len(shapes), [0] * len(shapes)

    def make_one(number: int) -> None:
        made[number] += 1
        needed = [made[number]]
        for reader in numbers:
            step = steps[reader - 1]
            if number not in (root[source] for source in step.sources):
                continue
            if takes_rows(step):
                needed.append(at[reader])
            elif at[reader] < shapes[reader][1]:
                needed.append(max(0, rows_needed(step, at[reader])[0]))
        kept[number] = max(kept[number], made[number] - min(needed))

    for _ in range(shapes[0][1]):
        make_one(0)
        more = True
        while more:
            more = False
            for number in numbers:
                step, takes = steps[number - 1], takes_rows(steps[number - 1])
                sources = [(root[source], shapes[source][1]) for source in step.sources]
                end = sources[0][1] if takes else shapes[number][1]
                last = at[number] if takes else rows_needed(step, at[number])[1]
                if at[number] < end and all(made[source] >= min(last + 1, total) for source, total in sources):
                    at[number] += 1
                    more = True
                    if not takes:
                        make_one(number)
                    elif at[number] == end and len(shapes[number]) == 3:
                        made[number] = kept[number] = shapes[number][1]
    return kept
