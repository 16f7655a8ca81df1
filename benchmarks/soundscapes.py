"""Events in made recordings: clips of a test set at known times in noise, found by frames and by joined windows.

    python benchmarks/soundscapes.py audio_resnet_small_strided DATA [--task word] [--minutes 20] [--seed 0]

Each minute holds clips, one after the other with gaps of 0.6 to 3 s, in faint noise (`--noise`). An event is the part
of its clip whose level (over 25 ms) is within some dB of its loudest (`--within-db`). Settings for events are found on
as many minutes of clips of the training split: no speaker or recording of the test split has a say in them. Windows are
those of a label file of windows: neighbours of one label joined.
"""

import argparse
import csv
from pathlib import Path

import numpy as np
import torch

from audiostride.data.annotations import Segment
from audiostride.data.any_path import read_path
from audiostride.models.classifier import AudioClassifier, load
from audiostride.models.frames import frame_grid
from audiostride.training.event_clips import WITHIN_DB, made_recording
from audiostride.training.event_scores import event_counts, f1_interval, total
from audiostride.training.event_testing import Heard, best_settings, found_segments
from audiostride.windows import window_hop


def hear(model: AudioClassifier, task: str, sound: np.ndarray, true: list[Segment], name: str) -> Heard:
    """What the model makes of a made recording's frames."""
    logits = model.frame_logits(sound, model.sample_rate)[1][task].numpy()
    return Heard(name, len(sound) / model.sample_rate, true, logits)


@torch.inference_mode()
def joined_windows(model: AudioClassifier, task: str, sound: np.ndarray, overlap: float = 0.0) -> list[Segment]:
    """Windows with their likeliest class, neighbours of one label joined."""
    hop = window_hop(model.window_length, overlap)
    starts = range(0, len(sound) - model.window_length + 1, hop)
    windows = torch.stack([torch.from_numpy(sound[start : start + model.window_length]) for start in starts])
    found: list[Segment] = []
    for start, label in zip(starts, model(windows)[task].argmax(1).tolist(), strict=True):
        begin, name = start / model.sample_rate, model.labels[task][label]
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
    parser.add_argument("--label", help="only events of this class count; the others are background")
    parser.add_argument("--within-db", type=float, default=WITHIN_DB)
    parser.add_argument("--minutes", type=int, default=20)
    parser.add_argument("--noise", type=float, default=0.002, help="standard deviation of the noise; full scale is 1")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("soundscapes.csv"))
    args = parser.parse_args()
    model = load(args.model).eval()
    task, rate = args.task or next(iter(model.labels)), model.sample_rate
    table = read_path(args.data)
    labels, grid, classes, kind = table.column(args.column), frame_grid(model), model.labels[task], model.kinds[task]
    heard: dict[str, list[Heard]] = {}
    for number, split in enumerate(("test", "train")):
        rows = [i for i, name in enumerate(table.splits) if name == split and labels[i] in classes]
        chosen = np.random.default_rng(args.seed).permutation(rows)[: 30 * args.minutes]
        clips = [(table.read(int(i), rate), [labels[i]]) for i in chosen]
        seeds = [args.seed * 10_000 + number * 1000 + minute for minute in range(args.minutes)]
        made = [made_recording(clips, rate, args.noise, seed, args.within_db) for seed in seeds]
        made = [(sound, [s for s in true if args.label in (None, s.label)]) for sound, true in made]
        if split == "test":
            sounds = [sound for sound, _ in made]
        heard[split] = [hear(model, task, sound, true, f"{split} {i}") for i, (sound, true) in enumerate(made)]
    settings = best_settings(heard["train"], grid, classes, kind)
    print(settings)
    found = {"frames": [found_segments(one, grid, classes, kind, settings) for one in heard["test"]]}
    found["joined windows"] = [joined_windows(model, task, sound) for sound in sounds]
    found["joined windows, overlap 0.75"] = [joined_windows(model, task, sound, 0.75) for sound in sounds]
    about = {"data": Path(args.data).name, "model": Path(args.model).name, "within dB": f"{args.within_db:g}"}
    rows = []
    for way, segments in found.items():
        for scored, share in (("onset", None), ("onset and offset", 0.2)):
            counts = [
                event_counts([s for s in some if args.label in (None, s.label)], one.true, offset_share=share)
                for some, one in zip(segments, heard["test"], strict=True)
            ]
            all_ = total(counts)[""]
            figures = {"precision": all_.precision, "recall": all_.recall, "F1": all_.f1}
            row = about | {"events": str(all_.true), "found by": way, "right if": scored}
            row |= {name: f"{100 * value:.1f}" for name, value in figures.items()}
            rows.append(row | {"95 % of F1": " to ".join(f"{100 * edge:.1f}" for edge in f1_interval(counts) or ())})
            print(rows[-1])
    if args.out.exists():
        with args.out.open(newline="") as file:
            rows = [row for row in csv.DictReader(file) if not about.items() <= row.items()] + rows
    with args.out.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
