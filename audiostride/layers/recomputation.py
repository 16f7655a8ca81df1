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

_RECIPE = "_audiostride_recipe"


def norm_recomputably(norm: nn.Module, x: Tensor) -> Tensor:
    """``norm(x)``, with a recipe if it is a batch norm of a large map and a backward may come.

    The recipe gives bit for bit what `norm` gave: in training by the statistics of the same batch, which
    are not counted a second time; in eval by the running ones.

    Example:
        >>> norm, x = nn.BatchNorm2d(3), torch.randn(20, 3, 80, 80, requires_grad=True)
        >>> y = norm_recomputably(norm, x)
        >>> torch.equal(recipe(y)(), y), norm.num_batches_tracked.item()
        (True, 1)
    """
    y: Tensor = norm(x)
    # A norm over several processes would have to talk to them again; a compiler decides for itself what to keep.
    if type(norm) is not nn.BatchNorm2d or not torch.is_grad_enabled() or torch.compiler.is_compiling():
        return y
    if x.numel() <= KEPT_NUMBERS:
        return y
    own = norm.training or norm.running_mean is None
    mean, var = (None, None) if own else (norm.running_mean, norm.running_var)
    kept = x.detach()
    return with_recipe(y, lambda: functional.batch_norm(kept, mean, var, norm.weight, norm.bias, own, 0.0, norm.eps))


def with_recipe(value: Tensor, make: Callable[[], Tensor]) -> Tensor:
    """Say how to make a tensor again; `make` must not hold on to the tensor itself.

    Example:
        >>> zeros = with_recipe(torch.zeros(2), lambda: torch.zeros(2))
        >>> recipe(zeros)().tolist(), recipe(torch.zeros(2))
        ([0.0, 0.0], None)
    """
    setattr(value, _RECIPE, make)
    return value


def recipe(value: Tensor) -> Callable[[], Tensor] | None:
    """How to make a tensor again, where it is known."""
    return getattr(value, _RECIPE, None)


def keep_recipe(value: Tensor) -> AbstractContextManager[object]:
    """Operations in this context that keep `value`, or the whole of it in another shape, keep its recipe instead.

    Without a recipe nothing changes.

    Example:
        >>> x = torch.randn(4, requires_grad=True)
        >>> doubled = with_recipe(2 * x, lambda: 2 * x.detach())
        >>> with keep_recipe(doubled):
        ...     y = doubled.square()
        >>> y.sum().backward()
        >>> torch.equal(x.grad, 8 * x)
        True
    """
    make = recipe(value)
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
