"""Reading a run directory: its recipe, results, predictions, clips, and the cut-offs of its model."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from ..data.clips import Clips, Progress
from ..data.labels import label_numbers
from ..data.ripples import RATES_HZ, SCALES
from ..data.sections import RipplesData
from ..errors import ModelFileError, UsageError
from ..models.classifier import load
from ..models.cutoffs import UNITS, model_cutoffs, reference_ranges, summarise, why_no_cutoffs
from ..models.folding import survival
from ..models.log_mel import LogMel
from ..models.network import SpectrogramTrunk
from ..training.directory import PREDICTIONS_FILE, RECIPE_FILE, RESULTS_FILE, recipe_of
from ..training.evaluation import share_correct
from .measured_response import LayerResponse, layer_responses, noise_log_mel


class TaskPredictions(NamedTuple):
    """A run's predictions to the test clips of one task.

    Attributes:
        files: name of each clip.
        truth: its class.
        label: the class the model says.
        logits: float64 of shape ``(n_clips, n_classes)``, averaged over the clip's windows.
        groups: what each clip belongs to (speaker, recording); empty where the recipe names no such column.
    """

    files: list[str]
    truth: list[str]
    label: list[str]
    logits: np.ndarray
    groups: Sequence[str] = ()


def correct_shares(predictions: TaskPredictions, labels: Sequence[str], kind: str) -> list[float]:
    """How correct each clip is, from 0 to 1; their mean is the accuracy in the run's results.

    Args:
        predictions: of one task.
        labels: the classes in order.
        kind: of the task: "multiclass", "binary" or "multilabel".

    Example:
        >>> predictions = TaskPredictions(["a", "b"], ["no", "no"], ["no", "yes"], np.array([[1.0, 0.0], [0.0, 3.0]]))
        >>> correct_shares(predictions, ["no", "yes"], "multiclass")
        [1.0, 0.0]
    """
    if kind == "multiclass":
        return [float(true == said) for true, said in zip(predictions.truth, predictions.label, strict=True)]
    # The label is what the thresholds say; the accuracy does not go by them.
    clips = Clips(predictions.files, {"truth": predictions.truth}, [""] * len(predictions.files))
    truth = torch.from_numpy(label_numbers(clips, "truth", labels, kind))
    return share_correct(torch.from_numpy(predictions.logits), truth, kind).tolist()


def read_results(run_dir: Path) -> dict[str, Any]:
    """A finished run's `results.json`.

    Raises:
        ModelFileError: if the run is not finished or the file damaged.
    """
    path = run_dir / RESULTS_FILE
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelFileError(f"{path}: no such file; the run is not finished") from error
    except ValueError as error:
        raise ModelFileError(f"{path}: is not readable JSON ({error})") from error
    if not isinstance(results, dict) or not {"tasks", "seed", "macs_per_second", "parameters"} <= results.keys():
        raise ModelFileError(f"{path}: is not what a run writes")
    return results


def describe_cutoffs(
    run_dirs: Sequence[Path], seconds: float | None = None
) -> tuple[dict[str, Any], list[LayerResponse]]:
    """Cut-offs of one or more runs, what to compare them with, and the gains measured in every network.

    Args:
        run_dirs: run directories of models with the same blocks; converted one by one, then averaged.
        seconds: length of the input; None: the window of the first run.

    Returns:
        What `audiostride cutoffs --json` prints, and the measured responses of all runs.

    Raises:
        UsageError: if the runs do not fit together or the input is too short.
        ModelFileError: if a run cannot be loaded.
    """
    models = [load(run_dir) for run_dir in run_dirs]
    length = models[0].window_s if seconds is None else seconds
    for run_dir, model in zip(run_dirs, models, strict=True):
        if reason := why_no_cutoffs(model):
            raise UsageError(f"{run_dir}: {reason}")
    for key in ("downsampling", "smoothness"):
        values = {f"{model.trunk.settings[key]}" for model in models}
        if len(values) > 1:
            raise UsageError(
                f"the runs differ in {key} ({', '.join(sorted(values))}) and cannot be averaged; "
                "ask for each by itself, or give all of them to audiostride compare"
            )
    try:
        layers = summarise([model_cutoffs(model, length) for model in models])
    except ValueError as error:
        raise UsageError(str(error)) from error
    if len({json.dumps(model.frontend.settings) for model in models}) > 1:
        raise UsageError("the runs have different frontends, so that their cut-offs are not comparable")
    frontend = models[0].frontend
    responses = [
        response
        for model in models
        if isinstance(model.trunk, SpectrogramTrunk) and isinstance(model.frontend, LogMel)
        for response in layer_responses(model.trunk, noise_log_mel(model.frontend, length), model.frontend.frame_rate)
    ]
    ripples = ripple_limits(run_dirs[0]) if (run_dirs[0] / RECIPE_FILE).is_file() else {}
    found = {
        "runs": [str(run_dir) for run_dir in run_dirs],
        "seconds": length,
        "units": UNITS,
        "layers": layers,
        "references": reference_ranges(frontend) if isinstance(frontend, LogMel) else [],
        "ripples": [survival(layers, axis, fastest) for axis, fastest in ripples.items()],
        "measured": {"largest_error": max((response.error for response in responses), default=None)},
    }
    return found, responses


def read_predictions(run_dir: Path) -> dict[str, TaskPredictions]:
    """The predictions in a run's `predictions-test.csv`, by task.

    Raises:
        ModelFileError: if the file is missing or damaged.
    """
    path = run_dir / PREDICTIONS_FILE
    predictions: dict[str, TaskPredictions] = {}
    logits: dict[str, list[list[float]]] = {}
    groups: dict[str, list[str]] = {}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                task = predictions.setdefault(row["task"], TaskPredictions([], [], [], np.empty(0)))
                task.files.append(row["file"])
                task.truth.append(row["truth"])
                task.label.append(row["label"])
                groups.setdefault(row["task"], []).append(row.get("group") or "")  # once there was no such column
                logits.setdefault(row["task"], []).append([float(value) for value in row["logits"].split()])
        return {
            name: task._replace(logits=np.array(logits[name]), groups=groups[name] if all(groups[name]) else ())
            for name, task in predictions.items()
        }
    except FileNotFoundError as error:
        raise ModelFileError(f"{path}: no such file; it holds the predictions to each test clip") from error
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise ModelFileError(
            f"{path}: is not a table of predictions with the columns file, task, truth, label and logits ({error})"
        ) from error


def task_clips(run_dir: Path, task: str, progress: Progress | None = None) -> Clips:
    """All clips of the data a task was trained on, to look its test clips up by name.

    Raises:
        DataError: if the data is no longer there.
    """
    return recipe_of(run_dir).tasks[task].data.open(progress)


def ripple_limits(run_dir: Path) -> dict[str, float]:
    """The fastest ripple a run was trained to tell, on each axis its tasks ask for; empty for other data.

    Returns:
        "time" in Hz and "mel" in cycles per mel band.

    Raises:
        ModelFileError: if it is no run directory.
    """
    fastest = {"rate": ("time", max(RATES_HZ)), "scale": ("mel", max(SCALES))}
    tasks = recipe_of(run_dir).tasks.values()
    return dict(fastest[task.column] for task in tasks if isinstance(task.data, RipplesData) and task.column in fastest)
