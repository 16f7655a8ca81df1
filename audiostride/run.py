"""One run: a recipe in, a run directory out. The only module that knows the recipe and everything it sets up."""

import csv
import json
import os
import platform
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from . import __version__
from .classifier import FRONTENDS, TRUNKS, AudioClassifier, Frontend, Trunk, load
from .cnn import AudioCNN
from .complexity import model_cost, trunk_cost
from .data import Clips, label_numbers, read_path
from .data.batches import LabelledClips
from .data.clips import Progress
from .errors import DataError, ModelFileError, RecipeError, UsageError
from .evaluate import Score, best_thresholds, clip_logits, evaluate, probabilities
from .inspection import leaks
from .preparation import make_augmentation, make_class_weights, prepare_data
from .recipe import EncodedData, Recipe, dump_recipe, load_recipe
from .train import OnEpoch, OnStep, train

RECIPE_FILE, RESULTS_FILE = "recipe.yaml", "results.json"


def run(
    recipe: Recipe,
    out: Path,
    progress: Progress | None = None,
    on_start: Callable[[AudioClassifier, Sequence[LabelledClips], list[str]], None] | None = None,
    on_step: OnStep | None = None,
    on_epoch: OnEpoch | None = None,
) -> dict[str, Any]:
    """Train the recipe's model, test it, and leave everything in the run directory.

    Args:
        recipe: from `load_recipe`.
        out: the run directory, empty or not there yet, see `run_directory`.
        progress: called while data is read and evaluated.
        on_start: called with the model, the data and a line for each bad file, before training.
        on_step: called after each step.
        on_epoch: called with each line of `metrics.jsonl`.

    Returns:
        What is written to `results.json`.

    Raises:
        RecipeError: if settings contradict each other.
        DataError: if data is missing or cannot be used.
        TrainingError: if the loss is not finite.
    """
    torch.manual_seed(recipe.seed)
    frontend, trunk = make_frontend(recipe), make_trunk(recipe)
    augmentation = make_augmentation(recipe)
    sets, labels, bad_files = prepare_data(recipe, progress)
    kinds = {name: task.kind for name, task in recipe.tasks.items()}
    model = AudioClassifier(frontend, trunk, labels, kinds=kinds)
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    out.mkdir(parents=True, exist_ok=True)
    (out / RECIPE_FILE).write_text(dump_recipe(recipe), encoding="utf-8")
    if bad_files:
        (out / "bad_files.txt").write_text("\n".join(bad_files) + "\n", encoding="utf-8")
    if on_start:
        on_start(model, sets, bad_files)

    device = model.frontend.window.device
    class_weights = {name: w.to(device) for name, w in make_class_weights(recipe, sets, labels).items()}
    settings = recipe.train.model_dump(exclude={"optimizer", "validation_fraction"})
    weights = {name: task.weight for name, task in recipe.tasks.items()}
    train(
        model,
        sets,
        out,
        **settings,
        task_weights=weights,
        class_weights=class_weights,
        augmentation=augmentation,
        seed=recipe.seed,
        on_step=on_step,
        on_epoch=on_epoch,
    )

    best = load(out).to(device)
    if choose_thresholds(best, sets, recipe.train.workers):
        best.save(out)
    tasks: dict[str, Any] = {}
    predictions: list[tuple[Clips, np.ndarray, str, AudioClassifier, Tensor]] = []
    for data in sets:
        test = data.indexes("test")
        scores, logits = evaluate(best, data.clips, data.labels, test, recipe.train.workers, progress)
        tasks |= {task: {"split": "test"} | s.metrics() for task, s in scores.items()}
        predictions += [(data.clips, test, task, best, logits[task]) for task in scores]
    _write_predictions(out / "predictions-test.csv", predictions)
    results = {"tasks": tasks} | describe(best) | {"seed": recipe.seed, "environment": environment()}
    (out / RESULTS_FILE).write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    return results


def check_recipe(recipe: Recipe, progress: Progress | None = None) -> dict[str, Any]:
    """Everything `train` would find wrong before its first step, and what lies on two sides of a split.

    Returns:
        The tasks with their kinds, labels and clips of each split, and a line for each bad file.

    Raises:
        RecipeError: if settings contradict each other.
        DataError: if data is missing, cannot be used, or leaks from one split to another.
    """
    make_frontend(recipe)
    make_trunk(recipe)
    make_augmentation(recipe)
    # The cache would hide the files, whose contents are compared.
    sets, labels, bad_files = prepare_data(recipe.model_copy(update={"cache": None}), progress)
    make_class_weights(recipe, sets, labels)
    tasks: dict[str, Any] = {}
    for data in sets:
        names = list(data.labels)
        block = recipe.tasks[names[0]].data
        if isinstance(block, EncodedData) and not block.allow_shared_groups:
            found = leaks(data.clips, data.splits, block.group)
            if found:
                lines = "\n".join(f"tasks.{names[0]}.data: {line}" for line in found)
                raise DataError(f"{lines}\nMend the splits, or set data.allow_shared_groups=true.")
        counts = {split: len(data.indexes(split)) for split in ("train", "validation", "test")}
        tasks |= {name: {"kind": recipe.tasks[name].kind, "labels": labels[name], "clips": counts} for name in names}
    return {"tasks": {name: tasks[name] for name in recipe.tasks}, "bad_files": bad_files}


def choose_thresholds(model: AudioClassifier, sets: Sequence[LabelledClips], workers: int = 0) -> bool:
    """Find the thresholds of a model's binary and multilabel tasks on the validation clips; False if it has none."""
    for data in sets:
        wanted = [task for task in data.labels if model.kinds[task] != "multiclass"]
        if wanted:
            rows = data.indexes("validation")
            logits = clip_logits(model, data.clips, rows, workers)
            for task in wanted:
                truth = data.labels[task][rows]
                model.thresholds[task] = best_thresholds(logits[task], truth, model.kinds[task])
    return bool(model.thresholds)


def run_directory(recipe: Recipe, out: str | os.PathLike[str] | None) -> Path:
    """Where a run goes: `out`, or `runs/NAME`, `runs/NAME-2`, ... whichever is free.

    Raises:
        UsageError: if `out` is given and holds anything.
    """
    if out is not None:
        folder = Path(out)
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UsageError(f"{folder}: is not empty; give another --out, or remove it first")
        return folder
    folder, number = Path("runs", recipe.name), 1
    while folder.exists():
        number += 1
        folder = Path("runs", f"{recipe.name}-{number}")
    return folder


def evaluate_run(
    run_dir: Path, data: str | None = None, task: str | None = None, progress: Progress | None = None
) -> dict[str, Score]:
    """Test a trained run on its own test set, or on another folder.

    Args:
        run_dir: the run directory.
        data: a folder or table of audio, laid out as for training; its test split is used if it has
            one, else all of it. None: the data of the run's recipe.
        task: the task to score; needed with `data` where the run has several tasks.
        progress: called while data is read and evaluated.

    Raises:
        ModelFileError, DataError, UsageError: each names the file or task.
    """
    model = load(run_dir)
    recipe = _recipe_of(run_dir)
    if task is not None and task not in model.labels:
        raise UsageError(f"{run_dir} has no task {task!r}; its tasks: {', '.join(model.labels)}")
    if data is None:
        sets, _, _ = prepare_data(recipe, progress, model.labels)
        scores: dict[str, Score] = {}
        for labelled in sets:
            wanted = {name: numbers for name, numbers in labelled.labels.items() if task in (None, name)}
            if wanted:
                scores |= evaluate(model, labelled.clips, wanted, labelled.indexes("test"), 2, progress)[0]
        return scores
    if task is None and len(model.labels) > 1:
        raise UsageError(f"--data needs --task here; the tasks of {run_dir}: {', '.join(model.labels)}")
    task = task or next(iter(model.labels))
    clips: Clips = read_path(data)
    if "test" in clips.splits:
        clips = clips.select([i for i, split in enumerate(clips.splits) if split == "test"])
    numbers = label_numbers(clips, recipe.tasks[task].column, model.labels[task], model.kinds[task])
    return evaluate(model, clips, {task: numbers}, range(len(clips)), 2, progress)[0]


def make_frontend(recipe: Recipe) -> Frontend:
    """The recipe's frontend.

    Raises:
        RecipeError: if its settings contradict each other.
    """
    try:
        return FRONTENDS[recipe.frontend.name](**recipe.frontend.model_dump(exclude={"name"}))
    except ValueError as error:
        raise RecipeError(f"frontend: {error}") from error


def make_trunk(recipe: Recipe) -> Trunk:
    """The recipe's trunk with fresh weights.

    Raises:
        RecipeError: if its settings contradict each other.
    """
    try:
        return TRUNKS[recipe.model.name](**recipe.model.model_dump(exclude={"name"}))
    except ValueError as error:
        raise RecipeError(f"model: {error}") from error


def describe(model: AudioClassifier) -> dict[str, Any]:
    """What `results.json` says of a model: its cost on one second of audio and its strides."""
    second = model.frontend(torch.zeros(1, model.frontend.sample_rate, device=model.frontend.window.device))
    if isinstance(model.trunk, AudioCNN):
        cost = trunk_cost(model.trunk, *second.shape[-2:])
    else:
        cost = model_cost(model.trunk, second)
    return {
        "macs_per_second": cost.macs,
        "parameters": sum(p.numel() for p in model.parameters()),
        "strides": model.trunk.strides(),
    }


def environment() -> dict[str, Any]:
    """Machine and versions that a run repeats on to the bit."""
    return {
        "audiostride": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "machine": platform.machine(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
    }


def _recipe_of(run_dir: Path) -> Recipe:
    if not (run_dir / RECIPE_FILE).is_file():
        raise ModelFileError(f"{run_dir / RECIPE_FILE}: no such file; a run directory is needed")
    return load_recipe(str(run_dir / RECIPE_FILE))


def _write_predictions(path: Path, parts: Sequence[tuple[Clips, np.ndarray, str, AudioClassifier, Tensor]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["file", "task", "label", "logits"])
        for clips, indexes, task, model, logits in parts:
            for index, row in zip(indexes, logits, strict=True):
                values = " ".join(f"{value:.5g}" for value in row.tolist())
                table.writerow([clips.title(index), task, predicted_label(model, task, row), values])


def predicted_label(model: AudioClassifier, task: str, logits: Tensor) -> str:
    """The label that logits ``(n_classes,)`` stand for; several, or none, of a multilabel task, joined by "|"."""
    labels, kind, thresholds = model.labels[task], model.kinds[task], model.thresholds.get(task)
    if kind == "multiclass" or thresholds is None:
        return labels[int(logits.argmax())]
    likely = probabilities(logits, kind)
    if kind == "binary":
        return labels[int(likely[1] >= thresholds[0])]
    return "|".join(label for label, p, t in zip(labels, likely, thresholds, strict=True) if p >= t)
