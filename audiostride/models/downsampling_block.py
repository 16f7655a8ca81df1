"""`DownsamplingBlock`: what the blocks of all trunks share."""

from collections.abc import Sequence

from torch import Tensor, nn

from ..layers.choice import Downsampling


class DownsamplingBlock(nn.Module):
    """A block with a pooling layer, or with whole strides for its convolutions.

    Args:
        stride: of each axis, for "diffstride" the initial one; None: it keeps its input's size.
        down: how it downsamples.
        pools_ones: also pool axes whose stride is 1, which then learn theirs.

    Attributes:
        pool: the pooling layer of the axes that are pooled; None if there is none, or with strided convolutions.
        pooled_axes: axes of the pooling layer, 0 for time and 1 for mel.
        conv_stride: stride of the convolutions on each axis, 1 where there is a pooling layer.
    """

    def __init__(self, stride: Sequence[float] | None, down: Downsampling, pools_ones: bool = True):
        super().__init__()
        self.conv_stride = down.conv_stride(stride)
        pooled = [(axis, s) for axis, s in enumerate(stride or ()) if down.pools and (pools_ones or s != 1)]
        self.pooled_axes = [axis for axis, _ in pooled]
        self.pool = down.pool([s for _, s in pooled] or None)

    def pooled(self, x: Tensor) -> Tensor:
        """Pool the axes that are pooled."""
        return x if self.pool is None else self.pool(x)

    def strides(self) -> list[float]:
        """Current stride of each axis, learned or fixed."""
        if self.pool is None:
            return [float(s) for s in self.conv_stride]
        return self.by_axis(self.pool.strides(), 1.0)

    def output_lengths(self, *lengths: int) -> tuple[int, ...]:
        """Size of the map that a map of this size becomes."""
        sizes = [-(-n // stride) for n, stride in zip(lengths, self.conv_stride, strict=True)]
        for number, axis in enumerate(self.pooled_axes):
            assert self.pool is not None
            sizes[axis] = self.pool.output_length(sizes[axis], number)
        return tuple(sizes)

    def by_axis(self, values: Sequence[float], other: float) -> list[float]:
        """A value for each axis: those of the pooling layer for the axes it pools, `other` for the rest."""
        own = dict(zip(self.pooled_axes, values, strict=True))
        return [own.get(axis, other) for axis in range(len(self.conv_stride))]
