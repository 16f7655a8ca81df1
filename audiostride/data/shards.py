"""WebDataset shards: tar files in which the members of one clip share their name up to the first dot.

Shards are read where they are, on a disk or on a web server, and never unpacked: the headers are
scanned once, after that every clip is bytes at a known place. So order, resuming and the division
among workers and machines are as exact as with files, and nothing but the table is in memory.
"""

import contextlib
import hashlib
import http.client
import io
import json
import os
import posixpath
import re
import tarfile
import urllib.error
import urllib.parse
import zlib
from array import array
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..errors import DataError, ModelFileError
from ..files import expand_user, file_status, read_bounded, replace_file
from .bounded_tar import BoundedTar
from .clips import PER_CLIP, EncodedClips, Progress
from .decoding import EXTENSIONS
from .download import UNSOUND, version_of
from .streaming import Blocks, StreamedClips, open_url, read_range
from .table import TableBuilder, label_text, split_names
from .text_column import Texts

BLOCK_BYTES = 8 << 20
"""What is fetched from a web server at once, at most (or one clip, if that is larger)."""

_MAX_LABEL_BYTES = 1 << 20
_MAX_SHARDS = 100_000
_INDEX_FORMAT = 2
_MAX_INDEX_BYTES = 2**30


class Member(NamedTuple):
    """One clip of a shard.

    Attributes:
        name: of the audio inside the tar file.
        labels: its columns.
        offset: of the audio in the shard, in bytes.
        size: of the audio, in bytes.
    """

    name: str
    labels: dict[str, str]
    offset: int
    size: int


@dataclass
class ShardClips(EncodedClips):
    """Clips that are members of tar files on a disk.

    Attributes:
        shards: the tar file of each clip.
        places: offset and size in bytes of each clip's audio in its shard, int64 ``(n_clips, 2)``.
    """

    shards: Texts = field(default_factory=Texts, metadata=PER_CLIP)
    places: np.ndarray = field(default_factory=lambda: np.zeros((0, 2), np.int64), metadata=PER_CLIP)

    def audio(self, index: int) -> io.BytesIO:
        offset, size = (int(value) for value in self.places[index])
        shard = self.shards[index]
        try:
            with open(shard, "rb") as file:
                file.seek(offset - tarfile.BLOCKSIZE)
                header, content = file.read(tarfile.BLOCKSIZE), io.BytesIO(file.read(size))
        except OSError as error:
            raise DataError(f"{shard}: {error.strerror or error}") from error
        _check_header(shard, header, size, self.names[index].endswith)
        content.name = self.names[index]
        return content

    def state(self, index: int) -> str:
        shard = self.shards[index]
        try:
            found = os.stat(shard)
        except OSError as error:
            raise DataError(f"{shard}: {error.strerror or error}") from error
        return f"{shard} {found.st_size} {found.st_mtime_ns} {self.places[index].tolist()}"


def read_shards(
    path: str | os.PathLike[str] | Sequence[str], progress: Progress | None = None
) -> ShardClips | StreamedClips:
    """Index `.tar` shards; no audio is decoded.

    `NAME.wav` (or another audio ending) is the clip, `NAME.cls` or `NAME.txt` its `label`, the keys
    of `NAME.json` are columns. The split is the folder (`train/`, `validation/`, `test/`) or the
    beginning of the shard's name (`train-000.tar`).

    Shards on a web server are streamed: their headers are read once (the index is kept in
    `~/.cache/audiostride`, as long as the server's file does not change), then blocks of clips are
    fetched as they are needed.

    Args:
        path: a folder, one shard, or addresses (http, https); `{000..146}` in a path or address
            stands for all these numbers. Several of them in a list.
        progress: called after each shard.

    Raises:
        DataError: names the shard that is damaged, compressed or cannot be reached, or the member
            that cannot be read.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> with tarfile.open(folder / "train-000.tar", "w") as tar:
        ...     for name, content in (("a.wav", b"RIFF"), ("a.cls", b"3")):
        ...         member = tarfile.TarInfo(name)
        ...         member.size = len(content)
        ...         tar.addfile(member, io.BytesIO(content))
        >>> clips = read_shards(folder)
        >>> clips.names, clips.columns, clips.splits
        (['train-000/a.wav'], {'label': ['3']}, ['train'])
    """
    given = [path] if isinstance(path, str | os.PathLike) else list(path)
    wanted = [name for pattern in given for name in expand(os.fspath(pattern))]
    remote = [name for name in wanted if name.startswith(("http://", "https://"))]
    if remote and len(remote) < len(wanted):
        raise DataError(
            f"{wanted[0]}: shards on a disk and on a web server cannot be one data set; make them two tasks"
        )
    if remote:
        return _stream(remote, progress)
    shards = [shard for name in wanted for shard in _shards_at(expand_user(name))]
    table, of_shard, places = _ShardTable(), Texts(), array("q")
    for done, shard in enumerate(shards, 1):
        for member in _members(shard):
            table.add_member(shard.as_posix(), member)
            of_shard.append(str(shard))
            places.extend((member.offset, member.size))
        if progress:
            progress("indexing shards", done, len(shards))
    table.check(given)
    spots = np.frombuffer(places, np.int64).reshape(-1, 2)
    return ShardClips(*table.parts(), shards=of_shard, places=spots)


def expand(pattern: str) -> list[str]:
    """The paths that a brace pattern stands for.

    Raises:
        DataError: if they are too many, or run backwards.

    Example:
        >>> expand("train-{08..10}.tar")
        ['train-08.tar', 'train-09.tar', 'train-10.tar']
    """
    found = re.search(r"\{(\d+)\.\.(\d+)\}", pattern)
    if not found:
        return [pattern]
    first, last = int(found[1]), int(found[2])
    if not 0 <= last - first < _MAX_SHARDS:
        raise DataError(f"{pattern}: {found[0]} is not a range of up to {_MAX_SHARDS:,} ascending numbers")
    numbers = [f"{number:0{len(found[1])}d}" for number in range(first, last + 1)]
    return [name for n in numbers for name in expand(pattern[: found.start()] + n + pattern[found.end() :])]


class _ShardTable(TableBuilder):
    def add_member(self, shard: str, member: Member) -> None:
        folder, _, base = shard.rpartition("/")
        above = posixpath.basename(folder)
        named = f"{above}/{base}" if _is_split(above) else base  # train/000.tar is not test/000.tar
        beginning = base.partition("-")[0].partition(".")[0]
        split = above if _is_split(above) else beginning
        self.add(f"{named.removesuffix('.tar')}/{member.name}", split, member.labels)

    def parts(self) -> tuple[Texts, dict[str, Sequence[str]], Texts]:
        names, columns, splits = super().parts()
        known = split_names(splits.distinct())
        return names, columns, splits.mapped(lambda split: known.get(split, ""))

    def check(self, given: Sequence[str | os.PathLike[str]]) -> None:
        if not self.names:
            kinds = " ".join(sorted(EXTENSIONS))
            raise DataError(f"{', '.join(map(str, given))}: the shards hold no audio (looked for {kinds})")


@lru_cache(64)
def _is_split(name: str) -> bool:
    return bool(split_names([name]))


def _shards_at(root: Path) -> list[Path]:
    shards = [root] if root.is_file() else sorted(root.rglob("*.tar"))
    if not shards:
        packed = next(iter(sorted(root.rglob("*.tar.*"))), None) if root.is_dir() else None
        hint = f"; {packed.name} is compressed: decompress it first" if packed else ""
        raise DataError(f"{root}: {'holds no .tar shards' if root.exists() else 'no such file or folder'}{hint}")
    return shards


def _members(shard: Path) -> Iterator[Member]:
    try:
        size = file_status(shard).st_size
        with shard.open("rb") as file:
            yield from _clips_of(str(shard), BoundedTar(file), size)
    except OSError as error:
        raise DataError(f"{shard}: {error.strerror or error}") from error
    except UNSOUND as error:
        raise DataError(f"{shard}: is not a plain tar file ({error})") from error


def _check_header(shard: str, header: bytes, size: int, is_name: Callable[[str], bool]) -> None:
    """Refuse a member whose header, which is just before it, is not that of the index.

    Args:
        shard: its name or address.
        header: the block of the shard before the member.
        size: of the member, as indexed.
        is_name: whether a name is that of the member.
    """
    with contextlib.suppress(tarfile.HeaderError):
        found = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
        plain = found.name.isascii() and "?" not in found.name and len(found.name) < 100  # others have a header before
        if found.size == size and (is_name(found.name) or not plain):
            return
    raise DataError(f"{shard}: was replaced or damaged since its headers were read; start again, with --resume")


def _clips_of(shard: str, tar: BoundedTar, length: int) -> Iterator[Member]:
    key, name, labels, place = "", "", dict[str, str](), (0, 0)
    for member in tar:
        if not member.isreg():
            continue
        folder, _, base = member.name.rpartition("/")
        stem, _, ending = base.partition(".")
        if (folder + "/" + stem) != key:
            if name:
                yield Member(name, labels, *place)
            key, name, labels, place = folder + "/" + stem, "", {}, (0, 0)
        if Path(base).suffix.lower() in EXTENSIONS:
            if member.offset_data + member.size > length:
                raise DataError(f"{shard}: cut short in {member.name!r}")
            name, place = member.name, (member.offset_data, member.size)
        elif ending.lower() in ("cls", "txt", "json"):
            labels |= _labels(shard, tar, member, ending.lower())
    if name:
        yield Member(name, labels, *place)


def _labels(shard: str, tar: BoundedTar, member: tarfile.TarInfo, ending: str) -> dict[str, str]:
    if member.size > _MAX_LABEL_BYTES:
        raise DataError(f"{shard}: {member.name!r} is too large for labels")
    try:
        text = tar.content(member).read().decode("utf-8").strip()
        if ending != "json":
            return {"label": text}
        values = json.loads(text)
        return {str(name): label_text(value) for name, value in values.items()}
    except (ValueError, AttributeError, RecursionError) as error:
        raise DataError(f"{shard}: {member.name!r} holds no labels ({error})") from error


def _stream(urls: Sequence[str], progress: Progress | None) -> StreamedClips:
    table, ranges = _ShardTable(), _Ranges()
    versions: list[str] = []
    blocks, rows = array("q"), array("q")
    with ThreadPoolExecutor(4) as pool:
        for done, (url, (version, members)) in enumerate(zip(urls, pool.map(_index, urls), strict=True), 1):
            path = urllib.parse.unquote(urllib.parse.urlparse(url).path)
            for block in _blocks(members):
                ranges.add(url, version, block)
                versions.append(f"{url} {version} {block[0].offset}-{block[-1].offset + block[-1].size}")
                for row, member in enumerate(block):
                    table.add_member(path, member)
                    blocks.append(len(versions) - 1)
                    rows.append(row)
            if progress:
                progress("indexing shards", done, len(urls))
    table.check(urls)
    places = np.stack([np.array(blocks, np.int64), np.array(rows, np.int64)], 1)
    return StreamedClips(*table.parts(), blocks=Blocks(ranges), places=places, versions=versions)


class _Ranges:
    """Where each block is: an address and the places of its clips."""

    def __init__(self) -> None:
        self.urls, self.versions = Texts(), Texts()
        self.places, self.ends = array("q"), array("q", [0])

    def add(self, url: str, version: str, block: Sequence[Member]) -> None:
        self.urls.append(url)
        self.versions.append(version)
        for member in block:
            self.places.extend((member.offset, member.size, _checksum(member.name)))
        self.ends.append(len(self.places))

    def __call__(self, number: int) -> list[bytes]:
        places = np.array(self.places[self.ends[number] : self.ends[number + 1]]).reshape(-1, 3).tolist()
        first, last = places[0][0] - tarfile.BLOCKSIZE, places[-1][0] + places[-1][1]
        url = self.urls[number]
        content = read_range(url, first, last, self.versions[number])
        for offset, size, name in places:
            header = content[offset - first - tarfile.BLOCKSIZE : offset - first]
            _check_header(url, header, size, lambda found, name=name: _checksum(found) == name)  # type: ignore[misc]
        return [content[offset - first : offset - first + size] for offset, size, _ in places]


def _checksum(name: str) -> int:
    return zlib.crc32(name.encode("utf-8", "surrogateescape"))


def _blocks(members: Sequence[Member]) -> Iterator[list[Member]]:
    block: list[Member] = []
    for member in members:
        if block and member.offset + member.size - block[0].offset > BLOCK_BYTES:
            yield block
            block = []
        block.append(member)
    if block:
        yield block


def _index(url: str) -> tuple[str, list[Member]]:
    """The version of a shard on a web server, and its clips; out of the kept index if there is one."""
    try:
        with open_url(url) as response:
            length = int(response.headers.get("Content-Length") or 0)
            version = version_of(response.headers)
            kept = _index_file(url, f"{length} {version}")
            if version and (known := _kept_members(kept, length)) is not None:
                return version, known
            members = list(_clips_of(url, BoundedTar(response), length or 1 << 62))
    except urllib.error.HTTPError as error:
        raise DataError(f"{url}: HTTP {error.code} {error.reason}") from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", "") or error
        raise DataError(
            f"{url}: cannot be reached ({reason}). Download the shards on a machine with a network and give their "
            "folder as the path"
        ) from error
    except UNSOUND as error:
        raise DataError(f"{url}: is not a plain tar file, or the connection was lost ({error})") from error
    if not version:  # the next run could not know whether the file is still the same
        return version, members
    with contextlib.suppress(OSError):  # without a place to keep it the next run reads the headers again
        kept.parent.mkdir(parents=True, exist_ok=True)
        replace_file(kept, json.dumps(members))
    return version, members


def _kept_members(path: Path, length: int) -> list[Member] | None:
    """The kept index of a shard of `length` bytes; None if there is none, or it is not one."""
    try:
        found = json.loads(read_bounded(path, _MAX_INDEX_BYTES))
        members = [Member(*values) for values in found]
        places = [(member.offset, member.size, member.offset + member.size) for member in members]
        texts = [text for member in members for text in (member.name, *member.labels, *member.labels.values())]
        sound = all(type(number) is int and 0 <= number <= length for place in places for number in place)
        return members if isinstance(found, list) and sound and all(isinstance(text, str) for text in texts) else None
    except (ModelFileError, ValueError, TypeError, AttributeError, RecursionError):
        return None


def _index_file(url: str, version: str) -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    key = hashlib.sha256(f"{_INDEX_FORMAT} {url} {version}".encode()).hexdigest()[:32]
    return cache / "audiostride" / "shards" / f"{key}.json"
