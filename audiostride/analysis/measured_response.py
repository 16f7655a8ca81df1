"""Measured responses of a trained network, compared with what its strides predict.

`layer_responses` compares each DiffStride layer's output with its own input, inside the running
network: the ratio must be the layer's mask, and with aliasing alpha mask + alpha (1 - mask), where each
bin above the layer's Nyquist frequency is looked for in the output's bin that it must land on.
`ripple_response` sends moving ripples, as sound, through the whole network. There the analysis window,
the mel filters and the non-linearities act too, so the predicted pass-band is only a part of what it shows.
"""

import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..data.ripples import SAMPLE_RATE, ripple
from ..layers.downsampling import SpectralDownsampling
from ..models.adaptive_log_mel import AdaptiveLogMel
from ..models.audio_cnn import AudioCNN
from ..models.audio_resnet import AudioResNet
from ..models.classifier import AudioClassifier
from ..models.cutoffs import AXES
from ..models.log_mel import LogMel
from ..models.network import SpectrogramTrunk, spectrogram_cnn

RATES_HZ = (1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 10.0, 12.0, 16.0, 20.0, 24.0, 28.0, 32.0, 40.0)
SCALES = (0.0, 0.02, 0.04, 0.06, 0.08, 0.10, 0.12, 0.15, 0.18, 0.21, 0.25, 0.30)
"""Default grid; above 40 Hz and 0.3 cycles per band the sound itself no longer carries the ripple."""

_DEPTH_DB = 10.0
_MEASURABLE = 1e-9  # share of a map's energy below which a bin holds rounding errors only


class LayerResponse(NamedTuple):
    """Gain of one DiffStride layer along one axis, bin by bin.

    Attributes:
        layer: number of the block, from 1.
        axis: "time" or "mel".
        modulation: the DFT bins of the layer's input, in Hz or cycles per mel band.
        mask: the gain that stride and aliasing predict, 0 to 1.
        measured: amplitude of the output over that of the input; None where the input has none.
    """

    layer: int
    axis: str
    modulation: list[float]
    mask: list[float]
    measured: list[float | None]

    @property
    def error(self) -> float:
        """Largest difference between measured gain and mask."""
        return max(abs(m - p) for m, p in zip(self.measured, self.mask, strict=True) if m is not None)


class RippleResponse(NamedTuple):
    """Responses to moving ripples, each grid of shape ``(rates, scales)`` and scaled to a maximum of 1.

    Attributes:
        rates_hz: temporal modulations of the grid.
        scales: spectral modulations of the grid, in cycles per mel band.
        frontend: how far the log-mel spectrogram follows the ripple's phase.
        follows: how far the last feature map follows the ripple's phase.
        notices: how far the last feature map differs from that of the same noise without a ripple.
    """

    rates_hz: list[float]
    scales: list[float]
    frontend: list[list[float]]
    follows: list[list[float]]
    notices: list[list[float]]


@torch.inference_mode()
def layer_responses(trunk: SpectrogramTrunk, log_mel: Tensor, frame_rate: float) -> list[LayerResponse]:
    """Measure every DiffStride layer of a trunk on the maps it really sees, at their true lengths.

    Args:
        trunk: a trunk; kinds of downsampling without a mask have no responses.
        log_mel: input of shape ``(batch, 1, time, mel)``; noise excites every bin.
        frame_rate: of the input, in Hz.

    Returns:
        A response for each block and each axis that is pooled, time then mel.

    Example:
        >>> responses = layer_responses(AudioCNN(channels=(4, 4), strides=((2, 2), (1, 3))),
        ...                             torch.randn(2, 1, 100, 64), 100.0)
        >>> [(r.layer, r.axis, r.error < 1e-3) for r in responses]
        [(1, 'time', True), (1, 'mel', True), (2, 'time', True), (2, 'mel', True)]
    """
    per_bin = {"time": frame_rate / log_mel.shape[2], "mel": 1.0 / log_mel.shape[3]}
    responses = []
    was_training = trunk.training
    trunk.eval()
    steps = _cnn_poolings(trunk, log_mel) if isinstance(trunk, AudioCNN) else _shortcut_poolings(trunk, log_mel)
    try:
        for layer, pool, number, axis, before, after in steps:
            n = before.shape[2 + axis]
            modulation = [k * per_bin[AXES[axis]] for k in range(n // 2 + 1)]
            measured = _measured(pool, before, after, 2 + axis)
            responses.append(LayerResponse(layer, AXES[axis], modulation, _mask(pool, n, number), measured))
    finally:
        trunk.train(was_training)
    return responses


Step = tuple[int, SpectralDownsampling, int, int, Tensor, Tensor]
"""Number of the layer, its pool, which of the pool's axes, time (0) or mel (1), the map before and after."""


def _cnn_poolings(trunk: AudioCNN, x: Tensor) -> Iterator[Step]:
    """What every pool does, as the network runs it."""
    for layer, block in enumerate(trunk.separable_blocks, start=1):
        if block.pool is None or not block.pool.learns_strides:
            x = block(x)
            continue
        layers = ((block.time_conv, block.time_norm), (block.mel_conv, block.mel_norm))
        for axis, (conv, norm) in enumerate(layers):
            if block.pool_after_relu:
                before = conv(x).relu()
                after = block.pool.pool_axis(before, axis)
            else:
                before, after = conv(x), block.pool.pool_conv(conv, x, axis)
            yield layer, block.pool, axis, axis, before, after
            x = norm(after if block.pool_after_relu else after.relu())


def _shortcut_poolings(trunk: AudioResNet, log_mel: Tensor) -> Iterator[Step]:
    """What every pool does to its block's input: what the shortcuts pool, and the stem's would."""
    inputs: list[Tensor] = []
    handles = [block.register_forward_pre_hook(lambda _, args: inputs.append(args[0])) for block in trunk.blocks]
    try:
        trunk.forward_features(log_mel)
    finally:
        for handle in handles:
            handle.remove()
    for layer, (block, x) in enumerate(zip(trunk.blocks, inputs, strict=True), start=1):
        if block.pool is None or not block.pool.learns_strides:
            continue
        for number, axis in enumerate(block.pooled_axes):
            after = block.pool_axis(x, axis)
            yield layer, block.pool, number, axis, x, after
            x = after


def noise_log_mel(frontend: LogMel | AdaptiveLogMel, seconds: float, n: int = 4, seed: int = 0) -> Tensor:
    """Log-mel spectrograms of white noise, shape ``(n, 1, time, mel)``: an input that excites every bin.

    Example:
        >>> noise_log_mel(LogMel(), 1.0).shape
        torch.Size([4, 1, 100, 64])
    """
    samples = np.random.default_rng(seed).standard_normal((n, round(seconds * frontend.sample_rate)))
    return frontend(torch.from_numpy(0.1 * samples).to(frontend.window))


def takes_ripples(frontend: LogMel | AdaptiveLogMel) -> bool:
    """Whether ripples, which are made for the bands of the default frontend, can be measured with this one."""
    return all(frontend.settings[key] == LogMel().settings[key] for key in ("sample_rate", "n_mels", "f_min", "f_max"))


@torch.inference_mode()
def ripple_response(
    model: AudioClassifier,
    rates_hz: Sequence[float] = RATES_HZ,
    scales: Sequence[float] = SCALES,
    seed: int = 0,
    progress: Callable[[str, int, int], None] | None = None,
) -> RippleResponse:
    """Send moving ripples of every rate and scale through the whole network.

    Each ripple is sent twice on the same noise, its phase turned by half a cycle the second time. What
    differs between the two is what *follows* the ripple. A feature map that only *notices* it (an
    energy detector that has smoothed the ripple away) is the same for both, but not the same as for
    the noise alone.

    Args:
        model: a classifier whose frontend `takes_ripples`.
        rates_hz: temporal modulations, in Hz.
        scales: spectral modulations, in cycles per mel band.
        seed: of the noise.
        progress: called after each rate.

    Raises:
        ValueError: if the model's mel bands are not those of the default frontend.

    Example:
        >>> cnn = AudioCNN(channels=(4, 4), strides=((2, 2), (2, 2)), smoothness=1)
        >>> found = ripple_response(AudioClassifier(LogMel(), cnn, {"rate": 2}), (4.0, 40.0), (0.0, 0.1))
        >>> len(found.follows), len(found.follows[0]), max(map(max, found.frontend))
        (2, 2, 1.0)
    """
    frontend, trunk = spectrogram_cnn(model, "the response to ripples")
    if not takes_ripples(frontend):
        raise ValueError("ripples are made for the 64 mel bands of the default frontend at 16 kHz")
    noise = np.random.default_rng(seed).standard_normal((1, round(model.window_s * SAMPLE_RATE)))

    def maps(rate: float, scale: Sequence[float], depth: float, phase: float) -> tuple[Tensor, Tensor]:
        repeated = np.repeat(noise, len(scale), axis=0)
        sound = ripple(rate, np.array(scale), depth, phase, repeated)
        log_mel = frontend(model.take(torch.from_numpy(sound)))
        return log_mel, trunk.forward_features(log_mel)

    was_training = model.training
    model.eval()
    try:
        _, plain = maps(0.0, [0.0], 0.0, 0.0)
        grids: list[list[list[float]]] = [[], [], []]
        for done, rate in enumerate(rates_hz, start=1):
            up, features_up = maps(rate, scales, _DEPTH_DB, 0.0)
            down, features_down = maps(rate, scales, _DEPTH_DB, math.pi)
            for grid, difference in zip(
                grids, (up - down, features_up - features_down, features_up - plain), strict=True
            ):
                grid.append(difference.square().mean(dim=(1, 2, 3)).sqrt().tolist())
            if progress:
                progress("measuring ripples", done, len(rates_hz))
    finally:
        model.train(was_training)
    return RippleResponse(list(rates_hz), list(scales), *(_to_one(grid) for grid in grids))


def _mask(pool: SpectralDownsampling, n: int, number: int) -> list[float]:
    mask = pool.whole_mask(n, number)
    return (mask + pool.mean_alpha(number) * (1 - mask)).tolist()


def _measured(pool: SpectralDownsampling, before: Tensor, after: Tensor, dim: int) -> list[float | None]:
    """Gain of each bin, the mean over groups of channels where they have an alpha of their own."""
    if pool.aliasing is None:
        return _gain(before, after, dim)
    inputs, outputs = (pool.split_channels(x) if pool.channel_groups > 1 else (x,) for x in (before, after))
    by_group = [_folded_gain(x, y, dim) for x, y in zip(inputs, outputs, strict=True)]
    known = [[gain for gain in gains if gain is not None] for gains in zip(*by_group, strict=True)]
    return [statistics.fmean(gains) if len(gains) == len(by_group) else None for gains in known]


def _gain(before: Tensor, after: Tensor, dim: int) -> list[float | None]:
    n, m = before.shape[dim], after.shape[dim]
    others = [d for d in range(before.dim()) if d != dim]
    energy_in = torch.fft.rfft(before.double(), dim=dim).abs().square().sum(others)
    energy_out = torch.zeros_like(energy_in)
    energy_out[: m // 2 + 1] = torch.fft.rfft(after.double(), dim=dim).abs().square().sum(others) * (n / m) ** 2
    enough = energy_in > _MEASURABLE * energy_in.sum()
    gain = (energy_out / energy_in).sqrt().tolist()
    return [g if ok else None for g, ok in zip(gain, enough.tolist(), strict=True)]


def _folded_gain(before: Tensor, after: Tensor, dim: int) -> list[float | None]:
    """Gain of each bin of the input in the output's bin that it folds onto, by least squares.

    Several bins of the input land on one of the output, those from odd foldings with their phase turned round.
    """
    n, m = before.shape[dim], after.shape[dim]
    x = torch.fft.rfft(before.double().movedim(dim, 0).flatten(1), dim=0) * (m / n)
    y = torch.fft.rfft(after.double().movedim(dim, 0).flatten(1), dim=0)
    landing = [min(k % m, -k % m) for k in range(n // 2 + 1)]
    enough = x.abs().square().sum(1) > _MEASURABLE * x.abs().square().sum()
    gains: list[float | None] = [None] * len(landing)
    for j in range(m // 2 + 1):
        bins = [k for k, lands in enumerate(landing) if lands == j and enough[k]]
        if not bins:
            continue
        columns = [_as_landed(x[k], k, n, m) for k in bins]
        system = torch.stack([torch.cat([column.real, column.imag]) for column in columns], 1)
        found = torch.linalg.lstsq(system, torch.cat([y[j].real, y[j].imag])[:, None]).solution
        for k, gain in zip(bins, found[:, 0].tolist(), strict=True):
            gains[k] = gain
    return gains


def _as_landed(x: Tensor, k: int, n: int, m: int) -> Tensor:
    """What bin k of the input adds to the bin of the output that it lands on: its mirror image lands there, too,
    where that bin is its own; and bins 0 and n / 2 have no mirror image, but are halved into two."""
    landed = x if k % m <= m // 2 else x.conj()
    both = landed + landed.conj() if 2 * k % m == 0 else landed
    return both / 2 if k == 0 or 2 * k == n else both


def _to_one(grid: list[list[float]]) -> list[list[float]]:
    largest = max(max(row) for row in grid) or 1.0
    return [[value / largest for value in row] for row in grid]
