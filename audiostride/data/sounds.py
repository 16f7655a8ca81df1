"""Finding sounds by path, folder or pattern, as they stand on a command line."""

import glob
import os
from collections.abc import Sequence

from ..errors import DataError
from .decoding import EXTENSIONS, is_audio

STDIN = "-"
"""The name of the sound that comes from a pipe."""


def find_sounds(inputs: Sequence[str]) -> list[str]:
    """Names of audio files from files, folders (searched through), patterns (``*``, ``**``) and "-".

    A plain path is kept even if there is no such file: it gets a row that says so. Each file is
    named once.

    Raises:
        DataError: if a folder holds no audio file or a pattern fits none.

    Example:
        >>> find_sounds(["a.wav", "-", "a.wav"])
        ['a.wav', '-']
    """
    names: list[str] = []
    for given in inputs:
        if os.path.isdir(given):
            found = [os.path.join(folder, name) for folder, _, files in os.walk(given) for name in files]
            found = sorted(name for name in found if is_audio(name))
        elif glob.has_magic(given) and not os.path.lexists(given):
            names_of: dict[str, str] = {}  # "**" follows links, also one to a folder above
            for name in sorted(glob.glob(given, recursive=True), key=lambda name: (name.count(os.sep), name)):
                names_of.setdefault(os.path.realpath(name), name)
            found = sorted(name for name in names_of.values() if is_audio(name))
        else:
            names.append(given)
            continue
        if not found:
            kinds = " ".join(sorted(EXTENSIONS))
            raise DataError(f"{given}: holds no audio file (looked for {kinds})")
        names += found
    return list(dict.fromkeys(names))
