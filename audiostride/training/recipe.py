"""Recipes: a strict YAML file plus ``key=value`` overrides, checked whole before any work starts.

A recipe is data, never code: no aliases, no duplicate keys, no implicit yes/no, numbers as YAML 1.2
writes them. Every problem is reported with its key, its value and the nearest name that exists.
"""

import operator
from collections.abc import Mapping, Sequence
from functools import reduce
from typing import TYPE_CHECKING, Annotated, Any, Literal

import yaml
from pydantic import Discriminator, Field, Tag, ValidationError, ValidationInfo, field_validator, model_validator

from ..data.augment import AugmentSection
from ..data.sections import TaskSection
from ..errors import RecipeError
from ..models.parts import FrontendSection, Part, TrunkSection
from ..models.trunks import FRONTENDS, TRUNKS
from ..sections import Section, explain_all, one_of
from .optimizers import OPTIMIZERS
from .schedules import SCHEDULES
from .shipped_recipes import find_recipe, read_text
from .strict_yaml import parse_yaml

MAX_FLOAT, MAX_INT = 1e15, 2**63 - 1
"""No setting needs larger numbers; torch and numpy overflow beyond them in many ways."""

MAX_PROBLEMS = 50
"""So many problems of a recipe are shown at once."""


def _chosen_from(parts: Mapping[str, type[Part]]) -> Any:
    """The type of a key whose section is chosen by its own key `name`, which may be left out for the first one."""
    default = next(iter(parts))

    def name(value: Any) -> str:
        return value.get("name", default) if isinstance(value, dict) else getattr(value, "name", default)

    sections = (Annotated[part.section(), Tag(tag)] for tag, part in parts.items())
    return Annotated[reduce(operator.or_, sections), Discriminator(name)]


if TYPE_CHECKING:
    AnyFrontend = FrontendSection
    AnyTrunk = TrunkSection
else:
    AnyFrontend = _chosen_from(FRONTENDS)
    AnyTrunk = _chosen_from(TRUNKS)


class TrainSection(Section):
    """Settings of the training loop; `loop.train` takes them whole.

    Attributes:
        epochs: passes over the training clips, a random window of each.
        steps: stop after this many optimiser steps.
        batch_size: clips per batch, over all processes.
        optimizer: a name in `optimizers.OPTIMIZERS`.
        momentum: for "sgd" only.
        learning_rate: of the weights, at the peak of the schedule.
        stride_learning_rate: of the strides. The default is from the study in docs/results.md.
        aliasing_learning_rate: of the learned aliasing, which is between 0 and 1.
        highest_stride: upper limit of learned strides, in addition to half their map.
        schedule: a name in `schedules.SCHEDULES`; all learning rates follow it.
        drop_epochs: for the schedule "step".
        warmup_steps: steps over which the rates rise linearly to their peak, before the schedule begins.
        weight_decay: of the weights, never of strides.
        stride_cost: weight of the regulariser `models.cost.stride_cost`.
        label_smoothing: share of the target that is spread evenly over all classes in the training loss of multiclass
            and binary tasks; scores and validation losses are without it. Predictions become less certain than they are
            right, which calibration undoes.
        teacher: what `load` takes: a run directory, "hf-hub:user/name" or the name of a model that comes with the
            package.
        teacher_weight, teacher_temperature: see `distillation.Teacher`; with a teacher 0.5 and 2.0 by default.
        gradient_clip: largest norm of the gradient of all parameters together.
        accumulate: batches per step, whose gradients are averaged; the last step of an epoch may have fewer.
        ema_decay: validate and keep a moving average of the weights, see `steps.update_average_`.
        validate_every: epochs from one validation to the next; the last epoch is always validated.
        early_stopping: stop after this many epochs without a better one.
        keep: the model of the "best" validation epoch, or of the "last" one.
        mixing: how several data sets are mixed, see `epoch_plan.plan_epoch`.
        validation_fraction: share of the training clips that is held out if the data has no validation split.
        precision: "bfloat16" computes the convolutions and matrix products of training steps in half precision
            (autocast). Weights, masks, batch norm, losses and evaluation stay in float32.
        sync_batch_norm: on several GPUs, batch norm over the whole batch instead of each GPU's share.
        checkpoint_steps: save a checkpoint every so many steps, in addition to the end of each epoch.
        keep_checkpoints: how many of the newest checkpoints are kept, in addition to the best.
        workers: processes that decode audio.
    """

    epochs: int = Field(20, ge=1)
    steps: int | None = Field(None, ge=1)
    batch_size: int = Field(256, ge=2)
    optimizer: Annotated[str, one_of(OPTIMIZERS)] = "adam"
    momentum: float = Field(0.0, ge=0, lt=1)
    learning_rate: float = Field(1e-4, gt=0)
    stride_learning_rate: float = Field(0.06, gt=0)
    aliasing_learning_rate: float = Field(0.06, gt=0)
    highest_stride: float | None = Field(None, ge=1)
    schedule: Annotated[str, one_of(SCHEDULES)] = "constant"
    drop_epochs: list[Annotated[int, Field(ge=1)]] = Field([], validate_default=True)
    warmup_steps: int = Field(0, ge=0)
    weight_decay: float = Field(0.0, ge=0)
    stride_cost: float = Field(0.0, ge=0)
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    teacher: str | None = None
    teacher_weight: float | None = Field(None, gt=0, le=1, validate_default=True)
    teacher_temperature: float | None = Field(None, gt=0, validate_default=True)
    gradient_clip: float | None = Field(None, gt=0)
    accumulate: int = Field(1, ge=1)
    ema_decay: float | None = Field(None, gt=0, lt=1)
    validate_every: int = Field(1, ge=1)
    early_stopping: int | None = Field(None, ge=1)
    keep: Literal["best", "last"] = "best"
    mixing: Literal["uniform", "proportional", "joint"] | Annotated[float, Field(ge=1)] = "uniform"
    validation_fraction: float = Field(0.1, ge=0, lt=1)
    precision: Literal["float32", "bfloat16"] = "float32"
    sync_batch_norm: bool = False
    checkpoint_steps: int | None = Field(None, ge=1)
    keep_checkpoints: int = Field(2, ge=1)
    workers: int = Field(2, ge=0, le=256)

    @field_validator("warmup_steps")
    @classmethod
    def _one_warmup(cls, steps: int, info: ValidationInfo) -> int:
        if steps and info.data.get("schedule") == "one_cycle":
            raise ValueError("schedule one_cycle has a warm-up of its own; leave this at 0, or use cosine")
        return steps

    @field_validator("momentum")
    @classmethod
    def _momentum_of_sgd(cls, momentum: float, info: ValidationInfo) -> float:
        if momentum and info.data.get("optimizer") != "sgd":
            raise ValueError("is for sgd only; set train.optimizer=sgd, or leave this at 0")
        return momentum

    @field_validator("drop_epochs")
    @classmethod
    def _drops_of_step(cls, epochs: list[int], info: ValidationInfo) -> list[int]:
        if bool(epochs) != (info.data.get("schedule") == "step"):
            raise ValueError("belongs to train.schedule=step; set both, or leave this at []")
        return epochs

    @field_validator("teacher_weight", "teacher_temperature")
    @classmethod
    def _of_a_teacher(cls, value: float | None, info: ValidationInfo) -> float | None:
        taught = info.data.get("teacher") is not None
        if value is not None and not taught:
            raise ValueError("belongs to train.teacher; set train.teacher=RUN_DIR, or remove this")
        default = 0.5 if info.field_name == "teacher_weight" else 2.0
        return default if taught and value is None else value

    @field_validator("validation_fraction")
    @classmethod
    def _best_of_validation(cls, fraction: float, info: ValidationInfo) -> float:
        if not fraction and (info.data.get("keep") == "best" or info.data.get("early_stopping")):
            raise ValueError(
                "without validation clips there is no best epoch; set train.keep=last and no early_stopping"
            )
        return fraction


class Recipe(Section):
    """A whole recipe; `load_recipe` reads one.

    name: of the run directories; letters, digits and "_", "-" and ".", not first.
    window_s: length of the windows that a network is trained on, or on parts of them (`augment.crop_s`), and a clip's
        scores are averaged over, in seconds; with `model.init` that model's, unless it is named.
    cache: folder of the decoded cache; None: no cache.
    sweep: values of keys, all of whose combinations `audiostride sweep` trains.
    published: accuracies of a publication in percent, shown for comparison, by downsampling and initial strides, such
        as "strided 2 2 2" or, where a place does not downsample, "strided 1 - 2".
    """

    name: str = Field(pattern=r"^[\w-][\w.-]*$", max_length=60)
    seed: int = Field(0, ge=0, lt=2**63)
    cache: str | None = None
    window_s: float = Field(1.0, gt=0)
    frontend: AnyFrontend = FRONTENDS["log_mel"].section()()
    tasks: Annotated[dict[str, TaskSection], Field(min_length=1)]
    augment: AugmentSection = AugmentSection()
    model: AnyTrunk = TRUNKS["audio_cnn"].section()()
    train: TrainSection = TrainSection()
    sweep: dict[str, Annotated[list[Any], Field(min_length=1)]] = {}
    published: dict[str, float] = {}

    def published_score(self) -> float | None:
        """The published accuracy of this downsampling from these initial strides, in percent, if there is one."""
        if self.model.source:
            return None
        settings = self.model.model_dump()
        pairs = [v if isinstance(v, list) else [] if v is None else [v] for v in settings["strides"]]
        strides = ("x".join(f"{s:g}" for s in pair) or "-" for pair in pairs)
        return self.published.get(" ".join([settings["downsampling"], *strides]))

    @property
    def takes_images(self) -> bool:
        """Whether its clips are images, not sounds."""
        return FRONTENDS[self.frontend.name].gives == "images"

    @model_validator(mode="after")
    def _images_fit(self) -> "Recipe":
        images = self.takes_images
        for name, task in self.tasks.items():
            if (task.data.source == "images") != images:
                raise ValueError(
                    f"tasks.{name}.data.source images and frontend.name images belong together, "
                    f"got {task.data.source!r} and {self.frontend.name!r}"
                )
        channels = getattr(self.model, "in_channels", 1)
        if not images and getattr(self.model, "as_published", False):
            raise ValueError("model.as_published has no cut-offs and is for images; remove it")
        if channels != (3 if images else 1) and self.model.name != "custom":
            wanted = "model.name resnet with model.in_channels 3" if images else "model.in_channels 1"
            got = f"model.name {self.model.name} with {channels}"
            raise ValueError(f"frontend.name {self.frontend.name} needs {wanted}, got {got}")
        for key, value in self.augment:
            if images and value and key != "mixup":
                raise ValueError(f"augment.{key} is for sounds; of these, images can be augmented by mixup only")
        if images and self.window_s != 1:
            raise ValueError(f"window_s is for sounds, an image is one window; remove it, got {self.window_s:g}")
        return self

    @model_validator(mode="after")
    def _smoothing_fits_tasks(self) -> "Recipe":
        several = [name for name, task in self.tasks.items() if task.kind == "multilabel"]
        if self.train.label_smoothing and several:
            raise ValueError(
                f"train.label_smoothing is for tasks with one class per clip, but tasks.{several[0]}.kind is multilabel"
                f"; remove it, got {self.train.label_smoothing:g}"
            )
        return self

    @model_validator(mode="after")
    def _frontend_fits_model(self) -> "Recipe":
        if "custom" in (self.frontend.name, self.model.name):
            return self  # they are tried out together before any training
        if (self.frontend.name == "waveform") != (self.model.name == "wave_cnn"):
            raise ValueError(
                "frontend.name waveform and model.name wave_cnn belong together, "
                f"got {self.frontend.name!r} and {self.model.name!r}"
            )
        return self


def load_recipe(recipe: str, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe file, or a shipped recipe by its bare name, and apply ``key=value`` overrides.

    Args:
        recipe: a path, or the name of a shipped recipe such as "ripples".
        overrides: strings like ``train.epochs=3`` or ``model.channels=[16,32,64]``; the value is YAML.

    Raises:
        RecipeError: names the file, the key, the value and the nearest valid one.

    Example:
        >>> load_recipe("ripples", ["train.epochs=3"]).train.epochs
        3
        >>> load_recipe("ripples", ["train.epoch=3"])
        Traceback (most recent call last):
            ...
        audiostride.errors.RecipeError: ripples: train.epoch: no such key; did you mean 'epochs'?
    """
    path = find_recipe(recipe)
    tree = parse_yaml(read_text(path), str(path))
    if not isinstance(tree, dict):
        raise RecipeError(f"{path}: a recipe is a mapping of keys to values, this is {type(tree).__name__}")
    for override in overrides:
        _override(tree, override)
    _check_numbers(tree, recipe)
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        problems = error.errors()
        lines = explain_all(problems[:MAX_PROBLEMS], Recipe)
        if len(problems) > MAX_PROBLEMS:
            lines.append(f"and {len(problems) - MAX_PROBLEMS} more")
        raise RecipeError("\n".join(f"{recipe}: {line}" for line in lines)) from None


def dump_recipe(recipe: Recipe) -> str:
    """The resolved recipe as YAML that `load_recipe` reads back.

    Example:
        >>> print(dump_recipe(load_recipe("ripples")).splitlines()[0])
        name: ripples
    """
    return yaml.safe_dump(recipe.model_dump(), sort_keys=False, default_flow_style=None, width=100)


def _check_numbers(value: Any, where: str, key: str = "") -> None:
    if isinstance(value, dict):
        for name, part in value.items():
            _check_numbers(part, where, f"{key}.{name}".lstrip("."))
    elif isinstance(value, list):
        for part in value:
            _check_numbers(part, where, key)
    elif isinstance(value, int | float) and not abs(value) <= (MAX_INT if isinstance(value, int) else MAX_FLOAT):
        raise RecipeError(f"{where}: {key}: no setting may be as large as {value:g}")


def _override(tree: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals or not key:
        raise RecipeError(f"{override}: an override is KEY=VALUE, such as train.epochs=3")
    *parents, last = key.split(".")
    for parent in parents:
        tree = tree.setdefault(parent, {})
        if not isinstance(tree, dict):
            raise RecipeError(f"{key}: {parent!r} has no keys below it")
    tree[last] = parse_yaml(value, key)
