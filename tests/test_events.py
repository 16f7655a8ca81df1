"""Events in frame logits: pure functions, with a recording in pieces as with the whole."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from audiostride import create_model, load
from audiostride.errors import ModelFileError
from audiostride.models import events as events_module
from audiostride.models.events import EventFinder, EventSettings, check_settings, default_settings, find_events


def found(logits, kind="multiclass", **settings):
    logits = np.asarray(logits, float)
    thresholds = settings.pop("thresholds", (6.0,) * logits.shape[1])
    return find_events(logits, 100.0, 50.0, kind, EventSettings(thresholds, **({"min_ms": 0, "join_ms": 0} | settings)))


def track(*scores):
    return np.array(scores, float)[:, None]


def test_an_event_lasts_while_the_score_is_above_half_its_peak():
    (event,) = found(track(0, 2, 6, 10, 6, 4, 0))
    assert event[:4] == (200.0, 500.0, 0, 10.0)
    (event,) = found(track(0, 2, 6, 10, 6, 4, 0), floor=4.0)  # half of the way from 4 to 10
    assert event[:2] == (300.0, 400.0)


def test_peaks_below_the_threshold_are_none():
    assert found(track(0, 5.9, 5.9, 0)) == []
    assert len(found(track(0, 6.0, 6.0, 0))) == 1


def test_short_events_are_left_out_and_short_gaps_ignored():
    assert len(found(track(0, 9, 9, 0, 9, 9, 0))) == 2
    assert [e[:2] for e in found(track(0, 9, 9, 0, 9, 9, 0), join_ms=100)] == [(100.0, 600.0)]
    assert found(track(0, 9, 0, 0), min_ms=101) == []
    assert len(found(track(0, 9, 0, 0), min_ms=100)) == 1


def test_the_class_of_an_event_is_that_of_its_frames_together():
    (event,) = found([[0, 0], [7, 6], [6, 9], [6, 9], [0, 0]])
    assert event.label == 1
    np.testing.assert_allclose(event.logits, [19 / 3, 8])


def test_a_classes_own_threshold_decides():
    logits = [[0, 0], [8, 0], [0, 0], [0, 8], [0, 0]]
    assert [e.label for e in found(logits, thresholds=(7.0, 9.0))] == [0]


def test_multilabel_classes_sound_at_once_and_a_binary_task_has_one():
    logits = [[-6, -6], [3, -6], [3, 3], [3, 3], [-6, -6]]
    settings = {"thresholds": (0.0, 0.0), "floor": -6.0}
    assert [e[:3] for e in found(logits, "multilabel", **settings)] == [(100.0, 400.0, 0), (200.0, 400.0, 1)]
    binary = [[0, -6], [-3, 3], [-3, 3], [3, -3]]
    assert [e[:4] for e in found(binary, "binary", **settings)] == [(100.0, 300.0, 1, 6.0)]


def test_an_event_without_end_is_given_in_parts(monkeypatch):
    monkeypatch.setattr(events_module, "MAX_EVENT_S", 1.0)
    whole = found(np.full((25, 1), 9.0))
    assert [e[:2] for e in whole] == [(0, 1000), (1000, 2000), (2000, 2500)]
    finder = EventFinder(100.0, 50.0, "multiclass", EventSettings((6.0,), min_ms=0))
    parts = [e for _ in range(25) for e in finder.feed(np.full((1, 1), 9.0))]
    assert len(finder._held) <= 11
    assert [e[:2] for e in [*parts, *finder.finish()]] == [e[:2] for e in whole]


@given(
    st.lists(st.tuples(*[st.integers(-8, 12)] * 2), min_size=1, max_size=60),
    st.lists(st.integers(1, 9), min_size=1, max_size=60),
    st.sampled_from(["multiclass", "binary", "multilabel"]),
    st.integers(0, 300),
    st.integers(0, 300),
)
def test_pieces_give_the_events_of_the_whole(frames, sizes, kind, min_ms, join_ms):
    logits = np.array(frames, float)
    settings = default_settings(kind, 2)._replace(min_ms=min_ms, join_ms=join_ms)
    finder = EventFinder(100.0, 50.0, kind, settings)
    edges = np.minimum(np.cumsum([0, *sizes, 60]), len(logits))
    pieces = [e for a, b in itertools.pairwise(edges) for e in finder.feed(logits[a:b])] + finder.finish()
    whole = find_events(logits, 100.0, 50.0, kind, settings)
    assert sorted(e[:4] for e in pieces) == sorted(e[:4] for e in whole)
    for event in whole:
        assert event.peak >= settings.thresholds[event.label]
        assert event.end_ms - event.start_ms >= min_ms - 50  # the first frame is cut at the recording's begin


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"thresholds": [1.0]},
        {"thresholds": "ab"},
        {"thresholds": [1.0, float("nan")]},
        {"thresholds": [1.0, True]},
        {"thresholds": [1.0, 2.0], "min_ms": -1},
        {"thresholds": [1.0, 2.0], "floor": None},
    ],
)
def test_settings_that_are_none_are_refused(settings):
    with pytest.raises(ValueError, match="events: "):
        check_settings(settings, 2)


def test_settings_are_saved_with_the_model(tmp_path):
    model = create_model("audio_resnet_pico_strided", heads={"word": 2, "speaker": 3})
    model.event_settings["word"] = EventSettings((1.0, 2.5), -1.0, 80.0, 40.0)
    model.save(tmp_path)
    loaded = load(tmp_path)
    assert loaded.event_settings == model.event_settings
    assert loaded.events_by("speaker") == default_settings("multiclass", 3)
    model.reset_classifier({"word": 2})
    assert model.event_settings == {}


def test_damaged_settings_are_a_damaged_model(tmp_path):
    model = create_model("audio_resnet_pico_strided", heads={"word": 2})
    model.event_settings["word"] = EventSettings((1.0,))
    model.save(tmp_path)
    with pytest.raises(ModelFileError, match="thresholds must be 2 numbers"):
        load(tmp_path)
