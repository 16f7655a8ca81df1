"""The registry: whole classifiers by name.

To add one, add a line to `MODELS`; a new kind of trunk also needs its line in `classifier.TRUNKS`.
"""

import os
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any, get_args

from ..layers.choice import Kind
from .classifier import TRUNKS, AudioClassifier, load
from .log_mel import LogMel
from .network import Frontend
from .pretrained import pretrained_names
from .wave_cnn import RawWaveform, WaveCNN

_SMALL = {"channels": (16, 32, 64, 64, 128, 128), "smoothness": 1.0}
RESNET_SIZES: dict[str, dict[str, Any]] = {
    "pico": {
        "channels": (16, 24),
        "time_channels": (48, 48, 48),
        "strides": ((2, 2), (2, 4), (1, 1), (1, 1), (1, 1)),
    },
    "nano": {"channels": (16, 24, 32), "time_channels": (64, 64, 64)},
    "small": {"channels": (24, 48, 64), "time_channels": (128, 128, 128)},
    "base": {"channels": (32, 64, 96), "time_channels": (192, 192, 192)},
}
"""Sizes of `AudioResNet`, the trunk to start from."""

MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "audio_cnn_strided": ("audio_cnn", {"downsampling": "strided"}),
    "audio_cnn_spectral": ("audio_cnn", {"downsampling": "spectral"}),
    "audio_cnn_diffstride": ("audio_cnn", {"downsampling": "diffstride"}),
    "audio_cnn_small_strided": ("audio_cnn", {"downsampling": "strided", **_SMALL}),
    "audio_cnn_small_spectral": ("audio_cnn", {"downsampling": "spectral", **_SMALL}),
    "audio_cnn_small_diffstride": ("audio_cnn", {"downsampling": "diffstride", **_SMALL}),
    **{
        f"audio_resnet_{size}_{kind}": ("audio_resnet", {"downsampling": kind, **widths})
        for size, widths in RESNET_SIZES.items()
        for kind in get_args(Kind)
    },
    "resnet18_strided": ("resnet", {"downsampling": "strided"}),
    "resnet18_spectral": ("resnet", {"downsampling": "spectral"}),
    "resnet18_diffstride": ("resnet", {"downsampling": "diffstride"}),
    "wave_cnn_strided": ("wave_cnn", {"downsampling": "strided"}),
    "wave_cnn_spectral": ("wave_cnn", {"downsampling": "spectral"}),
    "wave_cnn_diffstride": ("wave_cnn", {"downsampling": "diffstride"}),
}
"""Name of each model: the trunk's name in `classifier.TRUNKS` and the trunk's settings."""


def list_models(pattern: str = "*") -> list[str]:
    """Names of the registered models that match a shell pattern, sorted.

    Example:
        >>> list_models("audio_cnn_small*stride*")
        ['audio_cnn_small_diffstride', 'audio_cnn_small_strided']
    """
    return sorted(name for name in MODELS if fnmatchcase(name, pattern))


def create_model(
    name: str,
    pretrained: bool | str | os.PathLike[str] = False,
    *,
    heads: Mapping[str, int | Sequence[str]],
    frontend: Frontend | None = None,
    window_s: float | None = None,
    **settings: Any,
) -> AudioClassifier:
    """Make a registered model.

    Args:
        name: one of `list_models()`.
        pretrained: False for fresh weights; True for those that come with the package, see
            `pretrained_names`; or a run directory or "hf-hub:user/name". Trunk and frontend are taken
            from there, with new heads.
        heads: for each task its class labels in order, or their number.
        frontend: None for `LogMel()`, and for `RawWaveform(8000)` before a `WaveCNN`.
        window_s: length of the windows it classifies, in seconds; None: 1 s, or that of the pretrained model.
        settings: settings of the trunk that differ from the registered ones.

    Raises:
        ValueError: if there is no such model, a setting does not fit, or the pretrained model is another one.
        ModelFileError: if the pretrained model cannot be read.

    Example:
        >>> model = create_model("audio_cnn_small_diffstride", heads={"word": ["no", "yes"]}, smoothness=2.0)
        >>> model.trunk.settings["smoothness"], model.labels
        (2.0, {'word': ['no', 'yes']})
    """
    if name not in MODELS:
        near = get_close_matches(name, MODELS, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"there is no model {name!r}; {hint}list_models() names them all")
    trunk_name, registered = MODELS[name]
    try:
        trunk = TRUNKS[trunk_name](**(registered | settings))
    except TypeError as error:
        raise ValueError(f"{name}: {str(error).rpartition('() ')[2]}") from error
    if pretrained is False:
        default = RawWaveform(8000) if isinstance(trunk, WaveCNN) else LogMel()
        return AudioClassifier(frontend or default, trunk, heads, 1.0 if window_s is None else window_s)
    if pretrained is True and name not in pretrained_names():
        raise ValueError(
            f"no weights come with {name}, only with {', '.join(pretrained_names())}; "
            "give pretrained=RUN_DIR or 'hf-hub:user/name'"
        )
    model = load(name if pretrained is True else pretrained)
    if type(model.trunk) is not type(trunk) or model.trunk.settings != trunk.settings:
        raise ValueError(f"{pretrained} is not {name}: its trunk has {model.trunk.settings}, not {trunk.settings}")
    if frontend is not None and frontend.settings != model.frontend.settings:
        raise ValueError(f"{pretrained} was trained on the frontend {model.frontend.settings}; omit frontend")
    if window_s is not None and window_s != model.window_s:
        raise ValueError(f"{pretrained} was trained on windows of {model.window_s:g} s; omit window_s")
    model.reset_classifier(heads)
    return model
