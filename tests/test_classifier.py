"""The classifier: predictions, embeddings, saving and loading."""

import json
from pathlib import Path

import numpy as np
import pytest
import soxr
import torch

from audiostride import AudioClassifier, AudioCNN, LogMel, load
from audiostride.errors import ModelFileError
from audiostride.training.evaluation import clip_logits, score
from audiostride.windows import split_windows


def small_model(kind: str = "diffstride") -> AudioClassifier:
    trunk = AudioCNN(kind, channels=(4, 8), strides=((2.5, 1.5), (2, 2)) if kind != "strided" else ((2, 2), (2, 2)))
    return AudioClassifier(LogMel(), trunk, {"word": ["no", "yes"], "speaker": 3})


def test_every_task_has_its_head() -> None:
    logits = small_model()(torch.randn(5, 16000))
    assert {task: tuple(values.shape) for task, values in logits.items()} == {"word": (5, 2), "speaker": (5, 3)}


def test_a_prediction_is_the_softmax_of_the_mean_logits_of_the_windows() -> None:
    model, clip = small_model().eval(), torch.randn(40000)
    logits = model(split_windows(clip, 16000))["word"].mean(0)
    prediction = model.predict(clip, 16000)["word"]
    expected = dict(zip(["no", "yes"], logits.softmax(-1).tolist(), strict=True))
    assert prediction.probabilities == pytest.approx(expected, abs=1e-5)
    assert prediction.label == max(expected, key=expected.__getitem__)
    assert prediction.score == pytest.approx(max(expected.values()), abs=1e-5)


def test_channels_are_averaged_and_other_rates_resampled() -> None:
    model = small_model()
    clip = np.random.RandomState(0).standard_normal((2, 48000)).astype(np.float32)
    mono = soxr.resample(clip.mean(0), 48000, 16000)
    assert torch.allclose(model.embed(clip, 48000), model.embed(mono, 16000), atol=1e-6)


def test_predicting_leaves_the_models_mode_and_statistics_alone() -> None:
    model = small_model().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.predict(torch.randn(16000), 16000)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("waveform", [np.zeros(0), np.zeros((2, 2, 2)), np.array([0.0, np.nan] * 500)])
def test_waveforms_that_are_none_are_refused(waveform: np.ndarray) -> None:
    with pytest.raises(ValueError, match="waveform"):
        small_model().predict(waveform, 16000)


@pytest.mark.parametrize("kind", ["strided", "spectral", "diffstride"])
def test_a_loaded_model_is_the_saved_one(kind: str, tmp_path: Path) -> None:
    model = small_model(kind).eval()
    model.save(tmp_path)
    loaded, clip = load(tmp_path), torch.randn(3, 16000)
    assert not loaded.training
    assert loaded.labels == model.labels
    assert loaded.config() == model.config()
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in loaded.state_dict().items())
    assert torch.equal(loaded(clip)["word"], model(clip)["word"])


def damaged(folder: Path, how: str) -> None:
    config, weights = folder / "config.json", folder / "model.safetensors"
    settings = json.loads(config.read_text())
    content = bytearray(weights.read_bytes())
    if how == "a bit flips":
        content[len(content) // 2] ^= 1
        weights.write_bytes(content)
    elif how == "the weights are cut":
        weights.write_bytes(content[:1000])
    elif how == "the weights are missing":
        weights.unlink()
    elif how == "a pickle takes their name":
        torch.save({"a": torch.zeros(1)}, weights)
    elif how == "the config is missing":
        config.unlink()
    elif how == "the config is cut":
        config.write_text(config.read_text()[:100])
    elif how == "the format is newer":
        config.write_text(json.dumps(settings | {"format": 99}))
    elif how == "a key is missing":
        del settings["model"]
        config.write_text(json.dumps(settings))
    elif how == "a value is wrong":
        settings["model"]["channels"] = "many"
        config.write_text(json.dumps(settings))
    elif how == "the shapes differ":
        settings["tasks"]["word"]["labels"].append("maybe")
        config.write_text(json.dumps(settings))


@pytest.mark.parametrize(
    "how",
    [
        "a bit flips",
        "the weights are cut",
        "the weights are missing",
        "a pickle takes their name",
        "the config is missing",
        "the config is cut",
        "the format is newer",
        "a key is missing",
        "a value is wrong",
        "the shapes differ",
    ],
)
def test_a_damaged_model_is_a_named_error(how: str, tmp_path: Path) -> None:
    small_model().save(tmp_path)
    damaged(tmp_path, how)
    with pytest.raises(ModelFileError, match=str(tmp_path)):
        load(tmp_path)


def test_logits_of_clips_in_one_batch_are_those_of_each_alone() -> None:
    from audiostride.data.clips import ArrayClips

    model = small_model()
    waveforms = np.random.RandomState(0).standard_normal((5, 40000)).astype(np.float32)
    clips = ArrayClips(list("abcde"), {}, [""] * 5, waveforms=waveforms, sample_rate=16000)
    together = clip_logits(model, clips, range(5))["word"]
    alone = torch.cat([clip_logits(model, clips, [i])["word"] for i in range(5)])
    assert torch.allclose(together, alone, atol=1e-5)


def test_scores_are_those_computed_by_hand() -> None:
    logits = torch.log(torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]]))
    result = score(logits, torch.tensor([0, 1, 1]))
    assert result.accuracy == pytest.approx(2 / 3)
    assert result.loss == pytest.approx(-(np.log(0.9) + np.log(0.8) + np.log(0.4)) / 3, rel=1e-5)
