"""A trained classifier as what needs no runtime: one C file, or one HTML page; checked before it is written."""

import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import ExportError, UsageError, printable
from ..files import check_writable, replace_files
from ..models.classifier import AudioClassifier
from .c_source import c_files, c_identifiers
from .export import Check
from .export_formats import SOURCES
from .operations import operations
from .run_operations import run_operations
from .web_page import web_page

TOLERANCE = 1e-3
"""Largest error of a logit with weights in float32."""

INT8_LABELS_AGREE = 0.98
"""Share of windows whose likeliest class must be that of the model, with weights in 8 bits."""

MAX_RECORDING_WINDOWS = 8
"""Windows that follow each other in the recording whose frames are compared."""

_COMPILERS = ("cc", "gcc", "clang")
_FLAGS = ("-std=c99", "-O2", "-Wall", "-Wextra", "-Werror")


def export_source(
    model: AudioClassifier,
    path: Path,
    format: str,
    windows: Tensor,
    *,
    quantize: bool = False,
) -> Check:
    """Write a classifier as C or as a page, if that computes what the model computes.

    A C file gets a header and a test next to it, NAME.h and NAME_test.c; where a compiler is found it is compiled and
    run on all windows. A page, and a C file where there is no compiler, is checked by its list of operations.

    Args:
        model: the classifier.
        path: NAME.c or NAME.html; nothing is written if the check fails.
        format: a key of `export_formats.SOURCES`.
        windows: real windows ``(n, samples)`` that it is checked on.
        quantize: weights in 8 bits; C only.

    Raises:
        UsageError: if the path has another ending, a page is to be quantised, or the model cannot be written so, see
            `operations.operations` and `c_source.c_files`.
        ExportError: if a logit or too many labels differ, or a C file is not compiled without a warning.
        WriteError: if a file cannot be written.
    """
    if path.suffix != SOURCES[format]:
        raise UsageError(f"{printable(path)}: a file for --format {format} must end in {SOURCES[format]}")
    if quantize and format != "c":
        raise UsageError("--quantize int8 is for --format c or onnx, not web: a page computes in float32")
    name = path.stem
    if format == "c" and (plain := c_identifiers([name])[name]) != name:
        raise UsageError(f"{printable(path)}: the name of a C file begins its functions' names; try {plain}.c")
    check_writable(path)
    model.eval()
    windows = (windows * 32768).round().clamp(-32768, 32767).cpu() / 32768  # as in the test of a C file
    steps = operations(model)
    with torch.inference_mode():
        expected = [values.float().cpu().numpy() for values in model(windows.to(model.device)).values()]
        began = time.perf_counter()
        for _ in range(10):
            model(windows[:1].to(model.device))
        model_latency_ms = 100 * (time.perf_counter() - began)
        found = [v.numpy() for v in run_operations(steps, model.frontend(windows.to(model.device)).float().cpu())]
    compiled: dict[str, Any] = {"by_operations": True, "latency_ms": None}
    frames_error = 0.0
    if format == "web":
        contents = {path.name: web_page(model, name)}
    else:
        contents = c_files(model, name, windows.numpy(), expected, quantize)
        if compiler := next(filter(shutil.which, _COMPILERS), None):
            recording = windows[:MAX_RECORDING_WINDOWS].flatten()
            found, frames, compiled = _run_c(compiler, name, contents, windows.numpy(), recording.numpy(), expected)
            of_model = model.frame_logits(recording, model.sample_rate)[1].values()
            frames_error = max(float(np.abs(a - b.numpy()).max()) for a, b in zip(frames, of_model, strict=True))
    agree = float(np.mean([a.argmax(1) == b.argmax(1) for a, b in zip(found, expected, strict=True)]))
    errors = [float(np.abs(a - b).max()) for a, b in zip(found, expected, strict=True)]
    error = max([*errors, frames_error])
    if (agree < INT8_LABELS_AGREE) if quantize else (agree < 1 or not error <= TOLERANCE):
        raise ExportError(
            f"{printable(path)}: was not written: on {len(windows)} windows its logits differ by up to {error:.2g} and "
            f"{100 * agree:.1f} % of its labels agree"
        )
    replace_files({path.with_name(file): text for file, text in contents.items()})
    return Check(
        windows=len(windows),
        other_lengths_s=(),
        max_error=error,
        labels_agree=agree,
        size_bytes=sum(len(text.encode()) for text in contents.values() if not text.startswith("/* test")),
        model_latency_ms=model_latency_ms,
        **compiled,
    )


def _run_c(
    compiler: str,
    name: str,
    contents: Mapping[str, str],
    windows: np.ndarray,
    recording: np.ndarray,
    expected: Sequence[np.ndarray],
) -> tuple[list[np.ndarray], list[np.ndarray], dict[str, Any]]:
    """Logits of each task of windows and of a recording's frames from the compiled C file, and its sizes and time."""
    with TemporaryDirectory() as folder:
        inputs: dict[str, str | bytes] = dict(contents)
        for file, samples in (("windows", windows), ("recording", recording)):
            inputs[file] = samples.astype("<f4").tobytes()
        replace_files({Path(folder, file): content for file, content in inputs.items()})  # or it says that it is full

        def call(*command: str, check: bool = True) -> str:
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace")
            if check and done.returncode:
                message = (done.stderr or done.stdout).strip() or f"exit code {done.returncode}"
                raise ExportError(f"{name}.c: was not written: {' '.join(command[:1])}: {message[:2000]}")
            return done.stdout

        def logits(*arguments: str) -> list[np.ndarray]:
            lines = [line for line in call(program, *arguments).splitlines() if not line.startswith("event")]
            rows = np.array([line.split() for line in lines], float)
            parts = np.split(rows, np.cumsum([1 + values.shape[1] for values in expected])[:-1], axis=1)
            return [part[:, 1:] for part in parts]  # without the answer

        call(compiler, *_FLAGS, "-c", f"{name}.c")
        call(compiler, *_FLAGS, f"{name}.o", f"{name}_test.c", "-lm", "-o", "run")
        program = str(Path(folder, "run"))
        _, ms, state, whole = (float(v) for v in call(program, check=False).split()[1::2])
        size = call("size", f"{name}.o").splitlines()[1].split() if shutil.which("size") else None
        measured = {
            "latency_ms": ms,
            "flash_bytes": int(size[0]) + int(size[1]) if size else None,
            "ram_bytes": int(state),
            "recording_ram_bytes": int(whole),
        }
        return logits("windows"), logits("recording", "frames"), measured
