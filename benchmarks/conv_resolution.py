"""Convolution before pooling or after it? Times both for every layer, forward and backward.

    python benchmarks/conv_resolution.py [--batch 16] [--smoothness 1] [--repeats 15] [--out conv_resolution.csv]

On the layers of two networks. The forms run in turn; the table shows medians, their ratio and that of their
multiply-accumulates, and which of them a network runs (`audiostride.layers.conv_form`).
"""

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from timing import NETWORKS, interleaved, publish
from torch import Tensor
from torch.nn import functional as F

from audiostride.layers.conv_form import conv_macs, pools_first
from audiostride.layers.downsampling import DiffStride
from audiostride.layers.strided_conv import StridedConv
from audiostride.models.audio_cnn import STRIDES


def measure(
    network: str, c_in: int, c_out: int, size: tuple[int, int], pool: DiffStride, axis: int, args: argparse.Namespace
) -> dict[str, object]:
    kernel = (3, 1) if axis == 0 else (1, 3)
    crop = pool.axis_crop(size[axis], axis)
    conv = StridedConv(c_in, c_out, kernel, (1, 1)).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    x = torch.randn(args.batch, c_in, *size).contiguous(memory_format=torch.channels_last)
    x.requires_grad_(c_in > 1)

    def before() -> Tensor:
        return pool.pool_axis(conv(x), axis)

    def after() -> Tensor:
        copies = pool.pool_axis(x, axis, taps=3)
        return F.conv2d(copies, conv.conv.weight, conv.conv.bias, stride=kernel)

    def step(form: Callable[[], Tensor]) -> Callable[[], None]:
        return lambda: form().sum().backward()

    forms = {"before": step(before), "after": step(after)}
    times = interleaved(forms, args.repeats)
    macs_before, macs_after = conv_macs(c_in, c_out, 3, crop)
    return {
        "network": network,
        "R": f"{pool.smoothness:g}",
        "channels": f"{c_in} to {c_out}",
        "axis": f"{('time', 'mel')[axis]} {crop.n} to {crop.m}",
        **{f"conv {name} ms": f"{ms:.2f}" for name, ms in times.items()},
        "after / before": f"{times['after'] / times['before']:.2f}",
        "MACs after / before": f"{macs_after / macs_before:.2f}",
        "chosen": "after" if pools_first(c_in, c_out, 3, crop) else "before",
    }


def layers(network: str, smoothness: float, args: argparse.Namespace) -> Iterator[dict[str, object]]:
    """A row for each axis of each layer of a network, on one second of sound."""
    c_in, size = 1, (100, 64)
    for c_out, stride in zip(NETWORKS[network], STRIDES, strict=True):
        pool = DiffStride(stride, smoothness)
        yield measure(network, c_in, c_out, size, pool, 0, args)
        size = (pool.output_length(size[0], 0), size[1])
        yield measure(network, c_out, c_out, size, pool, 1, args)
        size = (size[0], pool.output_length(size[1], 1))
        c_in = c_out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--smoothness", nargs="+", type=float, default=[1.0])
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".csv"))
    args = parser.parse_args()
    torch.manual_seed(0)
    publish([row for network in NETWORKS for r in args.smoothness for row in layers(network, r, args)], args.out)


if __name__ == "__main__":
    main()
