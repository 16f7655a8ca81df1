"""Scores of events, against the field's own implementation where it is installed."""

import itertools

import numpy as np
import pytest

from audiostride.data.annotations import Segment
from audiostride.training.event_scores import Counts, event_counts, f1_interval, segment_counts, total


def random_events(seed, n=12):
    random = np.random.default_rng(seed)
    starts = random.uniform(0, 20, n)
    ends = starts + random.uniform(0.1, 2, n)
    labels = random.integers(3, size=n)
    return [Segment(round(s, 3), round(e, 3), "abc"[i]) for s, e, i in zip(starts, ends, labels, strict=True)]


def shaken(events, seed):
    random = np.random.default_rng(seed)
    moved = [
        s._replace(start_s=s.start_s + random.normal(0, 0.15), end_s=s.end_s + random.normal(0, 0.3)) for s in events
    ]
    return [s for s in moved if 0 <= s.start_s < s.end_s and random.uniform() < 0.9] + random_events(seed + 99, 2)


SED_EVAL = [
    (0.695652173913, 0.347826086957, 0.75),
    (0.782608695652, 0.695652173913, 0.823529411765),
    (0.8, 0.64, 0.844444444444),
    (0.695652173913, 0.521739130435, 0.883720930233),
    (0.434782608696, 0.347826086957, 0.782608695652),
    (0.88, 0.48, 0.884615384615),
    (0.8, 0.24, 0.833333333333),
    (0.64, 0.4, 0.933333333333),
]
"""F1 of onsets, of onsets and offsets, and of segments as sed_eval 0.2.1 computes it, for each seed."""


@pytest.mark.parametrize("seed", range(8))
def test_f1_is_what_sed_eval_computed(seed):
    true = random_events(seed)
    found = shaken(true, seed)
    counts = event_counts(found, true, offset_share=None), event_counts(found, true), segment_counts(found, true)
    assert [total([one])[""].f1 for one in counts] == pytest.approx(SED_EVAL[seed], abs=1e-9)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("offset_share", [None, 0.2])
def test_counts_are_those_of_sed_eval(seed, offset_share):
    sed_eval = pytest.importorskip("sed_eval")
    import dcase_util

    true = random_events(seed)
    found = shaken(true, seed)

    def listed(events):
        return dcase_util.containers.MetaDataContainer(
            [{"event_label": s.label, "onset": s.start_s, "offset": s.end_s, "filename": "a"} for s in events]
        )

    by_event = sed_eval.sound_event.EventBasedMetrics(
        ["a", "b", "c"], evaluate_offset=offset_share is not None, t_collar=0.2, percentage_of_length=0.2
    )
    by_event.evaluate(reference_event_list=listed(true), estimated_event_list=listed(found))
    by_segment = sed_eval.sound_event.SegmentBasedMetrics(["a", "b", "c"], time_resolution=1.0)
    by_segment.evaluate(reference_event_list=listed(true), estimated_event_list=listed(found))
    for metrics, counts in (
        (by_event, event_counts(found, true, offset_share=offset_share)),
        (by_segment, segment_counts(found, true)),
    ):
        overall = metrics.results_overall_metrics()["f_measure"]
        ours = total([counts])[""]
        assert ours.f1 == pytest.approx(overall["f_measure"], abs=1e-9)
        assert ours.precision == pytest.approx(overall["precision"], abs=1e-9)
        assert ours.recall == pytest.approx(overall["recall"], abs=1e-9)


@pytest.mark.parametrize("seed", range(8))
def test_the_matching_is_the_largest_there_is(seed):
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import maximum_bipartite_matching

    true = [s._replace(label="a") for s in random_events(seed, 30)]
    found = [s._replace(label="a") for s in shaken(true, seed)]
    near = [[abs(f.start_s - t.start_s) <= 0.5 for t in true] for f in found]
    expected = (maximum_bipartite_matching(csr_matrix(np.array(near, int)), perm_type="column") >= 0).sum()
    assert event_counts(found, true, 0.5, None)["a"].correct == expected


def test_an_event_is_right_once_and_only_with_its_label():
    true = [Segment(1.0, 2.0, "a")]
    assert event_counts([Segment(1.0, 2.0, "a")] * 3, true)["a"] == Counts(1, 3, 1)
    assert event_counts([Segment(1.0, 2.0, "b")], true) == {"a": Counts(0, 0, 1), "b": Counts(0, 1, 0)}
    assert event_counts([Segment(1.21, 2.0, "a")], true)["a"].correct == 0
    assert event_counts([Segment(1.0, 2.21, "a")], true)["a"].correct == 0
    assert event_counts([Segment(1.0, 2.21, "a")], true, offset_share=None)["a"].correct == 1


def test_scores_of_nothing_are_no_numbers():
    assert all(np.isnan(value) for value in (Counts(0, 0, 0).f1, Counts(0, 0, 3).precision, Counts(0, 3, 0).recall))
    assert Counts(0, 0, 3).f1 == 0
    assert total([]) == {}
    assert f1_interval([{"a": Counts(1, 1, 1)}]) is None


def test_the_interval_is_narrower_with_more_recordings():
    few, many = (f1_interval([{"a": Counts(i % 2, 1, 1)} for i in range(n)]) for n in (10, 1000))
    assert few is not None
    assert many is not None
    assert few[1] - few[0] > 2 * (many[1] - many[0])
    assert all(a <= b for a, b in itertools.pairwise([few[0], many[0], 0.5, many[1], few[1]]))
