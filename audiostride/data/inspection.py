"""A look at a data set before anything is trained on it: what is there and what is wrong."""

import os
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from ..errors import DataError
from .clips import Clips, EncodedClips, Progress
from .decoding import audio_info
from .folder import read_path, unlabelled_files
from .leaks import leaks, same_content
from .manifest import is_table

LABEL_NAMES = ("label", "class", "category", "target", "species", "word", "event", "tag")
GROUP_NAMES = (
    "speaker", "speaker_id", "group", "recording", "recording_id", "source_file", "subject", "location", "session",
    "device", "instrument", "freesound_id",
)  # fmt: skip


@dataclass
class Findings:
    """What `inspect` saw; times in seconds, sample rates in Hz.

    Attributes:
        clips: number of clips.
        splits: clips of each split the data has of its own.
        columns: for each column its values by number of clips, at most 200 of them.
        seconds: shortest, median and longest clip, and all together.
        sample_rates: number of clips of each rate.
        channels: number of clips of each channel count.
        bad_files: a line for each file that cannot be read.
        label: the column that most likely holds the classes, None if there is none.
        group: the column that most likely says what belongs together, None if there is none.
        duplicates: names of clips with the same content, a list each.
        leaks: a line for each kind of thing that is on two sides of the data's own splits.
        unlabelled: names of audio files in the folder that are no clips, as nothing gives them a label.
    """

    clips: int
    splits: dict[str, int]
    columns: dict[str, dict[str, int]]
    distinct: dict[str, int]
    seconds: dict[str, float] = field(default_factory=dict)
    sample_rates: dict[int, int] = field(default_factory=dict)
    channels: dict[int, int] = field(default_factory=dict)
    bad_files: list[str] = field(default_factory=list)
    label: str | None = None
    group: str | None = None
    duplicates: list[list[str]] = field(default_factory=list)
    leaks: list[str] = field(default_factory=list)
    unlabelled: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """All of it as plain data."""
        return asdict(self)


def inspect_path(
    path: str | os.PathLike[str], label: str | None = None, group: str | None = None, progress: Progress | None = None
) -> Findings:
    """`inspect` a folder or table, and find the audio files of a folder that are not among its clips."""
    clips = read_path(path)
    found = inspect(clips, label, group, progress)
    if not is_table(path):
        found.unlabelled = unlabelled_files(path, clips.names)
    return found


def inspect(
    clips: EncodedClips, label: str | None = None, group: str | None = None, progress: Progress | None = None
) -> Findings:
    """Look at every clip's header and, where sizes are equal, contents; nothing is decoded.

    Args:
        clips: what a source returned.
        label: the label column; None: guessed.
        group: the column of what belongs together; None: guessed.
        progress: called after each clip.

    Raises:
        DataError: if there is no such column.

    Example:
        >>> import soundfile, tempfile
        >>> from pathlib import Path
        >>> folder = Path(tempfile.mkdtemp())
        >>> for word, level in (("no", 0.1), ("yes", 0.2)):
        ...     (folder / word).mkdir()
        ...     soundfile.write(folder / word / "a.wav", np.full(800, level), 16000)
        >>> found = inspect(read_path(folder))
        >>> found.clips, found.columns, found.sample_rates, found.duplicates
        (2, {'label': {'no': 1, 'yes': 1}}, {16000: 2}, [])
    """
    counted = {name: Counter(values) for name, values in clips.columns.items()}
    found = Findings(
        clips=len(clips),
        splits={split: n for split, n in Counter(clips.splits).items() if split},
        columns={name: dict(counts.most_common(200)) for name, counts in counted.items()},
        distinct={name: len(counts) for name, counts in counted.items()},
    )
    for name in (label, group):
        if name is not None:
            clips.column(name)  # a wrong name is an error before anything is guessed from it
    found.label = _guess_label(found) if label is None else label
    found.group = _guess_group(found, clips) if group is None else group
    seconds: list[float] = []
    rates, channels = Counter[int](), Counter[int]()
    for index in range(len(clips)):
        try:
            info = audio_info(clips.audio(index))
            n_samples = clips.n_samples(index, info.sample_rate)
            if n_samples <= 0:
                raise DataError(f"{clips.title(index)}: begins after the end of its file")
            seconds.append(n_samples / info.sample_rate)
            rates[info.sample_rate] += 1
            channels[info.channels] += 1
        except DataError as error:
            found.bad_files.append(str(error))
        if progress:
            progress("looking at files", index + 1, len(clips))
    if seconds:
        found.seconds = {
            "shortest": float(min(seconds)),
            "median": float(np.median(seconds)),
            "longest": float(max(seconds)),
            "total": float(sum(seconds)),
        }
    found.sample_rates, found.channels = dict(rates.most_common()), dict(channels.most_common())
    copies = same_content(clips)
    found.duplicates = [[clips.names[i] for i in rows] for rows in copies]
    found.leaks = leaks(clips, clips.splits, found.group, copies)
    return found


def _guess_label(found: Findings) -> str | None:
    possible = [name for name, n in found.distinct.items() if 2 <= n <= max(2, found.clips // 3)]
    return next((name for name in LABEL_NAMES if name in possible), next(iter(possible), None))


def _guess_group(found: Findings, clips: Clips) -> str | None:
    for name in GROUP_NAMES:
        if name != found.label and 2 < found.distinct.get(name, 0) < found.clips:
            # A column that follows from the label is a coarser class, not a speaker or a recording.
            pairs = set(zip(clips.columns[found.label], clips.columns[name], strict=True)) if found.label else ()
            if len(pairs) != found.distinct.get(found.label or "", -1):
                return name
    return None
