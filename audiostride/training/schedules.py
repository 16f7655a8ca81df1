"""Learning rates as pure functions of the step, and the moving average of the weights."""

import math

import torch
from torch import nn


def schedule_factor(schedule: str, step: int, n_steps: int, warmup_steps: int = 0) -> float:
    """Learning rate at a step as a share of its peak; a pure function, so there is no state to lose.

    Args:
        schedule: "constant"; "cosine": from 1 to 0; "one_cycle": from 1/25 up to 1 over the first
            30 % of the steps and down to 4e-6, both as half a cosine (Smith & Topin 2019, with the
            defaults of `torch.optim.lr_scheduler.OneCycleLR`).
        step: from 0.
        n_steps: steps in all.
        warmup_steps: the first steps, over which the rate rises in a straight line; the schedule
            is for the rest.

    Example:
        >>> [round(schedule_factor("one_cycle", step, 100), 3) for step in (0, 29, 99)]
        [0.04, 1.0, 0.0]
        >>> [round(schedule_factor("cosine", step, 8, warmup_steps=4), 3) for step in range(8)]
        [0.25, 0.5, 0.75, 1.0, 1.0, 0.854, 0.5, 0.146]
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    step, n_steps = step - warmup_steps, n_steps - warmup_steps
    if schedule == "constant":
        return 1.0
    if schedule == "cosine":
        return _cosine(1.0, 0.0, step / n_steps)
    if schedule != "one_cycle":
        raise ValueError(f"schedule must be constant, cosine or one_cycle, got {schedule!r}")
    peak = 0.3 * n_steps - 1
    if step <= peak:
        return _cosine(0.04, 1.0, step / peak)
    return _cosine(1.0, 4e-6, (step - peak) / max(n_steps - 1 - peak, 1))


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


def _cosine(first: float, last: float, share: float) -> float:
    return last + (first - last) * (1 + math.cos(math.pi * share)) / 2
