"""What a model mistakes for what: scores of each class, the confusion matrix, the worst predictions."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ..training.predictions_file import TaskPredictions, presence


def class_scores(predictions: TaskPredictions, labels: Sequence[str], kind: str = "multiclass") -> list[dict[str, Any]]:
    """Precision, recall and F1 of each class.

    Args:
        predictions: of one task.
        labels: the classes in order.
        kind: of the task.

    Returns:
        Rows with "label", "clips", "precision", "recall", "f1" (None where undefined) and "taken_for":
        the prediction most often given for the clips that it misses, or "".

    Example:
        >>> predictions = TaskPredictions(["a", "b", "c"], ["no", "no", "yes"], ["no", "yes", "yes"], np.zeros((3, 2)))
        >>> first, _ = class_scores(predictions, ["no", "yes"])
        >>> first["recall"], first["precision"], first["taken_for"]
        (0.5, 1.0, 'yes')
    """
    truth, predicted = _decisions(predictions, labels, kind)
    rows = []
    for i, label in enumerate(labels):
        n_true, n_predicted = int(truth[:, i].sum()), int(predicted[:, i].sum())
        right = int((truth[:, i] & predicted[:, i]).sum())
        wrong = Counter(predictions.label[row] for row in np.flatnonzero(truth[:, i] & ~predicted[:, i]))
        rows.append(
            {
                "label": label,
                "clips": n_true,
                "precision": right / n_predicted if n_predicted else None,
                "recall": right / n_true if n_true else None,
                "f1": 2 * right / (n_true + n_predicted) if n_true + n_predicted else None,
                "taken_for": max(sorted(wrong), key=wrong.__getitem__, default=""),
            }
        )
    return rows


def confusion(predictions: TaskPredictions, labels: Sequence[str]) -> np.ndarray:
    """Counts of clips, int of shape ``(true, predicted)``, of a task whose clips have one class each.

    Example:
        >>> predictions = TaskPredictions(["a", "b", "c"], ["no", "no", "yes"], ["no", "yes", "yes"], np.zeros((3, 2)))
        >>> confusion(predictions, ["no", "yes"])
        array([[1, 1],
               [0, 1]])
    """
    number, n = {label: i for i, label in enumerate(labels)}, len(labels)
    cells = [n * number[a] + number[b] for a, b in zip(predictions.truth, predictions.label, strict=True)]
    return np.bincount(np.array(cells, int), minlength=n * n).reshape(n, n)


def worst_predictions(
    predictions: TaskPredictions, labels: Sequence[str], n: int, kind: str = "multiclass", temperature: float = 1.0
) -> tuple[bool, list[dict[str, Any]]]:
    """The clips with the largest loss: mistakes, or where there are none the least certain correct predictions.

    Args:
        predictions: of one task.
        labels: the classes in order.
        n: how many at most.
        kind: of the task.
        temperature: of the task's calibration.

    Returns:
        Whether they are mistakes, and for each its file, truth, label and the probabilities of both.

    Example:
        >>> predictions = TaskPredictions(["a", "b"], ["no", "no"], ["no", "yes"], np.array([[1.0, 0.0], [0.0, 3.0]]))
        >>> mistakes, (worst,) = worst_predictions(predictions, ["no", "yes"], 5)
        >>> mistakes, worst["file"], round(worst["p_truth"], 2)
        (True, 'b', 0.05)
    """
    logits = torch.from_numpy(predictions.logits) / temperature
    truth, predicted = _decisions(predictions, labels, kind)
    if kind == "multilabel":  # the classes are independent: the probability of this very set
        signs = (torch.from_numpy(np.where(of, 1.0, -1.0)) for of in (truth, predicted))
        p_truth, p_label = ((sign * logits).sigmoid().prod(1).numpy() for sign in signs)
    else:
        p_truth, p_label = ((logits.softmax(-1).numpy() * of).sum(1) for of in (truth, predicted))
    wrong = (truth != predicted).any(1)
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


def _decisions(predictions: TaskPredictions, labels: Sequence[str], kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Which classes each clip has and is said to have, bool of shape ``(n_clips, n_classes)``.

    Where it is not known whether it has one, what is said of it is left out.
    """
    truth, predicted = (presence(column, labels, kind) for column in (predictions.truth, predictions.label))
    known = ~np.isnan(truth)
    return known & (truth == 1), known & (predicted == 1)
