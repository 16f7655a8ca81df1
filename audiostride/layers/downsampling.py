"""The three drop-in ways to downsample a feature map: `StridedConv`, `SpectralPool` and `DiffStride`.

A strided convolution downsamples by itself; the other two follow a convolution of stride 1. Both
pooling layers work on the last one, two or three axes of a tensor, one stride per axis, and pool
one axis at a time, so a separable network can put them between its time and its frequency
convolution.

Sources: Rippel et al. 2015 (spectral pooling); Riad et al., ICLR 2022 (DiffStride).
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from . import spectrum as spectral
from .published import (
    diffstride_as_published,
    diffstride_length_as_published,
    raise_strides_as_published_,
    spectral_length_as_published,
    spectral_pool_as_published,
)
from .recomputation import keep_recipe, recipe, with_recipe
from .spectral_conv import conv_crop_spectrum
from .spectrum import Crop

_FUNCTIONAL = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
_CONV: dict[int, Callable[..., nn.Conv1d | nn.Conv2d | nn.Conv3d]] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}

HostStride = float | Tensor | None
"""A stride on the host: a number or, so that a compiler does not take it for a constant, a tensor on the CPU."""


class StridedConv(nn.Module):
    """Convolution with zero padding of half its kernel and a whole stride per axis: length ceil(N / S).

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: odd kernel length of each of one to three axes.
        stride: whole stride of each axis.

    Raises:
        ValueError: if a stride is not a whole number of at least 1, or a kernel length is even.

    Example:
        >>> StridedConv(1, 8, (3, 1), (2, 1))(torch.zeros(4, 1, 100, 64)).shape
        torch.Size([4, 8, 50, 64])
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: Sequence[int], stride: Sequence[float]):
        super().__init__()
        if any(s < 1 or s != int(s) for s in stride):
            raise ValueError(
                f"a strided convolution takes whole strides of at least 1, got {tuple(stride)}; "
                "spectral and diffstride downsampling take fractional ones"
            )
        if any(k % 2 == 0 for k in kernel_size):
            raise ValueError(f"kernel lengths must be odd, got {tuple(kernel_size)}")
        self.conv = _CONV[len(kernel_size)](
            in_channels,
            out_channels,
            tuple(kernel_size),
            stride=tuple(int(s) for s in stride),
            padding=tuple(k // 2 for k in kernel_size),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Convolve ``(batch, in_channels, *axes)`` to ``(batch, out_channels, *shorter axes)``."""
        # torch 2.13 on a CPU reads uninitialised memory for the bfloat16 weight gradient of exactly this shape.
        one_wide = x.device.type == "cpu" and 1 < self.conv.stride[-1] >= x.shape[-1]
        with torch.autocast(x.device.type, enabled=False) if one_wide else nullcontext():
            return self.conv(x.to(self.conv.weight.dtype) if one_wide else x)


class _SpectralDownsampling(nn.Module):
    """What `SpectralPool` and `DiffStride` share: pooling the last axes of a tensor one by one."""

    n_axes: int
    as_published: bool

    def check_separable(self) -> None:
        """Raise ValueError if one axis cannot be pooled by itself."""
        if self.as_published:
            raise ValueError("with as_published=True both axes are pooled at once, by calling the layer")

    def axis_crop(self, n: int, axis: int, host_stride: HostStride = None) -> Crop:
        """Sizes of an axis of `n` samples at its current stride."""
        raise NotImplementedError

    def is_identity(self, crop: Crop) -> bool:
        """Whether pooling to these sizes is sure to change nothing, so that it need not be done."""
        return False

    def axis_mask(self, crop: Crop, axis: int) -> Tensor:
        """Mask of an axis over its kept bins."""
        raise NotImplementedError

    def output_length(self, n: int, axis: int) -> int:
        """Length of an axis of `n` samples after pooling."""
        return self.axis_crop(n, axis).m

    def pool_axis(self, x: Tensor, axis: int, host_stride: HostStride = None, taps: int = 1) -> Tensor:
        """Pool one axis; axis 0 is the first of the last ``n_axes`` dimensions.

        Args:
            x: tensor whose last dimensions are the axes.
            axis: which of them to pool.
            host_stride: the axis' stride on the host, where the caller has read all strides at once.
            taps: see `spectral.crop_spectrum`.
        """
        raise NotImplementedError

    def pool_conv(self, conv: StridedConv, x: Tensor, axis: int, host_stride: HostStride = None) -> Tensor:
        """``pool_axis(conv(x), axis)`` for a convolution along that axis, in the cheapest of three forms.

        Pooling and convolution are both linear, so the shifted copies of the input that the
        convolution adds up can be pooled first and the convolution run on what is left. That costs
        a pooling of every input channel for each tap instead of one of every output channel, see
        `pools_first`. Or both are done bin by bin in the cropped spectrum, see `convolves_in_spectrum`.

        Args:
            conv: `StridedConv` of stride 1 whose kernel is longer than 1 along `axis` only.
            x: shape ``(batch, in_channels, *axes)``.
            axis: the axis to convolve and pool.
            host_stride: see `pool_axis`.
        """
        kernel = conv.conv
        dim = x.dim() - self.n_axes + axis
        taps = kernel.kernel_size[axis]
        crop = self.axis_crop(x.shape[dim], axis, host_stride)
        if taps == 1 or self.is_identity(crop):
            return self.pool_axis(conv(x), axis, host_stride)
        columns = x.numel() // (kernel.in_channels * crop.n)
        if _on_cpu(x) and convolves_in_spectrum(columns, kernel.in_channels, kernel.out_channels, taps, crop):
            assert kernel.bias is not None  # `StridedConv` always has one
            return conv_crop_spectrum(x, kernel.weight.flatten(2), kernel.bias, self.axis_mask(crop, axis), crop, dim)
        if not pools_first(kernel.in_channels, kernel.out_channels, taps, crop):
            return self.pool_axis(conv(x), axis, host_stride)
        copies = self.pool_axis(x, axis, host_stride, taps)
        if make := recipe(x):
            with_recipe(copies, lambda: self.pool_axis(make(), axis, host_stride, taps))
        with keep_recipe(copies):
            return _FUNCTIONAL[self.n_axes](copies, kernel.weight, kernel.bias, stride=kernel.kernel_size)

    def forward(self, x: Tensor) -> Tensor:
        """Pool the last axes of ``(..., *axes)``, one after the other."""
        for axis in range(self.n_axes):
            x = self.pool_axis(x, axis)
        return x


def pools_first(in_channels: int, out_channels: int, taps: int, crop: Crop) -> bool:
    """Whether a convolution followed by pooling runs faster on the pooled copies of its input.

    Chosen where that saves at least a quarter of the multiply-accumulates, from where on it is faster
    (`benchmarks/conv_resolution.py`): in the first layer, and in wide layers that halve their axis.

    Example:
        >>> crop = spectral.diffstride_crop(100, 2.0, 1.0)
        >>> pools_first(1, 64, 3, crop), pools_first(64, 64, 3, crop), pools_first(512, 512, 3, crop)
        (True, False, True)
    """
    full, pooled = conv_macs(in_channels, out_channels, taps, crop)
    return pooled < 0.75 * full


def convolves_in_spectrum(columns: int, in_channels: int, out_channels: int, taps: int, crop: Crop) -> bool:
    """Whether a convolution and its pooling run faster as `conv_crop_spectrum`.

    Chosen where that saves a quarter of the multiply-accumulates of the cheaper of the other two forms, and
    where there is enough to do: a matrix for every bin has to be made, which pays from as many columns as
    channels, and the transforms take longer than their arithmetic says, which wide layers and large batches
    hide (`benchmarks/conv_resolution.py`, on a CPU).

    Args:
        columns: numbers of a channel of the input, without the axis.
        in_channels: of the convolution.
        out_channels: of the convolution.
        taps: kernel length.
        crop: sizes of the axis.

    Example:
        >>> crop = spectral.diffstride_crop(100, 2.0, 1.0)
        >>> [convolves_in_spectrum(batch * 64, 64, 64, 3, crop) for batch in (8, 64)]
        [False, True]
    """
    products = in_channels * out_channels
    if taps != 3 or crop.n > spectral.LONG_AXIS:
        return False
    if columns < max(in_channels, out_channels) or columns * products < 12_000_000:
        return False
    spectrum = crop.n_bins * (2 * crop.n * in_channels + 3 * products + 2 * crop.m * out_channels)
    return spectrum < 0.75 * min(conv_macs(in_channels, out_channels, taps, crop))


def _on_cpu(x: Tensor) -> bool:
    channels_last = x.dim() in (4, 5) and not x.is_contiguous()
    return channels_last and x.device.type == "cpu" and not torch.compiler.is_compiling()


def conv_macs(in_channels: int, out_channels: int, taps: int, crop: Crop) -> tuple[int, int]:
    """Multiply-accumulates of a column by convolving before a pooling, and after it on pooled copies.

    Example:
        >>> conv_macs(1, 64, 3, spectral.diffstride_crop(100, 2.0, 1.0))
        (345600, 25092)
    """
    full = taps * in_channels * out_channels * crop.n + crop.m * crop.n * out_channels
    pooled = taps * in_channels * out_channels * crop.m + crop.m * crop.n * in_channels * taps
    return full, pooled


class SpectralPool(_SpectralDownsampling):
    """Spectral pooling with fixed strides: keeps the lowest bins of each axis, M = max(2, floor(N / S)).

    Args:
        stride: stride S >= 1 of each of the last one to three axes; a number is one axis.
        as_published: pool as the DiffStride paper's code does, see `published`; for two axes only.

    Raises:
        ValueError: if a stride is below 1, or `as_published` is asked for other than two axes.

    Source:
        Rippel, Snoek & Adams, "Spectral representations for convolutional neural networks", 2015.

    Example:
        >>> SpectralPool((2, 1.5))(torch.zeros(4, 8, 100, 64)).shape
        torch.Size([4, 8, 50, 42])
    """

    def __init__(self, stride: float | Sequence[float], as_published: bool = False):
        super().__init__()
        self.stride = _axes(stride)
        self.n_axes = len(self.stride)
        self.as_published = _two_axes(as_published, self.n_axes)

    def extra_repr(self) -> str:
        return f"stride={self.stride}" + ", as_published=True" * self.as_published

    def output_length(self, n: int, axis: int) -> int:
        if self.as_published:
            return spectral_length_as_published(n, axis, self.stride[axis])
        return super().output_length(n, axis)

    def forward(self, x: Tensor) -> Tensor:
        return spectral_pool_as_published(x, self.stride) if self.as_published else super().forward(x)

    def axis_crop(self, n: int, axis: int, host_stride: HostStride = None) -> Crop:
        self.check_separable()
        return spectral.spectral_crop(n, self.stride[axis])

    def axis_mask(self, crop: Crop, axis: int) -> Tensor:
        return torch.ones(crop.n_bins)

    def is_identity(self, crop: Crop) -> bool:
        return crop.m == crop.n

    def pool_axis(self, x: Tensor, axis: int, host_stride: HostStride = None, taps: int = 1) -> Tensor:
        dim = x.dim() - self.n_axes + axis
        crop = self.axis_crop(x.shape[dim], axis)
        if taps == 1 and self.is_identity(crop):
            return x
        return spectral.crop_spectrum_constant(x, crop, dim, taps=taps)


class DiffStride(_SpectralDownsampling):
    """Downsampling whose stride is learned by gradient descent, one per axis.

    Along an axis of length N the layer keeps the DFT bins up to the edge a = N / (2S) in full, lets
    the next R fade out linearly and crops the rest; the gradient to S flows through the fading bins.
    S = 1 is exactly the identity. Neither forward nor eval mode writes to a parameter or buffer;
    clamp the strides after each optimiser step with `clamp_strides_`.

    Args:
        stride: initial stride S >= 1 of each of the last one to three axes; a number is one axis.
        smoothness: width R >= 1 of the fading ramp, in DFT bins. Maps of N <= 2R + 1 never shrink.
        shared_stride: one stride for all axes.
        crop: False keeps every axis at its length (static shapes) and only applies the mask.
        as_published: pool as the paper's TensorFlow code does, its defects included, see `published`:
            for comparison, on two axes only.

    Attributes:
        stride: parameter of shape ``(n_axes,)``, or ``(1,)`` if shared; a buffer once frozen.
        input_lengths: length of each axis in the last forward of training mode, None before it.

    Raises:
        ValueError: if a stride or the smoothness is below 1, shared strides start unequal, or
            `as_published` is asked for other than two axes.

    Source:
        Riad, Teboul, Grangier & Zeghidour, "Learning strides in convolutional neural networks",
        ICLR 2022, Algorithm 1.

    Example:
        >>> pool = DiffStride((2.0, 1.5), smoothness=1)
        >>> pool(torch.zeros(4, 8, 100, 64)).shape
        torch.Size([4, 8, 51, 45])
        >>> pool.stride
        Parameter containing:
        tensor([2.0000, 1.5000], requires_grad=True)
    """

    stride: Tensor

    def __init__(
        self,
        stride: float | Sequence[float],
        smoothness: float = 4.0,
        shared_stride: bool = False,
        crop: bool = True,
        as_published: bool = False,
    ):
        super().__init__()
        initial = _axes(stride)
        if smoothness < 1:
            raise ValueError(f"smoothness must be at least 1 bin, got {smoothness}")
        if shared_stride and len(set(initial)) > 1:
            raise ValueError(f"a shared stride needs equal initial strides, got {initial}")
        self.n_axes = len(initial)
        self.smoothness = float(smoothness)
        self.crop = crop
        self.as_published = _two_axes(as_published, self.n_axes)
        self.stride = nn.Parameter(torch.tensor(initial[:1] if shared_stride else initial))
        self.input_lengths: list[int | None] = [None] * self.n_axes
        self._frozen: list[float] | None = None

    def extra_repr(self) -> str:
        return f"stride={self.strides()}, smoothness={self.smoothness}, crop={self.crop}" + (
            ", as_published=True" * self.as_published
        )

    @property
    def frozen(self) -> bool:
        """Whether the strides are constants."""
        return self._frozen is not None

    def strides(self) -> list[float]:
        """Current stride of each axis, as numbers on the host (on a GPU this waits for the device)."""
        values = self.stride.tolist() if self._frozen is None else self._frozen
        return values * self.n_axes if len(values) == 1 else values

    def freeze_strides(self) -> None:
        """Turn the strides into constants, for inference: cached matrices, nothing left to read or learn.

        The parameter becomes a buffer of the same name, so a saved state still fits. There is no way
        back but to load the model anew.

        Example:
            >>> pool = DiffStride(2.0)
            >>> pool.freeze_strides()
            >>> list(pool.parameters()), pool.strides()
            ([], [2.0])
        """
        if self._frozen is None:
            self._frozen, values = self.stride.tolist(), self.stride.detach()
            del self.stride
            self.register_buffer("stride", values)

    def output_length(self, n: int, axis: int) -> int:
        if self.as_published:
            return diffstride_length_as_published(n, axis, self.strides()[axis], self.smoothness, self.crop)
        return super().output_length(n, axis)

    def forward(self, x: Tensor) -> Tensor:
        return _eagerly(self._pool_as_published, x) if self.as_published else super().forward(x)

    def _pool_as_published(self, x: Tensor) -> Tensor:
        if self._frozen is None:
            raise_strides_as_published_(self.stride, x.shape[-2], x.shape[-1], self.smoothness)
        return diffstride_as_published(x, self.stride.clone(), self.smoothness, self.crop)

    def axis_crop(self, n: int, axis: int, host_stride: HostStride = None) -> Crop:
        self.check_separable()
        stride = self.strides()[axis] if host_stride is None else float(host_stride)
        return spectral.diffstride_crop(n, stride, self.smoothness, self.crop)

    def axis_mask(self, crop: Crop, axis: int) -> Tensor:
        if self.training:
            self.input_lengths[axis] = crop.n
        return spectral.diffstride_mask(crop, self.stride[axis % len(self.stride)], self.smoothness)

    def pool_axis(self, x: Tensor, axis: int, host_stride: HostStride = None, taps: int = 1) -> Tensor:
        if self._frozen is None:
            return _eagerly(self._pool_learned, x, axis, host_stride, taps)
        dim = x.dim() - self.n_axes + axis
        crop = self.axis_crop(x.shape[dim], axis)
        return spectral.crop_spectrum_constant(x, crop, dim, self.strides()[axis], self.smoothness, taps)

    def pool_conv(self, conv: StridedConv, x: Tensor, axis: int, host_stride: HostStride = None) -> Tensor:
        if self._frozen is None:
            return _eagerly(super().pool_conv, conv, x, axis, host_stride)
        return super().pool_conv(conv, x, axis)

    def _pool_learned(self, x: Tensor, axis: int, host_stride: HostStride, taps: int) -> Tensor:
        dim = x.dim() - self.n_axes + axis
        crop = self.axis_crop(x.shape[dim], axis, host_stride)
        return spectral.crop_spectrum(x, self.axis_mask(crop, axis), crop, dim, taps)


def freeze_strides(model: nn.Module) -> None:
    """Turn the learned strides of a whole model into constants, for inference and export.

    Example:
        >>> model = nn.Sequential(DiffStride(2.0), DiffStride(3.0))
        >>> freeze_strides(model)
        >>> len(list(model.parameters()))
        0
    """
    for layer in diffstride_layers(model):
        layer.freeze_strides()


def diffstride_layers(model: nn.Module) -> list[DiffStride]:
    """All DiffStride layers of a model, in the order of its modules."""
    return [module for module in model.modules() if isinstance(module, DiffStride)]


def read_strides(layers: Sequence[DiffStride]) -> list[Tensor]:
    """Strides of several layers on the CPU, in one transfer from the device: for each a tensor ``(n_axes,)``.

    Example:
        >>> read_strides([DiffStride(2.0), DiffStride((3.0, 3.0), shared_stride=True)])
        [tensor([2.]), tensor([3., 3.])]
    """
    if not layers:
        return []
    together = torch.cat([layer.stride.detach() for layer in layers]).cpu()
    own = together.split([len(layer.stride) for layer in layers])
    return [strides.expand(layer.n_axes) for strides, layer in zip(own, layers, strict=True)]


@torch.no_grad()
def clamp_strides_(model: nn.Module, highest: float = float("inf")) -> None:
    """Clamp every DiffStride stride to [1, N / 2] in place; call it after each optimiser step.

    N is the length of the axis in the layer's last training forward; a stride shared by several
    axes is held to the shortest. A layer that was never run in training has no upper limit yet.
    No stride exceeds `highest` either.

    Example:
        >>> pool = DiffStride((2.0, 90.0))
        >>> _ = pool(torch.zeros(1, 100, 64))
        >>> clamp_strides_(pool)
        >>> pool.strides()
        [2.0, 32.0]
    """
    for layer in diffstride_layers(model):
        if layer.frozen:
            continue
        limits = [highest if n is None else min(highest, max(n / 2, 1.0)) for n in layer.input_lengths]
        if len(layer.stride) == 1:
            limits = [min(limits)]
        upper = torch.tensor(limits, dtype=layer.stride.dtype, device=layer.stride.device)
        layer.stride.copy_(layer.stride.clamp(min=1.0).minimum(upper))


def parameter_groups(model: nn.Module, lr: float, stride_lr: float) -> list[dict[str, Any]]:
    """Optimiser groups: the weights, and the strides with their own learning rate and no weight decay.

    Args:
        model: any module.
        lr: learning rate of the weights.
        stride_lr: learning rate of the strides. At the weights' rate they hardly move in a short run.

    Returns:
        Two groups for a `torch.optim` optimiser, one if the model learns no stride.

    Example:
        >>> groups = parameter_groups(nn.Sequential(nn.Conv1d(1, 2, 3), DiffStride(2.0)), 1e-3, 0.03)
        >>> [(len(g["params"]), g["lr"]) for g in groups]
        [(2, 0.001), (1, 0.03)]
    """
    strides = [layer.stride for layer in diffstride_layers(model) if layer.stride.requires_grad]
    is_stride = {id(p) for p in strides}
    weights = [p for p in model.parameters() if p.requires_grad and id(p) not in is_stride]
    groups: list[dict[str, Any]] = [{"params": weights, "lr": lr}]
    if strides:
        groups.append({"params": strides, "lr": stride_lr, "weight_decay": 0.0})
    return groups


def _eagerly(function: Callable[..., Tensor], *args: Any) -> Tensor:
    """What follows learned strides is left out of compiled graphs, which would be made anew with each new size."""
    if torch.compiler.is_compiling():
        from .uncompiled import run_uncompiled

        return run_uncompiled(function, *args)
    return function(*args)


def _two_axes(as_published: bool, n_axes: int) -> bool:
    if as_published and n_axes != 2:
        raise ValueError(f"the published layer pools two axes at once, got {n_axes}")
    return as_published


def _axes(stride: float | Sequence[float]) -> tuple[float, ...]:
    axes = tuple(float(s) for s in (stride if isinstance(stride, Sequence) else [stride]))
    if not 1 <= len(axes) <= 3:
        raise ValueError(f"one to three strides are needed, got {len(axes)}")
    if not all(s >= 1 for s in axes):
        raise ValueError(f"strides must be at least 1, got {axes}")
    return axes
