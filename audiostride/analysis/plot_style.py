"""How every figure looks, and how it is saved: to a file, or as an SVG inside the report.

Colours are mid-tones that read on light and on dark backgrounds, so that the report can show one SVG in both.
"""

import functools
import io
import os
import re
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UsageError, printable
from ..files import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ENDINGS = (".png", ".svg", ".pdf")
INK, FAINT = "#2b2b2d", "#c9c9cd"
PALETTE = ("#3b82f6", "#e07b27", "#1f9d76", "#b45bd6", "#dc4f6b", "#8a8f98")
_RAMP = ("#3b82f6", "#7c6cf0", "#b45bd6", "#dc4f9f", "#ec5d63", "#e98030")
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


@functools.cache
def load_matplotlib() -> Any:
    """Matplotlib, whatever MPLBACKEND names: figures are drawn without a backend."""
    backend = os.environ.pop("MPLBACKEND", None)
    try:
        import matplotlib

        return matplotlib
    finally:
        if backend is not None:
            os.environ["MPLBACKEND"] = backend


def styled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Run a function under this module's style, leaving the caller's matplotlib settings alone."""

    @functools.wraps(function)
    def styled(*args: Any, **kwargs: Any) -> Any:
        with load_matplotlib().rc_context(_STYLE):
            return function(*args, **kwargs)

    return styled


def new_figure(width: float, height: float) -> "Figure":
    """An empty figure of a size in inches, drawn without pyplot and so without a display."""
    load_matplotlib()
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def ramp(n: int) -> list[tuple[float, float, float, float]]:
    """`n` colours in order, from the first layer to the last.

    Example:
        >>> len(ramp(6))
        6
    """
    load_matplotlib()
    from matplotlib.colors import LinearSegmentedColormap

    colours = LinearSegmentedColormap.from_list("layers", _RAMP)
    return [colours(i / max(n - 1, 1)) for i in range(n)]


def shared_legend(figure: "Figure") -> None:
    """A legend above all panels that names each label once; none where nothing has a label."""
    named: dict[str, Any] = {}
    for ax in figure.axes:
        handles, labels = ax.get_legend_handles_labels()
        named |= dict(zip(labels, handles, strict=True))
    if not named:
        return
    longest = max(len(label) + 6 for label in named)
    columns = max(1, min(4, round(11 * figure.get_figwidth()) // longest))
    figure.set_figheight(figure.get_figheight() + 0.18 * (-(-len(named) // columns) - 1))
    figure.legend(list(named.values()), list(named), loc="outside upper left", ncols=columns)


@styled
def save(figure: "Figure", path: Path) -> None:
    """Write a figure on white; the file's ending decides the format, see `check_ending`."""
    with replacing(path) as partial:
        figure.savefig(partial, dpi=150, facecolor="white", format=path.suffix[1:].lower())


def check_ending(path: Path) -> None:
    """Refuse a file to which no figure can be written, before any work.

    Raises:
        UsageError: if its ending is none of those in `ENDINGS`.

    Example:
        >>> check_ending(Path("cutoffs.jpg"))
        Traceback (most recent call last):
            ...
        audiostride.errors.UsageError: cutoffs.jpg: a figure file must end in one of ...
    """
    if path.suffix.lower() not in ENDINGS:
        raise UsageError(f"{path}: a figure file must end in one of {' '.join(ENDINGS)}")


@styled
def svg(figure: "Figure", description: str) -> str:
    """A figure as an inline SVG element that takes the page's text colours, described for screen readers.

    Example:
        >>> figure = new_figure(2.0, 1.0)
        >>> _ = figure.subplots()
        >>> text = svg(figure, "empty axes")
        >>> text.startswith('<svg role="img" aria-label="empty axes"'), INK in text
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
    return text.replace("<svg", f'<svg role="img" aria-label="{escape(printable(description))}"', 1)
