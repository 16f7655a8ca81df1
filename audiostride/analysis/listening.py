"""What is left of a sound after the learned cut-offs, made audible.

The log-mel spectrogram is low-passed along both axes by the masks of all layers, turned back into a
linear spectrogram and, with phases found by Griffin & Lim's algorithm (1984), into sound. A network
past its first non-linearity is no filter, so this is the resolution of its features, not what it hears.
"""

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from torch import Tensor

from ..errors import UsageError
from ..files import replacing
from ..layers.downsampling import SpectralDownsampling
from ..mel_scale import LOG_OFFSET
from ..models.adaptive_log_mel import AdaptiveLogMel, default_log_mel
from ..models.classifier import AudioClassifier
from ..models.log_mel import LogMel
from ..models.network import SpectrogramTrunk, spectrogram_cnn

ENDINGS = (".wav", ".flac", ".ogg")
MAX_SECONDS = 300
"""Of a sound to listen to: the inversion takes about 120 MB a minute."""


def trunk_gain(
    trunk: SpectrogramTrunk, n_frames: int, n_mels: int, layers: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """What all layers together keep of each DFT bin of an input where it is: the product of their masks.

    With aliasing a layer keeps more of the bins on its mask's ramp; what it folds down is no longer where it was,
    so it is not in these gains. Bins mean the same modulation in every layer, so the masks multiply bin by bin.

    Args:
        trunk: a trunk that pools; strided convolutions have no mask.
        n_frames: input length in frames.
        n_mels: number of mel bands.
        layers: only the first so many; None: all.

    Returns:
        Gains of ``n_frames // 2 + 1`` and of ``n_mels // 2 + 1`` bins, 0 to 1.

    Raises:
        UsageError: if the trunk has no masks, or not so many layers.

    Example:
        >>> from audiostride import AudioCNN
        >>> trunk = AudioCNN(channels=(4, 4), strides=((2, 2), (2, 1)), smoothness=1)
        >>> time, mel = trunk_gain(trunk, 100, 64)
        >>> int(time.sum()), int(mel.sum())          # bins 0 to 12 and 0 to 16 are kept
        (13, 17)
    """
    if layers is not None and not 1 <= layers <= len(trunk.blocks):
        raise UsageError(f"the network has layers 1 to {len(trunk.blocks)}, got {layers}")
    gains = (np.ones(n_frames // 2 + 1), np.ones(n_mels // 2 + 1))
    sizes = trunk.map_sizes(n_frames, n_mels)
    if trunk.settings["downsampling"] == "strided":
        raise UsageError("strided convolutions have no cut-off: what lies above it is folded back, not removed")
    for block, lengths in list(zip(trunk.blocks, sizes, strict=False))[:layers]:
        if block.pool:
            for number, axis in enumerate(block.pooled_axes):
                own = _pool_gain(block.pool, lengths[axis], number)
                gains[axis][: len(own)] *= own
                gains[axis][len(own) :] = 0
    return gains


def model_gain(model: AudioClassifier, layers: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """`trunk_gain` of a whole model on its window, with the pooling of an `AdaptiveLogMel` as layer 0.

    Behind an `AdaptiveLogMel` a strided trunk is left out unless layers of it are asked for.

    Raises:
        UsageError: as `trunk_gain`.
    """
    frontend, trunk = spectrogram_cnn(model, "listening")
    size = (model.window_length // frontend.hop_length, frontend.n_mels)
    if frontend.first_pool is None:
        return trunk_gain(trunk, *size, layers)
    time, mel = (_pool_gain(frontend.first_pool, n, number) for number, n in enumerate(size))
    if layers != 0 and not (layers is None and trunk.settings["downsampling"] == "strided"):
        n_frames, n_mels = frontend.map_size(model.window_length)
        for gain, own in zip((time, mel), trunk_gain(trunk, n_frames, n_mels, layers), strict=True):
            gain[: len(own)] *= own
            gain[len(own) :] = 0
    return time, mel


def _pool_gain(pool: SpectralDownsampling, n: int, number: int) -> np.ndarray:
    """What a layer keeps of each of the ``n // 2 + 1`` bins of one of its axes."""
    mask = pool.whole_mask(n, number).numpy()
    gain = mask + pool.mean_alpha(number) * (1 - mask)
    gain[pool.axis_crop(n, number).n_bins :] = 0  # folded down, if at all
    return gain


@torch.inference_mode()
def keep(model: AudioClassifier, waveform: np.ndarray, layers: int | None = None) -> np.ndarray:
    """A sound as it is after the model's cut-offs.

    Args:
        model: a classifier whose trunk pools.
        waveform: shape ``(samples,)`` at the frontend's sample rate, any length from one hop on.
        layers: apply the cut-offs of the first so many layers only, 0 those of an `AdaptiveLogMel`; None: of all.

    Returns:
        Float32 of the same length.

    Raises:
        UsageError: if the trunk has no cut-offs, or the sound is shorter than a hop or longer than `MAX_SECONDS`.

    Example:
        >>> from audiostride.models.audio_cnn import AudioCNN
        >>> trunk = AudioCNN(channels=(4,), strides=((4, 4),))
        >>> model = AudioClassifier(LogMel(), trunk, {"word": 2})
        >>> keep(model, np.random.RandomState(0).standard_normal(8000).astype(np.float32)).shape
        (8000,)
    """
    frontend, _ = spectrogram_cnn(model, "listening")
    log_mel = _log_mel(frontend, waveform)
    for axis, gain in enumerate(model_gain(model, layers)):
        log_mel = _low_pass(log_mel, gain, axis)
    return invert(frontend, log_mel, len(waveform))


@torch.inference_mode()
def through_mel(model: AudioClassifier, waveform: np.ndarray) -> np.ndarray:
    """A sound through the mel spectrogram and back, without any cut-off: what `keep` is to be compared with.

    For a model whose resolution is learned, the spectrogram is that of the default resolution.
    """
    frontend, _ = spectrogram_cnn(model, "listening")
    if frontend.first_pool:
        frontend = default_log_mel(frontend).to(frontend.window.device)
    return invert(frontend, _log_mel(frontend, waveform), len(waveform))


def invert(frontend: LogMel | AdaptiveLogMel, log_mel: Tensor, n_samples: int) -> np.ndarray:
    """Turn a log-mel spectrogram ``(time, mel)`` back into sound.

    Source:
        Griffin & Lim 1984, in the fast form of Perraudin et al. 2013, by librosa.
    """
    import librosa

    settings = frontend.settings
    power = (log_mel.double().exp() - LOG_OFFSET).clamp(min=0).cpu().numpy().T
    magnitude = librosa.feature.inverse.mel_to_stft(
        power, sr=frontend.sample_rate, n_fft=settings["n_fft"], power=2.0, fmin=settings["f_min"],
        fmax=settings["f_max"], htk=True, norm=None,
    )  # fmt: skip
    window = frontend.window_samples
    # librosa centres its frames, ours begin at t * hop: the sound comes out half a window early.
    # The seed has another name since librosa 1.0.
    seed = "rng" if "rng" in inspect.signature(librosa.griffinlim).parameters else "random_state"
    seeded: dict[str, Any] = {seed: 0}
    early = librosa.griffinlim(
        magnitude, n_iter=48, hop_length=frontend.hop_length, win_length=window, n_fft=settings["n_fft"], **seeded
    )
    sound = np.zeros(n_samples)
    part = early[: n_samples - window // 2]
    sound[window // 2 : window // 2 + len(part)] = part
    return np.clip(sound, -1, 1).astype(np.float32)


def check_sound_file(path: Path) -> None:
    """Refuse a file to which no sound can be written, before any work.

    Raises:
        UsageError: if its ending is none of those in `ENDINGS`.

    Example:
        >>> check_sound_file(Path("kept.mp4"))
        Traceback (most recent call last):
            ...
        audiostride.errors.UsageError: kept.mp4: a sound file must end in one of ...
    """
    if path.suffix.lower() not in ENDINGS:
        raise UsageError(f"{path}: a sound file must end in one of {' '.join(ENDINGS)}")


def write_sound(path: Path, waveform: np.ndarray, sample_rate: int) -> None:
    """Write a sound; the ending decides the format.

    Raises:
        WriteError: names the path and the bytes that are free there.
    """
    with replacing(path) as partial:
        soundfile.write(partial, waveform, sample_rate, format=path.suffix[1:].upper())


def _log_mel(frontend: LogMel | AdaptiveLogMel, waveform: np.ndarray) -> Tensor:
    """The log-mel spectrogram ``(time, mel)`` before any pooling."""
    if len(waveform) < frontend.hop_length:
        raise UsageError(f"the sound has {len(waveform)} samples, fewer than one hop of {frontend.hop_length}")
    if len(waveform) > MAX_SECONDS * frontend.sample_rate:
        length = len(waveform) / frontend.sample_rate
        raise UsageError(f"the sound is {length:.0f} s long, more than {MAX_SECONDS} s; cut out the part to listen to")
    return frontend.before_pool(torch.from_numpy(np.ascontiguousarray(waveform)).to(frontend.window))[0]


def _low_pass(log_mel: Tensor, gain: np.ndarray, axis: int) -> Tensor:
    """Weight an axis' spectrum; `gain` runs from zero to that axis' Nyquist frequency, at any resolution.

    The axis is mirrored at its end, so that its circular spectrum does not join the last sample to the first.
    """
    n = log_mel.shape[axis]
    mirrored = torch.cat([log_mel, log_mel.flip(axis)], dim=axis).double()
    spectrum = torch.fft.rfft(mirrored, dim=axis)
    points = np.linspace(0, 1, spectrum.shape[axis])
    weights = torch.from_numpy(np.interp(points, np.linspace(0, 1, len(gain)), gain)).to(spectrum.device)
    weighted = spectrum * (weights[:, None] if axis == 0 else weights)
    return torch.fft.irfft(weighted, n=2 * n, dim=axis).narrow(axis, 0, n)
