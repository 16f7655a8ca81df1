"""Write the figure of docs/cost.md from step.csv: python benchmarks/figure.py [FILE]"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tables import FORMS, HERE, read

from audiostride.analysis.plot_style import FAINT, PALETTE, new_figure, save, shared_legend, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = {
    "multiply-accumulates": ("training", "MAC ratio"),
    "training step": ("training", "time / strided"),
    "inference": ("inference", "time / strided"),
    "peak memory of a training step": ("training", "memory / strided"),
}
"""Quantities of the figure: which rows of step.csv have them, in which column."""


@styled
def cost_figure(rows: Sequence[Mapping[str, str]], network: str = "paper", batch: str = "64") -> "Figure":
    """Arithmetic, time and memory of every form, as multiples of the strided network's."""
    found = {
        (row["what"], row["method"], row["R"]): row
        for row in rows
        if row["network"] == network and row["batch"] == batch
    }
    figure = new_figure(8.0, 3.2)
    ax = figure.subplots()
    ax.axhline(1, color=FAINT, lw=1.2)
    places = np.arange(len(COLUMNS))
    for number, (name, form) in enumerate(FORMS.items()):
        values = [float(found[what, *form][column]) for what, column in COLUMNS.values()]
        at = places + 0.16 * (number - (len(FORMS) - 1) / 2)
        ax.bar(at, values, width=0.14, color=PALETTE[number], label=name)
        for x, value in zip(at, values, strict=True):
            ax.text(x, value, f"{value:.1f}", ha="center", va="bottom", fontsize=7)
    ax.set_xticks(places, list(COLUMNS))
    ax.grid(False, axis="x")
    ax.set_ylabel("multiple of strided")
    shared_legend(figure)
    return figure


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE.parent / "docs" / "cost.png"
    save(cost_figure(read("step.csv")), target)
    print(f"wrote {target}")
