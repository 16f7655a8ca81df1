"""`AudioClassifier`: a network that is saved to files and shared on the hub; `load` reads one. Nothing is unpickled."""

import json
import os
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_type_hints

from huggingface_hub import ModelCard, ModelHubMixin
from pydantic import ConfigDict, TypeAdapter, ValidationError

from ..errors import ModelFileError
from ..files import replace_file
from ..sections import Channel
from .calibration import check_calibration
from .events import check_settings
from .files import CONFIG_FILE, FORMAT, RESULTS_FILE, WEIGHTS_FILE, load_weights, read_config, read_weights, save_model
from .hub import HUB_PREFIX, download
from .model_card import model_card
from .network import AudioNetwork
from .parts import Part
from .prediction import KINDS
from .pretrained import FOLDER, pretrained_names
from .results import read_results
from .trunks import FRONTENDS, TRUNKS
from .weight_budget import WeightBudget

MAX_SETTING = 10**9
"""Numbers beyond it stand for no frequency, length, stride or number of channels."""


class AudioClassifier(AudioNetwork, ModelHubMixin):
    """An `AudioNetwork` with files: frontend, trunk and heads in `config.json` and `model.safetensors`.

    Through `huggingface_hub`'s mixin it has `from_pretrained`, `save_pretrained` and `push_to_hub`. Arguments,
    attributes and errors are those of `AudioNetwork`.

    Example:
        >>> import torch
        >>> from audiostride import AudioCNN, LogMel
        >>> trunk = AudioCNN(channels=(8, 8), strides=((2, 2), (2, 2)))
        >>> model = AudioClassifier(LogMel(), trunk, {"word": ["no", "yes"]})
        >>> model(torch.zeros(4, 16000))["word"].shape
        torch.Size([4, 2])
        >>> model.predict(torch.zeros(48000), sample_rate=48000)["word"].label in ("no", "yes")
        True
    """

    def config(self) -> dict[str, Any]:
        """Everything but the weights that rebuilds this model, as plain data."""
        return {
            "format": FORMAT,
            "model": {"name": _name_of(self.trunk, TRUNKS), **self.trunk.settings},
            "frontend": {"name": _name_of(self.frontend, FRONTENDS), **self.frontend.settings},
            "window_s": self.window_s,
            **({} if self.channel == "mix" else {"channel": self.channel}),
            "tasks": {
                task: {"kind": self.kinds[task], "labels": labels}
                | ({"thresholds": self.thresholds[task]} if task in self.thresholds else {})
                | ({"calibration": self.calibrations[task].as_dict()} if task in self.calibrations else {})
                | ({"events": self.event_settings[task].as_dict()} if task in self.event_settings else {})
                for task, labels in self.labels.items()
            },
        }

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write `config.json` and `model.safetensors` into a folder, which is made if need be.

        Raises:
            WriteError: if a file cannot be written; it is an OSError, too.
        """
        save_model(Path(folder), self.config(), self.state_dict())

    def _save_pretrained(self, save_directory: Path) -> None:
        self.save(save_directory)
        if self.results is not None:
            replace_file(save_directory / RESULTS_FILE, json.dumps(self.results, indent=1) + "\n")

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike[str], **options: Any
    ) -> "AudioClassifier":
        """Load a classifier from a run directory or from the Hugging Face hub, in eval mode.

        Args:
            pretrained_model_name_or_path: a directory, or the id of a model on the hub ("user/name").
            options: `revision`, `token`, `cache_dir`, `force_download`, `local_files_only` for the hub.

        Raises:
            ModelFileError: as `load`, or if the hub has no such model or cannot be reached.
        """
        if Path(pretrained_model_name_or_path).is_dir():
            return load(pretrained_model_name_or_path)
        return _load(download(str(pretrained_model_name_or_path), **options), own_classes=False)

    def generate_model_card(self, *args: Any, **kwargs: Any) -> ModelCard:
        """The README of a published model, see `audiostride.models.model_card`."""
        return ModelCard(model_card(self, *args, **kwargs))


def load(folder: str | os.PathLike[str]) -> AudioClassifier:
    """Load a trained classifier, in eval mode. Nothing is ever unpickled.

    Args:
        folder: a run directory, or any with `config.json` and `model.safetensors`; or "hf-hub:"
            and the id of a model on the Hugging Face hub, with "@REVISION" where it matters; or one of
            `pretrained_names()`, unless there is a folder of that name.

    A folder whose trunk or frontend is a custom class has that class imported and called; load it only if you trust
    its author. From the hub no such model is loaded.

    Raises:
        ModelFileError: if a file is missing, damaged, of another format, or they do not fit together; or if a custom
            class cannot be imported.

    Example:
        >>> import tempfile
        >>> from audiostride import AudioCNN, LogMel
        >>> trunk = AudioCNN(channels=(8, 8), strides=((2, 2), (2, 2)))
        >>> model = AudioClassifier(LogMel(), trunk, {"word": ["no", "yes"]})
        >>> folder = tempfile.mkdtemp()
        >>> model.save(folder)
        >>> load(folder).labels
        {'word': ['no', 'yes']}
    """
    if str(folder).startswith(HUB_PREFIX):
        name, _, revision = str(folder).removeprefix(HUB_PREFIX).partition("@")
        return _load(download(name, revision=revision or None), own_classes=False)
    if not Path(folder).exists():
        if str(folder) in pretrained_names():
            return _load(FOLDER / folder, own_classes=False)
        if near := get_close_matches(str(folder), pretrained_names(), n=1):
            raise ModelFileError(f"{folder}: no such folder; did you mean {near[0]}, which comes with the package?")
    return _load(Path(folder), own_classes=True)


def _load(folder: Path, own_classes: bool) -> AudioClassifier:
    config = read_config(folder / CONFIG_FILE)
    tensors = read_weights(folder / WEIGHTS_FILE, config.get("weights_sha256"))
    try:
        tasks = config["tasks"]
        for task, settings in tasks.items():
            _check_task(task, settings)
        custom = [config[part]["name"] for part in ("model", "frontend")].count("custom") > 0
        if custom and not own_classes:
            raise ValueError(
                "it names a class to be imported and called, which no model from the hub may do; if you trust it, "
                "fetch its files into a folder and load that"
            )
        # The model described must not be larger than its weights; some room is left for an error that says more, and
        # for what a custom class allocates as it is made.
        room = 100_000_000 if custom else 10_000
        with WeightBudget(2 * sum(tensor.numel() for tensor in tensors.values()) + room):
            model = AudioClassifier(
                _make(FRONTENDS, {"name": "log_mel"} | config["frontend"]),
                _make(TRUNKS, config["model"]),
                {task: settings["labels"] for task, settings in tasks.items()},
                _checked(float, "window_s", config["window_s"]),
                {task: settings["kind"] for task, settings in tasks.items()},
            )
        model.channel = _checked(Channel, "channel", config.get("channel", "mix"))
        model.thresholds = {task: s["thresholds"] for task, s in tasks.items() if "thresholds" in s}
        model.calibrations = {t: check_calibration(s["calibration"]) for t, s in tasks.items() if "calibration" in s}
        model.event_settings = {
            task: check_settings(s["events"], len(s["labels"])) for task, s in tasks.items() if "events" in s
        }
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RuntimeError) as error:
        reason = f"has no {error}" if isinstance(error, KeyError) else str(error)
        raise ModelFileError(f"{folder / CONFIG_FILE}: does not describe a model: {reason}") from error
    load_weights(model, tensors, folder / WEIGHTS_FILE)
    if (folder / RESULTS_FILE).is_file():
        model.results = read_results(folder / RESULTS_FILE)
    return model.eval()


def _check_task(task: str, settings: Mapping[str, Any]) -> None:
    labels, kind, thresholds = settings["labels"], settings["kind"], settings.get("thresholds", [])
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise ValueError(f"the labels of task {task!r} are not a list of strings")
    if len(set(labels)) < len(labels) or "" in labels:
        raise ValueError(f"a label of task {task!r} is empty or stands there twice")
    if kind not in KINDS:
        raise ValueError(f"task {task!r} has the unknown kind {kind!r}; known are {', '.join(KINDS)}")
    if not isinstance(thresholds, list) or not all(isinstance(t, float) and 0 <= t <= 1 for t in thresholds):
        raise ValueError(f"the thresholds of task {task!r} are not a list of numbers from 0 to 1")
    if thresholds and len(thresholds) != (1 if kind == "binary" else len(labels)):
        raise ValueError(f"task {task!r} has {len(thresholds)} thresholds")


def _make(kinds: Mapping[str, Any], settings: Mapping[str, Any]) -> Any:
    settings = dict(settings)
    name = settings.pop("name")
    if name not in kinds:
        raise ValueError(f"unknown name {name!r}, this version knows {', '.join(kinds)}")
    hints = get_type_hints(kinds[name].__init__)
    return kinds[name](**{key: _checked(hints.get(key, Any), key, value) for key, value in settings.items()})


def _checked(kind: Any, key: str, value: Any) -> Any:
    """A setting, if it is what a constructor expects: neither true for 1 nor text for a number, NaN or infinity."""
    try:
        TypeAdapter(kind, config=ConfigDict(strict=True, allow_inf_nan=False)).validate_json(json.dumps(value))
    except ValidationError as error:
        raise ValueError(f"{key} is {value!r}: {error.errors()[0]['msg']}") from error
    if any(abs(number) > MAX_SETTING for number in _numbers(value)):
        raise ValueError(f"{key} is {value!r}, which is beyond {MAX_SETTING:,}")
    return value


def _numbers(value: Any) -> Iterator[float]:
    """All numbers in a list of lists, or the one that it is."""
    if isinstance(value, list):
        for part in value:
            yield from _numbers(part)
    elif isinstance(value, int | float):
        yield value


def _name_of(part: Part, kinds: Mapping[str, type]) -> str:
    name = getattr(part, "name", None)
    if kinds.get(str(name)) is not type(part):
        raise ValueError(f"a {type(part).__name__} cannot be saved by name; known are {', '.join(kinds)}")
    return part.name
