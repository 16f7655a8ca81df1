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
from ..models.adaptive_log_mel import learned_resolution
from ..models.classifier import AudioClassifier
from ..models.frames import FrameGrid, all_frame_logits, frame_grid
from ..windows import split_windows
from .export_formats import FORMATS, Runner, find_format
from .exported_model import ExportedWindow, exported_input, exported_program

TOLERANCE = {"float32": 1e-3, "int8": math.inf}
"""Largest error of a logit; int8 is judged by its labels alone."""

LABELS_AGREE = {"float32": 1.0, "int8": 0.95}
"""Share of windows whose likeliest class must be that of the model."""

OTHER_LENGTHS = (0.4, 2.6)
"""Lengths in windows that a file for any length is also checked on: less than one, and some with a part of another."""

FRAME_LENGTHS = (1.4, 2.6)
"""The same for a file of frames, which takes no less than a window."""


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
        ram_bytes: the state of a compiled C file that classifies windows, else None.
        recording_ram_bytes: the same for one that finds events.
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
    recording_ram_bytes: int | None = None


def metadata(
    model: AudioClassifier, takes_log_mel: bool, any_length: bool, grid: FrameGrid | None = None
) -> dict[str, Any]:
    """What is stored in the file about the model: labels, window and frontend, as plain data.

    With its frames there is also where they are, a `FrameGrid`, and by which settings events of each task are found.

    Example:
        >>> from audiostride import create_model
        >>> found = metadata(create_model("audio_resnet_pico_strided", heads={"word": ["no", "yes"]}), False, True)
        >>> found["input"], found["sample_rate"], found["window_samples"]
        ('waveform', 16000, 16000)
    """
    tasks = model.config()["tasks"]
    if grid:
        tasks = {task: about | {"events": model.events_by(task).as_dict()} for task, about in tasks.items()}
    return {
        "format": "audiostride",
        "input": "log_mel" if takes_log_mel else "waveform",
        "output": "frames" if grid else "clip",
        "any_length": any_length,
        "sample_rate": model.sample_rate,
        "window_samples": grid.window if grid else model.window_length,
        "tasks": tasks,
        "frontend": model.frontend.settings,
        **learned_resolution(model),
    } | ({"frames": grid._asdict()} if grid else {})


def export_model(
    model: AudioClassifier,
    path: Path,
    format: str,
    windows: Tensor,
    *,
    takes_log_mel: bool = False,
    quantize: Literal["int8"] | None = None,
    frames: bool = False,
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
        frames: the file gives logits of frames, ``(batch, frames, n_classes)``, for `frames.run_in_blocks`: of pieces
            of any length (but in a format for one window), or of windows, as the model does.

    Returns:
        Size, speed and agreement.

    Raises:
        UsageError: if the path has another format's ending, the format cannot be quantised, its packages
            are not installed, there is only one window to quantise by, the model has no log-mel, or frames of it
            are wanted.
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
    if frames and takes_log_mel:
        raise UsageError("--frames takes samples, whose times are known; omit --input log_mel")
    check_writable(path)
    window = ExportedWindow(model, takes_log_mel, frames).eval()
    grid = _exported_grid(model, kind.one_window) if frames else None
    if grid:
        windows = windows.repeat(1, math.ceil(grid.window / windows.shape[1]))[:, : grid.window]
        any_length = grid.context is not None and not kind.one_window
    else:
        any_length = not kind.one_window and (window.any_length or not takes_log_mel)
    program = exported_program(model, window, takes_log_mel, any_length, not kind.one_window, grid)
    content = kind.write(program, list(model.labels), json.dumps(metadata(model, takes_log_mel, any_length, grid)))
    if quantize and not isinstance(kind.quantize, str):
        # Every other one, as clips are often sorted by class.
        content = kind.quantize(content, exported_input(model, windows[::2], takes_log_mel).numpy())
        windows = windows[1::2]
    check = _check(model, kind.run(content), len(content), windows, takes_log_mel, any_length, frames)
    numbers = quantize or "float32"
    if not check.max_error <= TOLERANCE[numbers] or check.labels_agree < LABELS_AGREE[numbers]:
        raise ExportError(
            f"{printable(path)}: was not written: on {check.windows} windows its logits differ by up to "
            f"{check.max_error:.2g} (allowed {TOLERANCE[numbers]:g}) and {100 * check.labels_agree:.1f} % of its "
            f"labels agree (needed {100 * LABELS_AGREE[numbers]:.0f} %)"
        )
    replace_file(path, content)
    return check


def _exported_grid(model: AudioClassifier, one_window: bool) -> FrameGrid:
    """The grid of a file's frames; one for a single window takes one with the context of its frames on both sides."""
    grid = frame_grid(model)
    if not one_window or grid.context is None:
        return grid
    return grid._replace(window=math.ceil(grid.window / grid.hop) * round(grid.hop) + 2 * grid.context)


def _check(
    model: AudioClassifier,
    run: Runner,
    size_bytes: int,
    windows: Tensor,
    takes_log_mel: bool,
    any_length: bool,
    frames: bool,
) -> Check:
    model.eval()
    lengths = FRAME_LENGTHS if frames else OTHER_LENGTHS
    sound = windows.flatten().repeat(math.ceil(max(lengths) / len(windows)))
    clips = [sound[None, : round(length * windows.shape[1])] for length in lengths if any_length]

    def logits(waveform: Tensor) -> list[Tensor]:
        if frames:
            sizes = [len(labels) for labels in model.labels.values()]
            return list(all_frame_logits(model, waveform).split(sizes, -1))
        whole = takes_log_mel or waveform is windows
        parts = waveform if whole else split_windows(waveform[0], model.window_length)
        found = [values.float().cpu() for values in model(parts.to(model.device)).values()]
        return found if waveform is windows else [values.mean(0, keepdim=True) for values in found]

    with torch.inference_mode():
        expected = [[values.numpy() for values in logits(waveform)] for waveform in (windows, *clips)]
        found = [run(exported_input(model, waveform, takes_log_mel).numpy()) for waveform in (windows, *clips)]
        model_latency_ms = _latency_ms(lambda: logits(windows[:1]))
    one = exported_input(model, windows[:1], takes_log_mel).numpy()
    by_task = [zip(f, e, strict=True) for f, e in zip(found, expected, strict=True)]
    agree = [_labels(a) == _labels(b) for a, b in zip(found[0], expected[0], strict=True)]
    return Check(
        windows=len(windows),
        other_lengths_s=tuple(clip.shape[1] / model.sample_rate for clip in clips),
        max_error=float(np.max([np.abs(a - b).max() for pairs in by_task for a, b in pairs])),
        labels_agree=float(np.mean(agree)),
        size_bytes=size_bytes,
        latency_ms=_latency_ms(lambda: run(one)),
        model_latency_ms=model_latency_ms,
    )


def _labels(logits: np.ndarray) -> np.ndarray:
    """The likeliest class of each window, from its logits or those of its frames."""
    return logits.reshape(len(logits), -1, logits.shape[-1]).mean(1).argmax(1)


def _latency_ms(call: Callable[[], Any]) -> float:
    times = []
    for _ in range(23):
        began = time.perf_counter()
        call()
        times.append(1000 * (time.perf_counter() - began))
    return statistics.median(times[3:])
