"""Time of frontend and network together, one second of sound at batch size 1, for each fixed resolution and frontend.

    OMP_NUM_THREADS=1 python benchmarks/resolution_times.py [--repeats 200]

The network is that of `resolution.py`; learned frontends are frozen, as they are used.
"""

import argparse
from pathlib import Path

import torch
from resolution import ADAPTIVE, CHANNELS, DEFAULT, GRID, LEARNED, RATE, RIVALS, Method
from timing import interleaved, publish
from torch import nn

from audiostride import AudioCNN, LogMel
from audiostride.layers.strides import freeze_strides


class Whole(nn.Module):
    """Frontend and network of a method."""

    def __init__(self, method: Method):
        super().__init__()
        self.log_mels = nn.ModuleList(LogMel(**dict(settings)) for settings in method.inputs)  # type: ignore[arg-type]
        self.rest = nn.Sequential(method.make(), AudioCNN(method.downsampling, channels=CHANNELS, smoothness=1))

    def forward(self, waveform: torch.Tensor) -> torch.Tensor:
        found = [log_mel(waveform) for log_mel in self.log_mels]
        return self.rest(torch.cat(found, 1) if found else waveform)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".csv"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    methods = [*GRID, *RIVALS, LEARNED[0], ADAPTIVE[0]]
    forms, waveform = {}, 0.1 * torch.randn(1, RATE)
    for method in methods:
        whole = Whole(method).eval()
        freeze_strides(whole)
        forms[f"{method.method}: {method.setting}"] = lambda whole=whole: whole(waveform)
    with torch.inference_mode():
        ms = interleaved(forms, args.repeats)
    default = ms[f"{DEFAULT.method}: {DEFAULT.setting}"]
    publish(
        [{"input": name, "ms": f"{own:.2f}", "x default": f"{own / default:.2f}"} for name, own in ms.items()], args.out
    )


if __name__ == "__main__":
    main()
