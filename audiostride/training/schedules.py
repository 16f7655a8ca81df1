"""Learning rate schedules: pure functions of the step, so that there is no state to save."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple


class Schedule(NamedTuple):
    """A schedule that `train.schedule` can name.

    Attributes:
        about: what the learning rates do.
        factor: learning rate as a share of its peak, from the step (from 0), the number of steps, and the steps at
            which the rate drops; all without the warm-up.
    """

    about: str
    factor: Callable[[int, int, Sequence[int]], float]


def _one_cycle(step: int, n_steps: int, _: Sequence[int]) -> float:
    peak = 0.3 * n_steps - 1
    if step <= peak:
        return _cosine(0.04, 1.0, step / peak)
    return _cosine(1.0, 4e-6, (step - peak) / max(n_steps - 1 - peak, 1))


def _cosine(first: float, last: float, share: float) -> float:
    return last + (first - last) * (1 + math.cos(math.pi * share)) / 2


SCHEDULES = {
    "constant": Schedule("stay at their peak", lambda step, n_steps, drops: 1.0),
    "cosine": Schedule("fall to 0 along half a cosine", lambda step, n_steps, drops: _cosine(1.0, 0.0, step / n_steps)),
    "one_cycle": Schedule(  # with the defaults of torch.optim.lr_scheduler.OneCycleLR
        "rise from 1/25 of the peak over the first 30 % of the steps, then fall to 4e-6 of it (Smith & Topin 2019)",
        _one_cycle,
    ),
    "step": Schedule(
        "are divided by ten after each of `drop_epochs`",
        lambda step, n_steps, drops: 10.0 ** -sum(step >= drop for drop in drops),
    ),
}


def schedule_factor(
    schedule: str, step: int, n_steps: int, warmup_steps: int = 0, drop_steps: Sequence[int] = ()
) -> float:
    """Learning rate at a step as a share of its peak.

    Args:
        schedule: a name in `SCHEDULES`.
        step: from 0.
        n_steps: number of steps, warm-up included.
        warmup_steps: the first steps, over which the rate rises linearly; the schedule is for the rest.
        drop_steps: for "step", counted from 0, warm-up included.

    Example:
        >>> [round(schedule_factor("one_cycle", step, 100), 3) for step in (0, 29, 99)]
        [0.04, 1.0, 0.0]
        >>> [round(schedule_factor("cosine", step, 8, warmup_steps=4), 3) for step in range(8)]
        [0.25, 0.5, 0.75, 1.0, 1.0, 0.854, 0.5, 0.146]
        >>> [round(schedule_factor("step", step, 6, drop_steps=(2, 5)), 3) for step in range(6)]
        [1.0, 1.0, 0.1, 0.1, 0.1, 0.01]
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    drops = [drop - warmup_steps for drop in drop_steps]
    return SCHEDULES[schedule].factor(step - warmup_steps, n_steps - warmup_steps, drops)
