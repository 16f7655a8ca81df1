"""Frame logits: the network over the whole recording, whatever the pieces it arrives in."""

import numpy as np
import pytest
import torch

from audiostride import create_model, load
from audiostride.errors import UsageError
from audiostride.models.frames import frame_blocks, frame_grid
from audiostride.models.image_frontend import ImageFrontend

MEAN_STRIDED = ["audio_resnet_pico_strided", "audio_resnet_small_strided", "wave_cnn_strided", "resnet18_strided"]
MEAN_POOLED = ["audio_resnet_pico_diffstride", "audio_resnet_pico_spectral"]


def settled(name):
    """A network whose batch norms have seen noise, so that its frames differ."""
    torch.manual_seed(0)
    model = create_model(name, heads={"word": 3, "speaker": 2})
    model.train()(0.1 * torch.randn(8, model.window_length))
    return model.eval()


def noise(seconds, rate, seed=0):
    return 0.1 * torch.randn(round(seconds * rate), generator=torch.Generator().manual_seed(seed))


def in_pieces(model, waveform, size, block_s):
    parts = list(frame_blocks(model, frame_grid(model), waveform.split(size), block_s))
    return torch.cat([part["word"] for part in parts])


@pytest.mark.parametrize("name", MEAN_STRIDED)
@pytest.mark.parametrize("size", [700, 16001, 10**6])
def test_pieces_are_the_trunk_over_the_whole_without_seams(name, size):
    model = settled(name)
    waveform = noise(6.37, model.frontend.sample_rate)
    with torch.inference_mode():
        features = model.trunk.forward_features(model.frontend(waveform[None]))[0]
        whole = model.heads["word"](features.flatten(2).mean(-1).T if features.dim() == 3 else features.T)
    for block_s in (0.3, 1.0):
        frames = in_pieces(model, waveform, size, block_s)
        assert frames.shape == whole.shape
        torch.testing.assert_close(frames, whole, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", MEAN_STRIDED + MEAN_POOLED)
def test_mean_of_frames_is_the_windows_logits(name):
    model = settled(name)
    assert model.trunk.ends_in_mean
    window = noise(1, model.frontend.sample_rate)[: model.window_length]
    times_ms, logits = model.frame_logits(window, model.frontend.sample_rate)
    with torch.inference_mode():
        expected = model(window[None])
    for task, frames in logits.items():
        assert len(frames) == len(times_ms)
        torch.testing.assert_close(frames.mean(0), expected[task][0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", [*MEAN_POOLED, "audio_cnn_small_strided"])
def test_windows_give_the_same_frames_whatever_the_pieces(name):
    model = settled(name)
    waveform = noise(4.21, model.frontend.sample_rate)
    frames = in_pieces(model, waveform, len(waveform), None)
    assert len(frames) == int(np.ceil(len(waveform) / frame_grid(model).hop))
    for size, block_s in ((700, 0.2), (16001, 1.0)):
        torch.testing.assert_close(in_pieces(model, waveform, size, block_s), frames, rtol=1e-4, atol=1e-5)


def test_a_frame_of_a_maximum_is_the_window_around_it():
    model = settled("audio_cnn_small_strided")
    waveform = noise(3, 16000)
    times_ms, logits = model.frame_logits(waveform, 16000)
    assert times_ms[:3].tolist() == [0, 100, 200]
    with torch.inference_mode():
        around = model(waveform[None, 19200 - 8000 : 19200 + 8000])["word"][0]
    torch.testing.assert_close(logits["word"][12], around, rtol=1e-4, atol=1e-5)


def test_crossfaded_frames_of_a_steady_sound_are_those_of_one_window():
    """Where the first and the last window are done with, every window holds the same: a steady tone has no seams."""
    model = settled("audio_resnet_pico_spectral")
    tone = 0.5 * torch.sin(2 * np.pi * (torch.arange(16000 * 5) % 16) / 16)
    frames = model.frame_logits(tone, 16000)[1]["word"]
    period = frame_grid(model).per_window // 2
    inner = frames[2 * period : -4 * period]
    torch.testing.assert_close(inner[period:], inner[:-period], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("n", [1, 100, 5000, 15999])
@pytest.mark.parametrize(
    "name", ["audio_resnet_pico_strided", "audio_resnet_pico_diffstride", "audio_cnn_small_strided"]
)
def test_short_recordings_have_frames_within_them(name, n):
    times_ms, logits = settled(name).frame_logits(noise(1, 16000)[:n], 16000)
    assert len(logits["word"]) == len(times_ms) >= 1
    assert np.isfinite(logits["word"].numpy()).all()
    assert times_ms[-1] <= n / 16 + 12.5


def test_frame_logits_resample_and_leave_the_mode_alone():
    model = settled("audio_resnet_pico_strided").train()
    times_ms, logits = model.frame_logits(np.zeros((2, 44100), np.float32), 44100)
    assert len(times_ms) == len(logits["word"]) == 25
    assert model.training
    with pytest.raises(ValueError, match="NaN"):
        model.frame_logits(np.full(16000, np.nan, np.float32), 16000)


def test_images_have_no_frames():
    model = create_model("resnet18_strided", heads={"animal": 2}, frontend=ImageFrontend(32), in_channels=3)
    with pytest.raises(UsageError, match="images"):
        frame_grid(model)


def test_a_words_frames_rise_where_it_is_spoken():
    """The shipped weights score a burst of sound where it is, not half a window beside it."""
    model = load("audio_resnet_small_strided")
    waveform = torch.zeros(16000 * 5)
    waveform[32000:48000] = noise(1, 16000)
    times_ms, logits = model.frame_logits(waveform, 16000)
    frames = logits["sound"]
    moved = (frames - frames[2]).norm(dim=1)
    heard = times_ms[moved > moved.max() / 2]
    assert 1800 < heard.min() < 2200
    assert 2800 < heard.max() < 3200
