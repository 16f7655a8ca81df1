"""Training windows that are not the quiet parts of their clips."""

import numpy as np

from .clips import Clips

MAX_DRAWS = 8
"""Windows that are drawn at most; if all are quiet, the loudest of them is taken."""


def loud_window(
    clips: Clips, index: int, sample_rate: int, length: int, rng: np.random.Generator, skip_quiet_db: float
) -> np.ndarray:
    """A random window, drawn again while it is much quieter than the loudest one of its clip.

    The first draw is that of `Clips.random_window`. All of the clip is read, as its loudest window has to be known.
    A clip no longer than the window has only one, and is at a random place in it.

    Args:
        clips: the table of clips.
        index: number of the clip.
        sample_rate: in Hz.
        length: of the window, in samples.
        rng: where the draws come from.
        skip_quiet_db: how far its RMS level may be below that of the loudest window, in dB.

    Returns:
        Float32 of shape ``(length,)``.

    Example:
        >>> from audiostride.data.clips import ArrayClips
        >>> sound = np.zeros((1, 16000), np.float32)
        >>> sound[0, 12000:] = 0.5
        >>> clips = ArrayClips(["a"], {}, [""], waveforms=sound)
        >>> window = loud_window(clips, 0, 16000, 4000, np.random.default_rng(1), skip_quiet_db=10)
        >>> float(np.square(window).mean()) >= 0.5**2 / 10
        True
    """
    n = clips.n_samples(index, sample_rate)
    if n <= length:
        return clips.random_window(index, sample_rate, length, rng)
    waveform = clips.read(index, sample_rate)
    waveform = np.pad(waveform, (0, max(0, n - len(waveform))))  # resampling may give a sample less
    powers = window_powers(waveform, length)
    wanted = powers.max() * 10 ** (-skip_quiet_db / 10)
    starts: list[int] = []
    while len(starts) < MAX_DRAWS:
        starts.append(int(rng.integers(0, n - length + 1)))
        if powers[starts[-1]] >= wanted:
            break
    start = max(starts, key=powers.__getitem__)
    return waveform[start : start + length].astype(np.float32)


def window_powers(waveform: np.ndarray, length: int) -> np.ndarray:
    """Mean square of the window at every place of a waveform, float64.

    Example:
        >>> window_powers(np.array([1.0, 1.0, 3.0]), 2)
        array([1., 5.])
    """
    total = np.zeros(len(waveform) + 1)
    np.cumsum(np.square(waveform, dtype=np.float64), out=total[1:])
    return (total[length:] - total[:-length]) / length
