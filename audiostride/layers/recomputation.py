"""Activation recomputation: a tensor is computed again in the backward pass instead of being stored.

A convolution stores its input for its backward, and where that is the output of a batch norm, which stores its own
input, the same map is stored twice. Recomputing the norm's output costs one pass over the map and saves it.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional

KEPT_NUMBERS = 250_000
"""Maps of up to this many numbers, 1 MB, are kept: small batches have memory to spare, and time is what they lack."""

_REMAKE = "_audiostride_remake"


def norm_recomputably(norm: nn.Module, x: Tensor) -> Tensor:
    """``norm(x)``, and how to recompute it if it is a batch norm of a large map and a backward pass may come.

    The recomputed tensor is bit-exactly what `norm` gave: in training with the statistics of the same batch, which
    are not counted a second time; in eval mode with the running ones.

    Example:
        >>> norm, x = nn.BatchNorm2d(3), torch.randn(20, 3, 80, 80, requires_grad=True)
        >>> y = norm_recomputably(norm, x)
        >>> torch.equal(remake_of(y)(), y), norm.num_batches_tracked.item()
        (True, 1)
    """
    y: Tensor = norm(x)
    # A norm over several processes would have to communicate again; a compiler decides for itself what to keep.
    if type(norm) is not nn.BatchNorm2d or not torch.is_grad_enabled() or torch.compiler.is_compiling():
        return y
    if x.numel() <= KEPT_NUMBERS:
        return y
    own = norm.training or norm.running_mean is None
    mean, var = (None, None) if own else (norm.running_mean, norm.running_var)
    kept = x.detach()
    return remake_by(y, lambda: functional.batch_norm(kept, mean, var, norm.weight, norm.bias, own, 0.0, norm.eps))


def remake_by(value: Tensor, make: Callable[[], Tensor]) -> Tensor:
    """Record how to recompute a tensor; `make` must not keep a reference to the tensor itself.

    Example:
        >>> zeros = remake_by(torch.zeros(2), lambda: torch.zeros(2))
        >>> remake_of(zeros)().tolist(), remake_of(torch.zeros(2))
        ([0.0, 0.0], None)
    """
    setattr(value, _REMAKE, make)
    return value


def remake_of(value: Tensor) -> Callable[[], Tensor] | None:
    """How to recompute a tensor; None if `remake_by` recorded nothing."""
    return getattr(value, _REMAKE, None)


def save_remake(value: Tensor) -> AbstractContextManager[object]:
    """In this context autograd saves how to recompute `value` where it would save `value` itself or a reshape of it.

    It has no effect where `remake_of` gives None.

    Example:
        >>> x = torch.randn(4, requires_grad=True)
        >>> doubled = remake_by(2 * x, lambda: 2 * x.detach())
        >>> with save_remake(doubled):
        ...     y = doubled.square()
        >>> y.sum().backward()
        >>> torch.equal(x.grad, 8 * x)
        True
    """
    make = remake_of(value)
    if make is None or not torch.is_grad_enabled():
        return nullcontext()
    address, numbers = value.data_ptr(), value.numel()

    def pack(kept: Tensor) -> Callable[[], Tensor] | Tensor:
        if kept.data_ptr() != address or kept.numel() != numbers:
            return kept
        shape, stride = kept.shape, kept.stride()
        return lambda: make().as_strided(shape, stride)

    @torch.no_grad()
    def unpack(packed: Callable[[], Tensor] | Tensor) -> Tensor:
        return packed if isinstance(packed, Tensor) else packed()

    return torch.autograd.graph.saved_tensors_hooks(pack, unpack)
