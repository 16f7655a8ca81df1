"""`Calibration`: by what a task's logits become scores that are probabilities, or the answer "none of the classes".

Two numbers a task, found on validation clips (`audiostride.training.calibration`) and saved in `config.json`:

- Scores are the probabilities of ``logits / temperature`` (Guo et al. 2017, "On Calibration of Modern Neural
  Networks"). The likeliest class stays the same.
- The answer is none where the largest logit exceeds the mean of all by less than `none_below`. Logits are compared,
  not probabilities: a softmax gives all of its probability to some class, whatever it is shown (Vaze et al. 2022,
  "Open-Set Recognition: a Good Closed-Set Classifier is All You Need"). The mean is taken off because cross-entropy
  does not depend on it: training never decides it.

Where a task has a threshold for each class, a probability, the answer is also none if the likeliest class does not
reach its own. In a multilabel task that alone decides: it is none if no class reaches its threshold.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .prediction import probabilities

NONE = "none"
"""The label of what is none of the classes."""


class Calibration(NamedTuple):
    """What a task's scores are corrected by.

    Attributes:
        temperature: what logits are divided by before they become probabilities, above 0.
        none_below: `none_score` below which the answer is none; None: there is always an answer. Not used in a
            multilabel task.
    """

    temperature: float = 1.0
    none_below: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain data for `config.json`."""
        return self._asdict()


def calibrated(logits: Tensor, kind: str, temperature: float) -> Tensor:
    """Probability of each class, from logits ``(..., n_classes)``.

    Example:
        >>> calibrated(torch.tensor([0.0, 2 * math.log(3)]), "multiclass", temperature=2.0)
        tensor([0.2500, 0.7500])
    """
    return probabilities(logits / temperature, kind)


def none_score(logits: Tensor, kind: str) -> Tensor:
    """How surely a sound is of one of the classes, ``(...)`` from logits ``(..., n_classes)``.

    The largest logit minus their mean; in a multilabel task, whose classes are independent, the largest logit.

    Example:
        >>> none_score(torch.tensor([[1.0, 7.0], [6.0, 7.0]]), "multiclass")
        tensor([3.0000, 0.5000])
    """
    largest = logits.amax(-1)
    return largest if kind == "multilabel" else largest - logits.mean(-1)


def is_none(logits: Tensor, kind: str, calibration: Calibration, thresholds: Sequence[float] | None = None) -> Tensor:
    """Whether the answer is none, bool ``(...)`` from logits ``(..., n_classes)``.

    Args:
        logits: as the network gives them.
        kind: of the task: "multiclass", "binary" or "multilabel".
        calibration: of the task.
        thresholds: probability that each class must reach, if the task has some. Those of a binary task decide between
            its two classes and do not count here.

    Example:
        >>> logits = torch.tensor([[0.0, 7.0], [0.0, 2.0], [0.0, -2.0]])
        >>> is_none(logits, "multiclass", Calibration(none_below=2.0)).tolist()
        [False, True, True]
        >>> is_none(logits, "multilabel", Calibration(), [0.9, 0.8]).tolist()
        [False, False, True]
    """
    none = torch.zeros(logits.shape[:-1], dtype=torch.bool, device=logits.device)
    if kind != "multilabel" and calibration.none_below is not None:
        none = none_score(logits, kind) < calibration.none_below
    if kind == "binary" or not thresholds:
        return none
    likely = calibrated(logits, kind, calibration.temperature)
    reached = likely >= likely.new_tensor(thresholds)
    if kind == "multiclass":
        return none | ~reached.gather(-1, logits.argmax(-1, keepdim=True)).squeeze(-1)
    return ~reached.any(-1)


def check_calibration(settings: Mapping[str, Any]) -> Calibration:
    """A calibration from plain data.

    Raises:
        ValueError: names what does not fit.

    Example:
        >>> check_calibration({"temperature": 0, "none_below": 4.5})
        Traceback (most recent call last):
            ...
        ValueError: calibration: temperature must be a number above 0, got 0
    """
    if not isinstance(settings, Mapping) or settings.keys() - set(Calibration._fields):
        raise ValueError(f"calibration: its keys are {', '.join(Calibration._fields)}, got {settings!r}")
    found = Calibration(**settings)
    if not (_is_number(found.temperature) and found.temperature > 0):
        raise ValueError(f"calibration: temperature must be a number above 0, got {found.temperature!r}")
    if not (found.none_below is None or _is_number(found.none_below)):
        raise ValueError(f"calibration: none_below must be a number or null, got {found.none_below!r}")
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
