"""Archives: fetched from a real server, taken up where they broke off, checked, and unpacked only inside."""

import gzip
import hashlib
import io
import json
import shutil
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import soundfile

from audiostride.data.archives import read_archives
from audiostride.data.download import extract, fetch, parse_link
from audiostride.errors import DataError


class Server(SimpleHTTPRequestHandler):
    """Serves files with ranges; the first answers may break off after some bytes."""

    break_after: list[int] = []  # noqa: RUF012
    version = ""
    obeys_if_range = True
    ranges: list[str | None] = []  # noqa: RUF012

    def do_GET(self) -> None:
        content = Path(self.translate_path(self.path)).read_bytes()
        wanted = self.headers.get("Range")
        type(self).ranges.append(wanted)
        if self.headers.get("If-Range", type(self).version) != type(self).version and type(self).obeys_if_range:
            wanted = None
        first = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
        if first >= len(content) > 0 and wanted:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            self.end_headers()
            return
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(content) - first))
        if wanted:
            self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        if type(self).version:
            self.send_header("ETag", type(self).version)
        self.end_headers()
        stop = type(self).break_after.pop(0) if type(self).break_after else len(content)
        self.wfile.write(content[first : first + stop])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """Address and folder of a real local web server."""
    folder = tmp_path / "served"
    folder.mkdir()
    Server.break_after, Server.ranges, Server.version, Server.obeys_if_range = [], [], "", True
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Server, directory=str(folder))) as http:
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{http.server_port}", folder
        http.shutdown()
        thread.join()


def tone_bytes(value: float) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, np.full(400, value), 16000, format="WAV")
    return buffer.getvalue()


def make_tar(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def make_zip(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as zipped:
        for name, content in members.items():
            zipped.writestr(name, content)
    return path


def test_a_download_that_breaks_off_goes_on_where_it_stopped(server: tuple[str, Path], tmp_path: Path) -> None:
    address, folder = server
    content = np.random.RandomState(0).bytes(100_000)
    (folder / "big.bin").write_bytes(content)
    Server.break_after = [30_000, 20_000]
    digest = hashlib.sha256(content).hexdigest()
    seen: list[tuple[int, int]] = []
    path = fetch(
        parse_link(f"{address}/big.bin#sha256={digest}"),
        tmp_path / "kept",
        lambda _, done, total: seen.append((done, total)),
    )
    assert path.read_bytes() == content
    assert Server.ranges == [None, "bytes=30000-", "bytes=50000-"]
    assert seen[-1][0] == seen[-1][1]


def test_a_part_from_an_earlier_run_is_completed_and_a_whole_file_not_fetched_again(
    server: tuple[str, Path], tmp_path: Path
) -> None:
    address, folder = server
    (folder / "a.bin").write_bytes(b"0123456789")
    (tmp_path / "a.bin.part").write_bytes(b"01234")
    for _ in range(2):
        assert fetch(parse_link(f"{address}/a.bin"), tmp_path).read_bytes() == b"0123456789"
    assert Server.ranges == ["bytes=5-"]


def test_a_part_that_is_whole_is_taken_and_one_that_is_too_long_fetched_anew(
    server: tuple[str, Path], tmp_path: Path
) -> None:
    """A kill before the renaming leaves the first; the second is of a file that has become shorter."""
    address, folder = server
    (folder / "a.bin").write_bytes(b"0123456789")
    (folder / "b.bin").write_bytes(b"new")
    (tmp_path / "a.bin.part").write_bytes(b"0123456789")
    (tmp_path / "b.bin.part").write_bytes(b"older")
    assert fetch(parse_link(f"{address}/a.bin"), tmp_path).read_bytes() == b"0123456789"
    assert fetch(parse_link(f"{address}/b.bin"), tmp_path).read_bytes() == b"new"
    assert Server.ranges == ["bytes=10-", "bytes=5-", None]


@pytest.mark.parametrize("obeys_if_range", [True, False])
@pytest.mark.parametrize("version", ['"1"', 'W/"1"'])
def test_a_file_that_is_replaced_between_two_parts_is_fetched_anew(
    server: tuple[str, Path], tmp_path: Path, version: str, obeys_if_range: bool
) -> None:
    address, folder = server
    (folder / "a.bin").write_bytes(bytes(5000))
    Server.version, Server.obeys_if_range, Server.break_after = version, obeys_if_range, [3000, 0]
    kept = tmp_path / "kept"
    with pytest.raises(DataError, match=r"are kept; run it again"):
        fetch(parse_link(f"{address}/a.bin"), kept)
    (folder / "a.bin").write_bytes(b"new" * 2000)
    Server.version = version.replace("1", "2")
    assert fetch(parse_link(f"{address}/a.bin"), kept).read_bytes() == b"new" * 2000
    assert [path.name for path in kept.iterdir()] == ["a.bin"]


def test_a_part_of_the_same_version_is_completed(server: tuple[str, Path], tmp_path: Path) -> None:
    address, folder = server
    (folder / "a.bin").write_bytes(bytes(range(250)) * 20)
    Server.version, Server.break_after = '"1"', [3000, 0]
    with pytest.raises(DataError):
        fetch(parse_link(f"{address}/a.bin"), tmp_path / "kept")
    assert fetch(parse_link(f"{address}/a.bin"), tmp_path / "kept").read_bytes() == bytes(range(250)) * 20
    assert Server.ranges[-1] == "bytes=3000-"


def test_a_server_that_never_stops_does_not_fill_the_disk(
    server: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, folder = server
    (folder / "a.bin").write_bytes(bytes(3 << 20))
    real = shutil.disk_usage(tmp_path)
    left = iter([real.free, real.free, *[min(2**30, real.total // 20) + 100] * 10])
    monkeypatch.setattr(shutil, "disk_usage", lambda path: real._replace(free=next(left)))
    with pytest.raises(DataError, match=r"free bytes left for it; make room there"):
        fetch(parse_link(f"{address}/a.bin"), tmp_path / "kept")
    monkeypatch.undo()
    assert (tmp_path / "kept" / "a.bin.part").stat().st_size == 1 << 20
    assert fetch(parse_link(f"{address}/a.bin"), tmp_path / "kept").read_bytes() == bytes(3 << 20)


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_no_flipped_bit_or_cut_of_an_archive_gives_other_files(tmp_path: Path, mode: str) -> None:
    """What a plain tar holds has no checksum, its headers have."""
    members = {f"{i}.wav": np.random.RandomState(i).bytes(900) for i in range(4)}
    path = tmp_path / "a.tar"
    with tarfile.open(path, mode) as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    whole = path.read_bytes()
    places = np.random.RandomState(0).randint(0, 8 * len(whole), 150).tolist()
    if mode == "w":
        places = [place for place in places if place // 8 % 1536 < 512 and place // 8 < 4 * 1536]
    damaged = [
        whole[: place // 8] + bytes([whole[place // 8] ^ 1 << place % 8]) + whole[place // 8 + 1 :] for place in places
    ]
    damaged += [whole[: place // 8] for place in places]
    for number, content in enumerate(damaged):
        path.write_bytes(content)
        folder = tmp_path / str(number)
        try:
            extract(path, folder)
        except DataError:
            continue
        assert {file.name: file.read_bytes() for file in folder.iterdir()} == members


@pytest.mark.parametrize("behind", [b"x", bytes(10_240) + b"another archive"])
def test_what_follows_the_end_of_a_tar_is_refused(tmp_path: Path, behind: bytes) -> None:
    make_tar(tmp_path / "a.tgz", {"a.wav": b"sound"})
    plain = gzip.decompress((tmp_path / "a.tgz").read_bytes())
    (tmp_path / "a.tar").write_bytes(plain + behind)
    with pytest.raises(DataError, match="something follows"):
        extract(tmp_path / "a.tar", tmp_path / "folder")
    (tmp_path / "a.tar").write_bytes(plain + bytes(100_000))  # padding
    extract(tmp_path / "a.tar", tmp_path / "folder")


def test_a_damaged_download_is_not_kept(server: tuple[str, Path], tmp_path: Path) -> None:
    address, folder = server
    table = b"filename,fold,category\na.wav,1,dog\n"
    whole = make_tar(folder / "m.tar.gz", {"E/meta/esc50.csv": table, "E/audio/a.wav": tone_bytes(0.1)}).read_bytes()
    (folder / "m.tar.gz").write_bytes(whole[:-6] + b"\1" + whole[-5:])
    with pytest.raises(DataError, match="The download was removed; run it again"):
        read_archives("esc50", tmp_path / "data", [f"{address}/m.tar.gz"])
    (folder / "m.tar.gz").write_bytes(whole)
    assert len(read_archives("esc50", tmp_path / "data", [f"{address}/m.tar.gz"])) == 1


def test_another_checksum_is_an_error_and_the_download_is_removed(server: tuple[str, Path], tmp_path: Path) -> None:
    address, folder = server
    (folder / "a.bin").write_bytes(b"other")
    with pytest.raises(DataError, match=f"its md5 is {hashlib.md5(b'other').hexdigest()}, not 0000"):
        fetch(parse_link(f"{address}/a.bin#md5={'0' * 32}"), tmp_path)
    assert list(tmp_path.glob("a.bin*")) == []


def test_a_server_that_is_not_there_is_one_error_at_once(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot be downloaded \(.*refused"):
        fetch(parse_link("http://127.0.0.1:9/a.zip"), tmp_path)


def test_a_missing_file_on_the_server_is_named(server: tuple[str, Path], tmp_path: Path) -> None:
    Server.do_GET, real = lambda self: self.send_error(404), Server.do_GET  # type: ignore[method-assign]
    try:
        with pytest.raises(DataError, match="HTTP 404"):
            fetch(parse_link(f"{server[0]}/none.zip"), tmp_path)
    finally:
        Server.do_GET = real  # type: ignore[method-assign]


@pytest.mark.parametrize(
    "link", ["http://a/b#sha256=12", "http://a/b#size=3", "http://a/b#name=../x", "http://a/b#junk"]
)
def test_a_wrong_link_is_refused(link: str) -> None:
    with pytest.raises(DataError):
        parse_link(link)


@pytest.mark.parametrize("name", ["../out.wav", "/tmp/out.wav", "a/../../out.wav", "..\\out.wav", "C:/out.wav"])
@pytest.mark.parametrize("make", [make_tar, make_zip])
def test_nothing_is_written_outside_the_folder(tmp_path: Path, name: str, make: object) -> None:
    archive = make(tmp_path / "a.archive", {"good.wav": b"x", name: b"evil"})  # type: ignore[operator]
    with pytest.raises(DataError, match="is outside"):
        extract(archive, tmp_path / "inner" / "folder")
    assert sorted(p.name for p in tmp_path.rglob("*") if p.is_file()) == ["a.archive", "good.wav"]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_are_refused(tmp_path: Path, kind: bytes) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        info = tarfile.TarInfo("link.wav")
        info.type, info.linkname = kind, "/etc/passwd"
        tar.addfile(info)
    with pytest.raises(DataError, match=r"'link.wav' is a link or device"):
        extract(tmp_path / "a.tar", tmp_path / "folder")


def test_a_zip_link_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as zipped:
        info = zipfile.ZipInfo("link")
        info.external_attr = 0o120777 << 16
        zipped.writestr(info, "/etc/passwd")
    with pytest.raises(DataError, match="is a link or device"):
        extract(tmp_path / "a.zip", tmp_path / "folder")


@pytest.mark.parametrize("make", [make_tar, make_zip])
def test_a_bomb_is_stopped_in_proportion_to_its_size(tmp_path: Path, make: object) -> None:
    archive = make(tmp_path / "bomb", {f"{i}.wav": bytes(30 * 2**20) for i in range(4)})  # type: ignore[operator]
    with pytest.raises(DataError, match="unpacks to more than 100 MB"):
        extract(archive, tmp_path / "folder")


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 broken", b"\x1f\x8b broken"])
def test_what_is_no_archive_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(DataError, match="is not a valid tar or zip archive"):
        extract(tmp_path / "a.zip", tmp_path / "folder")


def test_a_cut_archive_is_named(tmp_path: Path) -> None:
    whole = make_tar(tmp_path / "a.tgz", {"a.wav": np.random.RandomState(0).bytes(50_000)}).read_bytes()
    (tmp_path / "a.tgz").write_bytes(whole[:20_000])
    with pytest.raises(DataError, match="is not a valid tar or zip archive"):
        extract(tmp_path / "a.tgz", tmp_path / "folder")


def test_speech_commands_come_from_their_archive_over_http(server: tuple[str, Path], tmp_path: Path) -> None:
    address, folder = server
    files = [f"{w}/{s}_nohash_{n}.wav" for w in ("no", "yes") for s in ("0a", "1b", "2c") for n in range(2)]
    lists = {
        "./validation_list.txt": b"no/1b_nohash_0.wav\nyes/1b_nohash_1.wav\n",
        "./testing_list.txt": b"no/2c_nohash_0.wav\n",
        "./_background_noise_/hum.wav": tone_bytes(0.1),
        "./README.md": b"",
    }
    archive = make_tar(folder / "v0.02.tar.gz", lists | {f"./{name}": tone_bytes(0.5) for name in files})
    link = f"{address}/v0.02.tar.gz#sha256={hashlib.sha256(archive.read_bytes()).hexdigest()}"
    for _ in range(2):  # the second time nothing is fetched
        clips = read_archives("speech_commands", tmp_path / "data", [link])
        assert clips.names == sorted(files)
        split = dict(zip(clips.names, clips.splits, strict=True))
        assert split["no/1b_nohash_0.wav"] == split["yes/1b_nohash_1.wav"] == "validation"
        assert split["no/2c_nohash_0.wav"] == "test"
        assert list(clips.splits).count("train") == 9
        assert clips.columns["speaker"].distinct() == {"0a", "1b", "2c"}  # type: ignore[attr-defined]
        assert clips.n_samples(0, 16000) == 400
    assert len(Server.ranges) == 1


def test_nsynth_comes_from_local_archives(tmp_path: Path) -> None:
    archives = []
    for part in ("train", "valid", "test"):
        note = {
            "instrument_family_str": "bass",
            "instrument_str": f"bass_synthetic_{part}",
            "instrument_source_str": "synthetic",
            "pitch": 60,
            "velocity": 75,
        }
        members = {
            f"nsynth-{part}/examples.json": json.dumps({f"bass_{part}": note}).encode(),
            f"nsynth-{part}/audio/bass_{part}.wav": tone_bytes(0.5),
        }
        archives.append(str(make_tar(tmp_path / f"nsynth-{part}.jsonwav.tar.gz", members)))
    clips = read_archives("nsynth", tmp_path / "data", archives)
    assert clips.names == [f"nsynth-{part}/audio/bass_{part}.wav" for part in ("train", "valid", "test")]
    assert clips.splits == ["train", "validation", "test"]
    assert clips.columns["family"] == ["bass"] * 3
    assert clips.columns["pitch"] == ["60"] * 3
    assert clips.n_samples(2, 16000) == 400


def test_bird_tables_and_recordings_come_from_several_archives(tmp_path: Path) -> None:
    ff = make_zip(tmp_path / "ff.zip", {"wav/64486.wav": tone_bytes(0.1), "wav/2525.wav": tone_bytes(0.2)})
    warblr = make_zip(tmp_path / "warblr.zip", {"wav/759808e5.wav": tone_bytes(0.3)})
    (tmp_path / "ff.csv").write_text("itemid,datasetid,hasbird\n64486,ff1010bird,0\n2525,ff1010bird,1\n")
    (tmp_path / "10853306").write_text("itemid,datasetid,hasbird\n759808e5,warblrb10k,1\n")
    links = [str(ff), str(warblr), str(tmp_path / "ff.csv"), f"{tmp_path / '10853306'}#name=warblr.csv"]
    clips = read_archives("dcase_birds", tmp_path / "data", links)
    assert dict(zip(clips.names, clips.columns["label"], strict=True)) == {
        "wav/64486.wav": "no_bird",
        "wav/2525.wav": "bird",
        "wav/759808e5.wav": "bird",
    }
    assert clips.columns["dataset"] == ["ff1010bird", "ff1010bird", "warblrb10k"]
    assert clips.splits == ["", "", ""]


def test_urban_scenes_have_the_official_fold_and_locations(tmp_path: Path) -> None:
    top = "TUT-urban-acoustic-scenes-2018-development"
    meta = "filename\tscene_label\tidentifier\tsource_label\n" + "".join(
        f"audio/{scene}-{i}.wav\t{scene}\tcity-{i}\ta\n" for scene in ("bus", "park") for i in range(2)
    )
    test = "audio/bus-1.wav\tbus\naudio/park-1.wav\tpark\n"
    files = {f"{top}/audio/{s}-{i}.wav": tone_bytes(0.1) for s in ("bus", "park") for i in range(2)}
    audio = make_zip(tmp_path / "audio.1.zip", files)
    about = make_zip(
        tmp_path / "meta.zip",
        {f"{top}/meta.csv": meta.encode(), f"{top}/evaluation_setup/fold1_evaluate.txt": test.encode()},
    )
    clips = read_archives("tut_urban_2018", tmp_path / "data", [str(audio), str(about)])
    assert clips.splits == ["train", "test", "train", "test"]
    assert clips.columns["location"] == ["city-0", "city-1", "city-0", "city-1"]
    assert clips.n_samples(0, 16000) == 400


def test_esc50_has_its_folds(tmp_path: Path) -> None:
    header = "filename,fold,target,category,esc10,src_file,take\n"
    table = header + "1-1-A-0.wav,1,0,dog,True,1,A\n5-2-A-1.wav,5,1,rain,False,2,A\n"
    files = {"ESC-50-master/meta/esc50.csv": table.encode()}
    files |= {f"ESC-50-master/audio/{name}.wav": tone_bytes(0.1) for name in ("1-1-A-0", "5-2-A-1")}
    clips = read_archives("esc50", tmp_path / "data", [str(make_zip(tmp_path / "master.zip", files))])
    assert clips.columns["label"] == ["dog", "rain"]
    assert clips.columns["fold"] == ["1", "5"]
    assert clips.n_samples(1, 16000) == 400


def test_a_data_set_that_is_neither_there_nor_to_be_had_names_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"(?s)127\.0\.0\.1:9.*data\.path=DIR.*data\.archives"):
        read_archives("nsynth", tmp_path / "data", ["http://127.0.0.1:9/nsynth.tar.gz"])
    with pytest.raises(DataError, match=r"no such folder, and .*archives gives no archives to make it from"):
        read_archives("nsynth", tmp_path / "other")


def test_an_unpacked_folder_is_read_as_it_is_and_another_layout_is_named(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for layout in ("speech_commands", "nsynth", "tut_urban_2018", "dcase_birds", "esc50"):
        with pytest.raises(DataError, match=f"{tmp_path / 'data'}: is not laid out as expected"):
            read_archives(layout, tmp_path / "data", ["http://127.0.0.1:9/unused.tar.gz"])


def test_a_half_unpacked_archive_is_unpacked_again(tmp_path: Path) -> None:
    state = tmp_path / "data" / ".audiostride"
    state.mkdir(parents=True)  # what a killed run leaves
    table = b"filename,fold,category\na.wav,1,dog\n"
    archive = make_zip(tmp_path / "m.zip", {"E/meta/esc50.csv": table, "E/audio/a.wav": tone_bytes(0.1)})
    assert len(read_archives("esc50", tmp_path / "data", [str(archive)])) == 1
