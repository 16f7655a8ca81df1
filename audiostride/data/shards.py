"""WebDataset shards: tar files in which the members of one clip share their name up to the first dot.

Shards are read where they lie, never unpacked: the headers are scanned once, after that every clip
is one read at a known place. So order, resuming and the division among workers and machines are as
exact as with files, and nothing but the table is in memory.
"""

import io
import json
import os
import tarfile
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..audio import EXTENSIONS
from ..errors import DataError
from .clips import EncodedClips, Progress
from .folder import SPLIT_FOLDERS, append_row
from .manifest import label_text
from .texts import Texts

_MAX_LABEL_BYTES = 1 << 20


@dataclass
class ShardClips(EncodedClips):
    """Clips that are members of tar files.

    Attributes:
        shards: the tar file of each clip.
        places: offset and size in bytes of each clip's audio in its shard, int64 ``(n_clips, 2)``.
    """

    shards: Texts = field(default_factory=Texts)
    places: np.ndarray = field(default_factory=lambda: np.zeros((0, 2), np.int64))

    def audio(self, index: int) -> io.BytesIO:
        offset, size = (int(value) for value in self.places[index])
        shard = self.shards[index]
        try:
            with open(shard, "rb") as file:
                file.seek(offset)
                content = io.BytesIO(file.read(size))
        except OSError as error:
            raise DataError(f"{shard}: {error.strerror or error}") from error
        content.name = self.names[index]
        return content

    def state(self, index: int) -> str:
        found = os.stat(self.shards[index])
        return f"{self.shards[index]} {found.st_size} {found.st_mtime_ns} {self.places[index].tolist()}"

    def select(self, indexes):
        rows = list(indexes)
        chosen = super().select(rows)
        assert isinstance(chosen, ShardClips)
        chosen.shards, chosen.places = self.shards.select(rows), self.places[rows]
        return chosen


def read_shards(path: str | os.PathLike[str], progress: Progress | None = None) -> ShardClips:
    """Index a folder of `.tar` shards; no audio is decoded.

    `NAME.wav` (or another audio ending) is the clip, `NAME.cls` or `NAME.txt` its `label`, the keys
    of `NAME.json` are columns. The split is the folder (`train/`, `validation/`, `test/`) or the
    beginning of the shard's name (`train-000.tar`).

    Args:
        path: the folder, or one shard.
        progress: called after each shard.

    Raises:
        DataError: names the shard that is damaged or compressed, or the member that cannot be read.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> with tarfile.open(folder / "train-000.tar", "w") as tar:
        ...     for name, content in (("a.wav", b"RIFF"), ("a.cls", b"3")):
        ...         member = tarfile.TarInfo(name)
        ...         member.size = len(content)
        ...         tar.addfile(member, io.BytesIO(content))
        >>> clips = read_shards(folder)
        >>> clips.names, clips.columns, clips.splits
        (['train-000/a.wav'], {'label': ['3']}, ['train'])
    """
    root = Path(path).expanduser()
    shards = [root] if root.is_file() else sorted(root.rglob("*.tar"))
    if not shards:
        packed = next(iter(sorted(root.rglob("*.tar.*"))), None) if root.is_dir() else None
        hint = f"; {packed.name} is compressed, decompress it first" if packed else ""
        raise DataError(f"{root}: {'holds no .tar shards' if root.exists() else 'no such folder'}{hint}")
    names, splits, of_shard, places = Texts(), Texts(), Texts(), array("q")
    columns: dict[str, Texts] = {}
    for done, shard in enumerate(shards, 1):
        split = _split_of(shard)
        for name, labels, place in _clips_of(shard):
            names.append(f"{shard.stem}/{name}")
            splits.append(split)
            of_shard.append(str(shard))
            places.extend(place)
            append_row(columns, labels, len(names))
        if progress:
            progress("indexing shards", done, len(shards))
    if not names:
        raise DataError(f"{root}: its shards hold no audio (looked for {' '.join(sorted(EXTENSIONS))})")
    table = np.frombuffer(places, np.int64).reshape(-1, 2)
    return ShardClips(names, dict(columns), splits, shards=of_shard, places=table)


def _split_of(shard: Path) -> str:
    beginning = shard.name.partition("-")[0].partition(".")[0]
    return SPLIT_FOLDERS.get(shard.parent.name) or SPLIT_FOLDERS.get(beginning, "")


def _clips_of(shard: Path) -> Iterator[tuple[str, dict[str, str], tuple[int, int]]]:
    key, name, labels, place = "", "", dict[str, str](), (0, 0)
    try:
        with tarfile.open(shard, "r:") as tar:
            for member in tar:
                tar.members = []  # type: ignore[attr-defined]  # else every header stays in memory
                if not member.isreg():
                    continue
                folder, _, base = member.name.rpartition("/")
                stem, _, ending = base.partition(".")
                if (folder + "/" + stem) != key:
                    if name:
                        yield name, labels, place
                    key, name, labels, place = folder + "/" + stem, "", {}, (0, 0)
                if Path(base).suffix.lower() in EXTENSIONS:
                    if member.offset_data + member.size > shard.stat().st_size:
                        raise DataError(f"{shard}: cut short in {member.name!r}")
                    name, place = member.name, (member.offset_data, member.size)
                elif ending.lower() in ("cls", "txt", "json"):
                    labels |= _labels(shard, tar, member, ending.lower())
            if name:
                yield name, labels, place
    except tarfile.TarError as error:
        raise DataError(f"{shard}: is not a plain tar file ({error})") from error


def _labels(shard: Path, tar: tarfile.TarFile, member: tarfile.TarInfo, ending: str) -> dict[str, str]:
    content = tar.extractfile(member)
    if content is None or member.size > _MAX_LABEL_BYTES:
        raise DataError(f"{shard}: {member.name!r} is too large for labels")
    try:
        text = content.read().decode("utf-8").strip()
        if ending != "json":
            return {"label": text}
        values = json.loads(text)
        return {str(name): label_text(value) for name, value in values.items()}
    except (ValueError, AttributeError, RecursionError) as error:
        raise DataError(f"{shard}: {member.name!r} holds no labels ({error})") from error
