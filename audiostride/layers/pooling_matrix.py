"""Pooling an axis as a small real matrix, for any mask, any aliasing, and for the taps of a convolution.

DFT, mask, crop and inverse DFT of an axis of N samples to M are one real M x N matrix,

    P = synthesis.T @ diag(mask) @ analysis          (analysis 2K x N, synthesis 2K x M)

with cosines and sines as rows. Without crop and mask, the same synthesis reads the signal off at the times
m N / M, as a strided convolution does; bins above M / 2 then fold down, they alias. Aliasing alpha in [0, 1]
lies between the two: (1 - alpha) P + alpha F, which gives every bin k = 0..N//2 the gain

    mu(k) = mask(k) + alpha (1 - mask(k)),          mask(k) = 0 for k >= K

where alpha 0 is an anti-aliasing filter of full strength and 1 none at all.
"""

import math
from collections.abc import Callable
from functools import lru_cache, wraps
from typing import Any

import torch
from torch import Tensor

from .spectrum import Crop, diffstride_mask


def cached(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Remember the tensors that a function makes, except while a graph is traced.

    A tensor made while tracing belongs to the graph. Under `torch.inference_mode` an ordinary tensor is made, as one
    of that mode could not take part in a later training step.

    Example:
        >>> ones = cached(torch.ones)
        >>> ones(3) is ones(3)
        True
    """
    remembered = lru_cache(maxsize=512)(function)

    @wraps(function)
    def wrapper(*args: Any) -> Tensor:
        if torch.compiler.is_compiling():
            return function(*args)
        with torch.inference_mode(False):
            return remembered(*args)

    return wrapper


def pooling_matrix(mask: Tensor, crop: Crop, aliasing: Tensor | None = None) -> Tensor:
    """The M x N matrix that downsamples an axis: ``synthesis.T @ diag(mask) @ analysis``.

    Args:
        mask: mask of shape ``(n_bins,)``; its precision and device are the matrix's.
        crop: sizes of the axis.
        aliasing: scalar alpha in [0, 1]; None is bit-exactly 0.

    Returns:
        Matrix of shape ``(m, n)`` whose rows sum to 1 when ``mask[0]`` is 1.

    Example:
        >>> from audiostride.layers.spectrum import spectral_crop
        >>> crop = spectral_crop(4, 2.0)
        >>> pooling_matrix(torch.ones(crop.n_bins), crop)      # every other sample of a cosine
        tensor([[ 0.7500,  0.2500, -0.2500,  0.2500],
                [-0.2500,  0.2500,  0.7500,  0.2500]])
        >>> pooling_matrix(torch.ones(crop.n_bins), crop, torch.tensor(1.0)).round().int()      # every other sample
        tensor([[1, 0, 0, 0],
                [0, 0, 1, 0]], dtype=torch.int32)
    """
    scale = mask * bin_weights(crop.n, mask.dtype, mask.device)[: crop.n_bins]
    analysis = fourier_basis(crop.n, mask.dtype, mask.device)[:, : crop.n_bins]
    synthesis = fourier_basis(crop.m, mask.dtype, mask.device)
    matrix = synthesis.flatten(0, 1).T @ (scale[:, None] * analysis).flatten(0, 1)
    if aliasing is None:
        return matrix
    return matrix.lerp(sampling_matrix(crop.n, crop.m, mask.dtype, mask.device), aliasing.to(mask.dtype))


@cached
def sampling_matrix(n: int, m: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The M x N matrix that reads an axis off at the times i N / M, between its samples by its Fourier series.

    Where M divides N these are every (N / M)-th sample.

    Returns:
        Tensor of shape ``(m, n)``. It is shared: never write to it.

    Example:
        >>> sampling_matrix(6, 2, torch.float32, torch.device("cpu")).round().int().tolist()
        [[1, 0, 0, 0, 0, 0], [0, 0, 0, 1, 0, 0]]
    """
    host, n_bins = torch.device("cpu"), n // 2 + 1
    turns = torch.outer(torch.arange(n_bins), torch.arange(m)).remainder(m).double() / m
    synthesis = torch.cat([(2 * torch.pi * turns).cos(), (2 * torch.pi * turns).sin()])
    analysis = bin_weights(n, torch.float64, host)[:, None] * fourier_basis(n, torch.float64, host)
    return (synthesis.T @ analysis.flatten(0, 1)).to(dtype=dtype, device=device)


@cached
def constant_matrix(
    crop: Crop,
    stride: float | None,
    smoothness: float,
    aliasing: float | None,
    taps: int,
    dtype: torch.dtype,
    device: torch.device,
) -> Tensor:
    """Pooling matrix of a stride and an aliasing that do not learn, in the precision it is applied in.

    Args:
        crop: sizes of the axis.
        stride: DiffStride's stride; None is the hard mask of spectral pooling.
        smoothness: DiffStride's ramp width R, in bins.
        aliasing: alpha in [0, 1]; None is 0.
        taps: see `shift_columns`.
        dtype: of the matrix.
        device: of the matrix.

    Returns:
        Tensor of shape ``(m * taps, n)``. It is shared: never write to it.

    Example:
        >>> from audiostride.layers.spectrum import spectral_crop
        >>> crop = spectral_crop(100, 2.0)
        >>> constant_matrix(crop, None, 1.0, None, 1, torch.float32, torch.device("cpu")).shape
        torch.Size([50, 100])
    """
    mask = torch.ones(crop.n_bins, dtype=torch.float64)
    if stride is not None:
        mask = diffstride_mask(crop, torch.tensor(stride, dtype=torch.float64), smoothness)
    alpha = None if aliasing is None else torch.tensor(aliasing, dtype=torch.float64)
    return shift_columns(pooling_matrix(mask, crop, alpha), taps).to(dtype=dtype, device=device)


def shift_columns(rows: Tensor, taps: int) -> Tensor:
    """Rows that act on an input as `rows` do on its copies shifted by -(taps // 2) .. taps // 2 samples.

    A convolution adds up shifted copies of its input, zero-padded at the ends, so a linear map after
    a convolution is the convolution after this map: the convolution can run on what is left of the
    axis instead of the whole of it.

    Args:
        rows: shape ``(r, n)``.
        taps: odd number of shifts.

    Returns:
        Shape ``(r * taps, n)``: the shifts of the first row, then those of the second, ...

    Example:
        >>> shift_columns(torch.tensor([[1, 2, 3]]), taps=3)
        tensor([[2, 3, 0],
                [1, 2, 3],
                [0, 1, 2]])
    """
    if taps == 1:
        return rows
    n, half = rows.shape[1], taps // 2
    padded = torch.nn.functional.pad(rows, (half, half))
    return torch.stack([padded[:, 2 * half - tap : 2 * half - tap + n] for tap in range(taps)], 1).flatten(0, 1)


@cached
def fourier_basis(n: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Cosines and sines of all DFT bins of an axis of length `n`.

    Returns:
        Tensor of shape ``(2, n // 2 + 1, n)``. It is shared: never write to it.

    Example:
        >>> fourier_basis(4, torch.float64, torch.device("cpu")).round().int().tolist()
        [[[1, 1, 1, 1], [1, 0, -1, 0], [1, -1, 1, -1]], [[0, 0, 0, 0], [0, 1, 0, -1], [0, 0, 0, 0]]]
    """
    # Integer products modulo n keep the phase exact where float products would drift.
    turns = torch.outer(torch.arange(n // 2 + 1), torch.arange(n)).remainder(n).double() / n
    return torch.stack([(2 * math.pi * turns).cos(), (2 * math.pi * turns).sin()]).to(dtype=dtype, device=device)


@cached
def bin_weights(n: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Weight of each DFT bin in the real inverse DFT, such that a constant stays that constant.

    2/N for a bin that stands for itself and its mirror image, 1/N for DC and the Nyquist bin.

    Returns:
        Tensor of shape ``(n // 2 + 1,)``. It is shared: never write to it.

    Example:
        >>> bin_weights(4, torch.float32, torch.device("cpu")).tolist()
        [0.25, 0.5, 0.25]
    """
    bins = torch.arange(n // 2 + 1)
    itself = (bins == 0) | (2 * bins == n)
    return ((2.0 - itself.double()) / n).to(dtype=dtype, device=device)


def basis_rows(n: int, first: int, last: int, like: Tensor) -> Tensor:
    """Cosine rows of the bins from `first` to before `last`, then their sine rows, for a tensor like this one.

    Returns:
        Tensor of shape ``(2 * (last - first), n)``.

    Example:
        >>> basis_rows(4, 1, 2, torch.zeros(1)).round().int().tolist()
        [[1, 0, -1, 0], [0, 1, 0, -1]]
    """
    return fourier_basis(n, like.dtype, like.device)[:, first:last].flatten(0, 1)
