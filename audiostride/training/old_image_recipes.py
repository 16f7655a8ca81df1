"""Recipes for images as they were written before images and sounds had one kind of recipe."""

from collections.abc import Sequence
from typing import Any

_DEFAULTS = {
    "epochs": 400,
    "batch_size": 256,
    "learning_rate": 0.1,
    "stride_learning_rate": 0.1,
    "momentum": 0.9,
    "weight_decay": 5e-3,
    "drop_epochs": [200, 300],
}

_NEW_KEYS = {
    "data.path": "tasks.label.data.path",
    "data.crop": "tasks.label.data.crop",
    "data.size": "frontend.size",
    "train.mixup": "augment.mixup",
}


def from_image_recipe(tree: dict[str, Any]) -> dict[str, Any]:
    """The same training as a recipe of today; a tree that is no such recipe comes back as it is.

    Example:
        >>> old = {"name": "cifar", "data": {"path": "DIR", "size": 32}, "model": {"strides": [2, 2, 2]}}
        >>> new = from_image_recipe(old)
        >>> new["tasks"], new["frontend"]
        ({'label': {'data': {'source': 'images', 'path': 'DIR'}}}, {'name': 'images', 'size': 32})
        >>> new["train"]["schedule"], new["train"]["drop_epochs"]
        ('step', [200, 300])
    """
    if "tasks" in tree or not isinstance(tree.get("data"), dict):
        return tree
    new = dict(tree)
    data = {"source": "images", **new.pop("data")}
    frontend = {"name": "images"} | ({"size": data.pop("size")} if "size" in data else {})
    train = _DEFAULTS | dict(new.get("train") or {})
    mixup = train.pop("mixup", 0)
    # No epoch was chosen, and no image held back for that.
    train |= {"optimizer": "sgd", "schedule": "step", "keep": "last", "validation_fraction": 0}
    if not train["drop_epochs"]:
        train["schedule"] = "constant"
    model = {"name": "resnet", "in_channels": 3} | dict(new.get("model") or {})
    if model["name"] != "resnet":
        model |= {"name": "converted", "network": model["name"]}
    new |= {
        "frontend": frontend,
        "tasks": {"label": {"data": data}},
        "model": model,
        "train": train,
    }
    return new | ({"augment": {"mixup": mixup}} if mixup else {})


def from_image_overrides(overrides: Sequence[str]) -> list[str]:
    """``key=value`` overrides with the keys of today.

    Example:
        >>> from_image_overrides(["data.path=DIR", "train.mixup=0", "seed=1"])
        ['tasks.label.data.path=DIR', 'augment.mixup=null', 'seed=1']
    """
    pairs = [override.partition("=") for override in overrides]
    renamed = [f"{_NEW_KEYS.get(key, key)}{equals}{value}" for key, equals, value in pairs]
    return ["augment.mixup=null" if override == "augment.mixup=0" else override for override in renamed]
