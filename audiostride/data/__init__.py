"""Data: sources that give a table of clips, splits, and the batches of training and evaluation.

`folder` and `ripples` are sources; each is a function that returns a `Clips` table. `splits` says
which clip is for what, `labels` turns label columns into class numbers, `batches` draws the windows.
"""

from .clips import ArrayClips, Clips, FileClips, class_names, drop_bad_files
from .folder import read_folder
from .ripples import make_ripples
from .splits import assign_splits

__all__ = [
    "ArrayClips",
    "Clips",
    "FileClips",
    "assign_splits",
    "class_names",
    "drop_bad_files",
    "make_ripples",
    "read_folder",
]
