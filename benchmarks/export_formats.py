"""Size, agreement and latency of a trained run in every export format.

    python benchmarks/export_formats.py runs/words [--clips PATH] [--rounds 40] [--out benchmarks/export_formats.csv]

Every file is made and checked by `audiostride.inference.export.export_model`. Then all of them, and the model itself
in PyTorch, take turns on one and the same second of sound, one thread each, and the medians are written:
the time on the clock, and the CPU time of the process, which is what counts on a busy machine.
"""

import argparse
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from timing import publish

from audiostride import load
from audiostride.inference.export import export_model
from audiostride.inference.export_formats import FORMATS, run_exported
from audiostride.training.run_testing import check_windows

FILES = [
    *[(format, input, None) for format in FORMATS for input in ("waveform", "log_mel")],
    *[("onnx", input, "int8") for input in ("waveform", "log_mel")],
]

COLUMNS = ("format", "input", "size_mb", "windows", "largest_error", "labels_agree")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run_dir")
    parser.add_argument("--clips", help="sounds to check on; default: the run's test set")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".csv"))
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")  # of torch's exporter
    torch.set_num_threads(1)
    model = load(arguments.run_dir)
    windows = check_windows(arguments.run_dir, model, arguments.clips)
    with torch.inference_mode():
        inputs = {"waveform": windows[:1], "log_mel": model.frontend(windows[:1])}
    rows: list[dict[str, Any]] = [dict.fromkeys(COLUMNS, "") | {"format": "PyTorch itself", "input": "waveform"}]
    calls: list[Callable[[], Any]] = [torch.inference_mode()(lambda: model(inputs["waveform"]))]
    with tempfile.TemporaryDirectory() as folder:
        for format, input, quantize in FILES:
            path = Path(folder, f"{input}-{quantize}{FORMATS[format].ending}")
            check = export_model(model, path, format, windows, takes_log_mel=input == "log_mel", quantize=quantize)
            agree = f"{100 * check.labels_agree:.1f} %"
            values = (f"{format} {quantize or 'float32'}", input, f"{check.size_bytes / 1e6:.2f}", check.windows)
            rows.append(dict(zip(COLUMNS, (*values, f"{check.max_error:.1g}", agree), strict=True)))
            print(rows[-1], file=sys.stderr, flush=True)
            run, sample = run_exported(path, format), inputs[input].numpy()
            calls.append(lambda run=run, sample=sample: run(sample))
        times = in_turns(calls, arguments.rounds)
    timed = zip(rows, times, strict=True)
    publish([row | {"ms": f"{clock:.2f}", "cpu_ms": f"{cpu:.2f}"} for row, (clock, cpu) in timed], arguments.out)


def in_turns(calls: list[Callable[[], Any]], rounds: int) -> list[tuple[float, float]]:
    """Median clock and CPU time in ms of each call, all of them called once a round; the first rounds do not count."""
    times: list[list[tuple[float, float]]] = [[] for _ in calls]
    for _ in range(rounds + 3):
        for call, own in zip(calls, times, strict=True):
            clock, cpu = time.perf_counter(), time.process_time()
            call()
            own.append((1000 * (time.perf_counter() - clock), 1000 * (time.process_time() - cpu)))
    medians = []
    for own in times:
        clocks, cpus = zip(*own[3:], strict=True)
        medians.append((statistics.median(clocks), statistics.median(cpus)))
    return medians


if __name__ == "__main__":
    main()
