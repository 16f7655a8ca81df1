"""Sound from a pipe: WAV or raw samples as they arrive, and a classifier's windows as they are complete."""

import re
import struct
from collections.abc import Iterable, Iterator
from io import BufferedIOBase
from typing import NamedTuple

import numpy as np
import soxr
import torch

from ..data.containers import find_wav_samples
from ..data.decoding import Channel, ChannelPicker, check_declared
from ..errors import DataError, UsageError
from ..waveforms import RATES_HZ
from ..windows import split_windows, window_hop

_NAME = "standard input"
_READ_BYTES = 2**18
_MAX_WINDOWS = 64  # that are handed out at once: closely overlapping ones take far more memory than their sound
_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE


class SampleFormat(NamedTuple):
    """How samples are stored in a stream of bytes, little endian.

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


def pipe_blocks(
    stream: BufferedIOBase, sample_rate: int, pcm_rate: int | None = None, channel: Channel = "mix"
) -> Iterator[np.ndarray]:
    """Decode a WAV file, or raw samples, from a stream that cannot be rewound, as its bytes arrive.

    What is accepted is what `data.decoding` accepts of a WAV file of such samples.

    Args:
        stream: such as ``sys.stdin.buffer``.
        sample_rate: of the returned waveform, in Hz.
        pcm_rate: None: the stream is a WAV file; else it is raw 16-bit little-endian mono at this rate in Hz.
        channel: as in `decoding.read_audio`, but not "loudest", which is known at the end only.

    Yields:
        The next part of the waveform, float32 of shape ``(samples,)``.

    Raises:
        DataError: if it is no WAV file, of a kind that cannot be read, cut short or holds NaN or infinity.
        UsageError: if `pcm_rate` is out of range or the channel is "loudest".

    Example:
        >>> import io
        >>> stream = io.BufferedReader(io.BytesIO(np.array([0, 16384], "<i2").tobytes()))
        >>> np.concatenate(list(pipe_blocks(stream, 16000, pcm_rate=16000)))
        array([0. , 0.5], dtype=float32)
    """
    if channel == "loudest":
        raise UsageError(f"{_NAME}: its loudest channel is known at its end only; choose left, right or a number")
    held, n_bytes = b"", None
    if pcm_rate is None:
        sound, n_bytes, held = _read_wav_header(stream)
    elif RATES_HZ[0] <= pcm_rate <= RATES_HZ[1]:
        sound = SampleFormat(pcm_rate, 1, 2, is_float=False)
    else:
        raise UsageError(f"--pcm-rate {pcm_rate}: is outside {RATES_HZ[0]} Hz to {RATES_HZ[1]:,} Hz")
    pick = ChannelPicker(channel, sound.channels, _NAME)
    resample = soxr.ResampleStream(sound.sample_rate, sample_rate, 1) if sound.sample_rate != sample_rate else None
    frame_bytes, left = sound.channels * sound.bytes, n_bytes
    while left is None or left > 0:
        data = stream.read1(_READ_BYTES if left is None else min(left, _READ_BYTES))
        if not data:
            break
        left = None if left is None else left - len(data)
        held += data
        whole = len(held) // frame_bytes * frame_bytes
        if whole:
            waveform = pick(_decode(held[:whole], sound))
            held = held[whole:]
            yield waveform if resample is None else resample.resample_chunk(waveform)
    if resample is not None:
        yield resample.resample_chunk(np.zeros(0, np.float32), last=True)
    pick.warn_if_cancelled()
    if left:
        raise DataError(f"{_NAME}: cut short, {left} of {n_bytes} declared bytes are missing")
    if n_bytes and re.match(rb"\0?(RIFF|RF64)", stream.read(5)):
        raise DataError(f"{_NAME}: holds several WAV files one after the other; give them one by one")


def windows_of(blocks: Iterable[np.ndarray], window_length: int, overlap: float = 0.0) -> Iterator[Part]:
    """The windows of `windows.split_windows`, each as soon as its samples are there.

    Args:
        blocks: the waveform in pieces.
        window_length: in samples.
        overlap: of windows, see `window_hop`.

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
    rest, samples, n_windows = np.zeros(0, np.float32), 0, 0  # rest: from where the next window begins
    last = rest
    for block in blocks:
        samples += len(block)
        rest = np.concatenate([rest, block])
        last = np.concatenate([last, block])[-window_length:]
        while True:
            n = min(_MAX_WINDOWS, max(0, (len(rest) - window_length) // hop + 1))
            windows = [rest[i * hop :][:window_length] for i in range(n)]
            yield Part(np.stack(windows) if n else np.zeros((0, window_length), np.float32), samples)
            rest, n_windows = rest[n * hop :], n_windows + n
            if n < _MAX_WINDOWS:
                break
    if samples == 0:
        raise DataError("holds no samples")
    if n_windows == 0 or (n_windows - 1) * hop + window_length < samples:
        yield Part(split_windows(torch.from_numpy(last), window_length).numpy(), samples)


def _read_wav_header(stream: BufferedIOBase) -> tuple[SampleFormat, int | None, bytes]:
    """Format and length in bytes (None: until the stream ends) of the samples that come next, and the first of them."""
    try:
        found = find_wav_samples(stream)
    except ValueError as error:
        raise DataError(f"{_NAME}: {error}; for raw 16-bit mono samples give --pcm-rate") from error
    if found.declared == 0:
        raise DataError(f"{_NAME}: holds no samples")
    return _parse_format(found.format), found.declared, found.first


def _parse_format(content: bytes) -> SampleFormat:
    if len(content) < 16:
        raise DataError(f"{_NAME}: is a WAV file with a format of {len(content)} bytes")
    tag, channels, rate, _, block, bits = struct.unpack("<HHIIHH", content[:16])
    if tag == _EXTENSIBLE and len(content) >= 26:
        tag = struct.unpack("<H", content[24:26])[0]
    known = (tag == _PCM and bits in (8, 16, 24, 32)) or (tag == _FLOAT and bits in (32, 64))
    if not known or channels < 1 or block != channels * bits // 8:
        raise DataError(
            f"{_NAME}: is a WAV file of a kind that cannot be read from a pipe (format {tag}, {bits} bits, "
            f"{channels} channels)"
        )
    if problem := check_declared(rate, channels):
        raise DataError(f"{_NAME}: {problem}")
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
    with np.errstate(over="ignore"):  # what becomes infinite is refused as such
        return samples.astype(np.float32).reshape(-1, sound.channels)
