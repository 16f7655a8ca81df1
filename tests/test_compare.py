"""Comparison tables: what is paired with what, and that the figures are those of the runs."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from audiostride.analysis.comparison import compare, striding_runs
from audiostride.analysis.finished_runs import find_runs
from audiostride.analysis.significance import bootstrap_interval, paired_difference
from audiostride.analysis.tables import Cell, Table, tables, to_latex, to_markdown, write_comparison
from audiostride.cli import app
from audiostride.errors import ModelFileError, UsageError
from audiostride.models.audio_cnn import AudioCNN
from audiostride.models.classifier import AudioClassifier
from audiostride.models.log_mel import LogMel
from audiostride.training.predictions_file import TaskPredictions, correct_shares
from audiostride.training.recipe import dump_recipe, load_recipe
from audiostride.training.run import run as run_recipe
from audiostride.training.run_testing import describe

SMALL = ["model.channels=[4,4]", "model.strides=[[2,2],[2,2]]"]


def made_run(folder: Path, predictions: dict[str, list[bool]], seed: int = 0, *settings: str) -> Path:
    """A run directory of an untrained model whose predictions to each task's test clips are given."""
    recipe = load_recipe("ripples", [*SMALL, f"seed={seed}", *settings])
    model = AudioClassifier(
        LogMel(), AudioCNN(**recipe.model.model_dump(exclude={"name", "init", "linear_probe"})), {"rate": 2, "scale": 2}
    )
    model.save(folder)
    (folder / "recipe.yaml").write_text(dump_recipe(recipe))
    tasks = {task: {"split": "test", "accuracy": float(np.mean(a)), "n": len(a)} for task, a in predictions.items()}
    (folder / "results.json").write_text(json.dumps({"tasks": tasks, "seed": seed} | describe(model)))
    with (folder / "predictions-test.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["file", "task", "truth", "label", "logits", "group"])
        for task, right in predictions.items():
            for i, ok in enumerate(right):
                table.writerow([f"clip-{i}", task, "a", "a" if ok else "b", "0 0", ""])
    return folder


@pytest.fixture
def four_runs(tmp_path):
    for seed in (0, 1):
        good = [True] * 8 + [seed == 0, False]
        made_run(tmp_path / f"d{seed}", {"rate": good, "scale": [True] * 10}, seed, "model.downsampling=diffstride")
        poor = [True] * 5 + [False] * 5
        made_run(tmp_path / f"s{seed}", {"rate": poor, "scale": [True] * 10}, seed, "model.downsampling=strided")
    return tmp_path


def test_means_and_sds_are_over_seeds_and_the_mean_row_is_the_mean_of_its_cells(four_runs):
    found = compare(find_runs([four_runs])[0])
    cells = {(row["task"], row["method"]): row for row in found["accuracy"]}
    rate = cells["ripples rate (with scale)", "diffstride"]
    assert rate["mean"] == pytest.approx(0.85)
    assert rate["sd"] == pytest.approx(np.std([0.9, 0.8], ddof=1))
    assert rate["seeds"] == [0, 1]
    for method, mean in found["mean"]["methods"].items():
        own = [row["mean"] for row in found["accuracy"] if row["method"] == method]
        assert mean == pytest.approx(np.mean(own))


def test_cost_stands_beside_accuracy_and_the_best_is_bold(four_runs):
    text = to_markdown(tables(compare(find_runs([four_runs])[0])))
    assert "| ripples rate (with scale) | 50.0 ± 0.0 | **85.0 ± 7.1** |" in text
    assert "| ripples scale (with rate) | 100.0 ± 0.0 | 100.0 ± 0.0 |" in text  # a draw has no best
    assert "multiply-accumulates" in text


def test_differences_are_paired_by_clip_and_seed(four_runs):
    rows = compare(find_runs([four_runs])[0])["differences"]
    rate = next(row for row in rows if "rate (" in row["task"])
    assert (rate["first"], rate["second"], rate["clips"], rate["seeds"]) == ("diffstride", "strided", 10, [0, 1])
    assert rate["difference"] == pytest.approx(0.35)
    assert rate["low"] <= rate["difference"] <= rate["high"]


def one_run(outcomes, seed=0):
    return [(seed, {f"{i}": bool(right) for i, right in enumerate(outcomes)})]


def test_the_interval_of_single_clips_agrees_with_the_normal_approximation_where_that_holds():
    random = np.random.RandomState(0)
    a, b = random.rand(2, 2000) < [[0.8], [0.7]]
    found = paired_difference(one_run(a), one_run(b))
    difference = a.astype(float) - b
    assert found["difference"] == pytest.approx(difference.mean())
    assert (found["high"] - found["low"]) / 2 == pytest.approx(1.96 * difference.std() / np.sqrt(2000), rel=0.03)
    assert (found["clips"], found["groups"]) == (2000, 2000)


def test_clips_that_answer_alike_count_as_one():
    """Ten copies of every clip, grouped, say no more than the clips; taken for independent they seem to."""
    random = np.random.RandomState(0)
    a, b = random.rand(2, 200) < [[0.8], [0.7]]
    alone = paired_difference(one_run(a), one_run(b))
    copies = one_run(np.repeat(a, 10)), one_run(np.repeat(b, 10))
    grouped = paired_difference(*copies, {f"{i}": f"{i // 10}" for i in range(2000)})
    assert grouped["groups"] == 200
    assert [grouped[end] for end in ("difference", "low", "high")] == pytest.approx(
        [alone[end] for end in ("difference", "low", "high")]
    )
    ungrouped = paired_difference(*copies)
    assert ungrouped["high"] - ungrouped["low"] < 0.4 * (grouped["high"] - grouped["low"])


def test_seeds_that_differ_widen_the_interval_as_their_standard_error_says():
    """Every clip of a seed predictions alike: all that varies is the seed."""
    n_seeds, shift = 40, np.random.RandomState(0).choice([-1.0, 0.0, 1.0], 40)
    low, high = bootstrap_interval(np.repeat(shift[:, None], 50, 1), np.ones((n_seeds, 50)))[1:]
    assert (high - low) / 2 == pytest.approx(1.96 * shift.std(ddof=1) / np.sqrt(n_seeds), rel=0.06)


@pytest.mark.parametrize(
    ("n_seeds", "seed_sd", "group_sd", "rest_sd", "low", "high"),
    [(30, 0.1, 0.2, 0.1, 0.93, 0.97), (3, 0.014, 0.15, 0.3, 0.95, 1.0), (3, 0.05, 0.0, 0.05, 0.75, 0.87)],
    ids=["many seeds", "three seeds that differ little", "three seeds that differ most"],
)
def test_how_often_the_interval_covers_the_truth(n_seeds, seed_sd, group_sd, rest_sd, low, high):
    """Effects of seeds and of 60 groups drawn from a known law, whose mean difference is 0.1."""
    random, covered = np.random.RandomState(0), 0
    for _ in range(300):
        effect = 0.1 + seed_sd * random.randn(n_seeds, 1) + group_sd * random.randn(1, 60)
        effect = effect + rest_sd * random.randn(n_seeds, 60)
        _, lower, upper = bootstrap_interval(effect, np.ones(effect.shape), resamples=1000)
        covered += lower < 0.1 < upper
    assert low <= covered / 300 <= high


def test_single_clips_are_drawn_as_groups_of_two_equal_clips_are() -> None:
    """The former are drawn by kind, the latter one by one: the same interval, but for the luck of 10,000 draws."""
    effect = np.random.default_rng(3).choice([-1.0, 0.0, 0.0, 1.0], (3, 400))
    count = np.ones(effect.shape)
    alone, pairs = bootstrap_interval(effect, count), bootstrap_interval(2 * effect, 2 * count)
    assert alone[0] == pairs[0]
    assert alone[2] - alone[1] > 0.05
    assert alone[1:] == pytest.approx(pairs[1:], abs=0.004)


def test_one_group_says_nothing_of_others():
    found = paired_difference(one_run([1, 1, 1]), one_run([0, 0, 0]), dict.fromkeys("012", "the only speaker"))
    assert (found["difference"], found["low"], found["high"]) == (1.0, -1.0, 1.0)


def test_groups_are_those_of_the_runs_answers(four_runs):
    for folder in four_runs.iterdir():
        path = folder / "predictions-test.csv"
        head, *lines = path.read_text().splitlines()
        speakers = [f"{line}speaker-{int(line.split(',')[0].removeprefix('clip-')) // 2}" for line in lines]
        path.write_text("\n".join([head, *speakers]) + "\n")
    rows = compare(find_runs([four_runs])[0])["differences"]
    assert {(row["clips"], row["groups"]) for row in rows} == {(10, 5)}


def test_groups_of_test_sets_that_were_drawn_by_the_seed_are_put_together(four_runs):
    for folder in four_runs.iterdir():
        path, seed = folder / "predictions-test.csv", folder.name[-1]
        head, *lines = path.read_text().splitlines()
        drawn = [f"{line.replace('clip-', f'clip-{seed}-')}speaker-{i % 10 // 5}" for i, line in enumerate(lines)]
        path.write_text("\n".join([head, *drawn]) + "\n")
    rows = compare(find_runs([four_runs])[0])["differences"]
    assert {(row["clips"], row["groups"]) for row in rows} == {(20, 2)}


def test_how_correct_clips_are_has_the_accuracy_for_its_mean_whatever_the_thresholds():
    logits = np.array([[0.0, -1.0], [0.0, 1.0], [0.0, -0.5]])
    threshold_of_a_quarter = ["no", "yes", "yes"]  # 0.27, 0.73 and 0.38
    predictions = TaskPredictions(["a", "b", "c"], ["no", "yes", "no"], threshold_of_a_quarter, logits)
    assert correct_shares(predictions, ["no", "yes"], "binary") == [1.0, 1.0, 1.0]
    assert correct_shares(predictions, ["no", "yes"], "multiclass") == [1.0, 1.0, 0.0]
    several = predictions._replace(truth=["", "no|yes", "no"], logits=np.array([[-1.0, -1], [1, -1], [1, -1]]))
    assert correct_shares(several, ["no", "yes"], "multilabel") == [1.0, 0.5, 1.0]


def test_a_run_leaves_the_group_of_each_test_clip(tone_folder, tmp_path):
    """From a column of the data to the number of groups that a comparison resamples."""
    lines = ["file,label,who,split"]
    for label in ("high", "low"):
        for i in range(30):
            split = "test" if i < 6 else "validation" if i < 10 else "train"
            lines.append(f"{tone_folder / label / f'{i:02d}.wav'},{label},{split}-{i // 3},{split}")
    (tmp_path / "t.csv").write_text("\n".join(lines))
    tiny = ["model.channels=[4,4,4,4,4,4]", "train.epochs=1", "train.batch_size=16", "train.workers=0"]
    data = f"tasks.label.data={{source: manifest, path: {tmp_path / 't.csv'}, group: who}}"
    for kind in ("strided", "spectral"):
        run_recipe(load_recipe("folder", [data, *tiny, f"model.downsampling={kind}"]), tmp_path / "runs" / kind)
    (row,) = compare(find_runs([tmp_path / "runs"])[0])["differences"]
    assert (row["clips"], row["groups"], row["seeds"]) == (12, 2, [0])


def test_methods_are_named_by_what_differs_on_the_same_data(tmp_path):
    predictions = {"rate": [True], "scale": [True]}
    made_run(tmp_path / "a", predictions, 0, "train.stride_cost=0.1")
    made_run(tmp_path / "b", predictions, 0, "train.stride_cost=1.0")
    made_run(tmp_path / "c", predictions, 0, "tasks.rate.data.seed=1", "tasks.scale.data.seed=1", "train.epochs=99")
    methods = [row["method"] for row in compare(find_runs([tmp_path])[0])["accuracy"]]
    assert methods[::2] == ["diffstride stride_cost=0.1", "diffstride stride_cost=1.0", "diffstride"]


def test_shared_strides_stand_beside_separate_ones(tmp_path):
    made_run(tmp_path / "own", {"rate": [True, False], "scale": [True]}, 0)
    made_run(tmp_path / "shared", {"rate": [True, True], "scale": [True]}, 0, "model.shared_stride=true")
    rate, scale = compare(find_runs([tmp_path])[0])["shared_strides"]
    assert (rate["separate"]["mean"], rate["shared"]["mean"]) == (0.5, 1.0)
    assert (scale["separate"]["mean"], scale["shared"]["mean"]) == (1.0, 1.0)


def test_settings_that_a_kind_of_downsampling_ignores_are_not_in_its_name(tmp_path):
    predictions = {"rate": [True], "scale": [True]}
    made_run(tmp_path / "a", predictions, 0, "model.downsampling=strided", "model.smoothness=1")
    made_run(tmp_path / "b", predictions, 0, "model.downsampling=diffstride", "model.smoothness=1")
    made_run(tmp_path / "c", predictions, 0, "model.downsampling=diffstride", "model.smoothness=4")
    methods = [row["method"] for row in compare(find_runs([tmp_path])[0])["accuracy"]]
    assert methods[::2] == ["strided", "diffstride smoothness=1.0", "diffstride smoothness=4.0"]


def test_lists_are_short_in_the_name_of_a_method(tmp_path):
    predictions = {"rate": [True], "scale": [True]}
    made_run(tmp_path / "a", predictions, 0)
    made_run(tmp_path / "b", predictions, 0, "model.strides=[[3,3],[2,1]]", "model.channels=[8,8]")
    methods = [row["method"] for row in compare(find_runs([tmp_path])[0])["accuracy"]]
    assert methods[::2] == ["diffstride channels=4,4 strides=2x2,2x2", "diffstride channels=8,8 strides=3x3,2x1"]


def test_a_binary_tasks_auc_and_a_multilabel_tasks_precision_have_tables_of_their_own(four_runs):
    for folder, auc in (("d0", 0.9), ("d1", 0.8), ("s0", 0.7), ("s1", 0.7)):
        path = four_runs / folder / "results.json"
        results = json.loads(path.read_text())
        results["tasks"]["rate"] |= {"auc": auc}
        results["tasks"]["scale"] |= {"mean_average_precision": auc / 2}
        path.write_text(json.dumps(results))
    found = compare(find_runs([four_runs])[0])
    text = to_markdown(tables(found))
    assert "**Area under the ROC curve in %" in text
    assert "| ripples rate (with scale) | 70.0 ± 0.0 | **85.0 ± 7.1** |" in text.partition("ROC")[2]
    assert "| ripples scale (with rate) | 35.0 ± 0.0 | **42.5 ± 3.5** |" in text.partition("average precision")[2]


def test_how_the_strides_of_several_runs_moved_is_drawn(four_runs):
    runs = find_runs([four_runs])[0]
    for run in runs:
        lines = [
            {"epoch": epoch, "step": epoch, "split": "validation"}
            | {"tasks": {"rate": {"loss": 1.0, "accuracy": 0.5}, "scale": {"loss": 1.0, "accuracy": 1.0}}}
            | {"strides": [[2.0 + epoch, 2.0], [1.5, 2.0]]}
            for epoch in (1, 2)
        ]
        (Path(run.name) / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    drawn = striding_runs(runs)
    assert [row["method"] for row in drawn] == ["diffstride"] * 2  # strided ones have nothing to learn
    assert [point["total_stride"] for point in drawn[0]["points"]] == [[4.0, 4.0], [4.5, 4.0], [6.0, 4.0]]
    assert drawn[0]["points"][-1]["accuracy"] == 0.75
    file = four_runs / "strides.svg"
    done = CliRunner().invoke(app, ["compare", str(four_runs), "--strides", str(file)])
    assert done.exit_code == 0, done.output
    assert "product of all strides, time" in file.read_text()
    with pytest.raises(UsageError, match="none of the runs learned strides"):
        striding_runs([run for run in runs if "strided" in run.settings["model.downsampling"]])


def test_cutoffs_are_those_of_the_saved_models(four_runs):
    rows = compare(find_runs([four_runs])[0])["cutoffs"]
    assert [(row["method"], row["axis"], row["stride"], row["paper"]) for row in rows] == [
        ("diffstride", "time", 2.0, 25.0),
        ("diffstride", "mel", 2.0, 0.25),
    ]
    assert rows[0]["total_stride"] == rows[0]["initial_total_stride"] == 4.0


def test_unfinished_runs_are_named_and_left_out(four_runs):
    (four_runs / "d1" / "results.json").unlink()
    runs, unfinished = find_runs([four_runs])
    assert len(runs) == 3
    assert unfinished == [four_runs / "d1"]


def test_the_same_run_twice_under_other_names_is_refused(tmp_path):
    for name in ("a", "b"):
        made_run(tmp_path / name, {"rate": [True], "scale": [True]}, 0)
    with pytest.raises(UsageError, match="same seed and settings"):
        compare(find_runs([tmp_path])[0])


def test_a_missing_path_and_damaged_results_are_named(tmp_path):
    with pytest.raises(UsageError, match="no such run directory"):
        find_runs([tmp_path / "nowhere"])
    made_run(tmp_path / "a", {"rate": [True]}, 0)
    (tmp_path / "a" / "results.json").write_text('{"tasks": ')
    with pytest.raises(ModelFileError, match=r"results\.json"):
        find_runs([tmp_path])


def test_every_file_is_written_and_the_csv_holds_unrounded_figures(four_runs, tmp_path):
    found = compare(find_runs([four_runs])[0])
    written = write_comparison(tmp_path / "tables", found)
    assert {path.name for path in written} == {
        "tables.md", "tables.tex", "comparison.json", "accuracy.csv", "differences.csv", "cutoffs.csv"
    }  # fmt: skip
    with (tmp_path / "tables" / "accuracy.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["mean"]) for row in rows] == [row["mean"] for row in found["accuracy"]]
    assert json.loads((tmp_path / "tables" / "comparison.json").read_text()) == found
    assert r"85.0 $\pm$ 7.1" in to_latex(tables(found))


def test_the_commands_print_and_write_what_the_pages_say(four_runs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["compare", str(four_runs), "--out", "tables", "--plot", "figures/cost.png"])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "tables" / "tables.md").read_text().strip() in done.stdout
    assert (tmp_path / "figures" / "cost.png").stat().st_size > 1000

    learned = [str(four_runs / "d0"), str(four_runs / "d1")]
    options = ["--csv", "layers/c.csv", "--plot", "c.svg", "--seconds", "2", "--json"]
    done = CliRunner().invoke(app, ["cutoffs", *learned, *options])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["seconds"] == 2
    assert found["measured"]["largest_error"] < 0.02
    assert [ripple["modulation"] for ripple in found["ripples"]] == [24.0, 0.2]
    with (tmp_path / "layers" / "c.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["own_minus_6db"]) for row in rows] == [row["own"]["minus_6db"] for row in found["layers"]]
    assert (tmp_path / "c.svg").read_text().startswith("<?xml")

    table = CliRunner().invoke(app, ["cutoffs", *learned])
    assert "Elliott & Theunissen 2009" in table.stdout
    assert "fastest ripple" in " ".join(table.stdout.split())


def test_cut_offs_of_different_kinds_are_not_averaged(four_runs):
    done = CliRunner().invoke(app, ["cutoffs", str(four_runs / "d0"), str(four_runs / "s0")])
    assert isinstance(done.exception, UsageError)
    assert "differ in downsampling (diffstride, strided)" in str(done.exception)


def test_a_figure_of_unknown_format_is_refused_before_any_work(four_runs):
    done = CliRunner().invoke(app, ["compare", str(four_runs), "--plot", "cost.xyz"])
    assert isinstance(done.exception, UsageError)
    assert ".png .svg .pdf" in str(done.exception)


def test_every_table_of_strides_has_its_cost_and_what_varies_not_has_no_sd(four_runs):
    made = tables(compare(find_runs([four_runs])[0]))
    (strides,) = [table for table in made if table.title.startswith("First layer")]
    time = dict(zip(strides.header, [cell.text for cell in strides.rows[0]], strict=True))
    assert (time["stride"], time["all strides"], time["at first"]) == ("2.00", "4.0", "4")
    (cost,) = [table for table in made if table.title.startswith("Cost")]
    assert time["cost"] == cost.rows[0][cost.header.index("diffstride")].text


def test_what_is_not_known_of_a_first_layer_is_a_dash(four_runs):
    """A waveform has no cut-off in the paper's convention; a run from a trained model began with that one's strides."""
    recipe = four_runs / "d0" / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("init: null", "init: runs/other"))
    found = compare(find_runs([four_runs / "d0"])[0])
    found["cutoffs"][0] |= {"paper": None, "paper_sd": None}
    (strides,) = [table for table in tables(found) if table.title.startswith("First layer")]
    row = dict(zip(strides.header, [cell.text for cell in strides.rows[0]], strict=True))
    assert (row["paper's Table 2"], row["at first"]) == ("-", "-")


def test_cost_is_counted_anew_so_that_runs_of_other_versions_compare(four_runs):
    path = four_runs / "d0" / "results.json"
    results = json.loads(path.read_text())
    path.write_text(json.dumps(results | {"macs_per_second": 1}))
    (run,) = find_runs([four_runs / "d0"])[0]
    assert run.results["macs_per_second"] == results["macs_per_second"]


def test_latex_has_minus_signs_and_no_live_special_characters():
    cells = [Cell(r"C:\a_b^2~<x>|50 %"), Cell("-1.5"), Cell("-0.5 to +2.0"), Cell("-")]
    text = to_latex([Table("t", ["seed-0", "-6 dB", "interval", "x"], [cells])])
    assert r"C:\textbackslash{}a\_b\textasciicircum{}2\textasciitilde{}$<$x$>$$|$50 \%" in text
    assert r"seed-0 & $-$6 dB" in text
    assert r"& $-$1.5 & $-$0.5 to +2.0 & -" in text
    assert r"\begin{tabular}{lrrr}" in text


def test_runs_on_other_data_have_panels_of_their_own_and_a_regularisers_weights_are_joined():
    from audiostride.analysis.result_plots import cost_figure
    from audiostride.analysis.training_plots import striding_figure

    points = [{"epoch": e, "total_stride": [16.0 * 9**e, 16.0], "accuracy": e / 2 if e else None} for e in (0, 1)]
    runs = [{"data": data, "method": "diffstride", "seed": 0, "points": points} for data in ("words", "notes")]
    figure = striding_figure(runs)
    assert len(figure.axes) == 6
    assert [ax.get_yscale() for ax in figure.axes[:3]] == ["log", "linear", "linear"]
    drawn = [ax.lines[0].get_xydata().tolist() for ax in figure.axes[:3]]
    assert drawn == [[[0, 16], [1, 144]], [[0, 16], [1, 16]], [[1, 50]]]  # strides in time and mel, accuracy in %

    weights = (("0.3", 20e6), ("0.0", 50e6), ("0.1", 30e6))
    rows = [{"task": "t", "method": f"diffstride stride_cost={w}", "macs_per_second": m} for w, m in weights]
    rows.append({"task": "t", "method": "strided", "macs_per_second": 26e6})
    (ax,) = cost_figure([row | {"mean": 0.5, "sd": None} for row in rows]).axes
    joined = [line.get_xdata().tolist() for line in ax.lines if len(line.get_xdata()) > 1]
    assert joined == [[50.0, 30.0, 20.0]]  # from the smallest weight to the largest
