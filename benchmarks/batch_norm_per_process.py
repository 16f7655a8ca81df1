"""What batch norm per process changes: the same recipe, seeds and batches in one, two and four processes.

    python benchmarks/batch_norm_per_process.py [--seeds 5] [--steps 50]

Trains on the embedded ripples, on the CPU, and prints the table of docs/scale.md. The processes are
started by torchrun; each sees its share of every batch, and normalises by it.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

SETTINGS = [
    "tasks.rate.data.n_clips=1000",
    "tasks.scale.data.n_clips=1000",
    "model.channels=[16,16,32]",
    "model.strides=[[2,2],[2,2],[2,2]]",
    "model.smoothness=1",
    "train.batch_size=64",
    "train.epochs=5",
    "train.workers=0",
    "cache=null",
]


def train_all(folder: Path, seeds: int, steps: int) -> None:
    """Train with each seed; to be called in every process of a job."""
    from audiostride.recipe import load_recipe
    from audiostride.run import run

    for seed in range(seeds):
        recipe = load_recipe("ripples", [*SETTINGS, f"seed={seed}", f"train.steps={steps}"])
        run(recipe, folder / f"seed-{seed}", notify=lambda _: None)


def curve(run: Path) -> list[float]:
    """Loss of every step."""
    return [float.fromhex(json.loads(line)["loss_hex"]) for line in (run / "steps.jsonl").read_text().splitlines()]


def accuracy(run: Path) -> float:
    """Test accuracy, mean of the two tasks, in per cent."""
    tasks = json.loads((run / "results.json").read_text())["tasks"]
    return 100 * statistics.mean(task["accuracy"] for task in tasks.values())


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure what batch norm per process changes.")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--inside", type=Path, help="the folder for the runs, in a process of a job")
    arguments = parser.parse_args()
    if arguments.inside:
        train_all(arguments.inside, arguments.seeds, arguments.steps)
        return
    import torch

    print(f"torch {torch.__version__}, {platform.machine()}, {os.cpu_count()} cores, {arguments.seeds} seeds\n")
    print("| processes | clips each | loss of the last 10 steps | differs from one process by | test accuracy |")
    print("|---|---|---|---|---|")
    alone: list[list[float]] = []
    for processes in (1, 2, 4):
        folder = Path(tempfile.mkdtemp())
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
        options = ["--inside", str(folder), "--seeds", str(arguments.seeds), "--steps", str(arguments.steps)]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        subprocess.run([*torchrun, __file__, *options], check=True, env=environment)
        runs = sorted(folder.iterdir())
        curves = [curve(run) for run in runs]
        alone = alone or curves
        ends = [statistics.mean(values[-10:]) for values in curves]
        gaps = [abs(a - b) for one, other in zip(alone, curves, strict=True) for a, b in zip(one, other, strict=True)]
        scores = [accuracy(run) for run in runs]
        print(
            f"| {processes} | {64 // processes} | {_spread(ends, 3)} | "
            f"at most {max(gaps):.2g} at a step | {_spread(scores, 1)} % |",
            flush=True,
        )


def _spread(values: list[float], digits: int) -> str:
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.{digits}f} ± {deviation:.{digits}f}"


if __name__ == "__main__":
    main()
