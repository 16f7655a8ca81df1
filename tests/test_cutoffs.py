"""Cut-offs: the paper's table, the definition, and what the layers really let through."""

import math
import statistics

import pytest
import torch

from audiostride import AudioCNN, DiffStride, SpectralPool
from audiostride.layers.choice import Downsampling
from audiostride.models.cutoffs import axis_cutoff, paper_cutoff, summarise, trunk_cutoffs
from audiostride.models.folding import Folding, lands_on, survival

# Integer bins behind the twelve cells of Table 2: scenes, birds, instrument, pitch, commands, multi-task.
TABLE_2 = [
    (160, 100.0, 2, [(41, 42, 43), (41, 41, 42), (59, 61, 64), (55, 62, 63), (40, 40, 40), (54, 55, 55)],
     [26.25, 25.83, 38.33, 37.50, 25.00, 34.17]),
    (64, 1.0, 4, [(15, 16, 16), (16, 16, 16), (14, 15, 15), (18, 20, 20), (16, 16, 16), (17, 17, 18)],
     [0.2448, 0.2500, 0.2292, 0.3021, 0.2500, 0.2708]),
]  # fmt: skip


@pytest.mark.parametrize(("length", "rate", "digits", "bins", "published"), TABLE_2)
def test_the_papers_table_2_follows_from_its_runs(length, rate, digits, bins, published) -> None:
    for runs, cell in zip(bins, published, strict=True):
        strides = [length / (2 * (k + 0.5)) for k in runs]
        assert round(statistics.fmean(paper_cutoff(s, length, rate) for s in strides), digits) == cell


def test_summarised_runs_are_converted_one_by_one_and_averaged_then() -> None:
    runs = []
    for bins in (41, 42, 43):
        trunk = AudioCNN("diffstride", channels=(4,), strides=((160 / (2 * (bins + 0.5)), 2.0),))
        runs.append(trunk_cutoffs(trunk, 100, 64, 100.0))
    row = summarise(runs)[0]
    assert row["paper"] == pytest.approx(26.25)
    assert row["stride"] == pytest.approx(statistics.fmean(run[0].stride for run in runs))
    assert row["stride_sd"] == pytest.approx(statistics.stdev([run[0].stride for run in runs]))
    assert summarise(runs[:1])[0]["stride_sd"] is None


def test_one_layer_by_hand() -> None:
    cutoff = axis_cutoff(Downsampling("diffstride"), n=100, stride=2.0, per_bin=1.0)
    assert cutoff == (25.0, 25.0, 27.0, 28.0)


def test_cumulative_cutoffs_are_the_lowest_so_far_and_never_rise() -> None:
    trunk = AudioCNN("diffstride", channels=(4,) * 4, strides=((1, 1), (3, 2), (1, 1), (2, 2)), smoothness=1)
    rows = trunk_cutoffs(trunk, 100, 64, 100.0)
    for axis in ("time", "mel"):
        own = [row.own.full_gain for row in rows if row.axis == axis]
        cumulative = [row.cumulative.full_gain for row in rows if row.axis == axis]
        assert cumulative == [min(own[: i + 1]) for i in range(len(own))]


def test_strides_do_not_simply_multiply_when_the_ramp_keeps_bins() -> None:
    trunk = AudioCNN("diffstride", channels=(4, 4), strides=((2, 2), (2, 2)), smoothness=4)
    second = [row for row in trunk_cutoffs(trunk, 100, 64, 100.0) if row.axis == "time"][1]
    assert second.own.full_gain == pytest.approx(57 / 4)
    assert second.own.full_gain != 100 / 8


def test_a_longer_input_keeps_the_edge_in_hz_and_narrows_the_ramp() -> None:
    trunk = AudioCNN("diffstride", channels=(4,), strides=((2, 2),), smoothness=4)
    short, long = (trunk_cutoffs(trunk, n, 64, 100.0)[0].own for n in (100, 1000))
    assert short.full_gain == long.full_gain == 25.0
    assert (short.minus_6db, long.minus_6db) == pytest.approx((27.0, 25.2))


@pytest.mark.parametrize(("stride", "smoothness"), [(2.0, 4.0), (1.37, 1.0), (3.3, 2.0)])
def test_modulations_pass_a_layer_as_its_cutoffs_say(stride: float, smoothness: float) -> None:
    n, pool = 100, DiffStride(stride, smoothness=smoothness)
    cutoff = axis_cutoff(Downsampling("diffstride", smoothness), n, pool.strides()[0], per_bin=1.0)
    time = torch.arange(n) / n
    gains = []
    for k in range(n // 2):
        passed = pool(torch.cos(2 * math.pi * k * time)[None])
        gains.append((passed.square().mean().sqrt() / math.sqrt(0.5 if k else 1.0)).item())
    full = [k for k, gain in enumerate(gains) if gain > 0.999]
    kept = [k for k, gain in enumerate(gains) if gain > 1e-4]
    half = [k for k, gain in enumerate(gains) if gain >= 0.5]
    assert max(full) == math.floor(cutoff.full_gain)
    assert max(kept) == cutoff.last_bin
    assert max(half) == math.floor(cutoff.minus_6db)


def test_strided_layers_have_a_nyquist_frequency_and_no_edges() -> None:
    own = trunk_cutoffs(AudioCNN("strided"), 100, 64, 100.0)[0].own
    assert own == (25.0, None, None, None)


def test_runs_of_different_depth_are_not_averaged() -> None:
    runs = [trunk_cutoffs(AudioCNN(channels=(4,) * n, strides=((2, 2),) * n), 100, 64, 100.0) for n in (1, 2)]
    with pytest.raises(ValueError, match="different numbers of layers"):
        summarise(runs)


@pytest.mark.parametrize("n", [13, 62])
def test_spectral_pooling_that_crops_nothing_keeps_everything_in_full(n: int) -> None:
    cutoff = axis_cutoff(Downsampling("spectral"), n=n, stride=1.0, per_bin=1.0)
    assert cutoff.full_gain == cutoff.last_bin == n // 2
    assert torch.equal(SpectralPool(1.0)(torch.eye(n)), torch.eye(n))


def test_the_6_db_cutoff_is_where_filter_and_aliasing_together_halve_the_amplitude() -> None:
    for alpha in (0.0, 0.2, 0.4):
        cutoff = axis_cutoff(Downsampling("diffstride", 6.0), 200, 4.0, per_bin=1.0, aliasing=alpha)
        mask = (6.0 + cutoff.full_gain - cutoff.minus_6db) / 6.0
        assert mask + alpha * (1 - mask) == pytest.approx(0.5)
    assert (
        axis_cutoff(Downsampling("diffstride", 6.0), 200, 4.0, 1.0, aliasing=0.5).minus_6db == 30.5
    )  # the Nyquist frequency of 61


@pytest.mark.parametrize("alpha", [0.3, 1.0])
def test_a_modulation_above_the_cutoff_comes_out_with_the_stated_share_on_the_stated_modulation(alpha: float) -> None:
    trunk = AudioCNN("diffstride", channels=(4,), strides=((2.3, 2.0),), smoothness=1, aliasing=alpha)
    row = trunk_cutoffs(trunk, 100, 64, 100.0)[0]
    n, pool = 100, trunk.blocks[0].pool
    time = torch.arange(n) / n
    for k in range(math.ceil(row.own.last_bin) + 1, n // 2):
        y = pool.pool_axis(torch.cos(2 * math.pi * k * time).view(1, 1, n, 1), 0).flatten()
        spectrum = 2 * torch.fft.rfft(y).abs() / len(y)
        landed = spectrum.argmax().item()
        assert landed == pytest.approx(lands_on(k, row.folding.rate))
        expected = row.folding.share * (2 if landed == 0 else 1)
        assert spectrum[landed].item() == pytest.approx(expected, abs=1e-4)


def test_layers_that_fold_nothing_have_no_folding_and_strided_ones_fold_all() -> None:
    settings = {"channels": (4, 4), "strides": ((2, 2), (1, 1)), "smoothness": 1}
    for kind in ("diffstride", "spectral"):
        assert {row.folding for row in trunk_cutoffs(AudioCNN(kind, **settings), 100, 64, 100.0)} == {None}
        folding = [row.folding for row in trunk_cutoffs(AudioCNN(kind, aliasing=0.2, **settings), 100, 64, 100.0)]
        assert folding[0].share == pytest.approx(0.2)
        assert folding[2:] == [None, None]  # they keep their length
    strided = trunk_cutoffs(AudioCNN("strided", **settings), 100, 64, 100.0)
    assert strided[0].folding == Folding(1.0, 25.0, 50.0, 50.0)
    assert strided[1].folding == Folding(1.0, 0.25, 0.5, 0.5)


def test_a_folded_modulation_goes_on_as_what_it_has_become() -> None:
    trunk = AudioCNN("spectral", channels=(4, 4), strides=((2, 2), (2, 2)), aliasing=0.5)
    layers = summarise([trunk_cutoffs(trunk, 100, 64, 100.0)])
    once, twice = survival(layers, "time", 45.0), survival(layers, "time", 31.0)
    assert (once["kept"], once["folded"]) == (["folded", "folded"], {"share": 0.5, "lands_on": 5.0})
    assert twice["folded"] == {"share": 0.25, "lands_on": 6.0}  # 31 to 19 by the rate of 50, 19 to 6 by that of 25
    assert survival(layers, "time", 5.0)["kept"] == ["in full", "in full"]
