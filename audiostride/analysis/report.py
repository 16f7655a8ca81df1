"""One self-contained HTML page on one run: what it scored, what it learned, where it is wrong."""

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from torch import nn

from ..data.clips import Clips, Progress
from ..errors import DataError, printable
from ..files import check_new, read_bounded, replace_file
from ..models.adaptive_log_mel import default_log_mel
from ..models.classifier import AudioClassifier, load
from ..models.cost import cost_per_second
from ..models.network import spectrogram_cnn
from ..training.directory import RECIPE_FILE
from ..training.evaluation import METRICS
from ..training.predictions_file import TaskPredictions, read_predictions
from ..training.run_files import read_metrics, read_results, recipe_of
from .confidence import confidence
from .cutoff_plots import cutoff_figure, plane_figure
from .learning_dynamics import over_training, watched_split
from .measured_response import ripple_response, takes_ripples
from .mistakes import class_scores, confusion, worst_predictions
from .plot_style import svg
from .recording_view import LEFT, RIGHT, reasons, show_recordings
from .result_plots import confusion_figure, reliability_figure, spectrogram_figure
from .run_cutoffs import describe_cutoffs, task_clips
from .training_plots import curves_figure, dynamics_figure
from .wording import confidence_sentence, folding_sentence, reference_cells, resolution_sentence, ripple_sentence

MAX_BYTES = 3_000_000
"""A report is never larger: it goes by mail."""

_TITLE = b"audiostride report</title>"
_MISTAKES = 12  # all tasks together
_SOUND_BYTES = 96_000  # of one mistake: 3 s at 16 kHz


def write_report(
    run_dir: Path, out: Path, progress: Progress | None = None, fetch: bool = False, events: Path | None = None
) -> None:
    """Write the report of a finished run.

    Args:
        run_dir: its directory.
        out: the HTML file; an older report there is replaced.
        progress: called while data is made and the network measured.
        fetch: let the recipe of the run download its data and write where it says, so that sounds can be shown.
        events: a folder of annotated recordings, in which events are found and scored.

    Raises:
        ModelFileError: if a file of the run is missing or damaged.
        UsageError: if there is something else at `out`.
    """
    if not (out.is_file() and _TITLE in read_bounded(out, 2 * MAX_BYTES)[:5000]):
        check_new(out)
    page = gather(run_dir, progress, fetch, events)
    html = _render(page)
    while len(html.encode()) > MAX_BYTES and any(task["mistakes"] for task in page["tasks"]):
        max(page["tasks"], key=lambda task: len(task["mistakes"]))["mistakes"].pop()
        html = _render(page)
    replace_file(out, html)


def gather(
    run_dir: Path, progress: Progress | None = None, fetch: bool = False, events: Path | None = None
) -> dict[str, Any]:
    """Everything the page shows: figures as SVG, tables as rows, sounds as data URIs."""
    model = load(run_dir)
    frontend, _ = spectrogram_cnn(model, "the report")
    results = read_results(run_dir)
    metrics = read_metrics(run_dir)
    cutoffs, responses = describe_cutoffs([run_dir])
    learned = model.trunk.settings["downsampling"] == "diffstride"
    plane = ripple_response(model, progress=progress) if takes_ripples(frontend) else None
    predictions = read_predictions(run_dir, model)
    each = max(2, _MISTAKES // len(predictions))
    recipe, watched = recipe_of(run_dir), watched_split(metrics)
    initial = None if recipe.model.init else model.trunk.settings["strides"]
    return {
        "name": run_dir.resolve().name,
        "model": model,
        "results": results,
        "lead": _lead(model, results, recipe.train.keep),
        "summary": _summary(model, results, metrics),
        "resolution": _resolution(run_dir, model, predictions, progress, fetch),
        "curves": svg(curves_figure(metrics), "Loss and accuracy over the epochs"),
        "watched": watched,
        "keep": recipe.train.keep,
        "curve_rows": [line for line in metrics if line["split"] == watched],
        "dynamics": _dynamics(model, metrics, initial) if learned else None,
        "cutoffs": cutoffs,
        "downsampling": model.trunk.settings["downsampling"],
        "cutoff_figure": svg(
            cutoff_figure(cutoffs["layers"], cutoffs["references"], responses, cutoffs["ripples"]),
            "Modulations kept after each layer, next to reference ranges; masks and measured gains",
        ),
        "references": [reference_cells(row) for row in cutoffs["references"]],
        "folded": list(filter(None, map(folding_sentence, cutoffs["layers"]))),
        "ripples": [f"{row['modulation']:g} {row['unit']}: {ripple_sentence(row)}" for row in cutoffs["ripples"]],
        "plane": plane
        and svg(
            plane_figure(plane, cutoffs["layers"]),
            "Responses to ripples over rate and scale, with the pass-bands of the first and last layer",
        ),
        "tasks": [_task(run_dir, model, task, found, each, progress, fetch) for task, found in predictions.items()],
        "events": _events(model, events, progress) if events else None,
        "recipe": (run_dir / RECIPE_FILE).read_text(encoding="utf-8"),
        "environment": results.get("environment", {}),
    }


def _lead(model: AudioClassifier, results: dict[str, Any], keep: str) -> str:
    """What this is, in a sentence or two."""
    settings = model.trunk.settings
    kinds = {
        "strided": "whose strided convolutions have no strides to learn",
        "spectral": "with spectral pooling at fixed strides",
        "diffstride": "that learned its strides (DiffStride, R = {smoothness:g}{shared})",
    }
    shared = ", one for both axes" if settings.get("shared_stride") else ""
    kind = kinds[settings["downsampling"]].format(smoothness=settings["smoothness"], shared=shared)
    tasks = ", ".join(f"{task} ({len(labels)} classes)" for task, labels in model.labels.items())
    clips = sum(score["n"] for score in results["tasks"].values()) // len(results["tasks"])
    unused = "in training or to choose the best epoch" if keep == "best" else "in training"
    return (
        f"A mel-spectrogram network {kind}, trained for {tasks}. Scores below are on {clips:,} test clips that "
        f"were not used {unused}."
    )


def _summary(
    model: AudioClassifier, results: dict[str, Any], metrics: Sequence[dict[str, Any]]
) -> list[tuple[str, str, str]]:
    """Tiles of heading, value and remark."""
    tiles = [
        (
            f"test accuracy, {task}",
            f"{100 * score['accuracy']:.1f} %",
            ", ".join(
                [
                    f"{score['n']:,} clips",
                    *(f"{metric.short} {score[name]:.3f}" for name, metric in METRICS.items() if name in score),
                ]
            ),
        )
        for task, score in results["tasks"].items()
    ]
    remark = ""
    settings = model.trunk.settings
    if settings["downsampling"] != "strided" and all(s == int(s) for pair in settings["strides"] for s in pair):
        _, trunk = spectrogram_cnn(model, "the report")
        plain = {"downsampling": "strided", "aliasing": None, "pool_after_relu": False}
        strided = type(trunk)(**(settings | {key: plain[key] for key in plain.keys() & settings.keys()}))
        macs = cost_per_second(model, strided).macs
        remark = f"{macs / 1e6:.3g} million with strided convolutions"
    cost = cost_per_second(model).macs
    tiles.append(("multiply-accumulates per second of audio", f"{cost / 1e6:.3g} million", remark))
    tiles.append(("parameters", f"{results['parameters']:,}", settings["downsampling"]))
    kept = [line["epoch"] for line in metrics if line["split"] != "train" and line["strides"] == results["strides"]]
    which = f"; the model is from epoch {kept[0]}" if len(kept) == 1 else ""
    tiles.append(("epochs", str(metrics[-1]["epoch"]), f"{metrics[-1]['step']:,} steps, seed {results['seed']}{which}"))
    return tiles


def _dynamics(
    model: AudioClassifier, metrics: Sequence[dict[str, Any]], initial: Sequence[Sequence[float]] | None
) -> dict[str, Any]:
    points = over_training(model, metrics, initial)
    return {
        "figure": svg(dynamics_figure(points), "Strides, cut-offs, striding factor and cost over training"),
        "first": points[0],
        "last": points[-1],
    }


def _task(
    run_dir: Path,
    model: AudioClassifier,
    task: str,
    predictions: TaskPredictions,
    n_mistakes: int,
    progress: Progress | None,
    fetch: bool,
) -> dict[str, Any]:
    labels, kind = model.labels[task], model.kinds[task]
    mistakes, worst = worst_predictions(predictions, labels, n_mistakes, kind, model.calibration(task).temperature)
    missing = ""
    try:
        clips = task_clips(run_dir, task, progress, fetch)
        number = {clips.title(i): i for i in range(len(clips))}
        for entry in worst:
            if entry["file"] in number:
                entry |= _show_clip(clips, number[entry["file"]], model, task, entry)
    except DataError as error:
        missing = str(error)
    believed = confidence(predictions, model, task)
    return {
        "task": task,
        "confidence": believed | {"sentence": confidence_sentence(believed)},
        "reliability": svg(reliability_figure(believed["bins"]), f"Reliability diagram of {task}"),
        "confusion": None
        if kind == "multilabel"
        else svg(confusion_figure(confusion(predictions, labels), labels), f"Confusion matrix of {task}"),
        "classes": class_scores(predictions, labels, kind),
        "are_mistakes": mistakes,
        "mistakes": worst,
        "missing": missing,
    }


@torch.inference_mode()
def _show_clip(clips: Clips, index: int, model: AudioClassifier, task: str, entry: dict[str, Any]) -> dict[str, Any]:
    rate = model.sample_rate
    waveform = clips.read(index, rate)
    why = reasons(model, task, waveform, entry["truth"], entry["label"])
    part = waveform[: _SOUND_BYTES // 2]
    return {
        "spectrogram": _spectrogram(model, model.frontend, waveform, f"Log-mel spectrogram of {entry['file']}", why),
        "why": why is not None,
        "sound": _data_uri(part, rate),
        "seconds": len(waveform) / rate,
        "cut_s": len(part) / rate if len(part) < len(waveform) else None,
    }


def _spectrogram(
    model: AudioClassifier,
    frontend: nn.Module,
    waveform: np.ndarray,
    description: str,
    why: tuple[np.ndarray, np.ndarray] | None = None,
) -> str:
    """What a frontend makes of a sound, as SVG, and below it why it was taken for what it is not."""
    log_mel = frontend(model.take(torch.from_numpy(np.ascontiguousarray(waveform))))
    return svg(spectrogram_figure(log_mel[0].cpu().numpy(), len(waveform) / model.sample_rate, why), description)


@torch.inference_mode()
def _resolution(
    run_dir: Path,
    model: AudioClassifier,
    predictions: dict[str, TaskPredictions],
    progress: Progress | None,
    fetch: bool,
) -> dict[str, Any] | None:
    """The resolution that was learned, and a second of a test clip at the default one and at this one."""
    frontend, _ = spectrogram_cnn(model, "the report")
    tile = frontend.tile(model.window_length)
    if tile is None:
        return None
    found: dict[str, Any] = {"sentence": resolution_sentence(tile), "pictures": []}
    (task, own), *_ = predictions.items()
    try:
        clips = task_clips(run_dir, task, progress, fetch)
    except DataError:
        return found  # as with the sounds of the mistakes, which say why
    index = next((i for i in range(len(clips)) if clips.title(i) == own.files[0]), None)
    if index is not None:
        second = clips.read(index, model.sample_rate)[: model.sample_rate]
        default = default_log_mel(frontend).to(frontend.window.device)
        for what, part in (("default", default), ("learned", frontend)):
            found["pictures"].append(
                (f"{what}: {own.files[0]}", _spectrogram(model, part, second, f"{what} resolution"))
            )
    return found


def _events(model: AudioClassifier, folder: Path, progress: Progress | None) -> dict[str, Any]:
    scores, shown = show_recordings(model, folder, progress=progress)
    recordings = [one | {"sound": _data_uri(one.pop("waveform"), model.sample_rate)} for one in shown]
    return {"scores": scores, "recordings": recordings, "left": LEFT, "width": RIGHT - LEFT}


def _data_uri(waveform: np.ndarray, sample_rate: int) -> str:
    buffer = io.BytesIO()
    soundfile.write(buffer, np.clip(waveform, -1, 1), sample_rate, format="WAV", subtype="PCM_16")
    return "data:audio/wav;base64," + base64.b64encode(buffer.getvalue()).decode()


def _shown(value: Any) -> Any:
    """A label or name as it can be shown on a page; what the page is made of stays as it is."""
    return printable(value, keep="\n\t") if type(value) is str else value


def _render(page: dict[str, Any]) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("audiostride.analysis", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, finalize=_shown,
    )  # fmt: skip
    return environment.get_template("report.html").render(page)
