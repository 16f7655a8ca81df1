"""`StridedConv`: the convolution that all three kinds of downsampling are built from, with or without a stride."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext

import torch
from torch import Tensor, nn


class PointwiseConv(nn.Conv2d):
    """A 1x1 convolution without padding that takes every S-th sample first: the same values as `torch.nn.Conv2d`'s.

    On CPUs without AVX-512 the weight gradient of a strided 1x1 convolution over fewer than 8 channels in
    channels-last layout writes past its buffer (oneDNN issue 6035): wrong gradients, or a crash.

    Example:
        >>> PointwiseConv(3, 8, 1, stride=(2, 2))(torch.zeros(4, 3, 15, 8)).shape
        torch.Size([4, 8, 8, 4])
    """

    def forward(self, x: Tensor) -> Tensor:
        """Convolve ``(batch, in_channels, time, mel)`` to ``(batch, out_channels, ceil(time / S), ceil(mel / S'))``."""
        taken = x[..., :: self.stride[0], :: self.stride[1]]
        return nn.functional.conv2d(taken, self.weight, self.bias, groups=self.groups)


_Conv = Callable[..., nn.Conv1d | nn.Conv2d | nn.Conv3d]
_CONV: dict[int, _Conv] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


def whole(stride: Sequence[float]) -> tuple[int, ...]:
    """The stride of a strided convolution as whole numbers.

    Raises:
        ValueError: if one is not a whole number of at least 1.

    Example:
        >>> whole((2.0, 1))
        (2, 1)
    """
    if any(s < 1 or s != int(s) for s in stride):
        raise ValueError(
            f"a strided convolution takes whole strides of at least 1, got {tuple(stride)}; "
            "spectral and diffstride downsampling take fractional ones"
        )
    return tuple(int(s) for s in stride)


class StridedConv(nn.Module):
    """Convolution with zero padding of half its kernel and a whole stride per axis: length ceil(N / S).

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: odd kernel length of each of one to three axes.
        stride: whole stride of each axis.

    Raises:
        ValueError: if a stride is not a whole number of at least 1, or a kernel length is even.

    Example:
        >>> StridedConv(1, 8, (3, 1), (2, 1))(torch.zeros(4, 1, 100, 64)).shape
        torch.Size([4, 8, 50, 64])
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: Sequence[int], stride: Sequence[float]):
        super().__init__()
        if any(k % 2 == 0 for k in kernel_size):
            raise ValueError(f"kernel lengths must be odd, got {tuple(kernel_size)}")
        make: _Conv = PointwiseConv if tuple(kernel_size) == (1, 1) else _CONV[len(kernel_size)]
        self.conv = make(
            in_channels,
            out_channels,
            tuple(kernel_size),
            stride=whole(stride),
            padding=tuple(k // 2 for k in kernel_size),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Convolve ``(batch, in_channels, *axes)`` to ``(batch, out_channels, *shorter axes)``."""
        # torch 2.13 on a CPU reads uninitialised memory for the bfloat16 weight gradient of exactly this shape.
        one_wide = x.device.type == "cpu" and 1 < self.conv.stride[-1] >= x.shape[-1]
        with torch.autocast(x.device.type, enabled=False) if one_wide else nullcontext():
            return self.conv(x.to(self.conv.weight.dtype) if one_wide else x)
