"""Collect finished runs into the committed results: python results/collect.py RUN_DIR...

RUN_DIR is a run directory, or a directory of them: of `audiostride train` or `sweep`.
Every run becomes one line a task of `runs.csv`; a run that is there already is replaced, so that it
can be collected again. Its resolved recipe goes to `settings/`, without seed and paths. `page.py`
writes the tables of docs/results.md from these files alone.
"""

import csv
import hashlib
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from groups import add_groups, clips_digest, groups_row, read_groups

from audiostride.analysis.finished_runs import Run, find_runs, make_run
from audiostride.errors import AudiostrideError
from audiostride.models.audio_cnn import AudioCNN
from audiostride.models.cost import model_cost
from audiostride.models.cutoffs import trunk_cutoffs
from audiostride.training.evaluation import METRICS
from audiostride.training.run_files import read_results

HERE = Path(__file__).parent
RUN_KEY = ("recipe", "task", "seed")
ENVIRONMENT = ("audiostride", "torch", "device", "processor", "threads", "processes")
SCORES = ("accuracy", "loss", "n", *METRICS)
RUN_COLUMNS = (
    "data", "task", "with", "downsampling", "smoothness", "shared_stride", "channels", "initial_strides",
    "epochs", "batch_size", "learning_rate", "stride_learning_rate", "stride_cost", "precision", "seed",
    *SCORES, "macs_per_second", "parameters", "strides", "aliasing", *ENVIRONMENT, "recipe", "clips", "right",
)  # fmt: skip


def main(paths: Sequence[Path]) -> None:
    """Add every finished run at or below `paths`, and say what was left out."""
    folders, unfinished = [], []
    for path in paths:
        found = sorted(file.parent for file in path.rglob("recipe.yaml"))
        if not found:
            raise SystemExit(f"error: {path}: holds no run")
        for folder in found:
            try:
                json.loads((folder / "results.json").read_text(encoding="utf-8"))
                folders.append(folder)
            except (FileNotFoundError, ValueError):
                unfinished.append(folder)
    runs, damaged = find_runs(folders) if folders else ([], [])
    for folder in unfinished + damaged:
        print(f"left out: {folder} is not finished", file=sys.stderr)
    rows = [row for run in runs for row in run_rows(run)]
    add_groups({clips_digest(clips): row for run in runs for clips, row in run_groups(run)})
    for row in (known := read_rows("runs.csv")):
        row["macs_per_second"] = f"{_macs(read_recipe(row['recipe']), read_strides(row)) or row['macs_per_second']}"
    rows = [*known, *rows]
    _merge(HERE / "runs.csv", RUN_COLUMNS, RUN_KEY, rows)
    print(f"collected {len(runs)} runs; now: python results/page.py")


def run_rows(run: Run) -> list[dict[str, Any]]:
    """The lines of `runs.csv` of one run, a line a task; its recipe is written to `settings/`."""
    results = read_results(Path(run.name))
    # As the run wrote it: read through today's schema, a key that came later would make it another recipe.
    recipe = portable(yaml.safe_load((Path(run.name) / "recipe.yaml").read_text(encoding="utf-8")))
    model, train, environment = recipe["model"], recipe["train"], results.get("environment", {})
    name = _write_recipe(recipe, "-".join(dict.fromkeys(_data(task) for task in recipe["tasks"].values())))
    learned = model["downsampling"] == "diffstride"
    rows = []
    for task, scores in results["tasks"].items():
        clips = sorted(run.right[task])
        rows.append(
            {
                "data": _data(recipe["tasks"][task]),
                "task": task,
                "with": " ".join(other for other in recipe["tasks"] if other != task),
                "downsampling": model["downsampling"],
                "smoothness": model["smoothness"] if learned else "",
                "shared_stride": model.get("shared_stride", "") if learned else "",
                "channels": _words(model["channels"]),
                "initial_strides": _words(model["strides"]),
                "epochs": train["epochs"],
                "batch_size": train["batch_size"],
                "learning_rate": train["learning_rate"],
                "stride_learning_rate": train["stride_learning_rate"] if learned else "",
                "stride_cost": train["stride_cost"] if learned else "",
                "precision": train.get("precision", "float32"),
                "seed": run.seed,
                **{key: scores.get(key, "") for key in SCORES},
                "macs_per_second": run.results["macs_per_second"],
                "parameters": results["parameters"],
                "strides": _words(results["strides"]),
                "aliasing": json.dumps(_rounded(results["aliasing"])) if results.get("aliasing") else "",
                **{key: environment.get(key, "") for key in ENVIRONMENT},
                "recipe": name,
                "clips": clips_digest(run.right[task]),
                "right": np.packbits([run.right[task][clip] == 1 for clip in clips]).tobytes().hex(),
            }
        )
    return rows


def run_groups(run: Run) -> Iterable[tuple[Mapping[str, str], dict[str, str]]]:
    """The test clips of a run's tasks with what they belong to, and their lines of `groups.csv`."""
    recipe = yaml.safe_load((Path(run.name) / "recipe.yaml").read_text(encoding="utf-8"))
    for task, by_clip in run.groups.items():
        section = recipe["tasks"][task]
        yield by_clip, groups_row(_data(section), section["data"]["group"], by_clip)


def portable(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """A resolved recipe without what belongs to one machine: a path is cut to the name of the data set."""
    kept = json.loads(
        json.dumps({key: value for key, value in recipe.items() if key not in ("seed", "cache", "sweep")})
    )
    for key in ("workers", "checkpoint_steps", "keep_checkpoints"):
        kept["train"].pop(key, None)
    for part in kept["tasks"].values():
        block = part["data"]
        if "path" in block and block.get("source") != "hub":
            block["path"] = Path(block["path"]).name
        if block.get("background"):
            block["background"] = Path(block["background"]).name
    return kept


def read_rows(name: str) -> list[dict[str, str]]:
    """The lines of a CSV of this folder; none if it is not there."""
    path = HERE / name
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@cache
def read_recipe(name: str) -> dict[str, Any]:
    """One of the recipes in `settings/`; it is shared: never change it."""
    return yaml.safe_load((HERE / "settings" / f"{name}.yaml").read_text(encoding="utf-8"))


def read_strides(row: Mapping[str, str]) -> list[list[float]]:
    """The strides of a line of `runs.csv`, as trained."""
    return [[float(value) for value in pair.split("x")] for pair in row["strides"].split()]


def read_runs() -> list[Run]:
    """The runs of `runs.csv`, ready for `audiostride.analysis.comparison`."""
    by_run: dict[tuple[str, str], list[dict[str, str]]] = {}
    for row in read_rows("runs.csv"):
        by_run.setdefault((row["recipe"], row["seed"]), []).append(row)
    runs, known = [], read_groups()
    for (name, seed), rows in by_run.items():
        first, recipe = rows[0], read_recipe(name)
        strides = read_strides(first)
        results = {
            "tasks": {row["task"]: {key: float(row[key]) for key in SCORES if row[key]} for row in rows},
            "macs_per_second": _macs(recipe, strides) or float(first["macs_per_second"]),
            "parameters": int(first["parameters"]),
            "strides": strides,
            "aliasing": json.loads(first.get("aliasing") or "null"),
            "seed": int(seed),
        }
        for scores in results["tasks"].values():
            scores["n"] = int(scores["n"])
        right = {row["task"]: _unpack(row) for row in rows}
        groups = {
            row["task"]: {f"{row['clips']} {i}": g for i, g in enumerate(known[row["clips"]]["groups"].split())}
            for row in rows
            if row["clips"] in known
        }
        runs.append(make_run(f"{name} {seed}", recipe, results, right, _layers(recipe, strides), groups))
    return runs


def _unpack(row: Mapping[str, str]) -> dict[str, float]:
    bits = np.unpackbits(np.frombuffer(bytes.fromhex(row["right"]), np.uint8), count=int(float(row["n"])))
    return {f"{row['clips']} {i}": bool(bit) for i, bit in enumerate(bits)}


def _layers(recipe: Mapping[str, Any], strides: Sequence[Sequence[float]]) -> list[Any]:
    """Cut-offs for an input of one window; they follow from strides and settings, not from the weights."""
    if recipe["model"]["name"] != "audio_cnn" or recipe["model"]["downsampling"] == "strided":
        return []
    frontend = recipe["frontend"]
    return trunk_cutoffs(_trunk(recipe, strides), _frames(recipe), frontend["n_mels"], 1000 / frontend["hop_ms"])


def _macs(recipe: Mapping[str, Any], strides: Sequence[Sequence[float]]) -> int | None:
    """Multiply-accumulates per second of audio, counted by today's rule for every run alike."""
    if recipe["model"]["name"] != "audio_cnn":
        return None
    spectrogram = torch.zeros(1, 1, _frames(recipe), recipe["frontend"]["n_mels"])
    cost = model_cost(_trunk(recipe, strides), spectrogram)
    return round(cost.macs / recipe.get("window_s", 1.0))


def _frames(recipe: Mapping[str, Any]) -> int:
    """Frames of a window; it had one second before recipes could say so."""
    return round(1000 * recipe.get("window_s", 1.0) / recipe["frontend"]["hop_ms"])


def _trunk(recipe: Mapping[str, Any], strides: Sequence[Sequence[float]]) -> AudioCNN:
    model = recipe["model"]
    settings = {key: model[key] for key in ("downsampling", "channels", "smoothness", "shared_stride")}
    # With either, convolutions run at full resolution; where alpha stands now makes no difference to the cost.
    settings["pool_after_relu"] = model.get("pool_after_relu", False) or isinstance(model.get("aliasing"), list)
    whole = model["downsampling"] == "strided"
    return AudioCNN(**settings, strides=[[int(s) for s in pair] for pair in strides] if whole else strides)


def _merge(path: Path, columns: Sequence[str], key: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    merged = {tuple(row[name] for name in key): row for row in read_rows(path.name)}
    merged |= {tuple(str(row[name]) for name in key): row for row in rows}
    if not merged:
        return
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, columns, lineterminator="\n")
        table.writeheader()
        table.writerows(row for _, row in sorted(merged.items(), key=lambda item: _order(item[0])))


def _order(key: Sequence[str]) -> list[Any]:
    *others, seed = key
    return [*others, int(seed)]


def _write_recipe(recipe: Mapping[str, Any], data: str) -> str:
    """Write a recipe under a name that follows from its content, and return the name."""
    text = yaml.safe_dump(dict(recipe), sort_keys=False, default_flow_style=None, width=100)
    digest = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:8]
    name = f"{data}-{recipe['model']['downsampling']}-{digest}"
    (HERE / "settings").mkdir(exist_ok=True)
    (HERE / "settings" / f"{name}.yaml").write_text(text, encoding="utf-8")
    return name


def _data(task: Mapping[str, Any]) -> str:
    data = task["data"]
    return Path(str(data.get("path", data["source"]))).name


def _rounded(values: Any) -> Any:
    """Nested lists of numbers with four digits."""
    return [_rounded(value) for value in values] if isinstance(values, list) else round(values, 4)


def _words(values: Sequence[Any]) -> str:
    """Numbers, or pairs of numbers, as words, "-" for none: "2x2 1.5x1"."""
    pairs = ([] if value is None else value if isinstance(value, list) else [value] for value in values)
    return " ".join("x".join(f"{v:.8g}" for v in pair) or "-" for pair in pairs)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    try:
        main([Path(argument) for argument in sys.argv[1:]])
    except AudiostrideError as error:
        raise SystemExit(f"error: {error}") from error
