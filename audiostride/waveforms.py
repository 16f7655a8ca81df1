"""Sound as people have it in memory, arrays and tensors of any kind, to float32 of one channel at one sample rate."""

import math
import warnings
from numbers import Real
from typing import Any

import numpy as np
import soxr
import torch
from torch import Tensor

from .errors import DataWarning
from .sections import Channel

RATES_HZ = (100, 1_000_000)
"""Lowest and highest sample rate, of files and of arrays: from infrasound to bats with room to spare."""

MAX_PEAK = 2.0**31
"""Full scale is 1, but some write floats in the scale of 16 or 32-bit integers; beyond it is no sound."""

MAX_CHANNELS = 1024

_ZERO_AND_SCALE = {"uint8": (128, 2**7), "int8": (0, 2**7), "int16": (0, 2**15), "int32": (0, 2**31)}


def to_mono(waveform: Tensor | np.ndarray, sample_rate: float, wanted_rate: int, channel: Channel = "mix") -> Tensor:
    """A waveform as a model takes it.

    Floating point has its full scale at +-1; 8, 16 and 32-bit integers are scaled by theirs, as in files. Of two axes
    the shorter one is taken for channels, whichever comes first.

    Args:
        waveform: shape ``(samples,)``, ``(channels, samples)`` or ``(samples, channels)``.
        sample_rate: of the waveform, 100 Hz to 1 MHz.
        wanted_rate: resampled to this one where it differs, in Hz.
        channel: which of several channels is taken. It warns of a mean that is nearly silent while they are not.

    Returns:
        Float32 of shape ``(samples,)`` on the CPU.

    Raises:
        ValueError: if the waveform is empty, of another shape or kind of number, does not tell samples from channels,
            has no such channel, is beyond 2^31 times full scale, or is not finite; or if the rate is out of range.

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
        samples = _one_channel(samples if samples.shape[0] < samples.shape[1] else samples.T, channel)
    if sample_rate != wanted_rate:
        if math.ceil(len(samples) * wanted_rate / sample_rate) < 1:
            raise ValueError(f"{len(samples)} samples at {sample_rate} Hz are too few to be resampled")
        samples = soxr.resample(samples, sample_rate, wanted_rate)
    return torch.from_numpy(np.ascontiguousarray(samples))


def channel_number(channel: Channel, n_channels: int, shown: str) -> int:
    """The number of a channel from 1 on, 0 for a mix.

    Args:
        channel: see `Channel`; "loudest" is as good as the first.
        n_channels: of the sound.
        shown: its name for messages.

    Raises:
        ValueError: if there is no such channel.

    Example:
        >>> channel_number("right", 2, "a.wav"), channel_number("mix", 2, "a.wav")
        (2, 0)
    """
    number = channel if isinstance(channel, int) else {"mix": 0, "left": 1, "right": 2, "loudest": 1}[channel]
    if number > n_channels:
        raise ValueError(f"{shown}: has {n_channels} channel{'s' * (n_channels > 1)}, there is no channel {number}")
    return number


def warn_if_cancelled(peak: float, mixed_peak: float, n_channels: int, shown: str) -> None:
    """Warn if a mix is below a thirtieth (-30 dB) of what its loudest channel alone would give."""
    if mixed_peak * n_channels < peak / 30:
        warnings.warn(
            f"{shown}: its channels cancel each other (antiphase), so their mix is nearly silent; choose one channel: "
            "left, right or loudest (data.channel in a recipe, --channel)",
            DataWarning,
            stacklevel=4,
        )


def _one_channel(samples: np.ndarray, channel: Channel) -> np.ndarray:
    """Of ``(channels, samples)``."""
    number = channel_number(channel, len(samples), "the waveform")
    if channel == "loudest":
        number = int(np.square(samples, dtype=np.float64).sum(1).argmax()) + 1
    if number:
        return samples[number - 1]
    mixed: np.ndarray = samples.mean(0)
    warn_if_cancelled(float(np.abs(samples).max()), float(np.abs(mixed).max()), len(samples), "the waveform")
    return mixed


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
