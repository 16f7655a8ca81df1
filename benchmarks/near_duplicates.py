"""How many altered copies `validate` finds, and how many pairs it takes for copies that are none.

    python benchmarks/near_duplicates.py DATA --clips 300 --out benchmarks/near_duplicates.csv

DATA holds a folder of sounds for each set. Of a third of the drawn clips of a set a copy is added: a half cut out of
the middle, MP3 or Ogg Vorbis at a low quality, another sample rate, or a fifth of the level with the begin cut off. A
pair counts as false if the two clips were not made from each other; those of the clips as they are stand in the last
column, to be listened to.
"""

import argparse
import csv
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile
import soxr

from audiostride.data.clips import FileClips
from audiostride.data.decoding import is_audio
from audiostride.data.near_duplicates import near_duplicates

KINDS = ("cut", "mp3", "ogg", "rate", "level")


def make_copy(waveform: np.ndarray, rate: int, kind: str, path: Path, random: np.random.RandomState) -> Path:
    """Write an altered copy of a sound."""
    if kind == "cut":
        begin = random.randint(1, len(waveform) // 2)
        waveform = waveform[begin : begin + len(waveform) // 2]
    elif kind == "level":
        waveform = 0.2 * waveform[random.randint(1, len(waveform) // 4) :]
    elif kind == "rate":
        other = 11025 if rate != 11025 else 22050
        waveform, rate = soxr.resample(waveform, rate, other), other
    path = path.with_suffix(f".{kind}" if kind in ("mp3", "ogg") else ".wav")
    quality = {"compression_level": 0.9} if kind in ("mp3", "ogg") else {}
    soundfile.write(path, waveform, rate, **quality)
    return path


def measure(folder: Path, n_clips: int, work: Path) -> dict[str, object]:
    """One set: copies found of each kind, false pairs."""
    random = np.random.RandomState(0)
    files = sorted(path for path in folder.rglob("*") if is_audio(path))
    files = [files[i] for i in sorted(random.permutation(len(files))[:n_clips])]
    names, source, kinds = [str(file) for file in files], list(range(len(files))), [""] * len(files)
    for n, index in enumerate(random.permutation(len(files))[: len(files) // 3]):
        waveform, rate = soundfile.read(files[index])
        mono = waveform if waveform.ndim == 1 else waveform.mean(1)
        names.append(str(make_copy(mono, rate, KINDS[n % len(KINDS)], work / f"{folder.name}{n}", random)))
        source.append(int(index))
        kinds.append(KINDS[n % len(KINDS)])
    began = time.process_time()
    found = near_duplicates(FileClips(names, {}, [""] * len(names), root=Path("/")))
    seconds = time.process_time() - began
    right = {b for a, b, _ in found if source[b] == a}
    false = [pair for pair in found if source[pair.first] != source[pair.second]]
    row: dict[str, object] = {"set": folder.name, "clips": len(names), "cpu_s": round(seconds, 1)}
    for kind in KINDS:
        row[kind] = f"{sum(kinds[i] == kind for i in right)}/{kinds.count(kind)}"
    shown = [f"{Path(names[a]).stem}+{Path(names[b]).stem} {c}" for a, b, c in false if not kinds[a] + kinds[b]]
    return row | {"false_pairs": len(false), "false_pairs_of_originals": "; ".join(shown)}


def main() -> None:
    """Write a row for each set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--clips", type=int, default=300)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as work:
        for folder in sorted(path for path in arguments.data.iterdir() if path.is_dir()):
            if any(is_audio(path) for path in folder.rglob("*")):
                rows.append(measure(folder, arguments.clips, Path(work)))
                print(rows[-1])
    with arguments.out.open("w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)


if __name__ == "__main__":
    main()
