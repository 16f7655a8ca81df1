"""The pooling layers: `SpectralPool`, with fixed strides, and `DiffStride`, which learns them.

A strided convolution (`StridedConv`) downsamples by itself; these two follow a convolution of stride 1.
They work on the last one, two or three axes of a tensor, one stride per axis, and pool one axis at a
time, so a separable network can put them between its time and its frequency convolution.

Sources: Rippel et al. 2015 (spectral pooling); Riad et al., ICLR 2022 (DiffStride).
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from .crop_spectrum import crop_spectrum, crop_spectrum_constant
from .pooling import Aliasing, HostStride, SpectralDownsampling
from .published import (
    diffstride_as_published,
    diffstride_length_as_published,
    raise_strides_as_published_,
    spectral_length_as_published,
    spectral_pool_as_published,
)
from .spectrum import Crop, diffstride_crop, diffstride_mask, spectral_crop
from .strided_conv import StridedConv

Downsampling = Literal["strided", "spectral", "diffstride"]


class SpectralPool(SpectralDownsampling):
    """Spectral pooling with fixed strides: keeps the lowest bins of each axis, M = max(2, floor(N / S)).

    Args:
        stride: stride S >= 1 of each of the last one to three axes; a number is one axis.
        aliasing: where the aliasing of each axis starts, which is learned then, see `DiffStride`; None: no aliasing.
        as_published: pool as the DiffStride paper's code does, see `published`; for two axes only.

    Raises:
        ValueError: if a stride is below 1, aliasing not between 0 and 1, or `as_published` is asked for other
            than two axes or with aliasing.

    Source:
        Rippel, Snoek & Adams, "Spectral representations for convolutional neural networks", 2015.

    Example:
        >>> SpectralPool((2, 1.5))(torch.zeros(4, 8, 100, 64)).shape
        torch.Size([4, 8, 50, 42])
    """

    def __init__(self, stride: float | Sequence[float], aliasing: Aliasing = None, as_published: bool = False):
        strides = _axes(stride)
        super().__init__(len(strides), aliasing, as_published)
        self.stride = strides

    def strides(self) -> list[float]:
        """Stride of each axis."""
        return list(self.stride)

    def extra_repr(self) -> str:
        return f"stride={self.stride}" + self.options_repr()

    def output_length(self, n: int, axis: int) -> int:
        if self.as_published:
            return spectral_length_as_published(n, axis, self.stride[axis])
        return super().output_length(n, axis)

    def forward(self, x: Tensor) -> Tensor:
        return spectral_pool_as_published(x, self.stride) if self.as_published else super().forward(x)

    def axis_crop(self, n: int, axis: int, host_stride: HostStride = None) -> Crop:
        self.check_separable()
        return spectral_crop(n, self.stride[axis])

    def axis_mask(self, crop: Crop, axis: int) -> Tensor:
        return torch.ones(crop.n_bins)

    def is_identity(self, crop: Crop) -> bool:
        return crop.m == crop.n

    def pool_group(self, x: Tensor, axis: int, host_stride: HostStride = None, group: int = 0, taps: int = 1) -> Tensor:
        dim = x.dim() - self.n_axes + axis
        crop = self.axis_crop(x.shape[dim], axis)
        learned = self._frozen_alphas is None
        alpha = self.axis_aliasing(axis, x) if learned else self.axis_alphas(axis)[group]
        if taps == 1 and self.is_identity(crop):  # whatever alpha is; where it learns its gradient is 0, not missing
            return x + 0 * alpha.to(x.dtype) if isinstance(alpha, Tensor) and torch.is_grad_enabled() else x
        return crop_spectrum_constant(x, crop, dim, taps=taps, aliasing=alpha)


class DiffStride(SpectralDownsampling):
    """Downsampling whose stride is learned by gradient descent, one per axis.

    Along an axis of length N the layer keeps the DFT bins up to the edge a = N / (2S) in full, lets
    the next R fade out linearly and crops the rest; the gradient to S flows through the fading bins.
    S = 1 is exactly the identity. Neither forward nor eval mode writes to a parameter or buffer;
    clamp the strides after each optimiser step with `clamp_strides_`.

    With `aliasing`, a share alpha of what the mask weakens or crops is not filtered out before the map is
    sampled at its new rate, so it folds down onto lower modulations: bin k of N keeps the gain
    mask(k) + alpha (1 - mask(k)). Alpha is learned, one per axis. 0 is the layer without it, to the bit; 1
    reads the map off at the times m N / M, which after a convolution is a strided convolution where M divides N.

    Args:
        stride: initial stride S >= 1 of each of the last one to three axes; a number is one axis.
        smoothness: width R >= 1 of the fading ramp, in DFT bins. Maps of N <= 2R + 1 never shrink.
        shared_stride: one stride for all axes.
        crop: False keeps every axis at its length (static shapes) and only applies the mask.
        aliasing: where alpha starts, in [0, 1], on every axis; several numbers, such as (0, 1), split the channels
            into as many equal groups, each with an alpha of its own; None: no aliasing, the layer of the paper.
        as_published: pool as the paper's TensorFlow code does, its defects included, see `published`:
            for comparison, on two axes only.

    Attributes:
        stride: parameter of shape ``(n_axes,)``, or ``(1,)`` if shared; a buffer once frozen.
        aliasing: parameter of shape ``(n_axes,)``, or ``(n_axes, groups)``; a buffer once frozen; or None.
        input_lengths: length of each axis in the last forward of training mode, None before it.

    Raises:
        ValueError: if a stride or the smoothness is below 1, shared strides start unequal, aliasing is not
            between 0 and 1, or `as_published` is asked for other than two axes or with aliasing.

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

    def __init__(
        self,
        stride: float | Sequence[float],
        smoothness: float = 4.0,
        shared_stride: bool = False,
        crop: bool = True,
        aliasing: Aliasing = None,
        as_published: bool = False,
    ):
        initial = _axes(stride)
        super().__init__(len(initial), aliasing, as_published)
        if smoothness < 1:
            raise ValueError(f"smoothness must be at least 1 bin, got {smoothness}")
        if shared_stride and len(set(initial)) > 1:
            raise ValueError(f"a shared stride needs equal initial strides, got {initial}")
        self.smoothness = float(smoothness)
        self.crop = crop
        self.stride = nn.Parameter(torch.tensor(initial[:1] if shared_stride else initial))
        self.input_lengths: list[int | None] = [None] * self.n_axes
        self._frozen: list[float] | None = None

    def extra_repr(self) -> str:
        return f"stride={self.strides()}, smoothness={self.smoothness}, crop={self.crop}" + self.options_repr()

    @property
    def frozen(self) -> bool:
        """Whether the strides are constants."""
        return self._frozen is not None

    def strides(self) -> list[float]:
        """Current stride of each axis, as numbers on the host (on a GPU this waits for the device)."""
        values = self.stride.tolist() if self._frozen is None else self._frozen
        return values * self.n_axes if len(values) == 1 else values

    def freeze_strides(self) -> None:
        super().freeze_strides()
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
        return diffstride_crop(n, stride, self.smoothness, self.crop)

    def axis_mask(self, crop: Crop, axis: int) -> Tensor:
        if self.training:
            self.input_lengths[axis] = crop.n
        return diffstride_mask(crop, self.stride[axis % len(self.stride)], self.smoothness)

    def pool_group(self, x: Tensor, axis: int, host_stride: HostStride = None, group: int = 0, taps: int = 1) -> Tensor:
        if self._frozen is None:
            return _eagerly(self._pool_learned, x, axis, host_stride, taps)
        dim = x.dim() - self.n_axes + axis
        crop = self.axis_crop(x.shape[dim], axis)
        alpha = self.axis_alphas(axis)[group]
        return crop_spectrum_constant(x, crop, dim, self.strides()[axis], self.smoothness, taps, alpha)

    def pool_conv(self, conv: StridedConv, x: Tensor, axis: int, host_stride: HostStride = None) -> Tensor:
        if self._frozen is None:
            return _eagerly(super().pool_conv, conv, x, axis, host_stride)
        return super().pool_conv(conv, x, axis)

    def _pool_learned(self, x: Tensor, axis: int, host_stride: HostStride, taps: int) -> Tensor:
        dim = x.dim() - self.n_axes + axis
        crop = self.axis_crop(x.shape[dim], axis, host_stride)
        return crop_spectrum(x, self.axis_mask(crop, axis), crop, dim, taps, self.axis_aliasing(axis, x))


def make_pool(
    downsampling: str,
    stride: float | Sequence[float] | None,
    smoothness: float,
    shared_stride: bool = False,
    aliasing: Aliasing = None,
    as_published: bool = False,
) -> SpectralPool | DiffStride | None:
    """The pooling layer behind a convolution of any trunk; None where that is strided, or nothing is pooled.

    Args:
        downsampling: "strided", "spectral" or "diffstride".
        stride: of each axis, for diffstride the initial one; a number is one axis; None: nothing is pooled.
        smoothness: DiffStride's ramp width R, in DFT bins.
        shared_stride: one learned stride for all axes.
        aliasing: where the learned aliasing starts, see `DiffStride`; None: no aliasing.
        as_published: pool as the code published with DiffStride does, see `layers.published`.

    Example:
        >>> make_pool("diffstride", (2, 2), 1.0, aliasing=0.25)
        DiffStride(stride=[2.0, 2.0], smoothness=1.0, crop=True, aliasing=[0.25, 0.25])
        >>> make_pool("strided", (2, 2), 1.0)
    """
    if downsampling == "strided" or stride is None:
        return None
    if downsampling == "spectral":
        return SpectralPool(stride, aliasing, as_published)
    return DiffStride(stride, smoothness, shared_stride, aliasing=aliasing, as_published=as_published)


def _eagerly(function: Callable[..., Tensor], *args: Any) -> Tensor:
    """What follows learned strides is left out of compiled graphs, which would be made anew with each new size."""
    if torch.compiler.is_compiling():
        from .uncompiled import run_uncompiled

        return run_uncompiled(function, *args)
    return function(*args)


def _axes(stride: float | Sequence[float]) -> tuple[float, ...]:
    axes = tuple(float(s) for s in (stride if isinstance(stride, Sequence) else [stride]))
    if not 1 <= len(axes) <= 3:
        raise ValueError(f"one to three strides are needed, got {len(axes)}")
    if not all(s >= 1 for s in axes):
        raise ValueError(f"strides must be at least 1, got {axes}")
    return axes
