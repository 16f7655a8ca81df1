"""Windows of training that leave out the quiet parts of a clip."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from small_training import small_model, train_small

from audiostride.data.augment import Augmentation, AugmentSection, TimeShift
from audiostride.data.batches import LabelledClips, training_batches
from audiostride.data.clips import ArrayClips
from audiostride.data.folder import read_folder
from audiostride.data.loud_windows import MAX_DRAWS, loud_window, window_powers
from audiostride.errors import RecipeError
from audiostride.training.recipe import load_recipe
from conftest import tone

RATE = 16000


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def clip_of(*waveforms: np.ndarray) -> ArrayClips:
    n = len(waveforms)
    return ArrayClips([str(i) for i in range(n)], {}, [""] * n, waveforms=np.stack(waveforms).astype(np.float32))


def event(at_s: float = 6.0, seconds: float = 10.0) -> np.ndarray:
    """A second of tone in faint noise."""
    sound = 1e-3 * np.random.RandomState(0).standard_normal(round(seconds * RATE))
    sound[round(at_s * RATE) :][:RATE] += tone(440)
    return sound


def level_db(waveform: np.ndarray) -> float:
    return float(10 * np.log10(np.square(waveform, dtype=np.float64).mean()))


def test_the_power_of_every_window_is_its_mean_square() -> None:
    sound = np.random.RandomState(0).standard_normal(50).astype(np.float32)
    expected = [np.square(sound[i : i + 8], dtype=np.float64).mean() for i in range(43)]
    np.testing.assert_allclose(window_powers(sound, 8), expected, rtol=1e-9)


def test_a_window_is_loud_or_the_loudest_of_all_that_were_drawn() -> None:
    clips, loudest_db = clip_of(event()), level_db(tone(440))
    loud = 0
    for seed in range(200):
        window = loud_window(clips, 0, RATE, RATE, rng(seed), skip_quiet_db=10)
        draws = rng(seed).integers(0, 9 * RATE + 1, MAX_DRAWS)
        levels = [level_db(clips.waveforms[0, start : start + RATE]) for start in draws]
        enough = [level for level in levels if level >= loudest_db - 10]
        assert level_db(window) == pytest.approx(enough[0] if enough else max(levels), abs=1e-6)
        loud += bool(enough)
    # A fifth of all places hold enough of the tone; eight draws miss them in 0.8 ** 8 = 17 % of the clips.
    assert 145 <= loud <= 188


def test_where_nothing_is_quiet_windows_are_those_of_plain_training() -> None:
    steady, silent = np.tile(tone(440), 5), np.zeros(5 * RATE)
    short = np.stack([tone(440, 0.5)])
    for sound in (steady, silent, *short):
        clips = clip_of(sound)
        for seed in range(20):
            plain = clips.random_window(0, RATE, RATE, rng(seed))
            np.testing.assert_array_equal(loud_window(clips, 0, RATE, RATE, rng(seed), 3.0), plain)


def test_files_of_another_rate_are_cut_as_whole_clips(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    soundfile.write(tmp_path / "a" / "x.wav", event().astype(np.float32)[: 7 * RATE + 1], 22050)
    clips = read_folder(tmp_path)
    whole = clips.read(0, RATE)
    for seed in range(20):
        window = loud_window(clips, 0, RATE, RATE, rng(seed), 10.0)
        starts = range(len(whole) - RATE + 1)
        assert any(np.array_equal(whole[s : s + 50], window[:50]) for s in starts if whole[s] == window[0])


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_draw_the_same_windows_at_any_step(workers: int) -> None:
    data = [LabelledClips(clip_of(*(event(i % 9) for i in range(16))), {"a": np.arange(16) % 2}, ["train"] * 16)]
    ways = Augmentation(skip_quiet_db=10, speed=(0.9, 1.1), waveform=[TimeShift(100)])
    one = list(training_batches(data, RATE, RATE, 4, "uniform", 1, 3, 0, ways))
    again = list(training_batches(data, RATE, RATE, 4, "uniform", 1, 3, workers, ways, first=2))
    for a, b in zip(one[2:], again, strict=True):
        assert a.names == b.names
        assert torch.equal(a.waveform, b.waveform)
    louder = [level_db(window) for batch in one for window in batch.waveform.numpy()]
    plain = training_batches(data, RATE, RATE, 4, "uniform", 1, 3, 0)
    assert np.mean(louder) > 10 + np.mean([level_db(window) for batch in plain for window in batch.waveform.numpy()])


def test_a_run_that_was_stopped_goes_on_to_the_bit(tmp_path: Path) -> None:
    sounds = clip_of(*(event(i % 9)[: 4 * RATE] for i in range(20)))
    splits = ["validation" if i % 10 == 8 else "test" if i % 10 == 9 else "train" for i in range(20)]
    labels = {"loud": np.arange(20) % 2, "third": np.arange(20) // 2 % 3}
    data = [LabelledClips(sounds, labels, splits, {"loud": 2, "third": 3})]
    ways = Augmentation(skip_quiet_db=10, mixup=0.5, between_class=True)
    settings: dict[str, Any] = {"epochs": 2, "batch_size": 4, "checkpoint_steps": 3, "augmentation": ways}

    class Killed(Exception):
        pass

    def kill(step: int, *_: object) -> None:
        if step == 6:
            raise Killed

    lines = {}
    for name in ("straight", "killed"):
        out = tmp_path / name
        if name == "killed":
            with pytest.raises(Killed):
                train_small(small_model(), out, sets=data, **settings, on_step=kill)
        train_small(small_model(), out, sets=data, **settings, resume=name == "killed")
        lines[name] = (out / "steps.jsonl").read_text()
    assert lines["straight"] == lines["killed"]
    assert lines["straight"].count("\n") == 8


def test_the_key_makes_an_augmentation_and_images_refuse_it() -> None:
    made = AugmentSection(skip_quiet_db=12.0).make(RATE, 10.0)
    assert made is not None
    assert made.skip_quiet_db == 12.0
    assert AugmentSection().make(RATE, 10.0) is None
    with pytest.raises(RecipeError, match=r"augment\.skip_quiet_db is for sounds"):
        load_recipe("cifar10", ["augment.skip_quiet_db=10"])
    with pytest.raises(RecipeError, match=r"augment\.skip_quiet_db: input should be greater than 0"):
        load_recipe("folder", ["augment.skip_quiet_db=0"])
