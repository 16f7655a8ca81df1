"""One self-contained HTML page on one run: what it scored, what it learned, where it is wrong."""

import base64
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch

from . import plots
from .classifier import AudioClassifier, load
from .cnn import AudioCNN
from .complexity import trunk_cost
from .data.clips import Clips, Progress
from .display import reference_cells, ripple_sentence
from .dynamics import over_training, read_metrics
from .errors import DataError, ModelFileError
from .response import ripple_response, takes_ripples
from .run import RECIPE_FILE, RESULTS_FILE, Answers, describe_cutoffs, read_answers, task_clips

MAX_BYTES = 3_000_000
"""A report is never larger: it goes by mail."""

_MISTAKES = 12  # all tasks together
_SOUND_BYTES = 96_000  # of one mistake: 3 s at 16 kHz


def write_report(run_dir: Path, out: Path, progress: Progress | None = None) -> None:
    """Write the report of a finished run.

    Args:
        run_dir: its directory.
        out: the HTML file.
        progress: called while data is made and the network measured.

    Raises:
        ModelFileError: if a file of the run is missing or damaged.
    """
    page = gather(run_dir, progress)
    html = _render(page)
    while len(html.encode()) > MAX_BYTES and any(task["mistakes"] for task in page["tasks"]):
        max(page["tasks"], key=lambda task: len(task["mistakes"]))["mistakes"].pop()
        html = _render(page)
    out.write_text(html, encoding="utf-8")


def gather(run_dir: Path, progress: Progress | None = None) -> dict[str, Any]:
    """Everything the page shows: figures as SVG, tables as rows, sounds as data URIs."""
    model = load(run_dir)
    results = _read_results(run_dir)
    metrics = read_metrics(run_dir)
    cutoffs, responses = describe_cutoffs([run_dir])
    learned = model.trunk.settings["downsampling"] == "diffstride"
    plane = ripple_response(model, progress=progress) if takes_ripples(model.frontend) else None
    answers = read_answers(run_dir)
    each = max(2, _MISTAKES // len(answers))
    return {
        "name": run_dir.resolve().name,
        "model": model,
        "results": results,
        "summary": _summary(model, results, metrics),
        "curves": plots.svg(plots.curves_figure(metrics), "Loss and accuracy over the epochs"),
        "curve_rows": [line for line in metrics if line["split"] == "validation"],
        "dynamics": _dynamics(model, metrics) if learned else None,
        "cutoffs": cutoffs,
        "cutoff_figure": plots.svg(
            plots.cutoff_figure(cutoffs["layers"], cutoffs["references"], responses, cutoffs["ripples"]),
            "Modulations kept after each layer, beside reference ranges; masks and measured gains",
        ),
        "references": [reference_cells(row) for row in cutoffs["references"]],
        "ripples": [f"{row['modulation']:g} {row['unit']}: {ripple_sentence(row)}" for row in cutoffs["ripples"]],
        "plane": plane
        and plots.svg(
            plots.plane_figure(plane, cutoffs["layers"]),
            "Responses to ripples over rate and scale, with the pass-bands of the first and last layer",
        ),
        "tasks": [_task(run_dir, model, task, found, each, progress) for task, found in answers.items()],
        "recipe": (run_dir / RECIPE_FILE).read_text(encoding="utf-8"),
        "environment": results.get("environment", {}),
    }


def class_scores(answers: Answers, labels: Sequence[str]) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """Confusion counts and a row of scores for each class.

    Args:
        answers: of one task.
        labels: the classes in order.

    Returns:
        Counts ``(true, predicted)``; rows with "label", "clips", "precision", "recall", "f1" (None
        where undefined) and "taken_for": the class it is most often mistaken for, or "".

    Example:
        >>> answers = Answers(["a", "b", "c"], ["no", "no", "yes"], ["no", "yes", "yes"], np.zeros((3, 2)))
        >>> counts, rows = class_scores(answers, ["no", "yes"])
        >>> counts.tolist(), rows[0]["recall"], rows[0]["precision"], rows[0]["taken_for"]
        ([[1, 1], [0, 1]], 0.5, 1.0, 'yes')
    """
    number = {label: i for i, label in enumerate(labels)}
    counts = np.zeros((len(labels), len(labels)), int)
    for true, said in zip(answers.truth, answers.label, strict=True):
        counts[number[true], number[said]] += 1
    rows: list[dict[str, Any]] = []
    for i, label in enumerate(labels):
        right, n_true, n_said = int(counts[i, i]), int(counts[i].sum()), int(counts[:, i].sum())
        wrong = np.where(np.arange(len(labels)) == i, 0, counts[i])
        rows.append(
            {
                "label": label,
                "clips": n_true,
                "precision": right / n_said if n_said else None,
                "recall": right / n_true if n_true else None,
                "f1": 2 * right / (n_true + n_said) if n_true + n_said else None,
                "taken_for": labels[int(wrong.argmax())] if wrong.any() else "",
            }
        )
    return counts, rows


def worst_answers(answers: Answers, labels: Sequence[str], n: int) -> tuple[bool, list[dict[str, Any]]]:
    """The clips with the largest loss: mistakes, or where there are none the least certain right answers.

    Args:
        answers: of one task.
        labels: the classes in order.
        n: how many at most.

    Returns:
        Whether they are mistakes, and for each its file, truth, label and the probabilities of both.

    Example:
        >>> answers = Answers(["a", "b"], ["no", "no"], ["no", "yes"], np.array([[1.0, 0.0], [0.0, 3.0]]))
        >>> mistakes, (worst,) = worst_answers(answers, ["no", "yes"], 5)
        >>> mistakes, worst["file"], round(worst["p_truth"], 2)
        (True, 'b', 0.05)
    """
    number = {label: i for i, label in enumerate(labels)}
    probabilities = torch.from_numpy(answers.logits).softmax(-1).numpy()
    p_truth = np.array([row[number[true]] for row, true in zip(probabilities, answers.truth, strict=True)])
    wrong = np.array([true != said for true, said in zip(answers.truth, answers.label, strict=True)])
    among = np.flatnonzero(wrong) if wrong.any() else np.arange(len(wrong))
    worst = among[np.argsort(p_truth[among], kind="stable")][:n]
    return bool(wrong.any()), [
        {
            "file": answers.files[i],
            "truth": answers.truth[i],
            "label": answers.label[i],
            "p_truth": float(p_truth[i]),
            "p_label": float(probabilities[i, number[answers.label[i]]]),
        }
        for i in worst
    ]


def _summary(
    model: AudioClassifier, results: dict[str, Any], metrics: Sequence[dict[str, Any]]
) -> list[tuple[str, str, str]]:
    """Tiles of heading, value and remark."""
    tiles = [
        (f"test accuracy, {task}", f"{100 * score['accuracy']:.1f} %", f"{score['n']} clips")
        for task, score in results["tasks"].items()
    ]
    remark = ""
    settings = model.trunk.settings
    if settings["downsampling"] != "strided" and all(s == int(s) for pair in settings["strides"] for s in pair):
        strided = AudioCNN("strided", settings["channels"], settings["strides"])
        frames = model.frontend.sample_rate // model.frontend.hop_length
        macs = trunk_cost(strided, frames, model.frontend.n_mels).macs
        remark = f"strided convolutions: {macs / 1e6:.0f} million"
    tiles.append(
        ("multiply-accumulates per second of audio", f"{results['macs_per_second'] / 1e6:.0f} million", remark)
    )
    tiles.append(("parameters", f"{results['parameters']:,}", settings["downsampling"]))
    tiles.append(("epochs", str(metrics[-1]["epoch"]), f"{metrics[-1]['step']:,} steps, seed {results['seed']}"))
    return tiles


def _dynamics(model: AudioClassifier, metrics: Sequence[dict[str, Any]]) -> dict[str, Any]:
    points = over_training(model, metrics)
    return {
        "figure": plots.svg(plots.dynamics_figure(points), "Strides, cut-offs, striding factor and cost over training"),
        "first": points[0],
        "last": points[-1],
    }


def _task(
    run_dir: Path, model: AudioClassifier, task: str, answers: Answers, n_mistakes: int, progress: Progress | None
) -> dict[str, Any]:
    labels = model.labels[task]
    counts, rows = class_scores(answers, labels)
    mistakes, worst = worst_answers(answers, labels, n_mistakes)
    missing = ""
    try:
        clips = task_clips(run_dir, task, progress)
        number = {name: i for i, name in enumerate(clips.names)}
        for entry in worst:
            if entry["file"] in number:
                entry |= _show_clip(clips, number[entry["file"]], model, entry)
    except DataError as error:
        missing = str(error)
    return {
        "task": task,
        "confusion": plots.svg(plots.confusion_figure(counts, labels), f"Confusion matrix of {task}"),
        "classes": rows,
        "are_mistakes": mistakes,
        "mistakes": worst,
        "missing": missing,
    }


@torch.inference_mode()
def _show_clip(clips: Clips, index: int, model: AudioClassifier, entry: dict[str, Any]) -> dict[str, Any]:
    rate = model.frontend.sample_rate
    waveform = clips.read(index, rate)
    log_mel = model.frontend(torch.from_numpy(np.ascontiguousarray(waveform)).to(model.frontend.window))
    picture = plots.spectrogram_figure(log_mel[0].cpu().numpy(), model.frontend.frame_rate)
    part = waveform[: _SOUND_BYTES // 2]
    buffer = io.BytesIO()
    soundfile.write(buffer, np.clip(part, -1, 1), rate, format="WAV", subtype="PCM_16")
    return {
        "spectrogram": plots.svg(picture, f"Log-mel spectrogram of {entry['file']}"),
        "sound": "data:audio/wav;base64," + base64.b64encode(buffer.getvalue()).decode(),
        "seconds": len(waveform) / rate,
        "cut_s": len(part) / rate if len(part) < len(waveform) else None,
    }


def _read_results(run_dir: Path) -> dict[str, Any]:
    path = run_dir / RESULTS_FILE
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelFileError(f"{path}: no such file; the run is not finished") from error
    except ValueError as error:
        raise ModelFileError(f"{path}: is not readable JSON ({error})") from error


def _render(page: dict[str, Any]) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("audiostride", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    return environment.get_template("report.html").render(page)
