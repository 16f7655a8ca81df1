"""The layer alone, forward and backward, beside average pooling to the same size and the FFT form.

    python benchmarks/layer.py [--batch 64] [--smoothness 1 4] [--repeats 15] [--out layer.csv]

On the feature maps of the paper's network at its strides of 2, channels last. All forms run in turn; medians.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
from timing import interleaved, publish
from torch import Tensor
from torch.nn import functional as F

from audiostride.layers.crop_spectrum import crop_spectrum_fft
from audiostride.layers.downsampling import DiffStride, SpectralPool
from audiostride.layers.spectrum import diffstride_mask

MAPS = ((64, 100, 64), (128, 50, 32), (256, 25, 16), (512, 13, 8))


def fft_form(pool: DiffStride, x: Tensor) -> Tensor:
    for axis, stride in enumerate(pool.strides()):
        crop = pool.axis_crop(x.shape[2 + axis], axis, stride)
        x = crop_spectrum_fft(x, diffstride_mask(crop, pool.stride[axis], pool.smoothness), crop, 2 + axis)
    return x


def measure(channels: int, time: int, mel: int, smoothness: float, args: argparse.Namespace) -> dict[str, object]:
    x = torch.randn(args.batch, channels, time, mel).contiguous(memory_format=torch.channels_last).requires_grad_()
    contiguous = x.detach().contiguous().requires_grad_()
    pool, spectral = DiffStride((2.0, 2.0), smoothness), SpectralPool((2.0, 2.0))
    size = (pool.output_length(time, 0), pool.output_length(mel, 1))

    def step(form: Callable[[Tensor], Tensor], x: Tensor) -> Callable[[], None]:
        return lambda: form(x).sum().backward()

    times = interleaved(
        {
            "average": step(lambda x: F.adaptive_avg_pool2d(x, size), x),
            "spectral": step(spectral, x),
            "diffstride": step(pool, x),
            "fft": step(lambda x: fft_form(pool, x), contiguous),
        },
        args.repeats,
    )
    return {
        "input": f"{channels} x {time} x {mel}",
        "R": f"{smoothness:g}",
        "output": f"{size[0]} x {size[1]}",
        **{f"{name} ms": f"{ms:.2f}" for name, ms in times.items()},
        "diffstride / average": f"{times['diffstride'] / times['average']:.2f}",
        "diffstride / fft": f"{times['diffstride'] / times['fft']:.2f}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--smoothness", nargs="+", type=float, default=[1.0, 4.0])
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("layer.csv"))
    args = parser.parse_args()
    publish([measure(*shape, r, args) for shape in MAPS for r in args.smoothness], args.out)


if __name__ == "__main__":
    main()
