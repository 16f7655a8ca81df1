"""The weights that come with the package, by the name of their registered model."""

from pathlib import Path

from .files import WEIGHTS_FILE

FOLDER = Path(__file__).parents[1] / "pretrained"
"""Holds a folder for each model, with `config.json`, `model.safetensors` and its model card, `README.md`."""


def pretrained_names() -> list[str]:
    """Names of the registered models that weights come with.

    Example:
        >>> pretrained_names()
        ['audio_resnet_small_strided']
    """
    return sorted(path.parent.name for path in FOLDER.glob(f"*/{WEIGHTS_FILE}"))
