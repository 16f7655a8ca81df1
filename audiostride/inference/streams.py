"""Sound from a pipe: WAV or raw samples as they arrive, and a classifier's windows as they are complete."""

import struct
from collections.abc import Iterable, Iterator
from io import BufferedIOBase
from typing import NamedTuple

import numpy as np
import soxr
import torch

from ..errors import DataError
from ..windows import split_windows, window_hop

_READ_BYTES = 2**18
_UNKNOWN_LENGTH = 0x7FFFF000  # what programs that write WAV to a pipe declare, or more
_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE


class SampleFormat(NamedTuple):
    """How samples lie in a stream of bytes, little endian.

    Attributes:
        sample_rate: in Hz.
        channels: number of interleaved channels.
        bytes: of one sample of one channel.
        is_float: floating point, full scale at +-1; else whole numbers.
    """

    sample_rate: int
    channels: int
    bytes: int
    is_float: bool


class Part(NamedTuple):
    """The next windows of a sound.

    Attributes:
        windows: float32 of shape ``(n_windows, window_length)``; n_windows may be 0.
        samples: samples of the sound so far.
    """

    windows: np.ndarray
    samples: int


def pipe_blocks(stream: BufferedIOBase, sample_rate: int, pcm_rate: int | None = None) -> Iterator[np.ndarray]:
    """Decode a WAV file, or raw samples, from a stream that cannot be rewound, as its bytes arrive.

    Args:
        stream: such as ``sys.stdin.buffer``.
        sample_rate: of the returned waveform, in Hz.
        pcm_rate: None: the stream is a WAV file; else it is raw 16-bit little-endian mono at this rate in Hz.

    Yields:
        The next part of the waveform, float32 of shape ``(samples,)``, channels averaged.

    Raises:
        DataError: if it is no WAV file, of a kind that cannot be read, cut short or holds NaN or infinity.

    Example:
        >>> import io
        >>> stream = io.BufferedReader(io.BytesIO(np.array([0, 16384], "<i2").tobytes()))
        >>> np.concatenate(list(pipe_blocks(stream, 16000, pcm_rate=16000)))
        array([0. , 0.5], dtype=float32)
    """
    if pcm_rate is None:
        sound, n_bytes = _read_wav_header(stream)
    else:
        sound, n_bytes = SampleFormat(pcm_rate, 1, 2, is_float=False), None
    resample = soxr.ResampleStream(sound.sample_rate, sample_rate, 1) if sound.sample_rate != sample_rate else None
    frame_bytes, left, held = sound.channels * sound.bytes, n_bytes, b""
    while left is None or left > 0:
        data = stream.read1(_READ_BYTES if left is None else min(left, _READ_BYTES))
        if not data:
            break
        left = None if left is None else left - len(data)
        held += data
        whole = len(held) // frame_bytes * frame_bytes
        if whole:
            waveform = _decode(held[:whole], sound).mean(axis=1, dtype=np.float32)
            held = held[whole:]
            if not np.isfinite(waveform).all():
                raise DataError("standard input: holds NaN or infinite samples")
            yield waveform if resample is None else resample.resample_chunk(waveform)
    if resample is not None:
        yield resample.resample_chunk(np.zeros(0, np.float32), last=True)
    if left:
        raise DataError(f"standard input: cut short, {left} of {n_bytes} declared bytes are missing")


def windows_of(blocks: Iterable[np.ndarray], window_length: int, overlap: float = 0.0) -> Iterator[Part]:
    """The windows of `windows.split_windows`, each as soon as its samples are there.

    Args:
        blocks: the waveform in pieces.
        window_length: in samples.
        overlap: share of a window that the next one holds too, from 0 up to but not including 1.

    Yields:
        The windows that a block completed. The last part counts the whole sound.

    Raises:
        DataError: if there is no sample at all.
        ValueError: if the overlap is out of range.

    Example:
        >>> blocks = [np.ones(7, np.float32), np.ones(18, np.float32)]
        >>> [(part.windows.shape, part.samples) for part in windows_of(blocks, 10)]
        [((0, 10), 7), ((2, 10), 25), ((1, 10), 25)]
    """
    hop = window_hop(window_length, overlap)
    rest, samples, n_windows = np.zeros(0, np.float32), 0, 0
    for block in blocks:
        samples += len(block)
        rest = np.concatenate([rest, block])
        n = max(0, (len(rest) - window_length) // hop + 1)
        windows = np.stack([rest[i * hop :][:window_length] for i in range(n)]) if n else np.zeros((0, window_length))
        yield Part(windows.astype(np.float32), samples)
        rest, n_windows = rest[n * hop :], n_windows + n
    if samples == 0:
        raise DataError("holds no samples")
    if n_windows == 0:
        yield Part(split_windows(torch.from_numpy(rest), window_length).numpy(), samples)
        return
    new = len(rest) - (window_length - hop)
    if 2 * new >= hop:
        yield Part(np.pad(rest, (0, window_length - len(rest)))[None], samples)


def _read_wav_header(stream: BufferedIOBase) -> tuple[SampleFormat, int | None]:
    """Format and length in bytes (None: until the stream ends) of the samples that come next."""
    head = stream.read(12)
    if not head:
        raise DataError("standard input: is empty")
    if head[:4] not in (b"RIFF", b"RF64") or head[8:] != b"WAVE":
        raise DataError(
            f"standard input: is not a WAV file: it begins with {head!r}; for raw 16-bit mono samples give --pcm-rate"
        )
    sound = None
    while True:
        name, size = struct.unpack("<4sI", _exactly(stream, 8))
        if name == b"data" and sound is None:
            raise DataError("standard input: is a WAV file whose samples come before their format")
        if name == b"data":
            assert sound is not None
            return sound, None if size == 0 or size >= _UNKNOWN_LENGTH else size
        if size > _READ_BYTES:
            raise DataError(f"standard input: is a WAV file with a header chunk {name!r} of {size} bytes")
        content = _exactly(stream, size + size % 2)
        if name == b"fmt ":
            sound = _parse_format(content)


def _parse_format(content: bytes) -> SampleFormat:
    if len(content) < 16:
        raise DataError(f"standard input: is a WAV file with a format of {len(content)} bytes")
    tag, channels, rate, _, block, bits = struct.unpack("<HHIIHH", content[:16])
    if tag == _EXTENSIBLE and len(content) >= 26:
        tag = struct.unpack("<H", content[24:26])[0]
    known = (tag == _PCM and bits in (8, 16, 24, 32)) or (tag == _FLOAT and bits in (32, 64))
    if not known or channels < 1 or rate < 1 or block != channels * bits // 8:
        raise DataError(
            f"standard input: is a WAV file of a kind that cannot be read (format {tag}, {bits} bits, "
            f"{channels} channels, {rate} Hz)"
        )
    return SampleFormat(rate, channels, bits // 8, tag == _FLOAT)


def _decode(data: bytes, sound: SampleFormat) -> np.ndarray:
    """Bytes to float32 ``(samples, channels)``, full scale at +-1."""
    if sound.is_float:
        samples = np.frombuffer(data, f"<f{sound.bytes}")
    elif sound.bytes == 1:
        samples = np.frombuffer(data, np.uint8) / 128 - 1
    elif sound.bytes == 3:  # the three bytes become the upper ones of a 32-bit number
        wide = np.zeros((len(data) // 3, 4), np.uint8)
        wide[:, 1:] = np.frombuffer(data, np.uint8).reshape(-1, 3)
        samples = wide.view("<i4")[:, 0] / 2**31
    else:
        samples = np.frombuffer(data, f"<i{sound.bytes}") / 2 ** (8 * sound.bytes - 1)
    return samples.astype(np.float32).reshape(-1, sound.channels)


def _exactly(stream: BufferedIOBase, n: int) -> bytes:
    data = stream.read(n)
    if len(data) < n:
        raise DataError("standard input: is a WAV file that ends within its header")
    return data
