"""The files of a run as input: each value of each file replaced, files of another run, and what is written when."""

import copy
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from audiostride.errors import ModelFileError
from audiostride.models.classifier import load
from audiostride.models.events import EventSettings
from audiostride.training.predictions_file import read_predictions
from audiostride.training.recipe import Recipe, load_recipe
from audiostride.training.report import Report
from audiostride.training.run import run
from audiostride.training.run_files import is_finished, read_metrics, read_results, read_steps
from audiostride.training.sweep import Planned, run_sweep

QUIET = Report(notify=lambda _: None)


def tiny(*overrides: str) -> Recipe:
    """A run of two epochs, about a second."""
    few = [f"tasks.{task}.data.n_clips=250" for task in ("rate", "scale")]
    model = ["model.channels=[4]", "model.strides=[[2,2]]", "model.smoothness=1"]
    return load_recipe(
        "ripples", [*few, *model, "train.epochs=2", "train.workers=0", "train.batch_size=50", *overrides]
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "first"
    run(tiny(), out)
    return out


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "other"
    run(tiny("seed=1"), out)
    return out


@pytest.fixture
def mine(finished: Path, tmp_path: Path) -> Path:
    return shutil.copytree(finished, tmp_path / "mine")


def places(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value in nested data."""
    for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
        yield (*path, key)
        if isinstance(value, dict | list):
            yield from places(value, (*path, key))


def changed(tree: Any, path: tuple[Any, ...], value: Any) -> Any:
    tree = copy.deepcopy(tree)
    holder = tree
    for key in path[:-1]:
        holder = holder[key]
    if value is Ellipsis:
        del holder[path[-1]]
    else:
        holder[path[-1]] = value
    return tree


def unbound(run_dir: Path) -> None:
    """Take the digests out of results.json, so that files are judged by their content alone."""
    results = json.loads((run_dir / "results.json").read_text())
    del results["files"]
    (run_dir / "results.json").write_text(json.dumps(results))


@pytest.mark.parametrize(
    ("name", "read", "line"),
    [("results.json", read_results, None), ("metrics.jsonl", read_metrics, 1), ("steps.jsonl", read_steps, 3)],
)
def test_any_value_of_another_kind_is_named_or_changes_nothing_that_is_read(
    mine: Path, name: str, read: Callable[[Path], Any], line: int | None
) -> None:
    unbound(mine)
    lines = (mine / name).read_text().splitlines()
    whole, good = json.loads("".join(lines) if line is None else lines[line]), read(mine)
    free = {"environment", "n_train"}  # what the machine was called is nobody's input; a task more or less is no type
    for path in places(whole):
        for value in (None, -1, float("nan"), "text", [], {}, True, ..., 1e300):
            text = json.dumps(changed(whole, path, value), indent=1 if line is None else None)
            lines_now = [text] if line is None else [*lines[:line], text, *lines[line + 1 :]]
            (mine / name).write_text("\n".join(lines_now) + "\n")
            try:
                found = read(mine)
            except ModelFileError as error:
                assert name in str(error)  # noqa: PT017
                continue
            if path == ("calibration",) and value == {}:
                continue  # as of a run without validation clips
            allowed = path[0] in free or value is ... or isinstance(value, float | list) or value in (-1, None)
            assert allowed, (path, value)
            assert type(found) is type(good)


@pytest.mark.parametrize("content", ["", "5", "[]", "null", '"x"', "{", '{"tasks": {}}', "[" * 100_000, "\ud800"])
def test_what_is_no_result_is_named_and_the_run_is_not_finished(mine: Path, content: str) -> None:
    (mine / "results.json").write_bytes(content.encode("utf-8", "surrogatepass"))
    with pytest.raises(ModelFileError, match=r"results\.json: "):
        read_results(mine)
    assert not is_finished(mine)
    results = run(tiny(), mine, QUIET, resume=True)
    assert read_results(mine) == results


@pytest.mark.parametrize("name", ["metrics.jsonl", "steps.jsonl"])
@pytest.mark.parametrize("content", ["5", "[]", "{", "[" * 100_000, "\ud800", "{}"])
def test_a_line_that_is_none_is_named_with_its_number(mine: Path, name: str, content: str) -> None:
    unbound(mine)
    with (mine / name).open("ab") as file:
        file.write(content.encode("utf-8", "surrogatepass") + b"\n")
    with pytest.raises(ModelFileError, match=rf"{name}: line \d+: "):
        (read_metrics if name == "metrics.jsonl" else read_steps)(mine)


def test_results_of_another_run_are_no_results_of_this_one(mine: Path, other: Path) -> None:
    shutil.copy(other / "results.json", mine)
    with pytest.raises(ModelFileError, match=r"config\.json: is not the file that results\.json was written with"):
        read_results(mine)
    assert not is_finished(mine)


def test_no_number_in_results_is_changed_without_a_word(mine: Path) -> None:
    whole = json.loads((mine / "results.json").read_text())
    for path in places(whole):
        if path[0] != "files":
            for value in (0.5, 1, ...):
                (mine / "results.json").write_text(json.dumps(changed(whole, path, value)))
                if changed(whole, path, value) != whole:
                    with pytest.raises(ModelFileError, match=r"results\.json: "):
                        read_results(mine)


def test_predictions_cut_at_any_byte_are_named(mine: Path) -> None:
    path = mine / "predictions-test.csv"
    content = path.read_bytes()
    cuts = [*range(200), *range(200, len(content), 97), *range(len(content) - 100, len(content))]
    for cut in cuts:
        path.write_bytes(content[:cut])
        with pytest.raises(ModelFileError, match=r"predictions-test\.csv: "):
            read_predictions(mine)
    unbound(mine)
    for cut in (cut for cut in cuts if content[cut - 1 : cut] != b"\n" and cut < len(content) - 80):
        path.write_bytes(content[:cut])
        with pytest.raises(ModelFileError, match=r"predictions-test\.csv: "):
            read_predictions(mine)


@pytest.mark.parametrize("change", ["another task", "a header only", "of another run", "a row twice", "a cell more"])
def test_predictions_that_are_not_the_runs_own_are_named(mine: Path, other: Path, change: str) -> None:
    path = mine / "predictions-test.csv"
    lines = path.read_text().splitlines(keepends=True)
    content = {
        "another task": "".join(lines).replace(",rate,", ",pace,"),
        "a header only": lines[0],
        "of another run": (other / path.name).read_text(),
        "a row twice": "".join([*lines, lines[-1]]),
        "a cell more": "".join([*lines[:-1], lines[-1].rstrip() + ",1\n"]),
    }[change]
    path.write_text(content)
    with pytest.raises(ModelFileError, match=r"predictions-test\.csv: is not the file that results\.json was written"):
        read_predictions(mine)
    unbound(mine)
    if change != "of another run":  # whose clips differ in nothing but their order
        with pytest.raises(ModelFileError, match=r"predictions-test\.csv: "):
            read_predictions(mine, load(mine))


@pytest.mark.parametrize(
    "name", ["results.json", "metrics.jsonl", "steps.jsonl", "predictions-test.csv", "config.json"]
)
def test_a_pipe_in_the_place_of_a_file_of_a_run_holds_nobody_up(mine: Path, name: str) -> None:
    (mine / name).unlink()
    os.mkfifo(mine / name)
    read = {"metrics.jsonl": read_metrics, "steps.jsonl": read_steps, "predictions-test.csv": read_predictions}
    with pytest.raises(ModelFileError, match="is not a file"):
        read.get(name, read_results)(mine)


def test_what_is_set_in_a_model_after_training_leaves_the_run_finished(mine: Path) -> None:
    model = load(mine)
    model.event_settings["rate"] = EventSettings((0.5,) * len(model.labels["rate"]))
    model.save(mine)
    assert is_finished(mine)
    assert load(mine).event_settings == model.event_settings
    model.labels["rate"] = model.labels["rate"][::-1]
    model.save(mine)
    with pytest.raises(ModelFileError, match=r"config\.json: is not the file that results\.json was written with"):
        read_results(mine)


def test_a_log_joined_from_two_runs_is_named(mine: Path, other: Path) -> None:
    lines = (mine / "metrics.jsonl").read_text().splitlines(keepends=True)
    theirs = (other / "metrics.jsonl").read_text().splitlines(keepends=True)
    (mine / "metrics.jsonl").write_text("".join([*lines[:2], *theirs[2:]]))
    with pytest.raises(ModelFileError, match=r"metrics\.jsonl: is not the file that results\.json"):
        read_metrics(mine)
    unbound(mine)
    with pytest.raises(ModelFileError, match=r"metrics\.jsonl: line 3: is of run \w+, line 1 of \w+"):
        read_metrics(mine)


@pytest.mark.parametrize("name", ["metrics.jsonl", "steps.jsonl"])
@pytest.mark.parametrize("how", ["of another run", "one bit"])
def test_a_log_that_is_not_the_runs_own_is_not_continued(mine: Path, other: Path, name: str, how: str) -> None:
    if how == "of another run":
        (mine / name).write_bytes((other / name).read_bytes() + b" " * 1000)
    else:
        content = bytearray((mine / name).read_bytes())
        content[10] ^= 1
        (mine / name).write_bytes(content)
    before = (mine / "results.json").read_bytes()
    with pytest.raises(ModelFileError, match=rf"{name}: its first \d+ bytes are not those it had at the checkpoint"):
        run(tiny(), mine, QUIET, resume=True)
    assert (mine / "results.json").read_bytes() == before


def test_results_go_before_the_model_changes_and_stay_where_nothing_changes(mine: Path) -> None:
    class Killed(BaseException):
        pass

    def kill(*_: object) -> None:
        raise Killed

    shutil.rmtree(sorted((mine / "checkpoints").iterdir())[-1])  # as if an epoch was to be trained again
    with pytest.raises(Killed):
        run(tiny(), mine, Report(on_step=kill, notify=lambda _: None), resume=True)
    assert not (mine / "results.json").exists()
    results = run(tiny(), mine, QUIET, resume=True)
    assert read_results(mine) == results
    with pytest.raises(ModelFileError, match="would not continue exactly"):
        run(tiny("train.learning_rate=0.5"), mine, QUIET, resume=True)
    assert read_results(mine) == results


def test_what_a_run_depends_on_includes_where_segments_begin() -> None:
    from audiostride.data.batches import LabelledClips
    from audiostride.data.clips import FileClips
    from audiostride.training.conditions import conditions

    found = set()
    for start in (12001.1, 12001.12, 12001.12 + 1 / 16000, 1e6, 1e6 + 1 / 16000, 3.0):
        clips = FileClips(["a.wav"], {}, ["train"], root=Path(), spans=np.array([[start, start + 2]]))
        data = LabelledClips(clips, {"label": np.array([0])}, ["train"])
        found.add((clips.title(0), conditions(tiny(), [data])["data"]["sha256_of_names_and_labels"]))
    assert len({title for title, _ in found}) == len({digest for _, digest in found}) == 6
    assert "a.wav#t=3,5" in {title for title, _ in found}


def test_no_results_of_any_kind_hold_a_sweep_up(finished: Path, other: Path, tmp_path: Path) -> None:
    planned = [Planned(shutil.copytree(finished, tmp_path / "first"), tiny())]
    results = tmp_path / "first" / "results.json"
    good = results.read_bytes()

    def state() -> str:
        (outcome,) = run_sweep(planned, lambda recipe, path: run(recipe, path, QUIET, resume=True), lambda _: None)
        return outcome.state

    assert state() == "finished before"
    for content in (b"", b"5", good[:-20], b"[" * 100_000, (other / "results.json").read_bytes()):
        results.write_bytes(content)
        assert state() == "finished"
        assert results.read_bytes() == good
