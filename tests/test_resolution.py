"""Facts about the search of a resolution, the sounds that it is measured on, and what a person sees of the result."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from typer.testing import CliRunner

from audiostride import AdaptiveLogMel, AudioClassifier, AudioResNet, LogMel, load
from audiostride.analysis.listening import keep, model_gain, through_mel
from audiostride.cli import app
from audiostride.errors import RecipeError, TrainingError
from audiostride.models.model_card import model_card
from audiostride.training.recipe import load_recipe
from audiostride.training.resolution import candidates, find_resolution
from audiostride.training.run import run
from audiostride.training.sweep import Outcome

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from controlled_sounds import FAMILIES, make_family, true_class

TINY = ["tasks.rate.data.n_clips=250", "tasks.scale.data.n_clips=250", "train.batch_size=50", "train.workers=0"]
TINY += ["model={downsampling: strided, channels: [4, 4], strides: [[2, 2], [2, 2]]}", "train.epochs=1"]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_class_of_a_controlled_sound_can_be_told_from_its_waveform(family: str) -> None:
    waveforms, labels = make_family(family, 200, seed=7)
    assert (true_class(family, waveforms) == labels).all()
    assert np.array_equal(make_family(family, 200, seed=7)[0], waveforms)


@pytest.mark.parametrize(
    "own", [{}, {"hop_ms": 5, "n_mels": 128, "n_fft": 1024}, {"sample_rate": 8000, "f_max": 3900}, {"n_mels": 40}]
)
def test_every_candidate_is_a_log_mel_of_the_same_cost(own: dict[str, float]) -> None:
    frontend = LogMel.section()(**own)
    found = candidates(frontend)
    assert len(found) >= 8
    assert len({json.dumps(settings) for settings in found}) == len(found)
    assert any(settings["hop_ms"] == frontend.hop_ms and settings["n_mels"] == frontend.n_mels for settings in found)
    for settings in found:
        made = LogMel(**(frontend.model_dump(exclude={"name"}) | settings))
        cells = made.frame_rate * made.n_mels
        assert cells == pytest.approx(1000 / frontend.hop_ms * frontend.n_mels, rel=0.02)
        assert len(made.window) <= made.settings["n_fft"]


@pytest.mark.parametrize("own", ["frontend={name: adaptive_log_mel}", "model.init=runs/mine"])
def test_only_the_resolution_of_a_new_network_on_log_mel_is_searched(own: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="a new network on frontend"):
        find_resolution("ripples", tmp_path, [*TINY, own], lambda _: [])


def test_a_recipe_with_a_sweep_of_its_own_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="set sweep="):
        find_resolution("ripples", tmp_path, [*TINY, "sweep={seed: [0, 1]}"], lambda _: [])


@pytest.mark.slow
def test_a_search_ends_in_a_training_at_the_best_resolution_and_is_resumed(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("audiostride.training.resolution.SCALES", (0.5, 1.0))
    command = ["resolution", "ripples", *TINY, "-o", str(tmp_path / "found")]
    done = CliRunner().invoke(app, [*command, "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert [len(one["tried"]) for one in found["rounds"]] == [4, 2]
    best = found["rounds"][-1]["tried"][0][1]
    settings = load(tmp_path / "found" / "final" / Path(found["final"]["path"]).name).frontend.settings
    assert {key: settings[key] for key in best} == best
    again = CliRunner().invoke(app, command)
    assert again.exit_code == 0, again.output
    assert "finished before" in again.stdout
    assert again.stdout.count("round 1, epochs 1") == 4


def test_a_search_without_validation_clips_ends_after_one_training(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, (20, 16000))
    for number, waveform in enumerate(noise):
        (tmp_path / "sounds" / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
        soundfile.write(tmp_path / "sounds" / "ab"[number % 2] / f"{number}.wav", waveform, 16000)
    settings = [f"tasks.label.data.path={tmp_path / 'sounds'}", "train.validation_fraction=0", "train.keep=last"]
    done = CliRunner().invoke(app, ["resolution", "folder", *settings, *TINY[2:], "-o", str(tmp_path / "found")])
    assert "validation clips, and there are none" in str(done.exception)
    assert len(list(tmp_path.rglob("metrics.jsonl"))) == 1


def test_a_training_that_fails_ends_the_search_by_name(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="here: the loss"):
        find_resolution(
            "ripples", tmp_path, TINY, lambda _: [Outcome(Path("here"), "failed", "the loss is not finite")]
        )


def learned_model(downsampling: str = "strided") -> AudioClassifier:
    frontend = AdaptiveLogMel(window_ms=40, strides=(4, 1))
    trunk = AudioResNet(downsampling, channels=(4, 6), time_channels=(8,), strides=((1, 2), (2, 2), (1, 1)))
    return AudioClassifier(frontend, trunk, {"word": ["no", "yes"]})


def test_listening_keeps_what_the_learned_resolution_keeps() -> None:
    model = learned_model()
    time, mel = model_gain(model)
    assert (len(time), len(mel)) == (101, 65)  # bins of 1 Hz and 1 / 128 cycles per band
    assert len(np.flatnonzero(time)) - 1 == pytest.approx(25, abs=1)  # 200 / (2 * 4)
    assert (mel == 1).all()
    every = model_gain(learned_model("diffstride"))
    assert len(np.flatnonzero(every[0])) < len(np.flatnonzero(time))
    assert np.array_equal(model_gain(learned_model("diffstride"), 0)[0], time)
    sound = 0.1 * np.random.RandomState(0).standard_normal(8000).astype(np.float32)
    assert keep(model, sound).shape == through_mel(model, sound).shape == sound.shape


@pytest.mark.slow
def test_the_learned_resolution_is_read_out_everywhere(tmp_path: Path) -> None:
    settings = [*TINY, "frontend={name: adaptive_log_mel, n_mels: 32, n_fft: 512}", "train.stride_learning_rate=0.05"]
    run(load_recipe("ripples", settings), tmp_path / "run")
    model = load(tmp_path / "run")
    tile = model.frontend.tile(16000)
    shown = CliRunner().invoke(app, ["cutoffs", str(tmp_path / "run")])
    assert f"window {tile['window_ms']:.1f} ms (default 25)" in shown.stdout.splitlines()[0]
    told = CliRunner().invoke(app, ["cutoffs", str(tmp_path / "run"), "--json"])
    assert json.loads(told.stdout)["resolution"] == [tile]
    assert CliRunner().invoke(app, ["report", str(tmp_path / "run")]).exit_code == 0
    page = (tmp_path / "run" / "report.html").read_text()
    section = page.partition('id="resolution"')[2].partition("</section>")[0]
    assert section.count("<svg") == 2
    assert f"{tile['bands']} bands (64)" in section
    assert f"{tile['window_ms']:.1f} ms" in model_card(model)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    log.Reload()
    assert log.Scalars("resolution/window_ms")[-1].value == pytest.approx(tile["window_ms"], rel=1e-4)
    soundfile.write(tmp_path / "clip.wav", 0.1 * torch.randn(8000).numpy(), 16000)
    files = [str(tmp_path / "clip.wav"), "-o", str(tmp_path / "kept.wav"), "--plain", str(tmp_path / "plain.wav")]
    heard = CliRunner().invoke(app, ["listen", str(tmp_path / "run"), *files])
    assert heard.exit_code == 0, heard.output
    assert soundfile.info(tmp_path / "kept.wav").frames == soundfile.info(tmp_path / "plain.wav").frames == 8000
