"""Numbers and sentences as the page prints them."""

import statistics
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from audiostride.analysis.significance import is_significant
from audiostride.analysis.tables import Cell, points
from audiostride.analysis.wording import mean_and_sd, percent


def wrap(text: str, indent: str = "") -> str:
    """A paragraph in lines of at most 118 characters."""
    return textwrap.fill(text, 118, subsequent_indent=indent, break_on_hyphens=False, break_long_words=False)


def interval(row: Mapping[str, Any]) -> str:
    """A difference with its interval, in points."""
    return f"{points(row['difference'])} ({points(row['low'])} to {points(row['high'])})"


def difference_cell(row: Mapping[str, Any] | None) -> Cell:
    """A difference with its interval, bold where it is significant; empty where there is none."""
    return Cell("") if row is None else Cell(interval(row), is_significant(row))


def outcome(row: Mapping[str, Any]) -> str:
    """Whether the first of two methods is significantly "better" or "worse", or neither ("open")."""
    if not is_significant(row):
        return "open"
    return "better" if row["difference"] > 0 else "worse"


def highest(values: Iterable[float]) -> float | None:
    """The best of several; None where there is nothing to be better than."""
    known = set(values)
    return max(known) if len(known) > 1 else None


def accuracy_cell(row: Mapping[str, Any] | None, best: float | None) -> Cell:
    """Mean and sd of an accuracy in percent, and the number of seeds where it is not three."""
    if row is None:
        return Cell("-")
    few = "" if len(row["seeds"]) == 3 else f" ({len(row['seeds'])})"
    return Cell(percent(row["mean"], row["sd"]) + few, row["mean"] == best)


def shown_strides(strides: str) -> str:
    """Strides of a CSV, "1.3843757x2 3x3", with two digits and spaces: "1.38 x 2, 3 x 3"."""
    pairs = (stride.split("x") for stride in strides.split())
    return ", ".join(" x ".join(f"{float(value):.3g}" for value in pair) for pair in pairs)


def mmac(row: Mapping[str, Any]) -> str:
    """Million multiply-accumulates a second."""
    return mean_and_sd(row["macs_per_second"] / 1e6, (row["macs_per_second_sd"] or 0) / 1e6 or None, 1)


def numbers(values: Sequence[int]) -> str:
    """Numbers in order."""
    return " ".join(map(str, sorted(values)))


def span(values: Sequence[str]) -> str:
    """The lowest and the highest of numbers in words."""
    low, high = min(values, key=float), max(values, key=float)
    return low if low == high else f"{low} to {high}"


def sample_sd(values: Sequence[float]) -> float | None:
    """Standard deviation (n - 1); None of one value."""
    return statistics.stdev(values) if len(values) > 1 else None
