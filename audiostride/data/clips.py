"""`Clips`: the table every data source returns, a row a clip, and the ways to hold its sound."""

import io
import math
import os
from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from ..errors import DataError
from ..windows import split_windows
from .decoding import Channel, audio_info, read_audio, resampled_length
from .text_column import Texts

Progress = Callable[[str, int, int], None]
"""Called with (what is being done, steps done, steps in all)."""


PER_CLIP = {"per_clip": True}
"""Marks a dataclass field with one value a clip, a list, a `Texts` or an array (or None): `select` selects from it."""


@dataclass
class Clips:
    """Audio clips with their labels, column by column.

    Attributes:
        names: name of each clip: its path below the data set's folder. Segments of one file share it.
        columns: label columns by name, one string a clip.
        splits: "train", "validation", "test" or "" (not assigned) of each clip.
    """

    names: Sequence[str] = field(metadata=PER_CLIP)
    columns: dict[str, Sequence[str]]
    splits: Sequence[str] = field(metadata=PER_CLIP)

    def __len__(self) -> int:
        return len(self.names)

    def n_samples(self, index: int, sample_rate: int) -> int:
        """Length of a clip in samples at `sample_rate`."""
        raise NotImplementedError

    def read(self, index: int, sample_rate: int, start: int = 0, length: int | None = None) -> np.ndarray:
        """Waveform of a clip, float32 ``(samples,)``, from sample `start` on at `sample_rate`."""
        raise NotImplementedError

    def loaded(self, sample_rate: int, progress: Progress | None = None) -> "Clips":
        """The table as it is best read from at this rate: for a kind that is decoded into memory, with all of it."""
        return self

    def random_window(self, index: int, sample_rate: int, length: int, rng: np.random.Generator) -> np.ndarray:
        """A random window for training; a shorter clip is at a random place in it, the rest is silence.

        Returns:
            Float32 of shape ``(length,)``.
        """
        n = self.n_samples(index, sample_rate)
        start = int(rng.integers(0, abs(n - length) + 1))
        if n > length:
            waveform, at = self.read(index, sample_rate, start, length), 0
        else:
            waveform, at = self.read(index, sample_rate), start
        window = np.zeros(length, np.float32)
        part = waveform[: length - at]  # resampling may give a sample more
        window[at : at + len(part)] = part
        return window

    def windows(self, index: int, sample_rate: int, length: int, overlap: float = 0.0) -> Tensor:
        """All windows of a clip for evaluation, ``(n_windows, length)``, see `windows.split_windows`."""
        return split_windows(torch.from_numpy(self.read(index, sample_rate)), length, overlap=overlap)

    def title(self, index: int) -> str:
        """What to call a clip in a message or a table: its name, with the seconds of a segment."""
        return self.names[index]

    def state(self, index: int) -> str:
        """A text that changes whenever the clip's sound may have changed: path, size, time of change.

        Raises:
            DataError: if the file is not there.
        """
        raise NotImplementedError

    def block_numbers(self) -> np.ndarray | None:
        """For each clip the number of the block it is fetched with; None where any order is as good."""
        return None

    def column(self, name: str) -> Sequence[str]:
        """The labels of one column.

        Raises:
            DataError: if there is no such column; names the nearest.
        """
        if name not in self.columns:
            near = get_close_matches(name, self.columns, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise DataError(f"there is no label column {name!r} among {sorted(self.columns)}{hint}")
        return self.columns[name]

    def select(self, indexes: Iterable[int]) -> Self:
        """The clips at `indexes`, as a table of the same kind."""
        rows = list(indexes)
        columns = {name: _rows(values, rows) for name, values in self.columns.items()}
        own = [one.name for one in fields(self) if one.metadata.get("per_clip")]
        return replace(self, columns=columns, **{name: _rows(getattr(self, name), rows) for name in own})


@dataclass
class EncodedClips(Clips):
    """Clips that are encoded audio: files, or parts of something larger. What the sources return.

    Attributes:
        spans: where each clip begins and ends in its audio, seconds, float64 of shape ``(n_clips, 2)``;
            an infinite end is the audio's. None: every clip is all of its audio.
        lengths: samples of the clips at `lengths_at` Hz, int64, once they were decoded; saves opening a file for its
            length.
        channel: the one that is heard, see `decoding.read_audio`.
    """

    spans: np.ndarray | None = field(default=None, metadata=PER_CLIP)
    lengths: np.ndarray | None = field(default=None, metadata=PER_CLIP)
    lengths_at: int = 0
    channel: Channel = "mix"

    @abstractmethod
    def audio(self, index: int) -> Path | io.BytesIO:
        """The encoded audio behind a clip: a path, or the bytes with their name in `.name`."""

    def n_samples(self, index: int, sample_rate: int) -> int:
        if self.lengths is not None and self.lengths_at == sample_rate:
            return int(self.lengths[index])
        info = audio_info(self.audio(index))
        start_s, end_s = self._span(index)
        end = min(info.frames, end_s * info.sample_rate)
        return resampled_length(max(0, round(end - start_s * info.sample_rate)), info.sample_rate, sample_rate)

    def read(self, index: int, sample_rate: int, start: int = 0, length: int | None = None) -> np.ndarray:
        start_s, end_s = self._span(index)
        rest_s = end_s - start_s - start / sample_rate
        wanted_s = rest_s if length is None else min(rest_s, length / sample_rate)
        duration_s = None if np.isinf(wanted_s) else wanted_s
        return read_audio(self.audio(index), sample_rate, start_s + start / sample_rate, duration_s, self.channel)

    def title(self, index: int) -> str:
        if self.spans is None:
            return self.names[index]
        # Exact, so that segments a sample apart have different titles.
        start_s, end_s = (str(value).removesuffix(".0").replace("inf", "") for value in self._span(index))
        return f"{self.names[index]}#t={start_s},{end_s}"

    def _span(self, index: int) -> tuple[float, float]:
        if self.spans is None:
            return 0.0, float("inf")
        return float(self.spans[index, 0]), float(self.spans[index, 1])


@dataclass
class FileClips(EncodedClips):
    """Clips that are audio files below one folder, or segments of them.

    Attributes:
        root: the folder that `names` are relative to.

    Example:
        >>> clips = FileClips(["no/a.wav"], {"label": ["no"]}, ["train"], root=Path("words"))
        >>> clips.path(0).as_posix(), clips.title(0)
        ('words/no/a.wav', 'no/a.wav')
    """

    root: Path = field(default=Path())

    def path(self, index: int) -> Path:
        """Where a clip's file is."""
        return self.root / self.names[index]

    def audio(self, index: int) -> Path:
        return self.path(index)

    def state(self, index: int) -> str:
        path = self.path(index)
        try:
            found = os.stat(path)
        except OSError as error:
            raise DataError(f"{path}: {error.strerror or error}") from error
        return f"{os.path.abspath(path)} {found.st_size} {found.st_mtime_ns} {self._span(index)}"


@dataclass
class ArrayClips(Clips):
    """Clips that are rows of an array in memory.

    Attributes:
        waveforms: float32 or int16 of shape ``(n_clips, samples)``; int16 has full scale at 32768.
        sample_rate: in Hz.

    Example:
        >>> waveforms = np.zeros((2, 16000), np.float32)
        >>> clips = ArrayClips(["a", "b"], {"word": ["no", "yes"]}, ["train", "test"], waveforms=waveforms)
        >>> clips.select([1]).column("word"), clips.windows(0, 16000, 8000).shape
        (['yes'], torch.Size([2, 8000]))
    """

    waveforms: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.float32), metadata=PER_CLIP)
    sample_rate: int = 16000

    def n_samples(self, index: int, sample_rate: int) -> int:
        check_rate(sample_rate, self.sample_rate)
        return self.waveforms.shape[1]

    def read(self, index: int, sample_rate: int, start: int = 0, length: int | None = None) -> np.ndarray:
        check_rate(sample_rate, self.sample_rate)
        samples = self.waveforms[index, start : None if length is None else start + length]
        return samples.astype(np.float32) / 32768 if samples.dtype == np.int16 else samples


def check_rate(wanted: int, own: int) -> None:
    """Refuse another sample rate than the one a data set is made at.

    Raises:
        DataError: names both rates.

    Example:
        >>> check_rate(8000, 16000)
        Traceback (most recent call last):
            ...
        audiostride.errors.DataError: this data set is made at 16000 Hz; set frontend.sample_rate to that
    """
    if wanted != own:
        raise DataError(f"this data set is made at {own} Hz; set frontend.sample_rate to that")


def class_names(labels: Iterable[str]) -> list[str]:
    """Distinct labels in one fixed order: finite numbers by their value, then everything else alphabetically.

    Example:
        >>> class_names(["go", "down", "go"]), class_names(["10", "nan", "9", "0.5"])
        (['down', 'go'], ['0.5', '9', '10', 'nan'])
    """
    return sorted(labels.distinct() if isinstance(labels, Texts) else set(labels), key=_place)


def _place(label: str) -> tuple[float, str]:
    try:
        number = float(label)
    except ValueError:
        number = math.inf
    return (number if math.isfinite(number) else math.inf), label  # nan has no place among numbers


def _rows(values: Any, rows: list[int]) -> Any:
    if values is None or isinstance(values, np.ndarray):
        return values if values is None else values[rows]
    return values.select(rows) if isinstance(values, Texts) else [values[i] for i in rows]
