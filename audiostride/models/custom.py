"""`CustomTrunk` and `CustomFrontend`: user-defined networks and frontends, by the name of their class.

A class is named "my_package.nets:MyTrunk". It is imported from the working directory, from PYTHONPATH or from what
is installed, and is called only if it is a subclass of `torch.nn.Module`: no recipe and no file of a model calls
anything else. Importing a module runs it, as everywhere in Python.
"""

import copy
import hashlib
import importlib
import inspect
import os
import re
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UsageError
from ..layers.strides import diffstride_layers
from .parts import Frontend, Part, SampleRate, Trunk


class CustomTrunk(Trunk):
    """A user-defined trunk: any `torch.nn.Module` that turns a frontend's output into embeddings.

    All it needs is `num_features`, the length of an embedding, and a `forward` that maps the frontend's output,
    ``(batch, 1, time, mel)`` after `LogMel`, to ``(batch, num_features)``. A method `forward_features` and an
    iterable `blocks` are used if it has them. The strides of its `DiffStride` layers are learned, logged and held
    in their range as in every trunk.

    Args:
        trunk: name of the class, "PACKAGE.MODULE:CLASS".
        settings: keyword arguments that it is made with: plain data, as a recipe holds it.

    Attributes:
        net: the trunk itself.
        num_features: length of an embedding.
        settings: the arguments, `trunk` and `settings`.

    Raises:
        ValueError: if there is no such class, it is no `torch.nn.Module`, cannot be made or has no `num_features`.

    Example:
        >>> trunk = CustomTrunk("audiostride.models.wave_cnn:WaveCNN", {"channels": [8, 16, 16, 16]})
        >>> trunk(torch.zeros(2, 1, 8000)).shape, len(trunk.strides())
        (torch.Size([2, 16]), 4)
        >>> CustomTrunk("os:system", {"command": "date"})
        Traceback (most recent call last):
            ...
        ValueError: os:system: is not a subclass of torch.nn.Module but a builtin_function_or_method; it was not called
    """

    name = "custom"
    takes = None

    def __init__(self, trunk: str, settings: dict[str, Any] = {}):  # noqa: B006 (copied)
        super().__init__()
        self.settings = {"trunk": trunk, "settings": dict(settings)}
        self.source = trunk
        self.why_no_cutoffs = (
            f"cut-offs are known for this package's trunks only; what the layers of {trunk} see is unknown"
        )
        self.net = _make(trunk, self.settings["settings"])
        features: Any = getattr(self.net, "num_features", None)
        if not isinstance(features, int) or features < 1:
            raise ValueError(
                f"{trunk}: num_features must be a whole number, the length of the embeddings that its forward returns, "
                f"got {features!r}"
            )
        self.num_features = features

    @property
    def blocks(self) -> list[nn.Module]:
        """The parts of the trunk, from input to output.

        Raises:
            UsageError: if its class names none.
        """
        if not hasattr(self.net, "blocks"):
            raise UsageError(f"{self.source} has no blocks, but their feature maps are asked for; give it some")
        return list(self.net.blocks)  # type: ignore[arg-type]

    def forward_features(self, x: Tensor) -> Tensor:
        """Map the frontend's output to the feature map before it is pooled.

        Raises:
            UsageError: if its class has no such method.
        """
        if not hasattr(self.net, "forward_features"):
            raise UsageError(f"{self.source} has no forward_features, which returns its feature map")
        return self.net.forward_features(x)  # type: ignore[operator]

    def forward(self, x: Tensor) -> Tensor:
        """Map the frontend's output to embeddings ``(batch, num_features)``.

        Raises:
            ValueError: if something else comes out of it.
        """
        embedding = self.net(x)
        if not isinstance(embedding, Tensor) or embedding.dim() != 2 or embedding.shape[1] != self.num_features:
            raise ValueError(
                f"{self.source}: must return embeddings of shape (batch, {self.num_features}), as its "
                f"num_features says, but returned {_shape(embedding)}"
            )
        return embedding

    def strides(self) -> list[list[float]]:
        """Current strides of its `DiffStride` layers; an empty list if it has none."""
        return [layer.strides() for layer in diffstride_layers(self.net)]


class CustomFrontend(Frontend):
    """A user-defined frontend: any `torch.nn.Module` that turns waveforms into what its trunk takes.

    All it needs is a `forward` that maps waveforms ``(batch, samples)`` to ``(batch, 1, time, mel)``, or to whatever
    else the trunk takes. If it has `hop_length` (samples from frame to frame) and `n_mels`, the strides learned on
    it have cut-offs.

    Args:
        frontend: name of the class, "PACKAGE.MODULE:CLASS".
        sample_rate: of the waveforms it is given, in Hz.
        settings: keyword arguments that it is made with: plain data, as a recipe holds it.

    Attributes:
        net: the frontend itself.
        hop_length: samples from frame to frame; None if it does not say.
        n_mels: number of mel bands; None if it does not say.
        frame_rate: frames per second, in Hz; None if it does not say.
        settings: the arguments, `frontend`, `sample_rate` and `settings`.

    Raises:
        ValueError: if there is no such class, it is no `torch.nn.Module`, cannot be made or is for another sample
            rate.

    Example:
        >>> frontend = CustomFrontend("audiostride.models.log_mel:LogMel", 16000, {"n_mels": 40})
        >>> frontend(torch.zeros(2, 16000)).shape, frontend.frame_rate
        (torch.Size([2, 1, 100, 40]), 100.0)
    """

    name = "custom"
    gives = None

    def __init__(self, frontend: str, sample_rate: SampleRate = 16000, settings: dict[str, Any] = {}):  # noqa: B006 (copied)
        super().__init__()
        self.settings = {"frontend": frontend, "sample_rate": sample_rate, "settings": dict(settings)}
        self.source = frontend
        self.net = _make(frontend, self.settings["settings"])
        own: Any = getattr(self.net, "sample_rate", sample_rate)
        if own != sample_rate:
            raise ValueError(f"{frontend}: is made for {own} Hz, and sample_rate is {sample_rate}; make them equal")
        self.sample_rate = sample_rate
        self.hop_length: int | None = getattr(self.net, "hop_length", None)
        self.n_mels: int | None = getattr(self.net, "n_mels", None)
        self.frame_rate = sample_rate / self.hop_length if self.hop_length else None
        if not (self.hop_length and self.n_mels):
            self.why_no_cutoffs = (
                f"cut-offs need the hop_length and n_mels of the frontend, and {frontend} does not have both"
            )

    def forward(self, waveform: Tensor) -> Tensor:
        """Map waveforms ``(batch, samples)`` to what the trunk takes."""
        return self.net(waveform)


def import_class(name: str) -> type[nn.Module]:
    """The class that a name stands for; it is not called.

    Args:
        name: "PACKAGE.MODULE:CLASS"; modules of the working directory come after all others.

    Raises:
        ValueError: if the name is none, the module is missing or fails, or it holds no such class of
            `torch.nn.Module`.

    Example:
        >>> import_class("torch.nn:Linear")
        <class 'torch.nn.modules.linear.Linear'>
    """
    if not re.fullmatch(r"\w+(\.\w+)*:\w+", name):
        raise ValueError(f"{name}: a class is named PACKAGE.MODULE:CLASS, such as my_package.nets:MyTrunk")
    module_name, _, class_name = name.partition(":")
    try:
        with _working_directory():
            module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise ValueError(f"{name}: its module cannot be imported: {_told(error)}") from error
        raise ValueError(
            f"{name}: there is no module {error.name!r} in the working directory, on PYTHONPATH or among the "
            "installed packages; go to its folder, or install it"
        ) from error
    except (Exception, SystemExit) as error:
        raise ValueError(f"{name}: its module cannot be imported: {_told(error)}") from error
    if not hasattr(module, class_name):
        raise ValueError(f"{name}: {getattr(module, '__file__', None) or module_name} has no {class_name}")
    found = getattr(module, class_name)
    if not isinstance(found, type) or not issubclass(found, nn.Module):
        what = f"the class {found.__qualname__}" if isinstance(found, type) else f"a {type(found).__name__}"
        raise ValueError(f"{name}: is not a subclass of torch.nn.Module but {what}; it was not called")
    return found


@torch.no_grad()
def try_out(frontend: Part, trunk: Part, sounds: Tensor) -> None:
    """Run sounds, or images, through frontend and trunk once, in eval mode.

    Raises:
        ValueError: if one of them fails or does not return what it must; it names the class, and the line.

    Example:
        >>> frontend = CustomFrontend("audiostride.models.log_mel:LogMel")
        >>> try_out(frontend, CustomTrunk("audiostride.models.wave_cnn:WaveCNN"), torch.zeros(2, 16000))
        Traceback (most recent call last):
            ...
        ValueError: audiostride.models.wave_cnn:WaveCNN: fails on an input of shape (2, 1, 100, 64): RuntimeError: ...
    """
    x = sounds
    for part in (frontend, trunk):
        name = part.title
        was_training = part.training
        try:
            output = part.eval()(x)
        except Exception as error:
            if str(error).startswith(f"{name}: "):
                raise
            raise ValueError(f"{name}: fails on an input of shape {tuple(x.shape)}: {_told(error)}") from error
        finally:
            part.train(was_training)
        if not isinstance(output, Tensor) or output.dim() < 2 or len(output) != len(x):
            raise ValueError(
                f"{name}: must return a tensor with a row for each of the {len(x)} clips it is given, but returned "
                f"{_shape(output)}"
            )
        x = output


def source_digest(name: str) -> str | None:
    """SHA-256 of the file that defines a class; None if it is in no file.

    Example:
        >>> len(source_digest("torch.nn:Conv2d") or "")
        64
    """
    try:
        return hashlib.sha256(Path(inspect.getfile(import_class(name))).read_bytes()).hexdigest()
    except (TypeError, OSError):
        return None


def _make(name: str, settings: Mapping[str, Any]) -> nn.Module:
    kind = import_class(name)
    try:
        return kind(**copy.deepcopy(dict(settings)))
    except MemoryError:
        raise
    except Exception as error:
        raise ValueError(f"{name}: cannot be made with the settings {dict(settings)}: {_told(error)}") from error


@contextmanager
def _working_directory() -> Iterator[None]:
    """Let modules of the working directory be found, as `python -m` does; the `audiostride` command does not."""
    folder = os.getcwd()
    if folder in sys.path or "" in sys.path:
        yield
        return
    sys.path.append(folder)
    try:
        yield
    finally:
        sys.path.remove(folder)


def _told(error: BaseException) -> str:
    """What a user-defined module raised, and on which of its lines."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename != __file__]
    own = [
        frame
        for frame in frames
        if "importlib" not in frame.filename and f"{os.sep}torch{os.sep}" not in frame.filename
    ]
    where = f" ({own[-1].filename}, line {own[-1].lineno})" if own else ""
    return f"{type(error).__name__}: {error}{where}"


def _shape(value: object) -> str:
    return f"one of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
