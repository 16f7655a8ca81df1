"""What a recipe says of the model: the frontends and trunks, each with its keys."""

from typing import Annotated, Any, Literal

from pydantic import Field

from ..layers.choice import Kind
from ..sections import Section

Share = Annotated[float, Field(ge=0, le=1)]

Aliasing = Share | None
"""Where the learned aliasing of every pooling layer starts; None: no aliasing."""

GroupedAliasing = Aliasing | Annotated[list[Share], Field(min_length=2, max_length=64)]
"""The same, or where it starts in each of several equal groups of channels."""

Width = Annotated[int, Field(ge=1, le=65_536)]
"""Channels of a layer, blocks of a stage, length of a filter: a typing error must not take all memory."""


Pair = Annotated[list[Annotated[float, Field(ge=1)]], Field(min_length=2, max_length=2)]
"""The (time, mel) stride of a block."""

Stride = Annotated[float, Field(ge=1)] | Pair
"""One number for both axes, or one for each."""


class FrontendSection(Section):
    """Settings of `LogMel`; frequencies in Hz, times in ms."""

    name: Literal["log_mel"] = "log_mel"
    sample_rate: int = Field(16000, ge=100, le=1_000_000)
    window_ms: float = Field(25.0, gt=0)
    hop_ms: float = Field(10.0, gt=0)
    n_fft: int = Field(512, ge=2, le=2**20)
    n_mels: int = Field(64, ge=1, le=2**14)
    f_min: float = Field(60.0, ge=0)
    f_max: float = Field(7800.0, gt=0)

    @property
    def resolution(self) -> int:
        """What a clip is read at: the sample rate in Hz."""
        return self.sample_rate


class AdaptiveLogMelSection(FrontendSection):
    """Settings of `AdaptiveLogMel`; window and strides are the initial ones."""

    name: Literal["adaptive_log_mel"]  # type: ignore[assignment]
    hop_ms: float = Field(5.0, gt=0)
    n_fft: int = Field(1024, ge=2, le=2**20)
    n_mels: int = Field(128, ge=1, le=2**14)
    strides: Pair = [2, 2]
    smoothness: float = Field(1.0, ge=1)
    hold_product: bool = True


class WaveformSection(Section):
    """Settings of `RawWaveform`."""

    name: Literal["waveform"]
    sample_rate: int = Field(16000, ge=100, le=1_000_000)

    @property
    def resolution(self) -> int:
        """What a clip is read at: the sample rate in Hz."""
        return self.sample_rate


class ImageFrontendSection(Section):
    """Settings of `ImageFrontend`: pixels on a side of a view."""

    name: Literal["images"]
    size: int = Field(32, ge=8, le=1024)

    @property
    def resolution(self) -> int:
        """What a clip is read at: pixels on a side."""
        return self.size


class CustomFrontendSection(Section):
    """A custom frontend, see `CustomFrontend`."""

    name: Literal["custom"]
    frontend: str
    sample_rate: int = Field(16000, ge=100, le=1_000_000)
    settings: dict[str, Any] = {}

    @property
    def resolution(self) -> int:
        """What a clip is read at: the sample rate in Hz."""
        return self.sample_rate


class TrunkSection(Section):
    """What every trunk takes.

    `init` is a run directory or "hf-hub:user/name": frontend, trunk and strides are taken from there,
    in place of the frontend's and trunk's settings here, and get new heads. `linear_probe` then
    trains nothing but the heads.
    """

    init: str | None = None
    linear_probe: bool = False


class ModelSection(TrunkSection):
    """Settings of the trunk, see `AudioCNN`."""

    name: Literal["audio_cnn"] = "audio_cnn"
    downsampling: Kind = "diffstride"
    channels: list[Width] = [64, 128, 256, 256, 512, 512]
    strides: list[Pair] = [
        [2, 2],
        [2, 2],
        [1, 1],
        [2, 2],
        [1, 1],
        [2, 2],
    ]
    smoothness: float = Field(4.0, ge=1)
    shared_stride: bool = False
    aliasing: GroupedAliasing = None
    pool_after_relu: bool = False


class AudioResNetSection(TrunkSection):
    """Settings of the trunk, see `AudioResNet`."""

    name: Literal["audio_resnet"]
    downsampling: Kind = "diffstride"
    channels: list[Width] = [16, 24, 32]
    time_channels: list[Width] = [64, 64, 64]
    strides: list[Pair] = [[1, 2], [2, 2], [2, 2], [1, 1], [2, 1], [1, 1]]
    mel_regions: int = Field(8, ge=1, le=1024)
    kernel_size: Width = 9
    pooling: Literal["mean", "max", "mean_max"] = "mean"
    dropout: float = Field(0.0, ge=0, lt=1)
    smoothness: float = Field(1.0, ge=1)
    aliasing: Aliasing = None


class ResNetSection(TrunkSection):
    """Settings of the trunk, see `ResNet`; it has one input channel for spectrograms, three for colour images.

    A stride of null is a place that does not downsample.
    """

    name: Literal["resnet"]
    downsampling: Kind = "diffstride"
    channels: list[Width] = [64, 128, 256, 512]
    blocks: list[Width] = [2, 2, 2, 2]
    strides: list[Stride | None] = [2.0, 1.0, 2.0, 2.0, 2.0]
    smoothness: float = Field(4.0, ge=1)
    shared_stride: bool = False
    aliasing: GroupedAliasing = None
    pool_after_relu: bool = False
    stem: Literal["small", "imagenet"] = "small"
    pre_activation: bool = False
    activated_shortcut: bool = True
    as_published: bool = False
    in_channels: Literal[1, 3] = 1


class WaveCNNSection(TrunkSection):
    """Settings of the trunk, see `WaveCNN`."""

    name: Literal["wave_cnn"]
    downsampling: Kind = "diffstride"
    channels: list[Width] = [32, 64, 128, 256]
    kernel_sizes: list[Width] = [79, 3, 3, 3]
    strides: list[Annotated[float, Field(ge=1)]] = [16, 4, 4, 4]
    smoothness: float = Field(4.0, ge=1)
    aliasing: Aliasing = None


class CustomSection(TrunkSection):
    """A custom trunk, see `CustomTrunk`."""

    name: Literal["custom"]
    trunk: str
    settings: dict[str, Any] = {}
