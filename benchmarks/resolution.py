"""Which resolution of the spectrogram: fixed ones, one learned under a budget, one searched and then fixed.

    OMP_NUM_THREADS=1 python benchmarks/resolution.py DATA --work runs/resolution [--sets words pitch] [--seeds 0 1 2]

DATA holds the sets `commands`, `notes` and `esc` as folders. The network is the narrow strided `AudioCNN` of
`results/recipes/`. Every run is a row of `resolution.csv`, which is written as it ends; rows that are there are not run
again, and a run that was stopped resumes.
"""

import argparse
import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from audiostride.training.recipe import load_recipe
from audiostride.training.run import run

ROOT = Path(__file__).parents[1]
SETS = {
    "words": ("commands", "word", "commands"),
    "family": ("notes_family", "family", "notes"),
    "pitch": ("notes_pitch", "pitch", "notes"),
    "esc": ("esc", "sound", "esc"),
}
"""Recipe, task and folder of each set."""

COLUMNS = ["set", "seed", "method", "setting", "accuracy", "macs_per_second", "window_ms", "stride_time", "stride_mel"]
SEARCH_EPOCHS = 4
SEARCH_RATE = 0.2


def settings() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Method, name and frontend of every run that depends on no other."""
    for hop, mels, n_fft in ((5, 32, 512), (10, 64, 512), (20, 128, 1024)):
        for window in (12.5, 25, 50):
            n = 1024 if window == 50 else n_fft
            yield (
                "fixed",
                f"{hop} ms {mels} bands {window:g} ms",
                plain(window_ms=window, hop_ms=hop, n_fft=n, n_mels=mels),
            )
    for time, mel in ((1, 4), (1.5, 2.67), (2, 2), (3, 1.33), (4, 1)):
        yield "pooled", f"{time:g} x {mel:g}", adaptive(strides=[time, mel])
    for rate in (0.06, 0.2):
        yield "learned", f"rate {rate:g}", adaptive(rate=rate)


def plain(**frontend: Any) -> dict[str, Any]:
    return {"frontend": frontend, "rate": 1e-9}


def adaptive(rate: float = 1e-9, **frontend: Any) -> dict[str, Any]:
    """An `adaptive_log_mel`, fixed unless its learning rate says otherwise."""
    return {"frontend": {"name": "adaptive_log_mel", **frontend}, "rate": rate}


def train(
    name: str, seed: int, setting: dict[str, Any], args: argparse.Namespace, out: Path, epochs: int | None = None
):
    """Train one network, and return what `results.json` says."""
    recipe, task, folder = SETS[name]
    overrides = [
        f"seed={seed}",
        "model.downsampling=strided",
        "train.workers=0",
        f"tasks.{task}.data.path={args.data / folder}",
    ]
    overrides += [f"frontend.{key}={value}" for key, value in setting["frontend"].items()]
    overrides += [f"train.stride_learning_rate={setting['rate']}"] + ([f"train.epochs={epochs}"] if epochs else [])
    recipe_file = ROOT / "results" / "recipes" / f"{recipe}.yaml"
    return run(load_recipe(str(recipe_file), overrides), out, resume=out.exists())


def row(name: str, seed: int, method: str, setting: str, results: dict[str, Any]) -> dict[str, Any]:
    found = results.get("resolution", {"window_ms": "", "strides": ["", ""]})
    accuracy = next(iter(results["tasks"].values()))["accuracy"]
    values = [name, seed, method, setting, f"{100 * accuracy:.2f}", results["macs_per_second"], found["window_ms"]]
    return dict(zip(COLUMNS, [*values, *found["strides"]], strict=True))


def rows(name: str, seed: int, args: argparse.Namespace, done: set[tuple[str, ...]]) -> Iterator[dict[str, Any]]:
    """Rows of a set and seed that are not there yet."""
    for number, (method, label, setting) in enumerate(settings()):
        if (name, str(seed), method, label) not in done:
            yield row(
                name, seed, method, label, train(name, seed, setting, args, args.work / f"{name}-{seed}-{number}")
            )
    label = f"{SEARCH_EPOCHS} epochs at {SEARCH_RATE:g}"
    if (name, str(seed), "searched", label) not in done:
        folder = args.work / f"{name}-{seed}-search"
        found = train(name, seed, adaptive(rate=SEARCH_RATE), args, folder, SEARCH_EPOCHS)["resolution"]
        fixed = adaptive(strides=found["strides"], window_ms=found["window_ms"])
        yield row(name, seed, "searched", label, train(name, seed, fixed, args, args.work / f"{name}-{seed}-searched"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--work", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".csv"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    done: set[tuple[str, ...]] = set()
    if args.out.exists():
        with args.out.open(newline="", encoding="utf-8") as file:
            done = {tuple(one[column] for column in COLUMNS[:4]) for one in csv.DictReader(file)}
    else:
        args.out.write_text(",".join(COLUMNS) + "\n", encoding="utf-8")
    for seed in args.seeds:
        for name in args.sets:
            for new in rows(name, seed, args, done):
                with args.out.open("a", newline="", encoding="utf-8") as file:
                    csv.DictWriter(file, COLUMNS).writerow(new)
                print(*new.values(), flush=True)


if __name__ == "__main__":
    main()
