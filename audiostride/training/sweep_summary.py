"""The runs of a sweep over downsampling and initial strides in a table: means over seeds, next to published scores."""

import json
from collections.abc import Iterable
from typing import Any

import numpy as np

from .recipe import Recipe


def summarise(runs: Iterable[tuple[Recipe, dict[str, Any]]]) -> list[dict[str, Any]]:
    """Mean over seeds of runs with the same downsampling and initial strides, next to the published score.

    Args:
        runs: recipe and `results.json` of each run; it has one task.

    Returns:
        A dictionary per kind of downsampling and start: "downsampling", "initial_strides" (those
        of the recipe, or "its own"), "n", "accuracy" and "accuracy_sd" (n - 1; None for one run) in percent, "mmacs" of
        one image,
        "strides" (mean of the learned ones), "published" (percent, or None).
    """
    groups: dict[str, list[tuple[Recipe, dict[str, Any]]]] = {}
    for recipe, results in runs:
        key = json.dumps([_kind(recipe), _initial_strides(recipe)])
        groups.setdefault(key, []).append((recipe, results))
    rows = []
    for group in groups.values():
        first, found = group[0][0], [results for _, results in group]
        accuracies = [100 * next(iter(results["tasks"].values()))["accuracy"] for results in found]
        rows.append(
            {
                "downsampling": _kind(first),
                "initial_strides": _initial_strides(first),
                "n": len(found),
                "accuracy": float(np.mean(accuracies)),
                "accuracy_sd": float(np.std(accuracies, ddof=1)) if len(found) > 1 else None,
                "mmacs": float(np.mean([results["macs_per_second"] for results in found])) / 1e6,
                "strides": np.mean([results["strides"] for results in found], axis=0).round(3).tolist(),
                "published": first.published_score(),
            }
        )
    return rows


def _kind(recipe: Recipe) -> str:
    settings = getattr(recipe.model, "settings", {"downsampling": getattr(recipe.model, "downsampling", "")})
    return f"{recipe.model.source or ''} {settings.get('downsampling', '')}".strip()


def _initial_strides(recipe: Recipe) -> Any:
    strides = getattr(recipe.model, "strides", None)
    return "its own" if strides is None else strides
