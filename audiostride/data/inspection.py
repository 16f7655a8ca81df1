"""A look at a data set before anything is trained on it: what is there and what is wrong."""

import contextlib
import os
import warnings
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from ..errors import DataError, DataWarning
from .any_path import read_path, source_of
from .clips import Clips, EncodedClips, Progress
from .decoding import audio_info
from .folder import unlabelled_files
from .labels import (
    NO,
    SEPARATOR,
    UNKNOWN,
    YES,
    find_separator,
    labels_of,
    one_column,
    same_but_for_case,
    unlabelled,
)
from .leaks import leaks, origin_column, same_content
from .manifest import check_root, is_table
from .near_duplicates import name_copies, near_duplicates
from .table import key_of
from .text_column import Texts

LABEL_NAMES = (
    "label", "class", "category", "target", "species", "word", "event", "tag", "labels", "classes", "categories",
    "tags", "events", "class_name", "label_name", "primary_label", "scene_label", "event_label", "common_name",
    "scientific_name", "ebird_code", "annotation", "command", "keyword", "digit", "emotion", "genre",
)  # fmt: skip
"""Names of label columns, the likeliest first; case and underscores do not matter."""

NOT_LABELS = frozenset(("", "nan", "na", "n/a", "none", "null", "?", "-", "unknown", "inf", "-inf", "#n/a"))
"""Labels, in lower case, that programs write for a missing value."""

COMPARED = 2000
"""Clips among which near-duplicates are looked for; `validate` compares more."""

SPECTRA = 40
"""Clips whose spectra are looked at."""


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
        source: the one of a recipe that reads this.
        kind: of the task.
        separator: what stands between the labels of a clip, where there are several.
        label_columns: the columns that stand for a class each, where there is no label column.
        missing: names of the clips without a label.
        energy_hz: below which frequency 5, 80 and 95 % of the sound's energy are, in Hz, mean over some clips.
        notes: what a person should look at, a line each.
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
    source: str = "folder"
    kind: str = "multiclass"
    separator: str = SEPARATOR
    label_columns: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    energy_hz: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """All of it as plain data."""
        return asdict(self)


def inspect_path(
    path: str | os.PathLike[str],
    label: str | None = None,
    group: str | None = None,
    progress: Progress | None = None,
    root: str | os.PathLike[str] | None = None,
) -> Findings:
    """`inspect` a folder or table, and find the audio files of a folder that are not among its clips.

    Args:
        path: the folder or table.
        label, group, progress: see `inspect`.
        root: folder that the files of a table are relative to; by default the table's own.

    Raises:
        DataError: if it cannot be read, or a table names files that are not there.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", DataWarning)
        clips = read_path(path, root)
        if is_table(path):
            check_root(clips, path, "--root")
        found = inspect(clips, label, group, progress)
    found.notes = [*(str(one.message) for one in caught if issubclass(one.category, DataWarning)), *found.notes]
    found.source = source_of(path)
    if found.source == "folder":
        found.unlabelled = unlabelled_files(path, clips.names)
    return found


def inspect(
    clips: EncodedClips, label: str | None = None, group: str | None = None, progress: Progress | None = None
) -> Findings:
    """Look at every clip's header and, where sizes are equal, contents; up to `COMPARED` clips are decoded.

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
    found.label = _guess_label(found, clips) if label is None else label
    if label is None and (found.label is None or key_of(found.label) not in map(key_of, LABEL_NAMES)):
        found.label_columns = class_columns(clips)
    if found.label_columns:
        found.label = None
    _look_at_labels(found, clips)
    found.group = origin_column(clips, found.label) if group is None else group
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
    if found.sample_rates:
        found.energy_hz = _energy_hz(clips, next(iter(found.sample_rates)))
    copies = same_content(clips)
    found.duplicates = [[clips.names[i] for i in rows] for rows in copies]
    found.leaks = leaks(clips, clips.splits, found.group, copies)
    rate = max(found.sample_rates, default=0)
    same = {(a, b) for rows in copies for a in rows for b in rows}
    near = near_duplicates(clips, rate // 2 if rate >= 192000 else 8000, clips.splits, COMPARED, progress)
    advice = "keep one of each pair, or give both one value in a column and name it with --group"
    if line := name_copies(clips, [pair for pair in near if pair[:2] not in same], clips.splits, advice):
        found.notes.append(line)
    return found


def _guess_label(found: Findings, clips: Clips) -> str | None:
    names = {key_of(name): name for name in reversed(list(found.columns))}
    for wanted in map(key_of, LABEL_NAMES):
        if wanted in names and 2 <= found.distinct[names[wanted]] < max(3, found.clips):
            return names[wanted]
    return next((name for name, n in found.distinct.items() if 2 <= n <= max(2, found.clips // 3)), None)


def class_columns(clips: Clips) -> list[str]:
    """Columns that hold 0 and 1, or yes and no, and so stand for a class each; none if there are less than two.

    Example:
        >>> class_columns(Clips(["a", "b"], {"dog": ["1", "0"], "cat": ["1", "?"], "site": ["A", "B"]}, ["", ""]))
        ['dog', 'cat']
    """
    found = []
    for name, values in clips.columns.items():
        distinct = {value.lower() for value in (values.distinct() if isinstance(values, Texts) else set(values))}
        if distinct <= YES | NO | {"", UNKNOWN} and distinct & (NO | {UNKNOWN}) and distinct & (YES | {UNKNOWN}):
            found.append(name)
    return [name for name in found if len(found) > 1 and any(value.lower() in YES for value in clips.columns[name])]


def _look_at_labels(found: Findings, clips: Clips) -> None:
    """The kind of the task, and what is strange about its labels."""
    if found.label is None:
        try:
            one_column(clips, "label", "multiclass", columns=found.label_columns or None)
        except DataError:
            found.kind = "multilabel"
        return
    counts = Counter(clips.column(found.label))
    found.missing = [clips.title(i) for i in unlabelled(clips, found.label)]
    if separator := find_separator(counts):
        found.kind, found.separator, found.missing = "multilabel", separator, []
        several = Counter(label for value, n in counts.items() for label in labels_of(value, separator) * n)
        counts = Counter({label: n for label, n in several.items() if label != UNKNOWN})
    elif len(set(counts) - {""}) == 2:
        found.kind = "binary"
    if strange := sorted(label for label in counts if label and label.lower() in NOT_LABELS):
        found.notes.append(f"classes that may be missing values: {', '.join(map(repr, strange))}")
    for alike in same_but_for_case(counts):
        found.notes.append(f"classes that differ in case only: {', '.join(map(repr, alike))}")
    rare = [label for label, n in counts.items() if n < 3 and label]
    if rare:
        shown = ", ".join(map(repr, sorted(rare)[:10]))
        found.notes.append(f"{len(rare)} classes have less than three clips, too few to train and test on: {shown}")


def _energy_hz(clips: EncodedClips, rate: int) -> dict[str, float]:
    """Where the energy of some clips is; each counts the same."""
    size, total = 2048, np.zeros(1025)
    for index in np.unique(np.linspace(0, len(clips) - 1, SPECTRA).round().astype(int)):
        with contextlib.suppress(DataError):
            if audio_info(clips.audio(index)).sample_rate == rate:
                waveform = clips.read(index, rate, 0, 10 * rate)
                waveform = np.pad(waveform, (0, -len(waveform) % size)).reshape(-1, size)
                power = np.square(np.abs(np.fft.rfft(waveform * np.hanning(size)))).sum(0)
                power[:2] = 0  # what is not sound
                total += power / max(power.sum(), 1e-30)
    if not total.any():
        return {}
    below = np.cumsum(total) / total.sum()
    return {f"{share:g}": float(np.searchsorted(below, share / 100) * rate / size) for share in (5, 80, 95)}
