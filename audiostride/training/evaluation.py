"""Scores of a classifier on whole clips: the logits of a clip's windows are averaged."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..data.batches import evaluation_batches
from ..data.clips import Clips, Progress
from ..models.classifier import AudioClassifier
from ..models.prediction import probabilities
from ..windows import mean_over_windows
from .processes import gather_rows, share_of


class Score(NamedTuple):
    """Score of one task.

    Attributes:
        loss: mean over clips of the loss of the averaged logits, in nats: cross-entropy, for a
            multilabel task the mean of its classes' binary cross-entropies.
        accuracy: share of clips whose likeliest class is correct, 0 to 1; for a multilabel task the
            share of correct yes-or-no decisions.
        n: number of clips.
        auc, mean_average_precision, macro_f1: what `METRICS` has for this kind of task; None for the others. F1 is
            at the task's thresholds.
    """

    loss: float
    accuracy: float
    n: int
    auc: float | None = None
    mean_average_precision: float | None = None
    macro_f1: float | None = None

    def metrics(self) -> dict[str, float]:
        """All figures that this kind of task has, by name.

        Example:
            >>> Score(0.5, 0.75, 4).metrics()
            {'loss': 0.5, 'accuracy': 0.75, 'n': 4}
        """
        return {name: value for name, value in self._asdict().items() if value is not None}

    @property
    def primary_metric(self) -> float:
        """The figure by which epochs are compared: mean average precision, else accuracy."""
        return self.accuracy if self.mean_average_precision is None else self.mean_average_precision


@torch.inference_mode()
def clip_logits(
    model: AudioClassifier,
    clips: Clips,
    indexes: Sequence[int] | np.ndarray,
    workers: int = 0,
    progress: Progress | None = None,
    overlap: float = 0.0,
) -> dict[str, Tensor]:
    """Logits of whole clips, averaged over each clip's windows. The model is left in eval mode.

    Args:
        model: the classifier.
        clips: a table of clips.
        indexes: which of its rows.
        workers: processes that decode audio; 0 decodes in this one.
        progress: called after each batch.
        overlap: of windows, see `window_hop`.

    Returns:
        For each task float32 logits of shape ``(len(indexes), n_classes)``, on the CPU.

    Raises:
        DataError: if a file cannot be read.
    """
    model.eval()
    device = model.device
    parts: list[Tensor] = []
    owners: list[Tensor] = []
    batches = evaluation_batches(clips, list(indexes), model.resolution, model.window_length, workers, overlap=overlap)
    for batch in batches:
        # Memory is bounded by the number of windows, not of clips: one clip may last an hour.
        for windows in batch.waveform.split(256):
            parts.append(model.trunk(model.frontend(windows.to(device))))
        owners.append(batch.clip)
        if progress:
            progress("evaluating", int(batch.clip[-1]) + 1, len(indexes))
    embedding = mean_over_windows(torch.cat(parts), torch.cat(owners).to(device), len(indexes))
    return {task: head(embedding).float().cpu() for task, head in model.heads.items()}


def task_loss(
    logits: Tensor,
    labels: Tensor,
    kind: str = "multiclass",
    class_weights: Tensor | None = None,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Mean loss of logits ``(n, n_classes)``, a scalar, in at least float32.

    Args:
        logits: of the classes.
        labels: class numbers ``(n,)`` or shares of the classes ``(n, n_classes)``, of a multilabel task NaN where it is
            not known whether the clip has the class, which is then left out of the mean over the clip's classes.
        kind: "multiclass" and "binary": cross-entropy; "multilabel": a binary cross-entropy for each
            class, averaged over classes.
        class_weights: weight of each class ``(n_classes,)``; for a multilabel task of its presence.
        label_smoothing: share of the truth that is spread evenly over all classes (Szegedy et al. 2016), 0 to 1; for
            cross-entropy only.

    Example:
        >>> task_loss(torch.zeros(2, 3), torch.tensor([0, 2])).item()
        1.0986123085021973
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if kind == "multilabel":
        known = ~labels.isnan()
        if known.all():
            return F.binary_cross_entropy_with_logits(logits, labels, pos_weight=class_weights)
        losses = F.binary_cross_entropy_with_logits(
            logits, labels.nan_to_num(), pos_weight=class_weights, reduction="none"
        )
        return ((losses * known).sum(1) / known.sum(1).clamp(min=1)).mean()
    return F.cross_entropy(logits, labels, weight=class_weights, label_smoothing=label_smoothing)


def none_loss(logits: Tensor, kind: str = "multiclass") -> Tensor:
    """Mean loss of logits ``(n, n_classes)`` of sounds that are none of the classes, a scalar in at least float32.

    Cross-entropy against equal shares of all classes; of a multilabel task the binary one against none.

    Source:
        Hendrycks, Mazeika & Dietterich 2019, "Deep Anomaly Detection with Outlier Exposure".

    Example:
        >>> none_loss(torch.zeros(4, 3)).item()
        1.0986123085021973
    """
    share = 0.0 if kind == "multilabel" else 1 / logits.shape[1]
    return task_loss(logits, torch.full(logits.shape, share, device=logits.device), kind)


def share_correct(logits: Tensor, labels: Tensor, kind: str = "multiclass") -> Tensor:
    """How correct each clip is, ``(n,)`` from 0 to 1: its likeliest class, or the share of its yes-or-no decisions.

    Decisions whose truth is NaN, not known, do not count; a clip of which nothing is known has a share of NaN.

    Example:
        >>> share_correct(torch.tensor([[2.0, -2.0]]), torch.tensor([[1.0, 1.0]]), "multilabel")
        tensor([0.5000])
    """
    if kind == "multilabel":
        return ((logits > 0) == (labels > 0.5)).float().where(~labels.isnan(), torch.nan).nanmean(1)
    numbers = labels if labels.dim() == 1 else labels.argmax(1)
    return (logits.argmax(1) == numbers).float()


def score(
    logits: Tensor,
    labels: Tensor | np.ndarray,
    kind: str = "multiclass",
    thresholds: Sequence[float] | None = None,
    temperature: float = 1.0,
) -> Score:
    """Score of logits ``(n, n_classes)`` against class numbers ``(n,)`` or, multilabel, ``(n, n_classes)``.

    Args:
        logits: averaged over each clip's windows.
        labels: the truth.
        kind: of the task.
        thresholds: from which probability on a class counts as present: of every class of a
            multilabel task, of the second class of a binary one; 0.5 by default.
        temperature: at which logits become those probabilities; the loss is that of the logits as they are.

    Example:
        >>> score(torch.tensor([[9.0, 0.0], [9.0, 0.0]]), torch.tensor([0, 1])).accuracy
        0.5
        >>> score(torch.tensor([[9.0, 0.0], [0.0, 9.0]]), torch.tensor([0, 1]), "binary").auc
        1.0
    """
    target = torch.as_tensor(labels)
    loss = task_loss(logits, target, kind).item()
    accuracy = share_correct(logits, target, kind).double().nanmean().item()
    wanted = {name: metric.function for name, metric in METRICS.items() if kind in metric.kinds}
    if not wanted:
        return Score(loss, accuracy, len(target))
    # Both kinds as yes-or-no questions, a column each: of a binary task the one of its second class.
    likely = probabilities(logits / temperature, kind)
    likely, truth = (likely[:, 1:], target[:, None]) if kind == "binary" else (likely, target)
    truth, present = truth.nan_to_num(-1).long(), likely >= torch.tensor(thresholds or [0.5])
    return Score(loss, accuracy, len(target), **{name: f(likely, truth, present) for name, f in wanted.items()})


def _auc(likely: Tensor, truth: Tensor, _: Tensor) -> float | None:
    from torchmetrics.functional.classification import binary_auroc

    return binary_auroc(likely[:, 0], truth[:, 0]).item() if len(truth.unique()) == 2 else None


def _mean_average_precision(likely: Tensor, truth: Tensor, _: Tensor) -> float | None:
    from torchmetrics.functional.classification import binary_average_precision

    present = (truth == 1).any(0).nonzero().flatten()  # a class without a single clip has no precision
    precisions = [binary_average_precision(likely[:, i], truth[:, i], ignore_index=-1) for i in present]
    return torch.stack(precisions).mean().item() if precisions else None


def _macro_f1(_: Tensor, truth: Tensor, present: Tensor) -> float:
    from torchmetrics.functional.classification import multiclass_f1_score, multilabel_f1_score

    if truth.shape[1] == 1:  # a binary task has two classes
        return multiclass_f1_score(present[:, 0].long(), truth[:, 0], num_classes=2, average="macro").item()
    n_labels = truth.shape[1]
    return multilabel_f1_score(present.long(), truth, num_labels=n_labels, average="macro", ignore_index=-1).item()


class Metric(NamedTuple):
    """What some kinds of tasks are scored by in addition to loss and accuracy.

    Attributes:
        heading: what it is, as the title of a table.
        short: the same, as the heading of a column.
        kinds: the kinds of task that have it.
        function: its value from 0 to 1, or None where these clips do not define it. It takes the probabilities of
            yes-or-no questions, the truth (0, 1, or -1 where it is not known) and what the thresholds decide, each
            ``(n, n_questions)``.
    """

    heading: str
    short: str
    kinds: tuple[str, ...]
    function: Callable[[Tensor, Tensor, Tensor], float | None]


METRICS = {
    "auc": Metric("Area under the ROC curve", "AUC", ("binary",), _auc),
    "mean_average_precision": Metric("Mean average precision", "mAP", ("multilabel",), _mean_average_precision),
    "macro_f1": Metric("Macro-averaged F1", "macro-F1", ("binary", "multilabel"), _macro_f1),
}
"""Every further metric by its name in `Score`: the one list that scores, tables, comparisons and reports read."""


def best_thresholds(logits: Tensor, labels: Tensor | np.ndarray, kind: str) -> list[float]:
    """Probability thresholds that give each class its best F1 on these clips, for `score`.

    Args:
        logits: of validation clips, ``(n, n_classes)``.
        labels: the truth, as for `score`.
        kind: "binary" (one threshold, of the second class, for the macro-F1 of both) or "multilabel"
            (one for each class).

    Example:
        >>> logits = torch.tensor([[2.0, 0.0], [1.0, 0.0], [0.5, 0.0]])
        >>> [round(t, 4) for t in best_thresholds(logits, torch.tensor([0, 1, 1]), "binary")]
        [0.1941]
    """
    likely, target = probabilities(logits, kind), torch.as_tensor(labels)
    if kind == "binary":
        return [_best_threshold(likely[:, 1], target, both_classes=True)]
    known = ~target.isnan()
    columns = [(likely[rows, i], target[rows, i]) for i, rows in enumerate(known.T)]
    return [_best_threshold(of_class, truth, both_classes=False) for of_class, truth in columns]


def _best_threshold(likely: Tensor, truth: Tensor, both_classes: bool) -> float:
    """The middle of the best gap between two neighbouring probabilities; 0.5 where nothing is to be gained."""
    values, order = likely.double().sort()
    n, n_positive = len(values), truth.double().sum()
    if n_positive in (0, n):
        return 0.5
    # Cut i leaves the lowest i clips below the threshold, from none to all of them.
    below = torch.arange(n + 1, dtype=torch.double)
    missed = torch.cat([below.new_zeros(1), truth[order].double().cumsum(0)])
    f1 = 2 * (n_positive - missed) / (n - below + n_positive)
    if both_classes:
        f1 = (f1 + 2 * (below - missed) / (below + n - n_positive)) / 2
    f1[1:n][values[1:] == values[:-1]] = -1  # no threshold lies between equal probabilities
    best = int(f1.argmax())
    edges = [0.0, *values.tolist(), 1.0]
    return (edges[best] + edges[best + 1]) / 2


def evaluate(
    model: AudioClassifier,
    clips: Clips,
    labels: Mapping[str, np.ndarray],
    indexes: Sequence[int] | np.ndarray,
    workers: int = 0,
    progress: Progress | None = None,
    overlap: float = 0.0,
) -> tuple[dict[str, Score], dict[str, Tensor]]:
    """Score of every task that `labels` names on the clips at `indexes`, and the logits behind them.

    Where several processes work together each computes the logits of its share of the clips, and
    every one has all of them in the end. Progress and overlap are those of `clip_logits`.

    Example:
        >>> from audiostride import create_model
        >>> from audiostride.data.clips import ArrayClips
        >>> model = create_model("audio_resnet_pico_strided", heads={"word": ["no", "yes"]})
        >>> clips = ArrayClips(["a", "b"], {}, ["test"] * 2, waveforms=np.zeros((2, 16000), np.float32))
        >>> scores, logits = evaluate(model, clips, {"word": np.array([0, 1])}, [0, 1])
        >>> scores["word"].accuracy, logits["word"].shape
        (0.5, torch.Size([2, 2]))
    """
    mine = share_of(indexes)
    logits = clip_logits(model, clips, mine, workers, progress, overlap) if len(mine) else {}
    logits = gather_rows(logits, len(indexes))
    scores = {
        task: score(
            logits[task],
            numbers[indexes],
            model.kinds[task],
            model.thresholds.get(task),
            model.calibration(task).temperature,
        )
        for task, numbers in labels.items()
    }
    return scores, logits
