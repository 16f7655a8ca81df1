"""A run's answers to its test clips, `predictions-test.csv`: written after training, read by everything after it."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..data.clips import Clips
from ..data.labels import label_numbers
from ..errors import ModelFileError
from ..files import replace_file
from ..models.classifier import AudioClassifier
from ..models.prediction import probabilities
from .directory import PREDICTIONS_FILE
from .evaluation import share_correct


class TaskPredictions(NamedTuple):
    """A run's predictions to the test clips of one task.

    Attributes:
        files: name of each clip.
        truth: its class.
        label: the class the model says.
        logits: float64 of shape ``(n_clips, n_classes)``, averaged over the clip's windows.
        groups: what each clip belongs to (speaker, recording); empty where the recipe names no such column.
    """

    files: list[str]
    truth: list[str]
    label: list[str]
    logits: np.ndarray
    groups: Sequence[str] = ()


def make_predictions(
    model: AudioClassifier, task: str, clips: Clips, rows: Sequence[int] | np.ndarray, truth: np.ndarray,
    logits: Tensor, group: str | None = None,
) -> TaskPredictions:  # fmt: skip
    """A model's predictions for some clips.

    Args:
        model: the classifier; the thresholds of a binary or multilabel task decide its labels.
        task: the task.
        clips: a table of clips.
        rows: which of its rows were tested.
        truth: class numbers of the rows, ``(n_rows,)`` or, multilabel, ``(n_rows, n_classes)``.
        logits: of the rows, ``(n_rows, n_classes)``.
        group: the column of what the clips belong to.
    """
    return TaskPredictions(
        [clips.title(i) for i in rows],
        [true_label(model, task, number) for number in truth],
        [predicted_label(model, task, row) for row in logits],
        logits.double().numpy(),
        [clips.column(group)[i] for i in rows] if group else (),
    )


def write_predictions(path: Path, predictions: Mapping[str, TaskPredictions]) -> None:
    """Write the predictions of each task: file, task, truth, label, logits, and the group of every test clip."""
    text = io.StringIO()
    table = csv.writer(text)
    table.writerow(["file", "task", "truth", "label", "logits", "group"])
    for task, found in predictions.items():
        groups = found.groups or [""] * len(found.files)
        for file, truth, label, row, group in zip(
            found.files, found.truth, found.label, found.logits, groups, strict=True
        ):
            table.writerow([file, task, truth, label, " ".join(f"{value:.5g}" for value in row), group])
    # File names that are no valid text are written back as the bytes they are.
    replace_file(path, text.getvalue().encode("utf-8", "surrogateescape"))


def read_predictions(run_dir: Path) -> dict[str, TaskPredictions]:
    """The predictions in a run's `predictions-test.csv`, by task.

    Raises:
        ModelFileError: if the file is missing or damaged.
    """
    path = run_dir / PREDICTIONS_FILE
    predictions: dict[str, TaskPredictions] = {}
    logits: dict[str, list[list[float]]] = {}
    groups: dict[str, list[str]] = {}
    try:
        with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
            for row in csv.DictReader(file):
                task = predictions.setdefault(row["task"], TaskPredictions([], [], [], np.empty(0)))
                task.files.append(row["file"])
                task.truth.append(row["truth"])
                task.label.append(row["label"])
                groups.setdefault(row["task"], []).append(row.get("group") or "")  # once there was no such column
                logits.setdefault(row["task"], []).append([float(value) for value in row["logits"].split()])
        return {
            name: task._replace(logits=np.array(logits[name]), groups=groups[name] if all(groups[name]) else ())
            for name, task in predictions.items()
        }
    except FileNotFoundError as error:
        raise ModelFileError(f"{path}: no such file; it holds the predictions for each test clip") from error
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise ModelFileError(
            f"{path}: is not a table of predictions with the columns file, task, truth, label and logits ({error})"
        ) from error


def correct_shares(predictions: TaskPredictions, labels: Sequence[str], kind: str) -> list[float]:
    """How correct each clip is, from 0 to 1; their mean is the accuracy in the run's results.

    Args:
        predictions: of one task.
        labels: the classes in order.
        kind: of the task: "multiclass", "binary" or "multilabel".

    Example:
        >>> predictions = TaskPredictions(["a", "b"], ["no", "no"], ["no", "yes"], np.array([[1.0, 0.0], [0.0, 3.0]]))
        >>> correct_shares(predictions, ["no", "yes"], "multiclass")
        [1.0, 0.0]
    """
    if kind == "multiclass":
        return [float(true == said) for true, said in zip(predictions.truth, predictions.label, strict=True)]
    # The label is what the thresholds say; the accuracy does not go by them.
    clips = Clips(predictions.files, {"truth": predictions.truth}, [""] * len(predictions.files))
    truth = torch.from_numpy(label_numbers(clips, "truth", labels, kind))
    return share_correct(torch.from_numpy(predictions.logits), truth, kind).tolist()


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
