"""A classifier as plain arithmetic: what is exported, as modules that any runtime can hold.

The learned strides become constant matrices, and the log-mel frontend, where it goes along, a convolution
with the Fourier basis, so that a graph holds nothing but convolutions and matrix products. A matrix fits
one length, the window's; clips of any length are split into windows, and their logits averaged.
"""

import copy
import math

import torch
from torch import Tensor, nn
from torch.fx.experimental import _config as symbolic_shapes
from torch.nn import functional as F

from ..errors import UsageError
from ..layers.downsampling import DiffStride, SpectralPool
from ..layers.pooling_matrix import constant_matrix
from ..layers.strides import freeze_strides
from ..mel_scale import LOG_OFFSET
from ..models.adaptive_log_mel import AdaptiveLogMel, FineLogMel
from ..models.classifier import AudioClassifier
from ..models.frames import FrameGrid, trunk_frames
from ..models.log_mel import LogMel


class MatrixLogMel(nn.Module):
    """`LogMel` without a Fourier transform: a strided convolution with its basis.

    Example:
        >>> frontend, waveform = LogMel(), torch.randn(2, 16000)
        >>> torch.allclose(MatrixLogMel(frontend)(waveform), frontend(waveform), atol=1e-3)
        True
    """

    basis: Tensor
    filters: Tensor

    def __init__(self, frontend: LogMel | FineLogMel):
        super().__init__()
        n_fft, length = 2 * (frontend.filters.shape[1] - 1), len(frontend.window)
        turns = torch.outer(torch.arange(n_fft // 2 + 1), torch.arange(length)).remainder(n_fft).double() / n_fft
        phase = 2 * math.pi * turns
        basis = torch.cat([phase.cos(), phase.sin()]) * frontend.window.double().cpu()
        self.hop_length, self.window_length = frontend.hop_length, length
        self.register_buffer("basis", basis.float()[:, None])
        self.register_buffer("filters", frontend.filters.float().cpu())

    def forward(self, waveform: Tensor) -> Tensor:
        """Turn ``(batch, samples)`` into ``(batch, 1, time, mel)``."""
        padded = F.pad(waveform, (0, self.window_length - self.hop_length))[:, None]
        cosine, sine = F.conv1d(padded, self.basis, stride=self.hop_length).square().chunk(2, dim=1)
        return ((cosine + sine).transpose(1, 2) @ self.filters.T + LOG_OFFSET).log()[:, None]


class ConstantPool(nn.Module):
    """A pooling layer whose matrices, for the one input size that it met first, are constants.

    Stands in for a `SpectralPool` or `DiffStride` of a trunk; it fits inputs of that size only.
    """

    def __init__(self, pool: SpectralPool | DiffStride):
        super().__init__()
        self._pool = (pool,)  # in a tuple it is no submodule, whose parameters would go along

    @property
    def pool(self) -> SpectralPool | DiffStride:
        """The layer it stands in for."""
        return self._pool[0]

    def pool_axis(self, x: Tensor, axis: int, host_stride: float | None = None) -> Tensor:
        """Pool one axis, as the layer it stands in for."""
        pool = self.pool
        dim, name = x.dim() - pool.n_axes + axis, f"matrix_{axis}"
        if not hasattr(self, name):
            self.register_buffer(name, self._matrices(x.shape[dim], axis))
        matrix = getattr(self, name)
        if len(matrix) > 1:  # a matrix for each group of channels; slices of a map would fix the size of the batch
            groups = x.unflatten(-1 - pool.n_axes, (len(matrix), -1)).movedim(dim + 1, -1)
            matrix = matrix.mT.view(len(matrix), *[1] * (pool.n_axes - 1), *matrix.shape[:0:-1])
            return (groups @ matrix).movedim(-1, dim + 1).flatten(-2 - pool.n_axes, -1 - pool.n_axes)
        if dim == x.dim() - 2 and x.shape[1] > 1:  # of one channel, such a product would fix the size of the batch
            return matrix[0] @ x
        return (x.movedim(dim, -1) @ matrix[0].T).movedim(-1, dim)

    def _matrices(self, n: int, axis: int) -> Tensor:
        """The pooling matrices ``(groups, m, n)`` of an axis."""
        pool = self.pool
        stride, smoothness = None, 1.0
        if isinstance(pool, DiffStride):
            stride, smoothness = pool.strides()[axis], pool.smoothness
        crop = pool.axis_crop(n, axis)
        made = [
            constant_matrix(crop, stride, smoothness, alpha, 1, torch.float32, torch.device("cpu"))
            for alpha in pool.axis_alphas(axis)
        ]
        return torch.stack([torch.eye(1) if crop.n == 1 else matrix for matrix in made])

    def pool_conv(self, conv: nn.Module, x: Tensor, axis: int, host_stride: float | None = None) -> Tensor:
        """Convolve, then pool one axis."""
        return self.pool_axis(conv(x), axis)

    def forward(self, x: Tensor) -> Tensor:
        """Pool all axes."""
        for axis in range(self.pool.n_axes):
            x = self.pool_axis(x, axis)
        return x


class TileMean(nn.Module):
    """`torch.nn.AvgPool2d` with ``ceil_mode``, of whose length it can be proved that it is a strided convolution's.

    Example:
        >>> pool, x = nn.AvgPool2d((2, 3), ceil_mode=True), torch.randn(4, 8, 15, 16)
        >>> torch.allclose(TileMean(pool)(x), pool(x), atol=1e-6)
        True
    """

    def __init__(self, pool: nn.AvgPool2d):
        super().__init__()
        self.size = pool.kernel_size

    def forward(self, x: Tensor) -> Tensor:
        """Average ``(batch, channel, time, mel)`` over tiles; the last ones of an axis may be smaller."""
        time, mel = self.size  # type: ignore[misc]
        room = (0, mel - 1, 0, time - 1)
        share = F.avg_pool2d(F.pad(torch.ones_like(x[:1, :1]), room), self.size)
        return F.avg_pool2d(F.pad(x, room), self.size) / share


class ExportedWindow(nn.Module):
    """A window in, a tuple with the logits of each task out: of the window, or of its `frames`.

    Example:
        >>> from audiostride import create_model
        >>> model = create_model("audio_cnn_small_diffstride", heads={"word": 3, "speaker": 5}).eval()
        >>> [tuple(logits.shape) for logits in ExportedWindow(model, takes_log_mel=False)(torch.zeros(2, 16000))]
        [(2, 3), (2, 5)]
    """

    def __init__(self, model: AudioClassifier, takes_log_mel: bool, frames: bool = False):
        super().__init__()
        self.frames = frames
        model = copy.deepcopy(model).cpu().float().eval()
        freeze_strides(model.frontend)
        for parent in [*model.frontend.modules(), *model.trunk.modules()]:
            for name, child in list(parent.named_children()):
                if isinstance(child, SpectralPool | DiffStride):
                    setattr(parent, name, ConstantPool(child))
                elif frames and isinstance(child, nn.AvgPool2d):
                    setattr(parent, name, TileMean(child))
        self.frontend: nn.Module = model.frontend
        if isinstance(model.frontend, LogMel):
            self.frontend = nn.Identity() if takes_log_mel else MatrixLogMel(model.frontend)
        elif isinstance(model.frontend, AdaptiveLogMel):
            fine = nn.Identity() if takes_log_mel else MatrixLogMel(model.frontend.spectrogram)
            self.frontend = nn.Sequential(fine, model.frontend.pool)
        elif takes_log_mel:
            raise UsageError(f"this model has no log-mel: its frontend is {type(model.frontend).__name__}, not LogMel")
        self.trunk = model.trunk.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        self.heads = nn.ModuleList(model.heads.values())

    def forward(self, window: Tensor) -> tuple[Tensor, ...]:
        """Map ``(batch, samples)`` or ``(batch, 1, time, mel)`` to each task's ``(batch, [frames,] n_classes)``."""
        x = self.frontend(window)
        embedding = trunk_frames(self.trunk, x) if self.frames else self.trunk(x)
        return tuple(head(embedding) for head in self.heads)

    @property
    def any_length(self) -> bool:
        """Whether it holds nothing that fits one length only: no pooling matrix, no average over a stride.

        An `AudioResNet` averages in its shortcuts; torch.export cannot prove that what comes out is as long as what a
        strided convolution makes.
        """
        return not any(isinstance(module, ConstantPool | nn.AvgPool2d) for module in self.modules())


class ExportedClip(nn.Module):
    """Clips of any length in, the logits of their windows averaged: `windows.split_windows` as plain arithmetic.

    Example:
        >>> from audiostride import create_model
        >>> model = create_model("audio_cnn_small_diffstride", heads={"word": 3}).eval()
        >>> clip = ExportedClip(ExportedWindow(model, takes_log_mel=False), model.window_length)
        >>> [logits.shape for logits in clip(torch.zeros(2, 40000))]
        [torch.Size([2, 3])]
    """

    def __init__(self, window: ExportedWindow, window_length: int):
        super().__init__()
        self.window = window
        self.window_length = window_length

    def forward(self, clip: Tensor) -> tuple[Tensor, ...]:
        """Map ``(batch, samples)`` to the logits ``(batch, n_classes)`` of each task."""
        n, length = clip.shape[1], self.window_length
        missing = torch.sym_max(length - n, 0)
        clip = F.pad(clip, (missing // 2, missing - missing // 2))  # one shorter than a window lies in its centre
        n_windows = (n + length - 1) // length
        windows = torch.cat([clip[:, : (n_windows - 1) * length], clip[:, -length:]], 1).reshape(-1, length)
        return tuple(
            logits.reshape(clip.shape[0], n_windows, logits.shape[1]).mean(1) for logits in self.window(windows)
        )


def exported_program(
    model: AudioClassifier,
    window: ExportedWindow,
    takes_log_mel: bool,
    any_length: bool,
    any_batch: bool,
    grid: FrameGrid | None = None,
) -> torch.export.ExportedProgram:
    """The model as a graph whose batch and length are what the arguments say; `grid` is that of its frames."""
    sizes: dict[int, torch.export.Dim] = {}
    if any_batch:
        sizes[0] = torch.export.Dim("batch", min=1, max=4096)
    module: nn.Module = window
    length = grid.window if grid else model.window_length
    with torch.inference_mode(False), torch.no_grad():
        example = exported_input(model, torch.zeros(2 if any_batch else 1, length), takes_log_mel)
        window(example)  # the pooling matrices are made here
        if any_length:
            # The size it is traced at must be none of the special ones: not one window, no whole number of them.
            example = exported_input(model, torch.zeros(2, 2 * length + length // 3), takes_log_mel)
            shortest = min(length, (grid.context or 0) + 1) if grid else 2
            sizes[2 if takes_log_mel else 1] = torch.export.Dim("length", min=shortest, max=2**27)
            module = window if takes_log_mel or grid else ExportedClip(window, length).eval()
        # Else the graph would be one for several windows, another one for a single window.
        with symbolic_shapes.patch(backed_size_oblivious=True):  # type: ignore[attr-defined]
            return torch.export.export(module, (example,), dynamic_shapes=(sizes,))


def exported_input(model: AudioClassifier, waveform: Tensor, takes_log_mel: bool) -> Tensor:
    """What an exported file takes for a waveform ``(batch, samples)``: the spectrogram is that before any pooling."""
    with torch.no_grad():
        return (model.frontend.before_pool(model.take(waveform)) if takes_log_mel else waveform).cpu().float()
