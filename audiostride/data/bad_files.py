"""Decoding every clip once, to find those that cannot be used before a training does."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np

from ..errors import DataError
from .clips import Clips, EncodedClips, Progress


def drop_bad_files(
    clips: Clips,
    sample_rate: int,
    on_bad_file: str,
    progress: Progress | None = None,
    workers: int = 2,
    key: str = "on_bad_file",
) -> tuple[Clips, list[str]]:
    """Decode every clip once and find those that cannot be used.

    Args:
        clips: the clips to check.
        sample_rate: rate to decode them at, in Hz.
        on_bad_file: "error" raises one error that lists them, "skip" leaves them out.
        progress: called after each clip.
        workers: decoding threads.
        key: what the reader of an error sets to "skip".

    Returns:
        The good clips, their lengths now known, and one line for each bad one.

    Raises:
        DataError: if there are bad files and `on_bad_file` is "error", or no clip is left.

    Example:
        >>> from audiostride.data.clips import ArrayClips
        >>> clips = ArrayClips(["a"], {}, [""], waveforms=np.zeros((1, 160), np.float32))
        >>> good, lines = drop_bad_files(clips, 16000, "error")
        >>> len(good), lines
        (1, [])
    """
    lengths = np.zeros(len(clips), np.int64)
    bad: dict[int, str] = {}
    for index, result in decode_all(clips, sample_rate, workers):
        if isinstance(result, DataError):
            bad[index] = str(result)
        else:
            lengths[index] = len(result)
        if progress:
            progress("reading audio", index + 1, len(clips))
    if isinstance(clips, EncodedClips):
        clips = replace(clips, lengths=lengths, lengths_at=sample_rate)
    return leave_out(clips, bad, on_bad_file, key), list(bad.values())


def decode_all(
    clips: Clips, sample_rate: int, workers: int = 2, length: int | None = None
) -> Iterator[tuple[int, np.ndarray | DataError]]:
    """Every clip's waveform in order, or its first `length` samples, or the error that reading it gave.

    A few are decoded ahead.

    Example:
        >>> from audiostride.data.clips import ArrayClips
        >>> clips = ArrayClips(["a"], {}, [""], waveforms=np.zeros((1, 160), np.float32))
        >>> [(index, len(waveform)) for index, waveform in decode_all(clips, 16000)]
        [(0, 160)]
    """

    def decode(index: int) -> np.ndarray | DataError:
        try:
            return clips.read(index, sample_rate, 0, length)
        except DataError as error:
            return error

    with ThreadPoolExecutor(max(1, workers)) as pool:
        for first in range(0, len(clips), 64):  # memory holds 64 clips, not all of them
            rows = range(first, min(first + 64, len(clips)))
            yield from zip(rows, pool.map(decode, rows), strict=True)


def leave_out(clips: Clips, bad: dict[int, str], on_bad_file: str, key: str = "on_bad_file") -> Clips:
    """The clips without the bad ones, or an error that lists them.

    Args:
        clips: all clips.
        bad: what is wrong with each bad one, by its number.
        on_bad_file: "error" or "skip".
        key: see `drop_bad_files`.

    Raises:
        DataError: if there are bad ones and `on_bad_file` is "error", or no clip is left.

    Example:
        >>> from audiostride.data.clips import ArrayClips
        >>> clips = ArrayClips(["a", "b"], {}, ["", ""], waveforms=np.zeros((2, 160), np.float32))
        >>> leave_out(clips, {0: "a: is cut short"}, "skip").names
        ['b']
    """
    lines = list(bad.values())
    if bad and on_bad_file == "error":
        shown = "\n".join(f"  {line}" for line in lines[:10])
        more = f"\n  ... and {len(bad) - 10} more" if len(bad) > 10 else ""
        raise DataError(
            f"{len(bad)} of {len(clips)} audio files cannot be used:\n{shown}{more}\n"
            f"Fix or remove them, or set {key}=skip to leave them out."
        )
    if len(bad) == len(clips):
        raise DataError("none of the audio files can be used:\n  " + "\n  ".join(lines[:10]))
    return clips.select(i for i in range(len(clips)) if i not in bad) if bad else clips
