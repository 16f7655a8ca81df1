"""The pooling layers: `SpectralPool`, with fixed strides, and `DiffStride`, which learns them.

A strided convolution (`StridedConv`) downsamples as it convolves; these two follow a convolution of stride 1.
They work on the last one, two or three axes of a tensor, one stride per axis, and pool one axis at a
time, so a separable network can put them between its time and its frequency convolution.

Sources: Rippel et al. 2015 (spectral pooling); Riad et al., ICLR 2022 (DiffStride).
"""

import math
from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from .conv_form import pools_first
from .crop_spectrum import crop_spectrum, crop_spectrum_constant
from .recomputation import remake_by, remake_of, save_remake
from .spectrum import Crop, diffstride_crop, diffstride_mask, spectral_crop
from .strided_conv import StridedConv

_CONV = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}

Alpha = float | list[float]
"""Aliasing of an axis on the host; a list where groups of channels have their own."""

Aliasing = float | Sequence[float] | None
"""Where aliasing starts: one alpha for all channels, one for each of as many equal groups of them, or none."""

HostStride = float | Tensor | None
"""A stride on the host: a number or, so that a compiler does not take it for a constant, a tensor on the CPU."""


class SpectralDownsampling(nn.Module):
    """What `SpectralPool` and `DiffStride` share: pooling the last axes of a tensor one by one, and aliasing.

    Args:
        n_axes: number of axes.
        aliasing: see `DiffStride`.

    Attributes:
        aliasing: parameter of shape ``(n_axes,)`` or ``(n_axes, groups)``, a buffer once frozen, or None.
        channel_groups: how many groups of channels have an alpha of their own.
        learns_strides: whether its strides are learned.
    """

    aliasing: Tensor | None
    learns_strides = False

    def __init__(self, n_axes: int, aliasing: Aliasing = None):
        super().__init__()
        groups = list(aliasing) if isinstance(aliasing, Sequence) else [aliasing or 0.0]
        if not groups or not all(0 <= alpha <= 1 for alpha in groups):
            raise ValueError(f"aliasing must lie between 0 and 1, got {aliasing}")
        self.n_axes = n_axes
        self.channel_groups = len(groups)
        alphas = torch.tensor([groups] * n_axes, dtype=torch.get_default_dtype())
        if aliasing is None:
            self.aliasing = None
        else:
            self.aliasing = nn.Parameter(alphas if isinstance(aliasing, Sequence) else alphas[:, 0].clone())
        self._constants: dict[str, Any] = {}  # what was learned, on the host, once it is frozen

    def axis_crop(self, n: int, axis: int, host_stride: HostStride = None) -> Crop:
        """Sizes of an axis of `n` samples at its current stride, or at `host_stride`."""
        raise NotImplementedError

    def axis_mask(self, crop: Crop, axis: int) -> Tensor:
        """Mask of an axis over its kept bins."""
        return torch.ones(crop.n_bins)

    def whole_mask(self, n: int, axis: int) -> Tensor:
        """Mask over all bins of an axis of `n` samples, 0 where it is cropped: float64 ``(n // 2 + 1,)`` on the CPU."""
        mask, crop = torch.zeros(n // 2 + 1, dtype=torch.float64), self.axis_crop(n, axis)
        mask[: crop.n_bins] = self.axis_mask(crop, axis).detach().cpu()
        return mask

    def pool_axis(self, x: Tensor, axis: int, host_stride: HostStride = None, taps: int = 1) -> Tensor:
        """Pool one axis; axis 0 is the first of the last ``n_axes`` dimensions.

        Args:
            x: tensor whose last dimensions are the axes, with the channels before them.
            axis: which of them to pool.
            host_stride: the axis' stride on the host, where the caller has read all strides at once.
            taps: see `crop_spectrum`.

        Raises:
            ValueError: if the channels cannot be split into the groups that have an alpha of their own.
        """
        raise NotImplementedError

    def pool_conv(self, conv: StridedConv, x: Tensor, axis: int, host_stride: HostStride = None) -> Tensor:
        """``pool_axis(conv(x), axis)`` for a convolution, in the cheaper of two forms.

        Pooling and convolution are both linear, so the shifted copies of the input that the convolution adds up can be
        pooled first, and the convolution runs on what is left. That costs a pooling of every input channel for each tap
        instead of one of every output channel, see `pools_first`.

        Args:
            conv: `StridedConv` of stride 1.
            x: shape ``(batch, in_channels, *axes)``; it may have more axes in front than are pooled.
            axis: the axis to pool.
            host_stride: see `pool_axis`.
        """
        kernel = conv.conv
        place = len(kernel.kernel_size) - self.n_axes + axis
        taps = kernel.kernel_size[place]
        crop = self.axis_crop(x.shape[2 + place], axis, host_stride)
        others = math.prod(kernel.kernel_size) // taps
        # Groups are of the convolution's outputs, which do not exist yet where its inputs are pooled.
        if taps == 1 or self.channel_groups > 1 or self.is_identity(crop):
            return self.pool_axis(conv(x), axis, host_stride)
        if not pools_first(kernel.in_channels, kernel.out_channels, taps, crop, others):
            return self.pool_axis(conv(x), axis, host_stride)
        copies = self.pool_axis(x, axis, host_stride, taps)
        if make := remake_of(x):
            remake_by(copies, lambda: self.pool_axis(make(), axis, host_stride, taps))
        with save_remake(copies):
            stride, padding = [1] * len(kernel.kernel_size), [k // 2 for k in kernel.kernel_size]
            stride[place], padding[place] = taps, 0
            return _CONV[len(stride)](copies, kernel.weight, kernel.bias, stride=stride, padding=padding)

    def forward(self, x: Tensor) -> Tensor:
        """Pool the last axes of ``(..., *axes)``, one after the other."""
        for axis in range(self.n_axes):
            x = self.pool_axis(x, axis)
        return x

    def is_identity(self, crop: Crop) -> bool:
        """Whether pooling to these sizes is known to change nothing, so that it can be skipped."""
        return False

    def output_length(self, n: int, axis: int) -> int:
        """Length of an axis of `n` samples after pooling."""
        return self.axis_crop(n, axis).m

    def alphas(self) -> list[Alpha] | None:
        """Current aliasing of each axis, as numbers on the host, a list where groups of channels have their own;
        None where the layer has none."""
        if self.aliasing is None:
            return None
        return self._constants.get("aliasing") or self.aliasing.tolist()

    def axis_aliasing(self, axis: int, x: Tensor) -> Tensor | None:
        """Aliasing of an axis, clipped to [0, 1] with a gradient that passes straight through the clip.

        A scalar; or where groups of channels have their own that of each channel, of a shape to multiply `x` with.
        """
        if self.aliasing is None:
            return None
        alpha = self.aliasing[axis]
        alpha = alpha + (alpha.clamp(0, 1) - alpha).detach()
        if self.channel_groups == 1:
            return alpha.view(())
        size = self.split_channels(x)[0].shape[-1 - self.n_axes]
        return alpha.repeat_interleave(size).view(-1, *[1] * self.n_axes)

    def axis_alphas(self, axis: int) -> Sequence[float | None]:
        """Aliasing of an axis as numbers on the host, one for each group of channels; None where there is none."""
        alphas = self.alphas()
        if alphas is None:
            return [None]
        own = alphas[axis]
        return [min(max(alpha, 0.0), 1.0) for alpha in (own if isinstance(own, list) else [own])]

    def mean_alpha(self, axis: int) -> float:
        """Aliasing of an axis as a number on the host, the mean over groups of channels; 0 where there is none."""
        return fmean(alpha or 0.0 for alpha in self.axis_alphas(axis))

    def _aliasing_repr(self) -> str:
        return "" if self.aliasing is None else f", aliasing={self.alphas()}"

    def split_channels(self, x: Tensor) -> tuple[Tensor, ...]:
        """The groups of channels that have an alpha of their own.

        Raises:
            ValueError: if they would not be of equal size.
        """
        channel = x.dim() - self.n_axes - 1
        if channel < 0 or x.shape[channel] % self.channel_groups:
            n = x.shape[channel] if channel >= 0 else 1
            raise ValueError(f"{n} channels cannot be split into {self.channel_groups} equal groups for their aliasing")
        return x.chunk(self.channel_groups, channel)

    @property
    def frozen(self) -> bool:
        """Whether what was learned is constant."""
        return bool(self._constants)

    def freeze_strides(self) -> None:
        """Turn what is learned into constants, for inference: cached matrices, nothing left to read or learn.

        The parameters become buffers of the same names. Load weights first: loading into these buffers has no effect.
        To undo it, load the model again.

        Example:
            >>> from audiostride import DiffStride
            >>> pool = DiffStride(2.0)
            >>> pool.freeze_strides()
            >>> list(pool.parameters()), pool.strides()
            ([], [2.0])
        """
        for name, values in list(self.named_parameters(recurse=False)):
            self._constants[name] = values.tolist()
            delattr(self, name)
            self.register_buffer(name, values.detach())

    def _pool_by_constants(
        self, x: Tensor, axis: int, crop: Crop, stride: float | None, smoothness: float, taps: int
    ) -> Tensor:
        """Pool one axis by a cached matrix, or by one for each group of channels."""
        dim, alphas = x.dim() - self.n_axes + axis, self.axis_alphas(axis)
        if len(alphas) == 1:
            return crop_spectrum_constant(x, crop, dim, stride, smoothness, taps, alphas[0])
        parts = [
            crop_spectrum_constant(part, crop, dim, stride, smoothness, taps, alpha)
            for part, alpha in zip(self.split_channels(x), alphas, strict=True)
        ]
        return torch.cat(parts, -1 - self.n_axes)


class SpectralPool(SpectralDownsampling):
    """Spectral pooling with fixed strides: keeps the lowest bins of each axis, M = max(2, floor(N / S)).

    Args:
        stride: stride S >= 1 of each of the last one to three axes; a number is one axis.
        aliasing: see `DiffStride`.

    Raises:
        ValueError: if a stride is below 1 or aliasing not between 0 and 1.

    Source:
        Rippel, Snoek & Adams, "Spectral representations for convolutional neural networks", 2015.

    Example:
        >>> SpectralPool((2, 1.5))(torch.zeros(4, 8, 100, 64)).shape
        torch.Size([4, 8, 50, 42])
    """

    def __init__(self, stride: float | Sequence[float], aliasing: Aliasing = None):
        strides = _axes(stride)
        super().__init__(len(strides), aliasing)
        self.stride = strides

    def strides(self) -> list[float]:
        """Stride of each axis."""
        return list(self.stride)

    def extra_repr(self) -> str:
        return f"stride={self.stride}" + self._aliasing_repr()

    def axis_crop(self, n: int, axis: int, host_stride: HostStride = None) -> Crop:
        return spectral_crop(n, self.stride[axis])

    def is_identity(self, crop: Crop) -> bool:
        return crop.m == crop.n

    def pool_axis(self, x: Tensor, axis: int, host_stride: HostStride = None, taps: int = 1) -> Tensor:
        dim = x.dim() - self.n_axes + axis
        crop = self.axis_crop(x.shape[dim], axis)
        alpha = None if self.frozen else self.axis_aliasing(axis, x)
        if taps == 1 and self.is_identity(crop):  # at any alpha; where it learns its gradient is 0, not missing
            return x if alpha is None or not torch.is_grad_enabled() else x + 0 * alpha.to(x.dtype)
        if alpha is None:
            return self._pool_by_constants(x, axis, crop, None, 1.0, taps)
        return crop_spectrum_constant(x, crop, dim, taps=taps, aliasing=alpha)


class DiffStride(SpectralDownsampling):
    """Downsampling whose stride is learned by gradient descent, one per axis.

    Along an axis of length N the layer keeps the DFT bins up to the edge a = N / (2S) in full, lets
    the next R fade out linearly and crops the rest; the gradient to S flows through the fading bins.
    S = 1 is exactly the identity. Neither forward nor eval mode writes to a parameter or buffer;
    clamp the strides after each optimiser step with `clamp_strides_`.

    With `aliasing`, a share alpha of what the mask weakens or crops is not filtered out before the map is
    sampled at its new rate, so it folds down onto lower modulations: bin k of N keeps the gain
    mask(k) + alpha (1 - mask(k)). Alpha is learned, one per axis. 0 is bit-exactly the layer without it; 1
    reads the map off at the times m N / M, which after a convolution is a strided convolution where M divides N.

    Args:
        stride: initial stride S >= 1 of each of the last one to three axes; a number is one axis.
        smoothness: width R >= 1 of the fading ramp, in DFT bins. Maps of N <= 2R + 1 never shrink.
        shared_stride: one stride for all axes.
        crop: False keeps every axis at its length (static shapes) and only applies the mask.
        hold_product: `clamp_strides_` holds the product of the strides at what it is initially, and their gradient has
            no part that would change it: the size of the output stays, its shape is learned.
        aliasing: where alpha starts, in [0, 1], on every axis; several numbers, such as (0, 1), split the channels
            into as many equal groups, each with an alpha of its own; None: no aliasing, the layer of the paper.

    Attributes:
        stride: parameter of shape ``(n_axes,)``, or ``(1,)`` if shared; a buffer once frozen.
        aliasing: parameter of shape ``(n_axes,)``, or ``(n_axes, groups)``; a buffer once frozen; or None.
        input_lengths: length of each axis in the last forward of training mode, None before it.

    Raises:
        ValueError: if a stride or the smoothness is below 1, shared strides start unequal or hold their product, or
            aliasing is not between 0 and 1.

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
        >>> x, pool = torch.arange(1.0, 16.0).view(1, 15), DiffStride(3.75, smoothness=1, aliasing=1.0)   # 15 to 5
        >>> pool(x).detach().round()
        tensor([[ 1.,  4.,  7., 10., 13.]])
    """

    stride: Tensor
    learns_strides = True

    def __init__(
        self,
        stride: float | Sequence[float],
        smoothness: float = 4.0,
        shared_stride: bool = False,
        crop: bool = True,
        aliasing: Aliasing = None,
        hold_product: bool = False,
    ):
        initial = _axes(stride)
        super().__init__(len(initial), aliasing)
        if smoothness < 1:
            raise ValueError(f"smoothness must be at least 1 bin, got {smoothness}")
        if shared_stride and len(set(initial)) > 1:
            raise ValueError(f"a shared stride needs equal initial strides, got {initial}")
        if shared_stride and hold_product:
            raise ValueError("a shared stride whose product is held cannot learn; drop one of the two")
        self.smoothness = float(smoothness)
        self.crop = crop
        self.product = math.prod(initial) if hold_product else None
        self.stride = nn.Parameter(torch.tensor(initial[:1] if shared_stride else initial))
        self.input_lengths: list[int | None] = [None] * self.n_axes

    def extra_repr(self) -> str:
        return f"stride={self.strides()}, smoothness={self.smoothness}, crop={self.crop}" + self._aliasing_repr()

    def strides(self) -> list[float]:
        """Current stride of each axis, as numbers on the host (on a GPU this waits for the device)."""
        values = self._constants.get("stride") or self.stride.tolist()
        return values * self.n_axes if len(values) == 1 else values

    def axis_crop(self, n: int, axis: int, host_stride: HostStride = None) -> Crop:
        stride = self.strides()[axis] if host_stride is None else float(host_stride)
        return diffstride_crop(n, stride, self.smoothness, self.crop)

    def axis_mask(self, crop: Crop, axis: int) -> Tensor:
        """Mask of an axis over its kept bins; in training mode the layer remembers the axis' length."""
        if self.training:
            self.input_lengths[axis] = crop.n
        stride = self.stride
        if self.product is not None:  # the value of the strides, and the gradient of strides scaled to the product
            scaled = stride * (self.product / stride.prod()) ** (1 / self.n_axes)
            stride = stride.detach() + (scaled - scaled.detach())
        return diffstride_mask(crop, stride[axis % len(stride)], self.smoothness)

    def pool_axis(self, x: Tensor, axis: int, host_stride: HostStride = None, taps: int = 1) -> Tensor:
        if not self.frozen and torch.compiler.is_compiling():
            return uncompiled(self.pool_axis, x, axis, host_stride, taps)
        dim = x.dim() - self.n_axes + axis
        crop = self.axis_crop(x.shape[dim], axis, host_stride)
        if self.frozen:
            return self._pool_by_constants(x, axis, crop, self.strides()[axis], self.smoothness, taps)
        return crop_spectrum(x, self.axis_mask(crop, axis), crop, dim, taps, self.axis_aliasing(axis, x))

    def pool_conv(self, conv: StridedConv, x: Tensor, axis: int, host_stride: HostStride = None) -> Tensor:
        if not self.frozen and torch.compiler.is_compiling():
            return uncompiled(super().pool_conv, conv, x, axis, host_stride)
        return super().pool_conv(conv, x, axis, host_stride)


def uncompiled(function: Callable[..., Tensor], *args: Any) -> Tensor:
    """Run outside compiled graphs what depends on learned strides: every new size would have to be compiled again."""
    from .uncompiled import run_uncompiled

    return run_uncompiled(function, *args)


def _axes(stride: float | Sequence[float]) -> tuple[float, ...]:
    axes = tuple(float(s) for s in (stride if isinstance(stride, Sequence) else [stride]))
    if not 1 <= len(axes) <= 3:
        raise ValueError(f"one to three strides are needed, got {len(axes)}")
    if not all(s >= 1 for s in axes):
        raise ValueError(f"strides must be at least 1, got {axes}")
    return axes
