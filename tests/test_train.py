"""Runs: repeatable to the bit, learning, leaving the run directory that is documented."""

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from small_training import SEED, train_small
from typer.testing import CliRunner

from audiostride import AudioClassifier, AudioCNN, LogMel, load, read_audio
from audiostride.cli import app
from audiostride.data.batches import LabelledClips
from audiostride.data.clips import ArrayClips
from audiostride.errors import DataError, RecipeError, TrainingError, UsageError
from audiostride.training.directory import run_directory
from audiostride.training.recipe import Recipe, load_recipe
from audiostride.training.run import run
from audiostride.training.run_testing import evaluate_run
from audiostride.training.schedules import schedule_factor

TINY = ["model.channels=[4,8]", "model.strides=[[2,2],[2,2]]", "train.batch_size=8", "train.workers=0", f"seed={SEED}"]


def tiny(folder: Path, *overrides: str) -> Recipe:
    return load_recipe("folder", [f"tasks.label.data.path={folder}", *TINY, "train.epochs=8", *overrides])


@pytest.fixture(scope="module")
def tone_run(tone_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "tones"
    run(tiny(tone_folder, "train.epochs=20", "train.learning_rate=1e-2"), out)
    return out


def test_a_run_learns_to_tell_low_from_high_tones(tone_run: Path) -> None:
    results = json.loads((tone_run / "results.json").read_text())
    assert results["tasks"]["label"]["split"] == "test"
    assert results["tasks"]["label"]["n"] == 6
    assert results["tasks"]["label"]["accuracy"] == 1.0


def test_a_run_directory_holds_what_is_documented(tone_run: Path) -> None:
    metrics = [json.loads(line) for line in (tone_run / "metrics.jsonl").read_text().splitlines()]
    assert [(m["epoch"], m["split"]) for m in metrics[:3]] == [(1, "train"), (1, "validation"), (2, "train")]
    assert set(metrics[0]) >= {"epoch", "step", "split", "tasks", "strides", "lr", "stride_lr", "clips_per_s"}
    assert set(metrics[0]["tasks"]["label"]) == {"loss", "accuracy"}
    steps = [json.loads(line) for line in (tone_run / "steps.jsonl").read_text().splitlines()]
    assert [s["step"] for s in steps] == list(range(1, metrics[-1]["step"] + 1))
    assert all(math.isfinite(float.fromhex(s["loss_hex"])) for s in steps)
    config = json.loads((tone_run / "config.json").read_text())
    assert config["tasks"]["label"].pop("calibration").keys() == {"temperature", "none_below"}
    assert config["tasks"] == {"label": {"kind": "multiclass", "labels": ["high", "low"]}}
    assert load_recipe(str(tone_run / "recipe.yaml")).name == "folder"
    results = json.loads((tone_run / "results.json").read_text())
    assert set(results) >= {"tasks", "macs_per_second", "parameters", "strides", "seed"}
    with (tone_run / "predictions-test.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6
    assert all(row["file"].startswith(row["label"]) for row in rows)


def test_the_same_seed_gives_the_same_run_to_the_bit_and_another_seed_another(
    tone_folder: Path, tmp_path: Path
) -> None:
    curves, weights = [], []
    for i, overrides in enumerate((["seed=1"], ["seed=1", "train.workers=2"], ["seed=2"])):
        run(tiny(tone_folder, "train.epochs=2", *overrides), tmp_path / str(i))
        curves.append((tmp_path / str(i) / "steps.jsonl").read_text())
        weights.append((tmp_path / str(i) / "model.safetensors").read_bytes())
    assert curves[0] == curves[1]
    assert weights[0] == weights[1]
    assert curves[0] != curves[2]


def test_the_saved_model_scores_what_results_say(tone_run: Path) -> None:
    written = json.loads((tone_run / "results.json").read_text())["tasks"]["label"]
    score = evaluate_run(tone_run)["label"]._asdict()
    assert {"split": "test"} | {name: value for name, value in score.items() if value is not None} == written


def test_overlapping_windows_are_scored_by_their_mean(tone_run: Path, tone_folder: Path) -> None:
    model, losses = load(tone_run), []
    model.calibrations.clear()  # the loss is that of the logits as they are
    for file in sorted(tone_folder.rglob("*.wav")):
        found = model.predict(read_audio(file, 16000), 16000, overlap=0.9)["label"]
        losses.append(-math.log(found.probabilities[file.parent.name]))
    said = CliRunner().invoke(
        app, ["evaluate", str(tone_run), "--data", str(tone_folder), "--overlap", "0.9", "--json"]
    )
    overlapping = json.loads(said.stdout)["tasks"]["label"]
    assert overlapping["loss"] == pytest.approx(np.mean(losses), rel=1e-4)
    plain, at_zero = (evaluate_run(tone_run, str(tone_folder), **way)["label"] for way in ({}, {"overlap": 0.0}))
    assert plain == at_zero
    assert plain.loss != overlapping["loss"]


def test_a_run_scores_any_other_folder(tone_run: Path, tone_folder: Path) -> None:
    assert evaluate_run(tone_run, data=str(tone_folder))["label"].n == 60
    with pytest.raises(UsageError, match="no task 'word'"):
        evaluate_run(tone_run, task="word")


def test_a_label_the_model_does_not_know_is_named(tone_run: Path, tone_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "middle").mkdir()
    (tmp_path / "middle" / "a.wav").write_bytes((tone_folder / "low" / "00.wav").read_bytes())
    with pytest.raises(DataError, match=r"middle/a.wav: the label 'middle'.*high, low"):
        evaluate_run(tone_run, data=str(tmp_path))


def test_the_loaded_model_predicts_a_file(tone_run: Path, tone_folder: Path) -> None:
    model = load(tone_run)
    for label in ("high", "low"):
        waveform = read_audio(tone_folder / label / "05.wav", 16000)
        assert model.predict(waveform, 16000)["label"].label == label


def test_skipped_files_are_listed_in_the_run(tone_folder: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(tone_folder, tmp_path / "tones")
    (tmp_path / "tones" / "low" / "bad.wav").write_text("no sound")
    recipe = tiny(tmp_path / "tones", "tasks.label.data.on_bad_file=skip", "train.epochs=1")
    run(recipe, tmp_path / "out")
    assert "low/bad.wav" in (tmp_path / "out" / "bad_files.txt").read_text()
    with pytest.raises(DataError, match=r"bad\.wav"):
        run(tiny(tmp_path / "tones"), tmp_path / "out2")


def test_two_tasks_of_one_data_set_are_trained_together(tmp_path: Path) -> None:
    recipe = load_recipe(
        "ripples", [*TINY, "train.epochs=1", "tasks.rate.data.n_clips=250", "tasks.scale.data.n_clips=250"]
    )
    results = run(recipe, tmp_path / "run")
    assert {task: score["n"] for task, score in results["tasks"].items()} == {"rate": 25, "scale": 25}
    assert load(tmp_path / "run").labels["rate"] == ["2", "4", "8", "16", "24"]


def test_two_data_sets_are_trained_together(tone_folder: Path, tmp_path: Path) -> None:
    recipe = load_recipe(
        "folder",
        [
            f"tasks.label.data.path={tone_folder}",
            "tasks.rate={data: {source: ripples, n_clips: 250}, column: rate}",
            *TINY,
            "train.epochs=1",
        ],
    )
    assert set(run(recipe, tmp_path / "run")["tasks"]) == {"label", "rate"}


def test_steps_end_a_run_early(tone_folder: Path, tmp_path: Path) -> None:
    run(tiny(tone_folder, "train.steps=3"), tmp_path / "run")
    assert len((tmp_path / "run" / "steps.jsonl").read_text().splitlines()) == 3


def test_strides_move_and_the_stride_cost_drives_them_up(tone_folder: Path, tmp_path: Path) -> None:
    final = {}
    for cost in (0.0, 10.0):
        recipe = tiny(
            tone_folder,
            "train.epochs=4",
            f"train.stride_cost={cost}",
            "model.strides=[[2,2],[1.5,1.5]]",
            "train.stride_learning_rate=0.2",
        )
        final[cost] = run(recipe, tmp_path / str(cost))["strides"]
    assert final[0.0] != [[2.0, 2.0], [1.5, 1.5]]
    assert (np.array(final[10.0]) > np.array(final[0.0]) + 0.1).all()


def test_a_non_finite_loss_stops_before_the_update_and_names_the_files(tmp_path: Path) -> None:
    waveforms = np.random.RandomState(0).standard_normal((16, 16000)).astype(np.float32)
    clips = ArrayClips([f"clip{i}" for i in range(16)], {}, [""] * 16, waveforms=waveforms, sample_rate=16000)
    data = LabelledClips(clips, {"task": np.arange(16) % 2}, ["train"] * 12 + ["validation"] * 4)
    model = AudioClassifier(LogMel(), AudioCNN("strided", (4,), ((2, 2),)), {"task": 2})
    with torch.no_grad():
        model.heads["task"].weight.fill_(float("inf"))
    before = {name: value.clone() for name, value in model.named_parameters()}
    with pytest.raises(TrainingError, match=r"step 0.*clip\d+"):
        train_small(model, tmp_path, sets=[data], epochs=1, batch_size=4, learning_rate=1e-3)
    assert all(torch.equal(value, before[name]) for name, value in model.named_parameters())


def test_settings_that_contradict_each_other_stop_before_any_data_is_read(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="Nyquist"):
        run(tiny(tmp_path / "nowhere", "frontend.sample_rate=8000"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_run_directories_are_never_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = load_recipe("folder")
    assert run_directory(recipe, None) == Path("runs/folder")
    assert run_directory(recipe, None) == Path("runs/folder-2")
    (tmp_path / "full").mkdir()
    assert run_directory(recipe, "full") == Path("full")
    (tmp_path / "full" / "file").touch()
    with pytest.raises(UsageError, match="not empty"):
        run_directory(recipe, "full")


def test_one_cycle_is_torchs_one_cycle() -> None:
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    oracle = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1.0, total_steps=50)
    for step in range(50):
        assert optimizer.param_groups[0]["lr"] == pytest.approx(schedule_factor("one_cycle", step, 50), abs=1e-9)
        optimizer.step()
        if step < 49:
            oracle.step()


def test_cosine_is_torchs_cosine() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    oracle = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=50)
    for step in range(50):
        assert optimizer.param_groups[0]["lr"] == pytest.approx(schedule_factor("cosine", step, 50), abs=1e-9)
        optimizer.step()
        oracle.step()
