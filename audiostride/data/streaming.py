"""Streaming: clips of a data set that stays where it is, fetched in blocks during training.

A block is what one request fetches: a few megabytes of a WebDataset shard, or a row group of a
parquet file. Training goes through a streamed set block by block, in an order that follows from the
seed as any other, so that each block is fetched about once an epoch, whichever worker asks for it.
Clips still have numbers: order, resuming and the division among workers and machines are those of files.
"""

import contextlib
import http.client
import io
import os
import shutil
import struct
import tempfile
import time
import urllib.error
import urllib.request
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import numpy as np

from ..errors import DataError
from ..files import exclusive
from .clips import PER_CLIP, EncodedClips
from .download import TIMEOUT_S, version_of
from .epoch_plan import BLOCKS_AT_ONCE

_PREFIX, _OWNER = "audiostride-blocks-", "owner.lock"
_TRIES = 3
_LOCKS = 64  # blocks that differ in their number by this share a lock


class Blocks:
    """Blocks of encoded clips, each fetched once by the first process that needs it.

    They are in a folder below the system's temporary one, which the worker processes of this process
    share and which goes with it; the oldest make room for new ones. What a process leaves that is killed
    is removed by the next one that streams: the folder of a living process is locked.

    Args:
        fetch: gives the contents of all clips of a block, by its number.
        kept: blocks that are kept at least.

    Example:
        >>> blocks = Blocks(lambda number: [b"one", b"two"])
        >>> blocks.read(7, 1), blocks.read(7, 0)
        (b'two', b'one')
    """

    def __init__(self, fetch: Callable[[int], Sequence[bytes]], kept: int = 2 * BLOCKS_AT_ONCE) -> None:
        self.fetch, self.kept = fetch, kept
        _remove_abandoned()
        self.folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
        weakref.finalize(self, _remove, self.folder, _lock(self.folder), os.getpid())

    def read(self, block: int, row: int) -> bytes:
        """The content of one clip: number `row` of a block.

        Raises:
            DataError: if the block cannot be fetched.
        """
        path = self.folder / str(block)
        while True:
            try:
                with path.open("rb") as file:
                    file.seek(8 * row)
                    first, last = struct.unpack("<2q", file.read(16))
                    file.seek(first)
                    return file.read(last - first)
            except FileNotFoundError:  # not there yet, or made room for another
                self._load(path, block)

    def _load(self, path: Path, block: int) -> None:
        with exclusive(self.folder / f"{block % _LOCKS}.lock"):
            if path.exists():
                return
            contents = self.fetch(block)
            ends = np.cumsum([8 * (len(contents) + 1), *map(len, contents)]).astype("<i8")
            unfinished = path.with_suffix(".part")
            try:
                unfinished.write_bytes(ends.tobytes() + b"".join(contents))
            except OSError as error:
                reason = f"cannot hold what is streamed ({error.strerror}); set TMPDIR to a folder with more room"
                raise DataError(f"{self.folder}: {reason}") from error
            unfinished.rename(path)
        fetched = []
        for found in os.scandir(self.folder):
            with contextlib.suppress(FileNotFoundError):  # another process makes room, too
                if "." not in found.name:
                    fetched.append((found.stat().st_mtime_ns, found.path))
        for _, old in sorted(fetched)[: -self.kept]:
            Path(old).unlink(missing_ok=True)


@dataclass
class StreamedClips(EncodedClips):
    """Clips that are fetched while they are read.

    Attributes:
        blocks: where their contents come from; None only in a table without clips.
        places: block of each clip and number in it, int64 of shape ``(n_clips, 2)``.
        versions: for each block a text that changes when its content does.
    """

    blocks: Blocks | None = None
    places: np.ndarray = field(default_factory=lambda: np.zeros((0, 2), np.int64), metadata=PER_CLIP)
    versions: Sequence[str] = ()

    def audio(self, index: int) -> io.BytesIO:
        assert self.blocks is not None
        block, row = (int(value) for value in self.places[index])
        try:
            content = io.BytesIO(self.blocks.read(block, row))
        except DataError as error:
            raise DataError(f"{self.names[index]}: {error}") from error
        content.name = self.names[index]
        return content

    def state(self, index: int) -> str:
        block, row = (int(value) for value in self.places[index])
        return f"{self.versions[block]} {row}"

    def block_numbers(self) -> np.ndarray:
        return self.places[:, 0]


def read_range(url: str, first: int, last: int, version: str = "") -> bytes:
    """Bytes `first` to `last` (exclusive) of a file on a web server, in one request.

    Tried three times where the connection fails or the server is in trouble.

    Args:
        url: address of the file.
        first: number of the first byte.
        last: number of the byte behind the last.
        version: what `download.version_of` said of the file before; "" if nothing.

    Raises:
        DataError: names the address and what is wrong, as that the file was replaced.
    """
    headers = {"Range": f"bytes={first}-{last - 1}"}
    if version and not version.startswith("W/"):
        headers["If-Match" if version.startswith('"') else "If-Unmodified-Since"] = version
    replaced = DataError(f"{url}: was replaced since its headers were read; start again, with --resume")
    for attempt in range(_TRIES):
        if attempt:
            time.sleep(2.0 ** (attempt - 1))
        try:
            with open_url(url, headers) as response:
                if response.status != 206:
                    raise DataError(
                        f"{url}: this server does not serve parts of a file (HTTP Range), so it cannot be streamed; "
                        "download the files and give their folder"
                    )
                place = response.headers.get("Content-Range")
                if version and version_of(response.headers) not in ("", version):
                    raise replaced
                if place and not place.startswith(f"bytes {first}-{last - 1}/"):
                    raise DataError(f"{url}: sent {place}, not the {headers['Range']} that was asked for")
                content = response.read(last - first + 1)  # no more, whatever the server sends
            if len(content) == last - first:
                return content
            reason = f"{len(content)} of {last - first} bytes arrived"
        except urllib.error.HTTPError as error:
            error.close()
            reason = f"HTTP {error.code} {error.reason}"
            if error.code == 412:
                raise replaced from error
            if error.code < 500:
                break
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = str(getattr(error, "reason", "") or error) or type(error).__name__
    raise DataError(f"{url}: cannot be streamed ({reason})")


def open_url(url: str, headers: dict[str, str] | None = None):
    """A response of a web server, whose silence of 20 s is an error."""
    request = urllib.request.Request(url, headers={"User-Agent": "audiostride", **(headers or {})})
    return urllib.request.urlopen(request, timeout=TIMEOUT_S)


def _lock(folder: Path) -> IO[bytes]:
    """Lock a folder for as long as this process and the workers that are copies of it live."""
    file = (folder / "owner.new").open("wb")
    with contextlib.suppress(ImportError, OSError):  # no such locks here: the folder never looks abandoned
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX)
        (folder / "owner.new").rename(folder / _OWNER)
    return file


def _remove_abandoned() -> None:
    """Remove the folders of processes that were killed before they could."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with contextlib.suppress(ImportError, OSError), (folder / _OWNER).open("rb") as file:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # an error where the owner lives
            shutil.rmtree(folder, ignore_errors=True)


def _remove(folder: Path, lock: IO[bytes], owner: int) -> None:
    if os.getpid() == owner:  # not a worker, which is a copy of the process
        shutil.rmtree(folder, ignore_errors=True)
    lock.close()
