"""Data sets of a hub: a local parquet tree, and a real server that speaks the hub's protocol."""

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from urllib.parse import parse_qsl

import numpy as np
import pytest
import soundfile

from audiostride.data.hub import read_hub
from audiostride.errors import DataError

RATE = 16000
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def wav(value: float, n: int = 800) -> bytes:
    buffer = BytesIO()
    soundfile.write(buffer, np.full(n, value), RATE, format="WAV")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A parquet tree as the hub holds it: an Audio column, class numbers with names, text."""
    datasets = pytest.importorskip("datasets")
    folder = tmp_path_factory.mktemp("hub")
    (folder / "data").mkdir()
    features = datasets.Features(
        {
            "audio": {"bytes": datasets.Value("binary"), "path": datasets.Value("string")},
            "label": datasets.ClassLabel(names=["no", "yes"]),
            "speaker": datasets.Value("string"),
            "tags": datasets.List(datasets.Value("string")),
        }
    )
    for split, n in (("train", 6), ("test", 3)):
        rows = [
            {
                "audio": {"bytes": wav(i / 10), "path": f"{split}{i}.wav" if i else None},
                "label": i % 2,
                "speaker": f"s{i}",
                "tags": ["a", "b"][: i % 3],
            }
            for i in range(n)
        ]
        table = datasets.Dataset.from_list(rows, features=features)
        table = table.cast(datasets.Features({**features, "audio": datasets.Audio(decode=False)}))
        table.to_parquet(str(folder / "data" / f"{split}-00000-of-00001.parquet"))
    return folder


def check(clips: object) -> None:
    assert clips.names[:2] == ["train/0", "train/train1.wav"]  # type: ignore[attr-defined]
    assert clips.splits == ["train"] * 6 + ["test"] * 3  # type: ignore[attr-defined]
    assert clips.columns["label"] == ["no", "yes"] * 3 + ["no", "yes", "no"]  # type: ignore[attr-defined]
    assert clips.columns["tags"][:3] == ["", "a", "a|b"]  # type: ignore[attr-defined]
    np.testing.assert_allclose(clips.read(8, RATE), np.full(800, 0.2), atol=1e-4)  # type: ignore[attr-defined]
    assert clips.select([7, 2]).n_samples(1, RATE) == 800  # type: ignore[attr-defined]


def test_a_local_parquet_tree_is_read_without_torchcodec(tree: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path)
    check(read_hub(tree))
    with pytest.raises(DataError, match="no audio column 'sound' among audio, label"):
        read_hub(tree, audio="sound")
    with pytest.raises(DataError, match="holds Value"):
        read_hub(tree, audio="speaker")


class Hub(BaseHTTPRequestHandler):
    """The part of the hub's protocol that a data set of parquet files needs."""

    tree: Path
    whole: list[str]
    parts: list[tuple[str, int, int]]

    def do_HEAD(self) -> None:
        self.answer(send_body=False)

    def do_GET(self) -> None:
        self.answer(send_body=True)

    def do_POST(self) -> None:
        """Size and kind of some paths."""
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        wanted = [value for key, value in parse_qsl(body) if key == "paths"]
        found = [self.tree / name for name in wanted if (self.tree / name).is_file()]
        entries = [{"type": "file", "path": str(p.relative_to(self.tree)), "oid": COMMIT} for p in found]
        sized = [entry | {"size": p.stat().st_size} for entry, p in zip(entries, found, strict=True)]
        self.reply(200, json.dumps(sized).encode(), send_body=True)

    def answer(self, send_body: bool) -> None:
        path = self.path.partition("?")[0]
        files = {str(p.relative_to(self.tree)): p for p in self.tree.rglob("*.parquet")}
        entries = [{"type": "file", "path": name, "size": p.stat().st_size, "oid": COMMIT} for name, p in files.items()]
        folders = {str(parent) for name in files for parent in Path(name).parents} - {"."}
        entries += [{"type": "directory", "path": folder, "size": 0, "oid": COMMIT} for folder in folders]
        if "/words/" in path + "/" and path.startswith("/api/datasets/ours/words"):
            if "/tree/" in path:
                wanted = path.partition(f"/tree/{COMMIT}")[2].strip("/")
                inside = [e for e in entries if not wanted or e["path"].startswith(wanted + "/")]
                depth = len(Path(wanted).parts) + 1
                whole = "recursive=true" in self.path.lower()
                found = [e for e in inside if whole or len(Path(str(e["path"])).parts) == depth]
                self.reply(200 if found else 404, json.dumps(found).encode(), send_body)
            else:
                about = {
                    "id": "ours/words",
                    "sha": COMMIT,
                    "private": False,
                    "gated": False,
                    "tags": [],
                    "downloads": 0,
                }
                about["siblings"] = [{"rfilename": name} for name in files]
                self.reply(200, json.dumps(about).encode(), send_body)
        elif path.startswith("/datasets/ours/words/resolve/"):
            name = path.split("/", 6)[6]
            if name in files:
                content, etag = files[name].read_bytes(), {"ETag": f'"{name.replace("/", "-")}"'}
                part = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
                if part:
                    type(self).parts.append((name, int(part[1]), int(part[2]) + 1))
                    self.reply(206, content[int(part[1]) : int(part[2]) + 1], send_body, etag)
                else:
                    type(self).whole.append(name)
                    self.reply(200, content, send_body, etag)
            else:
                self.reply(404, b"", send_body, {"X-Error-Code": "EntryNotFound"})
        else:
            self.reply(404, b'{"error": "not found"}', send_body, {"X-Error-Code": "RepoNotFound"})

    def reply(self, status: int, body: bytes, send_body: bool, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"X-Repo-Commit": COMMIT, "Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if send_body:
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(tree: Path) -> Iterator[str]:
    yield from serve(type("Handler", (Hub,), {"tree": tree, "whole": [], "parts": []}))


def serve(handler: type[Hub]) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()
        thread.join()


READ = """
import sys, time
from audiostride.data.hub import read_hub
from audiostride.errors import DataError
began = time.monotonic()
try:
    clips = read_hub(sys.argv[1], streaming="streaming" in sys.argv)
    print(list(clips.names), list(clips.columns["label"]), clips.read(8, 16000)[0])
    if "streaming" in sys.argv:
        import numpy as np
        from audiostride.data.batches import LabelledClips, training_batches
        data = LabelledClips(clips, {"label": np.arange(len(clips))}, list(clips.splits))
        batches = training_batches([data], 16000, 800, 2, "uniform", 0, 0, workers=2)
        print("an epoch:", sorted(name for batch in batches for name in batch.names))
except DataError as error:
    print("DataError", error)
print("seconds", time.monotonic() - began)
"""


def read_from(endpoint: str, name: str, home: Path, *options: str) -> str:
    environment = os.environ | {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"}
    environment.pop("HF_HUB_OFFLINE", None)
    done = subprocess.run(
        [sys.executable, "-c", READ, name, *options], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_data_set_of_a_hub_is_fetched_over_http(hub: str, tmp_path: Path) -> None:
    said = read_from(hub, "ours/words", tmp_path)
    assert "'train/train1.wav'" in said
    assert "['no', 'yes', 'no', 'yes', 'no', 'yes', 'no', 'yes', 'no'] 0.19" in said


@pytest.mark.slow
def test_a_data_set_of_a_hub_is_streamed_over_http(tree: Path, tmp_path: Path) -> None:
    handler = type("Handler", (Hub,), {"tree": tree, "whole": [], "parts": []})
    for address in serve(handler):
        said = read_from(address, "ours/words", tmp_path, "streaming")
    assert "'train/train1.wav'" in said
    assert "['no', 'yes', 'no', 'yes', 'no', 'yes', 'no', 'yes', 'no'] 0.19" in said
    assert handler.parts
    every = ["train/0", *(f"train/train{i}.wav" for i in range(1, 6))]
    assert f"an epoch: {every}" in said
    assert not [file for file in tmp_path.rglob("*") if file.suffix in (".arrow", ".parquet")]


@pytest.mark.slow
def test_a_missing_data_set_and_a_missing_network_are_said_at_once(hub: str, tmp_path: Path) -> None:
    said = read_from(hub, "ours/nothing", tmp_path)
    assert "DataError ours/nothing: is neither a local folder nor a data set on http://127.0.0.1" in said
    said = read_from("http://127.0.0.1:9", "ours/words", tmp_path)
    assert "http://127.0.0.1:9 cannot be reached" in said
    assert "data.path=DIR" in said
    assert float(said.split()[-1]) < 30
