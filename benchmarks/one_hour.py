"""One hour of audio, from the file to its label, on one core: how many times faster than real time?

    python benchmarks/one_hour.py [--minutes 60] [--smoothness 1 4] [--repeats 1] [--out one_hour.csv]

16-bit WAV at 16 kHz, read, framed, classified window by window as `audiostride predict` does, at the
initial strides; the twins run in turn.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import soundfile
import torch
from timing import NETWORKS, interleaved, make_trunk, publish

from audiostride.inference.embedding import open_sounds
from audiostride.inference.predict import predict_sounds
from audiostride.models.classifier import AudioClassifier
from audiostride.models.log_mel import LogMel


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=int, default=60)
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=["narrow", "paper"])
    parser.add_argument("--smoothness", nargs="+", type=float, default=[1.0, 4.0])
    parser.add_argument("--repeats", type=int, default=1, help="after one round that warms up")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("one_hour.csv"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "hour.wav"
        with soundfile.SoundFile(path, "w", 16000, 1) as file:
            random = np.random.RandomState(0)
            for _ in range(args.minutes):
                file.write(0.1 * random.standard_normal(60 * 16000).astype(np.float32))
        for network in args.networks:
            models = {}
            methods = [("strided", "strided", 1.0)]
            methods += [(f"diffstride R = {r:g}", "diffstride", r) for r in args.smoothness]
            for name, method, smoothness in methods:
                models[name] = AudioClassifier(LogMel(), make_trunk(network, method, smoothness), {"label": 10})
            forms = {
                name: lambda model=model: list(predict_sounds(model, open_sounds([str(path)], 16000), workers=0))
                for name, model in models.items()
            }
            times = interleaved(forms, args.repeats)
            rows += [
                {
                    "network": network,
                    "method": name,
                    "s": f"{ms / 1000:.1f}",
                    "times real time": f"{60 * args.minutes / (ms / 1000):.0f}",
                    "time / strided": f"{ms / times['strided']:.2f}",
                }
                for name, ms in times.items()
            ]
    publish(rows, args.out)


if __name__ == "__main__":
    main()
