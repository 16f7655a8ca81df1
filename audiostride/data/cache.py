"""The decoded cache: a data set decoded once to 16-bit samples in one memory-mapped file.

    CACHE/KEY/samples.i16   every clip, one after the other
    CACHE/KEY/ends.npy      where each clip ends, in samples
    CACHE/KEY/scales.npy    what to multiply a clip by
    CACHE/KEY/checks.npy    CRC-32 of every 64 kB of samples
    CACHE/KEY/bad.json      clips that cannot be used, and why
    CACHE/KEY/sha256        digest of the three .npy files and bad.json

KEY is a digest of the sample rate and of every clip's path, size and time of change, so a changed
file makes another entry and an entry never changes. It is built under a lock in a folder next
to it, which is renamed when complete: runs that start at once build it once, and a killed run leaves nothing that
could pass for an entry.
"""

import hashlib
import io
import json
import os
import shutil
import uuid
import zlib
from array import array
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from ..errors import DataError, ModelFileError, printable
from ..files import exclusive, expand_user, explain_write_errors, read_bounded
from .bad_files import decode_all, leave_out
from .clips import PER_CLIP, Clips, EncodedClips, Progress, check_rate

_FORMAT = "2"
_CHUNK = 2**15  # samples that share a checksum
_INDEX = ("ends.npy", "scales.npy", "checks.npy", "bad.json")
_MAX_INDEX_BYTES = 2**32


@dataclass
class CachedClips(Clips):
    """Clips in the decoded cache; every process maps the same pages, and checks each chunk when it first reads it.

    Attributes:
        file: the samples, int16.
        starts, ends: each clip's samples in the file, int64.
        scales: what each clip is multiplied by, float32; 1/32768 unless it exceeds full scale.
        checks: CRC-32 of every `_CHUNK` samples of the file, uint32.
        sample_rate: in Hz.
    """

    file: Path = field(default=Path())
    starts: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64), metadata=PER_CLIP)
    ends: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64), metadata=PER_CLIP)
    scales: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32), metadata=PER_CLIP)
    checks: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint32))
    sample_rate: int = 16000

    def __post_init__(self) -> None:
        self._samples: np.ndarray | None = None
        self._checked = np.zeros(len(self.checks), bool)

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
        last = last if length is None else min(last, first + length)
        for chunk in range(first // _CHUNK, -(-last // _CHUNK)):
            if not self._checked[chunk]:
                self._check(self._samples, chunk)
        return self._samples[first:last].astype(np.float32) * self.scales[index]

    def _check(self, samples: np.ndarray, chunk: int) -> None:
        if zlib.crc32(samples[chunk * _CHUNK : (chunk + 1) * _CHUNK].data) != self.checks[chunk]:
            with suppress(OSError):
                (self.file.parent / "sha256").unlink()
            raise DataError(
                f"{printable(self.file)}: is damaged near byte {2 * chunk * _CHUNK:,}; the next run builds this entry "
                "of the cache again, continue with --resume"
            )
        self._checked[chunk] = True


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
        WriteError: if the cache cannot be written.

    Example:
        >>> import soundfile, tempfile
        >>> from .clips import FileClips
        >>> folder = Path(tempfile.mkdtemp())
        >>> soundfile.write(folder / "a.wav", np.full(800, 0.5), 16000)
        >>> clips, bad = cached(FileClips(["a.wav"], {}, [""], root=folder), 16000, folder / "cache")
        >>> clips.read(0, 16000, start=700)[:2], clips.n_samples(0, 16000), bad
        (array([0.5, 0.5], dtype=float32), 800, [])
    """
    entry = expand_user(folder) / _key(clips, sample_rate)
    opened = _open(entry, clips, sample_rate)
    if opened is None:
        with explain_write_errors(entry):
            entry.parent.mkdir(parents=True, exist_ok=True)
        with exclusive(entry.with_suffix(".lock")) as locked:
            opened = _open(entry, clips, sample_rate)  # another run may have built it meanwhile
            if opened is None:
                _remove_abandoned(entry, locked)
                with explain_write_errors(entry):
                    _build(entry, clips, sample_rate, progress, workers)
                opened = _open(entry, clips, sample_rate)
    assert opened is not None
    whole, bad = opened
    good = leave_out(whole, bad, on_bad_file, key)
    assert isinstance(good, CachedClips)
    return good, list(bad.values())


def _key(clips: EncodedClips, sample_rate: int) -> str:
    heard = "" if clips.channel == "mix" else f" {clips.channel}"
    digest = hashlib.sha256(f"{_FORMAT} {sample_rate}{heard}".encode())
    for index in range(len(clips)):
        try:
            state = clips.state(index)
        except DataError as error:
            state = str(error)
        digest.update(f"\n{state}".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:32]


def _remove_abandoned(entry: Path, locked: bool) -> None:
    """Remove what killed builds left, of this entry if its lock is held and of those whose lock is free."""
    for build in entry.parent.glob("*.building-*"):
        key = build.name.partition(".")[0]
        if key == entry.name:
            if locked:
                shutil.rmtree(build, ignore_errors=True)
            continue
        lock = FileLock(entry.parent / f"{key}.lock", timeout=0)
        with suppress(Timeout, NotImplementedError, OSError), lock:  # somebody builds it, or there are no locks here
            shutil.rmtree(build, ignore_errors=True)


def _build(entry: Path, clips: Clips, sample_rate: int, progress: Progress | None, workers: int) -> None:
    temporary = entry.with_suffix(f".building-{uuid.uuid4().hex[:12]}")
    temporary.mkdir()
    try:
        ends, scales, bad, end = array("q"), array("f"), dict[int, str](), 0
        checks, rest = array("I"), b""
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
                    rest = _add_checks(checks, rest + samples.tobytes())
                ends.append(end)
                scales.append(scale / 32768)
                if progress:
                    progress("decoding into the cache", index + 1, len(clips))
            file.flush()
            os.fsync(file.fileno())
        if rest:
            checks.append(zlib.crc32(rest))
        np.save(temporary / "ends.npy", np.frombuffer(ends, np.int64))
        np.save(temporary / "scales.npy", np.frombuffer(scales, np.float32))
        np.save(temporary / "checks.npy", np.array(checks, np.uint32))
        (temporary / "bad.json").write_text(json.dumps(list(bad.items())), encoding="utf-8")
        (temporary / "sha256").write_text(_digest(_index(temporary)))
        try:
            temporary.rename(entry)
        except OSError:
            if _open(entry, clips, sample_rate) is None:  # a damaged one, not that of another run
                shutil.rmtree(entry)
                temporary.rename(entry)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _add_checks(checks: "array[int]", data: bytes) -> bytes:
    """Add the checksums of all whole chunks of `data`, and return what is left."""
    whole = len(data) - len(data) % (2 * _CHUNK)
    view = memoryview(data)
    checks.extend(zlib.crc32(view[i : i + 2 * _CHUNK]) for i in range(0, whole, 2 * _CHUNK))
    return data[whole:]


def _index(entry: Path) -> dict[str, bytes]:
    return {name: read_bounded(entry / name, _MAX_INDEX_BYTES) for name in _INDEX}


def _digest(index: dict[str, bytes]) -> str:
    return hashlib.sha256(b"".join(index.values())).hexdigest()


def _open(entry: Path, clips: Clips, sample_rate: int) -> tuple[CachedClips, dict[int, str]] | None:
    file = entry / "samples.i16"
    try:
        index = _index(entry)
        if read_bounded(entry / "sha256", 100).decode() != _digest(index):
            return None
        ends, scales, checks = (np.load(io.BytesIO(index[name])) for name in _INDEX[:3])
        bad = {int(number): str(line) for number, line in json.loads(index["bad.json"])}
        complete = len(ends) == len(scales) == len(clips) and file.stat().st_size == 2 * int(ends[-1])
    except (ModelFileError, OSError, ValueError, TypeError, LookupError):
        return None
    if not complete:
        return None
    starts = np.concatenate([[0], ends[:-1]])
    table = (clips.names, clips.columns, clips.splits)
    return CachedClips(*table, file, starts, ends, scales, checks, sample_rate), bad
