"""Fine-tuning against training from scratch, on the same clips for the same number of epochs.

    python benchmarks/finetune.py RUN_DIR DATA [--epochs 6] [--seeds 0 1] [--out runs/finetune]

RUN_DIR is a trained run of the recipe `folder`, DATA a folder of other sounds. Three ways of training
the same network on DATA: from fresh weights, from RUN_DIR's trunk, and RUN_DIR's trunk frozen under a
new head. Prints the test accuracy of each as a Markdown table.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run_dir")
    parser.add_argument("data")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--out", type=Path, default=Path("runs/finetune"))
    arguments = parser.parse_args()
    ways = {
        "from scratch": [],
        "fine-tuned": [f"model.init={arguments.run_dir}"],
        "linear probe": [f"model.init={arguments.run_dir}", "model.linear_probe=true"],
    }
    print("| way | " + " | ".join(f"seed {seed}" for seed in arguments.seeds) + " | mean |")
    print("|---" * (len(arguments.seeds) + 2) + "|")
    for way, overrides in ways.items():
        accuracies = []
        for seed in arguments.seeds:
            out = arguments.out / f"{way.replace(' ', '-')}-{seed}"
            settings = [f"seed={seed}", f"train.epochs={arguments.epochs}", "train.workers=1", *overrides]
            command = [sys.executable, "-m", "audiostride", "train", "folder", "--json", "--out", str(out)]
            command += [f"tasks.label.data.path={arguments.data}", *settings]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
            accuracies.append(100 * json.loads(done.stdout)["tasks"]["label"]["accuracy"])
        cells = [f"{value:.1f}" for value in (*accuracies, statistics.fmean(accuracies))]
        print(f"| {way} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
