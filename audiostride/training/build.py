"""From a recipe to what training takes: frontend, trunk, data, teacher."""

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from pydantic import ValidationError

from ..data.batches import LabelledClips
from ..data.clips import Progress
from ..data.leaks import leaks, origin_leak
from ..data.near_duplicates import name_copies, near_duplicates
from ..data.preparation import make_class_weights, prepare_data
from ..data.sections import EncodedData
from ..errors import DataError, DataWarning, RecipeError
from ..models.classifier import AudioClassifier, load
from ..models.custom import try_out
from ..models.network import MAX_WINDOW
from ..models.parts import Frontend, Trunk
from ..models.trunks import FRONTENDS, TRUNKS
from ..models.weight_budget import WeightBudget
from ..sections import Channel, explain_all
from .distillation import Teacher
from .recipe import Recipe
from .transforms import make_transforms

MAX_WEIGHTS = 2**31
"""Most weights of a trunk that a recipe may ask for; three hundred times what any shipped recipe does."""


def check_recipe(recipe: Recipe, progress: Progress | None = None) -> dict[str, Any]:
    """Everything `train` would find wrong before its first step, and what is on both sides of a split.

    Returns:
        The tasks with their kinds, labels and clips of each split, a line for each bad file, and clips that hold the
        same recording (see `near_duplicates`).

    Raises:
        RecipeError: if settings contradict each other.
        DataError: if data is missing, cannot be used, or leaks from one split to another.

    Example:
        >>> from audiostride.training.recipe import load_recipe
        >>> overrides = ["tasks.rate.data.n_clips=250", "tasks.scale.data.n_clips=250"]
        >>> check_recipe(load_recipe("ripples", overrides))["tasks"]["rate"]["clips"]
        {'train': 200, 'validation': 25, 'test': 25}
    """
    recipe, start = take_up(recipe)
    if start is None:
        make_network(recipe)
    teacher = load_teacher(recipe)
    make_transforms(recipe)
    # The cache would hide the files, whose contents are compared.
    sets, labels, bad_files = read_data(recipe.model_copy(update={"cache": None}), progress)
    make_class_weights(recipe.tasks, sets, labels)
    if teacher:
        teacher.match_classes(labels)
    tasks: dict[str, Any] = {}
    copies: list[dict[str, Any]] = []
    for data in sets:
        names = list(data.labels)
        block = recipe.tasks[names[0]].data
        if isinstance(block, EncodedData) and not block.allow_shared_groups:
            found = leaks(data.clips, data.splits, block.group)
            if block.group is None and (line := origin_leak(data.clips, data.splits, recipe.tasks[names[0]].column)):
                warnings.warn(
                    f"{line}; if it says what belongs together, set tasks.{names[0]}.data.group to it",
                    DataWarning,
                    stacklevel=2,
                )
            if found:
                key = f"tasks.{names[0]}.data"
                lines = "\n".join(f"{key}: {line}" for line in found)
                raise DataError(f"{lines}\nFix the splits, or set {key}.allow_shared_groups=true.")
        if isinstance(block, EncodedData):
            copies += _copies(data, recipe.frontend.resolution // 2, f"tasks.{names[0]}.data", progress)
        counts = {split: len(data.indexes(split)) for split in ("train", "validation", "test")}
        tasks |= {name: {"kind": recipe.tasks[name].kind, "labels": labels[name], "clips": counts} for name in names}
    return {"tasks": {name: tasks[name] for name in recipe.tasks}, "bad_files": bad_files, "copies": copies}


def _copies(data: LabelledClips, sample_rate: int, key: str, progress: Progress | None) -> list[dict[str, Any]]:
    """Near-duplicates as plain data; a warning names those that are in two splits."""
    found = near_duplicates(data.clips, sample_rate, data.splits, progress=progress)
    advice = (
        f"scores are inflated; remove one of each pair, or give both one value in a column and set {key}.group to it"
    )
    apart = [pair for pair in found if data.splits[pair.first] != data.splits[pair.second]]
    if line := name_copies(data.clips, apart, data.splits, advice):
        warnings.warn(f"{key}: {line}", DataWarning, stacklevel=3)
    return [
        {
            "clips": [data.clips.title(i) for i in pair[:2]],
            "splits": [data.splits[i] for i in pair[:2]],
            "correlation": pair.correlation,
        }
        for pair in found
    ]


def take_up(recipe: Recipe) -> tuple[Recipe, AudioClassifier | None]:
    """The trained model a recipe starts from, and the recipe with that model's frontend and trunk settings.

    The window is that model's too, unless the recipe names another one.

    Returns:
        The recipe as it is and None, where `model.init` is not set.

    Raises:
        RecipeError: if `model.linear_probe` is set without `model.init`, the window is too short or too long, or the
            model does not fit these tasks in a recipe (one for images, with tasks on sounds).
        ModelFileError: if the model cannot be read.
    """
    init, linear_probe = recipe.model.init, recipe.model.linear_probe
    if init is None:
        if linear_probe:
            raise RecipeError(
                "model.linear_probe: trains the heads of a trained trunk; set model.init to a run directory"
            )
        return recipe, None
    start = load(init)
    config = start.config()
    theirs, ours = start.resolution, recipe.frontend.resolution
    if theirs != ours and {"sample_rate", "size"} & recipe.frontend.model_fields_set:
        what = f"model.init: {init} takes {theirs} (Hz; pixels of images), so the frontend's {ours} is not used"
        lost = f": nothing above {theirs // 2} Hz will be heard" if theirs < ours else ""
        warnings.warn(what + lost, DataWarning, stacklevel=2)
    if start.channel != (heard := heard_channel(recipe)):
        what = f"model.init: {init} was trained on the channel {start.channel!r}, and is now trained on {heard!r}"
        warnings.warn(f"{what} (data.channel)", DataWarning, stacklevel=2)
    taken = {"frontend": config["frontend"], "model": config["model"] | {"init": init, "linear_probe": linear_probe}}
    if "window_s" not in recipe.model_fields_set:
        taken["window_s"] = start.window_s
    try:
        recipe = Recipe.model_validate(recipe.model_dump() | taken)
    except ValidationError as error:
        lines = "; ".join(explain_all(error.errors(), Recipe))
        raise RecipeError(f"model.init: {init} does not fit this recipe: {lines}") from None
    _check_windows(recipe, start.frontend, start.trunk)
    return recipe, start


def heard_channel(recipe: Recipe) -> Channel:
    """The channel by which the recipe's data is heard, and then what its model is given; "mix" where data sets differ.

    Example:
        >>> from audiostride.training.recipe import load_recipe
        >>> heard_channel(load_recipe("folder", ["tasks.label.data.channel=left"]))
        'left'
    """
    channels = {task.data.channel for task in recipe.tasks.values() if isinstance(task.data, EncodedData)}
    if len(channels) > 1:
        shown = ", ".join(sorted(map(str, channels)))
        what = (
            f"data sets have different channels ({shown}); predictions are of the mix unless --channel says otherwise"
        )
        warnings.warn(what, DataWarning, stacklevel=2)
    return channels.pop() if len(channels) == 1 else "mix"


def load_teacher(recipe: Recipe) -> Teacher | None:
    """The teacher of `train.teacher`, whose tasks and windows are the recipe's; None where it is not set.

    Args:
        recipe: as `take_up` returns it.

    Raises:
        RecipeError: if the teacher lacks a task, or takes other windows.
        ModelFileError: if it cannot be read.
    """
    settings = recipe.train
    if settings.teacher is None:
        return None
    assert settings.teacher_weight is not None
    assert settings.teacher_temperature is not None
    with torch.random.fork_rng(devices=[]):  # what it draws as it is built is not taken from the student
        model = load(settings.teacher)
    teacher = Teacher(model, settings.teacher_weight, settings.teacher_temperature, settings.teacher)
    teacher.check_tasks({name: task.kind for name, task in recipe.tasks.items()})
    theirs = _what_it_hears(model.frontend.takes_images, model.resolution, model.window_s)
    ours = _what_it_hears(recipe.takes_images, recipe.frontend.resolution, recipe.window_s)
    if ours != theirs:
        raise RecipeError(
            f"train.teacher: {settings.teacher} takes {theirs}, and the recipe's model {ours}; a teacher is given the "
            "student's own windows, so set frontend.sample_rate and window_s to match it, or choose another one"
        )
    return teacher


def read_data(
    recipe: Recipe, progress: Progress | None = None, labels: Mapping[str, list[str]] | None = None
) -> tuple[list[LabelledClips], dict[str, list[str]], list[str]]:
    """`prepare_data` of a recipe."""
    return prepare_data(
        recipe.tasks,
        sample_rate=recipe.frontend.resolution,
        seed=recipe.seed,
        validation_fraction=recipe.train.validation_fraction,
        cache=recipe.cache,
        progress=progress,
        labels=labels,
    )


def make_network(recipe: Recipe) -> tuple[Frontend, Trunk]:
    """The recipe's frontend and its trunk with fresh weights; custom ones are tried out on silence.

    Raises:
        RecipeError: if their settings contradict each other, or a custom one does not do what it must.

    Example:
        >>> from audiostride.training.recipe import load_recipe
        >>> frontend, trunk = make_network(load_recipe("ripples"))
        >>> frontend.sample_rate, trunk.num_features
        (16000, 128)
    """
    frontend, trunk = make_frontend(recipe), make_trunk(recipe)
    _check_windows(recipe, frontend, trunk)
    return frontend, trunk


def _check_windows(recipe: Recipe, frontend: Frontend, trunk: Trunk) -> None:
    """Check the lengths of a window and of the part of it that training sees.

    A custom frontend or trunk is tried out on silence of both lengths.
    """
    if frontend.takes_images:
        lengths = {frontend.resolution}
    else:
        window, shortest = round(recipe.window_s * frontend.sample_rate), frontend.hop_length or 1
        if not shortest <= window <= MAX_WINDOW:
            raise RecipeError(
                f"window_s: {recipe.window_s:g} s are {window:,} samples; at least one frame of {shortest} samples is "
                f"needed, and at most {MAX_WINDOW:,} samples are allowed"
            )
        crop_s = recipe.augment.crop_s
        crop = window if crop_s is None else round(crop_s * frontend.sample_rate)
        if not shortest <= crop <= window:
            raise RecipeError(
                f"augment.crop_s: {crop_s:g} s is not between one frame and a whole window of {recipe.window_s:g} s "
                "(window_s)"
            )
        lengths = {window, crop}
    if frontend.source or trunk.source:
        try:
            for length in lengths:
                try_out(frontend, trunk, torch.cat([frontend.silence(length)] * 2))
        except ValueError as error:
            raise RecipeError(str(error)) from error


def make_frontend(recipe: Recipe) -> Frontend:
    """The recipe's frontend.

    Raises:
        RecipeError: if its settings contradict each other.

    Example:
        >>> from audiostride.training.recipe import load_recipe
        >>> make_frontend(load_recipe("ripples", ["frontend.n_mels=40"])).n_mels
        40
    """
    try:
        return FRONTENDS[recipe.frontend.name](**recipe.frontend.model_dump(exclude={"name"}))
    except ValueError as error:
        raise RecipeError(f"frontend: {error}") from error


def make_trunk(recipe: Recipe) -> Trunk:
    """The recipe's trunk with fresh weights.

    Raises:
        RecipeError: if its settings contradict each other, or ask for more weights than any machine trains.

    Example:
        >>> from audiostride.training.recipe import load_recipe
        >>> make_trunk(load_recipe("ripples", ["model.downsampling=strided"])).strides()[0]
        [2.0, 2.0]
    """
    try:
        settings = recipe.model.model_dump(exclude={"name", "init", "linear_probe"})
        with WeightBudget(MAX_WEIGHTS):
            return TRUNKS[recipe.model.name](**settings)
    except ValueError as error:
        raise RecipeError(f"model: {error}") from error


def _what_it_hears(images: bool, resolution: int, window_s: float) -> str:
    return f"images of {resolution} x {resolution}" if images else f"windows of {window_s:g} s at {resolution} Hz"
