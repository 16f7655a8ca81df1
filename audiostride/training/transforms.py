"""From the recipe's `augment` to the transforms of training clips."""

from collections.abc import Sequence

from ..data.augment import (
    Augmentation,
    ColouredNoise,
    Equalizer,
    Gain,
    LogMelTransform,
    Noise,
    SpecAugment,
    TimeShift,
    WaveformTransform,
    noise_files,
)
from ..data.sections import AugmentSection
from ..errors import RecipeError
from .model_sections import CustomFrontendSection, FrontendSection, ImageFrontendSection
from .recipe import Recipe

SPECTROGRAM_KEYS = ("equalize_db", "spec_augment")
"""Keys of `augment` for log-mel spectrograms alone."""


def make_transforms(recipe: Recipe) -> Augmentation | None:
    """The transforms of a recipe's `augment`, see `make_augmentation`; None if there are none. Images are only mixed.

    Raises:
        RecipeError: if a key is not for the recipe's frontend, a shift leaves nothing of a window, or a range is upside
            down.
        DataError: if there is no noise to add.

    Example:
        >>> from audiostride.training.recipe import load_recipe
        >>> make_transforms(load_recipe("ripples", ["augment.gain_db=6"])).waveform
        [Gain(max_db=6.0)]
    """
    if isinstance(recipe.frontend, ImageFrontendSection):
        return Augmentation(mixup=recipe.augment.mixup) if recipe.augment.mixup else None
    for key in SPECTROGRAM_KEYS if isinstance(recipe.frontend, CustomFrontendSection) else ():
        if getattr(recipe.augment, key) is not None:
            raise RecipeError(f"augment.{key}: is for frontend.name log_mel, whose axes are known; remove it")
    hop_ms = recipe.frontend.hop_ms if isinstance(recipe.frontend, FrontendSection) else None
    shift_ms, crop_s = recipe.augment.time_shift_ms, recipe.augment.crop_s
    key, window_s = ("window_s", recipe.window_s) if crop_s is None else ("augment.crop_s", crop_s)
    if shift_ms is not None and shift_ms >= 1000 * window_s:
        raise RecipeError(
            f"augment.time_shift_ms: {shift_ms:g} ms would leave nothing of a window of {1000 * window_s:g} ms ({key})"
        )
    return make_augmentation(recipe.augment, recipe.frontend.sample_rate, hop_ms)


def make_augmentation(section: AugmentSection, sample_rate: int, hop_ms: float | None) -> Augmentation | None:
    """What is done to training clips; None if nothing.

    Args:
        section: the settings.
        sample_rate: of the clips, in Hz.
        hop_ms: of the log-mel spectrogram, in ms; None: the model takes raw waveforms.

    Raises:
        RecipeError: if a range is upside down.
        DataError: if there is no noise to add.

    Example:
        >>> made = make_augmentation(AugmentSection(time_shift_ms=100.0), sample_rate=16000, hop_ms=10.0)
        >>> made.waveform
        [TimeShift(max_samples=1600)]
    """
    waveform: list[WaveformTransform] = []
    if section.time_shift_ms is not None:
        waveform.append(TimeShift(round(section.time_shift_ms * sample_rate / 1000)))
    if section.gain_db is not None:
        waveform.append(Gain(section.gain_db))
    if section.noise is not None:
        snr_db = _range("augment.noise.snr_db", section.noise.snr_db)
        waveform.append(Noise(noise_files(section.noise.path), sample_rate, snr_db, section.noise.probability))
    if section.coloured_noise is not None:
        snr_db = _range("augment.coloured_noise.snr_db", section.coloured_noise.snr_db)
        waveform.append(ColouredNoise(snr_db, section.coloured_noise.probability))
    log_mel: list[LogMelTransform] = []
    for key in SPECTROGRAM_KEYS if hop_ms is None else ():
        if getattr(section, key) is not None:
            raise RecipeError(f"augment.{key}: is for spectrograms, which a raw waveform is not; remove it")
    if section.equalize_db is not None:
        log_mel.append(Equalizer(section.equalize_db))
    if section.spec_augment is not None and hop_ms is not None:
        masks = section.spec_augment
        frames = max(1, round(masks.time_ms / hop_ms))
        log_mel.append(SpecAugment(masks.time_masks, frames, masks.mel_masks, masks.mels))
    speed = None if section.speed is None else _range("augment.speed", section.speed)
    if not (section.crop_s or section.skip_quiet_db or waveform or log_mel or speed or section.mixup):
        return None
    return Augmentation(
        crop_length=None if section.crop_s is None else round(section.crop_s * sample_rate),
        skip_quiet_db=section.skip_quiet_db,
        speed=speed,
        waveform=waveform,
        mixup=section.mixup or 0.0,
        between_class=section.between_class,
        log_mel=log_mel,
    )


def _range(key: str, bounds: Sequence[float]) -> tuple[float, float]:
    if bounds[0] > bounds[1]:
        raise RecipeError(f"{key}: {bounds[0]:g} is more than {bounds[1]:g}; the lower bound comes first")
    return bounds[0], bounds[1]
