"""Convolution before or after pooling? Times both for every layer of two networks, forward and backward.

    python benchmarks/conv_resolution.py [--batch 64] [--smoothness 1] [--repeats 15]

The two forms run in turn; the table shows medians in ms, their ratio, and the ratio of the
multiply-accumulates, from which `audiostride.downsampling.pools_first` decides.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from audiostride.cnn import CHANNELS, STRIDES
from audiostride.downsampling import DiffStride, StridedConv

NARROW = (16, 32, 64, 64, 128, 128)


def milliseconds(step: Callable[[], Tensor]) -> float:
    began = time.perf_counter()
    step().sum().backward()
    return 1000 * (time.perf_counter() - began)


def compare(
    c_in: int, c_out: int, axis: int, size: tuple[int, int], pool: DiffStride, args: argparse.Namespace
) -> None:
    kernel = (3, 1) if axis == 0 else (1, 3)
    conv = StridedConv(c_in, c_out, kernel, (1, 1)).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    x = torch.randn(args.batch, c_in, *size).contiguous(memory_format=torch.channels_last)
    x.requires_grad_(c_in > 1)

    def before() -> Tensor:
        return pool.pool_axis(conv(x), axis)

    def after() -> Tensor:
        copies = pool.pool_axis(x, axis, taps=3)
        return torch.nn.functional.conv2d(copies, conv.conv.weight, conv.conv.bias, stride=kernel)

    times: dict[str, list[float]] = {"before": [], "after": []}
    for i in range(args.repeats + 1):
        for name, form in (("before", before), ("after", after)):
            elapsed = milliseconds(form)
            if i:  # the first round warms up
                times[name].append(elapsed)
    n, m = size[axis], pool.output_length(size[axis], axis)
    macs_before = 3 * c_in * c_out * n + m * n * c_out
    macs_after = 3 * m * n * c_in + 3 * c_in * c_out * m
    full, out = statistics.median(times["before"]), statistics.median(times["after"])
    print(
        f"{c_in:4d} -> {c_out:4d}  {'time' if axis == 0 else 'mel ':4s} {n:3d} -> {m:3d}  before {full:8.2f} ms"
        f"  after {out:8.2f} ms  ratio {out / full:5.2f}  of MACs {macs_after / macs_before:5.2f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--smoothness", type=float, default=1.0)
    parser.add_argument("--repeats", type=int, default=15)
    args = parser.parse_args()
    torch.manual_seed(0)
    for name, channels in (("narrow", NARROW), ("paper", CHANNELS)):
        print(f"{name}: batch {args.batch}, R = {args.smoothness:g}, {torch.get_num_threads()} threads")
        c_in, size = 1, (100, 64)
        for c_out, stride in zip(channels, STRIDES, strict=True):
            pool = DiffStride(stride, args.smoothness)
            compare(c_in, c_out, 0, size, pool, args)
            size = (pool.output_length(size[0], 0), size[1])
            compare(c_out, c_out, 1, size, pool, args)
            size = (size[0], pool.output_length(size[1], 1))
            c_in = c_out


if __name__ == "__main__":
    main()
