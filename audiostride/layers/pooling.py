"""`SpectralDownsampling`: what the pooling layers share, pooling one axis at a time, after a convolution or in it."""

import math
from collections.abc import Sequence
from statistics import fmean

import torch
from torch import Tensor, nn
from torch.nn import functional

from .conv_form import convolves_in_spectrum, pools_first
from .recomputation import keep_recipe, recipe, with_recipe
from .spectral_conv import conv_crop_spectrum
from .spectrum import Crop
from .strided_conv import StridedConv

_FUNCTIONAL = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}

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
        aliasing: where the aliasing alpha of each axis starts, in [0, 1], or where that of each group of channels
            does; None: there is none, and none is learned.
        as_published: pool as the DiffStride paper's code does, see `published`.

    Attributes:
        aliasing: parameter of shape ``(n_axes,)`` or ``(n_axes, groups)``, a buffer once frozen, or None.
        channel_groups: how many groups of channels have an alpha of their own.
    """

    aliasing: Tensor | None

    def __init__(self, n_axes: int, aliasing: Aliasing, as_published: bool):
        super().__init__()
        groups = list(aliasing) if isinstance(aliasing, Sequence) else [aliasing or 0.0]
        if not groups or not all(0 <= alpha <= 1 for alpha in groups):
            raise ValueError(f"aliasing must lie between 0 and 1, got {aliasing}")
        if as_published and n_axes != 2:
            raise ValueError(f"the published layer pools two axes at once, got {n_axes}")
        if as_published and aliasing is not None:
            raise ValueError(f"the published layer has no aliasing, got aliasing={aliasing}; drop one of the two")
        self.as_published = as_published
        self.n_axes = n_axes
        self.channel_groups = len(groups)
        alphas = torch.tensor([groups] * n_axes, dtype=torch.get_default_dtype())
        if aliasing is None:
            self.aliasing = None
        else:
            self.aliasing = nn.Parameter(alphas if isinstance(aliasing, Sequence) else alphas[:, 0].clone())
        self._frozen_alphas: list[Alpha] | None = None

    def alphas(self) -> list[Alpha] | None:
        """Current aliasing of each axis, as numbers on the host, a list where groups of channels have their own;
        None where the layer has none."""
        if self.aliasing is None:
            return None
        return self.aliasing.tolist() if self._frozen_alphas is None else self._frozen_alphas

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

    def check_separable(self) -> None:
        """Raise ValueError if one axis cannot be pooled by itself."""
        if self.as_published:
            raise ValueError("with as_published=True both axes are pooled at once, by calling the layer")

    def options_repr(self) -> str:
        """What `extra_repr` says of aliasing and of pooling as published."""
        aliasing = "" if self.aliasing is None else f", aliasing={self.alphas()}"
        return aliasing + ", as_published=True" * self.as_published

    def freeze_strides(self) -> None:
        """Turn what is learned into constants, for inference: cached matrices, nothing left to read or learn.

        The parameters become buffers of the same names. Load weights before: what is loaded into these buffers has no
        effect. There is no way back but to load the model anew.

        Example:
            >>> from audiostride import DiffStride
            >>> pool = DiffStride(2.0)
            >>> pool.freeze_strides()
            >>> list(pool.parameters()), pool.strides()
            ([], [2.0])
        """
        if self.aliasing is not None and self._frozen_alphas is None:
            self._frozen_alphas, values = self.aliasing.tolist(), self.aliasing.detach()
            del self.aliasing
            self.register_buffer("aliasing", values)

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

    def pool_axis(self, x: Tensor, axis: int, host_stride: HostStride = None) -> Tensor:
        """Pool one axis; axis 0 is the first of the last ``n_axes`` dimensions.

        Args:
            x: tensor whose last dimensions are the axes, with the channels before them.
            axis: which of them to pool.
            host_stride: the axis' stride on the host, where the caller has read all strides at once.

        Raises:
            ValueError: if the channels cannot be split into the groups that have an alpha of their own.
        """
        if self.channel_groups == 1 or self._frozen_alphas is None:
            return self.pool_group(x, axis, host_stride)
        parts = self.split_channels(x)
        return torch.cat(
            [self.pool_group(part, axis, host_stride, g) for g, part in enumerate(parts)], -1 - self.n_axes
        )

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

    def pool_group(self, x: Tensor, axis: int, host_stride: HostStride = None, group: int = 0, taps: int = 1) -> Tensor:
        """Pool one axis; once frozen, of the channels of one group. `taps`: see `crop_spectrum`."""
        raise NotImplementedError

    def pool_conv(self, conv: StridedConv, x: Tensor, axis: int, host_stride: HostStride = None) -> Tensor:
        """``pool_axis(conv(x), axis)`` for a convolution, in the cheapest of three forms.

        Pooling and convolution are both linear, so the shifted copies of the input that the
        convolution adds up can be pooled first and the convolution run on what is left. That costs
        a pooling of every input channel for each tap instead of one of every output channel, see
        `pools_first`. Or both are done bin by bin in the cropped spectrum, see `convolves_in_spectrum`.

        Args:
            conv: `StridedConv` of stride 1. The third form is for a kernel that is longer than 1 along `axis` only.
            x: shape ``(batch, in_channels, *axes)``; it may have more axes in front than are pooled.
            axis: the axis to convolve and pool.
            host_stride: see `pool_axis`.
        """
        kernel = conv.conv
        dim = x.dim() - self.n_axes + axis
        place = len(kernel.kernel_size) - self.n_axes + axis
        taps = kernel.kernel_size[place]
        others = math.prod(kernel.kernel_size) // taps
        crop = self.axis_crop(x.shape[dim], axis, host_stride)
        if taps == 1 or self.is_identity(crop):
            return self.pool_axis(conv(x), axis, host_stride)
        columns = x.numel() // (kernel.in_channels * crop.n)
        if (
            others == 1
            and self.aliasing is None
            and _on_cpu(x)
            and convolves_in_spectrum(columns, kernel.in_channels, kernel.out_channels, taps, crop)
        ):
            assert kernel.bias is not None  # `StridedConv` always has one
            return conv_crop_spectrum(x, kernel.weight.flatten(2), kernel.bias, self.axis_mask(crop, axis), crop, dim)
        # Groups are of the convolution's outputs, which do not exist yet where its inputs are pooled.
        if self.channel_groups > 1 or not pools_first(kernel.in_channels, kernel.out_channels, taps, crop, others):
            return self.pool_axis(conv(x), axis, host_stride)
        copies = self.pool_group(x, axis, host_stride, taps=taps)
        if make := recipe(x):
            with_recipe(copies, lambda: self.pool_group(make(), axis, host_stride, taps=taps))
        with keep_recipe(copies):
            stride, padding = [1] * len(kernel.kernel_size), [k // 2 for k in kernel.kernel_size]
            stride[place], padding[place] = taps, 0
            return _FUNCTIONAL[len(stride)](copies, kernel.weight, kernel.bias, stride=stride, padding=padding)

    def forward(self, x: Tensor) -> Tensor:
        """Pool the last axes of ``(..., *axes)``, one after the other."""
        for axis in range(self.n_axes):
            x = self.pool_axis(x, axis)
        return x


def _on_cpu(x: Tensor) -> bool:
    channels_last = x.dim() in (4, 5) and not x.is_contiguous()
    return channels_last and x.device.type == "cpu" and not torch.compiler.is_compiling()
