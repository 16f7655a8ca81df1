"""Tar archives, plain or compressed, read within bounds: what a header claims is judged before memory is taken.

The standard library reads a long name, however long its header says it is, and unpacks as much of a compressed
stream as the next few bytes stand for. Here every read is of a bounded size.
"""

import bz2
import gzip
import lzma
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

MAX_HEADER_BYTES = 1 << 20
"""Of all that comes before a member's content: names, extended headers, maps of holes. Names have 4,096 bytes."""

MAX_GLOBAL_HEADERS = 16
MAX_READ_BYTES = 1 << 20
"""Most that is read of a member's content at once."""

_MAX_PADDING_BYTES = 64 << 20
_DICTIONARY_BYTES = 256 << 20  # of xz -9 it is 64 MB
_PACKED_BYTES = 1 << 14


class BoundedTar:
    """The members of a tar archive one after the other, out of a stream that is only read forwards.

    Args:
        file: the archive; `open_packed` unpacks a compressed one.
        max_bytes: of the whole unpacked archive, headers and members; None: as many as there are, for
            plain archives only, whose members are skipped without reading them.

    Raises:
        tarfile.TarError: when read, if it is no sound archive, or beyond a bound.

    Example:
        >>> import io
        >>> content = io.BytesIO()
        >>> with tarfile.open(fileobj=content, mode="w") as tar:
        ...     tar.addfile(tarfile.TarInfo("a.wav"))
        >>> _ = content.seek(0)
        >>> [member.name for member in BoundedTar(content)]
        ['a.wav']
    """

    def __init__(self, file: IO[bytes], max_bytes: int | None = None) -> None:
        self._stream = _Forward(file, max_bytes)
        self._tar = tarfile.open(fileobj=self._stream, mode="r:")  # type: ignore[call-overload]  # noqa: SIM115

    def __iter__(self) -> Iterator[tarfile.TarInfo]:
        while (member := self._tar.next()) is not None:
            self._tar.members = []  # else every header stays in memory
            if len(self._tar.pax_headers) > MAX_GLOBAL_HEADERS:
                raise tarfile.ReadError(f"it has more than {MAX_GLOBAL_HEADERS} global headers")
            self._stream.in_header = False
            yield member
            self._stream.start_header()
        self._check_end()

    def _check_end(self) -> None:
        """Refuse a cut or damaged header, at which tarfile just stops; read on to the checksum of a compressed file."""
        block = self._stream.header_block
        if len(block) < tarfile.BLOCKSIZE:
            raise tarfile.ReadError("it is cut short, the mark of its end is missing")
        padding = 0
        while not block.strip(b"\0"):
            if not (block := self._stream.read_on()):
                return
            padding += len(block)
            if padding > _MAX_PADDING_BYTES:
                raise tarfile.ReadError(f"more than {_MAX_PADDING_BYTES >> 20} MB of zeros follow its end")
        where = f"behind its end, by {padding:,} bytes, something follows" if padding else "a header is damaged"
        raise tarfile.ReadError(f"{where}, near byte {self._stream.position:,}")

    def content(self, member: tarfile.TarInfo) -> IO[bytes]:
        """The content of the member that the iteration is at, to be read `MAX_READ_BYTES` at a time."""
        found = self._tar.extractfile(member)
        assert found is not None, "only plain files have a content"
        return found


def open_packed(path: Path) -> IO[bytes]:
    """A file, unpacked while it is read if gzip, bzip2 or xz packed it; never more of it at once than is asked for."""
    with path.open("rb") as file:
        magic = file.read(6)
    if magic[:2] == b"\x1f\x8b":
        return gzip.open(path)  # type: ignore[return-value]
    if magic[:3] == b"BZh":
        return bz2.open(path)
    if magic == b"\xfd7zXZ\0" or magic[:3] == b"]\0\0":
        return _Xz(path)  # type: ignore[return-value]
    return path.open("rb")


class _Forward:
    """A stream as `tarfile` reads it, which never goes back, nor gives more than the bounds at once."""

    def __init__(self, file: IO[bytes], max_bytes: int | None) -> None:
        self.file, self.max_bytes, self.position = file, max_bytes, 0
        self.header_block = b""  # the last that was read of a header
        self.start_header()

    def start_header(self) -> None:
        self.in_header, self.header_bytes = True, 0

    def tell(self) -> int:
        return self.position

    def read(self, size: int) -> bytes:
        if self.in_header:
            self.header_bytes += size
            if self.header_bytes > MAX_HEADER_BYTES:
                raise tarfile.ReadError(f"a header claims {self.header_bytes:,} bytes, more than {MAX_HEADER_BYTES:,}")
            self.header_block = self._read(size)
            return self.header_block
        return self._read(min(size, MAX_READ_BYTES))

    def read_on(self) -> bytes:
        """The next bytes, none at the end."""
        return self._read(tarfile.BLOCKSIZE * 20)

    def seek(self, position: int) -> None:
        if position < self.position:
            raise tarfile.StreamError("its members overlap")
        if self.max_bytes is None and self.file.seekable():
            self.position = self.file.seek(position)
        while self.position < position:
            if not self._read(min(position - self.position, MAX_READ_BYTES)):
                return

    def _read(self, size: int) -> bytes:
        parts = []
        while size and (part := self.file.read(size)):  # a web server gives what it has
            parts.append(part)
            size -= len(part)
            self.position += len(part)
        if self.max_bytes is not None and self.position > self.max_bytes:
            raise tarfile.ReadError(f"it unpacks to more than {self.max_bytes >> 20} MB")
        return b"".join(parts)


class _Xz:
    """An xz or lzma file, with a bound on its dictionary, which `lzma.open` does not have."""

    def __init__(self, path: Path) -> None:
        self.file = path.open("rb")
        self.decompressor = self._start()

    def _start(self) -> lzma.LZMADecompressor:
        return lzma.LZMADecompressor(memlimit=_DICTIONARY_BYTES)

    def read(self, size: int) -> bytes:
        while True:
            packed = b""
            if self.decompressor.eof:  # another may follow
                packed = self.decompressor.unused_data or self.file.read(_PACKED_BYTES)
                packed = packed.lstrip(b"\0") or self.file.read(_PACKED_BYTES).lstrip(b"\0")
                if not packed:
                    return b""
                self.decompressor = self._start()
            elif self.decompressor.needs_input:
                packed = self.file.read(_PACKED_BYTES)
                if not packed:
                    raise EOFError("it ends too early")
            if part := self.decompressor.decompress(packed, size):
                return part

    def close(self) -> None:
        self.file.close()

    def __enter__(self) -> "_Xz":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()
