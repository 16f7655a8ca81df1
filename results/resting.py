"""Do moving strides stand in the way? Pitch with strides that move to the end, and that rest for the last third.

    python results/resting.py DIR [KEY=VALUE...] [--seeds 0 1 2] [--out resting.csv] [--runs FOLDER]

DIR is the folder of notes, as for `results/recipes/notes_pitch.yaml`, whose plain DiffStride (R = 1) this trains. Each
model is tested twice: as it was kept, and with the running statistics of its batch norms recomputed from an epoch of
training clips, at the strides that it has now. A finished run is not repeated. `page.py` shows the CSV in
docs/results.md.
"""

import argparse
import csv
import itertools
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.optim.swa_utils import update_bn

from audiostride import AudioCNN, load
from audiostride.data.batches import training_batches
from audiostride.layers.strides import diffstride_layers
from audiostride.training.build import read_data
from audiostride.training.evaluation import evaluate
from audiostride.training.recipe import Recipe, load_recipe
from audiostride.training.report import Report
from audiostride.training.run import run

HERE = Path(__file__).parent
RECIPE = HERE / "recipes" / "notes_pitch.yaml"


class RestingStrides(AudioCNN):
    """An `AudioCNN` whose strides rest after some training steps; None: never."""

    def __init__(self, rest_after: int | None = None, **settings: Any):
        super().__init__(**settings)
        self.rest_after, self.steps = rest_after, 0

    def forward(self, log_mel: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.steps += 1
            if self.steps == self.rest_after:
                for pool in diffstride_layers(self):
                    pool.stride.requires_grad_(False)
        return super().forward(log_mel)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("overrides", nargs="*", help="of the recipe, such as cache=DIR")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=HERE / "resting.csv")
    parser.add_argument("--runs", type=Path, default=Path("runs/resting"))
    args = parser.parse_args()
    rows = []
    for seed in args.seeds:
        for share in (None, 2 / 3):
            recipe = _recipe([f"tasks.pitch.data.path={args.data}", f"seed={seed}", *args.overrides], share)
            folder = args.runs / f"{'moving' if share is None else 'resting'}-{seed}"
            if not (folder / "results.json").is_file():
                report = Report(on_epoch=lambda record: print(record, file=sys.stderr))
                run(recipe, folder, report, resume=folder.is_dir())
            rows.append(_row(recipe, folder, share))
    with args.out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _recipe(overrides: Sequence[str], share: float | None) -> Recipe:
    plain = load_recipe(str(RECIPE), overrides)
    (notes, *_), _, _ = read_data(plain)
    steps = plain.train.epochs * -(-len(notes.indexes("train")) // plain.train.batch_size)
    settings = plain.model.model_dump(include={"downsampling", "channels", "strides", "smoothness"})
    settings["rest_after"] = None if share is None else round(share * steps)
    model = {"name": "custom", "trunk": "resting:RestingStrides", "settings": settings}
    return load_recipe(str(RECIPE), [*overrides, f"model={json.dumps(model)}"])


def _row(recipe: Recipe, folder: Path, share: float | None) -> dict[str, Any]:
    model = load(folder)
    (notes, *_), _, _ = read_data(recipe)
    kept = _accuracy(model, notes)
    batches = training_batches(
        [notes], model.resolution, model.window_length, recipe.train.batch_size, "uniform", recipe.seed, 0, 0
    )
    update_bn((batch.waveform for batch in batches), model)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    watched = [line["tasks"]["pitch"]["accuracy"] for line in lines if line["split"] == "validation"]
    falls = [max(0.0, before - after) for before, after in itertools.pairwise(watched)]
    return {
        "strides": "move" if share is None else "rest for the last third",
        "seed": recipe.seed,
        "accuracy": f"{kept:.4f}",
        "recomputed": f"{_accuracy(model, notes):.4f}",
        "largest_fall": f"{max(falls):.4f}",
        "torch": torch.__version__,
    }


def _accuracy(model: Any, notes: Any) -> float:
    scores, _ = evaluate(model, notes.clips, notes.labels, notes.indexes("test"))
    return scores["pitch"].accuracy


if __name__ == "__main__":
    main()
