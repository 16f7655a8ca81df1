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

from .errors import DataError

EXTENSIONS = frozenset(
    (".aif", ".aifc", ".aiff", ".au", ".caf", ".flac", ".mp3", ".oga", ".ogg", ".opus", ".rf64", ".w64", ".wav")
)
"""File name endings (lower case) that count as audio when a folder is searched."""

_BLOCK_NUMBERS = 2**18  # of all channels together: 1 MB
_UNKNOWN_LENGTH = 0x7FFFF000  # programs that write WAV to a pipe declare a length near 2^31 or 2^32
_DECLARED_BYTES = re.compile(r"^\s*(?:data|SSND)\s*: (\d+) \(should be (\d+)\)", re.MULTILINE)


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
    name = _name(path)
    with _open(path) as file:
        first = round(start_s * file.samplerate)
        wanted = file.frames - first
        if duration_s is not None:
            wanted = min(wanted, round(duration_s * file.samplerate))
        if wanted <= 0:
            raise DataError(f"{name}: lasts {file.frames / file.samplerate:.3f} s, nothing to read from {start_s} s on")
        try:
            file.seek(first)
            samples = file.read(wanted, dtype="float32", always_2d=True)
        except soundfile.SoundFileError as error:
            raise DataError(f"{name}: cannot be decoded ({error})") from error
        source_rate = file.samplerate
    if len(samples) < wanted:
        raise DataError(f"{name}: cut short, {len(samples)} of {wanted} samples could be read")
    if not np.isfinite(samples).all():
        raise DataError(f"{name}: holds NaN or infinite samples")
    waveform = samples.mean(axis=1) if samples.shape[1] > 1 else samples[:, 0]
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
        while done < file.frames:
            wanted = min(max(1, _BLOCK_NUMBERS // file.channels), file.frames - done)
            try:
                samples = file.read(wanted, dtype="float32", always_2d=True)
            except soundfile.SoundFileError as error:
                raise DataError(f"{path}: cannot be decoded ({error})") from error
            done += len(samples)
            if len(samples) < wanted:
                raise DataError(f"{path}: cut short, {done} of {file.frames} samples could be read")
            if not np.isfinite(samples).all():
                raise DataError(f"{path}: holds NaN or infinite samples")
            waveform = samples.mean(axis=1) if samples.shape[1] > 1 else samples[:, 0]
            yield waveform if resample is None else resample.resample_chunk(waveform, last=done == file.frames)


def resampled_length(frames: int, source_rate: int, sample_rate: int) -> int:
    """Samples that `frames` at `source_rate` become at `sample_rate`.

    Example:
        >>> resampled_length(800, 8000, 16000)
        1600
    """
    return round(frames * sample_rate / source_rate)


def _open(path: str | os.PathLike[str] | io.BytesIO) -> soundfile.SoundFile:
    name = _name(path)
    if (path.getbuffer().nbytes if isinstance(path, io.BytesIO) else _size(Path(path))) == 0:
        raise DataError(f"{name}: is empty (0 bytes)")
    try:
        file = soundfile.SoundFile(path)
    except (soundfile.SoundFileError, TypeError, ValueError, OSError) as error:
        reason = str(error).rpartition(": ")[2] or str(error)
        raise DataError(f"{name}: is not audio that libsndfile can read ({reason})") from error
    problem = _header_problem(file)
    if problem:
        file.close()
        raise DataError(f"{name}: {problem}")
    return file


def _name(path: str | os.PathLike[str] | io.BytesIO) -> str:
    return str(getattr(path, "name", "audio in memory") if isinstance(path, io.BytesIO) else path)


def _size(path: Path) -> int:
    try:
        found = path.stat()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error
    if not stat.S_ISREG(found.st_mode):  # opening a FIFO would wait forever
        raise DataError(f"{path}: is not a file" + (" but a directory" if stat.S_ISDIR(found.st_mode) else ""))
    return found.st_size


def _header_problem(file: soundfile.SoundFile) -> str | None:
    if file.frames <= 0:
        return "holds no samples"
    cut = _DECLARED_BYTES.search(file.extra_info)
    if cut and int(cut[2]) < int(cut[1]) < _UNKNOWN_LENGTH:
        return f"cut short, {cut[2]} of {cut[1]} declared bytes are there"
    return None
