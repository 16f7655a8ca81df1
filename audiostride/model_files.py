"""A model's files: `config.json` and `model.safetensors`, each with a checksum; nothing in them is ever unpickled."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor, nn

from .errors import ModelFileError
from .files import explain_write_errors, replace_file

FORMAT = 1
"""Number of the format of `config.json`; raised when an old reader could not read a new file."""

CONFIG_FILE, WEIGHTS_FILE, RESULTS_FILE = "config.json", "model.safetensors", "results.json"


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


def read_json(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
        ModelFileError: if it is missing or no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelFileError(f"{path}: no such file; a run directory with a trained model is needed") from error
    except (OSError, ValueError, RecursionError) as error:
        raise ModelFileError(f"{path}: is not readable JSON ({error})") from error


def read_config(path: Path) -> dict[str, Any]:
    """What `config.json` says, once its format and checksum are found right.

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
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        found = config.get("format") if isinstance(config, dict) else type(config).__name__
        raise ModelFileError(f"{path}: has format {found!r}, this version of audiostride reads {FORMAT}")
    if config.get("config_sha256") != _config_checksum(config):
        raise ModelFileError(f"{path}: damaged or changed, its content does not fit its config_sha256")
    return config


def load_weights(model: nn.Module, path: Path, checksum: str) -> None:
    """Load `model.safetensors` into a module.

    Args:
        model: a module with the same names, shapes and kinds of number.
        path: the file.
        checksum: its SHA-256, from `config.json`.

    Raises:
        ModelFileError: if it is missing, damaged, a pickle under another name, or does not fit the module.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelFileError(f"{path}: {error.strerror or error}") from error
    if hashlib.sha256(content).hexdigest() != checksum:
        if content[:1] == b"\x80" or content[:4] == b"PK\x03\x04":
            raise ModelFileError(f"{path}: is a pickle (or a zip of one) under another name; it was not opened")
        raise ModelFileError(f"{path}: damaged or changed, its SHA-256 is not the one in {CONFIG_FILE}")
    try:
        tensors = safetensors.torch.load(content)
        for name, own in model.state_dict().items():
            found = tensors[name].dtype if name in tensors else own.dtype
            if found != own.dtype and not (found.is_floating_point and own.is_floating_point):
                raise ValueError(f"{name} is {found}, not {own.dtype}")  # it would be cast in silence
        model.load_state_dict(tensors)
    except (safetensors.SafetensorError, RuntimeError, ValueError, KeyError) as error:
        raise ModelFileError(f"{path}: does not fit {CONFIG_FILE}: {str(error).strip()}") from error


def _config_checksum(config: Mapping[str, Any]) -> str:
    """SHA-256 of everything else that is in `config.json`, however it is laid out."""
    content = {key: value for key, value in config.items() if key != "config_sha256"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
