"""`ConvertedTrunk`: a network of `image_nets` whose downsampling is strided, spectral or learned."""

from collections.abc import Sequence

from torch import Tensor, nn

from ..layers.conversion import InitialStrides, replace_downsampling
from ..layers.downsampling import DiffStride, SpectralPool
from ..layers.parallel_branches import find_downsampling
from ..layers.strides import model_aliasing
from .audio_cnn import Downsampling
from .image_nets import DenseNetBC, EfficientNetB0

NETWORKS = {"efficientnet_b0": EfficientNetB0, "densenet_bc": DenseNetBC}
PLACES = {
    # The depthwise convolution of the first block of each of the seven stages; the stem stays as it is.
    "efficientnet_b0": [f"features.{first}.block.{int(first > 1)}.0" for first in (1, 2, 4, 6, 9, 12, 16)],
    "densenet_bc": None,
}
"""The layers of a network whose stride is learned; None: all that downsample."""


class ConvertedTrunk(nn.Module):
    """A network of the paper's appendix with any kind of downsampling.

    Args:
        name: "efficientnet_b0" (seven places, three of them of stride 1) or "densenet_bc" (L = 100, k = 12;
            the two average pools between its blocks).
        downsampling: "strided" is the network as it is.
        strides: initial strides, see `replace_downsampling`; None: those the network has.
        smoothness: DiffStride's ramp width R >= 1, in DFT bins.
        shared_stride: each place learns one stride for both axes.

    Attributes:
        num_features: length of an embedding.

    Raises:
        ValueError: if an argument is out of range, or strided downsampling is to start from other strides.

    Example:
        >>> import torch
        >>> net = ConvertedTrunk("densenet_bc", strides=1.5, smoothness=1).eval()
        >>> net(torch.zeros(2, 3, 32, 32)).shape, net.strides()
        (torch.Size([2, 342]), [[1.5, 1.5], [1.5, 1.5]])
    """

    def __init__(
        self,
        name: str,
        downsampling: Downsampling = "diffstride",
        strides: InitialStrides = None,
        smoothness: float = 4.0,
        shared_stride: bool = False,
    ):
        super().__init__()
        if name not in NETWORKS:
            raise ValueError(f"name must be {' or '.join(NETWORKS)}, got {name!r}")
        self.net = NETWORKS[name]()
        self.num_features = self.net.num_features
        places = PLACES[name]
        if downsampling == "strided":
            if strides is not None:
                raise ValueError("strided downsampling keeps the network's own strides, so it takes none")
            self._fixed = [list(map(float, group.stride)) for group in find_downsampling(self.net)]
            return
        still = [place for place in places or [] if self.net.get_submodule(place).stride == (1, 1)]
        replace_downsampling(self.net, downsampling, smoothness, shared_stride, places, strides, still)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(batch, 3, height, width)`` to an embedding ``(batch, num_features)``."""
        return self.net(x)

    def strides(self) -> list[list[float]]:
        """Current stride of each axis of each place, from input to output; of all that downsample if strided."""
        pools: Sequence[nn.Module] = [m for m in self.net.modules() if isinstance(m, (DiffStride, SpectralPool))]
        if not pools:
            return self._fixed
        return [pool.strides() if isinstance(pool, DiffStride) else list(pool.stride) for pool in pools]  # type: ignore[arg-type]

    def aliasing(self) -> list[list[float]] | None:
        """Current aliasing of each axis of each place; None: none is learned."""
        return model_aliasing(self.net)
