"""How far a model's scores can be believed: calibration error with its interval, and what the answer none costs."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ..models.calibration import calibrated
from ..models.classifier import AudioClassifier
from ..training.predictions_file import TaskPredictions, presence
from .significance import group_draws

BINS = 15
"""Equal parts of the range of probabilities, as in Guo et al. 2017."""

_PERFECT_DRAWS = 500


def confidence(predictions: TaskPredictions, model: AudioClassifier, task: str) -> dict[str, Any]:
    """Calibration error of a task's scores on test clips, and how often it answers none.

    A score is the probability of a clip's likeliest class, and right if that is its class; in a multilabel task every
    class of a clip has one, and right means that the clip has the class.

    Returns:
        "calibration_error": mean over scores of the distance between the mean score of a bin and the share of it that
        is right; "interval": its 95 % interval over groups of clips (None with a single one); "perfect": what scores
        that are probabilities would stay below in 97.5 of 100 sets of as many clips; "bins" with the means "score" and
        "right" and "n" of each that is not empty; and "none", see `none_counts`.
    """
    labels, kind = model.labels[task], model.kinds[task]
    logits, truth = torch.from_numpy(predictions.logits), presence(predictions.truth, labels, kind)
    likely = calibrated(logits, kind, model.calibration(task).temperature).numpy()
    if kind == "multilabel":
        clip, column = np.nonzero(~np.isnan(truth))
    else:
        clip, column = np.arange(len(likely)), likely.argmax(1)
    right_label = np.array([a == b for a, b in zip(predictions.truth, predictions.label, strict=True)], bool)
    groups = np.array(predictions.groups or predictions.files)[clip]
    return calibration_error(likely[clip, column], truth[clip, column] == 1, groups) | {
        "none": none_counts(model.is_none(task, logits).numpy(), right_label)
    }


def calibration_error(scores: np.ndarray, right: np.ndarray, groups: Sequence[str] | np.ndarray) -> dict[str, Any]:
    """Expected calibration error of scores, see `confidence`.

    Args:
        scores: probabilities, ``(n,)``.
        right: whether what each is the probability of is so, bool ``(n,)``.
        groups: what each belongs to.

    Source:
        Guo et al. 2017, "On Calibration of Modern Neural Networks", equation 3.

    Example:
        >>> scores, right = np.full(10, 0.8), np.arange(10) < 7
        >>> round(calibration_error(scores, right, np.arange(10))["calibration_error"], 6)
        0.1
    """
    bins = np.minimum((scores * BINS).astype(int), BINS - 1)
    gaps = right - scores
    number = np.unique(groups, return_inverse=True)[1]
    table = np.zeros((number.max() + 1, BINS))
    np.add.at(table, (number, bins), gaps)
    sizes = np.bincount(number)
    interval = None
    if len(table) > 1:
        drawn = group_draws(len(table))
        low, high = np.percentile(np.abs(drawn @ table).sum(1) / (drawn @ sizes), [2.5, 97.5])
        interval = [float(low), float(high)]
    chances = np.random.default_rng(0).random((_PERFECT_DRAWS, len(scores))) < scores
    perfect = [np.abs(np.bincount(bins, made - scores, BINS)).sum() / len(scores) for made in chances]
    counts = np.bincount(bins, minlength=BINS)
    return {
        "calibration_error": float(np.abs(table.sum(0)).sum() / len(scores)),
        "interval": interval,
        "perfect": float(np.percentile(perfect, 97.5)),
        "bins": [
            {"score": float(scores[bins == i].mean()), "right": float(right[bins == i].mean()), "n": int(counts[i])}
            for i in np.flatnonzero(counts)
        ],
    }


def none_counts(none: np.ndarray, right: np.ndarray) -> dict[str, float | None]:
    """What the answer none costs and saves on clips that do have a class.

    Args:
        none: for which clips it was given, bool ``(n,)``.
        right: which clips' answers would be right without it.

    Returns:
        "share" of the clips, "of_right" (what it costs), "of_wrong" (what it saves), and the "accuracy" of the others;
        None where there are no such clips.

    Example:
        >>> none_counts(np.array([True, False, False, False]), np.array([False, True, True, False]))
        {'share': 0.25, 'of_right': 0.0, 'of_wrong': 0.5, 'accuracy': 0.6666666666666666}
    """

    def mean(values: np.ndarray) -> float | None:
        return float(values.mean()) if len(values) else None

    return {
        "share": mean(none),
        "of_right": mean(none[right]),
        "of_wrong": mean(none[~right]),
        "accuracy": mean(right[~none]),
    }
