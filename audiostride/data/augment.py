"""Augmentation: what may be done to a training clip, each kind one small callable and its keys in a recipe.

A waveform transform maps ``(samples,)`` float32 to the same shape, a log-mel transform maps
``(1, time, mel)`` to the same shape; both draw only from the generator they are handed, which is made
from (seed, epoch, clip). So a resumed run hears the same, and evaluation hears none of it.

Another kind is a callable, its section or key, and a line of `AugmentSection.make`. Nothing here imports torch before
it is needed: a recipe can be read and checked without it.
"""

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import numpy as np
import soxr
from pydantic import AfterValidator, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from ..errors import DataError, RecipeError
from ..files import expand_user
from ..mel_scale import LOG_OFFSET
from ..sections import Section
from .decoding import audio_info, is_audio, read_audio

if TYPE_CHECKING:
    from torch import Tensor, nn

WaveformTransform = Callable[[np.ndarray, np.random.Generator], np.ndarray]
LogMelTransform = Callable[["Tensor", np.random.Generator], "Tensor"]


@dataclass(kw_only=True)
class Augmentation:
    """Everything that is done to training batches, in this order.

    Attributes:
        crop_length: train on windows of so many samples, fewer than the model's own; None: on those.
        skip_quiet_db: draw a window again that is more than this quieter than its clip's loudest one, in dB, see
            `loud_windows.loud_window`; None: take it as it comes.
        speed: range of playback speed, e.g. (0.9, 1.1); pitch and tempo change together.
        waveform: transforms of a window.
        mixup: parameter alpha of the beta distribution that each two clips of a batch are mixed by, see
            `mixup.mix_pairs`; the labels of every task are mixed in the same proportion. 0: off.
        between_class: mix them so that these proportions are what is heard.
        log_mel: transforms of a window's log-mel spectrogram.

    Example:
        >>> Augmentation(waveform=[TimeShift(1600), Gain(6.0)], log_mel=[SpecAugment()]).mixup
        0.0
    """

    crop_length: int | None = None
    skip_quiet_db: float | None = None
    speed: tuple[float, float] | None = None
    waveform: Sequence[WaveformTransform] = ()
    mixup: float = 0.0
    between_class: bool = False
    log_mel: Sequence[LogMelTransform] = ()


@dataclass(frozen=True)
class TimeShift:
    """Shift a window by up to `max_samples` either way; silence moves in.

    Example:
        >>> shifted = TimeShift(3)(np.ones(8, np.float32), np.random.default_rng(0))
        >>> int(shifted.sum()) in range(5, 9)
        True
    """

    max_samples: int

    def __call__(self, waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        shift = int(rng.integers(-self.max_samples, self.max_samples + 1))
        shifted = np.zeros_like(waveform)
        if shift >= 0:
            shifted[shift:] = waveform[: len(waveform) - shift]
        else:
            shifted[:shift] = waveform[-shift:]
        return shifted


@dataclass(frozen=True)
class Gain:
    """Make a window up to `max_db` decibels louder or softer; nothing is clipped.

    Example:
        >>> louder = Gain(6.0)(np.ones(1, np.float32), np.random.default_rng(0))
        >>> bool(0.5 < louder[0] < 2.0)
        True
    """

    max_db: float

    def __call__(self, waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return waveform * np.float32(10 ** (rng.uniform(-self.max_db, self.max_db) / 20))


@dataclass(frozen=True)
class Noise:
    """Add a random part of a random recording at a random signal-to-noise ratio.

    A silent window or a silent part of the recording adds nothing.

    Attributes:
        files: the recordings, see `noise_files`.
        sample_rate: of the windows, in Hz.
        snr_db: range of the ratio of the powers, in dB.
        probability: share of the windows that get noise.
    """

    files: tuple[Path, ...] = field(repr=False)
    sample_rate: int
    snr_db: tuple[float, float] = (5.0, 20.0)
    probability: float = 1.0

    def __call__(self, waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        if rng.random() >= self.probability:
            return waveform
        path = self.files[int(rng.integers(len(self.files)))]
        wanted_s = len(waveform) / self.sample_rate
        info = audio_info(path)
        start_s = rng.uniform(0, max(0.0, info.frames / info.sample_rate - wanted_s))
        noise = np.resize(read_audio(path, self.sample_rate, start_s, wanted_s), len(waveform))
        return add_noise(waveform, noise, rng.uniform(*self.snr_db))


@dataclass(frozen=True)
class ColouredNoise:
    """Add random noise whose power falls with frequency as 1 / f^b, at a random signal-to-noise ratio.

    b is drawn from 0 (white) to 2 (brown), so a network learns from no recording's own noise floor. A silent window
    stays silent.

    Attributes:
        snr_db: range of the ratio of the powers, in dB.
        probability: share of the windows that get noise.

    Example:
        >>> tone = np.sin(np.arange(16000.0)).astype(np.float32)
        >>> noise = ColouredNoise(snr_db=(20.0, 20.0))(tone, np.random.default_rng(0)) - tone
        >>> bool(np.isclose(10 * np.log10(np.square(tone).mean() / np.square(noise).mean()), 20.0, atol=0.01))
        True
    """

    snr_db: tuple[float, float] = (10.0, 50.0)
    probability: float = 1.0

    def __call__(self, waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        if rng.random() >= self.probability:
            return waveform
        bins = np.arange(1, len(waveform) // 2 + 1, dtype=np.float32)
        parts = rng.standard_normal(2 * len(bins), dtype=np.float32)
        coloured = parts.view(np.complex64) * bins ** np.float32(-rng.uniform(0, 2) / 2)
        noise = np.fft.irfft(np.concatenate([np.zeros(1, np.complex64), coloured]), len(waveform))
        return add_noise(waveform, noise, rng.uniform(*self.snr_db))


@dataclass(frozen=True)
class SpecAugment:
    """Blank random stretches of time and bands of a log-mel spectrogram with its mean (Park et al. 2019).

    Each mask's width is drawn from 0 to the widest allowed.

    Attributes:
        time_masks: number of stretches of time.
        frames: widest of them, in frames.
        mel_masks: number of bands.
        mels: widest of them, in mel bands.

    Example:
        >>> import torch
        >>> log_mel = torch.randn(1, 100, 64)
        >>> masked = SpecAugment(time_masks=0, frames=0, mel_masks=1, mels=8)(log_mel, np.random.default_rng(0))
        >>> int((masked != log_mel).any(1).sum()) <= 8
        True
    """

    time_masks: int = 2
    frames: int = 20
    mel_masks: int = 2
    mels: int = 8

    def __call__(self, log_mel: "Tensor", rng: np.random.Generator) -> "Tensor":
        masked, mean = log_mel.clone(), log_mel.mean()
        for axis, count, widest in ((1, self.time_masks, self.frames), (2, self.mel_masks, self.mels)):
            n = log_mel.shape[axis]
            for _ in range(count):
                width = int(rng.integers(0, min(widest, n) + 1))
                masked.narrow(axis, int(rng.integers(0, n - width + 1)), width).fill_(mean)
        return masked


@dataclass(frozen=True)
class Equalizer:
    """Make mel bands louder or softer by a random smooth curve, the same at all times: another microphone or room.

    The curve, in dB, is a sum of `cosines` cosines of half a cycle, one cycle, ... over the mel axis, with normal
    amplitudes. Its mean over the bands is 0 dB: how loud the whole is, is `Gain`'s. It acts on the power of a `LogMel`,
    so that its floor stays where it is.

    Attributes:
        sd_db: standard deviation of the curve, root mean square over the bands, in dB.
        cosines: how many.

    Example:
        >>> import torch
        >>> log_mel = torch.zeros(1, 100, 64)
        >>> equalized = Equalizer(sd_db=6.0)(log_mel, np.random.default_rng(0))
        >>> equalized.shape, bool((equalized == equalized[:, :1]).all()), bool((equalized != log_mel).any())
        (torch.Size([1, 100, 64]), True, True)
    """

    sd_db: float
    cosines: int = 4

    def __call__(self, log_mel: "Tensor", rng: np.random.Generator) -> "Tensor":
        n_mels = log_mel.shape[-1]
        phase = np.pi * (np.arange(n_mels) + 0.5) / n_mels
        amplitudes = rng.normal(0, self.sd_db * np.sqrt(2 / self.cosines), self.cosines)
        gain_db = amplitudes @ np.cos(np.outer(np.arange(1, self.cosines + 1), phase))
        gain = log_mel.new_tensor(10 ** (gain_db / 10))
        return ((log_mel.exp() - LOG_OFFSET).clamp(min=0) * gain + LOG_OFFSET).log()


@dataclass(frozen=True)
class OnTensor:
    """Make a transform of a callable on tensors, such as a torchaudio or torch_audiomentations module.

    Its random numbers come from torch's and numpy's global generators, which are seeded from the
    clip's own for the call and put back after it.

    Attributes:
        transform: maps a waveform ``(samples,)``, or a log-mel ``(1, time, mel)``, to the same shape.

    Example:
        >>> halve = OnTensor(lambda waveform: waveform / 2)
        >>> halve(np.ones(3, np.float32), np.random.default_rng(0))
        array([0.5, 0.5, 0.5], dtype=float32)
    """

    transform: Callable[["Tensor"], "Tensor"]

    def __call__(self, value, rng):
        import torch

        tensor = torch.from_numpy(value) if isinstance(value, np.ndarray) else value
        seed, numpy_state = int(rng.integers(2**32)), np.random.get_state()
        # A worker, whose waveforms are on the CPU, must not touch the GPU that its parent has opened.
        devices = [tensor.device] if tensor.is_cuda else []
        with torch.random.fork_rng(devices):
            torch.default_generator.manual_seed(seed)
            if devices:
                torch.cuda.manual_seed(seed)
            np.random.seed(seed)
            try:
                changed = self.transform(tensor)
            finally:
                np.random.set_state(numpy_state)
        if changed.shape != tensor.shape:
            raise DataError(
                f"the transform {self.transform!r} turned {tuple(tensor.shape)} into {tuple(changed.shape)}; "
                "a transform must keep the shape"
            )
        return changed.detach().numpy() if isinstance(value, np.ndarray) else changed


def change_speed(waveform: np.ndarray, factor: float, length: int) -> np.ndarray:
    """Play a waveform `factor` times as fast, as a tape would, and cut or fill it to `length` samples.

    Example:
        >>> change_speed(np.ones(1100, np.float32), 1.1, 1000).shape
        (1000,)
    """
    changed = soxr.resample(waveform, factor, 1.0, quality="MQ")[:length]  # 16 bits; the default of 24 takes longer
    return np.pad(changed, (0, length - len(changed)))


@contextlib.contextmanager
def augmented(frontend: "nn.Module", transforms: Sequence[LogMelTransform], seeds: "Tensor | None") -> Iterator[None]:
    """Within this block a frontend's output is transformed, clip by clip, with a generator for each.

    Args:
        frontend: the module whose output ``(batch, 1, time, mel)`` is changed, or whose `spectrogram`'s is.
        transforms: applied in order; with none the frontend is left alone.
        seeds: of the batch, int64 ``(batch,)``.
    """
    if not transforms or seeds is None:
        yield
        return
    import torch

    numbers = seeds.tolist()

    def change(_module: "nn.Module", _inputs: "tuple[Tensor, ...]", log_mel: "Tensor") -> "Tensor":
        changed = []
        for clip, seed in zip(log_mel, numbers, strict=True):
            rng = np.random.default_rng(seed)
            for transform in transforms:
                clip = transform(clip, rng)
            changed.append(clip)
        return torch.stack(changed)

    handle = getattr(frontend, "spectrogram", frontend).register_forward_hook(change)
    try:
        yield
    finally:
        handle.remove()


def noise_files(path: str | os.PathLike[str]) -> tuple[Path, ...]:
    """All audio files below a folder that are not hidden, sorted.

    Raises:
        DataError: if there are none.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> for name in ("rain.wav", "._rain.wav", "notes.txt"):
        ...     (folder / name).touch()
        >>> [path.name for path in noise_files(folder)]
        ['rain.wav']
    """
    root = expand_user(path)
    found = tuple(sorted(file for file in root.rglob("*") if is_audio(file) and file.is_file()))
    if not found:
        raise DataError(f"{root}: {'holds no audio files' if root.is_dir() else 'no such folder'} to take noise from")
    return found


def _ascending(bounds: list[float]) -> list[float]:
    if bounds[0] > bounds[1]:
        what = "{low} is more than {high}; the lower bound comes first"
        raise PydanticCustomError("range", what, {"low": f"{bounds[0]:g}", "high": f"{bounds[1]:g}"})
    return bounds


_BOUNDS = (Field(min_length=2, max_length=2), AfterValidator(_ascending))
Range = Annotated[list[Annotated[float, Field(ge=-300, le=300)]], *_BOUNDS]
Speeds = Annotated[list[Annotated[float, Field(ge=0.25, le=4)]], *_BOUNDS]


class NoiseSection(Section):
    """Keys of `Noise`."""

    path: str
    snr_db: Range = [5.0, 20.0]
    probability: float = Field(1.0, gt=0, le=1)

    def make(self, sample_rate: int) -> Noise:
        """The transform, for windows at a sample rate in Hz.

        Raises:
            DataError: if there is no noise to add.
        """
        return Noise(noise_files(self.path), sample_rate, (self.snr_db[0], self.snr_db[1]), self.probability)


class ColouredNoiseSection(Section):
    """Keys of `ColouredNoise`."""

    snr_db: Range = [10.0, 50.0]
    probability: float = Field(1.0, gt=0, le=1)

    def make(self) -> ColouredNoise:
        """The transform."""
        return ColouredNoise((self.snr_db[0], self.snr_db[1]), self.probability)


class SpecAugmentSection(Section):
    """Keys of `SpecAugment`."""

    time_masks: int = Field(2, ge=0, le=100)
    time_ms: float = Field(200.0, gt=0)
    mel_masks: int = Field(2, ge=0, le=100)
    mels: int = Field(8, ge=1)

    def make(self, hop_ms: float) -> SpecAugment:
        """The transform, for frames every `hop_ms` ms."""
        return SpecAugment(self.time_masks, max(1, round(self.time_ms / hop_ms)), self.mel_masks, self.mels)


class AugmentSection(Section):
    """The recipe's `augment`: what is done to training clips; nothing by default."""

    crop_s: float | None = Field(None, gt=0)
    skip_quiet_db: float | None = Field(None, gt=0)
    speed: Speeds | None = None
    time_shift_ms: float | None = Field(None, gt=0)
    gain_db: float | None = Field(None, gt=0, le=60)
    noise: NoiseSection | None = None
    coloured_noise: ColouredNoiseSection | None = None
    mixup: float | None = Field(None, gt=0)
    between_class: bool = False
    equalize_db: float | None = Field(None, gt=0, le=30)
    spec_augment: SpecAugmentSection | None = None
    SPECTROGRAM_KEYS: ClassVar = ("equalize_db", "spec_augment")

    @field_validator("between_class")
    @classmethod
    def _of_mixup(cls, between_class: bool, info: ValidationInfo) -> bool:
        if between_class and not info.data.get("mixup"):
            raise PydanticCustomError("mixup", "is a way of mixing; set augment.mixup too, to 1.0 as in its paper")
        return between_class

    def make(self, sample_rate: int, hop_ms: float | None) -> Augmentation | None:
        """What is done to training clips; None if nothing.

        Args:
            sample_rate: of the clips, in Hz.
            hop_ms: of the log-mel spectrogram, in ms; None: the frontend makes none.

        Raises:
            RecipeError: if a key is for log-mel spectrograms and there are none.
            DataError: if there is no noise to add.

        Example:
            >>> AugmentSection(time_shift_ms=100.0).make(sample_rate=16000, hop_ms=10.0).waveform
            [TimeShift(max_samples=1600)]
        """
        waveform: list[WaveformTransform] = []
        if self.time_shift_ms is not None:
            waveform.append(TimeShift(round(self.time_shift_ms * sample_rate / 1000)))
        if self.gain_db is not None:
            waveform.append(Gain(self.gain_db))
        if self.noise is not None:
            waveform.append(self.noise.make(sample_rate))
        if self.coloured_noise is not None:
            waveform.append(self.coloured_noise.make())
        log_mel: list[LogMelTransform] = []
        for key in self.SPECTROGRAM_KEYS if hop_ms is None else ():
            if getattr(self, key) is not None:
                raise RecipeError(f"augment.{key}: is for spectrograms, which a raw waveform is not; remove it")
        if self.equalize_db is not None:
            log_mel.append(Equalizer(self.equalize_db))
        if self.spec_augment is not None and hop_ms is not None:
            log_mel.append(self.spec_augment.make(hop_ms))
        if self == AugmentSection():
            return None
        return Augmentation(
            crop_length=None if self.crop_s is None else round(self.crop_s * sample_rate),
            skip_quiet_db=self.skip_quiet_db,
            speed=None if self.speed is None else (self.speed[0], self.speed[1]),
            waveform=waveform,
            mixup=self.mixup or 0.0,
            between_class=self.between_class,
            log_mel=log_mel,
        )


def add_noise(waveform: np.ndarray, noise: np.ndarray, snr_db: float) -> np.ndarray:
    """A waveform with noise of the same length at a signal-to-noise ratio in dB; next to silence none is added."""
    signal_power, noise_power = np.square(waveform).mean(), np.square(noise).mean()
    if not (signal_power > 0 and noise_power > 0):
        return waveform
    return waveform + (noise * np.sqrt(signal_power / 10 ** (snr_db / 10) / noise_power)).astype(np.float32)
