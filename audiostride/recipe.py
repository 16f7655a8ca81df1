"""Recipes: a strict YAML file plus ``key=value`` overrides, checked whole before any work starts.

A recipe is data, never code: no aliases, no duplicate keys, no implicit yes/no, numbers as YAML 1.2
writes them. Every problem is reported with its key, its value and the nearest name that exists.
"""

import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from .errors import RecipeError, UsageError

MAX_BYTES = 256 * 1024
MAX_DEPTH = 20

Width = Annotated[int, Field(ge=1, le=65_536)]
"""Channels of a layer, blocks of a stage, length of a filter: a typing error must not take all memory."""


class Section(BaseModel):
    """A part of a recipe: unknown keys and wrong types are errors."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


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


class EncodedData(Section):
    """What all data sets of audio files have in common.

    group: column whose equal values stay on one side of a split (speaker, recording, location).
    split_column, splits: which value of a column, or which of the data's own splits, is for what.
    allow_shared_groups: accept groups that the data's own splits put on two sides.
    check: "all" decodes every file before training; "none" opens nothing, a bad file is met in training.
    on_bad_file: what `check: all` does about a bad file.
    """

    group: str | None = None
    split_column: str | None = None
    splits: dict[str, Literal["train", "validation", "test", ""]] | None = None
    allow_shared_groups: bool = False
    check: Literal["all", "none"] = "all"
    on_bad_file: Literal["error", "skip"] = "error"


class FolderData(EncodedData):
    """A folder of audio files, see `audiostride.data.folder`."""

    source: Literal["folder"]
    path: str


class ManifestData(EncodedData):
    """A CSV, TSV or JSON lines table, see `audiostride.data.manifest`."""

    source: Literal["manifest"]
    path: str
    root: str | None = None


class AnnotatedData(EncodedData):
    """Recordings with Audacity or Raven label files beside them, see `audiostride.data.annotations`."""

    source: Literal["annotated"]
    path: str


class ArchiveData(EncodedData):
    """An official data set, see `audiostride.data.archives`."""

    source: Literal["archive"]
    layout: Literal["speech_commands", "nsynth", "tut_urban_2018", "dcase_birds", "esc50", "folder"]
    path: str
    archives: list[str] = []


class HubData(EncodedData):
    """A data set of the Hugging Face hub or a local parquet tree, see `audiostride.data.hub`."""

    source: Literal["hub"]
    path: str
    config: str | None = None
    revision: str | None = None
    audio: str = "audio"
    streaming: bool = False


class ShardData(EncodedData):
    """WebDataset tar shards, see `audiostride.data.shards`."""

    source: Literal["shards"]
    path: str | list[str]

    @field_validator("path", mode="before")
    @classmethod
    def _one_or_several(cls, path: Any) -> Any:
        several = isinstance(path, list) and path and all(isinstance(part, str) for part in path)
        if not (isinstance(path, str) or several):
            raise PydanticCustomError("path", "input should be a path, an address or a list of them")
        return path


class RipplesData(Section):
    """The embedded data set of moving ripples, see `audiostride.data.ripples`."""

    source: Literal["ripples"]
    n_clips: int = Field(2500, ge=250)
    seed: int = Field(0, ge=0)


class TaskSection(Section):
    """One classification task: which data, which label column, which weight in the loss.

    kind: "binary" has two classes and is scored by AUC too; "multilabel" has any number of classes a
    clip, separated by "|" in the column. class_weights: "balanced" weighs classes against their
    number of training clips.
    """

    data: Annotated[
        FolderData | ManifestData | AnnotatedData | ArchiveData | HubData | ShardData | RipplesData,
        Field(discriminator="source"),
    ]
    column: str = "label"
    kind: Literal["multiclass", "binary", "multilabel"] = "multiclass"
    weight: float = Field(1.0, gt=0)
    class_weights: Literal["balanced"] | dict[str, Annotated[float, Field(gt=0)]] | None = None


class NoiseSection(Section):
    """Background noise, see `audiostride.data.augment.Noise`."""

    path: str
    snr_db: Annotated[list[float], Field(min_length=2, max_length=2)] = [5.0, 20.0]
    probability: float = Field(1.0, gt=0, le=1)


class SpecAugmentSection(Section):
    """Masks on the log-mel spectrogram, see `audiostride.data.augment.SpecAugment`."""

    time_masks: int = Field(2, ge=0, le=100)
    time_ms: float = Field(200.0, gt=0)
    mel_masks: int = Field(2, ge=0, le=100)
    mels: int = Field(8, ge=1)


class AugmentSection(Section):
    """What is done to training clips; nothing by default. See `audiostride.data.augment`."""

    speed: Annotated[list[Annotated[float, Field(ge=0.25, le=4)]], Field(min_length=2, max_length=2)] | None = None
    time_shift_ms: float | None = Field(None, gt=0)
    gain_db: float | None = Field(None, gt=0, le=60)
    noise: NoiseSection | None = None
    mixup: float | None = Field(None, gt=0)
    spec_augment: SpecAugmentSection | None = None


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
    tree = _parse(_read(path), str(path))
    if not isinstance(tree, dict):
        raise RecipeError(f"{path}: a recipe is a mapping of keys to values, this is {type(tree).__name__}")
    for override in overrides:
        _override(tree, override)
    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        lines = [_explain(problem, kind) for problem in error.errors()]
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
    installed = Path(__file__).parent / "recipes"
    folder = installed if installed.is_dir() else Path(__file__).parents[1] / "recipes"
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
        raise RecipeError(f"{name}: no such recipe{_nearest(name, shipped)}; shipped recipes: {', '.join(shipped)}")
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
        f"{recipe}: no such recipe file{_nearest(Path(recipe).stem, shipped)}; shipped recipes: {', '.join(shipped)}"
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


class _StrictLoader(yaml.SafeLoader):
    """YAML without aliases, duplicate keys and surprises; nesting is bounded."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 (typed so by yaml)
    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.MarkedYAMLError(problem="aliases are not allowed", problem_mark=self.peek_event().start_mark)
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise yaml.MarkedYAMLError(
                problem=f"nested deeper than {MAX_DEPTH} levels", problem_mark=self.peek_event().start_mark
            )
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for i, key in enumerate(keys):
            if not isinstance(key, str):
                raise yaml.MarkedYAMLError(
                    problem=f"the key {key!r} is no text", problem_mark=node.value[i][0].start_mark
                )
            if key in keys[:i]:
                raise yaml.MarkedYAMLError(
                    problem=f"the key {key!r} stands twice", problem_mark=node.value[i][0].start_mark
                )
        return super().construct_mapping(node, deep)


# YAML 1.2 numbers, so that 1e-3 is one and 012, yes, no and 12:30 are text.
_StrictLoader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(?:true|false)$"), list("tf"))
_StrictLoader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"^(?:null|~|)$"), ["n", "~", ""])
_StrictLoader.add_implicit_resolver(
    "tag:yaml.org,2002:int", re.compile(r"^[-+]?(?:0|[1-9][0-9]{0,18})$"), list("-+0123456789")
)
_StrictLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]{1,3})?$"),
    list("-+.0123456789"),
)


def _parse(text: str, where: str) -> Any:
    try:
        return yaml.load(text, _StrictLoader)  # noqa: S506 (a SafeLoader)
    except (yaml.YAMLError, ValueError, AttributeError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise RecipeError(f"{where}{line}: {getattr(error, 'problem', None) or error}") from None


def _override(tree: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals or not key:
        raise RecipeError(f"{override}: an override is KEY=VALUE, such as train.epochs=3")
    *parents, last = key.split(".")
    for parent in parents:
        tree = tree.setdefault(parent, {})
        if not isinstance(tree, dict):
            raise RecipeError(f"{key}: {parent!r} has no keys below it")
    tree[last] = _parse(value, key)


def _explain(problem: Any, kind: type[Section]) -> str:
    if not problem["loc"]:
        return str(problem["ctx"]["error"])
    # pydantic puts the tag of a union (the data source) into the location; it is no key of the recipe.
    location = [str(part) for part in problem["loc"]]
    section, path = _walk(location, kind)
    key = ".".join(path)
    if problem["type"] == "extra_forbidden":
        return f"{key}: there is no such key{_nearest(path[-1], section)}"
    if problem["type"] == "missing":
        return f"{key}: is missing"
    shown = repr(problem["input"])
    shown = shown if len(shown) < 80 else shown[:77] + "..."
    expected = problem.get("ctx", {}).get("expected") or problem.get("ctx", {}).get("expected_tags")
    given = problem.get("ctx", {}).get("tag", problem["input"])
    hint = _nearest(str(given), re.findall(r"'([^']+)'", expected)) if expected else ""
    message = problem["msg"][0].lower() + problem["msg"][1:]
    return f"{key}: {message}, got {shown}{hint}"


def _walk(location: list[str], kind: type[Section]) -> tuple[Iterable[str], list[str]]:
    """Names that exist beside the last key of a location, and the location without union tags."""
    annotation: Any = kind
    names: Iterable[str] = ()
    path = []
    for part in location:
        if type(None) in get_args(annotation):  # a section that may be left out
            annotation = next(a for a in get_args(annotation) if a is not type(None))
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            names = annotation.model_fields
            field = annotation.model_fields.get(part)
            annotation = field.annotation if field else None
            path.append(part)
        elif getattr(annotation, "__origin__", None) is dict:
            annotation = get_args(annotation)[1]
            path.append(part)
        elif tagged := [a for a in get_args(annotation) if _tag(a) == part]:
            annotation = tagged[0] if isinstance(tagged[0], type) else get_args(tagged[0])[0]
        else:
            path.append(part)
    return names, path


def _tag(section: Any) -> str | None:
    tag = next((part.tag for part in get_args(section) if isinstance(part, Tag)), None)
    source = getattr(section, "model_fields", {}).get("source")
    return get_args(source.annotation)[0] if source else tag


def _nearest(name: str, names: Iterable[str]) -> str:
    near = get_close_matches(name, list(names), n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else ""
