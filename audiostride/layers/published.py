"""DiffStride and spectral pooling exactly as the paper's TensorFlow code computes them, defects included.

For comparison only. What differs from the layers of this package, on maps of height H and width W:

- Amplitude: a constant comes out multiplied by H W / (H' W').
- Rows: for even H the mask gives row frequency -k the weight of k - 1, for odd H frequency k that of k + 1.
  The masked spectrum is not that of a real map, and DiffStride keeps two rows for each kept frequency.
- Columns: the edge of the mask is W / (2S) + 1, the paper's Eq. 4, and the output's width is always even, so
  that an odd W loses a column where nothing is cropped.
- Limits: a forward, in evaluation too, writes max(S, N / (N - R)) into the stride, which is infinite at
  N = R; above N / 2 a stride has no gradient, and nothing brings it back.
- Spectral pooling rounds the output's height down to an even number.

The two axes do not separate, as the layers' do, so both are pooled at once.

Source: https://github.com/google-research/diffstride, commit b3ef50f, run by `tests/published_reference.py`.
"""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor

from .downsampling import DiffStride, HostStride, SpectralPool, uncompiled
from .spectrum import Crop


class PublishedDiffStride(DiffStride):
    """`DiffStride` as the paper's code computes it, on two axes, which are pooled at once.

    Args:
        stride: initial (height, width) stride, each at least 1.
        smoothness: see `DiffStride`.
        shared_stride: see `DiffStride`.
        crop: False keeps the size of a map, but for the last column of an odd width.

    Raises:
        ValueError: as `DiffStride`, or if there are not two strides.

    Example:
        >>> PublishedDiffStride((2.0, 2.0))(torch.ones(1, 1, 100, 64)).shape
        torch.Size([1, 1, 58, 40])
    """

    def __init__(
        self, stride: float | Sequence[float], smoothness: float = 4.0, shared_stride: bool = False, crop: bool = True
    ):
        super().__init__(stride, smoothness, shared_stride, crop)
        _check_axes(self.n_axes)

    def output_length(self, n: int, axis: int) -> int:
        with torch.no_grad():  # of a copy, as a forward changes the strides
            return copy.deepcopy(self)(torch.zeros(n, n, device=self.stride.device)).shape[axis]

    def axis_crop(self, n: int, axis: int, host_stride: HostStride = None) -> Crop:
        raise ValueError(_AT_ONCE)

    def forward(self, x: Tensor) -> Tensor:
        if torch.compiler.is_compiling():
            return uncompiled(self.forward, x)
        if not self.frozen:
            raise_strides_as_published_(self.stride, x.shape[-2], x.shape[-1], self.smoothness)
        # A copy, as the next forward writes to the parameter before the backward pass of this one.
        return diffstride_as_published(x, self.stride.clone(), self.smoothness, self.crop)


class PublishedSpectralPool(SpectralPool):
    """`SpectralPool` as the paper's code computes it, on two axes, which are pooled at once.

    Args:
        stride: (height, width) stride, each at least 1.

    Raises:
        ValueError: as `SpectralPool`, or if there are not two strides.

    Example:
        >>> PublishedSpectralPool((3.0, 3.0))(torch.ones(1, 100, 100)).shape
        torch.Size([1, 32, 33])
    """

    def __init__(self, stride: float | Sequence[float]):
        super().__init__(stride)
        _check_axes(self.n_axes)

    def output_length(self, n: int, axis: int) -> int:
        return spectral_length_as_published(n, axis, self.stride[axis])

    def axis_crop(self, n: int, axis: int, host_stride: HostStride = None) -> Crop:
        raise ValueError(_AT_ONCE)

    def forward(self, x: Tensor) -> Tensor:
        return spectral_pool_as_published(x, self.stride)


_AT_ONCE = "the published layers pool both axes at once, by calling the layer"


def _check_axes(n_axes: int) -> None:
    if n_axes != 2:
        raise ValueError(f"the published layer pools two axes at once, got {n_axes}")


def diffstride_as_published(x: Tensor, stride: Tensor, smoothness: float, crop: bool = True) -> Tensor:
    """Pool the last two axes of a map as the published DiffStride does; differentiable in map and stride.

    Args:
        x: real map of shape ``(..., height, width)``, width at least 2.
        stride: shape ``(2,)``, or ``(1,)`` for both axes.
        smoothness: width R of the ramp, in bins.
        crop: False keeps the size, but for the last column of an odd width.

    Raises:
        ValueError: if the map is narrower than two columns, of which nothing would be left.

    Example:
        >>> diffstride_as_published(torch.ones(1, 100, 64), torch.tensor([2.0, 2.0]), 4.0).shape
        torch.Size([1, 58, 40])
    """
    _check_width(x)
    vertical, horizontal = stride.expand(2)
    rows = _mask(_row_positions(x.shape[-2]).to(stride.device), x.shape[-2], vertical, smoothness, 0.0)
    columns = _mask(_column_positions(x.shape[-1]).to(stride.device), x.shape[-1], horizontal, smoothness, 1.0)
    spectrum = torch.fft.rfft2(_real(x)) * columns * rows[:, None]
    if crop:
        spectrum = spectrum[..., rows > 0, :][..., columns > 0]
    return torch.fft.irfft2(spectrum, s=(spectrum.shape[-2], 2 * (spectrum.shape[-1] - 1))).to(x.dtype)


@torch.no_grad()
def raise_strides_as_published_(stride: Tensor, height: int, width: int, smoothness: float) -> None:
    """Write max(S, N / (N - R)) into the strides, as every forward of the published DiffStride does.

    Args:
        stride: shape ``(2,)``, or ``(1,)`` for both axes; changed in place.
        height: length N of the first axis.
        width: of the second.
        smoothness: width R of the ramp, in bins.

    Example:
        >>> stride = torch.tensor([1.0, 2.0])
        >>> raise_strides_as_published_(stride, 16, 16, 4.0)
        >>> stride
        tensor([1.3333, 2.0000])
    """
    sizes = torch.tensor([height, width], dtype=stride.dtype, device=stride.device)
    least = sizes / (sizes - smoothness)
    stride.copy_(torch.maximum(stride, least if len(stride) == 2 else least.max()))


def spectral_pool_as_published(x: Tensor, stride: Sequence[float]) -> Tensor:
    """Pool the last two axes of a map as the published spectral pooling does.

    Args:
        x: real map of shape ``(..., height, width)``, width at least 2.
        stride: stride S >= 1 of each axis.

    Raises:
        ValueError: if the map is narrower than two columns.

    Example:
        >>> spectral_pool_as_published(torch.ones(1, 100, 100), (3.0, 3.0)).shape
        torch.Size([1, 32, 33])
    """
    _check_width(x)
    height, width = (spectral_length_as_published(n, axis, stride[axis]) for axis, n in enumerate(x.shape[-2:]))
    spectrum = torch.fft.rfft2(_real(x))[..., : width // 2 + 1]
    kept = torch.cat([spectrum[..., : height // 2, :], spectrum[..., x.shape[-2] - height // 2 :, :]], dim=-2)
    return torch.fft.irfft2(kept, s=(height, width)).to(x.dtype)


def spectral_length_as_published(n: int, axis: int, stride: float) -> int:
    """Length of an axis of `n` samples after `spectral_pool_as_published`; axis 0 is the height.

    Example:
        >>> [spectral_length_as_published(100, axis, 3.0) for axis in (0, 1)]
        [32, 33]
    """
    length = int(torch.tensor(float(n)).div(torch.tensor(stride)).floor())  # in float32, as published
    return max(2, length if axis else length - length % 2)


def _real(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _check_width(x: Tensor) -> None:
    if x.shape[-1] < 2:
        raise ValueError(f"the published layer needs maps of at least two columns, got {tuple(x.shape)}")


def _row_positions(n: int) -> Tensor:
    """What the mask takes for the frequency of each DFT bin of the rows: off by one on one side."""
    k = torch.arange(n, dtype=torch.float32)
    return torch.minimum(k + n % 2, n - 1 - k)


def _column_positions(n: int) -> Tensor:
    return torch.arange(n // 2 + 1, dtype=torch.float32)


def _mask(positions: Tensor, n: int, stride: Tensor, smoothness: float, beyond: float) -> Tensor:
    # The order of these float32 operations decides on which side of a kink a bin falls.
    edge = (n / stride.clamp(1.0, torch.finfo(torch.float32).max)).clamp(min=2.0) / 2 + beyond
    return (1 / smoothness * (smoothness + edge - positions)).clamp(0, 1)
