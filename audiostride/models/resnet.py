"""`ResNet`: residual networks for spectrograms and images whose downsampling is strided, spectral or learned.

A residual block that downsamples convolves without stride and then pools; its main and its shortcut
branch share one pooling layer, so both always have one size (Riad et al. 2022, Fig. 2b). Shapes are
``(batch, channel, time, mel)``; for images read height for time and width for mel.

Sources: He et al. 2015 (residual nets) and 2016 (pre-activation); Riad et al., ICLR 2022, Section 3.2.
"""

from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from ..layers.choice import Downsampling, Kind
from ..layers.strided_conv import PointwiseConv
from .downsampling_block import DownsamplingBlock
from .parts import AtLeastOne, GroupedAliasing, Input, Pair, Trunk, Width, plain

Stem = Literal["small", "imagenet"]


class ResNet(Trunk):
    """Residual network over log-mel spectrograms or images; ends in global average pooling.

    Up to five places downsample: the stem and the first block of each stage. `strides` fills the
    last of them, so with four stages (2, 2, 2) is the paper's notation for CIFAR (stages 2 to 4),
    four strides let the first identity block learn its own, and five pool the stem as well. None is
    a place that does not downsample: the published code's (1, 1, 2, 2, 2) is (1, None, 2, 2, 2), since
    that code ignores the stride of an identity block, see `repository_resnet18`.

    Args:
        downsampling: "strided", "spectral" or "diffstride", see `Downsampling`, as the settings below.
        channels: channels of each stage; the stem has those of the first.
        blocks: residual blocks of each stage.
        strides: strides of the last places, each a (time, mel) pair, one number for both axes or None;
            for diffstride the initial ones. The other places keep their input's size.
        smoothness: DiffStride's R.
        shared_stride: each place learns one stride for both axes.
        stem: "small": one 3x3 convolution; "imagenet": a 7x7 convolution of stride 2 and a 3x3
            max-pool of stride 2, which learn no stride.
        pre_activation: batch norm and ReLU before each convolution, not after it.
        activated_shortcut: see `ResidualBlock`.
        as_published: pool as the published code does, see `layers.published`.
        in_channels: channels of the input: 1 for spectrograms, 3 for colour images.
        aliasing: where the aliasing of each place and axis starts.
        pool_after_relu: a block pools its first convolution's output after batch norm and ReLU.

    Attributes:
        num_features: channels of the last stage, the length of an embedding.
        settings: the arguments it was made with; `strides` are the initial ones.

    Raises:
        ValueError: if an argument is out of range or their lengths do not fit.

    Source:
        He et al. 2015 and 2016; Riad et al., ICLR 2022, Section 3.2 and Fig. 2.

    Example:
        >>> net = ResNet("diffstride", channels=(8, 16, 32), blocks=(1, 1, 1), smoothness=1, strides=(2, 1, 2, 2))
        >>> net(torch.zeros(2, 1, 100, 64)).shape
        torch.Size([2, 32])
        >>> net.strides()
        [[2.0, 2.0], [1.0, 1.0], [2.0, 2.0], [2.0, 2.0]]
        >>> net.map_sizes(100, 64)
        [(100, 64), (51, 33), (51, 33), (27, 19), (15, 11)]
    """

    name = "resnet"
    sizes = {"resnet18": {}}
    ends_in_mean = True

    def __init__(
        self,
        downsampling: Kind = "diffstride",
        channels: Sequence[Width] = (64, 128, 256, 512),
        blocks: Sequence[Width] = (2, 2, 2, 2),
        strides: Sequence[AtLeastOne | Pair | None] = (2.0, 1.0, 2.0, 2.0, 2.0),
        smoothness: AtLeastOne = 4.0,
        shared_stride: bool = False,
        stem: Stem = "small",
        pre_activation: bool = False,
        activated_shortcut: bool = True,
        as_published: bool = False,
        in_channels: Literal[1, 3] = 1,
        aliasing: GroupedAliasing = None,
        pool_after_relu: bool = False,
    ):
        super().__init__()
        self.settings = plain(locals())
        down = Downsampling(downsampling, smoothness, shared_stride, aliasing, pool_after_relu, as_published)
        down.check_groups(channels)
        _check(channels, blocks, strides, stem)
        pairs = [s if s is None else tuple(s) if isinstance(s, Sequence) else (s, s) for s in strides]
        self.settings["strides"] = [pair and list(pair) for pair in pairs]
        self.num_features = channels[-1]
        stem_stride, *stage_strides = [None] * (1 + len(channels) - len(pairs)) + pairs
        self.stem = _Stem(in_channels, channels[0], stem, stem_stride, down, pre_activation)
        self.stages = nn.ModuleList()
        previous = channels[0]
        for width, depth, stride in zip(channels, blocks, stage_strides, strict=True):
            stage = nn.Sequential()
            for number in range(depth):
                own = stride if number == 0 else None
                stage.append(ResidualBlock(previous, width, own, down, pre_activation, activated_shortcut))
                previous = width
            self.stages.append(stage)
        self.norm = nn.BatchNorm2d(previous) if pre_activation else nn.Identity()
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        # Small convolutions run up to twice as fast on CPU, and on tensor cores, with channels last.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @property
    def takes(self) -> Input:
        return "images" if self.settings["in_channels"] == 3 else "spectrogram"

    @property
    def blocks(self) -> list[nn.Module]:
        """The residual blocks of all stages, from input to output."""
        return [block for stage in self.stages for block in stage.children()]

    def forward_features(self, x: Tensor) -> Tensor:
        """Map ``(batch, in_channels, time, mel)`` to the feature map ``(batch, channel, time', mel')``."""
        x = self.stem(x.contiguous(memory_format=torch.channels_last))
        for stage in self.stages:
            x = stage(x)
        return self.norm(x).relu() if self.settings["pre_activation"] else x

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(batch, in_channels, time, mel)`` to an embedding ``(batch, num_features)``: global average."""
        return self.forward_features(x).mean(dim=(-2, -1))

    def map_sizes(self, *size: int) -> list[tuple[int, ...]]:
        """Size (time, mel) of the map before each place that has a stride, and of the last feature map.

        Example:
            >>> ResNet("strided", strides=(2, 2, 2), stem="imagenet", in_channels=3).map_sizes(224, 224)
            [(56, 56), (28, 28), (14, 14), (7, 7)]
        """
        return super().map_sizes(*(-(-n // (4 if self.settings["stem"] == "imagenet" else 1)) for n in size))

    @property
    def places(self) -> list[DownsamplingBlock]:
        places: list[Any] = [self.stem, *(stage[0] for stage in self.stages)]  # type: ignore[index]
        strides = self.settings["strides"]
        return [place for place, stride in zip(places[-len(strides) :], strides, strict=True) if stride is not None]


def resnet18(**settings: Any) -> ResNet:
    """ResNet-18: four stages of two blocks with 64, 128, 256 and 512 channels.

    Args:
        settings: any other argument of `ResNet`.

    Example:
        >>> cifar = resnet18(downsampling="spectral", in_channels=3, strides=(2, 2, 2))
        >>> cifar(torch.zeros(1, 3, 32, 32)).shape
        torch.Size([1, 512])
        >>> imagenet = resnet18(in_channels=3, stem="imagenet", strides=(1, 2, 2, 2))
        >>> spectrogram = resnet18(smoothness=1)
    """
    return ResNet(**settings)


def repository_resnet18(
    downsampling: Kind = "diffstride", strides: Sequence[float] = (1, 1, 2, 2, 2), **settings: Any
) -> ResNet:
    """The ResNet-18 of the code published with DiffStride, for CIFAR-10.

    Pre-activation, four pooling layers: the stem and stages 2 to 4. The stride of the first stage is
    ignored there, because its identity block never pools, and so it is here. With the linear head for
    ten classes it has 11,172,178 parameters.

    Args:
        downsampling: "strided", "spectral" or "diffstride".
        strides: five strides in the notation of that code; the second is ignored.
        settings: any other argument of `ResNet`; ``as_published=True`` also pools as that code does.

    Source:
        https://github.com/google-research/diffstride, commit b3ef50f.

    Example:
        >>> net = repository_resnet18(strides=(1, 1, 3, 2, 3))
        >>> net.strides()
        [[1.0, 1.0], [3.0, 3.0], [2.0, 2.0], [3.0, 3.0]]
    """
    stem, _, *stages = strides
    usual = {"pre_activation": True, "activated_shortcut": False, "in_channels": 3}
    return ResNet(downsampling, strides=(stem, None, *stages), **(usual | settings))


class ResidualBlock(DownsamplingBlock):
    """Two 3x3 convolutions and a shortcut around them; at most the first one downsamples.

    With spectral or learned strides one pooling layer follows the first convolution and serves the
    shortcut, too. Pooling and the shortcut's 1x1 convolution commute, so the shortcut pools first
    and convolves the smaller map.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        stride: (time, mel) stride, for diffstride the initial one; None: this block keeps its input's size.
        down: how it downsamples.
        pre_activation: batch norm and ReLU before each convolution (He et al. 2016), not after it.
        activated_shortcut: with pre-activation, a 1x1 convolution of the shortcut sees the activated
            input (He et al. 2016); False: the input itself, as in the code published with DiffStride.

    Raises:
        ValueError: if a stride is below 1, or not whole where it is a strided convolution's.

    Example:
        >>> block = ResidualBlock(8, 16, (2.0, 1.5), Downsampling("diffstride", smoothness=1))
        >>> block(torch.zeros(4, 8, 50, 32)).shape
        torch.Size([4, 16, 27, 23])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: Sequence[float] | None,
        down: Downsampling,
        pre_activation: bool = False,
        activated_shortcut: bool = True,
    ):
        super().__init__(stride, down)
        self.pre_activation = pre_activation
        self.activated_shortcut = activated_shortcut
        self.pool_after_relu = down.after_relu
        self.conv1 = make_conv(in_channels, out_channels, 3, self.conv_stride)
        self.norm1 = nn.BatchNorm2d(in_channels if pre_activation else out_channels)
        self.conv2 = make_conv(out_channels, out_channels, 3)
        self.norm2 = nn.BatchNorm2d(out_channels)
        project = in_channels != out_channels or self.conv_stride != (1, 1)
        self.shortcut = make_conv(in_channels, out_channels, 1, self.conv_stride) if project else nn.Identity()
        self.shortcut_norm = nn.BatchNorm2d(out_channels) if project and not pre_activation else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(batch, in_channels, time, mel)`` to ``(batch, out_channels, time', mel')``."""
        if self.pre_activation:
            active = self.norm1(x).relu()
            main = self.conv2(self._downsample(self.conv1(active), self.norm2))
            projected = not isinstance(self.shortcut, nn.Identity)  # only a projection may see the activation
            return main + self.shortcut(self.pooled(active if projected and self.activated_shortcut else x))
        main = self.norm2(self.conv2(self._downsample(self.conv1(x), self.norm1)))
        return (main + self.shortcut_norm(self.shortcut(self.pooled(x)))).relu()

    def _downsample(self, x: Tensor, norm: nn.Module) -> Tensor:
        return self.pooled(norm(x).relu()) if self.pool_after_relu else norm(self.pooled(x)).relu()


def make_conv(in_channels: int, out_channels: int, kernel: int, stride: Sequence[int] = (1, 1)) -> nn.Conv2d:
    """A square convolution with zero padding of half its kernel, without a bias: a batch norm or a sum follows."""
    form = PointwiseConv if kernel == 1 else nn.Conv2d
    return form(in_channels, out_channels, kernel, (stride[0], stride[1]), padding=kernel // 2, bias=False)


class _Stem(DownsamplingBlock):
    def __init__(self, in_channels, channels, kind, stride, down, pre_activation):
        super().__init__(stride, down)
        self.pool_after_relu = down.after_relu
        self.max_pool: nn.Module
        if kind == "imagenet":
            self.conv = make_conv(in_channels, channels, 7, (2, 2))
            self.max_pool = nn.MaxPool2d(3, stride=2, padding=1)
        else:
            self.conv = make_conv(in_channels, channels, 3, self.conv_stride)
            self.max_pool = nn.Identity()
        # With pre-activation the first block begins with a norm and a ReLU of its own.
        bare = pre_activation and kind == "small"
        self.norm_relu = nn.Identity() if bare else nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        x = self.pooled(self.norm_relu(x)) if self.pool_after_relu else self.norm_relu(self.pooled(x))
        return self.max_pool(x)


def _check(channels: Sequence, blocks: Sequence, strides: Sequence, stem: str) -> None:
    if stem not in get_args(Stem):
        raise ValueError(f"stem must be small or imagenet, got {stem!r}")
    if not channels or len(channels) != len(blocks) or min(blocks) < 1:
        raise ValueError(f"each stage needs its channels and at least one block, got {channels} and {blocks}")
    most = len(channels) + (stem == "small")
    if not 1 <= len(strides) <= most:
        raise ValueError(f"a {stem} stem and {len(channels)} stages take 1 to {most} strides, got {len(strides)}")
    if all(stride is None for stride in strides):
        raise ValueError("all strides are None: at least one place has to downsample")
    if any(isinstance(stride, Sequence) and len(stride) != 2 for stride in strides):
        raise ValueError(f"a stride is one number or a (time, mel) pair, got {list(strides)}")
