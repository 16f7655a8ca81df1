"""Coverage-guided fuzzing of everything that reads a file: only our own errors, in bounded time and memory.

    python tests/fuzz.py [--seconds 300] [TARGET ...]

needs atheris (`make fuzz` installs it) and prints the figures of docs/reliability.md as Markdown. Each
target takes bytes as a fuzzer makes them; the tests take the targets, too, without atheris.
"""

import argparse
import atexit
import contextlib
import hashlib
import io
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

MAX_CPU_S = 10.0
MAX_MEMORY_MB = 1500

try:
    import atheris
except ImportError:  # the tests do without
    atheris = None
# What is imported inside is compiled with counters that tell the fuzzer which branch an input took.
guided = atheris is not None and "--inside" in sys.argv
with (
    atheris.instrument_imports(include=["audiostride", "yaml", "tarfile", "zipfile", "json", "csv"])
    if guided
    else (contextlib.nullcontext())
):
    import tarfile
    import zipfile

    import torch

    from audiostride.data.annotations import read_annotated
    from audiostride.data.download import extract
    from audiostride.data.folder import read_folder
    from audiostride.data.manifest import read_manifest
    from audiostride.data.shards import read_shards
    from audiostride.errors import AudiostrideError, DataError, ModelFileError, RecipeError
    from audiostride.models import classifier
    from audiostride.models import files as model_files
    from audiostride.models.audio_cnn import AudioCNN
    from audiostride.models.log_mel import LogMel
    from audiostride.training import checkpoints as checkpoint
    from audiostride.training import resuming as resume
    from audiostride.training.conditions import check_conditions
    from audiostride.training.recipe import load_recipe
    from audiostride.training.shipped_recipes import shipped_recipes


def _scratch_folder() -> Path:
    """A folder in memory, removed at the end of this process, or of the one that began it where it names one."""
    if "FUZZ_SCRATCH" in os.environ:
        return Path(os.environ["FUZZ_SCRATCH"])
    folder = Path(tempfile.mkdtemp(prefix="fuzz-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


SCRATCH = _scratch_folder()


def scratch() -> Path:
    """An empty folder in memory, the same for each input."""
    folder = SCRATCH / "input"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


def recipe(data: bytes) -> None:
    """A recipe; what follows the first null byte is an override."""
    content, _, override = data.partition(b"\0")
    path = scratch() / "recipe.yaml"
    path.write_bytes(content)
    load_recipe(str(path), [override.decode("utf-8", "replace")] if override else [])


def manifest(data: bytes) -> None:
    """A table of clips: the first byte says of which kind."""
    folder, kind = scratch(), data[0] % 5 if data else 0
    for name in ("a.wav", "b.wav"):
        (folder / name).touch()
    if kind < 3:
        path = folder / f"table{('.csv', '.tsv', '.jsonl')[kind]}"
        path.write_bytes(data[1:])
        read_manifest(path)
    elif kind == 3:
        (folder / "metadata.csv").write_bytes(data[1:])
        read_folder(folder)
    else:
        (folder / "a.txt").write_bytes(data[1:])
        read_annotated(folder)


def header(data: bytes) -> None:
    """A saved model or checkpoint one of whose files is replaced, with all checksums made right again."""
    folder, kind = scratch(), data[0] % 5 if data else 0
    if kind < 2:
        config, weights = MODEL["config.json"], MODEL["model.safetensors"]
        config, weights = (data[1:], weights) if kind == 0 else (config, data[1:])
        (folder / "config.json").write_bytes(config)
        with contextlib.suppress(ValueError, AttributeError, RecursionError, TypeError):
            model_files.save_config(folder / "config.json", json.loads(config), weights)
        (folder / "model.safetensors").write_bytes(weights)
        classifier.load(folder)
        return
    files = dict(CHECKPOINT)
    files[("manifest.json", "state.json", "model.safetensors")[kind - 2]] = data[1:]
    folder /= checkpoint.checkpoint_name(1, 2)
    folder.mkdir()
    if kind > 2:
        entries = {
            name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            for name, content in files.items()
            if name != "manifest.json"
        }
        files["manifest.json"] = json.dumps({"format": 1, "name": folder.name, "files": entries}).encode()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    found = checkpoint.load_checkpoint(folder)
    check_conditions({}, found.state.get("conditions", {}), True, lambda _: None)
    small_run().restore(found)


def archive(data: bytes) -> None:
    """An archive, unpacked; and read as a shard."""
    folder = scratch()
    path = folder / "train-000.tar"
    path.write_bytes(data)
    errors = 0
    for read in (lambda: extract(path, folder / "out"), lambda: read_shards(path)):
        try:
            read()
        except DataError:
            errors += 1
    strange = [p for p in folder.rglob("*") if p.is_symlink() or not (p.is_file() or p.is_dir())]
    assert not strange, f"links or devices were made: {strange}"
    if errors == 2:
        raise DataError("neither")


TARGETS: dict[str, tuple[Callable[[bytes], None], type[AudiostrideError]]] = {
    "recipe": (recipe, RecipeError),
    "manifest": (manifest, DataError),
    "header": (header, ModelFileError),
    "archive": (archive, DataError),
}


TOKENS = [b"1" * 30, b"-1", b"1e999", b"null", b"[]", b"{}", b'""', b"*a", b"&a ", b"!!", b"\xff", b"\0", b"../", b"\n"]
"""Pieces that parsers trip over."""


def try_input(name: str, data: bytes) -> bool:
    """Give bytes to a target: whether it read them; False if it refused them with its own error.

    Raises:
        Exception: any other error, which is a finding.
    """
    target, own_error = TARGETS[name]
    began = time.process_time()
    accepted = False
    with contextlib.suppress(own_error):
        target(data)
        accepted = True
    seconds = time.process_time() - began
    assert seconds < MAX_CPU_S, f"took {seconds:.1f} s"
    return accepted


def small_run() -> resume.RunState:
    """A run of the smallest model."""
    model = classifier.AudioClassifier(LogMel(n_mels=16), AudioCNN("diffstride", (2,), ((2, 2),)), {"word": ["a", "b"]})
    return resume.RunState(model, None, torch.optim.Adam(model.parameters()))


def seeds(name: str) -> Iterator[bytes]:
    """Real files to begin with."""
    if name == "recipe":
        for path in shipped_recipes().values():
            yield path.read_bytes()
        yield shipped_recipes()["ripples"].read_bytes() + b"\0train.epochs=3"
        yield b"a: &a [1, 2]\nb: *a\n? {c: |\n  d}\n: !!python/name:e\n"
    elif name == "manifest":
        rows = ["file start_s end_s split label", "a.wav 0 1.5 train wren", "b.wav 2 3.25 test robin"]
        yield b"\0" + "\n".join(rows).replace(" ", ",").encode()
        yield b'\0\xef\xbb\xbffile,label\r\n"a.wav","two\nlines"\r\n'
        yield b"\1" + "\n".join(rows).replace(" ", "\t").encode()
        yield b'\2{"file": "a.wav", "label": ["x", "y"], "n": 1.5}\n{"file": "b.wav", "deep": {"a": null}}\n'
        yield b"\3file_name,label,speaker\na.wav,wren,1\nb.wav,robin,2\n"
        yield b"\0041.5\t2.25\twren\n\\\t100\t2000\n"
        raven = [
            "Selection,View,Begin Time (s),End Time (s),Low Freq (Hz),High Freq (Hz),Species",
            "1,S 1,1,2,0,9,wren",
        ]
        yield b"\4" + "\n".join(raven).replace(",", "\t").encode()
    elif name == "header":
        yield b"\0" + MODEL["config.json"]
        yield b"\0" + MODEL["config.json"].replace(b"[\n   2\n  ]", b"[1000000000]").replace(b"512", b"1000000000")
        yield b"\1" + MODEL["model.safetensors"]
        yield b"\2" + CHECKPOINT["manifest.json"]
        yield b"\3" + CHECKPOINT["state.json"]
        yield b"\4" + CHECKPOINT["model.safetensors"]
    else:
        members = {"a.wav": b"RIFF", "a.json": b'{"label": "x"}', "b/c.flac": b"fLaC", "b/c.cls": b"3"}
        for mode in ("w", "w:gz", "w:bz2", "w:xz"):
            kind = tarfile.PAX_FORMAT if mode == "w" else tarfile.GNU_FORMAT
            file = io.BytesIO()
            with tarfile.open(fileobj=file, mode=mode, format=kind) as tar:
                for member, content in members.items():
                    info = tarfile.TarInfo(member)
                    info.size = len(content)
                    if mode == "w":
                        info.pax_headers = {"comment": "ü"}
                    tar.addfile(info, io.BytesIO(content))
                if mode == "w:gz":
                    info = tarfile.TarInfo("link")
                    info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
                    tar.addfile(info)
            yield file.getvalue()
        for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            file = io.BytesIO()
            with zipfile.ZipFile(file, "w", compression) as zipped:
                for member, content in members.items():
                    zipped.writestr(member, content)
            yield file.getvalue()


def _model_files() -> tuple[dict[str, bytes], dict[str, bytes]]:
    torch.manual_seed(0)
    run, folder = small_run(), Path(tempfile.mkdtemp())
    run.model.save(folder)
    model = {file.name: file.read_bytes() for file in folder.iterdir()}
    run.model(torch.zeros(2, 16000))["word"].sum().backward()
    run.optimizer.step()
    run.epoch, run.step = 1, 2
    checkpoint.save_checkpoint(folder, run.checkpoint({"seed": 0}))
    saved = {file.name: file.read_bytes() for file in (folder / run.name).iterdir()}
    shutil.rmtree(folder)
    return model, saved


MODEL, CHECKPOINT = _model_files()


def fuzz(name: str, seconds: int) -> str:
    """Fuzz one target in a process of its own; returns a row of figures, or what was found."""
    corpus = SCRATCH / "corpus"
    corpus.mkdir()
    findings = Path(tempfile.gettempdir(), f"fuzz-{name}-")
    for i, seed in enumerate(seeds(name)):
        (corpus / f"seed-{i}").write_bytes(seed)
    options = [f"-max_total_time={seconds}", "-timeout=120", f"-rss_limit_mb={MAX_MEMORY_MB}", "-max_len=65536"]
    options += ["-print_final_stats=1", f"-artifact_prefix={findings}", "-seed=1"]
    command = [sys.executable, __file__, "--inside", name, *options, str(corpus)]
    environment = os.environ | {"FUZZ_SCRATCH": str(SCRATCH)}
    began = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", env=environment)
    hours = (time.monotonic() - began) / 3600
    told = done.stderr + done.stdout
    if done.returncode:
        sys.exit(f"{told[-5000:]}\nended with {done.returncode}; the input is {findings}...")
    executions = int(re.findall(r"number_of_executed_units: (\d+)", told)[-1])
    before, after = (re.findall(r"\bcov: (\d+)", told)[i] for i in (0, -1))
    kept = len(list(corpus.iterdir()))
    shutil.rmtree(corpus)
    return f"| {name} | {executions:,} in {hours:.2f} h | {before} to {after} branches, {kept} inputs kept | 0 |"


def _inside(name: str, options: list[str]) -> None:
    # The fuzzer looks at what is in memory once a second; an allocation beyond the limit fails at once.
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + (MAX_MEMORY_MB << 20),) * 2)
    atheris.Setup([sys.argv[0], *options], lambda data: void(try_input(name, data)))
    atheris.Fuzz()


def void(_: object) -> None:
    """The fuzzer takes no other answer than None."""


def main() -> None:
    if "--inside" in sys.argv:
        _inside(sys.argv[2], sys.argv[3:])
    parser = argparse.ArgumentParser(description="Fuzz every reader of files and print the figures.")
    parser.add_argument("target", nargs="*", choices=[*TARGETS, []], default=list(TARGETS))
    parser.add_argument("--seconds", type=int, default=300, help="for each target")
    arguments = parser.parse_args()
    if atheris is None:
        sys.exit("atheris is not installed: pip install 'audiostride[fuzz]'")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # and what is in memory is removed
    print(f"atheris {atheris.__version__ if hasattr(atheris, '__version__') else ''}, {os.cpu_count()} cores\n")
    for name in arguments.target:
        print(fuzz(name, arguments.seconds), flush=True)


if __name__ == "__main__":
    main()
