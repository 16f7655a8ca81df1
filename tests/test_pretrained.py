"""The weights that come with the package, and the benchmark that says what they give."""

import csv
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch

from audiostride import create_model, load
from audiostride.errors import ModelFileError
from audiostride.models.pretrained import FOLDER, pretrained_names
from audiostride.models.registry import MODELS

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))  # where few_shot.py finds its neighbour, too

from few_shot import choose, table  # noqa: E402

NAMES = pytest.mark.parametrize("name", pretrained_names())


def test_there_are_some():
    assert pretrained_names() == ["audio_resnet_small_strided"]


@NAMES
def test_they_are_those_of_the_registered_model_small_and_described(name):
    model = load(name)
    fresh = create_model(name, heads={"word": 2})
    assert type(model.trunk) is type(fresh.trunk)
    assert model.trunk.settings == fresh.trunk.settings
    assert sum(path.stat().st_size for path in (FOLDER / name).iterdir()) < 2_000_000
    card = (FOLDER / name / "README.md").read_text()
    for words in ("license: cc-by-4.0", "## Limits", "Speech Commands", f'au.load("{name}")', *model.labels):
        assert words in card
    assert len(model.labels["pitch"]) == 60


@NAMES
def test_a_new_classifier_starts_from_them(name):
    model, shipped = create_model(name, pretrained=True, heads={"bird": ["no", "yes"]}), load(name)
    assert model.labels == {"bird": ["no", "yes"]}
    for key, value in shipped.trunk.state_dict().items():
        assert torch.equal(model.trunk.state_dict()[key], value)
    with pytest.raises(ValueError, match="its trunk has"):
        create_model(name, pretrained=True, heads={"bird": 2}, mel_regions=4)


def test_models_without_them_say_which_have_some():
    without = next(name for name in MODELS if name not in pretrained_names())
    with pytest.raises(ValueError, match=f"no weights come with {without}, only with audio_resnet_small_strided"):
        create_model(without, pretrained=True, heads={"word": 2})


@NAMES
def test_a_folder_of_the_same_name_goes_first(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    create_model(name, heads={"mine": 2}).save(name)
    assert list(load(name).labels) == ["mine"]
    with pytest.raises(ModelFileError, match=f"no such folder; did you mean {name}, which comes with the package"):
        load(f"{name}s")


def make_set(tone_folder: Path, folder: Path) -> Path:
    """The tones as `train/` and `test/` with a metadata.csv each."""
    for split, numbers in (("train", range(0, 20)), ("test", range(20, 30))):
        (folder / split).mkdir(parents=True)
        with (folder / split / "metadata.csv").open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["file_name", "label"])
            for label in ("low", "high"):
                for i in numbers:
                    source = sorted((tone_folder / label).iterdir())[i]
                    (folder / split / f"{label}-{i}.wav").write_bytes(source.read_bytes())
                    rows.writerow([f"{label}-{i}.wav", label])
    return folder


def test_few_clips_are_drawn_of_each_class_and_all_are_tested(tone_folder, tmp_path):
    data = make_set(tone_folder, tmp_path / "tones")
    drawn = {}
    for seed in (0, 0, 1):
        assert choose(data, 5, seed, tmp_path / "few.csv") == 10
        rows = list(csv.DictReader((tmp_path / "few.csv").read_text().splitlines()))
        assert Counter((row["split"], row["label"]) for row in rows) == {
            **{("train", label): 5 for label in ("low", "high")},
            **{("test", label): 10 for label in ("low", "high")},
        }
        assert drawn.setdefault(seed, rows) == rows
    assert drawn[0] != drawn[1]
    assert choose(data, 100, 0, tmp_path / "few.csv") == 40
    assert choose(data, 4, 0, tmp_path / "few.csv", steps=6) == 8
    rows = list(csv.DictReader((tmp_path / "few.csv").read_text().splitlines()))
    assert Counter(row["file"] for row in rows if row["split"] == "train").most_common(1)[0][1] == 8  # 2 x 32 / 8


def test_a_way_that_was_not_tried_leaves_its_column_empty():
    rows = [
        {"data": "a", "shots": "5", "way": "svm", "seed": str(i), "accuracy": str(x)} for i, x in ((0, 0.5), (1, 0.7))
    ]
    assert "| a | 5 | - | - | 60.0 ± 14.1 |" in table(rows)


@pytest.mark.slow
def test_the_benchmark_compares_three_ways_and_goes_on_where_it_stopped(tone_folder, tmp_path):
    data = make_set(tone_folder, tmp_path / "tones")
    script = ROOT / "benchmarks" / "few_shot.py"
    command = [sys.executable, script, data, "--shots", "4", "--steps", "6", "--seeds", "0"]

    def measured() -> str:
        return subprocess.run([*command, "--out", tmp_path], capture_output=True, text=True, check=True).stdout

    assert [line.count("'way'") for line in measured().splitlines()[:3]] == [1, 1, 1]
    *kept, last = (tmp_path / "few_shot.csv").read_text().splitlines(keepends=True)
    assert ",svm," in last
    (tmp_path / "few_shot.csv").write_text("".join(kept))
    again = measured()
    assert again.count("'way'") == 1
    rows = list(csv.DictReader((tmp_path / "few_shot.csv").read_text().splitlines()))
    assert [row["way"] for row in rows] == ["fine-tuned", "scratch", "svm"]
    assert all(row["clips"] == "8" for row in rows)
    assert table(rows) in again
