"""A model's files: `config.json` and `model.safetensors`, each with a checksum; nothing in them is ever unpickled."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor, nn

from ..errors import ModelFileError
from ..files import explain_write_errors, read_bounded, replace_file

FORMAT = 1
"""Number of the format of `config.json`; raised when an old reader could not read a new file."""

CONFIG_FILE, WEIGHTS_FILE, RESULTS_FILE = "config.json", "model.safetensors", "results.json"

MAX_JSON_BYTES, MAX_WEIGHTS_BYTES = 2**24, 2**35
"""Larger files are not read: 16 MB of JSON, 32 GB of weights."""


def save_model(folder: Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Write `config.json` and `model.safetensors` from a classifier's `config()` and `state_dict()`.

    Raises:
        WriteError: if a file cannot be written; it is an OSError, too.
    """
    weights = safetensors.torch.save({name: tensor.cpu().contiguous() for name, tensor in tensors.items()})
    with explain_write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    replace_file(folder / WEIGHTS_FILE, weights)
    save_config(folder / CONFIG_FILE, config, weights)


def save_config(path: Path, config: Mapping[str, Any], weights: bytes) -> None:
    """Write `config.json` with the checksums of the weights' file and of itself.

    Raises:
        WriteError: if the file cannot be written; it is an OSError, too.
    """
    checked = {**config, "weights_sha256": hashlib.sha256(weights).hexdigest()}
    checked["config_sha256"] = _config_checksum(checked)
    replace_file(path, json.dumps(checked, indent=1) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """What a JSON file holds, a mapping.

    Raises:
        ModelFileError: if it is missing, too large, no plain file or no JSON.

    Example:
        >>> read_json(Path("nowhere/config.json"))
        Traceback (most recent call last):
            ...
        audiostride.errors.ModelFileError: nowhere/config.json: no such file; a run directory ...
    """
    if not path.exists():
        raise ModelFileError(f"{path}: no such file; a run directory with a trained model is needed")
    try:
        value = json.loads(read_bounded(path, MAX_JSON_BYTES))
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"{path}: is not readable JSON ({error})") from error
    if not isinstance(value, dict):
        raise ModelFileError(f"{path}: holds {type(value).__name__}, a mapping is needed")
    return value


def read_config(path: Path) -> dict[str, Any]:
    """What `config.json` says, once its format and checksum are verified.

    Raises:
        ModelFileError: if it is missing, damaged or of another format.

    Example:
        >>> import tempfile, torch
        >>> folder = Path(tempfile.mkdtemp())
        >>> save_model(folder, {"format": FORMAT}, {"weight": torch.ones(2)})
        >>> sorted(read_config(folder / CONFIG_FILE))
        ['config_sha256', 'format', 'weights_sha256']
    """
    config = read_json(path)
    if config.get("format") != FORMAT:
        raise ModelFileError(f"{path}: has format {config.get('format')!r}, this version of audiostride reads {FORMAT}")
    if config.get("config_sha256") != _config_checksum(config):
        raise ModelFileError(f"{path}: damaged or changed, its content does not match its config_sha256")
    return config


def read_weights(path: Path, checksum: Any) -> dict[str, Tensor]:
    """The tensors in `model.safetensors`.

    Args:
        path: the file.
        checksum: its SHA-256, from `config.json`.

    Raises:
        ModelFileError: if it is missing, too large, damaged or a pickle under another name.
    """
    content = read_bounded(path, MAX_WEIGHTS_BYTES)
    if hashlib.sha256(content).hexdigest() != checksum:
        if content[:1] == b"\x80" or content[:4] == b"PK\x03\x04":
            raise ModelFileError(f"{path}: is a pickle (or a zip of one) under another name; it was not opened")
        raise ModelFileError(f"{path}: damaged or changed, its SHA-256 is not the one in {CONFIG_FILE}")
    try:
        return safetensors.torch.load(content)
    except (safetensors.SafetensorError, ValueError, KeyError) as error:
        raise ModelFileError(f"{path}: is not a valid safetensors file ({error})") from error


def load_weights(model: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Load tensors into a module with the same names, shapes and kinds of number.

    Args:
        model: the module.
        tensors: from `read_weights`.
        path: where they were read.

    Raises:
        ModelFileError: if they do not fit the module.
    """
    try:
        for name, own in model.state_dict().items():
            found = tensors[name].dtype if name in tensors else own.dtype
            if found != own.dtype and not (found.is_floating_point and own.is_floating_point):
                raise ValueError(f"{name} is {found}, not {own.dtype}")  # it would be cast in silence
        model.load_state_dict(tensors)
    except (RuntimeError, ValueError) as error:
        raise ModelFileError(f"{path}: does not fit {CONFIG_FILE}: {str(error).strip()}") from error


def _config_checksum(config: Mapping[str, Any]) -> str:
    """SHA-256 of everything else that is in `config.json`, however it is laid out."""
    content = {key: value for key, value in config.items() if key != "config_sha256"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
