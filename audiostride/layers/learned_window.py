"""`LearnedWindow`: a Hann window whose length is learned by gradient descent."""

import math

import torch
from torch import Tensor, nn


class LearnedWindow(nn.Module):
    """A periodic Hann window of real, learned length L in samples, on a fixed support.

    It is ``(1 - cos(2 pi n / L)) / 2`` for 0 <= n < L and 0 above, scaled so that every length has the same power. The
    window and its slope are 0 at both ends, so it is differentiable in L where samples enter it. The parameter is
    log2 L, in octaves: a step of 0.06 changes the length by 4 %, about what it changes a stride of 1.5.

    Args:
        length: initial length, in samples.
        support: length of the support, in samples: the longest window.
        shortest: the shortest window that `clamp_strides_` leaves, in samples.
        power: sum of the squares of the window; None: that of the initial one.

    Attributes:
        log2_length: parameter of shape ``(1,)``; a buffer once frozen.

    Raises:
        ValueError: if the length is not between the shortest and the support.

    Source:
        After Leiber et al. 2022, "Differentiable short-time Fourier transform with respect to the window length".

    Example:
        >>> window = LearnedWindow(400.0, support=1024)
        >>> torch.allclose(window()[:400], torch.hann_window(400), atol=1e-6), window().shape
        (True, torch.Size([1024]))
    """

    log2_length: Tensor

    def __init__(self, length: float, support: int, shortest: float = 2.0, power: float | None = None):
        super().__init__()
        if not 2 <= shortest <= length <= support:
            raise ValueError(f"a window must be between {shortest:g} and {support} samples long, got {length:g}")
        self.support, self.shortest = support, shortest
        self.power = 3 / 8 * length if power is None else power
        self.log2_length = nn.Parameter(torch.tensor([math.log2(length)]))
        self._frozen: int | None = None

    def length(self) -> float:
        """Current length in samples, on the host."""
        return 2 ** self.log2_length.item()

    def forward(self) -> Tensor:
        """The window, ``(support,)``; once frozen no longer than it is."""
        return hann(self.log2_length.exp2(), self._frozen or self.support, self.power)

    def freeze_strides(self) -> None:
        """Turn the length into a constant, see `DiffStride.freeze_strides`."""
        if self._frozen is None:
            self._frozen, value = math.ceil(self.length()), self.log2_length.detach()
            del self.log2_length
            self.register_buffer("log2_length", value)

    @torch.no_grad()
    def clamp_(self) -> None:
        """Clamp the length to what is allowed, in place."""
        self.log2_length.clamp_(math.log2(self.shortest), math.log2(self.support))


def hann(length: Tensor, support: int, power: float) -> Tensor:
    """A periodic Hann window of real length on a support of samples, differentiable in the length.

    Args:
        length: one number, in samples.
        support: samples of the result.
        power: sum of its squares, whatever the length.

    Returns:
        Shape ``(support,)``, in the precision of `length`.

    Example:
        >>> [round(hann(torch.tensor(length), 8, 3.0).square().sum().item(), 3) for length in (4.0, 5.3, 8.0)]
        [3.0, 3.0, 3.0]
    """
    n = torch.arange(support, dtype=length.dtype, device=length.device)
    window = (1 - (2 * torch.pi * n / length).cos()) / 2 * (n < length)
    return window * (power / window.square().sum()).sqrt()
