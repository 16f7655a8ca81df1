"""Every end of a run is one that a person can read: nothing hangs, nothing foreign is raised, nothing is lost."""

import bz2
import gzip
import io
import json
import lzma
import multiprocessing
import os
import signal
import subprocess
import sys
import tarfile
import tracemalloc
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from small_training import small_data, small_model, train_small
from typer.testing import CliRunner

from audiostride.cli import app
from audiostride.data.batches import LabelledClips, training_batches
from audiostride.data.clips import FileClips
from audiostride.data.download import extract
from audiostride.data.loading import load, usable_cpus, workers_ended
from audiostride.data.manifest import write_manifest
from audiostride.data.shards import read_shards
from audiostride.errors import DataError, ResourceError, UsageError, resource_error
from audiostride.training.recipe import load_recipe
from audiostride.training.run import run
from audiostride.training.run_testing import evaluate_run

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
        (allocate_too_much, r"memory ran out when \d+ bytes more were requested; lower the batch size"),
    ],
)
def test_a_killed_worker_and_a_failed_allocation_are_named_and_the_run_goes_on_from_its_checkpoint(
    fault: Callable[..., None], message: str, tmp_path: Path
) -> None:
    def on_step(step: int, *_: object) -> None:
        if step == 6:
            fault()

    train_small(small_model(), tmp_path / "whole")
    saved = r".*\. Checkpoint epoch-0001-step-00000004 is saved; continue from it with --resume"
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
    with pytest.raises(ResourceError, match=r"^memory ran out when 1\.00 EiB more were requested; lower"):
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
    assert "memory ran out when" in done.stderr
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
    train_small(small_model(), out, sets=sets, **settings)


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
    assert all(line.startswith("step ") and "continued without" in line and "clip-00.wav" in line for line in said)
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


BOMB_BYTES = 96 << 20
"""Zeros behind a header that claims four gigabytes; packed, they are a few kilobytes."""

PACKERS: dict[str, Callable[..., Any]] = {"tar": open, "tar.gz": gzip.open, "tar.bz2": bz2.open, "tar.xz": lzma.open}


def bomb(path: Path, kind: bytes) -> Path:
    """An archive that begins with an extended header of the kind."""
    header = tarfile.TarInfo("././@LongLink")
    header.type, header.size = kind, 4 << 30
    with PACKERS[path.name.partition(".")[2]](path, "wb") as file:
        file.write(header.tobuf(tarfile.GNU_FORMAT))
        for _ in range(BOMB_BYTES >> 20):
            file.write(bytes(1 << 20))
    return path


def peak_mb(read: Callable[[], object]) -> float:
    """Most memory that Python took while `read` ended in an error that names the file."""
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="bomb"):
            read()
        return tracemalloc.get_traced_memory()[1] / 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("packing", PACKERS)
@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE])
def test_what_a_tar_header_claims_is_judged_before_it_is_read(kind: bytes, packing: str, tmp_path: Path) -> None:
    path = bomb(tmp_path / f"bomb.{packing}", kind)
    assert peak_mb(lambda: extract(path, tmp_path / "out")) < 16  # of which a dictionary of xz has 8
    assert peak_mb(lambda: read_shards(path)) < 16


def sparse_bomb() -> bytes:
    """A sparse file whose map of holes, in its content, has millions of entries."""
    member = tarfile.TarInfo("a.wav")
    member.size = 64 << 20
    member.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "1"}
    member.pax_headers |= {"GNU.sparse.name": "a.wav"}
    return member.tobuf(tarfile.PAX_FORMAT) + b"30000000\n" + b"1\n" * (16 << 20)


def many_global_headers() -> bytes:
    """A hundred headers of half a megabyte that count for all members."""
    content = b""
    for number in range(100):
        content += tarfile.TarInfo.create_pax_global_header({f"k{number}": "x" * (1 << 19)})
        content += tarfile.TarInfo(f"{number}.wav").tobuf()
    return content


def hungry_lzma() -> bytes:
    """An lzma stream that asks for a dictionary of nearly 4 GB."""
    return b"]\0\0\0\xf0" + b"\xff" * 8 + bytes(100)


@pytest.mark.parametrize("make", [sparse_bomb, many_global_headers, hungry_lzma])
def test_no_other_part_of_a_tar_takes_memory_without_bound(make: Callable[[], bytes], tmp_path: Path) -> None:
    (tmp_path / "bomb.tar").write_bytes(make())
    assert peak_mb(lambda: extract(tmp_path / "bomb.tar", tmp_path / "out")) < 24


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA, zipfile.ZIP_DEFLATED])
def test_a_zip_is_unpacked_piece_by_piece_or_refused(method: int, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", method) as zipped, zipped.open("a.wav", "w") as file:
        for _ in range(128):
            file.write(bytes(1 << 20))
    assert peak_mb(lambda: extract(tmp_path / "bomb.zip", tmp_path / "out")) < 8
    assert sum(file.stat().st_size for file in (tmp_path / "out").rglob("*.wav")) <= 100 << 20


@pytest.mark.parametrize("packing", PACKERS)
def test_an_archive_in_two_streams_with_long_names_is_unpacked_whole(packing: str, tmp_path: Path) -> None:
    content, long = io.BytesIO(), "folder/" * 40 + "a.wav"
    with tarfile.open(fileobj=content, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name in (long, "b.wav"):
            member = tarfile.TarInfo(name)
            member.size = 3 << 20
            tar.addfile(member, io.BytesIO(os.urandom(1 << 10) * (3 << 10)))
    path, whole = tmp_path / f"a.{packing}", content.getvalue()
    for part in (whole[:70_000], whole[70_000:]):
        with PACKERS[packing](path, "ab") as file:
            file.write(part)
    extract(path, tmp_path / "out")
    with tarfile.open(fileobj=io.BytesIO(whole)) as tar:
        for name in (long, "b.wav"):
            found = tar.extractfile(name)
            assert found is not None
            assert (tmp_path / "out" / name).read_bytes() == found.read()


def test_an_image_is_judged_by_its_header(tmp_path: Path) -> None:
    from PIL import Image

    from audiostride.data.images import MAX_PIXELS, ImageClips

    Image.new("1", (MAX_PIXELS // 4096 + 1, 4096)).save(tmp_path / "bomb.png")
    images = ImageClips(["bomb.png"], {"label": ["a"]}, [""], files=[tmp_path / "bomb.png"])
    with pytest.raises(DataError, match=r"bomb\.png: cannot be decoded as an image \(16385 x 4096 pixels are more"):
        images.decode(0)


@pytest.fixture(scope="module")
def two_tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two tasks of one set of files, with tables that have both of its columns, one and none."""
    folder = tmp_path_factory.mktemp("two")
    (data,) = files_of_small_data(folder)
    rows = [
        {"file": name, "split": split, "loud": ("soft", "loud")[loud], "third": "abc"[third]}
        for name, split, loud, third in zip(
            data.clips.names, data.splits, data.labels["loud"], data.labels["third"], strict=True
        )
    ]
    write_manifest(folder / "both.csv", rows)
    write_manifest(folder / "loud.csv", [{"file": row["file"], "loud": row["loud"]} for row in rows])
    write_manifest(folder / "neither.csv", [{"file": row["file"], "other": "x"} for row in rows])
    source = f"{{source: manifest, path: {folder / 'both.csv'}}}"
    tasks = "".join(f"  {task}: {{data: {source}, column: {task}}}\n" for task in ("loud", "third"))
    (folder / "r.yaml").write_text(f"name: two\ntasks:\n{tasks}")
    settings = ["model.channels=[4,4,4,4,4,4]", "train.epochs=1", "train.batch_size=8", "train.workers=0"]
    run(load_recipe(str(folder / "r.yaml"), settings), folder / "run")
    return folder


def test_other_data_test_the_tasks_whose_columns_they_have(two_tasks: Path) -> None:
    found = evaluate_run(two_tasks / "run", data=str(two_tasks / "loud.csv"))
    assert {task: score.n for task, score in found.items()} == {"loud": 40}
    assert set(evaluate_run(two_tasks / "run", data=str(two_tasks / "both.csv"))) == {"loud", "third"}
    with pytest.raises(UsageError, match=r"none of the columns loud \(task loud\), third \(task third\), only other"):
        evaluate_run(two_tasks / "run", data=str(two_tasks / "neither.csv"))


def test_on_request_evaluate_counts_what_is_taken_for_what(two_tasks: Path) -> None:
    command = ["evaluate", str(two_tasks / "run"), "--data", str(two_tasks / "both.csv"), "--by-class"]
    done = CliRunner().invoke(app, [*command, "--json"])
    assert done.exit_code == 0, done.output
    tasks = json.loads(done.stdout)["tasks"]
    for task, labels in (("loud", ["loud", "soft"]), ("third", ["a", "b", "c"])):
        matrix = np.array(tasks[task]["confusion"])
        assert tasks[task]["labels"] == labels
        assert matrix.sum() == tasks[task]["n"] == 4  # the table's own test clips
        assert np.trace(matrix) == pytest.approx(4 * tasks[task]["accuracy"])
    assert np.array(tasks["loud"]["confusion"]).sum(1).tolist() == [4, 0]  # clips of odd numbers, which are loud
    assert "third: true class by row" in CliRunner().invoke(app, command).output
    assert "confusion" not in CliRunner().invoke(app, [*command[:-1], "--json"]).stdout


def test_a_run_that_is_refused_names_no_run_directory(tmp_path: Path) -> None:
    out = str(tmp_path / "run")
    done = CliRunner().invoke(app, ["train", "folder", f"tasks.label.data.path={tmp_path / 'nowhere'}", "--out", out])
    assert isinstance(done.exception, DataError)
    assert "run directory" not in done.output
