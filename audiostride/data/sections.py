"""What a recipe says of its data: each source with its keys and how it is opened, and the tasks.

A source is imported when it is opened: a recipe can be read and checked without torch.
"""

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from ..errors import DataError
from ..files import expand_user
from ..sections import Channel, Section

if TYPE_CHECKING:
    from .clips import Clips, EncodedClips, Progress


class FoldSection(Section):
    """The fold that is tested while all others train, see `audiostride.data.folds`; `crossval` sets it fold by fold.

    value: the fold that is tested: one of the column's values, or 1 to n_folds.
    column: column whose values name the folds.
    n_folds: number of folds that are drawn, by the recipe's seed, where no column names them.
    """

    value: str
    column: str | None = None
    n_folds: int | None = Field(None, ge=2, validate_default=True)

    @field_validator("value", mode="before")
    @classmethod
    def _number_as_text(cls, value: Any) -> Any:
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else value

    @field_validator("n_folds")
    @classmethod
    def _column_or_number(cls, n_folds: int | None, info: ValidationInfo) -> int | None:
        if (info.data.get("column") is None) == (n_folds is None):
            raise PydanticCustomError("folds", "give column, whose values name the folds, or n_folds to draw them")
        value = info.data.get("value")
        if n_folds is not None and value is not None and value not in map(str, range(1, n_folds + 1)):
            raise PydanticCustomError("folds", "has no fold {value}; they are called 1 to n_folds", {"value": value})
        return n_folds


class DataSection(Section):
    """What all data sets have in common.

    test_fold: tests on one fold and trains on all others; the data's own splits are pooled first.
    """

    test_fold: FoldSection | None = None

    def to_fetch(self) -> str:
        """What opening this data would download, or write where it says, since it is not here; "" for nothing."""
        return ""


class EncodedData(DataSection):
    """What all data sets of audio files have in common.

    group: column whose equal values stay on one side of a split (speaker, recording, location).
    split_column, splits: which value of a column, or which of the data's own splits, is for what.
    allow_shared_groups: accept groups that the data's own splits put on two sides.
    check: "all" decodes every file before training; "none" opens nothing, a bad file is met in training.
    on_bad_file: what is done about a bad file that `check: all` finds, or that training meets: "error", or
        "skip" to train without it. A validation or test clip that is lost later is always an error.
    on_missing_label: what is done about clips with an empty label, unless the task is multilabel: "error", or "skip" to
        leave them out.
    channel: what is heard of several channels: their mean, one by its name or number from 1 on, or the loudest.
    background: a folder of sounds, or one recording, that hold none of the classes, see `audiostride.data.background`.
    """

    group: str | None = None
    split_column: str | None = None
    splits: dict[str, Literal["train", "validation", "test", ""]] | None = None
    allow_shared_groups: bool = False
    check: Literal["all", "none"] = "all"
    on_bad_file: Literal["error", "skip"] = "error"
    on_missing_label: Literal["error", "skip"] = "error"
    channel: Channel = "mix"
    background: str | None = None

    def open(self, progress: "Progress | None" = None, key: str = "data") -> "EncodedClips":
        """The table of clips behind this section, which errors call by its key.

        Raises:
            DataError: if it is missing or not laid out as its kind is.
        """
        raise NotImplementedError


class FolderData(EncodedData):
    """A folder of audio files, see `audiostride.data.folder`."""

    source: Literal["folder"]
    path: str

    def open(self, progress: "Progress | None" = None, key: str = "data") -> "EncodedClips":
        from .folder import read_folder

        return read_folder(_existing(self.path, key))


class ManifestData(EncodedData):
    """A CSV, TSV or JSON lines table, see `audiostride.data.manifest`."""

    source: Literal["manifest"]
    path: str
    root: str | None = None

    def open(self, progress: "Progress | None" = None, key: str = "data") -> "EncodedClips":
        from .manifest import check_root, read_manifest

        clips = read_manifest(_existing(self.path, key), self.root)
        check_root(clips, self.path, f"{key}.root")
        return clips


class AnnotatedData(EncodedData):
    """Recordings with Audacity or Raven label files next to them, see `audiostride.data.annotations`."""

    source: Literal["annotated"]
    path: str
    label_column: str | None = None

    def open(self, progress: "Progress | None" = None, key: str = "data") -> "EncodedClips":
        from .annotations import read_annotated

        return read_annotated(_existing(self.path, key), self.label_column)


class ArchiveData(EncodedData):
    """An official data set, see `audiostride.data.archives`."""

    source: Literal["archive"]
    layout: Literal["speech_commands", "nsynth", "tut_urban_2018", "tau_urban", "dcase_birds", "esc50", "folder"]
    path: str
    archives: list[str] = []

    def open(self, progress: "Progress | None" = None, key: str = "data") -> "EncodedClips":
        from .archives import read_archives

        return read_archives(self.layout, self.path, self.archives, progress, key)

    def to_fetch(self) -> str:
        from .archives import is_unpacked

        here = not self.archives or is_unpacked(expand_user(self.path), self.archives)
        return "" if here else f"{', '.join(self.archives)} into {self.path}"


class HubData(EncodedData):
    """A data set of the Hugging Face hub or a local parquet tree, see `audiostride.data.hub`."""

    source: Literal["hub"]
    path: str
    config: str | None = None
    revision: str | None = None
    audio: str = "audio"
    streaming: bool = False

    def open(self, progress: "Progress | None" = None, key: str = "data") -> "EncodedClips":
        from .hub import read_hub

        return read_hub(self.path, self.config, self.revision, self.audio, self.streaming, progress, key)

    def to_fetch(self) -> str:
        return "" if expand_user(self.path).is_dir() else f"{self.path} of the Hugging Face hub"


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

    def open(self, progress: "Progress | None" = None, key: str = "data") -> "EncodedClips":
        from .shards import read_shards

        return read_shards(self.path, progress)

    def to_fetch(self) -> str:
        paths = [self.path] if isinstance(self.path, str) else self.path
        return ", ".join(path for path in paths if path.startswith(("http://", "https://")))


class RipplesData(DataSection):
    """The embedded data set of moving ripples, see `audiostride.data.ripples`."""

    source: Literal["ripples"]
    n_clips: int = Field(2500, ge=250)
    seed: int = Field(0, ge=0)

    def open(self, progress: "Progress | None" = None, key: str = "data") -> "Clips":
        """The table of clips, made here and now."""
        from .ripples import make_ripples

        return make_ripples(self.n_clips, self.seed, progress)


class ImagesData(DataSection):
    """Images, see `audiostride.data.images`; the label column is "label"."""

    source: Literal["images"]
    path: str
    crop: Literal["padded", "resized"] = "padded"

    def open(self, progress: "Progress | None" = None, key: str = "data") -> "Clips":
        """The table of images, not yet decoded.

        Raises:
            DataError: if it is missing or not laid out as it should be.
        """
        from .images import read_images

        return read_images(self.path, self.crop, key)


class TaskSection(Section):
    """One classification task: which data, which label column, which weight in the loss.

    kind: "binary" has two classes and is scored by AUC too; "multilabel" has any number of classes a clip.
    label_separator: what stands between the labels of a clip in the column of a multilabel task.
    label_columns: instead of `column` one column for each class, with 0, 1 or, where it is not known, nothing or "?".
    class_weights: "balanced" weighs classes against their number of training clips.
    """

    data: Annotated[
        FolderData | ManifestData | AnnotatedData | ArchiveData | HubData | ShardData | RipplesData | ImagesData,
        Field(discriminator="source"),
    ]
    column: str = "label"
    kind: Literal["multiclass", "binary", "multilabel"] = "multiclass"
    label_separator: str = Field("|", min_length=1)
    label_columns: Annotated[list[str], Field(min_length=2)] | None = None
    weight: float = Field(1.0, gt=0)
    class_weights: Literal["balanced"] | dict[str, Annotated[float, Field(gt=0)]] | None = None


def _existing(path: str, key: str) -> str:
    """The path of a data section, or an error that says which key to set."""
    place = expand_user(path)
    if not place.exists():
        raise DataError(f"{path}: no such file or folder ({place.absolute()}); set {key}.path to yours")
    return path
