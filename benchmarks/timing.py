"""What the benchmarks share: interleaved timing, peak memory, the networks, a table and its CSV."""

import csv
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from audiostride.layers import downsampling
from audiostride.layers.choice import Kind
from audiostride.layers.crop_spectrum import crop_spectrum_fft
from audiostride.layers.downsampling import DiffStride
from audiostride.models.audio_cnn import CHANNELS, AudioCNN, SeparableBlock

NETWORKS = {"paper": CHANNELS, "narrow": (16, 32, 64, 64, 128, 128)}
WIDENED = {"paper": (92, 184, 368, 368, 736, 736), "narrow": (24, 48, 100, 100, 200, 200)}
"""Channels with which strided convolutions have the multiply-accumulates of R = 1 that pools after the ReLU."""


class FftBlock(SeparableBlock):
    """DiffStride as it is usually written: convolve at full resolution, FFT, mask, crop, inverse FFT; all is kept."""

    def forward(self, x: Tensor, host_strides: Tensor | None = None) -> Tensor:
        pool = self.pool
        assert isinstance(pool, DiffStride)
        for axis, (conv, norm) in enumerate(((self.time_conv, self.time_norm), (self.mel_conv, self.mel_norm))):
            y = conv(x)
            crop = pool.axis_crop(y.shape[2 + axis], axis, None if host_strides is None else host_strides[axis])
            x = norm(crop_spectrum_fft(y, pool.axis_mask(crop, axis), crop, 2 + axis).relu())
        return x


def make_trunk(network: str, method: str, smoothness: float) -> AudioCNN:
    """A trunk of `NETWORKS`.

    Method "widened" is "strided" with more channels; "aliasing" is "diffstride" with learned aliasing, "after" the same
    behind the ReLU, "groups" that in two groups of channels, "fixed" the latter with the fixed strides of "spectral";
    "fft" is "diffstride" by FFT, contiguous, where FFTs run fastest.
    """
    torch.manual_seed(0)
    learned = method in ("aliasing", "after", "groups", "fft")
    others = {"widened": "strided", "fixed": "spectral"}
    kind: Kind = "diffstride" if learned else others.get(method, method)  # type: ignore[assignment]
    channels = (WIDENED if method == "widened" else NETWORKS)[network]
    alpha = {"aliasing": 0.1, "after": 0.1, "groups": (0.1, 0.9), "fixed": (0.1, 0.9)}.get(method)
    after = method in ("after", "groups", "fixed")
    trunk = AudioCNN(kind, channels=channels, smoothness=smoothness, aliasing=alpha, pool_after_relu=after)
    if method == "fft":
        for block in trunk.separable_blocks:
            block.__class__ = FftBlock
        trunk.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    return trunk


@contextmanager
def convolving_in_full() -> Iterator[None]:
    """Let every convolution before a pooling run at the resolution of its input, as by FFT it has to."""
    chosen, downsampling.pools_first = downsampling.pools_first, lambda *_: False
    try:
        yield
    finally:
        downsampling.pools_first = chosen


def interleaved(forms: Mapping[str, Callable[[], object]], repeats: int, pause_s: float = 0.0) -> dict[str, float]:
    """Median time of each form in ms; the forms run in turn, after one round that warms up.

    Args:
        forms: what to time, by name.
        repeats: rounds.
        pause_s: rest before each, where forms bring threads of their own, which go on spinning for a while.
    """
    times: dict[str, list[float]] = {name: [] for name in forms}
    for i in range(repeats + 1):
        for name, form in forms.items():
            _wait()
            time.sleep(pause_s)
            began = time.perf_counter()
            form()
            _wait()
            if i:
                times[name].append(1000 * (time.perf_counter() - began))
    return {name: statistics.median(values) for name, values in times.items()}


def peak_megabytes(step: Callable[[], object]) -> float:
    """Largest amount of memory a step holds beyond what was held before it, on the CPU or the current GPU.

    The step has run before, so that gradients and cached matrices are there already.
    """
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        return (torch.cuda.max_memory_allocated() - before) / 1e6
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        step()
    held = peak = 0
    results = record.profiler.kineto_results  # type: ignore[union-attr]
    for event in sorted((e for e in results.events() if e.name() == "[memory]"), key=lambda e: e.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak / 1e6


def machine() -> str:
    """The hardware, threads and torch of this process, for the head of a table."""
    if torch.cuda.is_available():
        return f"{torch.cuda.get_device_name()}, torch {torch.__version__}"
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        name = next((line.split(":")[1].strip() for line in info.open() if line.startswith("model name")), name)
    return f"{name}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, torch {torch.__version__}"


def publish(rows: Sequence[Mapping[str, object]], path: Path) -> None:
    """Print rows as a Markdown table and write them to a CSV file, whose last column names the machine."""
    names = list(rows[0])
    print(f"{machine()}\n\n| {' | '.join(names)} |\n|{'---|' * len(names)}")
    for row in rows:
        print(f"| {' | '.join(str(row[name]) for name in names)} |")
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*names, "machine"])
        writer.writeheader()
        writer.writerows({**row, "machine": machine()} for row in rows)
    print(f"\nwritten to {path}")


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
