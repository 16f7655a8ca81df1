"""Background: sounds that are none of the classes, in recipes, batches and the loss."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from scipy.stats import chisquare

from audiostride.data.augment import Augmentation
from audiostride.data.background import SHOWN, background_window, mixed_in, read_background
from audiostride.data.batches import LabelledClips, training_batches
from audiostride.data.clips import ArrayClips
from audiostride.errors import DataError
from audiostride.training.build import check_recipe
from audiostride.training.evaluation import none_loss
from audiostride.training.recipe import load_recipe

RATE = 16000


def read(path: Path, fraction: float = 0.1):
    return read_background(str(path), RATE, seed=0, validation_fraction=fraction, key="data.background")


@pytest.fixture
def rain(tmp_path: Path) -> Path:
    """Twenty files; the samples of each are its number, in hundredths, and file 0 is eight times as long."""
    (tmp_path / "rain" / "more").mkdir(parents=True)
    for number in range(20):
        sound = np.full(RATE * (8 if number == 0 else 1) // 4, (number + 1) / 100)
        soundfile.write(tmp_path / "rain" / ("more" if number % 2 else "") / f"{number}.wav", sound, RATE, "FLOAT")
    return tmp_path / "rain"


def test_some_files_are_held_out_and_windows_are_of_the_others_each_second_as_likely(rain: Path) -> None:
    clips = read(rain)
    assert clips.splits.count("validation") == 2
    assert set(read(rain, 0.0).splits) == {"train"}
    assert read(rain, 0.99).splits.count("train") == 1
    rng = np.random.default_rng(0)
    windows = [background_window(clips, RATE, 2000, rng) for _ in range(3000)]
    numbers = np.array([round(100 * window[0]) - 1 for window in windows])
    names = {int(Path(name).stem): split for name, split in zip(clips.names, clips.splits, strict=True)}
    assert {names[number] for number in numbers} == {"train"}
    trained = [number for number, split in names.items() if split == "train"]
    seconds = np.array([8 if number == 0 else 1 for number in trained], float)
    counts = [int((numbers == number).sum()) for number in trained]
    assert chisquare(counts, 3000 * seconds / seconds.sum()).pvalue > 0.001


def test_a_short_sound_is_repeated_and_a_long_recording_cut_anywhere_but_at_its_end(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "short.wav", np.linspace(0, 0.9, 160), RATE, "FLOAT")
    ramp = np.linspace(0, 1, 10 * RATE)
    soundfile.write(tmp_path / "long.wav", ramp, RATE, "FLOAT")
    window = background_window(read(tmp_path / "short.wav", 0.0), RATE, 400, np.random.default_rng(0))
    np.testing.assert_array_equal(window[:160], window[160:320])
    clips = read(tmp_path / "long.wav")
    assert clips.splits == ["train", "validation"]
    rng = np.random.default_rng(0)
    windows = [background_window(clips, RATE, RATE, rng) for _ in range(200)]
    begins, ends = min(w[0] for w in windows), max(w[-1] for w in windows)
    assert begins < 0.05
    assert 0.85 < ends <= 0.9001
    assert clips.read(1, RATE)[0] == pytest.approx(0.9, abs=1e-3)
    assert len(clips.read(1, RATE)) == RATE


def test_it_is_mixed_in_at_times_at_the_ratio_drawn(rain: Path) -> None:
    clips, speech = read(rain), np.sin(np.arange(4000.0)).astype(np.float32)
    ratios = []
    for seed in range(100):
        noise = mixed_in(clips, speech, RATE, np.random.default_rng(seed)) - speech
        if noise.any():
            ratios.append(10 * np.log10(np.square(speech).mean() / np.square(noise).mean()))
    assert 30 < len(ratios) < 70
    assert 4.9 < min(ratios) < max(ratios) < 20.1


def test_a_batch_holds_background_after_its_clips_the_same_on_every_run(rain: Path) -> None:
    waveforms = np.random.default_rng(0).standard_normal((16, 4000)).astype(np.float32)
    clips = ArrayClips([str(i) for i in range(16)], {}, ["train"] * 16, waveforms=waveforms)
    plain = LabelledClips(clips, {"bird": np.arange(16) % 2}, clips.splits, {"bird": 2})
    data = LabelledClips(clips, {"frog": np.arange(16) % 3}, clips.splits, {"frog": 3}, background=read(rain))

    def batches(sets, mixing="uniform", **options):
        return list(training_batches(sets, RATE, 2000, 8, mixing, 3, 1, 0, **options))

    for augmentation in (None, Augmentation(mixup=1.0)):
        first, again = (batches([data], augmentation=augmentation) for _ in range(2))
        for one, other in zip(first, again, strict=True):
            assert torch.equal(one.waveform, other.waveform)
            n = round(SHOWN * 8)
            assert (one.rows, one.none) == ({"frog": slice(0, 8)}, {"frog": slice(8, 8 + n)})
            assert (len(one.waveform), len(one.names), len(one.labels["frog"])) == (8 + n, 8, 8)
            assert one.seeds is None or len(one.seeds) == 8 + n
            values = one.waveform[8:, 0]
            assert all(torch.equal(row, torch.full_like(row, row[0].item())) for row in one.waveform[8:])
            assert (100 * values - (100 * values).round()).abs().max() < 1e-3
    for batch in batches([data, plain], "joint"):
        (begin, end), rows = (batch.none["frog"].start, batch.none["frog"].stop), batch.rows["frog"]
        assert begin == rows.stop
        assert "bird" not in batch.none
        assert len(batch.waveform) == len(batch.names) + end - begin
        assert batch.rows["bird"].start in (0, end)


def test_the_loss_of_none_is_least_where_no_class_is_likelier_than_another_or_none_is_likely() -> None:
    logits = torch.randn(5, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    for kind in ("multiclass", "binary", "multilabel"):
        (gradient,) = torch.autograd.grad(none_loss(logits, kind), logits)
        wanted = logits.sigmoid() / 3 if kind == "multilabel" else logits.softmax(1) - 1 / 3
        torch.testing.assert_close(gradient, wanted / 5)


def test_what_is_missing_is_named_by_its_key(tone_folder: Path, tmp_path: Path) -> None:
    overrides = [f"tasks.label.data.path={tone_folder}", f"tasks.label.data.background={tmp_path / 'nowhere'}"]
    with pytest.raises(DataError, match=r"tasks\.label\.data\.background: .*nowhere: no such folder"):
        check_recipe(load_recipe("folder", overrides))
    (tmp_path / "torn.wav").write_bytes(b"RIFF")
    with pytest.raises(DataError, match=r"torn\.wav"):
        read(tmp_path)
