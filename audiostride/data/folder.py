"""A folder of audio files as a data set: class sub-folders, or a table of metadata with label columns."""

import glob
import os
import re
import warnings
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from ..errors import DataError, DataWarning
from ..files import expand_user
from .clips import FileClips
from .decoding import EXTENSIONS, is_audio
from .manifest import as_spans, manifest_rows
from .table import TableBuilder, split_names

METADATA = ("metadata.csv", "metadata.tsv", "metadata.jsonl")
"""Tables that name the clips of a folder."""

UNREADABLE = frozenset(
    (".3gp", ".aac", ".ac3", ".amr", ".ape", ".avi", ".dts", ".m4a", ".mka", ".mkv", ".mov", ".mp4", ".mpc", ".mpeg",
     ".ra", ".spx", ".tta", ".webm", ".wma", ".wv")
) - EXTENSIONS  # fmt: skip
"""Endings of files with sound that are not read."""

_FOLD = re.compile(r"(cv|fold|part|split)[-_ ]?(\d+)", re.IGNORECASE)
_NO_CLASS = re.compile(r"_.*|audio|clips?|recordings?|sounds?|wavs?|unlabell?ed|unsup(ervised)?", re.IGNORECASE)


def read_folder(path: str | os.PathLike[str]) -> FileClips:
    """Read a folder's table of clips; no audio is opened.

    Either a `metadata.csv` (or `.tsv`, `.jsonl`; what `read_manifest` reads) names the clips, or every sub-folder is a
    class, which becomes the column `label`. Sub-folders that are called like splits (`train/`, `Test/`, see
    `split_names`) are splits, each laid out like that; `fold1/`, `fold2/`, ... of class folders become the column
    `fold`. A single folder that holds all the others is entered. Hidden folders are left out, and so, with a warning,
    is one that begins with `_` or is called like what holds sounds (`audio/`), where others are classes. Links to
    folders are followed.

    Args:
        path: the folder.

    Returns:
        Clips whose `splits` are "" if the folder has no split sub-folders.

    Raises:
        DataError: if the folder or a file of its metadata is missing, it holds no audio, or all files of a class are of
            a kind that cannot be read.

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
    root = expand_user(path)
    if not root.is_dir():
        raise DataError(f"{root}: {'is not a folder' if root.exists() else 'no such folder'}")
    top = _innermost(root)
    table, spans = TableBuilder(), array("d")
    parts = _split_folders(top)
    own_tables = [name for name in parts if _metadata(top / name)]
    if _metadata(top) and not own_tables:
        _add_metadata(table, spans, root, top, "", parts)
    else:
        for name, split in (parts or {"": ""}).items():
            part = top / name
            if _metadata(part):
                _add_metadata(table, spans, root, part, split, {})
            else:
                _add_classes(table, spans, root, part, split)
    if not table.names:
        raise _nothing_found(top)
    return FileClips(*table.parts(), spans=as_spans(spans), root=root)


def unlabelled_files(path: str | os.PathLike[str], names: Iterable[str]) -> list[str]:
    """Audio files below a folder that are none of its clips: outside the class sub-folders, or without a row.

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
    root = expand_user(path)
    known = {os.path.normpath(root / name) for name in names}  # a table may say ./a.wav
    found = [relative / name for relative, _, files in walk(root) for name in sorted(files) if is_audio(name)]
    return [str(name) for name in found if os.path.normpath(root / name) not in known]


def walk(folder: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    """Every folder from this one down that is not hidden, relative to it; the names of its folders and its files.

    Links to folders are followed; the order is the same on every file system.

    Raises:
        DataError: if a link leads back to a folder that it is in.
    """
    real = Path(os.path.realpath(folder))
    return _walk(folder, Path(), (*map(str, reversed(real.parents)), str(real)))


def _walk(folder: Path, relative: Path, above: tuple[str, ...]) -> Iterator[tuple[Path, list[str], list[str]]]:
    subfolders, files = [], []
    for entry in sorted(os.listdir(folder / relative)):
        is_folder = os.path.isdir(folder / relative / entry)
        if not is_folder:
            files.append(entry)
        elif not entry.startswith(".") and entry != "__MACOSX":
            subfolders.append(entry)
    yield relative, subfolders, files
    for name in subfolders:
        path = folder / relative / name
        real = os.path.realpath(path) if path.is_symlink() else os.path.join(above[-1], name)
        if real in above:
            raise DataError(f"{path}: is a link to {real}, a folder that it is in; remove it")
        yield from _walk(folder, relative / name, (*above, real))


def _subfolders(folder: Path) -> list[str]:
    return next(iter(walk(folder)))[1]


def _metadata(folder: Path) -> Path | None:
    return next((folder / name for name in METADATA if (folder / name).exists()), None)


def _holds_audio(folder: Path) -> bool:
    return any(is_audio(name) for _, _, files in walk(folder) for name in files)


def _innermost(root: Path) -> Path:
    """The folder itself, or the one in it where that holds all of it, as an unpacked archive often has it."""
    top = root
    while not _metadata(top) and not any(is_audio(entry) for entry in top.iterdir()):
        folders = _subfolders(top)
        if len(folders) != 1 or split_names(folders):
            break
        inner = top / folders[0]
        if not _metadata(inner) and (any(map(is_audio, inner.iterdir())) or not _holds_audio(inner)):
            break  # a class, or nothing
        top = inner
    return top


def _split_folders(top: Path) -> dict[str, str]:
    """The sub-folders that are splits, and which.

    Raises:
        DataError: if they hold audio files, but no class folders.
    """
    folders = _subfolders(top)
    splits = split_names(folders)
    laid_out = [name for name in splits if _metadata(top / name) or _subfolders(top / name)]
    others = [name for name in folders if name not in splits and _holds_audio(top / name)]
    if not laid_out and len(splits) == 1 and others:
        return {}  # a class that is called so
    if splits and not laid_out and not _metadata(top) and any(_holds_audio(top / name) for name in splits):
        raise DataError(
            f"{top}: {', '.join(splits)} are called like splits, but hold no class sub-folders and no "
            f"{METADATA[0]}; put the files of each class into a folder of its own in them"
        )
    if splits and others and not _metadata(top):
        _say(f"{top}: left out, as {', '.join(splits)} are splits: {', '.join(others)}")
    return splits


def _add_metadata(
    table: TableBuilder, spans: array, root: Path, folder: Path, split: str, parts: dict[str, str]
) -> None:
    """Add the clips that a table names; their split is the table's own, or the folder's that they are in."""
    metadata = _metadata(folder)
    assert metadata is not None
    below = os.path.relpath(folder, root) if folder != root else ""
    for rows in manifest_rows(metadata):
        names, splits = [], []
        own = split_names(set(rows.splits))
        for line, name, text in zip(rows.lines, rows.files, rows.splits, strict=True):
            if not os.path.lexists(folder / name):
                raise DataError(
                    f"{metadata}, line {line}: there is no file {folder / name}{_of_another_ending(folder / name)}"
                )
            names.append(os.path.join(below, name))  # a table may name files by absolute paths
            splits.append(own.get(text) or split or parts.get(Path(name).parts[0], ""))
        table.extend(names, splits, rows.columns)
        for span in rows.spans:
            spans.extend(span)


def _of_another_ending(path: Path) -> str:
    others = sorted(path.parent.glob(f"{glob.escape(path.stem)}.*"))
    return f"; {others[0]} is there" if others else ""


def _add_classes(table: TableBuilder, spans: array, root: Path, folder: Path, split: str) -> None:
    """Add the clips of class sub-folders."""
    classes = [name for name in _subfolders(folder) if _is_audible(folder / name)]
    folds = {name: found[2] for name in classes if (found := _FOLD.fullmatch(name))}
    if len(folds) > 1 and len(folds) == len([name for name in classes if not _NO_CLASS.fullmatch(name)]):
        for name, fold in folds.items():
            if not _subfolders(folder / name):
                raise DataError(
                    f"{folder}: {', '.join(folds)} are called like folds, not classes; name the files with their "
                    f"labels and folds in a {METADATA[0]} (columns file_name, label, fold)"
                )
            _add_labelled(table, spans, root, folder / name, split, {"fold": str(int(fold))})
        return
    _add_labelled(table, spans, root, folder, split, {})


def _add_labelled(
    table: TableBuilder, spans: array, root: Path, folder: Path, split: str, labels: dict[str, str]
) -> None:
    unreadable: dict[str, Counter[str]] = {}
    classes = _subfolders(folder)
    certain = [name for name in classes if not _NO_CLASS.fullmatch(name) and _holds_audio(folder / name)]
    for name in classes:
        left_out = len(certain) > 1 and name not in certain and _NO_CLASS.fullmatch(name)
        if left_out and _holds_audio(folder / name):
            _say(f"{folder / name}: left out, its name is no class's; rename it if it is one")
        found, other = 0, Counter[str]()
        for relative, subfolders, files in walk(folder / name) if not left_out else ():
            other.update(ending for file in files if (ending := os.path.splitext(file)[1].lower()) in UNREADABLE)
            # A directory with an audio file's name is reported as a bad file, not silently entered.
            for file in filter(is_audio, sorted(files + subfolders)):
                table.add(os.path.relpath(folder / name / relative / file, root), split, {"label": name} | labels)
                spans.extend((0.0, float("inf")))
                found += 1
        if other:
            unreadable[name] = other
            kinds = ", ".join(f"{n} {ending}" for ending, n in other.items())
            how = "convert them (ffmpeg -i IN.m4a OUT.flac), or read .m4a, .mp4, .wma and others by audiostride[ffmpeg]"
            if not found:
                raise DataError(f"{folder / name}: all files of the class {name!r} ({kinds}) cannot be read; {how}")
            _say(f"{folder / name}: left out, files of a kind that cannot be read ({kinds}); {how}")


def _is_audible(folder: Path) -> bool:
    """Whether it holds audio, readable or not."""
    return any(os.path.splitext(name)[1].lower() in EXTENSIONS | UNREADABLE for _, _, fs in walk(folder) for name in fs)


def _nothing_found(root: Path) -> DataError:
    kinds = " ".join(sorted(EXTENSIONS))
    loose = sum(is_audio(entry) for entry in root.iterdir())
    if loose:
        return DataError(
            f"{root}: its {loose} audio files have no labels; put those of each class into a sub-folder of its "
            "own, or name them with their labels in a metadata.csv (columns file_name, label)"
        )
    return DataError(f"{root}: holds no audio files in class sub-folders and no metadata.csv (looked for {kinds})")


def _say(what: str) -> None:
    warnings.warn(what, DataWarning, stacklevel=3)
