"""Which downsampling layers of a model run in parallel, and so must share a stride: read off its graph.

The graph is traced with `torch.fx`. The resolution of a feature map is the list of layers that
downsampled it on its way from the input. Where two maps meet, their lists must have the same length, and
the layers at the same place of both become one group. Where that is ambiguous, the model is refused.
"""

import operator
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from torch import fx, nn
from torch.nn import functional as F

from .downsampled import AVG_POOLS, WINDOWED, Downsampled, op_strides
from .downsampling import DiffStride, SpectralPool


class Group(NamedTuple):
    """Layers of a model that downsample in parallel and so must share one stride.

    Attributes:
        layers: names of the layers, from the model's input to its output.
        stride: their stride on each axis.
    """

    layers: list[str]
    stride: tuple[int, ...]


def find_downsampling(model: nn.Module, candidates: Sequence[str] = ()) -> list[Group]:
    """The strided convolutions and pooling layers of a model, in groups that share a stride.

    Args:
        model: any module that `torch.fx` can trace.
        candidates: names, or patterns with * and ?, of convolutions and max-pools of stride 1 to count in.

    Returns:
        The groups, in the order of the model's graph.

    Raises:
        ValueError: if the model cannot be traced, a candidate matches no such layer, or it is unclear
            which branches run in parallel; the message names the layer.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.ReLU(), nn.MaxPool2d(2))
        >>> find_downsampling(net)
        [Group(layers=['0'], stride=(2, 2)), Group(layers=['2'], stride=(2, 2))]
    """
    return _Resolution(model, _matching(model, candidates)).groups()


def _matching(model: nn.Module, patterns: Sequence[str]) -> set[str]:
    """Names of the layers of stride 1 that match a pattern."""
    layers = {
        name
        for name, module in model.named_modules()
        if isinstance(module, WINDOWED) and not isinstance(module, AVG_POOLS) and max(op_strides(module)) == 1
    }
    found = set()
    for pattern in patterns:
        matching = {name for name in layers if fnmatchcase(name, pattern)}
        if not matching:
            raise ValueError(
                f"no convolution or max-pool of stride 1 matches {pattern!r}; the model has {_list(sorted(layers))}"
            )
        found |= matching
    return found


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

    def __init__(self, model: nn.Module, candidates: set[str]):
        self.ops = dict(model.named_modules())
        self.candidates = candidates
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
        return [Group(names, op_strides(self.ops[names[0]])) for names in groups.values()]

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
                f"{_where(node)}: it is unknown what {name} does to the size of a downsampled feature map; "
                "a model is followed through element-wise functions, cat, and global pooling before the head"
            )
        return self.unify(node, inputs)

    def after_module(self, name: str, inputs: list[_Places]) -> _Places:
        """Resolution of the output of a module of `torch.nn`."""
        module, places = self.ops[name], inputs[0] if inputs else None
        if isinstance(module, (Downsampled, DiffStride, SpectralPool)):
            raise ValueError(f"{name}: the model has spectral or learned strides already")
        if isinstance(module, WINDOWED):
            if max(op_strides(module)) == 1 and name not in self.candidates:
                return places
            if places is None:
                raise ValueError(f"{name}: downsamples what has already been pooled to a fixed size")
            self.same_as.setdefault(name, name)
            return (*places, name)
        if isinstance(module, _GLOBAL_POOLS):
            return None
        if type(module).__module__ in _SAME_SIZE_MODULES or isinstance(module, _SAME_SIZE_CLASSES):
            return places
        if places:
            raise ValueError(
                f"{name}: it is unknown what {type(module).__name__} does to a downsampled feature map; it needs "
                "a fixed size, or changes it; a global pool (nn.AdaptiveAvgPool2d) before it would help"
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
                if op_strides(self.ops[a]) != op_strides(self.ops[b]):
                    raise ValueError(
                        f"{_where(node)}: joins the branches of {a} and {b}, whose strides differ: "
                        f"{op_strides(self.ops[a])} and {op_strides(self.ops[b])}"
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
            f"{type(model).__name__} cannot be traced with torch.fx ({str(error).strip()}), so it is unknown which of "
            "its branches run in parallel; a forward that does not branch on a tensor's values or sizes can be traced"
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
