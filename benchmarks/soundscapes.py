"""Events in made recordings: clips of a test set at known times in noise, found by frames and by joined windows.

    python benchmarks/soundscapes.py audio_resnet_small_strided DATA [--task word] [--minutes 20] [--seed 0]

Each minute holds clips of the test split, one after the other with gaps of 0.6 to 3 s, in faint noise (`--noise`). An
event is the part of its clip whose level (over 25 ms) is within 13 dB of its loudest. The settings for events are found
on as many minutes of clips of the training split. Windows are those of a label file of consecutive windows: neighbours
of one label joined.
"""

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from audiostride.data.annotations import Segment
from audiostride.data.any_path import read_path
from audiostride.models.classifier import AudioClassifier, load
from audiostride.models.frames import frame_grid
from audiostride.training.event_scores import event_counts, total
from audiostride.training.event_testing import Heard, best_settings, found_segments
from audiostride.windows import split_windows

MINUTE_S, GAP_S, WITHIN_DB = 60.0, (0.6, 3.0), 13.0


def soundscape(
    clips: Sequence[tuple[np.ndarray, str]], rate: int, noise: float, seed: int
) -> tuple[np.ndarray, list[Segment]]:
    """One minute of clips in noise, and where they are."""
    random = np.random.default_rng(seed)
    sound = (noise * random.standard_normal(round(MINUTE_S * rate))).astype(np.float32)
    at, events = 0.5, []
    while True:
        clip, label = clips[random.integers(len(clips))]
        if at + len(clip) / rate > MINUTE_S - 0.3:
            return sound, events
        first = round(at * rate)
        sound[first : first + len(clip)] += clip
        begin, end = loud_part(clip, rate)
        events.append(Segment(at + begin, at + end, label))
        at += len(clip) / rate + random.uniform(*GAP_S)


def loud_part(clip: np.ndarray, rate: int) -> tuple[float, float]:
    """From when to when a clip is within `WITHIN_DB` of its loudest 25 ms, in seconds."""
    length = rate // 40
    power = np.convolve(clip**2, np.ones(length) / length, "same")
    loud = np.flatnonzero(power > 10 ** (-WITHIN_DB / 10) * power.max())
    return loud[0] / rate, (loud[-1] + 1) / rate


def hear(model: AudioClassifier, task: str, sound: np.ndarray, true: list[Segment], name: str) -> Heard:
    """What the model makes of a made recording's frames."""
    logits = model.frame_logits(sound, model.sample_rate)[1][task].numpy()
    return Heard(name, len(sound) / model.sample_rate, true, logits)


@torch.inference_mode()
def joined_windows(model: AudioClassifier, task: str, sound: np.ndarray) -> list[Segment]:
    """Consecutive windows with their likeliest class, neighbours of one label joined."""
    logits = model(split_windows(torch.from_numpy(sound), model.window_length))[task]
    found: list[Segment] = []
    for number, label in enumerate(logits.argmax(1).tolist()):
        begin = number * model.window_s
        name = model.labels[task][label]
        if found and found[-1].label == name:
            found[-1] = found[-1]._replace(end_s=begin + model.window_s)
        else:
            found.append(Segment(begin, begin + model.window_s, name))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a run directory, or the name of weights that come with the package")
    parser.add_argument("data", help="a folder of clips with a training and a test split")
    parser.add_argument("--task", help="default: the model's first")
    parser.add_argument("--column", default="label")
    parser.add_argument("--minutes", type=int, default=20)
    parser.add_argument("--noise", type=float, default=0.002, help="standard deviation of the noise; full scale is 1")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("soundscapes.csv"))
    args = parser.parse_args()
    model = load(args.model).eval()
    task, rate = args.task or next(iter(model.labels)), model.sample_rate
    table = read_path(args.data)
    labels = table.column(args.column)
    sounds = {}
    for split in ("train", "test"):
        rows = [i for i, name in enumerate(table.splits) if name == split and labels[i] in model.labels[task]]
        chosen = np.random.default_rng(args.seed).permutation(rows)[: 30 * args.minutes]
        clips = [(table.read(int(i), rate), labels[i]) for i in chosen]
        seeds = [args.seed * 10_000 + (split == "train") * 1000 + minute for minute in range(args.minutes)]
        sounds[split] = [soundscape(clips, rate, args.noise, seed) for seed in seeds]
    grid, classes, kind = frame_grid(model), model.labels[task], model.kinds[task]
    heard = {
        split: [hear(model, task, sound, true, f"{split} {i}") for i, (sound, true) in enumerate(made)]
        for split, made in sounds.items()
    }
    settings = best_settings(heard["train"], grid, classes, kind)
    print(settings)
    ways = {
        "frames": [found_segments(one, grid, classes, kind, settings) for one in heard["test"]],
        "joined windows": [joined_windows(model, task, sound) for sound, _ in sounds["test"]],
    }
    rows = []
    for way, found in ways.items():
        for scored, share in (("onset", None), ("onset and offset", 0.2)):
            pairs = zip(found, heard["test"], strict=True)
            counts = total([event_counts(f, one.true, offset_share=share) for f, one in pairs])[""]
            figures = {"precision": counts.precision, "recall": counts.recall, "F1": counts.f1}
            percent = {name: f"{100 * value:.1f}" for name, value in figures.items()}
            rows.append({"task": task, "events": counts.true, "found by": way, "right if": scored} | percent)
            print(rows[-1])
    with args.out.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
