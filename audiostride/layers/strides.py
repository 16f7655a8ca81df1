"""The learned strides of a whole model: found, read, clamped, frozen, and given a learning rate of their own."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .downsampling import DiffStride


def freeze_strides(model: nn.Module) -> None:
    """Turn the learned strides of a whole model into constants, for inference and export.

    Example:
        >>> model = nn.Sequential(DiffStride(2.0), DiffStride(3.0))
        >>> freeze_strides(model)
        >>> len(list(model.parameters()))
        0
    """
    for layer in diffstride_layers(model):
        layer.freeze_strides()


def diffstride_layers(model: nn.Module) -> list[DiffStride]:
    """All DiffStride layers of a model, in the order of its modules."""
    return [module for module in model.modules() if isinstance(module, DiffStride)]


def read_strides(layers: Sequence[DiffStride]) -> list[Tensor]:
    """Strides of several layers on the CPU, in one transfer from the device: for each a tensor ``(n_axes,)``.

    Example:
        >>> read_strides([DiffStride(2.0), DiffStride((3.0, 3.0), shared_stride=True)])
        [tensor([2.]), tensor([3., 3.])]
    """
    if not layers:
        return []
    together = torch.cat([layer.stride.detach() for layer in layers]).cpu()
    own = together.split([len(layer.stride) for layer in layers])
    return [strides.expand(layer.n_axes) for strides, layer in zip(own, layers, strict=True)]


@torch.no_grad()
def clamp_strides_(model: nn.Module) -> None:
    """Clamp every DiffStride stride to [1, N / 2] in place; call it after each optimiser step.

    N is the length of the axis in the layer's last training forward; a stride shared by several
    axes is held to the shortest. A layer that was never run in training has no upper limit yet.

    Example:
        >>> pool = DiffStride((2.0, 90.0))
        >>> _ = pool(torch.zeros(1, 100, 64))
        >>> clamp_strides_(pool)
        >>> pool.strides()
        [2.0, 32.0]
    """
    for layer in diffstride_layers(model):
        if layer.frozen:
            continue
        limits = [float("inf") if n is None else max(n / 2, 1.0) for n in layer.input_lengths]
        if len(layer.stride) == 1:
            limits = [min(limits)]
        upper = torch.tensor(limits, dtype=layer.stride.dtype, device=layer.stride.device)
        layer.stride.copy_(layer.stride.clamp(min=1.0).minimum(upper))


def parameter_groups(model: nn.Module, lr: float, stride_lr: float) -> list[dict[str, Any]]:
    """Optimiser groups: the weights, and the strides with their own learning rate and no weight decay.

    Args:
        model: any module.
        lr: learning rate of the weights.
        stride_lr: learning rate of the strides. At the weights' rate they hardly move in a short run.

    Returns:
        Two groups for a `torch.optim` optimiser, one if the model learns no stride.

    Example:
        >>> groups = parameter_groups(nn.Sequential(nn.Conv1d(1, 2, 3), DiffStride(2.0)), 1e-3, 0.03)
        >>> [(len(g["params"]), g["lr"]) for g in groups]
        [(2, 0.001), (1, 0.03)]
    """
    strides = [layer.stride for layer in diffstride_layers(model) if layer.stride.requires_grad]
    is_stride = {id(p) for p in strides}
    weights = [p for p in model.parameters() if p.requires_grad and id(p) not in is_stride]
    groups: list[dict[str, Any]] = [{"params": weights, "lr": lr}]
    if strides:
        groups.append({"params": strides, "lr": stride_lr, "weight_decay": 0.0})
    return groups
