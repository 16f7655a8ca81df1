"""`WaveCNN`: a 1-D CNN on the raw waveform whose strides are fixed or learned, and the frontend that hands it over.

Where `AudioCNN` learns the resolution of a spectrogram, this network learns how finely to sample the
output of its own filters. A block rectifies before it pools: the first convolution is a bank of
filters, and what follows them must be their envelopes, for a linear layer pooled to a few hundred Hz
would lose all sound above.

Source: after the M5 network of Dai et al. 2017, "Very deep convolutional neural networks for raw
waveforms"; Riad et al., ICLR 2022, Section 2.4 (other dimensions).
"""

from collections.abc import Sequence

from torch import Tensor, nn

from ..layers.choice import Downsampling, Kind
from ..layers.strided_conv import StridedConv
from .downsampling_block import DownsamplingBlock
from .parts import AtLeastOne, Frontend, OneAliasing, SampleRate, Trunk, Width, plain


class RawWaveform(Frontend):
    """The frontend that leaves the waveform as it is: frames are single samples.

    Args:
        sample_rate: of the waveform, in Hz.

    Attributes:
        frame_rate: frames per second, in Hz: the sample rate.
        hop_length: 1, in samples.
        n_mels: None, there is no frequency axis.
        settings: the arguments it was made with.

    Raises:
        ValueError: if the sample rate is not positive.

    Example:
        >>> import torch
        >>> RawWaveform(8000)(torch.zeros(4, 8000)).shape
        torch.Size([4, 1, 8000])
    """

    name = "waveform"
    gives = "waveform"

    def __init__(self, sample_rate: SampleRate = 16000):
        super().__init__()
        if sample_rate < 1:
            raise ValueError(f"the sample rate must be positive, got {sample_rate} Hz")
        self.settings = {"sample_rate": sample_rate}
        self.sample_rate, self.hop_length, self.n_mels = sample_rate, 1, None
        self.frame_rate = float(sample_rate)

    def forward(self, waveform: Tensor) -> Tensor:
        """Map ``(..., samples)`` to ``(..., 1, samples)``: one channel."""
        return waveform.unsqueeze(-2)


class WaveBlock(DownsamplingBlock):
    """Convolve, normalise, rectify, downsample; a strided convolution downsamples first.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: odd length of the filters, in samples of the block's input.
        stride: the stride, for diffstride the initial one.
        down: how it downsamples.

    Example:
        >>> import torch
        >>> WaveBlock(1, 8, 79, 8.0, Downsampling("diffstride"))(torch.zeros(2, 1, 8000)).shape
        torch.Size([2, 8, 1007])
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: float, down: Downsampling):
        super().__init__((stride,), down)
        self.conv = StridedConv(in_channels, out_channels, (kernel_size,), self.conv_stride)
        self.norm = nn.BatchNorm1d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(batch, in_channels, time)`` to ``(batch, out_channels, time')``."""
        return self.pooled(self.norm(self.conv(x)).relu())


class WaveCNN(Trunk):
    """1-D CNN over raw waveforms, ending in global average pooling.

    Args:
        downsampling: "strided", "spectral" or "diffstride", see `Downsampling`, as `smoothness` and `aliasing`.
        channels: output channels of each block.
        kernel_sizes: odd filter length of each block, in samples of its input.
        strides: stride of each block; for diffstride the initial ones.
        smoothness: DiffStride's R; for 1 s of input a bin is 1 Hz.
        aliasing: where the aliasing of each block starts.

    Attributes:
        num_features: channels of the last block, the length of an embedding.
        settings: the arguments it was made with; `strides` are the initial ones.

    Raises:
        ValueError: if an argument is out of range or their lengths differ.

    Example:
        >>> cnn = WaveCNN("diffstride", channels=(8, 8, 16), kernel_sizes=(79, 3, 3), strides=(16, 4, 4))
        >>> import torch
        >>> cnn(torch.zeros(2, 1, 8000)).shape
        torch.Size([2, 16])
        >>> cnn.strides()
        [[16.0], [4.0], [4.0]]
        >>> cnn.map_sizes(8000)
        [(8000,), (507,), (135,), (41,)]
    """

    name = "wave_cnn"
    sizes = {"wave_cnn": {}}
    takes = "waveform"
    ends_in_mean = True

    def __init__(
        self,
        downsampling: Kind = "diffstride",
        channels: Sequence[Width] = (32, 64, 128, 256),
        kernel_sizes: Sequence[Width] = (79, 3, 3, 3),
        strides: Sequence[AtLeastOne] = (16, 4, 4, 4),
        smoothness: AtLeastOne = 4.0,
        aliasing: OneAliasing = None,
    ):
        super().__init__()
        self.settings = plain(locals())
        down = Downsampling(downsampling, smoothness, aliasing=aliasing)
        down.check_groups()
        if not channels or not len(channels) == len(kernel_sizes) == len(strides):
            raise ValueError(
                "each block needs its channels, kernel size and stride, "
                f"got {len(channels)}, {len(kernel_sizes)} and {len(strides)}"
            )
        self.num_features = channels[-1]
        self.blocks = nn.Sequential(
            *(
                WaveBlock(i, o, kernel, stride, down)
                for i, o, kernel, stride in zip((1, *channels[:-1]), channels, kernel_sizes, strides, strict=True)
            )
        )

    def forward_features(self, waveform: Tensor) -> Tensor:
        """Map ``(batch, 1, samples)`` to the feature map ``(batch, channel, time)``."""
        return self.blocks(waveform)

    def forward(self, waveform: Tensor) -> Tensor:
        """Map ``(batch, 1, samples)`` to an embedding ``(batch, num_features)``: global average."""
        return self.forward_features(waveform).mean(dim=-1)
