"""What a page and a C file have in common: templates, filters and FFT of the features, frames and events."""

import re
from collections.abc import Mapping
from importlib.resources import files
from types import MappingProxyType
from typing import Any

import numpy as np

from ..errors import UsageError
from ..models.classifier import AudioClassifier
from ..models.frames import frame_grid
from ..models.log_mel import LogMel


def fill(text: str, values: Mapping[str, object]) -> str:
    """A text with each @KEY@ in it replaced.

    Example:
        >>> fill("float window[@SIZE@];", {"SIZE": 16000})
        'float window[16000];'
    """
    return re.sub(r"@([A-Z_]+)@", lambda found: str(values[found[1]]), text)


def fill_template(name: str, values: Mapping[str, object] = MappingProxyType({})) -> str:
    """A file of `templates`, each @KEY@ in it replaced."""
    return fill(files(__package__).joinpath("templates", name).read_text(encoding="utf-8"), values)


def sparse_filters(frontend: LogMel) -> tuple[list[int], list[int], np.ndarray]:
    """Of each mel filter the first bin and the one behind the last, and the weights of all of them in between."""
    filters = frontend.filters.double().cpu().numpy()
    ends = [(int(np.flatnonzero(row)[0]), int(np.flatnonzero(row)[-1]) + 1) for row in filters]
    weights = np.concatenate([row[begin:end] for row, (begin, end) in zip(filters, ends, strict=True)])
    return [begin for begin, _ in ends], [end for _, end in ends], weights


def fft_length(frontend: LogMel, purpose: str) -> int:
    """The FFT's length, if it is one that the FFT of an exported file has.

    Raises:
        UsageError: if it is no power of two.
    """
    n_fft = 2 * (frontend.filters.shape[1] - 1)
    if n_fft < 4 or n_fft & (n_fft - 1):
        raise UsageError(f"the model's n_fft is {n_fft}; {purpose} needs a power of two, such as 512")
    return n_fft


def frame_plan(model: AudioClassifier) -> dict[str, Any]:
    """Where the frames of a recording are and how they are computed, see `models.frames`.

    Returns:
        What a `FrameGrid` holds, without the rate; "mean": whether the trunk ends in a mean over time.

    Example:
        >>> from audiostride import create_model
        >>> frame_plan(create_model("audio_resnet_pico_strided", heads={"word": 2}))
        {'hop': 640, 'first': 200.0, 'context': 9600, 'window': 16000, 'per_window': 25, 'lead': 0, 'mean': True}
    """
    plan = frame_grid(model)._asdict()
    del plan["sample_rate"]
    return plan | {"mean": model.trunk.ends_in_mean}
