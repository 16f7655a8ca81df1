"""Whether an audio file is all there: what its container declares against what is present.

libsndfile stays silent about most cut, damaged and concatenated files.
"""

import io
import mmap
import re
import struct
import zlib
from typing import IO, NamedTuple, Protocol

import soundfile

UNKNOWN_BYTES = 0x7FFFF000
"""Programs that write WAV to a pipe declare this many bytes of samples or more, near 2^31 or 2^32."""

_CHECKED = frozenset(("AIFF", "AU", "CAF", "FLAC", "MP3", "NIST", "OGG", "RF64", "W64", "WAV", "WAVEX"))
_DECLARED_BYTES = re.compile(r"^\s*(?:data|SSND|Data Size|riff)\s*: (\d+) \(should be (\d+)\)", re.MULTILINE)
_MAX_CHUNK_BYTES = 2**18
_CHUNKS_BEHIND_SAMPLES = (b"LIST", b"id3 ", b"ID3 ", b"cue ", b"smpl", b"bext", b"iXML", b"PEAK", b"JUNK", b"fact")
_MARKS = {
    "FLAC": (b"fLaC\x00\x00\x00\x22", b"fLaC\x80\x00\x00\x22"),  # with the length of the first block
    "MP3": (b"Xing\x00\x00\x00", b"Info\x00\x00\x00"),  # in the frame that declares the number of frames
    "AU": (b".snd\x00\x00\x00", b"\x00\x00\x00dns."),
    "CAF": (b"caff\x00\x01\x00\x00desc",),
    "NIST": (b"NIST_1A\n   1024",),
    "RF64": (b"WAVEds64",),
}
"""What a file has once; libsndfile reads the first of several files and stays silent about the others."""

_MP3_UNDECLARED = 5 * 1152
"""Samples that an MP3 may hold beyond its length: the frame that declares it, what the encoder added at both ends."""

_BYTE_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


class Readable(Protocol):
    """A stream of bytes."""

    def read(self, size: int, /) -> bytes:
        """The next `size` bytes, fewer at the end."""


class WavSamples(NamedTuple):
    """Where the samples of a WAV file are, and of what kind.

    Attributes:
        format: content of its `fmt ` chunk.
        offset: of the first sample in the file, in bytes.
        declared: bytes of samples; None: the header leaves it open (0, or about 2^31 or 2^32).
        first: bytes that were read already of samples of an open length.
    """

    format: bytes
    offset: int
    declared: int | None
    first: bytes


def find_wav_samples(stream: Readable) -> WavSamples:
    """Read the header of a RIFF or RF64 file up to its samples, from a stream that cannot be rewound.

    Raises:
        ValueError: says what is wrong with the header.
    """
    head = stream.read(12)
    if not head:
        raise ValueError("is empty (0 bytes)")
    if head[:4] not in (b"RIFF", b"RF64") or head[8:] != b"WAVE":
        raise ValueError(f"is not a WAV file: it begins with {head!r}")
    found, long_size, offset = b"", 0, 12
    while True:
        name, size = struct.unpack("<4sI", _exactly(stream, 8))
        offset += 8
        if name == b"data" and not found:
            raise ValueError("is a WAV file whose samples come before their format")
        if name == b"data":
            size = long_size if size == 0xFFFFFFFF and long_size else size
            if 0 < size < UNKNOWN_BYTES or long_size:
                return WavSamples(found, offset, size, b"")
            first = stream.read(4)
            return WavSamples(found, offset, 0 if first in (b"", *_CHUNKS_BEHIND_SAMPLES) else None, first)
        if size > _MAX_CHUNK_BYTES:
            raise ValueError(f"is a WAV file with a header chunk {name!r} of {size} bytes")
        content = _exactly(stream, size + size % 2)
        offset += len(content)
        if name == b"fmt ":
            found = content
        elif name == b"ds64" and size >= 16:
            long_size = struct.unpack_from("<Q", content, 8)[0]


def _exactly(stream: Readable, n: int) -> bytes:
    data = stream.read(n)
    if len(data) < n:
        raise ValueError("is a WAV file that ends within its header")
    return data


def header_problem(file: soundfile.SoundFile, source: IO[bytes]) -> str | None:
    """What is wrong with the header of a file that libsndfile has opened, or None.

    Args:
        file: the opened file.
        source: its bytes, from the beginning.
    """
    if file.format not in _CHECKED:
        return f"of the kind {file.format}, which does not tell whether a file is whole; convert it to WAV or FLAC"
    if file.frames > 2**62:
        return f"does not declare how long it is, as {file.format} that was written to a pipe; encode it again"
    cut = _DECLARED_BYTES.search(file.extra_info)
    declared, present = (int(cut[1]), int(cut[2])) if cut else (0, 0)
    if file.format in ("CAF", "NIST", "RF64"):
        size = source.seek(0, io.SEEK_END)
        source.seek(0)
        declared, offset = {"CAF": _caf_samples, "NIST": _nist_samples, "RF64": _rf64_samples}[file.format](source)
        present = size - offset
    if present < declared < UNKNOWN_BYTES or (present < declared and file.format == "RF64"):
        return f"cut short, {present} of {declared} declared bytes are present"
    if file.format in ("W64", "NIST") and present > declared > 0:  # libsndfile takes all of it for samples
        return f"holds {present - declared} bytes behind the end that it declares; remove them"
    return None


def content_problem(format: str, samples: int, source: IO[bytes]) -> str | None:
    """What shows that a file is damaged, or more than one, only when all of it is read; or None. Nothing is decoded.

    Args:
        format: libsndfile's name of the container.
        samples: per channel, that libsndfile finds in it.
        source: the bytes of the file.
    """
    if format == "OGG":
        return _ogg_problem(source)
    if format not in _MARKS:
        return None
    if isinstance(source, io.BytesIO):
        return _several(format, samples, source.getvalue())
    with mmap.mmap(source.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return _several(format, samples, content)


def _several(format: str, samples: int, content: bytes | mmap.mmap) -> str | None:
    if _repeated(content, _MARKS[format]):
        return f"holds several {format} files one after the other; split it into files"
    if format == "MP3" and (present := mp3_samples(content)) > samples + _MP3_UNDECLARED:
        return (
            f"holds {present} samples, not the {samples} that its first part tells of: several MP3 files one after the "
            "other, or a bit rate that varies and no length; split it, or encode it again"
        )
    return None


def _caf_samples(source: IO[bytes]) -> tuple[int, int]:
    offset, name, size = 8, b"", 0
    while name != b"data":
        source.seek(offset)
        name, size = struct.unpack(">4sq", source.read(12).ljust(12, b"\0"))
        offset += 12 + (size if name != b"data" else 0)
        if size < 0 or not name.strip(b"\0"):
            break
    return size, offset


def _nist_samples(source: IO[bytes]) -> tuple[int, int]:
    head = source.read(4096)
    fields = {name: int(value) for name, value in re.findall(rb"^(\w+) -i (\d{1,12})$", head, re.MULTILINE)}
    frame_bytes = fields.get(b"channel_count", 1) * fields.get(b"sample_n_bytes", 1)
    return fields.get(b"sample_count", 2**40) * frame_bytes, int(head[8:16])


def _rf64_samples(source: IO[bytes]) -> tuple[int, int]:
    found = find_wav_samples(source)
    return found.declared or 0, found.offset


def _ogg_problem(source: IO[bytes]) -> str | None:
    """Walk through all pages (RFC 3533, 6): each whole, none missing, the last of each stream marked as the last."""
    source.seek(0)
    ended: dict[bytes, bool] = {}
    number: dict[bytes, int] = {}
    begun = False
    while header := source.read(27):
        place = source.tell() - len(header)
        if header[:4] != b"OggS":
            if ended and all(ended.values()) and b"OggS" not in header + source.read():
                return None  # a tag behind the sound
            return f"damaged, no Ogg page begins at byte {place}"
        table = source.read(header[-1]) if len(header) == 27 else b""
        body = source.read(sum(table))
        if len(header) < 27 or len(table) < header[-1] or len(body) < sum(table):
            return "cut short, within its last Ogg page"
        if ogg_checksum(header[:22] + bytes(4) + header[26:] + table + body) != header[22:26]:
            return f"damaged, the checksum of the Ogg page at byte {place} does not match"
        serial, page, flags = header[14:18], int.from_bytes(header[18:22], "little"), header[5]
        if flags & 2 and begun:
            return "holds several Ogg streams one after the other; split it into files"
        begun = begun or not flags & 2
        if number.setdefault(serial, page) != page:
            return f"damaged, Ogg pages are missing before byte {place}"
        number[serial], ended[serial] = page + 1, bool(flags & 4)
    return None if all(ended.values()) else "cut short, its last Ogg page is missing"


def ogg_checksum(page: bytes) -> bytes:
    """The CRC-32 of an Ogg page, whose own four bytes of it are zero.

    Ogg shifts bits the other way than zlib, and neither begins with nor ends by inverting them. So zlib is given each
    byte reversed and its register's inverse, and the result is reversed.

    Example:
        >>> ogg_checksum(b"\\x01").hex()  # the polynomial, 0x04C11DB7
        'b71dc104'
    """
    crc = zlib.crc32(page.translate(_BYTE_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return crc.to_bytes(4, "big").translate(_BYTE_REVERSED)


def mp3_samples(content: bytes | mmap.mmap) -> int:
    """Samples per channel in all complete frames of an MP3 file, by their headers (ISO/IEC 11172-3, 2.4.2.3)."""
    samples = place = 0
    in_step = False
    while 0 <= place <= len(content) - 4:
        length, n = _mp3_frame(content, place)
        if length and (in_step or _mp3_frame(content, place + length)[0]):
            samples += n if place + length <= len(content) else 0
            place, in_step = place + length, True
        elif content[place : place + 3] == b"ID3":
            size = content[place + 6 : place + 10].ljust(4, b"\0")  # of seven bits a byte
            place += 10 + sum((byte & 127) << 7 * (3 - i) for i, byte in enumerate(size))
        else:
            place, in_step = content.find(b"\xff", place + 1), False
    return samples


def _mp3_frame(content: bytes | mmap.mmap, place: int) -> tuple[int, int]:
    """Length in bytes and samples of the frame that begins there; 0, 0 if none does."""
    head = content[place : place + 3]
    if len(head) < 3 or head[0] != 0xFF:
        return 0, 0
    return _MP3_FRAMES.get((head[1] | 1, head[2] & 0xFE), (0, 0))


def _mp3_frames() -> dict[tuple[int, int], tuple[int, int]]:
    """Length and samples of a frame by the second and third byte of its header, without protection and private bit."""
    found = {}
    kilobits = {
        1: (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
        2: (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    }
    for second, divisor, version in ((0xFB, 1, 1), (0xF3, 2, 2), (0xE3, 4, 2)):  # MPEG 1, 2 and 2.5, layer III
        samples = 1152 // version
        for i, kbit in enumerate(kilobits[version], 1):
            for j, hertz in enumerate((44100, 48000, 32000)):
                for padding in (0, 1):
                    length = samples // 8 * 1000 * kbit * divisor // hertz + padding
                    found[second, i << 4 | j << 2 | padding << 1] = length, samples
    return found


_MP3_FRAMES = _mp3_frames()


def _repeated(content: bytes | mmap.mmap, marks: tuple[bytes, ...]) -> bool:
    first = {mark: content.find(mark) for mark in marks}
    found = [mark for mark, place in first.items() if place >= 0]
    return len(found) > 1 or any(content.find(mark, first[mark] + 1) >= 0 for mark in found)
