"""Faults on purpose: kills, full disks and flipped bits, against real runs in real processes.

The tests take the functions for a quick set; `make faults` runs this file for the full one and
prints the figures of docs/reliability.md as Markdown.
"""

import argparse
import functools
import hashlib
import itertools
import json
import mmap
import os
import platform
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from hostile_audio import measure_all

import audiostride.data.preparation
import audiostride.training.loop
import audiostride.training.run
import audiostride.training.saving
from audiostride.errors import AudiostrideError, ModelFileError
from audiostride.models.classifier import AudioClassifier, load
from audiostride.training.checkpoints import list_checkpoints, load_checkpoint, newest_checkpoint
from audiostride.training.recipe import load_recipe
from audiostride.training.report import Report

TINY = [
    "tasks.rate.data.n_clips=250",
    "tasks.scale.data.n_clips=250",
    "model.channels=[4,4]",
    "model.strides=[[3,3],[2,2]]",
    "train.epochs=3",
    "train.batch_size=50",
    "train.ema_decay=0.9",
    "train.gradient_clip=1.0",
    "train.warmup_steps=2",
    "train.schedule=cosine",
    "train.checkpoint_steps=1",
    "cache=null",
]
PHASES = ("start-up", "stepping", "saving", "rotating", "evaluating", "testing")


def warm_up() -> None:
    """Make the clips and import what children will need, by a run of one step, so that they get it with the fork.

    It is the training that is under test.
    """
    with tempfile.TemporaryDirectory() as folder:
        tiny_run(Path(folder), "train.steps=1")


def tiny_run(out: Path, *overrides: str, resume: bool = True) -> None:
    """A whole run of about a second, to be called in a child process."""
    audiostride.training.run.run(
        load_recipe("ripples", [*TINY, *overrides]), out, Report(notify=lambda _: None), resume
    )


def start_child(work: Callable[[], None]) -> int:
    """Fork a process that does some work; its exit code is the error's. Returns its id."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        os.setsid()
        torch.set_num_threads(
            1
        )  # other threads of the parent did not come along: a child that needs them waits for ever
        work()
        code = 0
    except AudiostrideError as error:
        os.write(2, f"{error}\n".encode())  # not sys.stderr, which may be the parent's own
        code = error.exit_code
    finally:
        os._exit(code)


def wait_for(child: int) -> int:
    """Exit code of a child, or minus the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def outcome(out: Path) -> dict[str, Any]:
    """Everything a run leaves but its clock: equal outcomes are equal runs, to the bit."""
    last = list_checkpoints(out / "checkpoints")[-1]
    state = load_checkpoint(last).state
    del state["log_bytes"], state["log_sha256"]  # metrics.jsonl holds clips per second
    metrics = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    files = [p for p in (out, last) for p in sorted(p.iterdir()) if p.suffix in (".safetensors", ".csv")]
    return {
        "curve": (out / "steps.jsonl").read_text(),
        "metrics": [{key: value for key, value in line.items() if key != "clips_per_s"} for line in metrics],
        "results": json.loads((out / "results.json").read_text()),
        "files": {f"{p.parent.name if p.parent != out else ''}/{p.name}": _sha256(p) for p in files},
        "names": sorted(p.name for p in (*out.iterdir(), *(out / "checkpoints").iterdir())),
        "state": state,
    }


@contextmanager
def marked_phases() -> Iterator[Callable[[], str]]:
    """Lets children say which phase they are in; yields a function that tells the latest."""
    shared = mmap.mmap(-1, 1)
    originals = []

    def mark(owner: Any, name: str, phase: str) -> None:
        original = getattr(owner, name)
        originals.append((owner, name, original))

        @functools.wraps(original)
        def marked(*args: Any, **kwargs: Any) -> Any:
            shared[0] = PHASES.index(phase)
            return original(*args, **kwargs)

        setattr(owner, name, marked)

    mark(audiostride.training.loop, "schedule_factor", "stepping")
    mark(audiostride.training.saving, "save_checkpoint", "saving")
    mark(AudioClassifier, "save", "saving")
    mark(audiostride.training.saving, "prune_checkpoints", "rotating")
    mark(audiostride.training.loop, "evaluate", "evaluating")
    mark(audiostride.training.run, "evaluate", "testing")
    mark(audiostride.training.run, "read_data", "start-up")
    try:
        yield lambda: PHASES[shared[0]]
    finally:
        for owner, name, original in originals:
            setattr(owner, name, original)


def kill_runs(folder: Path, kills: int, seed: int, *overrides: str) -> dict[str, Any]:
    """SIGKILL runs at random moments, resume them until they end, compare each with one never interrupted.

    Returns:
        Counts: kills, of which in which phase, runs, lost runs and changed runs.
    """
    rng = random.Random(seed)
    warm_up()
    began = time.monotonic()
    assert wait_for(start_child(lambda: tiny_run(folder / "whole", *overrides))) == 0
    seconds, whole = time.monotonic() - began, outcome(folder / "whole")
    counts = {"kills": 0, "runs": 0, "lost": 0, "changed": 0, "phases": Counter[str]()}
    with marked_phases() as phase:
        while counts["kills"] < kills:
            out = folder / f"killed-{counts['runs']}"
            counts["runs"] += 1
            while True:
                child = start_child(lambda: tiny_run(out, *overrides))  # noqa: B023 (called before out changes)
                ends = counts["kills"] >= kills
                if not ends:
                    time.sleep(rng.uniform(0, seconds))
                    os.kill(child, signal.SIGKILL)
                code = wait_for(child)
                if code != -signal.SIGKILL:
                    break
                counts["kills"] += 1
                counts["phases"][phase()] += 1
            counts["lost"] += code != 0
            counts["changed"] += code == 0 and outcome(out) != whole
            shutil.rmtree(out)
    return counts


def kill_at_each_change(
    folder: Path, work: Callable[[Path], None], outcome_of: Callable[[Path], dict[str, Any]] = outcome
) -> dict[str, int]:
    """SIGKILL a run before the first file or folder that it makes, renames or removes, another before the second, ...

    Each is then resumed and compared with one never interrupted.

    Args:
        folder: where the runs go.
        work: begins or resumes a run in the directory it is given.
        outcome_of: what is compared.

    Returns:
        Counts: kills, lost runs and changed runs.
    """
    assert wait_for(start_child(lambda: work(folder / "whole"))) == 0
    whole, counts = outcome_of(folder / "whole"), {"kills": 0, "lost": 0, "changed": 0}
    for change in itertools.count(1):
        out = folder / f"killed-{change}"

        def killed_work(out: Path = out, change: int = change) -> None:
            at_each_change(out, functools.partial(kill_at, change))
            work(out)

        code = wait_for(start_child(killed_work))
        if code == 0:
            break
        assert code == -signal.SIGKILL, code
        counts["kills"] += 1
        code = wait_for(start_child(lambda: work(out)))  # noqa: B023 (called before out changes)
        counts["lost"] += code != 0
        counts["changed"] += code == 0 and outcome_of(out) != whole
        shutil.rmtree(out)
    return counts


def at_each_change(folder: Path, act: Callable[[int], None]) -> None:
    """Call a function before this process makes, renames or removes a file or folder, with the number of the change.

    Args:
        folder: below which changes count.
        act: is given 1, 2, ...
    """
    changes = itertools.count(1)

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, mode, flags = arguments
            changing = mode is not None and bool(flags & (os.O_WRONLY | os.O_RDWR))
        elif event in ("os.mkdir", "os.rename", "os.remove", "os.rmdir"):
            path, changing = arguments[0], True
        else:
            return
        # What `shutil.rmtree` removes has a name without its folder.
        below = isinstance(path, str | Path) and (Path(path).is_relative_to(folder) or not Path(path).is_absolute())
        if changing and below:
            act(next(changes))

    sys.addaudithook(watch)


def kill_at(number: int, change: int) -> None:
    """End this process by SIGKILL at the change of that number; for `at_each_change`."""
    if change == number:
        os.kill(os.getpid(), signal.SIGKILL)


def limit_files(n_bytes: int) -> None:
    """Let this process write no file of more than so many bytes: a full disk for which nobody needs to be root."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, resource.RLIM_INFINITY))


def kill_plain_saves(folder: Path, kills: int, seed: int) -> int:
    """What happens without all this: files lost when `torch.save` to one path is killed at random moments."""
    rng, lost, path = random.Random(seed), 0, folder / "plain.pt"

    def save_for_ever() -> None:
        while True:
            torch.save({"weight": torch.zeros(1_000_000)}, path)

    for _ in range(kills):
        child = start_child(save_for_ever)
        time.sleep(rng.uniform(0.1, 0.4))
        os.kill(child, signal.SIGKILL)
        wait_for(child)
        try:
            torch.load(path, weights_only=True)
        except Exception:  # every kind of error is a lost file here
            lost += 1
    return lost


def fill_disk(folder: Path, free_bytes: int, whole: dict[str, Any]) -> str | None:
    """Run with so many bytes left on the (small) file system of `folder`, free it again, and resume.

    Returns:
        The error of the run that found the disk full, None if the room was enough.
    """
    out, ballast = folder / "run", folder / "ballast"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(1, shutil.disk_usage(folder).free - free_bytes))
    code, message = _stderr_of(lambda: tiny_run(out))
    ballast.unlink()
    if list_checkpoints(out / "checkpoints"):
        damaged: list[str] = []
        assert newest_checkpoint(out / "checkpoints", damaged.append) is not None
        assert not damaged, damaged
    if code == 0:
        return None
    assert code == 1, (code, message)
    assert str(out) in message, message
    assert "bytes are free" in message, message
    assert wait_for(start_child(lambda: tiny_run(out))) == 0, "the run cannot be resumed once there is room"
    assert outcome(out) == whole, "the run changed by the full disk"
    return message


def limit_file_size(out: Path, limit: int) -> tuple[int, str]:
    """Exit code and error of a run whose process may write no file beyond `limit` bytes."""

    def work() -> None:
        limit_files(limit)
        tiny_run(out)

    return _stderr_of(work)


def flip_bits(path: Path, flips: int, seed: int, read: Callable[[], object]) -> tuple[int, list[Exception]]:
    """Flip one random bit of a file at a time and read it; returns silent reads and errors not our own."""
    rng, content, silent, foreign = random.Random(seed), path.read_bytes(), 0, []
    for _ in range(flips):
        changed = bytearray(content)
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
        path.write_bytes(changed)
        try:
            read()
            silent += 1
        except ModelFileError:
            pass
        except Exception as error:  # collected, to be shown
            foreign.append(error)
    path.write_bytes(content)
    return silent, foreign


def mutate_headers(folder: Path, mutations: int, seed: int) -> tuple[int, list[Exception]]:
    """Change the header of a model's safetensors file, make all checksums right again, and load it.

    Returns:
        Number of silent loads, and errors that are not our own.
    """
    rng, weights, config = random.Random(seed), folder / "model.safetensors", folder / "config.json"
    content, settings, silent, foreign = weights.read_bytes(), config.read_text(), 0, []
    for _ in range(mutations):
        changed = _mutated_header(content, rng)
        weights.write_bytes(changed)
        audiostride.models.files.save_config(config, json.loads(settings), changed)
        try:
            load(folder)
            silent += 1
        except ModelFileError:
            pass
        except Exception as error:  # collected, to be shown
            foreign.append(error)
    weights.write_bytes(content)
    config.write_text(settings)
    return silent, foreign


def _mutated_header(content: bytes, rng: random.Random) -> bytes:
    length = int.from_bytes(content[:8], "little")
    header, data = json.loads(content[8 : 8 + length]), content[8 + length :]
    name = rng.choice([name for name in header if name != "__metadata__"])
    entry, kind = header[name], rng.randrange(8)
    if kind == 0:  # a lie about the header's length
        return rng.randrange(2 ** rng.randrange(1, 64)).to_bytes(8, "little") + content[8:]
    if kind == 1:  # any byte of the header, until it says something else
        while True:
            raw = bytearray(content[8 : 8 + length])
            raw[rng.randrange(length)] = rng.randrange(256)
            try:
                if json.loads(bytes(raw)) == header:
                    continue
            except ValueError:
                pass
            return content[:8] + bytes(raw) + data
    if kind == 2:
        entry["dtype"] = rng.choice([d for d in ("F64", "F16", "I32", "U8", "BOOL", "X1") if d != entry["dtype"]])
    elif kind == 3:
        entry["shape"] = rng.choice([[*entry["shape"], 2], [-1], [2**62, 2**62], "x", [1.5], entry["shape"] + [0]])
    elif kind == 4:
        shift = rng.choice([-4, 4, 2**40, -(2**40)])
        entry["data_offsets"] = [offset + shift for offset in entry["data_offsets"]]
    elif kind == 5:
        header[name + "x"] = header.pop(name)
    elif kind == 6:
        header["more"] = dict(entry)
    else:
        del header[name]
    raw_header = json.dumps(header).encode()
    return len(raw_header).to_bytes(8, "little") + raw_header + data


def state_items_lost() -> tuple[int, int]:
    """Run the tests that lose an item of the state and want the comparison to see it; returns passed and not."""
    tests = str(Path(__file__).with_name("test_reliability.py")) + "::test_each_item_of_the_state_matters"
    told = subprocess.run([sys.executable, "-m", "pytest", "-q", tests], capture_output=True, text=True).stdout
    found = {what: int(n) for n, what in re.findall(r"(\d+) (passed|failed|error)", told)}
    return found.get("passed", 0), found.get("failed", 0) + found.get("error", 0)


@contextmanager
def small_disk(megabytes: int) -> Iterator[Path]:
    """A tmpfs of that size; needs root."""
    folder = Path(tempfile.mkdtemp())
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)
        folder.rmdir()


def _stderr_of(work: Callable[[], None]) -> tuple[int, str]:
    with tempfile.TemporaryFile("w+") as file:

        def redirected() -> None:
            os.dup2(file.fileno(), 2)
            work()

        code = wait_for(start_child(redirected))
        file.seek(0)
        return code, file.read()


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description="Run the full set of fault tests and print their figures.")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--flips", type=int, default=2000)
    parser.add_argument("--mutations", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    folder, seed, failed = Path(tempfile.mkdtemp()), arguments.seed, False
    print(f"torch {torch.__version__}, {platform.machine()}, {os.cpu_count()} cores, seed {seed}\n", flush=True)

    counts = kill_runs(folder, arguments.kills, seed)
    phases = ", ".join(f"{phase} {counts['phases'][phase]}" for phase in PHASES)
    print(f"| SIGKILL at a random moment | {counts['kills']} over {counts['runs']} runs ({phases}) | ", end="")
    print(f"{counts['lost']} runs lost, {counts['changed']} changed |", flush=True)
    failed |= bool(counts["lost"] or counts["changed"])

    warm_up()
    (folder / "changes").mkdir()
    counts = kill_at_each_change(folder / "changes", lambda out: tiny_run(out, "train.checkpoint_steps=2"))
    print(f"| SIGKILL before each change of a file or folder | {counts['kills']} runs | ", end="")
    print(f"{counts['lost']} runs lost, {counts['changed']} changed |", flush=True)
    failed |= bool(counts["lost"] or counts["changed"])

    lost = kill_plain_saves(folder, 25, seed)
    print(f"| for comparison: SIGKILL of `torch.save` in place | 25 | {lost} files lost |", flush=True)

    whole, messages, tries = outcome(folder / "whole"), [], 0
    with small_disk(4) as disk:
        for kilobytes in range(0, 320, 16):
            tries += 1
            message = fill_disk(disk, kilobytes * 1024, whole)
            messages += [message] if message else []
    places = Counter(Path(m.split(": cannot be written")[0]).name.split("-0")[0] for m in messages)
    print(
        f"| disk full (a tmpfs of 4 MB with 0 to 304 kB left) | {tries} runs, {len(messages)} found it full: ", end=""
    )
    print(", ".join(f"{name} {n}" for name, n in sorted(places.items())), end="")
    print(" | each error names the path and the free bytes; each run resumed and ended unchanged |", flush=True)

    for name in ("model.safetensors", "config.json"):
        run = folder / "whole"
        silent, foreign = flip_bits(run / name, arguments.flips // 2, seed, lambda: load(run))  # noqa: B023
        print(f"| a flipped bit in {name} | {arguments.flips // 2} | {silent} loaded silently, ", end="")
        print(f"{len(foreign)} foreign errors |", flush=True)
        failed |= bool(silent or foreign)
    last = list_checkpoints(folder / "whole" / "checkpoints")[-1]
    files = sorted(last.iterdir())
    for path in files:
        silent, foreign = flip_bits(path, arguments.flips // len(files), seed, lambda: load_checkpoint(last))
        print(f"| a flipped bit in a checkpoint's {path.name} | {arguments.flips // len(files)} | ", end="")
        print(f"{silent} loaded silently, {len(foreign)} foreign errors |", flush=True)
        failed |= bool(silent or foreign)
    silent, foreign = mutate_headers(folder / "whole", arguments.mutations, seed)
    print(f"| mutated safetensors header, checksums made right again | {arguments.mutations} | ", end="")
    print(f"{silent} loaded silently, {len(foreign)} foreign errors |", flush=True)
    failed |= bool(silent or foreign)

    passed, not_passed = state_items_lost()
    print(f"| an item of the state lost, each in turn | {passed + not_passed} | ", end="")
    print(f"{passed} noticed, {not_passed} not |", flush=True)
    failed |= bool(not_passed or not passed)

    readings = measure_all(folder / "corpus")
    wrong = [r for r in readings if bool(r.message) != bool(r.expected) or r.expected not in r.message]
    cpu_s, peak_mb = max(r.cpu_s for r in readings), max(r.peak_mb for r in readings)
    print(f"| hostile audio file | {len(readings)} | {len(wrong)} other than said below; ", end="")
    print(f"at most {1000 * cpu_s:.0f} ms of processor time, {peak_mb:.0f} MB |", flush=True)
    failed |= bool(wrong or cpu_s > 1 or peak_mb > 200)
    shutil.rmtree(folder)
    sys.exit(failed)


if __name__ == "__main__":
    main()
