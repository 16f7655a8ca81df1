"""The blocks of an `AudioResNet`: a stem, blocks over time and frequency, blocks over time alone.

Each downsamples by the strides of its convolutions, or by one pooling layer that main branch and shortcut share, so
that both always have one size.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from ..layers.downsampling import Downsampling, make_pool
from ..layers.strided_conv import StridedConv
from .residual_block import whole_strides


class DownsamplingBlock(nn.Module):
    """What the blocks share: a pooling layer, or whole strides for their convolutions.

    An axis whose stride is 1 is not pooled, and its stride is not learned: a matrix of a long axis that hardly
    downsamples would cost the most of all.

    Args:
        downsampling: "strided", "spectral" or "diffstride".
        stride: (time, mel) stride, for "diffstride" the initial one.
        smoothness: DiffStride's ramp width R, in DFT bins.
        aliasing: where the learned aliasing of each axis starts, see `DiffStride`; None: no aliasing.

    Attributes:
        pool: the pooling layer of the axes that are pooled; None if there is none, or with strided convolutions.
        pooled_axes: axes of the pooling layer, 0 for time and 1 for mel.
        conv_stride: (time, mel) stride of the convolutions, 1 where there is a pooling layer.
    """

    def __init__(self, downsampling: Downsampling, stride: Sequence[float], smoothness: float, aliasing: float | None):
        super().__init__()
        self.conv_stride = whole_strides(downsampling, (stride[0], stride[1]))
        self.pooled_axes = [axis for axis in (0, 1) if stride[axis] != 1 and downsampling != "strided"]
        pooled = [stride[axis] for axis in self.pooled_axes]
        self.pool = make_pool(downsampling, pooled or None, smoothness, aliasing=aliasing)

    def pool_axis(self, x: Tensor, axis: int) -> Tensor:
        """Pool one axis of ``(batch, channel, time, mel)``, if it is pooled."""
        if self.pool is None or axis not in self.pooled_axes:
            return x
        if len(self.pooled_axes) == 2:
            return self.pool.pool_axis(x, axis)
        return self.pool(x) if axis == 1 else self.pool(x.transpose(2, 3)).transpose(2, 3)

    def pooled(self, x: Tensor) -> Tensor:
        """Pool both axes, if they are pooled."""
        return self.pool_axis(self.pool_axis(x, 0), 1)

    def conv_axis(self, conv: StridedConv, x: Tensor, axis: int) -> Tensor:
        """Convolve, and pool one axis if it is pooled."""
        if self.pool is None or self.pooled_axes == [0] or axis not in self.pooled_axes:
            return self.pool_axis(conv(x), axis)
        return self.pool.pool_conv(conv, x, self.pooled_axes.index(axis))

    def by_axis(self, values: Sequence[float], other: float) -> list[float]:
        """(time, mel) values of which the pooling layer has those of its axes."""
        own = dict(zip(self.pooled_axes, values, strict=True))
        return [own.get(axis, other) for axis in (0, 1)]

    def strides(self) -> list[float]:
        """Current (time, mel) stride."""
        if self.pool is None:
            return [float(s) for s in self.conv_stride]
        return self.by_axis(self.pool.strides(), 1.0)

    def aliasing(self) -> list[float]:
        """Current (time, mel) aliasing, 0 where nothing is pooled."""
        return self.by_axis([self.pool.mean_alpha(i) for i in range(len(self.pooled_axes))] if self.pool else [], 0.0)

    def output_lengths(self, time: int, mel: int) -> tuple[int, int]:
        """Size (time, mel) of the map that a map of size (time, mel) becomes."""
        sizes = [-(-n // stride) for n, stride in zip((time, mel), self.conv_stride, strict=True)]
        for number, axis in enumerate(self.pooled_axes):
            assert self.pool is not None
            sizes[axis] = self.pool.output_length(sizes[axis], number)
        return sizes[0], sizes[1]


class Stem(DownsamplingBlock):
    """``conv 3x3 -> downsample -> BN -> ReLU``; arguments as `DownsamplingBlock`.

    Example:
        >>> import torch
        >>> Stem(8, "strided", (1, 2))(torch.zeros(2, 1, 100, 64)).shape
        torch.Size([2, 8, 100, 32])
    """

    def __init__(
        self,
        channels: int,
        downsampling: Downsampling,
        stride: Sequence[float],
        smoothness: float = 1.0,
        aliasing: float | None = None,
    ):
        super().__init__(downsampling, stride, smoothness, aliasing)
        self.conv = StridedConv(1, channels, (3, 3), self.conv_stride)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(batch, 1, time, mel)`` to ``(batch, channels, time', mel')``."""
        return self.norm(self.pool_axis(self.conv_axis(self.conv, x, 1), 0)).relu()


class MelTimeBlock(DownsamplingBlock):
    """Convolve and downsample over time, then over frequency, with a shortcut around both.

    ``conv 3x1 -> downsample -> BN -> ReLU -> conv 1x3 -> downsample -> BN``, plus the shortcut, then ReLU. The
    shortcut has the main branch's pooling layer; beside strided convolutions it averages. Arguments as
    `DownsamplingBlock`.

    Example:
        >>> import torch
        >>> MelTimeBlock(4, 8, "diffstride", (2, 2))(torch.zeros(2, 4, 50, 32)).shape
        torch.Size([2, 8, 27, 17])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        downsampling: Downsampling,
        stride: Sequence[float],
        smoothness: float = 1.0,
        aliasing: float | None = None,
    ):
        super().__init__(downsampling, stride, smoothness, aliasing)
        time, mel = self.conv_stride
        self.time_conv = StridedConv(in_channels, out_channels, (3, 1), (time, 1))
        self.time_norm = nn.BatchNorm2d(out_channels)
        self.mel_conv = StridedConv(out_channels, out_channels, (1, 3), (1, mel))
        self.mel_norm = nn.BatchNorm2d(out_channels)
        self.average = averaging((time, mel))
        self.shortcut = projection(in_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(batch, in_channels, time, mel)`` to ``(batch, out_channels, time', mel')``."""
        y = self.time_norm(self.conv_axis(self.time_conv, x, 0)).relu()
        y = self.mel_norm(self.conv_axis(self.mel_conv, y, 1))
        return (y + self.shortcut(self.pooled(self.average(x)))).relu()


class TimeBlock(DownsamplingBlock):
    """Depthwise-separable convolution over time, downsampled, with a shortcut.

    ``depthwise conv -> downsample -> BN -> ReLU -> pointwise conv -> BN``, plus the shortcut, then ReLU.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: odd length of the depthwise convolution, in frames.
        downsampling: "strided", "spectral" or "diffstride".
        stride: (time, mel) stride, for "diffstride" the initial one; the mel stride is 1.
        smoothness: DiffStride's ramp width R, in DFT bins.
        aliasing: where the learned aliasing starts, see `DiffStride`; None: no aliasing.

    Source:
        Majumdar & Ginsburg 2020 (MatchboxNet).

    Example:
        >>> import torch
        >>> TimeBlock(4, 8, 9, "spectral", (2, 1))(torch.zeros(2, 4, 50, 1)).shape
        torch.Size([2, 8, 25, 1])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        downsampling: Downsampling,
        stride: Sequence[float],
        smoothness: float = 1.0,
        aliasing: float | None = None,
    ):
        super().__init__(downsampling, stride, smoothness, aliasing)
        along_time, padding = (self.conv_stride[0], 1), (kernel_size // 2, 0)
        self.depthwise = nn.Conv2d(
            in_channels, in_channels, (kernel_size, 1), along_time, padding, groups=in_channels, bias=False
        )
        self.depthwise_norm = nn.BatchNorm2d(in_channels)
        self.pointwise = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.pointwise_norm = nn.BatchNorm2d(out_channels)
        self.average = averaging(along_time)
        self.shortcut = projection(in_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(batch, in_channels, time, 1)`` to ``(batch, out_channels, time', 1)``."""
        y = self.depthwise_norm(self.pooled(self.depthwise(x))).relu()
        return (self.pointwise_norm(self.pointwise(y)) + self.shortcut(self.pooled(self.average(x)))).relu()


def averaging(stride: tuple[int, int]) -> nn.Module:
    """Average over a stride; ceil(N / S) long, as a strided convolution is.

    Example:
        >>> import torch
        >>> averaging((2, 1))(torch.zeros(1, 4, 25, 8)).shape
        torch.Size([1, 4, 13, 8])
    """
    return nn.Identity() if max(stride) == 1 else nn.AvgPool2d(stride, ceil_mode=True)


def projection(in_channels: int, out_channels: int) -> nn.Module:
    """What a shortcut needs where the number of channels changes.

    Example:
        >>> projection(8, 8), len(projection(8, 16))
        (Identity(), 2)
    """
    if in_channels == out_channels:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels))
