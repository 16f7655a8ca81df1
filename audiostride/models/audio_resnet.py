"""`AudioResNet`: a small residual CNN over time and frequency, then convolutions over time; the trunk to start from.

The first blocks are those of the paper's network made residual: convolve and downsample over time, then over
frequency. What is left of the mel axis is averaged to a few regions, which become channels: from there on the
network knows absolute frequency, which a pool over the mel axis throws away, and costs little, as it convolves over
time only. Every block downsamples by strided convolution, spectral pooling or learned strides.

Sources: He et al. 2015 (residual blocks); Thienpondt, Desplanques & Demuynck 2021 (a CNN over both axes before one
over time); Majumdar & Ginsburg 2020 (depthwise-separable convolutions over time).
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, get_args

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from ..layers.choice import Downsampling, Kind
from ..layers.downsampling import Alpha
from ..layers.strided_conv import StridedConv
from .downsampling_block import DownsamplingBlock
from .parts import AtLeastOne, OneAliasing, Pair, Trunk, Width, plain

Pooling = Literal["mean", "max", "mean_max"]


class AudioResNet(Trunk):
    """Residual CNN whose last blocks convolve over time, with downsampling that is strided, spectral or learned.

    Args:
        downsampling: "strided", "spectral" or "diffstride", see `Downsampling`, as `smoothness` and `aliasing`.
        channels: output channels of the blocks over time and frequency; the first is the stem, one
            3x3 convolution. At least the stem.
        time_channels: output channels of the blocks over time; empty: there are none, and an embedding
            holds every channel of every mel region.
        strides: (time, mel) stride of every block, for diffstride the initial one. A stride of 1 is not
            learned: its axis keeps its length. The mel stride of a block over time is 1.
        mel_regions: equal parts of the mel axis that become channels.
        kernel_size: odd length of the convolutions of the blocks over time, in frames of their input.
        pooling: what an embedding holds of the frames: their "mean", "max" or both.
        dropout: share of an embedding's numbers that training sets to 0, in [0, 1).
        smoothness: DiffStride's R.
        aliasing: where the aliasing of each block and axis starts.

    Attributes:
        num_features: length of an embedding.
        settings: the arguments it was made with; the strides are the initial ones.

    Raises:
        ValueError: if an argument is out of range or their lengths differ.

    Source:
        Riad et al., ICLR 2022, for the learned strides; for the rest see the module.

    Example:
        >>> cnn = AudioResNet("diffstride", aliasing=0.1)
        >>> cnn(torch.zeros(4, 1, 100, 64)).shape
        torch.Size([4, 64])
        >>> cnn.map_sizes(100, 64)
        [(100, 64), (100, 33), (51, 19), (27, 8), (27, 8), (15, 8), (15, 8)]
    """

    name = "audio_resnet"
    sizes = {
        "audio_resnet_pico": {
            "channels": (16, 24),
            "time_channels": (48, 48, 48),
            "strides": ((2, 2), (2, 4), (1, 1), (1, 1), (1, 1)),
        },
        "audio_resnet_nano": {"channels": (16, 24, 32), "time_channels": (64, 64, 64)},
        "audio_resnet_small": {"channels": (24, 48, 64), "time_channels": (128, 128, 128)},
        "audio_resnet_base": {"channels": (32, 64, 96), "time_channels": (192, 192, 192)},
    }

    def __init__(
        self,
        downsampling: Kind = "diffstride",
        channels: Sequence[Width] = (16, 24, 32),
        time_channels: Sequence[Width] = (64, 64, 64),
        strides: Sequence[Pair] = ((1, 2), (2, 2), (2, 2), (1, 1), (2, 1), (1, 1)),
        mel_regions: Annotated[int, Field(ge=1, le=1024)] = 8,
        kernel_size: Width = 9,
        pooling: Pooling = "mean",
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0,
        smoothness: AtLeastOne = 1.0,
        aliasing: OneAliasing = None,
    ):
        super().__init__()
        self.settings = plain(locals())
        down = Downsampling(downsampling, smoothness, aliasing=aliasing)
        down.check_groups()
        _check(channels, time_channels, strides, mel_regions, kernel_size, pooling)
        inner, outer = strides[1 : len(channels)], strides[len(channels) :]
        self.input_norm = nn.BatchNorm2d(1)
        self.stem = Stem(channels[0], strides[0], down)
        pairs = zip(channels, channels[1:], inner, strict=False)
        self.mel_blocks = nn.ModuleList(MelTimeBlock(i, o, stride, down) for i, o, stride in pairs)
        width = channels[-1] * mel_regions
        self.squeeze = nn.Sequential()
        if time_channels:
            conv = nn.Conv2d(width, time_channels[0], 1, bias=False)
            self.squeeze.extend([conv, nn.BatchNorm2d(time_channels[0]), nn.ReLU()])
        pairs = zip((*time_channels[:1], *time_channels[:-1]), time_channels, outer, strict=True)
        self.time_blocks = nn.ModuleList(TimeBlock(i, o, kernel_size, stride, down) for i, o, stride in pairs)
        self.num_features = (time_channels[-1] if time_channels else width) * (2 if pooling == "mean_max" else 1)
        self.dropout = nn.Dropout(dropout)
        # Small convolutions run up to twice as fast on CPU, and on tensor cores, with channels last.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @property
    def ends_in_mean(self) -> bool:
        return self.settings["pooling"] == "mean"

    @property
    def blocks(self) -> list[Any]:
        """Stem, blocks over time and frequency, and blocks over time, from input to output."""
        return [self.stem, *self.mel_blocks, *self.time_blocks]

    def forward_features(self, log_mel: Tensor) -> Tensor:
        """Map ``(batch, 1, time, mel)`` to the feature map ``(batch, channel, time', 1)``."""
        x = self.stem(self.input_norm(log_mel).contiguous(memory_format=torch.channels_last))
        for block in self.mel_blocks:
            x = block(x)
        if x.shape[-1] != self.settings["mel_regions"]:
            x = functional.linear(x, mel_regions(x.shape[-1], self.settings["mel_regions"]).to(x))
        x = x.transpose(2, 3).flatten(1, 2).unsqueeze(3)
        if not torch.compiler.is_compiling():  # which chooses a layout itself; one of channels last asks for the batch
            x = x.contiguous(memory_format=torch.channels_last)
        x = self.squeeze(x)
        for block in self.time_blocks:
            x = block(x)
        return x

    def forward(self, log_mel: Tensor) -> Tensor:
        """Map ``(batch, 1, time, mel)`` to an embedding ``(batch, num_features)``."""
        frames = self.forward_features(log_mel).flatten(2)
        parts = [frames.mean(-1) if name == "mean" else frames.amax(-1) for name in self.settings["pooling"].split("_")]
        return self.dropout(torch.cat(parts, dim=1))

    def aliasing(self) -> list[list[Alpha]] | None:
        """Current (time, mel) aliasing of each block, in [0, 1]; None if none is learned."""
        return None if self.settings["aliasing"] is None else [block.aliasing() for block in self.blocks]

    def map_sizes(self, *size: int) -> list[tuple[int, ...]]:
        """Size (time, mel) of the input of each block, and of the last one's output.

        Behind the last block over frequency, mel counts the regions that its map is averaged to.
        """
        sizes, regions = super().map_sizes(*size), self.settings["mel_regions"]
        last = len(self.mel_blocks) + 1
        return sizes[:last] + [(time, regions) for time, _ in sizes[last:]]


class AxisBlock(DownsamplingBlock):
    """A block that pools axis by axis; arguments as `DownsamplingBlock`.

    An axis whose stride is 1 is not pooled, and its stride is not learned: a matrix of a long axis that hardly
    downsamples would cost the most of all.
    """

    def __init__(self, stride: Sequence[float], down: Downsampling):
        super().__init__(stride, down, pools_ones=False)

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

    def aliasing(self) -> list[float]:
        """Current (time, mel) aliasing, 0 where nothing is pooled."""
        return self.by_axis([self.pool.mean_alpha(i) for i in range(len(self.pooled_axes))] if self.pool else [], 0.0)


class Stem(AxisBlock):
    """``conv 3x3 -> downsample -> BN -> ReLU``; arguments as `DownsamplingBlock`.

    Example:
        >>> Stem(8, (1, 2), Downsampling("strided"))(torch.zeros(2, 1, 100, 64)).shape
        torch.Size([2, 8, 100, 32])
    """

    def __init__(self, channels: int, stride: Sequence[float], down: Downsampling):
        super().__init__(stride, down)
        self.conv = StridedConv(1, channels, (3, 3), self.conv_stride)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(batch, 1, time, mel)`` to ``(batch, channels, time', mel')``."""
        return self.norm(self.pool_axis(self.conv_axis(self.conv, x, 1), 0)).relu()


class MelTimeBlock(AxisBlock):
    """Convolve and downsample over time, then over frequency, with a shortcut around both.

    ``conv 3x1 -> downsample -> BN -> ReLU -> conv 1x3 -> downsample -> BN``, plus the shortcut, then ReLU. The
    shortcut has the main branch's pooling layer; with strided convolutions it averages. Arguments as
    `DownsamplingBlock`.

    Example:
        >>> MelTimeBlock(4, 8, (2, 2), Downsampling("diffstride", smoothness=1))(torch.zeros(2, 4, 50, 32)).shape
        torch.Size([2, 8, 27, 17])
    """

    def __init__(self, in_channels: int, out_channels: int, stride: Sequence[float], down: Downsampling):
        super().__init__(stride, down)
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


class TimeBlock(AxisBlock):
    """Depthwise-separable convolution over time, downsampled, with a shortcut.

    ``depthwise conv -> downsample -> BN -> ReLU -> pointwise conv -> BN``, plus the shortcut, then ReLU.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: odd length of the depthwise convolution, in frames.
        stride: (time, mel) stride, for "diffstride" the initial one; the mel stride is 1.
        down: how it downsamples.

    Source:
        Majumdar & Ginsburg 2020 (MatchboxNet).

    Example:
        >>> TimeBlock(4, 8, 9, (2, 1), Downsampling("spectral"))(torch.zeros(2, 4, 50, 1)).shape
        torch.Size([2, 8, 25, 1])
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, stride: Sequence[float], down: Downsampling
    ):
        super().__init__(stride, down)
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


def mel_regions(n: int, n_regions: int) -> Tensor:
    """Matrix ``(n_regions, n)`` that averages an axis of `n` samples over equal regions; edges are shared by area.

    Example:
        >>> mel_regions(3, 2)
        tensor([[0.6667, 0.3333, 0.0000],
                [0.0000, 0.3333, 0.6667]])
    """
    ends = torch.arange(n_regions + 1, dtype=torch.float64)[:, None] * n / n_regions
    covered = (ends - torch.arange(n)).clamp(0, 1)  # of each sample, up to the end of each region
    return ((covered[1:] - covered[:-1]) * n_regions / n).float()


def _check(channels, time_channels, strides, n_regions, kernel_size, pooling) -> None:
    if pooling not in get_args(Pooling):
        raise ValueError(f"pooling must be one of {get_args(Pooling)}, got {pooling!r}")
    n_blocks = len(channels) + len(time_channels)
    if not channels or len(strides) != n_blocks:
        raise ValueError(
            "channels needs at least the stem's, and strides one entry per block, "
            f"got {len(channels)} channels, {len(time_channels)} time_channels and {len(strides)} strides"
        )
    if any(len(stride) != 2 for stride in strides):
        raise ValueError(f"each block takes a (time, mel) pair of strides, got {strides}")
    if any(stride[1] != 1 for stride in strides[len(channels) :]):
        raise ValueError(f"blocks over time have a mel stride of 1, got {strides[len(channels) :]}")
    if kernel_size % 2 == 0:
        raise ValueError(f"kernel_size must be odd, got {kernel_size}")
    if n_regions < 1:
        raise ValueError(f"mel_regions must be at least 1, got {n_regions}")
