"""How exactly onsets are found: sounds at known times in noise, found by networks whose frames are 10 to 160 ms apart.

    python benchmarks/onsets.py [--words DATA] [--events 120]

Predicted is half of the time between two frames. Measured is the half width of the middle 90 % of the errors, after
their median, which is given as well. Clicks, tone bursts and noise bursts of 150 ms are found by a linear head on the
frames of an untrained network (least squares, on as many other events), so that nothing but its resolution counts;
words by the weights of the package, with their own settings, the onset being where a clip comes within 13 dB of its
loudest (`event_clips.loud_part`).
"""

import argparse
import csv
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import soundscapes
import torch

from audiostride import create_model, load
from audiostride.data.annotations import Segment
from audiostride.data.any_path import read_path
from audiostride.models.classifier import AudioClassifier
from audiostride.models.events import EventSettings
from audiostride.models.frames import frame_grid, run_in_blocks, trunk_frames
from audiostride.training.event_clips import level, made_recording
from audiostride.training.event_testing import found_segments

RATE, BURST_S, GAP_S, SNRS_DB = 16000, 0.15, 0.6, (40, 20, 10)
SOUNDS = ("click", "tone burst", "noise burst")
STRIDES = {
    "strided": ((1, 1, 1), (2, 1, 1), (2, 2, 1), (2, 2, 2), (4, 2, 2)),
    "diffstride": ((1.7, 1.7, 1), (2.4, 2.4, 1)),
}
"""Strides along time of three blocks of each network."""


def network(kind: str, along_time: tuple[float, float, float]) -> AudioClassifier:
    """A small untrained network with these strides along time; its norms have heard noise."""
    torch.manual_seed(0)
    first, second, third = along_time
    strides = [(1, 2), (first, 2), (second, 1), (third, 1), (1, 1)]
    model = create_model(f"audio_resnet_pico_{kind}", heads={"sound": ["event"]}, strides=strides)
    model.train()(torch.rand(16, 1) * torch.randn(16, RATE))
    return model.eval()


def recording(sound: str, snr_db: float, n: int, seed: int) -> tuple[np.ndarray, list[Segment]]:
    """`n` sounds at random times in noise: the ratio of a sound's power, a click's over 25 ms, to that of the noise."""
    random = np.random.default_rng(seed)
    starts = np.cumsum(GAP_S + random.uniform(0, 0.5, n))
    waveform = 0.1 * 10 ** (-snr_db / 20) * random.standard_normal(round((starts[-1] + 1) * RATE))
    length = 1 if sound == "click" else round(BURST_S * RATE)
    events = []
    for start in starts:
        first = round(start * RATE)
        time_s = np.arange(length) / RATE
        tone = np.sqrt(2) * np.sin(2 * np.pi * random.uniform(300, 3000) * time_s)
        shape = {"click": np.full(1, 20.0), "tone burst": tone, "noise burst": random.standard_normal(length)}[sound]
        waveform[first : first + length] += 0.1 * shape
        events.append(Segment(first / RATE, (first + length) / RATE, "event"))
    return waveform.astype(np.float32), events


@torch.inference_mode()
def fit_head(model: AudioClassifier, sound: np.ndarray, true: list[Segment]) -> None:
    """The linear head that is nearest to 1 in frames within an event and 0 elsewhere, scaled to peaks of 10."""
    grid = frame_grid(model)
    times_s = model.frame_logits(sound, RATE)[0].numpy() / 1000
    inside = np.zeros(len(times_s))
    for event in true:
        within = np.flatnonzero((times_s >= event.start_s) & (times_s <= event.end_s))
        inside[within if len(within) else np.abs(times_s - event.start_s).argmin()] = 1.0
    features = torch.cat(list(run_in_blocks(lambda x: trunk_frames(model.trunk, model.frontend(x)), grid, [sound])))
    x = torch.cat([features, torch.ones(len(features), 1)], 1).double()
    ridge = 1e-3 * len(times_s) * torch.eye(x.shape[1], dtype=torch.float64)
    solution = torch.linalg.solve(x.T @ x + ridge, x.T @ torch.from_numpy(inside))
    peaks = [(x @ solution)[np.abs(times_s - e.start_s - BURST_S / 2) < GAP_S / 2].max() for e in true]
    solution = (10 / np.median(peaks) * solution).float()
    model.heads["sound"].weight.copy_(solution[None, :-1])
    model.heads["sound"].bias.copy_(solution[-1:])


def errors_ms(found: list[Segment], true: list[Segment]) -> np.ndarray:
    """Found minus true onset, for each true event whose nearest found one of its class is within 300 ms."""
    errors = []
    for event in true:
        near = [s.start_s - event.start_s for s in found if s.label == event.label]
        if near and abs(best := min(near, key=abs)) < 0.3:
            errors.append(1000 * best)
    return np.array(errors)


def row(sound: str, snr: str, kind: str, model: AudioClassifier, errors: np.ndarray, n: int) -> dict[str, str]:
    """What is reported of the errors of one network."""
    low, middle, high = np.percentile(errors, [5, 50, 95]) if len(errors) else [np.nan] * 3
    grid = frame_grid(model)
    return {
        "sound": sound,
        "SNR dB": snr,
        "network": kind,
        "frame ms": f"{grid.hop_ms:.1f}",
        "predicted ±ms": f"{grid.onset_ms:.1f}",
        "measured ±ms": f"{(high - low) / 2:.1f}",
        "median ms": f"{middle:.1f}",
        "found %": f"{100 * len(errors) / n:.0f}",
    }


def words(data: str, minutes: int) -> list[dict[str, str]]:
    """Words of test speakers in three levels of noise, found by the weights of the package."""
    model, table = load("audio_resnet_small_strided").eval(), read_path(data)
    labels, grid = table.column("label"), frame_grid(model)
    test = [i for i, split in enumerate(table.splits) if split == "test"][:: max(1, 15 // minutes)]
    clips = [(table.read(i, RATE), [labels[i]]) for i in test]
    rows = []
    for noise in (0.0005, 0.002, 0.008):
        errors, n = [], 0
        for minute in range(minutes):
            sound, true = made_recording(clips, RATE, noise, minute)
            heard = soundscapes.hear(model, "word", sound, true, "")
            found = found_segments(heard, grid, model.labels["word"], "multiclass", model.events_by("word"))
            errors.append(errors_ms(found, true))
            n += len(true)
        level = np.median([10 * np.log10(level(clip, RATE).max() / noise**2) for clip, _ in clips])
        rows.append(row("words", f"{level:.0f}", "strided, trained", model, np.concatenate(errors), n))
        print(rows[-1], flush=True)
    return rows


def figure(rows: list[dict[str, str]], path: Path) -> None:
    """Measured against predicted."""
    plt.rcParams["svg.hashsalt"] = "onsets"
    fig, axes = plt.subplots(figsize=(5.6, 4.2), layout="constrained")
    for sound in dict.fromkeys(r["sound"] for r in rows):
        levels = dict.fromkeys(r["SNR dB"] for r in rows if r["sound"] == sound)
        for snr, alpha in zip(levels, (1, 0.6, 0.3), strict=False):
            some = [r for r in rows if (r["sound"], r["SNR dB"]) == (sound, snr)]
            colour = f"C{[*SOUNDS, 'words'].index(sound)}"
            at = [(float(r["predicted ±ms"]), float(r["measured ±ms"])) for r in some]
            axes.plot(*zip(*at, strict=True), "o", color=colour, alpha=alpha, label=f"{sound}, {snr} dB")
    edges = np.array([4, 100])
    axes.plot(edges, edges, "k-", lw=0.8, label="as predicted")
    axes.set(xscale="log", yscale="log", xlabel="predicted, ± ms", ylabel="measured (middle 90 % of onsets), ± ms")
    axes.legend(fontsize=7, frameon=False)
    fig.savefig(path, dpi=110, metadata={"Software": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--words", metavar="DATA", help="a folder of clips of words with a test split")
    parser.add_argument("--minutes", type=int, default=6, help="of words in each level of noise")
    parser.add_argument("--events", type=int, default=120)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".csv"))
    parser.add_argument("--figure", type=Path, default=Path(__file__).parents[1] / "docs" / "onsets.png")
    args = parser.parse_args()
    settings = EventSettings((5.0,), floor=0.0, min_ms=0.0, join_ms=50.0)
    rows = []
    for kind, networks in STRIDES.items():
        for along_time in networks:
            model = network(kind, along_time)
            for sound in SOUNDS:
                for snr_db in SNRS_DB:
                    fit_head(model, *recording(sound, snr_db, args.events, seed=1))
                    waveform, true = recording(sound, snr_db, args.events, seed=2)
                    heard = soundscapes.hear(model, "sound", waveform, true, "")
                    found = found_segments(heard, frame_grid(model), ["event"], "multiclass", settings)
                    rows.append(row(sound, str(snr_db), kind, model, errors_ms(found, true), len(true)))
                    print(rows[-1], flush=True)
    rows += words(args.words, args.minutes) if args.words else []
    with args.out.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    figure(rows, args.figure)


if __name__ == "__main__":
    main()
