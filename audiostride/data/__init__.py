"""Data: sources that give a table of clips, splits, and the batches of training and evaluation.

A source is a function that returns a `Clips` table: `folder`, `manifest`, `annotations`, `archives`,
`hub`, `shards` and `ripples`. `splits` says which clip is for what, `labels` turns label columns into
class numbers, `cache` decodes everything once, `streaming` fetches what lies on a server, `augment` changes
training windows, `batches` draws them.
"""

import os
from pathlib import Path

from .annotations import read_annotated
from .archives import read_archives
from .cache import cached
from .clips import ArrayClips, Clips, EncodedClips, FileClips, class_names, drop_bad_files
from .folder import read_folder
from .hub import read_hub
from .labels import label_numbers, task_labels
from .manifest import SUFFIXES, read_manifest
from .ripples import make_ripples
from .shards import read_shards
from .splits import assign_splits, resplit, shared_groups

__all__ = [
    "ArrayClips",
    "Clips",
    "EncodedClips",
    "FileClips",
    "assign_splits",
    "cached",
    "class_names",
    "drop_bad_files",
    "label_numbers",
    "make_ripples",
    "read_annotated",
    "read_archives",
    "read_folder",
    "read_hub",
    "read_manifest",
    "read_path",
    "read_shards",
    "resplit",
    "shared_groups",
    "task_labels",
]


def read_path(path: str | os.PathLike[str]) -> FileClips:
    """The clips of a folder or of a table, whichever the path is."""
    return read_manifest(path) if Path(path).suffix.lower() in SUFFIXES else read_folder(path)
