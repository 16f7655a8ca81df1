"""A run's predictions for its test clips, `predictions-test.csv`: written after training, read by all that follows."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..data.clips import Clips
from ..data.labels import SEPARATOR, UNKNOWN
from ..errors import ModelFileError, printable
from ..files import replace_file
from ..models.classifier import AudioClassifier
from .directory import PREDICTIONS_FILE, RESULTS_FILE
from .evaluation import share_correct
from .run_files import read_own, read_results

_COLUMNS = ("file", "task", "truth", "label", "logits", "group")


class TaskPredictions(NamedTuple):
    """A run's predictions for the test clips of one task.

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
    table.writerow(_COLUMNS)
    for task, found in predictions.items():
        groups = found.groups or [""] * len(found.files)
        for file, truth, label, row, group in zip(
            found.files, found.truth, found.label, found.logits, groups, strict=True
        ):
            table.writerow([file, task, truth, label, " ".join(f"{value:.5g}" for value in row), group])
    # File names that are no valid text are written back as the bytes they are.
    replace_file(path, text.getvalue().encode("utf-8", "surrogateescape"))


def read_predictions(run_dir: Path, model: AudioClassifier | None = None) -> dict[str, TaskPredictions]:
    """The predictions in a finished run's `predictions-test.csv`, by task.

    Args:
        run_dir: the run directory.
        model: its model, if the predictions are to fit its tasks and classes.

    Raises:
        ModelFileError: if the file is missing, damaged, of another run, or has not as many clips as `results.json`
            says; names the line.
    """
    path = run_dir / PREDICTIONS_FILE
    if not path.exists():
        raise ModelFileError(f"{printable(path)}: no such file; it holds the predictions for each test clip")
    text = io.StringIO(read_own(path).decode("utf-8", "surrogateescape"), newline="")
    found: dict[str, TaskPredictions] = {}
    rows: dict[str, list[list[float]]] = {}
    groups: dict[str, list[str]] = {}
    table = csv.reader(text, strict=True)
    try:
        header = next(table, [])
        if header != list(_COLUMNS):
            raise ValueError(f"has the columns {', '.join(header)}, not {', '.join(_COLUMNS)}")
        for row in table:
            if len(row) != len(header):
                raise ValueError(f"has {len(row)} cells, not {len(header)}")
            file, name, truth, label, values, group = row
            task = found.setdefault(name, TaskPredictions([], [], [], np.empty(0)))
            task.files.append(file)
            task.truth.append(truth)
            task.label.append(label)
            groups.setdefault(name, []).append(group)
            logits = [float(value) for value in values.split()]
            others = rows.setdefault(name, [])
            if not all(map(math.isfinite, logits)) or (others and len(logits) != len(others[0])):
                raise ValueError(f"has the logits {values!r}")
            others.append(logits)
    except (ValueError, csv.Error) as error:
        raise ModelFileError(
            f"{printable(path)}: line {max(1, table.line_num)}: is not a row of predictions ({printable(str(error))}); "
            "restore the file, or train anew"
        ) from error
    found = {
        name: task._replace(logits=np.array(rows[name]), groups=groups[name] if all(groups[name]) else ())
        for name, task in found.items()
    }
    _check_counts(path, found, read_results(run_dir)["tasks"])
    if model is not None:
        _check_classes(path, found, model)
    return found


def _check_counts(path: Path, found: Mapping[str, TaskPredictions], scores: Mapping[str, Any]) -> None:
    expected = {name: score["n"] for name, score in scores.items()}
    present = {name: len(task.files) for name, task in found.items()}
    if expected != present:
        raise ModelFileError(
            f"{printable(path)}: has {_counts(present)}, but {RESULTS_FILE} says {_counts(expected)}: one of them was "
            "cut short, edited or comes from another run; restore it, or train anew"
        )


def _counts(clips: Mapping[str, int]) -> str:
    return ", ".join(f"{n} clips of {printable(name)}" for name, n in clips.items()) or "no clips"


def _check_classes(path: Path, found: Mapping[str, TaskPredictions], model: AudioClassifier) -> None:
    for name, task in found.items():
        if name not in model.labels or task.logits.shape[1] != len(model.labels[name]):
            raise ModelFileError(f"{printable(path)}: does not fit the classes of the model in task {printable(name)}")
        try:
            for column in (task.truth, task.label):
                presence(list(set(column)), model.labels[name], model.kinds[name])
        except KeyError as error:
            raise ModelFileError(
                f"{printable(path)}: the model has no class {error} in task {printable(name)}"
            ) from error


def presence(column: Sequence[str], labels: Sequence[str], kind: str) -> np.ndarray:
    """Which classes each clip has by its label, or by several joined by "|": 1, 0, or NaN where it is "?LABEL".

    Args:
        column: `truth` or `label` of predictions.
        labels: the classes in order.
        kind: of the task.

    Returns:
        Float32 of shape ``(n_clips, n_classes)``.

    Raises:
        KeyError: if a label is none of the classes.

    Example:
        >>> presence(["dog", "?dog|cat", ""], ["cat", "dog"], "multilabel").tolist()
        [[0.0, 1.0], [1.0, nan], [0.0, 0.0]]
    """
    number = {label: i for i, label in enumerate(labels)}
    found = np.zeros((len(column), len(labels)), np.float32)
    for row, value in zip(found, column, strict=True):
        for label in (value.split(SEPARATOR) if value else []) if kind == "multilabel" else [value]:
            if label in number:
                row[number[label]] = 1
            else:
                row[number[label.removeprefix(UNKNOWN)]] = np.nan
    return found


def correct_shares(predictions: TaskPredictions, labels: Sequence[str], kind: str) -> list[float]:
    """How correct each clip is, see `evaluation.share_correct`; their mean is the accuracy in the run's results.

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
    truth = torch.from_numpy(presence(predictions.truth, labels, kind))
    return share_correct(torch.from_numpy(predictions.logits), truth, kind).tolist()


def true_label(model: AudioClassifier, task: str, numbers: np.ndarray) -> str:
    """The label of a class number, or those of a multilabel task's 0s and 1s, joined by "|", as "?dog" where it is NaN.

    Example:
        >>> from audiostride import create_model
        >>> model = create_model("audio_resnet_pico_strided", heads={"word": ["no", "yes"]})
        >>> true_label(model, "word", np.array(1))
        'yes'
    """
    labels = model.labels[task]
    if model.kinds[task] == "multilabel":
        return SEPARATOR.join(
            f"{UNKNOWN}{label}" if np.isnan(present) else label
            for label, present in zip(labels, numbers, strict=True)
            if present  # NaN counts as true
        )
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
    likely = model.probabilities(task, logits)
    if kind == "binary":
        return labels[int(likely[1] >= thresholds[0])]
    return "|".join(label for label, p, t in zip(labels, likely, thresholds, strict=True) if p >= t)
