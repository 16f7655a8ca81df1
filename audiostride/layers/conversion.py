"""Give any PyTorch model fractional or learned strides, and take them back.

`replace_downsampling` runs every strided convolution and pooling layer of a model at stride 1 and lets
`DiffStride` or `SpectralPool` downsample what comes out. The weights stay where they are, in the same
modules. Branches that are summed or concatenated must shrink alike, so they share one pooling layer;
which ones do is read off the model's graph, traced with `torch.fx`. `restore_downsampling` undoes it.

How sharing is found: the resolution of a feature map is the list of layers that downsampled it on its
way from the input. Where two maps meet, their lists must have the same length, and the layers at the
same place of both become one group. Where that cannot be told, the model is refused and left as it was.
"""

import operator
from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from .downsampling import DiffStride, SpectralPool

_CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_MAX_POOLS = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)
_AVG_POOLS = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)
_WINDOWED = (*_CONVS, *_MAX_POOLS, *_AVG_POOLS)


class Downsampled(nn.Module):
    """An operation at stride 1 and the pooling layer that downsamples its output.

    Attributes:
        op: the model's own convolution or pooling layer, with its weights; its stride is set to 1.
        pool: `DiffStride` or `SpectralPool`; parallel branches hold the same one.
        op_stride: the stride the operation had.
    """

    def __init__(self, op: nn.Module, pool: DiffStride | SpectralPool):
        super().__init__()
        self.op = op
        self.pool = pool
        self.op_stride = op.stride
        op.stride = (1,) * _n_axes(op)  # type: ignore[assignment]

    def forward(self, x: Tensor) -> Tensor:
        """Apply the operation at stride 1, then pool. An average pool is left out: pooling averages by itself."""
        return self.pool(x if isinstance(self.op, _AVG_POOLS) else self.op(x))


class Group(NamedTuple):
    """Layers of a model that downsample in parallel and so must share one stride.

    Attributes:
        layers: names of the layers, from the model's input to its output.
        stride: their stride on each axis.
    """

    layers: list[str]
    stride: tuple[int, ...]


def find_downsampling(model: nn.Module) -> list[Group]:
    """The strided convolutions and pooling layers of a model, in groups that share a stride.

    Args:
        model: any module that `torch.fx` can trace.

    Returns:
        The groups, in the order of the model's graph.

    Raises:
        ValueError: if the model cannot be traced, or it cannot be told which branches run in parallel;
            the message names the layer.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.ReLU(), nn.MaxPool2d(2))
        >>> find_downsampling(net)
        [Group(layers=['0'], stride=(2, 2)), Group(layers=['2'], stride=(2, 2))]
    """
    return _Resolution(model).groups()


def replace_downsampling(
    model: nn.Module,
    kind: Literal["diffstride", "spectral"] = "diffstride",
    smoothness: float = 4.0,
    shared_stride: bool = False,
    only: Sequence[str] | None = None,
    aliasing: float | None = None,
) -> nn.Module:
    """Let `DiffStride` or `SpectralPool` do a model's downsampling, starting from the strides it has.

    A strided convolution or max-pool runs at stride 1, with the padding it has, and is followed by the
    pooling layer; an average pool is replaced by it. The model is changed in place, its parameters
    are the same objects, and an error leaves it as it was. Outputs change, so train it afterwards:
    `parameter_groups` gives the new strides a learning rate of their own, and `clamp_strides_` goes
    after each step.

    Args:
        model: any module that `torch.fx` can trace: no branch on a tensor's value, downsampling in
            modules of `torch.nn`, not in functions, and a global pool before any flattening.
        kind: "diffstride" (learned strides) or "spectral" (fixed).
        smoothness: DiffStride's ramp width R >= 1, in DFT bins.
        shared_stride: one learned stride for all axes of a layer.
        only: names of the layers to convert, see `find_downsampling`; None: all of them.
        aliasing: where the learned aliasing of each layer and axis starts, see `DiffStride`; None: no aliasing.

    Returns:
        The same model.

    Raises:
        ValueError: if the model holds no downsampling, cannot be traced, or it cannot be told which
            branches run in parallel; the message names the layer.

    Source:
        Riad et al., ICLR 2022, Section 3 and Fig. 2b.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1))
        >>> replace_downsampling(net, smoothness=1)(torch.zeros(1, 1, 100, 64)).shape
        torch.Size([1, 8, 51, 33])
        >>> restore_downsampling(net)(torch.zeros(1, 1, 100, 64)).shape
        torch.Size([1, 8, 50, 32])
    """
    if kind not in ("diffstride", "spectral"):
        raise ValueError(f"kind must be diffstride or spectral, got {kind!r}")
    groups = _select(find_downsampling(model), only)
    if not groups:
        raise ValueError("the model has no strided convolution or pooling layer to replace")
    ops = dict(model.named_modules())
    reference = next(model.parameters(), torch.zeros(()))
    pools: dict[nn.Module, DiffStride | SpectralPool] = {}
    for group in groups:
        _check_sizes(group, ops)
        pool: DiffStride | SpectralPool = (
            SpectralPool(group.stride, aliasing)
            if kind == "spectral"
            else DiffStride(group.stride, smoothness, shared_stride, aliasing=aliasing)
        )
        pool.to(reference.device).train(model.training)
        pools |= {ops[name]: pool for name in group.layers}
    _swap(model, {op: Downsampled(op, pool).train(op.training) for op, pool in pools.items()})
    return model


def restore_downsampling(model: nn.Module) -> nn.Module:
    """Undo `replace_downsampling`: every layer is back at the stride it had, with the weights it has now.

    Args:
        model: a converted model; it is changed in place.

    Returns:
        The same model.

    Raises:
        ValueError: if the model is not a converted one.
    """
    converted = {module: module.op for module in model.modules() if isinstance(module, Downsampled)}
    if not converted:
        raise ValueError("the model has no converted layer to restore")
    for module, op in converted.items():
        op.stride = module.op_stride
    _swap(model, converted)
    return model


def _swap(model: nn.Module, new: dict[Any, nn.Module]) -> None:
    # A module may hang below several parents, so every place is looked at.
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()) if parent not in new else []:
            if child in new:
                setattr(parent, name, new[child])


def _select(groups: list[Group], only: Sequence[str] | None) -> list[Group]:
    if only is None:
        return groups
    found = [name for group in groups for name in group.layers]
    if unknown := sorted(set(only) - set(found)):
        raise ValueError(f"no downsampling layer is called {', '.join(unknown)}; there are {', '.join(found)}")
    chosen = [group for group in groups if set(group.layers) & set(only)]
    for group in chosen:
        if left_out := sorted(set(group.layers) - set(only)):
            raise ValueError(
                f"{', '.join(left_out)} runs in parallel with {', '.join(sorted(set(group.layers) & set(only)))}: "
                "convert all of them or none"
            )
    return chosen


def _check_sizes(group: Group, ops: dict[str, nn.Module]) -> None:
    """Parallel layers must have one output size at stride 1, or their pooled sizes would differ."""
    grown = {name: _growth(ops[name]) for name in group.layers}
    if len(set(grown.values())) > 1:
        sizes = ", ".join(f"{name} by {growth}" for name, growth in grown.items())
        raise ValueError(
            f"layers that run in parallel change the size of their input differently at stride 1 ({sizes}), so one "
            "pooling layer cannot serve them; give them paddings that fit their kernels"
        )


def _growth(op: Any) -> tuple[int, ...]:
    """What an operation at stride 1 adds to the length of each axis."""
    n = _n_axes(op)
    if isinstance(op, _AVG_POOLS):
        return (0,) * n
    kernel, padding, dilation = _tuple(op.kernel_size, n), _tuple(op.padding, n), _tuple(op.dilation, n)
    return tuple(2 * p - d * (k - 1) for k, p, d in zip(kernel, padding, dilation, strict=True))


def _n_axes(op: nn.Module) -> int:
    return next(n for n in (1, 2, 3) if isinstance(op, (_CONVS[n - 1], _MAX_POOLS[n - 1], _AVG_POOLS[n - 1])))


def _tuple(value: Any, n: int) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, Iterable) else (value,) * n


def _strides(op: Any) -> tuple[int, ...]:
    return _tuple(op.stride, _n_axes(op))


# What happens to the resolution of a feature map in the graph. Anything not named here is refused.

_SAME_SIZE_MODULES = (
    "torch.nn.modules.activation",
    "torch.nn.modules.batchnorm",
    "torch.nn.modules.dropout",
    "torch.nn.modules.instancenorm",
)
_SAME_SIZE_CLASSES = (nn.Identity, nn.GroupNorm, nn.LocalResponseNorm, nn.Softmax2d)
_GLOBAL_POOLS = (
    *(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d),
    *(nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d),
)
# fmt: off
_SAME_SIZE = {
    "relu", "relu_", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "mish", "hardswish",
    "hardsigmoid", "hardtanh", "softplus", "sigmoid", "sigmoid_", "tanh", "tanh_", "prelu", "dropout",
    "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "batch_norm", "instance_norm", "group_norm",
    "normalize", "add", "add_", "iadd", "radd", "sub", "sub_", "isub", "mul", "mul_", "imul", "div", "truediv",
    "div_", "itruediv", "pow", "neg", "abs", "exp", "log", "sqrt", "rsqrt", "clamp", "clamp_", "maximum",
    "minimum", "where", "cat", "concat", "concatenate", "chunk", "split", "contiguous", "clone", "detach", "to",
    "float", "half", "bfloat16", "double", "type", "type_as", "checkpoint", "softmax", "log_softmax",
    "stochastic_depth",
}
_RESOLUTION_LOST = {
    "mean", "sum", "amax", "amin", "max", "min", "std", "var", "logsumexp", "adaptive_avg_pool1d",
    "adaptive_avg_pool2d", "adaptive_avg_pool3d", "adaptive_max_pool1d", "adaptive_max_pool2d",
    "adaptive_max_pool3d", "size", "dim", "numel", "getattr",
}
# fmt: on
_WINDOWED_FUNCTIONS = {
    *(F.conv1d, F.conv2d, F.conv3d, F.max_pool1d, F.max_pool2d, F.max_pool3d),
    *(F.avg_pool1d, F.avg_pool2d, F.avg_pool3d, F.lp_pool1d, F.lp_pool2d),
}

_Places = tuple[str, ...] | None
"""Names of the layers that downsampled a map, from the input on; None where it has no resolution any more."""


class _Resolution:
    """One walk through a model's graph that finds which downsampling layers are parallel."""

    def __init__(self, model: nn.Module):
        self.ops = dict(model.named_modules())
        self.same_as: dict[str, str] = {}  # a forest: layer -> a layer it shares its stride with
        places: dict[fx.Node, _Places] = {}
        for node in _trace(model).nodes:
            inputs = [places[n] for n in node.all_input_nodes]
            if node.op in ("placeholder", "get_attr"):
                places[node] = () if node.op == "placeholder" else None
            elif node.op != "output":
                places[node] = self.after(node, inputs)

    def groups(self) -> list[Group]:
        """The groups, in the order of the graph."""
        groups: dict[str, list[str]] = {}
        for name in self.same_as:
            groups.setdefault(self.root(name), []).append(name)
        return [Group(names, _strides(self.ops[names[0]])) for names in groups.values()]

    def root(self, name: str) -> str:
        """The layer that stands for all that share a stride with this one."""
        while self.same_as[name] != name:
            name = self.same_as[name]
        return name

    def after(self, node: fx.Node, inputs: list[_Places]) -> _Places:
        """Resolution of a node's output."""
        if node.op == "call_module":
            return self.after_module(str(node.target), inputs)
        known = [places for places in inputs if places]
        name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target))
        if node.target in _WINDOWED_FUNCTIONS:
            raise ValueError(
                f"{_where(node)}: convolves or pools in a function call, where no layer can be put in; "
                "make it a module of torch.nn"
            )
        if node.target is operator.getitem:
            if known and not _keeps_size(node.args[1]):
                raise ValueError(f"{_where(node)}: cuts out a part of a downsampled feature map")
        elif name in _RESOLUTION_LOST or not known:
            # Without a downsampled input nothing has to fit: shapes, parameters, the head after a global pool.
            return None if name in _RESOLUTION_LOST or None in inputs else self.unify(node, inputs)
        elif name not in _SAME_SIZE:
            raise ValueError(
                f"{_where(node)}: it cannot be told what {name} makes of the size of a downsampled feature map; "
                "a model is followed through element-wise functions, cat, and global pooling before the head"
            )
        return self.unify(node, inputs)

    def after_module(self, name: str, inputs: list[_Places]) -> _Places:
        """Resolution of the output of a module of `torch.nn`."""
        module, places = self.ops[name], inputs[0] if inputs else None
        if isinstance(module, (Downsampled, DiffStride, SpectralPool)):
            raise ValueError(f"{name}: the model has spectral or learned strides already")
        if isinstance(module, _WINDOWED):
            if max(_strides(module)) == 1:
                return places
            if places is None:
                raise ValueError(f"{name}: downsamples what was pooled to a fixed size before")
            self.same_as.setdefault(name, name)
            return (*places, name)
        if isinstance(module, _GLOBAL_POOLS):
            return None
        if type(module).__module__ in _SAME_SIZE_MODULES or isinstance(module, _SAME_SIZE_CLASSES):
            return places
        if places:
            raise ValueError(
                f"{name}: it cannot be told what {type(module).__name__} makes of a downsampled feature map; it needs "
                "a fixed size, or changes it; a global pool (nn.AdaptiveAvgPool2d) before it would do"
            )
        return places

    def unify(self, node: fx.Node, inputs: list[_Places]) -> _Places:
        """Resolution of maps that meet; their layers at the same place share a stride from now on."""
        maps = [places for places in inputs if places is not None]  # others are scalars or 1 x 1: they broadcast
        for places in maps[1:]:
            first = maps[0]
            if len(places) != len(first):
                raise ValueError(
                    f"{_where(node)}: joins maps that were downsampled {len(first)} and {len(places)} times "
                    f"({_list(first)}; {_list(places)}), so no stride can be shared between them"
                )
            for a, b in zip(first, places, strict=True):
                if _strides(self.ops[a]) != _strides(self.ops[b]):
                    raise ValueError(
                        f"{_where(node)}: joins the branches of {a} and {b}, whose strides differ: "
                        f"{_strides(self.ops[a])} and {_strides(self.ops[b])}"
                    )
                if self.root(a) != self.root(b):
                    self.same_as[self.root(b)] = self.root(a)
        return maps[0] if maps else None


class _Tracer(fx.Tracer):
    """Stops at the pooling layers of this package, as at every module of `torch.nn`."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        own = isinstance(m, (Downsampled, DiffStride, SpectralPool))
        return own or super().is_leaf_module(m, module_qualified_name)


def _trace(model: nn.Module) -> fx.Graph:
    try:
        return _Tracer().trace(model)
    except Exception as error:  # whatever the model's own code makes of a symbolic tensor
        raise ValueError(
            f"{type(model).__name__} cannot be traced with torch.fx ({str(error).strip()}), so it cannot be told which "
            "of its branches run in parallel; a forward that does not branch on a tensor's values or sizes can"
        ) from error


def _keeps_size(index: Any) -> bool:
    """Whether an index leaves all but the first two dimensions as they are (or takes a part of a tuple)."""
    parts = index if isinstance(index, tuple) else (index,)
    return isinstance(index, int) or all(part == slice(None) or part is Ellipsis for part in parts[2:])


def _where(node: fx.Node) -> str:
    """Name of the module whose forward a node stands in, for error messages."""
    stack = node.meta.get("nn_module_stack") or {}
    inside = [name for name, _ in stack.values() if name]
    return f"{inside[-1]}, {node.name}" if inside else node.name


def _list(places: Sequence[str]) -> str:
    return ", ".join(places) or "none"
