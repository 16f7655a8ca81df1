"""`init`, `validate` and `recipes` as a person at the terminal meets them."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from audiostride import create_model
from audiostride.cli import app
from audiostride.data.manifest import write_manifest
from audiostride.errors import DataError, RecipeError, UsageError, WriteError
from audiostride.training.build import make_trunk
from audiostride.training.recipe import load_recipe


def call(*arguments: str) -> str:
    done = CliRunner().invoke(app, list(arguments))
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.stdout


@pytest.fixture
def at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_init_says_what_is_there_and_its_recipe_is_sound(tone_folder: Path, at: Path) -> None:
    found = json.loads(call("init", str(tone_folder), "--json"))
    assert found["clips"] == 60
    assert found["columns"] == {"label": {"high": 30, "low": 30}}
    assert found["sample_rates"] == {"16000": 60}
    assert 0.6 <= found["seconds"]["shortest"] <= found["seconds"]["longest"] <= 1.6
    recipe = load_recipe("recipe.yaml")
    assert recipe.tasks["label"].kind == "binary"
    checked = json.loads(call("validate", "recipe.yaml", "--json"))
    assert checked["tasks"]["label"]["clips"] == {"train": 48, "validation": 6, "test": 6}
    assert "is valid" in call("validate", "recipe.yaml")
    with pytest.raises(UsageError, match=r"recipe\.yaml: already exists"):
        call("init", str(tone_folder))
    with pytest.raises(WriteError, match=r"recipe\.yaml/mine\.yaml: cannot be written"):
        call("init", str(tone_folder), "--out", "recipe.yaml/mine.yaml")


def test_init_reports_bad_files_and_copies_and_leaves_bad_ones_out(tone_folder: Path, at: Path) -> None:
    shutil.copytree(tone_folder, at / "mine")
    (at / "mine" / "low" / "broken.wav").write_bytes(b"RIFF")
    shutil.copy(at / "mine" / "low" / "00.wav", at / "mine" / "low" / "copy.wav")
    shutil.copy(at / "mine" / "low" / "00.wav", at / "mine" / "loose.wav")
    shown = call("init", "mine")
    assert "broken.wav" in shown
    assert "1, left out" in shown
    assert "loose.wav" in shown
    assert "audiostride validate checks the splits that are drawn" in shown
    assert "low/00.wav = low/copy.wav" in shown
    assert load_recipe("recipe.yaml").tasks["label"].data.on_bad_file == "skip"  # type: ignore[union-attr]


def speakers(at: Path, leak: bool) -> None:
    rows = []
    for i in range(40):
        soundfile.write(at / f"{i}.wav", np.random.RandomState(i).uniform(-0.5, 0.5, 1600), 8000)
        split = "test" if i >= (30 if leak else 32) else "train"
        rows.append({"file": f"{i}.wav", "word": f"w{i % 4}", "speaker": f"s{i // 4}", "split": split})
    write_manifest(at / "t.csv", rows)


def test_init_refuses_a_speaker_on_two_sides_unless_allowed(at: Path) -> None:
    speakers(at, leak=True)
    with pytest.raises(
        DataError, match="values of 'speaker' in more than one split: 1, such as 's7' in test and train"
    ):
        call("init", "t.csv")
    assert not Path("recipe.yaml").exists()
    call("init", "t.csv", "--allow-shared-groups")
    assert load_recipe("recipe.yaml").tasks["word"].data.allow_shared_groups  # type: ignore[union-attr]


def test_init_finds_labels_speakers_and_the_sample_rate_of_a_table(at: Path) -> None:
    speakers(at, leak=False)
    call("init", "t.csv", "--out", "new/r.yaml")
    recipe = load_recipe("new/r.yaml")
    assert recipe.tasks["word"].data.group == "speaker"  # type: ignore[union-attr]
    assert recipe.frontend.sample_rate == 8000
    assert recipe.frontend.f_max == 3900
    call("validate", "new/r.yaml")


def test_init_names_what_it_cannot_use(at: Path) -> None:
    with pytest.raises(DataError, match="nowhere: no such folder"):
        call("init", "nowhere")
    speakers(at, leak=False)
    with pytest.raises(DataError, match=r"no label column 'wrod'.*did you mean 'word'"):
        call("init", "t.csv", "--column", "wrod")


def test_recipes_are_listed_and_copied_out_whole(at: Path) -> None:
    listed = json.loads(call("recipes", "--json"))
    assert listed["speech_commands"] == "Speech Commands v0.02: 35 spoken words"
    assert listed["cifar10"].startswith("CIFAR-10 as in the paper")
    assert "dcase2018_birds" in call("recipes")
    assert call("recipes", "ripples", "--out", "new/mine.yaml").strip() == "new/mine.yaml"
    assert load_recipe("new/mine.yaml") == load_recipe("ripples")
    with pytest.raises(UsageError, match=r"new/mine\.yaml: already exists"):
        call("recipes", "ripples", "--out", "new/mine.yaml")
    with pytest.raises(RecipeError, match="did you mean 'ripples'"):
        call("recipes", "riples")


def test_init_chooses_the_registered_small_model(tone_folder: Path, at: Path) -> None:
    call("init", str(tone_folder))
    registered = create_model("audio_resnet_small_strided", heads={"label": 2})
    trunk = make_trunk(load_recipe("recipe.yaml"))
    assert type(trunk) is type(registered.trunk)
    assert trunk.settings == registered.trunk.settings
