"""Each augmentation does to a signal what its name says, from the clip's own generator."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from audiostride.data.augment import (
    Augmentation,
    ColouredNoise,
    Equalizer,
    Gain,
    Noise,
    OnTensor,
    SpecAugment,
    TimeShift,
    augmented,
    change_speed,
    noise_files,
)
from audiostride.data.batches import LabelledClips, training_batches
from audiostride.data.clips import ArrayClips
from audiostride.errors import DataError, RecipeError
from audiostride.models.log_mel import LogMel
from audiostride.training.recipe import load_recipe
from audiostride.training.run import run
from audiostride.training.transforms import make_transforms
from conftest import tone

RATE = 16000


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_time_shift_moves_an_impulse_both_ways_but_not_too_far() -> None:
    click = np.zeros(1000, np.float32)
    click[500] = 1
    places = [int(TimeShift(50)(click, rng(seed)).argmax()) for seed in range(200)]
    assert min(places) < 460
    assert max(places) > 540
    assert all(450 <= place <= 550 for place in places)


def test_a_shift_that_leaves_nothing_of_a_window_is_refused() -> None:
    recipe = load_recipe("folder", ["augment.time_shift_ms=500", "window_s=0.5"])
    with pytest.raises(RecipeError, match=r"augment\.time_shift_ms: 500 ms would leave nothing of a window of 500 ms"):
        make_transforms(recipe)


def test_time_shift_moves_silence_in() -> None:
    shifted = TimeShift(400)(np.ones(1000, np.float32), rng(1))
    assert set(np.unique(shifted)) == {0.0, 1.0}
    assert 600 <= shifted.sum() < 1000


def test_gain_scales_within_its_decibels_and_does_not_clip() -> None:
    levels = [20 * np.log10(Gain(6)(np.ones(4, np.float32), rng(seed))[0]) for seed in range(200)]
    assert -6 <= min(levels) < -5
    assert 5 < max(levels) <= 6


def test_noise_is_added_at_the_wanted_ratio(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "hiss.wav", np.random.RandomState(0).uniform(-0.3, 0.3, 5 * RATE), RATE)
    clean = tone(440)
    for snr_db in (0.0, 20.0):
        noisy = Noise(noise_files(tmp_path), RATE, (snr_db, snr_db))(clean, rng())
        ratio = np.square(clean).mean() / np.square(noisy - clean).mean()
        assert 10 * np.log10(ratio) == pytest.approx(snr_db, abs=0.01)


def test_noise_shorter_than_the_window_is_repeated_and_silence_stays_silent(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "blip.wav", np.random.RandomState(0).uniform(-0.3, 0.3, RATE // 4), RATE)
    noise = Noise(noise_files(tmp_path), RATE, (0.0, 0.0))
    added = noise(tone(440), rng()) - tone(440)
    np.testing.assert_allclose(added[: RATE // 4], added[RATE // 4 : RATE // 2], atol=1e-6)
    silence = np.zeros(RATE, np.float32)
    np.testing.assert_array_equal(noise(silence, rng()), silence)
    with pytest.raises(DataError, match="no such folder"):
        noise_files(tmp_path / "nowhere")


def test_hidden_files_are_no_noise(tmp_path: Path) -> None:
    (tmp_path / "rain").mkdir()
    for name in ("rain/long.WAV", "rain/._long.WAV"):  # as macOS writes beside each file on foreign disks
        (tmp_path / name).touch()
    assert noise_files(tmp_path) == (tmp_path / "rain" / "long.WAV",)


def test_coloured_noise_lies_between_white_and_brown_at_the_wanted_ratio() -> None:
    clean = tone(440)
    slopes = []
    for seed in range(40):
        noise = ColouredNoise((15.0, 15.0))(clean, rng(seed)) - clean
        assert 10 * np.log10(np.square(clean).mean() / np.square(noise).mean()) == pytest.approx(15, abs=0.01)
        power = np.square(np.abs(np.fft.rfft(noise)))
        slopes.append(np.log10(power[1000:2000].mean() / power[100:200].mean()))  # a decade apart
    assert -2.2 < min(slopes) < -1.5
    assert -0.5 < max(slopes) < 0.2
    silence = np.zeros(RATE, np.float32)
    np.testing.assert_array_equal(ColouredNoise()(silence, rng()), silence)
    assert ColouredNoise(probability=0.25)(clean, rng(1)) is clean


def test_noise_hits_the_stated_share_of_windows(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "hiss.wav", np.random.RandomState(0).uniform(-0.3, 0.3, RATE), RATE)
    noise, clean = Noise(noise_files(tmp_path), RATE, probability=0.25), tone(440, 0.01)
    hit = sum(noise(clean, rng(seed)) is not clean for seed in range(400))
    assert 70 <= hit <= 130


def test_speed_raises_the_pitch_by_its_factor() -> None:
    faster = change_speed(tone(400, 1.25), 1.25, RATE)
    assert len(faster) == RATE
    assert np.abs(np.fft.rfft(faster)).argmax() == 500


def test_an_equalizer_is_a_smooth_gain_of_the_stated_size_at_all_times() -> None:
    log_mel = 8 + torch.randn(1, 100, 64)  # far above the floor
    curves = []
    for seed in range(400):
        gain_db = 10 * np.log10(np.e) * (Equalizer(5.0)(log_mel, rng(seed)) - log_mel)[0].double()
        torch.testing.assert_close(gain_db, gain_db[:1].expand_as(gain_db), atol=1e-3, rtol=0)
        curves.append(gain_db[0])
    gains = torch.stack(curves)
    torch.testing.assert_close(gains.mean(1), torch.zeros(400, dtype=torch.double), atol=1e-4, rtol=0)
    assert gains.square().mean().sqrt().item() == pytest.approx(5.0, rel=0.05)
    spectrum = torch.fft.rfft(torch.cat([gains, gains.flip(1)], 1)).abs()  # a cosine of k half cycles is bin k
    assert spectrum[:, 5:].max() < 1e-2
    assert len(gains[:, 0].unique()) == 400


def test_an_equalizer_is_that_gain_on_the_sounds_power_and_leaves_silence_alone() -> None:
    silence = LogMel()(torch.zeros(1, RATE))
    torch.testing.assert_close(Equalizer(10.0)(silence, rng()), silence)
    frontend, soft = LogMel(), 0.003 * torch.randn(1, RATE)  # in part below the floor
    curve = Equalizer(10.0)(torch.full((1, 1, 64), 8.0), rng(3)) - 8
    power = (frontend(soft).double().exp() - 1e-5) * curve.double().exp()
    torch.testing.assert_close(Equalizer(10.0)(frontend(soft)[0], rng(3)), (power + 1e-5).log().float()[0])


@pytest.mark.parametrize(
    ("frontend", "message"),
    [
        ("{name: waveform}", r"augment\.equalize_db: is for spectrograms, which a raw waveform is not"),
        ("{name: custom, frontend: 'a:B'}", r"augment\.equalize_db: is for frontend\.name log_mel"),
        ("{name: log_mel}", ""),
    ],
)
def test_an_equalizer_is_for_log_mel_spectrograms(frontend: str, message: str) -> None:
    model = "{name: wave_cnn}" if "waveform" in frontend else "{}"
    recipe = load_recipe("folder", [f"frontend={frontend}", f"model={model}", "augment.equalize_db=4"])
    if not message:
        made = make_transforms(recipe)
        assert made is not None
        assert made.log_mel == [Equalizer(4.0)]
        return
    with pytest.raises(RecipeError, match=message):
        make_transforms(recipe)


def test_spec_augment_blanks_no_more_than_it_may_and_keeps_the_rest() -> None:
    log_mel = torch.randn(1, 100, 64)
    for seed in range(50):
        masked = SpecAugment(time_masks=2, frames=20, mel_masks=1, mels=8)(log_mel, rng(seed))
        changed = masked[0] != log_mel[0]
        rows, columns = changed.all(1), changed.all(0)
        assert int(rows.sum()) <= 40
        assert int(columns.sum()) <= 8
        assert bool((changed == (rows[:, None] | columns[None])).all())
        if changed.any():
            torch.testing.assert_close(masked[0][changed].unique(), log_mel.mean()[None])


def sets(n: int = 24) -> list[LabelledClips]:
    waveforms = np.random.RandomState(0).uniform(-1, 1, (n, RATE)).astype(np.float32)
    clips = ArrayClips([str(i) for i in range(n)], {}, [""] * n, waveforms=waveforms)
    return [LabelledClips(clips, {"a": np.arange(n) % 4}, ["train"] * n, {"a": 4})]


EVERYTHING = Augmentation(speed=(0.9, 1.1), waveform=[TimeShift(100), Gain(6)], mixup=0.4, log_mel=[SpecAugment()])


@pytest.mark.parametrize("workers", [0, 2])
def test_the_same_seed_and_epoch_draw_the_same_whatever_the_workers(workers: int) -> None:
    for augmentation in (None, EVERYTHING):
        one = list(training_batches(sets(), RATE, RATE, 8, "uniform", 1, 3, 0, augmentation))
        two = list(training_batches(sets(), RATE, RATE, 8, "uniform", 1, 3, workers, augmentation))
        for a, b in zip(one, two, strict=True):
            assert torch.equal(a.waveform, b.waveform)
            assert torch.equal(a.labels["a"], b.labels["a"])
            assert a.names == b.names
            assert augmentation is None or torch.equal(a.seeds, b.seeds)  # type: ignore[arg-type]


def test_another_epoch_draws_anew_and_without_augmentation_nothing_is_changed() -> None:
    first = next(training_batches(sets(), RATE, RATE, 24, "uniform", 1, 0, 0, EVERYTHING))
    second = next(training_batches(sets(), RATE, RATE, 24, "uniform", 1, 1, 0, EVERYTHING))
    assert not torch.equal(first.waveform, second.waveform)
    plain = next(training_batches(sets(), RATE, RATE, 24, "uniform", 1, 0, 0))
    waveforms = sets()[0].clips.waveforms  # type: ignore[attr-defined]
    assert torch.equal(plain.waveform, torch.from_numpy(waveforms[[int(name) for name in plain.names]]))


def test_spectrograms_are_augmented_inside_the_block_and_not_after_it() -> None:
    frontend, waveform = LogMel(), torch.randn(3, RATE)
    plain = frontend(waveform)
    with augmented(frontend, [SpecAugment()], torch.tensor([1, 2, 1])):
        changed = frontend(waveform)
        again = frontend(waveform)
    assert torch.equal(changed, again)
    assert not torch.equal(changed, plain)
    assert torch.equal(changed[0] == plain[0], changed[2] == plain[2])
    assert torch.equal(frontend(waveform), plain)


def test_a_users_tensor_transform_is_seeded_by_the_clip_and_leaves_global_generators_alone() -> None:
    noisy = OnTensor(lambda x: x + torch.randn_like(x) + np.random.normal())
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[union-attr]
    one, two = (noisy(np.zeros(5, np.float32), rng(7)) for _ in range(2))
    np.testing.assert_array_equal(one, two)
    assert torch.equal(torch.get_rng_state(), state)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_state)  # type: ignore[index]
    with pytest.raises(DataError, match="must keep the shape"):
        OnTensor(lambda x: x[1:])(np.zeros(5, np.float32), rng())


def test_a_torchaudio_transform_plugs_in() -> None:
    import sys
    import types

    stand_in = types.ModuleType("torchaudio._extension")  # its compiled part may not fit this torch
    stand_in._IS_TORCHAUDIO_EXT_AVAILABLE = stand_in._IS_ALIGN_AVAILABLE = False  # type: ignore[attr-defined]
    stand_in.fail_if_no_align = lambda f: f  # type: ignore[attr-defined]
    stand_in._check_cuda_version = lambda: None  # type: ignore[attr-defined]
    sys.modules.setdefault("torchaudio._extension", stand_in)
    transforms = pytest.importorskip("torchaudio.transforms")
    masked = OnTensor(transforms.TimeMasking(30))(torch.randn(1, 100, 64).transpose(1, 2), rng(2))
    assert masked.shape == (1, 64, 100)
    halved = OnTensor(transforms.Vol(0.5))(np.full(8, 0.5, np.float32), rng())
    np.testing.assert_array_equal(halved, np.full(8, 0.25, np.float32))


@pytest.mark.slow
def test_a_users_transforms_go_into_a_run_from_python_and_never_into_its_evaluation(
    tone_folder: Path, tmp_path: Path
) -> None:
    heard: dict[str, list[float]] = {"waveform": [], "log_mel": []}

    def invert(waveform: torch.Tensor) -> torch.Tensor:
        heard["waveform"].append(float(waveform.abs().max()))
        return -waveform

    def blank_the_top(log_mel: torch.Tensor) -> torch.Tensor:
        heard["log_mel"].append(float(log_mel.mean()))
        return torch.cat([log_mel[..., :-8], torch.zeros_like(log_mel[..., -8:])], -1)

    mine = Augmentation(waveform=[OnTensor(invert)], log_mel=[OnTensor(blank_the_top)])
    settings = ["model.channels=[4,4,4,4,4,4]", "train.epochs=1", "train.batch_size=16", "train.workers=0"]
    recipe = load_recipe("folder", [f"tasks.label.data.path={tone_folder}", *settings])
    results = run(recipe, tmp_path / "run", augmentation=mine)
    assert results["tasks"]["label"]["n"] == 6
    assert len(heard["waveform"]) == len(heard["log_mel"]) == 48  # the training clips of one epoch, and no others
