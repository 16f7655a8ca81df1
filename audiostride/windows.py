"""Splitting a clip into the windows a model is trained on."""

from numbers import Real

import torch
from torch import Tensor
from torch.nn import functional as F


def window_hop(window_length: int, overlap: float) -> int:
    """Samples from one window to the next, at least 1.

    Args:
        window_length: in samples.
        overlap: share of a window that the next one holds too, from 0 up to but not including 1.

    Raises:
        ValueError: if the overlap is out of range.

    Example:
        >>> window_hop(16000, 0.0), window_hop(16000, 0.75)
        (16000, 4000)
    """
    if not isinstance(overlap, Real) or not 0 <= overlap < 1:
        raise ValueError(f"overlap must be at least 0 and less than 1, got {overlap!r}")
    return max(1, round((1 - overlap) * window_length))


def split_windows(waveform: Tensor, window_length: int, overlap: float = 0.0) -> Tensor:
    """Split a clip into windows, as evaluation does, so that all of it is heard.

    A window begins every `window_hop` samples. Where the last of them ends before the clip does, one more ends with the
    clip; it shares more with the window before than the others do. A clip shorter than one window lies in its centre,
    between silence.

    Args:
        waveform: shape ``(samples,)``.
        window_length: in samples.
        overlap: see `window_hop`.

    Returns:
        Shape ``(n_windows, window_length)``, at least one window.

    Raises:
        ValueError: if the waveform is empty or has more than one axis, or the overlap is out of range.

    Example:
        >>> split_windows(torch.arange(10), 4)
        tensor([[0, 1, 2, 3],
                [4, 5, 6, 7],
                [6, 7, 8, 9]])
        >>> split_windows(torch.ones(2), 6)
        tensor([[0., 0., 1., 1., 0., 0.]])
        >>> split_windows(torch.arange(8), 4, overlap=0.5)
        tensor([[0, 1, 2, 3],
                [2, 3, 4, 5],
                [4, 5, 6, 7]])
    """
    parts = window_parts(waveform, window_length, overlap)
    return torch.cat(parts) if len(parts) > 1 else parts[0]


def window_parts(waveform: Tensor, window_length: int, overlap: float = 0.0) -> list[Tensor]:
    """The windows of `split_windows` in one or two parts, each a view of the waveform that takes no memory.

    Example:
        >>> [tuple(part.shape) for part in window_parts(torch.zeros(25), 10)]
        [(2, 10), (1, 10)]
    """
    if waveform.dim() != 1 or len(waveform) == 0:
        raise ValueError(f"a waveform of shape (samples,) is needed, got {tuple(waveform.shape)}")
    n, hop = len(waveform), window_hop(window_length, overlap)
    if n < window_length:
        before = (window_length - n) // 2
        return [F.pad(waveform, (before, window_length - n - before)).unsqueeze(0)]
    windows = waveform.unfold(0, window_length, hop)
    return [windows, waveform[None, -window_length:]] if (n - window_length) % hop else [windows]


def mean_over_windows(values: Tensor, clip: Tensor, n_clips: int) -> Tensor:
    """Average the rows that belong to the same clip.

    Args:
        values: shape ``(n_windows, n)``.
        clip: number of each row's clip, int64 of shape ``(n_windows,)``; every clip has a row.
        n_clips: number of clips.

    Returns:
        Shape ``(n_clips, n)``.

    Example:
        >>> mean_over_windows(torch.tensor([[1.0], [3.0], [5.0]]), torch.tensor([0, 0, 1]), 2)
        tensor([[2.],
                [5.]])
    """
    total = torch.zeros(n_clips, values.shape[1], dtype=values.dtype, device=values.device).index_add_(0, clip, values)
    return total / torch.bincount(clip, minlength=n_clips)[:, None]
