"""The figure of docs/results.md: what learned strides gain over each baseline, with its confidence interval."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from audiostride.analysis.plot_style import FAINT, PALETTE, new_figure, shared_legend, styled
from audiostride.analysis.significance import is_significant

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@styled
def differences_figure(panels: Mapping[str, Sequence[tuple[str, str, Mapping[str, Any]]]]) -> "Figure":
    """Differences in accuracy with their 95 % intervals, a line each; hollow where not significant.

    Args:
        panels: for each method its name and a row for each task and baseline: task, baseline and the difference of
            the method to it, as in "differences" of `comparison.compare`.
    """
    tasks = list(dict.fromkeys(task for rows in panels.values() for task, _, _ in rows))
    baselines = list(dict.fromkeys(baseline for rows in panels.values() for _, baseline, _ in rows))
    figure = new_figure(2.5 + 4.5 * len(panels), 1.2 + 0.62 * len(tasks))
    axes = figure.subplots(1, len(panels), sharex=True, sharey=True, squeeze=False)[0]
    for ax, (method, rows) in zip(axes, panels.items(), strict=True):
        ax.set_title(method)
        ax.axvline(0, color=FAINT, lw=1.2)
        for task, baseline, row in rows:
            number = baselines.index(baseline)
            y = tasks.index(task) + 0.22 * (number - (len(baselines) - 1) / 2)
            colour = PALETTE[number]
            ax.plot([100 * row["low"], 100 * row["high"]], [y, y], color=colour, lw=1.6)
            fill = colour if is_significant(row) else "white"
            ax.plot(
                100 * row["difference"], y, "o", ms=6, color=colour, markerfacecolor=fill, label=f"minus {baseline}"
            )
        ax.set_yticks(range(len(tasks)), tasks)
        ax.set_ylim(len(tasks) - 0.5, -0.5)
        ax.grid(False, axis="y")
    figure.supxlabel("difference in test accuracy, points, with its 95 % interval (filled: significant)", fontsize=10)
    shared_legend(figure)
    return figure
