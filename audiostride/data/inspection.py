"""A look at a data set before anything is trained on it: what is there, what is wrong, a recipe that fits."""

import contextlib
import hashlib
import io
import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from ..errors import DataError
from .clips import Clips, EncodedClips, Progress
from .decoding import audio_info
from .folder import unlabelled_files
from .manifest import is_table, read_path
from .splits import shared_groups

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
        leaks: a line for each kind of thing that lies on two sides of the data's own splits.
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
    """`inspect` a folder or table, with what a folder holds beside its clips."""
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
        >>> from audiostride.data.manifest import read_path
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
                raise DataError(f"{clips.title(index)}: lies beyond the end of its file")
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


def same_content(clips: Clips) -> list[list[int]]:
    """Numbers of the clips whose encoded audio is the same to the byte, a list for each such content."""
    if not isinstance(clips, EncodedClips):
        return []
    by_size: dict[int, list[int]] = defaultdict(list)
    seen: set[str] = set()
    for index, name in enumerate(clips.names):
        if clips.spans is not None and name in seen:  # segments of one file are no copies of it
            continue
        seen.add(name)
        with contextlib.suppress(DataError, OSError):  # a bad file is reported as such
            by_size[_size(clips.audio(index))].append(index)
    by_content: dict[bytes, list[int]] = defaultdict(list)
    for size, rows in by_size.items():
        if size and len(rows) > 1:
            for index in rows:
                by_content[_digest(clips.audio(index))].append(index)
    return [rows for rows in by_content.values() if len(rows) > 1]


def leaks(
    clips: Clips, splits: Sequence[str], group: str | None, copies: Sequence[Sequence[int]] | None = None
) -> list[str]:
    """What lies on two sides of a split though it should not: a line each for groups, files and copies.

    Args:
        clips: the clips.
        splits: of each clip; "" counts for nothing.
        group: column whose values should stay together.
        copies: from `same_content`, which is called otherwise.
    """
    lines = []
    kinds: list[tuple[str, Sequence[str]]] = [("files", clips.names)]
    if group is not None:
        kinds.insert(0, (f"values of {group!r}", clips.column(group)))
    for what, groups in kinds:
        shared = shared_groups(groups, splits)
        if shared:
            name, sides = next(iter(shared.items()))
            lines.append(f"{len(shared)} {what} are in more than one split, such as {name!r} in {' and '.join(sides)}")
    for rows in same_content(clips) if copies is None else copies:
        sides = sorted({splits[i] for i in rows} - {""})
        if len(sides) > 1:
            names = ", ".join(clips.names[i] for i in rows[:3])
            lines.append(f"the same recording is in {' and '.join(sides)}: {names}")
            break
    return lines


def make_recipe(
    path: str | os.PathLike[str],
    found: Findings,
    sample_rate: int | None = None,
    allow_shared_groups: bool = False,
) -> str:
    """A recipe for a folder or table, as the text of a YAML file that `load_recipe` reads.

    The small `AudioResNet` with augmentation, as many epochs as make about 1,600 steps.

    Args:
        path: the folder or table, as it shall stand in the recipe.
        found: from `inspect`.
        sample_rate: to train at, in Hz; None: the most common one, at most 16000.
        allow_shared_groups: train although `found.leaks` is not empty.

    Raises:
        DataError: if there is no label column, or the splits leak and that is not allowed.
    """
    column, group = found.label, found.group
    if column is None:
        raise DataError(
            f"{path}: no column looks like labels among {', '.join(found.columns) or 'none'}; name it with --column"
        )
    if found.leaks and not allow_shared_groups:
        raise DataError("\n".join([f"{path}: {line}" for line in found.leaks] + [_LEAK_HELP]))
    if not found.sample_rates:
        raise DataError(f"{path}: none of the {found.clips} files can be read, for example {found.bad_files[0]}")
    data: dict[str, Any] = {"source": "manifest" if is_table(path) else "folder", "path": str(path)}
    if group:
        data["group"] = group
    if found.leaks:
        data["allow_shared_groups"] = True
    if found.bad_files:
        data["on_bad_file"] = "skip"
    rate = sample_rate or min(16000, next(iter(found.sample_rates)))
    several = any("|" in value for value in found.columns[column])
    kind = "multilabel" if several else "binary" if found.distinct[column] == 2 else "multiclass"
    n_train = found.splits.get("train", round(0.8 * found.clips))
    batch_size = max(4, min(64, n_train // 8))
    recipe: dict[str, Any] = {
        "name": _plain(Path(path).stem or "sounds"),
        "seed": 0,
        **({} if rate == 16000 else {"frontend": frontend_for(rate)}),
        "tasks": {_plain(column): {"data": data, "column": column, "kind": kind}},
        "model": {
            "name": "audio_resnet",
            "downsampling": "strided",
            "channels": [24, 48, 64],
            "time_channels": [128, 128, 128],
        },
        "augment": {
            "time_shift_ms": 100,
            "coloured_noise": {"snr_db": [10, 50]},
            "spec_augment": {"time_masks": 2, "time_ms": 150, "mel_masks": 2, "mels": 6},
        },
        "train": {
            "epochs": max(8, min(100, round(1600 * batch_size / max(1, n_train)))),
            "batch_size": batch_size,
            "learning_rate": 2.0e-3,
            "schedule": "one_cycle",
        },
    }
    text = yaml.safe_dump(recipe, sort_keys=False, default_flow_style=None, width=100, allow_unicode=True)
    seconds = found.seconds
    comment = (
        f"# {found.clips} clips in {found.distinct[column]} classes ({column}), {seconds['total'] / 60:.1f} minutes, "
        f"{seconds['shortest']:.2f} to {seconds['longest']:.2f} s each\n"
        "# Command   audiostride train THIS_FILE\n"
        "# Try       model.downsampling=diffstride, which learns its strides: audiostride cutoffs says what they keep\n"
        "#           model.init=audio_resnet_small_strided, which starts from the weights of the package\n\n"
    )
    return comment + text


def frontend_for(sample_rate: int) -> dict[str, float]:
    """Settings of `LogMel` for a sample rate in Hz: the default's, stretched to the band that there is.

    Windows of 25 ms every 10 ms as ever, an FFT that holds one, bands up to 0.4875 of the rate.

    Example:
        >>> frontend_for(8000)
        {'sample_rate': 8000, 'n_fft': 256, 'f_min': 30.0, 'f_max': 3900.0}
    """
    window = round(0.025 * sample_rate)
    return {
        "sample_rate": sample_rate,
        "n_fft": max(256, 1 << (window - 1).bit_length()),
        "f_min": round(60 * sample_rate / 16000, 3),
        "f_max": round(0.4875 * sample_rate, 3),
    }


_LEAK_HELP = (
    "Scores on such splits are inflated. Fix them, leave the splits out so that they are drawn by group, "
    "name another column with --group, or allow it with --allow-shared-groups."
)


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


def _plain(name: str) -> str:
    return "".join(c if c.isalnum() or c in "_-" else "_" for c in name).strip("_") or "sounds"


def _size(audio: Path | io.BytesIO) -> int:
    if isinstance(audio, io.BytesIO):
        return audio.getbuffer().nbytes
    return audio.stat().st_size if audio.is_file() else 0


def _digest(audio: Path | io.BytesIO) -> bytes:
    hasher = hashlib.sha256()
    with audio if isinstance(audio, io.BytesIO) else audio.open("rb") as file:
        while chunk := file.read(1 << 20):
            hasher.update(chunk)
    return hasher.digest()
