"""Splitting a clip into the windows a model is trained on."""

import torch
from torch import Tensor
from torch.nn import functional as F


def split_windows(waveform: Tensor, window_length: int, pad_last: bool = False) -> Tensor:
    """Split a clip into non-overlapping windows, as evaluation does.

    A last window shorter than half a window is dropped unless it is the only one; a longer one is
    filled up with silence. A clip shorter than one window lies in its centre.

    Args:
        waveform: shape ``(samples,)``.
        window_length: in samples.
        pad_last: keep the last window however short it is.

    Returns:
        Shape ``(n_windows, window_length)``, at least one window.

    Raises:
        ValueError: if the waveform is empty or has more than one axis.

    Example:
        >>> split_windows(torch.ones(25), 10).shape, split_windows(torch.ones(24), 10).shape
        (torch.Size([3, 10]), torch.Size([2, 10]))
        >>> split_windows(torch.ones(2), 6)
        tensor([[0., 0., 1., 1., 0., 0.]])
    """
    if waveform.dim() != 1 or len(waveform) == 0:
        raise ValueError(f"a waveform of shape (samples,) is needed, got {tuple(waveform.shape)}")
    n = len(waveform)
    if n < window_length:
        before = (window_length - n) // 2
        return F.pad(waveform, (before, window_length - n - before)).unsqueeze(0)
    n_windows, rest = divmod(n, window_length)
    if rest and (pad_last or 2 * rest >= window_length):
        n_windows += 1
        waveform = F.pad(waveform, (0, window_length - rest))
    return waveform[: n_windows * window_length].view(n_windows, window_length)


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
