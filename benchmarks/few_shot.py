"""A few clips a class: fine-tuning the weights of the package, training from scratch, a support vector machine.

    python benchmarks/few_shot.py DATA_FOLDER... [--shots 5,20,100] [--seeds 0,1,2] [--steps 300] [--out few_shot]

Each DATA_FOLDER has `train/` and `test/`, each with a `metadata.csv` of the columns file_name and label. A seed draws
the clips of a class (all of them where there are fewer) and the weights; every way gets the same clips and is tested
on the whole test set. Both networks are trained by the same recipe for as many steps; no clip is set aside, the last
epoch counts. The machine has mean and sd over time of every mel band. Adds rows to `few_shot.csv`, leaves out what has
a row, and prints the table of all.
"""

import argparse
import csv
import shutil
import statistics
from collections import defaultdict
from pathlib import Path

import numpy as np
from peers import centres, read

from audiostride.data.manifest import write_manifest
from audiostride.models.registry import MODELS
from audiostride.training.build import read_data
from audiostride.training.recipe import Recipe, load_recipe
from audiostride.training.run import run

NAME = "audio_resnet_small_strided"
COLUMNS = ("data", "shots", "way", "seed", "accuracy", "clips")
WAYS = ("fine-tuned", "scratch", "svm")
BATCH_SIZE, EPOCHS = 32, 3


def choose(folder: Path, shots: int, seed: int, out: Path, steps: int = 0) -> int:
    """Write a table of `shots` training clips a class and all test clips; returns the number of training clips.

    Each training clip has as many rows as make a third of `steps` batches, at least one: the test clips, which are
    scored after every epoch, take the longest otherwise.
    """
    rows: list[dict[str, str]] = []
    for split in ("train", "test"):
        with (folder / split / "metadata.csv").open(newline="", encoding="utf-8") as file:
            found = [
                {"file": f"{split}/{row['file_name']}", "label": row["label"], "split": split}
                for row in csv.DictReader(file)
            ]
        if split == "train":
            rng, by_class = np.random.default_rng(seed), defaultdict(list)
            for row in found:
                by_class[row["label"]].append(row)
            found = [members[i] for members in by_class.values() for i in rng.permutation(len(members))[:shots]]
            n_clips = len(found)
            found *= max(1, round(steps * BATCH_SIZE / EPOCHS / n_clips))
        rows += found
    write_manifest(out, rows)
    return n_clips


def recipe_of(table: Path, root: Path, seed: int, way: str) -> Recipe:
    """The recipe of a network: fresh weights, or those of the package."""
    widths = ", ".join(
        f"{key}: {list(value) if isinstance(value, tuple) else value}" for key, value in MODELS[NAME][1].items()
    )
    init = f", init: {NAME}" if way == "fine-tuned" else ""
    return load_recipe(
        "folder",
        [
            f"tasks.label.data={{source: manifest, path: '{table}', root: '{root}'}}",
            f"model={{name: audio_resnet, {widths}{init}}}",
            f"train={{epochs: {EPOCHS}, batch_size: {BATCH_SIZE}}}",
            *("train.learning_rate=1.0e-3", "train.schedule=one_cycle", "train.keep=last", "train.workers=1"),
            *("train.validation_fraction=0", "augment.coloured_noise={}", f"seed={seed}"),
            "augment.spec_augment={time_masks: 2, time_ms: 150, mel_masks: 2, mels: 6}",
        ],
    )


def machine(recipe: Recipe) -> float:
    """Accuracy of a support vector machine on mean and sd over time of every mel band."""
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    (data,), _, _ = read_data(recipe)
    log_mels = centres(data, recipe.frontend.resolution)
    features, labels = np.concatenate([log_mels.mean(1), log_mels.std(1)], axis=1), data.labels["label"]
    train, test = data.indexes("train"), data.indexes("test")
    return make_pipeline(StandardScaler(), SVC(C=10.0)).fit(features[train], labels[train]).score(
        features[test], labels[test]
    )  # fmt: skip


def table(rows: list[dict[str, str]]) -> str:
    """Mean and sd over seeds of every way as a Markdown table, in %."""
    found: dict[tuple[str, int], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        found[row["data"], int(row["shots"])][row["way"]].append(100 * float(row["accuracy"]))
    lines = [f"| data | clips a class | {' | '.join(WAYS)} |", "|---|---|" + "---|" * len(WAYS)]
    for (data, shots), ways in sorted(found.items()):
        cells = [f"{statistics.fmean(ways[way]):.1f}{_spread(ways[way])}" if ways[way] else "-" for way in WAYS]
        lines.append(f"| {data} | {shots} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _spread(values: list[float]) -> str:
    return f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="+", type=Path, metavar="DATA_FOLDER")
    for name, default in (("shots", "5,20,100"), ("seeds", "0,1,2")):
        parser.add_argument(f"--{name}", type=lambda text: list(map(int, text.split(","))), default=default)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--out", type=Path, default=Path("few_shot"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    results = args.out / "few_shot.csv"
    for seed, folder, shots, way in (
        (s, d, n, w) for s in args.seeds for d in args.data for n in args.shots for w in WAYS
    ):
        key = {"data": folder.resolve().name, "shots": str(shots), "way": way, "seed": str(seed)}
        if any(row.items() >= key.items() for row in read(results)):
            continue
        manifest = args.out / f"{key['data']}-{shots}-{seed}.csv"
        n_clips = choose(folder.resolve(), shots, seed, manifest, args.steps if way != "svm" else 0)
        recipe = recipe_of(manifest.resolve(), folder.resolve(), seed, way)
        if way == "svm":
            accuracy = machine(recipe)
        else:
            run_dir = args.out / f"{key['data']}-{shots}-{way}-{seed}"
            shutil.rmtree(run_dir, ignore_errors=True)  # a broken-off one is short
            accuracy = run(recipe, run_dir)["tasks"]["label"]["accuracy"]
        print(key, f"{100 * accuracy:.1f} %", flush=True)
        with results.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS)
            if file.tell() == 0:
                writer.writeheader()
            writer.writerow(key | {"accuracy": accuracy, "clips": n_clips})
    print(table(read(results)))


if __name__ == "__main__":
    main()
