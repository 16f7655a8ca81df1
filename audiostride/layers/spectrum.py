"""Sizes and masks: what `SpectralPool` and `DiffStride` keep of the spectrum of an axis.

An axis of length N is transformed to bins k = 0..N//2, weighted by a mask, cropped to its first K
bins and transformed back to M samples (`crop_spectrum`). Everything here is a pure function of its
arguments. Lengths are counted in samples of the axis (frames, mel bands, pixels), frequencies in
DFT bins of that axis.

Sources: Rippel, Snoek & Adams 2015 (spectral pooling); Riad, Teboul, Grangier & Zeghidour,
"Learning strides in convolutional neural networks", ICLR 2022, Section 2 and Eq. 1-5.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor


class Crop(NamedTuple):
    """What pooling keeps of one axis.

    Attributes:
        n: input length N, in samples.
        n_bins: number of kept bins K; bins 0..K-1 are kept.
        m: output length M, in samples.
        ramp: first and one past the last bin at which the mask depends on the stride.
    """

    n: int
    n_bins: int
    m: int
    ramp: tuple[int, int] = (0, 0)


def edge_bin(n: int, stride: float) -> float:
    """Edge of the pass-band in DFT bins: a = clip(N / (2S), 1, N // 2).

    Args:
        n: length of the axis, at least 2.
        stride: stride S > 0.

    Example:
        >>> edge_bin(100, 2.0)
        25.0
        >>> edge_bin(100, 1.0), edge_bin(100, 80.0)
        (50.0, 1.0)
    """
    return min(max(n / (2 * stride), 1.0), n // 2)


def diffstride_crop(n: int, stride: float, smoothness: float, crop: bool = True) -> Crop:
    """Sizes of DiffStride on an axis of length `n`: K = ceil(R + a), M = 2K - 1, or M = N if K > N//2.

    This is the one place where an output size is decided; it runs on the host in float64, so that
    every device and precision agrees on it.

    Args:
        n: input length N >= 1.
        stride: stride S, finite and positive (values below 1 act as 1, above N/2 as N/2).
        smoothness: width R >= 1 of the mask's ramp, in bins.
        crop: False keeps M = N (static shapes); the mask is applied all the same.

    Raises:
        ValueError: if the stride is not a positive number.

    Example:
        >>> diffstride_crop(100, 2.0, 4.0)
        Crop(n=100, n_bins=29, m=57, ramp=(25, 29))
        >>> diffstride_crop(9, 2.0, 4.0).m      # maps of N <= 2R + 1 never shrink
        9
    """
    if not (math.isfinite(stride) and stride > 0):
        raise ValueError(
            f"a stride must be a positive number, got {stride}; call clamp_strides_(model) after each optimiser step"
        )
    if n == 1:
        return Crop(n=1, n_bins=1, m=1)
    edge = edge_bin(n, stride)
    kept = math.ceil(smoothness + edge)
    n_bins, m = (n // 2 + 1, n) if kept > n // 2 or not crop else (kept, 2 * kept - 1)
    return Crop(n, n_bins, m, ramp=(math.ceil(edge), min(math.floor(smoothness + edge) + 1, n_bins)))


def spectral_crop(n: int, stride: float) -> Crop:
    """Sizes of spectral pooling on an axis of length `n`: M = max(2, floor(N / S)), never more than N.

    Args:
        n: input length N >= 1.
        stride: stride S >= 1.

    Raises:
        ValueError: if the stride is below 1.

    Example:
        >>> spectral_crop(100, 3.0)
        Crop(n=100, n_bins=17, m=33, ramp=(0, 0))
    """
    if not stride >= 1:
        raise ValueError(f"a spectral pooling stride must be at least 1, got {stride}")
    m = min(n, max(2, math.floor(n / stride)))
    return Crop(n, m // 2 + 1, m)


def diffstride_mask(crop: Crop, stride: Tensor, smoothness: float) -> Tensor:
    """Mask of DiffStride over the kept bins: clip((R + a - k) / R, 0, 1), differentiable in the stride.

    The gradient passes straight through the clip of the edge a, so it stays alive at both limits of
    the stride. On the mask's own kinks it is the one-sided derivative `torch.clamp` takes: a bin
    lying exactly on the edge counts as on the ramp.

    Args:
        crop: sizes from `diffstride_crop`.
        stride: scalar tensor, the stride S.
        smoothness: width R of the ramp, in bins.

    Returns:
        Mask of shape ``(n_bins,)`` in the stride's precision, at least float32.

    Example:
        >>> diffstride_mask(diffstride_crop(16, 4.0, 2.0), torch.tensor(4.0), 2.0)
        tensor([1.0000, 1.0000, 1.0000, 0.5000])
    """
    stride = stride.to(torch.promote_types(stride.dtype, torch.float32))
    bins = torch.arange(crop.n_bins, dtype=stride.dtype, device=stride.device)
    if crop.n == 1:
        return torch.ones_like(bins)
    edge = crop.n / (2 * stride)
    edge = edge + (edge.clamp(1, crop.n // 2) - edge).detach()
    return ((smoothness + edge - bins) / smoothness).clamp(0, 1)


def diffstride_band(n: int, stride: float, smoothness: float, aliasing: float = 0.0) -> tuple[float, float, float]:
    """Bins that DiffStride keeps in full, at half the amplitude (which may be between two bins), and at all.

    With aliasing alpha the gain is mask + alpha (1 - mask), which is a half later, or from alpha = 1/2 on nowhere.

    Example:
        >>> diffstride_band(100, 2.0, 4.0)
        (25.0, 27.0, 28)
    """
    edge, crop = edge_bin(n, stride), diffstride_crop(n, stride, smoothness)
    half = min(edge + smoothness / (2 * (1 - aliasing)), crop.m / 2) if aliasing < 1 else crop.m / 2
    return edge, half, crop.n_bins - 1


def spectral_band(n: int, stride: float) -> tuple[float, float, float]:
    """The same for spectral pooling, a hard mask; the Nyquist bin of an even M passes or not by its phase.

    Example:
        >>> spectral_band(100, 2.0)
        (24, 25.0, 25)
    """
    m = spectral_crop(n, stride).m
    return (n // 2, n / 2, n // 2) if m == n else ((m - 1) // 2, m / 2, m // 2)
