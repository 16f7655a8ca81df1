"""Cut-offs in words and table cells, as the terminal and the report both say them."""

from collections.abc import Mapping
from decimal import ROUND_HALF_UP, Decimal
from typing import Any


def mean_and_sd(mean: float | None, sd: float | None, digits: int) -> str:
    """A mean, with its standard deviation if there is one, rounded half up as tables in print are.

    Example:
        >>> mean_and_sd(26.25, 0.625, 2), mean_and_sd(25.0, None, 1), mean_and_sd(None, None, 1)
        ('26.25 ± 0.63', '25.0', '-')
    """
    if mean is None:
        return "-"
    shown = [
        Decimal(value).quantize(Decimal(10) ** -digits, ROUND_HALF_UP) for value in (mean, sd) if value is not None
    ]
    return " ± ".join(map(str, shown))


def reference_cells(row: Mapping[str, Any]) -> tuple[str, str, str, str]:
    """A reference range in words: in its own unit, converted, what is said of it, who says it."""
    low, high = row["converted"]
    at = f"{low:.3f} - {high:.3f} at {row['at_hz']:g} Hz" if row["at_hz"] else ""
    return f"{row['low']:g} - {row['high']:g} {row['unit']}", at, row["what"], row["source"]


def ripple_sentence(row: Mapping[str, Any]) -> str:
    """Where in the network the fastest ripple of the data is lost, from `cutoffs.survival`.

    Example:
        >>> ripple_sentence({"kept": ["in full", "in part", "not"], "lost_at": 3})
        'fastest ripple of the data: kept in full by layer 1, lost at layer 3'
        >>> ripple_sentence({"kept": ["not"], "lost_at": 1})
        'fastest ripple of the data: lost at layer 1, so that no layer can follow it'
    """
    if row["lost_at"] == 1:
        return "fastest ripple of the data: lost at layer 1, so that no layer can follow it"
    end = f"lost at layer {row['lost_at']}" if row["lost_at"] else "never lost"
    return f"fastest ripple of the data: kept {row['kept'][0]} by layer 1, {end}"
