"""`ConvertedTrunk`: a network of `image_nets` whose downsampling is strided, spectral or learned."""

from typing import Any

import torch
from torch import Tensor, nn

from ..layers.choice import Downsampling, Kind
from ..layers.conversion import InitialStrides, replace_downsampling
from ..layers.downsampling import Alpha, DiffStride, SpectralPool
from ..layers.parallel_branches import find_downsampling
from ..layers.strides import model_aliasing
from .image_nets import DenseNetBC, EfficientNetB0
from .parts import NOT_SOUND, Part

NETWORKS = {"efficientnet_b0": EfficientNetB0, "densenet_bc": DenseNetBC}
PLACES = {
    # The depthwise convolution of the first block of each of the seven stages; the stem stays as it is.
    "efficientnet_b0": [f"features.{first}.block.{int(first > 1)}.0" for first in (1, 2, 4, 6, 9, 12, 16)],
    "densenet_bc": None,
}
"""The layers of a network whose stride is learned; None: all that downsample."""


class ConvertedTrunk(Part):
    """A network of the paper's appendix with any kind of downsampling.

    Args:
        network: "efficientnet_b0" (seven places, three of them of stride 1) or "densenet_bc" (L = 100, k = 12;
            the two average pools between its blocks).
        downsampling: "strided" is the network as it is.
        strides: initial strides, see `replace_downsampling`; None: those the network has.
        smoothness: DiffStride's ramp width R >= 1, in DFT bins.
        shared_stride: each place learns one stride for both axes.
        aliasing: where the learned aliasing of each place and axis starts, see `AudioCNN`; None: no aliasing.
        in_channels: colours of an image, three.

    Attributes:
        num_features: length of an embedding.
        settings: the arguments it was made with; `strides` are the initial ones, drawn if they were random.

    Raises:
        ValueError: if an argument is out of range, or strided downsampling is to start from other strides.

    Example:
        >>> net = ConvertedTrunk("densenet_bc", strides=1.5, smoothness=1).eval()
        >>> net(torch.zeros(2, 3, 32, 32)).shape, net.strides()
        (torch.Size([2, 342]), [[1.5, 1.5], [1.5, 1.5]])
    """

    why_no_cutoffs = NOT_SOUND

    def __init__(
        self,
        network: str,
        downsampling: Kind = "diffstride",
        strides: InitialStrides = None,
        smoothness: float = 4.0,
        shared_stride: bool = False,
        aliasing: float | None = None,
        in_channels: int = 3,
    ):
        super().__init__()
        if network not in NETWORKS:
            raise ValueError(f"network must be {' or '.join(NETWORKS)}, got {network!r}")
        if in_channels != 3:
            raise ValueError(f"{network} takes three colours, got in_channels={in_channels}")
        Downsampling(downsampling, smoothness, shared_stride, aliasing).check_groups()
        self.net = NETWORKS[network]()
        self.num_features = self.net.num_features
        self.settings: dict[str, Any] = {
            "network": network,
            "downsampling": downsampling,
            "strides": None,
            "smoothness": smoothness,
            "shared_stride": shared_stride,
            "aliasing": aliasing,
            "in_channels": in_channels,
        }
        places = PLACES[network]
        still = [place for place in places or [] if self.net.get_submodule(place).stride == (1, 1)]
        groups = find_downsampling(self.net, still)
        groups = [group for group in groups if places is None or set(group.layers) & set(places)]
        self._layers = [group.layers[0] for group in groups]
        if downsampling == "strided":
            if strides is not None:
                raise ValueError("strided downsampling keeps the network's own strides, so it takes none")
            self._fixed = [list(map(float, group.stride)) for group in groups]
            return
        replace_downsampling(self.net, downsampling, smoothness, shared_stride, places, strides, still, aliasing)
        self.settings["strides"] = self.strides()

    @property
    def blocks(self) -> list[nn.Module]:
        """The parts of the network, from input to output."""
        return list(self.net.features)

    def forward_features(self, x: Tensor) -> Tensor:
        """Map ``(batch, 3, height, width)`` to the feature map ``(batch, channel, height', width')``."""
        return self.net.features(x)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(batch, 3, height, width)`` to an embedding ``(batch, num_features)``."""
        return self.net(x)

    def strides(self) -> list[list[float]]:
        """Current (height, width) stride of each place, learned or fixed."""
        return [m.strides() for m in self.net.modules() if isinstance(m, DiffStride | SpectralPool)] or self._fixed

    def aliasing(self) -> list[list[Alpha]] | None:
        """Current aliasing of each axis of each place; None: none is learned."""
        return model_aliasing(self.net)

    @torch.no_grad()
    def map_sizes(self, height: int, width: int) -> list[tuple[int, int]]:
        """Size (height, width) of the map before each place, and of the last feature map; runs the network once.

        Example:
            >>> ConvertedTrunk("efficientnet_b0", "strided").map_sizes(128, 128)
            [(64, 64), (64, 64), (32, 32), (16, 16), (8, 8), (8, 8), (4, 4), (4, 4)]
        """
        sizes: list[tuple[int, int]] = []

        def note(_: nn.Module, inputs: tuple[Tensor]) -> None:
            sizes.append((inputs[0].shape[-2], inputs[0].shape[-1]))

        hooks = [self.net.get_submodule(name).register_forward_pre_hook(note) for name in self._layers]
        was_training = self.training
        try:
            last = self.eval().forward_features(next(self.parameters()).new_zeros(1, 3, height, width))
        finally:
            self.train(was_training)
            for hook in hooks:
                hook.remove()
        return [*sizes, (last.shape[-2], last.shape[-1])]
