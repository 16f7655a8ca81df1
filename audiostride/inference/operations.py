"""A trained classifier as a short list of operations with their weights: what a page or a C file is written from.

`torch.export` traces the frozen trunk and its heads for one window; `operations` turns the graph into a list of the
few kinds below. A map is ``(channel, time, mel)``. Every operation but `Reduce`, `Join` and `Head` computes its output
one frame after the other, from a few frames of its input, so a program may run them row by row as sound arrives: a row
is one frame of a map, ``(channel, mel)``. Constants are folded, and a batch norm into the convolution before it.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.fx import Node

from ..errors import UsageError
from ..models.classifier import AudioClassifier
from ..models.log_mel import LogMel
from ..models.wave_cnn import RawWaveform
from .exported_model import ExportedWindow, exported_program


@dataclass(frozen=True)
class Operation:
    """One step: it reads the maps or vectors numbered `sources` and makes the next one.

    The model's input is number 0, operation i of the list makes number i + 1.

    Attributes:
        sources: numbers of what it reads.
        shape: what it makes, ``(channel, time, mel)``; ``(n,)`` for a vector.
    """

    sources: tuple[int, ...]
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Convolution(Operation):
    """Cross-correlation over time and mel, zero-padded, perhaps followed by a ReLU.

    Attributes:
        weight: float32 ``(out, in / groups, time, mel)``.
        bias: float32 ``(out,)``.
        stride, padding: along time and mel.
        groups: equal groups of channels that do not see each other.
        relu: whether negative values become 0.
    """

    weight: np.ndarray
    bias: np.ndarray
    stride: tuple[int, int]
    padding: tuple[int, int]
    groups: int
    relu: bool = False


@dataclass(frozen=True)
class Affine(Operation):
    """``scale * x + shift`` per channel (a batch norm behind a ReLU), perhaps followed by a ReLU."""

    scale: np.ndarray
    shift: np.ndarray
    relu: bool = False


@dataclass(frozen=True)
class Matrix(Operation):
    """Product of an axis with a constant matrix: spectral pooling, learned strides, averages over mel regions.

    Attributes:
        axis: "time" or "mel".
        matrix: float32 ``(groups, m, n)``; each of the equal groups of channels has its own.
    """

    axis: str
    matrix: np.ndarray
    relu: bool = False


@dataclass(frozen=True)
class Add(Operation):
    """Sum of two maps of one shape, perhaps followed by a ReLU."""

    relu: bool = False


@dataclass(frozen=True)
class Relu(Operation):
    """Negative values become 0; only where it cannot be part of the operation before."""


@dataclass(frozen=True)
class Average(Operation):
    """Mean over tiles of ``size`` frames and bands; what lies beyond the map does not count."""

    size: tuple[int, int]


@dataclass(frozen=True)
class Pick(Operation):
    """Every ``step``-th frame and band, from the first one on."""

    step: tuple[int, int]


@dataclass(frozen=True)
class Reshape(Operation):
    """The bands of each channel become channels; a row stays as it is in memory."""


@dataclass(frozen=True)
class Reduce(Operation):
    """The "mean" or "max" of each channel over all frames and bands."""

    kind: str


@dataclass(frozen=True)
class Join(Operation):
    """Vectors one behind the other."""


@dataclass(frozen=True)
class Head(Operation):
    """Logits of a task, ``weight @ x + bias``."""

    task: str
    weight: np.ndarray
    bias: np.ndarray


class _Value(NamedTuple):
    """A tensor of the graph: which map it is, and the name of each of its axes ("b" batch, "c", "t", "m")."""

    number: int
    axes: str


def operations(model: AudioClassifier) -> list[Operation]:
    """The operations from the log-mel spectrogram, or the waveform of a `RawWaveform`, to the logits of each task.

    Raises:
        UsageError: if the frontend is neither of these, or the trunk uses an operation that is not in the list; names
            it, its module and what to do.

    Example:
        >>> from audiostride import create_model
        >>> model = create_model("audio_resnet_pico_strided", heads={"word": ["no", "yes"]}).eval()
        >>> steps = operations(model)
        >>> [type(step).__name__ for step in steps[:3]], steps[-1].shape
        (['Affine', 'Convolution', 'Convolution'], (2,))
    """
    takes_log_mel = isinstance(model.frontend, LogMel)
    if not isinstance(model.frontend, LogMel | RawWaveform):
        raise UsageError(
            f"pages and C files hold a log-mel or the bare waveform, and this model's frontend is "
            f"{type(model.frontend).__name__}; export it with --format onnx"
        )
    window = ExportedWindow(model, takes_log_mel).eval()
    program = exported_program(model, window, takes_log_mel, any_length=False, any_batch=False)
    return _fuse(_Reader(program, list(model.labels)).steps)


class _Reader:
    """Walks through an exported graph once; `steps` are its operations, nothing fused yet."""

    def __init__(self, program: torch.export.ExportedProgram, tasks: Sequence[str]):
        self.steps: list[Operation] = []
        self.tasks = list(tasks)
        self.found: dict[Node, Any] = {}
        signature = program.graph_signature
        constants = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
        constants |= signature.inputs_to_lifted_tensor_constants
        held = {**program.state_dict, **program.constants}
        for node in program.graph.nodes:
            if node.op == "placeholder" and node.name in constants:
                self.found[node] = held[constants[node.name]].detach()
            elif node.op == "placeholder":
                shape = node.meta["val"].shape
                self.input_shape = (1, shape[2], shape[3]) if len(shape) == 4 else (1, shape[1], 1)
                self.found[node] = _Value(0, "bctm" if len(shape) == 4 else "bt")
            elif node.op == "call_function":
                self.found[node] = self._step(node)

    def shape(self, number: int) -> tuple[int, ...]:
        """Shape of what has this number."""
        return self.steps[number - 1].shape if number else self.input_shape

    def _step(self, node: Node) -> Any:
        name = node.target.__name__.partition(".")[0]  # type: ignore[union-attr]
        args = torch.fx.node.map_arg(node.args, self.found.__getitem__)
        values = [value for value in _flat(args) if isinstance(value, _Value)]
        if not values:
            is_check = node.target is torch.ops.aten._assert_tensor_metadata.default
            return None if is_check else node.target(*args, **node.kwargs)  # type: ignore[operator]
        if name in _LAYOUT:
            axes = _LAYOUT[name](values[0].axes, tuple(node.args[0].meta["val"].shape), *args[1:])  # type: ignore[union-attr]
            if axes is not None and axes.replace("b", "").replace("t", "") in ("", "c", "m", "cm", "gc", "gcm"):
                return self._seen_as(values[0], axes)
        step = _STEPS.get(name)
        found = step(self, *args, **node.kwargs) if step else None
        if found is None:
            raise UsageError(_unknown(node, name))
        return found

    def _seen_as(self, x: _Value, axes: str) -> _Value:
        """The same numbers with other axes."""
        shape = self.shape(x.number)
        if "m" in x.axes and "m" not in axes and shape[2] > 1:
            return self.add(Reshape((x.number,), (shape[0] * shape[2], shape[1], 1)), axes)
        return _Value(x.number, axes)

    def add(self, step: Operation, axes: str) -> _Value:
        """Append an operation, and return what it makes."""
        self.steps.append(step)
        return _Value(len(self.steps), axes)


def _flat(args: Any) -> list[Any]:
    return [
        inner
        for arg in args
        for inner in (_flat(arg) if isinstance(arg, list | tuple) and not isinstance(arg, _Value) else [arg])
    ]


def _unknown(node: Node, name: str) -> str:
    modules = list((node.meta.get("nn_module_stack") or {}).values())
    where = (
        f"{modules[-1][0]} ({getattr(modules[-1][1], '__name__', str(modules[-1][1]).rpartition('.')[2])})"
        if modules
        else "the trunk"
    )
    return (
        f"{where} uses the operation {name}, as it is used there, which pages and C files do not have; export it with "
        "--format onnx, or build the module from convolutions, batch norm, ReLU, sums and means"
    )


# --- What moves axes but no number: the axes of the result, None where it is not known. ---


def _transpose(axes: str, shape: tuple[int, ...], a: int, b: int) -> str:
    order = list(axes)
    order[a], order[b] = order[b], order[a]
    return "".join(order)


def _movedim(axes: str, shape: tuple[int, ...], source: int, target: int) -> str:
    order = list(axes)
    moved = order.pop(source)
    order.insert(target % len(axes), moved)
    return "".join(order)


def _flatten(axes: str, shape: tuple[int, ...], start: int = 0, end: int = -1) -> str | None:
    start, end = start % len(axes), end % len(axes)
    merged, sizes = axes[start : end + 1], shape[start : end + 1]
    long = [axis for axis, size in zip(merged, sizes, strict=True) if size > 1]
    if len(long) <= 1:  # an axis of one sample disappears
        kept = long[0] if long else merged[0]
    elif merged in ("cm", "gc"):
        kept = "c"
    else:
        return None
    return axes[:start] + kept + axes[end + 1 :]


def _unsqueeze(axes: str, shape: tuple[int, ...], at: int) -> str | None:
    at %= len(axes) + 1
    new = next((axis for axis in "cm" if axis not in axes), None)
    return None if new is None else axes[:at] + new + axes[at:]


def _unflatten(axes: str, shape: tuple[int, ...], at: int, sizes: list[int]) -> str | None:
    at %= len(axes)
    return axes[:at] + "g" + axes[at:] if axes[at] == "c" and len(sizes) == 2 else None


def _same(axes: str, *_: Any) -> str:
    return axes


_LAYOUT: dict[str, Callable[..., str | None]] = {
    "transpose": _transpose,
    "movedim": _movedim,
    "flatten": _flatten,
    "unsqueeze": _unsqueeze,
    "unflatten": _unflatten,
    "alias": _same,
    "contiguous": _same,
    "clone": _same,
    "dropout": _same,
}


# --- What computes: appends an operation; None where it is used in a way that is not in the list. ---


def _array(tensor: Tensor) -> np.ndarray:
    return np.ascontiguousarray(tensor.detach().float().numpy())


def _conv(
    reader: _Reader,
    x: _Value,
    weight: Tensor,
    bias: Tensor | None = None,
    stride=(1,),
    padding=(0,),
    dilation=(1,),
    groups: int = 1,
):
    if x.axes not in ("bctm", "bct") or any(d != 1 for d in dilation):
        return None
    if weight.dim() == 3:
        weight, stride, padding = weight[..., None], (*stride, 1), (*padding, 0)
    stride, padding = (tuple(v) * (2 // len(v)) for v in (stride, padding))
    _, time, mel = reader.shape(x.number)
    sizes = [
        (n + 2 * p - k) // s + 1 for n, p, k, s in zip((time, mel), padding, weight.shape[2:], stride, strict=True)
    ]
    shift = np.zeros(len(weight), np.float32) if bias is None else _array(bias)
    made = Convolution((x.number,), (len(weight), *sizes), _array(weight), shift, stride, padding, groups)
    return reader.add(made, x.axes)


def _batch_norm(reader: _Reader, x: _Value, weight, bias, mean, variance, training, momentum, eps, cudnn):
    if x.axes[:2] != "bc" or training:
        return None
    scale = (1.0 if weight is None else weight.double()) / (variance.double() + eps).sqrt()
    shift = (0.0 if bias is None else bias.double()) - mean.double() * scale
    return reader.add(Affine((x.number,), reader.shape(x.number), _array(scale), _array(shift)), x.axes)


def _relu(reader: _Reader, x: _Value) -> _Value:
    return reader.add(Relu((x.number,), reader.shape(x.number)), x.axes)


def _add(reader: _Reader, a: Any, b: Any) -> _Value | None:
    if not isinstance(a, _Value) or not isinstance(b, _Value) or a.axes != b.axes:
        return None
    shape = reader.shape(a.number)
    return reader.add(Add((a.number, b.number), shape), a.axes) if reader.shape(b.number) == shape else None


def _matmul(reader: _Reader, a: Any, b: Any) -> _Value | None:
    if isinstance(a, _Value) == isinstance(b, _Value):
        return None
    x, matrix = (a, b.mT) if isinstance(a, _Value) else (b, a)  # matrix (.., m, n): its product with the axis
    axis = {"t": "time", "m": "mel"}.get(x.axes[-1 if x is a else -2])
    matrix = matrix.reshape(-1, *matrix.shape[-2:])
    channels, time, mel = reader.shape(x.number)
    if axis is None or channels % len(matrix) or (len(matrix) > 1) != ("g" in x.axes):
        return None
    shape = (channels, matrix.shape[1], mel) if axis == "time" else (channels, time, matrix.shape[1])
    return reader.add(Matrix((x.number,), shape, axis, _array(matrix)), x.axes)


def _linear(reader: _Reader, x: _Value, weight: Tensor, bias: Tensor | None = None) -> _Value | None:
    if x.axes == "bc" and len(reader.shape(x.number)) == 1:
        task = reader.tasks.pop(0)
        shift = np.zeros(len(weight), np.float32) if bias is None else _array(bias)
        return reader.add(Head((x.number,), (len(weight),), task, _array(weight), shift), x.axes)
    return _matmul(reader, x, weight.T) if bias is None else None


def _slice(reader: _Reader, x: _Value, dim: int = 0, start: int = 0, end: int = 2**63 - 1, step: int = 1):
    axis, (channels, time, mel) = x.axes[dim], reader.shape(x.number)
    size = {"t": time, "m": mel}.get(axis, 0)
    if start or (end < size) or (axis not in "tm" and step != 1):
        return None
    if step == 1:
        return x
    steps = (step, 1) if axis == "t" else (1, step)
    return reader.add(Pick((x.number,), (channels, -(-time // steps[0]), -(-mel // steps[1])), steps), x.axes)


def _avg_pool(reader: _Reader, x: _Value, size, stride=None, padding=(0, 0), ceil_mode=False, *rest):
    if x.axes != "bctm" or list(stride or size) != list(size) or any(padding) or not ceil_mode:
        return None
    channels, time, mel = reader.shape(x.number)
    shape = (channels, -(-time // size[0]), -(-mel // size[1]))
    return reader.add(Average((x.number,), shape, tuple(size)), x.axes)


def _reduce(kind: str) -> Callable[..., _Value | None]:
    def step(reader: _Reader, x: _Value, dims: Sequence[int], keepdim: bool = False) -> _Value | None:
        gone = {x.axes[dim] for dim in dims}
        if keepdim or "".join(axis for axis in x.axes if axis not in gone) != "bc":
            return None
        return reader.add(Reduce((x.number,), reader.shape(x.number)[:1], kind), "bc")

    return step


def _cat(reader: _Reader, parts: Sequence[_Value], dim: int = 0) -> _Value | None:
    shapes = [reader.shape(part.number) for part in parts]
    if any(len(shape) != 1 for shape in shapes):
        return None
    if len(parts) == 1:
        return parts[0]
    return reader.add(Join(tuple(part.number for part in parts), (sum(n for (n,) in shapes),)), "bc")


_STEPS: dict[str, Callable[..., Any]] = {
    "conv1d": _conv,
    "conv2d": _conv,
    "batch_norm": _batch_norm,
    "relu": _relu,
    "add": _add,
    "matmul": _matmul,
    "linear": _linear,
    "slice": _slice,
    "avg_pool2d": _avg_pool,
    "mean": _reduce("mean"),
    "amax": _reduce("max"),
    "cat": _cat,
}


# --- Fewer operations that compute the same. ---


def _fuse(steps: list[Operation]) -> list[Operation]:
    """Fold each batch norm into a convolution before it, and each ReLU into what is before it, where nothing else reads
    that."""
    kept: list[Operation] = []
    number = {0: 0}  # of each of the given list among those that are kept
    readers = [source for step in steps for source in step.sources]
    for old, step in enumerate(steps, start=1):
        step = replace(step, sources=tuple(number[source] for source in step.sources))
        before = kept[-1] if kept and step.sources == (len(kept),) and readers.count(old - 1) == 1 else None
        fused = _fused(before, step) if before is not None and steps[old - 1].sources == (old - 1,) else None
        if fused is not None:
            kept[-1] = fused
        else:
            kept.append(step)
        number[old] = len(kept)
    return kept


def _fused(before: Operation, step: Operation) -> Operation | None:
    if isinstance(step, Affine) and isinstance(before, Convolution) and not before.relu:
        weight = before.weight * step.scale[:, None, None, None]
        return replace(before, weight=weight, bias=before.bias * step.scale + step.shift)
    if isinstance(step, Relu) and isinstance(before, Convolution | Affine | Matrix | Add) and not before.relu:
        return replace(before, relu=True)
    return None


def count_macs(steps: Sequence[Operation]) -> int:
    """Multiply-accumulates of the convolutions, matrix products and heads of a window.

    Example:
        >>> count_macs([Head((0,), (2,), "word", np.zeros((2, 64)), np.zeros(2))])
        128
    """
    total = 0
    for step in steps:
        if isinstance(step, Convolution):
            total += math.prod(step.shape) * step.weight[0].size
        elif isinstance(step, Matrix):
            total += math.prod(step.shape) * step.matrix.shape[2]
        elif isinstance(step, Head):
            total += step.weight.size
    return total
