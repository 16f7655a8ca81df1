"""What somebody else made is only looked at: runs that name addresses and paths, names that steer a terminal."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml
from click.testing import Result
from typer.testing import CliRunner

from audiostride.analysis.mistakes import class_scores, confusion
from audiostride.cli import app
from audiostride.errors import DataError, ModelFileError, UsageError
from audiostride.models.classifier import load
from audiostride.training.predictions_file import TaskPredictions
from audiostride.training.recipe import load_recipe
from audiostride.training.run import run
from audiostride.training.run_files import digest
from audiostride.training.run_testing import check_windows, evaluate_run, evaluate_with_predictions

EVIL = "tone\x07\x1b[2J"


def rewrite(run_dir: Path, recipe: str) -> None:
    """Give a run another recipe, as somebody would who made both."""
    (run_dir / "recipe.yaml").write_text(recipe)
    results = json.loads((run_dir / "results.json").read_text())
    results["files"]["recipe.yaml"] = digest(recipe.encode())
    del results["files"]["results.json"]
    (run_dir / "results.json").write_text(json.dumps(results))


def command(*args: object) -> Result:
    done = CliRunner().invoke(app, [str(arg) for arg in args])
    assert done.exit_code == 0, (args, done.output, done.exception)
    return done


@pytest.fixture(scope="module")
def tone_run(tone_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tone")
    settings = [f"tasks.label.data.path={tone_folder}", "model.channels=[4,4]", "model.strides=[[2,2],[2,2]]"]
    run(load_recipe("folder", [*settings, "train.epochs=1", "train.workers=0"]), folder / "run")
    return folder / "run"


@pytest.fixture(scope="module")
def evil_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose classes steer terminals, and one of whose files is not called by text."""
    folder = tmp_path_factory.mktemp("evil")
    time = np.arange(8000) / 16000
    for label, hz in ((EVIL, 2000), ("low\udce9", 300)):
        (folder / "sounds" / label).mkdir(parents=True)
        for i in range(12):
            name = f"{i}\x1b[31m\udcff.wav" if i % 4 == 0 else f"{i}.wav"
            with (folder / "sounds" / label / name).open("wb") as file:
                noise = 0.05 * np.random.default_rng(i).standard_normal(8000)
                soundfile.write(file, 0.5 * np.sin(2 * np.pi * hz * time) + noise, 16000, format="WAV")
    settings = [f"tasks.label.data.path={folder}/sounds", "model.channels=[4,4]", "model.strides=[[2,2],[2,2]]"]
    run(load_recipe("folder", [*settings, "train.epochs=1", "window_s=0.5", "train.workers=0"]), folder / "run")
    return folder / "run"


@pytest.mark.parametrize(
    "data",
    [
        {"source": "archive", "layout": "folder", "archives": ["http://127.0.0.1:1/sounds.tar"]},
        {"source": "archive", "layout": "folder", "archives": ["{HERE}/sounds.tar"]},
        {"source": "hub", "path": "somebody/sounds"},
        {"source": "shards", "path": ["http://127.0.0.1:1/{000..003}.tar"]},
    ],
    ids=["archive", "archive on this disk", "hub", "shards"],
)
def test_a_strangers_run_fetches_nothing_and_writes_nothing(data: dict, tone_run: Path, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    shutil.copytree(tone_run, theirs)
    recipe = yaml.safe_load((theirs / "recipe.yaml").read_text())
    recipe["tasks"]["label"]["data"] = {"path": str(tmp_path / "victim"), **data}
    recipe["cache"] = str(tmp_path / "victim-cache")
    rewrite(theirs, yaml.safe_dump(recipe).replace("{HERE}", str(tmp_path)))
    with pytest.raises(DataError, match=r"tasks\.label\.data: is not on this machine.*--fetch; or test on other clips"):
        evaluate_run(theirs)
    with pytest.raises(DataError, match="give some with --clips") as caught:
        check_windows(str(theirs), load(theirs))
    assert "--fetch" not in str(caught.value)  # `export` has no such option
    done = CliRunner().invoke(app, ["report", str(theirs)])
    assert done.exit_code == 0, done.output
    assert "is not on this machine" in (theirs / "report.html").read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["theirs"]


def test_a_strangers_cache_is_not_written(tone_run: Path, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    shutil.copytree(tone_run, theirs)
    recipe = yaml.safe_load((theirs / "recipe.yaml").read_text())
    rewrite(theirs, yaml.safe_dump(recipe | {"cache": str(tmp_path / "cache")}))
    results = json.loads((theirs / "results.json").read_text())
    assert evaluate_run(theirs)["label"].accuracy == results["tasks"]["label"]["accuracy"]
    assert not (tmp_path / "cache").exists()


def test_a_model_without_its_run_is_tested_on_ones_own_data(tone_run: Path, tone_folder: Path, tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors"):
        shutil.copy(tone_run / name, tmp_path / name)
    assert evaluate_run(tmp_path, data=str(tone_folder)) == evaluate_run(tone_run, data=str(tone_folder))
    done = command("evaluate", tmp_path, "--data", tone_folder, "--by-class", "--json")
    found = json.loads(done.stdout)["tasks"]["label"]
    assert sum(map(sum, found["confusion"])) == found["n"] == sum(row["clips"] for row in found["classes"])
    with pytest.raises(ModelFileError, match=r"recipe\.yaml: no such file.*test on other clips with --data"):
        evaluate_run(tmp_path)


def test_names_reach_pages_and_terminals_escaped_and_files_as_they_are(evil_run: Path, tmp_path: Path) -> None:
    for args in (("evaluate", evil_run, "--by-class"), ("compare", evil_run), ("report", evil_run)):
        done = command(*args)
        assert b"\x1b[2J" not in done.stdout_bytes + done.stderr_bytes, args
    page = (evil_run / "report.html").read_bytes()
    assert b"\x1b" not in page
    assert rb"tone\x07\x1b[2J" in page
    assert rb"low\udce9" in page
    predictions = evaluate_with_predictions(evil_run)[1]["label"]
    assert EVIL in predictions.truth  # in data it is what it is
    out = tmp_path / "rows.csv"
    command("predict", evil_run, evil_run.parent / "sounds", "--out", out)
    assert command("predict", evil_run, evil_run.parent / "sounds", "--csv").stdout_bytes == out.read_bytes()


def test_no_result_replaces_a_file_of_somebody_else(tone_run: Path, tone_folder: Path, tmp_path: Path) -> None:
    sound = next(tone_folder.rglob("*.wav"))
    mine = tmp_path / "mine"
    for args in (
        ("report", tone_run, "-o", f"{mine}.html"),
        ("cutoffs", tone_run, "--csv", f"{mine}.csv"),
        ("cutoffs", tone_run, "--plot", f"{mine}.png"),
        ("compare", tone_run, "--plot", f"{mine}.svg"),
        ("listen", tone_run, sound, "-o", f"{mine}.wav"),
        ("listen", tone_run, sound, "-o", tmp_path / "new.wav", "--plain", f"{mine}.flac"),
        ("export", tone_run, "-o", f"{mine}.onnx"),
        ("export", tone_run, "--format", "web", "-o", f"{mine}.html"),
        ("export", tone_run, "--format", "c", "-o", tmp_path / "mine.c"),
        ("embed", tone_run, sound, "-o", f"{mine}.npz"),
        ("predict", tone_run, sound, "--frames", "-o", f"{mine}.npz"),
        ("predict", tone_run, sound, "-o", f"{mine}.csv"),
    ):
        file = next(Path(str(arg)) for arg in args if str(arg).startswith(str(mine)))
        file = file.with_suffix(".h") if file.suffix == ".c" else file
        file.write_text("years of work")
        done = CliRunner().invoke(app, [str(arg) for arg in args])
        assert isinstance(done.exception, UsageError), args
        assert "already exists" in str(done.exception)
        assert file.read_text() == "years of work"
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "tables.md").write_text("years of work")
    done = CliRunner().invoke(app, ["compare", str(tone_run), "-o", str(tmp_path / "tables")])
    assert isinstance(done.exception, UsageError)
    assert [path.name for path in (tmp_path / "tables").iterdir()] == ["tables.md"]


def test_a_report_and_tables_are_made_again_in_their_own_place(tone_run: Path, tmp_path: Path) -> None:
    for _ in range(2):
        command("report", tone_run, "-o", tmp_path / "report.html")
        command("compare", tone_run, "-o", tmp_path / "tables")


@pytest.mark.parametrize("seconds", ["inf", "1e300", "300"])
def test_cutoffs_of_an_endless_input_are_refused(seconds: str, tone_run: Path) -> None:
    done = CliRunner().invoke(app, ["cutoffs", str(tone_run), "--seconds", seconds])
    assert isinstance(done.exception, UsageError)
    assert "choose 60 s at most" in str(done.exception)


def test_an_hour_is_not_made_audible(tone_run: Path, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "long.flac", np.zeros(301 * 16000, np.float32), 16000)
    done = CliRunner().invoke(app, ["listen", str(tone_run), f"{tmp_path}/long.flac", "-o", f"{tmp_path}/kept.wav"])
    assert isinstance(done.exception, UsageError)
    assert "more than 300 s" in str(done.exception)
    assert not (tmp_path / "kept.wav").exists()


def test_figures_need_no_backend(tone_run: Path, tmp_path: Path) -> None:
    code = "from audiostride.analysis.plot_style import new_figure, ramp, save; from pathlib import Path; ramp(3); "
    code += f"save(new_figure(2, 1), Path({str(tmp_path / 'x.png')!r}))"
    subprocess.run([sys.executable, "-c", code], check=True, env={"MPLBACKEND": "nonsense", "PATH": "/usr/bin"})
    assert (tmp_path / "x.png").stat().st_size > 0


def test_mistakes_among_thousands_of_classes_are_counted_in_linear_time() -> None:
    labels = [f"class {i}" for i in range(2000)]
    random = np.random.default_rng(0)
    truth, said = random.integers(0, 2000, (2, 20_000))
    predictions = TaskPredictions(
        [f"{i}" for i in range(20_000)], [labels[i] for i in truth], [labels[i] for i in said], np.empty((20_000, 0))
    )
    counts = confusion(predictions, labels)
    expected = np.zeros((2000, 2000), int)
    np.add.at(expected, (truth, said), 1)
    np.testing.assert_array_equal(counts, expected)
    rows = class_scores(predictions, labels)
    assert [row["clips"] for row in rows] == expected.sum(1).tolist()
