"""Learned strides as cut-off frequencies: Hz along time, cycles per mel band along frequency.

Bins mean the same modulation in every layer: one bin is f / N_0, where f is the frame rate in Hz
(for the mel axis: 1 per band) and N_0 the input's length. A layer keeps its bins up to the edge
a = N / (2S) in full, to a + R/2 at half the amplitude (-6 dB), to K - 1 at all. What reaches a
layer's output has passed all earlier ones, so the cumulative cut-off is the lowest so far. Past the
first ReLU this is the resolution of the features, not a filter on the input.
"""

import math
import statistics
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from .classifier import AudioClassifier
from .cnn import AudioCNN
from .resnet import ResNet
from .spectral import diffstride_crop, edge_bin, spectral_crop
from .wave_cnn import WaveCNN

PAPER_LENGTHS = {"time": 160, "mel": 64}
"""DFT lengths behind the cut-offs of Table 2 in Riad et al. 2022, recovered from its numbers."""

AXES = ("time", "mel")


class Cutoff(NamedTuple):
    """Cut-offs of one axis, in Hz or cycles per mel band; None where the kind of layer has no such edge.

    Attributes:
        continuous: f / (2S), the Nyquist frequency after the stride.
        full_gain: the highest modulation kept in full.
        minus_6db: the modulation kept at half its amplitude.
        last_bin: the highest DFT bin kept at all.
    """

    continuous: float
    full_gain: float | None
    minus_6db: float | None
    last_bin: float | None


class LayerCutoff(NamedTuple):
    """Cut-offs of one layer along one axis.

    Attributes:
        layer: number of the block, from 1.
        axis: "time" or "mel".
        stride: its stride S.
        own: what the layer itself keeps.
        cumulative: what it and all layers before it keep.
        paper: the convention of the paper's Table 2.
    """

    layer: int
    axis: str
    stride: float
    own: Cutoff
    cumulative: Cutoff
    paper: float


def axis_cutoff(kind: str, n: int, stride: float, smoothness: float, per_bin: float) -> Cutoff:
    """Cut-offs of one layer on an axis of `n` samples.

    Args:
        kind: "strided", "spectral" or "diffstride".
        n: length of the axis at the layer's input.
        stride: the layer's stride S.
        smoothness: DiffStride's ramp width R, in bins.
        per_bin: modulation that one DFT bin stands for, in Hz or cycles per mel band.

    Example:
        >>> axis_cutoff("diffstride", n=100, stride=2.0, smoothness=4.0, per_bin=1.0)
        Cutoff(continuous=25.0, full_gain=25.0, minus_6db=27.0, last_bin=28.0)
        >>> axis_cutoff("spectral", n=100, stride=2.0, smoothness=4.0, per_bin=1.0)
        Cutoff(continuous=25.0, full_gain=24.0, minus_6db=25.0, last_bin=25.0)
    """
    continuous = n / (2 * stride) * per_bin
    if kind == "strided" or n == 1:
        return Cutoff(continuous, None, None, None)
    if kind == "spectral":  # a hard mask; the Nyquist bin of an even M passes or not by its phase
        m = spectral_crop(n, stride).m
        return Cutoff(continuous, (m - 1) // 2 * per_bin, m / 2 * per_bin, m // 2 * per_bin)
    edge = edge_bin(n, stride)
    half = min(edge + smoothness / 2, n / 2)
    last_bin = diffstride_crop(n, stride, smoothness).n_bins - 1
    return Cutoff(continuous, edge * per_bin, half * per_bin, last_bin * per_bin)


def paper_cutoff(stride: float, length: int, rate: float = 1.0) -> float:
    """Cut-off in the convention of Table 2: rate * floor(length / (2S)) / length.

    The table's 12 means follow from integer bins with a length of 160 for time (rate 100 Hz) and 64
    for mel. Apply it to each run and average then: from a mean stride it is off by up to 0.42 Hz.

    Example:
        >>> paper_cutoff(1.97, 160, 100.0), paper_cutoff(1.95, 64)
        (25.0, 0.25)
    """
    return rate * math.floor(length / (2 * stride)) / length


def trunk_cutoffs(
    trunk: AudioCNN | ResNet | WaveCNN, n_frames: int, n_mels: int | None, frame_rate: float
) -> list[LayerCutoff]:
    """Cut-offs of every layer of a trunk for an input of `n_frames` frames.

    Args:
        trunk: a trunk of any kind of downsampling.
        n_frames: input length in frames.
        n_mels: number of mel bands; None for a raw waveform, whose frames are its samples.
        frame_rate: frames per second, in Hz.

    Returns:
        An entry a layer that downsamples and axis, time then mel.

    Example:
        >>> first = trunk_cutoffs(AudioCNN("diffstride", smoothness=1), 100, 64, 100.0)[0]
        >>> first.own.full_gain, first.own.last_bin, first.paper
        (25.0, 25.0, 25.0)
    """
    kind, smoothness = trunk.settings["downsampling"], trunk.settings["smoothness"]
    per_bin = {"time": frame_rate / n_frames} | ({"mel": 1.0 / n_mels} if n_mels else {})
    lowest: dict[str, list[Cutoff]] = {axis: [] for axis in AXES}
    rows = []
    sizes: Sequence[tuple[int, ...]] = (
        trunk.map_sizes(n_frames) if isinstance(trunk, WaveCNN) else trunk.map_sizes(n_frames, n_mels or 1)
    )
    for number, (strides, lengths) in enumerate(zip(trunk.strides(), sizes, strict=False), start=1):
        for axis, stride, n in zip(per_bin, strides, lengths, strict=True):
            own = axis_cutoff(kind, n, stride, smoothness, per_bin[axis])
            lowest[axis].append(own)
            cumulative = _combine(lowest[axis], min)
            paper = paper_cutoff(stride, PAPER_LENGTHS[axis], n * per_bin[axis])
            rows.append(LayerCutoff(number, axis, stride, own, cumulative, paper))
    return rows


def model_cutoffs(model: AudioClassifier, seconds: float | None = None) -> list[LayerCutoff]:
    """Cut-offs of a classifier for an input of `seconds`, by default one window."""
    frontend = model.frontend
    n_samples = round((model.window_s if seconds is None else seconds) * frontend.sample_rate)
    n_frames = n_samples // frontend.hop_length
    if n_frames < 1:
        raise ValueError(f"an input of {seconds} s is shorter than one frame")
    return trunk_cutoffs(model.trunk, n_frames, frontend.n_mels, frontend.frame_rate)


def summarise(runs: Sequence[Sequence[LayerCutoff]]) -> list[dict[str, Any]]:
    """Mean over runs of every cut-off, with the mean and sd (n - 1) of the strides.

    Each run is converted by itself and averaged then.

    Args:
        runs: `trunk_cutoffs` of models with the same blocks.

    Returns:
        A dictionary a layer and axis, as `audiostride cutoffs --json` prints it; "stride_sd" is None
        for one run.

    Raises:
        ValueError: if the runs have different numbers of blocks.

    Example:
        >>> rows = [trunk_cutoffs(AudioCNN(strides=[(s, 2)], channels=[8]), 100, 64, 100.0) for s in (2, 3)]
        >>> row = summarise(rows)[0]
        >>> row["stride"], round(row["stride_sd"], 3), row["paper"]
        (2.5, 0.707, 20.625)
    """
    if len({len(run) for run in runs}) != 1:
        raise ValueError("the runs have different numbers of layers and cannot be averaged")
    summary = []
    for rows in zip(*runs, strict=True):
        strides = [row.stride for row in rows]
        summary.append(
            {
                "layer": rows[0].layer,
                "axis": rows[0].axis,
                "stride": statistics.fmean(strides),
                "stride_sd": statistics.stdev(strides) if len(strides) > 1 else None,
                "own": _combine([row.own for row in rows], statistics.fmean)._asdict(),
                "cumulative": _combine([row.cumulative for row in rows], statistics.fmean)._asdict(),
                "paper": statistics.fmean(row.paper for row in rows),
            }
        )
    return summary


def _combine(cutoffs: Sequence[Cutoff], combine: Callable[[list[float]], float]) -> Cutoff:
    def over(values: Sequence[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return combine(known) if known else None

    continuous, *others = zip(*cutoffs, strict=True)
    return Cutoff(combine(list(continuous)), *(over(values) for values in others))
