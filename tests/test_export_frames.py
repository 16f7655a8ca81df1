"""An exported file gives the frames and the events that the model gives, of recordings of any length."""

import csv
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from typer.testing import CliRunner

from audiostride import AudioClassifier, create_model
from audiostride.cli import app
from audiostride.errors import UsageError
from audiostride.inference.export import export_model
from audiostride.inference.export_formats import FORMATS, run_exported
from audiostride.models.events import EventSettings
from audiostride.models.frames import FrameGrid, frame_grid, run_in_blocks

pytestmark = pytest.mark.filterwarnings("ignore")  # of torch's exporter and of onnxruntime

BURSTS = [(0.7, 1.2), (4.0, 4.6), (9.3, 9.7), (19.5, 21.0)]


def hears_bursts(name: str) -> AudioClassifier:
    """A network whose class "burst" scores 10 in a noise burst and -10 in silence, set by hand."""
    torch.manual_seed(0)
    model = create_model(name, heads={"sound": ["burst", "nothing"]})
    model.train()(torch.rand(8, 1) * torch.randn(8, model.window_length))
    model.eval()
    loud = model.embed_windows(0.5 * torch.randn(8, model.window_length)).mean(0)
    soft = model.embed_windows(torch.zeros(1, model.window_length)).mean(0)
    direction = 20 * (loud - soft) / (loud - soft).square().sum()
    with torch.no_grad():
        model.heads["sound"].weight.copy_(torch.stack([direction, 0 * direction]))
        model.heads["sound"].bias.copy_(torch.stack([10 - loud @ direction, torch.tensor(0.0)]))
    model.event_settings["sound"] = EventSettings((3.0, 3.0), floor=0.0, min_ms=100, join_ms=80)
    return model


def recording(rate: int, seconds: float = 23.37) -> np.ndarray:
    waveform = np.zeros(round(rate * seconds), np.float32)
    for start, end in BURSTS:
        part = slice(round(rate * start), round(rate * min(end, max(start, seconds))))
        waveform[part] = np.clip(0.4 * np.random.RandomState(0).standard_normal(part.stop - part.start), -1, 1)
    return waveform


def exported_about(path: Path) -> dict:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return json.loads(session.get_modelmeta().custom_metadata_map["audiostride"])


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "audio_resnet_pico_strided",
        "audio_resnet_pico_diffstride",
        "audio_cnn_small_strided",
        "wave_cnn_strided",
    ],
)
def test_an_onnx_file_gives_the_events_of_predict(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    model = hears_bursts(name)
    rate, length = model.sample_rate, model.window_length
    waveform = recording(rate)
    check = export_model(
        model, tmp_path / "frames.onnx", "onnx", torch.from_numpy(waveform[: 4 * length]).view(4, -1), frames=True
    )
    assert check.max_error < 1e-3
    about = exported_about(tmp_path / "frames.onnx")
    assert FrameGrid(**about["frames"]) == frame_grid(model)
    assert about["tasks"]["sound"]["events"] == model.event_settings["sound"].as_dict()

    model.save(tmp_path / "run")
    soundfile.write(tmp_path / "recording.wav", waveform, rate)
    monkeypatch.chdir(tmp_path)
    rows = CliRunner().invoke(app, ["predict", "run", "recording.wav", "--events", "--csv"]).stdout
    expected = [[row["start_s"], row["end_s"], row["label"]] for row in csv.DictReader(io.StringIO(rows))]
    assert expected
    page = (Path(__file__).parents[1] / "docs" / "export.md").read_text()
    script = re.search(
        r"```python\n(import json\n.*?EventFinder.*?)```", page.split("## Events from a file")[1], re.DOTALL
    )
    assert script
    done = subprocess.run([sys.executable, "-c", script[1]], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    found = [line.split(",") for line in done.stdout.splitlines()]
    assert [row[2] for row in found] == [row[2] for row in expected]
    np.testing.assert_allclose(
        [[float(v) for v in row[:2]] for row in found], [[float(v) for v in row[:2]] for row in expected], atol=2e-3
    )


@pytest.mark.slow
@pytest.mark.parametrize("format", ["torch", "executorch"])
@pytest.mark.parametrize("name", ["audio_resnet_pico_strided", "audio_resnet_pico_diffstride"])
def test_files_of_other_formats_give_the_models_frames(name: str, format: str, tmp_path: Path) -> None:
    if format == "executorch":
        pytest.importorskip("executorch.exir")
    model = hears_bursts(name)
    waveform = torch.from_numpy(recording(16000, 12.345))
    path = tmp_path / f"frames{FORMATS[format].ending}"
    windows = waveform[: 16000 * 4].view(4, -1)
    assert export_model(model, path, format, windows, frames=True).max_error < 1e-3
    grid, file = frame_grid(model), run_exported(path, format)
    fixed = format == "executorch" and grid.context is not None
    length = 16000 + 2 * grid.context if fixed else 16000

    def run(piece: torch.Tensor) -> torch.Tensor:
        """As the documentation says: filled up with zeros, whose frames are dropped."""
        filled = torch.nn.functional.pad(piece, (0, max(0, length - piece.shape[1])))
        return torch.from_numpy(file(filled.numpy())[0])[:, : -(-piece.shape[1] // round(grid.hop))]

    block_s = 1.0 if fixed else None
    frames = torch.cat(list(run_in_blocks(run, grid, waveform.split(5000), block_s)))
    expected = model.frame_logits(waveform, 16000)[1]["sound"]
    assert len(frames) == len(expected)
    inner = len(frames) - (grid.context // grid.hop if fixed else 0)  # beyond the end zeros are heard
    torch.testing.assert_close(frames[:inner], expected[:inner], rtol=1e-3, atol=1e-3)


def test_frames_are_those_of_samples_and_of_no_page() -> None:
    model = hears_bursts("audio_resnet_pico_strided")
    with pytest.raises(UsageError, match="omit --input log_mel"):
        export_model(model, Path("x.onnx"), "onnx", torch.zeros(2, 16000), takes_log_mel=True, frames=True)
    done = CliRunner().invoke(app, ["export", "audio_resnet_small_strided", "--format", "web", "--frames"])
    assert "is for --format torch, onnx, executorch, not web" in str(done.exception)
