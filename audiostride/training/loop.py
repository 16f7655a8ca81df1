"""The training loop for sounds and images, to be read from top to bottom: step, exchange, update, validate, keep."""

import copy
import time
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
from ..models.adaptive_log_mel import learned_resolution
from ..models.classifier import AudioClassifier
from .checkpoints import Checkpoint, Notify
from .conditions import check_conditions, identity
from .directory import METRICS_FILE, STEPS_FILE
from .distillation import Teacher
from .evaluation import evaluate
from .interrupt import StopSignals, interrupted
from .optimizers import make_optimizer
from .processes import broadcast_buffers_, gather, is_main, parallel, process_count, process_index
from .processes import start as start_processes
from .recipe import TrainSection
from .report import Report
from .resuming import RunState
from .saving import RunFiles
from .schedules import schedule_factor
from .steps import Objective, check_finite, exchange, mean_scores, stride_gradient_norm, update_average_

T = TypeVar("T")


def train(
    model: AudioClassifier,
    sets: Sequence[LabelledClips],
    out: Path,
    settings: TrainSection,
    *,
    seed: int = 0,
    task_weights: Mapping[str, float] | None = None,
    class_weights: Mapping[str, Tensor] | None = None,
    augmentation: Augmentation | None = None,
    teacher: Teacher | None = None,
    resume: bool = False,
    allow_inexact: bool = False,
    conditions: Mapping[str, Any] | None = None,
    report: Report = Report(),  # noqa: B008 (frozen)
) -> str:
    """Train a classifier and write what docs/training.md lists under "What a run leaves", up to the results, to `out`.

    Data without validation clips is scored on its test clips, for information only; then the last epoch must be kept.
    With the same arguments, machine and number of threads the result is bit-exact, however often the training was
    stopped and resumed. If torchrun started several processes, each takes its share of every batch and only process 0
    writes.

    Args:
        model: the classifier, on its device.
        sets: the data sets; clips carry the labels of their own set's tasks.
        out: run directory, which exists.
        settings: the `train` section of a recipe; its teacher is not read, see `teacher`.
        seed: decides order and windows.
        task_weights: weight of each task's loss, 1 where missing.
        class_weights: for a task the weight of each of its classes in the loss, on the model's device.
        augmentation: transforms of training clips.
        teacher: a trained classifier to learn from in addition to the labels, on the model's device.
        resume: continue from the newest undamaged checkpoint in `out`, or begin if there is none.
        allow_inexact: resume even if `conditions` differ from the checkpoint's.
        conditions: plain data on which the result depends (recipe, machine, versions), saved in every checkpoint.
        report: callbacks; `progress` and `on_start` are not used.

    Returns:
        The identity of the run, see `conditions.identity`.

    Raises:
        TrainingError: if the loss is not finite; the weights are those before that step.
        Interrupted: after SIGTERM or SIGINT, once a checkpoint is saved.
        WriteError: if the disk is full; names the path and the free bytes.
        ModelFileError: if the run cannot be resumed exactly; names each difference.
        UsageError: if `out` holds checkpoints and `resume` is not set.
        DataError: if a file cannot be read.
        ValueError: if a setting does not fit the model, the data or the device.
    """
    start_processes()
    watched = _check_settings(settings, model, sets)
    if settings.sync_batch_norm:
        nn.SyncBatchNorm.convert_sync_batchnorm(model)
    optimizer = make_optimizer(model, settings)
    peak_rates = {group["name"]: group["lr"] for group in optimizer.param_groups}
    sizes = [len(data.indexes("train")) for data in sets]
    n_batches = len(plan_epoch(sizes, settings.batch_size, settings.mixing, seed, epoch=0))
    steps_per_epoch = -(-n_batches // settings.accumulate)
    n_steps = min(settings.epochs * steps_per_epoch, settings.steps or settings.epochs * steps_per_epoch)
    drop_steps = [epoch * steps_per_epoch for epoch in settings.drop_epochs]
    log_mel_transforms = augmentation.log_mel if augmentation else ()
    objective = Objective(settings, task_weights or {}, class_weights or {}, log_mel_transforms, teacher)
    files = RunFiles(out, {**(conditions or {}), "processes": process_count()}, settings.keep_checkpoints)
    average = None if settings.ema_decay is None else copy.deepcopy(model)
    run = RunState(model, average, optimizer, identity=identity(files.conditions))
    if process_index():  # all have the same weights by now; what they draw from here on should differ
        torch.manual_seed(seed + process_index())

    def rates(step: int) -> dict[str, float]:
        factor = schedule_factor(settings.schedule, step, n_steps, settings.warmup_steps, drop_steps)
        return {name: rate * factor for name, rate in peak_rates.items()}

    found = _take_up(run, files, resume, allow_inexact, report.notify)
    with files.opened(run, found, report.notify), StopSignals() as stop, workers_ended():
        replica = parallel(model, find_unused_parameters=len(sets) > 1)

        def while_evaluating(*_: object) -> None:
            # Several processes must stop at the same moment; they agree on one only at a step.
            if stop.number and process_count() == 1:
                files.save(run)
                raise interrupted(stop.number, run.step)

        while not run.finished:
            model.train()
            seen, clips_per_s, began = 0, 0.0, time.perf_counter()
            batches = _batches(run, sets, settings, seed, augmentation)
            for group in islice(_grouped(batches, settings.accumulate), n_steps - run.step):
                # Step: the losses and gradients of this process' share of the batches.
                for parameters, rate in zip(optimizer.param_groups, rates(run.step).values(), strict=True):
                    parameters["lr"] = rate
                optimizer.zero_grad(set_to_none=True)
                own_loss = objective.gradients(replica, model, group, run.totals)

                # Exchange: one loss, one decision to stop, and no update by a non-finite gradient.
                loss, signal_number = exchange(own_loss, stop.number, model, run.step)
                norm = stride_gradient_norm(optimizer)
                if settings.gradient_clip is not None:
                    norm = float(nn.utils.clip_grad_norm_(model.parameters(), settings.gradient_clip))
                check_finite(loss, norm, run.step, group)

                # Update.
                optimizer.step()
                clamp_strides_(model, settings.highest_stride or float("inf"))
                if run.average is not None and settings.ema_decay is not None:
                    update_average_(run.average, model, settings.ema_decay, run.step)
                run.step += 1
                run.batch += len(group)
                seen += process_count() * sum(len(batch.names) for batch in group)
                clips_per_s = seen / (time.perf_counter() - began)
                files.log(STEPS_FILE, {"step": run.step, "loss_hex": loss.hex()})
                report.on_step(run.step, n_steps, loss, clips_per_s)
                for line in (line for batch in group for line in batch.left_out):
                    report.notify(f"step {run.step}: continued without {line}")
                if signal_number or (settings.checkpoint_steps and run.step % settings.checkpoint_steps == 0):
                    files.save(run)
                if signal_number:
                    raise interrupted(signal_number, run.step)

            # Validate.
            is_last = run.epoch + 1 == settings.epochs or run.step == n_steps
            is_due = is_last or (run.epoch + 1) % settings.validate_every == 0
            scores, reached = (
                _validate(run.judged, sets, watched, settings.workers, while_evaluating) if is_due else ({}, None)
            )
            for record in _epoch_records(run, watched, scores, rates(run.step - 1), clips_per_s):
                files.log(METRICS_FILE, record)
                report.on_epoch(record)

            # Keep.
            run.end_epoch(reached, settings.keep)
            is_stale = settings.early_stopping is not None and run.epochs_since_best >= settings.early_stopping
            run.finished = is_last or (is_stale and is_due)
            files.save(run)

        if stop.number:
            raise interrupted(stop.number, run.step)
    return run.identity


def _take_up(run: RunState, files: RunFiles, resume: bool, allow_inexact: bool, notify: Notify) -> Checkpoint | None:
    """Go back to the moment of the newest checkpoint, if there is one to resume."""
    found = files.newest(resume, notify)
    if found:
        check_conditions(files.conditions, found.state.get("conditions", {}), allow_inexact, notify)
        run.restore(found)
    if resume and is_main():
        notify(f"resumed from checkpoint {found.name}" if found else "no checkpoint found: starting from the beginning")
    return found


def _check_settings(settings: TrainSection, model: AudioClassifier, sets: Sequence[LabelledClips]) -> str:
    """Check settings against the model, the data and the device; returns the split that is scored after each epoch."""
    several = [task for task, kind in model.kinds.items() if kind == "multilabel"]
    if settings.label_smoothing and several:
        raise ValueError(f"label_smoothing is for tasks with one class per clip, but {several[0]!r} is multilabel")
    if settings.sync_batch_norm and model.device.type != "cuda":
        raise ValueError("sync_batch_norm needs GPUs, there is no synchronised batch norm on the CPU")
    if all(len(data.indexes("validation")) for data in sets):
        return "validation"
    if settings.keep == "best":
        raise ValueError("there are no validation clips to choose the best epoch by; keep the last one")
    return "test"


def _batches(
    run: RunState, sets: Sequence[LabelledClips], settings: TrainSection, seed: int, augmentation: Augmentation | None
) -> Iterator[TrainingBatch]:
    """This process' share of the batches that are left of the epoch."""
    return training_batches(
        sets,
        run.model.resolution,
        run.model.window_length,
        settings.batch_size,
        settings.mixing,
        seed,
        run.epoch,
        settings.workers,
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
        "run": run.identity,
        "epoch": run.epoch + 1,
        "step": run.step,
        "strides": run.judged.trunk.strides(),
        **learned_resolution(run.judged),
        **({"aliasing": aliasing} if (aliasing := run.judged.trunk.aliasing()) else {}),
        "lr": rates["weights"],
        "stride_lr": rates.get("strides"),
        "clips_per_s": clips_per_s,
    }
    training = mean_scores(gather(run.totals))
    return [state | {"split": split, "tasks": t} for split, t in (("train", training), (watched, scores)) if t]
