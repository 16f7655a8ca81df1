"""The training loop, to be read from top to bottom."""

import copy
import math
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ..data.augment import Augmentation, augmented
from ..data.batches import LabelledClips, plan_epoch, training_batches
from ..errors import ModelFileError, TrainingError, UsageError
from ..files import JsonLines
from ..layers.strides import clamp_strides_, parameter_groups
from ..models.classifier import AudioClassifier
from ..models.cost import stride_cost as stride_cost_of
from ..models.files import save_model
from .checkpoints import (
    Checkpoint,
    Notify,
    list_checkpoints,
    load_checkpoint,
    newest_checkpoint,
    prune_checkpoints,
    save_checkpoint,
)
from .evaluation import evaluate, share_right, task_loss
from .interrupt import StopSignals, interrupted
from .processes import broadcast, broadcast_buffers_, gather, gather_numbers, is_main, process_count, process_index
from .processes import start as start_processes
from .resuming import RunState, Totals, check_conditions

CHECKPOINTS, STEPS_FILE, METRICS_FILE = "checkpoints", "steps.jsonl", "metrics.jsonl"

OnStep = Callable[[int, int, float, float], None]
"""Called after each step with (step, steps in all, loss, clips per second)."""

OnEpoch = Callable[[dict[str, Any]], None]
"""Called with each line of metrics.jsonl."""

T = TypeVar("T")


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
    aliasing_learning_rate: float = 0.005,
    schedule: str = "constant",
    warmup_steps: int = 0,
    weight_decay: float = 0.0,
    stride_cost: float = 0.0,
    gradient_clip: float | None = None,
    accumulate: int = 1,
    ema_decay: float | None = None,
    early_stopping: int | None = None,
    mixing: str | float = "uniform",
    precision: str = "float32",
    sync_batch_norm: bool = False,
    checkpoint_steps: int | None = None,
    keep_checkpoints: int = 2,
    task_weights: Mapping[str, float] | None = None,
    class_weights: Mapping[str, Tensor] | None = None,
    augmentation: Augmentation | None = None,
    seed: int = 0,
    workers: int = 0,
    resume: bool = False,
    allow_inexact: bool = False,
    conditions: Mapping[str, Any] | None = None,
    on_step: OnStep | None = None,
    on_epoch: OnEpoch | None = None,
    notify: Notify = warnings.warn,
) -> None:
    """Train a classifier and leave its best validation epoch in `out`.

    Writes `steps.jsonl`, `metrics.jsonl`, checkpoints and, whenever the mean validation accuracy over
    the tasks improves (for a multilabel task the mean average precision; at equal ones the loss), the
    model. With the same arguments, machine and number of threads the result is the same to the bit,
    however often it was stopped and resumed.

    Where torchrun started several processes, each takes its share of every batch and only process 0
    writes.

    Args:
        model: the classifier, on its device.
        sets: the data sets; a batch is of one set and carries the labels of that set's tasks.
        out: run directory, which exists.
        epochs: passes over the training clips, a random window of each.
        steps: stop after this many optimiser steps.
        batch_size: clips a batch, over all processes.
        learning_rate: Adam's rate for the weights, the peak of the schedule.
        stride_learning_rate: Adam's rate for the strides.
        aliasing_learning_rate: Adam's rate for the aliasing, which lies in [0, 1].
        schedule: "constant", "one_cycle" or "cosine", see `schedule_factor`.
        warmup_steps: steps over which the rates rise to their peak, before the schedule begins.
        weight_decay: Adam's L2 penalty on the weights, never on strides.
        stride_cost: lambda of the regulariser `complexity.stride_cost`.
        gradient_clip: largest norm of the gradient of all parameters together; None: no limit.
        accumulate: batches a step, whose gradients are averaged; the last step of an epoch may have fewer.
        ema_decay: validate and keep a moving average of the weights, see `update_average_`; None: do not.
        early_stopping: stop after this many epochs without a better one; None: do not.
        mixing: how several data sets are mixed, see `plan_epoch`.
        precision: "float32"; or "bfloat16": convolutions and matrix products of the training steps in half
            precision (autocast). Weights, masks, batch norm, losses and evaluation stay in float32.
        sync_batch_norm: on several GPUs, batch norm over the whole batch instead of each GPU's share.
        checkpoint_steps: save a checkpoint every so many steps, too; None: at the end of each epoch only.
        keep_checkpoints: how many of the newest checkpoints are kept, beside the best.
        task_weights: weight of each task's loss, 1 where missing.
        class_weights: for a task the weight of each of its classes in the loss, on the model's device.
        augmentation: what is done to training batches; None: nothing.
        seed: decides order and windows.
        workers: processes that decode audio.
        resume: go on from the newest unharmed checkpoint in `out`; from the beginning if there is none.
        allow_inexact: resume although `conditions` differ from the checkpoint's.
        conditions: plain data on which the result depends (recipe, machine, versions), kept in every
            checkpoint; a run is not resumed where they differ.
        on_step: progress callback.
        on_epoch: progress callback.
        notify: called with a line when a run is resumed or a checkpoint turns out to be damaged.

    Raises:
        TrainingError: if the loss is not finite; the weights are those before that step.
        Interrupted: after SIGTERM or SIGINT, once a checkpoint is saved.
        WriteError: if the disk is full; names the path and the free bytes.
        ModelFileError: if the run cannot be resumed exactly; names each difference.
        UsageError: if `out` holds checkpoints and `resume` is not set.
        DataError: if a file cannot be read.
        ValueError: if an argument is out of range.
    """
    if precision not in ("float32", "bfloat16"):
        raise ValueError(f"precision must be float32 or bfloat16, got {precision!r}")
    engine = start_processes(find_unused_parameters=len(sets) > 1)
    device = model.frontend.window.device
    if sync_batch_norm:
        if device.type != "cuda":
            raise ValueError("sync_batch_norm needs GPUs, there is no synchronised batch norm on the CPU")
        nn.SyncBatchNorm.convert_sync_batchnorm(model)
    optimizer = torch.optim.Adam(
        parameter_groups(model, learning_rate, stride_learning_rate, aliasing_learning_rate), weight_decay=weight_decay
    )
    peak_rates = [group["lr"] for group in optimizer.param_groups]
    stride_rate = next((group["lr"] for group in optimizer.param_groups if group["name"] == "strides"), None)
    sizes = [len(data.indexes("train")) for data in sets]
    n_steps = epochs * -(-len(plan_epoch(sizes, batch_size, mixing, seed, epoch=0)) // accumulate)
    n_steps = min(n_steps, steps or n_steps)
    weights = task_weights or {}
    conditions = {**(conditions or {}), "processes": process_count()}
    run = RunState(model, None if ema_decay is None else copy.deepcopy(model), optimizer)
    if process_index():  # all have the same weights by now; what they draw from here on should differ
        torch.manual_seed(seed + process_index())

    found = broadcast(_find_checkpoint(out, resume, notify) if is_main() else None)
    if found:
        check_conditions(conditions, found.state.get("conditions", {}), allow_inexact, notify)
        run.restore(found)
    if resume and is_main():
        notify(f"resumed from checkpoint {found.name}" if found else "there is no checkpoint: from the beginning")

    with ExitStack() as stack:
        logs: dict[str, JsonLines] = {}
        if is_main():
            for name in (STEPS_FILE, METRICS_FILE):
                logs[name] = stack.enter_context(JsonLines(out / name, run.log_bytes.get(name, 0)))
            if found:
                _restore_best(out, run, found, notify)
        stop = stack.enter_context(StopSignals())
        parallel = engine.prepare_model(model)

        def save() -> None:
            run.log_bytes = {name: log.sync() for name, log in logs.items()}
            checkpoint = run.checkpoint(conditions)
            if is_main():
                save_checkpoint(out / CHECKPOINTS, checkpoint)
                if run.best_checkpoint == run.name:
                    run.judged.save(out)
                prune_checkpoints(out / CHECKPOINTS, keep_checkpoints, run.best_checkpoint)

        def while_evaluating(*_: object) -> None:
            # Several processes must stop at the same moment; they agree on one only at a step.
            if stop.number and process_count() == 1:
                save()
                raise interrupted(stop.number, run.step)

        while not run.finished:
            model.train()
            seen, clips_per_s, began = 0, 0.0, time.perf_counter()
            batches = training_batches(
                sets,
                model.frontend.sample_rate,
                model.window_length,
                batch_size,
                mixing,
                seed,
                run.epoch,
                workers,
                augmentation,
                first=run.batch,
                process=(process_index(), process_count()),
            )
            for group in islice(_grouped(batches, accumulate), n_steps - run.step):
                factor = schedule_factor(schedule, run.step, n_steps, warmup_steps)
                for parameters, rate in zip(optimizer.param_groups, peak_rates, strict=True):
                    parameters["lr"] = rate * factor

                optimizer.zero_grad(set_to_none=True)
                own_loss = 0.0
                for i, batch in enumerate(group):
                    labels = {task: numbers.to(device) for task, numbers in batch.labels.items()}
                    # Processes exchange gradients once a step, after its last batch.
                    with engine.no_sync(parallel) if i + 1 < len(group) else nullcontext():
                        with (
                            augmented(model.frontend, augmentation.log_mel if augmentation else (), batch.seeds),
                            torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"),
                        ):
                            logits = parallel(batch.waveform.to(device), tuple(labels))
                        losses = {
                            task: task_loss(logits[task], numbers, model.kinds[task], (class_weights or {}).get(task))
                            for task, numbers in labels.items()
                        }
                        # The exchange averages over processes, whose shares of the clips may differ.
                        shares = {
                            task: process_count() * share_of_mean(numbers, batch.share, (class_weights or {}).get(task))
                            for task, numbers in labels.items()
                        }
                        loss = torch.stack([weights.get(t, 1.0) * x * shares[t] for t, x in losses.items()]).sum()
                        if stride_cost:
                            loss = loss + stride_cost * stride_cost_of(model)
                        loss = loss / len(group)
                        engine.backward(loss)
                    own_loss += float(loss.detach())
                    seen += len(batch.names) * process_count()
                    if batch.share:
                        for task, value in losses.items():
                            right = share_right(logits[task].detach(), labels[task], model.kinds[task])
                            # Sums over the processes are those of one: a clip's part in its batch is its weight's.
                            n_whole = len(right) / batch.share
                            _count(run.totals, task, value.item() * n_whole * shares[task] / process_count(), right)

                loss_value, signal_number = _agree(own_loss, stop.number, model, run.step, device)
                norm = 0.0
                if gradient_clip is not None:
                    norm = float(nn.utils.clip_grad_norm_(model.parameters(), gradient_clip))
                if not math.isfinite(loss_value) or not math.isfinite(norm):
                    what = f"gradient became {norm}" if math.isfinite(loss_value) else f"loss became {loss_value}"
                    names = [name for own in gather([n for batch in group for n in batch.names]) for name in own]
                    raise TrainingError(
                        f"the {what} at step {run.step}, before the update; lower train.learning_rate or look at "
                        f"this batch's files: {', '.join(names)}"
                    )
                optimizer.step()
                clamp_strides_(model)
                if run.average is not None and ema_decay is not None:
                    update_average_(run.average, model, ema_decay, run.step)

                run.step += 1
                run.batch += len(group)
                clips_per_s = seen / (time.perf_counter() - began)
                if is_main():
                    logs[STEPS_FILE].append({"step": run.step, "loss_hex": loss_value.hex()})
                if on_step:
                    on_step(run.step, n_steps, loss_value, clips_per_s)
                if signal_number or (checkpoint_steps and run.step % checkpoint_steps == 0):
                    save()
                if signal_number:
                    raise interrupted(signal_number, run.step)

            broadcast_buffers_(run.judged)
            validation: dict[str, dict[str, float]] = {}
            headlines: list[float] = []
            for data in sets:
                held_back = data.indexes("validation")
                scores, _ = evaluate(run.judged, data.clips, data.labels, held_back, workers, while_evaluating)
                validation |= {task: s.metrics() for task, s in scores.items()}
                headlines += [s.headline for s in scores.values()]
            reached = (sum(headlines) / len(headlines), -sum(s["loss"] for s in validation.values()))

            factor = schedule_factor(schedule, run.step - 1, n_steps, warmup_steps)
            state = {
                "epoch": run.epoch + 1,
                "step": run.step,
                "strides": model.trunk.strides(),
                **({"aliasing": aliasing} if (aliasing := model.trunk.aliasing()) else {}),
                "lr": peak_rates[0] * factor,
                "stride_lr": None if stride_rate is None else stride_rate * factor,
                "clips_per_s": clips_per_s,
            }
            training = _means(gather(run.totals))
            for split, tasks in (("train", training), ("validation", validation)):
                record = state | {"split": split, "tasks": tasks}
                if is_main():
                    logs[METRICS_FILE].append(record)
                if on_epoch:
                    on_epoch(record)

            run.epoch, run.batch, run.totals = run.epoch + 1, 0, {}
            run.epochs_since_best += 1
            if reached > run.best:
                run.best, run.best_checkpoint, run.epochs_since_best = reached, run.name, 0
            stale = early_stopping is not None and run.epochs_since_best >= early_stopping
            run.finished = run.epoch == epochs or run.step == n_steps or stale
            save()

        if stop.number:
            raise interrupted(stop.number, run.step)


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


def share_of_mean(labels: Tensor, share: float, class_weights: Tensor | None = None) -> float:
    """Share of this process' loss in the mean loss over a batch that several processes have split among them.

    A weighted cross-entropy of class numbers is a mean by weight, so its share is that of the
    weights, which the processes tell each other; every other loss is a mean over clips.

    Args:
        labels: class numbers ``(n,)`` of this process' clips, or shares of the classes ``(n, n_classes)``.
        share: of the clips, from 0 to 1.
        class_weights: weight of each class ``(n_classes,)``.

    Example:
        >>> share_of_mean(torch.tensor([0, 1]), 1.0, torch.tensor([0.5, 2.0]))
        1.0
    """
    if class_weights is None or labels.dim() > 1 or process_count() == 1:
        return share
    own = class_weights[labels].double().sum().item() if share else 0.0
    return own / sum(numbers[0] for numbers in gather_numbers([own], labels.device))


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


def _find_checkpoint(out: Path, resume: bool, notify: Notify) -> Checkpoint | None:
    folder = out / CHECKPOINTS
    if not resume:
        if list_checkpoints(folder):
            raise UsageError(f"{folder}: holds checkpoints of another run; resume it, or train in another folder")
        return None
    return newest_checkpoint(folder, notify)


def _restore_best(out: Path, run: RunState, found: Checkpoint, notify: Notify) -> None:
    """Put the best epoch's model into the run directory: a crash may have hit just that."""
    if run.best_checkpoint:
        try:
            best = found
            if run.best_checkpoint != found.name:
                best = load_checkpoint(out / CHECKPOINTS / run.best_checkpoint)
            save_model(out, run.model.config(), best.tensors["model" if run.average is None else "average"])
        except ModelFileError as error:
            notify(f"the model of the best epoch so far is left as it is: {error}")


def _agree(
    own_loss: float, own_signal: int, model: AudioClassifier, step: int, device: torch.device
) -> tuple[float, int]:
    """Mean loss and latest signal over all processes; their strides must be equal, or so would not be their maps."""
    strides = [value for block in model.trunk.strides() for value in block]
    everyone = gather_numbers([own_loss, own_signal, *strides], device)
    for index, (_, _, *others) in enumerate(everyone):
        if others != everyone[0][2:]:
            raise TrainingError(f"strides of process {index} differ from those of process 0 at step {step}: {others}")
    return sum(numbers[0] for numbers in everyone) / len(everyone), int(max(numbers[1] for numbers in everyone))


def _grouped(items: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(items)
    while group := list(islice(iterator, size)):
        yield group


def _cosine(first: float, last: float, share: float) -> float:
    return last + (first - last) * (1 + math.cos(math.pi * share)) / 2


def _count(totals: Totals, task: str, loss: float, right: Tensor) -> None:
    total = totals.setdefault(task, {"loss": 0.0, "accuracy": 0.0, "n": 0.0})
    total["loss"] += loss
    total["accuracy"] += right.sum().item()
    total["n"] += len(right)


def _means(parts: Sequence[Totals]) -> Totals:
    """Mean loss and accuracy of each task from the sums of all processes."""
    n = {task: sum(part[task]["n"] for part in parts if task in part) for part in parts for task in part}
    return {
        task: {key: sum(part[task][key] for part in parts if task in part) / n[task] for key in ("loss", "accuracy")}
        for task in n
    }
