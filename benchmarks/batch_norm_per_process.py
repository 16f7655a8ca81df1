"""What batch norm per process changes: the same recipe, seeds and batches in one, two and four processes.

    python benchmarks/batch_norm_per_process.py [--seeds 3] [--steps 50]

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

import torch

from audiostride import AudioClassifier, AudioCNN, LogMel
from audiostride.training.build import read_data
from audiostride.training.loop import train
from audiostride.training.recipe import TrainSection, load_recipe

BATCH = 64


def train_all(folder: Path, seeds: int, steps: int) -> None:
    """Train with each seed; to be called in every process of a job."""
    clips = [f"tasks.{task}.data.n_clips=250" for task in ("rate", "scale")]
    sets, labels, _ = read_data(load_recipe("ripples", clips))
    for seed in range(seeds):
        torch.manual_seed(seed)
        trunk = AudioCNN("diffstride", channels=(8, 8), strides=((3, 3), (2, 2)), smoothness=1)
        model, out = AudioClassifier(LogMel(), trunk, labels), folder / f"seed-{seed}"
        out.mkdir(exist_ok=True)
        settings = TrainSection(
            epochs=steps, steps=steps, batch_size=BATCH, learning_rate=2e-3, stride_learning_rate=1e-2, workers=0
        )
        train(model, sets, out, settings, seed=seed)


def curve(run: Path) -> list[float]:
    """Loss of every step."""
    return [float.fromhex(json.loads(line)["loss_hex"]) for line in (run / "steps.jsonl").read_text().splitlines()]


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure what batch norm per process changes.")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--inside", type=Path, help="the folder for the runs, in a process of a job")
    arguments = parser.parse_args()
    if arguments.inside:
        train_all(arguments.inside, arguments.seeds, arguments.steps)
        return
    print(f"torch {torch.__version__}, {platform.machine()}, {os.cpu_count()} cores, {arguments.seeds} seeds\n")
    print("| processes | clips each | loss of the last 10 steps | from one process: mean over the steps | at most |")
    print("|---|---|---|---|---|")
    jobs = {processes: _start(processes, arguments.seeds, arguments.steps) for processes in (1, 2, 4)}
    alone: list[list[float]] = []
    for processes, (job, folder) in jobs.items():
        if job.wait():
            sys.exit(f"the job of {processes} processes ended with {job.returncode}")
        curves = [curve(run) for run in sorted(folder.iterdir())]
        alone = alone or curves
        ends = [statistics.mean(values[-10:]) for values in curves]
        gaps = [abs(a - b) for one, other in zip(alone, curves, strict=True) for a, b in zip(one, other, strict=True)]
        end = f"{statistics.mean(ends):.3f} ± {statistics.stdev(ends) if len(ends) > 1 else 0:.3f}"
        print(f"| {processes} | {BATCH // processes} | {end} | {statistics.mean(gaps):.2g} | {max(gaps):.2g} |")


def _start(processes: int, seeds: int, steps: int) -> tuple[subprocess.Popen[bytes], Path]:
    folder = Path(tempfile.mkdtemp())
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    options = ["--inside", str(folder), "--seeds", str(seeds), "--steps", str(steps)]
    return subprocess.Popen([*torchrun, __file__, *options], env=os.environ | {"OMP_NUM_THREADS": "1"}), folder


if __name__ == "__main__":
    main()
