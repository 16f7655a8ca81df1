"""Where the time of a training step goes, by operator: strided, DiffStride, and DiffStride by FFT.

    python benchmarks/operators.py [--network paper] [--batch 64] [--smoothness 1 4] [--out operators.csv]

From `torch.profiler`, as shares of each step's own time; operators below two hundredths everywhere are summed up.
"""

import argparse
from pathlib import Path

import torch
from step import training_step
from timing import make_trunk, publish
from torch.profiler import ProfilerActivity, profile

NAMES = {
    "aten::mkldnn_convolution": "convolution",
    "aten::convolution_backward": "convolution, backward",
    "aten::bmm": "matrix products, of many",
    "aten::baddbmm_": "matrix products, of many",
    "aten::mm": "matrix products",
    "aten::addmm": "matrix products",
    "aten::native_batch_norm": "batch norm",
    "aten::native_batch_norm_backward": "batch norm, backward",
    "aten::copy_": "copies",
    "aten::clamp_min": "ReLU",
    "aten::threshold_backward": "ReLU, backward",
    "aten::_fft_r2c": "FFT",
    "aten::_fft_c2r": "FFT",
    "aten::_fft_c2c": "FFT",
}


def shares(method: str, smoothness: float, args: argparse.Namespace) -> dict[str, float]:
    step = training_step(make_trunk(args.network, method, smoothness), torch.randn(args.batch, 1, 100, 64), False)
    step()
    with profile(activities=[ProfilerActivity.CPU]) as record:
        step()
    events = record.key_averages()
    total = sum(event.self_cpu_time_total for event in events)
    found: dict[str, float] = {}
    for event in events:
        name = NAMES.get(event.key, event.key)
        found[name] = found.get(name, 0.0) + event.self_cpu_time_total / total
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=["paper", "narrow"], default="paper")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--smoothness", nargs="+", type=float, default=[1.0, 4.0])
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("operators.csv"))
    args = parser.parse_args()
    steps = {"strided": ("strided", 1.0)}
    steps |= {f"R = {r:g}": ("diffstride", r) for r in args.smoothness} | {"FFT form, R = 4": ("fft", 4.0)}
    found = {title: shares(*step, args) for title, step in steps.items()}
    names = {name for column in found.values() for name, share in column.items() if share >= 0.02}
    ordered = sorted(names, key=lambda name: -max(column.get(name, 0.0) for column in found.values()))
    rows: list[dict[str, object]] = [
        {"operator": name, **{title: f"{100 * column.get(name, 0.0):.0f} %" for title, column in found.items()}}
        for name in ordered
    ]
    others = {title: 1 - sum(column.get(name, 0.0) for name in names) for title, column in found.items()}
    publish(
        [*rows, {"operator": "others", **{title: f"{100 * share:.0f} %" for title, share in others.items()}}], args.out
    )


if __name__ == "__main__":
    main()
