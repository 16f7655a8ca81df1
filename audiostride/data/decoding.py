"""Decoding audio files, and every rule about files that are not what they claim to be.

libsndfile stays silent about many damaged files (a cut WAV is a short read, a cut header no samples
at all, NaN is data), so what was read is checked against what the file declares.
"""

import io
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
import soxr

from ..errors import DataError, printable

EXTENSIONS = frozenset(
    (".aif", ".aifc", ".aiff", ".au", ".caf", ".flac", ".mp3", ".oga", ".ogg", ".opus", ".rf64", ".w64", ".wav")
)
"""File name endings (lower case) that count as audio when a folder is searched."""

RATES_HZ = (100, 1_000_000)
"""Lowest and highest sample rate of a file, as of a recipe: from infrasound to bats with room to spare."""

MAX_SAMPLES = 2**27
"""Most samples that are decoded at once, 512 MB: 2.3 h at 16 kHz."""

MAX_PEAK = 2.0**31
"""Full scale is 1, but some write float files in the scale of 16 or 32-bit integers; beyond it is no sound."""

_BLOCK = 2**18  # numbers decoded at a time, so that memory is that of one channel however many there are
_UNKNOWN_LENGTH = 0x7FFFF000  # programs that write WAV to a pipe declare a length near 2^31 or 2^32
_DECLARED_BYTES = re.compile(r"^\s*(?:data|SSND|Data Size|riff)\s*: (\d+) \(should be (\d+)\)", re.MULTILINE)


def is_audio(path: str | os.PathLike[str]) -> bool:
    """Whether a file counts as audio by its name: one of `EXTENSIONS`, and not hidden.

    Example:
        >>> is_audio("calls/may.WAV"), is_audio("calls/.may.wav"), is_audio("notes.txt")
        (True, False, False)
    """
    name = os.path.basename(path)
    return os.path.splitext(name)[1].lower() in EXTENSIONS and not name.startswith(".")


class AudioInfo(NamedTuple):
    """What a file declares of itself.

    Attributes:
        frames: samples per channel.
        sample_rate: in Hz.
        channels: number of channels.
    """

    frames: int
    sample_rate: int
    channels: int


def audio_info(path: str | os.PathLike[str] | io.BytesIO) -> AudioInfo:
    """Length, sample rate and channels of an audio file, without decoding it.

    Raises:
        DataError: if it is no readable audio file, holds no samples or was cut short.

    Example:
        >>> import soundfile, tempfile
        >>> path = tempfile.mkdtemp() + "/tone.wav"
        >>> soundfile.write(path, np.zeros((800, 2)), 8000)
        >>> audio_info(path)
        AudioInfo(frames=800, sample_rate=8000, channels=2)
    """
    with _open(path) as file:
        return AudioInfo(file.frames, file.samplerate, file.channels)


def read_audio(
    path: str | os.PathLike[str] | io.BytesIO, sample_rate: int, start_s: float = 0.0, duration_s: float | None = None
) -> np.ndarray:
    """Decode an audio file, or a part of it, to one channel at one sample rate.

    Channels are averaged; other sample rates are converted by soxr (high quality).

    Args:
        path: any format libsndfile reads: WAV, FLAC, OGG, Opus, MP3, AIFF and more; or the bytes of
            such a file, whose `name` errors then give.
        sample_rate: of the returned waveform, in Hz.
        start_s: where to begin, in seconds.
        duration_s: how much to read; None reads to the end.

    Returns:
        Waveform, float32 of shape ``(samples,)``, full scale at +-1.

    Raises:
        DataError: if the file is missing, unreadable, empty, cut short or holds NaN or infinity.

    Example:
        >>> import soundfile, tempfile
        >>> path = tempfile.mkdtemp() + "/tone.wav"
        >>> soundfile.write(path, np.zeros((800, 2)), 8000)
        >>> read_audio(path, sample_rate=16000).shape
        (1600,)
    """
    shown = _name(path)
    with _open(path) as file:
        first = round(start_s * file.samplerate)
        wanted = file.frames - first
        if duration_s is not None:
            wanted = min(wanted, round(duration_s * file.samplerate))
        if wanted <= 0:
            lasts = file.frames / file.samplerate
            raise DataError(f"{shown}: lasts {lasts:.3f} s, nothing to read from {start_s} s on")
        if max(wanted, resampled_length(wanted, file.samplerate, sample_rate)) > MAX_SAMPLES:
            raise DataError(
                f"{shown}: {wanted / file.samplerate:.0f} s at {file.samplerate} Hz are more than the "
                f"{MAX_SAMPLES:,} samples that can be decoded at once; cut it into shorter files"
            )
        source_rate = file.samplerate
        waveform, done = np.empty(wanted, np.float32), 0
        for block in _mono_blocks(file, first, wanted, shown):
            waveform[done : done + len(block)] = block
            done += len(block)
    return waveform if source_rate == sample_rate else soxr.resample(waveform, source_rate, sample_rate)


def audio_blocks(path: str | os.PathLike[str], sample_rate: int) -> Iterator[np.ndarray]:
    """Decode an audio file of any length in constant memory: the waveform of `read_audio`, block by block.

    Args:
        path: as in `read_audio`.
        sample_rate: of the returned waveform, in Hz.

    Yields:
        The next part of the waveform, float32 of shape ``(samples,)``.

    Raises:
        DataError: as `read_audio`; blocks before the damage have been handed out by then.

    Example:
        >>> import soundfile, tempfile
        >>> path = tempfile.mkdtemp() + "/tone.wav"
        >>> soundfile.write(path, np.zeros((800, 2)), 8000)
        >>> [len(block) for block in audio_blocks(path, sample_rate=16000)]
        [1600]
    """
    path = Path(path)
    with _open(path) as file:
        resample = soxr.ResampleStream(file.samplerate, sample_rate, 1) if file.samplerate != sample_rate else None
        done = 0
        for block in _mono_blocks(file, 0, file.frames, printable(path)):
            done += len(block)
            yield block if resample is None else resample.resample_chunk(block, last=done == file.frames)


def _mono_blocks(file: soundfile.SoundFile, first: int, wanted: int, shown: str) -> Iterator[np.ndarray]:
    """Mean of the channels of `wanted` samples from number `first` on, block by block."""
    done = 0
    try:
        if file.seekable():
            file.seek(first)
        else:  # GSM 6.10
            for skipped in range(0, first, _BLOCK):
                file.read(min(_BLOCK, first - skipped))
        while done < wanted:
            block = file.read(min(wanted - done, max(1, _BLOCK // file.channels)), dtype="float32", always_2d=True)
            if len(block) == 0:
                raise DataError(f"{shown}: cut short, {done} of {wanted} samples could be read")
            if not np.isfinite(block).all():
                raise DataError(f"{shown}: holds NaN or infinite samples")
            peak = float(np.abs(block).max())
            if peak > MAX_PEAK:
                raise DataError(f"{shown}: holds samples of {peak:.2g}, where 1 is full scale")
            done += len(block)
            yield block.mean(axis=1) if file.channels > 1 else block[:, 0]
    except soundfile.SoundFileError as error:
        raise DataError(f"{shown}: cannot be decoded ({error})") from error


def resampled_length(frames: int, source_rate: int, sample_rate: int) -> int:
    """Samples that `frames` at `source_rate` become at `sample_rate`.

    Example:
        >>> resampled_length(800, 8000, 16000)
        1600
    """
    return round(frames * sample_rate / source_rate)


def _open(path: str | os.PathLike[str] | io.BytesIO) -> soundfile.SoundFile:
    shown = _name(path)
    if (path.getbuffer().nbytes if isinstance(path, io.BytesIO) else _size(Path(path))) == 0:
        raise DataError(f"{shown}: is empty (0 bytes)")
    try:
        # As bytes, since soundfile cannot encode a name that is no valid text.
        as_it_is = isinstance(path, io.BytesIO) or os.name != "posix"
        file = soundfile.SoundFile(path if as_it_is else os.fsencode(path))  # type: ignore[arg-type]
    except (soundfile.SoundFileError, TypeError, ValueError, OSError) as error:
        reason = str(error).rpartition(": ")[2] or str(error)
        raise DataError(f"{shown}: is not audio that libsndfile can read ({reason})") from error
    problem = _header_problem(file) or (_ogg_problem(path) if file.format == "OGG" else None)
    if problem:
        file.close()
        raise DataError(f"{shown}: {problem}")
    return file


def _name(path: str | os.PathLike[str] | io.BytesIO) -> str:
    return printable(getattr(path, "name", "audio in memory") if isinstance(path, io.BytesIO) else path)


def _size(path: Path) -> int:
    shown = printable(path)
    try:
        found = path.stat()
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        raise DataError(f"{shown}: {getattr(error, 'strerror', None) or error}") from error
    if not stat.S_ISREG(found.st_mode):  # opening a FIFO would wait forever
        raise DataError(f"{shown}: is not a file" + (" but a directory" if stat.S_ISDIR(found.st_mode) else ""))
    return found.st_size


def _header_problem(file: soundfile.SoundFile) -> str | None:
    if file.frames <= 0:
        return "holds no samples"
    if not RATES_HZ[0] <= file.samplerate <= RATES_HZ[1]:
        return f"has a sample rate of {file.samplerate} Hz, outside {RATES_HZ[0]} Hz to {RATES_HZ[1]:,} Hz"
    cut = _DECLARED_BYTES.search(file.extra_info)
    if cut and int(cut[2]) < int(cut[1]) < _UNKNOWN_LENGTH:
        return f"cut short, {cut[2]} of {cut[1]} declared bytes are present"
    return None


def _ogg_problem(path: str | os.PathLike[str] | io.BytesIO) -> str | None:
    """The last page of a whole Ogg stream says that it is the last (RFC 3533, 6); libsndfile does not look."""
    longest_page = 65_307
    if isinstance(path, io.BytesIO):
        tail = path.getvalue()[-longest_page:]
    else:
        with open(path, "rb") as file:
            file.seek(max(0, os.path.getsize(path) - longest_page))
            tail = file.read()
    page = tail.rfind(b"OggS")
    last = page >= 0 and len(tail) > page + 5 and tail[page + 5] & 4
    return None if last else "cut short, its last Ogg page is missing"
