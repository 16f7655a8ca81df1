"""Blocks of other papers put into `AudioResNet`, as trunks: do they pay?

`benchmarks/peers.py` trains them beside the network without, under the names "nano se" and "nano ssn".
"""

from typing import Any

from peer_models import SubSpectralNorm
from torch import Tensor, nn

from audiostride.models.audio_resnet import AudioResNet


class SqueezeExciteNet(AudioResNet):
    """`AudioResNet` whose blocks weigh their channels before the shortcut is added.

    Args:
        reduction: channels of a block to one of its bottleneck.
        settings: of the `AudioResNet`.

    Source:
        Hu, Shen & Sun 2018, CVPR, Fig. 3.

    Example:
        >>> import torch
        >>> SqueezeExciteNet(downsampling="strided")(torch.zeros(2, 1, 100, 64)).shape
        torch.Size([2, 64])
    """

    def __init__(self, reduction: int = 4, **settings: Any):
        super().__init__(**settings)
        for block in self.mel_blocks:
            block.mel_norm = _excited(block.mel_norm, reduction)
        for block in self.time_blocks:
            block.pointwise_norm = _excited(block.pointwise_norm, reduction)


class SqueezeExcite(nn.Module):
    """Scale the channels of ``(batch, channel, time, mel)`` by factors in (0, 1) that their means decide.

    Args:
        channels: of the map.
        reduction: channels to one of the bottleneck.

    Example:
        >>> import torch
        >>> SqueezeExcite(8)(torch.ones(2, 8, 5, 4)).shape
        torch.Size([2, 8, 5, 4])
    """

    def __init__(self, channels: int, reduction: int = 4):
        super().__init__()
        narrow = max(1, channels // reduction)
        self.weigh = nn.Sequential(nn.Linear(channels, narrow), nn.ReLU(), nn.Linear(narrow, channels), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weigh(x.mean((2, 3)))[:, :, None, None]


class SubSpectralNet(AudioResNet):
    """`AudioResNet` that normalises bands of frequencies one by one until the mel axis is gone; strided only.

    Args:
        bands: equal bands, which must divide the mel axis of every map.
        settings: of the `AudioResNet`.

    Source:
        Chang, Park, Cho, Park & Lee 2021, ICASSP.

    Example:
        >>> import torch
        >>> SubSpectralNet(downsampling="strided")(torch.zeros(2, 1, 100, 64)).shape
        torch.Size([2, 64])
    """

    def __init__(self, bands: int = 4, **settings: Any):
        super().__init__(**settings)
        self.stem.norm = _by_band(self.stem.norm, bands)
        for block in self.mel_blocks:
            block.time_norm = _by_band(block.time_norm, bands)
            block.mel_norm = _by_band(block.mel_norm, bands)


class _MelLast(SubSpectralNorm):
    """`SubSpectralNorm` of ``(batch, channel, time, mel)``."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.transpose(2, 3)).transpose(2, 3)


def _excited(norm: nn.BatchNorm2d, reduction: int) -> nn.Module:
    return nn.Sequential(norm, SqueezeExcite(norm.num_features, reduction))


def _by_band(norm: nn.BatchNorm2d, bands: int) -> nn.Module:
    return _MelLast(norm.num_features, bands)
