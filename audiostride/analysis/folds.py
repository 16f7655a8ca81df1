"""The scores of a cross-validation: of each fold, their mean and sd, and of all clips, each tested once."""

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import UsageError
from ..files import replace_file
from ..models.classifier import load
from ..training.predictions_file import correct_shares, read_predictions
from ..training.run_files import read_results, recipe_of
from .significance import accuracy_interval


def summarise_folds(run_dirs: Sequence[Path]) -> dict[str, Any]:
    """Scores of the finished runs of a cross-validation, one for each fold.

    The mean is over folds, each with the same weight, and the sd (n - 1) is of the folds. Pooled is the
    accuracy over all clips, each as the one run that was not trained on it says. Its 95 % interval comes
    from 10,000 resamples of groups of clips, see `significance`: it covers other clips of the same kind, for the
    models as they were trained. Loss, AUC and the like are not pooled, since logits of different models do not compare
    (Forman & Scholz 2010, Apples-to-apples in cross-validation studies).

    Args:
        run_dirs: run directories, in the order of the folds.

    Returns:
        For each task "folds" ("fold", "run" and its metrics), "mean" and "sd" of each metric that all folds
        have, and "pooled" ("accuracy", "low", "high" from 0 to 1, "clips", "groups"; no interval for a single group).

    Raises:
        UsageError: if a run is of no fold, or two are of the same.
        ModelFileError: if a run is not finished, or one of its files damaged.
    """
    tasks: dict[str, list[dict[str, Any]]] = {}
    right: dict[str, list[tuple[float, str]]] = {}
    for run_dir in run_dirs:
        recipe, results, labels = recipe_of(run_dir), read_results(run_dir), load(run_dir).labels
        for name, predictions in read_predictions(run_dir).items():
            fold = recipe.tasks[name].data.test_fold
            if fold is None or fold.value in [row["fold"] for row in tasks.get(name, [])]:
                raise UsageError(f"{run_dir}: is not the run of a separate fold; give the runs of one crossval")
            metrics = {key: value for key, value in results["tasks"][name].items() if key != "split"}
            tasks.setdefault(name, []).append({"fold": fold.value, "run": run_dir.name} | metrics)
            shares = correct_shares(predictions, labels[name], recipe.tasks[name].kind)
            known = zip(shares, predictions.groups or predictions.files, strict=True)
            right.setdefault(name, []).extend((share, group) for share, group in known if share == share)  # no NaN
    return {
        "tasks": {
            name: {"folds": rows} | _mean_and_sd(rows) | {"pooled": accuracy_interval(*zip(*right[name], strict=True))}
            for name, rows in tasks.items()
        }
    }


def write_folds(file: Path, found: Mapping[str, Any]) -> None:
    """Write what `summarise_folds` found, as JSON."""
    replace_file(file, json.dumps(found, indent=1) + "\n")


def _mean_and_sd(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float | None]]:
    metrics = [key for key in rows[0] if key not in ("fold", "run", "n") and all(key in row for row in rows)]
    values = {key: [row[key] for row in rows] for key in metrics}
    return {
        "mean": {key: statistics.fmean(values[key]) for key in metrics},
        "sd": {key: statistics.stdev(values[key]) if len(rows) > 1 else None for key in metrics},
    }
