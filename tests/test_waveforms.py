"""Arrays mean what their owner meant, or are refused; a model answers alike from any thread, mode and precision."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch

from audiostride import AudioClassifier, create_model
from audiostride.errors import DataWarning
from audiostride.waveforms import to_mono

SOUND = np.clip(0.3 * np.random.RandomState(0).standard_normal(24000), -1, 1).astype(np.float32)


@pytest.fixture(scope="module")
def model() -> AudioClassifier:
    torch.manual_seed(0)
    return create_model("audio_resnet_pico_diffstride", heads={"word": ["no", "yes"], "who": 3}).eval()


def test_every_kind_of_number_is_the_same_sound() -> None:
    left = np.clip(SOUND, -0.999, 0.999)
    same: list[Any] = [
        left,
        left.astype(np.float64),
        left.astype(np.longdouble),
        left.tolist(),
        (left * 2**15).round().astype(np.int16),
        (left * 2**31).round().astype(np.int32),
        torch.from_numpy((left * 2**15).round().astype(np.int16)),
        torch.from_numpy(left).double(),
        torch.from_numpy(left).requires_grad_(),
        torch.complex(torch.zeros(24000), torch.from_numpy(-left)).conj().imag,  # a view that is negated lazily
        left[::-1][::-1],
        left.astype(">f4"),
        (left * 2**15).round().astype(">i2"),
    ]
    for waveform in same:
        np.testing.assert_allclose(to_mono(waveform, 16000, 16000), left, atol=2e-5)
    coarse = [(left * 127).round() + 128, (left * 127).round()]
    for waveform, kind in zip(coarse, (np.uint8, np.int8), strict=True):
        np.testing.assert_allclose(to_mono(waveform.astype(kind), 16000, 16000), left, atol=0.013)
    for half in (torch.float16, torch.bfloat16):
        np.testing.assert_allclose(to_mono(torch.from_numpy(left).to(half), 16000, 16000), left, atol=4e-3)


@pytest.mark.parametrize("channels", [1, 2, 6])
def test_channels_come_first_or_last(channels: int) -> None:
    sound = np.stack([SOUND * (i + 1) / channels for i in range(channels)])
    np.testing.assert_allclose(to_mono(sound, 16000, 16000), sound.mean(0), atol=1e-6)
    np.testing.assert_allclose(to_mono(sound.T, 16000, 16000), sound.mean(0), atol=1e-6)
    np.testing.assert_allclose(to_mono(torch.from_numpy(sound).T, 16000, 16000), sound.mean(0), atol=1e-6)


def test_an_array_is_heard_by_the_channel_that_is_asked_for() -> None:
    sound = np.stack([SOUND, 0.25 * SOUND[::-1], 2 * SOUND])
    for waveform in (sound, sound.T):
        for channel, row in (("left", 0), ("right", 1), (3, 2), ("loudest", 2)):
            found = to_mono(waveform, 16000, 16000, channel)  # type: ignore[arg-type]
            np.testing.assert_array_equal(found, sound[row])
    np.testing.assert_array_equal(to_mono(SOUND, 16000, 16000, "right"), SOUND)  # it was chosen before
    with pytest.raises(ValueError, match="has 3 channels, there is no channel 4"):
        to_mono(sound, 16000, 16000, 4)
    with pytest.warns(DataWarning, match=r"the waveform: its channels cancel each other \(antiphase\)"):
        assert not to_mono(np.stack([SOUND, -SOUND]), 16000, 16000).any()


REFUSED = {
    "as many channels as samples": np.zeros((2, 2)),
    "a square": np.zeros((200, 200)),
    "a matrix": np.zeros((2000, 3000)),
    "three axes": np.zeros((1, 1, 16000)),
    "a number": np.float32(0.5),
    "empty": np.zeros(0),
    "no channels": np.zeros((0, 100)),
    "whole numbers of no scale": np.zeros(16000, np.int64),
    "unsigned": np.zeros(16000, np.uint16),
    "truth": np.zeros(16000, bool),
    "complex": np.zeros(16000, complex),
    "text": np.array(["a"] * 100),
    "objects": np.array([None] * 100),
    "dates": np.zeros(100, "datetime64[s]"),
    "loud": np.full(16000, 1e38, np.float32),
    "louder": np.full(16000, 1e300),
    "one NaN": np.where(np.arange(16000) == 7, np.nan, 0.0),
    "minus infinity": np.where(np.arange(16000) == 7, -np.inf, 0.0),
    "complex tensor": torch.zeros(16000, dtype=torch.complex64),
    "true tensor": torch.zeros(16000, dtype=torch.bool),
    "int64 tensor": torch.zeros(16000, dtype=torch.int64),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_no_sound_is_refused(model: AudioClassifier, what: str) -> None:
    for ask in (model.predict, model.embed, model.embed_timestamps, model.frame_logits):
        with pytest.raises(ValueError, match="waveform"):
            ask(REFUSED[what], 16000)


@pytest.mark.parametrize(
    "rate",
    [float("nan"), float("inf"), -float("inf"), 0, -16000, True, 1, 99, 2**63, 1e12, 1e300, "16000", None, [], 16j],
)
def test_a_sample_rate_that_cannot_be_is_named(model: AudioClassifier, rate: Any) -> None:
    for ask in (model.predict, model.embed, model.embed_timestamps, model.frame_logits):
        with pytest.raises(ValueError, match="sample_rate must be"):
            ask(SOUND, rate)


def test_a_sample_rate_may_be_any_kind_of_number(model: AudioClassifier) -> None:
    expected = model.embed(SOUND, 8000)
    for rate in (8000.0, np.int64(8000), np.float32(8000)):
        torch.testing.assert_close(model.embed(SOUND, rate), expected)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1, 1e300, "x", None, [0.5], 1.0])
def test_an_overlap_or_hop_that_cannot_be_is_named(model: AudioClassifier, value: Any) -> None:
    with pytest.raises(ValueError, match="overlap must be"):
        model.predict(SOUND, 16000, overlap=value)
    for hop_ms in (value, 1e-9) if value not in (1.0, 1e300) else (0.0, 1e-9):
        with pytest.raises(ValueError, match="hop_ms must be"):
            model.embed_timestamps(SOUND, 16000, hop_ms)


def test_many_threads_get_the_answers_of_one_and_leave_the_mode(model: AudioClassifier) -> None:
    sounds = [np.roll(SOUND, 100 * i)[: 8000 + 500 * i] for i in range(24)]
    expected = [model.embed(sound, 16000) for sound in sounds]
    state = {name: value.clone() for name, value in model.state_dict().items()}
    model.train()
    try:
        with ThreadPoolExecutor(8) as pool:
            for _ in range(3):
                for found, wanted in zip(pool.map(lambda s: model.embed(s, 16000), sounds), expected, strict=True):
                    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
        assert all(module.training for module in model.modules())
        for name, value in model.state_dict().items():
            torch.testing.assert_close(value, state[name], rtol=0, atol=0)
    finally:
        model.eval()


@pytest.mark.parametrize("kind", ["strided", "diffstride", "spectral"])
@pytest.mark.parametrize(("precision", "error"), [(torch.float64, 1e-5), (torch.float16, 0.05), (torch.bfloat16, 0.3)])
def test_a_model_of_any_precision_answers_alike(kind: str, precision: torch.dtype, error: float) -> None:
    torch.manual_seed(0)
    model = create_model(f"audio_resnet_pico_{kind}", heads={"word": 4}).eval()
    expected = model.predict(SOUND, 16000)["word"].probabilities
    found = model.to(precision).predict(SOUND, 16000)["word"].probabilities
    for label, score in expected.items():
        assert found[label] == pytest.approx(score, abs=error)
