"""`ImageFrontend`: the frontend before a trunk that sees colour images."""

from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from .parts import NOT_SOUND, Frontend


class ImageFrontend(Frontend):
    """Normalises the colours of images; a clip is an image, its one window a view of it.

    Args:
        size: pixels on a side of a view.

    Attributes:
        mean: mean of each colour, 0 to 1, float32 ``(3, 1, 1)``; set by `normalise_by`, saved with the weights.
        std: standard deviation of each colour.
        hop_length: None, there are no frames; so are `frame_rate` and `n_mels`.
        settings: the arguments it was made with.

    Raises:
        ValueError: if the size is not positive.

    Example:
        >>> ImageFrontend(32)(torch.zeros(4, 32, 32, 3, dtype=torch.uint8)).shape
        torch.Size([4, 3, 32, 32])
    """

    name = "images"
    gives = "images"
    why_no_cutoffs = NOT_SOUND
    hop_length = frame_rate = n_mels = None
    mean: Tensor
    std: Tensor

    def __init__(self, size: Annotated[int, Field(ge=8, le=1024)] = 32):
        super().__init__()
        if size < 1:
            raise ValueError(f"the size must be positive, got {size} pixels")
        self.settings = {"size": size}
        self.size = size
        self.register_buffer("mean", torch.full((3, 1, 1), 0.5))
        self.register_buffer("std", torch.full((3, 1, 1), 0.25))

    @property
    def resolution(self) -> int:
        return self.size

    def silence(self, length: int) -> Tensor:
        return torch.zeros(1, length, length, 3, dtype=torch.uint8)

    def normalise_by(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Set mean and standard deviation of each colour, 0 to 1."""
        self.mean.copy_(torch.tensor(mean).view(3, 1, 1))
        self.std.copy_(torch.tensor(std).view(3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Map images ``(batch, height, width, 3)`` with values from 0 to 255 to ``(batch, 3, height, width)``."""
        return (images.permute(0, 3, 1, 2).float() / 255 - self.mean) / self.std
