"""From the recipe's `augment` to the transforms of training clips."""

from ..data.augment import Augmentation, AugmentSection
from ..errors import RecipeError
from .recipe import Recipe


def make_transforms(recipe: Recipe) -> Augmentation | None:
    """The transforms of a recipe's `augment`, see `AugmentSection.make`; None if there are none. Images are only mixed.

    Raises:
        RecipeError: if a key is not for the recipe's frontend, or a shift leaves nothing of a window.
        DataError: if there is no noise to add.

    Example:
        >>> from audiostride.training.recipe import load_recipe
        >>> make_transforms(load_recipe("ripples", ["augment.gain_db=6"])).waveform
        [Gain(max_db=6.0)]
    """
    augment = recipe.augment
    if recipe.takes_images:
        return Augmentation(mixup=augment.mixup) if augment.mixup else None
    for key in AugmentSection.SPECTROGRAM_KEYS if recipe.frontend.source else ():
        if getattr(augment, key) is not None:
            raise RecipeError(f"augment.{key}: is for frontend.name log_mel, whose axes are known; remove it")
    key, window_s = ("window_s", recipe.window_s) if augment.crop_s is None else ("augment.crop_s", augment.crop_s)
    if augment.time_shift_ms is not None and augment.time_shift_ms >= 1000 * window_s:
        raise RecipeError(
            f"augment.time_shift_ms: {augment.time_shift_ms:g} ms would leave nothing of a window of "
            f"{1000 * window_s:g} ms ({key})"
        )
    return augment.make(recipe.frontend.resolution, getattr(recipe.frontend, "hop_ms", None))
