"""`Clips`: the table every data source returns, a row a clip, and its two ways to hold sound."""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path

import numpy as np

from ..audio import audio_info, read_audio, resampled_length
from ..errors import DataError

Progress = Callable[[str, int, int], None]
"""Called with (what is being done, steps done, steps in all)."""


@dataclass
class Clips:
    """Audio clips with their labels, column by column.

    Attributes:
        names: name of each clip, unique: its path below the data set's folder.
        columns: label columns by name, one string a clip.
        splits: "train", "validation", "test" or "" (not assigned) of each clip.
    """

    names: list[str]
    columns: dict[str, list[str]]
    splits: list[str]

    def __len__(self) -> int:
        return len(self.names)

    def n_samples(self, index: int, sample_rate: int) -> int:
        """Length of a clip in samples at `sample_rate`."""
        raise NotImplementedError

    def read(self, index: int, sample_rate: int, start: int = 0, length: int | None = None) -> np.ndarray:
        """Waveform of a clip, float32 ``(samples,)``, from sample `start` on at `sample_rate`."""
        raise NotImplementedError

    def column(self, name: str) -> list[str]:
        """The labels of one column.

        Raises:
            DataError: if there is no such column; names the nearest.
        """
        if name not in self.columns:
            near = get_close_matches(name, self.columns, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise DataError(f"there is no label column {name!r} among {sorted(self.columns)}{hint}")
        return self.columns[name]

    def select(self, indexes: Iterable[int]) -> "Clips":
        """The clips at `indexes`, as a table of the same kind."""
        raise NotImplementedError


@dataclass
class FileClips(Clips):
    """Clips that are audio files below one folder.

    Attributes:
        root: the folder that `names` are relative to.
    """

    root: Path = field(default=Path())

    def path(self, index: int) -> Path:
        """Where a clip's file is."""
        return self.root / self.names[index]

    def n_samples(self, index: int, sample_rate: int) -> int:
        info = audio_info(self.path(index))
        return resampled_length(info.frames, info.sample_rate, sample_rate)

    def read(self, index: int, sample_rate: int, start: int = 0, length: int | None = None) -> np.ndarray:
        duration_s = None if length is None else length / sample_rate
        return read_audio(self.path(index), sample_rate, start / sample_rate, duration_s)

    def select(self, indexes: Iterable[int]) -> "FileClips":
        return FileClips(*_rows(self, list(indexes)), root=self.root)


@dataclass
class ArrayClips(Clips):
    """Clips that are rows of an array in memory.

    Attributes:
        waveforms: float32 or int16 of shape ``(n_clips, samples)``; int16 has full scale at 32768.
        sample_rate: in Hz.
    """

    waveforms: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    sample_rate: int = 16000

    def n_samples(self, index: int, sample_rate: int) -> int:
        self._check(sample_rate)
        return self.waveforms.shape[1]

    def read(self, index: int, sample_rate: int, start: int = 0, length: int | None = None) -> np.ndarray:
        self._check(sample_rate)
        samples = self.waveforms[index, start : None if length is None else start + length]
        return samples.astype(np.float32) / 32768 if samples.dtype == np.int16 else samples

    def select(self, indexes: Iterable[int]) -> "ArrayClips":
        rows = list(indexes)
        return ArrayClips(*_rows(self, rows), waveforms=self.waveforms[rows], sample_rate=self.sample_rate)

    def _check(self, sample_rate: int) -> None:
        if sample_rate != self.sample_rate:
            raise DataError(f"this data set is made at {self.sample_rate} Hz; set frontend.sample_rate to it")


def class_names(labels: Iterable[str]) -> list[str]:
    """Distinct labels in a fixed order: as numbers if all are numbers, else alphabetically.

    Example:
        >>> class_names(["go", "down", "go"]), class_names(["10", "9", "0.5"])
        (['down', 'go'], ['0.5', '9', '10'])
    """
    distinct = set(labels)
    try:
        return sorted(distinct, key=lambda label: (float(label), label))
    except ValueError:
        return sorted(distinct)


def drop_bad_files(
    clips: Clips, sample_rate: int, on_bad_file: str, progress: Progress | None = None, workers: int = 2
) -> tuple[Clips, list[str]]:
    """Decode every clip once and find those that cannot be used.

    Args:
        clips: the clips to check.
        sample_rate: rate to decode them at, in Hz.
        on_bad_file: "error" raises one error that lists them, "skip" leaves them out.
        progress: called after each clip.
        workers: decoding threads.

    Returns:
        The good clips and one line for each bad one.

    Raises:
        DataError: if there are bad files and `on_bad_file` is "error", or no clip is left.
    """

    def problem(index: int) -> str | None:
        try:
            clips.read(index, sample_rate)
        except DataError as error:
            return str(error)
        return None

    good, bad = [], []
    with ThreadPoolExecutor(workers) as pool:
        for index, found in enumerate(pool.map(problem, range(len(clips)))):
            if found is None:
                good.append(index)
            else:
                bad.append(found)
            if progress:
                progress("reading audio", index + 1, len(clips))
    if bad and on_bad_file == "error":
        shown = "\n".join(f"  {line}" for line in bad[:10])
        more = f"\n  ... and {len(bad) - 10} more" if len(bad) > 10 else ""
        raise DataError(
            f"{len(bad)} of {len(clips)} audio files cannot be used:\n{shown}{more}\n"
            "Mend or remove them, or set data.on_bad_file=skip to leave them out."
        )
    if not good:
        raise DataError("none of the audio files can be used:\n  " + "\n  ".join(bad[:10]))
    return (clips.select(good) if bad else clips), bad


def _rows(clips: Clips, indexes: Sequence[int]) -> tuple[list[str], dict[str, list[str]], list[str]]:
    columns = {name: [values[i] for i in indexes] for name, values in clips.columns.items()}
    return [clips.names[i] for i in indexes], columns, [clips.splits[i] for i in indexes]
