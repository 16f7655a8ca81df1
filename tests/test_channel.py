"""The channel that a model was trained on is the one that it hears, from files, pipes and arrays, in every command."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from typer.testing import CliRunner

from audiostride import AudioClassifier, create_model, load
from audiostride.cli import app
from audiostride.errors import DataWarning, ModelFileError, UsageError
from audiostride.training.build import heard_channel, take_up
from audiostride.training.recipe import load_recipe
from audiostride.training.run import run
from audiostride.training.run_testing import evaluate_run


@pytest.fixture
def model() -> AudioClassifier:
    """A model that tells loud from soft, without training: its head is set by hand."""
    torch.manual_seed(0)
    made = create_model("audio_cnn_strided", heads={"level": ["loud", "soft"]}, channels=(4,), strides=((2, 2),)).eval()
    loud, soft = (made.embed_windows(level * torch.randn(8, 16000)).mean(0) for level in (0.5, 0.001))
    with torch.no_grad():
        made.heads["level"].weight.copy_(torch.stack([loud - soft, soft - loud]))
        made.heads["level"].bias.copy_((loud + soft) / 2 @ (loud - soft) * torch.tensor([-1.0, 1.0]))
    return made


@pytest.fixture
def stereo(tmp_path: Path) -> Path:
    """A sound whose left channel is loud and whose right one is soft."""
    noise = np.random.RandomState(0).standard_normal((16000, 2)) * (0.3, 0.001)
    soundfile.write(tmp_path / "stereo.wav", np.clip(noise, -1, 1), 16000)
    return tmp_path / "stereo.wav"


def said(*arguments: object, stdin: bytes | None = None) -> str:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments], input=stdin)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.stdout


def label(text: str) -> str:
    return next(csv.DictReader(io.StringIO(text)))["label"]


@pytest.mark.parametrize(("channel", "heard"), [("left", "loud"), ("right", "soft"), ("loudest", "loud"), (2, "soft")])
def test_a_saved_model_hears_its_channel_unless_another_is_named(model, stereo, tmp_path, channel, heard) -> None:
    model.channel = channel
    model.save(tmp_path / "model")
    assert load(tmp_path / "model").channel == channel
    waveform = soundfile.read(stereo)[0]
    assert load(tmp_path / "model").predict(waveform, 16000)["level"].label == heard
    assert label(said("predict", tmp_path / "model", stereo, "--csv")) == heard
    for other, wanted in (("left", "loud"), ("right", "soft")):
        assert label(said("predict", tmp_path / "model", stereo, "--csv", "--channel", other)) == wanted
    if channel != "loudest":
        assert label(said("predict", tmp_path / "model", "-", "--csv", stdin=stereo.read_bytes())) == heard
    said("embed", tmp_path / "model", stereo, "--out", tmp_path / "of.npz")
    expected = load(tmp_path / "model").embed(waveform, 16000)
    np.testing.assert_allclose(np.load(tmp_path / "of.npz")["embedding"][0], expected, atol=1e-5)
    (tmp_path / "table.csv").write_text(f"file,level\nstereo.wav,{heard}\n")
    found = json.loads(said("evaluate", tmp_path / "model", "--data", tmp_path / "table.csv", "--json"))
    assert found["tasks"]["level"]["accuracy"] == 1.0


def test_a_channel_that_is_none_is_refused(model, stereo, tmp_path) -> None:
    model.save(tmp_path / "model")
    assert "channel" not in json.loads((tmp_path / "model" / "config.json").read_text())
    for wrong in ("middle", "0", "-1", "1.5"):
        with pytest.raises(UsageError, match="it must be mix, left, right, loudest or a number from 1 on"):
            said("predict", tmp_path / "model", stereo, "--channel", wrong)
    with pytest.raises(UsageError, match="--data names"):
        said("evaluate", tmp_path / "model", "--channel", "left")
    for wrong in ("middle", 0):
        model.channel = wrong
        model.save(tmp_path / "model")
        with pytest.raises(ModelFileError, match="channel"):
            load(tmp_path / "model")


def test_antiphase_is_said_when_a_model_is_asked(model, tmp_path) -> None:
    noise = np.random.RandomState(0).uniform(-0.5, 0.5, 16000)
    with pytest.warns(DataWarning, match="antiphase"):
        model.predict(np.stack([noise, -noise]), 16000)
    soundfile.write(tmp_path / "a.wav", np.stack([noise, -noise], 1), 16000)
    model.save(tmp_path / "model")
    with pytest.warns(DataWarning, match=r"a\.wav: its channels cancel .* --channel"):
        said("predict", tmp_path / "model", tmp_path / "a.wav")


def test_training_on_a_channel_makes_a_model_of_that_channel(tmp_path: Path) -> None:
    random = np.random.RandomState(0)
    for i in range(30):
        tone = 0.3 * np.sin(2 * np.pi * (500, 3000)[i % 2] * np.arange(8000) / 16000)
        path = tmp_path / "sounds" / ("low", "high")[i % 2] / f"{i}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, np.stack([random.uniform(-1, 1, 8000), tone + 0.01 * random.randn(8000)], 1), 16000)
    data = f"tasks.label.data={{source: folder, path: {tmp_path / 'sounds'}, channel: right}}"
    settings = [
        "train.epochs=1",
        "train.batch_size=8",
        "model.channels=[4,4,4,4,4,4]",
        "train.workers=0",
        "window_s=0.5",
    ]
    recipe = load_recipe("folder", [data, *settings])
    assert heard_channel(recipe) == "right"
    run(recipe, tmp_path / "run")
    trained = load(tmp_path / "run")
    assert trained.channel == "right"
    everything = evaluate_run(tmp_path / "run", str(tmp_path / "sounds"))["label"]
    right = [soundfile.read(path)[0][:, 1] for path in sorted((tmp_path / "sounds").rglob("*.wav"))]
    names = [path.parent.name for path in sorted((tmp_path / "sounds").rglob("*.wav"))]
    correct = [_likeliest(trained, w) == name for w, name in zip(right, names, strict=True)]
    assert everything.accuracy == pytest.approx(np.mean(correct))
    again = load_recipe("folder", [data.replace("right", "left"), *settings, f"model.init={tmp_path / 'run'}"])
    with pytest.warns(DataWarning, match="was trained on the channel 'right', and is now trained on 'left'"):
        take_up(again)


def _likeliest(model: AudioClassifier, waveform: np.ndarray) -> str:
    found = model.predict(waveform, 16000)["label"].probabilities
    return max(found, key=lambda name: found[name])


def test_data_sets_of_different_channels_are_said() -> None:
    two = "{a: {data: {source: folder, path: x, channel: left}}, b: {data: {source: folder, path: y}}}"
    with pytest.warns(DataWarning, match=r"different channels \(left, mix\)"):
        assert heard_channel(load_recipe("folder", [f"tasks={two}"])) == "mix"
