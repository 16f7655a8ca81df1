"""Strides, cut-offs and cost over training, from the lines of `metrics.jsonl`."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..models.classifier import AudioClassifier
from ..models.state_at_strides import state_at
from ..training.run_files import read_metrics


def watched_split(metrics: Sequence[Mapping[str, Any]]) -> str:
    """The split that was scored during training: "validation", or "test" where no clips were held out.

    Args:
        metrics: from `run_files.read_metrics`.

    Example:
        >>> watched_split([{"epoch": 1, "split": "train"}, {"epoch": 1, "split": "test"}])
        'test'
    """
    return next(line["split"] for line in metrics if line["split"] != "train")


def over_training(
    model: AudioClassifier, metrics: Sequence[Mapping[str, Any]], initial: Sequence[Sequence[float]] | None
) -> list[dict[str, Any]]:
    """`state_at` the initial strides (epoch 0) and after every epoch that was scored.

    Args:
        model: the trained model.
        metrics: from `run_files.read_metrics`.
        initial: (time, mel) stride of each layer at the start; None, of a run that began with a trained model: no
            epoch 0.

    Example:
        >>> from audiostride import AudioCNN, LogMel
        >>> model = AudioClassifier(LogMel(), AudioCNN("spectral", channels=(4,), strides=((2, 2),)), {"word": 2})
        >>> metrics = [{"epoch": 1, "split": "validation", "strides": [[4.0, 2.0]]}]
        >>> [(point["epoch"], point["strides"]) for point in over_training(model, metrics, [[2.0, 2.0]])]
        [(0, [[2.0, 2.0]]), (1, [[4.0, 2.0]])]
    """
    points = [] if initial is None else [state_at(model, initial) | {"epoch": 0}]
    for line in metrics:
        if line["split"] != "train":
            points.append(state_at(model, line["strides"]) | {"epoch": line["epoch"]})
    return points


def striding(run_dir: Path, initial: Sequence[Sequence[float]] | None) -> list[dict[str, Any]]:
    """Total striding factor and accuracy on the `watched_split` of a run, at its start and after every scored epoch.

    Args:
        run_dir: the run directory.
        initial: (time, mel) stride of each block at the start; None, of a run that began with a trained model: no
            row of it.

    Returns:
        Rows with "epoch" (0: the start), "total_stride": products of the strides of each axis, and
        "accuracy": mean over the tasks, None at the start.
    """

    def products(strides: Sequence[Sequence[float]]) -> list[float]:
        return [math.prod(stride[axis] for stride in strides) for axis in (0, 1)]

    points: list[dict[str, Any]] = []
    if initial is not None:
        points.append({"epoch": 0, "total_stride": products(initial), "accuracy": None})
    for line in read_metrics(run_dir):
        if line["split"] != "train":
            accuracy = [scores["accuracy"] for scores in line["tasks"].values()]
            points.append(
                {
                    "epoch": line["epoch"],
                    "total_stride": products(line["strides"]),
                    "accuracy": sum(accuracy) / len(accuracy),
                }
            )
    return points
