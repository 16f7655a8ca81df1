"""`AudioResNet`: a small residual CNN over time and frequency, then convolutions over time; the trunk to start from.

The first blocks are those of the paper's network made residual: convolve and downsample over time, then over
frequency. What is left of the mel axis is averaged to a few regions, which become channels: from there on the
network knows absolute frequency, which a pool over the mel axis throws away, and costs little, as it convolves over
time only. Every block downsamples by strided convolution, spectral pooling or learned strides.

Sources: He et al. 2015 (residual blocks); Thienpondt, Desplanques & Demuynck 2021 (a CNN over both axes before one
over time); Majumdar & Ginsburg 2020 (depthwise-separable convolutions over time).
"""

from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..layers.downsampling import Downsampling
from .audio_cnn import check_aliasing
from .audio_resnet_blocks import MelTimeBlock, Stem, TimeBlock

Pooling = Literal["mean", "max", "mean_max"]


class AudioResNet(nn.Module):
    """Residual CNN whose last blocks convolve over time, with downsampling that is strided, spectral or learned.

    Args:
        downsampling: "strided" (strided convolution), "spectral" (fixed) or "diffstride" (learned).
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
        smoothness: DiffStride's ramp width R >= 1, in DFT bins.
        aliasing: where the aliasing of each block and axis, which is learned, starts in [0, 1], see
            `DiffStride`; None: no aliasing. Not for strided convolutions, which alias in full.

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

    def __init__(
        self,
        downsampling: Downsampling = "diffstride",
        channels: Sequence[int] = (16, 24, 32),
        time_channels: Sequence[int] = (64, 64, 64),
        strides: Sequence[Sequence[float]] = ((1, 2), (2, 2), (2, 2), (1, 1), (2, 1), (1, 1)),
        mel_regions: int = 8,
        kernel_size: int = 9,
        pooling: Pooling = "mean",
        dropout: float = 0.0,
        smoothness: float = 1.0,
        aliasing: float | None = None,
    ):
        super().__init__()
        check_aliasing(downsampling, aliasing)
        _check(downsampling, channels, time_channels, strides, mel_regions, kernel_size, pooling)
        self.settings: dict[str, Any] = {
            "downsampling": downsampling,
            "channels": list(channels),
            "time_channels": list(time_channels),
            "strides": [list(stride) for stride in strides],
            "mel_regions": mel_regions,
            "kernel_size": kernel_size,
            "pooling": pooling,
            "dropout": dropout,
            "smoothness": smoothness,
            "aliasing": aliasing,
        }
        kinds = [(downsampling, stride, smoothness, aliasing) for stride in strides]
        inner, outer = kinds[1 : len(channels)], kinds[len(channels) :]
        self.input_norm = nn.BatchNorm2d(1)
        self.stem = Stem(channels[0], *kinds[0])
        pairs = zip(channels, channels[1:], inner, strict=False)
        self.mel_blocks = nn.ModuleList(MelTimeBlock(i, o, *kind) for i, o, kind in pairs)
        width = channels[-1] * mel_regions
        self.squeeze = nn.Sequential()
        if time_channels:
            conv = nn.Conv2d(width, time_channels[0], 1, bias=False)
            self.squeeze.extend([conv, nn.BatchNorm2d(time_channels[0]), nn.ReLU()])
        pairs = zip((*time_channels[:1], *time_channels[:-1]), time_channels, outer, strict=True)
        self.time_blocks = nn.ModuleList(TimeBlock(i, o, kernel_size, *kind) for i, o, kind in pairs)
        self.num_features = (time_channels[-1] if time_channels else width) * (2 if pooling == "mean_max" else 1)
        self.dropout = nn.Dropout(dropout)
        # Small convolutions run up to twice as fast on CPU, and on tensor cores, with channels last.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

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

    def strides(self) -> list[list[float]]:
        """Current (time, mel) stride of each block, learned or fixed."""
        return [block.strides() for block in self.blocks]

    def aliasing(self) -> list[list[float]] | None:
        """Current (time, mel) aliasing of each block, in [0, 1]; None if none is learned."""
        return None if self.settings["aliasing"] is None else [block.aliasing() for block in self.blocks]

    def map_sizes(self, time: int, mel: int) -> list[tuple[int, int]]:
        """Size (time, mel) of the input of each block, and of the last one's output.

        Behind the last block over frequency, mel counts the regions that its map is averaged to.
        """
        sizes = [(time, mel)]
        for number, block in enumerate(self.blocks, start=1):
            sizes.append(block.output_lengths(*sizes[-1]))
            if number == len(self.mel_blocks) + 1:
                sizes[-1] = (sizes[-1][0], self.settings["mel_regions"])
        return sizes


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


def _check(downsampling, channels, time_channels, strides, n_regions, kernel_size, pooling) -> None:
    if downsampling not in get_args(Downsampling):
        raise ValueError(f"downsampling must be one of {get_args(Downsampling)}, got {downsampling!r}")
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
