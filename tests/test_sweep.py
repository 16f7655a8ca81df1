"""Sweeps: the grid, what is done again and what never, and runs that fail or are killed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from audiostride.cli import app
from audiostride.errors import RecipeError, UsageError
from audiostride.training.recipe import load_recipe
from audiostride.training.run import run
from audiostride.training.sweep import plan_sweep
from conftest import Command

TINY = [
    "tasks.rate.data.n_clips=250",
    "tasks.scale.data.n_clips=250",
    "model.channels=[4,4]",
    "model.strides=[[2,2],[2,2]]",
    "train.steps=2",
]


def sweep_arguments(out: Path, *arguments: str) -> list[str]:
    return ["sweep", "ripples", *TINY, "-o", str(out), *arguments]


def sweep_command(out: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "audiostride", *sweep_arguments(out, *arguments)]


def names(grid, seeds=()):
    return [run.path.name for run in plan_sweep("ripples", Path("nowhere"), grid, seeds)]


def test_a_grid_is_every_combination_of_every_seed():
    grid = ["model.downsampling=strided,diffstride", "train.stride_cost=0.0,0.1"]
    assert len(names(grid, [0, 1, 2])) == 12
    assert names(grid)[1] == "strided_stride_cost-0.1_seed-0"


def test_commas_within_brackets_belong_to_the_value():
    runs = plan_sweep("ripples", Path("nowhere"), ["model.channels=[4,4,4,4,4,4],[8,8,8,8,8,8]"])
    assert [run.recipe.model.channels[0] for run in runs] == [4, 8]


@pytest.mark.parametrize("setting", ["model.downsampling", "model.smoothness=", "model.smoothness=1,1", "seed=1,2"])
def test_a_malformed_grid_is_a_usage_error(setting):
    with pytest.raises(UsageError):
        names([setting])


def test_every_recipe_of_the_grid_is_checked_before_any_training():
    with pytest.raises(RecipeError, match="did you mean 'diffstride'"):
        names(["model.downsampling=strided,difstride"])


def test_a_directory_of_another_recipe_is_never_touched(tmp_path):
    foreign = tmp_path / "strided_seed-0"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("years of work")
    with pytest.raises(UsageError, match="not a run of this sweep"):
        plan_sweep("ripples", tmp_path, ["model.downsampling=strided"])
    (foreign / "recipe.yaml").write_text((Path(__file__).parents[1] / "recipes" / "ripples.yaml").read_text())
    with pytest.raises(UsageError, match=r"model\.downsampling was diffstride, is strided"):
        plan_sweep("ripples", tmp_path, ["model.downsampling=strided"])
    assert (foreign / "thesis.txt").read_text() == "years of work"


@pytest.mark.slow
def test_a_killed_sweep_goes_on_without_repeating_and_ends_as_if_never_killed(command: Command, tmp_path):
    out, straight = tmp_path / "killed", tmp_path / "straight"
    process = subprocess.Popen(sweep_command(out, "--seeds", "0,1"), stderr=subprocess.DEVNULL)
    first, second = out / "seed-0", out / "seed-1"
    deadline = time.monotonic() + 120
    while not (second / "recipe.yaml").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert (first / "results.json").exists()
    assert not (second / "results.json").exists()
    stamp = (first / "results.json").stat().st_mtime_ns

    again = command(tmp_path, *sweep_arguments(out, "--seeds", "0,1", "--json"))
    assert again.returncode == 0, again.stderr
    assert [outcome["state"] for outcome in json.loads(again.stdout)] == ["finished before", "finished"]
    assert (first / "results.json").stat().st_mtime_ns == stamp

    run(load_recipe("ripples", [*TINY, "seed=1"]), straight)
    assert (second / "steps.jsonl").read_text() == (straight / "steps.jsonl").read_text()


def test_a_stopped_sweep_ends_there_and_says_how_it_goes_on(tmp_path):
    command = sweep_command(tmp_path / "out", "--seeds", "0,1", "train.steps=100000")
    child = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    steps = tmp_path / "out/seed-0/steps.jsonl"
    while child.poll() is None and not (steps.exists() and steps.stat().st_size):
        time.sleep(0.05)
    child.send_signal(signal.SIGINT)
    _, said = child.communicate(timeout=60)
    assert child.returncode == 130, said
    assert "everything is saved; the same command continues from there" in said
    assert not (tmp_path / "out/seed-1").exists()


@pytest.mark.slow
def test_a_failing_run_does_not_stop_the_others_and_exits_6(tmp_path):
    arguments = sweep_arguments(tmp_path / "out", "--set", "train.learning_rate=1e15,1e-3", "--json")
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 6, done.output
    failed, finished = json.loads(done.stdout)
    assert failed["state"] == "failed"
    assert "before the update; lower train.learning_rate" in failed["error"]
    assert finished["state"] == "finished"
