"""One run on images, or a sweep of them: a recipe in, run directories and a table out."""

import csv
import io
import json
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from ..data.images import ImageSet, Progress, Views, read_images
from ..errors import RecipeError, UsageError
from ..files import replace_file
from ..layers.conversion import RandomStrides
from ..models.converted import ConvertedTrunk
from ..models.cost import model_cost
from ..models.resnet import ResNet
from .directory import PREDICTIONS_FILE, RECIPE_FILE, RESULTS_FILE
from .image_loop import ImageClassifier, image_logits, share_correct, train_images
from .image_recipe import ConvertedModel, ImageData, ImageRecipe, plan_runs
from .recipe import dump_recipe
from .setup import environment


def run_images(
    recipe: ImageRecipe,
    out: Path,
    progress: Progress | None = None,
    on_epoch: Callable[[dict[str, Any]], None] | None = None,
) -> list[dict[str, Any]]:
    """Train a recipe, or each run of its sweep in a directory of its own; a finished run is not repeated.

    Leaves `recipe.yaml`, `metrics.jsonl`, `model.safetensors`, `predictions-test.csv` and, last of all,
    `results.json` in each run directory.

    Args:
        recipe: from `load_image_recipe`.
        out: the run directory.
        progress: progress callback.
        on_epoch: called with each line of `metrics.jsonl`.

    Returns:
        The content of every `results.json`.

    Raises:
        RecipeError, DataError, TrainingError: each says what is wrong and where.
        UsageError: if `out` holds runs of another recipe, or a package is missing.
    """
    if find_spec("PIL") is None:
        raise UsageError("images need the package pillow: pip install 'audiostride[images]'")
    runs = plan_runs(recipe)
    for name, run in runs.items():  # whatever is wrong with one of them is an error before hours of work
        make_trunk(run)
        before = out / name / RECIPE_FILE
        if before.exists() and before.read_text(encoding="utf-8") != dump_recipe(run):
            raise UsageError(f"{out / name}: holds a run of another recipe; give another --out")
    data: ImageData | None = None
    results = []
    for name, run in runs.items():
        folder = out / name
        if not (folder / RESULTS_FILE).exists():
            if run.data != data:
                data, workers = run.data, run.train.workers
                splits = read_images(data.path)
                train, test = (Views(images, data.size, data.crop, workers, progress) for images in splits)
            folder.mkdir(parents=True, exist_ok=True)
            replace_file(folder / RECIPE_FILE, dump_recipe(run))
            result = _run_one(run, train, test, folder, progress, on_epoch)
            replace_file(folder / RESULTS_FILE, json.dumps(result, indent=1) + "\n")
        results.append(json.loads((folder / RESULTS_FILE).read_text(encoding="utf-8")))
    return results


def summarise_images(results: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean over seeds of runs with the same downsampling and initial strides, the published score beside.

    Args:
        results: of `run_images`.

    Returns:
        A dictionary per kind of downsampling and start: "downsampling", "initial_strides", "n",
        "accuracy" and "accuracy_sd" (n - 1; None for one run) in percent, "mmacs" of one image,
        "strides" (mean of the learned ones), "published" (percent, or None).
    """
    groups: dict[str, list[dict[str, Any]]] = {}
    for result in results:
        groups.setdefault(json.dumps([result["downsampling"], result["initial_strides"]]), []).append(result)
    rows = []
    for runs in groups.values():
        accuracies = [100 * run["test_accuracy"] for run in runs]
        rows.append(
            {
                "downsampling": runs[0]["downsampling"],
                "initial_strides": runs[0]["initial_strides"],
                "n": len(runs),
                "accuracy": float(np.mean(accuracies)),
                "accuracy_sd": float(np.std(accuracies, ddof=1)) if len(runs) > 1 else None,
                "mmacs": float(np.mean([run["macs"] for run in runs])) / 1e6,
                "strides": np.mean([run["strides"] for run in runs], axis=0).round(3).tolist(),
                "published": runs[0]["published"],
            }
        )
    return rows


def _run_one(
    recipe: ImageRecipe,
    train: Views,
    test: Views,
    folder: Path,
    progress: Progress | None,
    on_epoch: Callable[[dict[str, Any]], None] | None,
) -> dict[str, Any]:
    torch.manual_seed(recipe.seed)
    trunk = make_trunk(recipe)
    drawn = recipe.model.strides is None or recipe.model.random_strides is not None
    initial = trunk.strides() if drawn else recipe.model.strides
    model = ImageClassifier(trunk, train.images.classes, *train.colours())
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    settings = recipe.train.model_dump(exclude={"workers"})
    last = train_images(model, train, test, folder, **settings, seed=recipe.seed, progress=progress, on_epoch=on_epoch)
    weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    replace_file(folder / "model.safetensors", safetensors.torch.save(weights))
    logits = image_logits(model, test, recipe.train.batch_size)
    _write_predictions(folder / PREDICTIONS_FILE, test.images, logits)
    cost = model_cost(model, torch.zeros(1, recipe.data.size, recipe.data.size, 3, dtype=torch.uint8))
    return {
        "downsampling": recipe.model.downsampling,
        "initial_strides": initial,
        "seed": recipe.seed,
        "test_accuracy": share_correct(logits, test),
        "n_train": len(train.images.labels),
        "n_test": len(test.images.labels),
        "epochs": recipe.train.epochs,
        "macs": cost.macs,
        "parameters": cost.parameters,
        "strides": last["strides"],
        "published": recipe.published_score(),
        "environment": environment(),
    }


def make_trunk(recipe: ImageRecipe) -> ResNet | ConvertedTrunk:
    """The network of a recipe at its initial strides, to load saved weights into.

    Raises:
        RecipeError: if its settings contradict each other.
    """
    model = recipe.model
    settings = model.model_dump(exclude={"random_strides"})
    drawn = model.random_strides and RandomStrides(model.random_strides.low, model.random_strides.high, recipe.seed)
    try:
        if isinstance(model, ConvertedModel):
            return ConvertedTrunk(**settings | {"strides": drawn or model.strides})
        if drawn:
            places = drawn.draw([2] * len(model.strides), model.shared_stride)
            settings["strides"] = [own and new for own, new in zip(model.strides, places, strict=True)]
        return ResNet(**{key: value for key, value in settings.items() if key != "name"}, in_channels=3)
    except ValueError as error:
        raise RecipeError(f"model: {error}") from error


def _write_predictions(path: Path, images: ImageSet, logits: Tensor) -> None:
    """The table that a run on sounds leaves, too; the task is called "label"."""
    text = io.StringIO()
    table = csv.writer(text)
    table.writerow(["file", "task", "truth", "label", "logits"])
    for name, number, row in zip(images.names, images.labels, logits, strict=True):
        values = " ".join(f"{value:.5g}" for value in row.tolist())
        table.writerow([name, "label", images.classes[number], images.classes[int(row.argmax())], values])
    replace_file(path, text.getvalue())
