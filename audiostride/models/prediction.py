"""`Prediction`: what a classifier says about a clip, and the probabilities that logits stand for."""

from typing import NamedTuple

from torch import Tensor

KINDS = ("multiclass", "binary", "multilabel")
"""Of a task: one class of several a clip, one of two, or any number of them."""


class Prediction(NamedTuple):
    """What the classifier says about one clip for one task.

    Attributes:
        label: the likeliest class, or "none", see `calibration`.
        score: probability of the likeliest class, 0 to 1.
        probabilities: probability of every class, in the order of the classifier's labels; those of
            a multilabel task do not sum to 1.
    """

    label: str
    score: float
    probabilities: dict[str, float]


def probabilities(logits: Tensor, kind: str = "multiclass") -> Tensor:
    """Probability of each class: they sum to 1, but for a multilabel task, whose classes are independent.

    Example:
        >>> import torch
        >>> probabilities(torch.zeros(1, 4)), probabilities(torch.zeros(1, 2), "multilabel")
        (tensor([[0.2500, 0.2500, 0.2500, 0.2500]]), tensor([[0.5000, 0.5000]]))
    """
    return logits.sigmoid() if kind == "multilabel" else logits.softmax(-1)
