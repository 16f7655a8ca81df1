"""`AudioCNN`: the separable time/frequency CNN on log-mel spectrograms, with its three kinds of downsampling."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..layers.choice import Downsampling, Kind
from ..layers.downsampling import DiffStride
from ..layers.recomputation import norm_recomputably, save_remake
from ..layers.strided_conv import StridedConv
from ..layers.strides import read_strides
from .downsampling_block import DownsamplingBlock
from .parts import AtLeastOne, GroupedAliasing, Pair, Trunk, Width, plain

CHANNELS = (64, 128, 256, 256, 512, 512)
STRIDES = ((2, 2), (2, 2), (1, 1), (2, 2), (1, 1), (2, 2))


class SeparableBlock(DownsamplingBlock):
    """Convolve and downsample over time, then over frequency; each followed by ReLU and batch norm.

    Where it pools, its maps are larger than those of a strided convolution; so that training does not need
    more memory, the output of a batch norm is recomputed in the backward pass instead of being stored.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        stride: (time, mel) stride; for diffstride the initial one.
        down: how it downsamples.

    Example:
        >>> SeparableBlock(1, 8, (2, 2), Downsampling("spectral"))(torch.zeros(4, 1, 100, 64)).shape
        torch.Size([4, 8, 50, 32])
    """

    def __init__(self, in_channels: int, out_channels: int, stride: Sequence[float], down: Downsampling):
        super().__init__(stride, down)
        time, mel = self.conv_stride
        self.time_conv = StridedConv(in_channels, out_channels, (3, 1), (time, 1))
        self.time_norm = nn.BatchNorm2d(out_channels)
        self.mel_conv = StridedConv(out_channels, out_channels, (1, 3), (1, mel))
        self.mel_norm = nn.BatchNorm2d(out_channels)
        self.pool_after_relu = down.after_relu

    def forward(self, x: Tensor, host_strides: Tensor | None = None) -> Tensor:
        """Map ``(batch, in_channels, time, mel)`` to ``(batch, out_channels, time', mel')``."""
        for axis, (conv, norm) in enumerate(((self.time_conv, self.time_norm), (self.mel_conv, self.mel_norm))):
            host_stride = None if host_strides is None else host_strides[axis]
            if self.pool is None:
                x = norm(conv(x).relu())
            else:
                with save_remake(x):
                    if self.pool_after_relu:
                        x = self.pool.pool_axis(conv(x).relu(), axis, host_stride)
                    else:
                        x = self.pool.pool_conv(conv, x, axis, host_stride).relu()
                x = norm_recomputably(norm, x)
        return x


class AudioCNN(Trunk):
    """Separable CNN over log-mel spectrograms whose downsampling is strided, spectral or learned.

    Six blocks of ``conv 3x1 over time -> downsample -> ReLU -> BN -> conv 1x3 over frequency ->
    downsample -> ReLU -> BN``, then a global max-pool. With the default channels and strided
    convolutions it has 3,537,216 trainable parameters.

    Args:
        downsampling: "strided", "spectral" or "diffstride", see `Downsampling`, as the settings below.
        channels: output channels of each block.
        strides: (time, mel) stride of each block; for diffstride the initial ones.
        smoothness: DiffStride's R.
        shared_stride: each block learns one stride for both axes.
        aliasing: where the aliasing of each block and axis starts.
        pool_after_relu: ``conv -> ReLU -> downsample -> BN``.

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

    name = "audio_cnn"
    sizes = {
        "audio_cnn": {},
        "audio_cnn_small": {"channels": (16, 32, 64, 64, 128, 128), "smoothness": 1.0},
    }

    def __init__(
        self,
        downsampling: Kind = "diffstride",
        channels: Sequence[Width] = CHANNELS,
        strides: Sequence[Pair] = STRIDES,
        smoothness: AtLeastOne = 4.0,
        shared_stride: bool = False,
        aliasing: GroupedAliasing = None,
        pool_after_relu: bool = False,
    ):
        super().__init__()
        self.settings = plain(locals())
        down = Downsampling(downsampling, smoothness, shared_stride, aliasing, pool_after_relu)
        down.check_groups(channels)
        if not channels or len(channels) != len(strides):
            raise ValueError(f"channels and strides need one entry per block, got {len(channels)} and {len(strides)}")
        if any(len(stride) != 2 for stride in strides):
            raise ValueError(f"each block takes a (time, mel) pair of strides, got {strides}")
        self.num_features = channels[-1]
        inputs = (1, *channels[:-1])
        self.blocks = nn.ModuleList(
            SeparableBlock(i, o, stride, down) for i, o, stride in zip(inputs, channels, strides, strict=True)
        )
        # Small convolutions run up to twice as fast on CPU, and on tensor cores, with channels last.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @property
    def separable_blocks(self) -> list[SeparableBlock]:
        """The blocks, with their type."""
        return list(self.blocks)

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
