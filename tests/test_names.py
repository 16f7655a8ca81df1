"""Names of any bytes and labels of any characters: exact in data, harmless on a terminal, and never a traceback."""

import csv
import io
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
import soundfile
import torch

from audiostride import create_model
from audiostride.data.annotations import read_labels
from audiostride.errors import Interrupted, UsageError
from audiostride.inference.embedding import Sound
from audiostride.inference.embedding_table import write_embeddings
from audiostride.inference.label_files import label_paths

EVIL = "\x1b]0;title\x07\x1b[2J\x1b[31m"
LABELS = [f"{EVIL}dog", "猫½", "caf\udce9"]
NAMES = [
    b"caf\xe9.wav",
    EVIL.encode() + b".wav",
    b"two\nlines.wav",
    "½ 猫.wav".encode(),
    b'comma,quote".wav',
    b"plain.wav",
]


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("names") / os.fsdecode(b"d\xe9r")
    torch.manual_seed(0)
    create_model("audio_resnet_pico_strided", heads={"word": LABELS}).save(folder / "run")
    (folder / "sounds").mkdir()
    for i, name in enumerate(NAMES):
        with open(os.path.join(os.fsencode(folder / "sounds"), name), "wb") as file:
            soundfile.write(file, 0.1 * np.random.RandomState(i).standard_normal(16000), 16000, format="WAV")
    return folder


def ask(ground: Path, *arguments: str | bytes, **options: object) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "audiostride", *arguments]
    return subprocess.run(command, cwd=ground, capture_output=True, timeout=300, **options)  # type: ignore[call-overload]


def rows(content: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(content.decode("utf-8", "surrogateescape"), newline="")))


@pytest.mark.slow
def test_rows_are_the_same_bytes_on_a_pipe_and_in_a_file(ground: Path) -> None:
    done = ask(ground, "predict", "run", "sounds", "--csv")
    assert done.returncode == 0, done.stderr
    assert ask(ground, "predict", "run", "sounds", "--out", "rows.csv").returncode == 0
    assert done.stdout == (ground / "rows.csv").read_bytes()
    found = rows(done.stdout)
    assert sorted(os.fsencode(row["file"]) for row in found) == sorted(b"sounds/" + name for name in NAMES)
    assert {row["label"] for row in found} <= set(LABELS)
    lines = ask(ground, "predict", "run", "sounds", "--json").stdout.splitlines()
    assert [json.loads(line)["file"] for line in lines] == [row["file"] for row in found]


@pytest.mark.slow
@pytest.mark.parametrize("way", [(), ("--csv",), ("--json",), ("--windows", "--csv")], ids=" ".join)
def test_no_sequence_reaches_a_terminal(ground: Path, way: tuple[str, ...]) -> None:
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "audiostride", "predict", "run", "sounds", "missing" + EVIL, *way],
        cwd=ground, stdin=subprocess.DEVNULL, stdout=theirs, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        os.close(theirs)
        shown = b""
        try:
            while part := os.read(ours, 4096):
                shown += part
        except OSError:  # the other side is closed
            pass
        os.close(ours)
        assert process.stderr is not None
        shown += process.stderr.read()
    assert b"title" in shown
    assert not [code for code in (b"\x1b]", b"\x1b[2J", b"\x1b[31mdog", b"\x07") if code in shown]


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
@pytest.mark.parametrize("way", [(), ("--csv",), ("--json",)], ids=" ".join)
def test_streams_of_few_characters_get_what_they_can_write(ground: Path, encoding: str, way: tuple[str, ...]) -> None:
    done = ask(ground, "predict", "run", "sounds", *way, env=os.environ | {"PYTHONIOENCODING": encoding})
    assert done.returncode == 0, done.stderr
    assert done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shell", "code"),
    [
        ("predict run sounds --out a.csv >&-", 0),
        ("predict run sounds --out b.csv >&- 2>&- <&-", 0),
        ("predict run sounds --csv --windows >&-", 0),
        ("embed run sounds --out c.npz <&- >&- 2>&-", 0),
        ("predict run - <&-", 4),
        ("predict run nowhere >&- 2>&-", 4),
    ],
)
def test_closed_streams_change_nothing_but_what_is_shown(ground: Path, shell: str, code: int) -> None:
    command = f'"{sys.executable}" -m audiostride {shell}'
    done = subprocess.run(["sh", "-c", command], cwd=ground, capture_output=True, timeout=300)
    assert done.returncode == code, done.stderr
    assert b"Traceback" not in done.stderr
    for name in ("a.csv", "b.csv"):
        if name in shell:
            assert len(rows((ground / name).read_bytes())) == len(NAMES)


@pytest.mark.slow
def test_every_name_goes_into_tables_of_embeddings(ground: Path) -> None:
    for name in ("e.npz", "e.parquet"):
        done = ask(ground, "embed", "run", "sounds", "-o", name)
        assert done.returncode == 0, done.stderr
    names = [os.fsencode(name) for name in np.load(ground / "e.npz")["path"].tolist()]
    assert sorted(names) == sorted(b"sounds/" + name for name in NAMES)
    table = pyarrow.parquet.read_table(pyarrow.BufferReader((ground / "e.parquet").read_bytes()))
    assert "sounds/caf\\udce9.wav" in table["path"].to_pylist()
    assert len(set(table["path"].to_pylist())) == len(NAMES)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["audacity", "raven"])
def test_label_files_of_any_label_continue_where_they_were_stopped(ground: Path, kind: str) -> None:
    assert ask(ground, "predict", "run", "sounds", "--format", kind, "--out", kind).returncode == 0
    files = sorted((ground / kind).iterdir())
    assert len(files) == len(NAMES)
    assert b"caf\xe9" in b"".join(file.read_bytes() for file in files) or read_labels(files[0])
    first, gone = files[0].read_bytes(), files[-1].read_bytes()
    files[0].write_bytes(first + b"\n")
    files[-1].unlink()
    said = ask(ground, "predict", "run", "sounds", "--format", kind, "--out", kind)
    assert said.returncode == 2
    assert b"already exists" in said.stderr
    assert ask(ground, "predict", "run", "sounds", "--format", kind, "--out", kind, "--resume").returncode == 0
    assert files[0].read_bytes() == first + b"\n"
    assert files[-1].read_bytes() == gone


@pytest.mark.slow
@pytest.mark.parametrize(("format", "ending"), [("torch", ".pt2"), ("onnx", ".onnx")])
def test_a_model_is_exported_to_any_path(ground: Path, format: str, ending: str) -> None:
    path = os.fsencode(f"m\udce9\x1b[2J{ending}")
    done = ask(ground, "export", "run", "--format", format, "--clips", "sounds", "--out", path)
    assert done.returncode == 0, done.stderr
    assert os.path.getsize(os.path.join(os.fsencode(ground), path)) > 10_000


def test_what_interrupts_an_embedding_leaves_what_is_done(tmp_path: Path) -> None:
    model = create_model("audio_resnet_pico_strided", heads={"word": 2}).eval()

    def stop() -> list[np.ndarray]:
        raise KeyboardInterrupt

    sounds = [Sound(f"{i}", lambda: [np.zeros(16000, np.float32)]) for i in range(3)] + [Sound("3", stop)]
    with pytest.raises(Interrupted, match="holds the 2 of 4 sounds that were done") as caught:
        write_embeddings(model, sounds, tmp_path / "e.npz", batch_size=1, workers=0)
    assert caught.value.exit_code == 130
    assert np.load(tmp_path / "e.npz")["embedding"].shape == (2, model.trunk.num_features)
    asked: list[str] = []
    never = [Sound("a", lambda: asked.append("a") or [])]  # type: ignore[func-returns-value]
    with pytest.raises(UsageError, match="already exists"):
        write_embeddings(model, never, tmp_path / "e.npz")
    with pytest.raises(OSError, match="cannot be written"):
        write_embeddings(model, never, tmp_path / "e.npz/e.npz")
    assert asked == []


def test_paths_of_many_label_files_are_found_once_each() -> None:
    names = [f"{i % 100}/{i}.wav" for i in range(100_000)]
    assert len(set(label_paths(names, Path("nowhere"), ".txt").values())) == len(names)
    with pytest.raises(UsageError, match="would share the label file"):
        label_paths([*names, "7/7.flac"], Path("nowhere"), ".txt")
