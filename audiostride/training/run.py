"""One run: a recipe in, a run directory out."""

import random
from collections.abc import Sequence
from contextlib import closing, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..data.augment import Augmentation
from ..data.batches import LabelledClips
from ..data.clips import Progress
from ..data.images import colours
from ..data.preparation import make_class_weights
from ..errors import RecipeError
from ..files import replace_file
from ..models.classifier import AudioClassifier, load
from ..models.image_frontend import ImageFrontend
from .build import heard_channel, load_teacher, make_network, read_data, take_up
from .calibration import calibrate, centre_heads_
from .checkpoints import Notify, list_checkpoints
from .conditions import conditions, environment
from .directory import CHECKPOINTS, PREDICTIONS_FILE, RECIPE_FILE, claimed
from .evaluation import evaluate
from .event_clips import find_event_settings
from .loop import train
from .predictions_file import TaskPredictions, make_predictions, write_predictions
from .processes import broadcast, is_main
from .processes import start as start_processes
from .recipe import Recipe, dump_recipe
from .report import Report
from .run_files import write_results
from .run_testing import describe
from .tensorboard import TensorBoardLog
from .transforms import make_transforms


def run(
    recipe: Recipe,
    out: Path,
    report: Report = Report(),  # noqa: B008 (frozen)
    resume: bool = False,
    allow_inexact: bool = False,
    augmentation: Augmentation | None = None,
) -> dict[str, Any]:
    """Train the recipe's model, test it, and leave everything in the run directory.

    Args:
        recipe: from `load_recipe`.
        out: the run directory, empty or not there yet, see `run_directory`.
        report: callbacks.
        resume: continue the run in `out` where it stopped; the result is bit-exact.
        allow_inexact: resume even if recipe, data, machine or versions have changed.
        augmentation: your own transforms of training clips, in place of the recipe's `augment`.

    Returns:
        What is written to `results.json`.

    Raises:
        RecipeError: if settings contradict each other.
        DataError: if data is missing or cannot be used.
        UsageError: if another process trains in `out`, or it holds a trained model and no checkpoints.
        TrainingError: if the loss is not finite.
        Interrupted: after SIGTERM or SIGINT, once a checkpoint is saved.
        WriteError: if the disk is full; names the path and the free bytes.
        ModelFileError: if the run cannot be resumed exactly; names each difference.
    """
    if recipe.sweep:
        raise RecipeError("sweep: a run has one value of each key; train all of them with audiostride sweep")
    device = _prepare_device(recipe, report.notify)
    with claimed(out) if is_main() else nullcontext():
        recipe, start = take_up(recipe)
        augmentation = augmentation or make_transforms(recipe)
        frontend, trunk = make_network(recipe) if start is None else (start.frontend, start.trunk)
        teacher = load_teacher(recipe)
        sets, labels, bad_files = read_data(recipe, report.progress)
        if teacher:
            teacher.match_classes(labels)
            teacher.model.to(device)
        if start is None and isinstance(frontend, ImageFrontend):
            frontend.normalise_by(*colours(sets[0].clips, sets[0].indexes("train"), frontend.size))
        kinds = {name: task.kind for name, task in recipe.tasks.items()}
        try:
            model = AudioClassifier(frontend, trunk, labels, recipe.window_s, kinds)
        except ValueError as error:
            raise RecipeError(f"tasks: {error}") from error
        model.channel = heard_channel(recipe)
        if recipe.model.linear_probe:
            model.freeze()
        model.to(device)
        if recipe.train.sync_batch_norm and device.type != "cuda":
            raise RecipeError("train.sync_batch_norm: needs GPUs, there is no synchronised batch norm on the CPU")
        class_weights = {name: w.to(device) for name, w in make_class_weights(recipe.tasks, sets, labels).items()}
        if is_main():
            _begin_directory(out, recipe, bad_files, replace_recipe=allow_inexact)
        report.on_start(model, sets, bad_files)
        with closing(TensorBoardLog(out, model, report)) if is_main() else nullcontext(report) as log:
            identity = train(
                model,
                sets,
                out,
                recipe.train,
                seed=recipe.seed,
                task_weights={name: task.weight for name, task in recipe.tasks.items()},
                class_weights=class_weights,
                augmentation=augmentation,
                teacher=teacher,
                resume=resume,
                allow_inexact=allow_inexact,
                conditions=conditions(recipe, sets, teacher),
                report=replace(report, on_epoch=log.on_epoch),
            )
        results, predictions = _test(recipe, out, sets, device, report.progress)
        results = {"run": identity} | results
        if is_main():
            write_predictions(out / PREDICTIONS_FILE, predictions)
            results = write_results(out, results)
        return broadcast(results)


def _prepare_device(recipe: Recipe, notify: Notify) -> torch.device:
    device = start_processes()
    emulated = device.type == "cpu" and torch.backends.cpu.get_cpu_capability() == "AVX2"  # x86 without AVX-512
    if recipe.train.precision == "bfloat16" and emulated:
        notify("train.precision: this CPU has to emulate bfloat16; train.precision=float32 is faster here")
    torch.backends.cudnn.deterministic = True  # else a GPU run is not bit-exact when repeated or resumed
    torch.manual_seed(recipe.seed)
    random.seed(recipe.seed)
    np.random.seed(recipe.seed % 2**32)
    return device


def _begin_directory(out: Path, recipe: Recipe, bad_files: Sequence[str], replace_recipe: bool) -> None:
    if replace_recipe or not list_checkpoints(out / CHECKPOINTS):  # else it is the recipe's that they are of
        replace_file(out / RECIPE_FILE, dump_recipe(recipe))
    if bad_files:
        replace_file(out / "bad_files.txt", "\n".join(bad_files) + "\n")


def _test(
    recipe: Recipe, out: Path, sets: Sequence[LabelledClips], device: torch.device, progress: Progress | None
) -> tuple[dict[str, Any], dict[str, TaskPredictions]]:
    """Test the model that was kept, once it is calibrated and knows by which settings events are found."""
    best = broadcast(load(out) if is_main() else None)
    assert best is not None
    best.to(device)
    centre_heads_(best)
    calibration = calibrate(best, sets, recipe.train.workers)
    find_event_settings(best, sets)
    if is_main():
        best.save(out)
    tasks: dict[str, Any] = {}
    predictions: dict[str, TaskPredictions] = {}
    for data in sets:
        test = data.indexes("test")
        scores, logits = evaluate(best, data.clips, data.labels, test, recipe.train.workers, progress)
        tasks |= {task: {"split": "test"} | s.metrics() for task, s in scores.items()}
        for task in scores:
            group = getattr(recipe.tasks[task].data, "group", None)  # images and generated clips have no such column
            truth = data.labels[task][test]
            predictions[task] = make_predictions(best, task, data.clips, test, truth, logits[task], group)
    n_train = {task: len(data.indexes("train")) for data in sets for task in data.labels}
    results = {"tasks": tasks, "n_train": n_train, "calibration": calibration} | describe(best)
    if recipe.published:
        results["published"] = recipe.published_score()
    return results | {"seed": recipe.seed, "environment": environment()}, predictions
