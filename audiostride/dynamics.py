"""Strides, cut-offs and cost over training, from the lines of `metrics.jsonl`; and their TensorBoard log."""

import copy
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from .classifier import AudioClassifier, spectrogram_cnn
from .cnn import AudioCNN
from .complexity import trunk_cost
from .cutoffs import AXES, trunk_cutoffs
from .downsampling import DiffStride
from .errors import ModelFileError

METRICS_FILE = "metrics.jsonl"


def read_metrics(run_dir: Path) -> list[dict[str, Any]]:
    """The lines of a run's `metrics.jsonl`, one an epoch and split.

    Raises:
        ModelFileError: if the file is missing or damaged.
    """
    path = run_dir / METRICS_FILE
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except FileNotFoundError as error:
        raise ModelFileError(f"{path}: no such file; it holds the training curves of a run") from error
    except ValueError as error:
        raise ModelFileError(f"{path}: is not a file of JSON lines ({error})") from error
    if not lines:
        raise ModelFileError(f"{path}: is empty; the run has not finished an epoch")
    return lines


def state_at(model: AudioClassifier, strides: Sequence[Sequence[float]]) -> dict[str, Any]:
    """Cut-offs, striding factor and cost that a model has at given strides.

    Args:
        model: decides everything but the learned strides; it is not changed.
        strides: (time, mel) stride of each block.

    Returns:
        "strides"; "cutoffs": cumulative (time, mel) cut-off of each block, f/(2S) or the lowest so
        far; "total_stride": product of the strides of each axis; "shrinkage": input length over the
        last map's, which is smaller, as maps keep R bins more; "macs_per_second".

    Example:
        >>> from audiostride.cnn import AudioCNN
        >>> from audiostride.frontend import LogMel
        >>> trunk = AudioCNN(channels=(4, 4), strides=((2, 2), (2, 2)), smoothness=1)
        >>> state = state_at(AudioClassifier(LogMel(), trunk, {"rate": 2}), [[2.0, 2.0], [4.0, 1.0]])
        >>> state["total_stride"], state["cutoffs"][0]
        ([8.0, 2.0], [25.0, 0.25])
    """
    frontend, trunk = spectrogram_cnn(model, "the cut-offs over training")
    trunk = copy.deepcopy(trunk).cpu()
    with torch.no_grad():
        for block, stride in zip(trunk.separable_blocks, strides, strict=True):
            if isinstance(block.pool, DiffStride):
                block.pool.stride.copy_(torch.tensor(stride[: len(block.pool.stride)]))
    n_frames = model.window_length // frontend.hop_length
    rows = trunk_cutoffs(trunk, n_frames, frontend.n_mels, frontend.frame_rate)
    by_axis = [[row.cumulative.continuous for row in rows if row.axis == axis] for axis in AXES]
    last = trunk.map_sizes(n_frames, frontend.n_mels)[-1]
    return {
        "strides": [list(stride) for stride in strides],
        "cutoffs": [list(pair) for pair in zip(*by_axis, strict=True)],
        "total_stride": [math.prod(stride[axis] for stride in strides) for axis in (0, 1)],
        "shrinkage": [n_frames / last[0], frontend.n_mels / last[1]],
        "macs_per_second": trunk_cost(trunk, frontend.sample_rate // frontend.hop_length, frontend.n_mels).macs,
    }


def over_training(model: AudioClassifier, metrics: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """`state_at` the initial strides (epoch 0) and after every epoch.

    Args:
        model: the trained model.
        metrics: from `read_metrics`.
    """
    points = [state_at(model, model.trunk.settings["strides"]) | {"epoch": 0}]
    for line in metrics:
        if line["epoch"] != points[-1]["epoch"]:
            points.append(state_at(model, line["strides"]) | {"epoch": line["epoch"]})
    return points


def striding(run_dir: Path, initial: Sequence[Sequence[float]]) -> list[dict[str, Any]]:
    """Total striding factor and validation accuracy of a run at its start and after every epoch.

    Args:
        run_dir: the run directory.
        initial: (time, mel) stride of each block at the start.

    Returns:
        Rows with "epoch" (0: the start), "total_stride": products of the strides of each axis, and
        "accuracy": mean over the tasks, None at the start.
    """

    def products(strides: Sequence[Sequence[float]]) -> list[float]:
        return [math.prod(stride[axis] for stride in strides) for axis in (0, 1)]

    points = [{"epoch": 0, "total_stride": products(initial), "accuracy": None}]
    for line in read_metrics(run_dir):
        if line["split"] == "validation":
            accuracy = [scores["accuracy"] for scores in line["tasks"].values()]
            points.append(
                {
                    "epoch": line["epoch"],
                    "total_stride": products(line["strides"]),
                    "accuracy": sum(accuracy) / len(accuracy),
                }
            )
    return points


class TensorBoardLog:
    """Writes every line of metrics, with cut-offs and cost, to `RUN_DIR/tensorboard`.

    Args:
        run_dir: the run directory.
        model: the model in training.
    """

    def __init__(self, run_dir: Path, model: AudioClassifier):
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(run_dir / "tensorboard"))
        self.model = model

    def on_epoch(self, record: Mapping[str, Any]) -> None:
        """Log one line of `metrics.jsonl`."""
        step, split = record["step"], record["split"]
        for task, scores in record["tasks"].items():
            for name, value in scores.items():
                self.writer.add_scalar(f"{task}/{name}/{split}", value, step)
        if split == "validation" and isinstance(self.model.trunk, AudioCNN):
            state = state_at(self.model, record["strides"])
            for axis, name in enumerate(AXES):
                for layer, (stride, cutoff) in enumerate(zip(state["strides"], state["cutoffs"], strict=True), start=1):
                    self.writer.add_scalar(f"stride_{name}/layer{layer}", stride[axis], step)
                    self.writer.add_scalar(f"cutoff_{name}/layer{layer}", cutoff[axis], step)
                self.writer.add_scalar(f"total_stride/{name}", state["total_stride"][axis], step)
            self.writer.add_scalar("cost/macs_per_second", state["macs_per_second"], step)
        if split == "validation":
            self.writer.add_scalar("speed/clips_per_s", record["clips_per_s"], step)
        self.writer.flush()

    def close(self) -> None:
        """Finish the log."""
        self.writer.close()
