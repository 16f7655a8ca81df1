"""Time and memory to index a table of clips and to get the first training batch, by number of rows.

    python benchmarks/index_size.py --rows 10000 100000 1000000 --out benchmarks/index_size.csv

Each size runs in a process of its own. The rows name 1,000 real WAV files of a second over and over,
with 35 labels and one speaker in 20 rows; nothing is decoded before the first batch (`check: none`).
Times count from the first line of the table to the batch, both on the clock and in CPU seconds of the
one process: on a busy machine only the latter mean anything.
"""

import argparse
import csv
import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile


def measure(rows: int, folder: Path) -> dict[str, float]:
    """Index a table of that many rows in this process, draw its splits and take the first batch."""
    import torch

    from audiostride.data.batches import training_batches
    from audiostride.training.build import read_data
    from audiostride.training.recipe import load_recipe

    torch.set_num_threads(1)
    before_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    data = f"{{source: manifest, path: {folder / f'{rows}.csv'}, check: none, group: speaker}}"
    recipe = load_recipe("folder", [f"tasks.label.data={data}", "tasks.label.column=word"])
    began, cpu_began = time.perf_counter(), time.process_time()
    sets, _, _ = read_data(recipe)
    indexed, cpu_indexed = time.perf_counter(), time.process_time()
    next(training_batches(sets, 16000, 16000, 64, "uniform", 0, 0, workers=0))
    return {
        "rows": rows,
        "index_s": round(indexed - began, 2),
        "index_cpu_s": round(cpu_indexed - cpu_began, 2),
        "first_batch_s": round(time.perf_counter() - began, 2),
        "first_batch_cpu_s": round(time.process_time() - cpu_began, 2),
        "rss_before_mb": round(before_mb),
        "rss_peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


def make_table(rows: int, folder: Path) -> None:
    """Write the table, and the audio that it names."""
    audio = folder / "audio"
    if not audio.exists():
        audio.mkdir()
        for i in range(1000):
            soundfile.write(audio / f"{i:04d}.wav", np.random.RandomState(i).uniform(-0.5, 0.5, 16000), 16000)
    with (folder / f"{rows}.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["file", "word", "speaker"])
        # Distinct paths to the same files, as long as real ones are.
        table.writerows(
            [f"audio/{'./' * (i // 1000 % 10)}{i % 1000:04d}.wav", f"word{i % 35}", f"speaker{i // 20}"]
            for i in range(rows)
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".csv"))
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(arguments.rows[0], arguments.one)))
        return
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for rows in arguments.rows:
            make_table(rows, Path(folder))
            command = [sys.executable, __file__, "--rows", str(rows), "--one", folder]
            results.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
            print(results[-1], platform.machine(), file=sys.stderr)
    with arguments.out.open("w", newline="") as file:
        table = csv.DictWriter(file, list(results[0]))
        table.writeheader()
        table.writerows(results)


if __name__ == "__main__":
    main()
