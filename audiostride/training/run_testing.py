"""Testing a trained run: its scores, thresholds and predictions, on its own test set or on other data."""

import csv
import io
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..data.batches import LabelledClips
from ..data.clips import Clips, Progress
from ..data.decoding import read_audio
from ..data.images import read_images
from ..data.labels import label_numbers
from ..data.manifest import read_path
from ..data.sections import ImagesData
from ..data.sounds import find_sounds
from ..errors import DataError, UsageError
from ..files import replace_file
from ..models.classifier import AudioClassifier, load
from ..models.cost import cost_per_second
from ..models.image_frontend import ImageFrontend
from ..models.prediction import probabilities
from ..windows import split_windows
from .directory import PREDICTIONS_FILE, recipe_of
from .evaluation import Score, best_thresholds, clip_logits, evaluate
from .setup import read_data


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
    return evaluate_run_by_class(run_dir, data, task, progress, overlap)[0]


def _tested(run_dir: Path, data: LabelledClips) -> np.ndarray:
    """Where the run's test clips are: a split drawn anew, of data that has changed, may hold clips it was trained on.

    Raises:
        DataError: if some of them are not there any more.
    """
    path = run_dir / PREDICTIONS_FILE
    if not path.is_file():
        return data.indexes("test")
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        names = {row["file"] for row in csv.DictReader(file) if row["task"] in data.labels}
    titles = [data.clips.title(i) for i in range(len(data.clips))]
    if missing := sorted(names - set(titles)):
        raise DataError(
            f"{run_dir}: {len(missing)} of its {len(names)} test clips are not there any more, such as {missing[0]}; "
            "put them back, or test on other clips with --data"
        )
    return np.array([i for i, title in enumerate(titles) if title in names])


def evaluate_run_by_class(
    run_dir: Path,
    data: str | None = None,
    task: str | None = None,
    progress: Progress | None = None,
    overlap: float = 0.0,
) -> tuple[dict[str, Score], dict[str, np.ndarray]]:
    """`evaluate_run`, and the confusion matrix of each task whose clips have one class each.

    Returns:
        The scores; and for each task but the multilabel ones counts of clips, int of shape ``(true, predicted)``.
    """
    model = load(run_dir)
    recipe = recipe_of(run_dir)
    if task is not None and task not in model.labels:
        raise UsageError(f"{run_dir} has no task {task!r}; its tasks: {', '.join(model.labels)}")
    if overlap and isinstance(model.frontend, ImageFrontend):
        raise UsageError(f"{run_dir}: classifies images, of which each is one window; leave the overlap out")
    asked = list(model.labels) if task is None else [task]
    if data is None:
        sets = [(s.clips, s.labels, _tested(run_dir, s)) for s in read_data(recipe, progress, model.labels)[0]]
    else:
        section = recipe.tasks[asked[0]].data
        clips: Clips = read_images(data, section.crop) if isinstance(section, ImagesData) else read_path(data)
        if "test" in clips.splits:
            clips = clips.select([i for i, split in enumerate(clips.splits) if split == "test"])
        clips = clips.loaded(model.resolution, progress)
        columns = {name: recipe.tasks[name].column for name in asked}
        if len(asked) > 1:  # those that can be tested there; a single one says itself what it misses
            columns = {name: column for name, column in columns.items() if column in clips.columns}
        if not columns:
            wanted = ", ".join(f"{recipe.tasks[name].column} (task {name})" for name in asked)
            raise UsageError(f"{data}: has none of the columns {wanted} but {', '.join(clips.columns)}")
        numbers = {
            name: label_numbers(clips, column, model.labels[name], model.kinds[name])
            for name, column in columns.items()
        }
        sets = [(clips, numbers, np.arange(len(clips)))]
    scores: dict[str, Score] = {}
    counts: dict[str, np.ndarray] = {}
    for clips, labels, indexes in sets:
        wanted_labels = {name: numbers for name, numbers in labels.items() if name in asked}
        if not wanted_labels:
            continue
        found, logits = evaluate(model, clips, wanted_labels, indexes, 2, progress, overlap)
        scores |= found
        for name in found:
            if model.kinds[name] != "multilabel":
                counts[name] = confusion_counts(model, name, logits[name], wanted_labels[name][indexes])
    return scores, counts


def confusion_counts(model: AudioClassifier, task: str, logits: Tensor, truth: np.ndarray) -> np.ndarray:
    """How many clips of each class the model takes for which, int of shape ``(true, predicted)``.

    Args:
        model: the classifier; the threshold of a binary task decides its answers.
        task: a task whose clips have one class each.
        logits: of the clips, ``(n, n_classes)``.
        truth: class numbers ``(n,)``.

    Example:
        >>> from audiostride import create_model
        >>> model = create_model("audio_resnet_pico_strided", heads={"word": ["no", "yes"]})
        >>> confusion_counts(model, "word", torch.tensor([[2.0, 0.0], [0.0, 1.0], [1.0, 0.0]]), np.array([0, 1, 1]))
        array([[1, 0],
               [1, 1]])
    """
    labels = model.labels[task]
    counts = np.zeros((len(labels), len(labels)), np.int64)
    for row, number in zip(logits, truth, strict=True):
        counts[int(number), labels.index(predicted_label(model, task, row))] += 1
    return counts


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
    sample_rate = model.frontend.sample_rate
    if clips is None:
        sets, _, _ = read_data(recipe_of(Path(run_dir)), progress, model.labels)
        sources: list[Callable[[], np.ndarray]] = [
            partial(data.clips.read, index, sample_rate) for data in sets for index in data.indexes("test")
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
    """What `results.json` says of a model: its cost on one second of audio, or on one image, and its strides."""
    cost = cost_per_second(model)
    return {
        "macs_per_second": cost.macs,
        "parameters": sum(p.numel() for p in model.parameters()),
        "strides": model.trunk.strides(),
        **({"aliasing": aliasing} if (aliasing := model.trunk.aliasing()) else {}),
    }


def write_predictions(
    path: Path, parts: Sequence[tuple[Clips, np.ndarray, str, str | None, np.ndarray, AudioClassifier, Tensor]]
) -> None:
    """Write the prediction for every test clip: file, task, truth, label, logits, and the group it belongs to.

    Args:
        path: the CSV file.
        parts: of each task its clips, the rows that were tested, the task's name, the column of groups or
            None, the truth of all clips, the model and the logits ``(n_rows, n_classes)``.
    """
    text = io.StringIO()
    table = csv.writer(text)
    table.writerow(["file", "task", "truth", "label", "logits", "group"])
    for clips, indexes, task, group, numbers, model, logits in parts:
        groups = None if group is None else clips.column(group)
        for index, row in zip(indexes, logits, strict=True):
            values = " ".join(f"{value:.5g}" for value in row.tolist())
            truth = true_label(model, task, numbers[index])
            belongs_to = "" if groups is None else groups[index]
            table.writerow([clips.title(index), task, truth, predicted_label(model, task, row), values, belongs_to])
    # File names that are no valid text are written back as the bytes they are.
    replace_file(path, text.getvalue().encode("utf-8", "surrogateescape"))


def true_label(model: AudioClassifier, task: str, numbers: np.ndarray) -> str:
    """The label of a class number, or the labels of a multilabel task's 0s and 1s, joined by "|".

    Example:
        >>> from audiostride import create_model
        >>> model = create_model("audio_resnet_pico_strided", heads={"word": ["no", "yes"]})
        >>> true_label(model, "word", np.array(1))
        'yes'
    """
    labels = model.labels[task]
    if model.kinds[task] == "multilabel":
        return "|".join(label for label, present in zip(labels, numbers, strict=True) if present)
    return labels[int(numbers)]


def predicted_label(model: AudioClassifier, task: str, logits: Tensor) -> str:
    """The label that logits ``(n_classes,)`` stand for; several, or none, of a multilabel task, joined by "|".

    Example:
        >>> from audiostride import create_model
        >>> model = create_model("audio_resnet_pico_strided", heads={"word": ["no", "yes"]})
        >>> predicted_label(model, "word", torch.tensor([0.0, 1.0]))
        'yes'
    """
    labels, kind, thresholds = model.labels[task], model.kinds[task], model.thresholds.get(task)
    if kind == "multiclass" or thresholds is None:
        return labels[int(logits.argmax())]
    likely = probabilities(logits, kind)
    if kind == "binary":
        return labels[int(likely[1] >= thresholds[0])]
    return "|".join(label for label, p, t in zip(labels, likely, thresholds, strict=True) if p >= t)
