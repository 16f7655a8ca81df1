"""Networks of other people, written from their papers, as trunks on `LogMel`: ``(batch, 1, time, mel)`` to embeddings.

`benchmarks/peers.py` trains them by the name of their class, as any trunk of one's own (docs/custom.md). Each leaves
out the last linear layer of its paper, which is the head here. They were published on MFCCs (MatchboxNet, TC-ResNet)
or on 40 log-mel bands (BC-ResNet); here all of them see log-mel.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn


class MatchboxNet(nn.Module):
    """MatchboxNet-BxRxC, separable 1-D convolutions over time, with the mel bands as channels.

    Args:
        n_mels: mel bands of the input.
        kernels: length of the filters of each of the B blocks, in frames.
        sub_blocks: R convolutions a block.
        channels: C, of the blocks.

    Source:
        Majumdar & Ginsburg 2020, Interspeech, Table 1.

    Example:
        >>> MatchboxNet()(torch.zeros(2, 1, 100, 64)).shape
        torch.Size([2, 128])
    """

    def __init__(
        self, n_mels: int = 64, kernels: Sequence[int] = (13, 15, 17), sub_blocks: int = 1, channels: int = 64
    ):
        super().__init__()
        self.num_features = 128
        self.prologue = nn.Sequential(*_separable(n_mels, 128, 11), nn.ReLU())
        inputs = [128, *[channels] * (len(kernels) - 1)]
        self.blocks = nn.ModuleList(
            _MatchboxBlock(i, channels, kernel, sub_blocks) for i, kernel in zip(inputs, kernels, strict=True)
        )
        self.epilogue = nn.Sequential(
            *_separable(channels, 128, 29, dilation=2),
            nn.ReLU(),
            nn.Conv1d(128, 128, 1, bias=False),
            nn.BatchNorm1d(128),
            nn.ReLU(),
        )

    def forward(self, log_mel: Tensor) -> Tensor:
        x = self.prologue(log_mel.squeeze(1).transpose(1, 2))
        for block in self.blocks:
            x = block(x)
        return self.epilogue(x).mean(-1)


class _MatchboxBlock(nn.Module):
    def __init__(self, i: int, o: int, kernel: int, sub_blocks: int):
        super().__init__()
        layers: list[nn.Module] = []
        for number in range(sub_blocks):
            layers += [*([nn.ReLU()] if number else []), *_separable(o if number else i, o, kernel)]
        self.body = nn.Sequential(*layers)
        self.shortcut = nn.Sequential(nn.Conv1d(i, o, 1, bias=False), nn.BatchNorm1d(o))

    def forward(self, x: Tensor) -> Tensor:
        return (self.body(x) + self.shortcut(x)).relu()


def _separable(i: int, o: int, kernel: int, dilation: int = 1) -> list[nn.Module]:
    padding = dilation * (kernel - 1) // 2
    depthwise = nn.Conv1d(i, i, kernel, padding=padding, dilation=dilation, groups=i, bias=False)
    return [depthwise, nn.Conv1d(i, o, 1, bias=False), nn.BatchNorm1d(o)]


class BCResNet(nn.Module):
    """BC-ResNet-tau: residuals of a 1-D branch over time are broadcast over frequency.

    Args:
        width: tau, which multiplies all channels.
        n_mels: mel bands of the input, a multiple of 20.

    Source:
        Kim, Chang, Lee & Sung 2021, Interspeech, Section 2 and Table 1.

    Example:
        >>> BCResNet(1)(torch.zeros(2, 1, 100, 40)).shape
        torch.Size([2, 32])
    """

    def __init__(self, width: float = 1.0, n_mels: int = 40):
        super().__init__()
        if n_mels % 20:
            raise ValueError(f"n_mels must be a multiple of 20, for five sub-bands after two halvings, got {n_mels}")
        first, *stages, last = (round(width * channels) for channels in (16, 8, 12, 16, 20, 32))
        self.num_features = last
        self.head = nn.Sequential(
            nn.Conv2d(1, first, 5, (2, 1), 2, bias=False), nn.BatchNorm2d(first), nn.ReLU()
        )  # fmt: skip
        blocks, i = [], first
        for stage, (channels, n, stride) in enumerate(zip(stages, (2, 2, 4, 4), (1, 2, 2, 1), strict=True)):
            for number in range(n):
                blocks.append(_BroadcastBlock(i, channels, 1 if number else stride, 2**stage))
                i = channels
        self.blocks = nn.Sequential(*blocks)
        self.tail = nn.Sequential(
            nn.Conv2d(i, i, 5, padding=(0, 2), groups=i, bias=False),
            nn.Conv2d(i, last, 1, bias=False),
            nn.BatchNorm2d(last),
            nn.ReLU(),
        )

    def forward(self, log_mel: Tensor) -> Tensor:
        return self.tail(self.blocks(self.head(log_mel.transpose(2, 3)))).mean((-2, -1))


class _BroadcastBlock(nn.Module):
    """On ``(batch, channel, mel, time)``; where the channels change there is no identity shortcut (Fig. 2b)."""

    def __init__(self, i: int, o: int, stride: int, dilation: int):
        super().__init__()
        self.identity = i == o
        widen = [] if self.identity else [nn.Conv2d(i, o, 1, bias=False), nn.BatchNorm2d(o), nn.ReLU()]
        over_mel = nn.Conv2d(o, o, (3, 1), (stride, 1), (1, 0), groups=o, bias=False)
        self.plane = nn.Sequential(*widen, over_mel, SubSpectralNorm(o))
        over_time = nn.Conv2d(o, o, (1, 3), padding=(0, dilation), dilation=(1, dilation), groups=o, bias=False)
        self.line = nn.Sequential(
            over_time, nn.BatchNorm2d(o), nn.SiLU(), nn.Conv2d(o, o, 1, bias=False), nn.Dropout2d(0.1)
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        plane = self.plane(x)
        out = plane + self.line(plane.mean(2, keepdim=True))
        return (out + x if self.identity else out).relu()


class SubSpectralNorm(nn.Module):
    """Batch norm of each of five bands of frequencies by itself (Chang et al. 2021)."""

    def __init__(self, channels: int, bands: int = 5):
        super().__init__()
        self.bands, self.norm = bands, nn.BatchNorm2d(channels * bands)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, mel, time = x.shape
        return self.norm(x.reshape(batch, channels * self.bands, mel // self.bands, time)).reshape(x.shape)


class TCResNet(nn.Module):
    """TC-ResNet8: residual 1-D convolutions over time, with the mel bands as channels.

    Args:
        n_mels: mel bands of the input.
        channels: of the first convolution and of each block.

    Source:
        Choi et al. 2019, Interspeech, Fig. 2.

    Example:
        >>> TCResNet()(torch.zeros(2, 1, 100, 40)).shape
        torch.Size([2, 48])
    """

    def __init__(self, n_mels: int = 40, channels: Sequence[int] = (16, 24, 32, 48)):
        super().__init__()
        self.num_features = channels[-1]
        self.first = nn.Sequential(
            nn.Conv1d(n_mels, channels[0], 3, padding=1, bias=False), nn.BatchNorm1d(channels[0])
        )
        self.blocks = nn.Sequential(*(_TemporalBlock(i, o) for i, o in pairwise(channels)))
        self.dropout = nn.Dropout(0.5)

    def forward(self, log_mel: Tensor) -> Tensor:
        x = self.first(log_mel.squeeze(1).transpose(1, 2)).relu()
        return self.dropout(self.blocks(x).mean(-1))


class _TemporalBlock(nn.Module):
    def __init__(self, i: int, o: int):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv1d(i, o, 9, 2, 4, bias=False), nn.BatchNorm1d(o), nn.ReLU(),
            nn.Conv1d(o, o, 9, 1, 4, bias=False), nn.BatchNorm1d(o),
        )  # fmt: skip
        self.shortcut = nn.Sequential(nn.Conv1d(i, o, 1, 2, bias=False), nn.BatchNorm1d(o), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        return (self.body(x) + self.shortcut(x)).relu()


class TimmTrunk(nn.Module):
    """A network of timm with one input channel and fresh weights; needs ``pip install 'audiostride[peers]'``.

    Args:
        name: as `timm.create_model` takes it.
    """

    def __init__(self, name: str):
        super().__init__()
        import timm

        self.net = timm.create_model(name, pretrained=False, in_chans=1, num_classes=0)
        with torch.no_grad():
            self.num_features = self.net.eval()(torch.zeros(1, 1, 64, 64)).shape[1]
        self.net.train()

    def forward(self, log_mel: Tensor) -> Tensor:
        return self.net(log_mel)
