"""What a model takes for what: scores of each class, the confusion matrix, the worst predictions."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ..training.predictions_file import TaskPredictions


def is_multilabel(predictions: TaskPredictions, labels: Sequence[str]) -> bool:
    """Whether a clip has any number of classes, written as "dog|rain", instead of one.

    Example:
        >>> several = TaskPredictions(["a"], ["dog|rain"], ["dog"], np.zeros((1, 2)))
        >>> is_multilabel(several, ["dog", "rain"])
        True
    """
    return not set(predictions.truth + predictions.label) <= set(labels)


def class_scores(predictions: TaskPredictions, labels: Sequence[str]) -> list[dict[str, Any]]:
    """Precision, recall and F1 of each class.

    Args:
        predictions: of one task.
        labels: the classes in order.

    Returns:
        Rows with "label", "clips", "precision", "recall", "f1" (None where undefined) and "taken_for":
        what its clips are most often mistaken for, or "".

    Example:
        >>> predictions = TaskPredictions(["a", "b", "c"], ["no", "no", "yes"], ["no", "yes", "yes"], np.zeros((3, 2)))
        >>> first, _ = class_scores(predictions, ["no", "yes"])
        >>> first["recall"], first["precision"], first["taken_for"]
        (0.5, 1.0, 'yes')
    """
    truth, predicted = (_classes(column, predictions, labels) for column in (predictions.truth, predictions.label))
    rows = []
    for i, label in enumerate(labels):
        right, n_true, n_predicted = (
            int((truth[:, i] & predicted[:, i]).sum()),
            int(truth[:, i].sum()),
            int(predicted[:, i].sum()),
        )
        wrong = [predictions.label[row] for row in np.flatnonzero(truth[:, i] & ~predicted[:, i])]
        rows.append(
            {
                "label": label,
                "clips": n_true,
                "precision": right / n_predicted if n_predicted else None,
                "recall": right / n_true if n_true else None,
                "f1": 2 * right / (n_true + n_predicted) if n_true + n_predicted else None,
                "taken_for": max(sorted(set(wrong)), key=wrong.count, default=""),
            }
        )
    return rows


def confusion(predictions: TaskPredictions, labels: Sequence[str]) -> np.ndarray:
    """Counts ``(true, predicted)`` of a task whose clips have one class each.

    Example:
        >>> predictions = TaskPredictions(["a", "b", "c"], ["no", "no", "yes"], ["no", "yes", "yes"], np.zeros((3, 2)))
        >>> confusion(predictions, ["no", "yes"]).tolist()
        [[1, 1], [0, 1]]
    """
    truth, predicted = (
        _classes(column, predictions, labels).astype(int) for column in (predictions.truth, predictions.label)
    )
    return truth.T @ predicted


def worst_predictions(predictions: TaskPredictions, labels: Sequence[str], n: int) -> tuple[bool, list[dict[str, Any]]]:
    """The clips with the largest loss: mistakes, or where there are none the least certain correct predictions.

    Args:
        predictions: of one task.
        labels: the classes in order.
        n: how many at most.

    Returns:
        Whether they are mistakes, and for each its file, truth, label and the probabilities of both.

    Example:
        >>> predictions = TaskPredictions(["a", "b"], ["no", "no"], ["no", "yes"], np.array([[1.0, 0.0], [0.0, 3.0]]))
        >>> mistakes, (worst,) = worst_predictions(predictions, ["no", "yes"], 5)
        >>> mistakes, worst["file"], round(worst["p_truth"], 2)
        (True, 'b', 0.05)
    """
    logits = torch.from_numpy(predictions.logits)
    truth, predicted = (
        torch.from_numpy(_classes(column, predictions, labels)) for column in (predictions.truth, predictions.label)
    )
    if is_multilabel(predictions, labels):  # the classes are independent: the probability of this very set
        p_truth, p_label = (torch.where(of, logits, -logits).sigmoid().prod(1).numpy() for of in (truth, predicted))
    else:
        p_truth, p_label = ((logits.softmax(-1) * of).sum(1).numpy() for of in (truth, predicted))
    wrong = np.array(predictions.truth) != np.array(predictions.label)
    among = np.flatnonzero(wrong) if wrong.any() else np.arange(len(wrong))
    worst = among[np.argsort(p_truth[among], kind="stable")][:n]
    return bool(wrong.any()), [
        {
            "file": predictions.files[i],
            "truth": predictions.truth[i],
            "label": predictions.label[i],
            "p_truth": float(p_truth[i]),
            "p_label": float(p_label[i]),
        }
        for i in worst
    ]


def _classes(column: Sequence[str], predictions: TaskPredictions, labels: Sequence[str]) -> np.ndarray:
    """Which classes each clip has, bool of shape ``(n_clips, n_classes)``."""
    split = is_multilabel(predictions, labels)
    has = [set(value.split("|")) if split else {value} for value in column]
    return np.array([[label in classes for label in labels] for classes in has])
