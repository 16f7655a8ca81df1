"""Several processes train as one: real torchrun, real gloo, on one machine."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from small_training import small_data, small_model, train_small

from audiostride import distributed
from audiostride.checkpoint import list_checkpoints, load_checkpoint
from audiostride.data.batches import training_batches
from audiostride.errors import TrainingError

WORKER = Path(__file__).with_name("scale_worker.py")


def _launch(out: Path, processes: int, *options: str, restarts: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(WORKER), str(out), *options]
    if processes > 1:
        torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
        command = [sys.executable, *torchrun, f"--max-restarts={restarts}", *command[1:]]
    # Without the shared store a restart may meet the rendezvous of the processes that are gone.
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)


def _curve(out: Path) -> list[float]:
    lines = [json.loads(line) for line in (out / "steps.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, len(lines) + 1))
    return [float.fromhex(line["loss_hex"]) for line in lines]


def _metrics(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """50 steps of one process with batch norm frozen, in float64."""
    out = tmp_path_factory.mktemp("alone") / "run"
    done = _launch(out, 1, "--frozen")
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same steps by two processes."""
    out = tmp_path_factory.mktemp("pair") / "run"
    done = _launch(out, 2, "--frozen")
    assert done.returncode == 0, done.stderr
    assert "process 1 of 2 is done" in done.stdout
    return out


def _assert_same_course(alone: Path, several: Path) -> None:
    expected, found = _curve(alone), _curve(several)
    assert len(expected) == 50
    assert max(abs(a - b) for a, b in zip(expected, found, strict=True)) < 1e-8
    for one, other in zip(_metrics(alone), _metrics(several), strict=True):
        for task in ("loud", "third"):
            assert other["tasks"][task]["accuracy"] == one["tasks"][task]["accuracy"]
            assert other["tasks"][task]["loss"] == pytest.approx(one["tasks"][task]["loss"], abs=1e-8)
        for a, b in zip(one["strides"], other["strides"], strict=True):
            assert a == pytest.approx(b, abs=1e-8)


@pytest.mark.slow
def test_two_processes_follow_the_course_of_one(alone: Path, pair: Path) -> None:
    _assert_same_course(alone, pair)


@pytest.mark.slow
def test_four_processes_follow_the_course_of_one(alone: Path, tmp_path: Path) -> None:
    done = _launch(tmp_path / "run", 4, "--frozen")
    assert done.returncode == 0, done.stderr
    assert "process 3 of 4 is done" in done.stdout
    _assert_same_course(alone, tmp_path / "run")


@pytest.mark.slow
def test_a_killed_process_is_restarted_and_the_job_ends_as_if_nothing_had_happened(pair: Path, tmp_path: Path) -> None:
    killed = _launch(tmp_path / "run", 2, "--frozen", "--kill-at=20", "--resume", restarts=2)
    assert killed.returncode == 0, killed.stderr
    assert _curve(tmp_path / "run") == _curve(pair)
    ends = [load_checkpoint(list_checkpoints(out / "checkpoints")[-1]) for out in (pair, tmp_path / "run")]
    for group, tensors in ends[0].tensors.items():
        for name, tensor in tensors.items():
            assert torch.equal(tensor, ends[1].tensors[group][name]), name


def test_a_stride_that_drifts_on_one_process_stops_the_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def with_a_drifted_neighbour(numbers: list[float], device: torch.device) -> list[list[float]]:
        return [numbers, [*numbers[:-1], numbers[-1] + 1e-9]]

    monkeypatch.setattr("audiostride.train.gather_numbers", with_a_drifted_neighbour)
    with pytest.raises(TrainingError, match="strides of process 1 differ from those of process 0 at step 0"):
        train_small(small_model(), tmp_path)


def test_processes_share_every_batch_without_overlap(monkeypatch: pytest.MonkeyPatch) -> None:
    def batches() -> list:
        return list(training_batches(small_data(43), 16000, 3200, 8, "uniform", seed=0, epoch=0, workers=0))

    whole = batches()
    monkeypatch.setattr(distributed, "process_count", lambda: 4)
    shares = []
    for index in range(4):
        monkeypatch.setattr(distributed, "process_index", lambda index=index: index)
        shares.append(batches())
    for batch, *parts in zip(whole, *shares, strict=True):
        assert sorted(name for part in parts if part.share for name in part.names) == sorted(batch.names)
        assert sum(part.share for part in parts) == 1.0
        assert all(len(part.names) >= 1 for part in parts)
