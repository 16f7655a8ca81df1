"""Strides, cut-offs and cost over training, from the lines of `metrics.jsonl`."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import ModelFileError
from ..models.classifier import AudioClassifier
from ..models.state import state_at
from ..training.directory import METRICS_FILE


def read_metrics(run_dir: Path) -> list[dict[str, Any]]:
    """The lines of a run's `metrics.jsonl`, one for each epoch and split that was scored.

    Raises:
        ModelFileError: if the file is missing or damaged.

    Example:
        >>> import tempfile
        >>> run_dir = Path(tempfile.mkdtemp())
        >>> (run_dir / "metrics.jsonl").write_text('{"epoch": 1, "split": "train"}\\n')
        31
        >>> read_metrics(run_dir)
        [{'epoch': 1, 'split': 'train'}]
    """
    path = run_dir / METRICS_FILE
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except FileNotFoundError as error:
        raise ModelFileError(f"{path}: no such file; it holds the training curves of a run") from error
    except ValueError as error:
        raise ModelFileError(f"{path}: is not a JSON Lines file ({error})") from error
    if not lines:
        raise ModelFileError(f"{path}: is empty; the run has not finished an epoch")
    return lines


def watched_split(metrics: Sequence[Mapping[str, Any]]) -> str:
    """The split that was scored during training: "validation", or "test" where no clips were held out.

    Args:
        metrics: from `read_metrics`.

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
        metrics: from `read_metrics`.
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
