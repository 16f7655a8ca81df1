"""A training of fractions of a second, that several test modules share."""

import os
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from audiostride import AdaptiveLogMel, AudioClassifier, AudioCNN, LogMel
from audiostride.data.batches import LabelledClips
from audiostride.data.clips import ArrayClips
from audiostride.training.loop import train
from audiostride.training.recipe import TrainSection
from audiostride.training.report import Report

SEED = int(os.environ.get("TEST_SEED", "0"))
"""Another one (`make robust` tries three) gives other weights, data and draws, which no test may mind."""

SETTINGS: dict[str, Any] = {
    "epochs": 3,
    "batch_size": 8,
    "learning_rate": 1e-2,
    "stride_learning_rate": 0.05,
    "workers": 0,
}


def small_data(n_clips: int = 40) -> list[LabelledClips]:
    """Clips of 0.2 s of noise, loud or soft, with two tasks; a tenth each for validation and test."""
    random = np.random.RandomState(SEED)
    loud, seed = np.arange(n_clips) % 2, np.arange(n_clips) // 2 % 3
    waveforms = (random.standard_normal((n_clips, 3200)) * (0.02 + 0.1 * loud[:, None])).astype(np.float32)
    names = [f"clip-{i:02d}" for i in range(n_clips)]
    splits = ["validation" if i % 10 == 8 else "test" if i % 10 == 9 else "train" for i in range(n_clips)]
    clips = ArrayClips(names, {}, splits, waveforms=waveforms, sample_rate=16000)
    return [LabelledClips(clips, {"loud": loud, "third": seed}, splits)]


def small_model(seed: int = SEED) -> AudioClassifier:
    """Two blocks of four channels with learned strides and aliasing."""
    torch.manual_seed(seed)
    trunk = AudioCNN("diffstride", (4, 4), ((2, 2), (1.5, 2)), smoothness=1, aliasing=0.1)
    return AudioClassifier(LogMel(n_mels=16), trunk, {"loud": 2, "third": 3}, window_s=0.2)


def small_adaptive_model(seed: int = SEED) -> AudioClassifier:
    """Two blocks with fixed strides on a spectrogram whose resolution is learned."""
    torch.manual_seed(seed)
    frontend = AdaptiveLogMel(n_mels=32, n_fft=512)
    trunk = AudioCNN("strided", (4, 4), ((2, 2), (1, 2)))
    return AudioClassifier(frontend, trunk, {"loud": 2, "third": 3}, window_s=0.2)


def freeze_batch_norm(model: nn.Module) -> None:
    """Let batch norm use its running statistics in training, too, so that clips do not see each other."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
            module.train = lambda mode=True, module=module: module  # type: ignore[method-assign]


def train_small(
    model: AudioClassifier, out: Path, n_clips: int = 40, sets: list[LabelledClips] | None = None, **options: Any
) -> AudioClassifier:
    """Train a model on `small_data`, or on other sets, and return it.

    Args:
        model: what to train.
        out: the run directory; made if need be.
        n_clips: of `small_data`.
        sets: other data.
        options: keys of `TrainSection` in addition to `SETTINGS`, callbacks of `Report`, arguments of `train`.
    """
    out.mkdir(exist_ok=True)
    options = SETTINGS | options
    settings, callbacks = (
        {name: options.pop(name) for name in list(options) if name in names}
        for names in (TrainSection.model_fields.keys() - {"teacher"}, {field.name for field in fields(Report)})
    )
    report = Report(**{"notify": lambda _: None} | callbacks)
    train(model, sets or small_data(n_clips), out, TrainSection(**settings), report=report, **options)
    return model
