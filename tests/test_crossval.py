"""Cross-validation: how folds are drawn and held out, what a fold's run is, and what is made of all of them."""

import csv
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
from small_training import SEED
from typer.testing import CliRunner

from audiostride.analysis.comparison import compare
from audiostride.analysis.finished_runs import find_runs
from audiostride.analysis.folds import summarise_folds
from audiostride.analysis.significance import accuracy_interval, paired_difference
from audiostride.cli import app
from audiostride.data.folds import draw_folds
from audiostride.errors import DataError, RecipeError, UsageError
from audiostride.training.build import read_data
from audiostride.training.crossval import plan_crossval
from audiostride.training.recipe import load_recipe
from audiostride.training.run import run
from audiostride.training.sweep import run_sweep
from conftest import tone

FOLDS = ("1", "2", "10")
HEADER = ["file_name", "label", "loud", "tags", "speaker", "fold"]


def sounds(folder: Path) -> list[list[str]]:
    """36 clips of 0.1 s by twelve speakers, four to a fold, a third of them in test/; rows without the file's name."""
    rows = []
    for i in range(36):
        speaker = i // 3
        part = "test" if speaker % 3 == 2 else "train"
        labels = ["low", "middle", "high"][i % 3], ["no", "yes"][i % 2], ["", "a", "a|b"][(i + speaker) % 3]
        rows.append([part, f"{i:02d}.wav", *labels, f"s{speaker}", FOLDS[speaker // 4]])
        (folder / part).mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / part / f"{i:02d}.wav", tone([300, 1000, 3000][i % 3], 0.1), 8000)
    write_tables(folder, rows)
    return rows


def write_tables(folder: Path, rows: list[list[str]], header: list[str] = HEADER) -> None:
    for part in ("train", "test"):
        with (folder / part / "metadata.csv").open("w", newline="") as file:
            csv.writer(file).writerows([header, *(row[1:] for row in rows if row[0] == part)])


def write_recipe(file: Path, folder: Path, **data: object) -> str:
    """A recipe of three tasks, one of each kind, and a training of two steps."""
    section = {"source": "folder", "path": str(folder), "group": "speaker", "allow_shared_groups": False} | data
    kinds = {"label": "multiclass", "loud": "binary", "tags": "multilabel"}
    tree = {
        "name": "small",
        "frontend": {"sample_rate": 8000, "n_fft": 256, "n_mels": 16, "f_min": 60, "f_max": 3900},
        "tasks": {name: {"data": section, "column": name, "kind": kind} for name, kind in kinds.items()},
        "model": {"downsampling": "strided", "channels": [4, 4], "strides": [[2, 2], [2, 2]]},
        "train": {"steps": 2, "batch_size": 8, "validation_fraction": 0.2, "workers": 0},
    }
    file.write_text(json.dumps(tree))  # JSON is YAML
    return str(file)


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    sounds(tmp_path / "sounds")
    return write_recipe(tmp_path / "small.yaml", tmp_path / "sounds")


def command(*arguments: object) -> dict:
    done = CliRunner().invoke(app, ["crossval", *map(str, arguments), "--json"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def crossval(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, dict]:
    """A recipe, the directory of its cross-validation over the folds of its column, and what the command printed."""
    folder = tmp_path_factory.mktemp("crossval")
    sounds(folder / "sounds")
    made = write_recipe(folder / "small.yaml", folder / "sounds")
    return made, folder / "out", command(made, "--folds-column", "fold", "-o", folder / "out")


def predictions(run_dir: Path, task: str) -> list[dict[str, str]]:
    with (run_dir / "predictions-test.csv").open(newline="") as file:
        return [row for row in csv.DictReader(file) if row["task"] == task]


def test_drawn_folds_hold_every_label_evenly_and_depend_on_the_seed_alone() -> None:
    names = [f"{i}.wav" for i in range(203)]
    labels = ["a" if i % 3 else "b" for i in range(203)]
    folds = draw_folds(names, labels, 5, seed=0)
    assert set(folds) == {"1", "2", "3", "4", "5"}
    for label in "ab":
        sizes = Counter(fold for fold, own in zip(folds, labels, strict=True) if own == label).values()
        assert max(sizes) - min(sizes) <= 1
    assert max(Counter(folds).values()) - min(Counter(folds).values()) <= 1
    assert draw_folds(names, labels, 5, seed=0) == folds != draw_folds(names, labels, 5, seed=1)
    assert draw_folds(names[::-1], labels[::-1], 5, seed=0) == folds[::-1]


def test_drawn_folds_keep_groups_together_and_differ_by_no_more_than_one_of_them() -> None:
    sizes = np.random.RandomState(SEED).randint(1, 12, 60)
    groups = [f"s{number}" for number, size in enumerate(sizes) for _ in range(size)]
    folds = draw_folds(groups, ["a"] * len(groups), 4, seed=0)
    assert len(set(zip(groups, folds, strict=True))) == 60
    counts = Counter(folds).values()
    assert len(counts) == 4
    assert max(counts) - min(counts) <= max(sizes)


def test_a_label_with_as_many_groups_as_folds_is_in_every_fold() -> None:
    groups = [f"s{i // 10}" for i in range(200)]
    labels = ["rare" if i // 10 % 4 == 0 and i % 10 == 0 else "common" for i in range(200)]
    folds = draw_folds(groups, labels, 5, seed=0)
    assert Counter(fold for fold, label in zip(folds, labels, strict=True) if label == "rare") == dict.fromkeys(
        "12345", 1
    )


def test_fewer_groups_than_folds_are_an_error() -> None:
    with pytest.raises(DataError, match="2 clips or groups cannot fill 3 folds"):
        draw_folds(["ann", "ann", "bob"], ["x"] * 3, 3, seed=0)


@pytest.mark.parametrize("folds", [{"column": "fold"}, {"n_folds": 4}])
def test_every_clip_is_tested_once_and_no_group_is_on_two_sides(recipe: str, folds: dict) -> None:
    tested: list[str] = []
    for planned in plan_crossval(recipe, Path("nowhere"), **folds):
        (data,), _, _ = read_data(planned.recipe)
        names, speakers = np.array(data.clips.names), np.array(data.clips.column("speaker"))
        sides = {split: set(speakers[data.indexes(split)]) for split in ("train", "validation", "test")}
        assert sum(map(len, sides.values())) == len(set.union(*sides.values())) == 12
        assert all(sides.values())
        if "column" in folds:
            value = planned.recipe.tasks["label"].data.test_fold.value
            assert set(names[data.indexes("test")]) == set(names[np.array(data.clips.column("fold")) == value])
        tested += names[data.indexes("test")].tolist()
    assert sorted(tested) == sorted(data.clips.names)
    assert {name.partition("/")[0] for name in tested} == {"train", "test"}


def test_folds_are_in_order_and_splits_can_leave_clips_out(recipe: str, tmp_path: Path) -> None:
    assert [run.path.name for run in plan_crossval(recipe, Path("cv"), "fold")] == ["fold-1", "fold-2", "fold-10"]
    part = write_recipe(tmp_path / "part.yaml", tmp_path / "sounds", splits={"train": ""})
    (data,), _, _ = read_data(plan_crossval(part, Path("cv"), "fold")[0].recipe)
    assert {name.partition("/")[0] for name in data.clips.names} == {"train"}


def test_generated_clips_have_drawn_folds_too() -> None:
    small = ["tasks.rate.data.n_clips=250", "tasks.scale.data.n_clips=250"]
    tested = []
    for planned in plan_crossval("ripples", Path("nowhere"), n_folds=2, overrides=small):
        (data,), _, _ = read_data(planned.recipe)
        tested += data.indexes("test").tolist()
    assert sorted(tested) == list(range(250))


def test_a_fold_is_the_recipe_trained_by_hand_with_that_test_fold(crossval: tuple, tmp_path: Path) -> None:
    recipe, out, _ = crossval
    held_out = [f"tasks.{task}.data.test_fold={{column: fold, value: 10}}" for task in ("label", "loud", "tags")]
    by_hand = run(load_recipe(recipe, held_out), tmp_path / "by-hand")
    assert json.loads((out / "fold-10" / "results.json").read_text()) == by_hand
    for name in ("steps.jsonl", "predictions-test.csv", "recipe.yaml"):
        assert (out / "fold-10" / name).read_text() == (tmp_path / "by-hand" / name).read_text()


def test_a_stopped_cross_validation_goes_on_and_ends_as_if_never_stopped(crossval: tuple, tmp_path: Path) -> None:
    recipe, out, found = crossval
    planned = plan_crossval(recipe, tmp_path / "out", "fold")
    run_sweep(planned[:1], lambda recipe, path: run(recipe, path), lambda _: None)
    assert not (tmp_path / "out" / "crossval.json").exists()
    stamp = (tmp_path / "out" / "fold-1" / "results.json").stat().st_mtime_ns
    assert command(recipe, "--folds-column", "fold", "-o", tmp_path / "out") == found
    assert (tmp_path / "out" / "fold-1" / "results.json").stat().st_mtime_ns == stamp
    assert (tmp_path / "out" / "crossval.json").read_bytes() == (out / "crossval.json").read_bytes()


def test_mean_and_sd_are_over_folds_and_pooled_is_over_clips(crossval: tuple) -> None:
    _, out, found = crossval
    assert json.loads((out / "crossval.json").read_text()) == found
    for task, metrics in {"label": [], "loud": ["macro_f1"], "tags": ["macro_f1", "mean_average_precision"]}.items():
        scores = found["tasks"][task]
        assert [row["fold"] for row in scores["folds"]] == list(FOLDS)
        for metric in ("accuracy", "loss", *metrics):
            of_folds = [
                json.loads((out / row["run"] / "results.json").read_text())["tasks"][task][metric]
                for row in scores["folds"]
            ]
            assert scores["mean"][metric] == pytest.approx(np.mean(of_folds))
            assert scores["sd"][metric] == pytest.approx(np.std(of_folds, ddof=1))
        rows = [predictions(out / row["run"], task) for row in scores["folds"]]
        files = [row["file"] for part in rows for row in part]
        assert len(files) == len(set(files)) == 36
        pooled = scores["pooled"]
        of_clips = sum(row["accuracy"] * row["n"] for row in scores["folds"]) / 36
        assert pooled["accuracy"] == pytest.approx(of_clips, abs=1e-6)
        assert 0 <= pooled["low"] <= pooled["accuracy"] <= pooled["high"] <= 1
        assert (pooled["clips"], pooled["groups"]) == (36, 12)


def test_the_interval_of_an_accuracy_is_that_of_its_groups() -> None:
    right, names = [1.0, 0.0] * 200, [f"{i}.wav" for i in range(400)]
    clips = accuracy_interval(right, names)
    half = 1.96 * (0.25 / 399) ** 0.5  # a mean of 400 independent clips, half of them correct
    assert (clips["low"], clips["high"]) == pytest.approx((0.5 - half, 0.5 + half), abs=0.004)
    pairs = accuracy_interval(np.repeat(right[::2] + right[1::2], 2).tolist(), np.repeat(names, 2).tolist())
    assert (pairs["low"], pairs["high"]) == pytest.approx((clips["low"], clips["high"]), abs=0.004)
    assert (pairs["clips"], pairs["groups"]) == (800, 400)
    alone = accuracy_interval(right, ["ann"] * 400)
    assert (alone["accuracy"], alone["low"], alone["high"]) == (0.5, None, None)


def test_the_interval_of_an_accuracy_is_that_of_a_difference_from_always_wrong() -> None:
    random = np.random.RandomState(SEED)
    groups = [f"s{number}" for number in random.randint(0, 30, 500)]
    right = random.randint(0, 2, 500).astype(bool).tolist()
    clips = [str(i) for i in range(500)]
    found = paired_difference(
        [(0, dict(zip(clips, right, strict=True)))],
        [(0, dict.fromkeys(clips, False))],
        dict(zip(clips, groups, strict=True)),
    )
    own = accuracy_interval(list(map(float, right)), groups)
    assert own["accuracy"] == pytest.approx(found["difference"])
    assert (own["low"], own["high"]) == pytest.approx((found["low"], found["high"]), abs=0.005)


def test_the_table_has_every_fold_the_mean_and_all_clips(crossval: tuple) -> None:
    recipe, out, found = crossval
    done = CliRunner().invoke(app, ["crossval", recipe, "--folds-column", "fold", "-o", str(out)])
    assert done.exit_code == 0, done.output
    for heading in ("label: test scores", "loud: test scores", "tags: test scores", "mAP", "macro-F1"):
        assert heading in done.stdout
    assert done.stdout.count("mean ± sd") == done.stdout.count("all clips") == 3
    assert f"{100 * found['tasks']['label']['folds'][2]['accuracy']:.1f} %" in done.stdout


def test_compare_takes_each_fold_for_data_of_its_own(crossval: tuple) -> None:
    found = compare(find_runs([crossval[1]])[0])
    assert {row["task"] for row in found["accuracy"]} >= {
        f"sounds fold {fold} label (with loud, tags)" for fold in FOLDS
    }


def test_runs_that_are_no_folds_are_not_summarised(crossval: tuple, tmp_path: Path) -> None:
    recipe, out, _ = crossval
    run(load_recipe(recipe), tmp_path / "plain")
    for run_dirs in ([tmp_path / "plain"], [out / "fold-1", out / "fold-1"]):
        with pytest.raises(UsageError, match="is not the run of a separate fold"):
            summarise_folds(run_dirs)


def test_a_directory_of_other_folds_is_never_touched(crossval: tuple) -> None:
    recipe, out, _ = crossval
    with pytest.raises(UsageError, match=r"fold-1: was made with another recipe .*test_fold\.column was fold"):
        plan_crossval(recipe, out, n_folds=2)


@pytest.mark.parametrize("folds", [{}, {"column": "fold", "n_folds": 3}])
def test_the_folds_are_either_named_or_drawn(recipe: str, folds: dict) -> None:
    with pytest.raises(UsageError, match=r"--folds-column NAME.* or --folds K"):
        plan_crossval(recipe, Path("nowhere"), **folds)


def test_what_the_recipe_leaves_to_the_model_it_starts_from_is_left_to_it_in_every_fold(recipe: str) -> None:
    plan = plan_crossval(recipe, Path("nowhere"), "fold", overrides=["model.init=runs/other"])
    assert not any("window_s" in run.recipe.model_fields_set for run in plan)


def test_a_recipe_with_a_sweep_is_refused(recipe: str) -> None:
    with pytest.raises(UsageError, match="has a sweep"):
        plan_crossval(recipe, Path("nowhere"), "fold", overrides=["sweep={seed: [0, 1]}"])


def test_a_missing_column_is_answered_with_the_nearest(recipe: str) -> None:
    with pytest.raises(DataError, match=r"tasks\.label\.data: .*'folds'.*did you mean 'fold'"):
        plan_crossval(recipe, Path("nowhere"), "folds")


def test_a_fold_that_one_of_two_data_sets_lacks_is_named(recipe: str, tmp_path: Path) -> None:
    rows = [row for row in sounds(tmp_path / "others") if row[6] != "10"]
    write_tables(tmp_path / "others", rows)
    other = f"tasks.loud.data.path={tmp_path / 'others'}"
    with pytest.raises(DataError, match=r"tasks\.loud\.data: there are no clips in the fold '10'"):
        plan_crossval(recipe, Path("nowhere"), "fold", overrides=[other])
    assert len(plan_crossval(recipe, Path("nowhere"), n_folds=4, overrides=[other])) == 4


def test_a_clip_without_a_fold_is_named(tmp_path: Path, recipe: str) -> None:
    rows = sounds(tmp_path / "sounds")
    rows[7][6] = ""
    write_tables(tmp_path / "sounds", rows)
    with pytest.raises(DataError, match=r"1 of 36 clips have nothing in the column 'fold', such as test/07\.wav"):
        plan_crossval(recipe, Path("nowhere"), "fold")


def test_a_class_in_one_fold_alone_is_named(tmp_path: Path, recipe: str) -> None:
    rows = sounds(tmp_path / "sounds")
    rows[20][2] = "shrill"
    write_tables(tmp_path / "sounds", rows)
    with pytest.raises(DataError, match="task 'label', fold '2': the class 'shrill' has no training clip"):
        plan_crossval(recipe, Path("nowhere"), "fold")
    one = load_recipe(recipe, ["tasks.label.data.test_fold={column: fold, value: 2}"])
    with pytest.raises(DataError, match="the class 'shrill' has no training clip"):
        read_data(one)


def test_a_group_in_two_folds_is_refused_unless_allowed(tmp_path: Path, recipe: str) -> None:
    rows = sounds(tmp_path / "sounds")
    rows[0][6] = "2"
    write_tables(tmp_path / "sounds", rows)
    with pytest.raises(DataError, match="'s0' in test and train"):
        plan_crossval(recipe, Path("nowhere"), "fold")
    allowed = write_recipe(tmp_path / "allowed.yaml", tmp_path / "sounds", allow_shared_groups=True)
    assert len(plan_crossval(allowed, Path("nowhere"), "fold")) == 3


def test_a_fold_that_is_not_there_or_has_no_usable_file_is_an_error(tmp_path: Path, recipe: str) -> None:
    with pytest.raises(
        DataError, match=r"label\.data\.test_fold: there are no clips in the fold '3'; .*'1', '2', '10'"
    ):
        read_data(load_recipe(recipe, ["tasks.label.data.test_fold={column: fold, value: 3}"]))
    for path in (tmp_path / "sounds").glob("*/*.wav"):
        if int(path.stem) < 12:
            path.write_bytes(b"")
    spoilt = write_recipe(tmp_path / "spoilt.yaml", tmp_path / "sounds", on_bad_file="skip")
    with pytest.raises(DataError, match="no file of the fold '1' can be used"):
        read_data(load_recipe(spoilt, ["tasks.label.data.test_fold={column: fold, value: 1}"]))


@pytest.mark.parametrize(
    ("section", "wrong"),
    [
        ("{value: 1}", r"test_fold\.n_folds: give column"),
        ("{value: 1, column: fold, n_folds: 3}", r"test_fold\.n_folds: give column"),
        ("{value: 4, n_folds: 3}", r"test_fold\.n_folds: has no fold 4"),
        ("{value: 1, n_folds: 1}", r"test_fold\.n_folds: .*greater than or equal to 2"),
        ("{column: fold}", r"test_fold\.value: is missing"),
        ("{value: 1, colunm: fold}", "did you mean 'column'"),
    ],
)
def test_a_wrong_test_fold_is_a_recipe_error(recipe: str, section: str, wrong: str) -> None:
    with pytest.raises(RecipeError, match=wrong):
        load_recipe(recipe, [f"tasks.label.data.test_fold={section}"])


def test_a_failing_fold_does_not_stop_the_others_and_leaves_no_summary(recipe: str, tmp_path: Path) -> None:
    arguments = ["crossval", recipe, "train.learning_rate=1e15", "--folds", "2", "-o", str(tmp_path / "out"), "--json"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 6, done.output
    assert [outcome["state"] for outcome in json.loads(done.stdout)] == ["failed", "failed"]
    assert not (tmp_path / "out" / "crossval.json").exists()
