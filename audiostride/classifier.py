"""`AudioClassifier`: frontend, trunk and a linear head per task; saved as safetensors and JSON."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors
import safetensors.torch
import soxr
import torch
from torch import Tensor, nn

from .cnn import AudioCNN
from .errors import ModelFileError
from .frontend import LogMel
from .resnet import ResNet
from .wave_cnn import RawWaveform, WaveCNN
from .windows import split_windows

Frontend = LogMel | RawWaveform
Trunk = AudioCNN | ResNet | WaveCNN

FRONTENDS: dict[str, type[Frontend]] = {"log_mel": LogMel, "waveform": RawWaveform}
"""Frontend classes by their name in recipes and in `config.json`."""

TRUNKS: dict[str, type[Trunk]] = {"audio_cnn": AudioCNN, "resnet": ResNet, "wave_cnn": WaveCNN}
"""Trunk classes by their name in recipes and in `config.json`."""

FORMAT = 1
"""Number of the format of `config.json`; raised when an old reader could not read a new file."""

CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"
_WINDOWS_AT_ONCE = 64


class Prediction(NamedTuple):
    """What the classifier says of one clip for one task.

    Attributes:
        label: the likeliest class.
        score: its probability, 0 to 1.
        probabilities: probability of every class, in the order of the classifier's labels; those of
            a multilabel task do not sum to 1.
    """

    label: str
    score: float
    probabilities: dict[str, float]


class AudioClassifier(nn.Module):
    """Waveform in, logits of every task out.

    Args:
        frontend: `LogMel`, or `RawWaveform` before a `WaveCNN`.
        trunk: `AudioCNN`, `ResNet` or `WaveCNN`.
        heads: for each task its class labels in order, or their number.
        window_s: length of the windows it is trained on and a clip is split into, in seconds.
        kinds: "multiclass" (where missing), "binary" or "multilabel" for each task.

    Attributes:
        labels: the class labels of each task.
        kinds: the kind of each task.
        thresholds: for binary and multilabel tasks the probability from which on a class counts as
            present, found on validation clips, see `evaluate.best_thresholds`.

    Raises:
        ValueError: if there is no task or a task has no class.

    Example:
        >>> trunk = AudioCNN(channels=(8, 8), strides=((2, 2), (2, 2)))
        >>> model = AudioClassifier(LogMel(), trunk, {"word": ["no", "yes"]})
        >>> model(torch.zeros(4, 16000))["word"].shape
        torch.Size([4, 2])
        >>> model.predict(torch.zeros(48000), sample_rate=48000)["word"].label in ("no", "yes")
        True
    """

    def __init__(
        self,
        frontend: Frontend,
        trunk: Trunk,
        heads: Mapping[str, int | Sequence[str]],
        window_s: float = 1.0,
        kinds: Mapping[str, str] | None = None,
    ):
        super().__init__()
        self.labels = {
            task: [str(i) for i in range(labels)] if isinstance(labels, int) else list(labels)
            for task, labels in heads.items()
        }
        if not self.labels or not all(self.labels.values()):
            raise ValueError(f"every task needs at least one class, got {self.labels}")
        self.kinds = {task: (kinds or {}).get(task, "multiclass") for task in self.labels}
        self.thresholds: dict[str, list[float]] = {}
        self.frontend = frontend
        self.trunk = trunk
        self.heads = nn.ModuleDict({task: nn.Linear(trunk.num_features, len(ls)) for task, ls in self.labels.items()})
        self.window_s = window_s

    @property
    def window_length(self) -> int:
        """Samples in a window."""
        return round(self.window_s * self.frontend.sample_rate)

    def forward(self, waveform: Tensor) -> dict[str, Tensor]:
        """Map windows ``(batch, samples)`` to logits ``(batch, n_classes)`` of each task."""
        embedding = self.trunk(self.frontend(waveform))
        return {task: head(embedding) for task, head in self.heads.items()}

    def forward_features(self, waveform: Tensor) -> Tensor:
        """Map windows ``(batch, samples)`` to feature maps ``(batch, channel, time, mel)``."""
        return self.trunk.forward_features(self.frontend(waveform))

    @torch.inference_mode()
    def embed(self, waveform: Tensor | np.ndarray, sample_rate: int) -> Tensor:
        """Embedding of a clip: the trunk's output, averaged over the clip's windows.

        The heads are linear, so a head applied to it gives the clip's averaged logits. Runs in eval
        mode, whatever the model's mode.

        Args:
            waveform: shape ``(samples,)``, or ``(channels, samples)``, which is averaged to one channel.
            sample_rate: of the waveform, in Hz; resampled to the frontend's where it differs.

        Returns:
            Shape ``(num_features,)``.

        Raises:
            ValueError: if the waveform is empty, of another shape, or holds NaN or infinity.

        Example:
            >>> model = AudioClassifier(LogMel(), AudioCNN(channels=(8, 16), strides=((2, 2), (2, 2))), {"word": 2})
            >>> model.embed(np.zeros(44100, np.float32), sample_rate=44100).shape
            torch.Size([16])
        """
        windows = split_windows(self._prepare(waveform, sample_rate), self.window_length)
        was_training = self.training
        self.eval()
        try:
            parts = [self.trunk(self.frontend(part)) for part in windows.split(_WINDOWS_AT_ONCE)]
        finally:
            self.train(was_training)
        return torch.cat(parts).mean(0)

    @torch.inference_mode()
    def predict(self, waveform: Tensor | np.ndarray, sample_rate: int) -> dict[str, Prediction]:
        """Classify a clip of any length: the logits of its windows are averaged.

        Args:
            waveform: shape ``(samples,)``, or ``(channels, samples)``, which is averaged to one channel.
            sample_rate: of the waveform, in Hz; resampled to the frontend's where it differs.

        Returns:
            A `Prediction` for each task.

        Raises:
            ValueError: if the waveform is empty, of another shape, or holds NaN or infinity.
        """
        embedding = self.embed(waveform, sample_rate)
        predictions = {}
        for task, head in self.heads.items():
            logits = head(embedding)
            independent = self.kinds[task] == "multilabel"
            scores = (logits.sigmoid() if independent else logits.softmax(-1)).tolist()
            by_label = dict(zip(self.labels[task], scores, strict=True))
            label = max(by_label, key=by_label.__getitem__)
            predictions[task] = Prediction(label, by_label[label], by_label)
        return predictions

    def _prepare(self, waveform: Tensor | np.ndarray, sample_rate: int) -> Tensor:
        samples = np.asarray(waveform.detach().cpu() if isinstance(waveform, Tensor) else waveform, np.float32)
        if samples.ndim not in (1, 2) or samples.size == 0:
            raise ValueError(f"a waveform of shape (samples,) or (channels, samples) is needed, got {samples.shape}")
        if not np.isfinite(samples).all():
            raise ValueError("the waveform holds NaN or infinite samples")
        mono = samples.mean(0) if samples.ndim == 2 else samples
        if sample_rate != self.frontend.sample_rate:
            mono = soxr.resample(mono, sample_rate, self.frontend.sample_rate)
        return torch.from_numpy(np.ascontiguousarray(mono)).to(self.frontend.window)

    def config(self) -> dict[str, Any]:
        """Everything but the weights that rebuilds this model, as plain data."""
        return {
            "format": FORMAT,
            "model": {"name": _name_of(self.trunk, TRUNKS), **self.trunk.settings},
            "frontend": {"name": _name_of(self.frontend, FRONTENDS), **self.frontend.settings},
            "window_s": self.window_s,
            "tasks": {
                task: {"kind": self.kinds[task], "labels": labels}
                | ({"thresholds": self.thresholds[task]} if task in self.thresholds else {})
                for task, labels in self.labels.items()
            },
        }

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write `config.json` and `model.safetensors` into a folder, which is made if need be.

        Raises:
            OSError: if a file cannot be written.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        weights = safetensors.torch.save({name: t.contiguous() for name, t in self.state_dict().items()})
        config = self.config() | {"weights_sha256": hashlib.sha256(weights).hexdigest()}
        (folder / WEIGHTS_FILE).write_bytes(weights)
        (folder / CONFIG_FILE).write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")


def load(folder: str | os.PathLike[str]) -> AudioClassifier:
    """Load a trained classifier from a run directory, in eval mode. Nothing is ever unpickled.

    Args:
        folder: a directory with `config.json` and `model.safetensors`.

    Raises:
        ModelFileError: if a file is missing, damaged, of another format, or they do not fit together.

    Example:
        >>> import tempfile
        >>> trunk = AudioCNN(channels=(8, 8), strides=((2, 2), (2, 2)))
        >>> model = AudioClassifier(LogMel(), trunk, {"word": ["no", "yes"]})
        >>> folder = tempfile.mkdtemp()
        >>> model.save(folder)
        >>> load(folder).labels
        {'word': ['no', 'yes']}
    """
    folder = Path(folder)
    config = _read_config(folder / CONFIG_FILE)
    try:
        model = AudioClassifier(
            _make(FRONTENDS, {"name": "log_mel"} | config["frontend"]),
            _make(TRUNKS, config["model"]),
            {task: settings["labels"] for task, settings in config["tasks"].items()},
            config["window_s"],
            {task: settings["kind"] for task, settings in config["tasks"].items()},
        )
        model.thresholds = {
            task: settings["thresholds"] for task, settings in config["tasks"].items() if "thresholds" in settings
        }
        checksum = config["weights_sha256"]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        reason = f"has no {error}" if isinstance(error, KeyError) else str(error)
        raise ModelFileError(f"{folder / CONFIG_FILE}: does not describe a model: {reason}") from error
    _load_weights(model, folder / WEIGHTS_FILE, checksum)
    return model.eval()


def _make(kinds: Mapping[str, Any], settings: Mapping[str, Any]) -> Any:
    settings = dict(settings)
    name = settings.pop("name")
    if name not in kinds:
        raise ValueError(f"unknown name {name!r}, this version knows {', '.join(kinds)}")
    return kinds[name](**settings)


def _name_of(module: nn.Module, kinds: Mapping[str, type]) -> str:
    return next(name for name, kind in kinds.items() if type(module) is kind)


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelFileError(f"{path}: no such file; a run directory with a trained model is needed") from error
    except (OSError, ValueError, RecursionError) as error:
        raise ModelFileError(f"{path}: is not readable JSON ({error})") from error
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        found = config.get("format") if isinstance(config, dict) else type(config).__name__
        raise ModelFileError(f"{path}: has format {found!r}, this version of audiostride reads {FORMAT}")
    return config


def _load_weights(model: AudioClassifier, path: Path, checksum: str) -> None:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelFileError(f"{path}: {error.strerror or error}") from error
    if hashlib.sha256(content).hexdigest() != checksum:
        raise ModelFileError(f"{path}: damaged or changed, its SHA-256 is not the one in {CONFIG_FILE}")
    try:
        model.load_state_dict(safetensors.torch.load(content))
    except (safetensors.SafetensorError, RuntimeError, ValueError, KeyError) as error:
        raise ModelFileError(f"{path}: does not fit {CONFIG_FILE}: {str(error).strip()}") from error
