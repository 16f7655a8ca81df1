"""Time and memory of a training step and of inference: strided, spectral, DiffStride, also with aliasing, also by FFT.

    python benchmarks/step.py [--networks paper narrow] [--batches 1 8 64] [--smoothness 1 2 4] [--aliasing 1]
                              [--after 1] [--groups 1] [--out step.csv]

On log-mel spectrograms of one second, at the initial strides; the step is forward and backward of the
trunk, inference has its strides frozen. All methods of a row group run in turn, and each ratio is
that of their medians. Memory is the largest amount a step holds beyond parameters and gradients.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from timing import convolving_in_full, interleaved, make_trunk, peak_megabytes, publish
from torch import Tensor

from audiostride.layers.strides import freeze_strides
from audiostride.models.audio_cnn import AudioCNN
from audiostride.models.cost import model_cost

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def training_step(trunk: AudioCNN, x: Tensor, autocast: bool) -> Callable[[], None]:
    for p in trunk.parameters():
        p.grad = torch.zeros_like(p)

    def step() -> None:
        with torch.autocast(DEVICE.type, torch.bfloat16, enabled=autocast):
            embedding = trunk(x)
        embedding.float().square().mean().backward()

    return step


def inference(trunk: AudioCNN, x: Tensor, autocast: bool) -> Callable[[], None]:
    trunk.eval()
    freeze_strides(trunk)

    def step() -> None:
        with torch.inference_mode(), torch.autocast(DEVICE.type, torch.bfloat16, enabled=autocast):
            trunk(x)

    return step


def measure(network: str, batch: int, args: argparse.Namespace) -> list[dict[str, object]]:
    methods = [("strided", 0.0), ("widened", 0.0), ("spectral", 0.0)]
    methods += (
        [("diffstride", r) for r in args.smoothness]
        + [("aliasing", r) for r in args.aliasing]
        + [("after", r) for r in args.after]
        + [("groups", r) for r in args.groups]
        + [("fixed", 0.0)] * bool(args.groups)
        + [("fft", r) for r in args.fft]
    )
    x = torch.randn(batch, 1, 100, 64, device=DEVICE)
    names = {f"{method} {r:g}": (method, r) for method, r in methods}
    repeats = 3 if network == "paper" and batch >= 64 else args.repeats
    rows = []
    for what, make in (("training", training_step), ("inference", inference)):
        trunks = {name: make_trunk(network, method, r or 1.0).to(DEVICE) for name, (method, r) in names.items()}
        costs = {name: model_cost(trunk, x[:1]).macs for name, trunk in trunks.items()}
        with convolving_in_full():
            plain = {
                name: make_trunk(network, {"fft": "diffstride"}.get(m, m), r or 1.0) for name, (m, r) in names.items()
            }
            full = {name: model_cost(trunk, x[:1].cpu()).macs for name, trunk in plain.items()}
        costs |= {name: full[name] for name, (method, _) in names.items() if method == "fft"}
        steps = {name: make(trunk, x, args.bfloat16) for name, trunk in trunks.items()}
        times = interleaved(steps, repeats)
        memory = {name: peak_megabytes(step) for name, step in steps.items()}
        for name, (method, r) in names.items():
            rows.append(
                {
                    "network": network,
                    "what": what,
                    "batch": batch,
                    "method": method,
                    "R": f"{r:g}" if r else "",
                    "precision": "bfloat16" if args.bfloat16 else "float32",
                    "ms": f"{times[name]:.1f}",
                    "time / strided": f"{times[name] / times['strided 0']:.2f}",
                    "MMAC": f"{costs[name] / 1e6:.0f}",
                    "MAC ratio": f"{costs[name] / costs['strided 0']:.2f}",
                    "MAC ratio, full": f"{full[name] / full['strided 0']:.2f}",
                    "peak MB": f"{memory[name]:.1f}",
                    "memory / strided": f"{memory[name] / memory['strided 0']:.2f}",
                }
            )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=["paper", "narrow"], default=["paper", "narrow"])
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8, 64])
    parser.add_argument("--smoothness", nargs="+", type=float, default=[1.0, 2.0, 4.0])
    parser.add_argument("--aliasing", nargs="*", type=float, default=[1.0], help="R with learned aliasing")
    parser.add_argument("--after", nargs="*", type=float, default=[1.0], help="R with aliasing, after the ReLU")
    parser.add_argument(
        "--groups",
        nargs="*",
        type=float,
        default=[1.0],
        help="R with that in two groups of channels, and with fixed strides",
    )
    parser.add_argument("--fft", nargs="*", type=float, default=[4.0], help="R of the FFT form")
    parser.add_argument("--bfloat16", action="store_true", help="under autocast")
    parser.add_argument("--repeats", type=int, default=12, help="three for the largest")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("step.csv"))
    args = parser.parse_args()
    rows = []
    for network in args.networks:
        for batch in args.batches:
            print(f"{network}, batch {batch}", file=sys.stderr, flush=True)
            rows += measure(network, batch, args)
    publish(rows, args.out)


if __name__ == "__main__":
    main()
