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
from .classifier import AudioClassifier, load
from .cnn import AudioCNN
from .complexity import trunk_cost
from .data import Clips, assign_splits, class_names, drop_bad_files, make_ripples, read_folder
from .data.batches import LabelledClips
from .data.clips import Progress
from .dynamics import TensorBoardLog
from .errors import DataError, ModelFileError, RecipeError, UsageError
from .evaluate import Score, evaluate
from .frontend import LogMel
from .recipe import FolderData, Recipe, RipplesData, dump_recipe, load_recipe
from .train import OnEpoch, OnStep, train

RECIPE_FILE, RESULTS_FILE, PREDICTIONS_FILE = "recipe.yaml", "results.json", "predictions-test.csv"


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
    frontend = make_frontend(recipe)
    sets, labels, bad_files = prepare_data(recipe, progress)
    model = AudioClassifier(frontend, make_trunk(recipe), labels)
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    out.mkdir(parents=True, exist_ok=True)
    (out / RECIPE_FILE).write_text(dump_recipe(recipe), encoding="utf-8")
    if bad_files:
        (out / "bad_files.txt").write_text("\n".join(bad_files) + "\n", encoding="utf-8")
    if on_start:
        on_start(model, sets, bad_files)

    log = TensorBoardLog(out, model)

    def log_epoch(record: dict[str, Any]) -> None:
        log.on_epoch(record)
        if on_epoch:
            on_epoch(record)

    settings = recipe.train.model_dump(exclude={"optimizer", "validation_fraction"})
    weights = {name: task.weight for name, task in recipe.tasks.items()}
    train(model, sets, out, **settings, task_weights=weights, seed=recipe.seed, on_step=on_step, on_epoch=log_epoch)
    log.close()

    best = load(out).to(model.frontend.window.device)
    tasks: dict[str, Any] = {}
    predictions: list[tuple[Clips, np.ndarray, str, np.ndarray, Sequence[str], Tensor]] = []
    for data in sets:
        test = data.indexes("test")
        scores, logits = evaluate(best, data.clips, data.labels, test, recipe.train.workers, progress)
        tasks |= {task: {"split": "test"} | s._asdict() for task, s in scores.items()}
        predictions += [(data.clips, test, task, data.labels[task], labels[task], logits[task]) for task in scores]
    _write_predictions(out / PREDICTIONS_FILE, predictions)
    results = {"tasks": tasks} | describe(best) | {"seed": recipe.seed, "environment": environment()}
    (out / RESULTS_FILE).write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    return results


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
        data: a folder of audio, laid out as for training; its test split is used if it has one,
            else all of it. None: the data of the run's recipe.
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
    clips = read_folder(data)
    if "test" in clips.splits:
        clips = clips.select([i for i, split in enumerate(clips.splits) if split == "test"])
    numbers = _class_numbers(clips, recipe.tasks[task].column, model.labels[task])
    return evaluate(model, clips, {task: numbers}, range(len(clips)), 2, progress)[0]


def prepare_data(
    recipe: Recipe, progress: Progress | None = None, labels: dict[str, list[str]] | None = None
) -> tuple[list[LabelledClips], dict[str, list[str]], list[str]]:
    """Read the data of all tasks, check every file, decide classes and splits.

    Args:
        recipe: the recipe; tasks with equal `data` share one data set.
        progress: called after each file.
        labels: class labels of each task, where a trained model has fixed them.

    Returns:
        The data sets, the class labels of each task in the recipe's order, a line for each bad file.

    Raises:
        DataError: names the file, the column or the label.
    """
    blocks: list[FolderData | RipplesData] = []
    for task in recipe.tasks.values():
        if task.data not in blocks:
            blocks.append(task.data)
    sets, found, bad_files = [], dict(labels or {}), []
    for block in blocks:
        tasks = {name: task for name, task in recipe.tasks.items() if task.data == block}
        clips = _source(block, progress)
        for task in tasks.values():
            clips.column(task.column)  # a wrong column is an error before an hour of decoding
        if isinstance(block, FolderData):
            clips, bad = drop_bad_files(clips, recipe.frontend.sample_rate, block.on_bad_file, progress)
            bad_files += bad
        stratify = clips.column(next(iter(tasks.values())).column)
        group = block.group if isinstance(block, FolderData) else None
        splits = assign_splits(clips, stratify, recipe.seed, recipe.train.validation_fraction, group)
        numbers = {}
        for name, task in tasks.items():
            found.setdefault(name, class_names(clips.column(task.column)))
            numbers[name] = _class_numbers(clips, task.column, found[name])
        sets.append(LabelledClips(clips, numbers, splits))
    return sets, {name: found[name] for name in recipe.tasks}, bad_files


def make_frontend(recipe: Recipe) -> LogMel:
    """The recipe's frontend.

    Raises:
        RecipeError: if its settings contradict each other.
    """
    try:
        return LogMel(**recipe.frontend.model_dump())
    except ValueError as error:
        raise RecipeError(f"frontend: {error}") from error


def make_trunk(recipe: Recipe) -> AudioCNN:
    """The recipe's trunk with fresh weights.

    Raises:
        RecipeError: if its settings contradict each other.
    """
    try:
        return AudioCNN(**recipe.model.model_dump(exclude={"name"}))
    except ValueError as error:
        raise RecipeError(f"model: {error}") from error


def describe(model: AudioClassifier) -> dict[str, Any]:
    """What `results.json` says of a model: its cost on one second of audio and its strides."""
    frames = model.frontend.sample_rate // model.frontend.hop_length
    cost = trunk_cost(model.trunk, frames, model.frontend.n_mels)
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


def _source(block: FolderData | RipplesData, progress: Progress | None) -> Clips:
    if isinstance(block, RipplesData):
        return make_ripples(block.n_clips, block.seed, progress)
    return read_folder(block.path)


def _class_numbers(clips: Clips, column: str, labels: Sequence[str]) -> np.ndarray:
    number = {label: i for i, label in enumerate(labels)}
    values = clips.column(column)
    for name, value in zip(clips.names, values, strict=True):
        if value == "":
            raise DataError(f"{name}: has no label in the column {column!r}")
        if value not in number:
            raise DataError(f"{name}: the label {value!r} is none the model knows: {', '.join(labels[:20])}")
    return np.array([number[value] for value in values], np.int64)


def _recipe_of(run_dir: Path) -> Recipe:
    if not (run_dir / RECIPE_FILE).is_file():
        raise ModelFileError(f"{run_dir / RECIPE_FILE}: no such file; a run directory is needed")
    return load_recipe(str(run_dir / RECIPE_FILE))


def _write_predictions(
    path: Path, parts: Sequence[tuple[Clips, np.ndarray, str, np.ndarray, Sequence[str], Tensor]]
) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["file", "task", "truth", "label", "logits"])
        for clips, indexes, task, numbers, labels, logits in parts:
            for index, row in zip(indexes, logits, strict=True):
                values = " ".join(f"{value:.5g}" for value in row.tolist())
                truth, label = labels[numbers[index]], labels[int(row.argmax())]
                table.writerow([clips.names[index], task, truth, label, values])
