"""Every end of a run is one that a person can read: nothing hangs, nothing foreign is raised, nothing is lost."""

import multiprocessing
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from small_training import SETTINGS, small_data, small_model, train_small

from audiostride.data.batches import LabelledClips, training_batches
from audiostride.data.clips import FileClips
from audiostride.data.loading import load, usable_cpus, workers_ended
from audiostride.errors import DataError, ResourceError, resource_error
from audiostride.training.loop import train

TESTS = Path(__file__).parent
HANG_S = 120
"""What takes this long on any machine will never end."""


def python(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a script in an interpreter of its own; a `TimeoutExpired` is a hang."""
    command = [sys.executable, "-c", f"import sys\nsys.path.insert(0, {str(TESTS)!r})\n{code}", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=HANG_S)


TRAIN_AND_RAISE = """
from pathlib import Path
from small_training import small_model, train_small

def on_step(step, *_):
    raise KeyError("a bug of the caller")

train_small(small_model(), Path(sys.argv[1]), workers=1, on_step=on_step)
"""

HOLD_A_LOADER_AND_RAISE = """
from small_training import small_data
from audiostride.data.batches import training_batches

batches = training_batches(small_data(), 16000, 3200, 4, "uniform", 0, 0, workers=1)
next(batches)
raise KeyError("a bug of the caller")
"""


@pytest.mark.parametrize("code", [TRAIN_AND_RAISE, HOLD_A_LOADER_AND_RAISE])
def test_a_script_that_raises_with_workers_at_work_ends_with_its_own_error(code: str, tmp_path: Path) -> None:
    done = python(code, tmp_path / "run")
    assert done.returncode == 1
    assert done.stderr.rstrip().endswith("KeyError: 'a bug of the caller'")


def test_no_worker_outlives_a_training_that_raises(tmp_path: Path) -> None:
    def on_step(*_: object) -> None:
        assert multiprocessing.active_children()
        raise KeyError("a bug")

    with pytest.raises(KeyError) as held:  # its traceback keeps every frame alive
        train_small(small_model(), tmp_path, workers=1, on_step=on_step)
    assert held.tb is not None
    assert not multiprocessing.active_children()


def test_workers_follow_the_cpus_that_may_be_used_without_a_warning() -> None:
    code = f"""
import os, multiprocessing, warnings
warnings.simplefilter("error")
os.sched_setaffinity(0, {{min(os.sched_getaffinity(0))}})
from small_training import small_data
from audiostride.data.batches import training_batches
batches = training_batches(small_data(), 16000, 3200, 4, "uniform", 0, 0, workers={2 * usable_cpus() + 2})
next(batches)
print(len(multiprocessing.active_children()))
batches.close()
print(len(multiprocessing.active_children()))
"""
    done = python(code)
    assert done.stdout.split() == ["1", "0"], done.stderr


def test_a_block_ends_only_the_workers_that_began_in_it() -> None:
    outside = training_batches(small_data(), 16000, 3200, 4, "uniform", 0, 0, workers=1)
    next(outside)
    before = multiprocessing.active_children()
    with workers_ended():
        inside = training_batches(small_data(), 16000, 3200, 4, "uniform", 0, 0, workers=1)
        next(inside)
    assert multiprocessing.active_children() == before
    outside.close()
    assert not multiprocessing.active_children()


def kill_a_worker(*_: object) -> None:
    """Do to a worker what the kernel does when memory is short, and wait for it."""
    worker = multiprocessing.active_children()[0]
    assert worker.pid
    os.kill(worker.pid, signal.SIGKILL)
    worker.join()


def allocate_too_much(*_: object) -> None:
    """Ask for more memory than any address space holds."""
    torch.empty(1 << 58)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (
            kill_a_worker,
            r"a process that decodes data \(pid \d+\) (was killed by signal: Killed|exited); most likely ",
        ),
        (allocate_too_much, r"memory ran out where \d+ bytes more were wanted; lower the batch size"),
    ],
)
def test_a_killed_worker_and_a_failed_allocation_are_named_and_the_run_goes_on_from_its_checkpoint(
    fault: Callable[..., None], message: str, tmp_path: Path
) -> None:
    def on_step(step: int, *_: object) -> None:
        if step == 6:
            fault()

    train_small(small_model(), tmp_path / "whole")
    saved = r".*\. Checkpoint epoch-0001-step-00000004 is saved, go on from it with --resume"
    with pytest.raises(ResourceError, match=message + saved) as caught:
        train_small(small_model(), tmp_path / "run", workers=1, on_step=on_step)
    assert caught.value.exit_code == 1
    assert not multiprocessing.active_children()
    train_small(small_model(), tmp_path / "run", resume=True)
    assert (tmp_path / "run/steps.jsonl").read_bytes() == (tmp_path / "whole/steps.jsonl").read_bytes()


def test_before_the_first_checkpoint_the_error_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match=r"There is no checkpoint yet: train\.checkpoint_steps=N"):
        train_small(small_model(), tmp_path, on_step=allocate_too_much)


class Wasteful(torch.utils.data.Dataset):
    """A data set that asks for more memory than there can be."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> np.ndarray:
        return np.empty(1 << 60, np.int8)


@pytest.mark.parametrize("workers", [0, 1])
def test_memory_that_runs_out_in_a_worker_is_named_without_its_traceback(workers: int) -> None:
    with pytest.raises(ResourceError, match=r"^memory ran out where 1\.00 EiB more were wanted; lower"):
        next(load(Wasteful(), workers))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that", "shared memory .* is full"),
        ("DataLoader worker (pid(s) 7, 8) exited unexpectedly", r"\(pid 7, 8\) exited; most likely"),
        ("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has", "^GPU memory ran out"),
    ],
)
def test_what_torch_says_of_memory_is_understood(text: str, message: str) -> None:
    with pytest.raises(ResourceError, match=message):
        raise resource_error(RuntimeError(text)) or AssertionError


def test_the_command_names_a_failed_allocation_and_exits_1(tmp_path: Path) -> None:
    code = """
import resource
import audiostride.training.run
from audiostride.cli import main
pages = int(open("/proc/self/statm").read().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + (100 << 20),) * 2)
sys.argv = ["audiostride", "train", "ripples", "model.channels=[4096,4096,4096,4096,4096,4096]", "--out", sys.argv[1]]
main()
"""
    done = python(code, tmp_path / "run")
    assert done.returncode == 1
    assert "memory ran out where" in done.stderr
    assert "Traceback" not in done.stderr


def files_of_small_data(folder: Path, skip_bad: bool = False) -> list[LabelledClips]:
    """`small_data` as files, which can vanish."""
    (data,) = small_data()
    names = [f"{name}.wav" for name in data.clips.names]
    for index, name in enumerate(names):
        soundfile.write(folder / name, data.clips.read(index, 16000), 16000, subtype="FLOAT")
    clips = FileClips(names, {}, list(data.splits), root=folder)
    return [LabelledClips(clips, data.labels, data.splits, {"loud": 2, "third": 3}, skip_bad)]


def train_on(sets: list[LabelledClips], out: Path, **settings: Any) -> None:
    out.mkdir(exist_ok=True)
    train(small_model(), sets, out, **{**SETTINGS, "notify": lambda _: None, **settings})


@pytest.mark.parametrize("lost", ["clip-00.wav", "clip-08.wav"])  # a clip of training, and one of validation
@pytest.mark.parametrize("how", ["vanished", "cut short"])
def test_a_file_lost_in_mid_run_is_one_line_and_once_it_is_back_the_run_goes_on_to_the_bit(
    lost: str, how: str, tmp_path: Path
) -> None:
    sets = files_of_small_data(tmp_path)
    content = (tmp_path / lost).read_bytes()
    train_on(sets, tmp_path / "whole")

    def on_step(step: int, *_: object) -> None:
        if step == 5 and how == "vanished":
            (tmp_path / lost).unlink()
        elif step == 5:
            (tmp_path / lost).write_bytes(content[: len(content) // 2])

    with pytest.raises(DataError, match=rf"^step \d+: .*{lost}: .*\nEverything is saved: .*--resume"):
        train_on(sets, tmp_path / "run", on_step=on_step)
    (tmp_path / lost).write_bytes(content)
    train_on(sets, tmp_path / "run", resume=True)
    for name in ("steps.jsonl", "model.safetensors"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("augmented", [False, True])
def test_on_request_training_goes_on_without_a_lost_file_and_says_so(
    workers: int, augmented: bool, tmp_path: Path
) -> None:
    from audiostride.data.augment import Augmentation

    sets, said = files_of_small_data(tmp_path, skip_bad=True), list[str]()
    (tmp_path / "clip-00.wav").unlink()
    mixing = Augmentation(mixup=0.5) if augmented else None
    train_on(sets, tmp_path / "run", workers=workers, notify=said.append, augmentation=mixing, epochs=2)
    assert len(said) == 2  # once an epoch
    assert all(line.startswith("step ") and "went on without" in line and "clip-00.wav" in line for line in said)
    batches = list(training_batches(sets, 16000, 3200, 8, "uniform", 0, 0, workers))
    assert (
        sorted(name for batch in batches for name in batch.names)
        == [title for title, split in zip(sets[0].clips.names, sets[0].splits, strict=True) if split == "train"][1:]
    )
    for batch in batches:
        assert len(batch.waveform) == len(batch.names) == len(batch.labels["loud"])
        rows = [sets[0].clips.names.index(name) for name in batch.names]
        assert batch.labels["third"].tolist() == sets[0].labels["third"][rows].tolist()


def test_a_batch_of_lost_files_is_an_error_all_the_same(tmp_path: Path) -> None:
    sets = files_of_small_data(tmp_path, skip_bad=True)
    for file in tmp_path.glob("*.wav"):
        file.unlink()
    with pytest.raises(DataError, match="8 of the 8 files of its batch cannot be read"):
        list(training_batches(sets, 16000, 3200, 8, "uniform", 0, 0, workers=0))


def test_a_normal_run_with_the_default_workers_warns_of_nothing(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train_small(small_model(), tmp_path, workers=2, epochs=1)
