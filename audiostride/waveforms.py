"""Sound as people have it in memory, arrays and tensors of any kind, to float32 of one channel at one sample rate."""

import math
from numbers import Real
from typing import Any

import numpy as np
import soxr
import torch
from torch import Tensor

RATES_HZ = (100, 1_000_000)
"""Lowest and highest sample rate, of files and of arrays: from infrasound to bats with room to spare."""

MAX_PEAK = 2.0**31
"""Full scale is 1, but some write floats in the scale of 16 or 32-bit integers; beyond it is no sound."""

MAX_CHANNELS = 1024

_ZERO_AND_SCALE = {"uint8": (128, 2**7), "int8": (0, 2**7), "int16": (0, 2**15), "int32": (0, 2**31)}


def to_mono(waveform: Tensor | np.ndarray, sample_rate: float, wanted_rate: int) -> Tensor:
    """A waveform as a model takes it.

    Floating point has its full scale at +-1; 8, 16 and 32-bit integers are scaled by theirs, as in files. Of two axes
    the shorter one is taken for channels, whichever comes first, and averaged.

    Args:
        waveform: shape ``(samples,)``, ``(channels, samples)`` or ``(samples, channels)``.
        sample_rate: of the waveform, 100 Hz to 1 MHz.
        wanted_rate: resampled to this one where it differs, in Hz.

    Returns:
        Float32 of shape ``(samples,)`` on the CPU.

    Raises:
        ValueError: if the waveform is empty, of another shape or kind of number, so that nobody can tell samples from
            channels, beyond 2^31 times full scale, or holds NaN or infinity; or if the sample rate is out of range.

    Example:
        >>> stereo = np.array([[16384, 0], [0, 0], [-32768, -32768]], np.int16)
        >>> to_mono(stereo, 16000, 16000)
        tensor([ 0.2500,  0.0000, -1.0000])
    """
    if isinstance(sample_rate, bool) or not isinstance(sample_rate, Real):
        raise ValueError(f"sample_rate must be a number in Hz, got {sample_rate!r}")
    if not RATES_HZ[0] <= sample_rate <= RATES_HZ[1]:
        raise ValueError(f"sample_rate must be {RATES_HZ[0]} Hz to {RATES_HZ[1]:,} Hz, got {sample_rate}")
    samples = _to_float(waveform)
    if samples.ndim not in (1, 2) or samples.size == 0:
        raise ValueError(f"a waveform of shape (samples,) or (channels, samples) is needed, got {samples.shape}")
    if not np.isfinite(samples).all():
        raise ValueError("the waveform holds NaN or infinite samples")
    if (peak := float(np.abs(samples).max())) > MAX_PEAK:
        raise ValueError(f"the waveform holds samples of {peak:.2g}, where 1 is full scale")
    if samples.ndim == 2:
        channels, longer = min(samples.shape), max(samples.shape)
        if channels > MAX_CHANNELS or (channels == longer and longer > 1):
            raise ValueError(
                f"a waveform of shape {samples.shape} does not tell its samples from its channels; pass one channel, "
                "or clips one by one"
            )
        samples = samples.mean(int(samples.shape[0] > samples.shape[1]))
    if sample_rate != wanted_rate:
        if math.ceil(len(samples) * wanted_rate / sample_rate) < 1:
            raise ValueError(f"{len(samples)} samples at {sample_rate} Hz are too few to be resampled")
        samples = soxr.resample(samples, sample_rate, wanted_rate)
    return torch.from_numpy(np.ascontiguousarray(samples))


def _to_float(waveform: Any) -> np.ndarray:
    """Float32 of any shape, full scale at +-1."""
    if isinstance(waveform, Tensor):
        waveform = waveform.detach().cpu().resolve_conj().resolve_neg()
        waveform = (waveform.float() if waveform.is_floating_point() else waveform).numpy()
    samples = np.asarray(waveform)
    if samples.dtype.name in _ZERO_AND_SCALE:
        zero, scale = _ZERO_AND_SCALE[samples.dtype.name]
        return ((samples.astype(np.float64) - zero) / scale).astype(np.float32)
    if samples.dtype.kind != "f":
        raise ValueError(
            f"a waveform of {samples.dtype} is not understood; pass floats with full scale at +-1, or integers of 8, "
            "16 or 32 bits"
        )
    with np.errstate(over="ignore"):  # becomes infinite, and is refused as such
        return samples.astype(np.float32)
