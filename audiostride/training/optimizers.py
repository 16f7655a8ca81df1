"""The optimiser of weights and strides, and the moving average of the weights."""

import torch
from torch import nn
from torch.optim import Optimizer

from ..layers.strides import parameter_groups


def make_optimizer(
    model: nn.Module,
    name: str,
    learning_rate: float,
    stride_learning_rate: float,
    aliasing_learning_rate: float = 0.06,
    weight_decay: float = 0.0,
    momentum: float = 0.0,
) -> Optimizer:
    """An optimiser whose strides have a learning rate of their own and no weight decay.

    Args:
        model: any module.
        name: "adam" and "sgd" add the decay to the gradient (an L2 penalty); "adamw" decays the weights
            themselves (Loshchilov & Hutter 2019).
        learning_rate: of the weights.
        stride_learning_rate: of the strides.
        aliasing_learning_rate: of the aliasing.
        weight_decay: of the weights.
        momentum: for "sgd", from 0 to below 1.

    Raises:
        ValueError: if there is no such optimiser, or momentum is given to another than "sgd".

    Example:
        >>> make_optimizer(nn.Linear(1, 1), "sgd", 0.1, 0.1, momentum=0.9).defaults["momentum"]
        0.9
    """
    groups = parameter_groups(model, learning_rate, stride_learning_rate, aliasing_learning_rate)
    if name == "sgd":
        return torch.optim.SGD(groups, lr=learning_rate, momentum=momentum, weight_decay=weight_decay)
    if momentum:
        raise ValueError(f"momentum is for sgd only, got momentum={momentum} for {name!r}")
    if name == "adam":
        return torch.optim.Adam(groups, weight_decay=weight_decay)
    if name == "adamw":
        return torch.optim.AdamW(groups, weight_decay=weight_decay)
    raise ValueError(f"optimizer must be adam, adamw or sgd, got {name!r}")


@torch.no_grad()
def update_average_(average: nn.Module, model: nn.Module, decay: float, step: int) -> None:
    """Move an exponential average of a model's parameters, strides included, on by one step, in place.

    The decay is at most (1 + step) / (10 + step), so that the first weights are soon forgotten.
    Buffers are copied.

    Args:
        average: a copy of the model.
        model: the model after the step.
        decay: share of the average that stays, below 1.
        step: from 0.

    Example:
        >>> average, model = nn.Linear(1, 1), nn.Linear(1, 1)
        >>> for _ in range(100):
        ...     update_average_(average, model, decay=0.5, step=100)
        >>> torch.equal(average.weight, model.weight)
        True
    """
    weight = 1 - min(decay, (1 + step) / (10 + step))
    for mean, value in zip(average.parameters(), model.parameters(), strict=True):
        mean.lerp_(value, weight)
    for mean_buffer, buffer in zip(average.buffers(), model.buffers(), strict=True):
        mean_buffer.copy_(buffer)
