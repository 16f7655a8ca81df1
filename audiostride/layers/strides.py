"""The learned strides and aliasing of a whole model: found, read, clamped, frozen, with learning rates of their own."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .downsampling import Alpha, DiffStride, SpectralDownsampling
from .learned_window import LearnedWindow


def freeze_strides(model: nn.Module) -> None:
    """Turn the learned strides and aliasing of a whole model into constants, for inference and export.

    Example:
        >>> model = nn.Sequential(DiffStride(2.0), DiffStride(3.0))
        >>> freeze_strides(model)
        >>> len(list(model.parameters()))
        0
    """
    for layer in pooling_layers(model):
        layer.freeze_strides()
    for window in learned_windows(model):
        window.freeze_strides()


def pooling_layers(model: nn.Module) -> list[SpectralDownsampling]:
    """All `SpectralPool` and `DiffStride` layers of a model, in the order of its modules.

    Example:
        >>> from audiostride import DiffStride, SpectralPool
        >>> len(pooling_layers(nn.Sequential(SpectralPool((2, 2)), nn.ReLU(), DiffStride((2, 2)))))
        2
    """
    return [module for module in model.modules() if isinstance(module, SpectralDownsampling)]


def learned_windows(model: nn.Module) -> list[LearnedWindow]:
    """All `LearnedWindow` modules of a model, which are frozen, clamped and optimised with its strides."""
    return [module for module in model.modules() if isinstance(module, LearnedWindow)]


def diffstride_layers(model: nn.Module) -> list[DiffStride]:
    """All DiffStride layers of a model, in the order of its modules.

    Example:
        >>> from audiostride import DiffStride, SpectralPool
        >>> len(diffstride_layers(nn.Sequential(SpectralPool((2, 2)), nn.ReLU(), DiffStride((2, 2)))))
        1
    """
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


def model_aliasing(model: nn.Module) -> list[list[Alpha]] | None:
    """Current aliasing of each pooling layer and axis, on the host; None if the model learns none.

    Where groups of channels have an alpha of their own, an axis has a list of them.

    Example:
        >>> model_aliasing(nn.Sequential(DiffStride((2.0, 2.0), aliasing=0.5), DiffStride(3.0, aliasing=0.25)))
        [[0.5, 0.5], [0.25]]
    """
    found = [alphas for layer in pooling_layers(model) if (alphas := layer.alphas()) is not None]
    return found or None


@torch.no_grad()
def clamp_strides_(model: nn.Module, highest: float = float("inf")) -> None:
    """Clamp every learned stride to [1, N / 2] and aliasing to [0, 1] in place; call it after each optimiser step.

    N is the length of the axis in the layer's last training forward; a stride shared by several
    axes is held to the shortest. A layer that was never run in training has no upper limit yet.
    No stride exceeds `highest` either. Where a layer holds the product of its strides, it is restored, see
    `with_product`; a `LearnedWindow` is held to its range.

    Example:
        >>> pool = DiffStride((2.0, 90.0))
        >>> _ = pool(torch.zeros(1, 100, 64))
        >>> clamp_strides_(pool)
        >>> pool.strides()
        [2.0, 32.0]
    """
    for pool in pooling_layers(model):
        if pool.aliasing is not None:
            pool.aliasing.clamp_(0, 1)
    for layer in diffstride_layers(model):
        if layer.frozen:
            continue
        limits = [highest if n is None else min(highest, max(n / 2, 1.0)) for n in layer.input_lengths]
        if len(layer.stride) == 1:
            limits = [min(limits)]
        upper = torch.tensor(limits, dtype=layer.stride.dtype, device=layer.stride.device)
        clamped = layer.stride.clamp(min=1.0).minimum(upper)
        layer.stride.copy_(clamped if layer.product is None else with_product(clamped, layer.product, upper))
    for window in learned_windows(model):
        window.clamp_()


def with_product(strides: Tensor, product: float, highest: Tensor) -> Tensor:
    """The strides with this product that are nearest in octaves, each between 1 and its highest.

    Args:
        strides: shape ``(n_axes,)``, in their range.
        product: the product to reach; where the ranges do not allow it, they come as near as possible.
        highest: shape ``(n_axes,)``.

    Example:
        >>> with_product(torch.tensor([3.0, 3.0]), 4.0, torch.tensor([50.0, 32.0]))
        tensor([2., 2.])
        >>> with_product(torch.tensor([1.0, 8.0]), 4.0, torch.tensor([50.0, 32.0]))     # 1 is the lowest
        tensor([1., 4.])
    """
    octaves, most = strides.double().log2(), highest.double().log2()
    for _ in range(len(strides)):  # each round shares what is missing among those that are not at a limit
        missing = math.log2(product) - octaves.sum()
        free = torch.where(missing > 0, octaves < most, octaves > 0)
        octaves = (octaves + free * missing / free.sum().clamp(min=1)).clamp(min=0).minimum(most)
    return octaves.exp2().to(strides.dtype)


def parameter_groups(model: nn.Module, lr: float, stride_lr: float, aliasing_lr: float = 0.06) -> list[dict[str, Any]]:
    """Optimiser groups: weights; strides and aliasing, with their own learning rates and no weight decay.

    The lengths of windows are among the strides.

    Args:
        model: any module.
        lr: learning rate of the weights.
        stride_lr: learning rate of the strides. At the weights' rate they hardly move in a short run.
        aliasing_lr: learning rate of the aliasing, in [0, 1]; with Adam about its change in a step.

    Returns:
        Groups for a `torch.optim` optimiser, each with its "name": "weights", and "strides" and "aliasing"
        where the model learns them.

    Example:
        >>> model = nn.Sequential(nn.Conv1d(1, 2, 3), DiffStride(2.0, aliasing=0.1))
        >>> [(g["name"], len(g["params"]), g["lr"]) for g in parameter_groups(model, 1e-3, 0.03)]
        [('weights', 2, 0.001), ('strides', 1, 0.03), ('aliasing', 1, 0.06)]
    """
    learned = [layer.stride for layer in diffstride_layers(model)] + [w.log2_length for w in learned_windows(model)]
    strides = [parameter for parameter in learned if parameter.requires_grad]
    alphas = [p.aliasing for p in pooling_layers(model) if p.aliasing is not None and p.aliasing.requires_grad]
    own = {id(parameter) for parameter in strides + alphas}
    weights = [p for p in model.parameters() if p.requires_grad and id(p) not in own]
    groups: list[dict[str, Any]] = [{"name": "weights", "params": weights, "lr": lr}]
    for name, parameters, rate in (("strides", strides, stride_lr), ("aliasing", alphas, aliasing_lr)):
        if parameters:
            groups.append({"name": name, "params": parameters, "lr": rate, "weight_decay": 0.0})
    return groups
