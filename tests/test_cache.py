"""The decoded cache gives the same sound, is built once, follows the files and survives being killed."""

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from filelock import FileLock

from audiostride.data.cache import cached
from audiostride.data.folder import read_folder
from audiostride.errors import DataError, WriteError

RATE = 16000


@pytest.fixture
def sounds(tmp_path: Path) -> Path:
    """Twelve clips of one class: 16-bit, float beyond full scale, and another sample rate."""
    folder = tmp_path / "sounds"
    (folder / "a").mkdir(parents=True)
    random = np.random.RandomState(0)
    for i in range(10):
        soundfile.write(folder / "a" / f"{i}.wav", random.uniform(-1, 1, 500 + i), RATE)
    soundfile.write(folder / "a" / "loud.wav", 5 * random.uniform(-1, 1, 800), RATE, subtype="FLOAT")
    soundfile.write(folder / "a" / "slow.flac", random.uniform(-1, 1, 800), 8000)
    return folder


def entries(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.iterdir() if path.suffix != ".lock")


def test_sixteen_bit_clips_come_back_to_the_bit_and_others_to_sixteen_bits(sounds: Path, tmp_path: Path) -> None:
    clips = read_folder(sounds)
    ours, bad = cached(clips, RATE, tmp_path / "cache")
    assert bad == []
    for index, name in enumerate(clips.names):
        plain = clips.read(index, RATE)
        assert ours.n_samples(index, RATE) == len(plain)
        if name[2].isdigit():
            np.testing.assert_array_equal(ours.read(index, RATE), plain)
        else:
            np.testing.assert_allclose(ours.read(index, RATE), plain, atol=max(1, np.abs(plain).max()) / 32768)
        np.testing.assert_array_equal(ours.read(index, RATE, 100, 50), ours.read(index, RATE)[100:150])


def test_it_is_built_once_and_again_when_a_file_changes(sounds: Path, tmp_path: Path) -> None:
    steps: list[int] = []

    def build() -> int:
        steps.clear()
        cached(read_folder(sounds), RATE, tmp_path / "cache", progress=lambda what, done, total: steps.append(done))
        return len(steps)

    assert (build(), build()) == (12, 0)
    soundfile.write(sounds / "a" / "3.wav", np.zeros(400), RATE)
    assert (build(), build()) == (12, 0)
    assert len(entries(tmp_path / "cache")) == 2


def test_another_sample_rate_is_another_entry(sounds: Path, tmp_path: Path) -> None:
    ours, _ = cached(read_folder(sounds), 8000, tmp_path / "cache")
    assert ours.n_samples(0, 8000) == 250
    with pytest.raises(DataError, match="8000 Hz"):
        ours.read(0, RATE)


def test_a_damaged_entry_is_built_again(sounds: Path, tmp_path: Path) -> None:
    clips = read_folder(sounds)
    before = cached(clips, RATE, tmp_path / "cache")[0].read(4, RATE)
    (entry,) = (tmp_path / "cache" / name for name in entries(tmp_path / "cache"))
    for name, damage in (("samples.i16", b"short"), ("ends.npy", b""), ("bad.json", b"{")):
        (entry / name).write_bytes(damage)
        np.testing.assert_array_equal(cached(clips, RATE, tmp_path / "cache")[0].read(4, RATE), before)


def test_bad_files_are_remembered(sounds: Path, tmp_path: Path) -> None:
    (sounds / "a" / "5.wav").write_bytes(b"RIFF nothing")
    clips = read_folder(sounds)
    for _ in range(2):
        good, bad = cached(clips, RATE, tmp_path / "cache", on_bad_file="skip")
        assert len(good) == 11
        assert len(bad) == 1
        assert "5.wav" in bad[0]
        np.testing.assert_array_equal(good.read(5, RATE), clips.read(6, RATE))
        with pytest.raises(DataError, match=r"1 of 12 audio files cannot be used(?s:.)*5\.wav"):
            cached(clips, RATE, tmp_path / "cache")


BUILD = """
import sys, time
from audiostride.data.cache import cached
from audiostride.data.folder import read_folder
decoded = []
def progress(what, done, total):
    decoded.append(done)
    print(done, flush=True)
    time.sleep(float(sys.argv[3]))
clips, _ = cached(read_folder(sys.argv[1]), 16000, sys.argv[2], progress=progress)
print("sum", sum(float(abs(clips.read(i, 16000)).sum()) for i in range(len(clips))), len(decoded), flush=True)
"""


def start(sounds: Path, cache: Path, pause_s: float) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-c", BUILD, str(sounds), str(cache), str(pause_s)]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_two_runs_at_once_build_it_once_and_a_killed_one_leaves_no_entry(sounds: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    killed = start(sounds, cache, 0.2)
    assert killed.stdout is not None
    for _ in range(4):
        killed.stdout.readline()
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    killed.stdout.close()
    assert all(".building-" in name for name in entries(cache))

    runs = [start(sounds, cache, 0.02) for _ in range(3)]
    last = [run.communicate()[0].split()[-3:] for run in runs]
    assert len({tuple(line[:2]) for line in last}) == 1
    assert sorted(int(line[2]) for line in last) == [0, 0, 12]
    assert len(entries(cache)) == 1
    assert ".building" not in entries(cache)[0]


def test_workers_map_the_file_instead_of_copying_it(sounds: Path, tmp_path: Path) -> None:
    import pickle

    ours, _ = cached(read_folder(sounds), RATE, tmp_path / "cache")
    first = ours.read(0, RATE)
    sent = pickle.dumps(ours)
    assert len(sent) < 5000
    np.testing.assert_array_equal(pickle.loads(sent).read(0, RATE), first)


@pytest.mark.slow
def test_a_training_run_with_and_without_the_cache_takes_the_same_steps(sounds: Path, tmp_path: Path) -> None:
    from audiostride.training.recipe import load_recipe
    from audiostride.training.run import run

    (sounds / "b").mkdir()
    for i in range(30):
        soundfile.write(sounds / "b" / f"{i}.wav", np.random.RandomState(i).uniform(-0.5, 0.5, 20000), RATE)
    (sounds / "a" / "loud.wav").unlink()
    (sounds / "a" / "slow.flac").unlink()
    steps = []
    for name, cache in (("with", str(tmp_path / "cache")), ("without", "null")):
        settings = ["train.epochs=1", "train.batch_size=8", "model.channels=[4,4,4,4,4,4]", "train.workers=0"]
        recipe = load_recipe("folder", [f"tasks.label.data.path={sounds}", f"cache={cache}", *settings])
        results = run(recipe, tmp_path / name)
        steps.append([json.loads(line) for line in (tmp_path / name / "steps.jsonl").read_text().splitlines()])
        assert results["tasks"]["label"]["n"] >= 3
    assert steps[0] == steps[1]


def entry_of(sounds: Path, cache: Path) -> Path:
    cached(read_folder(sounds), RATE, cache)
    (name,) = entries(cache)
    return cache / name


@pytest.mark.parametrize("name", ["samples.i16", "ends.npy", "scales.npy", "checks.npy", "bad.json", "sha256"])
def test_no_flipped_bit_gives_other_audio(sounds: Path, tmp_path: Path, name: str) -> None:
    clips = read_folder(sounds)
    file = entry_of(sounds, tmp_path / "cache") / name
    content = file.read_bytes()
    expected = [cached(clips, RATE, tmp_path / "cache")[0].read(i, RATE) for i in range(12)]
    for place in np.random.RandomState(0).randint(0, 8 * len(content), 40).tolist():
        damaged = bytearray(content)
        damaged[place // 8] ^= 1 << place % 8
        file.write_bytes(damaged)
        message = ""
        try:
            ours = cached(clips, RATE, tmp_path / "cache")[0]
            found = [ours.read(i, RATE) for i in range(12)]
        except DataError as error:
            message = str(error)
            found = [cached(clips, RATE, tmp_path / "cache")[0].read(i, RATE) for i in range(12)]  # built again
        assert "samples.i16: is damaged near byte" in message or name != "samples.i16"
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("content", ["5", "null", "[1, 2]", '[[0, "fake"]]', '{"0": "fake"}', "[" * 10_000])
def test_another_table_of_bad_files_is_not_believed(sounds: Path, tmp_path: Path, content: str) -> None:
    (entry_of(sounds, tmp_path / "cache") / "bad.json").write_text(content)
    ours, bad = cached(read_folder(sounds), RATE, tmp_path / "cache", on_bad_file="skip")
    assert (len(ours), bad) == (12, [])


def test_abandoned_builds_of_every_entry_are_removed_and_running_ones_are_not(sounds: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    for key in ("abandoned", "running"):
        (cache / f"{key}.building-1").mkdir()
    with FileLock(cache / "running.lock"):
        cached(read_folder(sounds), RATE, cache)
    assert [name for name in entries(cache) if "building" in name] == ["running.building-1"]


NO_LOCKS = """
import errno, fcntl
def flock(*_):
    raise OSError(errno.ENOLCK, "No locks available")
fcntl.flock = flock
"""


@pytest.mark.slow
def test_three_builds_at_once_where_there_are_no_locks_end_in_one_entry(sounds: Path, tmp_path: Path) -> None:
    arguments = [sys.executable, "-c", NO_LOCKS + BUILD, str(sounds), str(tmp_path / "cache"), "0.05"]
    runs = [subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    sums = {run.communicate()[0].split()[-2] for run in runs}
    assert [run.returncode for run in runs] == [0, 0, 0]
    assert len(sums) == len(entries(tmp_path / "cache")) == 1


def test_a_cache_that_cannot_be_written_is_named_with_the_free_bytes(sounds: Path, tmp_path: Path) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, resource.RLIM_INFINITY))
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        with pytest.raises(WriteError, match=r"cache/\w+: cannot be written .* bytes are free there"):
            cached(read_folder(sounds), RATE, tmp_path / "cache")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        signal.signal(signal.SIGXFSZ, before)
    assert entries(tmp_path / "cache") == []
    assert len(cached(read_folder(sounds), RATE, tmp_path / "cache")[0]) == 12
