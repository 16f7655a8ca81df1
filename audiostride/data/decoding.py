"""Decoding audio files to one channel at one sample rate, and the rules about samples that no sound has.

`containers` judges whether a file is whole. The rules about samples hold for standard input, too (`inference.streams`).
"""

import io
import os
import tempfile
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
import soundfile
import soxr

from ..errors import DataError, printable
from ..files import file_status
from ..sections import Channel
from ..waveforms import MAX_CHANNELS, MAX_PEAK, RATES_HZ, channel_number, warn_if_cancelled
from . import ffmpeg
from .containers import content_problem, find_wav_samples, header_problem

EXTENSIONS = ffmpeg.EXTENSIONS | frozenset(
    (".aif", ".aifc", ".aiff", ".au", ".caf", ".flac", ".mp3", ".oga", ".ogg", ".opus", ".rf64", ".w64", ".wav")
)
"""File name endings (lower case) that count as audio when a folder is searched."""

MAX_SAMPLES = 2**27
"""Most samples that are decoded at once, 512 MB: 2.3 h at 16 kHz."""

_BLOCK = 2**18  # numbers decoded at a time, so that memory is that of one channel however many there are


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
    path: str | os.PathLike[str] | io.BytesIO,
    sample_rate: int,
    start_s: float = 0.0,
    duration_s: float | None = None,
    channel: Channel = "mix",
) -> np.ndarray:
    """Decode an audio file, or a part of it, to one channel at one sample rate.

    Other sample rates are converted by soxr (high quality). Channels whose mix is nearly silent, although they are
    not, are warned about.

    Args:
        path: WAV (also RF64, W64), FLAC, Ogg, Opus, MP3, AIFF, AU, CAF or NIST; or the bytes of such a file, whose
            `name` errors then give.
        sample_rate: of the returned waveform, in Hz.
        start_s: where to begin, in seconds.
        duration_s: how much to read; None reads to the end.
        channel: "mix" averages the channels; "left" or 1 is the first, "right" or 2 the second; "loudest" is the
            one with the most energy in what is read.

    Returns:
        Waveform, float32 of shape ``(samples,)``, full scale at +-1.

    Raises:
        DataError: if the file is missing, unreadable, empty, damaged, cut short, has no such channel or holds NaN or
            infinity.

    Example:
        >>> import soundfile, tempfile
        >>> path = tempfile.mkdtemp() + "/tone.wav"
        >>> soundfile.write(path, np.zeros((800, 2)), 8000)
        >>> read_audio(path, sample_rate=16000).shape
        (1600,)
    """
    shown = _name(path)
    with _open(path, whole=True) as file:
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
        for block in _mono_blocks(file, first, wanted, shown, channel):
            waveform[done : done + len(block)] = block
            done += len(block)
    return waveform if source_rate == sample_rate else soxr.resample(waveform, source_rate, sample_rate)


def audio_blocks(path: str | os.PathLike[str], sample_rate: int, channel: Channel = "mix") -> Iterator[np.ndarray]:
    """Decode an audio file of any length in constant memory: the waveform of `read_audio`, block by block.

    Args:
        path: of a file as `read_audio` takes it.
        sample_rate: of the returned waveform, in Hz.
        channel: as in `read_audio`; "loudest" decodes the file twice.

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
    with _open(path, whole=True) as file:
        resample = soxr.ResampleStream(file.samplerate, sample_rate, 1) if file.samplerate != sample_rate else None
        done = 0
        for block in _mono_blocks(file, 0, file.frames, printable(path), channel):
            done += len(block)
            yield block if resample is None else resample.resample_chunk(block, last=done == file.frames)


class ChannelPicker:
    """One channel out of several, block by block, with the rules about samples that no sound has.

    Args:
        channel: see `Channel`; "loudest" only where the channel is known, as a number.
        n_channels: of the sound.
        shown: its name for messages.

    Raises:
        DataError: if there is no such channel.

    Example:
        >>> pick = ChannelPicker("right", 2, "a.wav")
        >>> pick(np.array([[0.0, 0.5], [0.25, 1.0]], np.float32))
        array([0.5, 1. ], dtype=float32)
    """

    def __init__(self, channel: Channel, n_channels: int, shown: str) -> None:
        try:
            self.column = channel_number(channel, n_channels, shown) - 1
        except ValueError as error:
            raise DataError(str(error)) from error
        self.shown, self.n_channels = shown, n_channels
        self.peak = self.mixed_peak = 0.0

    def __call__(self, block: np.ndarray) -> np.ndarray:
        """Map float32 ``(samples, channels)`` to ``(samples,)``.

        Raises:
            DataError: if a sample is not finite, or beyond any scale.
        """
        peak = _peak(block)
        if not np.isfinite(peak):
            raise DataError(f"{self.shown}: holds NaN or infinite samples")
        if peak > MAX_PEAK:
            raise DataError(f"{self.shown}: holds samples of {peak:.2g}, where 1 is full scale")
        if block.shape[1] == 1 or self.column >= 0:
            return block[:, max(0, self.column)]
        mixed: np.ndarray = block.mean(axis=1, dtype=np.float32)
        self.peak = max(self.peak, peak)
        self.mixed_peak = max(self.mixed_peak, _peak(mixed))
        return mixed

    def warn_if_cancelled(self) -> None:
        """Warn if all that was mixed is nearly silent, and its channels are not."""
        warn_if_cancelled(self.peak, self.mixed_peak, self.n_channels, self.shown)


def _peak(samples: np.ndarray) -> float:
    """The largest magnitude, NaN if one of the samples is; without a copy as `abs` makes it."""
    return float(np.maximum(samples.max(initial=0.0), -samples.min(initial=0.0)))


def check_declared(sample_rate: int, channels: int) -> str | None:
    """What is wrong with a declared sample rate in Hz or number of channels, or None.

    Example:
        >>> check_declared(16000, 2000)
        'has 2000 channels, more than 1,024'
    """
    if not RATES_HZ[0] <= sample_rate <= RATES_HZ[1]:
        return f"has a sample rate of {sample_rate} Hz, outside {RATES_HZ[0]} Hz to {RATES_HZ[1]:,} Hz"
    return f"has {channels} channels, more than {MAX_CHANNELS:,}" if channels > MAX_CHANNELS else None


def _mono_blocks(
    file: soundfile.SoundFile | ffmpeg.FFmpegFile, first: int, wanted: int, shown: str, channel: Channel
) -> Iterator[np.ndarray]:
    """One channel of `wanted` samples from number `first` on, block by block."""
    if channel == "loudest":
        energies = sum(np.square(block, dtype=np.float64).sum(axis=0) for block in _blocks(file, first, wanted, shown))
        channel = int(np.argmax(energies)) + 1
    pick = ChannelPicker(channel, file.channels, shown)
    for block in _blocks(file, first, wanted, shown):
        yield pick(block)
    pick.warn_if_cancelled()


def _blocks(file: soundfile.SoundFile | ffmpeg.FFmpegFile, first: int, wanted: int, shown: str) -> Iterator[np.ndarray]:
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
            done += len(block)
            yield block
    except (soundfile.SoundFileError, ValueError) as error:
        raise DataError(f"{shown}: cannot be decoded ({error})") from error


def resampled_length(frames: int, source_rate: int, sample_rate: int) -> int:
    """Samples that `frames` at `source_rate` become at `sample_rate`.

    Example:
        >>> resampled_length(800, 8000, 16000)
        1600
    """
    return round(frames * sample_rate / source_rate)


def _open(path: str | os.PathLike[str] | io.BytesIO, whole: bool = False) -> soundfile.SoundFile | ffmpeg.FFmpegFile:
    """Open a file that is to be read (`whole`) or only asked for what it declares, and check it."""
    shown = _name(path)
    if (path.getbuffer().nbytes if isinstance(path, io.BytesIO) else _status(path).st_size) == 0:
        raise DataError(f"{shown}: is empty (0 bytes)")
    try:
        file = _sound_file(path)
        if file.frames == 0 and file.format in ("WAV", "WAVEX", "RF64"):
            file = _of_open_length(path) or file
        problem = _problem(file, path, whole)
    except (soundfile.SoundFileError, TypeError, ValueError, OSError) as error:
        reason = str(error).rpartition(": ")[2] or str(error)
        how = "FFmpeg" if os.path.splitext(shown)[1].lower() in ffmpeg.EXTENSIONS else "libsndfile"
        raise DataError(f"{shown}: is not audio that {how} can read ({reason})") from error
    if problem:
        file.close()
        raise DataError(f"{shown}: {problem}")
    return file


def _problem(
    file: soundfile.SoundFile | ffmpeg.FFmpegFile, path: str | os.PathLike[str] | io.BytesIO, whole: bool
) -> str | None:
    if file.frames <= 0:
        return "holds no samples"
    if isinstance(file, ffmpeg.FFmpegFile):
        return file.problem or check_declared(file.samplerate, file.channels)
    with _source(path) as source:
        problem = check_declared(file.samplerate, file.channels) or header_problem(file, source)
        if problem or not (whole or file.format == "OGG"):
            return problem
        if isinstance(path, io.BytesIO):
            return content_problem(file.format, file.frames, source)
    found = _status(path)
    return _content_problem(os.fspath(path), file.format, file.frames, found.st_size, found.st_mtime_ns)


@lru_cache(maxsize=2**16)
def _content_problem(path: str, format: str, samples: int, size: int, changed_ns: int) -> str | None:
    """Once for each file: its windows are read one by one."""
    with open(path, "rb") as source:
        return content_problem(format, samples, source)


def _sound_file(path: str | os.PathLike[str] | io.BytesIO) -> soundfile.SoundFile | ffmpeg.FFmpegFile:
    if os.path.splitext(_name(path))[1].lower() in ffmpeg.EXTENSIONS:
        return ffmpeg.FFmpegFile(path)
    if not isinstance(path, io.BytesIO):
        # As bytes, since soundfile cannot encode a name that is no valid text.
        return soundfile.SoundFile(os.fsencode(path) if os.name == "posix" else path)
    if path.getbuffer()[:1] != b"\xff":
        return soundfile.SoundFile(path)
    with tempfile.NamedTemporaryFile(suffix=".mp3") as file:  # MP3 of low rates libsndfile knows by its name only
        file.write(path.getbuffer())
        file.flush()
        return soundfile.SoundFile(file.name)


class _WithHeader(io.FileIO):
    """A file that begins with other bytes than it does on the disk."""

    header = b""

    def readinto(self, buffer):
        begin = self.tell()
        n = super().readinto(buffer)
        part = self.header[begin : begin + n]
        memoryview(buffer)[: len(part)] = part
        return n

    def __del__(self) -> None:  # soundfile leaves it open
        self.close()


def _of_open_length(path: str | os.PathLike[str] | io.BytesIO) -> soundfile.SoundFile | None:
    """A WAV file that declares no samples although they are there: it was written to a pipe, or its recorder died."""
    with _source(path) as source:
        try:
            found = find_wav_samples(source)
        except ValueError:
            return None
        source.seek(4)
        header = b"RIFF" + source.read(found.offset - 8) + b"\xff" * 4  # RIFF: the length in RF64 is another one
    if found.declared is not None:
        return None
    if isinstance(path, io.BytesIO):
        return soundfile.SoundFile(io.BytesIO(header + path.getvalue()[len(header) :]))
    file = _WithHeader(path)
    file.header = header
    return soundfile.SoundFile(file)


def _source(path: str | os.PathLike[str] | io.BytesIO) -> IO[bytes]:
    return io.BytesIO(path.getvalue()) if isinstance(path, io.BytesIO) else open(path, "rb")


def _name(path: str | os.PathLike[str] | io.BytesIO) -> str:
    return printable(getattr(path, "name", "audio in memory") if isinstance(path, io.BytesIO) else path)


def _status(path: str | os.PathLike[str]) -> os.stat_result:
    try:
        return file_status(path)
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        raise DataError(f"{printable(path)}: {getattr(error, 'strerror', None) or error}") from error
