"""Fetching a classifier from the Hugging Face hub.

A published model is its `config.json`, `model.safetensors` and, where it was tested, `results.json`;
nothing in it is code and nothing is ever unpickled.
"""

import contextlib
from pathlib import Path

import huggingface_hub
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
)

from ..errors import ModelFileError
from .files import CONFIG_FILE, RESULTS_FILE, WEIGHTS_FILE

HUB_PREFIX = "hf-hub:"
"""What the name of a model on the hub begins with, where a folder would do as well."""


def download(
    model_id: str,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    force_download: bool = False,
    local_files_only: bool = False,
) -> Path:
    """Fetch a model's files from the hub into its cache.

    Args:
        model_id: "user/name".
        revision: branch, tag or commit; None: the newest.
        token: for a private model; None: the one that `hf auth login` stored.
        cache_dir: None: the hub's own cache.
        force_download: fetch again what the cache holds.
        local_files_only: never ask the hub.

    Returns:
        The folder that holds them.

    Raises:
        ModelFileError: if there is no such model or file, or the hub cannot be reached.
    """

    def fetch(name: str) -> Path:
        path = huggingface_hub.hf_hub_download(
            model_id,
            name,
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            force_download=force_download,
            local_files_only=local_files_only,
        )
        return Path(path)

    try:
        folder = fetch(CONFIG_FILE).parent
        fetch(WEIGHTS_FILE)
    except HFValidationError as error:
        raise ModelFileError(f"{model_id}: is neither a folder nor the id of a model on the hub ({error})") from error
    except RepositoryNotFoundError as error:
        raise ModelFileError(
            f"{model_id}: the hub has no such model, or it is private and needs `hf auth login`"
        ) from error
    except LocalEntryNotFoundError as error:  # an EntryNotFoundError, too
        raise ModelFileError(f"{model_id}: cannot be fetched from the hub: {error}") from error
    except EntryNotFoundError as error:
        raise ModelFileError(f"{model_id}: holds no audiostride model: {error}") from error
    except (HfHubHTTPError, OSError) as error:
        raise ModelFileError(f"{model_id}: cannot be fetched from the hub: {error}") from error
    with contextlib.suppress(EntryNotFoundError, HfHubHTTPError, OSError):  # an untested model has none
        fetch(RESULTS_FILE)
    return folder
