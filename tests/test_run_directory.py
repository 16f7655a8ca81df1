"""Where runs go: never outside, never two in one place, and what is resumed."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock
from test_run_files import QUIET, tiny

from audiostride.errors import DataError, RecipeError, UsageError, WriteError
from audiostride.training.checkpoints import Checkpoint, list_checkpoints, newest_checkpoint, save_checkpoint
from audiostride.training.directory import claimed, run_directory
from audiostride.training.recipe import load_recipe
from audiostride.training.report import Report
from audiostride.training.run import run
from audiostride.training.run_files import is_finished
from audiostride.training.sweep import Planned, run_sweep


@pytest.mark.parametrize(
    "name", ["..", ".", "...", ".hidden", "a/b", "/tmp/x", "../x", "a\n", "a\0b", "", "a b", "~", "x" * 61, "..\\x"]
)
def test_a_name_that_leads_elsewhere_is_refused(name: str) -> None:
    with pytest.raises(RecipeError, match=r"(?s)name: "):
        load_recipe("ripples", [f"name={json.dumps(name)}"])


def test_two_commands_at_once_get_two_directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = [run_directory(tiny("name=mine"), None) for _ in range(3)]
    assert found == [Path("runs", name) for name in ("mine", "mine-2", "mine-3")]
    (tmp_path / "runs/mine-4").symlink_to(tmp_path / "elsewhere")  # a link to nothing is not free, either
    assert run_directory(tiny("name=mine"), None) == Path("runs/mine-5")
    code = (
        "import sys, pathlib; from audiostride.training.directory import run_directory as d\n"
        "from audiostride.training.recipe import load_recipe\n"
        "recipe = load_recipe('ripples', ['name=many'])\n"
        "sys.stdin.readline(); print(d(recipe, None))"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    outputs = [process.communicate("go\n")[0].strip() for process in processes]
    assert sorted(outputs) == ["runs/many", "runs/many-2", "runs/many-3"]


def test_a_directory_that_is_written_to_is_taken(tmp_path: Path) -> None:
    recipe = tiny("train.epochs=1")
    with claimed(tmp_path / "run"):
        for work in (
            lambda: run(recipe, tmp_path / "run", QUIET),
            lambda: run(recipe, tmp_path / "run", QUIET, resume=True),
            lambda: run_sweep([Planned(tmp_path / "run" / "x", recipe)], lambda *_: None, lambda _: None),
        ):
            with pytest.raises(UsageError, match="another training is writing here; choose another --out"):
                work()
    assert not (tmp_path / "run").exists()  # nothing was written


def test_a_lock_that_a_kill_left_holds_nobody_up(tmp_path: Path) -> None:
    code = (
        "import os, sys, pathlib; from audiostride.training.directory import claimed\n"
        "with claimed(pathlib.Path(sys.argv[1])):\n    print('held', flush=True); sys.stdin.readline()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "run")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    holder.stdout.readline()
    with pytest.raises(UsageError, match="another training"), claimed(tmp_path / "run"):
        pass
    holder.send_signal(signal.SIGKILL)
    holder.communicate()
    assert [path.name for path in (tmp_path / "run").iterdir()] == [".lock"]
    assert run_directory(tiny(), tmp_path / "run") == tmp_path / "run"
    with claimed(tmp_path / "run"):
        pass


def test_what_fails_before_it_begins_leaves_no_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = load_recipe("folder", ["tasks.label.data.path=nowhere", "name=mine"])
    for _ in range(2):
        with pytest.raises(DataError):
            run(recipe, run_directory(recipe, None), QUIET)
        assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match=r"file/run: cannot be written \(Not a directory\)"):
        run(tiny(), tmp_path / "file" / "run", QUIET)
    (tmp_path / "run" / ".lock").mkdir(parents=True)
    with pytest.raises(WriteError, match="run: cannot be written"):
        run(tiny(), tmp_path / "run", QUIET, resume=True)


def test_a_file_system_without_locks_is_no_obstacle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def acquire(*_: object, **__: object) -> None:
        raise OSError(37, os.strerror(37))  # ENOLCK

    monkeypatch.setattr(FileLock, "acquire", acquire)
    with claimed(tmp_path / "run"):
        (tmp_path / "run" / "file").write_text("")
    assert (tmp_path / "run" / "file").exists()


def test_a_run_whose_checkpoints_were_removed_is_not_trained_over(tmp_path: Path) -> None:
    run(tiny(), tmp_path / "run", QUIET)
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir() if path.is_file()}
    with pytest.raises(UsageError, match="the run is finished, but its checkpoints were removed"):
        run(tiny(), tmp_path / "run", QUIET, resume=True)
    after = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir() if path.is_file()}
    assert after == before
    assert is_finished(tmp_path / "run")
    (tmp_path / "run" / "results.json").unlink()
    with pytest.raises(UsageError, match="the run has left a model, but its checkpoints were removed"):
        run(tiny(), tmp_path / "run", QUIET, resume=True)


def test_checkpoints_are_counted_not_spelled(tmp_path: Path) -> None:
    names = ["epoch-9999-step-99999999", "epoch-10000-step-100000000", "epoch-100000-step-1000000000"]
    for name in reversed(names):
        save_checkpoint(tmp_path, Checkpoint(name, {}, {}))
    assert [path.name for path in list_checkpoints(tmp_path)] == names
    newest = newest_checkpoint(tmp_path, print)
    assert newest is not None
    assert newest.name == names[-1]


@pytest.mark.parametrize("name", [b"d\xe9r", b"\x1b[2J"])
def test_a_folder_of_any_name_takes_a_run(name: bytes, tmp_path: Path) -> None:
    said: list[str] = []
    out = tmp_path / os.fsdecode(name) / "run"

    results = run(tiny("train.epochs=1"), out, Report(notify=said.append))
    assert is_finished(out)
    assert run(tiny("train.epochs=1"), out, Report(notify=said.append), resume=True) == results
    assert any(path.stat().st_size > 200 for path in (out / "tensorboard").iterdir())
