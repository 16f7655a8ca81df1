"""The training loop for sounds and images, to be read from top to bottom: step, exchange, update, validate, keep.

`train` is one long function on purpose: half of it says what its settings are, the rest is the order of things.
"""

import copy
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ..data.augment import Augmentation
from ..data.batches import LabelledClips, TrainingBatch, training_batches
from ..data.epoch_plan import plan_epoch
from ..data.loading import workers_ended
from ..layers.strides import clamp_strides_
from ..models.classifier import AudioClassifier
from .checkpoints import Checkpoint, Notify
from .conditions import check_conditions
from .directory import METRICS_FILE, STEPS_FILE
from .distillation import Teacher
from .evaluation import evaluate
from .interrupt import StopSignals, interrupted
from .keeping import RunFiles
from .optimizers import make_optimizer, update_average_
from .processes import broadcast_buffers_, gather, is_main, process_count, process_index
from .processes import start as start_processes
from .resuming import RunState
from .schedules import schedule_factor
from .steps import Objective, check_finite, exchange, mean_scores

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
    optimizer: str = "adam",
    momentum: float = 0.0,
    learning_rate: float,
    stride_learning_rate: float,
    aliasing_learning_rate: float = 0.06,
    schedule: str = "constant",
    drop_epochs: Sequence[int] = (),
    warmup_steps: int = 0,
    weight_decay: float = 0.0,
    stride_cost: float = 0.0,
    label_smoothing: float = 0.0,
    highest_stride: float | None = None,
    gradient_clip: float | None = None,
    accumulate: int = 1,
    ema_decay: float | None = None,
    validate_every: int = 1,
    early_stopping: int | None = None,
    keep: str = "best",
    mixing: str | float = "uniform",
    precision: str = "float32",
    sync_batch_norm: bool = False,
    checkpoint_steps: int | None = None,
    keep_checkpoints: int = 2,
    task_weights: Mapping[str, float] | None = None,
    class_weights: Mapping[str, Tensor] | None = None,
    augmentation: Augmentation | None = None,
    teacher: Teacher | None = None,
    seed: int = 0,
    workers: int = 0,
    resume: bool = False,
    allow_inexact: bool = False,
    conditions: Mapping[str, Any] | None = None,
    assumed: Mapping[str, Any] | None = None,
    on_step: OnStep | None = None,
    on_epoch: OnEpoch | None = None,
    notify: Notify = warnings.warn,
) -> None:
    """Train a classifier and leave its best validation epoch, or its last one, in `out`.

    Writes `steps.jsonl`, `metrics.jsonl`, checkpoints and, whenever the mean validation accuracy over
    the tasks improves (for a multilabel task the mean average precision; at equal ones the loss), the
    model. Data without validation clips is scored on its test clips instead, to be watched;
    then the last epoch must be kept, so that none is chosen by its test. With the same arguments,
    machine and number of threads the result is the same to the bit, however often it was stopped and
    resumed.

    Where torchrun started several processes, each takes its share of every batch and only process 0
    writes.

    Args:
        model: the classifier, on its device.
        sets: the data sets; clips carry the labels of their own set's tasks.
        out: run directory, which exists.
        epochs: passes over the training clips, a random window of each.
        steps: stop after this many optimiser steps.
        batch_size: clips a batch, over all processes.
        optimizer: "adam", "adamw" or "sgd", see `make_optimizer`.
        momentum: SGD's.
        learning_rate: the rate for the weights, the peak of the schedule.
        stride_learning_rate: the rate for the strides.
        aliasing_learning_rate: the rate for the aliasing, which lies in [0, 1].
        schedule: "constant", "one_cycle", "cosine" or "step", see `schedule_factor`.
        drop_epochs: for "step" the epochs after which the rates fall to a tenth.
        warmup_steps: steps over which the rates rise to their peak, before the schedule begins.
        weight_decay: of the weights, never of strides.
        stride_cost: lambda of the regulariser `models.cost.stride_cost`.
        label_smoothing: share of the truth that is spread evenly over all classes of a multiclass or binary task while
            it trains, 0 to 1; scores and validation losses know nothing of it.
        highest_stride: what learned strides are held to besides half their map; None: no such limit.
        gradient_clip: largest norm of the gradient of all parameters together; None: no limit.
        accumulate: batches a step, whose gradients are averaged; the last step of an epoch may have fewer.
        ema_decay: validate and keep a moving average of the weights, see `update_average_`; None: do not.
        validate_every: score the validation clips after every so many epochs, and after the last one.
        early_stopping: stop after this many epochs without a better one, once that is known; None: do not.
        keep: "best": the model of the best validation epoch; "last": of the last epoch.
        mixing: how several data sets are mixed, see `plan_epoch`.
        precision: "float32"; or "bfloat16": convolutions and matrix products of the training steps in half
            precision (autocast). Weights, masks, batch norm, losses and evaluation stay in float32.
        sync_batch_norm: on several GPUs, batch norm over the whole batch instead of each GPU's share.
        checkpoint_steps: save a checkpoint every so many steps, too; None: at the end of each epoch only.
        keep_checkpoints: how many of the newest checkpoints are kept, beside the best.
        task_weights: weight of each task's loss, 1 where missing.
        class_weights: for a task the weight of each of its classes in the loss, on the model's device.
        augmentation: what is done to training batches; None: nothing.
        teacher: a trained classifier that is learned from beside the labels, on the model's device; None: nobody.
        seed: decides order and windows.
        workers: processes that decode audio.
        resume: go on from the newest unharmed checkpoint in `out`; from the beginning if there is none.
        allow_inexact: resume although `conditions` differ from the checkpoint's.
        conditions: plain data on which the result depends (recipe, machine, versions), kept in every
            checkpoint; a run is not resumed where they differ.
        assumed: what conditions were before they had a name; for checkpoints of an earlier version.
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
    _check_smoothing(label_smoothing, model)
    engine = start_processes(find_unused_parameters=len(sets) > 1)
    if sync_batch_norm:
        _synchronise_batch_norm(model)
    watched = _watched_split(sets, keep)
    updates = make_optimizer(
        model, optimizer, learning_rate, stride_learning_rate, aliasing_learning_rate, weight_decay, momentum
    )
    peak_rates = {group["name"]: group["lr"] for group in updates.param_groups}
    sizes = [len(data.indexes("train")) for data in sets]
    steps_per_epoch = -(-len(plan_epoch(sizes, batch_size, mixing, seed, epoch=0)) // accumulate)
    n_steps = min(epochs * steps_per_epoch, steps or epochs * steps_per_epoch)
    drop_steps = [epoch * steps_per_epoch for epoch in drop_epochs]
    log_mel_transforms = augmentation.log_mel if augmentation else ()
    objective = Objective(
        stride_cost, label_smoothing, precision, task_weights or {}, class_weights or {}, log_mel_transforms, teacher
    )
    files = RunFiles(out, {**(conditions or {}), "processes": process_count()}, keep_checkpoints)
    run = RunState(model, None if ema_decay is None else copy.deepcopy(model), updates)
    if process_index():  # all have the same weights by now; what they draw from here on should differ
        torch.manual_seed(seed + process_index())

    found = _take_up(run, files, resume, allow_inexact, assumed or {}, notify)
    with files.opened(run, found, notify), StopSignals() as stop, workers_ended():
        parallel = engine.prepare_model(model)

        def rates(step: int) -> dict[str, float]:
            factor = schedule_factor(schedule, step, n_steps, warmup_steps, drop_steps)
            return {name: rate * factor for name, rate in peak_rates.items()}

        def while_evaluating(*_: object) -> None:
            # Several processes must stop at the same moment; they agree on one only at a step.
            if stop.number and process_count() == 1:
                files.save(run)
                raise interrupted(stop.number, run.step)

        while not run.finished:
            model.train()
            seen, clips_per_s, began = 0, 0.0, time.perf_counter()
            batches = _batches(run, sets, batch_size, mixing, seed, workers, augmentation)
            for group in islice(_grouped(batches, accumulate), n_steps - run.step):
                # Step: the losses and gradients of this process' share of the batches.
                for parameters, rate in zip(updates.param_groups, rates(run.step).values(), strict=True):
                    parameters["lr"] = rate
                updates.zero_grad(set_to_none=True)
                own_loss = objective.gradients(engine, parallel, model, group, run.totals)

                # Exchange: one loss, one decision to stop, and nothing that is no number.
                loss, signal_number = exchange(own_loss, stop.number, model, run.step)
                norm = 0.0
                if gradient_clip is not None:
                    norm = float(nn.utils.clip_grad_norm_(model.parameters(), gradient_clip))
                check_finite(loss, norm, run.step, group)

                # Update.
                updates.step()
                clamp_strides_(model, highest_stride or float("inf"))
                if run.average is not None and ema_decay is not None:
                    update_average_(run.average, model, ema_decay, run.step)
                run.step += 1
                run.batch += len(group)
                seen += process_count() * sum(len(batch.names) for batch in group)
                clips_per_s = seen / (time.perf_counter() - began)
                files.log(STEPS_FILE, {"step": run.step, "loss_hex": loss.hex()})
                if on_step:
                    on_step(run.step, n_steps, loss, clips_per_s)
                for line in (line for batch in group for line in batch.left_out):
                    notify(f"step {run.step}: continued without {line}")
                if signal_number or (checkpoint_steps and run.step % checkpoint_steps == 0):
                    files.save(run)
                if signal_number:
                    raise interrupted(signal_number, run.step)

            # Validate.
            is_last = run.epoch + 1 == epochs or run.step == n_steps
            is_due = is_last or (run.epoch + 1) % validate_every == 0
            scores, reached = _validate(run.judged, sets, watched, workers, while_evaluating) if is_due else ({}, None)
            for record in _epoch_records(run, watched, scores, rates(run.step - 1), clips_per_s):
                files.log(METRICS_FILE, record)
                if on_epoch:
                    on_epoch(record)

            # Keep.
            run.end_epoch(reached, keep)
            is_stale = early_stopping is not None and run.epochs_since_best >= early_stopping
            run.finished = is_last or (is_stale and is_due)
            files.save(run)

        if stop.number:
            raise interrupted(stop.number, run.step)


def _take_up(
    run: RunState, files: RunFiles, resume: bool, allow_inexact: bool, assumed: Mapping[str, Any], notify: Notify
) -> Checkpoint | None:
    """Go back to the moment of the newest checkpoint, if there is one to resume."""
    found = files.newest(resume, notify)
    if found:
        check_conditions(files.conditions, found.state.get("conditions", {}), allow_inexact, notify, assumed)
        run.restore(found)
    if resume and is_main():
        notify(f"resumed from checkpoint {found.name}" if found else "no checkpoint found: starting from the beginning")
    return found


def _watched_split(sets: Sequence[LabelledClips], keep: str) -> str:
    """The split that is scored after each epoch."""
    if keep not in ("best", "last"):
        raise ValueError(f"keep must be best or last, got {keep!r}")
    if all(len(data.indexes("validation")) for data in sets):
        return "validation"
    if keep == "best":
        raise ValueError("there are no validation clips to choose the best epoch by; keep the last one")
    return "test"


def _check_smoothing(label_smoothing: float, model: AudioClassifier) -> None:
    several = [task for task, kind in model.kinds.items() if kind == "multilabel"]
    if label_smoothing and several:
        raise ValueError(f"label_smoothing is for tasks with one class per clip, but {several[0]!r} is multilabel")


def _synchronise_batch_norm(model: AudioClassifier) -> None:
    if model.frontend.window.device.type != "cuda":
        raise ValueError("sync_batch_norm needs GPUs, there is no synchronised batch norm on the CPU")
    nn.SyncBatchNorm.convert_sync_batchnorm(model)


def _batches(
    run: RunState,
    sets: Sequence[LabelledClips],
    batch_size: int,
    mixing: str | float,
    seed: int,
    workers: int,
    augmentation: Augmentation | None,
) -> Iterator[TrainingBatch]:
    """This process' share of the batches that are left of the epoch."""
    return training_batches(
        sets,
        run.model.resolution,
        run.model.window_length,
        batch_size,
        mixing,
        seed,
        run.epoch,
        workers,
        augmentation,
        first=run.batch,
        process=(process_index(), process_count()),
    )


def _grouped(items: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(items)
    while group := list(islice(iterator, size)):
        yield group


def _validate(
    model: AudioClassifier, sets: Sequence[LabelledClips], split: str, workers: int, progress: Callable[..., None]
) -> tuple[dict[str, dict[str, float]], tuple[float, float]]:
    """Scores of every task on a split, and what epochs are compared by: mean primary metric, then minus the loss."""
    broadcast_buffers_(model)
    metrics: dict[str, dict[str, float]] = {}
    primary_metrics: list[float] = []
    for data in sets:
        scores, _ = evaluate(model, data.clips, data.labels, data.indexes(split), workers, progress)
        metrics |= {task: s.metrics() for task, s in scores.items()}
        primary_metrics += [s.primary_metric for s in scores.values()]
    return metrics, (sum(primary_metrics) / len(primary_metrics), -sum(s["loss"] for s in metrics.values()))


def _epoch_records(
    run: RunState, watched: str, scores: dict[str, dict[str, float]], rates: Mapping[str, float], clips_per_s: float
) -> list[dict[str, Any]]:
    """The lines of `metrics.jsonl` of the epoch that ends; one where it was not scored."""
    state = {
        "epoch": run.epoch + 1,
        "step": run.step,
        "strides": run.judged.trunk.strides(),
        **({"aliasing": aliasing} if (aliasing := run.judged.trunk.aliasing()) else {}),
        "lr": rates["weights"],
        "stride_lr": rates.get("strides"),
        "clips_per_s": clips_per_s,
    }
    training = mean_scores(gather(run.totals))
    return [state | {"split": split, "tasks": t} for split, t in (("train", training), (watched, scores)) if t]
