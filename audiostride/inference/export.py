"""A trained classifier as one file for another runtime, run on real clips before it is kept."""

import json
import math
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..errors import ExportError, UsageError
from ..models.classifier import AudioClassifier
from ..windows import split_windows
from .export_formats import ENDINGS, WRITERS, Format, quantize_onnx, run_exported
from .exported_model import ExportedWindow, exported_input, exported_program

TOLERANCE = {"float32": 1e-3, "int8": math.inf}
"""Largest error of a logit; int8 is judged by its labels alone."""

LABELS_AGREE = {"float32": 1.0, "int8": 0.95}
"""Share of windows whose likeliest class must be the model's own."""

OTHER_LENGTHS = (0.4, 2.6)
"""Where a file takes any length it is tried on these, too, in windows: less than one, and a part of one more."""


class Check(NamedTuple):
    """An exported file against the model it was made from, on the same windows.

    Attributes:
        windows: number of windows.
        other_lengths_s: lengths in seconds of the clips it was tried on as well, none if it takes windows only.
        max_error: largest difference of a logit, of any length.
        labels_agree: share of windows and tasks with the same likeliest class, 0 to 1.
        size_bytes: of the file.
        latency_ms: median time of one window.
        model_latency_ms: the same for the model itself in PyTorch.
    """

    windows: int
    other_lengths_s: tuple[float, ...]
    max_error: float
    labels_agree: float
    size_bytes: int
    latency_ms: float
    model_latency_ms: float


def metadata(model: AudioClassifier, takes_log_mel: bool, any_length: bool) -> dict[str, Any]:
    """What travels in the file: labels, window and frontend, as plain data.

    Example:
        >>> from audiostride import create_model
        >>> found = metadata(create_model("audio_resnet_pico_strided", heads={"word": ["no", "yes"]}), False, True)
        >>> found["input"], found["sample_rate"], found["window_samples"]
        ('waveform', 16000, 16000)
    """
    return {
        "format": "audiostride",
        "input": "log_mel" if takes_log_mel else "waveform",
        "any_length": any_length,
        "sample_rate": model.frontend.sample_rate,
        "window_samples": model.window_length,
        "tasks": model.config()["tasks"],
        "frontend": model.frontend.settings,
    }


def export_model(
    model: AudioClassifier,
    path: Path,
    format: Format,
    windows: Tensor,
    *,
    takes_log_mel: bool = False,
    quantize: Literal["int8"] | None = None,
) -> Check:
    """Export a classifier to one file, and keep the file only if it computes what the model computes.

    From the waveform the file takes any batch of clips of any length, and gives the logits that the model gives;
    from log-mel a batch of windows, which for an `AudioCNN` with strided convolutions may be of any length, too. An
    ExecuTorch file plans its memory beforehand: it takes one window.

    Args:
        model: the classifier.
        path: the file; nothing is left there if the check fails.
        format: "torch" (torch.export, .pt2), "onnx" or "executorch" (.pte).
        windows: real windows ``(n, samples)``, which the file is checked on; for int8 every other one sets the
            ranges and the rest is checked.
        takes_log_mel: the file takes log-mel windows ``(batch, 1, time, mel)``, not waveforms.
        quantize: "int8" for weights and activations in 8 bits (ONNX only).

    Returns:
        Size, speed and agreement.

    Raises:
        UsageError: if the path has another format's ending, the format cannot be quantised, its packages
            are not installed, there is one window only to quantise by, or the model has no log-mel.
        ExportError: if a logit or too many labels differ.
    """
    if path.suffix != ENDINGS[format]:
        raise UsageError(f"{path}: a file for --format {format} must end in {ENDINGS[format]}")
    if quantize and format != "onnx":
        raise UsageError(f"--quantize int8 is for --format onnx, not {format}: {_NOT_QUANTIZED[format]}")
    if quantize and len(windows) < 2:
        raise UsageError("--quantize int8 needs at least two clips: one for the ranges, one to check it on")
    window = ExportedWindow(model, takes_log_mel).eval()
    any_length = format != "executorch" and (window.any_length or not takes_log_mel)
    program = exported_program(model, window, takes_log_mel, any_length, any_batch=format != "executorch")
    about = json.dumps(metadata(model, takes_log_mel, any_length))
    unfinished = path.with_name(f"{path.stem}.part{path.suffix}")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        WRITERS[format](program, unfinished, list(model.labels), about)
        if quantize:
            # Every other one, as clips are often sorted by class.
            quantize_onnx(unfinished, exported_input(model, windows[::2], takes_log_mel).numpy())
            windows = windows[1::2]
        check = _check(model, unfinished, format, windows, takes_log_mel, any_length)
        kind = quantize or "float32"
        if not check.max_error <= TOLERANCE[kind] or check.labels_agree < LABELS_AGREE[kind]:
            raise ExportError(
                f"{path}: was not written: on {check.windows} windows its logits differ by up to {check.max_error:.2g} "
                f"(allowed {TOLERANCE[kind]:g}) and {100 * check.labels_agree:.1f} % of its labels agree "
                f"(needed {100 * LABELS_AGREE[kind]:.0f} %)"
            )
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
    return check


_NOT_QUANTIZED = {
    "torch": "a .pt2 would still compute in float32, on rounded weights",
    "executorch": "8-bit .pte files are not supported",
}


def _check(
    model: AudioClassifier, path: Path, format: Format, windows: Tensor, takes_log_mel: bool, any_length: bool
) -> Check:
    model.eval()
    run, device = run_exported(path, format), model.frontend.window.device
    sound = windows.flatten().repeat(math.ceil(max(OTHER_LENGTHS) / len(windows)))
    clips = [sound[None, : round(length * windows.shape[1])] for length in OTHER_LENGTHS if any_length]
    found, expected = [], []
    with torch.inference_mode():
        for waveform in (windows, *clips):
            parts = waveform if takes_log_mel or waveform is windows else split_windows(waveform[0], windows.shape[1])
            logits = [values.float().cpu() for values in model(parts.to(device)).values()]
            expected.append([(v if waveform is windows else v.mean(0, keepdim=True)).numpy() for v in logits])
            found.append(run(exported_input(model, waveform, takes_log_mel).numpy()))
        model_latency_ms = _latency_ms(lambda: model(windows[:1].to(device)))
    one = exported_input(model, windows[:1], takes_log_mel).numpy()
    by_task = [zip(f, e, strict=True) for f, e in zip(found, expected, strict=True)]
    agree = [a.argmax(1) == b.argmax(1) for a, b in zip(found[0], expected[0], strict=True)]
    return Check(
        windows=len(windows),
        other_lengths_s=tuple(clip.shape[1] / model.frontend.sample_rate for clip in clips),
        max_error=float(np.max([np.abs(a - b).max() for pairs in by_task for a, b in pairs])),
        labels_agree=float(np.mean(agree)),
        size_bytes=path.stat().st_size,
        latency_ms=_latency_ms(lambda: run(one)),
        model_latency_ms=model_latency_ms,
    )


def _latency_ms(call: Callable[[], Any]) -> float:
    times = []
    for _ in range(23):
        began = time.perf_counter()
        call()
        times.append(1000 * (time.perf_counter() - began))
    return statistics.median(times[3:])
