"""Mixup: every clip of a batch is heard together with another one, and its labels are mixed in proportion.

A network that is trained so is less sure of clips that are not mixed than it could be; calibration undoes that.
"""

import numpy as np
import torch
from torch import Tensor, nn


def mix_pairs(
    waveform: Tensor,
    labels: dict[str, Tensor],
    n_classes: dict[str, int],
    alpha: float,
    rng: np.random.Generator,
    between_class: bool = False,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Mix every clip of a batch with another one, each pair by a share of its own.

    Args:
        waveform: shape ``(batch, samples)``, or views of images.
        labels: for each task class numbers ``(batch,)`` or shares of the classes ``(batch, n_classes)``.
        n_classes: of each task.
        alpha: the share of the first clip of a pair is drawn from Beta(alpha, alpha); 1: evenly from 0 to 1.
        rng: where the draws come from.
        between_class: mix the sounds so that their shares are what is heard, see `audible_mix`.

    Returns:
        The mixed waveforms, and for each task shares of the classes, float32 ``(batch, n_classes)``.

    Source:
        Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018; with `between_class` Tokozume et al.,
        "Learning from Between-class Examples for Deep Sound Recognition", ICLR 2018 (there alpha is 1, and only clips
        of different classes are paired).

    Example:
        >>> rng = np.random.default_rng(0)
        >>> mixed, labels = mix_pairs(torch.eye(2), {"a": torch.tensor([0, 1])}, {"a": 2}, 1.0, rng)
        >>> torch.allclose(mixed, labels["a"]) and torch.allclose(labels["a"].sum(1), torch.ones(2))
        True
    """
    n = len(waveform)
    share = torch.from_numpy(rng.beta(alpha, alpha, n)).float()
    order = torch.from_numpy(rng.permutation(n))
    other = torch.empty_like(order)
    other[order] = order.roll(1)  # one round through all clips: none meets itself
    mixed = {}
    for task, numbers in labels.items():
        soft = nn.functional.one_hot(numbers, n_classes[task]).float() if numbers.dim() == 1 else numbers
        mixed[task] = share[:, None] * soft + (1 - share[:, None]) * soft[other]
    if between_class:
        return audible_mix(waveform, waveform[other], share), mixed
    weight = share.view(-1, *[1] * (waveform.dim() - 1))
    return weight * waveform + (1 - weight) * waveform[other], mixed


def audible_mix(first: Tensor, second: Tensor, share: Tensor) -> Tensor:
    """Add two sounds up so that their amplitudes are as `share` to ``1 - share``, however loud each one was.

    With levels G1 and G2 in dB the first one's weight is ``p = 1 / (1 + 10^((G1 - G2) / 20) (1 - share) / share)``,
    and the sum is divided by ``sqrt(p^2 + (1 - p)^2)``, the energy of sounds that have nothing in common. A level
    here is that of the window's RMS, without the paper's A-weighting, as the sounds need not be for human ears. Beside
    silence there is no such weight; p is the share then.

    Args:
        first: shape ``(batch, samples)``.
        second: of the same shape.
        share: of the first one, 0 to 1, shape ``(batch,)``.

    Returns:
        Shape ``(batch, samples)``.

    Source:
        Tokozume et al. 2018, Eq. 2.

    Example:
        >>> loud, soft = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 0.01]])
        >>> mixed = audible_mix(loud, soft, torch.tensor([0.75]))[0]
        >>> round(float(mixed[0] / mixed[1]), 4)
        3.0
    """
    level, other = (sound.double().square().mean(1).sqrt() for sound in (first, second))
    whole = share * other + (1 - share) * level
    weight = torch.where((level > 0) & (other > 0) & (whole > 0), share * other / whole, share.double())
    scale = (weight.square() + (1 - weight).square()).rsqrt()
    return (weight * scale).float()[:, None] * first + ((1 - weight) * scale).float()[:, None] * second
