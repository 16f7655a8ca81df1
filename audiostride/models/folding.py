"""What downsampling folds: modulations above the new Nyquist frequency that are not removed, and where they land.

A map sampled at a new rate r, in Hz or per mel band, can show modulations up to r / 2 only. A faster one that is
not filtered out before is taken for a slower one: f lands on its distance to the nearest multiple of r. A strided
convolution folds all of it down, `SpectralPool` and `DiffStride` nothing, with aliasing alpha the share alpha.
"""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any, NamedTuple


class Folding(NamedTuple):
    """What one layer folds down along one axis.

    Attributes:
        share: amplitude that is folded down of what lies above; the rest is removed. 0 to 1, the mean over channels.
        above: the layer's new Nyquist frequency, in Hz or cycles per mel band.
        rate: the rate it samples at, in Hz or per mel band.
        fastest: the fastest modulation that its input can show.
        groups: the share of each group of channels, where groups have an alpha of their own.
    """

    share: float
    above: float
    rate: float
    fastest: float
    groups: tuple[float, ...] = ()


def axis_folding(alpha: float | Sequence[float], n: int, m: float, per_bin: float) -> Folding | None:
    """What a layer folds that makes `m` samples of `n`; None if that is nothing.

    Args:
        alpha: share that is folded, 1 for a strided convolution; several for equal groups of channels.
        n: length of the axis before the layer.
        m: its length after it; for a strided convolution N / S, which its length rounds up.
        per_bin: modulation that one DFT bin stands for.

    Example:
        >>> axis_folding(0.25, n=100, m=51, per_bin=1.0)
        Folding(share=0.25, above=25.5, rate=51.0, fastest=50.0, groups=())
        >>> axis_folding([0.0, 1.0], n=100, m=51, per_bin=1.0).share
        0.5
        >>> axis_folding(0.25, n=51, m=51, per_bin=1.0)
    """
    groups = tuple(alpha) if isinstance(alpha, Sequence) else ()
    share = fmean(alpha) if isinstance(alpha, Sequence) else alpha
    if share == 0 or m >= n:
        return None
    return Folding(share, m * per_bin / 2, m * per_bin, n * per_bin / 2, groups)


def lands_on(modulation: float, rate: float) -> float:
    """The modulation that one is taken for in a map sampled at `rate`, in the same unit.

    Example:
        >>> lands_on(20.0, rate=51.0), lands_on(40.0, rate=51.0), lands_on(60.0, rate=51.0)
        (20.0, 11.0, 9.0)
    """
    return abs(modulation - rate * round(modulation / rate))


def mean_folding(foldings: Sequence[Folding | None]) -> dict[str, Any] | None:
    """Mean over runs of what a layer folds; a run that folds nothing counts with a share of 0.

    Example:
        >>> mean_folding([Folding(0.5, 25.0, 50.0, 50.0), None])
        {'share': 0.25, 'above': 25.0, 'rate': 50.0, 'fastest': 50.0, 'groups': []}
        >>> mean_folding([Folding(0.5, 25.0, 50.0, 50.0, (0.0, 1.0)), Folding(0.75, 25.0, 50.0, 50.0, (0.5, 1.0))])
        {'share': 0.625, 'above': 25.0, 'rate': 50.0, 'fastest': 50.0, 'groups': [0.25, 1.0]}
    """
    known = [folding for folding in foldings if folding is not None]
    if not known:
        return None
    counted = len(known) / len(foldings)
    means: dict[str, Any] = {
        name: fmean(getattr(folding, name) for folding in known) for name in ("share", "above", "rate", "fastest")
    }
    groups = [folding.groups for folding in known]
    same = len({len(shares) for shares in groups}) == 1
    by_group = [fmean(shares) * counted for shares in zip(*groups, strict=True)] if same else []
    return means | {"share": means["share"] * counted, "groups": by_group}


_KEPT = ("in full", "in part", "folded", "not")


def survival(layers: Sequence[Mapping[str, Any]], axis: str, modulation: float) -> dict[str, Any]:
    """How far into the network a modulation of the input is kept, and what it is folded to.

    A layer keeps it "in full" up to its full-gain edge and "in part" up to its last bin. Above it is "folded"
    down, by a strided convolution or with aliasing, or is "not" kept. A strided convolution has no mask: it keeps
    "in full" up to its Nyquist frequency. What was folded continues as the slower modulation it has become.

    Args:
        layers: from `cutoffs.summarise`.
        axis: "time" or "mel".
        modulation: in Hz or cycles per mel band.

    Returns:
        "axis", "modulation", "unit", "kept": one of the four words for what all layers so far have made of it;
        "lost_at": number of the first layer that does not keep it where it was, None if all do; "folded": if it
        is folded and not removed later, its "share" and the modulation it "lands_on" at last, else None.

    Example:
        >>> from audiostride import AudioCNN
        >>> from audiostride.models.cutoffs import summarise, trunk_cutoffs
        >>> layers = summarise([trunk_cutoffs(AudioCNN(smoothness=1), 100, 64, 100.0)])
        >>> found = survival(layers, "time", 24.0)
        >>> found["kept"][:3], found["lost_at"]
        (['in full', 'not', 'not'], 2)
        >>> layers = summarise([trunk_cutoffs(AudioCNN(smoothness=1, aliasing=0.25), 100, 64, 100.0)])
        >>> found = survival(layers[:4], "time", 24.0)
        >>> found["kept"], found["folded"]
        (['in full', 'folded'], {'share': 0.25, 'lands_on': 3.0})
    """
    units = {"time": "Hz", "mel": "cycles per mel band"}
    now, share, worst, kept = modulation, 1.0, 0, []
    for row in layers:
        if row["axis"] != axis or worst == 3:
            kept += ["not"] if row["axis"] == axis else []
            continue
        own, folding = row["own"], row["folding"]
        full = own["continuous"] if own["full_gain"] is None else own["full_gain"]
        last = full if own["last_bin"] is None else own["last_bin"]
        if now > last and folding:
            share, now = share * folding["share"], lands_on(now, folding["rate"])
            worst = 2
        elif now > full:
            worst = max(worst, 1 if now <= last else 3)
        kept.append(_KEPT[worst])
    lost = [word in ("folded", "not") for word in kept]
    return {
        "axis": axis,
        "modulation": modulation,
        "unit": units[axis],
        "kept": kept,
        "lost_at": lost.index(True) + 1 if any(lost) else None,
        "folded": {"share": share, "lands_on": round(now, 9)} if worst == 2 else None,
    }
