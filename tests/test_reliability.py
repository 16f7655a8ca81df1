"""No run is lost, no file is trusted; a quick set of what tests/faults.py does in full."""

import hashlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import faults
import numpy as np
import pytest
import torch
from small_training import small_model, train_small
from torch.nn import functional as F

from audiostride import create_model, load
from audiostride.errors import Interrupted, ModelFileError, WriteError
from audiostride.files import JsonLines, replace_file
from audiostride.training.checkpoints import (
    Checkpoint,
    checkpoint_name,
    list_checkpoints,
    load_checkpoint,
    newest_checkpoint,
    save_checkpoint,
)
from audiostride.training.report import Report
from audiostride.training.tensorboard import TensorBoardLog
from conftest import Command


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a tiny run."""
    out = tmp_path_factory.mktemp("run") / "whole"
    faults.warm_up()
    assert faults.wait_for(faults.start_child(lambda: faults.tiny_run(out))) == 0
    return out


@pytest.fixture
def checkpoints(tmp_path: Path) -> Path:
    """Three checkpoints of a step each."""
    for step in (1, 2, 3):
        save_checkpoint(tmp_path, Checkpoint(checkpoint_name(0, step), {"step": step}, {"model": {"w": torch.ones(5)}}))
    return tmp_path


@pytest.mark.slow
def test_runs_that_are_killed_at_random_moments_end_as_if_they_never_were(tmp_path: Path) -> None:
    counts = faults.kill_runs(tmp_path, kills=4, seed=0)
    assert counts["kills"] == 4
    assert (counts["lost"], counts["changed"]) == (0, 0)


@pytest.mark.slow
@pytest.mark.parametrize("keep", ["best", "last"])
def test_a_run_killed_before_any_change_of_a_file_ends_as_if_it_never_was(tmp_path: Path, keep: str) -> None:
    """Found at random first: a run killed after its last checkpoint left an older one for ever."""

    def work(out: Path) -> None:
        _noisy_training(out, keep_checkpoints=1, keep=keep, resume=True)

    faults.warm_up()
    counts = faults.kill_at_each_change(tmp_path, work, _small_outcome)
    assert counts["kills"] > 30
    assert (counts["lost"], counts["changed"]) == (0, 0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("limit", "place"),
    [(500, "recipe.yaml"), (2000, "model.safetensors"), (5000, "optimizer.safetensors"), (20000, "state.json")],
)
def test_a_write_that_fails_names_the_path_and_the_run_can_be_resumed(
    tiny: Path, tmp_path: Path, limit: int, place: str
) -> None:
    code, message = faults.limit_file_size(tmp_path / "run", limit)
    assert code == 1
    assert place in message
    assert "bytes are free there" in message
    assert faults.wait_for(faults.start_child(lambda: faults.tiny_run(tmp_path / "run"))) == 0
    assert faults.outcome(tmp_path / "run") == faults.outcome(tiny)


def test_a_full_disk_under_the_log_of_tensorboard_is_one_error(tmp_path: Path) -> None:
    model = create_model("audio_cnn_small_strided", heads={"word": 2})
    log = TensorBoardLog(tmp_path, model, Report())
    size = log.path.stat().st_size
    assert log.path.parent == tmp_path / "tensorboard"
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, resource.RLIM_INFINITY))
    try:
        with pytest.raises(WriteError, match=r"tensorboard/events\.out\S+: cannot be written .* bytes are free there"):
            log.on_epoch({"step": 1, "split": "train", "tasks": {"word": {"loss": 0.5}}})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    log.close()


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_no_flipped_bit_of_a_model_is_loaded(tiny: Path, name: str) -> None:
    assert faults.flip_bits(tiny / name, 60, 0, lambda: load(tiny)) == (0, [])


def test_no_flipped_bit_of_a_checkpoint_is_loaded(tiny: Path) -> None:
    newest = list_checkpoints(tiny / "checkpoints")[-1]
    for path in sorted(newest.iterdir()):
        assert faults.flip_bits(path, 60, 0, lambda: load_checkpoint(newest)) == (0, [])


def test_no_mutated_header_is_loaded_even_with_right_checksums(tiny: Path) -> None:
    assert faults.mutate_headers(tiny, 100, 0) == (0, [])


class _Noisy:
    """Dropout and noise from every generator, so that each generator's state matters."""

    def __call__(self, module: torch.nn.Module, inputs: Any, output: torch.Tensor) -> torch.Tensor:
        if not module.training:
            return output
        import random

        return F.dropout(output, 0.2) * (1 + 0.1 * random.random() + 0.1 * np.random.rand())


def _noisy_training(out: Path, **settings: Any) -> None:
    import random

    random.seed(0)
    np.random.seed(0)
    model = small_model()
    model.trunk.register_forward_hook(_Noisy())
    train_small(model, out, epochs=4, ema_decay=0.5, early_stopping=2, schedule="cosine", gradient_clip=5.0, **settings)


def _small_outcome(out: Path) -> dict[str, Any]:
    shutil.copy(out / "steps.jsonl", out / "results.json")  # a train() writes no results
    (out / "results.json").write_text("{}")
    found = faults.outcome(out)
    return found | {"best": load_checkpoint(list_checkpoints(out / "checkpoints")[-1]).state["position"]}


class _Killed(BaseException):
    pass


def _stop_at(step: int) -> Any:
    def on_step(now: int, *_: object) -> None:
        if now == step:
            raise _Killed

    return on_step


def _interrupted_run(out: Path) -> Path:
    """A run that ended at once in its tenth step, after the checkpoint of step 9 in its third epoch."""
    with pytest.raises(_Killed):
        _noisy_training(out, checkpoint_steps=3, on_step=_stop_at(11))
    return list_checkpoints(out / "checkpoints")[-1]


@pytest.fixture(scope="module")
def noisy(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """Outcome of a noisy run, and the directory of the same run interrupted."""
    folder = tmp_path_factory.mktemp("noisy")
    _noisy_training(folder / "whole", checkpoint_steps=3)
    newest = _interrupted_run(folder / "interrupted")
    assert newest.name == "epoch-0002-step-00000009"
    return _small_outcome(folder / "whole"), folder / "interrupted"


def _resumed(noisy: tuple[dict[str, Any], Path], tmp_path: Path, damage: Any) -> dict[str, Any]:
    out = tmp_path / "run"
    shutil.copytree(noisy[1], out)
    newest = list_checkpoints(out / "checkpoints")[-1]
    checkpoint = load_checkpoint(newest)
    damage(checkpoint)
    shutil.rmtree(newest)
    save_checkpoint(out / "checkpoints", checkpoint)
    _noisy_training(out, checkpoint_steps=3, resume=True)
    return _small_outcome(out)


def test_a_resumed_run_is_the_run_that_was_never_interrupted(
    noisy: tuple[dict[str, Any], Path], tmp_path: Path
) -> None:
    assert _resumed(noisy, tmp_path, lambda checkpoint: None) == noisy[0]


def _optimizer_item(key: str) -> Any:
    def damage(checkpoint: Checkpoint) -> None:
        for name, value in checkpoint.tensors["optimizer"].items():
            if name.endswith("." + key):
                value.zero_()

    return damage


def _set_position(key: str, value: Any) -> Any:
    return lambda checkpoint: checkpoint.state["position"].update({key: value})


def _fresh_generator(kind: str) -> Any:
    from audiostride.training.resuming import generator_states

    def damage(checkpoint: Checkpoint) -> None:
        torch.manual_seed(1)
        np.random.seed(1)
        import random

        random.seed(1)
        checkpoint.state["processes"][0]["generators"][kind] = generator_states()[kind]

    return damage


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda c: c.tensors["model"].update(small_model().state_dict()), id="weights"),
        pytest.param(lambda c: c.tensors["model"]["trunk.blocks.0.time_norm.running_mean"].zero_(), id="batch norm"),
        pytest.param(
            lambda c: c.tensors["model"]["trunk.blocks.1.pool.stride"].copy_(torch.tensor([1.5, 2.0])), id="strides"
        ),
        pytest.param(lambda c: c.tensors.update(average=dict(c.tensors["model"])), id="average"),
        pytest.param(_optimizer_item("exp_avg"), id="first moment"),
        pytest.param(_optimizer_item("exp_avg_sq"), id="second moment"),
        pytest.param(_optimizer_item("step"), id="optimiser step"),
        pytest.param(_set_position("epoch", 1), id="epoch"),
        pytest.param(_set_position("batch", 0), id="batch"),
        pytest.param(_set_position("step", 6), id="step"),
        pytest.param(_set_position("best", [2.0, 0.0]), id="best"),
        pytest.param(_set_position("epochs_since_best", 0), id="epochs since best"),
        pytest.param(_set_position("finished", True), id="finished"),
        pytest.param(lambda c: c.state["processes"][0].update(totals={}), id="training scores"),
        pytest.param(lambda c: c.state["log_bytes"].update({"steps.jsonl": 0}), id="length of steps.jsonl"),
        pytest.param(lambda c: c.state["log_bytes"].update({"metrics.jsonl": 0}), id="length of metrics.jsonl"),
        pytest.param(_fresh_generator("torch"), id="torch generator"),
        pytest.param(_fresh_generator("numpy"), id="numpy generator"),
        pytest.param(_fresh_generator("python"), id="python generator"),
    ],
)
def test_each_item_of_the_state_matters(noisy: tuple[dict[str, Any], Path], tmp_path: Path, damage: Any) -> None:
    assert _resumed(noisy, tmp_path, damage) != noisy[0]


@pytest.mark.parametrize("key", ["position", "processes", "log_bytes"])
def test_a_missing_item_is_named(noisy: tuple[dict[str, Any], Path], tmp_path: Path, key: str) -> None:
    with pytest.raises(ModelFileError, match=f"has no '{key}'"):
        _resumed(noisy, tmp_path, lambda checkpoint: checkpoint.state.pop(key))


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state.update(log_bytes=3),
        lambda state: state.update(position=[]),
        lambda state: state.update(processes=0),
        lambda state: state["position"].update(step="9"),
        lambda state: state["position"].update(best={}),
        lambda state: state["processes"][0]["generators"].update(python=[3, [2**70], None]),
    ],
)
def test_an_item_of_another_type_is_an_error_that_names_the_checkpoint(
    noisy: tuple[dict[str, Any], Path], tmp_path: Path, change: Any
) -> None:
    with pytest.raises(ModelFileError, match="checkpoint epoch-0002-step-00000009: does not fit this run"):
        _resumed(noisy, tmp_path, lambda checkpoint: change(checkpoint.state))


def test_a_state_that_is_no_mapping_is_named(checkpoints: Path) -> None:
    """Found by the fuzzer, with the checksum made right."""
    newest = list_checkpoints(checkpoints)[-1]
    manifest = json.loads((newest / "manifest.json").read_text())
    manifest["files"]["state.json"] = {"bytes": 1, "sha256": hashlib.sha256(b"0").hexdigest()}
    (newest / "state.json").write_bytes(b"0")
    (newest / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ModelFileError, match=r"state\.json: holds int, a mapping is needed"):
        load_checkpoint(newest)


def test_a_missing_tensor_is_named(noisy: tuple[dict[str, Any], Path], tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"trunk\.blocks\.0\.pool\.stride"):
        _resumed(noisy, tmp_path, lambda checkpoint: checkpoint.tensors["model"].pop("trunk.blocks.0.pool.stride"))


def test_what_the_result_depends_on_must_not_change(tmp_path: Path) -> None:
    conditions = {"environment": {"torch": "2.12"}}
    train_small(small_model(), tmp_path, epochs=1, conditions=conditions)
    changed = {"environment": {"torch": "2.13"}}
    with pytest.raises(ModelFileError, match=r"environment\.torch was '2\.12', is '2\.13'.*--allow-inexact"):
        train_small(small_model(), tmp_path, epochs=2, conditions=changed, resume=True)
    said: list[str] = []
    settings = {"resume": True, "allow_inexact": True, "notify": said.append}
    train_small(small_model(), tmp_path, epochs=2, conditions=changed, **settings)
    assert "environment.torch was '2.12', is '2.13'" in said[0]
    assert said[1] == "resumed from checkpoint epoch-0001-step-00000004"


def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before_and_says_so(checkpoints: Path) -> None:
    newest = list_checkpoints(checkpoints)[-1]
    (newest / "model.safetensors").write_bytes(b"nonsense")
    said: list[str] = []
    found = newest_checkpoint(checkpoints, said.append)
    assert found is not None
    assert found.state == {"step": 2}
    assert len(said) == 1
    assert "model.safetensors" in said[0]
    assert "continuing from an earlier one" in said[0]
    assert newest.with_name(f"{newest.name}.damaged").is_dir()


@pytest.mark.parametrize("left", ["manifest.json", "state.json", "model.safetensors"])
def test_a_checkpoint_without_one_of_its_files_is_refused(checkpoints: Path, left: str) -> None:
    newest = list_checkpoints(checkpoints)[-1]
    (newest / left).unlink()
    with pytest.raises(ModelFileError, match=left):
        load_checkpoint(newest)


def test_a_checkpoint_with_a_file_too_many_or_of_another_name_is_refused(checkpoints: Path) -> None:
    first, second, _ = list_checkpoints(checkpoints)
    (first / "pickle.pt").write_bytes(b"")
    with pytest.raises(ModelFileError, match=r"pickle\.pt"):
        load_checkpoint(first)
    renamed = second.rename(checkpoints / checkpoint_name(7, 7))
    with pytest.raises(ModelFileError, match="does not describe this checkpoint"):
        load_checkpoint(renamed)


def test_a_manifest_cannot_point_outside_its_checkpoint(checkpoints: Path) -> None:
    newest = list_checkpoints(checkpoints)[-1]
    manifest = json.loads((newest / "manifest.json").read_text())
    manifest["files"]["../outside.safetensors"] = {"bytes": 0, "sha256": ""}
    (newest / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ModelFileError, match="does not describe this checkpoint"):
        load_checkpoint(newest)


def test_what_a_crash_left_half_written_is_removed(checkpoints: Path) -> None:
    half = checkpoints / f".{checkpoint_name(9, 9)}.partial"
    half.mkdir()
    (half / "model.safetensors").write_bytes(b"half")
    assert newest_checkpoint(checkpoints, print) is not None
    assert not half.exists()
    assert len(list_checkpoints(checkpoints)) == 3


def test_the_newest_checkpoints_and_the_best_are_kept(tmp_path: Path) -> None:
    train_small(small_model(), tmp_path, epochs=6, keep_checkpoints=2, learning_rate=1e-30, stride_learning_rate=1e-30)
    kept = [path.name for path in list_checkpoints(tmp_path / "checkpoints")]
    best = load_checkpoint(tmp_path / "checkpoints" / kept[-1]).state["position"]["best_checkpoint"]
    assert set(kept) == {"epoch-0005-step-00000020", "epoch-0006-step-00000024", best}


def test_a_model_half_written_is_mended_on_resume(tmp_path: Path) -> None:
    train_small(small_model(), tmp_path, epochs=2)
    good = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(good[:-1])
    with pytest.raises(ModelFileError):
        load(tmp_path)
    train_small(small_model(), tmp_path, epochs=2, resume=True)
    assert (tmp_path / "model.safetensors").read_bytes() == good


def test_a_log_that_was_cut_is_not_gone_on_with(tmp_path: Path) -> None:
    train_small(small_model(), tmp_path, epochs=2)
    (tmp_path / "steps.jsonl").write_text("")
    with pytest.raises(ModelFileError, match=r"steps\.jsonl: has 0 bytes"):
        train_small(small_model(), tmp_path, epochs=2, resume=True)


def test_a_full_device_is_named_and_the_old_file_stays(tmp_path: Path) -> None:
    full = r"/dev/full: cannot be written \(No space left on device\); [\d,]+ bytes are free there"
    with JsonLines(Path("/dev/full")) as lines, pytest.raises(WriteError, match=full):
        lines.append({"step": 1})
    (tmp_path / "results.json").write_text("old")
    blocked = tmp_path / ".results.json.partial"
    blocked.mkdir()
    with pytest.raises(WriteError, match=r"results\.json.*cannot be written"):
        replace_file(tmp_path / "results.json", "new")
    assert (tmp_path / "results.json").read_text() == "old"


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_the_run_goes_on_from_there(tmp_path: Path, stop: signal.Signals) -> None:
    def on_step(step: int, *_: object) -> None:
        if step == 6:
            signal.raise_signal(stop)

    train_small(small_model(), tmp_path / "whole")
    with pytest.raises(Interrupted, match=f"stopped by {stop.name} after step 7, everything is saved") as caught:
        train_small(small_model(), tmp_path / "run", on_step=on_step)
    assert caught.value.exit_code == 128 + stop
    train_small(small_model(), tmp_path / "run", resume=True)
    assert (tmp_path / "run/steps.jsonl").read_bytes() == (tmp_path / "whole/steps.jsonl").read_bytes()
    assert (tmp_path / "run/model.safetensors").read_bytes() == (tmp_path / "whole/model.safetensors").read_bytes()


def test_a_signal_while_evaluating_saves_before_the_evaluation(tmp_path: Path) -> None:
    def on_step(step: int, *_: object) -> None:
        if step == 8:  # the last of the second epoch
            signal.raise_signal(signal.SIGTERM)

    train_small(small_model(), tmp_path / "whole")
    with pytest.raises(Interrupted):
        train_small(small_model(), tmp_path / "run", on_step=on_step)
    assert list_checkpoints(tmp_path / "run/checkpoints")[-1].name == "epoch-0001-step-00000008"
    train_small(small_model(), tmp_path / "run", resume=True)
    assert (tmp_path / "run/model.safetensors").read_bytes() == (tmp_path / "whole/model.safetensors").read_bytes()


@pytest.mark.slow
def test_the_command_exits_143_and_resumes(tone_folder: Path, command: Command, tmp_path: Path) -> None:
    """With decoding processes, and the signal sent to all processes, as a scheduler does."""
    arguments = ["train", "folder", f"tasks.label.data.path={tone_folder}", "train.epochs=400", "train.batch_size=16"]
    arguments += ["model.channels=[4,4]", "model.strides=[[3,3],[2,2]]", "--out", str(tmp_path / "run")]
    child = subprocess.Popen(
        [sys.executable, "-m", "audiostride", *arguments], stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    steps = tmp_path / "run" / "steps.jsonl"
    while child.poll() is None and not (steps.exists() and steps.stat().st_size):
        time.sleep(0.05)
    os.killpg(child.pid, signal.SIGTERM)
    _, said = child.communicate(timeout=60)
    assert child.returncode == 143, said
    assert "stopped by SIGTERM" in said
    assert "continue with --resume" in said
    refused = command(tmp_path, *arguments)
    assert refused.returncode == 2
    assert "is not empty" in refused.stderr
    changed = command(tmp_path, *arguments, "train.epochs=2", "--resume")
    assert changed.returncode == 5
    assert "recipe.train.epochs was 400, is 2" in changed.stderr
    goes_on = command(tmp_path, *arguments, "train.epochs=2", "train.steps=4", "--resume", "--allow-inexact")
    assert goes_on.returncode == 0, goes_on.stderr
    assert "resumed from checkpoint" in goes_on.stderr
