"""`Frontend` and `Trunk`: the two parts of a network, what they declare, and their settings in a recipe.

A part is defined in one module: its settings in a recipe are the arguments of its constructor, whose types say their
ranges; `sizes` are its registered models. `trunks` lists the parts there are.
"""

import inspect
import operator
from collections.abc import Mapping, Sequence
from functools import cache, reduce
from types import GenericAlias, UnionType
from typing import Annotated, Any, ClassVar, Literal, Union, get_args, get_origin, get_type_hints

import torch
from pydantic import Field, create_model
from torch import Tensor, nn

from ..layers.downsampling import Alpha, DiffStride
from ..layers.strides import model_aliasing
from ..sections import Section
from .downsampling_block import DownsamplingBlock

NOT_SOUND = "this model classifies images, and cut-offs are for sounds"

Input = Literal["spectrogram", "waveform", "images"]
"""What goes from a frontend to a trunk."""

Share = Annotated[float, Field(ge=0, le=1)]

OneAliasing = Share | None
"""Where the learned aliasing of every pooling layer starts; None: no aliasing."""

GroupedAliasing = OneAliasing | Annotated[Sequence[Share], Field(min_length=2, max_length=64)]
"""The same, or where it starts in each of several equal groups of channels."""

Width = Annotated[int, Field(ge=1, le=65_536)]
"""Channels of a layer, blocks of a stage, length of a filter: a typo must not exhaust the memory."""

AtLeastOne = Annotated[float, Field(ge=1)]

Pair = Annotated[Sequence[AtLeastOne], Field(min_length=2, max_length=2)]
"""The (time, mel) stride of a block."""

Positive = Annotated[float, Field(gt=0)]

SampleRate = Annotated[int, Field(ge=100, le=1_000_000)]
"""In Hz."""


class PartSection(Section):
    """Settings of a frontend or a trunk in a recipe."""

    name: str

    @property
    def source(self) -> str | None:
        """The custom class that it names, if it does."""
        return getattr(self, "frontend", None) or getattr(self, "trunk", None)


class FrontendSection(PartSection):
    """Settings of a frontend."""

    @property
    def resolution(self) -> int:
        """What a clip is read at: the sample rate in Hz; of images the pixels on a side."""
        return getattr(self, "size", None) or self.sample_rate  # type: ignore[attr-defined]


class TrunkSection(PartSection):
    """What every trunk takes.

    `init` is a run directory or "hf-hub:user/name": frontend, trunk and strides are taken from there,
    in place of the frontend's and trunk's settings here, and get new heads. `linear_probe` then
    trains nothing but the heads.
    """

    init: str | None = None
    linear_probe: bool = False


class Part(nn.Module):
    """A frontend or a trunk.

    Attributes:
        name: what it is called in recipes and in `config.json`.
        settings: the arguments it was made with, as plain data.
        source: "PACKAGE.MODULE:CLASS" if it wraps a custom class, else None.
        why_no_cutoffs: why what it learns cannot be said in Hz; "" if it can.
    """

    name: ClassVar[str]
    section_base: ClassVar[type[PartSection]] = PartSection
    settings: dict[str, Any]
    source: str | None = None
    why_no_cutoffs: str = ""

    @classmethod
    @cache
    def section(cls) -> Any:
        """Its section of a recipe: the arguments of its constructor, with their ranges and defaults.

        Example:
            >>> from audiostride import RawWaveform
            >>> RawWaveform.section()(sample_rate=8000)
            RawWaveformSection(name='waveform', sample_rate=8000)
        """
        hints = get_type_hints(cls.__init__, include_extras=True)
        fields: dict[str, Any] = {"name": (Literal[cls.name], cls.name)}
        for name, parameter in inspect.signature(cls).parameters.items():
            default = ... if parameter.default is parameter.empty else listed(parameter.default)
            fields[name] = (_with_lists(hints[name]), default)
        return create_model(f"{cls.__name__}Section", __base__=cls.section_base, **fields)

    @property
    def title(self) -> str:
        """The name of its class, or of the custom one that it wraps."""
        return self.source or type(self).__name__


class Frontend(Part):
    """What turns clips into what a trunk takes.

    Attributes:
        gives: what it turns them into; None: unknown.
        sample_rate: of the waveforms it takes, in Hz.
        hop_length: samples from frame to frame; None if there are no frames, or it is unknown.
        n_mels: number of mel bands; None as well.
        frame_rate: frames per second, in Hz; None as well.
        looks_ahead: samples from the start of a frame on that it sees.
    """

    section_base = FrontendSection
    gives: Input | None = "spectrogram"
    sample_rate: int
    hop_length: int | None
    n_mels: int | None
    frame_rate: float | None
    looks_ahead: int = 0

    @property
    def centre(self) -> float:
        """Centre of the first frame, in samples."""
        return 0.0

    @property
    def takes_images(self) -> bool:
        """Whether its clips are images, not sounds."""
        return self.gives == "images"

    @property
    def resolution(self) -> int:
        """What a clip is read at: the sample rate in Hz; of images the pixels on a side."""
        return self.sample_rate

    @property
    def first_pool(self) -> DiffStride | None:
        """The layer that pools its spectrogram, see `AdaptiveLogMel`; None if there is none."""
        return None

    def before_pool(self, waveform: Tensor) -> Tensor:
        """What `first_pool` pools."""
        return self(waveform)

    def map_size(self, n_samples: int) -> tuple[int, ...]:
        """Size (time, mel) of what it gives for `n_samples` samples."""
        assert self.hop_length
        return n_samples // self.hop_length, *([self.n_mels] if self.n_mels else [])

    def tile(self, n_samples: int) -> dict[str, Any] | None:
        """The resolution it has learned, see `AdaptiveLogMel`; None if it learns none."""
        return None

    def silence(self, length: int) -> Tensor:
        """A waveform ``(1, length)`` of zeros; of images a black one, uint8 ``(1, length, length, 3)``."""
        return torch.zeros(1, length)


class Trunk(Part):
    """What turns a frontend's output into embeddings.

    Attributes:
        sizes: the settings of each of its registered sizes, by the name of the model without its downsampling.
        blocks: its parts, from input to output.
        num_features: length of an embedding.
    """

    section_base = TrunkSection
    sizes: ClassVar[dict[str, dict[str, Any]]] = {}
    blocks: Any
    num_features: int

    @property
    def takes(self) -> Input | None:
        """What it takes; None: unknown."""
        return "spectrogram"

    @property
    def ends_in_mean(self) -> bool:
        """Whether an embedding is the mean of its feature map over time."""
        return False

    def forward_features(self, x: Tensor) -> Tensor:
        """Map the frontend's output to the feature map before it is pooled."""
        raise NotImplementedError

    @property
    def places(self) -> Sequence[DownsamplingBlock]:
        """Where it downsamples, from input to output."""
        return list(self.blocks)

    def strides(self) -> list[list[float]]:
        """Current stride of each place and axis, learned or fixed.

        Example:
            >>> from audiostride import AudioCNN
            >>> AudioCNN("spectral", channels=(8, 8), strides=((2, 2), (1, 1.5))).strides()
            [[2.0, 2.0], [1.0, 1.5]]
        """
        return [place.strides() for place in self.places]

    def map_sizes(self, *size: int) -> list[tuple[int, ...]]:
        """Size (time, mel), or (samples,), of the input of each place and of the last one's output.

        Example:
            >>> from audiostride import AudioCNN
            >>> AudioCNN("strided").map_sizes(100, 64)
            [(100, 64), (50, 32), (25, 16), (25, 16), (13, 8), (13, 8), (7, 4)]
        """
        sizes = [size]
        for place in self.places:
            sizes.append(place.output_lengths(*sizes[-1]))
        return sizes

    def aliasing(self) -> list[list[Alpha]] | None:
        """Current aliasing, in [0, 1], of each layer that pools and axis; None if none is learned.

        Where groups of channels have an alpha of their own, an axis has a list of them.

        Example:
            >>> from audiostride import AudioCNN
            >>> AudioCNN("spectral", channels=(8,), strides=((2, 2),), aliasing=0.25).aliasing()
            [[0.25, 0.25]]
        """
        return model_aliasing(self)


def plain(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a constructor, from its `locals()`, as plain data that JSON gives back: sequences are lists.

    Example:
        >>> plain({"self": object(), "strides": ((2, 2), (1, 1)), "pooling": "mean"})
        {'strides': [[2, 2], [1, 1]], 'pooling': 'mean'}
    """
    return {name: listed(value) for name, value in arguments.items() if name not in ("self", "__class__")}


def listed(value: Any) -> Any:
    """A value whose sequences are lists."""
    return list(map(listed, value)) if isinstance(value, list | tuple) else value


def _with_lists(hint: Any) -> Any:
    """The type of an argument as it is in a recipe, where every sequence is a list."""
    if hasattr(hint, "__metadata__"):
        return Annotated[_with_lists(hint.__origin__), *hint.__metadata__]
    if get_origin(hint) in (Union, UnionType):
        return reduce(operator.or_, map(_with_lists, get_args(hint)))
    return GenericAlias(list, (_with_lists(get_args(hint)[0]),)) if get_origin(hint) is Sequence else hint
