"""Checkpoints: each is a directory that is complete and undamaged, or not there at all.

    checkpoints/epoch-0002-step-00000120/
        manifest.json           format, and length and SHA-256 of every other file
        state.json              plain data
        NAME.safetensors        a file for each group of tensors

It is written under a hidden name, every file and the directory are synced, and only then renamed.
Nothing is ever pickled.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from ..errors import ModelFileError
from ..files import explain_write_errors, read_bounded, sync_folder, write_synced

FORMAT = 1
"""Number of the format of a checkpoint; raised when an old reader could not read a new one."""

Notify = Callable[[str], None]
"""Called with a line that the person who runs this should read."""

_MANIFEST, _STATE, _TENSORS = "manifest.json", "state.json", ".safetensors"
_NAME = re.compile(r"epoch-(\d+)-step-(\d+)", re.ASCII)
_MAX_MANIFEST_BYTES, _MAX_FILE_BYTES = 2**20, 2**37


@dataclass
class Checkpoint:
    """Everything that a run needs to continue.

    Attributes:
        name: of its directory, see `checkpoint_name`.
        state: plain data.
        tensors: groups of tensors by name.
    """

    name: str
    state: dict[str, Any]
    tensors: dict[str, dict[str, Tensor]]


def checkpoint_name(epoch: int, step: int) -> str:
    """Name of the checkpoint made after `epoch` whole epochs and `step` steps.

    Example:
        >>> checkpoint_name(2, 120)
        'epoch-0002-step-00000120'
    """
    return f"epoch-{epoch:04d}-step-{step:08d}"


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint; earlier ones stay intact at all times, and this one is complete once it has its name.

    Args:
        folder: where checkpoints are; made if need be.
        checkpoint: what to save.

    Raises:
        WriteError: names the path and the bytes that are free there; earlier checkpoints are untouched.

    Example:
        >>> import tempfile, torch
        >>> folder = Path(tempfile.mkdtemp())
        >>> name = checkpoint_name(1, 60)
        >>> save_checkpoint(folder, Checkpoint(name, {"step": 60}, {"model": {"weight": torch.ones(2)}}))
        >>> load_checkpoint(folder / name).tensors["model"]["weight"]
        tensor([1., 1.])
    """
    files = {f"{group}{_TENSORS}": _tensor_bytes(tensors) for group, tensors in checkpoint.tensors.items()}
    files[_STATE] = json.dumps(checkpoint.state).encode()
    entries = {name: {"bytes": len(c), "sha256": hashlib.sha256(c).hexdigest()} for name, c in files.items()}
    manifest = {"format": FORMAT, "name": checkpoint.name, "files": entries}
    final, partial = folder / checkpoint.name, folder / f".{checkpoint.name}.partial"
    with explain_write_errors(final):
        folder.mkdir(parents=True, exist_ok=True)
        _remove_hidden(folder)
        try:
            partial.mkdir()
            for name, content in files.items():
                write_synced(partial / name, content)
            write_synced(partial / _MANIFEST, json.dumps(manifest, indent=1).encode())
            sync_folder(partial)
            if final.exists():  # of steps that were given up by resuming from an earlier one
                remove_checkpoint(final)
            os.rename(partial, final)
            sync_folder(folder)
        except OSError:
            shutil.rmtree(partial, ignore_errors=True)  # room for what may still be written
            raise


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint and check every byte of it.

    Raises:
        ModelFileError: if anything is missing, damaged, superfluous or of another format; names the file.
    """
    manifest = _read_json(path / _MANIFEST)
    if manifest.get("format") != FORMAT:
        raise ModelFileError(f"{path}: has format {manifest.get('format')!r}, this audiostride reads {FORMAT}")
    entries: dict[str, Any] = manifest.get("files") or {}
    if manifest.get("name") != path.name or set(manifest) != {"format", "name", "files"} or not _are_files(entries):
        raise ModelFileError(f"{path / _MANIFEST}: does not describe this checkpoint")
    found = {file.name for file in path.iterdir()} - {_MANIFEST}
    if found != set(entries):
        raise ModelFileError(f"{path}: holds {sorted(found)}, its manifest lists {sorted(entries)}")
    contents = {name: _read_checked(path / name, entry) for name, entry in entries.items()}
    try:
        state = json.loads(contents.pop(_STATE))
        tensors = {name.removesuffix(_TENSORS): safetensors.torch.load(c) for name, c in contents.items()}
    except (KeyError, ValueError, RecursionError, safetensors.SafetensorError) as error:
        raise ModelFileError(f"{path}: cannot be read ({error})") from error
    if not isinstance(state, dict):
        raise ModelFileError(f"{path / _STATE}: holds {type(state).__name__}, a mapping is needed")
    return Checkpoint(path.name, state, tensors)


def newest_checkpoint(folder: Path, notify: Notify) -> Checkpoint | None:
    """The newest checkpoint that is undamaged; damaged ones are set aside as `NAME.damaged`, with a notice.

    Args:
        folder: where checkpoints are; need not exist.
        notify: called with a line for each damaged checkpoint.

    Returns:
        None if there is no undamaged checkpoint.
    """
    if folder.is_dir():
        _remove_hidden(folder)
    for path in reversed(list_checkpoints(folder)):
        try:
            return load_checkpoint(path)
        except ModelFileError as error:
            aside = path.with_name(f"{path.name}.damaged")
            notify(f"damaged checkpoint set aside as {aside.name}, continuing from an earlier one: {error}")
            shutil.rmtree(aside, ignore_errors=True)
            os.rename(path, aside)
    return None


def list_checkpoints(folder: Path) -> list[Path]:
    """Directories of all checkpoints, oldest first; empty if the folder does not exist."""
    names = [name for path in folder.iterdir() if (name := _NAME.fullmatch(path.name))] if folder.is_dir() else []
    return [folder / name[0] for name in sorted(names, key=lambda name: (int(name[1]), int(name[2])))]


def prune_checkpoints(folder: Path, keep_last: int, keep: str | None = None) -> None:
    """Remove all checkpoints but the newest `keep_last` and the one named `keep`."""
    for path in list_checkpoints(folder)[:-keep_last]:
        if path.name != keep:
            remove_checkpoint(path)


def remove_checkpoint(path: Path) -> None:
    """Remove a checkpoint; a crash halfway leaves no half of it under its name."""
    hidden = path.with_name(f".{path.name}.removed")
    os.rename(path, hidden)
    shutil.rmtree(hidden)


def _tensor_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    return safetensors.torch.save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})


def _remove_hidden(folder: Path) -> None:
    for path in folder.glob(".*"):
        shutil.rmtree(path, ignore_errors=True)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(read_bounded(path, _MAX_MANIFEST_BYTES))
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"{path}: is not readable JSON ({error})") from error
    if not isinstance(value, dict):
        raise ModelFileError(f"{path}: holds {type(value).__name__}, a mapping is needed")
    return value


def _are_files(entries: Any) -> bool:
    # A name with a separator would read outside the checkpoint.
    return isinstance(entries, dict) and all(
        (name == _STATE or name.endswith(_TENSORS)) and "/" not in name and isinstance(entry, dict)
        for name, entry in entries.items()
    )


def _read_checked(path: Path, entry: Mapping[str, Any]) -> bytes:
    if path.is_file() and path.stat().st_size != entry.get("bytes"):
        raise ModelFileError(f"{path}: has {path.stat().st_size} bytes, its manifest says {entry.get('bytes')}")
    content = read_bounded(path, _MAX_FILE_BYTES)
    if hashlib.sha256(content).hexdigest() != entry.get("sha256") or set(entry) != {"bytes", "sha256"}:
        raise ModelFileError(f"{path}: damaged, its SHA-256 is not the one in its manifest")
    return content
