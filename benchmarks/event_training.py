"""What training helps to find events: six ways to train a network on clips, scored on made recordings.

    python benchmarks/event_training.py DATA [--start pico] [--epochs 15] [--seeds 2] [--only mean segments]

Ways: the mean of frame logits (what recipes do); the mean of each class's largest quarter; a mean weighted by attention
(one learned weight a frame); a class "nothing" from the quiet parts of clips; "segments": every frame has a label, the
clip's within its loud part (`event_clips.loud_part`), "nothing" elsewhere; and both quarter and "nothing". A frame's
score is its logit, less that of "nothing" where there is one. Settings for events are found on recordings of held-out
training speakers (`--group`), scores are of recordings of test clips. Rows are added to `--out` one by one, and those
that are there are not computed again.
"""

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundscapes
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from audiostride import create_model, load
from audiostride.data.annotations import Segment
from audiostride.data.any_path import read_path
from audiostride.models.classifier import AudioClassifier
from audiostride.models.frames import frame_grid, trunk_frames
from audiostride.training.event_clips import level, loud_part, made_recording
from audiostride.training.event_scores import event_counts, f1_interval, total
from audiostride.training.event_testing import Heard, best_settings, found_segments

WAYS = ("mean", "top quarter", "attention", "nothing", "segments", "top quarter, nothing")
RATE, BATCH, QUIET_DB, SHIFT_S = 16000, 64, 25.0, 0.3


class Clip(NamedTuple):
    """A sound, its class, and from when to when it is loud, in seconds."""

    samples: np.ndarray
    label: str
    begin: float
    end: float


class Training:
    """A network that is trained in one of the `WAYS`; the last class of its head may be "nothing"."""

    def __init__(self, start: str, labels: list[str], way: str, window_s: float, seed: int):
        torch.manual_seed(seed)
        self.way, self.labels = way, labels
        self.nothing = "nothing" in way or way == "segments"
        names = labels + ["nothing"] * self.nothing
        if start == "shipped":
            self.model = load("audio_resnet_small_strided")
            old = self.model.heads["word"]
            self.model.reset_classifier({"word": names})
            with torch.no_grad():
                self.model.heads["word"].weight[: len(labels)] = old.weight
                self.model.heads["word"].bias[: len(labels)] = old.bias
        else:
            self.model = create_model(f"audio_resnet_{start}_strided", heads={"word": names}, window_s=window_s)
        self.attention = nn.Linear(self.model.trunk.num_features, 1)
        self.random = np.random.default_rng(seed)

    def logits(self, waveform: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of clips ``(batch, n_classes)`` and of their frames ``(batch, frames, n_classes)``."""
        features = trunk_frames(self.model.trunk, self.model.frontend(waveform))
        frames = self.model.heads["word"](features)
        if self.way == "attention":
            return (self.attention(features).softmax(1) * frames).sum(1), frames
        if "top quarter" in self.way:
            return frames.topk(max(1, frames.shape[1] // 4), dim=1).values.mean(1), frames
        return frames.mean(1), frames

    def loss(self, clips: Sequence[Clip]) -> Tensor:
        """Of a batch of clips, each at a random place of a window, in noise of a random level."""
        length, n = self.model.window_length, len(self.labels)
        windows, labels, loud = np.zeros((len(clips), length), np.float32), [], []
        for row, clip in zip(windows, clips, strict=True):
            samples, number, begin, end = clip.samples, self.labels.index(clip.label), clip.begin, clip.end
            if self.nothing and self.way != "segments" and self.random.random() < 0.1:
                samples, number = quiet(samples, length), n
            shift = round(self.random.uniform(-SHIFT_S, SHIFT_S) * RATE)
            if len(samples) > length:  # a part with the middle of what is loud
                middle, most = round((begin + end) / 2 * RATE), len(samples) - length
                low, high = max(0, middle - length + 1), min(most, middle)
                shift = -int(self.random.integers(min(low, most), max(min(low, most), high) + 1))
            part = samples[max(0, -shift) : max(0, -shift) + length - max(0, shift)]
            row[max(0, shift) : max(0, shift) + len(part)] = part
            row *= 10 ** self.random.uniform(-0.3, 0.3)
            row += 10 ** self.random.uniform(-4, -2) * self.random.standard_normal(length)
            labels.append(number)
            loud.append((begin + shift / RATE, end + shift / RATE))
        whole, frames = self.logits(torch.from_numpy(windows))
        numbers = torch.tensor(labels)
        if self.way != "segments":
            return F.cross_entropy(whole, numbers, label_smoothing=0.05)
        grid = frame_grid(self.model)
        times_s = grid.times_ms(0, frames.shape[1]) / 1000
        inside = torch.stack([(times_s >= a) & (times_s <= b) for a, b in loud])
        by_frame = torch.where(inside, numbers[:, None], n)
        own = F.cross_entropy(frames.flatten(0, 1), by_frame.flatten())
        return own + F.cross_entropy(whole[:, :n], numbers, label_smoothing=0.05)

    def train(self, clips: Sequence[Clip], epochs: int, rate: float) -> None:
        """One-cycle training with AdamW."""
        parameters = [*self.model.parameters(), *self.attention.parameters()]
        optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.02)
        steps = len(clips) // BATCH
        cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=epochs * steps)
        self.model.train()
        for epoch in range(epochs):
            order, losses = self.random.permutation(len(clips)), []
            for step in range(steps):
                loss = self.loss([clips[i] for i in order[step * BATCH : (step + 1) * BATCH]])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                cycle.step()
                losses.append(loss.item())
            print(f"  epoch {epoch}: loss {np.mean(losses):.3f}", flush=True)
        self.model.eval()

    @torch.inference_mode()
    def accuracy(self, clips: Sequence[Clip]) -> float:
        """Share of clips, cut to a window around their loud part, whose likeliest class is right."""
        right, length = 0, self.model.window_length
        for samples, label, begin, end in clips:
            start = max(0, min(len(samples) - length, round((begin + end) / 2 * RATE) - length // 2))
            window = np.pad(samples[start : start + length], (0, max(0, length - len(samples))))
            whole = self.logits(torch.from_numpy(window)[None])[0][0, : len(self.labels)]
            right += self.labels[int(whole.argmax())] == label
        return right / len(clips)

    def hear(self, sound: np.ndarray, true: list[Segment]) -> Heard:
        """What the network makes of a made recording's frames."""
        heard = soundscapes.hear(self.model, "word", sound, true, "")
        logits, n = heard.logits, len(self.labels)
        return heard._replace(logits=logits[:, :n] - logits[:, n:] if self.nothing else logits)


def quiet(clip: np.ndarray, length: int) -> np.ndarray:
    """The quiet parts of a clip, `QUIET_DB` below its loudest 25 ms, repeated to fill a window; silence if none is."""
    power = level(clip, RATE)
    still = clip[power < 10 ** (-QUIET_DB / 10) * power.max()]
    return np.resize(still, length) if len(still) > RATE // 40 else np.zeros(length, np.float32)


def scores(model: AudioClassifier, labels: Sequence[str], validation: Sequence[Heard], test: Sequence[Heard]) -> dict:
    """F1 of events on test recordings, with settings that are best on validation recordings, in %."""
    grid = frame_grid(model)
    settings = best_settings(validation, grid, labels, "multiclass")
    found = [found_segments(one, grid, labels, "multiclass", settings) for one in test]
    row = {}
    for name, share in (("onset", None), ("onset and offset", 0.2)):
        counts = [event_counts(f, one.true, offset_share=share) for f, one in zip(found, test, strict=True)]
        row[f"F1 {name}"] = f"{100 * total(counts)[''].f1:.1f}"
        if share is None:
            row["interval"] = " to ".join(f"{100 * edge:.1f}" for edge in f1_interval(counts) or ())
    return row


def read_clips(data: str, column: str, group: str) -> dict[str, list[Clip]]:
    """Clips for training, for validation (a sixth of the groups of the training split) and for testing."""
    table = read_path(data)
    labels, groups = table.column(column), table.column(group)
    names = sorted({g for g, split in zip(groups, table.splits, strict=True) if split == "train"})
    held = set(np.random.default_rng(0).permutation(names)[: len(names) // 6].tolist())
    clips: dict[str, list[Clip]] = {"train": [], "validation": [], "test": []}
    for i, split in enumerate(table.splits):
        samples = table.read(i, RATE)
        kept = "validation" if split == "train" and groups[i] in held else split
        clips[kept].append(Clip(samples, labels[i], *loud_part(samples, RATE)))
    return clips


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="a folder of clips with a training and a test split")
    parser.add_argument("--column", default="label")
    parser.add_argument("--group", default="speaker", help="column whose values are not shared with held-out clips")
    parser.add_argument("--start", default="pico", help="size of a new network, or shipped: the weights of the package")
    parser.add_argument("--window-s", type=float, default=1.0)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--rate", type=float, default=4e-3)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--minutes", type=int, default=10)
    parser.add_argument("--only", nargs="*", default=WAYS)
    parser.add_argument("--save", type=Path, help="folder for the models of seed 0")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".csv"))
    args = parser.parse_args()
    clips = read_clips(args.data, args.column, args.group)
    classes = sorted({clip.label for clip in clips["train"]})
    made = {}
    for n, split in enumerate(("validation", "test")):
        pairs = [(clip.samples, [clip.label]) for clip in clips[split]]
        made[split] = [made_recording(pairs, RATE, 0.002, 1000 * n + i) for i in range(args.minutes)]
    rows = list(csv.DictReader(args.out.open())) if args.out.exists() else []
    for seed in range(args.seeds):
        for way in args.only:
            about = {"data": Path(args.data).name, "start": args.start, "epochs": str(args.epochs)}
            about |= {"training": way, "seed": str(seed)}
            if any(about.items() <= row.items() for row in rows):
                continue
            print(about, flush=True)
            training = Training(args.start, classes, way, args.window_s, seed)
            training.train(clips["train"], args.epochs, args.rate)
            heard = {split: [training.hear(*one) for one in sounds] for split, sounds in made.items()}
            row = about | {"accuracy": f"{100 * training.accuracy(clips['test']):.1f}"}
            rows.append(row | scores(training.model, classes, heard["validation"], heard["test"]))
            print(rows[-1], flush=True)
            if args.save and seed == 0 and not training.nothing:
                training.model.save(args.save / f"{about['data']}-{way.replace(' ', '-')}")
            with args.out.open("w", newline="") as file:
                writer = csv.DictWriter(file, list(rows[0]))
                writer.writeheader()
                writer.writerows(rows)


if __name__ == "__main__":
    main()
