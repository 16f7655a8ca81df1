"""Give any PyTorch model fractional or learned strides, and take them back.

`replace_downsampling` runs every strided convolution and pooling layer of a model at stride 1 and lets
`DiffStride` or `SpectralPool` downsample what comes out. The weights stay where they are, in the same
modules. Branches that are summed or concatenated must shrink alike, so they share one pooling layer, see
`parallel_branches`. `restore_downsampling` undoes it. An error leaves a model as it was.
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import nn

from .choice import Downsampling
from .downsampled import AVG_POOLS, Downsampled, n_axes, per_axis
from .downsampling import DiffStride, SpectralPool
from .parallel_branches import Group, find_downsampling


class RandomStrides(NamedTuple):
    """Initial strides drawn evenly between `low` and `high`, independently for each place and axis.

    Attributes:
        low: smallest stride, at least 1.
        high: largest stride.
        seed: of the draw.

    Example:
        >>> [[round(stride, 2) for stride in place] for place in RandomStrides(1, 3, seed=1).draw([2, 2])]
        [[2.52, 1.56], [1.81, 2.47]]
    """

    low: float
    high: float
    seed: int = 0

    def draw(self, axes: Sequence[int], shared: bool = False) -> list[tuple[float, ...]]:
        """Strides for places with this many axes each; with `shared` strides all axes of a place are alike.

        Raises:
            ValueError: if the range is empty or begins below 1.
        """
        if not 1 <= self.low <= self.high:
            raise ValueError(f"random strides need 1 <= low <= high, got {self.low} and {self.high}")
        generator = torch.Generator().manual_seed(self.seed)
        draws = [torch.rand(1 if shared else n, generator=generator).tolist() * (n if shared else 1) for n in axes]
        return [tuple(self.low + (self.high - self.low) * u for u in draw) for draw in draws]


InitialStrides = float | Sequence[float | Sequence[float]] | RandomStrides | None


def replace_downsampling(
    model: nn.Module,
    kind: Literal["diffstride", "spectral"] = "diffstride",
    smoothness: float = 4.0,
    shared_stride: bool = False,
    only: Sequence[str] | None = None,
    strides: InitialStrides = None,
    candidates: Sequence[str] = (),
    aliasing: float | None = None,
) -> nn.Module:
    """Let `DiffStride` or `SpectralPool` do a model's downsampling, by default from the strides it has.

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
        strides: initial strides: one number for all places, a number or a tuple of one for each axis for
            each place in the order of `find_downsampling`, or `RandomStrides`; None: those the model has.
        candidates: names, or patterns with * and ?, of convolutions and max-pools of stride 1 that learn a
            stride, too, from 1 unless `strides` says otherwise.
        aliasing: where the learned aliasing of each layer and axis starts, see `DiffStride`; None: no aliasing.

    Returns:
        The same model.

    Raises:
        ValueError: if the model holds no downsampling, cannot be traced, it is unclear which
            branches run in parallel, or the strides do not fit; the message names the layer.

    Source:
        Riad et al., ICLR 2022, Section 3 and Fig. 2b.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1))
        >>> replace_downsampling(net, smoothness=1)(torch.zeros(1, 1, 100, 64)).shape
        torch.Size([1, 8, 51, 33])
        >>> restore_downsampling(net)(torch.zeros(1, 1, 100, 64)).shape
        torch.Size([1, 8, 50, 32])
        >>> net = replace_downsampling(net, strides=RandomStrides(1, 3, seed=1), candidates=["2"])
        >>> [[round(s, 2) for s in layer.pool.strides()] for layer in (net[0], net[2])]
        [[2.52, 1.56], [1.81, 2.47]]
    """
    if kind not in ("diffstride", "spectral"):
        raise ValueError(f"kind must be diffstride or spectral, got {kind!r}")
    groups = _select(find_downsampling(model, candidates), only)
    if not groups:
        raise ValueError("the model has no strided convolution or pooling layer to replace")
    initial = _initial_strides(groups, strides, shared_stride)
    down = Downsampling(kind, smoothness, shared_stride, aliasing)
    ops = dict(model.named_modules())
    reference = next(model.parameters(), torch.zeros(()))
    pools: dict[nn.Module, DiffStride | SpectralPool] = {}
    for group, stride in zip(groups, initial, strict=True):
        _check_sizes(group, ops)
        pool = down.pool(stride)
        assert pool is not None  # both kinds pool
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

    Example:
        >>> net = replace_downsampling(nn.Sequential(nn.Conv2d(1, 4, 3, stride=2, padding=1)))
        >>> restore_downsampling(net)
        Sequential(
          (0): Conv2d(1, 4, kernel_size=(3, 3), stride=(2, 2), padding=(1, 1))
        )
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
        raise ValueError(f"no downsampling layer is called {', '.join(unknown)}; the model has {', '.join(found)}")
    chosen = [group for group in groups if set(group.layers) & set(only)]
    for group in chosen:
        if left_out := sorted(set(group.layers) - set(only)):
            raise ValueError(
                f"{', '.join(left_out)} runs in parallel with {', '.join(sorted(set(group.layers) & set(only)))}: "
                "convert all of them or none"
            )
    return chosen


def _initial_strides(groups: list[Group], strides: InitialStrides, shared: bool) -> list[tuple[float, ...]]:
    """One stride an axis for each group."""
    axes = [len(group.stride) for group in groups]
    if strides is None:
        return [tuple(map(float, group.stride)) for group in groups]
    if isinstance(strides, RandomStrides):
        return strides.draw(axes, shared)
    if isinstance(strides, int | float):
        return [(float(strides),) * n for n in axes]
    if len(strides) != len(groups):
        places = "; ".join(", ".join(group.layers) for group in groups)
        raise ValueError(f"got {len(strides)} strides for {len(groups)} places: {places}")
    given = [(s,) * n if isinstance(s, int | float) else tuple(s) for s, n in zip(strides, axes, strict=True)]
    for group, own in zip(groups, given, strict=True):
        if len(own) != len(group.stride):
            raise ValueError(f"{', '.join(group.layers)}: has {len(group.stride)} axes, got the strides {own}")
    return given


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
    n = n_axes(op)
    if isinstance(op, AVG_POOLS):
        return (0,) * n
    kernel, dilation = per_axis(op.kernel_size, n), per_axis(op.dilation, n)
    if op.padding == "same":
        return (0,) * n
    padding = per_axis(0 if op.padding == "valid" else op.padding, n)
    return tuple(2 * p - d * (k - 1) for k, p, d in zip(kernel, padding, dilation, strict=True))
