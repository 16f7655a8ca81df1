"""Logits of every frame of a recording of any length: when a class is heard, from a network trained on whole clips.

A head is linear and most trunks end in a mean over time, so that the mean over frames of ``head(frame)`` is
``head(mean over frames)``: the logits of every frame are in a trained network already. How they are computed depends
on what its trunk is:

- with strided convolutions and a mean over time, the trunk runs over pieces of the recording that overlap by as much
  as a frame sees; the frames are those of the trunk run over the whole at once;
- with pooling in the spectrum (`SpectralPool`, `DiffStride`), which sees its whole input, it runs over windows as in
  training, each overlapping half of the one before, and the frames of both are cross-faded;
- any other trunk (a maximum over time, a custom class) scores windows that slide by a tenth of their length: a frame
  is the window around it, known to about half a window only.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import UsageError
from ..layers.strides import pooling_layers
from .parts import Trunk

if TYPE_CHECKING:
    from .network import AudioNetwork

SLIDING_FRAMES = 10
"""Frames a window of a trunk that does not end in a mean over time: its windows slide by a tenth of their length."""

_SAMPLES_AT_ONCE = 2**19  # 33 s at 16 kHz; pieces of twice that took longer on a CPU
_ALONG_TIME = (nn.Conv1d, nn.Conv2d, nn.AvgPool1d, nn.AvgPool2d, nn.MaxPool1d, nn.MaxPool2d)


Run = Callable[[Tensor], Tensor]
"""A network, or a file that was exported from it: ``(batch, samples)`` in, ``(batch, frames, n_classes)`` out."""


class FrameGrid(NamedTuple):
    """Where the frames of a model are, and how it is run: frame i is centred at ``first + i * hop`` samples.

    Attributes:
        sample_rate: in Hz.
        hop: samples from frame to frame; a fraction where pooling in the spectrum makes it one.
        first: centre of the first frame, in samples: half the analysis window of a log-mel.
        context: samples on either side that a frame sees; None if the trunk runs over windows.
        window: samples of a window.
        per_window: frames that the trunk makes of a window.
        lead: samples of silence before the first window: half of one where each frame is the window around it.
    """

    sample_rate: int
    hop: float
    first: float
    context: int | None
    window: int
    per_window: int
    lead: int = 0

    @property
    def hop_ms(self) -> float:
        """Time from frame to frame, in ms."""
        return 1000 * self.hop / self.sample_rate

    @property
    def first_ms(self) -> float:
        """Centre of the first frame, in ms."""
        return 1000 * self.first / self.sample_rate

    @property
    def onset_ms(self) -> float:
        """To about how many ms an onset is known, at best: half of what a frame stands for.

        A frame stands for the time to the next one, which is 1 / (2 f) for a cut-off f along time; where each frame is
        the window around it, for that window. `benchmarks/onsets.py` compares it with what is measured.
        """
        return 1000 * max(self.hop / 2, self.lead) / self.sample_rate

    def times_ms(self, start: int, n: int) -> Tensor:
        """Centres of `n` frames from number `start` on, in ms, float64 ``(n,)``."""
        return 1000 / self.sample_rate * (self.first + self.hop * torch.arange(start, start + n, dtype=torch.float64))


@torch.inference_mode()
def frame_grid(model: "AudioNetwork") -> FrameGrid:
    """Where a model's frames are, from running it on one window of silence.

    Raises:
        UsageError: if the model classifies images.

    Example:
        >>> from audiostride import create_model
        >>> model = create_model("audio_resnet_pico_strided", heads={"word": 2})
        >>> grid = frame_grid(model)
        >>> grid.hop_ms, grid.times_ms(0, 2).tolist(), grid.context
        (40.0, [12.5, 52.5], 9600)
    """
    frontend, length = model.frontend, model.window_length
    if frontend.takes_images:
        raise UsageError("this model classifies images, which have no frames")
    rate = frontend.sample_rate
    if not model.trunk.ends_in_mean:
        return FrameGrid(rate, length / SLIDING_FRAMES, 0.0, None, length, 1, lead=length // 2)
    silence, trunk = frontend(model.silence()), model.trunk
    assert frontend.hop_length

    def n_frames(n: int) -> int:  # that come out of the trunk for n that go in
        return trunk.map_sizes(*([n, silence.shape[3]] if frontend.n_mels else [n]))[-1][0]

    per_window = n_frames(silence.shape[2])
    if pooling_layers(model):
        return FrameGrid(rate, length / per_window, frontend.centre, None, length, per_window)
    many = math.factorial(20)  # whole strides divide it
    hop = frontend.hop_length * (many // n_frames(many))
    context = math.ceil((_reach(trunk, silence) * frontend.hop_length + frontend.looks_ahead) / hop) * hop
    return FrameGrid(rate, hop, frontend.centre, context, length, per_window)


def trunk_frames(trunk: Trunk, x: Tensor) -> Tensor:
    """Frames ``(batch, frames, num_features)`` from a frontend's output; one, the embedding, if there is no mean."""
    if not trunk.ends_in_mean:
        return trunk(x)[:, None]
    features = trunk.forward_features(x)
    return (features.mean(-1) if features.dim() == 4 else features).transpose(1, 2)


def frame_blocks(
    model: "AudioNetwork", grid: FrameGrid, blocks: Iterable[np.ndarray | Tensor], block_s: float | None = None
) -> Iterator[dict[str, Tensor]]:
    """Frame logits of a recording that arrives in pieces, in bounded memory.

    Args:
        model: in eval mode.
        grid: from `frame_grid`.
        blocks, block_s: as `run_in_blocks`.

    Yields:
        For each task the logits of the next frames, ``(frames, n_classes)``, on the CPU.

    Raises:
        ValueError: if the recording holds no sample.
    """
    sizes = [len(labels) for labels in model.labels.values()]
    with torch.inference_mode():
        for logits in run_in_blocks(partial(all_frame_logits, model), grid, blocks, block_s):
            yield dict(zip(model.heads, logits.split(sizes, 1), strict=True))


def all_frame_logits(model: "AudioNetwork", waveform: Tensor) -> Tensor:
    """Windows or pieces ``(batch, samples)`` to the frames' logits of all tasks, ``(batch, frames, n_classes)``."""
    frames = trunk_frames(model.trunk, model.frontend(model.take(waveform)))
    return torch.cat([head(frames) for head in model.heads.values()], -1).float().cpu()


def run_in_blocks(
    run: Run, grid: FrameGrid, blocks: Iterable[np.ndarray | Tensor], block_s: float | None = None
) -> Iterator[Tensor]:
    """Frames of a recording that arrives in pieces, from a network or from a file exported with `--frames`.

    Args:
        run: takes windows, or where `grid.context` is a number a piece of any length.
        grid: from `frame_grid`, or from the file: ``FrameGrid(**about["frames"])``.
        blocks: the waveform in pieces ``(samples,)``, at the grid's rate.
        block_s: seconds of new sound to wait for before the model runs; None: as many as it takes at once.

    Yields:
        The next frames, ``(frames, n_classes)``.

    Raises:
        ValueError: if the recording holds no sample.
    """
    wanted = _SAMPLES_AT_ONCE if block_s is None else max(1, round(block_s * grid.sample_rate))
    return (_over_windows if grid.context is None else _over_pieces)(run, grid, blocks, wanted)


def _over_pieces(run: Run, grid: FrameGrid, blocks: Iterable[np.ndarray | Tensor], wanted: int) -> Iterator[Tensor]:
    """Frames of a trunk that sees `context` samples to either side."""
    assert grid.context is not None
    hop, context = round(grid.hop), grid.context
    wanted = max(1, wanted // hop) * hop
    held, left = torch.zeros(0), 0  # `left` samples of what is held are done, and context of what comes
    total = 0
    for block in blocks:
        held, total = torch.cat([held, torch.as_tensor(block)]), total + len(block)
        while len(held) - left >= wanted + context:
            done = left + wanted
            yield run(held[None, : done + context])[0, left // hop : done // hop]
            drop = max(0, done - context)
            held, left = held[drop:], done - drop
    if total == 0:
        raise ValueError("a waveform of at least one sample is needed, got none")
    if total < grid.window:  # as short clips are classified: among silence
        yield run(F.pad(held, (0, grid.window - total))[None])[0, : max(1, math.ceil(total / hop))]
    elif len(held) > left:
        yield run(held[None])[0, left // hop :]


def _over_windows(run: Run, grid: FrameGrid, blocks: Iterable[np.ndarray | Tensor], wanted: int) -> Iterator[Tensor]:
    """Frames of a trunk that runs over windows: cross-faded, or one for each window."""
    n = grid.per_window
    shift = max(1, n // 2)  # frames from window to window
    fade = torch.minimum(torch.arange(1, n + 1), torch.arange(n, 0, -1))[:, None].float()
    tail, done = torch.zeros(0, 0), 0  # weighted sums of frames to come, and their weights
    for windows, last in _windows(blocks, shift, grid, wanted):
        frames = [frame for part in windows.split(64) if len(part) for frame in run(part)]
        sums = torch.zeros(max(len(tail), shift * (len(frames) - 1) + n), tail.shape[1] or frames[0].shape[1] + 1)
        if len(tail):
            sums[: len(tail)] += tail
        for number, part in enumerate(frames):
            sums[number * shift : number * shift + n] += torch.cat([fade * part, fade], dim=1)
        ready = shift * len(windows) if last is None else last - done
        yield sums[:ready, :-1] / sums[:ready, -1:]
        tail, done = sums[ready:], done + ready


def _windows(
    blocks: Iterable[np.ndarray | Tensor], shift: int, grid: FrameGrid, wanted: int
) -> Iterator[tuple[Tensor, int | None]]:
    """Windows that begin every `shift` frames; with the last ones the number of frames in all."""
    held, dropped, number, total = torch.zeros(grid.lead), 0, 0, 0
    length = grid.window

    def take(until: int) -> Tensor:
        nonlocal number
        starts = [round(i * shift * grid.hop) - dropped for i in range(number, until)]
        number = max(number, until)
        return torch.stack([held[start : start + length] for start in starts]) if starts else torch.zeros(0, length)

    for block in blocks:
        held, total = torch.cat([held, torch.as_tensor(block)]), total + len(block)
        if len(held) >= length + wanted:
            until = math.floor((dropped + len(held) - length) / (shift * grid.hop)) + 1
            yield take(until), None
            cut = round(number * shift * grid.hop) - dropped
            held, dropped = held[cut:], dropped + cut
    if total == 0:
        raise ValueError("a waveform of at least one sample is needed, got none")
    n_frames = max(1, math.ceil(total / grid.hop - 1e-6))
    held = F.pad(held, (0, 2 * length))
    yield take(max(1, math.ceil((n_frames - grid.per_window) / shift) + 1)), n_frames


def _reach(trunk: Trunk, x: Tensor) -> float:
    """How many of the trunk's input frames ``(batch, channel, time, ...)`` a frame sees to either side.

    A convolution of k frames reaches (k - 1) / 2 of its own input's, an average k - 1; one of those is no more than
    N / (n - 1) of the N that went into the trunk, where the layer is given n. Summed over all layers, shortcuts
    included: at least what a frame sees, and not much more.
    """
    frames = [0.0]

    def meet(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        kernel = np.ravel(layer.kernel_size)[0] - 1  # type: ignore[arg-type]
        own = kernel / 2 if isinstance(layer, nn.Conv1d | nn.Conv2d) else kernel
        frames[0] += own * x.shape[2] / max(1, inputs[0].shape[2] - 1)

    handles = [m.register_forward_pre_hook(meet) for m in trunk.modules() if isinstance(m, _ALONG_TIME)]
    try:
        trunk.forward_features(x)
    finally:
        for handle in handles:
            handle.remove()
    return frames[0]
