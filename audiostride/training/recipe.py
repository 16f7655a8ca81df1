"""Recipes: a strict YAML file plus ``key=value`` overrides, checked whole before any work starts.

A recipe is data, never code: no aliases, no duplicate keys, no implicit yes/no, numbers as YAML 1.2
writes them. Every problem is reported with its key, its value and the nearest name that exists.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import (
    Discriminator,
    Field,
    Tag,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from ..data.sections import AugmentSection, TaskSection
from ..errors import RecipeError, UsageError
from ..sections import Section, explain, nearest
from .strict_yaml import parse_yaml

MAX_BYTES = 256 * 1024

Aliasing = Annotated[float, Field(ge=0, le=1)] | None
"""Where the learned aliasing of every pooling layer starts; None: no aliasing."""

Width = Annotated[int, Field(ge=1, le=65_536)]
"""Channels of a layer, blocks of a stage, length of a filter: a typing error must not take all memory."""


class FrontendSection(Section):
    """Settings of `LogMel`; frequencies in Hz, times in ms."""

    name: Literal["log_mel"] = "log_mel"
    sample_rate: int = Field(16000, ge=100, le=1_000_000)
    window_ms: float = Field(25.0, gt=0)
    hop_ms: float = Field(10.0, gt=0)
    n_fft: int = Field(512, ge=2, le=2**20)
    n_mels: int = Field(64, ge=1, le=2**14)
    f_min: float = Field(60.0, ge=0)
    f_max: float = Field(7800.0, gt=0)


class WaveformSection(Section):
    """Settings of `RawWaveform`."""

    name: Literal["waveform"]
    sample_rate: int = Field(16000, ge=100, le=1_000_000)


class TrunkSection(Section):
    """What every trunk can be told.

    `init` is a run directory or "hf-hub:user/name": frontend, trunk and strides are taken from there,
    in place of the frontend's and trunk's settings here, and get new heads. `linear_probe` then
    trains nothing but the heads.
    """

    init: str | None = None
    linear_probe: bool = False


class ModelSection(TrunkSection):
    """Settings of the trunk, see `AudioCNN`."""

    name: Literal["audio_cnn"] = "audio_cnn"
    downsampling: Literal["strided", "spectral", "diffstride"] = "diffstride"
    channels: list[Width] = [64, 128, 256, 256, 512, 512]
    strides: list[Annotated[list[Annotated[float, Field(ge=1)]], Field(min_length=2, max_length=2)]] = [
        [2, 2],
        [2, 2],
        [1, 1],
        [2, 2],
        [1, 1],
        [2, 2],
    ]
    smoothness: float = Field(4.0, ge=1)
    shared_stride: bool = False
    aliasing: Aliasing = None


class ResNetSection(Section):
    """Settings of a `ResNet`, for spectrograms and for images."""

    name: Literal["resnet"] = "resnet"
    downsampling: Literal["strided", "spectral", "diffstride"] = "diffstride"
    channels: list[Width] = [64, 128, 256, 512]
    blocks: list[Width] = [2, 2, 2, 2]
    strides: list[
        Annotated[float, Field(ge=1)]
        | Annotated[list[Annotated[float, Field(ge=1)]], Field(min_length=2, max_length=2)]
    ] = [2, 1, 2, 2, 2]
    smoothness: float = Field(4.0, ge=1)
    shared_stride: bool = False
    stem: Literal["small", "imagenet"] = "small"
    pre_activation: bool = False
    aliasing: Aliasing = None


class ResNetTrunkSection(TrunkSection, ResNetSection):
    """Settings of the trunk, see `ResNet`."""


class WaveCNNSection(TrunkSection):
    """Settings of the trunk, see `WaveCNN`."""

    name: Literal["wave_cnn"]
    downsampling: Literal["strided", "spectral", "diffstride"] = "diffstride"
    channels: list[Width] = [32, 64, 128, 256]
    kernel_sizes: list[Width] = [79, 3, 3, 3]
    strides: list[Annotated[float, Field(ge=1)]] = [16, 4, 4, 4]
    smoothness: float = Field(4.0, ge=1)
    aliasing: Aliasing = None


def _named(default: str) -> Discriminator:
    """Choose a section by its key `name`, which may be left out for the default one."""

    def name(value: Any) -> str:
        return value.get("name", default) if isinstance(value, dict) else getattr(value, "name", default)

    return Discriminator(name)


class TrainSection(Section):
    """Settings of the training loop."""

    epochs: int = Field(20, ge=1)
    steps: int | None = Field(None, ge=1)
    batch_size: int = Field(256, ge=2)
    optimizer: Literal["adam"] = "adam"
    learning_rate: float = Field(1e-4, gt=0)
    stride_learning_rate: float = Field(0.06, gt=0)  # from the study in docs/results.md
    aliasing_learning_rate: float = Field(0.005, gt=0)
    schedule: Literal["constant", "one_cycle", "cosine"] = "constant"
    warmup_steps: int = Field(0, ge=0)
    weight_decay: float = Field(0.0, ge=0)
    stride_cost: float = Field(0.0, ge=0)
    gradient_clip: float | None = Field(None, gt=0)
    accumulate: int = Field(1, ge=1)
    ema_decay: float | None = Field(None, gt=0, lt=1)
    early_stopping: int | None = Field(None, ge=1)
    mixing: Literal["uniform", "proportional"] | Annotated[float, Field(ge=1)] = "uniform"
    validation_fraction: float = Field(0.1, gt=0, lt=1)
    precision: Literal["float32", "bfloat16"] = "float32"
    sync_batch_norm: bool = False
    checkpoint_steps: int | None = Field(None, ge=1)
    keep_checkpoints: int = Field(2, ge=1)
    workers: int = Field(2, ge=0, le=256)

    @field_validator("warmup_steps")
    @classmethod
    def _one_warmup(cls, steps: int, info: ValidationInfo) -> int:
        if steps and info.data.get("schedule") == "one_cycle":
            raise ValueError("schedule one_cycle has a warm-up of its own; leave this 0, or take cosine")
        return steps


class Recipe(Section):
    """A whole recipe; `load_recipe` reads one. `cache` is the folder of the decoded cache, None: no cache."""

    name: str = Field(pattern=r"^[\w.-]+$")
    seed: int = Field(0, ge=0)
    cache: str | None = None
    frontend: Annotated[
        Annotated[FrontendSection, Tag("log_mel")] | Annotated[WaveformSection, Tag("waveform")], _named("log_mel")
    ] = FrontendSection()
    tasks: Annotated[dict[str, TaskSection], Field(min_length=1)]
    augment: AugmentSection = AugmentSection()
    model: Annotated[
        Annotated[ModelSection, Tag("audio_cnn")]
        | Annotated[ResNetTrunkSection, Tag("resnet")]
        | Annotated[WaveCNNSection, Tag("wave_cnn")],
        _named("audio_cnn"),
    ] = ModelSection()
    train: TrainSection = TrainSection()

    @model_validator(mode="after")
    def _frontend_fits_model(self) -> "Recipe":
        if (self.frontend.name == "waveform") != (self.model.name == "wave_cnn"):
            raise ValueError(
                "frontend.name waveform and model.name wave_cnn belong together, "
                f"got {self.frontend.name!r} and {self.model.name!r}"
            )
        return self


AnyRecipe = TypeVar("AnyRecipe", bound=Section)


def load_recipe(recipe: str, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe file, or a shipped recipe by its bare name, and apply ``key=value`` overrides.

    Args:
        recipe: a path, or the name of a shipped recipe such as "ripples".
        overrides: strings like ``train.epochs=3`` or ``model.channels=[16,32,64]``; the value is YAML.

    Raises:
        RecipeError: names the file, the key, the value and the nearest right one.

    Example:
        >>> load_recipe("ripples", ["train.epochs=3"]).train.epochs
        3
        >>> load_recipe("ripples", ["train.epoch=3"])
        Traceback (most recent call last):
            ...
        audiostride.errors.RecipeError: ripples: train.epoch: there is no such key; did you mean 'epochs'?
    """
    return read_recipe(Recipe, recipe, overrides)


def read_recipe(kind: type[AnyRecipe], recipe: str, overrides: Sequence[str] = (), folder: str = "") -> AnyRecipe:
    """Read a recipe of any kind, as `load_recipe` does.

    Args:
        kind: the section that describes the whole recipe.
        recipe: a path, or the name of a shipped recipe.
        overrides: ``key=value`` strings.
        folder: folder of the shipped recipes of this kind below `recipes/`.

    Raises:
        RecipeError: names the file, the key, the value and the nearest right one.
    """
    path = _find(recipe, folder)
    tree = parse_yaml(_read(path), str(path))
    if not isinstance(tree, dict):
        raise RecipeError(f"{path}: a recipe is a mapping of keys to values, this is {type(tree).__name__}")
    for override in overrides:
        _override(tree, override)
    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        lines = [explain(problem, kind) for problem in error.errors()]
        raise RecipeError("\n".join(f"{recipe}: {line}" for line in lines)) from None


def dump_recipe(recipe: Section) -> str:
    """The resolved recipe as YAML that `load_recipe` reads back.

    Example:
        >>> print(dump_recipe(load_recipe("ripples")).splitlines()[0])
        name: ripples
    """
    return yaml.safe_dump(recipe.model_dump(), sort_keys=False, default_flow_style=None, width=100)


def shipped_recipes(kind: str = "") -> dict[str, Path]:
    """Name and path of every recipe that ships with the package.

    Args:
        kind: sub-folder of `recipes/`: "" for audio, "images".

    Example:
        >>> "ripples" in shipped_recipes()
        True
    """
    installed = Path(__file__).parents[1] / "recipes"
    folder = installed if installed.is_dir() else Path(__file__).parents[2] / "recipes"
    return {path.stem: path for path in sorted((folder / kind).glob("*.yaml"))}


def summary_of(path: Path) -> str:
    """The first line of a recipe's opening comment.

    Example:
        >>> summary_of(shipped_recipes()["ripples"])
        'Moving ripples: temporal rate and spectral scale of noise, two tasks on one embedded data set.'
    """
    first = _read(path).partition("\n")[0]
    return first.removeprefix("#").strip()


def copy_recipe(name: str, out: Path) -> Path:
    """Copy a shipped recipe to a file, which must not be there yet.

    Raises:
        RecipeError: if there is no such recipe.
        UsageError: if the file is there.
    """
    shipped = shipped_recipes() | shipped_recipes("images")
    if name not in shipped:
        raise RecipeError(f"{name}: no such recipe{nearest(name, shipped)}; shipped recipes: {', '.join(shipped)}")
    if out.exists():
        raise UsageError(f"{out}: is there already; give another --out, or remove it first")
    out.write_text(_read(shipped[name]), encoding="utf-8")
    return out


def _find(recipe: str, folder: str) -> Path:
    if Path(recipe).is_file():
        return Path(recipe)
    shipped = shipped_recipes(folder)
    if recipe in shipped:
        return shipped[recipe]
    if recipe in shipped_recipes("" if folder else "images"):
        kind, command = ("sounds", "train") if folder else ("images", "train-images")
        raise RecipeError(f"{recipe}: a recipe for {kind}; train it with: audiostride {command} {recipe}")
    raise RecipeError(
        f"{recipe}: no such recipe file{nearest(Path(recipe).stem, shipped)}; shipped recipes: {', '.join(shipped)}"
    )


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise RecipeError(f"{path}: is larger than {MAX_BYTES // 1024} kB, too large for a recipe")
        return content.decode("utf-8")
    except OSError as error:
        raise RecipeError(f"{path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path}: is not UTF-8 text ({error})") from error


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
