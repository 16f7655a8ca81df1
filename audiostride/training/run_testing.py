"""Testing a trained run, on its own test clips or on other data: its scores, its thresholds, clips to check on."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..data.any_path import read_path
from ..data.batches import LabelledClips
from ..data.clips import Clips, Progress
from ..data.decoding import read_audio
from ..data.images import read_images
from ..data.labels import label_numbers, one_column
from ..data.sections import ImagesData
from ..data.sounds import find_sounds
from ..errors import DataError, UsageError
from ..models.adaptive_log_mel import learned_resolution
from ..models.classifier import AudioClassifier, load
from ..models.cost import cost_per_second
from ..windows import split_windows
from .build import read_data
from .directory import PREDICTIONS_FILE
from .evaluation import Score, best_thresholds, clip_logits, evaluate
from .predictions_file import TaskPredictions, make_predictions, read_predictions
from .recipe import Recipe
from .run_files import recipe_of


def evaluate_run(
    run_dir: Path,
    data: str | None = None,
    task: str | None = None,
    progress: Progress | None = None,
    overlap: float = 0.0,
) -> dict[str, Score]:
    """Test a trained run on its own test set, or on another folder.

    Args:
        run_dir: the run directory.
        data: a folder or table of audio, or a folder of images, laid out as for training; its test
            split is used if it has one, else all of it. None: the data of the run's recipe.
        task: the task to score; None: all, with `data` those whose columns it has.
        progress: called while data is read and evaluated.
        overlap: share of a window that the next one holds too, from 0 up to but not including 1.

    Raises:
        ModelFileError, DataError, UsageError: each names the file or task.
    """
    return evaluate_with_predictions(run_dir, data, task, progress, overlap)[0]


def evaluate_with_predictions(
    run_dir: Path,
    data: str | None = None,
    task: str | None = None,
    progress: Progress | None = None,
    overlap: float = 0.0,
) -> tuple[dict[str, Score], dict[str, TaskPredictions]]:
    """`evaluate_run`, and the predictions that were scored, for each task."""
    model = load(run_dir)
    recipe = recipe_of(run_dir)
    if task is not None and task not in model.labels:
        raise UsageError(f"{run_dir} has no task {task!r}; its tasks: {', '.join(model.labels)}")
    if overlap and model.frontend.takes_images:
        raise UsageError(f"{run_dir}: classifies images, each of which is one window; omit the overlap")
    asked = list(model.labels) if task is None else [task]
    if data is None:
        read, _, _ = read_data(recipe, progress, model.labels)
        sets = [(s.clips, s.labels, rows) for s, rows in zip(read, _tested(run_dir, read), strict=True)]
    else:
        clips, labels = _other_data(data, model, recipe, asked, progress)
        sets = [(clips, labels, np.arange(len(clips)))]
    scores: dict[str, Score] = {}
    predictions: dict[str, TaskPredictions] = {}
    for clips, labels, indexes in sets:
        wanted_labels = {name: numbers for name, numbers in labels.items() if name in asked}
        if not wanted_labels:
            continue
        found, logits = evaluate(model, clips, wanted_labels, indexes, 2, progress, overlap)
        scores |= found
        for name in found:
            truth = wanted_labels[name][indexes]
            predictions[name] = make_predictions(model, name, clips, indexes, truth, logits[name])
    return scores, predictions


def check_windows(
    run_dir: str, model: AudioClassifier, clips: str | None = None, progress: Progress | None = None, n: int = 128
) -> Tensor:
    """Windows of real clips to check an exported model on: the first window of up to `n` clips.

    Args:
        run_dir: the run directory; its test set is used.
        model: its model.
        clips: files to use instead, as in `sounds.find_sounds`.
        progress: called while data is read.
        n: number of clips, spread evenly over the set.

    Returns:
        Shape ``(n_clips, samples)``.

    Raises:
        ModelFileError: if there are no clips and no recipe to find them by.
        DataError: if a clip cannot be read.
        UsageError: if the model classifies images.
    """
    sample_rate = model.sample_rate
    if clips is None:
        sets, _, _ = read_data(recipe_of(Path(run_dir)), progress, model.labels)
        sources: list[Callable[[], np.ndarray]] = [
            partial(data.clips.read, index, sample_rate)
            for data, rows in zip(sets, _tested(Path(run_dir), sets), strict=True)
            for index in rows
        ]
    else:
        sources = [partial(read_audio, name, sample_rate) for name in find_sounds([clips])]
    if not sources:
        raise DataError(f"{run_dir}: its data has no test clips to check the export on; give some with --clips")
    chosen = [sources[i] for i in np.linspace(0, len(sources) - 1, min(n, len(sources))).round().astype(int)]
    return torch.stack([split_windows(torch.from_numpy(read()), model.window_length)[0] for read in chosen])


def choose_thresholds(model: AudioClassifier, sets: Sequence[LabelledClips], workers: int = 0) -> bool:
    """Find the thresholds of a model's binary and multilabel tasks on the validation clips; False if it has none."""
    for data in sets:
        wanted = [task for task in data.labels if model.kinds[task] != "multiclass"]
        rows = data.indexes("validation")
        if wanted and len(rows):
            logits = clip_logits(model, data.clips, rows, workers)
            for task in wanted:
                truth = data.labels[task][rows]
                model.thresholds[task] = best_thresholds(logits[task], truth, model.kinds[task])
    return bool(model.thresholds)


def describe(model: AudioClassifier) -> dict[str, Any]:
    """What `results.json` says of a model: its cost on one second of audio, or on one image, and its strides.

    Example:
        >>> from audiostride import create_model
        >>> found = describe(create_model("audio_resnet_pico_strided", heads={"word": 2}))
        >>> found["parameters"], found["strides"][:2]
        (21844, [[2.0, 2.0], [2.0, 4.0]])
    """
    cost = cost_per_second(model)
    return {
        "macs_per_second": cost.macs,
        "parameters": sum(p.numel() for p in model.parameters()),
        "strides": model.trunk.strides(),
        **learned_resolution(model),
        **({"aliasing": aliasing} if (aliasing := model.trunk.aliasing()) else {}),
    }


def _other_data(
    data: str, model: AudioClassifier, recipe: Recipe, asked: Sequence[str], progress: Progress | None
) -> tuple[Clips, dict[str, np.ndarray]]:
    """The test clips of data that is not the run's, and their class numbers for the tasks that can be tested there."""
    section = recipe.tasks[asked[0]].data
    clips: Clips = read_images(data, section.crop) if isinstance(section, ImagesData) else read_path(data)
    if "test" in clips.splits:
        clips = clips.select([i for i, split in enumerate(clips.splits) if split == "test"])
    clips = clips.loaded(model.resolution, progress)
    for name in asked:
        task = recipe.tasks[name]
        if task.column in clips.columns or task.label_columns:
            clips = one_column(clips, task.column, task.kind, task.label_separator, task.label_columns)
    columns = {name: recipe.tasks[name].column for name in asked}
    if len(asked) > 1:  # those that can be tested there; a single one says itself what it misses
        columns = {name: column for name, column in columns.items() if column in clips.columns}
    if not columns:
        wanted = ", ".join(f"{recipe.tasks[name].column} (task {name})" for name in asked)
        raise UsageError(f"{data}: has none of the columns {wanted}, only {', '.join(clips.columns)}")
    return clips, {
        name: label_numbers(clips, column, model.labels[name], model.kinds[name]) for name, column in columns.items()
    }


def _tested(run_dir: Path, sets: Sequence[LabelledClips]) -> list[np.ndarray]:
    """Where the run's test clips are in each set: a split drawn anew, of data that has changed, may hold clips it was
    trained on.

    Raises:
        DataError: if some of them are not there any more.
    """
    if not (run_dir / PREDICTIONS_FILE).is_file():
        return [data.indexes("test") for data in sets]
    predictions = read_predictions(run_dir)
    rows = []
    for data in sets:
        names = {file for task in data.labels.keys() & predictions.keys() for file in predictions[task].files}
        titles = [data.clips.title(i) for i in range(len(data.clips))]
        if missing := sorted(names - set(titles)):
            raise DataError(
                f"{run_dir}: {len(missing)} of its {len(names)} test clips are missing, such as {missing[0]}; "
                "put them back, or test on other clips with --data"
            )
        rows.append(np.array([i for i, title in enumerate(titles) if title in names]))
    return rows
