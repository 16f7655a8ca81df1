"""A path that somebody names: a table, a folder of class folders, or one of recordings with label files."""

import os
from typing import Literal

from ..errors import DataError
from ..files import expand_user
from .annotations import is_annotated, read_annotated
from .clips import FileClips
from .folder import read_folder
from .manifest import SUFFIXES, is_table, read_manifest


def source_of(path: str | os.PathLike[str]) -> Literal["manifest", "annotated", "folder"]:
    """The `source` of a recipe that reads a path.

    Example:
        >>> source_of("calls.csv"), source_of("nowhere")
        ('manifest', 'folder')
    """
    if is_table(path):
        return "manifest"
    return "annotated" if is_annotated(path) else "folder"


def read_path(path: str | os.PathLike[str], root: str | os.PathLike[str] | None = None) -> FileClips:
    """The clips of a folder or of a table, whichever the path is.

    Args:
        path: the folder or table.
        root: see `read_manifest`; for tables only.

    Raises:
        DataError: if it is neither, or cannot be read.
    """
    if is_table(path):
        return read_manifest(path, root)
    if expand_user(path).is_file():
        raise DataError(f"{path}: is neither a folder nor a table of files, which ends in {', '.join(SUFFIXES)}")
    if root is not None:
        raise DataError(f"{path}: is a folder; only the files of a table are relative to a root")
    return read_annotated(path) if is_annotated(path) else read_folder(path)
