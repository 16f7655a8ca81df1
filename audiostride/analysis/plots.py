"""Figures of what was learned: data in, a matplotlib figure out.

Colours are mid-tones that read on light and on dark ground, so that the report can show one SVG in both.
"""

import functools
import io
import re
import warnings
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import UsageError
from ..models.cutoffs import AXES
from .measured_response import LayerResponse, RippleResponse

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ENDINGS = (".png", ".svg", ".pdf")
INK, FAINT = "#2b2b2d", "#c9c9cd"
CONFUSION = "#1d5fd0"
PALETTE = ("#3b82f6", "#e07b27", "#1f9d76", "#b45bd6", "#dc4f6b", "#8a8f98")
_RAMP = ("#3b82f6", "#7c6cf0", "#b45bd6", "#dc4f9f", "#ec5d63", "#e98030")
_LABELS = {"time": "temporal modulation in Hz", "mel": "spectral modulation in cycles per mel band"}
_STYLE: Any = {
    "font.size": 9,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "text.color": INK,
    "text.parse_math": False,  # a class may be called "$1"
    "axes.labelcolor": INK,
    "axes.edgecolor": FAINT,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "grid.color": FAINT,
    "grid.alpha": 0.6,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "legend.handlelength": 2.8,
    "lines.linewidth": 1.8,
    "xtick.color": INK,
    "ytick.color": INK,
    "svg.fonttype": "none",
    "svg.hashsalt": "audiostride",
}


def _styled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Run a function under this module's style, leaving the caller's matplotlib settings alone."""

    @functools.wraps(function)
    def styled(*args: Any, **kwargs: Any) -> Any:
        import matplotlib

        with matplotlib.rc_context(_STYLE):
            return function(*args, **kwargs)

    return styled


@_styled
def cutoff_figure(
    layers: Sequence[Mapping[str, Any]],
    references: Sequence[Mapping[str, Any]],
    responses: Sequence[LayerResponse] = (),
    ripples: Sequence[Mapping[str, Any]] = (),
) -> "Figure":
    """What each layer still keeps of the input, against the reference ranges.

    Args:
        layers: from `cutoffs.summarise`.
        references: from `cutoffs.reference_ranges`.
        responses: from `response.layer_responses`; drawn over the masks in a second row.
        ripples: from `cutoffs.survival`, the fastest ripple of the data on each axis where it is known.
    """
    fastest = {ripple["axis"]: ripple["modulation"] for ripple in ripples}
    rows = 2 if responses else 1
    figure = _figure(9.6, 1.6 + 0.32 * len(layers) / 2 + 0.26 * len(references) / 2 + 2.8 * (rows - 1))
    heights = [1.0, 0.9][:rows]
    grid = figure.subplots(rows, 2, squeeze=False, gridspec_kw={"height_ratios": heights})
    for column, axis in enumerate(AXES):
        limit = _nyquist(layers, axis)
        _pass_bands(grid[0][column], axis, layers, references, limit, fastest.get(axis))
        if responses:
            _measured(grid[1][column], axis, responses, limit)
    return figure


@_styled
def plane_figure(ripples: RippleResponse, layers: Sequence[Mapping[str, Any]]) -> "Figure":
    """The modulation plane: responses to ripples, with the pass-bands of first and last layer drawn in.

    Args:
        ripples: from `response.ripple_response`.
        layers: from `cutoffs.summarise` of the same model.
    """
    panels = (
        ("log-mel follows the ripple", ripples.frontend, None),
        ("last map follows the ripple", ripples.follows, layers[-2:]),
        ("last map notices the ripple", ripples.notices, layers[:2]),
    )
    figure = _figure(9.6, 3.3)
    axes = figure.subplots(1, 3, sharex=True, sharey=True)
    for ax, (title, values, box) in zip(axes, panels, strict=True):
        ax.grid(False)
        mesh = ax.pcolormesh(
            _cell_edges(ripples.rates_hz), _cell_edges(ripples.scales), np.array(values).T, vmin=0, vmax=1,
            cmap="viridis", rasterized=True,
        )  # fmt: skip
        ax.set_title(title)
        ax.set_xlabel("rate in Hz")
        if box is not None:
            time, mel = (row["cumulative"] for row in box)
            corner = [c["continuous"] if c["minus_6db"] is None else c["minus_6db"] for c in (time, mel)]
            which = "f/2S" if time["minus_6db"] is None else "-6 dB"
            ax.plot([corner[0], corner[0], 0], [0, corner[1], corner[1]], color="white", lw=2.6, clip_on=True)
            ax.plot([corner[0], corner[0], 0], [0, corner[1], corner[1]], color="#d6204e", lw=1.4, ls="--")
            ax.text(
                0.97, 0.95, f"box: layer {box[0]['layer']}, {which}", color="white", transform=ax.transAxes,
                ha="right", va="top", fontsize=8,
            )  # fmt: skip
        ax.set_xlim(_cell_edges(ripples.rates_hz)[[0, -1]])
        ax.set_ylim(_cell_edges(ripples.scales)[[0, -1]])
    axes[0].set_ylabel("scale in cycles per mel band")
    figure.colorbar(mesh, ax=axes, label="response, largest = 1", fraction=0.025, pad=0.01)
    return figure


@_styled
def curves_figure(metrics: Sequence[Mapping[str, Any]]) -> "Figure":
    """Loss and accuracy of every task over the epochs; training dashed, validation full.

    Args:
        metrics: the lines of `metrics.jsonl`.
    """
    figure = _figure(9.6, 3.0)
    tasks = list(metrics[0]["tasks"])
    for ax, what, scale in zip(figure.subplots(1, 2), ("loss", "accuracy"), (1, 100), strict=True):
        for i, task in enumerate(tasks):
            for split, style in (("train", "--"), ("validation", "-")):
                points = [
                    (line["epoch"], scale * line["tasks"][task][what])
                    for line in metrics
                    if line["split"] == split and what in line["tasks"].get(task, {})
                ]
                if points:
                    x, y = zip(*points, strict=True)
                    ax.plot(x, y, style, marker="o", ms=3, color=PALETTE[i % len(PALETTE)], label=f"{task}, {split}")
        ax.set_xlabel("epoch")
        ax.set_title(f"{what} in {'nats' if what == 'loss' else '%'}")
        ax.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    ax.legend()
    return figure


@_styled
def dynamics_figure(dynamics: Sequence[Mapping[str, Any]]) -> "Figure":
    """Strides, first and last cut-off, total striding factor and MACs over training.

    Args:
        dynamics: from `dynamics.over_training`.

    Source:
        Riad et al. 2022, Fig. 3.
    """
    figure = _figure(9.6, 5.6)
    grid = figure.subplots(2, 3)
    epochs = [point["epoch"] for point in dynamics]
    n_layers = len(dynamics[0]["strides"])
    colours = ramp(n_layers)
    for i, axis in enumerate(AXES):
        ax = grid[0][i]
        for layer in range(n_layers):
            values = [point["strides"][layer][i] for point in dynamics]
            ax.plot(epochs, values, color=colours[layer], label=f"layer {layer + 1}")
        ax.set_title(f"stride, {axis}")
        ax = grid[1][i]
        for layer in range(n_layers):
            values = [point["cutoffs"][layer][i] for point in dynamics]
            ax.plot(epochs, values, color=colours[layer])
        ax.set_title(f"cut-off so far, {axis}, in {'Hz' if axis == 'time' else 'cycles/band'}")
        grid[0][2].plot(epochs, [p["total_stride"][i] for p in dynamics], color=PALETTE[i], label=f"{axis}: product")
        grid[0][2].plot(epochs, [p["shrinkage"][i] for p in dynamics], "--", color=PALETTE[i], label=f"{axis}: sizes")
    figure.legend(*grid[0][0].get_legend_handles_labels(), loc="outside upper left", ncols=n_layers)
    grid[0][2].set_title("total striding factor")
    grid[0][2].margins(y=0.35)
    grid[0][2].legend(ncols=2, fontsize=7, loc="upper center")
    grid[1][2].plot(epochs, [point["macs_per_second"] / 1e6 for point in dynamics], color=PALETTE[2])
    grid[1][2].set_title("million MACs per second of audio")
    for ax in grid.flat:
        ax.set_xlabel("epoch")
        ax.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    return figure


@_styled
def confusion_figure(counts: np.ndarray, labels: Sequence[str]) -> "Figure":
    """Confusion matrix: a row a true class, in % of its clips.

    Args:
        counts: int of shape ``(true, predicted)``.
        labels: name of each class.
    """
    from matplotlib.colors import LinearSegmentedColormap, to_rgba

    n = len(labels)
    size = min(3.2 + 0.3 * n, 9.6)
    figure = _figure(size, size * 0.85)
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
    ax.set_xlabel("predicted")
    ax.set_ylabel("true")
    if n <= 20:
        for row, column in zip(*np.nonzero(counts), strict=True):
            dark = share[row, column] > 55
            ax.text(
                column, row, str(counts[row, column]), ha="center", va="center", fontsize=font,
                color="#ffffff" if dark else INK,
            )  # fmt: skip
    figure.colorbar(image, ax=ax, label="% of the true class", fraction=0.04)
    return figure


@_styled
def cost_figure(points: Sequence[Mapping[str, Any]]) -> "Figure":
    """Accuracy against cost, a panel a task; methods that differ in nothing but `stride_cost` are joined.

    Args:
        points: rows with "task", "method", "macs_per_second", "mean" accuracy and its "sd" (or None),
            as "accuracy" of `compare.compare`.
    """
    tasks = list(dict.fromkeys(point["task"] for point in points))
    methods = list(dict.fromkeys(point["method"] for point in points))
    figure = _figure(max(6.0, 3.4 * len(tasks)), 3.4)
    for ax, task in zip(np.atleast_1d(figure.subplots(1, len(tasks))), tasks, strict=True):
        for point in points:
            if point["task"] == task:
                number = methods.index(point["method"])
                ax.errorbar(
                    point["macs_per_second"] / 1e6, 100 * point["mean"],
                    yerr=None if point["sd"] is None else 100 * point["sd"],
                    marker="osD^vP"[(number + number // 6) % 6], color=PALETTE[number % len(PALETTE)], capsize=3,
                    ls="none", label=point["method"],
                )  # fmt: skip
        for curve in _curves(point for point in points if point["task"] == task):
            ax.plot(*zip(*curve, strict=True), color=FAINT, lw=1.2, zorder=0)
        ax.set_title(task)
        ax.set_xlabel("million MACs per second of audio")
        ax.set_ylabel("test accuracy in %")
        ax.margins(0.15)
    _one_legend(figure)
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


@_styled
def striding_figure(runs: Sequence[Mapping[str, Any]]) -> "Figure":
    """Total striding factor and accuracy of several runs over training: do different starts end alike?

    Args:
        runs: "data", "method", "seed" and "points" of each, a row of panels for each data. Points are
            rows with "epoch", "total_stride" (time, mel) and "accuracy" on the validation clips (None
            where it is not known), as `dynamics.striding` makes.

    Source:
        Riad et al. 2022, Section 3.3 and Fig. 3: equivalence classes of strides.
    """
    titles = list(dict.fromkeys(run["data"] for run in runs))
    methods = list(dict.fromkeys(run["method"] for run in runs))
    figure = _figure(9.6, 0.8 + 2.8 * len(titles))
    grid = figure.subplots(len(titles), 3, squeeze=False)
    for run in runs:
        axes = grid[titles.index(run["data"])]
        colour = PALETTE[methods.index(run["method"]) % len(PALETTE)]
        style = {"color": colour, "lw": 1.4, "marker": "o", "ms": 2.5}
        epochs = [point["epoch"] for point in run["points"]]
        for i in range(2):
            axes[i].plot(epochs, [point["total_stride"][i] for point in run["points"]], **style)
        known = [(p["epoch"], 100 * p["accuracy"]) for p in run["points"] if p["accuracy"] is not None]
        axes[2].plot(*zip(*known, strict=True), **style, label=run["method"])
    for title, axes in zip(titles, grid, strict=True):
        for ax, axis in zip(axes, AXES, strict=False):
            ax.set_title(f"product of all strides, {axis}")
            low, high = ax.dataLim.intervaly
            if high > 8 * low:  # a start far off would hide how the others differ
                ax.set_yscale("log", base=2)
                ax.yaxis.set_major_formatter("{x:g}")
        axes[2].set_title("validation accuracy in %")
        if len(titles) > 1:
            axes[0].set_ylabel(title)
        for ax in axes:
            ax.set_xlabel("epoch")
            ax.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    _one_legend(figure)
    return figure


@_styled
def spectrogram_figure(log_mel: np.ndarray, frame_rate: float) -> "Figure":
    """A log-mel spectrogram ``(time, mel)``, time to the right and mel bands upwards."""
    figure = _figure(3.0, 1.5)
    ax = figure.subplots()
    ax.grid(False)
    extent = (0, len(log_mel) / frame_rate, 0, log_mel.shape[1])
    ax.imshow(log_mel.T, origin="lower", aspect="auto", extent=extent, cmap="magma", interpolation="nearest")
    ax.set_xlabel("s", fontsize=7)
    ax.set_ylabel("mel band", fontsize=7)
    ax.tick_params(labelsize=7)
    return figure


def ramp(n: int) -> list[tuple[float, float, float, float]]:
    """`n` colours in order, from the first layer to the last.

    Example:
        >>> len(ramp(6))
        6
    """
    from matplotlib.colors import LinearSegmentedColormap

    colours = LinearSegmentedColormap.from_list("layers", _RAMP)
    return [colours(i / max(n - 1, 1)) for i in range(n)]


@_styled
def save(figure: "Figure", path: Path) -> None:
    """Write a figure on white; the file's ending decides the format, see `check_ending`."""
    figure.savefig(path, dpi=150, facecolor="white")


def check_ending(path: Path) -> None:
    """Refuse a file to which no figure can be written, before any work.

    Raises:
        UsageError: if its ending is none of those in `ENDINGS`.
    """
    if path.suffix.lower() not in ENDINGS:
        raise UsageError(f"{path}: a figure's file must end in one of {' '.join(ENDINGS)}")


@_styled
def svg(figure: "Figure", description: str) -> str:
    """A figure as an inline SVG element that takes the page's text colours, described for screen readers.

    Example:
        >>> figure = confusion_figure(np.eye(2, dtype=int), ["no", "yes"])
        >>> text = svg(figure, "two classes")
        >>> text.startswith('<svg role="img" aria-label="two classes"'), INK in text
        (True, False)
    """
    from html import escape

    buffer = io.StringIO()
    with warnings.catch_warnings():
        # Text stays text in the SVG: the reader's fonts draw what matplotlib's own font cannot.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    # Ids must not meet those of another figure on the same page.
    unique = f"f{zlib.crc32(text.encode()):08x}-"
    text = re.sub(r'(\bid="|xlink:href="#|url\(#)', rf"\g<1>{unique}", text)
    text = text.replace(INK, "currentColor").replace(FAINT, "var(--faint)")
    return text.replace("<svg", f'<svg role="img" aria-label="{escape(description)}"', 1)


def _figure(width: float, height: float) -> "Figure":
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _one_legend(figure: "Figure") -> None:
    """A legend above all panels that names each label once."""
    named: dict[str, Any] = {}
    for ax in figure.axes:
        handles, labels = ax.get_legend_handles_labels()
        named |= dict(zip(labels, handles, strict=True))
    longest = max(len(label) + 6 for label in named)
    columns = max(1, min(4, round(11 * figure.get_figwidth()) // longest))
    figure.set_figheight(figure.get_figheight() + 0.18 * (-(-len(named) // columns) - 1))
    figure.legend(list(named.values()), list(named), loc="outside upper left", ncols=columns)


def _nyquist(layers: Sequence[Mapping[str, Any]], axis: str) -> float:
    first = next(row for row in layers if row["axis"] == axis)
    return first["own"]["continuous"] * first["stride"]


def _pass_bands(
    ax: "Axes",
    axis: str,
    layers: Sequence[Mapping[str, Any]],
    references: Sequence[Mapping[str, Any]],
    limit: float,
    ripple: float | None,
) -> None:
    rows = [row for row in layers if row["axis"] == axis]
    colours = ramp(len(rows))
    ticks = []
    for i, (row, colour) in enumerate(zip(rows, colours, strict=True)):
        cutoff = row["cumulative"]
        full = cutoff["continuous"] if cutoff["full_gain"] is None else cutoff["full_gain"]
        last = full if cutoff["last_bin"] is None else cutoff["last_bin"]
        ax.barh(i, full, height=0.6, color=colour)
        ax.barh(i, last - full, left=full, height=0.6, color=colour, alpha=0.35)
        ax.text(last + 0.01 * limit, i, f"{full:.1f}" if axis == "time" else f"{full:.3f}", va="center", fontsize=8)
        ticks.append(f"layer {row['layer']}")
    named = [reference for reference in references if reference["axis"] == axis]
    for i, reference in enumerate(named):
        low, high = reference["converted"]
        y = len(rows) + 0.6 + i
        ax.plot([low, high], [y, y], color="#8a8f98", lw=4, solid_capstyle="butt")
        ax.axvline(high, color="#8a8f98", lw=0.8, ls=":")
        at = f"\n(at {reference['at_hz'] / 1000:g} kHz)" if reference["at_hz"] else ""
        ticks.append(f"speech: {_ends(reference)}{at}")
    positions = [*range(len(rows)), *(len(rows) + 0.6 + i for i in range(len(named)))]
    if ripple is not None:
        ax.axvline(ripple, color="#dc4f6b", lw=1.4, ls="--")
        ax.text(ripple, -0.75, " fastest ripple", color="#dc4f6b", fontsize=8, ha="left", va="bottom")
    ax.set_yticks(positions, ticks)
    ax.set_ylim(positions[-1] + 0.7, -1.2)
    ax.set_xlim(0, limit)
    ax.grid(False, axis="y")
    masked = any(row["own"]["full_gain"] is not None for row in rows)
    ax.set_title(f"{axis}: " + ("kept after each layer (pale: fading)" if masked else "Nyquist frequency so far, f/2S"))
    ax.set_xlabel(_LABELS[axis])


def _ends(reference: Mapping[str, Any]) -> str:
    low, high = reference["low"], reference["high"]
    return f"{low:g}-{high:g} {reference['unit']}" if low else f"to {high:g} {reference['unit']}"


def _measured(ax: "Axes", axis: str, responses: Sequence[LayerResponse], limit: float) -> None:
    numbers = sorted({response.layer for response in responses})
    colours = dict(zip(numbers, ramp(len(numbers)), strict=True))
    for response in responses:
        if response.axis == axis:
            colour = colours[response.layer]
            ax.plot(response.modulation, response.mask, color=colour, lw=1)
            points = [(x, y) for x, y in zip(response.modulation, response.measured, strict=True) if y is not None]
            ax.plot(*zip(*points, strict=True), "o", ms=2.6, color=colour, label=f"layer {response.layer}")
    ax.set_xlim(0, limit)
    ax.set_title(f"{axis}: mask (line) and measured (dots)")
    ax.set_xlabel(_LABELS[axis])
    ax.set_ylabel("gain")


def _cell_edges(values: Sequence[float]) -> np.ndarray:
    centres = np.array(values)
    between = (centres[1:] + centres[:-1]) / 2
    return np.concatenate([[1.5 * centres[0] - 0.5 * centres[1]], between, [1.5 * centres[-1] - 0.5 * centres[-2]]])
