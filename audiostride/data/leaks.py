"""What is in two splits although it should not be: groups, files, byte-for-byte copies."""

import contextlib
import hashlib
import io
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..errors import DataError
from .clips import Clips, EncodedClips
from .splits import shared_groups
from .table import key_of


def leaks(
    clips: Clips, splits: Sequence[str], group: str | None, copies: Sequence[Sequence[int]] | None = None
) -> list[str]:
    """What is in two splits although it should not be: a line each for groups, files and copies.

    Args:
        clips: the clips.
        splits: of each clip; "" does not count.
        group: column whose values should stay together.
        copies: from `same_content`, which is called otherwise.

    Example:
        >>> import tempfile
        >>> from audiostride.data.clips import FileClips
        >>> names, speakers = ["a.wav", "b.wav"], ["ann", "ann"]
        >>> clips = FileClips(names, {"speaker": speakers}, ["train", "test"], root=Path(tempfile.mkdtemp()))
        >>> leaks(clips, clips.splits, "speaker")
        ["values of 'speaker' in more than one split: 1, such as 'ann' in test and train"]
    """
    by_group = "" if group is None else group_leak(group, clips.column(group), splits)
    lines = list(filter(None, [by_group, _leak("files", clips.names, splits)]))
    for rows in same_content(clips) if copies is None else copies:
        sides = sorted({splits[i] for i in rows} - {""})
        if len(sides) > 1:
            names = ", ".join(clips.names[i] for i in rows[:3])
            lines.append(f"the same recording is in {' and '.join(sides)}: {names}")
            break
    return lines


def group_leak(column: str, groups: Sequence[str], splits: Sequence[str]) -> str:
    """A line on the groups of a column that are in more than one split; "" if there are none.

    Args:
        column: its name.
        groups: its value for each clip.
        splits: of each clip; "" does not count.

    Example:
        >>> group_leak("speaker", ["ann", "bob"], ["train", "test"])
        ''
    """
    return _leak(f"values of {column!r}", groups, splits)


def same_content(clips: Clips) -> list[list[int]]:
    """Numbers of the clips whose files are byte-for-byte the same, a list for each such content.

    Example:
        >>> import tempfile
        >>> from audiostride.data.clips import FileClips
        >>> root = Path(tempfile.mkdtemp())
        >>> for name, content in (("a.wav", b"one"), ("b.wav", b"two"), ("c.wav", b"one")):
        ...     (root / name).write_bytes(content)
        3
        3
        3
        >>> same_content(FileClips(["a.wav", "b.wav", "c.wav"], {}, [""] * 3, root=root))
        [[0, 2]]
    """
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


ORIGINS = (
    "speaker", "group", "recording", "source", "src", "subject", "patient", "individual", "animal", "identifier",
    "session", "location", "site", "station", "recorder", "recordist", "device", "instrument", "freesound", "fs",
    "track", "song", "album", "artist", "author", "user", "video", "youtube", "yt", "parent", "original", "origin",
)  # fmt: skip
"""What clips have in common that should not be on two sides of a split, by the names that columns have for it."""

_ORIGIN = re.compile(f"({'|'.join(ORIGINS)})(file|recording|audio|clip)?(s|id|ids|name|no|nr|number|code|path)?")


def origin_column(clips: Clips, label: str | None) -> str | None:
    """The column that most likely says which clips are of one origin (a speaker, a recording), whatever it is called.

    It is called like one of `ORIGINS`, or its values stand in the names of its clips' files, or nearly each of its many
    values has one label only. A column that follows from the label is a coarser class, and none.

    Args:
        clips: the clips.
        label: the label column.

    Example:
        >>> names, origins = [f"{i // 3}-{i % 3}.wav" for i in range(30)], [f"id{i // 3}" for i in range(30)]
        >>> clips = Clips(names, {"label": ["no", "yes"] * 15, "fsID": origins}, [""] * 30)
        >>> origin_column(clips, "label")
        'fsID'
    """
    labels = None if label is None else clips.column(label)
    n_classes = 0 if labels is None else len(set(labels))
    by_name, by_file, by_label = [], [], []
    for column, values in clips.columns.items():
        distinct = set(values) - {""}
        if column == label or not 2 < len(distinct) < len(clips):
            continue
        pairs = Counter(zip(values, labels or values, strict=True))
        if labels is not None and len({label for _, label in pairs}) == len(pairs):
            continue
        if found := _ORIGIN.fullmatch(key_of(column)):
            by_name.append((ORIGINS.index(found[1]), column))
        shared = [row for row, n in Counter(values).items() if n > 1 and row]
        if len(shared) < max(3, len(distinct) / 4):
            continue
        in_name = [value in name for value, name in zip(values, clips.names, strict=True)]
        if all(len(value) > 2 for value in distinct) and np.mean(in_name) > 0.9:
            by_file.append(column)
        of_one = Counter(value for value, _ in pairs)
        if n_classes < len(distinct) > 8 and np.mean([of_one[value] == 1 for value in shared]) > 0.9:
            by_label.append(column)
    return next(iter([column for _, column in sorted(by_name)] + by_file + by_label), None)


def origin_leak(clips: Clips, splits: Sequence[str], label: str) -> str:
    """A line on the `origin_column` if its values are in more than one split; "" otherwise."""
    column = origin_column(clips, label)
    return "" if column is None else group_leak(column, clips.column(column), splits)


def _leak(what: str, groups: Sequence[str], splits: Sequence[str]) -> str:
    shared = shared_groups(groups, splits)
    if not shared:
        return ""
    name, sides = next(iter(shared.items()))
    return f"{what} in more than one split: {len(shared)}, such as {name!r} in {' and '.join(sides)}"


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
