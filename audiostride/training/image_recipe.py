"""Recipes for images, and the runs of a sweep over them."""

import itertools
from collections.abc import Sequence
from typing import Annotated, Any, Literal, get_args

from pydantic import Discriminator, Field, Tag

from ..errors import RecipeError
from ..sections import Section
from .model_sections import ResNetSection
from .recipe import read_recipe


class ImageData(Section):
    """Where the images lie and how they become tensors, see `images.data`."""

    path: str
    size: int = Field(32, ge=8, le=1024)
    crop: Literal["padded", "resized"] = "padded"


Stride = (
    Annotated[float, Field(ge=1)] | Annotated[list[Annotated[float, Field(ge=1)]], Field(min_length=2, max_length=2)]
)


class RandomRange(Section):
    """Initial strides drawn evenly between `low` and `high` from the run's seed."""

    low: float = Field(ge=1)
    high: float = Field(ge=1)


class ImageModel(ResNetSection):
    """Settings of the `ResNet`; a stride of null is a place that does not downsample.

    With `random_strides` the others are drawn, whatever they are.
    """

    strides: list[Stride | None] = Field([2, 1, 2, 2, 2])  # type: ignore[assignment]
    random_strides: RandomRange | None = None
    activated_shortcut: bool = True
    as_published: bool = False


class ConvertedModel(Section):
    """Settings of a `ConvertedTrunk`; strides of null are those the network has."""

    name: Literal["efficientnet_b0", "densenet_bc"]
    downsampling: Literal["strided", "spectral", "diffstride"] = "diffstride"
    strides: list[Stride] | None = None
    random_strides: RandomRange | None = None
    smoothness: float = Field(4.0, ge=1)
    shared_stride: bool = False


def _kind(model: Any) -> str:
    name = model.get("name", "resnet") if isinstance(model, dict) else getattr(model, "name", "resnet")
    return "converted" if name in get_args(ConvertedModel.model_fields["name"].annotation) else "resnet"


class ImageTraining(Section):
    """Settings of `train_images`.

    `highest_stride: null` is no limit but half the map; `workers` are the processes that decode images for
    `crop: resized`.
    """

    epochs: int = Field(400, ge=1)
    batch_size: int = Field(256, ge=2)
    learning_rate: float = Field(0.1, gt=0)
    stride_learning_rate: float = Field(0.1, gt=0)
    aliasing_learning_rate: float = Field(0.1, gt=0)
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(5e-3, ge=0)
    highest_stride: float | None = Field(None, ge=1)
    drop_epochs: list[Annotated[int, Field(ge=1)]] = Field([200, 300])
    mixup: float = Field(0.0, ge=0)
    precision: Literal["float32", "bfloat16"] = "float32"
    workers: int = Field(2, ge=0, le=256)


class ImageRecipe(Section):
    """A recipe of `recipes/images/`.

    `sweep` maps keys to lists of values, all of whose combinations are run. `published` are accuracies
    in percent to show beside, by downsampling and initial strides, such as "strided 2 2 2" or "spectral 1 - 2".
    """

    name: str = Field(pattern=r"^[\w.-]+$")
    seed: int = Field(0, ge=0)
    data: ImageData
    model: Annotated[
        Annotated[ImageModel, Tag("resnet")] | Annotated[ConvertedModel, Tag("converted")], Discriminator(_kind)
    ]
    train: ImageTraining = ImageTraining()
    sweep: dict[str, Annotated[list[Any], Field(min_length=1)]] = Field({})
    published: dict[str, float] = Field({})

    def published_score(self) -> float | None:
        """The published accuracy of this downsampling from these initial strides, in percent, if there is one."""
        return self.published.get(" ".join([self.model.downsampling, *map(_stride_word, self.model.strides or [])]))


def load_image_recipe(recipe: str, overrides: Sequence[str] = ()) -> ImageRecipe:
    """Read an image recipe: a path, or the name of one in `recipes/images/`.

    Raises:
        RecipeError: names the file, the key, the value and the nearest valid one.

    Example:
        >>> load_image_recipe("cifar10", ["data.path=my_cifar"]).train.drop_epochs
        [200, 300]
    """
    return read_recipe(ImageRecipe, recipe, overrides, folder="images")


def plan_runs(recipe: ImageRecipe) -> dict[str, ImageRecipe]:
    """The runs of a recipe by name: itself, or every combination of its sweep.

    Raises:
        RecipeError: if a combination is not a valid recipe.

    Example:
        >>> recipe = load_image_recipe("cifar10_quick", ["data.path=x"])
        >>> list(plan_runs(recipe))[:2]
        ['strided_2-2-2_0', 'strided_2-2-2_1']
    """
    if not recipe.sweep:
        return {"": recipe}
    runs = {}
    for values in itertools.product(*recipe.sweep.values()):
        tree = recipe.model_dump(exclude={"sweep"})
        for key, value in zip(recipe.sweep, values, strict=True):
            *parents, last = key.split(".")
            section = tree
            for parent in parents:
                section = section.get(parent, {})
            if last not in section:
                raise RecipeError(f"sweep: there is no key {key!r}")
            section[last] = value
        try:
            runs["_".join(_short(value) for value in values)] = ImageRecipe.model_validate(tree)
        except ValueError as error:
            raise RecipeError(f"sweep: {dict(zip(recipe.sweep, values, strict=True))}: {error}") from None
    return runs


def _stride_word(stride: float | list[float] | None) -> str:
    if stride is None:
        return "-"
    return f"{stride:g}" if isinstance(stride, float) else "x".join(map(str, stride))


def _short(value: Any) -> str:
    """A value of a sweep as part of a directory's name."""
    return "-".join(_short(v) for v in value) if isinstance(value, list) else str("none" if value is None else value)
