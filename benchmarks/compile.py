"""torch.compile while strides move: step times and recompilations, over steps that change an output size or not.

    python benchmarks/compile.py [--steps 20] [--out compile.csv]

The first two blocks of the narrow network, batch 16. Strides move by 0.02 a step, so every few steps a map has
another size; with crop=False sizes are constant. "first s" is the first step, which compiles.
"""

import argparse
import statistics
import time
from pathlib import Path

import torch
from timing import NETWORKS, publish

from audiostride.cnn import STRIDES, AudioCNN
from audiostride.downsampling import diffstride_layers

BATCH = 16


def measure(mode: str, crop: bool, moves: bool, steps: int) -> dict[str, object]:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    torch.manual_seed(0)
    trunk = AudioCNN("diffstride", channels=NETWORKS["narrow"][:2], strides=STRIDES[:2], smoothness=1)
    for layer in diffstride_layers(trunk):
        layer.crop = crop
    run = trunk if mode == "eager" else torch.compile(trunk, dynamic=None if mode == "compiled" else True)
    x, times, sizes = torch.randn(BATCH, 1, 100, 64), [], set()
    for _ in range(steps):
        began = time.perf_counter()
        run(x).square().mean().backward()
        times.append(time.perf_counter() - began)
        sizes.add(tuple(trunk.map_sizes(100, 64)))
        if moves:
            with torch.no_grad():
                for layer in diffstride_layers(trunk):
                    layer.stride += 0.02
    graphs = torch._dynamo.utils.counters["stats"].get("unique_graphs", 0)
    return {
        "mode": mode,
        "crop": crop,
        "strides move": moves,
        "steps": steps,
        "sets of sizes": len(sizes),
        "graphs compiled": graphs,
        "first s": f"{times[0]:.1f}",
        "median ms": f"{1000 * statistics.median(times):.0f}",
        "all steps s": f"{sum(times):.1f}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("compile.csv"))
    args = parser.parse_args()
    cases = [("eager", True, True), ("compiled", True, False), ("compiled", True, True), ("dynamic", True, True)]
    cases += [("eager", False, True), ("compiled", False, True)]
    publish([measure(*case, args.steps) for case in cases], args.out)


if __name__ == "__main__":
    main()
