"""Learning rates as pure functions of the step."""

import math
from collections.abc import Sequence


def schedule_factor(
    schedule: str, step: int, n_steps: int, warmup_steps: int = 0, drop_steps: Sequence[int] = ()
) -> float:
    """Learning rate at a step as a share of its peak; a pure function, so there is no state to lose.

    Args:
        schedule: "constant"; "cosine": from 1 to 0; "one_cycle": from 1/25 up to 1 over the first
            30 % of the steps and down to 4e-6, both as half a cosine (Smith & Topin 2019, with the
            defaults of `torch.optim.lr_scheduler.OneCycleLR`); "step": a tenth from each of `drop_steps` on.
        step: from 0.
        n_steps: steps in all.
        warmup_steps: the first steps, over which the rate rises in a straight line; the schedule
            is for the rest.
        drop_steps: for "step", counted from 0, the warm-up included.

    Raises:
        ValueError: if there is no such schedule.

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
    if schedule == "step":
        return 10.0 ** -sum(step >= drop for drop in drop_steps)
    step, n_steps = step - warmup_steps, n_steps - warmup_steps
    if schedule == "constant":
        return 1.0
    if schedule == "cosine":
        return _cosine(1.0, 0.0, step / n_steps)
    if schedule != "one_cycle":
        raise ValueError(f"schedule must be constant, cosine, one_cycle or step, got {schedule!r}")
    peak = 0.3 * n_steps - 1
    if step <= peak:
        return _cosine(0.04, 1.0, step / peak)
    return _cosine(1.0, 4e-6, (step - peak) / max(n_steps - 1 - peak, 1))


def _cosine(first: float, last: float, share: float) -> float:
    return last + (first - last) * (1 + math.cos(math.pi * share)) / 2
