"""The HTK mel scale: Hz to mel and back, the edges of bands spaced evenly on it, and the floor of a log-mel."""

import math

LOG_OFFSET = 1e-5
"""Added to the band power before the logarithm, so that silence is log(1e-5) = -11.5, not -inf."""


def hz_to_mel(hz: float) -> float:
    """Frequency in Hz to HTK mel: 2595 log10(1 + f / 700).

    Example:
        >>> round(hz_to_mel(1000.0), 2)
        999.99
    """
    return 2595.0 * math.log10(1.0 + hz / 700.0)


def mel_to_hz(mel: float) -> float:
    """HTK mel to frequency in Hz, the inverse of `hz_to_mel`.

    Example:
        >>> round(mel_to_hz(hz_to_mel(440.0)), 6)
        440.0
    """
    return 700.0 * (10.0 ** (mel / 2595.0) - 1.0)


def mel_band_edges_hz(n_mels: int, f_min: float, f_max: float) -> list[float]:
    """The n_mels + 2 edges in Hz of triangular bands spaced evenly on the mel scale.

    Band i rises from edge i to its peak of 1 at edge i + 1 and falls to 0 at edge i + 2.

    Example:
        >>> [round(hz) for hz in mel_band_edges_hz(3, 0.0, 8000.0)]
        [0, 614, 1768, 3934, 8000]
    """
    low, high = hz_to_mel(f_min), hz_to_mel(f_max)
    return [mel_to_hz(low + (high - low) * i / (n_mels + 1)) for i in range(n_mels + 2)]
