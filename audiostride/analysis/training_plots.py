"""Figures over training: loss and accuracy, strides and cut-offs, several runs side by side."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import printable
from ..models.cutoffs import AXES
from .learning_dynamics import watched_split
from .plot_style import PALETTE, new_figure, ramp, shared_legend, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@styled
def curves_figure(metrics: Sequence[Mapping[str, Any]]) -> "Figure":
    """Loss and accuracy of every task over the epochs; training dashed, the split that was held out full.

    Args:
        metrics: the lines of `metrics.jsonl`.
    """
    figure = new_figure(9.6, 3.0)
    tasks = list(metrics[0]["tasks"])
    for ax, what, scale in zip(figure.subplots(1, 2), ("loss", "accuracy"), (1, 100), strict=True):
        for i, task in enumerate(tasks):
            for split, style in (("train", "--"), (watched_split(metrics), "-")):
                points = [
                    (line["epoch"], scale * line["tasks"][task][what])
                    for line in metrics
                    if line["split"] == split and what in line["tasks"].get(task, {})
                ]
                if points:
                    x, y = zip(*points, strict=True)
                    colour = PALETTE[i % len(PALETTE)]
                    ax.plot(x, y, style, marker="o", ms=3, color=colour, label=printable(f"{task}, {split}"))
        ax.set_title(f"{what} in {'nats' if what == 'loss' else '%'}")
        _count_epochs(ax)
    ax.legend()
    return figure


@styled
def dynamics_figure(dynamics: Sequence[Mapping[str, Any]]) -> "Figure":
    """Strides, first and last cut-off, total striding factor and MACs over training.

    Args:
        dynamics: from `learning_dynamics.over_training`.

    Source:
        Riad et al. 2022, Fig. 3.
    """
    figure = new_figure(9.6, 5.6)
    grid = figure.subplots(2, 3)
    epochs = [point["epoch"] for point in dynamics]
    n_layers = len(dynamics[0]["strides"])
    colours = ramp(n_layers)
    for i, axis in enumerate(AXES):
        cutoff = f"cut-off so far, {axis}, in {'Hz' if axis == 'time' else 'cycles/band'}"
        for row, (key, title) in enumerate((("strides", f"stride, {axis}"), ("cutoffs", cutoff))):
            grid[row][i].set_title(title)
            for layer, colour in enumerate(colours):
                values = [point[key][layer][i] for point in dynamics]
                grid[row][i].plot(epochs, values, color=colour, label=f"layer {layer + 1}")
        grid[0][2].plot(epochs, [p["total_stride"][i] for p in dynamics], color=PALETTE[i], label=f"{axis}: product")
        grid[0][2].plot(epochs, [p["shrinkage"][i] for p in dynamics], "--", color=PALETTE[i], label=f"{axis}: sizes")
    figure.legend(*grid[0][0].get_legend_handles_labels(), loc="outside upper left", ncols=n_layers)
    grid[0][2].set_title("total striding factor")
    grid[0][2].margins(y=0.35)
    grid[0][2].legend(ncols=2, fontsize=7, loc="upper center")
    grid[1][2].plot(epochs, [point["macs_per_second"] / 1e6 for point in dynamics], color=PALETTE[2])
    grid[1][2].set_title("million MACs per second of audio")
    for ax in grid.flat:
        _count_epochs(ax)
    return figure


@styled
def striding_figure(runs: Sequence[Mapping[str, Any]]) -> "Figure":
    """Total striding factor and accuracy of several runs over training: do different starts end alike?

    Args:
        runs: "data", "method", "seed" and "points" of each, a row of panels for each data. Points are
            rows with "epoch", "total_stride" (time, mel) and "accuracy" on the validation clips (None
            where it is not known), as `learning_dynamics.striding` makes.

    Source:
        Riad et al. 2022, Section 3.3 and Fig. 3: equivalence classes of strides.
    """
    titles = list(dict.fromkeys(run["data"] for run in runs))
    methods = list(dict.fromkeys(run["method"] for run in runs))
    figure = new_figure(9.6, 0.8 + 2.8 * len(titles))
    grid = figure.subplots(len(titles), 3, squeeze=False)
    for run in runs:
        axes = grid[titles.index(run["data"])]
        colour = PALETTE[methods.index(run["method"]) % len(PALETTE)]
        style = {"color": colour, "lw": 1.4, "marker": "o", "ms": 2.5}
        epochs = [point["epoch"] for point in run["points"]]
        for i in range(2):
            axes[i].plot(epochs, [point["total_stride"][i] for point in run["points"]], **style)
        known = [(p["epoch"], 100 * p["accuracy"]) for p in run["points"] if p["accuracy"] is not None]
        axes[2].plot(*zip(*known, strict=True), **style, label=printable(run["method"]))
    for title, axes in zip(titles, grid, strict=True):
        for ax, axis in zip(axes, AXES, strict=False):
            ax.set_title(f"product of all strides, {axis}")
            low, high = ax.dataLim.intervaly
            if high > 8 * low:  # a start far off would hide how the others differ
                ax.set_yscale("log", base=2)
                ax.yaxis.set_major_formatter("{x:g}")
        axes[2].set_title("validation accuracy in %")
        if len(titles) > 1:
            axes[0].set_ylabel(printable(title))
        for ax in axes:
            _count_epochs(ax)
    shared_legend(figure)
    return figure


def _count_epochs(ax: Any) -> None:
    ax.set_xlabel("epoch")
    ax.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
