"""Learned strides as cut-off frequencies: Hz along time, cycles per mel band along frequency.

Bins mean the same modulation in every layer: one bin is f / N_0, where f is the frame rate in Hz
(for the mel axis: 1 per band) and N_0 the input's length. A layer keeps its bins up to the edge
a = N / (2S) in full, to a + R/2 at half the amplitude (-6 dB), to K - 1 at all. What reaches a
layer's output has passed all earlier ones, so the cumulative cut-off is the lowest so far. Past the
first ReLU this is the resolution of the features, not a filter on the input.
"""

import csv
import io
import math
import os
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..files import replace_file
from ..layers.choice import Downsampling
from ..layers.downsampling import Alpha, DiffStride
from .folding import Folding, axis_folding, mean_folding
from .network import AudioNetwork
from .parts import Trunk

PAPER_LENGTHS = {"time": 160, "mel": 64}
"""DFT lengths behind the cut-offs of Table 2 in Riad et al. 2022, recovered from its numbers."""

AXES = ("time", "mel")
UNITS = {"time": "Hz", "mel": "cycles per mel band"}


class Cutoff(NamedTuple):
    """Cut-offs of one axis, in Hz or cycles per mel band; None where the kind of layer has no such edge.

    Attributes:
        continuous: f / (2S), the Nyquist frequency after the stride.
        full_gain: the highest modulation kept in full.
        minus_6db: the modulation kept at half its amplitude: the middle of the ramp, which may lie
            between two bins, later with aliasing; the layer's Nyquist frequency where even that is kept with more.
        last_bin: the highest DFT bin kept at all; with aliasing, what lies above is folded down in part.
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
        paper: the convention of the paper's Table 2, which is for spectrograms; None for a raw waveform.
        folding: what the layer folds down; None if it folds nothing.
    """

    layer: int
    axis: str
    stride: float
    own: Cutoff
    cumulative: Cutoff
    paper: float | None
    folding: Folding | None = None


def axis_cutoff(down: Downsampling, n: int, stride: float, per_bin: float, aliasing: float = 0.0) -> Cutoff:
    """Cut-offs of one layer on an axis of `n` samples.

    Args:
        down: how the layer downsamples.
        n: length of the axis at the layer's input.
        stride: the layer's stride S.
        per_bin: modulation that one DFT bin stands for, in Hz or cycles per mel band.
        aliasing: the layer's alpha, which keeps more of the ramp.

    Example:
        >>> axis_cutoff(Downsampling("diffstride", smoothness=4), n=100, stride=2.0, per_bin=1.0)
        Cutoff(continuous=25.0, full_gain=25.0, minus_6db=27.0, last_bin=28.0)
        >>> axis_cutoff(Downsampling("spectral"), n=100, stride=2.0, per_bin=1.0)
        Cutoff(continuous=25.0, full_gain=24.0, minus_6db=25.0, last_bin=25.0)
    """
    continuous = n / (2 * stride) * per_bin
    band = down.band(n, stride, aliasing)
    if band is None or n == 1:
        return Cutoff(continuous, None, None, None)
    return Cutoff(continuous, *(edge * per_bin for edge in band))


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
    trunk: Trunk,
    n_frames: int,
    n_mels: int | None,
    frame_rate: float,
    first: DiffStride | None = None,
) -> list[LayerCutoff]:
    """Cut-offs of every layer of a trunk for an input of `n_frames` frames.

    Args:
        trunk: a trunk of any kind of downsampling.
        n_frames: input length in frames.
        n_mels: number of mel bands; None for a raw waveform, whose frames are its samples.
        frame_rate: frames per second, in Hz.
        first: what pools the input before the trunk, see `AdaptiveLogMel`: layer 0.

    Returns:
        An entry for each layer that downsamples and each axis, time then mel.

    Raises:
        ValueError: if the trunk pools as the published code does, whose masks have other edges.

    Example:
        >>> from audiostride import AudioCNN
        >>> first = trunk_cutoffs(AudioCNN("diffstride", smoothness=1), 100, 64, 100.0)[0]
        >>> first.own.full_gain, first.own.last_bin, first.paper
        (25.0, 25.0, 25.0)
    """
    down = Downsampling(trunk.settings["downsampling"], trunk.settings["smoothness"])
    if trunk.settings.get("as_published"):
        raise ValueError("cut-offs are known for this package's layers only; the trunk was made with as_published=True")
    per_bin = {"time": frame_rate / n_frames} | ({"mel": 1.0 / n_mels} if n_mels else {})
    size: Sequence[int] = [n_frames, n_mels] if n_mels else [n_frames]
    places: list[tuple[int, Downsampling, Sequence[float], Sequence[Alpha], Sequence[int], Sequence[int]]] = []
    if first is not None:
        after = [first.output_length(n, axis) for axis, n in enumerate(size)]
        places.append(
            (0, Downsampling("diffstride", first.smoothness), first.strides(), [0.0] * len(size), size, after)
        )
        size = after
    sizes, strides = trunk.map_sizes(*size), trunk.strides()
    aliasing = trunk.aliasing() or [[float(not down.pools)] * len(per_bin)] * len(strides)
    layers = zip(strides, aliasing, sizes, sizes[1:], strict=False)
    places += [(number, down, *layer) for number, layer in enumerate(layers, start=1)]
    lowest: dict[str, list[Cutoff]] = {axis: [] for axis in per_bin}
    rows = []
    for number, own_down, *layer in places:
        for axis, stride, alpha, n, m in zip(per_bin, *layer, strict=True):
            mean_alpha = statistics.fmean(alpha) if isinstance(alpha, list) else alpha
            own = axis_cutoff(own_down, n, stride, per_bin[axis], mean_alpha)
            lowest[axis].append(own)
            in_paper = paper_cutoff(stride, PAPER_LENGTHS[axis], n * per_bin[axis]) if n_mels else None
            folding = axis_folding(alpha, n, m if own_down.pools else n / stride, per_bin[axis])
            rows.append(LayerCutoff(number, axis, stride, own, _combine(lowest[axis], min), in_paper, folding))
    return rows


def model_cutoffs(model: AudioNetwork, seconds: float | None = None) -> list[LayerCutoff]:
    """Cut-offs of a classifier for an input of `seconds`, by default one window.

    Raises:
        ValueError: if the input is shorter than one frame, or the model has none, see `why_no_cutoffs`.

    Example:
        >>> from audiostride import AudioCNN, LogMel
        >>> model = AudioNetwork(LogMel(), AudioCNN("diffstride", smoothness=1), {"word": 2})
        >>> first, second, *_ = model_cutoffs(model)
        >>> (first.axis, first.own.full_gain), (second.axis, second.own.full_gain)
        (('time', 25.0), ('mel', 0.25))
    """
    frontend, trunk = model.frontend, model.trunk
    if reason := why_no_cutoffs(model):
        raise ValueError(reason)
    assert frontend.hop_length
    assert frontend.frame_rate
    n_samples = round((model.window_s if seconds is None else seconds) * model.sample_rate)
    n_frames = n_samples // frontend.hop_length
    if n_frames < 1:
        raise ValueError(f"an input of {seconds} s is shorter than one frame")
    return trunk_cutoffs(trunk, n_frames, frontend.n_mels, frontend.frame_rate, frontend.first_pool)


def why_no_cutoffs(model: AudioNetwork) -> str:
    """Why nothing in a model can be said in Hz and cycles per mel band; "" if it can.

    Example:
        >>> from audiostride import AudioCNN, LogMel
        >>> why_no_cutoffs(AudioNetwork(LogMel(), AudioCNN("strided"), {"word": 2}))
        ''
    """
    frontend, trunk = model.frontend, model.trunk
    if frontend.hop_length and trunk.takes == "waveform":  # which has no mel axis
        return ""
    return frontend.why_no_cutoffs or trunk.why_no_cutoffs


def summarise(runs: Sequence[Sequence[LayerCutoff]]) -> list[dict[str, Any]]:
    """Mean over runs of every cut-off, with the sd (n - 1) of the strides and of the paper's cut-offs.

    Each run is converted separately, then they are averaged.

    Args:
        runs: `trunk_cutoffs` of models with the same blocks.

    Returns:
        A dictionary for each layer and axis, as `audiostride cutoffs --json` prints it; "stride_sd" and
        "paper_sd" are None for one run.

    Raises:
        ValueError: if the runs have different numbers of blocks.

    Example:
        >>> from audiostride import AudioCNN
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
        papers = [row.paper for row in rows if row.paper is not None]
        summary.append(
            {
                "layer": rows[0].layer,
                "axis": rows[0].axis,
                "stride": statistics.fmean(strides),
                "stride_sd": statistics.stdev(strides) if len(strides) > 1 else None,
                "own": _combine([row.own for row in rows], statistics.fmean)._asdict(),
                "cumulative": _combine([row.cumulative for row in rows], statistics.fmean)._asdict(),
                "paper": statistics.fmean(papers) if papers else None,
                "paper_sd": statistics.stdev(papers) if len(papers) > 1 else None,
                "folding": mean_folding([row.folding for row in rows]),
            }
        )
    return summary


def write_cutoffs(path: str | os.PathLike[str], layers: Sequence[dict[str, Any]]) -> None:
    """Write `summarise`'s rows as CSV, one for each layer and axis, with the unit of its cut-offs."""
    text = io.StringIO()
    table = csv.writer(text)
    sides = [f"{group}_{name}" for group in ("own", "cumulative") for name in Cutoff._fields]
    table.writerow(["layer", "axis", "unit", "stride", "stride_sd", *sides, "paper", "paper_sd", "folded_share"])
    for row in layers:
        values = [*row["own"].values(), *row["cumulative"].values(), row["paper"], row["paper_sd"]]
        values.append(row["folding"]["share"] if row["folding"] else None)
        table.writerow([row["layer"], row["axis"], UNITS[row["axis"]], row["stride"], row["stride_sd"], *values])
    replace_file(Path(path), text.getvalue())


def _combine(cutoffs: Sequence[Cutoff], combine: Callable[[list[float]], float]) -> Cutoff:
    continuous, *others = zip(*cutoffs, strict=True)
    return Cutoff(combine(list(continuous)), *(_over_known(values, combine) for values in others))


def _over_known(values: Sequence[float | None], combine: Callable[[list[float]], float]) -> float | None:
    known = [value for value in values if value is not None]
    return combine(known) if known else None
