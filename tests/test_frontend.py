"""The log-mel frontend against librosa and torchaudio."""

import sys
import types

import librosa
import numpy as np
import pytest
import torch

from audiostride import LogMel
from audiostride.models.log_mel import log_mel, mel_filters


def librosa_log_mel(waveform: np.ndarray) -> np.ndarray:
    """Ours by librosa: its window lies in the middle of the FFT frame, so the signal is moved by 56 samples."""
    n_frames = len(waveform) // 160
    padded = np.pad(waveform, (56, 512))[: (n_frames - 1) * 160 + 512]
    power = librosa.feature.melspectrogram(
        y=padded, sr=16000, n_fft=512, hop_length=160, win_length=400, window="hann", center=False,
        power=2.0, n_mels=64, fmin=60.0, fmax=7800.0, htk=True, norm=None, dtype=waveform.dtype,
    )  # fmt: skip
    return np.log(power + 1e-5).T


def noise(samples: int = 16000) -> np.ndarray:
    return np.random.RandomState(0).standard_normal(samples) * 0.1


def test_log_mel_equals_librosas_in_float64_and_float32() -> None:
    waveform = noise(16000 + 93)
    filters, window = mel_filters(16000, 512, 64, 60.0, 7800.0), torch.hann_window(400, dtype=torch.float64)
    double = log_mel(torch.from_numpy(waveform), window, filters, 160)
    np.testing.assert_allclose(double.numpy(), librosa_log_mel(waveform), rtol=0, atol=1e-8)
    single = LogMel()(torch.from_numpy(waveform).float())[0]
    np.testing.assert_allclose(single.numpy(), librosa_log_mel(waveform), rtol=0, atol=1e-3)


def test_the_module_built_in_float64_is_exact_too() -> None:
    torch.set_default_dtype(torch.float64)
    try:
        frontend = LogMel()
    finally:
        torch.set_default_dtype(torch.float32)
    spectrogram = frontend(torch.from_numpy(noise()))[0]
    np.testing.assert_allclose(spectrogram.numpy(), librosa_log_mel(noise()), rtol=0, atol=1e-8)


def test_mel_filters_equal_librosas() -> None:
    for n_mels, n_fft in ((64, 512), (40, 400), (128, 2048)):
        ours = mel_filters(16000, n_fft, n_mels, 60.0, 7800.0).numpy()
        oracle = librosa.filters.mel(
            sr=16000, n_fft=n_fft, n_mels=n_mels, fmin=60, fmax=7800, htk=True, norm=None, dtype=np.float64
        )
        np.testing.assert_allclose(ours, oracle, rtol=0, atol=1e-12)


def test_log_mel_equals_torchaudios(monkeypatch: pytest.MonkeyPatch) -> None:
    # torchaudio's compiled part does not load beside every torch; its spectrograms are pure Python.
    extension = types.ModuleType("torchaudio._extension")
    extension.__dict__.update(
        _IS_TORCHAUDIO_EXT_AVAILABLE=False,
        _IS_ALIGN_AVAILABLE=False,
        fail_if_no_align=lambda function: function,
        _check_cuda_version=lambda: None,
    )
    monkeypatch.setitem(sys.modules, "torchaudio._extension", extension)
    import torchaudio.transforms

    waveform = torch.from_numpy(noise())
    spectrogram = torchaudio.transforms.MelSpectrogram(
        sample_rate=16000, n_fft=512, win_length=400, hop_length=160, f_min=60.0, f_max=7800.0, n_mels=64,
        power=2.0, center=False, norm=None, mel_scale="htk",
    ).double()  # fmt: skip
    padded = torch.nn.functional.pad(waveform, (56, 512))[: 99 * 160 + 512]
    oracle = (spectrogram(padded) + 1e-5).log().T
    assert torch.allclose(LogMel().double()(waveform)[0], oracle, atol=1e-3)


def test_n_samples_give_n_over_hop_frames() -> None:
    frontend = LogMel()
    for samples in (160, 161, 399, 400, 401, 15999, 16000, 16159, 16160):
        assert frontend(torch.randn(2, samples)).shape == (2, 1, samples // 160, 64)


def test_a_frame_sees_its_400_samples_and_no_other() -> None:
    frontend, waveform = LogMel(), torch.randn(16000)
    before = frontend(waveform)[0]
    waveform[160 * 10 - 1] += 1.0
    waveform[160 * 10 + 400] += 1.0
    changed = (frontend(waveform)[0] != before).any(1).nonzero().flatten().tolist()
    assert 10 not in changed
    assert {8, 9, 11, 12} <= set(changed)


def test_silence_is_the_logarithm_of_the_offset() -> None:
    assert torch.allclose(LogMel()(torch.zeros(1600)), torch.tensor(1e-5).log())


def test_a_tone_is_loudest_in_its_band() -> None:
    frontend = LogMel()
    edges = librosa.mel_frequencies(66, fmin=60, fmax=7800, htk=True)
    time_s = torch.arange(16000) / 16000
    for band in (10, 30, 50):
        spectrogram = frontend(torch.sin(2 * torch.pi * float(edges[band + 1]) * time_s))[0]
        assert (spectrogram[10:90].argmax(1) == band).all()


def test_a_batch_equals_its_clips_one_by_one() -> None:
    frontend, waveform = LogMel(), torch.randn(5, 16000)
    assert torch.allclose(frontend(waveform), torch.stack([frontend(clip) for clip in waveform]), atol=1e-5)


def test_other_sample_rates_keep_window_and_hop_in_milliseconds() -> None:
    bats = LogMel(sample_rate=256000, n_fft=8192, f_min=10000.0, f_max=120000.0)
    assert bats(torch.randn(256000)).shape == (1, 100, 64)
    assert bats.frame_rate == 100.0
    infrasound = LogMel(sample_rate=1000, window_ms=500, hop_ms=100, n_fft=512, n_mels=16, f_min=5.0, f_max=400.0)
    assert infrasound(torch.randn(10_000)).shape == (1, 100, 16)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sample_rate": 8000}, "f_max=7800.0 Hz lies above the Nyquist frequency 4000.0 Hz"),
        ({"window_ms": 40}, "n_fft=512"),
        ({"n_mels": 256}, "holds no bin"),
        ({"f_min": 9000.0}, "f_min"),
        ({"hop_ms": 0.01}, "hop_ms"),
    ],
)
def test_settings_that_contradict_each_other_are_refused_by_name(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LogMel(**settings)


def test_a_waveform_shorter_than_a_hop_is_refused() -> None:
    with pytest.raises(ValueError, match="shorter than one hop"):
        LogMel()(torch.zeros(100))
