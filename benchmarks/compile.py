"""torch.compile while strides move: step times, and how many graphs it compiles.

    python benchmarks/compile.py [--network narrow] [--batch 64] [--steps 30] [--out compile.csv]

Strides move by 0.02 a step, so that every few steps a map has another size. The forms run in turn; "first s" is the
first step, which compiles, and the median leaves it out. Inference has its strides frozen.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from timing import NETWORKS, make_trunk, publish

from audiostride.layers.strides import diffstride_layers, freeze_strides
from audiostride.models.audio_cnn import AudioCNN


def training_step(trunk: AudioCNN, run: Callable[..., torch.Tensor], x: torch.Tensor) -> None:
    run(x).square().mean().backward()
    with torch.no_grad():
        for layer in diffstride_layers(trunk):
            layer.stride += 0.02


def measure(what: str, method: str, args: argparse.Namespace) -> list[dict[str, object]]:
    """Rows for a network as it is and compiled."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    x, forms, times = torch.randn(args.batch, 1, 100, 64), {}, {}
    for mode in ("eager", "compiled"):
        trunk = make_trunk(args.network, method, 1)
        if what == "inference":
            freeze_strides(trunk.eval())
        forms[mode] = (trunk, torch.compile(trunk) if mode == "compiled" else trunk)
        times[mode] = []
    sizes = set()
    for _ in range(args.steps + 1):
        for mode, (trunk, run) in forms.items():
            sizes.add(tuple(trunk.map_sizes(100, 64)))
            began = time.perf_counter()
            if what == "training":
                training_step(trunk, run, x)
            else:
                with torch.no_grad():
                    run(x)
            times[mode].append(time.perf_counter() - began)
    medians = {mode: statistics.median(values[1:]) for mode, values in times.items()}
    graphs = torch._dynamo.utils.counters["stats"].get("unique_graphs", 0)
    return [
        {
            "network": args.network,
            "batch": args.batch,
            "what": what,
            "method": method,
            "mode": mode,
            "sets of sizes": len(sizes),
            "graphs": graphs if mode == "compiled" else "",
            "first s": f"{times[mode][0]:.1f}",
            "median ms": f"{1000 * medians[mode]:.1f}",
            "time / eager": f"{medians[mode] / medians['eager']:.2f}",
        }
        for mode in forms
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=NETWORKS, default="narrow")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("compile.csv"))
    args = parser.parse_args()
    rows = []
    for what in ("training", "inference"):
        for method in ("strided", "diffstride"):
            rows += measure(what, method, args)
    publish(rows, args.out)


if __name__ == "__main__":
    main()
