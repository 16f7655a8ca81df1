"""A trained classifier as one file for another runtime, run on real clips before it is kept."""

import json
import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..errors import ExportError, UsageError, printable
from ..files import check_writable, replace_file
from ..models.classifier import AudioClassifier
from ..windows import split_windows
from .export_formats import FORMATS, Runner, find_format
from .exported_model import ExportedWindow, exported_input, exported_program

TOLERANCE = {"float32": 1e-3, "int8": math.inf}
"""Largest error of a logit; int8 is judged by its labels alone."""

LABELS_AGREE = {"float32": 1.0, "int8": 0.95}
"""Share of windows whose likeliest class must be that of the model."""

OTHER_LENGTHS = (0.4, 2.6)
"""Lengths in windows that a file for any length is also checked on: less than one, and some with a part of another."""


class Check(NamedTuple):
    """An exported file against the model it was made from, on the same windows.

    Attributes:
        windows: number of windows.
        other_lengths_s: lengths in seconds of the clips it was also checked on; none if it takes windows only.
        max_error: largest difference of a logit, of any length.
        labels_agree: share of windows and tasks with the same likeliest class, 0 to 1.
        size_bytes: of the file.
        latency_ms: median time of one window; None if the file cannot be run here.
        model_latency_ms: the same for the model itself in PyTorch.
        by_operations: whether only the list of operations was checked that the file was written from: of a page, and of
            a C file where there is no compiler.
        flash_bytes: code and constants of a compiled C file, else None.
        ram_bytes: the state of a compiled C file, else None.
    """

    windows: int
    other_lengths_s: tuple[float, ...]
    max_error: float
    labels_agree: float
    size_bytes: int
    latency_ms: float | None
    model_latency_ms: float
    by_operations: bool = False
    flash_bytes: int | None = None
    ram_bytes: int | None = None


def metadata(model: AudioClassifier, takes_log_mel: bool, any_length: bool) -> dict[str, Any]:
    """What is stored in the file about the model: labels, window and frontend, as plain data.

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
        "sample_rate": model.sample_rate,
        "window_samples": model.window_length,
        "tasks": model.config()["tasks"],
        "frontend": model.frontend.settings,
    }


def export_model(
    model: AudioClassifier,
    path: Path,
    format: str,
    windows: Tensor,
    *,
    takes_log_mel: bool = False,
    quantize: Literal["int8"] | None = None,
) -> Check:
    """Export a classifier to one file, and write the file only if it computes what the model computes.

    From the waveform the file takes any batch of clips of any length and gives the logits that the model gives;
    from log-mel a batch of windows, which for an `AudioCNN` with strided convolutions may also have any length.

    Args:
        model: the classifier.
        path: the file; nothing is written if the check fails.
        format: a key of `export_formats.FORMATS`.
        windows: real windows ``(n, samples)`` that the file is checked on; for int8 every other one sets the
            ranges and the rest is checked.
        takes_log_mel: the file takes log-mel windows ``(batch, 1, time, mel)``, not waveforms.
        quantize: "int8" for weights and activations in 8 bits.

    Returns:
        Size, speed and agreement.

    Raises:
        UsageError: if the path has another format's ending, the format cannot be quantised, its packages
            are not installed, there is only one window to quantise by, or the model has no log-mel.
        WriteError: if the file cannot be written; before the export where that can be known.
        ExportError: if a logit or too many labels differ.
    """
    kind = find_format(format)
    if path.suffix != kind.ending:
        raise UsageError(f"{printable(path)}: a file for --format {format} must end in {kind.ending}")
    if quantize and isinstance(kind.quantize, str):
        able = " or ".join(other.name for other in FORMATS.values() if not isinstance(other.quantize, str))
        raise UsageError(f"--quantize int8 is for --format {able}, not {format}: {kind.quantize}")
    if quantize and len(windows) < 2:
        raise UsageError("--quantize int8 needs at least two clips: one for the ranges, one to check it on")
    check_writable(path)
    window = ExportedWindow(model, takes_log_mel).eval()
    any_length = not kind.one_window and (window.any_length or not takes_log_mel)
    program = exported_program(model, window, takes_log_mel, any_length, any_batch=not kind.one_window)
    content = kind.write(program, list(model.labels), json.dumps(metadata(model, takes_log_mel, any_length)))
    if quantize and not isinstance(kind.quantize, str):
        # Every other one, as clips are often sorted by class.
        content = kind.quantize(content, exported_input(model, windows[::2], takes_log_mel).numpy())
        windows = windows[1::2]
    check = _check(model, kind.run(content), len(content), windows, takes_log_mel, any_length)
    numbers = quantize or "float32"
    if not check.max_error <= TOLERANCE[numbers] or check.labels_agree < LABELS_AGREE[numbers]:
        raise ExportError(
            f"{printable(path)}: was not written: on {check.windows} windows its logits differ by up to "
            f"{check.max_error:.2g} (allowed {TOLERANCE[numbers]:g}) and {100 * check.labels_agree:.1f} % of its "
            f"labels agree (needed {100 * LABELS_AGREE[numbers]:.0f} %)"
        )
    replace_file(path, content)
    return check


def _check(
    model: AudioClassifier, run: Runner, size_bytes: int, windows: Tensor, takes_log_mel: bool, any_length: bool
) -> Check:
    model.eval()
    sound = windows.flatten().repeat(math.ceil(max(OTHER_LENGTHS) / len(windows)))
    clips = [sound[None, : round(length * windows.shape[1])] for length in OTHER_LENGTHS if any_length]
    found, expected = [], []
    with torch.inference_mode():
        for waveform in (windows, *clips):
            parts = waveform if takes_log_mel or waveform is windows else split_windows(waveform[0], windows.shape[1])
            logits = [values.float().cpu() for values in model(parts.to(model.device)).values()]
            expected.append([(v if waveform is windows else v.mean(0, keepdim=True)).numpy() for v in logits])
            found.append(run(exported_input(model, waveform, takes_log_mel).numpy()))
        model_latency_ms = _latency_ms(lambda: model(windows[:1].to(model.device)))
    one = exported_input(model, windows[:1], takes_log_mel).numpy()
    by_task = [zip(f, e, strict=True) for f, e in zip(found, expected, strict=True)]
    agree = [a.argmax(1) == b.argmax(1) for a, b in zip(found[0], expected[0], strict=True)]
    return Check(
        windows=len(windows),
        other_lengths_s=tuple(clip.shape[1] / model.sample_rate for clip in clips),
        max_error=float(np.max([np.abs(a - b).max() for pairs in by_task for a, b in pairs])),
        labels_agree=float(np.mean(agree)),
        size_bytes=size_bytes,
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
