"""Networks of the paper's appendix, as custom trunks: EfficientNet-B0, DenseNet-BC, and a ResNet from random strides.

    audiostride sweep benchmarks/recipes/cifar10_densenet.yaml tasks.label.data.path=DIR

The recipes name their trunks "benchmarks.appendix:ConvertedTrunk" and "benchmarks.appendix:RandomResNet", so run them
from the root of a checkout. Inputs are images ``(batch, 3, height, width)``, embeddings ``(batch, num_features)``.

Sources: Tan & Le 2019; Huang et al. 2017; Riad et al., ICLR 2022, appendix.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from audiostride.layers.choice import Downsampling, Kind
from audiostride.layers.conversion import InitialStrides, RandomStrides, replace_downsampling
from audiostride.models.resnet import ResNet

Range = Mapping[str, float]
"""Initial strides drawn evenly between "low" and "high" from "seed"."""


class ConvertedTrunk(nn.Module):
    """A network of the appendix with any kind of downsampling.

    Args:
        network: "efficientnet_b0" (seven places, three of them of stride 1) or "densenet_bc" (L = 100, k = 12;
            the two average pools between its blocks).
        downsampling: "strided" is the network as it is.
        strides: initial strides, see `replace_downsampling`, or a `Range`; None: those the network has.
        smoothness: DiffStride's ramp width R >= 1, in DFT bins.
        aliasing: where the learned aliasing of each place and axis starts; None: no aliasing.

    Raises:
        ValueError: if an argument is out of range, or strided downsampling is to start from other strides.

    Example:
        >>> net = ConvertedTrunk("densenet_bc", strides=1.5, smoothness=1).eval()
        >>> net(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 342])
    """

    def __init__(
        self,
        network: str,
        downsampling: Kind = "diffstride",
        strides: InitialStrides | Range = None,
        smoothness: float = 4.0,
        aliasing: float | None = None,
    ):
        super().__init__()
        if network not in NETWORKS:
            raise ValueError(f"network must be {' or '.join(NETWORKS)}, got {network!r}")
        Downsampling(downsampling, smoothness, aliasing=aliasing)  # refuses what contradicts itself
        self.net = NETWORKS[network]()
        self.num_features = self.net.num_features
        if downsampling == "strided":
            if strides is not None:
                raise ValueError("strided downsampling keeps the network's own strides, so it takes none")
            return
        places = PLACES[network]
        still = [place for place in places or [] if self.net.get_submodule(place).stride == (1, 1)]
        initial = RandomStrides(**strides) if isinstance(strides, Mapping) else strides  # type: ignore[arg-type]
        replace_downsampling(self.net, downsampling, smoothness, False, places, initial, still, aliasing)

    @property
    def blocks(self) -> list[nn.Module]:
        """The parts of the network, from input to output."""
        return list(self.net.features)

    def forward_features(self, x: Tensor) -> Tensor:
        """Map ``(batch, 3, height, width)`` to the feature map ``(batch, channel, height', width')``."""
        return self.net.features(x)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(batch, 3, height, width)`` to an embedding ``(batch, num_features)``."""
        return self.net(x)


class RandomResNet(ResNet):
    """A `ResNet` for colour images from random initial strides.

    Args:
        random: the range that the stride of each place and axis is drawn from.
        places: how many places downsample.
        settings: other arguments of the `ResNet`.

    Example:
        >>> net = RandomResNet({"low": 1, "high": 3, "seed": 1}, 3, channels=(4, 4, 4, 4))
        >>> [[round(stride, 2) for stride in place] for place in net.strides()]
        [[2.52, 1.56], [1.81, 2.47], [1.06, 2.6]]
    """

    def __init__(self, random: Range, places: int = 3, **settings: Any):
        drawn = RandomStrides(**random).draw([2] * places)  # type: ignore[arg-type]
        super().__init__(strides=drawn, in_channels=3, **settings)


class EfficientNetB0(nn.Module):
    """EfficientNet-B0 without its classifier.

    Seven stages begin at features 1, 2, 4, 6, 9, 12 and 16, the depthwise convolution of whose first block
    has the strides 1, 2, 2, 2, 1, 2, 1; the stem halves the image before them.

    Example:
        >>> EfficientNetB0()(torch.zeros(2, 3, 64, 64)).shape
        torch.Size([2, 1280])
    """

    num_features = 1280

    def __init__(self) -> None:
        super().__init__()
        stages = [(1, 3, 1, 16, 1), (6, 3, 2, 24, 2), (6, 5, 2, 40, 2), (6, 3, 2, 80, 3)]
        stages += [(6, 5, 1, 112, 3), (6, 5, 2, 192, 4), (6, 3, 1, 320, 1)]
        self.features = nn.Sequential(_conv_norm(3, 32, 3, stride=2))
        previous = 32
        for expand, kernel, stride, channels, depth in stages:
            for number in range(depth):
                self.features.append(_MobileBlock(previous, channels, expand, kernel, stride if number == 0 else 1))
                previous = channels
        self.features.append(_conv_norm(previous, self.num_features, 1))
        self.dropout = nn.Dropout(0.2)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(batch, 3, height, width)`` to ``(batch, 1280)``: global average and dropout."""
        return self.dropout(self.features(x).mean(dim=(2, 3)))


class DenseNetBC(nn.Module):
    """DenseNet with bottlenecks and compression 0.5; without its classifier.

    Args:
        blocks: layers of each dense block; an average pool of stride 2 is between two blocks.
        growth: channels that each layer adds.
        stem: "small": one 3x3 convolution, for CIFAR; "imagenet": a 7x7 convolution of stride 2 and a
            max-pool of stride 2.

    Attributes:
        num_features: channels of the last block.

    Raises:
        ValueError: if the stem is another.

    Example:
        >>> net = DenseNetBC(blocks=(2, 2), growth=4)
        >>> net(torch.zeros(2, 3, 32, 32)).shape, net.num_features
        (torch.Size([2, 16]), 16)
    """

    def __init__(self, blocks: Sequence[int] = (16, 16, 16), growth: int = 12, stem: str = "small") -> None:
        super().__init__()
        if stem not in ("small", "imagenet"):
            raise ValueError(f"stem must be small or imagenet, got {stem!r}")
        channels = 2 * growth
        layers: list[nn.Module] = [nn.Conv2d(3, channels, 3, padding=1, bias=False)]
        if stem == "imagenet":
            layers = [nn.Conv2d(3, channels, 7, 2, 3, bias=False), nn.BatchNorm2d(channels), nn.ReLU()]
            layers.append(nn.MaxPool2d(3, 2, 1))
        for number, depth in enumerate(blocks, start=1):
            for _ in range(depth):
                layers.append(_DenseLayer(channels, growth))
                channels += growth
            layers += [nn.BatchNorm2d(channels), nn.ReLU()]
            if number < len(blocks):
                layers += [nn.Conv2d(channels, channels // 2, 1, bias=False), nn.AvgPool2d(2, 2)]
                channels //= 2
        self.features = nn.Sequential(*layers)
        self.num_features = channels

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(batch, 3, height, width)`` to ``(batch, num_features)``: global average."""
        return self.features(x).mean(dim=(2, 3))


class _MobileBlock(nn.Module):
    """Expand, convolve each channel by itself, weight the channels, project; a shortcut where the sizes agree."""

    def __init__(self, in_channels: int, out_channels: int, expand: int, kernel: int, stride: int):
        super().__init__()
        wide = in_channels * expand
        layers: list[nn.Module] = [_conv_norm(in_channels, wide, 1)] if expand != 1 else []
        layers += [_conv_norm(wide, wide, kernel, stride, groups=wide), _ChannelWeights(wide, max(1, in_channels // 4))]
        layers += [nn.Conv2d(wide, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels)]
        self.block = nn.Sequential(*layers)
        self.residual = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x) + x if self.residual else self.block(x)


class _ChannelWeights(nn.Module):
    """Squeeze and excitation (Hu et al. 2018)."""

    def __init__(self, channels: int, squeezed: int):
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.down = nn.Conv2d(channels, squeezed, 1)
        self.up = nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.up(nn.functional.silu(self.down(self.pool(x)))))


class _DenseLayer(nn.Module):
    """A bottleneck and a 3x3 convolution, whose output is appended to the input."""

    def __init__(self, in_channels: int, growth: int):
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(in_channels), nn.BatchNorm2d(4 * growth)
        self.conv1 = nn.Conv2d(in_channels, 4 * growth, 1, bias=False)
        self.conv2 = nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.conv2(torch.relu(self.norm2(self.conv1(torch.relu(self.norm1(x))))))], 1)


def _conv_norm(in_channels: int, out_channels: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels), nn.SiLU())


NETWORKS = {"efficientnet_b0": EfficientNetB0, "densenet_bc": DenseNetBC}
PLACES = {
    # The depthwise convolution of the first block of each of the seven stages; the stem stays as it is.
    "efficientnet_b0": [f"features.{first}.block.{int(first > 1)}.0" for first in (1, 2, 4, 6, 9, 12, 16)],
    "densenet_bc": None,
}
"""The layers of a network whose stride is learned; None: all that downsample."""
