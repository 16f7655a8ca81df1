"""Recordings made of clips at known times, and the settings for events that a training leaves behind."""

import numpy as np

from audiostride import load
from audiostride.training.event_clips import level, loud_part, made_recording
from audiostride.training.event_testing import Heard, event_report
from audiostride.training.recipe import load_recipe
from audiostride.training.run import run
from conftest import tone


def test_the_level_is_the_mean_square_of_the_samples_around():
    noise = np.random.default_rng(0).standard_normal(3000)
    np.testing.assert_allclose(level(noise, 16000)[1000], np.square(noise[800:1200]).mean())
    assert len(level(noise, 16000)) == 3000


def test_a_loud_part_is_where_the_sound_is():
    clip = np.concatenate([0.01 * tone(440, 0.3), tone(440, 0.5), np.zeros(3200)])
    np.testing.assert_allclose(loud_part(clip, 16000), (0.3, 0.8), atol=0.013)


def test_made_recordings_hold_their_clips_where_they_say():
    clips = [(np.concatenate([np.zeros(4000), tone(f, 0.5)]), [label]) for f, label in ((300, "low"), (3000, "high"))]
    recording, events = made_recording(clips, 16000, 0.0, seed=3)
    assert len(recording) == 16000 * 60
    for event in events:
        part = recording[round(event.start_s * 16000) : round(event.end_s * 16000)]
        crossings_hz = (np.diff(np.sign(part)) != 0).sum() / 2 / (len(part) / 16000)
        assert abs(crossings_hz - (300 if event.label == "low" else 3000)) < 0.1 * crossings_hz
    silent = np.ones(len(recording), bool)
    for event in events:
        silent[round((event.start_s - 0.02) * 16000) : round((event.end_s + 0.02) * 16000)] = False
    assert np.abs(recording[silent]).max() < 0.2


def test_a_training_leaves_settings_that_find_more_than_the_default_ones(tone_folder, tmp_path):
    """On other clips of the same two kinds of tones than those that the settings were found on."""
    small = ["model.channels=[8,16]", "model.time_channels=[16,16]", "model.strides=[[1,2],[2,2],[2,1],[1,1]]"]
    data = [f"tasks.word.data.path={tone_folder}", "tasks.word.data.group=null", "train.validation_fraction=0.4"]
    train = ["train.epochs=8", "train.batch_size=8", "train.ema_decay=null", "train.workers=0", "augment={}"]
    run(load_recipe("words", [*data, *small, *train]), tmp_path / "run")
    model = load(tmp_path / "run")
    draws = np.random.default_rng(1)
    clips = [(tone(draws.uniform(*span), 1.0), [label]) for label, *span in (("low", 200, 500), ("high", 2000, 4000))]
    recording, true = made_recording(clips, 16000, 0.005, seed=1)
    heard = [Heard("made", 60.0, true, model.frame_logits(recording, 16000)[1]["word"].numpy())]
    own = event_report(model, "word", heard)["onset"][""]["f1"]
    del model.event_settings["word"]
    assert own > event_report(model, "word", heard)["onset"][""]["f1"]
