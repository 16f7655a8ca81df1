"""`Texts`: a column of strings that costs a few bytes a row, so that a million clips fit in memory."""

import itertools
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import overload

import numpy as np

_REMEMBERED = 1 << 16  # a column with more distinct values than this (file names) hardly repeats any


class Texts(Sequence[str]):
    """A list of strings that only grows: every distinct string is kept once, as bytes, and a row is a number.

    A list of a million file names is a million Python objects, which every worker process copies by
    reading them (reference counts are writes). These are three flat buffers that workers share.

    Args:
        values: the strings to begin with.

    Example:
        >>> words = Texts(["yes", "no", "yes"])
        >>> words[0], words.count("yes"), words == ["yes", "no", "yes"]
        ('yes', 2, True)
    """

    def __init__(self, values: Iterable[str] = ()) -> None:
        self._bytes = bytearray()
        self._ends = array("q", [0])  # value number v is _bytes[_ends[v] : _ends[v + 1]]
        self._rows = array("i")
        self._seen: dict[str, int] = {}
        self.extend(values)

    def append(self, value: str) -> None:
        """Add a row."""
        number = self._seen.get(value)
        if number is None:
            number = len(self._ends) - 1
            self._bytes += value.encode("utf-8", "surrogateescape")  # file names need not be UTF-8
            self._ends.append(len(self._bytes))
            if number < _REMEMBERED:
                self._seen[value] = number
        self._rows.append(number)

    def extend(self, values: Iterable[str]) -> None:
        """Add many rows."""
        for value in values:
            self.append(value)

    def value(self, number: int) -> str:
        """The string behind one of `numbers()`."""
        return self._bytes[self._ends[number] : self._ends[number + 1]].decode("utf-8", "surrogateescape")

    def numbers(self) -> np.ndarray:
        """Number of each row's string, int32 of shape ``(len,)``: equal numbers are equal strings."""
        return np.frombuffer(self._rows, np.int32) if self._rows else np.zeros(0, np.int32)

    def distinct(self) -> set[str]:
        """The different strings among the rows."""
        return {self.value(int(number)) for number in np.unique(self.numbers())}

    def mapped(self, change: Callable[[str], str]) -> "Texts":
        """The rows with every string changed; these very rows if none is."""
        strings = {int(number): self.value(int(number)) for number in np.unique(self.numbers())}
        changed = {number: change(string) for number, string in strings.items()}
        return self if changed == strings else Texts(changed[number] for number in self._rows)

    def select(self, indexes: Iterable[int] | np.ndarray) -> "Texts":
        """The rows at `indexes`; the strings behind them are shared."""
        chosen = Texts()
        chosen._bytes, chosen._ends, chosen._seen = self._bytes, self._ends, self._seen
        chosen._rows = array("i", self.numbers()[np.fromiter(indexes, np.int64)].tobytes())
        return chosen

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self.value(number) for number in self._rows[index]]
        return self.value(self._rows[index])

    def __iter__(self) -> Iterator[str]:
        return map(self.value, self._rows)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, str) or len(self) != len(other):
            return NotImplemented if not isinstance(other, Sequence) else False
        return all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        shown = repr(list(itertools.islice(self, 20)))
        return shown if len(self) <= 20 else f"{shown[:-1]}, ... {len(self)} in all]"


def class_numbers(values: Sequence[str], labels: Sequence[str]) -> np.ndarray:
    """Position of each value among `labels`, int64 of shape ``(len(values),)``; -1 where it is none of them.

    Example:
        >>> class_numbers(["no", "yes", "maybe"], ["no", "yes"])
        array([ 0,  1, -1])
    """
    position = {label: i for i, label in enumerate(labels)}
    if not isinstance(values, Texts):
        return np.array([position.get(value, -1) for value in values], np.int64)
    numbers, rows = np.unique(values.numbers(), return_inverse=True)
    return np.array([position.get(values.value(int(n)), -1) for n in numbers], np.int64)[rows]
