"""The training loop, to be read from top to bottom."""

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from .classifier import AudioClassifier
from .complexity import stride_cost as stride_cost_of
from .data.augment import Augmentation, augmented
from .data.batches import LabelledClips, plan_epoch, training_batches
from .downsampling import clamp_strides_, parameter_groups
from .errors import TrainingError
from .evaluate import evaluate, share_right, task_loss

OnStep = Callable[[int, int, float, float], None]
"""Called after each step with (step, steps in all, loss, clips per second)."""

OnEpoch = Callable[[dict[str, Any]], None]
"""Called with each line of metrics.jsonl."""


def train(
    model: AudioClassifier,
    sets: Sequence[LabelledClips],
    out: Path,
    *,
    epochs: int,
    steps: int | None = None,
    batch_size: int,
    learning_rate: float,
    stride_learning_rate: float,
    schedule: str = "constant",
    weight_decay: float = 0.0,
    stride_cost: float = 0.0,
    mixing: str | float = "uniform",
    task_weights: Mapping[str, float] | None = None,
    class_weights: Mapping[str, torch.Tensor] | None = None,
    augmentation: Augmentation | None = None,
    seed: int = 0,
    workers: int = 0,
    on_step: OnStep | None = None,
    on_epoch: OnEpoch | None = None,
) -> None:
    """Train a classifier and leave its best validation epoch in `out`.

    Writes `steps.jsonl`, `metrics.jsonl` and, whenever the mean validation accuracy over the tasks
    improves (for a multilabel task the mean average precision; at equal ones the loss), the model.
    With the same arguments, machine and number of threads the result is the same to the bit.

    Args:
        model: the classifier, on its device.
        sets: the data sets; a batch is of one set and carries the labels of that set's tasks.
        out: run directory, which exists.
        epochs: passes over the training clips, a random window of each.
        steps: stop after this many optimiser steps.
        batch_size: clips a step.
        learning_rate: Adam's rate for the weights, the peak of the schedule.
        stride_learning_rate: Adam's rate for the strides.
        schedule: "constant", "one_cycle" or "cosine", see `schedule_factor`.
        weight_decay: Adam's L2 penalty on the weights, never on strides.
        stride_cost: lambda of the regulariser `complexity.stride_cost`.
        mixing: how several data sets are mixed, see `plan_epoch`.
        task_weights: weight of each task's loss, 1 where missing.
        class_weights: for a task the weight of each of its classes in the loss, on the model's device.
        augmentation: what is done to training batches; None: nothing.
        seed: decides order and windows.
        workers: processes that decode audio.
        on_step: progress callback.
        on_epoch: progress callback.

    Raises:
        TrainingError: if the loss is not finite; the weights are those before that step.
        DataError: if a file cannot be read.
    """
    device = model.frontend.window.device
    optimizer = torch.optim.Adam(
        parameter_groups(model, learning_rate, stride_learning_rate), weight_decay=weight_decay
    )
    peak_rates = [group["lr"] for group in optimizer.param_groups]
    sizes = [len(data.indexes("train")) for data in sets]
    n_steps = epochs * len(plan_epoch(sizes, batch_size, mixing, seed, epoch=0))
    n_steps = min(n_steps, steps or n_steps)
    weights = task_weights or {}
    best, step = (-1.0, 0.0), 0

    with (out / "steps.jsonl").open("w") as steps_file, (out / "metrics.jsonl").open("w") as metrics_file:
        for epoch in range(epochs):
            model.train()
            totals: dict[str, dict[str, float]] = {}
            seen, began = 0, time.perf_counter()
            for batch in training_batches(
                sets,
                model.frontend.sample_rate,
                model.window_length,
                batch_size,
                mixing,
                seed,
                epoch,
                workers,
                augmentation,
            ):
                for group, rate in zip(optimizer.param_groups, peak_rates, strict=True):
                    group["lr"] = rate * schedule_factor(schedule, step, n_steps)

                with augmented(model.frontend, augmentation.log_mel if augmentation else (), batch.seeds):
                    logits = model(batch.waveform.to(device))
                labels = {task: numbers.to(device) for task, numbers in batch.labels.items()}
                losses = {
                    task: task_loss(logits[task], numbers, model.kinds[task], (class_weights or {}).get(task))
                    for task, numbers in labels.items()
                }
                loss = torch.stack([weights.get(task, 1.0) * value for task, value in losses.items()]).sum()
                if stride_cost:
                    loss = loss + stride_cost * stride_cost_of(model)
                loss_value = float(loss.detach())
                if not math.isfinite(loss_value):
                    raise TrainingError(
                        f"the loss became {loss_value} at step {step}, before the update; lower train.learning_rate "
                        f"or look at this batch's files: {', '.join(batch.names)}"
                    )
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                clamp_strides_(model)

                step += 1
                seen += len(batch.names)
                steps_file.write(json.dumps({"step": step, "loss_hex": loss_value.hex()}) + "\n")
                for task, value in losses.items():
                    right = share_right(logits[task].detach(), labels[task], model.kinds[task])
                    _count(totals, task, value.item(), right)
                clips_per_s = seen / (time.perf_counter() - began)
                if on_step:
                    on_step(step, n_steps, loss_value, clips_per_s)
                if step == n_steps:
                    break

            state = {
                "epoch": epoch + 1,
                "step": step,
                "strides": model.trunk.strides(),
                "lr": optimizer.param_groups[0]["lr"],
                "stride_lr": optimizer.param_groups[-1]["lr"] if len(peak_rates) > 1 else None,
                "clips_per_s": clips_per_s,
            }
            training = {
                task: {k: total[k] / total["n"] for k in ("loss", "accuracy")} for task, total in totals.items()
            }
            validation: dict[str, dict[str, float]] = {}
            headlines: list[float] = []
            for data in sets:
                scores, _ = evaluate(model, data.clips, data.labels, data.indexes("validation"), workers)
                validation |= {task: s.metrics() for task, s in scores.items()}
                headlines += [s.headline for s in scores.values()]
            for split, tasks in (("train", training), ("validation", validation)):
                record = state | {"split": split, "tasks": tasks}
                metrics_file.write(json.dumps(record) + "\n")
                if on_epoch:
                    on_epoch(record)
            steps_file.flush()
            metrics_file.flush()

            reached = (sum(headlines) / len(headlines), -sum(s["loss"] for s in validation.values()))
            if reached > best:
                best = reached
                model.save(out)
            if step == n_steps:
                break


def schedule_factor(schedule: str, step: int, n_steps: int) -> float:
    """Learning rate at a step as a share of its peak; a pure function, so there is no state to lose.

    Args:
        schedule: "constant"; "cosine": from 1 to 0; "one_cycle": from 1/25 up to 1 over the first
            30 % of the steps and down to 4e-6, both as half a cosine (Smith & Topin 2019, with the
            defaults of `torch.optim.lr_scheduler.OneCycleLR`).
        step: from 0.
        n_steps: steps in all.

    Example:
        >>> [round(schedule_factor("one_cycle", step, 100), 3) for step in (0, 29, 99)]
        [0.04, 1.0, 0.0]
    """
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


def _cosine(first: float, last: float, share: float) -> float:
    return last + (first - last) * (1 + math.cos(math.pi * share)) / 2


def _count(totals: dict[str, dict[str, float]], task: str, loss: float, right: torch.Tensor) -> None:
    total = totals.setdefault(task, {"loss": 0.0, "accuracy": 0.0, "n": 0.0})
    total["loss"] += loss * len(right)
    total["accuracy"] += right.sum().item()
    total["n"] += len(right)
