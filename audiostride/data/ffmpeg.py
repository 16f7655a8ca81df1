"""M4A, WMA and other files that libsndfile does not read, through PyAV (the extra `ffmpeg`), which includes FFmpeg.

Only containers that declare how long they are can be read, so that a file that was cut short is noticed; playlists,
which would open other files, are refused.
"""

import importlib.util
import io
import os
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

EXTENSIONS = frozenset(
    (".3gp", ".avi", ".m4a", ".mka", ".mkv", ".mov", ".mp4", ".tta", ".webm", ".wma", ".wv")
    if importlib.util.find_spec("av")
    else ()
)
"""File name endings (lower case) that PyAV reads; none where it is not installed."""

_CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,asf,matroska,webm,avi,tta,wv"
_MISSING_S = 0.1  # encoders declare what decoders leave out at both ends


class _Info(NamedTuple):
    frames: int
    samplerate: int
    channels: int
    problem: str | None


class FFmpegFile:
    """The first audio stream of a file, with those parts of the interface of `soundfile.SoundFile` that are used.

    The whole file is decoded once, to count its samples and to find damage, and again as it is read: few of these
    formats say where a sample is.

    Attributes:
        problem: what is wrong with the file, or None.

    Raises:
        ValueError: if it is of another kind, or has no sound.
    """

    format = "FFMPEG"

    def __init__(self, source: str | os.PathLike[str] | io.BytesIO) -> None:
        self.source = source
        if isinstance(source, io.BytesIO):
            info = _inspect(source)
        else:
            found = os.stat(source)
            info = _inspect_once(os.fspath(source), found.st_size, found.st_mtime_ns)
        self.frames, self.samplerate, self.channels, self.problem = info
        self.seek(0)

    def __enter__(self) -> "FFmpegFile":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._blocks.close()

    def seekable(self) -> bool:
        """Whether `seek` may be called."""
        return True

    def seek(self, frame: int) -> None:
        """Continue at a sample."""
        self._blocks = _decode(self.source)
        self._held, self._left = np.zeros((0, self.channels), np.float32), self.frames
        while frame:
            frame -= len(self.read(min(frame, 2**16))) or frame

    def read(self, frames: int, dtype: str = "float32", always_2d: bool = True) -> np.ndarray:
        """The next samples, float32 ``(frames, channels)``, fewer at the end."""
        while len(self._held) < frames and (block := next(self._blocks, None)) is not None:
            self._held = np.concatenate([self._held, block])
        block, self._held = np.split(self._held, [min(frames, self._left)])
        self._left -= len(block)
        return block


@lru_cache(maxsize=2**16)
def _inspect_once(path: str, size: int, changed_ns: int) -> _Info:
    return _inspect(path)


def _inspect(source: str | io.BytesIO) -> _Info:
    with _open(source) as container:
        stream = container.streams.audio[0]
        rate, channels, declared_s = stream.rate, stream.channels, _declared_s(container, stream)
    if declared_s is None:
        return _Info(1, rate, channels, "does not declare how long it is; convert it to FLAC or encode it again")
    frames = 0
    try:
        for block in _decode(source):
            frames += len(block)
    except ValueError as error:
        return _Info(max(1, frames), rate, channels, f"cannot be decoded behind {frames / rate:.2f} s ({error})")
    short = declared_s - frames / rate > _MISSING_S
    problem = f"cut short, {frames / rate:.2f} of {declared_s:.2f} s are present" if short else None
    return _Info(min(frames, round(declared_s * rate)), rate, channels, problem)


def _declared_s(container: Any, stream: Any) -> float | None:
    """How long the stream is by the file's own account, in seconds."""
    if stream.duration:
        return float(stream.duration * stream.time_base)
    if tag := stream.metadata.get("DURATION"):  # Matroska
        hours, minutes, seconds = tag.split(":")
        return 3600 * int(hours) + 60 * int(minutes) + float(seconds)
    return container.duration / 1e6 if container.duration and len(container.streams) == 1 else None


@contextmanager
def _open(source: str | os.PathLike[str] | io.BytesIO) -> Iterator[Any]:
    """The container, one of `_CONTAINERS` with an audio stream; all errors of FFmpeg become a ValueError."""
    import av

    with io.BytesIO(source.getvalue()) if isinstance(source, io.BytesIO) else open(source, "rb") as file:
        try:
            with av.open(file, options={"format_whitelist": _CONTAINERS}) as container:
                if not container.streams.audio:
                    raise ValueError("no audio stream")
                yield container
        except av.FFmpegError as error:
            raise ValueError(error.strerror) from error


def _decode(source: str | os.PathLike[str] | io.BytesIO) -> Generator[np.ndarray, None, None]:
    """All samples, float32 ``(samples, channels)``, block by block."""
    import av

    with _open(source) as container:
        packed = av.AudioResampler(format="flt")
        for frame in container.decode(audio=0):
            for part in packed.resample(frame):
                yield part.to_ndarray().reshape(-1, part.layout.nb_channels)
