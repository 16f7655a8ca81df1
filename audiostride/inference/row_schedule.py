"""Running operations row by row: which rows of its input an operation needs, and how many of each map to keep."""

from collections.abc import Sequence

from .operations import Average, Convolution, Matrix, Operation, Pick, Reduce, Reshape


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


def map_rows(steps: Sequence[Operation], n: int) -> list[int]:
    """Rows of the input and of what each operation makes, for `n` rows of the input; 1 for vectors.

    Example:
        >>> import numpy as np
        >>> conv = Convolution((0,), (1, 50, 1), np.ones((1, 1, 3, 1)), np.zeros(1), (2, 1), (1, 0), 1)
        >>> map_rows([conv, Reduce((1,), (1,), "mean")], 100)
        [100, 50, 1]
    """
    rows = [n]
    for step in steps:
        n = rows[step.sources[0]]
        if isinstance(step, Convolution):
            n = (n + 2 * step.padding[0] - step.weight.shape[2]) // step.stride[0] + 1
        elif isinstance(step, Average | Pick):
            n = -(-n // (step.size if isinstance(step, Average) else step.step)[0])
        elif isinstance(step, Matrix) and step.axis == "time":
            n = step.matrix.shape[1]
        rows.append(n if len(step.shape) == 3 else 1)
    return rows


def rows_kept(steps: Sequence[Operation], shape: tuple[int, ...], endless: range = range(0)) -> list[int]:
    """How many rows of each map have to be kept at once, if each operation computes a row as soon as it can.

    Args:
        steps: the operations.
        shape: of the input, ``(channel, time, mel)``.
        endless: numbers of rows of the input at which a sound of unknown length may end: from as many
            as an output depends on, as many as there are between two outputs.

    Returns:
        A number for the input and for each operation, 0 for vectors and reshaped maps.

    Example:
        >>> import numpy as np
        >>> conv = Convolution((0,), (1, 10, 1), np.ones((1, 1, 3, 1)), np.zeros(1), (1, 1), (1, 0), 1)
        >>> rows_kept([conv, Reduce((1,), (1,), "mean")], (1, 10, 1))
        [3, 1, 0]
    """
    window = _Run(steps, map_rows(steps, shape[1]))
    for _ in range(shape[1]):
        window.feed()
    unknown = _Run(steps, [1 << 62] * (len(steps) + 1))
    ends = []
    for n in range(1, endless.stop):
        unknown.feed()
        if n >= endless.start:
            ends.append(unknown.ended(n))
    return [max(kept) for kept in zip(*(run.kept for run in (window, *ends)), strict=True)]


class _Run:
    """A sound on its way through the operations: how many rows there are of each map, and how many had to be kept."""

    def __init__(self, steps: Sequence[Operation], rows: list[int]):
        self.steps, self.rows = steps, rows
        self.root = map_roots(steps)
        self.numbers = [i for i, s in enumerate(steps, 1) if len(_shape(steps, s)) == 3 and self.root[i] == i]
        self.at = [0] * len(rows)  # the row that comes next; of what takes rows, the next one it takes
        self.made, self.kept = [0] * len(rows), [0] * len(rows)

    def feed(self) -> None:
        """One more row of the input."""
        self._make_one(0)
        self._advance()

    def ended(self, n: int) -> "_Run":
        """What comes of this one if its input has ended with `n` rows."""
        end = _Run(self.steps, map_rows(self.steps, n))
        end.at, end.made, end.kept = self.at.copy(), self.made.copy(), self.kept.copy()
        end._advance()
        return end

    def _make_one(self, number: int) -> None:
        self.made[number] += 1
        needed = [self.made[number]]
        for reader in self.numbers:
            step = self.steps[reader - 1]
            if number not in (self.root[source] for source in step.sources):
                continue
            if takes_rows(step):
                needed.append(self.at[reader])
            elif self.at[reader] < self.rows[reader]:
                needed.append(max(0, rows_needed(step, self.at[reader])[0]))
        self.kept[number] = max(self.kept[number], self.made[number] - min(needed))

    def _advance(self) -> None:
        more = True
        while more:
            more = False
            for number in self.numbers:
                more = self._next_row(number) or more

    def _next_row(self, number: int) -> bool:
        step, takes = self.steps[number - 1], takes_rows(self.steps[number - 1])
        end = self.rows[step.sources[0] if takes else number]
        last = self.at[number] if takes else rows_needed(step, self.at[number])[1]
        there = all(self.made[self.root[s]] >= min(last + 1, self.rows[s]) for s in step.sources)
        if self.at[number] >= end or not there:
            return False
        self.at[number] += 1
        if not takes:
            self._make_one(number)
        elif self.at[number] == end and len(step.shape) == 3:
            self.made[number] = self.kept[number] = self.rows[number]
        return True


def map_roots(steps: Sequence[Operation]) -> list[int]:
    """In the memory of which map the input and each operation's output is: its own, or another's if reshaped."""
    root = [0]
    for number, step in enumerate(steps, start=1):
        root.append(root[step.sources[0]] if isinstance(step, Reshape) else number)
    return root


def _shape(steps: Sequence[Operation], step: Operation) -> tuple[int, ...]:
    """Of what an operation reads."""
    source = step.sources[0]
    return steps[source - 1].shape if source else (1, 1, 1)
