"""Figures of results: confusion matrix, accuracy against cost, a clip's spectrogram."""

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import printable
from .plot_style import FAINT, INK, PALETTE, new_figure, shared_legend, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CONFUSION = "#1d5fd0"


@styled
def confusion_figure(counts: np.ndarray, labels: Sequence[str]) -> "Figure":
    """Confusion matrix: a row for each true class, in % of its clips.

    Args:
        counts: int of shape ``(true, predicted)``.
        labels: name of each class.
    """
    from matplotlib.colors import LinearSegmentedColormap, to_rgba

    n, labels = len(labels), [printable(label) for label in labels]
    size = min(3.2 + 0.3 * n, 9.6)
    figure = new_figure(size, size * 0.85)
    figure.set_layout_engine("compressed")  # square cells: the labels would be cut without it
    ax = figure.subplots()
    ax.grid(False)
    share = 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)
    # From clear to blue, so that nothing is the page's ground, light or dark.
    colours = LinearSegmentedColormap.from_list("share", [to_rgba(CONFUSION, 0.0), to_rgba(CONFUSION, 1.0)])
    image = ax.imshow(share, vmin=0, vmax=100, cmap=colours, interpolation="nearest")
    step = -(-n // 60)
    font = 9 if n <= 15 else 6
    ax.set_xticks(range(0, n, step), labels[::step], rotation=90, fontsize=font)
    ax.set_yticks(range(0, n, step), labels[::step], fontsize=font)
    ax.set(xlabel="predicted", ylabel="true")
    if n <= 20:
        for row, column in zip(*np.nonzero(counts), strict=True):
            dark = share[row, column] > 55
            ax.text(
                column, row, str(counts[row, column]), ha="center", va="center", fontsize=font,
                color="#ffffff" if dark else INK,
            )  # fmt: skip
    figure.colorbar(image, ax=ax, label="% of the true class", fraction=0.04)
    return figure


@styled
def reliability_figure(bins: Sequence[Mapping[str, float]]) -> "Figure":
    """Reliability diagram: the share that is right against the score, and how many scores there are.

    Args:
        bins: "bins" of `confidence.calibration_error`.
    """
    figure = new_figure(3.4, 3.4)
    ax = figure.subplots()
    scores, right, n = ([100 * one[key] for one in bins] for key in ("score", "right", "n"))
    ax.plot([0, 100], [0, 100], color=FAINT, lw=1.2, zorder=0)
    ax.plot(scores, right, color=CONFUSION, lw=1.0)
    ax.scatter(scores, right, [4 + 60 * count / max(n) for count in n], color=CONFUSION)
    ax.set_xlabel("score in %")
    ax.set_ylabel("of these right, in %")
    ax.set_aspect("equal")
    return figure


@styled
def false_alarms_figure(curves: Mapping[str, Sequence[Mapping[str, Any]]]) -> "Figure":
    """False alarms per hour, with their 95 % interval, against the share of events missed, or else the threshold.

    Args:
        curves: for each task the "curve" of `false_alarms`, with "missed" where that is known.
    """
    figure = new_figure(5.0, 3.4)
    ax = figure.subplots()
    known = all(curve[0].get("missed") is not None for curve in curves.values())
    for (task, curve), colour in zip(curves.items(), itertools.cycle(PALETTE), strict=False):
        x = [100 * point["missed"] if known else point["factor"] for point in curve]
        low, high = ([point["interval"][end] for point in curve] for end in (0, 1))
        ax.fill_between(x, low, high, color=colour, alpha=0.2, lw=0)
        seen = [(at, point["per_hour"]) for at, point in zip(x, curve, strict=True) if point["events"]]
        ax.plot(*zip(*seen, strict=True) if seen else ([], []), color=colour, marker=".", label=printable(task))
    ax.set_yscale("log")
    ax.set_xlabel("events missed in %" if known else "thresholds, times the present ones")
    ax.set_ylabel("false alarms per hour")
    shared_legend(figure)
    return figure


@styled
def cost_figure(points: Sequence[Mapping[str, Any]]) -> "Figure":
    """Accuracy against cost, a panel for each task; methods that differ in nothing but `stride_cost` are joined.

    Args:
        points: rows with "task", "method", "macs_per_second", "mean" accuracy and its "sd" (or None),
            as "accuracy" of `comparison.compare`.
    """
    tasks = list(dict.fromkeys(point["task"] for point in points))
    methods = list(dict.fromkeys(point["method"] for point in points))
    figure = new_figure(max(6.0, 3.4 * len(tasks)), 3.4)
    for ax, task in zip(np.atleast_1d(figure.subplots(1, len(tasks))), tasks, strict=True):
        for point in points:
            if point["task"] == task:
                number = methods.index(point["method"])
                ax.errorbar(
                    point["macs_per_second"] / 1e6, 100 * point["mean"],
                    yerr=None if point["sd"] is None else 100 * point["sd"],
                    marker="osD^vP"[(number + number // 6) % 6], color=PALETTE[number % len(PALETTE)], capsize=3,
                    ls="none", label=printable(point["method"]),
                )  # fmt: skip
        for curve in _curves(point for point in points if point["task"] == task):
            ax.plot(*zip(*curve, strict=True), color=FAINT, lw=1.2, zorder=0)
        ax.set(title=printable(task), xlabel="million MACs per second of audio", ylabel="test accuracy in %")
        ax.margins(0.15)
    shared_legend(figure)
    return figure


def _curves(points: Iterable[Mapping[str, Any]]) -> list[list[tuple[float, float]]]:
    """MMAC/s and accuracy of methods that differ in their regulariser alone, by its weight."""
    curves: dict[str, list[tuple[float, float, float]]] = {}
    for point in points:
        if weight := re.search(r" stride_cost=(\S+)", point["method"]):
            rest = point["method"].replace(weight[0], "")
            place = (float(weight[1]), point["macs_per_second"] / 1e6, 100 * point["mean"])
            curves.setdefault(rest, []).append(place)
    return [[(x, y) for _, x, y in sorted(curve)] for curve in curves.values() if len(curve) > 1]


@styled
def spectrogram_figure(
    log_mel: np.ndarray, seconds: float, why: tuple[np.ndarray, np.ndarray] | None = None
) -> "Figure":
    """A log-mel spectrogram ``(time, mel)``, time to the right and mel bands upwards.

    Args:
        log_mel: of a clip.
        seconds: its length.
        why: below it, how much the frames at these times in seconds speak for the answer, see `recording_view.reasons`.
    """
    figure = new_figure(3.0, 2.2 if why else 1.5)
    axes = figure.subplots(2 if why else 1, 1, sharex=True, squeeze=False, height_ratios=[2, 1] if why else None)[:, 0]
    axes[0].grid(False)
    extent = (0, seconds, 0, log_mel.shape[1])
    axes[0].imshow(log_mel.T, origin="lower", aspect="auto", extent=extent, cmap="magma", interpolation="nearest")
    axes[0].set_ylabel("mel band", fontsize=7)
    if why:
        times_s, values = why
        width = times_s[1] - times_s[0] if len(times_s) > 1 else extent[1]
        axes[1].bar(times_s, values, width, color=np.where(values > 0, PALETTE[4], PALETTE[2]).tolist())
        axes[1].set_ylabel("why", fontsize=7)
    axes[-1].set_xlabel("s", fontsize=7)
    axes[-1].set_xlim(0, extent[1])
    for ax in axes:
        ax.tick_params(labelsize=7)
    return figure
