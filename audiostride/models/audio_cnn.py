"""`AudioCNN`: the separable time/frequency CNN on log-mel spectrograms, with its three kinds of downsampling."""

from collections.abc import Sequence
from typing import Any, get_args

import torch
from torch import Tensor, nn

from ..layers.downsampling import DiffStride, Downsampling, make_pool
from ..layers.pooling import Aliasing, Alpha
from ..layers.recomputation import keep_recipe, norm_recomputably
from ..layers.strided_conv import StridedConv
from ..layers.strides import model_aliasing, read_strides

CHANNELS = (64, 128, 256, 256, 512, 512)
STRIDES = ((2, 2), (2, 2), (1, 1), (2, 2), (1, 1), (2, 2))


class SeparableBlock(nn.Module):
    """Convolve and downsample over time, then over frequency; each followed by ReLU and batch norm.

    Where it pools, its maps are larger than those of a strided convolution; so that training does not need
    more memory, the output of a batch norm is recomputed in the backward pass instead of being stored.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        downsampling: "strided", "spectral" or "diffstride".
        stride: (time, mel) stride; for diffstride the initial one.
        smoothness: DiffStride's ramp width R, in DFT bins.
        shared_stride: one learned stride for both axes.
        aliasing: where the pooling layer's learned aliasing starts, see `DiffStride`; None: no aliasing.
        pool_after_relu: pool what has passed the ReLU, see `AudioCNN`.

    Example:
        >>> SeparableBlock(1, 8, "spectral", (2, 2), 4.0, False)(torch.zeros(4, 1, 100, 64)).shape
        torch.Size([4, 8, 50, 32])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        downsampling: Downsampling,
        stride: Sequence[float],
        smoothness: float,
        shared_stride: bool,
        aliasing: Aliasing = None,
        pool_after_relu: bool = False,
    ):
        super().__init__()
        conv_stride = stride if downsampling == "strided" else (1, 1)
        self.time_conv = StridedConv(in_channels, out_channels, (3, 1), (conv_stride[0], 1))
        self.time_norm = nn.BatchNorm2d(out_channels)
        self.mel_conv = StridedConv(out_channels, out_channels, (1, 3), (1, conv_stride[1]))
        self.mel_norm = nn.BatchNorm2d(out_channels)
        self.pooled_axes = [] if downsampling == "strided" else [0, 1]
        self.pool = make_pool(downsampling, stride, smoothness, shared_stride, aliasing)
        self.pool_after_relu = pool_after_relu

    def forward(self, x: Tensor, host_strides: Tensor | None = None) -> Tensor:
        """Map ``(batch, in_channels, time, mel)`` to ``(batch, out_channels, time', mel')``."""
        for axis, (conv, norm) in enumerate(((self.time_conv, self.time_norm), (self.mel_conv, self.mel_norm))):
            host_stride = None if host_strides is None else host_strides[axis]
            if self.pool is None:
                x = norm(conv(x).relu())
            else:
                with keep_recipe(x):
                    if self.pool_after_relu:
                        x = self.pool.pool_axis(conv(x).relu(), axis, host_stride)
                    else:
                        x = self.pool.pool_conv(conv, x, axis, host_stride).relu()
                x = norm_recomputably(norm, x)
        return x

    @property
    def convolves_in_full(self) -> bool:
        """Whether its convolutions have to run at the resolution of their input."""
        return self.pool_after_relu or (self.pool is not None and self.pool.channel_groups > 1)

    def strides(self) -> list[float]:
        """Current (time, mel) stride, learned or fixed."""
        if self.pool is not None:
            return self.pool.strides()
        return [float(self.time_conv.conv.stride[0]), float(self.mel_conv.conv.stride[1])]

    def output_lengths(self, time: int, mel: int) -> tuple[int, int]:
        """Size (time, mel) of the map that a map of size (time, mel) becomes."""
        if self.pool is not None:
            return self.pool.output_length(time, 0), self.pool.output_length(mel, 1)
        (s_time, _), (_, s_mel) = self.time_conv.conv.stride, self.mel_conv.conv.stride
        return -(-time // s_time), -(-mel // s_mel)


class AudioCNN(nn.Module):
    """Separable CNN over log-mel spectrograms whose downsampling is strided, spectral or learned.

    Six blocks of ``conv 3x1 over time -> downsample -> ReLU -> BN -> conv 1x3 over frequency ->
    downsample -> ReLU -> BN``, then a global max-pool. With the default channels and strided
    convolutions it has 3,537,216 trainable parameters.

    Args:
        downsampling: "strided" (strided convolution), "spectral" (fixed) or "diffstride" (learned).
        channels: output channels of each block.
        strides: (time, mel) stride of each block; for diffstride the initial ones.
        smoothness: DiffStride's ramp width R >= 1, in DFT bins. The paper's 4 costs several times
            the arithmetic of 1, see docs/cost.md.
        shared_stride: each block learns one stride for both axes.
        aliasing: where the aliasing of each block and axis, which is learned, starts in [0, 1], see
            `DiffStride`; several numbers, such as (0, 1), for as many groups of channels; None: no aliasing. Not for
            strided convolutions, which alias in full.
        pool_after_relu: ``conv -> ReLU -> downsample -> BN``, so that a ReLU sees what pooling removes. Costs
            convolutions at full resolution. Not for strided convolutions, which downsample first.

    Attributes:
        num_features: channels of the last block, the length of an embedding.
        settings: the arguments it was made with; `strides` are the initial ones.

    Raises:
        ValueError: if an argument is out of range or their lengths differ.

    Source:
        Riad et al., ICLR 2022, Section 3.1 and Appendix A.2.

    Example:
        >>> cnn = AudioCNN("diffstride", channels=(8, 8, 16, 16, 32, 32), smoothness=1)
        >>> cnn(torch.zeros(4, 1, 100, 64)).shape
        torch.Size([4, 32])
        >>> cnn.forward_features(torch.zeros(4, 1, 100, 64)).shape
        torch.Size([4, 32, 9, 7])
    """

    def __init__(
        self,
        downsampling: Downsampling = "diffstride",
        channels: Sequence[int] = CHANNELS,
        strides: Sequence[Sequence[float]] = STRIDES,
        smoothness: float = 4.0,
        shared_stride: bool = False,
        aliasing: Aliasing = None,
        pool_after_relu: bool = False,
    ):
        super().__init__()
        if downsampling not in get_args(Downsampling):
            raise ValueError(f"downsampling must be one of {get_args(Downsampling)}, got {downsampling!r}")
        if not channels or len(channels) != len(strides):
            raise ValueError(f"channels and strides need one entry per block, got {len(channels)} and {len(strides)}")
        check_aliasing(downsampling, aliasing, channels)
        check_pool_after_relu(downsampling, pool_after_relu)
        if any(len(stride) != 2 for stride in strides):
            raise ValueError(f"each block takes a (time, mel) pair of strides, got {strides}")
        self.settings: dict[str, Any] = {
            "downsampling": downsampling,
            "channels": list(channels),
            "strides": [list(stride) for stride in strides],
            "smoothness": smoothness,
            "shared_stride": shared_stride,
            "aliasing": list(aliasing) if isinstance(aliasing, Sequence) else aliasing,
            "pool_after_relu": pool_after_relu,
        }
        self.num_features = channels[-1]
        inputs = (1, *channels[:-1])
        self.blocks = nn.ModuleList(
            SeparableBlock(i, o, downsampling, stride, smoothness, shared_stride, aliasing, pool_after_relu)
            for i, o, stride in zip(inputs, channels, strides, strict=True)
        )
        # Small convolutions run up to twice as fast on CPU, and on tensor cores, with channels last.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @property
    def separable_blocks(self) -> list[SeparableBlock]:
        """The blocks, with their type."""
        return list(self.blocks)  # type: ignore[arg-type]

    def forward_features(self, log_mel: Tensor) -> Tensor:
        """Map ``(batch, 1, time, mel)`` to the feature map ``(batch, channel, time', mel')``."""
        x = log_mel.contiguous(memory_format=torch.channels_last)
        pools = [block.pool for block in self.separable_blocks if isinstance(block.pool, DiffStride)]
        # One transfer from the device for all layers, where each would wait for it on its own.
        learned = bool(pools) and not pools[0].frozen
        strides: Sequence[Tensor | None] = read_strides(pools) if learned else [None] * len(self.blocks)
        for block, host_strides in zip(self.separable_blocks, strides, strict=True):
            x = block(x, host_strides)
        return x

    def forward(self, log_mel: Tensor) -> Tensor:
        """Map ``(batch, 1, time, mel)`` to an embedding ``(batch, num_features)``: global max-pool."""
        return self.forward_features(log_mel).amax(dim=(-2, -1))

    def strides(self) -> list[list[float]]:
        """Current (time, mel) stride of each block, learned or fixed.

        Example:
            >>> AudioCNN("spectral", channels=(8, 8), strides=((2, 2), (1, 1.5))).strides()
            [[2.0, 2.0], [1.0, 1.5]]
        """
        return [block.strides() for block in self.separable_blocks]

    def aliasing(self) -> list[list[Alpha]] | None:
        """Current (time, mel) aliasing of each block, in [0, 1]; None if none is learned.

        Where groups of channels have an alpha of their own, an axis has a list of them.

        Example:
            >>> AudioCNN("spectral", channels=(8,), strides=((2, 2),), aliasing=0.25).aliasing()
            [[0.25, 0.25]]
        """
        return model_aliasing(self)

    def map_sizes(self, time: int, mel: int) -> list[tuple[int, int]]:
        """Size (time, mel) of the input of each block and of the last block's output.

        Example:
            >>> AudioCNN("strided").map_sizes(100, 64)
            [(100, 64), (50, 32), (25, 16), (25, 16), (13, 8), (13, 8), (7, 4)]
        """
        sizes = [(time, mel)]
        for block in self.separable_blocks:
            sizes.append(block.output_lengths(*sizes[-1]))
        return sizes


def check_aliasing(downsampling: str, aliasing: Aliasing, channels: Sequence[int] = ()) -> None:
    """Refuse to learn the aliasing of strided convolutions, or of groups of channels that there cannot be.

    Args:
        downsampling: "strided", "spectral" or "diffstride".
        aliasing: where it starts.
        channels: of each block of a trunk whose groups of channels may have an alpha of their own.

    Raises:
        ValueError: if it is refused.

    Example:
        >>> check_aliasing("strided", 0.5)
        Traceback (most recent call last):
            ...
        ValueError: strided convolutions have no aliasing to learn, they alias in full; got aliasing=0.5, ...
    """
    if downsampling == "strided" and aliasing is not None:
        raise ValueError(
            f"strided convolutions have no aliasing to learn, they alias in full; got aliasing={aliasing}, "
            "which spectral and diffstride downsampling take"
        )
    if isinstance(aliasing, Sequence):
        if not channels:
            raise ValueError(
                f"aliasing of groups of channels is for AudioCNN and ResNet only; give one number, got {aliasing}"
            )
        if odd := [width for width in channels if aliasing and width % len(aliasing)]:
            raise ValueError(f"{odd[0]} channels cannot be split into {len(aliasing)} equal groups for their aliasing")


def check_pool_after_relu(downsampling: str, pool_after_relu: bool) -> None:
    """Refuse to pool after the ReLU where a convolution downsamples by itself.

    Raises:
        ValueError: if strided convolutions are to.

    Example:
        >>> check_pool_after_relu("strided", True)
        Traceback (most recent call last):
            ...
        ValueError: strided convolutions downsample before any ReLU; got pool_after_relu=True, ...
    """
    if downsampling == "strided" and pool_after_relu:
        raise ValueError(
            "strided convolutions downsample before any ReLU; got pool_after_relu=True, "
            "which spectral and diffstride downsampling take"
        )
