"""The paper's Table 2, from three run directories a row: learned strides in, printed cells out.

Which strides the paper's runs had is not known. These give its printed strides and cut-offs, mean and sd, which shows
the convention to be the one it used: f * floor(N / 2S) / N with 160 frames and 64 bands, run by run. Its sds are those
of n - 1, but the multi-task row's, which is that of n on the mel axis; on the time axis its 0.30 is out of reach.
"""

import json
import math
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from audiostride import AudioClassifier, AudioCNN, LogMel
from audiostride.cli import app
from audiostride.layers.strides import diffstride_layers

TABLE = {  # strides of three runs, then as printed: strides and cut-offs
    "scenes": {
        "time": ((1.858, 1.862, 1.945), "1.89 ± 0.05", "26.25 ± 0.63"),
        "mel": ((1.967, 1.97, 2.02), "1.99 ± 0.03", "0.2448 ± 0.0090"),
    },
    "birds": {
        "time": ((1.893, 1.907, 1.93), "1.91 ± 0.02", "25.83 ± 0.36"),
        "mel": ((1.953, 1.953, 1.966), "1.96 ± 0.01", "0.2500 ± 0.0000"),
    },
    "instrument": {
        "time": ((1.232, 1.291, 1.342), "1.29 ± 0.06", "38.33 ± 1.57"),
        "mel": ((2.112, 2.112, 2.1335), "2.12 ± 0.01", "0.2292 ± 0.0090"),
    },
    "pitch": {
        "time": ((1.252, 1.27, 1.429), "1.32 ± 0.10", "37.50 ± 2.72"),
        "mel": ((1.568, 1.57, 1.69), "1.61 ± 0.07", "0.3021 ± 0.0180"),
    },
    "commands": {
        "time": ((1.968, 1.97, 1.972), "1.97 ± 0.00", "25.00 ± 0.00"),
        "mel": ((1.943, 1.943, 1.956), "1.95 ± 0.01", "0.2500 ± 0.0000"),
    },
    "multi-task": {
        "time": ((1.4521, 1.4521, 1.4618), "1.46 ± 0.01", "34.17 ± 0.36"),  # the paper prints 0.30: n would be 0.29
        "mel": ((1.766, 1.782, 1.82), "1.79 ± 0.03", "0.2708 ± 0.0090"),  # 0.0074 with n, see below
    },
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[str, list[str]]:
    """Three saved models a row whose first layer has its strides."""
    folders: dict[str, list[str]] = {}
    for row, axes in TABLE.items():
        for seed in range(3):
            folder: Path = tmp_path_factory.mktemp("runs") / f"{row}-{seed}"
            model = AudioClassifier(LogMel(), AudioCNN(channels=(2,), strides=((2, 2),), smoothness=4), {"x": 2})
            with torch.no_grad():
                diffstride_layers(model)[0].stride.copy_(torch.tensor([axes[a][0][seed] for a in ("time", "mel")]))
            model.save(folder)
            folders.setdefault(row, []).append(str(folder))
    return folders


@pytest.mark.parametrize("row", TABLE)
def test_cutoffs_prints_the_cells_of_the_paper(row, runs):
    done = CliRunner().invoke(app, ["cutoffs", *runs[row]], env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    lines = [line for line in done.stdout.splitlines() if "±" in line and "onsets" not in line]
    for line, (_, stride, cutoff) in zip(lines, TABLE[row].values(), strict=True):
        assert stride in line
        assert line.rstrip().endswith(cutoff)


def test_the_multi_task_rows_mel_sd_is_that_of_n(runs):
    done = CliRunner().invoke(app, ["cutoffs", *runs["multi-task"], "--json"])
    (mel,) = [layer for layer in json.loads(done.stdout)["layers"] if layer["axis"] == "mel"]
    assert f"{mel['paper_sd'] * math.sqrt(2 / 3):.4f}" == "0.0074"
