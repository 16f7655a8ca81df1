"""The decoded cache: a data set decoded once to 16-bit samples in one memory-mapped file.

    CACHE/KEY/samples.i16   every clip, one after the other
    CACHE/KEY/ends.npy      where each clip ends, in samples
    CACHE/KEY/scales.npy    what to multiply a clip by
    CACHE/KEY/bad.json      clips that cannot be used, and why

KEY is a digest of the sample rate and of every clip's path, size and time of change, so a changed
file makes another entry and an entry never changes. It is built under a lock in a folder next
to it, which is renamed when complete: runs that start at once build it once, and a killed run leaves nothing that
could pass for an entry.
"""

import hashlib
import json
import os
import shutil
from array import array
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError
from ..files import exclusive
from .bad_files import decode_all, leave_out
from .clips import PER_CLIP, Clips, EncodedClips, Progress, check_rate

_FORMAT = "1"


@dataclass
class CachedClips(Clips):
    """Clips in the decoded cache; every process maps the same pages.

    Attributes:
        file: the samples, int16.
        starts, ends: each clip's samples in the file, int64.
        scales: what each clip is multiplied by, float32; 1/32768 unless it exceeds full scale.
        sample_rate: in Hz.
    """

    file: Path = field(default=Path())
    starts: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64), metadata=PER_CLIP)
    ends: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64), metadata=PER_CLIP)
    scales: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32), metadata=PER_CLIP)
    sample_rate: int = 16000

    def __post_init__(self) -> None:
        self._samples: np.ndarray | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_samples": None}  # a worker maps the file itself

    def n_samples(self, index: int, sample_rate: int) -> int:
        check_rate(sample_rate, self.sample_rate)
        return int(self.ends[index] - self.starts[index])

    def read(self, index: int, sample_rate: int, start: int = 0, length: int | None = None) -> np.ndarray:
        check_rate(sample_rate, self.sample_rate)
        if self._samples is None:
            self._samples = np.memmap(self.file, np.int16, "r")
        first, last = int(self.starts[index]) + start, int(self.ends[index])
        samples = self._samples[first : last if length is None else min(last, first + length)]
        return samples.astype(np.float32) * self.scales[index]


def cached(
    clips: EncodedClips,
    sample_rate: int,
    folder: str | os.PathLike[str],
    on_bad_file: str = "error",
    progress: Progress | None = None,
    workers: int = 2,
    key: str = "on_bad_file",
) -> tuple[CachedClips, list[str]]:
    """The same clips out of the decoded cache, which is filled if need be.

    16-bit audio at `sample_rate` is preserved bit-exactly; other audio is rounded to 16 bits, and a
    clip beyond full scale is scaled so that nothing is cut off.

    Args:
        clips: what a source returned.
        sample_rate: to decode at, in Hz.
        folder: the cache; shared by any number of runs and data sets.
        on_bad_file: "error" or "skip", see `drop_bad_files`.
        progress: called after each clip that is decoded.
        workers: decoding threads.
        key: what the reader of an error sets to "skip".

    Returns:
        The good clips and one line for each bad one.

    Raises:
        DataError: if there are bad files and `on_bad_file` is "error", or no clip is left.
        OSError: if the cache cannot be written.

    Example:
        >>> import soundfile, tempfile
        >>> from .clips import FileClips
        >>> folder = Path(tempfile.mkdtemp())
        >>> soundfile.write(folder / "a.wav", np.full(800, 0.5), 16000)
        >>> clips, bad = cached(FileClips(["a.wav"], {}, [""], root=folder), 16000, folder / "cache")
        >>> clips.read(0, 16000, start=700)[:2], clips.n_samples(0, 16000), bad
        (array([0.5, 0.5], dtype=float32), 800, [])
    """
    entry = Path(folder).expanduser() / _key(clips, sample_rate)
    opened = _open(entry, clips, sample_rate)
    if opened is None:
        entry.parent.mkdir(parents=True, exist_ok=True)
        with exclusive(entry.with_suffix(".lock")):
            opened = _open(entry, clips, sample_rate)  # another run may have built it meanwhile
            if opened is None:
                _build(entry, clips, sample_rate, progress, workers)
                opened = _open(entry, clips, sample_rate)
    assert opened is not None
    whole, bad = opened
    good = leave_out(whole, bad, on_bad_file, key)
    assert isinstance(good, CachedClips)
    return good, list(bad.values())


def _key(clips: EncodedClips, sample_rate: int) -> str:
    digest = hashlib.sha256(f"{_FORMAT} {sample_rate}".encode())
    for index in range(len(clips)):
        try:
            state = clips.state(index)
        except DataError as error:
            state = str(error)
        digest.update(f"\n{state}".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:32]


def _build(entry: Path, clips: Clips, sample_rate: int, progress: Progress | None, workers: int) -> None:
    temporary = entry.with_suffix(f".building-{os.getpid()}")
    for stale in entry.parent.glob(f"{entry.name}.building-*"):
        shutil.rmtree(stale, ignore_errors=True)
    shutil.rmtree(entry, ignore_errors=True)  # damaged, or it would have been opened
    temporary.mkdir()
    try:
        ends, scales, bad, end = array("q"), array("f"), dict[int, str](), 0
        with (temporary / "samples.i16").open("wb") as file:
            for index, result in decode_all(clips, sample_rate, workers):
                scale = 1.0
                if isinstance(result, DataError):
                    bad[index] = str(result)
                else:
                    scale = max(1.0, float(np.abs(result).max(initial=0.0)))
                    samples = np.clip(np.rint(result * (32768 / scale)), -32768, 32767).astype(np.int16)
                    file.write(samples.tobytes())
                    end += len(samples)
                ends.append(end)
                scales.append(scale / 32768)
                if progress:
                    progress("decoding into the cache", index + 1, len(clips))
            file.flush()
            os.fsync(file.fileno())
        np.save(temporary / "ends.npy", np.frombuffer(ends, np.int64))
        np.save(temporary / "scales.npy", np.frombuffer(scales, np.float32))
        (temporary / "bad.json").write_text(json.dumps(list(bad.items())), encoding="utf-8")
        try:
            temporary.rename(entry)
        except OSError:
            if not entry.exists():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _open(entry: Path, clips: Clips, sample_rate: int) -> tuple[CachedClips, dict[int, str]] | None:
    file = entry / "samples.i16"
    try:
        ends, scales = np.load(entry / "ends.npy"), np.load(entry / "scales.npy")
        bad = {int(index): str(line) for index, line in json.loads((entry / "bad.json").read_text(encoding="utf-8"))}
        complete = len(ends) == len(scales) == len(clips) and file.stat().st_size == 2 * int(ends[-1])
    except (OSError, ValueError, EOFError):
        return None
    if not complete:
        return None
    starts = np.concatenate([[0], ends[:-1]])
    table = (clips.names, clips.columns, clips.splits)
    return CachedClips(*table, file, starts, ends, scales, sample_rate), bad
