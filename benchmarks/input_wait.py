"""How long training waits for its data, and how fast a whole run is beside its bare step.

    python benchmarks/input_wait.py ../shared/data/commands --out benchmarks/input_wait.csv

Trains the recipe `folder` (narrow network, DiffStride with R = 1, batches of 64) with and without the
decoded cache, and with none and two decoding processes. The time from asking for a batch to having it
is counted as waiting, the start of the decoding processes included; validation is left out of both, and so
is the first epoch, which fills the cache. The bare step is forward, loss, backward, optimizer and clamp on batches
that are in memory already. Strides all but stand still, so that both work on maps of one size.
"""

import argparse
import csv
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from audiostride import clamp_strides_, parameter_groups
from audiostride.data.batches import TrainingBatch, training_batches
from audiostride.models.classifier import AudioClassifier
from audiostride.training import loop as training
from audiostride.training.build import make_frontend, make_trunk, read_data
from audiostride.training.evaluation import task_loss
from audiostride.training.recipe import Recipe, load_recipe
from audiostride.training.transforms import make_transforms


def fresh_model(recipe: Recipe, labels: dict[str, list[str]]) -> AudioClassifier:
    """The recipe's model with its first weights."""
    torch.manual_seed(recipe.seed)
    return AudioClassifier(make_frontend(recipe), make_trunk(recipe), labels)


def whole_run(recipe: Recipe, sets: Any, labels: dict[str, list[str]], out: Path) -> dict[str, float]:
    """Train and measure the loop: seconds in all, seconds of waiting, clips."""
    waited = total = 0.0
    clips = epochs = 0

    def timed(*arguments: Any, **options: Any) -> Iterator[TrainingBatch]:
        nonlocal waited, total, clips, epochs
        epochs += 1
        if epochs == 2:
            waited, total, clips = 0.0, 0.0, 0
        began = time.perf_counter()
        before, batches = total, training_batches(*arguments, **options)
        while True:
            asked = time.perf_counter()
            total = before + asked - began
            batch = next(batches, None)
            if batch is None:
                return
            waited += time.perf_counter() - asked
            clips += len(batch.names)
            yield batch

    training.training_batches = timed  # the loop itself is the one that users run
    try:
        training.train(fresh_model(recipe, labels), sets, out, recipe.train, augmentation=make_transforms(recipe))
    finally:
        training.training_batches = training_batches
    return {"clips": clips, "loop_s": total, "wait_s": waited}


def bare_step(recipe: Recipe, sets: Any, labels: dict[str, list[str]], steps: int) -> float:
    """Clips a second of training steps on batches in memory."""
    model = fresh_model(recipe, labels).train()
    optimizer = torch.optim.Adam(parameter_groups(model, recipe.train.learning_rate, recipe.train.stride_learning_rate))
    rate, length, size = model.frontend.sample_rate, model.window_length, recipe.train.batch_size
    batches = list(training_batches(sets, rate, length, size, "uniform", 0, 0, workers=0))[:16]
    clips, began = 0, 0.0
    for step in range(-5, steps):
        if step == 0:
            clips, began = 0, time.perf_counter()
        batch = batches[step % len(batches)]
        optimizer.zero_grad(set_to_none=True)
        logits = model(batch.waveform, tuple(batch.labels))
        torch.stack([task_loss(logits[task], numbers) for task, numbers in batch.labels.items()]).sum().backward()
        optimizer.step()
        clamp_strides_(model)
        clips += len(batch.names)
    return clips / (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", type=Path, help="folder of clips of about a second")
    parser.add_argument("--epochs", type=int, default=2, help="two or more")
    parser.add_argument("--bare-steps", type=int, default=40)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".csv"))
    arguments = parser.parse_args()
    results = []
    with tempfile.TemporaryDirectory() as scratch:
        for cached, workers in ((True, 0), (True, 2), (False, 0), (False, 2)):
            overrides = [f"tasks.label.data.path={arguments.data}", f"train.epochs={arguments.epochs}"]
            overrides += ["train.stride_learning_rate=1e-9"]
            overrides += [f"train.workers={workers}", *([f"cache={scratch}/cache"] if cached else [])]
            recipe = load_recipe("folder", overrides)
            sets, labels, _ = read_data(recipe)
            bare = [bare_step(recipe, sets, labels, arguments.bare_steps)]
            out = Path(scratch, f"run-{cached}-{workers}")
            out.mkdir()
            measured = whole_run(recipe, sets, labels, out)
            bare.append(bare_step(recipe, sets, labels, arguments.bare_steps))
            # Before and after: a machine that is not quiet shows by the two being far apart.
            clips_per_s = measured["clips"] / measured["loop_s"]
            results.append(
                {
                    "cache": "yes" if cached else "no",
                    "workers": workers,
                    "clips": measured["clips"],
                    "loop_s": round(measured["loop_s"], 2),
                    "wait_s": round(measured["wait_s"], 3),
                    "wait_percent": round(100 * measured["wait_s"] / measured["loop_s"], 2),
                    "clips_per_s": round(clips_per_s, 1),
                    "bare_clips_per_s_before": round(bare[0], 1),
                    "bare_clips_per_s_after": round(bare[1], 1),
                    "run_to_bare": round(clips_per_s / (sum(bare) / 2), 3),
                    "threads": torch.get_num_threads(),
                    "cores": len(os.sched_getaffinity(0)),
                }
            )
            print(results[-1], file=sys.stderr)
    with arguments.out.open("w", newline="") as file:
        table = csv.DictWriter(file, list(results[0]))
        table.writeheader()
        table.writerows(results)


if __name__ == "__main__":
    main()
