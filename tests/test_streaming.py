"""Data sets that are streamed: shards on a real web server and parquet row groups, against the same on a disk."""

import io
import json
import os
import re
import signal
import socketserver
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import soundfile

from audiostride.data.batches import LabelledClips, training_batches
from audiostride.data.cache import cached
from audiostride.data.clips import Clips
from audiostride.data.epoch_plan import plan_epoch, shuffled
from audiostride.data.hub import read_hub
from audiostride.data.leaks import same_content
from audiostride.data.shards import read_shards
from audiostride.data.streaming import Blocks, StreamedClips, read_range
from audiostride.errors import DataError
from audiostride.training.build import check_recipe
from audiostride.training.recipe import load_recipe
from audiostride.training.run import run

RATE = 16000
TINY = ["model.channels=[4,4,4,4,4,4]", "train.epochs=2", "train.batch_size=8"]


def sound(index: int) -> bytes:
    """A low or a high tone of its own pitch."""
    buffer = io.BytesIO()
    time_s = np.arange(4000) / RATE
    soundfile.write(buffer, 0.5 * np.sin(2 * np.pi * (300 + 2000 * (index % 2) + index) * time_s), RATE, format="WAV")
    return buffer.getvalue()


def write_shard(path: Path, indexes: range) -> None:
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for i in indexes:
            for name, content in ((f"{i}.wav", sound(i)), (f"{i}.json", json.dumps({"label": i % 2}).encode())):
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))


class Server(SimpleHTTPRequestHandler):
    """Serves files, whole or in part, and remembers what was asked for."""

    ranges: list[tuple[str, int, int]] = []  # noqa: RUF012
    whole: list[str] = []  # noqa: RUF012
    failures: list[int] = []  # noqa: RUF012
    version = ""  # "": as the modules of the standard library do, the time of change
    obeys = True

    def end_headers(self) -> None:
        if type(self).version and type(self).version != "none":
            self.send_header("ETag", type(self).version)
        super().end_headers()

    def send_header(self, keyword: str, value: str) -> None:
        if keyword != "Last-Modified" or not type(self).version:
            super().send_header(keyword, value)

    def do_GET(self) -> None:
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if not wanted:
            type(self).whole.append(self.path)
            return super().do_GET()
        if type(self).failures:
            return self.send_error(type(self).failures.pop(0))
        if type(self).obeys and self.headers.get("If-Match", type(self).version) != type(self).version:
            return self.send_error(412)
        first, last = int(wanted[1]), int(wanted[2]) + 1
        type(self).ranges.append((self.path, first, last))
        content = Path(self.translate_path(self.path)).read_bytes()[first:last]
        self.send_response(206)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
        return None

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four shards of 20 clips for training and one of 10 for the test."""
    folder = tmp_path_factory.mktemp("shards")
    for shard in range(4):
        write_shard(folder / f"train-{shard:03d}.tar", range(20 * shard, 20 * shard + 20))
    write_shard(folder / "test-000.tar", range(100, 110))
    return folder


@pytest.fixture
def server(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "index"))
    monkeypatch.setattr("audiostride.data.shards.BLOCK_BYTES", 45_000)  # four clips
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Server, directory=str(folder))) as http:
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        Server.ranges, Server.whole, Server.failures, Server.version, Server.obeys = [], [], [], "", True
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()
        thread.join()


def addresses(server: str) -> list[str]:
    return [f"{server}/train-{{000..003}}.tar", f"{server}/test-000.tar"]


def assert_same(streamed: Clips, own: Clips) -> None:
    order = [list(own.names).index(name) for name in streamed.names]
    assert sorted(order) == list(range(len(own)))
    for name, values in own.columns.items():
        assert list(streamed.columns[name]) == [values[i] for i in order]
    assert list(streamed.splits) == [own.splits[i] for i in order]
    for i in range(0, len(own), 7):
        np.testing.assert_array_equal(streamed.read(i, RATE), own.read(order[i], RATE))


def test_shards_on_a_server_are_the_shards_on_the_disk(server: str, folder: Path) -> None:
    assert_same(read_shards(addresses(server)), read_shards(folder))
    assert len(Server.whole) == 5
    read_shards(addresses(server))
    first, last = max((last - first, (first, last)) for _, first, last in Server.ranges)[1]
    assert last - first <= 45_000


def test_the_headers_of_a_shard_are_read_once_until_it_changes(server: str, folder: Path, tmp_path: Path) -> None:
    first = read_shards(addresses(server))
    kept = sorted((tmp_path / "index").rglob("*.json"))
    assert len(kept) == 5
    kept[0].write_text("damaged")
    again = read_shards(addresses(server))
    assert again.names == first.names
    write_shard(folder / "train-009.tar", range(3))
    try:
        assert len(read_shards(f"{server}/train-009.tar")) == 3
        write_shard(folder / "train-009.tar", range(5))
        assert len(read_shards(f"{server}/train-009.tar")) == 5
    finally:
        (folder / "train-009.tar").unlink()


@pytest.mark.parametrize("version", ['"1"', 'W/"1"', "none"])
@pytest.mark.parametrize("obeys", [True, False])
def test_a_shard_that_is_replaced_while_it_is_streamed_is_noticed(
    server: str, folder: Path, version: str, obeys: bool
) -> None:
    """By another with clips of the same sizes at the same places, which only the server or the headers tell."""
    Server.version, Server.obeys = version, obeys
    write_shard(folder / "train-009.tar", range(20, 40))
    try:
        clips = read_shards(f"{server}/train-009.tar")
        clips.read(0, RATE)
        write_shard(folder / "train-009.tar", range(60, 80))
        Server.version = version.replace("1", "2")
        with pytest.raises(DataError, match=r"train-009\.tar: was replaced"):
            clips.read(19, RATE)
        again = read_shards(f"{server}/train-009.tar")
        assert again.names[0] == "train-009/60.wav"  # an index without a version is not kept
        again.read(19, RATE)
    finally:
        (folder / "train-009.tar").unlink()


def test_a_shard_on_the_disk_that_is_replaced_is_noticed(tmp_path: Path) -> None:
    write_shard(tmp_path / "train-000.tar", range(20, 40))
    clips = read_shards(tmp_path)
    write_shard(tmp_path / "train-000.tar", range(60, 80))
    with pytest.raises(DataError, match=r"train-000\.tar: was replaced"):
        clips.read(3, RATE)


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize(
    "name", ["d/" * 60 + "a.wav", "x" * 120 + ".wav", "\xe9/\u4e2d.wav", "./a.wav", "a" * 95 + ".wav"]
)
def test_members_of_any_name_are_recognised_by_their_header(tmp_path: Path, format: int, name: str) -> None:
    try:
        with tarfile.open(tmp_path / "train-000.tar", "w", format=format) as tar:
            info = tarfile.TarInfo(name)
            info.size = len(sound(1))
            tar.addfile(info, io.BytesIO(sound(1)))
    except ValueError:  # this format cannot hold it
        return
    assert len(read_shards(tmp_path).read(0, RATE)) == 4000


@pytest.mark.parametrize(
    "content",
    [
        *("5", "null", "{}", '[["a"]]', "[" * 10_000, '[["a.wav", {}, 512, 100000000000]]', '[["a.wav", 5, 512, 8]]'),
        *('[["a.wav", {"label": 3}, 512, 8]]', '[["a.wav", {}, -512, 8]]', "[[3, {}, 512, 8]]"),
    ],
)
def test_a_kept_index_of_another_kind_is_read_anew(server: str, tmp_path: Path, content: str) -> None:
    expected = read_shards(f"{server}/test-000.tar")
    (kept,) = (tmp_path / "index").rglob("*.json")
    kept.write_text(content)
    assert read_shards(f"{server}/test-000.tar").names == expected.names


def test_a_pipe_in_the_place_of_a_shard_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "train-000.tar")
    with pytest.raises(DataError, match=r"train-000\.tar: is not a file"):
        read_shards(tmp_path)


def labelled(clips: Clips) -> list[LabelledClips]:
    return [LabelledClips(clips, {"label": np.array([int(x) for x in clips.columns["label"]])}, list(clips.splits))]


def test_an_epoch_of_several_workers_fetches_every_block_once(server: str) -> None:
    data = labelled(read_shards(addresses(server)))
    names = [
        name for batch in training_batches(data, RATE, RATE, 8, "uniform", 0, 0, workers=2) for name in batch.names
    ]
    assert len(names) == len(set(names)) == 80
    assert len(Server.ranges) == len(set(Server.ranges)) == 20


def test_ranks_share_the_clips_of_every_batch_without_overlap(server: str) -> None:
    data = labelled(read_shards(addresses(server)))
    shares = []
    for index in range(3):
        batches = training_batches(data, RATE, RATE, 8, "uniform", 0, 0, workers=0, process=(index, 3))
        shares.append([name for batch in batches for name in batch.names])
    assert sorted(len(share) for share in shares) == [20, 30, 30]
    assert len(set().union(*shares)) == 80


def test_a_streamed_epoch_can_be_taken_up_at_any_batch_to_the_bit(server: str) -> None:
    data = labelled(read_shards(addresses(server)))
    whole = list(training_batches(data, RATE, RATE, 8, "uniform", 3, 1, workers=0))
    rest = list(training_batches(data, RATE, RATE, 8, "uniform", 3, 1, workers=0, first=6))
    for batch, expected in zip(rest, whole[6:], strict=True):
        assert batch.names == expected.names
        np.testing.assert_array_equal(batch.waveform, expected.waveform)


def test_blocks_are_gone_through_a_few_at_a_time_and_each_epoch_in_another_order() -> None:
    blocks = np.repeat(np.arange(64), 10)
    for mixing in ("uniform", "proportional", 2.0):
        seen: list[np.ndarray] = []
        for epoch in range(2):
            plan = plan_epoch([640, 100], 10, mixing, 0, epoch, [blocks, None])
            mine = np.concatenate([rows for ((number, rows),) in plan if number == 0])
            for first in range(0, len(mine) - 160, 40):
                assert len(np.unique(blocks[mine[first : first + 160]])) <= 32
            seen.append(mine)
        assert not np.array_equal(*(part[:100] for part in seen))
    order = shuffled(640, np.random.default_rng(0), blocks)
    assert sorted(order) == list(range(640))
    assert len(np.unique(blocks[order[:40]])) > 10


def test_an_old_block_makes_room_and_is_fetched_again() -> None:
    fetched: list[int] = []

    def fetch(number: int) -> list[bytes]:
        fetched.append(number)
        return [b"", str(number).encode()]

    blocks = Blocks(fetch, kept=2)
    for number in (1, 2, 2, 3, 1):
        assert blocks.read(number, 1) == str(number).encode()
        assert blocks.read(number, 0) == b""
    assert fetched == [1, 2, 3, 1]
    (blocks.folder / "9.part").mkdir()  # stands for any reason why nothing can be written
    with pytest.raises(DataError, match="set TMPDIR to a folder with more room"):
        blocks.read(9, 0)
    folder = blocks.folder
    assert folder.exists()
    del blocks
    assert not folder.exists()


def test_what_a_killed_process_left_is_removed_by_the_next_and_the_living_keep_theirs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = (
        "import os, signal; from audiostride.data.streaming import Blocks\n"
        "blocks = Blocks(lambda number: [b'sound']); blocks.read(7, 0)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    killed = subprocess.run([sys.executable, "-c", code], env=os.environ | {"TMPDIR": str(tmp_path)}, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    assert (left / "7").is_file()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    mine, other = Blocks(lambda number: [b"mine"]), Blocks(lambda number: [b"other"])
    assert set(tmp_path.iterdir()) == {mine.folder, other.folder}
    assert (mine.read(7, 0), other.read(7, 0)) == (b"mine", b"other")


def test_a_server_in_trouble_is_asked_again_and_a_refusal_is_named(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("audiostride.data.streaming.time.sleep", lambda seconds: None)
    clips = read_shards(f"{server}/train-000.tar")
    Server.failures = [503, 500]
    assert len(clips.read(0, RATE)) == 4000
    Server.failures = [403]
    with pytest.raises(DataError, match=r"train-000/19.wav: http.*train-000.tar: cannot be streamed \(HTTP 403"):
        clips.read(19, RATE)


def test_a_server_without_ranges_a_missing_shard_and_no_network_are_named(server: str, folder: Path) -> None:
    class Plain(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Plain, directory=str(folder))) as http:
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        clips = read_shards(f"http://127.0.0.1:{http.server_port}/test-000.tar")
        with pytest.raises(DataError, match="does not serve parts of a file"):
            clips.read(0, RATE)
        http.shutdown()
        thread.join()
    with pytest.raises(DataError, match=r"train-007.tar: HTTP 404"):
        read_shards(f"{server}/train-007.tar")
    with pytest.raises(DataError, match=r"cannot be reached(?s:.)*give their folder"):
        read_shards("http://127.0.0.1:9/train-000.tar")
    (folder / "bad.bin").write_bytes(b"no tar " * 400)
    with pytest.raises(DataError, match=r"bad.bin: is not a plain tar file"):
        read_shards(f"{server}/bad.bin")


def test_a_server_that_does_not_speak_http_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Nonsense(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(4096)
            self.request.sendall(b"220 ready\r\n\r\n")

    monkeypatch.setattr("audiostride.data.streaming.time.sleep", lambda seconds: None)
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Nonsense) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{other.server_address[1]}/train-000.tar"
        with pytest.raises(DataError, match=r"train-000.tar: cannot be reached"):
            read_shards(address)
        with pytest.raises(DataError, match=r"train-000.tar: cannot be streamed"):
            read_range(address, 0, 10)
        other.shutdown()


@pytest.mark.parametrize("pattern", ["train-{009..001}.tar", "train-{0..999999}.tar"])
def test_a_brace_range_that_is_none_is_named(pattern: str) -> None:
    with pytest.raises(DataError, match="is not a range of up to"):
        read_shards(pattern)


def test_the_cache_takes_in_a_stream_in_one_pass(server: str, folder: Path, tmp_path: Path) -> None:
    clips = read_shards(addresses(server))
    assert isinstance(clips, StreamedClips)
    ours, bad = cached(clips, RATE, tmp_path / "cache")
    assert len(Server.ranges) == len(set(Server.ranges)) == 23
    assert_same(ours, read_shards(folder))
    assert bad == []
    ours, _ = cached(read_shards(addresses(server)), RATE, tmp_path / "cache")
    assert len(Server.ranges) == 23


def shard_recipe(path: object, *overrides: str):
    data = f"tasks.label.data={{source: shards, path: {json.dumps(path)}, check: none}}"
    return load_recipe("folder", [data, *TINY, *overrides])


@pytest.mark.slow
def test_a_run_trains_from_a_web_server(server: str, tmp_path: Path) -> None:
    results = run(shard_recipe(addresses(server), "train.workers=2"), tmp_path / "run")
    assert results["tasks"]["label"]["n"] == 10
    curve = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert curve[-1]["step"] == 18
    assert curve[-1]["tasks"]["label"]["loss"] < 1
    assert len(Server.whole) == 5


def test_copies_in_shards_are_found(folder: Path, server: str, tmp_path: Path) -> None:
    for name, indexes in (("train-0.tar", range(30)), ("test-0.tar", range(25, 35))):
        write_shard(tmp_path / name, indexes)
    with pytest.raises(DataError, match=r"the same recording is in test and (train|validation): .*\d.wav") as caught:
        check_recipe(shard_recipe(str(tmp_path)))
    assert "set tasks.label.data.allow_shared_groups=true" in str(caught.value)
    assert len(same_content(read_shards([f"{server}/train-000.tar", f"{server}/train-000.tar"]))) == 20


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A parquet tree in row groups of ten clips, as the hub holds audio."""
    datasets = pytest.importorskip("datasets")
    folder = tmp_path_factory.mktemp("tree")
    features = datasets.Features(
        {
            "audio": {"bytes": datasets.Value("binary"), "path": datasets.Value("string")},
            "label": datasets.ClassLabel(names=["low", "high"]),
            "who": datasets.Value("string"),
        }
    )
    for split, n in (("train-00000-of-00002", 40), ("train-00001-of-00002", 40), ("test-00000-of-00001", 20)):
        base = {"train-00000-of-00002": 0, "train-00001-of-00002": 40}.get(split, 100)
        rows = [
            {
                "audio": {"bytes": sound(base + i), "path": f"{base + i}.wav" if i % 2 else None},
                "label": i % 2,
                "who": str(i),
            }
            for i in range(n)
        ]
        table = datasets.Dataset.from_list(rows, features=features)
        table = table.cast(datasets.Features({**features, "audio": datasets.Audio(decode=False)}))
        table.to_parquet(str(folder / f"{split}.parquet"), batch_size=10)
    return folder


def test_a_streamed_parquet_tree_is_the_one_that_is_loaded(tree: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path)
    streamed = read_hub(tree, streaming=True)
    assert isinstance(streamed, StreamedClips)
    assert_same(streamed, read_hub(tree))
    assert len(np.unique(streamed.block_numbers())) == 10
    with pytest.raises(DataError, match="no audio column 'sound' among audio, label, who"):
        read_hub(tree, audio="sound", streaming=True)
    with pytest.raises(DataError, match="holds Value"):
        read_hub(tree, audio="who", streaming=True)


@pytest.mark.parametrize("streaming", [False, True])
def test_sounds_of_one_name_stay_apart(tmp_path: Path, monkeypatch, streaming: bool) -> None:
    """`datasets` keeps the last part of a path alone: no/a.wav and yes/a.wav are both a.wav in parquet."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    names = ["a.wav", "b.wav", "a.wav", "a.wav"]
    table = datasets.Dataset.from_dict(
        {"audio": [{"bytes": sound(i), "path": name} for i, name in enumerate(names)], "label": ["no", "yes"] * 2}
    )
    table = table.cast_column("audio", datasets.Audio(decode=False))
    table.to_parquet(str(tmp_path / "train-00000-of-00001.parquet"))
    clips = read_hub(tmp_path, streaming=streaming)
    assert list(clips.names) == ["train/a.wav", "train/b.wav", "train/a.wav (2)", "train/a.wav (3)"]


def test_only_parquet_is_streamed(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "train.csv").write_text("audio,label\na.wav,x\n")
    with pytest.raises(DataError, match=r"only parquet files can be streamed, not .*train\.csv"):
        read_hub(tmp_path / "set", streaming=True)


@pytest.mark.slow
def test_the_command_trains_from_a_streamed_parquet_tree(tree: Path, tmp_path: Path) -> None:
    data = f"tasks.label.data={{source: hub, path: {tree}, streaming: true, check: none}}"
    command = [sys.executable, "-m", "audiostride", "train", "folder", data, *TINY, "train.workers=2", "--json"]
    environment = os.environ | {"HF_HOME": str(tmp_path / "home"), "TMPDIR": str(tmp_path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["tasks"]["label"]["n"] == 20
    assert not list(tmp_path.glob("audiostride-*"))
    assert not list((tmp_path / "home").rglob("*.arrow"))
