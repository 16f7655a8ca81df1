"""What others put between a spectrogram and a network; each maps ``(batch, inputs, time, mel)`` to one channel."""

import torch
from torch import Tensor, nn


class AverageOf(nn.Module):
    """The mean of blocks of frames and bands: simple pooling frontends, Liu et al. 2022."""

    def __init__(self, factor: int):
        super().__init__()
        self.pool = nn.AvgPool2d(factor)

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(x)


class DiffRes(nn.Module):
    """Frames merged where little happens, after Liu et al. 2022, "Learning temporal resolution in spectrogram".

    A small network scores each frame; the scores, scaled to add up to the frames that are wanted, say how much of an
    output frame each one fills. As a matrix ``(time, time / factor)`` in place of a scatter.
    """

    def __init__(self, bands: int, factor: int):
        super().__init__()
        self.factor = factor
        self.score = nn.Sequential(nn.BatchNorm1d(bands), nn.Conv1d(bands, 16, 5, padding=2), nn.ReLU(),
                                   nn.Conv1d(16, 1, 5, padding=2), nn.Sigmoid())  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        n = x.shape[2] // self.factor
        share = self.score(x[:, 0].transpose(1, 2))[:, 0] + 1e-3
        share = share * n / share.sum(1, keepdim=True)
        end = share.cumsum(1)  # where each frame ends on the new axis
        slot = torch.arange(n, device=x.device)
        overlap = (torch.minimum(end[:, :, None], slot + 1) - torch.maximum((end - share)[:, :, None], slot)).clamp(
            min=0
        )
        return (overlap.transpose(1, 2) @ x[:, 0]).unsqueeze(1)


class MixtureOfWindows(nn.Module):
    """For each band a learned mean of the spectrograms of several windows."""

    def __init__(self, n_inputs: int, bands: int):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(n_inputs, 1, bands))

    def forward(self, x: Tensor) -> Tensor:
        return (x * self.weight.softmax(0)).sum(1, keepdim=True)


class Pcen(nn.Module):
    """Per-channel energy normalisation with learned gain, bias and root (Wang et al. 2017); smoothing 0.04 a frame."""

    def __init__(self, bands: int, smoothing: float = 0.04):
        super().__init__()
        self.smoothing = smoothing
        self.gain, self.bias, self.root = (nn.Parameter(torch.full((bands,), v)) for v in (0.9, 1.0, 0.5))

    def forward(self, x: Tensor) -> Tensor:
        energy = 2.0**10 * x.exp()
        n = torch.arange(x.shape[2], device=x.device)
        age = (n[:, None] - n).clamp(min=0)
        weights = self.smoothing * (1 - self.smoothing) ** age * (n[:, None] >= n)
        weights[:, 0] /= self.smoothing  # begins at the first frame
        smooth = weights @ energy
        gain, bias, root = self.gain.clamp(0, 1), self.bias.clamp(min=0.01), self.root.clamp(0.05, 1)
        return (energy / (smooth + 1e-3) ** gain + bias) ** root - bias**root
