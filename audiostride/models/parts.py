"""What a frontend or a trunk says of itself, so that nobody needs to ask for its class."""

import torch
from torch import Tensor, nn

NOT_SOUND = "this model classifies images, and cut-offs are for sounds"


class Part(nn.Module):
    """A frontend or a trunk.

    Attributes:
        source: "PACKAGE.MODULE:CLASS" if it wraps a custom class, else None.
        why_no_cutoffs: why what it learns cannot be said in Hz; "" if it can.
    """

    source: str | None = None
    why_no_cutoffs: str = ""

    @property
    def title(self) -> str:
        """The name of its class, or of the custom one that it wraps."""
        return self.source or type(self).__name__


class SoundFrontend(Part):
    """A frontend that takes waveforms.

    Attributes:
        sample_rate: of the waveforms, in Hz.
    """

    takes_images = False
    sample_rate: int

    @property
    def resolution(self) -> int:
        """What a clip is read at: the sample rate in Hz."""
        return self.sample_rate

    def silence(self, length: int) -> Tensor:
        """A waveform ``(1, samples)`` of zeros."""
        return torch.zeros(1, length)
