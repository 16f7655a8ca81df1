"""A classifier as one HTML page: features, network and user interface, with no server and no network."""

import base64
import html
import json
from typing import Any

import numpy as np

from ..mel_scale import LOG_OFFSET
from ..models.classifier import AudioClassifier
from ..models.cost import cost_per_second
from ..models.cutoffs import model_cutoffs, why_no_cutoffs
from ..models.log_mel import LogMel
from .operations import Affine, Average, Convolution, Head, Matrix, Operation, Pick, Reduce, operations
from .source_parts import fft_length, fill_template, frame_plan, sparse_filters

_JSON_IN_HTML = str.maketrans(
    {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}
)
"""So that no text of a model ends the script element that it stands in."""


def web_page(model: AudioClassifier, title: str) -> str:
    """The page of a model.

    Args:
        model: the classifier.
        title: of the page.

    Returns:
        HTML that holds everything it needs.

    Raises:
        UsageError: as `operations.operations`; or if the FFT's length is no power of two.

    Example:
        >>> from audiostride import create_model
        >>> page = web_page(create_model("audio_resnet_pico_strided", heads={"word": ["no", "</script>"]}), "Words")
        >>> page.count("</script>") == page.count("<script")
        True
    """
    numbers = _Numbers()
    described = _describe(model, numbers) | {"about": _about(model)}
    content = np.concatenate(numbers.parts).astype("<f4").tobytes()
    values = {
        "TITLE": html.escape(title),
        "ENGINE": "".join(map(fill_template, ("engine.js", "frames.js", "worker.js"))),
        "SCRIPT": fill_template("page.js"),
        "MODEL": json.dumps(described).translate(_JSON_IN_HTML),
        "WEIGHTS": base64.b64encode(content).decode(),
    }
    return fill_template("page.html", values)


def _about(model: AudioClassifier) -> dict[str, list[tuple[str, str]]]:
    """What the page says of the model: tables of names and texts by their title."""
    kept = []
    for row in [] if why_no_cutoffs(model) else model_cutoffs(model)[-2:]:
        cutoff = row.cumulative.continuous
        text = f"up to {cutoff:.1f} Hz" if row.axis == "time" else f"up to {cutoff:.3f} cycles per mel band"
        kept.append((f"Modulations along {row.axis}", text))
    cost = cost_per_second(model)
    card = [
        (f"Classes of {task}", ", ".join(labels) if len(labels) <= 60 else f"{len(labels)}")
        for task, labels in model.labels.items()
    ]
    for task, score in (model.results or {}).get("tasks", {}).items():
        if task in model.labels:
            card.append(
                (f"Accuracy of {task}", f"{100 * score['accuracy']:.1f} % of {score['n']} {score['split']} clips")
            )
    card.append(("Parameters", f"{sum(p.numel() for p in model.parameters()):,}"))
    card.append(("Multiply-accumulates for a second", f"{cost.macs / 1e6:.1f} million"))
    return ({"What the network keeps": kept} if kept else {}) | {"The model": card}


class _Numbers:
    """All constants one behind the other; an array is named by where it begins and how long it is."""

    def __init__(self) -> None:
        self.parts: list[np.ndarray] = []
        self.length = 0

    def add(self, values: np.ndarray) -> list[int]:
        self.parts.append(np.asarray(values, np.float32).ravel())
        self.length += self.parts[-1].size
        return [self.length - self.parts[-1].size, self.parts[-1].size]


def _describe(model: AudioClassifier, numbers: _Numbers) -> dict[str, Any]:
    """The model as plain data, its numbers in `numbers`."""
    frontend, log_mel, features = model.frontend, None, [1, model.window_length, 1]
    if isinstance(frontend, LogMel):
        begin, end, weights = sparse_filters(frontend)
        log_mel = {
            "n_fft": fft_length(frontend, "a page"),
            "hop": frontend.hop_length,
            "n_mels": frontend.n_mels,
            "offset": LOG_OFFSET,
            "window": numbers.add(frontend.window.cpu().numpy()),
            "filters": {"begin": begin, "end": end, "weights": numbers.add(weights)},
        }
        features = [1, model.window_length // frontend.hop_length, frontend.n_mels]
    return {
        "sample_rate": frontend.sample_rate,
        "window": model.window_length,
        "tasks": {task: _task(model, task) for task in model.labels},
        "frames": frame_plan(model),
        "log_mel": log_mel,
        "input": features,
        "steps": [_step(step, numbers) for step in operations(model)],
    }


def _task(model: AudioClassifier, task: str) -> dict[str, Any]:
    """A task's classes, and what decides whether they are heard; `found`: whether its event settings are its own."""
    return {
        "kind": model.kinds[task],
        "labels": model.labels[task],
        "thresholds": model.thresholds.get(task, []),
        **model.calibration(task).as_dict(),
        "events": model.events_by(task).as_dict(),
        "found": task in model.event_settings,
    }


def _step(step: Operation, numbers: _Numbers) -> dict[str, Any]:
    kind = type(step).__name__.lower()
    found: dict[str, Any] = {"kind": kind, "sources": step.sources}
    if getattr(step, "relu", False):
        found["relu"] = True
    if isinstance(step, Convolution):
        found |= {"weight": numbers.add(step.weight), "bias": numbers.add(step.bias), "groups": step.groups}
        found |= {"outputs": len(step.bias), "kernel": step.weight.shape[2:]}
        found |= {"stride": step.stride, "padding": step.padding}
    elif isinstance(step, Affine):
        found |= {"scale": numbers.add(step.scale), "shift": numbers.add(step.shift)}
    elif isinstance(step, Matrix):
        found |= {"axis": step.axis, "size": step.matrix.shape, "matrix": numbers.add(step.matrix)}
    elif isinstance(step, Average):
        found |= {"size": step.size}
    elif isinstance(step, Pick):
        found |= {"step": step.step}
    elif isinstance(step, Reduce):
        found |= {"reduce": step.kind}
    elif isinstance(step, Head):
        found |= {"task": step.task, "weight": numbers.add(step.weight), "bias": numbers.add(step.bias)}
    return found
