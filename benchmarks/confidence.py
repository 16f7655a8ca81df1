"""What training with background, or with made negatives, does for false alarms at equal recall, and for calibration.

    python benchmarks/confidence.py DATA [--seeds 0 1 2] [--ways plain background ...] [--epochs 8]

DATA holds commands/, esc/ and digits/, folders of clips. A small network is trained on six of the nine words of
commands. Background, where it is used, is the training split of esc and two further words by training speakers. What
it is tested on was never seen in training by any network: the test split of esc (other recordings), the ninth word of
commands ("zero"), and six other English words of digits (other speakers and microphones). Events are looked for in ten
minutes of test clips at known times in faint noise (`soundscapes.py`), with the settings of best F1 on as many minutes
of training clips but for the threshold, which is one for all classes: the highest at which so many of the events are
found (by onset). False alarms are counted there.

A row is added to the CSV as soon as its network is trained and tested; rows that are there are not made again.
"""

import argparse
import csv
import shutil
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from soundscapes import MINUTE_S, hear, soundscape
from torch import Tensor

from audiostride.data import batches
from audiostride.data.any_path import read_path
from audiostride.data.augment import ColouredNoise
from audiostride.data.background import background_window, mixed_in
from audiostride.data.clips import Clips
from audiostride.models.classifier import AudioClassifier, load
from audiostride.models.events import EventSettings, find_events
from audiostride.models.frames import frame_grid
from audiostride.training import steps
from audiostride.training.evaluation import clip_logits, task_loss
from audiostride.training.event_scores import event_counts, total
from audiostride.training.event_testing import Heard, best_settings, found_segments
from audiostride.training.recipe import Recipe
from audiostride.training.run import run

WORDS, SHOWN, UNSEEN = ("down", "eight", "five", "go", "left", "one"), ("right", "up"), "zero"
WAYS: dict[str, dict[str, Any]] = {
    "plain": {},
    "background": {"background": "background"},
    "background, sounds only": {"background": "background/esc"},
    "noise": {"background": "words"},
    "quiet": {"background": "words"},
    "reversed": {"background": "words"},
    "mixed": {"background": "words"},
    "all made": {"background": "words"},
    "left out": {},
}
MADE = ("noise", "quiet", "reversed", "mixed")
MINUTES, NOISE = 10, 0.002
RECALLS = (60, 70, 80, 90)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=list(WAYS))
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--runs", type=Path, default=Path("runs/confidence"))
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".csv"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    lay_out(args.data, args.runs / "data")
    for seed in args.seeds:
        for way in args.ways:
            if not any((row["way"], row["seed"]) == (way, str(seed)) for row in read_rows(args.out)):
                folder = args.runs / f"{way.replace(', ', '-').replace(' ', '-')}-{seed}"
                model = trained(args.data, args.runs / "data", folder, way, seed, args.epochs)
                row = {"way": way, "seed": seed, "epochs": args.epochs} | tested(model, args.data)
                print(row, flush=True)
                add_row(args.out, row)


def lay_out(data: Path, out: Path) -> None:
    """The table of six words, and the folder of background: links to the clips of DATA."""
    if (out / "words.csv").is_file():
        return
    clips = read_path(data / "commands")
    label, speaker = clips.column("label"), clips.column("speaker")
    for name in ("background/esc", "background/words"):
        (out / name).mkdir(parents=True, exist_ok=True)
    for i, name in enumerate(clips.names):
        if label[i] in SHOWN and clips.splits[i] == "train":
            (out / "background/words" / name.replace("/", "_")).symlink_to((data / "commands" / name).resolve())
    (out / "words").mkdir(exist_ok=True)
    for i, name in enumerate(clips.names):
        if label[i] in WORDS and clips.splits[i] == "train":
            (out / "words" / name.replace("/", "_")).symlink_to((data / "commands" / name).resolve())
    esc = read_path(data / "esc")
    for i, name in enumerate(esc.names):
        if esc.splits[i] == "train":
            (out / "background/esc" / name.replace("/", "_")).symlink_to((data / "esc" / name).resolve())
    with (out / "words.csv").open("w", newline="") as file:
        rows = [(n, label[i], speaker[i], clips.splits[i]) for i, n in enumerate(clips.names) if label[i] in WORDS]
        csv.writer(file).writerows([("file_name", "label", "speaker", "split"), *rows])


def trained(data: Path, laid_out: Path, out: Path, way: str, seed: int, epochs: int) -> AudioClassifier:
    """A network trained in one of the ways."""
    if not (out / "results.json").is_file():
        shutil.rmtree(out, ignore_errors=True)
        words = {"source": "manifest", "path": str(laid_out / "words.csv"), "root": str(data / "commands")}
        words |= {"group": "speaker"}
        words |= {key: str(laid_out / value) for key, value in WAYS[way].items()}
        recipe = {
            "name": "confidence",
            "seed": seed,
            "cache": str(laid_out / "cache"),
            "tasks": {"word": {"data": words}},
            "augment": {"time_shift_ms": 100, "speed": [0.9, 1.1], "coloured_noise": {}, "spec_augment": {}},
            "model": {"name": "audio_resnet", "downsampling": "strided", "channels": [16, 24, 32],
                      "time_channels": [64, 64, 64]},
            "train": {"epochs": epochs, "batch_size": 64, "learning_rate": 3e-3, "schedule": "one_cycle",
                      "keep": "last", "workers": 0},
        }  # fmt: skip
        steps.task_loss = left_out_loss if way == "left out" else task_loss
        made = MADE if way == "all made" else (way,) if way in MADE else ()
        batches.background_window = partial(made_window, made) if made else background_window
        batches.mixed_in = (lambda _, window, *others: window) if made else mixed_in
        run(Recipe.model_validate(recipe), out)
    return load(out)


def made_window(
    kinds: Sequence[str], clips: Clips, sample_rate: int, length: int, rng: np.random.Generator
) -> np.ndarray:
    """A sound that is none of the classes, made from training clips.

    "noise": coloured, as loud as a window; "quiet": the quietest tenth of one, repeated; "reversed": one backwards;
    "mixed": pieces of 50 to 200 ms (of a second) of several, one after the other.
    """
    kind, window = kinds[int(rng.integers(len(kinds)))], background_window(clips, sample_rate, length, rng)
    if kind == "reversed":
        return window[::-1].copy()
    if kind == "noise":
        return ColouredNoise((-60.0, -60.0))(window, rng) * np.float32(1e-3)  # the window is 60 dB below
    if kind == "quiet":
        tenth = length // 10
        parts = window[: length // tenth * tenth].reshape(-1, tenth)
        return np.resize(parts[np.square(parts).mean(1).argmin()], length)
    pieces: list[np.ndarray] = []
    while sum(map(len, pieces)) < length:
        size = int(length * rng.uniform(0.05, 0.2)) + 1
        start = int(rng.integers(0, length - size + 1))
        pieces.append(background_window(clips, sample_rate, length, rng)[start : start + size])
    return np.concatenate(pieces)[:length]


def left_out_loss(logits: Tensor, labels: Tensor, *others: Any) -> Tensor:
    """Cross-entropy, and what makes the classes that are wrong equally likely among themselves.

    To a network of those classes the clip is none of them: each class in turn is left out and shown as none.
    """
    rest = logits.masked_fill(torch.nn.functional.one_hot(labels, logits.shape[1]).bool(), -torch.inf).log_softmax(1)
    flat = -rest.masked_fill(rest == -torch.inf, 0).sum(1) / (logits.shape[1] - 1)
    return task_loss(logits, labels, *others) + steps.NONE_WEIGHT * flat.mean()


def tested(model: AudioClassifier, data: Path) -> dict[str, Any]:
    """Accuracy; for other sounds how well scores set them apart, and false alarms where so many events are found."""
    grid, rate, classes = frame_grid(model), model.sample_rate, model.labels["word"]
    commands, esc, digits = (read_path(data / name) for name in ("commands", "esc", "digits"))
    label, split = np.array(commands.column("label")), np.array(commands.splits)
    known = np.flatnonzero(np.isin(label, WORDS) & (split == "test"))
    others = {
        "esc": (esc, np.flatnonzero(np.array(esc.splits) == "test")[::2]),
        "zero": (commands, np.flatnonzero(label == UNSEEN)),
        "digits": (digits, np.flatnonzero(~np.isin(digits.column("label"), list(set(label))))[::4]),
    }
    logits = clip_logits(model, commands, known)["word"]
    truth = torch.tensor([classes.index(name) for name in label[known]])
    figures: dict[str, Any] = {"accuracy": f"{100 * (logits.argmax(1) == truth).double().mean():.1f}"}
    score = none_scores(logits)
    made = {}
    for part in ("train", "test"):
        rows = np.random.default_rng(0).permutation(np.flatnonzero(np.isin(label, WORDS) & (split == part)))
        clips = [(commands.read(int(i), rate), str(label[i])) for i in rows[: 30 * MINUTES]]
        sounds = [soundscape(clips, rate, NOISE, 1000 * (part == "train") + minute) for minute in range(MINUTES)]
        made[part] = [hear(model, "word", sound, true, str(i)) for i, (sound, true) in enumerate(sounds)]
    settings = best_settings(made["train"], grid, classes, "multiclass")
    figures["best F1's recall"] = f"{100 * recall(made['test'], grid, classes, settings):.1f}"
    highest = max(one.logits.max() for one in made["test"])
    levels = np.linspace(settings.floor, highest, 81)[1:-1]
    tried = [settings._replace(thresholds=(level,) * len(classes)) for level in levels]
    recalls = np.array([recall(made["test"], grid, classes, one) for one in tried])
    figures["highest recall"] = f"{100 * recalls.max():.1f}"
    for name, (clips, rows) in others.items():
        minutes = list(in_minutes([clips.read(int(i), rate) for i in rows], rate))
        frames = [model.frame_logits(sound, rate)[1]["word"].numpy() for sound in minutes]
        figures[f"{name} hours"] = f"{sum(map(len, minutes)) / rate / 3600:.3f}"
        for wanted in RECALLS:
            enough = np.flatnonzero(recalls >= wanted / 100)
            if len(enough):
                own = tried[enough[-1]]
                found = [find_events(one, grid.hop_ms, grid.first_ms, "multiclass", own) for one in frames]
            figures[f"{name} alarms at {wanted}"] = sum(map(len, found)) if len(enough) else ""
        other = none_scores(clip_logits(model, clips, rows)["word"])
        for way, values in score.items():
            figures[f"{name} AUROC {way}"] = f"{auroc(values, other[way]):.4f}"
    return figures


def none_scores(logits: Tensor) -> dict[str, np.ndarray]:
    """What might say that a sound is none of the classes, each larger for one that is some class."""
    largest = logits.double().amax(1)
    return {
        "largest logit": largest.numpy(),
        "largest minus mean": (largest - logits.double().mean(1)).numpy(),
        "energy": logits.double().logsumexp(1).numpy(),
        "softmax": logits.double().softmax(1).amax(1).numpy(),
    }


def auroc(known: np.ndarray, others: np.ndarray) -> float:
    """How often a known sound scores higher than another one, ties half."""
    ranks = np.searchsorted(np.sort(others), known, "left") + np.searchsorted(np.sort(others), known, "right")
    return float(ranks.mean() / 2 / len(others))


def recall(made: Sequence[Heard], grid: Any, classes: Sequence[str], settings: EventSettings) -> float:
    """Share of the events whose onset is found within 200 ms, of the right class."""
    counts = [
        event_counts(found_segments(one, grid, classes, "multiclass", settings), one.true, offset_share=None)
        for one in made
    ]
    return total(counts)[""].recall


def in_minutes(sounds: Sequence[np.ndarray], rate: int) -> Iterator[np.ndarray]:
    """Sounds one after the other, with a quarter of a second of faint noise between them, about a minute each."""
    gap = (NOISE * np.random.default_rng(0).standard_normal(rate // 4)).astype(np.float32)
    parts: list[np.ndarray] = []
    for sound in sounds:
        parts += [sound, gap]
        if sum(map(len, parts)) > MINUTE_S * rate:
            yield np.concatenate(parts)
            parts = []
    if parts:
        yield np.concatenate(parts)


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows that are there already."""
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def add_row(path: Path, row: dict[str, Any]) -> None:
    """Append a row to the CSV."""
    new = not path.is_file()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, list(row))
        if new:
            writer.writeheader()
        writer.writerow(row)


if __name__ == "__main__":
    main()
