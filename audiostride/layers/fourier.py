"""Tables of the discrete Fourier transform in real numbers: cosines, sines and weights, made once and remembered."""

import math
from collections.abc import Callable
from functools import lru_cache, wraps
from typing import Any

import torch
from torch import Tensor


def cached(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Remember the tensors a function makes, but for while a graph is traced or under inference_mode.

    A tensor made while tracing belongs to the graph; one made under inference_mode could not take
    part in a later training step.

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
