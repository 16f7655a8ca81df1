"""Every file that a command reads, changed; every file that a command writes, on a full disk and killed half way.

Each try is the real command in a forked process, in a folder of its own. A read must end in a named error, or give what
the untouched file gives, or say on stderr which file it did not use. An exception that is not ours is foreign. Another
result without a word is silent where a file of known length was cut, or a bit was flipped in one with a checksum.
A write that fails must leave the old file as it was and nothing beside it.

The tests take a sample; `make faults` runs this file and prints the figures of docs/reliability.md.
"""

import argparse
import hashlib
import importlib
import itertools
import json
import mmap
import os
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml
from attack_cases import (
    CHECKED,
    FOREIGN,
    HUNG,
    READINGS,
    SECONDS,
    WRITINGS,
    Reading,
    Writing,
    build_ground,
    run_command,
    serve,
)
from faults import at_each_change, kill_at, limit_files

from audiostride import LogMel, create_model
from audiostride.analysis.listening import through_mel
from audiostride.models import files as model_files

VALUES = {"null": None, "-1": -1, "NaN": float("nan"), "text": "text", "list": [], "dict": {}, "huge": 10**30}


class Mutant(NamedTuple):
    """A changed file.

    Attributes:
        kind: "cut", "flip", "field" or "other".
        what: was done to it.
        content: makes the new content, None if the file is gone. Not the content itself: all cuts of a file of n bytes
            hold n^2 / 2 bytes.
    """

    kind: str
    what: str
    content: Callable[[], bytes | None]


def mutants(path: Path, flipped: bool = False) -> list[Mutant]:
    """Every change of a file: each field replaced or removed, each place cut, empty, gone, of another kind.

    Args:
        path: the file.
        flipped: also flip each of its bits.
    """
    content = path.read_bytes()
    made = [Mutant("other", "gone", lambda: None), Mutant("other", "nested", lambda: b"[" * 100_000)]
    made += [Mutant("cut", f"cut at {i}", partial(content.__getitem__, slice(i))) for i in range(len(content))]
    if flipped:
        made += [Mutant("flip", f"bit {i} flipped", partial(_flipped, content, i)) for i in range(8 * len(content))]
    with suppress(UnicodeDecodeError):
        text = content.decode()
        if path.suffix == ".json":
            made += [_field(what, partial(_json, value)) for what, value in changed(json.loads(text))]
        elif path.suffix == ".yaml":
            made += [_field(what, partial(_yaml, value)) for what, value in changed(yaml.safe_load(text))]
        elif path.suffix in (".csv", ".tsv", ".txt"):
            made += [_field(*found) for found in _changed_rows(text, "," if path.suffix == ".csv" else "\t")]
        else:
            made += [_field(*found) for found in _changed_lines(text)]
    return made


def spread(found: Sequence[Mutant], limit: int | None, rng: random.Random) -> list[Mutant]:
    """All mutants, or so many, of each kind alike where there are enough: most of all are cuts."""
    if limit is None or limit >= len(found):
        return list(found)
    kinds = [[mutant for mutant in found if mutant.kind == kind] for kind in ("field", "flip", "cut", "other")]
    for mutants_of_kind in kinds:
        rng.shuffle(mutants_of_kind)
    in_turn = itertools.chain.from_iterable(itertools.zip_longest(*kinds))
    return list(itertools.islice(filter(None, in_turn), limit))


def _field(what: str, content: Callable[[], bytes]) -> Mutant:
    return Mutant("field", what, content)


def _flipped(content: bytes, bit: int) -> bytes:
    made = bytearray(content)
    made[bit // 8] ^= 1 << bit % 8
    return bytes(made)


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=1).encode()


def _yaml(value: Any) -> bytes:
    return yaml.safe_dump(value).encode()


def _text(lines: Sequence[str]) -> bytes:
    return "\n".join([*lines, ""]).encode()


def changed(value: Any, where: str = "") -> Iterator[tuple[str, Any]]:
    """A JSON value with each field in turn replaced by each of `VALUES`, or removed."""
    for name, new in VALUES.items():
        if new != value or type(new) is not type(value):
            yield f"{where or '.'} = {name}", new
    if isinstance(value, dict):
        for key, item in value.items():
            yield f"{where}.{key} removed", {other: it for other, it in value.items() if other != key}
            yield from ((what, value | {key: new}) for what, new in changed(item, f"{where}.{key}"))
    elif isinstance(value, list):
        for i, item in enumerate(value[:4]):
            yield f"{where}[{i}] removed", [*value[:i], *value[i + 1 :]]
            yield from ((what, [*value[:i], new, *value[i + 1 :]]) for what, new in changed(item, f"{where}[{i}]"))


def _changed_lines(text: str) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """JSON lines: the first and the last with each field changed, each line removed, twice."""
    lines = text.splitlines()
    for i in sorted({0, len(lines) - 1}):
        try:
            value = json.loads(lines[i])
        except ValueError:
            return
        for what, new in changed(value):
            yield f"line {i} {what}", partial(_text, [*lines[:i], json.dumps(new), *lines[i + 1 :]])
    for i in range(len(lines)):
        yield f"line {i} removed", partial(_text, [*lines[:i], *lines[i + 1 :]])
        yield f"line {i} twice", partial(_text, [*lines[: i + 1], *lines[i:]])


def _changed_rows(text: str, separator: str) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """A table: each field of the first three rows changed, each of these rows removed, or given twice."""
    lines = text.splitlines()
    for i, line in enumerate(lines[:3]):
        fields = line.split(separator)
        rows = {"removed": [], "twice": [line, line]}
        for j in range(len(fields)):
            rows[f"field {j} removed"] = [separator.join([*fields[:j], *fields[j + 1 :]])]
            for name in ("", "-1", "NaN", "text", "[]", "\0", '"', "1e999"):
                rows[f"field {j} = {name!r}"] = [separator.join([*fields[:j], name, *fields[j + 1 :]])]
        for what, new in rows.items():
            yield f"row {i} {what}", partial(_text, [*lines[:i], *new, *lines[i + 1 :]])


def put(path: Path, mutant: Mutant) -> None:
    """Change a file; a checksum that would reveal a field is made right again, so that more of it is read."""
    content = mutant.content()
    if content is None:
        path.unlink()
        return
    path.write_bytes(content)
    if mutant.kind == "flip":
        return
    with suppress(ValueError, TypeError, AttributeError, RecursionError, OSError):
        if path.name == "config.json" and (path.parent / "model.safetensors").exists():
            settings = json.loads(content)
            if "sha256" in json.dumps(settings):
                model_files.save_config(path, settings, (path.parent / "model.safetensors").read_bytes())
        manifest = path.parent / "manifest.json"
        if path.parent.name.startswith("epoch-") and path != manifest and path.suffix == ".json":
            found = json.loads(manifest.read_text())
            found["files"][path.name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            manifest.write_text(json.dumps(found))


class Finding(NamedTuple):
    """A try that did not end as it should."""

    kind: str
    command: str
    file: str
    what: str
    said: str


def attack_reading(
    ground: Path, scratch: Path, reading: Reading, limit: int | None, rng: random.Random, show: str = ""
) -> tuple[Counter[str], list[Finding]]:
    """Run a command on each change of each file that it reads, or on so many of each file.

    Returns:
        How often each end came ("refused", "same", "said", "other", "foreign", "silent", "hung"), and the last three.
    """
    counts, findings = Counter[str](), []
    whole = _answer(ground, scratch, reading)
    if whole is None:
        return Counter(unusable=1), [Finding("unusable", reading.command, "", "untouched", "see by hand")]
    for pattern in reading.files:
        for path in sorted(ground.glob(pattern)):
            name = str(path.relative_to(ground))
            counted = any(Path(name).match(kind) for kind in reading.counted)
            for mutant in spread(mutants(path, any(map(Path(name).match, CHECKED))), limit, rng):
                kind, said = _try(ground, scratch, reading, name, mutant, whole, counted)
                counts[kind] += 1
                if kind in ("foreign", "hung", "silent", show):
                    findings.append(Finding(kind, reading.command, name, mutant.what, said))
    return counts, findings


def _try(
    ground: Path, scratch: Path, reading: Reading, name: str, mutant: Mutant, whole: str, counted: bool
) -> tuple[str, str]:
    work = _fresh(ground, scratch)
    put(work / name, mutant)
    stdin = str(work / reading.stdin) if reading.stdin else None
    if stdin and not os.path.exists(stdin):
        stdin = None
    ended = run_command(reading.command, work, stdin)
    last = ended.stderr.strip().splitlines()[-1:] or [""]
    if ended.code in HUNG:
        return "hung", f"{SECONDS} s"
    if ended.code == FOREIGN or ended.code < 0 or ended.code not in range(8):
        return "foreign", f"{ended.code}: {_place(ended.stderr)} {last[0][:200]}"
    if ended.code:
        return "refused", last[0]
    result = _result(work, "" if reading.timed else ended.stdout)
    if result == whole:
        return "same", ""
    if re.search(rf"{re.escape(Path(name).name)}|{re.escape(Path(name).parts[0])}/", ended.stderr):
        return "said", last[0]
    if result.count(Path(name).name) > whole.count(Path(name).name):
        return "said", ""
    silent = mutant.kind == "flip" or (counted and mutant.kind == "cut")
    return ("silent" if silent else "other"), _difference(whole, result)


def _difference(whole: str, result: str) -> str:
    """The first line in which two results differ."""
    pairs = itertools.zip_longest(whole.splitlines(), result.splitlines(), fillvalue="")
    return next((f"{new[:90]!r} in place of {old[:90]!r}" for old, new in pairs if new != old), "")


def _place(stderr: str) -> str:
    """The last line of the package in a traceback."""
    found = re.findall(r'audiostride/([\w/]+\.py)", line (\d+)', stderr)
    return ":".join(found[-1]) if found else ""


def _answer(ground: Path, scratch: Path, reading: Reading) -> str | None:
    work = _fresh(ground, scratch)
    ended = run_command(reading.command, work, str(work / reading.stdin) if reading.stdin else None)
    if ended.code:
        print(f"{reading.command}: {ended.code} {ended.stderr[-500:]}", file=sys.stderr)
        return None
    return _result(work, "" if reading.timed else ended.stdout)


def _result(work: Path, stdout: str) -> str:
    """What a command printed and wrote, without what differs from run to run."""
    parts = [re.sub(r"\d+(\.\d+)? ?(s|ms|clips/s)\b", "", stdout)]
    rows = [path for path in work.glob("rows.*") if path.suffix in (".csv", ".jsonl")]
    parts += ["\n".join(sorted(path.read_text(errors="surrogateescape").splitlines())) for path in rows]
    for path in sorted((work / "out").rglob("*")):
        if "checkpoints" in path.parts or path.name == "metrics.jsonl":
            continue  # they hold how fast it went
        if path.suffix in (".csv", ".jsonl", ".json", ".md", ".yaml"):
            parts.append(f"{path.name}\n{path.read_text(errors='surrogateescape')}")
        elif path.suffix in (".wav", ".npz"):
            parts.append(hashlib.sha256(path.read_bytes()).hexdigest())
        elif path.suffix == ".html":
            parts.append(re.sub(r"<svg.*?</svg>", "", path.read_text(), flags=re.DOTALL))
    return "\n".join(parts)


def _fresh(ground: Path, scratch: Path) -> Path:
    shutil.rmtree(scratch, ignore_errors=True)
    shutil.copytree(ground, scratch)
    return scratch


def attack_writing(
    ground: Path, scratch: Path, writing: Writing, limit: int | None, rng: random.Random
) -> tuple[Counter[str], list[Finding]]:
    """Run a command where files may only have so many bytes, and kill it before each change of a file or folder.

    Returns:
        How many tries there were of each kind, and what was left that should not be, or lost.
    """
    counts, findings = Counter[str](), []
    work = _fresh(ground, scratch)
    ended = run_command(writing.command, work)
    if ended.code:
        return Counter(unusable=1), [Finding("unusable", writing.command, "", "untouched", ended.stderr[-300:])]
    written = {path for pattern in writing.files for path in work.glob(pattern) if path.is_file()}
    whole, names = _tree(work), _names(work)
    shutil.rmtree(_made(scratch), ignore_errors=True)
    shutil.copytree(work / "out", _made(scratch))
    sizes = sorted({0, 1, *(size for path in written for size in (path.stat().st_size - 1, path.stat().st_size // 2))})
    for size in sizes if limit is None or limit >= len(sizes) else rng.sample(sizes, limit):
        counts["full disk"] += 1
        findings += _full(ground, scratch, writing, size, whole, names)
    changes = range(1, _count_changes(_fresh(ground, scratch), writing.command) + 1)
    for change in changes if limit is None or limit >= len(changes) else rng.sample(changes, limit):
        found = _killed(ground, scratch, writing, change, whole, names)
        counts["killed"] += found is not None
        findings += found or []
    return counts, findings


def _full(
    ground: Path, scratch: Path, writing: Writing, size: int, whole: dict[str, str], names: set[str]
) -> Iterator[Finding]:
    work, old = _with_old_files(ground, scratch, writing)
    before = _names(work)

    ended = run_command(writing.command, work, before=partial(limit_files, size))
    what, last = f"files of at most {size} bytes", (ended.stderr.strip().splitlines() or [""])[-1][:200]
    if ended.code == 0:
        return
    if ended.code not in range(1, 8):
        yield Finding("foreign", writing.command, "", what, f"{ended.code}: {_place(ended.stderr)} {last}")
    elif "out/" not in ended.stderr and "bytes are free" not in ended.stderr:
        yield Finding("unnamed", writing.command, "", what, last)
    yield from _what_is_left(work, writing, old, before, names, whole, what)


def _killed(
    ground: Path, scratch: Path, writing: Writing, change: int, whole: dict[str, str], names: set[str]
) -> list[Finding] | None:
    """None where the command ended before that change."""
    work, old = _with_old_files(ground, scratch, writing)
    before = _names(work)

    ended = run_command(writing.command, work, before=lambda: at_each_change(work, partial(kill_at, change)))
    if ended.code != -signal.SIGKILL:
        return None
    return list(_what_is_left(work, writing, old, before, names, whole, f"killed before change {change}", killed=True))


def _what_is_left(
    work: Path,
    writing: Writing,
    old: dict[str, str],
    before: set[str],
    names: set[str],
    whole: dict[str, str],
    what: str,
    killed: bool = False,
) -> Iterator[Finding]:
    """After a failure: old files are old or new ones; nothing else is there, or the same command mends it."""
    now = _tree(work)
    for name, digest in old.items():
        if now.get(name) not in (digest, whole.get(name)):
            yield Finding("lost", writing.command, name, what, "neither the old file nor the new one")
    more = {name for name in _names(work) - before if name not in now or now[name] != whole.get(name)}
    if more and not writing.again and not killed:
        yield Finding("left", writing.command, ", ".join(sorted(more))[:200], what, "")
    if writing.again or killed:
        ended = run_command(f"{writing.command} {writing.again}", work)
        if ended.code and not writing.again and "already exists" in ended.stderr:
            return  # what is there is whole, or checked above
        if ended.code:
            last = (ended.stderr.strip().splitlines() or [""])[-1][:200]
            yield Finding("stuck", writing.command, "", what, f"{ended.code}: {last}")
        elif more := _names(work) - names - before:
            yield Finding("left", writing.command, ", ".join(sorted(more))[:200], f"{what}, then run again", "")


def _with_old_files(ground: Path, scratch: Path, writing: Writing) -> tuple[Path, dict[str, str]]:
    """A fresh folder in which an earlier call left its files, if the command replaces them, and their digests."""
    work = _fresh(ground, scratch)
    if writing.again or not _replaces(ground, scratch, writing):
        _fresh(ground, scratch)
    else:
        shutil.copytree(_made(scratch), work / "out", dirs_exist_ok=True)
    return work, _tree(work)


_REPLACES: dict[str, bool] = {}


def _replaces(ground: Path, scratch: Path, writing: Writing) -> bool:
    """Whether a command replaces its own files, which some refuse."""
    if writing.command not in _REPLACES:
        work = _fresh(ground, scratch)
        shutil.copytree(_made(scratch), work / "out", dirs_exist_ok=True)
        _REPLACES[writing.command] = run_command(writing.command, work).code == 0
        _fresh(ground, scratch)
    return _REPLACES[writing.command]


def _made(scratch: Path) -> Path:
    """Where the files of a whole call are kept."""
    return scratch.with_name("made")


def _tree(work: Path) -> dict[str, str]:
    """Digest of every file below `out`."""
    found = [path for path in sorted((work / "out").rglob("*")) if path.is_file()]
    return {str(path.relative_to(work)): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


def _names(work: Path) -> set[str]:
    """Names of every file, without those that differ from run to run."""
    return {
        re.sub(r"tfevents.*", "tfevents", str(path.relative_to(work))) for path in work.rglob("*") if path.is_file()
    }


def _count_changes(work: Path, command: str) -> int:
    """How many files and folders a command makes, opens for writing, renames or removes."""
    with mmap.mmap(-1, 8) as shared:

        def count(number: int) -> None:
            shared[:8] = number.to_bytes(8, "little")

        run_command(command, work, before=lambda: at_each_change(work, count))
        return int.from_bytes(shared[:8], "little")


def warm_up(ground: Path, scratch: Path, commands: Sequence[str]) -> None:
    """Import and compile here what the commands do, so that forked processes need not."""
    frontend = LogMel(sample_rate=8000, n_mels=16, f_max=3900)
    model = create_model("audio_cnn_small_diffstride", heads={"label": 2}, frontend=frontend)
    through_mel(model, np.ones(4000, np.float32))  # numba compiles for each kind of number

    def tell() -> None:
        import atexit  # noqa: F401

        original = os._exit

        def leave(code: int) -> None:
            (ground.parent / "modules").write_text("\n".join(sys.modules))
            original(code)

        os._exit = leave  # type: ignore[assignment]

    for command in commands:
        run_command(command, _fresh(ground, scratch), before=tell)
        for name in (ground.parent / "modules").read_text().splitlines():
            if name not in sys.modules and not name.startswith("__"):
                with suppress(Exception):
                    importlib.import_module(name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("only", nargs="*", help="commands that contain this")
    parser.add_argument("--limit", type=int, help="so many changes of each file, drawn at random, instead of all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--show", default="", help="also list the tries that ended so, such as other")
    parser.add_argument("--skip", choices=["reading", "writing"], default="")
    arguments = parser.parse_args()
    totals = {"reading": Counter[str](), "writing": Counter[str]()}
    folder = Path(tempfile.mkdtemp(dir="/dev/shm" if os.path.isdir("/dev/shm") else None))
    ground, scratch, failed = folder / "ground", folder / "work", False
    ground.mkdir()
    os.environ |= {"XDG_CACHE_HOME": str(scratch / "kept"), "HF_HOME": str(scratch / "kept"), "HF_HUB_OFFLINE": "1"}
    try:
        with serve(scratch) as address:
            build_ground(ground, address)
            wanted = [[c for c in cases if not arguments.only or any(o in c.command for o in arguments.only)]
                      for cases in (READINGS, WRITINGS)]  # fmt: skip
            warm_up(ground, scratch, list(dict.fromkeys(c.command for c in [*wanted[0], *wanted[1]])))
            for kind, cases, attack in (("reading", wanted[0], attack_reading), ("writing", wanted[1], attack_writing)):
                for case in cases if arguments.skip != kind else []:
                    began = time.monotonic()
                    rng = random.Random(f"{arguments.seed} {case.command}")
                    more = (arguments.show,) if kind == "reading" else ()
                    counts, findings = attack(ground, scratch, case, arguments.limit, rng, *more)  # type: ignore[operator]
                    said = ", ".join(f"{n} {end}" for end, n in sorted(counts.items()))
                    wrong = ", ".join(f"{n} {k}" for k, n in Counter(f.kind for f in findings).items()) or "0"
                    print(f"| `{case.command}` | {said} | {wrong} |", flush=True)
                    print(f"  {time.monotonic() - began:.0f} s", file=sys.stderr)
                    for f in findings:
                        print(f"  {f.kind}: {f.file}: {f.what}: {f.said}", file=sys.stderr, flush=True)
                    failed |= bool(findings)
                    totals[kind] += counts
    finally:
        shutil.rmtree(folder)
    for kind, counts in totals.items():
        print(f"{kind}: {counts.total()}: " + ", ".join(f"{n} {end}" for end, n in sorted(counts.items())))
    mb = [resource.getrusage(who).ru_maxrss >> 10 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    print(f"at most {mb[0]} MB of memory in this program, {mb[1]} MB in a command")
    sys.exit(failed)


if __name__ == "__main__":
    main()
