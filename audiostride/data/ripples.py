"""The embedded data set `ripples`: moving ripples, with the modulation a model must keep known by construction.

A ripple is noise whose mel spectrogram, in dB, is modulated by
``d * sin(2 pi (+-w t + W m) + phase)``: rate w in Hz along time t, scale W in cycles per mel band
along the band m. They are the standard stimuli for spectro-temporal modulation in auditory
neuroscience (Chi, Gao, Guyton, Ru & Shamma 1999). Nothing is downloaded.
"""

from collections.abc import Callable

import numpy as np
import torch

from ..mel_scale import hz_to_mel
from .clips import ArrayClips

RATES_HZ = (2.0, 4.0, 8.0, 16.0, 24.0)
SCALES = (0.0, 0.03, 0.06, 0.12, 0.2)
"""In cycles per mel band of the default frontend."""

SAMPLE_RATE = 16000
_WINDOW, _HOP = 128, 32  # 500 frames a second resolve 24 Hz; 125 Hz bins resolve 0.2 cycles per band
_BATCH = 100

_last_made: dict[tuple[int, int], np.ndarray] = {}
"""The waveforms that were made last, by number and seed: the runs of a sweep share them."""


def ripple(
    rate_hz: float | np.ndarray,
    scale: float | np.ndarray,
    depth_db: float | np.ndarray,
    phase: float | np.ndarray,
    noise: np.ndarray,
) -> np.ndarray:
    """Impose moving ripples on noise.

    Args:
        rate_hz: temporal modulation of each clip; the sign is its direction.
        scale: spectral modulation of each clip, in cycles per mel band.
        depth_db: peak modulation of each clip, in dB.
        phase: phase of each clip, in radians.
        noise: float64 of shape ``(n_clips, samples)`` at 16 kHz.

    Returns:
        Float64 of the same shape, each clip at an RMS of 0.1.

    Example:
        >>> noise = np.random.RandomState(0).standard_normal((1, 16000))
        >>> ripple(8.0, 0.06, 10.0, 0.0, noise).std().round(3)
        np.float64(0.1)
    """
    window = torch.hann_window(_WINDOW, dtype=torch.float64)
    signal = torch.from_numpy(noise)
    spectrum = torch.stft(signal, _WINDOW, _HOP, window=window, return_complex=True)
    time_s = torch.arange(spectrum.shape[-1], dtype=torch.float64) * (_HOP / SAMPLE_RATE)
    # Position on the band axis of the default frontend: 64 bands between 60 and 7800 Hz.
    band_width = (hz_to_mel(7800.0) - hz_to_mel(60.0)) / 65
    bins_hz = [k * SAMPLE_RATE / _WINDOW for k in range(_WINDOW // 2 + 1)]
    band = torch.tensor([(hz_to_mel(hz) - hz_to_mel(60.0)) / band_width - 1 for hz in bins_hz], dtype=torch.float64)
    rate_, scale_, depth_, phase_ = (
        torch.from_numpy(np.broadcast_to(v, len(noise)).astype(float)) for v in (rate_hz, scale, depth_db, phase)
    )
    cycles = rate_[:, None, None] * time_s + scale_[:, None, None] * band[:, None]
    gain_db = depth_[:, None, None] * torch.sin(2 * np.pi * cycles + phase_[:, None, None])
    rippled = torch.istft(spectrum * 10 ** (gain_db / 20), _WINDOW, _HOP, window=window, length=noise.shape[1])
    return (0.1 * rippled / rippled.square().mean(-1, keepdim=True).sqrt()).numpy()


def make_ripples(
    n_clips: int = 2500, seed: int = 0, progress: Callable[[str, int, int], None] | None = None
) -> ArrayClips:
    """Make the data set: one-second clips with two labels, `rate` (Hz) and `scale` (cycles per band).

    The 25 combinations appear equally often; depth 6 to 14 dB, direction and phase are random.
    80 % of the clips are for training, 10 % for validation and 10 % for the test. The waveforms are read-only, and
    kept until others are made.

    Args:
        n_clips: number of clips.
        seed: another seed makes other clips.
        progress: called after each batch.

    Example:
        >>> clips = make_ripples(25)
        >>> clips.waveforms.shape, clips.columns["rate"][:3], clips.columns["scale"][:3]
        ((25, 16000), ['2', '2', '2'], ['0', '0.03', '0.06'])
    """
    combinations = [(rate, scale) for rate in RATES_HZ for scale in SCALES]
    rate, scale = np.array([combinations[i % len(combinations)] for i in range(n_clips)]).T
    if (n_clips, seed) not in _last_made:
        waveforms = _make_waveforms(rate, scale, seed, progress)
        _last_made.clear()
        _last_made[n_clips, seed] = waveforms
    part = [i // len(combinations) % 10 for i in range(n_clips)]
    return ArrayClips(
        names=[f"ripple-{i:05d}" for i in range(n_clips)],
        columns={"rate": [f"{r:g}" for r in rate], "scale": [f"{s:g}" for s in scale]},
        splits=["test" if p == 9 else "validation" if p == 8 else "train" for p in part],
        waveforms=_last_made[n_clips, seed],
        sample_rate=SAMPLE_RATE,
    )


def _make_waveforms(
    rate: np.ndarray, scale: np.ndarray, seed: int, progress: Callable[[str, int, int], None] | None
) -> np.ndarray:
    n_clips = len(rate)
    waveforms = np.empty((n_clips, SAMPLE_RATE), np.int16)
    for first in range(0, n_clips, _BATCH):
        rows = slice(first, min(first + _BATCH, n_clips))
        size = rows.stop - first
        random = np.random.RandomState([seed, first])  # the one numpy stream that is frozen for good
        direction = random.choice([-1.0, 1.0], size)
        depth_db, phase = random.uniform(6, 14, size), random.uniform(0, 2 * np.pi, size)
        noise = random.standard_normal((size, SAMPLE_RATE))
        sound = ripple(direction * rate[rows], scale[rows], depth_db, phase, noise)
        waveforms[rows] = np.clip(np.rint(sound * 32768), -32768, 32767)
        if progress:
            progress("making ripples", rows.stop, n_clips)
    waveforms.flags.writeable = False
    return waveforms
