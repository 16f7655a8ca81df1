"""The committed results: the page is what the command writes from the CSVs, and the CSVs are what the runs left."""

import csv
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from audiostride.sections import flatten
from audiostride.training.recipe import load_recipe
from audiostride.training.run import run

RESULTS = Path(__file__).parents[1] / "results"
PAGE = RESULTS.parent / "docs" / "results.md"
TINY = [
    "tasks.rate.data.n_clips=250",
    "tasks.scale.data.n_clips=250",
    "model.channels=[4,4]",
    "model.strides=[[2,2],[2,2]]",
    "train.steps=2",
]


def command(script: Path, *arguments: object) -> str:
    done = subprocess.run([sys.executable, str(script), *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """Two kinds of downsampling, two seeds, two tasks each; a run that is not finished; a run on images."""
    folder = tmp_path_factory.mktemp("runs")
    for kind in ("strided", "diffstride"):
        for seed in (0, 1):
            run(
                load_recipe("ripples", [*TINY, f"model.downsampling={kind}", f"seed={seed}"]), folder / f"{kind}-{seed}"
            )
    shutil.copytree(folder / "strided-0", folder / "half")
    (folder / "half" / "results.json").unlink()
    pictures = tmp_path_factory.mktemp("pictures") / "textures"
    for i in range(12):
        path = pictures / ("test" if i < 4 else "train") / f"class{i % 2}" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)
    settings = ["frontend.size=8", "model.channels=[4]", "model.blocks=[1]", "model.strides=[2]", "train.steps=1"]
    run(
        load_recipe("cifar10", [f"tasks.label.data.path={pictures}", *settings, "train.workers=0"]), folder / "textures"
    )
    return folder


@pytest.fixture(scope="module")
def collected(runs, tmp_path_factory) -> Path:
    """A results folder of these runs alone."""
    folder = tmp_path_factory.mktemp("project") / "results"
    folder.mkdir()
    (folder.parent / "docs").mkdir()
    shutil.copy(PAGE, folder.parent / "docs")
    for script in RESULTS.glob("*.py"):
        shutil.copy(script, folder)
    said = command(folder / "collect.py", runs)
    assert "half is not finished" in said
    assert "collected 5 runs" in said
    return folder


def rows(folder: Path, name: str) -> list[dict[str, str]]:
    with (folder / name).open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_committed_page_is_what_the_command_writes(tmp_path):
    """If this fails: python results/page.py, and commit docs/results.md."""
    copy = tmp_path / "results.md"
    copy.write_text(re.sub(r"(<!-- table: .*? -->\n).*?(<!-- end -->)", r"\1\2", PAGE.read_text(), flags=re.DOTALL))
    assert "not on the page" not in command(RESULTS / "page.py", copy)
    assert copy.read_text() == PAGE.read_text()


def test_each_figure_that_a_sentence_of_the_page_quotes_is_in_one_of_its_tables():
    page = PAGE.read_text()
    cells = {cell.strip(" *") for line in page.splitlines() if line.startswith("|") for cell in line.split("|")}
    numbers = {number for cell in cells for number in re.findall(r"[+-]?\d[\d,]*\.?\d*", cell)}
    prose = re.sub(r"<!-- table: .*? -->.*?<!-- end -->|`[^`]*`|Eq\. 6|v0\.01", "", page, flags=re.DOTALL)
    prose = " ".join(prose.split())
    settings = {"0.06", "0.05", "0.25"}  # learning rates and the initial cut-off, which no run varies
    intervals = re.findall(r"[+-]?\d+\.\d \([+-]?\d+\.\d to [+-]?\d+\.\d\)|\d+\.\d ± \d+\.\d", prose)
    assert len(intervals) > 30
    for interval in intervals:
        assert any(interval in cell for cell in cells), interval
    for number in re.findall(r"(?<![\d.,])[+-]?\d+\.\d+(?![\d.])", prose):
        assert {number, f"-{number}"} & (numbers | settings), number


@pytest.mark.slow
def test_a_line_for_each_run_and_task_holds_what_the_run_left(runs, collected):
    lines = rows(collected, "runs.csv")
    assert sorted(line["data"] for line in lines) == ["ripples"] * 8 + ["textures"]
    for line in lines:
        folder = "textures" if line["data"] == "textures" else f"{line['downsampling']}-{line['seed']}"
        results = json.loads((runs / folder / "results.json").read_text())
        scores = results["tasks"][line["task"]]
        assert float(line["accuracy"]) == scores["accuracy"]
        assert float(line["loss"]) == scores["loss"]
        assert int(line["macs_per_second"]) == results["macs_per_second"]
        right = bin(int(line["right"], 16)).count("1")
        assert right == round(scores["accuracy"] * scores["n"])


@pytest.mark.slow
def test_collecting_again_changes_nothing(runs, collected):
    before = {path: path.read_bytes() for path in collected.rglob("*.*") if path.is_file()}
    command(collected / "collect.py", runs)
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.slow
def test_intervals_from_the_csv_are_those_of_the_run_directories(runs, collected):
    from audiostride.analysis.comparison import compare
    from audiostride.analysis.finished_runs import find_runs

    direct = compare(find_runs([runs / f"{kind}-{seed}" for kind in ("strided", "diffstride") for seed in (0, 1)])[0])
    code = (
        f"import sys, json; sys.path.insert(0, {str(collected)!r}); from collect import read_runs; "
        "from audiostride.analysis.comparison import compare; print(json.dumps(compare(read_runs())))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    again = json.loads(done.stdout)

    def intervals(found):
        return {(row["task"], *sorted((row["first"], row["second"]))): abs(row["difference"]) for row in found}

    assert intervals(again["differences"]) == pytest.approx(intervals(direct["differences"]))
    strides = [sorted(row["stride"] for row in found["cutoffs"]) for found in (again, direct)]
    assert strides[0] == pytest.approx(strides[1])


@pytest.mark.slow
def test_the_page_names_data_and_gaps_and_no_paths(runs, collected):
    command(collected / "page.py")
    page = (collected.parent / "docs" / "results.md").read_text()
    assert "| DiffStride R=1" in page
    assert "Planned but not yet run" in page
    assert "**textures label, 4 in the test set**" in page
    for file in [collected.parent / "docs" / "results.md", *collected.rglob("*.csv"), *collected.rglob("*.yaml")]:
        assert str(runs) not in file.read_text()
        assert "pictures" not in file.read_text()


def made_up(line: dict[str, str], folder: Path, **changes: object) -> dict[str, str]:
    """A line of runs.csv as a run with other settings would leave it."""
    recipe = (folder / "settings" / f"{line['recipe']}.yaml").read_text()
    for key, value in changes.items():
        recipe = re.sub(rf"\b{key}: [^,}}\n]*", f"{key}: {value}", recipe)
    name = f"{line['recipe']}-{'-'.join(map(str, changes.values()))}"
    (folder / "settings" / f"{name}.yaml").write_text(recipe)
    return line | {"recipe": name}


@pytest.mark.slow
def test_weights_of_the_regulariser_have_a_table_with_cost_and_intervals(collected, tmp_path):
    folder = shutil.copytree(collected, tmp_path / "results")
    (tmp_path / "docs").mkdir()
    lines = rows(folder, "runs.csv")
    learned = [line for line in lines if line["downsampling"] == "diffstride" and line["seed"] == "0"]
    cheaper = [made_up(line, folder, stride_cost=0.3) | {"strides": "4x4 4x4"} for line in learned]
    with (folder / "runs.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, list(lines[0]))
        table.writeheader()
        table.writerows([*lines, *cheaper])
    (tmp_path / "docs" / "results.md").write_text("<!-- table: train.stride_cost -->\n<!-- end -->\n")
    command(folder / "page.py")
    section = (tmp_path / "docs" / "results.md").read_text()
    found = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| ripples")]
    assert [row[2] for row in found] == ["0", "0.3"] * 2
    assert [row[6] for row in found if row[2] == "0.3"] == ["0.0 (0.0 to 0.0)"] * 2  # minus the default
    assert all(0 < float(row[8]) < 1 for row in found if row[2] == "0.3")  # times its MMAC
    assert "16.0 x 16.0" in section


@pytest.mark.slow
def test_cost_is_counted_by_todays_rule_for_runs_of_every_version(collected, tmp_path):
    folder = shutil.copytree(collected, tmp_path / "results")
    before = rows(folder, "runs.csv")
    text = (folder / "runs.csv").read_text()
    (folder / "runs.csv").write_text(text.replace(before[0]["macs_per_second"], "123456789"))
    (tmp_path / "docs").mkdir()
    shutil.copy(PAGE, tmp_path / "docs")
    command(folder / "page.py")
    assert "| ripples" in (tmp_path / "docs" / "results.md").read_text()
    assert "123.5" not in (tmp_path / "docs" / "results.md").read_text()


def test_each_command_of_the_page_makes_the_recipe_of_runs_that_were_collected():
    collected = sorted({line["recipe"] for line in rows(RESULTS, "runs.csv")})
    recipes = {name: flatten(yaml.safe_load((RESULTS / "settings" / f"{name}.yaml").read_text())) for name in collected}
    made = []
    for line in PAGE.read_text().splitlines():
        if line.startswith("audiostride sweep results/"):
            _, _, recipe, *settings, _, _ = shlex.split(line)
            changed = {setting.partition("=")[0] for setting in settings}
            found = flatten(load_recipe(str(RESULTS.parent / recipe), settings).model_dump())
            made += [
                name
                for name, known in recipes.items()
                if changed <= known.keys()  # a key that came later was at its default
                and all(found.get(key) == value for key, value in known.items() if key in found or value is not None)
            ]
    assert sorted(made) == collected


def test_every_test_set_of_the_committed_runs_has_its_groups():
    sets = {line["clips"]: int(line["n"]) for line in rows(RESULTS, "runs.csv") if line["data"] != "cifar10"}
    groups = {line["clips"]: line["groups"].split() for line in rows(RESULTS, "groups.csv")}
    assert {clips: len(found) for clips, found in groups.items()} == sets
    counts = {line["data"]: int(line["n_groups"]) for line in rows(RESULTS, "groups.csv")}
    assert counts == {"commands": 63, "notes": 99, "esc": 310}  # speakers, instruments of a bank, source recordings


def test_runs_whose_validation_clips_were_drawn_one_by_one_are_kept_apart():
    code = (
        f"import sys, json; sys.path.insert(0, {str(RESULTS)!r}); from collect import read_runs; "
        "from evidence import by_validation; "
        "print(json.dumps([sorted({run.name.split()[0] for run in part}) for part in by_validation(read_runs())]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    by_group: dict[bool, list[str]] = {True: [], False: []}
    for name in sorted({line["recipe"] for line in rows(RESULTS, "runs.csv")}):
        text = (RESULTS / "settings" / f"{name}.yaml").read_text()
        named = re.search(r"\bgroup: (?!null)\w", text) is not None
        by_group[named or name.startswith("cifar10")].append(name)  # no image is held out
    assert json.loads(done.stdout) == [by_group[True], by_group[False]]
    assert all(by_group.values())


def test_groups_of_a_folder_are_stored_for_the_clips_that_a_run_tested(tmp_path):
    """The digest that `collect.py` gives a run's test clips is that of the folder's names."""
    folder = tmp_path / "mine" / "test"
    folder.mkdir(parents=True)
    (folder / "metadata.csv").write_text("file_name,speaker\nc.wav,ann\na.wav,bob\nb.wav,ann\n")
    shutil.copy(RESULTS / "groups.py", tmp_path)
    command(tmp_path / "groups.py", tmp_path / "mine", "speaker")
    (line,) = rows(tmp_path, "groups.csv")
    assert (line["column"], line["n_groups"], line["groups"]) == ("speaker", "2", "0 1 1")
    digest = "import sys; sys.path.insert(0, sys.argv[1]); import groups; print(groups.clips_digest(sys.argv[2:]))"
    clips = ["test/c.wav", "test/a.wav", "test/b.wav"]
    done = subprocess.run([sys.executable, "-c", digest, tmp_path, *clips], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == line["clips"]
