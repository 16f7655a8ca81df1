"""Labels, events and frames of an hour of audio: CPU time on one thread, and memory.

    python benchmarks/events_hour.py [--minutes 60]

16-bit WAV at 16 kHz, half of it noise bursts, each way in a process of its own, with the weights of the package.
"""

import argparse
import csv
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile
import torch

from audiostride import load
from audiostride.inference.embedding import open_sounds
from audiostride.inference.events import sound_events, sound_frames
from audiostride.inference.predict import predict_sounds

NETWORK = "audio_resnet_small_strided"
WAYS = {
    "predict": lambda model, sounds: sum(len(part.rows) for part in predict_sounds(model, sounds, workers=0)),
    "predict --events": lambda model, sounds: sum(len(part.rows) for part in sound_events(model, sounds)),
    "predict --frames": lambda model, sounds: sum(len(times_ms) for _, times_ms, _, _ in sound_frames(model, sounds)),
}


def measure(way: str, path: str) -> dict[str, float]:
    """Seconds of CPU time and MB of peak memory of one way, in this process."""
    torch.set_num_threads(1)
    model = load(NETWORK)
    began = time.process_time()
    WAYS[way](model, open_sounds([path], 16000))
    seconds = time.process_time() - began
    return {"s": seconds, "MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=int, default=60)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".csv"))
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(*args.one)))
        return
    rows: list[dict[str, str]] = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "hour.wav"
        with soundfile.SoundFile(path, "w", 16000, 1) as file:
            random = np.random.RandomState(0)
            for second in range(60 * args.minutes):
                file.write((0.1 if second % 2 else 0.001) * random.standard_normal(16000).astype(np.float32))
        base = 0.0
        for way in WAYS:
            command = [sys.executable, __file__, "--one", way, str(path)]
            found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            base = base or found["s"]
            row = {"network": NETWORK, "what": way, "CPU s": f"{found['s']:.1f}"}
            rows.append(row | {"time / predict": f"{found['s'] / base:.2f}", "peak MB": f"{found['MB']:.0f}"})
            print(rows[-1], flush=True)
    with args.out.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
