"""`Downsampling`: one value for how every place of a network downsamples.

It makes the pooling layer of a place and the stride of its convolution. A new kind of downsampling needs its layer (in
`downsampling`) and its name here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from .downsampling import Aliasing, DiffStride, SpectralPool
from .published import PublishedDiffStride, PublishedSpectralPool
from .spectrum import diffstride_band, spectral_band
from .strided_conv import whole

Kind = Literal["strided", "spectral", "diffstride"]


@dataclass(frozen=True)
class Downsampling:
    """How a network downsamples: strided convolutions, spectral pooling or learned strides, and their settings.

    Args:
        kind: "strided" (strided convolutions), "spectral" (`SpectralPool`, fixed strides) or "diffstride"
            (`DiffStride`, learned strides).
        smoothness: width R >= 1 of DiffStride's ramp, in DFT bins. The paper's 4 costs several times the arithmetic
            of 1, see docs/cost.md.
        shared_stride: each place learns one stride for all axes.
        aliasing: where the learned aliasing of each place and axis starts, in [0, 1]; several numbers, such as
            (0, 1), for as many equal groups of channels; None: there is none. Not for strided convolutions, which
            alias in full. See `DiffStride`.
        after_relu: pool behind a ReLU, which then sees what pooling removes. Costs convolutions at full resolution.
            Not for strided convolutions, which downsample before any ReLU.
        as_published: pool as the code published with DiffStride does, see `layers.published`.

    Raises:
        ValueError: if the kind is unknown, or does not have what is asked for.

    Example:
        >>> down = Downsampling("diffstride", smoothness=1, aliasing=0.25)
        >>> down.pool((2, 1.5)), down.conv_stride((2, 1.5))
        (DiffStride(stride=[2.0, 1.5], smoothness=1.0, crop=True, aliasing=[0.25, 0.25]), (1, 1))
        >>> strided = Downsampling("strided")
        >>> strided.pool((2, 1)), strided.conv_stride((2, 1))
        (None, (2, 1))
    """

    kind: Kind
    smoothness: float = 4.0
    shared_stride: bool = False
    aliasing: Aliasing = None
    after_relu: bool = False
    as_published: bool = False

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ValueError(f"downsampling must be one of {get_args(Kind)}, got {self.kind!r}")
        if self.kind == "strided" and self.aliasing is not None:
            raise ValueError(
                f"strided convolutions have no aliasing to learn, they alias in full; got aliasing={self.aliasing}, "
                "which spectral and diffstride downsampling take"
            )
        if self.kind == "strided" and self.after_relu:
            raise ValueError(
                "strided convolutions downsample before any ReLU; got pool_after_relu=True, "
                "which spectral and diffstride downsampling take"
            )
        if self.as_published and self.aliasing is not None:
            raise ValueError(f"the published layer has no aliasing, got aliasing={self.aliasing}; drop one of the two")

    @property
    def pools(self) -> bool:
        """Whether pooling layers downsample, not convolutions."""
        return self.kind != "strided"

    def pool(self, stride: float | Sequence[float] | None) -> SpectralPool | DiffStride | None:
        """The pooling layer of a place; None where a convolution downsamples, or `stride` is None.

        Args:
            stride: of each axis, for diffstride the initial one; a number is one axis.
        """
        if not self.pools or stride is None:
            return None
        if self.kind == "spectral":
            return PublishedSpectralPool(stride) if self.as_published else SpectralPool(stride, self.aliasing)
        if self.as_published:
            return PublishedDiffStride(stride, self.smoothness, self.shared_stride)
        return DiffStride(stride, self.smoothness, self.shared_stride, aliasing=self.aliasing)

    def conv_stride(self, stride: Sequence[float] | None) -> tuple[int, ...]:
        """Stride of a convolution at a place: 1 on each axis unless it downsamples. None is two axes not downsampled.

        Raises:
            ValueError: if a strided convolution's is not a whole number of at least 1.
        """
        if self.pools or stride is None:
            return (1,) * len(stride or (1, 1))
        return whole(stride)

    def band(self, n: int, stride: float, aliasing: float = 0.0) -> tuple[float, float, float] | None:
        """DFT bins of an axis that a place keeps in full, at half the amplitude, and at all; None without a mask.

        Args:
            n: length of the axis before the place.
            stride: its stride now.
            aliasing: its alpha now, the mean over groups of channels.
        """
        if not self.pools:
            return None
        return (
            spectral_band(n, stride)
            if self.kind == "spectral"
            else (diffstride_band(n, stride, self.smoothness, aliasing))
        )

    def check_groups(self, channels: Sequence[int] = ()) -> None:
        """Refuse aliasing of groups of channels that there cannot be.

        Args:
            channels: of each place of a network whose groups of channels may have an alpha of their own.

        Raises:
            ValueError: if the channels cannot be split into as many groups.
        """
        if not isinstance(self.aliasing, Sequence):
            return
        if not channels:
            raise ValueError(
                f"aliasing of groups of channels is for AudioCNN and ResNet only; give one number, got {self.aliasing}"
            )
        if odd := [width for width in channels if self.aliasing and width % len(self.aliasing)]:
            raise ValueError(
                f"{odd[0]} channels cannot be split into {len(self.aliasing)} equal groups for their aliasing"
            )
