"""Models on windows of other lengths than a second: training, files, streams, cost and cut-offs follow `window_s`."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from typer.testing import CliRunner

from audiostride import AudioClassifier, AudioCNN, LogMel, load
from audiostride.analysis.measured_response import ripple_response
from audiostride.cli import app
from audiostride.errors import AudiostrideError, ModelFileError, RecipeError, UsageError
from audiostride.inference.hear import HearModel, get_scene_embeddings, get_timestamp_embeddings
from audiostride.models.cost import cost_per_second, model_cost
from audiostride.models.state_at_strides import state_at
from audiostride.training.build import check_recipe
from audiostride.training.recipe import load_recipe
from audiostride.training.report import Report
from audiostride.training.run import run
from audiostride.training.sweep import plan_sweep
from conftest import tone

TINY = ["model.channels=[4,4]", "model.strides=[[2,2],[2,2]]", "train.epochs=1", "train.batch_size=16"]


@pytest.fixture(scope="module")
def settings(tone_folder: Path) -> list[str]:
    return [f"tasks.label.data.path={tone_folder}", *TINY, "train.workers=0"]


@pytest.fixture(scope="module")
def trained(settings: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "long"
    run(load_recipe("folder", [*settings, "window_s=2.5"]), out)
    return out


def long_model(kind: str = "diffstride") -> AudioClassifier:
    trunk = AudioCNN(kind, (4, 4), ((2, 2), (2, 2)), smoothness=1)
    return AudioClassifier(LogMel(), trunk, {"word": 2}, window_s=2.5).eval()


def test_a_run_trains_tests_and_predicts_on_its_window(trained: Path, tmp_path: Path) -> None:
    model = load(trained)
    assert model.window_length == 40_000
    assert "window_s: 2.5" in (trained / "recipe.yaml").read_text()
    results = json.loads((trained / "results.json").read_text())
    cost = model_cost(model.trunk, torch.zeros(1, 1, 250, 64))
    assert results["macs_per_second"] == round(cost.macs / 2.5)
    soundfile.write(tmp_path / "a.wav", tone(440, 6.0), 16000)
    said = CliRunner().invoke(app, ["predict", str(trained), str(tmp_path / "a.wav"), "--windows", "--json"])
    rows = [json.loads(line) for line in said.stdout.splitlines()]
    assert [(row["start_s"], row["end_s"]) for row in rows] == [(0, 2.5), (2.5, 5.0), (3.5, 6.0)]  # one ends with it


def test_cut_offs_are_those_of_one_window(trained: Path) -> None:
    said = CliRunner().invoke(app, ["cutoffs", str(trained), "--json"])
    found = json.loads(said.stdout)
    assert found["seconds"] == 2.5
    bins = found["layers"][0]["own"]["last_bin"] * 2.5  # a bin is 0.4 Hz
    assert bins == pytest.approx(round(bins))
    assert found["measured"]["largest_error"] < 1e-3


def test_a_run_resumes_on_its_own_window_only(settings: list[str], trained: Path) -> None:
    with pytest.raises(ModelFileError, match=r"recipe\.window_s was 2\.5, is 2\.0"):
        run(load_recipe("folder", [*settings, "window_s=2.0"]), trained, resume=True)
    run(load_recipe("folder", [*settings, "window_s=2.5"]), trained, Report(notify=print), resume=True)


def test_training_on_parts_of_windows_is_training_on_windows_of_that_length(
    settings: list[str], tmp_path: Path
) -> None:
    given = [*settings, "train.keep=last", "augment.skip_quiet_db=20"]
    run(load_recipe("folder", [*given, "window_s=0.5"]), tmp_path / "short")
    run(load_recipe("folder", [*given, "window_s=1.5", "augment.crop_s=0.5"]), tmp_path / "parts")
    short, parts = load(tmp_path / "short"), load(tmp_path / "parts")
    assert (short.window_s, parts.window_s) == (0.5, 1.5)
    for name, value in short.state_dict().items():
        assert torch.equal(value, parts.state_dict()[name]), name


@pytest.mark.parametrize("crop_s", [0.005, 1.2])
def test_a_part_of_a_window_lies_between_a_frame_and_all_of_it(settings: list[str], crop_s: float) -> None:
    with pytest.raises(
        RecipeError, match=rf"augment\.crop_s: {crop_s} s is not between one frame and a whole window of 1 s"
    ):
        check_recipe(load_recipe("folder", [*settings, f"augment.crop_s={crop_s}"]))


def test_a_part_of_no_samples_is_an_error_for_waveforms_too(settings: list[str]) -> None:
    raw = [settings[0], "frontend={name: waveform}", "model={name: wave_cnn}", "augment.crop_s=0.00001"]
    with pytest.raises(RecipeError, match=r"augment\.crop_s: 1e-05 s is not between"):
        check_recipe(load_recipe("folder", raw))


def test_fine_tuning_keeps_the_window_of_the_model_it_starts_from(
    settings: list[str], trained: Path, tmp_path: Path
) -> None:
    init = [*settings, f"model.init={trained}"]
    for out, given in (("unnamed", init), ("named", [*init, "window_s=2.5"])):
        run(load_recipe("folder", given), tmp_path / out)
        assert load(tmp_path / out).window_s == 2.5
    (planned,) = plan_sweep("folder", tmp_path / "sweep", ["train.stride_cost=0.5"], overrides=init)
    run(planned.recipe, planned.path)
    plan_sweep("folder", tmp_path / "sweep", ["train.stride_cost=0.5"], overrides=init)  # it is this sweep's own


def test_fine_tuning_takes_another_window_where_the_recipe_names_one(
    settings: list[str], trained: Path, tmp_path: Path
) -> None:
    init = [*settings, f"model.init={trained}", "model.linear_probe=true"]
    (planned,) = plan_sweep("folder", tmp_path, ["train.learning_rate=0.001"], overrides=[*init, "window_s=1.5"])
    run(planned.recipe, planned.path)
    start, tuned = load(trained), load(planned.path)
    assert (start.window_s, tuned.window_s) == (2.5, 1.5)
    for name, value in start.trunk.state_dict().items():
        assert torch.equal(value, tuned.trunk.state_dict()[name]), name
    again = ("folder", tmp_path, ["train.learning_rate=0.001"])
    plan_sweep(*again, overrides=[*init, "window_s=1.5"])  # it is this sweep's own
    with pytest.raises(UsageError, match=r"window_s was 1\.5, is 2"):
        plan_sweep(*again, overrides=[*init, "window_s=2"])
    with pytest.raises(RecipeError, match=r"window_s: 0\.005 s are 80 samples; at least one frame"):
        check_recipe(load_recipe("folder", [*init, "window_s=0.005"]))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("window_s=0", "window_s: input should be greater than 0"),
        ("window_s=0.005", "window_s: 0.005 s are 80 samples; at least one frame of 160 samples"),
        ("window_s=1e9", "at most 67,108,864 samples"),
        ("window=2", "window: no such key; did you mean 'window_s'?"),
    ],
)
def test_a_window_that_cannot_be_is_an_error_that_names_it(settings: list[str], override: str, message: str) -> None:
    with pytest.raises(AudiostrideError) as caught:
        check_recipe(load_recipe("folder", [*settings, override]))
    assert message in str(caught.value)


def test_an_image_is_one_window() -> None:
    with pytest.raises(RecipeError, match="window_s is for sounds, an image is one window; remove it, got 2"):
        load_recipe("cifar10", ["window_s=2"])


def test_a_strided_second_costs_the_same_in_any_window_and_a_pooled_one_more_in_a_longer() -> None:
    short = AudioClassifier(LogMel(), long_model("strided").trunk, {"word": 2})
    assert cost_per_second(long_model("strided")).macs == pytest.approx(cost_per_second(short).macs, rel=0.01)
    long = long_model()
    second = AudioClassifier(LogMel(), long.trunk, {"word": 2})
    assert cost_per_second(long).macs == round(model_cost(long.trunk, torch.zeros(1, 1, 250, 64)).macs / 2.5)
    assert cost_per_second(long).macs > 1.01 * cost_per_second(second).macs


def test_what_is_said_of_every_epoch_is_what_is_said_of_the_model() -> None:
    model = long_model()
    state = state_at(model, model.trunk.strides())
    assert state["macs_per_second"] == cost_per_second(model).macs
    last = model.block_features(model.silence())[-1].shape
    assert state["shrinkage"] == [250 / last[2], 64 / last[3]]


def test_hear_and_ripples_take_long_windows() -> None:
    model = long_model()
    hear = HearModel(model)
    sound = torch.from_numpy(np.random.RandomState(0).standard_normal(80_000)).float()[None]
    scene = get_scene_embeddings(sound, hear)
    torch.testing.assert_close(scene, model.embed_windows(sound.view(2, 40_000)).mean(0, keepdim=True))
    embeddings, times_ms = get_timestamp_embeddings(sound, hear)
    middle = times_ms[0].tolist().index(2500.0)
    torch.testing.assert_close(embeddings[0, middle], model.embed_windows(sound[:, 20_000:60_000])[0])
    found = ripple_response(model, (4.0,), (0.0, 0.1))
    assert max(map(max, found.frontend)) == 1.0
