"""The residual block of a `ResNet`, whose two branches share what downsamples them."""

from torch import Tensor, nn

from ..layers.downsampling import Downsampling, make_pool
from ..layers.pooling import Aliasing
from ..layers.strided_conv import PointwiseConv

Stride = tuple[float, float]


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut around them; at most the first one downsamples.

    With spectral or learned strides one pooling layer follows the first convolution and serves the
    shortcut, too. Pooling and the shortcut's 1x1 convolution commute, so the shortcut pools first
    and convolves the smaller map.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        downsampling: "strided", "spectral" or "diffstride".
        stride: (time, mel) stride, for diffstride the initial one; None: this block keeps its input's size.
        smoothness: DiffStride's ramp width R, in DFT bins.
        shared_stride: one learned stride for both axes.
        pre_activation: batch norm and ReLU before each convolution (He et al. 2016), not after it.
        activated_shortcut: with pre-activation, a 1x1 convolution of the shortcut sees the activated
            input (He et al. 2016); False: the input itself, as in the code published with DiffStride.
        as_published: pool as that code does, see `layers.published`.
        aliasing: where the pooling layer's learned aliasing starts, see `DiffStride`; None: no aliasing.
        pool_after_relu: pool the first convolution's output after its batch norm and ReLU, not before.

    Raises:
        ValueError: if a stride is below 1, or not whole where it is a strided convolution's.

    Example:
        >>> import torch
        >>> block = ResidualBlock(8, 16, "diffstride", (2.0, 1.5), smoothness=1)
        >>> block(torch.zeros(4, 8, 50, 32)).shape
        torch.Size([4, 16, 27, 23])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        downsampling: Downsampling = "diffstride",
        stride: Stride | None = None,
        smoothness: float = 4.0,
        shared_stride: bool = False,
        pre_activation: bool = False,
        activated_shortcut: bool = True,
        as_published: bool = False,
        aliasing: Aliasing = None,
        pool_after_relu: bool = False,
    ):
        super().__init__()
        pool = make_pool(downsampling, stride, smoothness, shared_stride, aliasing, as_published)
        self.pool = nn.Identity() if pool is None else pool
        conv_stride = whole_strides(downsampling, stride)
        self.pre_activation = pre_activation
        self.activated_shortcut = activated_shortcut
        self.pool_after_relu = pool_after_relu
        self.conv1 = make_conv(in_channels, out_channels, 3, conv_stride)
        self.norm1 = nn.BatchNorm2d(in_channels if pre_activation else out_channels)
        self.conv2 = make_conv(out_channels, out_channels, 3)
        self.norm2 = nn.BatchNorm2d(out_channels)
        project = in_channels != out_channels or conv_stride != (1, 1)
        self.shortcut = make_conv(in_channels, out_channels, 1, conv_stride) if project else nn.Identity()
        self.shortcut_norm = nn.BatchNorm2d(out_channels) if project and not pre_activation else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(batch, in_channels, time, mel)`` to ``(batch, out_channels, time', mel')``."""
        if self.pre_activation:
            active = self.norm1(x).relu()
            main = self.conv2(self._downsample(self.conv1(active), self.norm2))
            projected = not isinstance(self.shortcut, nn.Identity)  # only a projection may see the activation
            return main + self.shortcut(self.pool(active if projected and self.activated_shortcut else x))
        main = self.norm2(self.conv2(self._downsample(self.conv1(x), self.norm1)))
        return (main + self.shortcut_norm(self.shortcut(self.pool(x)))).relu()

    def _downsample(self, x: Tensor, norm: nn.Module) -> Tensor:
        return self.pool(norm(x).relu()) if self.pool_after_relu else norm(self.pool(x)).relu()


def make_conv(in_channels: int, out_channels: int, kernel: int, stride: tuple[int, int] = (1, 1)) -> nn.Conv2d:
    """A square convolution with zero padding of half its kernel, without a bias: a batch norm or a sum follows."""
    form = PointwiseConv if kernel == 1 else nn.Conv2d
    return form(in_channels, out_channels, kernel, stride, padding=kernel // 2, bias=False)


def whole_strides(downsampling: str, stride: Stride | None) -> tuple[int, int]:
    """Stride of a convolution that downsamples by itself if it is to be strided, else 1.

    Raises:
        ValueError: if it is not whole or below 1.

    Example:
        >>> whole_strides("strided", (2, 1)), whole_strides("diffstride", (2.5, 1))
        ((2, 1), (1, 1))
    """
    if downsampling != "strided" or stride is None:
        return 1, 1
    if any(s < 1 or s != int(s) for s in stride):
        raise ValueError(f"a strided convolution takes whole strides of at least 1, got {tuple(stride)}")
    return int(stride[0]), int(stride[1])
