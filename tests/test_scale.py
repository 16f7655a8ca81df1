"""Several processes train as one: real torchrun, real gloo, on one machine."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from small_training import small_data, small_model, train_small

from audiostride.data.batches import training_batches
from audiostride.errors import TrainingError
from audiostride.training.checkpoints import list_checkpoints, load_checkpoint, newest_checkpoint
from audiostride.training.evaluation import task_loss
from audiostride.training.steps import share_of_mean

WORKER = Path(__file__).with_name("scale_worker.py")
TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]
# Without the shared store a restart may meet the rendezvous of the processes that are gone.
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}


def _launch(out: Path, processes: int, *options: str, restarts: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(WORKER), str(out), *options]
    if processes > 1:
        torchrun = [*TORCHRUN, "--standalone", f"--nproc-per-node={processes}", f"--max-restarts={restarts}"]
        command = [*torchrun, *command[1:]]
    return subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, timeout=600)


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
def test_two_processes_are_taught_as_one_is(alone: Path, tmp_path: Path) -> None:
    for name, processes in (("alone", 1), ("pair", 2)):
        done = _launch(tmp_path / name, processes, "--frozen", "--taught")
        assert done.returncode == 0, done.stderr
    _assert_same_course(tmp_path / "alone", tmp_path / "pair")
    assert abs(_curve(tmp_path / "alone")[0] - _curve(alone)[0]) > 1e-4


@pytest.mark.slow
def test_two_processes_learn_the_resolution_that_one_learns(tmp_path: Path) -> None:
    for name, processes in (("alone", 1), ("pair", 2)):
        done = _launch(tmp_path / name, processes, "--frozen", "--adaptive")
        assert done.returncode == 0, done.stderr
    _assert_same_course(tmp_path / "alone", tmp_path / "pair")
    one, other = (_metrics(tmp_path / name)[-1]["resolution"] for name in ("alone", "pair"))
    assert one["strides"] != [2, 2]
    assert other["strides"] == pytest.approx(one["strides"], abs=1e-8)
    assert other["window_ms"] == pytest.approx(one["window_ms"], abs=1e-4)


@pytest.mark.slow
def test_four_processes_follow_the_course_of_one(alone: Path, tmp_path: Path) -> None:
    done = _launch(tmp_path / "run", 4, "--frozen")
    assert done.returncode == 0, done.stderr
    assert "process 3 of 4 is done" in done.stdout
    _assert_same_course(alone, tmp_path / "run")


@pytest.fixture
def two_hosts() -> Iterator[list[tuple[str, str]]]:
    """Two network namespaces with a cable between them: (name, address) of each. The cable's end is `cable` in both."""
    hosts = [(f"audiostride-{os.getpid()}-{i}", f"10.77.31.{i + 1}") for i in range(2)]
    if shutil.which("ip") is None or os.geteuid():
        pytest.skip("two hosts need root and the command ip (Debian's iproute2)")
    made = subprocess.run(["ip", "netns", "add", hosts[0][0]], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"this machine lets nobody make a network namespace: {made.stderr.strip()}")
    try:
        subprocess.run(["ip", "netns", "add", hosts[1][0]], check=True)
        ends = [["name", "cable", "netns", name] for name, _ in hosts]
        subprocess.run(["ip", "link", "add", *ends[0], "type", "veth", "peer", *ends[1]], check=True)
        for name, address in hosts:
            subprocess.run(["ip", "-n", name, "address", "add", f"{address}/24", "dev", "cable"], check=True)
            for device in ("cable", "lo"):
                subprocess.run(["ip", "-n", name, "link", "set", device, "up"], check=True)
        yield hosts
    finally:
        for name, _ in hosts:
            subprocess.run(["ip", "netns", "delete", name], check=False)


@pytest.mark.slow
def test_two_hosts_follow_the_course_of_one_process(
    alone: Path, two_hosts: list[tuple[str, str]], tmp_path: Path
) -> None:
    """Each with a network and a run directory of its own, of which only the first is written."""
    children = []
    for number, (name, address) in enumerate(two_hosts):
        # Both have the same host name here, so they are told which of them is the meeting place.
        rendezvous = ["--rdzv-backend=c10d", f"--rdzv-endpoint={two_hosts[0][1]}:29500", "--rdzv-id=job"]
        rendezvous += [f"--rdzv-conf=is_host={int(number == 0)}"]
        nodes = ["--nnodes=2", "--nproc-per-node=1", f"--local-addr={address}"]
        command = [*TORCHRUN, *nodes, *rendezvous, str(WORKER), str(tmp_path / f"host-{number}"), "--frozen"]
        children.append(
            subprocess.Popen(
                ["ip", "netns", "exec", name, *command],
                env=ENVIRONMENT | {"GLOO_SOCKET_IFNAME": "cable"},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
        )
    try:
        said = [child.communicate(timeout=600)[0] for child in children]
    finally:
        for child in children:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
    assert [child.returncode for child in children] == [0, 0], "\n".join(said)
    assert "of 2 is done" in said[0]
    assert "of 2 is done" in said[1]
    written = [folder for folder in sorted(tmp_path.iterdir()) if list(folder.iterdir())]
    assert len(written) == 1, "process 0 alone writes"
    _assert_same_course(alone, written[0])


@pytest.mark.slow
def test_a_killed_process_ends_the_job_and_leaves_no_other_process_and_a_whole_checkpoint(tmp_path: Path) -> None:
    killed = _launch(tmp_path / "run", 2, "--frozen", "--kill-at=8")
    assert killed.returncode != 0
    assert "Signal 9 (SIGKILL)" in killed.stderr
    commands = [file.read_bytes() for file in Path("/proc").glob("[0-9]*/cmdline") if file.exists()]
    assert not [command for command in commands if os.fsencode(tmp_path) in command]
    last = newest_checkpoint(tmp_path / "run" / "checkpoints", pytest.fail)
    assert last is not None
    assert last.state["position"]["step"] == 6  # one is saved every third step


@pytest.mark.slow
def test_the_command_trains_with_two_processes(tmp_path: Path) -> None:
    settings = ["tasks.rate.data.n_clips=250", "tasks.scale.data.n_clips=250", "train.batch_size=50", "cache=null"]
    settings += ["model.channels=[4,4]", "model.strides=[[3,3],[2,2]]", "train.epochs=1"]
    command = ["--standalone", "--nproc-per-node=2", "-m", "audiostride", "train", "ripples", *settings]
    command += ["--out", str(tmp_path / "run"), "--resume"]
    done = subprocess.run([*TORCHRUN, *command], capture_output=True, text=True, env=ENVIRONMENT, timeout=600)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    lines = (tmp_path / "run" / "predictions-test.csv").read_text().splitlines()[1:]
    assert len(lines) == len(set(lines)) == sum(task["n"] for task in results["tasks"].values())
    assert results["environment"]["processes"] == 2


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

    monkeypatch.setattr("audiostride.training.steps.gather_numbers", with_a_drifted_neighbour)
    with pytest.raises(TrainingError, match="strides of process 1 differ from those of process 0 at step 0"):
        train_small(small_model(), tmp_path)


@pytest.mark.parametrize("workers", [0, 2])
def test_processes_and_their_workers_share_every_batch_without_overlap(workers: int) -> None:
    def batches(process: tuple[int, int] = (0, 1)) -> list:
        data = small_data(43)
        return list(training_batches(data, 16000, 3200, 8, "uniform", 0, 0, workers=workers, process=process))

    whole, shares = batches(), [batches((index, 4)) for index in range(4)]
    for batch, *parts in zip(whole, *shares, strict=True):
        assert sorted(name for part in parts if part.shares["loud"] for name in part.names) == sorted(batch.names)
        assert sum(part.shares["loud"] for part in parts) == 1.0
        assert all(len(part.names) >= 1 for part in parts)


def test_the_shares_of_a_weighted_mean_are_those_of_its_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    weights, labels = torch.tensor([0.5, 1.0, 3.0]), torch.tensor([0, 2, 2, 1, 0])
    logits = torch.randn(5, 3)
    parts = [slice(0, 2), slice(2, 5)]
    sums = [[weights[labels[part]].sum().item()] for part in parts]
    monkeypatch.setattr("audiostride.training.steps.process_count", lambda: 2)
    monkeypatch.setattr("audiostride.training.steps.gather_numbers", lambda own, device: sums)
    means = [task_loss(logits[part], labels[part], class_weights=weights) for part in parts]
    shares = [share_of_mean(labels[part], 0.5, weights) for part in parts]
    together = sum(share * mean for share, mean in zip(shares, means, strict=True))
    torch.testing.assert_close(together, task_loss(logits, labels, class_weights=weights))
    assert share_of_mean(labels[:1], 0.0, weights) == 0.0  # a stand-in counts nothing
