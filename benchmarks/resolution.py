"""Which resolution of the spectrogram: a grid of fixed ones, learned ones, searches, rivals; one protocol, equal cost.

    OMP_NUM_THREADS=1 python benchmarks/resolution.py DATA --work runs/resolution [--methods fixed halving] [--seeds 0]

DATA holds the sets `commands`, `notes` and `esc` as folders; the two families of `controlled_sounds.py` are made. All
methods share network (a strided `AudioCNN`), epochs, clips and order; only what comes before the network differs. Every
training is a row of `resolution.csv`, written as it ends; rows that are there are not trained again. Spectrograms of
fixed resolution are computed once a process. The last epoch is tested, none is chosen. `correct` has a bit for each
test clip, in hexadecimal, for `resolution_tables.py`.
"""

import argparse
import csv
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from controlled_sounds import FAMILIES, make_family
from resolution_rivals import AverageOf, DiffRes, MixtureOfWindows, Pcen
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from audiostride import AdaptiveLogMel, AudioCNN, DiffStride, LogMel, clamp_strides_, parameter_groups
from audiostride.layers.choice import Kind
from audiostride.training.build import read_data
from audiostride.training.recipe import load_recipe
from audiostride.training.resolution import candidates
from audiostride.training.schedules import schedule_factor

ROOT = Path(__file__).parents[1]
SETS = {
    "words": ("commands", "word", "commands"),
    "pitch": ("notes_pitch", "pitch", "notes"),
    "modulated noise": None,
    "partials": None,
    "family": ("notes_family", "family", "notes"),
    "esc": ("esc", "sound", "esc"),
}
"""Recipe, task and folder of each set of recordings."""

COLUMNS = ["set", "seed", "method", "setting", "epochs", "validation", "test", "mmacs_per_second", "seconds"]
COLUMNS += ["window_ms", "hop_ms", "bands", "correct"]
RATE, CHANNELS, EPOCHS, BATCH, LEARNING_RATE = 16000, (8, 16, 32, 32, 64, 64), 8, 32, 3e-3
MOST = 2000
"""Training clips of a set at most, drawn by the seed: two shared cores are what this was run on."""


class Sounds(NamedTuple):
    """A set: int16 ``(clips, samples)``, class numbers, the split of each clip."""

    waveforms: np.ndarray
    labels: Tensor
    splits: np.ndarray


@dataclass(frozen=True)
class Method:
    """What comes before the network.

    inputs: settings of the `LogMel` whose spectrograms are stacked as channels; none: the waveform.
    make: makes the module from these to ``(batch, 1, time, mel)``.
    rate: learning rate of strides and windows.
    """

    method: str
    setting: str
    inputs: tuple[tuple[tuple[str, float], ...], ...] = ()
    make: Callable[[], nn.Module] = nn.Identity
    rate: float = 0.0
    downsampling: Kind = "strided"


def log_mel(window_ms: float, hop_ms: float, bands: int) -> tuple[tuple[str, float], ...]:
    """Settings of a `LogMel` with the shortest FFT that holds the window and has a bin in every band."""
    n_fft = 512
    while True:
        settings = {"window_ms": window_ms, "hop_ms": hop_ms, "n_mels": bands, "n_fft": n_fft}
        try:
            LogMel(**settings)  # type: ignore[arg-type]
            return tuple(settings.items())
        except ValueError:
            n_fft *= 2


def fixed(window_ms: float, hop_ms: float, bands: int, method: str = "fixed") -> Method:
    return Method(method, f"{hop_ms:g} ms {bands} bands {window_ms:g} ms", (log_mel(window_ms, hop_ms, bands),))


GRID = [fixed(own["window_ms"], own["hop_ms"], own["n_mels"]) for own in candidates(LogMel.section()())]
DEFAULT = fixed(25, 10, 64)
FINE = (log_mel(25, 5, 128),)

RIVALS = [
    Method("pooled", "SimPF mean 2 x 2", FINE, partial(AverageOf, 2)),
    *(
        Method("pooled", f"spectral {t:g} x {m:g}", FINE, partial(DiffStride, (t, m), 1.0))
        for t, m in ((2, 2), (1.5, 8 / 3), (3, 4 / 3))
    ),
    Method("DiffRes", "5 ms to 100 frames", (log_mel(25, 5, 64),), partial(DiffRes, 64, 2)),
    Method("mixture", "windows 12.5 25 50 100 ms", tuple(log_mel(w, 10, 64) for w in (12.5, 25, 50, 100)),
           partial(MixtureOfWindows, 4, 64)),
    Method("PCEN", "10 ms 64 bands", (log_mel(25, 10, 64),), partial(Pcen, 64)),
    Method("inner strides", "10 ms 64 bands", (log_mel(25, 10, 64),), rate=0.06, downsampling="diffstride"),
]  # fmt: skip

LEARNED = [
    Method("learned strides", f"from {t:g} x {m:g} rate {rate:g}", FINE,
           partial(DiffStride, (t, m), 1.0, hold_product=True), rate)
    for t, m, rate in ((2, 2, 0.06), (1, 4, 0.06), (4, 1, 0.06), (2, 2, 0.2))
]  # fmt: skip


def adaptive(window_ms: float, strides: tuple[float, float], rate: float = 0.06) -> Method:
    """Window and strides, at the finest resolution that the grid knows."""
    make = partial(AdaptiveLogMel, window_ms=window_ms, hop_ms=5, n_mels=128, n_fft=1024, strides=strides)
    return Method("learned all", f"from {strides[0]:g} x {strides[1]:g} {window_ms:g} ms rate {rate:g}", (), make, rate)


ADAPTIVE = [adaptive(25, (2, 2)), adaptive(10, (1, 4)), adaptive(60, (4, 1))]


class Bench:
    """Sets, spectrograms and rows."""

    def __init__(self, data: Path, work: Path, out: Path, minutes: float):
        self.data, self.work, self.out = data, work, out
        self.until = time.perf_counter() + 60 * minutes
        self.sounds: dict[tuple[str, int], Sounds] = {}
        self.spectrograms: dict[tuple[Any, ...], Tensor] = {}
        self.rows: dict[tuple[str, ...], dict[str, str]] = {}
        if out.exists():
            with out.open(newline="", encoding="utf-8") as file:
                self.rows = {tuple(row[column] for column in COLUMNS[:5]): row for row in csv.DictReader(file)}
        else:
            out.write_text(",".join(COLUMNS) + "\n", encoding="utf-8")

    def row(self, name: str, seed: int, method: Method, epochs: int) -> dict[str, str]:
        """The row of a training, which is done if the row is not there."""
        key = (name, str(seed), method.method, method.setting, str(epochs))
        if key not in self.rows:
            began = time.perf_counter()
            if began > self.until:
                raise SystemExit("the time is up; the same command continues")
            found = self.train(name, seed, method, epochs)
            values = {**dict(zip(COLUMNS, key, strict=False)), **found, "seconds": f"{time.perf_counter() - began:.0f}"}
            self.add({column: str(values.get(column, "")) for column in COLUMNS})
        return self.rows[key]

    def add(self, row: dict[str, str]) -> None:
        self.rows[tuple(row[column] for column in COLUMNS[:5])] = row
        with self.out.open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, COLUMNS, lineterminator="\n").writerow(row)
        print(*list(row.values())[:-1], flush=True)

    def set_of(self, name: str, seed: int) -> Sounds:
        """Clips of a set, with the validation clips that the seed draws."""
        if (name, seed) not in self.sounds:
            self.sounds.clear()
            self.spectrograms.clear()
            self.sounds[name, seed] = read_set(name, seed, self.data, self.work)
        return self.sounds[name, seed]

    def inputs(self, name: str, seed: int, method: Method) -> Tensor:
        """What the method's module gets of every clip, ``(clips, inputs, time, mel)`` or ``(clips, samples)``."""
        sounds = self.set_of(name, seed)
        if not method.inputs:
            return torch.from_numpy(sounds.waveforms)
        for settings in method.inputs:
            if (name, settings) not in self.spectrograms:
                frontend = LogMel(**dict(settings))  # type: ignore[arg-type]
                parts = torch.from_numpy(sounds.waveforms).split(64)
                self.spectrograms[name, settings] = torch.cat([frontend(p / 32768).half() for p in parts])
        return torch.cat([self.spectrograms[name, settings] for settings in method.inputs], dim=1)

    def train(self, name: str, seed: int, method: Method, epochs: int) -> dict[str, Any]:
        """Train and test one network."""
        sounds, clips = self.set_of(name, seed), self.inputs(name, seed, method)
        torch.manual_seed(seed)
        before = method.make()
        trunk = AudioCNN(method.downsampling, channels=CHANNELS, smoothness=1)
        net = nn.Sequential(before, trunk, nn.Linear(CHANNELS[-1], int(sounds.labels.max()) + 1))
        optimizer = torch.optim.Adam(parameter_groups(net, LEARNING_RATE, method.rate))
        peaks = [group["lr"] for group in optimizer.param_groups]
        random = np.random.RandomState(seed)
        training = np.flatnonzero(sounds.splits == "train")
        n_steps, step = epochs * (len(training) // BATCH), 0
        seconds = sounds.waveforms.shape[1] // RATE
        net.train()
        for _ in range(epochs):
            order = random.permutation(training)
            for first in range(0, len(order) - BATCH + 1, BATCH):
                rows = order[first : first + BATCH]
                x, y = windows(clips[rows], seconds, random), sounds.labels[rows]
                for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                    group["lr"] = peak * schedule_factor("one_cycle", step, n_steps)
                optimizer.zero_grad(set_to_none=True)
                x = net[0](x)
                with torch.autocast("cpu", torch.bfloat16):
                    logits = net[2](net[1](x))
                F.cross_entropy(logits.float(), y).backward()
                optimizer.step()
                clamp_strides_(net)
                step += 1
        correct = {split: test(net, clips, sounds, split, seconds) for split in ("validation", "test")}
        found = {split: f"{100 * right.mean():.2f}" for split, right in correct.items()}
        one = windows(clips[:1], seconds)[:1]
        counted: nn.Module = net
        if isinstance(before, AdaptiveLogMel):  # as of the others, neither FFT nor filters count
            counted, one = nn.Sequential(before.pool, *net[1:]), before.spectrogram(one).detach()
        with FlopCounterMode(display=False) as counter, torch.inference_mode():
            counted(one.float())
        found["mmacs_per_second"] = f"{counter.get_total_flops() / 2e6:.2f}"
        found["correct"] = np.packbits(correct["test"]).tobytes().hex()
        return found | tile(before, method)


def tile(before: nn.Module, method: Method) -> dict[str, str]:
    """Window, hop and bands that reach the network."""
    if isinstance(before, AdaptiveLogMel):
        found = before.tile(RATE)
        time_stride, mel_stride = found["strides"]
        window, hop, bands = found["window_ms"], 5 * time_stride, 128 / mel_stride
    else:
        own = dict(method.inputs[0])
        time_stride, mel_stride = before.strides() if isinstance(before, DiffStride) else (1.0, 1.0)
        window, hop, bands = own["window_ms"], own["hop_ms"] * time_stride, own["n_mels"] / mel_stride
    return {"window_ms": f"{window:.2f}", "hop_ms": f"{hop:.3f}", "bands": f"{bands:.1f}"}


def windows(clips: Tensor, seconds: int, random: np.random.RandomState | None = None) -> Tensor:
    """One second of each clip: a random one, of a clip of a second one shifted by up to 100 ms; or all seconds."""
    is_sound = clips.dim() == 2
    x = clips.float() / 32768 if is_sound else clips.float()
    dim = 1 if is_sound else 2
    length = x.shape[dim] // seconds
    if random is None:
        return torch.cat(x.split(length, dim)) if seconds > 1 else x
    if seconds > 1:
        starts = random.uniform(0, 1, len(x)) * (x.shape[dim] - length)
        return torch.stack([one.narrow(dim - 1, round(at), length) for one, at in zip(x, starts, strict=True)])
    shifts = np.rint(random.uniform(-0.1, 0.1, len(x)) * length).astype(int)
    aside = round(0.1 * length) + 1
    silence = 0.0 if is_sound else math.log(1e-5)
    pads = (aside, aside) if is_sound else (0, 0, aside, aside)
    padded = F.pad(x, pads, value=silence)
    return torch.stack([one.narrow(dim - 1, aside + s, length) for one, s in zip(padded, shifts, strict=True)])


@torch.inference_mode()
def test(net: nn.Module, clips: Tensor, sounds: Sounds, split: str, seconds: int) -> np.ndarray:
    """Whether each clip of a split is recognised; logits of the seconds of a clip are averaged."""
    net.eval()
    right = []
    for rows in np.array_split(np.flatnonzero(sounds.splits == split), 16):
        logits = net(windows(clips[rows], seconds)).unflatten(0, (seconds, -1)).mean(0)
        right.append((logits.argmax(1) == sounds.labels[rows]).numpy())
    return np.concatenate(right)


def read_set(name: str, seed: int, data: Path, work: Path) -> Sounds:
    if name in FAMILIES:
        waveforms, labels = make_family(name)
        part = np.arange(len(labels)) // 5 % 10
        splits = np.where(part < 7, "train", np.where(part == 7, "validation", "test"))
        return Sounds(waveforms, torch.from_numpy(labels), splits)
    recipe, task, folder = SETS[name]  # type: ignore[misc]
    overrides = [f"seed={seed}", f"tasks.{task}.data.path={data / folder}", "train.workers=0"]
    (found,), _, _ = read_data(load_recipe(str(ROOT / "results" / "recipes" / f"{recipe}.yaml"), overrides), None)
    file = work / f"{folder}.npy"
    if not file.exists():
        length = 5 * RATE if name == "esc" else RATE
        sounds = np.zeros((len(found.clips), length), np.int16)
        for index in range(len(found.clips)):
            own = found.clips.read(index, RATE)[:length]
            sounds[index, : len(own)] = np.clip(np.rint(own * 32768), -32768, 32767)
        work.mkdir(parents=True, exist_ok=True)
        np.save(file, sounds)
    splits = np.array(found.splits)
    training = np.flatnonzero(splits == "train")
    splits[np.random.RandomState(seed).permutation(training)[MOST:]] = "unused"
    rows = np.flatnonzero(splits != "unused")
    return Sounds(np.load(file)[rows], torch.from_numpy(found.labels[task])[rows], splits[rows])


def halving(bench: Bench, name: str, seed: int) -> tuple[Method, int]:
    """Successive halving over the grid: short trainings of all, longer ones of the better half, and so on.

    Returns:
        The resolution that is left, and the epochs spent.
    """
    left, spent = list(GRID), 0
    n_rounds = (len(left) - 1).bit_length()
    for number in range(n_rounds):  # as `find_resolution`
        epochs = max(1, EPOCHS >> (n_rounds - number))
        spent += len(left) * epochs
        rows = [bench.row(name, seed, method, epochs) for method in left]
        ranked = sorted(zip(rows, left, strict=True), key=lambda pair: -float(pair[0]["validation"]))
        left = [method for _, method in ranked[: (len(left) + 1) // 2]]
    return left[0], spent


def search(bench: Bench, name: str, seed: int, epochs: int = 4) -> tuple[Method, int]:
    """Gradient search: short trainings of learned resolutions from three starts; the best by validation is settled."""
    rows = [bench.row(name, seed, method, epochs) for method in ADAPTIVE]
    best = max(rows, key=lambda row: float(row["validation"]))
    hop_ms = round(float(best["hop_ms"]) * RATE / 1000) * 1000 / RATE
    return fixed(round(float(best["window_ms"]), 1), hop_ms, round(float(best["bands"])), "settled"), 3 * epochs


def run(bench: Bench, name: str, seed: int, methods: Sequence[str]) -> None:
    """All rows of a set and seed."""
    plain = {"default": [DEFAULT], "fixed": GRID, "rivals": RIVALS, "learned": LEARNED, "adaptive": ADAPTIVE}
    for method in (one for key, some in plain.items() if key in methods for one in some):
        bench.row(name, seed, method, EPOCHS)
    if "chosen" in methods:  # by halving with seed 0
        settings = {key[3] for key in bench.rows if key[:3] == (name, "0", "halving")}
        for method in (one for one in GRID if one.setting in settings):
            bench.row(name, seed, method, EPOCHS)
    for label, find in (("halving", halving), ("search", search)):
        if label in methods and not any(key[:3] == (name, str(seed), label) for key in bench.rows):
            found, spent = find(bench, name, seed)
            bench.add({**bench.row(name, seed, found, EPOCHS), "method": label, "epochs": str(spent + EPOCHS)})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--work", type=Path, required=True, help="folder of the decoded sets")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--methods", nargs="+", default=["fixed", "halving", "search", "rivals", "learned", "adaptive"])
    parser.add_argument("--minutes", type=float, default=math.inf, help="begin no training after so many")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".csv"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    bench = Bench(args.data, args.work, args.out, args.minutes)
    for seed in args.seeds:
        for name in args.sets:
            run(bench, name, seed, args.methods)


if __name__ == "__main__":
    main()
