"""One run: a recipe in, a run directory out. The only module that knows the recipe and everything it sets up."""

import csv
import hashlib
import io
import json
import os
import platform
import random
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
import torch
from torch import Tensor

from .. import __version__
from ..data.augment import Augmentation
from ..data.batches import LabelledClips
from ..data.clips import Clips, Progress
from ..data.decoding import read_audio
from ..data.inspection import leaks
from ..data.labels import label_numbers
from ..data.manifest import read_path
from ..data.preparation import make_augmentation, make_class_weights, prepare_data
from ..data.sections import EncodedData
from ..data.sounds import find_sounds
from ..errors import DataError, ModelFileError, RecipeError, UsageError
from ..files import explain_write_errors, replace_file
from ..models.classifier import FRONTENDS, TRUNKS, AudioClassifier, load
from ..models.cost import cost_per_second
from ..models.network import Frontend, Trunk, probabilities
from ..models.weight_budget import WeightBudget
from ..windows import split_windows
from .checkpoints import Notify, list_checkpoints
from .evaluation import Score, best_thresholds, clip_logits, evaluate
from .loop import CHECKPOINTS, OnEpoch, OnStep, train
from .processes import broadcast, is_main, process_count
from .processes import start as start_processes
from .recipe import FrontendSection, Recipe, dump_recipe, load_recipe
from .tensorboard import TensorBoardLog

RECIPE_FILE, RESULTS_FILE, PREDICTIONS_FILE = "recipe.yaml", "results.json", "predictions-test.csv"

MAX_WEIGHTS = 2**31
"""Most weights of a trunk that a recipe may ask for; three hundred times what any shipped recipe does."""


def run(
    recipe: Recipe,
    out: Path,
    progress: Progress | None = None,
    on_start: Callable[[AudioClassifier, Sequence[LabelledClips], list[str]], None] | None = None,
    on_step: OnStep | None = None,
    on_epoch: OnEpoch | None = None,
    notify: Notify = warnings.warn,
    resume: bool = False,
    allow_inexact: bool = False,
    augmentation: Augmentation | None = None,
) -> dict[str, Any]:
    """Train the recipe's model, test it, and leave everything in the run directory.

    Args:
        recipe: from `load_recipe`.
        out: the run directory, empty or not there yet, see `run_directory`.
        progress: called while data is read and evaluated.
        on_start: called with the model, the data and a line for each bad file, before training.
        on_step: called after each step.
        on_epoch: called with each line of `metrics.jsonl`.
        notify: called with a line when a run is resumed or a checkpoint turns out to be damaged.
        resume: go on with the run in `out` where it stopped, to the bit.
        allow_inexact: resume although recipe, data, machine or versions have changed.
        augmentation: your own transforms of training clips, in place of the recipe's `augment`.

    Returns:
        What is written to `results.json`.

    Raises:
        RecipeError: if settings contradict each other.
        DataError: if data is missing or cannot be used.
        TrainingError: if the loss is not finite.
        Interrupted: after SIGTERM or SIGINT, once a checkpoint is saved.
        WriteError: if the disk is full; names the path and the free bytes.
        ModelFileError: if the run cannot be resumed exactly; names each difference.
    """
    device = start_processes().device
    torch.backends.cudnn.deterministic = True  # else a GPU run cannot be repeated, nor resumed, to the bit
    torch.manual_seed(recipe.seed)
    random.seed(recipe.seed)
    np.random.seed(recipe.seed % 2**32)
    recipe, start = take_up(recipe)
    frontend, augmentation = make_frontend(recipe), augmentation or make_transforms(recipe)
    trunk = make_trunk(recipe) if start is None else start.trunk
    sets, labels, bad_files = read_data(recipe, progress)
    kinds = {name: task.kind for name, task in recipe.tasks.items()}
    try:
        model = AudioClassifier(frontend, trunk, labels, 1.0 if start is None else start.window_s, kinds)
    except ValueError as error:
        raise RecipeError(f"tasks: {error}") from error
    if recipe.model.linear_probe:
        model.freeze()
    model.to(device)
    if recipe.train.sync_batch_norm and device.type != "cuda":
        raise RecipeError("train.sync_batch_norm: needs GPUs, there is no synchronised batch norm on the CPU")
    if is_main():
        with explain_write_errors(out):
            out.mkdir(parents=True, exist_ok=True)
        if allow_inexact or not list_checkpoints(out / CHECKPOINTS):  # else it is the recipe's that they are of
            replace_file(out / RECIPE_FILE, dump_recipe(recipe))
        if bad_files:
            replace_file(out / "bad_files.txt", "\n".join(bad_files) + "\n")
    if on_start:
        on_start(model, sets, bad_files)

    log = TensorBoardLog(out, model) if is_main() else None

    def log_epoch(record: dict[str, Any]) -> None:
        if log:
            log.on_epoch(record)
        if on_epoch:
            on_epoch(record)

    class_weights = {name: w.to(device) for name, w in make_class_weights(recipe.tasks, sets, labels).items()}
    settings = recipe.train.model_dump(exclude={"optimizer", "validation_fraction"})
    train(
        model,
        sets,
        out,
        **settings,
        task_weights={name: task.weight for name, task in recipe.tasks.items()},
        class_weights=class_weights,
        augmentation=augmentation,
        seed=recipe.seed,
        resume=resume,
        allow_inexact=allow_inexact,
        conditions=conditions(recipe, sets),
        on_step=on_step,
        on_epoch=log_epoch,
        notify=notify,
    )
    if log:
        log.close()

    best = broadcast(load(out) if is_main() else None)
    assert best is not None
    best.to(device)
    if choose_thresholds(best, sets, recipe.train.workers) and is_main():
        best.save(out)
    tasks: dict[str, Any] = {}
    predictions: list[tuple[Clips, np.ndarray, str, np.ndarray, AudioClassifier, Tensor]] = []
    for data in sets:
        test = data.indexes("test")
        scores, logits = evaluate(best, data.clips, data.labels, test, recipe.train.workers, progress)
        tasks |= {task: {"split": "test"} | s.metrics() for task, s in scores.items()}
        predictions += [(data.clips, test, task, data.labels[task], best, logits[task]) for task in scores]
    results = {"tasks": tasks} | describe(best) | {"seed": recipe.seed, "environment": environment()}
    if is_main():
        _write_predictions(out / PREDICTIONS_FILE, predictions)
        replace_file(out / RESULTS_FILE, json.dumps(results, indent=1) + "\n")
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
    make_transforms(recipe)
    # The cache would hide the files, whose contents are compared.
    sets, labels, bad_files = read_data(recipe.model_copy(update={"cache": None}), progress)
    make_class_weights(recipe.tasks, sets, labels)
    tasks: dict[str, Any] = {}
    for data in sets:
        names = list(data.labels)
        block = recipe.tasks[names[0]].data
        if isinstance(block, EncodedData) and not block.allow_shared_groups:
            found = leaks(data.clips, data.splits, block.group)
            if found:
                key = f"tasks.{names[0]}.data"
                lines = "\n".join(f"{key}: {line}" for line in found)
                raise DataError(f"{lines}\nMend the splits, or set {key}.allow_shared_groups=true.")
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


def run_directory(recipe: Recipe, out: str | os.PathLike[str] | None, resume: bool = False) -> Path:
    """Where a run goes: `out`, or `runs/NAME`, `runs/NAME-2`, ... whichever is free.

    With `resume` a run that is already in `out` is gone on with; one that is not there yet begins, so
    that the same command can be given until it ends.

    Raises:
        UsageError: if `out` holds anything and is not to be resumed, or holds no run.
    """
    start_processes()  # one process chooses for all, or a second one would find the first one's directory taken
    return broadcast(_run_directory(recipe, out, resume) if is_main() else Path())


def _run_directory(recipe: Recipe, out: str | os.PathLike[str] | None, resume: bool) -> Path:
    if out is not None:
        folder = Path(out)
        if folder.exists() and not folder.is_dir():
            raise UsageError(f"{folder}: is not a directory; give another --out")
        # Hidden files are what a crash may leave of a file that was being written.
        visible = [path.name for path in folder.iterdir() if path.name[0] != "."] if folder.exists() else []
        if visible and not resume:
            raise UsageError(f"{folder}: is not empty; give another --out, or remove it first")
        if visible and RECIPE_FILE not in visible:
            raise UsageError(f"{folder}: holds no run to resume, there is no {RECIPE_FILE}")
        return folder
    if resume:
        raise UsageError("--resume needs --out, the directory of the run to resume")
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
    recipe = recipe_of(run_dir)
    if task is not None and task not in model.labels:
        raise UsageError(f"{run_dir} has no task {task!r}; its tasks: {', '.join(model.labels)}")
    if data is None:
        sets, _, _ = read_data(recipe, progress, model.labels)
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


def check_windows(
    run_dir: str, model: AudioClassifier, clips: str | None = None, progress: Progress | None = None, n: int = 128
) -> Tensor:
    """Windows of real clips to check an exported model on: the first window of up to `n` clips.

    Args:
        run_dir: the run directory; its test set is used.
        model: its model.
        clips: files to use instead, as in `predict.find_sounds`.
        progress: called while data is read.
        n: number of clips, spread evenly over the set.

    Returns:
        Shape ``(n_clips, samples)``.

    Raises:
        ModelFileError: if there are no clips and no recipe to find them by.
        DataError: if a clip cannot be read.
    """
    if clips is None:
        sets, _, _ = read_data(recipe_of(Path(run_dir)), progress, model.labels)
        sources: list[Callable[[], np.ndarray]] = [
            partial(data.clips.read, index, model.frontend.sample_rate)
            for data in sets
            for index in data.indexes("test")
        ]
    else:
        sources = [partial(read_audio, name, model.frontend.sample_rate) for name in find_sounds([clips])]
    if not sources:
        raise DataError(f"{run_dir}: its data has no test clips to check the export on; give some with --clips")
    chosen = sources[:: max(1, len(sources) // n)][:n]
    return torch.stack([split_windows(torch.from_numpy(read()), model.window_length)[0] for read in chosen])


def take_up(recipe: Recipe) -> tuple[Recipe, AudioClassifier | None]:
    """The trained model a recipe starts from, and the recipe with that model's frontend and trunk settings.

    Returns:
        The recipe as it is and None, where `model.init` is not set.

    Raises:
        RecipeError: if `model.linear_probe` is set without `model.init`.
        ModelFileError: if the model cannot be read.
    """
    init, linear_probe = recipe.model.init, recipe.model.linear_probe
    if init is None:
        if linear_probe:
            raise RecipeError(
                "model.linear_probe: trains the heads of a trained trunk; set model.init to a run directory"
            )
        return recipe, None
    start = load(init)
    config = start.config()
    model = config["model"] | {"init": init, "linear_probe": linear_probe}
    return Recipe.model_validate(recipe.model_dump() | {"model": model, "frontend": config["frontend"]}), start


def read_data(
    recipe: Recipe, progress: Progress | None = None, labels: Mapping[str, list[str]] | None = None
) -> tuple[list[LabelledClips], dict[str, list[str]], list[str]]:
    """`prepare_data` of a recipe."""
    return prepare_data(
        recipe.tasks,
        sample_rate=recipe.frontend.sample_rate,
        seed=recipe.seed,
        validation_fraction=recipe.train.validation_fraction,
        cache=recipe.cache,
        progress=progress,
        labels=labels,
    )


def make_transforms(recipe: Recipe) -> Augmentation | None:
    """`make_augmentation` of a recipe."""
    hop_ms = recipe.frontend.hop_ms if isinstance(recipe.frontend, FrontendSection) else None
    return make_augmentation(recipe.augment, recipe.frontend.sample_rate, hop_ms)


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
        RecipeError: if its settings contradict each other, or ask for more weights than any machine trains.
    """
    try:
        with WeightBudget(MAX_WEIGHTS):
            return TRUNKS[recipe.model.name](**recipe.model.model_dump(exclude={"name", "init", "linear_probe"}))
    except ValueError as error:
        raise RecipeError(f"model: {error}") from error


def describe(model: AudioClassifier) -> dict[str, Any]:
    """What `results.json` says of a model: its cost on one second of audio and its strides."""
    cost = cost_per_second(model)
    return {
        "macs_per_second": cost.macs,
        "parameters": sum(p.numel() for p in model.parameters()),
        "strides": model.trunk.strides(),
        **({"aliasing": aliasing} if (aliasing := model.trunk.aliasing()) else {}),
    }


def environment() -> dict[str, Any]:
    """Machine and versions that a run repeats on to the bit."""
    return {
        "audiostride": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "libsndfile": soundfile.__libsndfile_version__,
        "soxr": soxr.__version__,
        "threads": torch.get_num_threads(),
        "machine": platform.machine(),
        "processor": torch.backends.cpu.get_cpu_capability(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "processes": process_count(),
    }


def conditions(recipe: Recipe, sets: Sequence[LabelledClips]) -> dict[str, Any]:
    """What the result of a training depends on: recipe, environment and the table of clips.

    Settings that only say how to get there (decoding processes, when to save) are left out.
    """
    settings = recipe.model_dump(exclude={"cache"})
    for key in ("workers", "checkpoint_steps", "keep_checkpoints"):
        del settings["train"][key]
    table = hashlib.sha256()
    for data in sets:
        for name, split in zip(data.clips.names, data.splits, strict=True):
            table.update(f"{name}\0{split}\n".encode("utf-8", "surrogateescape"))
        for task, numbers in data.labels.items():
            table.update(task.encode() + np.ascontiguousarray(numbers).tobytes())
    return {"recipe": settings, "environment": environment(), "data": {"sha256_of_names_and_labels": table.hexdigest()}}


def recipe_of(run_dir: Path) -> Recipe:
    """The recipe a run was made with.

    Raises:
        ModelFileError: if there is none.
    """
    if not (run_dir / RECIPE_FILE).is_file():
        raise ModelFileError(f"{run_dir / RECIPE_FILE}: no such file; a run directory is needed")
    return load_recipe(str(run_dir / RECIPE_FILE))


def _write_predictions(
    path: Path, parts: Sequence[tuple[Clips, np.ndarray, str, np.ndarray, AudioClassifier, Tensor]]
) -> None:
    text = io.StringIO()
    table = csv.writer(text)
    table.writerow(["file", "task", "truth", "label", "logits"])
    for clips, indexes, task, numbers, model, logits in parts:
        for index, row in zip(indexes, logits, strict=True):
            values = " ".join(f"{value:.5g}" for value in row.tolist())
            truth = true_label(model, task, numbers[index])
            table.writerow([clips.title(index), task, truth, predicted_label(model, task, row), values])
    # File names that are no valid text are written back as the bytes they are.
    replace_file(path, text.getvalue().encode("utf-8", "surrogateescape"))


def true_label(model: AudioClassifier, task: str, numbers: np.ndarray) -> str:
    """The label of a class number, or the labels of a multilabel task's 0s and 1s, joined by "|"."""
    labels = model.labels[task]
    if model.kinds[task] == "multilabel":
        return "|".join(label for label, present in zip(labels, numbers, strict=True) if present)
    return labels[int(numbers)]


def predicted_label(model: AudioClassifier, task: str, logits: Tensor) -> str:
    """The label that logits ``(n_classes,)`` stand for; several, or none, of a multilabel task, joined by "|"."""
    labels, kind, thresholds = model.labels[task], model.kinds[task], model.thresholds.get(task)
    if kind == "multiclass" or thresholds is None:
        return labels[int(logits.argmax())]
    likely = probabilities(logits, kind)
    if kind == "binary":
        return labels[int(likely[1] >= thresholds[0])]
    return "|".join(label for label, p, t in zip(labels, likely, thresholds, strict=True) if p >= t)
