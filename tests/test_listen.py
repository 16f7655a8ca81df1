"""What is left of a sound after the cut-offs."""

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from audiostride.analysis.listening import keep, through_mel, trunk_gain
from audiostride.cli import app
from audiostride.errors import UsageError
from audiostride.models.audio_cnn import AudioCNN
from audiostride.models.classifier import AudioClassifier
from audiostride.models.cutoffs import trunk_cutoffs
from audiostride.models.log_mel import LogMel


def model_that_keeps(time_stride: float, mel_stride: float) -> AudioClassifier:
    trunk = AudioCNN("diffstride", channels=(4,), strides=((time_stride, mel_stride),), smoothness=1)
    return AudioClassifier(LogMel(), trunk, {"x": 2})


def modulated_noise(rate_hz: float, seconds: float = 2.0) -> np.ndarray:
    time_s = np.arange(round(seconds * 16000)) / 16000
    noise = np.random.RandomState(0).standard_normal(len(time_s))
    return (0.05 * noise * 10 ** (0.5 * np.sin(2 * np.pi * rate_hz * time_s))).astype(np.float32)


def modulation(waveform: np.ndarray, rate_hz: float) -> float:
    """Strength of one rate in the mean log-mel level, in nepers."""
    import torch

    level = LogMel()(torch.from_numpy(waveform))[0].mean(1).numpy()
    time_s = np.arange(len(level)) / 100
    return 2 * abs(np.mean((level - level.mean()) * np.exp(-2j * np.pi * rate_hz * time_s)))


def test_slow_modulations_stay_and_those_above_the_cut_off_go():
    model = model_that_keeps(10.0, 1.0)  # 5 Hz
    slow, fast = modulated_noise(2.0), modulated_noise(20.0)
    assert modulation(keep(model, slow), 2.0) > 0.8 * modulation(through_mel(model, slow), 2.0)
    assert modulation(keep(model, fast), 20.0) < 0.2 * modulation(through_mel(model, fast), 20.0)


def test_a_click_stays_where_it_was():
    sound = 1e-3 * np.random.RandomState(0).standard_normal(16000).astype(np.float32)
    sound[8000:8160] += 0.5
    found = np.abs(through_mel(model_that_keeps(1.0, 1.0), sound)).argmax()
    assert abs(found - 8080) < 400


def test_the_gain_of_all_layers_ends_at_the_lowest_cut_off():
    trunk = AudioCNN("diffstride", smoothness=1.0, channels=(4, 4, 4), strides=((2.1, 1.4), (1.3, 3.2), (1.9, 1.0)))
    gains = trunk_gain(trunk, 100, 64)
    for gain, per_bin, row in zip(gains, (1.0, 1 / 64), trunk_cutoffs(trunk, 100, 64, 100.0)[-2:], strict=True):
        assert (len(np.flatnonzero(gain)) - 1) * per_bin == pytest.approx(row.cumulative.last_bin)
    assert len(np.flatnonzero(trunk_gain(trunk, 100, 64, layers=1)[0])) > len(np.flatnonzero(gains[0]))


def test_strided_convolutions_are_refused_as_they_have_no_cut_off():
    with pytest.raises(UsageError, match="folded back"):
        trunk_gain(AudioCNN("strided"), 100, 64)


def test_the_command_writes_a_sound_of_the_same_length_the_same_every_time(tmp_path):
    model_that_keeps(4.0, 4.0).save(tmp_path / "run")
    soundfile.write(tmp_path / "clip.wav", modulated_noise(4.0, 0.7), 16000)
    arguments = ["listen", str(tmp_path / "run"), str(tmp_path / "clip.wav"), "-o"]
    for name in ("a", "b"):
        files = [str(tmp_path / f"{name}.wav"), "--plain", str(tmp_path / f"plain/{name}.flac")]
        done = CliRunner().invoke(app, [*arguments, *files])
        assert done.exit_code == 0, done.output
    sound, rate = soundfile.read(tmp_path / "a.wav")
    assert (len(sound), rate) == (11200, 16000)
    assert (tmp_path / "a.wav").read_bytes() == (tmp_path / "b.wav").read_bytes()
    assert soundfile.info(tmp_path / "plain" / "a.flac").frames == 11200
    before = (tmp_path / "clip.wav").read_bytes()
    for same in (["clip.wav"], ["c.wav", "--plain", "c.wav"]):
        names = [part if part == "--plain" else str(tmp_path / part) for part in same]
        refused = CliRunner().invoke(app, [*arguments, *names])
        assert isinstance(refused.exception, UsageError)
    assert (tmp_path / "clip.wav").read_bytes() == before


def test_what_aliasing_keeps_of_the_ramp_is_heard_and_what_it_folds_is_said(tmp_path):
    settings = {"channels": (4,), "strides": ((10.0, 1.0),), "smoothness": 4}
    plain, folding = (trunk_gain(AudioCNN(aliasing=alpha, **settings), 100, 64)[0] for alpha in (None, 0.5))
    assert np.allclose(folding, np.where(np.arange(51) < 9, plain + 0.5 * (1 - plain), 0.0), atol=1e-6)
    model = AudioClassifier(LogMel(), AudioCNN(aliasing=0.5, **settings), {"x": 2})
    model.save(tmp_path / "run")
    soundfile.write(tmp_path / "clip.wav", modulated_noise(4.0, 0.7), 16000)
    arguments = [str(tmp_path / "run"), str(tmp_path / "clip.wav"), "-o", str(tmp_path / "kept.wav")]
    done = CliRunner().invoke(app, ["listen", *arguments])
    assert done.exit_code == 0, done.output
    assert done.stdout.strip() == str(tmp_path / "kept.wav")
    expected = "not in the sound: layer 1 folds 50 % of what lies above 8.5 Hz and removes 50 %: 50.0 lands on 1.0"
    assert expected in done.stderr
