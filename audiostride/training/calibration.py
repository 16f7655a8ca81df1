"""Finding a `Calibration` on validation clips: the temperature, the threshold of none, thresholds for a precision."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.special import betaincinv
from torch import Tensor

from ..data.batches import LabelledClips
from ..data.clips import Clips
from ..errors import DataError
from ..models.calibration import Calibration, calibrated, none_score
from ..models.classifier import AudioClassifier
from ..windows import split_windows
from .evaluation import best_thresholds, clip_logits, task_loss

KEEP = 0.95
"""Share of true clips that are not to be called none."""

TEMPERATURES = (0.05, 20.0)
"""Lowest and highest temperature."""


class Reached(NamedTuple):
    """From which probability on a class is right as often as wanted.

    Attributes:
        threshold: the lowest such probability; 1 if there is none.
        precision: share of the clips with at least that probability that are right; None without clips.
        interval: exact 95 % interval of the precision.
        clips: how many clips these are.
    """

    threshold: float
    precision: float | None
    interval: tuple[float, float]
    clips: int


def fit_temperature(logits: Tensor, labels: Tensor | np.ndarray, kind: str = "multiclass") -> float:
    """The temperature whose probabilities make the labels likeliest, between the two of `TEMPERATURES`.

    The loss of ``logits * b`` is convex in b, so a golden-section search finds its minimum. Clips that are all right
    would be likeliest at a temperature of 0; the least certain one then counts as half wrong.

    Args:
        logits: of validation clips, ``(n, n_classes)``.
        labels: the truth, as for `evaluation.score`.
        kind: of the task.

    Source:
        Guo et al. 2017, "On Calibration of Modern Neural Networks".

    Example:
        >>> logits = torch.tensor([[4.0, 0.0]] * 4)
        >>> round(fit_temperature(logits, torch.tensor([0, 0, 0, 1])), 3)  # softmax(4 / T) is (3/4, 1/4)
        3.641
    """
    logits, target = logits.double(), _shares(logits, torch.as_tensor(labels), kind)

    def loss(log_b: float) -> float:
        return task_loss(logits * math.exp(log_b), target, kind).item()

    low, high = (-math.log(temperature) for temperature in reversed(TEMPERATURES))
    ratio = (math.sqrt(5) - 1) / 2
    left, right = high - ratio * (high - low), low + ratio * (high - low)
    for _ in range(40):
        if loss(left) <= loss(right):
            right, high = left, right
            left = high - ratio * (high - low)
        else:
            left, low = right, left
            right = low + ratio * (high - low)
    return math.exp(-(low + high) / 2)


def none_threshold(scores: Tensor, keep: float = KEEP) -> float:
    """The highest threshold that at least a share of the scores reach; equal scores are kept together.

    Example:
        >>> none_threshold(torch.arange(100.0), keep=0.95)
        5.0
    """
    return scores.sort().values[_left_out(len(scores), keep)].item()


def kept_interval(n: int, keep: float = KEEP) -> tuple[float, float]:
    """Between which shares of new clips the threshold of `none_threshold` keeps, 95 %, if it was found on n clips.

    The share of a distribution above its order statistic has a beta distribution, whatever the distribution is.

    Example:
        >>> [round(end, 2) for end in kept_interval(20)], [round(end, 2) for end in kept_interval(1000)]
        ([0.75, 0.99], [0.93, 0.96])
    """
    left_out = _left_out(n, keep)
    low, high = (float(betaincinv(n - left_out, left_out + 1, tail)) for tail in (0.025, 0.975))
    return low, high


def precision_thresholds(
    logits: Tensor, labels: Tensor | np.ndarray, kind: str, temperature: float, precision: float
) -> list[Reached]:
    """For each class (of a binary task the second one) the lowest probability from which it is right often enough.

    The interval is that of a threshold fixed in advance; as this one was chosen on these clips, it is a little
    optimistic.

    Args:
        logits: of validation clips, ``(n, n_classes)``.
        labels: the truth, as for `evaluation.score`.
        kind: of the task. In a multiclass task a class counts where it is the likeliest one.
        temperature: of the task.
        precision: wanted share that is right, 0 to 1.

    Example:
        >>> logits = torch.tensor([[3.0, 0.0], [2.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        >>> found = precision_thresholds(logits, torch.tensor([0, 0, 1, 1]), "multiclass", 1.0, 0.9)
        >>> [(round(one.threshold, 3), one.precision, one.clips) for one in found]
        [(0.881, 1.0, 2), (0.731, 1.0, 1)]
    """
    likely, target = calibrated(logits.double(), kind, temperature), torch.as_tensor(labels)
    found = []
    for number in [1] if kind == "binary" else range(logits.shape[1]):
        if kind == "multilabel":
            rows = ~target[:, number].isnan()
            right = target[:, number] == 1
        else:
            rows = likely.argmax(1) == number if kind == "multiclass" else torch.ones(len(likely), dtype=torch.bool)
            right = target == number
        found.append(_reached(likely[rows, number].numpy(), right[rows].numpy(), precision))
    return found


def binomial_interval(k: int, n: int) -> tuple[float, float]:
    """Exact 95 % interval of a share of which k of n were seen (Clopper & Pearson 1934).

    Example:
        >>> [round(end, 3) for end in binomial_interval(9, 10)], binomial_interval(0, 0)
        ([0.555, 0.997], (0.0, 1.0))
    """
    low = float(betaincinv(k, n - k + 1, 0.025)) if k else 0.0
    high = float(betaincinv(k + 1, n - k, 0.975)) if k < n else 1.0
    return low, high


@torch.no_grad()
def centre_heads_(model: AudioClassifier) -> None:
    """Take the mean over classes off the weights of each head whose classes exclude each other, in place.

    A softmax does not depend on what all logits have in common, so training leaves that to chance. Scores stay the
    same, and the largest logit, by which events are found, now stands for how far a class is ahead.

    Example:
        >>> from audiostride import create_model
        >>> model = create_model("audio_resnet_pico_strided", heads={"word": 3}).eval()
        >>> centre_heads_(model)
        >>> bool(model(torch.randn(2, 16000))["word"].mean(1).abs().max() < 1e-5)
        True
    """
    for task, head in model.heads.items():
        if model.kinds[task] != "multilabel":
            for values in head.parameters():
                values.sub_(values.mean(0))


def calibrate_tasks(
    model: AudioClassifier,
    clips: Clips,
    labels: dict[str, np.ndarray],
    rows: Sequence[int] | np.ndarray,
    keep: float = KEEP,
    precision: float | None = None,
    workers: int = 0,
) -> dict[str, Any]:
    """Find and set calibration and thresholds of the tasks that `labels` names on some clips, best validation ones.

    Args:
        model: the classifier.
        clips: a table of clips.
        labels: the truth of each task, of all clips.
        rows: which clips.
        keep: share of them that are not to be called none.
        precision: wanted precision of each class; None: thresholds of best F1 for binary and multilabel tasks, and
            none for multiclass ones.
        workers: processes that decode audio.

    Returns:
        For each task plain data: "clips", "temperature", "none_below", "kept" (the interval of `kept_interval`) and,
        where a precision was asked for, "thresholds", a `Reached` for each class.

    Raises:
        DataError: if there are no clips, or a file cannot be read.
    """
    if not len(rows):
        raise DataError("there are no clips to calibrate on")
    logits = clip_logits(model, clips, rows, workers)
    found = {}
    for task, truth in labels.items():
        kind, target, scores = model.kinds[task], truth[rows], logits[task]
        temperature = fit_temperature(scores, target, kind)
        none_below = None if kind == "multilabel" else none_threshold(none_score(scores, kind), keep)
        model.calibrations[task] = Calibration(temperature, none_below)
        model.thresholds.pop(task, None)
        found[task] = {
            "clips": len(rows),
            **model.calibrations[task].as_dict(),
            "kept": list(kept_interval(len(rows), keep)),
        }
        if precision is not None:
            reached = precision_thresholds(scores, target, kind, temperature, precision)
            model.thresholds[task] = [one.threshold for one in reached]
            found[task]["thresholds"] = [one._asdict() for one in reached]
        elif kind != "multiclass":
            model.thresholds[task] = best_thresholds(scores / temperature, target, kind)
    return found


def calibrate(model: AudioClassifier, sets: Sequence[LabelledClips], workers: int = 0) -> dict[str, Any]:
    """`calibrate_tasks` on the validation clips of all data sets that have some.

    Returns:
        As `calibrate_tasks`; of a task whose data has background held out also "background", see `none_share`.
    """
    found: dict[str, Any] = {}
    for data in sets:
        if not len(rows := data.indexes("validation")):
            continue
        found |= calibrate_tasks(model, data.clips, data.labels, rows, workers=workers)
        if data.background is not None:
            held_out = np.flatnonzero(np.array(data.background.splits) == "validation")
            for task, share in none_share(model, data.background, held_out, list(data.labels)).items():
                found[task]["background"] = share
    return found


@torch.inference_mode()
def none_share(
    model: AudioClassifier, clips: Clips, rows: Sequence[int] | np.ndarray, tasks: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Of how many windows of sounds a model says that they are none of the classes, for each task.

    Returns:
        "windows", "none" (the share), and its exact 95 % "interval", as if windows were independent.
    """
    counts, n_windows = dict.fromkeys(tasks, 0), 0
    rate, length = model.sample_rate, model.window_length
    for row in rows:
        for start in range(0, clips.n_samples(row, rate), 64 * length):  # a recording may last for hours
            part = torch.from_numpy(clips.read(row, rate, start, 64 * length))
            embedding = model.embed_windows(split_windows(part, length))
            n_windows += len(embedding)
            for task in tasks:
                counts[task] += int(model.is_none(task, model.heads[task](embedding)).sum())
    return {
        task: {"windows": n_windows, "none": n / n_windows, "interval": list(binomial_interval(n, n_windows))}
        for task, n in counts.items()
        if n_windows
    }


def _left_out(n: int, keep: float) -> int:
    """How many of n clips are called none so that at least a share is kept."""
    return min(n - 1, math.floor(n * (1 - keep) + 1e-9))


def _shares(logits: Tensor, target: Tensor, kind: str) -> Tensor:
    """The truth as shares of the classes; the least certain answer is half wrong if none is wrong."""
    if kind == "multilabel":
        shares, margins = target.double().clone(), (logits * (2 * target - 1)).nan_to_num(math.inf).flatten()
        if margins.min() > 0:
            shares.view(-1)[margins.argmin()] = 0.5
        return shares
    shares = torch.nn.functional.one_hot(target, logits.shape[1]).double()
    margins = logits.gather(1, target[:, None])[:, 0] - logits.masked_fill(shares.bool(), -math.inf).amax(1)
    if margins.min() > 0:
        least = int(margins.argmin())
        second = int(logits[least].masked_fill(shares[least].bool(), -math.inf).argmax())
        shares[least, [int(target[least]), second]] = 0.5
    return shares


def _reached(scores: np.ndarray, right: np.ndarray, wanted: float) -> Reached:
    """The lowest of the scores from which on a share of at least `wanted` is right."""
    order = np.argsort(-scores, kind="stable")
    descending, hits = scores[order], np.cumsum(right[order])
    last_of_equals = np.append(descending[1:] != descending[:-1], True)[: len(scores)]
    counts = np.arange(1, len(scores) + 1)
    reached = np.flatnonzero((hits >= wanted * counts) & last_of_equals)
    if not len(reached):
        return Reached(1.0, None, (0.0, 1.0), 0)
    n, k = int(counts[reached[-1]]), int(hits[reached[-1]])
    return Reached(float(descending[reached[-1]]), k / n, binomial_interval(k, n), n)
