"""Figures of the resolution: cut-offs of every layer, measured responses, the modulation plane."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..models.cutoffs import AXES
from .measured_response import LayerResponse, RippleResponse
from .plot_style import new_figure, ramp, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LABELS = {"time": "temporal modulation in Hz", "mel": "spectral modulation in cycles per mel band"}


@styled
def cutoff_figure(
    layers: Sequence[Mapping[str, Any]],
    references: Sequence[Mapping[str, Any]],
    responses: Sequence[LayerResponse] = (),
    ripples: Sequence[Mapping[str, Any]] = (),
) -> "Figure":
    """What each layer still keeps of the input, against the reference ranges.

    Args:
        layers: from `cutoffs.summarise`.
        references: from `reference_ranges.reference_ranges`.
        responses: from `measured_response.layer_responses`; drawn over the masks in a second row.
        ripples: from `folding.survival`, the fastest ripple of the data on each axis where it is known.
    """
    fastest = {ripple["axis"]: ripple["modulation"] for ripple in ripples}
    rows = 2 if responses else 1
    figure = new_figure(9.6, 1.6 + 0.32 * len(layers) / 2 + 0.26 * len(references) / 2 + 2.8 * (rows - 1))
    heights = [1.0, 0.9][:rows]
    grid = figure.subplots(rows, 2, squeeze=False, gridspec_kw={"height_ratios": heights})
    for column, axis in enumerate(AXES):
        limit = _nyquist(layers, axis)
        _pass_bands(grid[0][column], axis, layers, references, limit, fastest.get(axis))
        if responses:
            _measured(grid[1][column], axis, responses, limit, max(row["layer"] for row in layers))
    return figure


@styled
def plane_figure(ripples: RippleResponse, layers: Sequence[Mapping[str, Any]]) -> "Figure":
    """The modulation plane: responses to ripples, with the pass-bands of first and last layer drawn in.

    Args:
        ripples: from `measured_response.ripple_response`.
        layers: from `cutoffs.summarise` of the same model.
    """
    panels = (
        ("log-mel follows the ripple", ripples.frontend, None),
        ("last map follows the ripple", ripples.follows, layers[-2:]),
        ("last map notices the ripple", ripples.notices, layers[:2]),
    )
    figure = new_figure(9.6, 3.3)
    axes = figure.subplots(1, 3, sharex=True, sharey=True)
    for ax, (title, values, box) in zip(axes, panels, strict=True):
        ax.grid(False)
        mesh = ax.pcolormesh(
            _cell_edges(ripples.rates_hz), _cell_edges(ripples.scales), np.array(values).T, vmin=0, vmax=1,
            cmap="viridis", rasterized=True,
        )  # fmt: skip
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
        rates, scales = (_cell_edges(values)[[0, -1]] for values in (ripples.rates_hz, ripples.scales))
        ax.set(title=title, xlabel="rate in Hz", xlim=rates, ylim=scales)
    axes[0].set_ylabel("scale in cycles per mel band")
    figure.colorbar(mesh, ax=axes, label="response, largest = 1", fraction=0.025, pad=0.01)
    return figure


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
        if row["own"]["full_gain"] is not None and (folding := row["folding"]):
            width = min(folding["fastest"], limit) - folding["above"]
            ax.barh(i, width, left=folding["above"], height=0.6 * folding["share"], color="#dc4f6b", alpha=0.35)
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
    ax.grid(False, axis="y")
    masked = any(row["own"]["full_gain"] is not None for row in rows)
    folds = any(row["folding"] for row in rows)
    what = "kept (pale: fading; red: folded)" if folds else "kept after each layer (pale: fading)"
    title = f"{axis}: " + (what if masked else "Nyquist frequency so far, f/2S")
    ax.set(title=title, xlabel=_LABELS[axis], xlim=(0, limit), ylim=(positions[-1] + 0.7, -1.2))


def _ends(reference: Mapping[str, Any]) -> str:
    low, high = reference["low"], reference["high"]
    return f"{low:g}-{high:g} {reference['unit']}" if low else f"to {high:g} {reference['unit']}"


def _measured(ax: "Axes", axis: str, responses: Sequence[LayerResponse], limit: float, n_layers: int) -> None:
    colours = ramp(n_layers)
    for response in responses:
        if response.axis == axis:
            colour = colours[response.layer - 1]
            ax.plot(response.modulation, response.mask, color=colour, lw=1)
            points = [(x, y) for x, y in zip(response.modulation, response.measured, strict=True) if y is not None]
            ax.plot(*zip(*points, strict=True), "o", ms=2.6, color=colour, label=f"layer {response.layer}")
    title = f"{axis}: predicted (line) and measured (dots)"
    ax.set(title=title, xlabel=_LABELS[axis], ylabel="gain", xlim=(0, limit))
    ax.set_ylim(bottom=0)


def _cell_edges(values: Sequence[float]) -> np.ndarray:
    centres = np.array(values)
    between = (centres[1:] + centres[:-1]) / 2
    return np.concatenate([[1.5 * centres[0] - 0.5 * centres[1]], between, [1.5 * centres[-1] - 0.5 * centres[-2]]])
