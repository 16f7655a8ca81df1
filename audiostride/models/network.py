"""`AudioNetwork`: waveform in, logits of every task out. `AudioClassifier` adds the files it is kept in."""

import math
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import UsageError
from ..layers.strides import pooling_layers
from ..sections import Channel
from ..waveforms import to_mono
from ..windows import window_parts
from .adaptive_log_mel import AdaptiveLogMel
from .audio_cnn import AudioCNN
from .audio_resnet import AudioResNet
from .calibration import NONE, Calibration, calibrated, is_none
from .events import EventSettings, default_settings
from .frames import frame_blocks, frame_grid
from .log_mel import LogMel
from .parts import Frontend, Trunk
from .prediction import KINDS, Prediction

SpectrogramTrunk = AudioCNN | AudioResNet

MAX_WINDOW = 2**26
"""Most samples in a window: 70 minutes at 16 kHz."""

MAX_POOLING = 2**29
"""Most numbers in the matrix that pools a window's frames: 2 GB, 5 minutes at 100 frames a second and stride 2."""

_WINDOWS_AT_ONCE = 64

_MODE_LOCK = threading.Lock()


class AudioNetwork(nn.Module):
    """Waveform in, logits of every task out.

    `classifier.AudioClassifier` adds its files.

    Args:
        frontend: `LogMel`, `RawWaveform` before a `WaveCNN`, `ImageFrontend` before a `ResNet` of three channels, or
            a `CustomFrontend`.
        trunk: `AudioCNN`, `AudioResNet`, `ResNet`, `WaveCNN` or a `CustomTrunk`.
        heads: for each task its class labels in order, or their number.
        window_s: length of the windows it is trained on and a clip is split into, in seconds.
        kinds: "multiclass" (where missing), "binary" or "multilabel" for each task.

    Attributes:
        labels: the class labels of each task.
        kinds: the kind of each task.
        thresholds: for binary and multilabel tasks the probability from which on a class counts as
            present, found on validation clips, see `evaluation.best_thresholds`; for multiclass ones the probability
            that each class must reach, if a precision was asked for.
        calibrations: of each task for which one was found, see `models.calibration`.
        event_settings: of each task for which they were found, see `events_by`.
        channel: the channel that it was trained on and hears of sounds with several, see `waveforms.Channel`.
        frozen: whether the trunk is frozen, see `freeze`.
        results: what `results.json` says of a loaded model (scores, cost, strides), else None.

    Raises:
        ValueError: if there is no task, a task has no class or a name that cannot be one, a window has no
            length, or frontend and trunk do not fit together.

    Example:
        >>> trunk = AudioCNN(channels=(8, 8), strides=((2, 2), (2, 2)))
        >>> model = AudioNetwork(LogMel(), trunk, {"word": ["no", "yes"]})
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
        _check_fit(frontend, trunk)
        self.frontend = frontend
        self.trunk = trunk
        self.window_s = window_s
        self.channel: Channel = "mix"
        self.frozen = False
        self.evaluations, self.mode_before = 0, True  # of `evaluating`
        self.labels: dict[str, list[str]] = {}
        self.results: dict[str, Any] | None = None
        if not 1 <= window_s * self.resolution <= MAX_WINDOW:
            raise ValueError(
                f"window_s={window_s} at {self.resolution} Hz must be a window of 1 to {MAX_WINDOW:,} samples"
            )
        _check_pooling(frontend, trunk, self.window_length)
        self.reset_classifier(heads, kinds)

    def reset_classifier(
        self, heads: int | Mapping[str, int | Sequence[str]], kinds: Mapping[str, str] | None = None
    ) -> None:
        """Replace all heads by new ones with fresh weights; the trunk stays as it is.

        Args:
            heads: for each task its class labels in order, or their number. A number alone keeps
                the one task the classifier has.
            kinds: "multiclass" (where missing), "binary" or "multilabel" for each task.

        Raises:
            ValueError: if there is no task, a task has no class or an unknown kind, or a number alone is given for
                several tasks.

        Example:
            >>> model = AudioNetwork(LogMel(), AudioCNN(channels=(8,), strides=((2, 2),)), {"word": ["no", "yes"]})
            >>> model.reset_classifier(5)
            >>> model(torch.zeros(1, 16000))["word"].shape
            torch.Size([1, 5])
        """
        if isinstance(heads, int):
            if len(self.labels) != 1:
                raise ValueError(f"there are several tasks, {', '.join(self.labels)}; give {{task: n_classes}}")
            heads = dict.fromkeys(self.labels, heads)
        names = {
            task: [str(i) for i in range(labels)] if isinstance(labels, int) else list(labels)
            for task, labels in heads.items()
        }
        if not names or not all(names.values()):
            raise ValueError(f"every task needs at least one class, got {names}")
        for task in names:
            if not task or "." in task or hasattr(nn.ModuleDict(), task):
                raise ValueError(f"a task cannot be named {task!r}: it is empty, has a dot or is a name torch uses")
        for task, kind in (kinds or {}).items():
            if task not in names or kind not in KINDS:
                raise ValueError(f"kinds: {task!r} as {kind!r}: tasks are {', '.join(names)}, kinds {', '.join(KINDS)}")
        self.labels, self.kinds = names, {task: (kinds or {}).get(task, "multiclass") for task in names}
        self.thresholds: dict[str, list[float]] = {}
        self.calibrations: dict[str, Calibration] = {}
        self.event_settings: dict[str, EventSettings] = {}
        linear = {task: nn.Linear(self.trunk.num_features, len(labels)) for task, labels in self.labels.items()}
        self.heads = nn.ModuleDict(linear).to(self.device)
        self.results = None  # they were another classifier's

    def freeze(self) -> None:
        """Freeze trunk and frontend: no gradients, no moving batch statistics, no moving strides; only the heads learn.

        Example:
            >>> model = AudioNetwork(LogMel(), AudioCNN(channels=(8,), strides=((2, 2),)), {"word": 2})
            >>> model.freeze()
            >>> [name for name, p in model.named_parameters() if p.requires_grad]
            ['heads.word.weight', 'heads.word.bias']
            >>> model.train().trunk.training
            False
        """
        self.frozen = True
        self.trunk.requires_grad_(False).eval()
        self.frontend.requires_grad_(False)

    def unfreeze(self) -> None:
        """Undo `freeze`: every parameter learns."""
        self.frozen = False
        self.trunk.requires_grad_(True).train(self.training)
        self.frontend.requires_grad_(True)

    def train(self, mode: bool = True) -> "AudioNetwork":
        """Set training mode, as in every module; a frozen trunk stays in eval mode."""
        super().train(mode)
        if self.frozen:
            self.trunk.eval()
        return self

    @property
    def resolution(self) -> int:
        """What a clip is read at: the sample rate in Hz; for images the pixels on a side."""
        return self.frontend.resolution

    @property
    def sample_rate(self) -> int:
        """Of the sound that it takes, in Hz.

        Raises:
            UsageError: if the model classifies images.
        """
        if self.frontend.takes_images:
            raise UsageError("this model classifies images and cannot be used on sound")
        return self.frontend.sample_rate

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return next(chain(self.parameters(), self.buffers()), torch.empty(0)).device

    def take(self, values: Tensor) -> Tensor:
        """Samples, or embeddings, on the device of the weights and in their precision."""
        return values.to(next(self.heads.parameters()))

    @property
    def window_length(self) -> int:
        """Samples in a window; for images the pixels on a side."""
        return round(self.window_s * self.resolution)

    def silence(self) -> Tensor:
        """A window of silence, ``(1, samples)``; for images a black one, uint8 ``(1, size, size, 3)``."""
        return self.frontend.silence(self.window_length).to(self.device)

    def forward(self, waveform: Tensor, tasks: Iterable[str] | None = None) -> dict[str, Tensor]:
        """Map windows ``(batch, samples)`` to logits ``(batch, n_classes)`` of each task, or of those named."""
        embedding = self.trunk(self.frontend(waveform))
        return {task: self.heads[task](embedding) for task in (self.heads if tasks is None else tasks)}

    def forward_features(self, waveform: Tensor) -> Tensor:
        """Map windows ``(batch, samples)`` to feature maps ``(batch, channel, time, mel)``."""
        return self.trunk.forward_features(self.frontend(waveform))

    def block_features(self, waveform: Tensor) -> list[Tensor]:
        """Feature map after every block of the trunk, from windows ``(batch, samples)``.

        Returns:
            One map ``(batch, channel, time, mel)`` for each block, the first one first; the last one is what
            `forward_features` returns.

        Example:
            >>> trunk = AudioCNN("strided", channels=(4, 8), strides=((2, 2), (2, 2)))
            >>> model = AudioNetwork(LogMel(), trunk, {"word": 2})
            >>> [tuple(features.shape) for features in model.block_features(torch.zeros(1, 16000))]
            [(1, 4, 50, 32), (1, 8, 25, 16)]
        """
        maps: list[Tensor] = []
        handles = [b.register_forward_hook(lambda _, __, output: maps.append(output)) for b in self.trunk.blocks]
        try:
            self.forward_features(waveform)
        finally:
            for handle in handles:
                handle.remove()
        return maps

    @torch.inference_mode()
    def embed(self, waveform: Tensor | np.ndarray, sample_rate: int, overlap: float = 0.0) -> Tensor:
        """Embedding of a clip: the trunk's output, averaged over the clip's windows.

        The heads are linear, so a head applied to it gives the clip's averaged logits. Runs in eval
        mode, whatever the model's mode.

        Args:
            waveform: see `waveforms.to_mono`.
            sample_rate: of the waveform, in Hz; resampled to the frontend's where it differs.
            overlap: of windows, see `window_hop`.

        Returns:
            Shape ``(num_features,)``.

        Raises:
            ValueError: as `waveforms.to_mono`, or if the overlap is out of range.

        Example:
            >>> model = AudioNetwork(LogMel(), AudioCNN(channels=(8, 16), strides=((2, 2), (2, 2))), {"word": 2})
            >>> model.embed(np.zeros(44100, np.float32), sample_rate=44100).shape
            torch.Size([16])
        """
        samples = to_mono(waveform, sample_rate, self.sample_rate, self.channel)
        parts = window_parts(samples, self.window_length, overlap)
        return torch.cat([self.embed_windows(part) for part in parts]).mean(0)

    @torch.inference_mode()
    def embed_windows(self, windows: Tensor) -> Tensor:
        """Embedding of each window: ``(n, samples)`` to ``(n, num_features)``, in eval mode and bounded memory."""
        with evaluating(self):
            return torch.cat([self.trunk(self.frontend(self.take(part))) for part in windows.split(_WINDOWS_AT_ONCE)])

    @torch.inference_mode()
    def embed_timestamps(
        self, waveform: Tensor | np.ndarray, sample_rate: int, hop_ms: float = 50.0
    ) -> tuple[Tensor, Tensor]:
        """Embeddings at regular times: each is that of the window around its time, the clip's ends padded with silence.

        Args:
            waveform: see `waveforms.to_mono`.
            sample_rate: of the waveform, in Hz; resampled to the frontend's where it differs.
            hop_ms: time from one embedding to the next, in ms.

        Returns:
            Embeddings ``(n, num_features)`` and the centres of their windows in ms, ``(n,)``: 0,
            hop_ms, 2 hop_ms, ... below the length of the clip.

        Raises:
            ValueError: if the hop is shorter than a sample, or as `embed`.

        Example:
            >>> model = AudioNetwork(LogMel(), AudioCNN(channels=(8,), strides=((2, 2),)), {"word": 2})
            >>> embeddings, centres_ms = model.embed_timestamps(np.zeros(4000, np.float32), 16000, hop_ms=100)
            >>> embeddings.shape, centres_ms.tolist()
            (torch.Size([3, 8]), [0.0, 100.0, 200.0])
        """
        if not isinstance(hop_ms, Real) or not 1000 / self.sample_rate <= hop_ms < math.inf:
            raise ValueError(f"hop_ms must be at least one sample and finite, got {hop_ms!r}")
        samples, length = to_mono(waveform, sample_rate, self.sample_rate, self.channel), self.window_length
        duration_ms = 1000 * len(samples) / self.sample_rate
        centres_ms = torch.arange(math.ceil(duration_ms / hop_ms), dtype=torch.float64) * hop_ms
        # Each start is rounded from its own exact time, so that a fractional hop does not drift.
        starts = (centres_ms * self.sample_rate / 1000).round().long().tolist()
        padded = F.pad(samples, (length // 2, length))
        parts = [
            self.embed_windows(torch.stack([padded[start : start + length] for start in some]))
            for some in (starts[i : i + _WINDOWS_AT_ONCE] for i in range(0, len(starts), _WINDOWS_AT_ONCE))
        ]
        return torch.cat(parts), centres_ms.float()

    def frame_logits(self, waveform: Tensor | np.ndarray, sample_rate: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Logits of every frame of a recording of any length, see `frames`; in eval mode and bounded memory.

        Args:
            waveform: see `waveforms.to_mono`.
            sample_rate: of the waveform, in Hz; resampled to the frontend's where it differs.

        Returns:
            The centres of the frames in ms, float64 ``(frames,)``, and for each task logits ``(frames, n_classes)``, on
            the CPU. For a clip of one window and a trunk that ends in a mean over time their mean is the clip's logits.

        Raises:
            ValueError: as `embed`.
            UsageError: if the model classifies images.

        Example:
            >>> from audiostride import create_model
            >>> model = create_model("audio_resnet_pico_strided", heads={"word": ["no", "yes"]})
            >>> times_ms, logits = model.frame_logits(np.zeros(48000, np.float32), sample_rate=16000)
            >>> times_ms[:3].tolist(), logits["word"].shape
            ([12.5, 52.5, 92.5], torch.Size([75, 2]))
        """
        grid = frame_grid(self)
        samples = to_mono(waveform, sample_rate, self.sample_rate, self.channel)
        with evaluating(self):
            parts = list(frame_blocks(self, grid, [samples]))
        logits = {task: torch.cat([part[task] for part in parts]) for task in self.heads}
        return grid.times_ms(0, len(next(iter(logits.values())))), logits

    @torch.inference_mode()
    def predict(
        self, waveform: Tensor | np.ndarray, sample_rate: int, overlap: float = 0.0, always: bool = False
    ) -> dict[str, Prediction]:
        """Classify a clip of any length: the logits of its windows are averaged.

        Args:
            waveform: see `waveforms.to_mono`.
            sample_rate: of the waveform, in Hz; resampled to the frontend's where it differs.
            overlap: as in `embed`.
            always: name a class where the answer would be "none", see `models.calibration`.

        Returns:
            A `Prediction` for each task.

        Raises:
            ValueError: as `embed`.
        """
        embedding = self.embed(waveform, sample_rate, overlap)
        predictions = {}
        for task, head in self.heads.items():
            logits = head(embedding)
            by_label = dict(zip(self.labels[task], self.probabilities(task, logits).tolist(), strict=True))
            likeliest = max(by_label, key=by_label.__getitem__)
            label = NONE if self.is_none(task, logits) and not always else likeliest
            predictions[task] = Prediction(label, by_label[likeliest], by_label)
        return predictions

    def events_by(self, task: str) -> EventSettings:
        """The settings by which events of a task are found: its own, else the defaults of its kind."""
        return self.event_settings.get(task) or default_settings(self.kinds[task], len(self.labels[task]))

    def probabilities(self, task: str, logits: Tensor) -> Tensor:
        """Calibrated probability of each class of a task from its logits ``(..., n_classes)``."""
        return calibrated(logits, self.kinds[task], self.calibration(task).temperature)

    def is_none(self, task: str, logits: Tensor) -> Tensor:
        """Whether logits ``(..., n_classes)`` are of none of a task's classes, bool ``(...)``."""
        return is_none(logits, self.kinds[task], self.calibration(task), self.thresholds.get(task))

    def calibration(self, task: str) -> Calibration:
        """Of a task; one that changes nothing until it is found."""
        return self.calibrations.get(task, Calibration())


@contextmanager
def evaluating(model: AudioNetwork) -> Iterator[None]:
    """Eval mode, whatever the model's mode, for any number of threads at once: the last one restores the mode."""
    with _MODE_LOCK:
        if model.evaluations == 0:
            model.mode_before = model.training
            model.eval()
        model.evaluations += 1
    try:
        yield
    finally:
        with _MODE_LOCK:
            model.evaluations -= 1
            if model.evaluations == 0:
                model.train(model.mode_before)


def _check_fit(frontend: Frontend, trunk: Trunk) -> None:
    kind, trunk_kind = type(frontend).__name__, type(trunk).__name__
    if not isinstance(frontend, Frontend) or not isinstance(trunk, Trunk):
        own = "CustomTrunk" if isinstance(frontend, Frontend) else "CustomFrontend"
        raise ValueError(f"got {kind} and {trunk_kind}; pass one of your own as {own}('PACKAGE.MODULE:CLASS')")
    if None in (frontend.gives, trunk.takes) or frontend.gives == trunk.takes:
        return
    if "waveform" in (frontend.gives, trunk.takes):
        raise ValueError(f"RawWaveform and WaveCNN belong together, got {kind} and {trunk_kind}")
    wanted, channels = 3 if frontend.takes_images else 1, trunk.settings.get("in_channels", 1)
    raise ValueError(f"a trunk with {wanted} input channels is needed after {kind}, got one with {channels}")


def _check_pooling(frontend: Frontend, trunk: Trunk, length: int) -> None:
    """Refuse a window whose frames are pooled by a matrix that no memory holds: it grows by their square."""
    if not pooling_layers(trunk):
        return
    frames = length // (frontend.hop_length or 1)
    stride = next(iter(trunk.strides()), [1.0])[0]
    if frames**2 / stride > MAX_POOLING:
        raise ValueError(
            f"a window of {frames:,} frames is too long to be pooled in its spectrum, which takes a matrix of "
            f"{frames:,} times {round(frames / stride):,} numbers; choose a shorter window or a longer hop"
        )


def spectrogram_parts(model: AudioNetwork) -> tuple[LogMel | AdaptiveLogMel, SpectrogramTrunk] | None:
    """Frontend and trunk of an `AudioCNN` or `AudioResNet` on a log-mel; None of any other model."""
    if isinstance(model.frontend, LogMel | AdaptiveLogMel) and isinstance(model.trunk, SpectrogramTrunk):
        return model.frontend, model.trunk
    return None


def spectrogram_cnn(model: AudioNetwork, purpose: str) -> tuple[LogMel | AdaptiveLogMel, SpectrogramTrunk]:
    """Frontend and trunk of an `AudioCNN` or `AudioResNet` on log-mel, for what is only made for those.

    Raises:
        UsageError: if the model is another; names the purpose.

    Example:
        >>> spectrogram_cnn(AudioNetwork(LogMel(), AudioCNN("strided"), {"word": 2}), "listen")[0].n_mels
        64
    """
    if parts := spectrogram_parts(model):
        return parts
    kinds = f"{type(model.trunk).__name__} on {type(model.frontend).__name__}"
    raise UsageError(f"{purpose} is made for an AudioCNN or AudioResNet on LogMel; this model is a {kinds}")
