"""Scores of a classifier on whole clips: the logits of a clip's windows are averaged."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .classifier import AudioClassifier
from .data.batches import evaluation_batches
from .data.clips import Clips, Progress
from .windows import mean_over_windows


class Score(NamedTuple):
    """Score of one task.

    Attributes:
        loss: mean cross-entropy of the averaged logits, in nats.
        accuracy: share of clips whose likeliest class is right, 0 to 1.
        n: number of clips.
    """

    loss: float
    accuracy: float
    n: int


@torch.inference_mode()
def clip_logits(
    model: AudioClassifier,
    clips: Clips,
    indexes: Sequence[int] | np.ndarray,
    workers: int = 0,
    progress: Progress | None = None,
) -> dict[str, Tensor]:
    """Logits of whole clips, averaged over each clip's windows. The model is left in eval mode.

    Args:
        model: the classifier.
        clips: a table of clips.
        indexes: which of its rows.
        workers: processes that decode audio; 0 decodes in this one.
        progress: called after each batch.

    Returns:
        For each task float32 logits of shape ``(len(indexes), n_classes)``, on the CPU.

    Raises:
        DataError: if a file cannot be read.
    """
    model.eval()
    device = model.frontend.window.device
    parts: list[Tensor] = []
    owners: list[Tensor] = []
    batches = evaluation_batches(clips, list(indexes), model.frontend.sample_rate, model.window_length, workers)
    for batch in batches:
        # Memory is bounded by the number of windows, not of clips: one clip may last an hour.
        for windows in batch.waveform.split(256):
            parts.append(model.trunk(model.frontend(windows.to(device))))
        owners.append(batch.clip)
        if progress:
            progress("evaluating", int(batch.clip[-1]) + 1, len(indexes))
    embedding = mean_over_windows(torch.cat(parts), torch.cat(owners).to(device), len(indexes))
    return {task: head(embedding).float().cpu() for task, head in model.heads.items()}


def score(logits: Tensor, labels: Tensor | np.ndarray) -> Score:
    """Cross-entropy and accuracy of logits ``(n, n_classes)`` against class numbers ``(n,)``.

    Example:
        >>> score(torch.tensor([[9.0, 0.0], [9.0, 0.0]]), torch.tensor([0, 1])).accuracy
        0.5
    """
    target = torch.as_tensor(labels)
    loss = F.cross_entropy(logits, target).item()
    return Score(loss, (logits.argmax(1) == target).double().mean().item(), len(target))


def evaluate(
    model: AudioClassifier,
    clips: Clips,
    labels: Mapping[str, np.ndarray],
    indexes: Sequence[int] | np.ndarray,
    workers: int = 0,
    progress: Progress | None = None,
) -> tuple[dict[str, Score], dict[str, Tensor]]:
    """Score of every task that `labels` names on the clips at `indexes`, and the logits behind them."""
    logits = clip_logits(model, clips, indexes, workers, progress)
    return {task: score(logits[task], numbers[indexes]) for task, numbers in labels.items()}, logits
