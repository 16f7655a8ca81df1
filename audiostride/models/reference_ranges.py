"""Ranges of modulations from the literature on hearing, to compare cut-offs with, in the units of a network."""

import math
from typing import Any, NamedTuple

from ..mel_scale import hz_to_mel
from .log_mel import LogMel

CENTRE_HZ = 1000.0
"""Where cycles/kHz are converted to cycles per mel band: mel bands grow wider with frequency."""


class Reference(NamedTuple):
    """A range of modulations that the literature names, in its own unit.

    Attributes:
        axis: "time" or "mel".
        low: lower end, 0 if there is none.
        high: upper end.
        unit: "Hz", "cycles/kHz" or "cycles per mel band".
        what: the finding.
        source: the publication.
    """

    axis: str
    low: float
    high: float
    unit: str
    what: str
    source: str


_SPEECH = "Elliott & Theunissen 2009, PLoS Comput. Biol. 5(3): e1000302"
_RIAD = "Riad et al. 2022, ICLR"
REFERENCES = (
    Reference("time", 1, 7, "Hz", "most important for understanding speech", _SPEECH),
    Reference("time", 0, 12, "Hz", "speech is understood less when these are removed", _SPEECH),
    Reference("time", 0, 25, "Hz", "what speech needs, as the DiffStride paper reads the above", _RIAD),
    Reference("mel", 0, 1, "cycles/kHz", "most important for understanding speech", _SPEECH),
    Reference("mel", 0, 4, "cycles/kHz", "speech is understood less when these are removed", _SPEECH),
)


def cycles_per_band(cycles_per_khz: float, frontend: LogMel, centre_hz: float = CENTRE_HZ) -> float:
    """Convert cycles per kHz to cycles per mel band, which holds at one centre frequency only.

    Args:
        cycles_per_khz: spectral modulation along a linear frequency axis.
        frontend: decides the spacing of the bands.
        centre_hz: where on the frequency axis.

    Example:
        >>> round(cycles_per_band(4.0, LogMel()), 3), round(cycles_per_band(4.0, LogMel(), 4000.0), 3)
        (0.253, 0.698)
    """
    settings = frontend.settings
    mels_per_band = (hz_to_mel(settings["f_max"]) - hz_to_mel(settings["f_min"])) / (settings["n_mels"] + 1)
    hz_per_mel = (700.0 + centre_hz) * math.log(10.0) / 2595.0
    return cycles_per_khz * mels_per_band * hz_per_mel / 1000.0


def reference_ranges(frontend: LogMel, centre_hz: float = CENTRE_HZ) -> list[dict[str, Any]]:
    """The reference ranges, each in its own unit and in the unit of the cut-offs.

    Args:
        frontend: decides the spacing of the mel bands.
        centre_hz: where cycles/kHz are converted.

    Returns:
        The fields of each `Reference`, "converted": its (low, high) in Hz or cycles per mel band, and
        "at_hz": the centre frequency of the conversion, None where nothing was converted.

    Example:
        >>> first, *_, last = reference_ranges(LogMel())
        >>> first["converted"], last["unit"], [round(v, 3) for v in last["converted"]], last["at_hz"]
        ([1, 7], 'cycles/kHz', [0.0, 0.253], 1000.0)
    """
    rows = []
    for reference in REFERENCES:
        ends, at_hz = [reference.low, reference.high], None
        if reference.unit == "cycles/kHz":
            ends, at_hz = [cycles_per_band(end, frontend, centre_hz) for end in ends], centre_hz
        rows.append(reference._asdict() | {"converted": ends, "at_hz": at_hz})
    return rows
