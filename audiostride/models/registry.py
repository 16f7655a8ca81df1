"""The registry: whole classifiers by name."""

import os
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any, get_args

from ..layers.choice import Kind
from .classifier import AudioClassifier, load
from .log_mel import LogMel
from .parts import Frontend
from .pretrained import pretrained_names
from .trunks import TRUNKS
from .wave_cnn import RawWaveform

MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    f"{size}_{kind}": (name, {"downsampling": kind, **settings})
    for name, trunk in TRUNKS.items()
    for size, settings in trunk.sizes.items()
    for kind in get_args(Kind)
}
"""Name of each model: the trunk's name in `trunks.TRUNKS`, and its settings. To add one, name its size in its trunk."""


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
        default = RawWaveform(8000) if trunk.takes == "waveform" else LogMel()
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
