"""A layer of a converted model: an operation at stride 1, and the pooling that downsamples its output."""

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from .downsampling import DiffStride, SpectralPool

CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
MAX_POOLS = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)
AVG_POOLS = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)
WINDOWED = (*CONVS, *MAX_POOLS, *AVG_POOLS)


class Downsampled(nn.Module):
    """An operation at stride 1 and the pooling layer that downsamples its output.

    Attributes:
        op: the model's own convolution or pooling layer, with its weights; its stride is set to 1.
        pool: `DiffStride` or `SpectralPool`; parallel branches hold the same one.
        op_stride: the stride the operation had.
    """

    def __init__(self, op: nn.Module, pool: DiffStride | SpectralPool):
        super().__init__()
        self.op = op
        self.pool = pool
        self.op_stride = op.stride
        op.stride = (1,) * n_axes(op)  # type: ignore[assignment]

    def forward(self, x: Tensor) -> Tensor:
        """Apply the operation at stride 1, then pool. An average pool is skipped, as the pooling averages."""
        return self.pool(x if isinstance(self.op, AVG_POOLS) else self.op(x))


def n_axes(op: nn.Module) -> int:
    """How many axes a convolution or pooling layer of torch.nn works on.

    Example:
        >>> n_axes(nn.Conv1d(1, 1, 3)), n_axes(nn.MaxPool2d(2))
        (1, 2)
    """
    return next(n for n in (1, 2, 3) if isinstance(op, (CONVS[n - 1], MAX_POOLS[n - 1], AVG_POOLS[n - 1])))


def per_axis(value: Any, n: int) -> tuple[int, ...]:
    """A setting of such a layer, one number for all axes or one for each, as one for each.

    Example:
        >>> per_axis(2, 3), per_axis((2, 1), 2)
        ((2, 2, 2), (2, 1))
    """
    return tuple(value) if isinstance(value, Iterable) else (value,) * n


def op_strides(op: Any) -> tuple[int, ...]:
    """The stride of such a layer on each axis."""
    return per_axis(op.stride, n_axes(op))
