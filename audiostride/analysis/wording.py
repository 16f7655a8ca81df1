"""Cut-offs in words and table cells, as the terminal and the report both say them."""

from collections.abc import Mapping
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from ..models.folding import lands_on


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


def percent(mean: float, sd: float | None = None) -> str:
    """A share, with its standard deviation if there is one, in percent.

    Example:
        >>> percent(0.875), percent(0.875, 0.0125)
        ('87.5', '87.5 ± 1.3')
    """
    return mean_and_sd(100 * mean, None if sd is None else 100 * sd, 1)


def reference_cells(row: Mapping[str, Any]) -> tuple[str, str, str, str]:
    """A reference range in words: in its own unit, converted, what is said of it, who says it.

    Example:
        >>> from audiostride import LogMel
        >>> from audiostride.models.reference_ranges import reference_ranges
        >>> reference_cells(reference_ranges(LogMel())[-1])[:2]
        ('0 - 4 cycles/kHz', '0.000 - 0.253 at 1000 Hz')
    """
    low, high = row["converted"]
    at = f"{low:.3f} - {high:.3f} at {row['at_hz']:g} Hz" if row["at_hz"] else ""
    return f"{row['low']:g} - {row['high']:g} {row['unit']}", at, row["what"], row["source"]


def resolution_sentence(tile: Mapping[str, Any]) -> str:
    """The resolution of an `AdaptiveLogMel.tile` in words, with that of the default frontend.

    Example:
        >>> from audiostride import AdaptiveLogMel
        >>> resolution_sentence(AdaptiveLogMel(window_ms=40, strides=(3.2, 1.25)).tile(16000))
        'window 40.0 ms (default 25), 65 frames a second (100), 105 bands (64); it keeps modulations up to 31 Hz (50)'
    """
    return (
        f"window {tile['window_ms']:.1f} ms (default 25), {tile['frames_per_s']:.0f} frames a second (100), "
        f"{tile['bands']} bands (64); it keeps modulations up to {tile['cutoffs'][0]:.0f} Hz (50)"
    )


def folding_sentence(row: Mapping[str, Any]) -> str | None:
    """What a layer folds down and what it removes, from a row of `cutoffs.summarise`; None if it folds nothing.

    Example:
        >>> folding = {"share": 0.78, "above": 0.27, "rate": 0.54, "fastest": 0.5, "groups": []}
        >>> folding_sentence({"layer": 1, "axis": "mel", "folding": folding})
        'layer 1 folds 78 % of what lies above 0.270 cycles per mel band and removes 22 %: 0.500 lands on 0.040'
        >>> folding |= {"share": 0.5, "groups": [0.02, 0.98]}
        >>> folding_sentence({"layer": 1, "axis": "mel", "folding": folding})[:50]
        'layer 1 folds 50 % (2 and 98 % in its 2 groups of '
    """
    folding = row["folding"]
    if folding is None:
        return None
    unit, digits = ("Hz", 1) if row["axis"] == "time" else ("cycles per mel band", 3)
    above, fastest, landing = (
        f"{value:.{digits}f}"
        for value in (folding["above"], folding["fastest"], lands_on(folding["fastest"], folding["rate"]))
    )
    share = round(100 * folding["share"])
    groups = " and ".join(f"{100 * alpha:.0f}" for alpha in folding["groups"])
    by_group = f" ({groups} % in its {len(folding['groups'])} groups of channels)" if groups else ""
    return (
        f"layer {row['layer']} folds {share} %{by_group} of what lies above {above} {unit} "
        f"and removes {100 - share} %: {fastest} lands on {landing}"
    )


def ripple_sentence(row: Mapping[str, Any]) -> str:
    """Where in the network the fastest ripple of the data is lost or folded, from `folding.survival`.

    Example:
        >>> ripple_sentence({"kept": ["in full", "in part", "not"], "lost_at": 3, "folded": None})
        'fastest ripple of the data: kept in full by layer 1, lost at layer 3'
        >>> ripple_sentence({"kept": ["not"], "lost_at": 1, "folded": None})
        'fastest ripple of the data: lost at layer 1, so that no layer can follow it'
        >>> folded = {"share": 0.25, "lands_on": 3.0}
        >>> ripple_sentence({"kept": ["in full", "folded"], "lost_at": 2, "folded": folded, "unit": "Hz"})
        'fastest ripple of the data: kept in full by layer 1, folded at layer 2, 25 % of it, finally onto 3 Hz'
    """
    if row["folded"]:
        start = "" if row["lost_at"] == 1 else f"kept {row['kept'][0]} by layer 1, "
        end = f"{100 * row['folded']['share']:.0f} % of it, finally onto {row['folded']['lands_on']:.3g} {row['unit']}"
        return f"fastest ripple of the data: {start}folded at layer {row['lost_at']}, {end}"
    if row["lost_at"] == 1:
        return "fastest ripple of the data: lost at layer 1, so that no layer can follow it"
    end = f"lost at layer {row['lost_at']}" if row["lost_at"] else "never lost"
    return f"fastest ripple of the data: kept {row['kept'][0]} by layer 1, {end}"


def confidence_sentence(found: Mapping[str, Any]) -> str:
    """Calibration error and cost of none in words, from `confidence.confidence`.

    Example:
        >>> none = {"share": 0.04, "of_right": 0.02, "of_wrong": 0.5, "accuracy": 0.97}
        >>> found = {"calibration_error": 0.212, "interval": [0.2, 0.25], "perfect": 0.15, "none": none}
        >>> error, share = confidence_sentence(found).split(". ")
        >>> error
        'The calibration error is 21.2 % (20.0 to 25.0 %; up to 15.0 % even if scores are probabilities)'
        >>> share
        '4.0 % of the clips are called none: 2.0 % of those that would be right, 50.0 % of those that would be wrong.'
    """
    interval, none = found["interval"], found["none"]
    between = f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f} %; " if interval else ""
    costs = [
        f"{100 * none[key]:.1f} % of those that would be {what}"
        for key, what in (("of_right", "right"), ("of_wrong", "wrong"))
        if none[key] is not None
    ]
    error, perfect, share = (100 * x for x in (found["calibration_error"], found["perfect"], none["share"]))
    return (
        f"The calibration error is {error:.1f} % ({between}up to {perfect:.1f} % even if scores are probabilities). "
        f"{share:.1f} % of the clips are called none: {', '.join(costs)}."
    )
