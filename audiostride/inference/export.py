"""A trained classifier as one file for another runtime: torch.export, ONNX or ExecuTorch.

What is exported takes clips and gives the logits of every task. The learned strides become constant
matrices, and the log-mel frontend, where it goes along, a convolution with the Fourier basis, so that
the file holds nothing but convolutions and matrix products. A matrix fits one length, the window's;
clips of any length are split into windows, and their logits averaged, by the file itself. Every file
is run on real clips before it is kept.
"""

import copy
import json
import math
import os
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.fx.experimental import _config as symbolic_shapes
from torch.nn import functional as F

from ..errors import ExportError, UsageError
from ..layers.downsampling import DiffStride, SpectralPool
from ..layers.pooling_matrix import constant_matrix
from ..models.classifier import AudioClassifier
from ..models.log_mel import LOG_OFFSET, LogMel
from ..windows import split_windows

Format = Literal["torch", "onnx", "executorch"]

ENDINGS: dict[Format, str] = {"torch": ".pt2", "onnx": ".onnx", "executorch": ".pte"}
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


class MatrixLogMel(nn.Module):
    """`LogMel` without a Fourier transform: a strided convolution with its basis.

    Example:
        >>> frontend, waveform = LogMel(), torch.randn(2, 16000)
        >>> torch.allclose(MatrixLogMel(frontend)(waveform), frontend(waveform), atol=1e-3)
        True
    """

    basis: Tensor
    filters: Tensor

    def __init__(self, frontend: LogMel):
        super().__init__()
        n_fft, length = 2 * (frontend.filters.shape[1] - 1), len(frontend.window)
        turns = torch.outer(torch.arange(n_fft // 2 + 1), torch.arange(length)).remainder(n_fft).double() / n_fft
        phase = 2 * math.pi * turns
        basis = torch.cat([phase.cos(), phase.sin()]) * frontend.window.double().cpu()
        self.hop_length, self.window_length = frontend.hop_length, length
        self.register_buffer("basis", basis.float()[:, None])
        self.register_buffer("filters", frontend.filters.float().cpu())

    def forward(self, waveform: Tensor) -> Tensor:
        """Turn ``(batch, samples)`` into ``(batch, 1, time, mel)``."""
        needed = (waveform.shape[-1] // self.hop_length - 1) * self.hop_length + self.window_length
        padded = F.pad(waveform, (0, max(0, needed - waveform.shape[-1])))[:, None, :needed]
        cosine, sine = F.conv1d(padded, self.basis, stride=self.hop_length).square().chunk(2, dim=1)
        return ((cosine + sine).transpose(1, 2) @ self.filters.T + LOG_OFFSET).log()[:, None]


class ConstantPool(nn.Module):
    """A pooling layer whose matrices, for the one input size that it met first, are constants.

    Stands in for a `SpectralPool` or `DiffStride` of a trunk; it fits inputs of that size only.
    """

    def __init__(self, pool: SpectralPool | DiffStride):
        super().__init__()
        self._pool = (pool,)  # in a tuple it is no submodule, whose parameters would go along

    @property
    def pool(self) -> SpectralPool | DiffStride:
        """The layer it stands in for."""
        return self._pool[0]

    def pool_axis(self, x: Tensor, axis: int, host_stride: float | None = None) -> Tensor:
        """Pool one axis, as the layer it stands in for."""
        pool = self.pool
        dim, name = x.dim() - pool.n_axes + axis, f"matrix_{axis}"
        if not hasattr(self, name):
            stride, smoothness = None, 1.0
            if isinstance(pool, DiffStride):
                stride, smoothness = pool.strides()[axis], pool.smoothness
            crop = pool.axis_crop(x.shape[dim], axis)
            matrix = constant_matrix(
                crop, stride, smoothness, pool.axis_alpha(axis), 1, torch.float32, torch.device("cpu")
            )
            self.register_buffer(name, torch.eye(1) if crop.n == 1 else matrix.clone())
        matrix = getattr(self, name)
        if dim == x.dim() - 2:
            return matrix @ x
        return (x.movedim(dim, -1) @ matrix.T).movedim(-1, dim)

    def pool_conv(self, conv: nn.Module, x: Tensor, axis: int, host_stride: float | None = None) -> Tensor:
        """Convolve, then pool one axis."""
        return self.pool_axis(conv(x), axis)

    def forward(self, x: Tensor) -> Tensor:
        """Pool all axes."""
        for axis in range(self.pool.n_axes):
            x = self.pool_axis(x, axis)
        return x


class ExportedWindow(nn.Module):
    """A window in, a tuple with the logits of each task out.

    Example:
        >>> from audiostride import create_model
        >>> model = create_model("audio_cnn_small_diffstride", heads={"word": 3, "speaker": 5}).eval()
        >>> [tuple(logits.shape) for logits in ExportedWindow(model, takes_log_mel=False)(torch.zeros(2, 16000))]
        [(2, 3), (2, 5)]
    """

    def __init__(self, model: AudioClassifier, takes_log_mel: bool):
        super().__init__()
        model = copy.deepcopy(model).cpu().float().eval()
        for parent in list(model.trunk.modules()):
            for name, child in list(parent.named_children()):
                if isinstance(child, SpectralPool | DiffStride):
                    setattr(parent, name, ConstantPool(child))
        self.frontend: nn.Module = model.frontend
        if isinstance(model.frontend, LogMel):
            self.frontend = nn.Identity() if takes_log_mel else MatrixLogMel(model.frontend)
        elif takes_log_mel:
            raise UsageError(f"this model has no log-mel: {type(model.trunk).__name__} takes the waveform as it is")
        self.trunk = model.trunk.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        self.heads = nn.ModuleList(model.heads.values())

    def forward(self, window: Tensor) -> tuple[Tensor, ...]:
        """Map ``(batch, samples)`` or ``(batch, 1, time, mel)`` to logits ``(batch, n_classes)`` of each task."""
        embedding = self.trunk(self.frontend(window))
        return tuple(head(embedding) for head in self.heads)

    @property
    def any_length(self) -> bool:
        """Whether it holds no matrix that fits one length only, as with strided convolutions."""
        return not any(isinstance(module, ConstantPool) for module in self.trunk.modules())


class ExportedClip(nn.Module):
    """Clips of any length in, the logits of their windows averaged: `windows.split_windows` as plain arithmetic.

    Example:
        >>> from audiostride import create_model
        >>> model = create_model("audio_cnn_small_diffstride", heads={"word": 3}).eval()
        >>> clip = ExportedClip(ExportedWindow(model, takes_log_mel=False), model.window_length)
        >>> [logits.shape for logits in clip(torch.zeros(2, 40000))]
        [torch.Size([2, 3])]
    """

    def __init__(self, window: ExportedWindow, window_length: int):
        super().__init__()
        self.window = window
        self.window_length = window_length

    def forward(self, clip: Tensor) -> tuple[Tensor, ...]:
        """Map ``(batch, samples)`` to the logits ``(batch, n_classes)`` of each task."""
        n, length = clip.shape[1], self.window_length
        n_windows = torch.sym_max((n + length // 2) // length, 1)
        before = torch.sym_max(length - n, 0) // 2  # a clip shorter than a window lies in its centre
        windows = F.pad(clip, (before, n_windows * length - n - before)).reshape(-1, length)
        return tuple(
            logits.reshape(clip.shape[0], n_windows, logits.shape[1]).mean(1) for logits in self.window(windows)
        )


def metadata(model: AudioClassifier, takes_log_mel: bool, any_length: bool) -> dict[str, Any]:
    """What travels in the file: labels, window and frontend, as plain data."""
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

    From the waveform the file takes any batch of clips of any length, and answers as the model does;
    from log-mel a batch of windows, which with strided convolutions may be of any length, too. An
    ExecuTorch file plans its memory beforehand: it takes one window.

    Args:
        model: the classifier.
        path: the file; nothing is left there if the check fails.
        format: "torch" (torch.export, .pt2), "onnx" or "executorch" (.pte).
        windows: real windows ``(n, samples)``, which the file is checked on; for int8 their first
            half sets the ranges and the other half is checked.
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
        raise UsageError(f"{path}: a file of --format {format} ends in {ENDINGS[format]}")
    if quantize and format != "onnx":
        raise UsageError(f"--quantize int8 is for --format onnx, not {format}: {_NOT_QUANTIZED[format]}")
    if quantize and len(windows) < 2:
        raise UsageError("--quantize int8 needs two clips at least: one for the ranges, one to check it on")
    window = ExportedWindow(model, takes_log_mel).eval()
    any_length = format != "executorch" and (window.any_length or not takes_log_mel)
    program = _program(model, window, takes_log_mel, any_length, any_batch=format != "executorch")
    about = json.dumps(metadata(model, takes_log_mel, any_length))
    unfinished = path.with_name(f"{path.stem}.part{path.suffix}")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        _WRITERS[format](program, unfinished, list(model.labels), about)
        if quantize:
            n = len(windows) // 2
            _quantize_onnx(unfinished, _input(model, windows[:n], takes_log_mel).numpy())
            windows = windows[n:]
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
    "torch": "a .pt2 would compute in float32 all the same, on rounded weights",
    "executorch": "8-bit .pte files are not supported",
}


def _program(
    model: AudioClassifier, window: ExportedWindow, takes_log_mel: bool, any_length: bool, any_batch: bool
) -> torch.export.ExportedProgram:
    """The model as a graph whose batch and length are what the arguments say."""
    sizes: dict[int, torch.export.Dim] = {}
    if any_batch:
        sizes[0] = torch.export.Dim("batch", min=1, max=4096)
    module: nn.Module = window
    with torch.inference_mode(False), torch.no_grad():
        example = _input(model, torch.zeros(2 if any_batch else 1, model.window_length), takes_log_mel)
        window(example)  # the pooling matrices are made here
        if any_length:
            # The size it is traced at must be none of the special ones: not one window, no whole number of them.
            example = _input(model, torch.zeros(2, 2 * model.window_length + model.window_length // 3), takes_log_mel)
            sizes[2 if takes_log_mel else 1] = torch.export.Dim("length", min=2, max=2**27)
            module = window if takes_log_mel else ExportedClip(window, model.window_length).eval()
        # Else the graph would be one for several windows, another one for a single window.
        with symbolic_shapes.patch(backed_size_oblivious=True):  # type: ignore[attr-defined]
            return torch.export.export(module, (example,), dynamic_shapes=(sizes,))


def run_exported(path: Path, format: Format) -> Callable[[np.ndarray], list[np.ndarray]]:
    """A function that runs an exported file: float32 windows in, the logits of each task out."""
    if format == "torch":
        module = torch.export.load(path).module()
        return lambda x: [y.detach().numpy() for y in module(torch.from_numpy(x))]
    if format == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(path, _one_thread(onnxruntime), providers=["CPUExecutionProvider"])
        return lambda x: session.run(None, {"sound": x})
    from executorch.runtime import Runtime

    method = Runtime.get().load_program(path).load_method("forward")
    return lambda x: [
        np.concatenate(parts)
        for parts in zip(*([y.numpy() for y in method.execute([torch.from_numpy(w[None])])] for w in x), strict=True)
    ]


def _one_thread(onnxruntime: Any) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    return options


def _input(model: AudioClassifier, waveform: Tensor, takes_log_mel: bool) -> Tensor:
    """What an exported file takes for a waveform ``(batch, samples)``."""
    with torch.no_grad():
        return (model.frontend(waveform.to(model.frontend.window)) if takes_log_mel else waveform).cpu().float()


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
            found.append(run(_input(model, waveform, takes_log_mel).numpy()))
        model_latency_ms = _latency_ms(lambda: model(windows[:1].to(device)))
    one = _input(model, windows[:1], takes_log_mel).numpy()
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


def _write_torch(program: torch.export.ExportedProgram, path: Path, tasks: Sequence[str], about: str) -> None:
    torch.export.save(program, path, extra_files={"audiostride.json": about})


def _write_onnx(program: torch.export.ExportedProgram, path: Path, tasks: Sequence[str], about: str) -> None:
    onnx = _package("onnx", "onnx")
    _package("onnxscript", "onnx")
    _package("onnxruntime", "onnx")
    converted = torch.onnx.export(
        program, dynamo=True, opset_version=20, input_names=["sound"], output_names=list(tasks), verbose=False
    )
    assert converted is not None
    proto = converted.model_proto
    proto.metadata_props.append(onnx.StringStringEntryProto(key="audiostride", value=about))
    onnx.save(proto, path)


def _write_executorch(program: torch.export.ExportedProgram, path: Path, tasks: Sequence[str], about: str) -> None:
    exir = _package("executorch.exir", "executorch")
    xnnpack = _package("executorch.backends.xnnpack.partition.xnnpack_partitioner", "executorch")
    lowered = exir.to_edge_transform_and_lower(
        program, partitioner=[xnnpack.XnnpackPartitioner()], constant_methods={"audiostride": about}
    )
    path.write_bytes(lowered.to_executorch().buffer)


_WRITERS: dict[Format, Callable[[torch.export.ExportedProgram, Path, Sequence[str], str], None]] = {
    "torch": _write_torch,
    "onnx": _write_onnx,
    "executorch": _write_executorch,
}


def _quantize_onnx(path: Path, calibration: np.ndarray) -> None:
    """Rewrite an ONNX file with 8-bit convolutions and matrix products, ranges from the calibration windows."""
    quantization = _package("onnxruntime.quantization", "onnx")
    onnx = _package("onnx", "onnx")
    about = [(entry.key, entry.value) for entry in onnx.load(path).metadata_props]

    class Windows(quantization.CalibrationDataReader):  # type: ignore[name-defined]
        def __init__(self) -> None:
            self.windows = iter(calibration)

        def get_next(self) -> dict[str, np.ndarray] | None:
            window = next(self.windows, None)
            return None if window is None else {"sound": window[None]}

    # The log-mel frontend stays in float32: the power of a quiet band is far below one step in 256.
    nodes = onnx.load(path).graph.node
    logs = [i for i, node in enumerate(nodes) if node.op_type == "Log"]
    frontend = [node.name for node in nodes[: logs[0] if logs else 0]]
    float_path = path.with_name(path.stem + ".float32.onnx")
    os.replace(path, float_path)
    try:
        quantization.quantize_static(
            float_path,
            path,
            Windows(),
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            op_types_to_quantize=["Conv", "MatMul", "Gemm"],
            nodes_to_exclude=frontend,
        )
    finally:
        float_path.unlink()
    proto = onnx.load(path)
    del proto.metadata_props[:]
    onnx.helper.set_model_props(proto, dict(about))
    onnx.save(proto, path)


def _package(name: str, extra: str) -> Any:
    from importlib import import_module

    try:
        return import_module(name)
    except ImportError as error:
        raise UsageError(f"this format needs {name.partition('.')[0]}: pip install 'audiostride[{extra}]'") from error
