"""The command as a person meets it, in a process of its own."""

import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from audiostride.cli.output import print_table
from audiostride.cli.terminal_tables import plain_table
from audiostride.errors import DataError
from audiostride.models.classifier import load
from audiostride.training.predictions_file import read_predictions
from audiostride.training.recipe import load_recipe
from audiostride.training.run import run
from audiostride.training.run_testing import check_windows, evaluate_run
from conftest import Command

TINY = [
    "model.channels=[4,8]",
    "model.strides=[[2,2],[2,2]]",
    "train.batch_size=8",
    "train.epochs=2",
    "train.workers=0",
]


@pytest.fixture(scope="module")
def trained(tone_folder: Path, command: Command, tmp_path_factory: pytest.TempPathFactory) -> Path:
    cwd = tmp_path_factory.mktemp("cli")
    done = command(cwd, "train", "folder", f"tasks.label.data.path={tone_folder}", *TINY, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["run_dir"] == "runs/folder"
    assert "run directory: runs/folder" in done.stderr
    assert "epoch 2: validation label" in done.stderr
    return cwd


@pytest.mark.slow
def test_a_trained_run_is_evaluated_and_converted_to_cutoffs(
    trained: Path, tone_folder: Path, command: Command
) -> None:
    table = command(trained, "evaluate", "runs/folder")
    assert "accuracy" in table.stdout
    own = command(trained, "evaluate", "runs/folder", "--json")
    assert json.loads(own.stdout)["tasks"]["label"]["n"] == 6
    other = command(trained, "evaluate", "runs/folder", "--data", str(tone_folder), "--task", "label", "--json")
    assert json.loads(other.stdout)["tasks"]["label"]["n"] == 60
    layers = json.loads(command(trained, "cutoffs", "runs/folder", "--json").stdout)
    assert layers["runs"] == ["runs/folder"]
    assert [(row["layer"], row["axis"]) for row in layers["layers"]] == [
        (1, "time"),
        (1, "mel"),
        (2, "time"),
        (2, "mel"),
    ]
    columns = {"layer", "axis", "stride", "stride_sd", "own", "cumulative", "paper", "paper_sd", "folding"}
    assert set(layers["layers"][0]) == columns
    assert set(layers["layers"][0]["own"]) == {"continuous", "full_gain", "minus_6db", "last_bin"}
    both = command(trained, "cutoffs", "runs/folder", "runs/folder", "--seconds", "2")
    assert "mean of 2 runs" in both.stdout
    assert "input of 2 s" in both.stdout


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="other CPUs have no AVX2 to emulate with")
def test_half_precision_on_a_cpu_that_emulates_it_is_said_to_be_slow(tone_folder: Path, tmp_path: Path) -> None:
    train = ["train", "folder", f"tasks.label.data.path={tone_folder}", *TINY, "train.epochs=1"]
    for precision, expected in (("bfloat16", 1), ("float32", 0)):
        done = subprocess.run(
            [sys.executable, "-m", "audiostride", *train, f"train.precision={precision}", "--out", precision],
            cwd=tmp_path,
            env=os.environ | {"ATEN_CPU_CAPABILITY": "avx2"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert done.stderr.count("train.precision=float32 is faster here") == expected


@pytest.mark.slow
def test_a_directory_with_something_in_it_is_not_trained_into(
    trained: Path, tone_folder: Path, command: Command
) -> None:
    again = command(trained, "train", "folder", f"tasks.label.data.path={tone_folder}", *TINY, "--out", "runs/folder")
    assert again.returncode == 2
    assert "runs/folder: is not empty; continue its run with --resume, choose another --out" in again.stderr


def test_a_run_is_evaluated_on_its_own_test_clips_whatever_has_become_of_the_folder(
    tone_folder: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(tone_folder, tmp_path / "tones")
    for file in [*folder.rglob("*.wav")]:  # names that are no UTF-8 text are read back, too
        os.rename(file, os.fsencode(file.with_suffix("")) + b"\xe9.wav")
    run(load_recipe("folder", [f"tasks.label.data.path={folder}", *TINY]), tmp_path / "run")
    before = read_predictions(tmp_path / "run")["label"].files
    for i, file in enumerate([*(folder / "low").iterdir()]):
        shutil.copy(file, folder / "low" / f"new-{i:02d}.wav")
    assert evaluate_run(tmp_path / "run")["label"].n == len(before)
    model = load(tmp_path / "run")
    assert len(check_windows(str(tmp_path / "run"), model)) == len(before)
    (folder / before[0]).unlink()
    with pytest.raises(DataError, match=rf"1 of its {len(before)} test clips are missing, such as {before[0]}"):
        evaluate_run(tmp_path / "run")
    with pytest.raises(DataError, match="test clips are missing"):
        check_windows(str(tmp_path / "run"), model)


@pytest.mark.parametrize(
    ("arguments", "exit_code", "message"),
    [
        (["train", "folder", "train.epoch=3"], 3, "train.epoch: no such key; did you mean 'epochs'?"),
        (["train", "fodler"], 3, "did you mean 'folder'?"),
        (["train", "folder"], 4, "DIR: no such file or folder"),
        (["train"], 2, "RECIPE"),
        (["train", "folder", "--uot", "x"], 2, "--uot"),
        (["evaluate", "nowhere"], 5, "nowhere/config.json: no such file"),
        (["cutoffs", "nowhere"], 5, "nowhere/config.json: no such file"),
        (
            ["export", "audio_resnet_small_strided"],
            2,
            "comes with the package and is not a folder to write to; give --out",
        ),
        (["predict", "nowhere", "a.wav", "--pcm-rate", "8000"], 2, "--pcm-rate is the rate of samples on stdin"),
        (["recipes", "--out", "mine.yaml"], 2, "--out is where a recipe is copied to; name the recipe"),
    ],
)
def test_mistakes_are_answered_in_words_with_the_documented_exit_code(
    arguments: list[str], exit_code: int, message: str, command: Command, tmp_path: Path
) -> None:
    done = command(tmp_path, *arguments)
    assert done.returncode == exit_code
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_a_class_in_brackets_is_printed_as_it_is(capsys) -> None:
    print_table(plain_table("words", ("class",), [("[noise]",), ("[/x]",), (":dog:",)]))
    printed = capsys.readouterr().out
    assert all(name in printed for name in ("[noise]", "[/x]", ":dog:"))


def test_numbers_of_a_table_are_never_cut_however_narrow_the_terminal(capsys, monkeypatch) -> None:
    monkeypatch.setattr("rich.console.Console.is_terminal", True)
    monkeypatch.setenv("COLUMNS", "30")
    print_table(plain_table("cut-offs", [f"c{i}" for i in range(9)], [[f"{i}.12345" for i in range(9)]]))
    printed = capsys.readouterr().out
    assert all(f"{i}.12345" in printed for i in range(9))


def test_help_loads_neither_torch_nor_numpy() -> None:
    code = (
        "import sys\n"
        "from audiostride.cli import app\n"
        "app(['train', '--help'], standalone_mode=False)\n"
        "sys.exit(bool({'torch', 'numpy', 'soundfile', 'audiostride.training.recipe'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert "audiostride train ripples" in done.stdout
