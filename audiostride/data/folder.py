"""A folder of audio files as a data set: class sub-folders, or a `metadata.csv` with label columns."""

import csv
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from ..errors import DataError
from .clips import FileClips
from .decoding import EXTENSIONS, is_audio
from .table import SPLIT_FOLDERS, TableBuilder


def read_folder(path: str | os.PathLike[str]) -> FileClips:
    """Read a folder's table of clips; no audio is opened.

    The folder holds `train/`, `validation/` and `test/`, or the clips themselves. In each of them
    either a `metadata.csv` (a column `file_name`, any number of label columns) names the clips, or
    every sub-folder is a class, which becomes the column `label`.

    Args:
        path: the folder.

    Returns:
        Clips whose `splits` are "" if the folder has no split sub-folders.

    Raises:
        DataError: if the folder or a file of its metadata is missing, or it holds no audio.

    Example:
        >>> import tempfile
        >>> words = Path(tempfile.mkdtemp())
        >>> for word in ("no", "yes"):
        ...     folder = words / word
        ...     folder.mkdir()
        ...     (folder / "a.wav").touch()
        >>> clips = read_folder(words)
        >>> clips.names, clips.columns
        (['no/a.wav', 'yes/a.wav'], {'label': ['no', 'yes']})
    """
    root = Path(path).expanduser()
    if not root.is_dir():
        raise DataError(f"{root}: {'is not a folder' if root.exists() else 'no such folder'}")
    found = sorted(entry for entry in root.iterdir() if entry.is_dir() and entry.name in SPLIT_FOLDERS)
    parts = [(folder, SPLIT_FOLDERS[folder.name]) for folder in found] or [(root, "")]
    table = TableBuilder()
    for folder, split in parts:
        below = "" if folder == root else folder.name
        for name, labels in _clips_of(folder):
            table.add(os.path.join(below, name), split, labels)  # a table may name files by absolute paths
    if not table.names:
        kinds = " ".join(sorted(EXTENSIONS))
        loose = sum(is_audio(entry) for entry in root.iterdir())
        if loose:
            raise DataError(
                f"{root}: its {loose} audio files have no labels; put those of each class into a sub-folder of its "
                "own, or name them with their labels in a metadata.csv (columns file_name, label)"
            )
        raise DataError(f"{root}: holds no audio files in class sub-folders and no metadata.csv (looked for {kinds})")
    return FileClips(*table.parts(), root=root)


def unlabelled_files(path: str | os.PathLike[str], names: Iterable[str]) -> list[str]:
    """Audio files below a folder that are none of its clips: beside the class sub-folders, or without a row.

    Args:
        path: the folder.
        names: of its clips, as `read_folder` gives them.

    Example:
        >>> import tempfile
        >>> words = Path(tempfile.mkdtemp())
        >>> (words / "no").mkdir()
        >>> for name in ("no/a.wav", "b.wav", "notes.txt"):
        ...     (words / name).touch()
        >>> unlabelled_files(words, read_folder(words).names)
        ['b.wav']
    """
    root = Path(path).expanduser()
    known = {os.path.normpath(root / name) for name in names}  # a table may say ./a.wav
    found = [relative / name for relative, _, files in _walk(root) for name in sorted(files) if is_audio(name)]
    return [str(name) for name in found if os.path.normpath(root / name) not in known]


def _walk(folder: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    """Every folder from this one down that is not hidden, relative to it; the names of its folders and its files."""
    # os.walk, sorted: the same order on every file system, and directory links are not followed.
    for directory, subfolders, files in os.walk(folder):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        yield Path(directory).relative_to(folder), subfolders, files


def _clips_of(folder: Path) -> Iterator[tuple[str, dict[str, str]]]:
    metadata = folder / "metadata.csv"
    if metadata.exists():
        yield from _read_metadata(metadata)
        return
    for relative, subfolders, files in _walk(folder):
        if relative.parts:
            # A directory with an audio file's name is reported as a bad file, not silently entered.
            for name in filter(is_audio, sorted(files + subfolders)):
                yield str(relative / name), {"label": relative.parts[0]}


def _read_metadata(metadata: Path) -> Iterator[tuple[str, dict[str, str]]]:
    try:
        with metadata.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file)
            if "file_name" not in (rows.fieldnames or []):
                raise DataError(f"{metadata}: needs a column file_name, but has {rows.fieldnames}")
            for row in rows:
                name = row.pop("file_name")
                if None in row or None in row.values():
                    raise DataError(
                        f"{metadata}, line {rows.line_num}: does not have {len(rows.fieldnames or [])} columns"
                    )
                if not os.path.lexists(metadata.parent / name):
                    raise DataError(f"{metadata}, line {rows.line_num}: there is no file {metadata.parent / name}")
                yield name, row
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{metadata}: is not a UTF-8 CSV table ({error})") from error
