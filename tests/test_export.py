"""An exported file computes what the model computes, says what it is, and needs no torch to run."""

import copy
import json
import re
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from audiostride import AudioClassifier, create_model, read_audio
from audiostride.errors import ExportError, UsageError, WriteError
from audiostride.inference import exported_model
from audiostride.inference.export import export_model, metadata
from audiostride.inference.export_formats import FORMATS, run_exported
from audiostride.training.run_testing import check_windows
from audiostride.windows import split_windows
from conftest import tone

pytestmark = pytest.mark.filterwarnings("ignore")  # of torch's exporter and of onnxruntime


def test_the_clips_of_a_check_are_spread_over_all_of_them(tmp_path: Path) -> None:
    for i in range(5):
        soundfile.write(tmp_path / f"{i}.wav", np.full(16000, i / 10), 16000)
    model = create_model("audio_resnet_pico_strided", heads={"word": 2})
    chosen = check_windows("nowhere", model, str(tmp_path), n=3)
    np.testing.assert_allclose(chosen[:, 0], [0.0, 0.2, 0.4], atol=1e-4)


@pytest.fixture(scope="module")
def windows() -> torch.Tensor:
    """High and low tones in noise."""
    random = np.random.RandomState(0)
    tones = [tone(random.choice([300, 3000]) * random.uniform(0.8, 1.2)) for _ in range(24)]
    return torch.from_numpy(np.stack(tones) + 0.01 * random.standard_normal((24, 16000)).astype(np.float32))


@pytest.fixture(scope="module")
def model(windows: torch.Tensor) -> AudioClassifier:
    """Trained for some steps, so that its answers are not all alike."""
    torch.manual_seed(0)
    model = create_model(
        "audio_cnn_diffstride",
        heads={"pitch": ["low", "high"], "loud": 3},
        channels=(8, 16),
        strides=((2.3, 1.9), (2, 2)),
        smoothness=1.0,
    )
    high = (windows[:, 1:] * windows[:, :-1] < 0).sum(1) > 2000
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(10):
        loss = torch.nn.functional.cross_entropy(model(windows)["pitch"], high.long())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


@pytest.fixture(
    params=[
        ("audio_cnn_diffstride", 0.4, False, {}),
        ("audio_cnn_spectral", 0.4, False, {}),
        ("audio_cnn_diffstride", (0.2, 0.9), True, {}),
        ("resnet18_diffstride", (0.2, 0.9), True, {"blocks": (1, 1)}),
    ]
)
def aliasing_model(request: pytest.FixtureRequest, model: AudioClassifier) -> AudioClassifier:
    """A network whose pooling lets a part alias, also in groups of channels and after the ReLU."""
    torch.manual_seed(0)
    name, alpha, after, blocks = request.param
    settings = {"channels": (8, 16), "strides": ((2.3, 1.9), (2, 2)), "smoothness": 1.0}
    settings |= {"aliasing": alpha, "pool_after_relu": after} | blocks
    return create_model(name, heads={"pitch": ["low", "high"]}, **settings).eval()


@pytest.mark.slow
@pytest.mark.parametrize("format", ["torch", "onnx", "executorch"])
def test_learned_aliasing_goes_into_the_file(aliasing_model, windows, tmp_path, format):
    if format == "executorch":
        pytest.importorskip("executorch.exir")
    path = tmp_path / f"model{FORMATS[format].ending}"
    check = export_model(aliasing_model, path, format, windows)
    assert check.max_error < 1e-4
    with torch.inference_mode():
        found = run_exported(path, format)(windows[:3].numpy())[0]
        assert np.allclose(found, aliasing_model(windows[:3])["pitch"], atol=1e-4)
        filtered = copy.deepcopy(aliasing_model)
        for block in filtered.trunk.blocks:
            block.pool.aliasing.zero_()
        assert not np.allclose(found, filtered(windows[:3])["pitch"], atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("format", ["torch", "onnx"])
def test_a_full_disk_is_one_error_and_leaves_the_old_file(model, windows, tmp_path, format):
    path = tmp_path / f"model{FORMATS[format].ending}"
    path.write_text("old")
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
    try:
        with pytest.raises(WriteError, match=rf"model\{path.suffix}: cannot be written .* bytes are free there"):
            export_model(model, path, format, windows)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["strided", "diffstride"])
@pytest.mark.parametrize(("format", "takes_log_mel"), [("torch", False), ("torch", True), ("onnx", True)])
def test_a_residual_network_goes_into_a_file_that_takes_any_batch(windows, tmp_path, kind, format, takes_log_mel):
    torch.manual_seed(0)
    model = create_model(f"audio_resnet_pico_{kind}", heads={"pitch": ["low", "high"]}).eval()
    path = tmp_path / f"model{FORMATS[format].ending}"
    check = export_model(model, path, format, windows, takes_log_mel=takes_log_mel)
    assert check.max_error < 1e-4
    assert bool(check.other_lengths_s) == (not takes_log_mel)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("format", "takes_log_mel"), [("torch", False), ("onnx", False), ("onnx", True), ("executorch", False)]
)
def test_a_file_computes_what_the_model_computes_for_any_batch(model, windows, tmp_path, format, takes_log_mel):
    if format == "executorch":
        pytest.importorskip("executorch.exir")
    path = tmp_path / f"model{FORMATS[format].ending}"
    check = export_model(model, path, format, windows, takes_log_mel=takes_log_mel)
    assert check.max_error < 1e-4
    assert check.labels_agree == 1
    assert check.size_bytes == path.stat().st_size
    run = run_exported(path, format)
    with torch.inference_mode():
        inputs = model.frontend(windows) if takes_log_mel else windows
        for n in (1, 2, 5):
            expected = model(windows[:n])
            for found, task in zip(run(inputs[:n].numpy()), model.labels, strict=True):
                assert np.allclose(found, expected[task], atol=1e-4)
    assert bool(check.other_lengths_s) == (format != "executorch" and not takes_log_mel)
    if check.other_lengths_s:
        for n, seconds in ((1, 0.02), (2, 0.7), (1, 1.0), (2, 1.499), (1, 1.5), (2, 2.0), (1, 7.25)):
            clips = windows[: 8 * n].reshape(n, -1)[:, : round(16000 * seconds)]
            for found, task in zip(run(clips.numpy()), model.labels, strict=True):
                expected = [model(split_windows(clip, 16000))[task].mean(0) for clip in clips]
                assert np.allclose(found, torch.stack(expected).detach(), atol=1e-4), seconds


@pytest.mark.slow
def test_log_mel_may_have_any_length_where_nothing_is_pooled(windows, tmp_path):
    model = create_model("audio_cnn_small_strided", heads={"pitch": 2}).eval()
    check = export_model(model, tmp_path / "model.pt2", "torch", windows[:4], takes_log_mel=True)
    assert check.other_lengths_s == (0.4, 2.6)
    run = run_exported(tmp_path / "model.pt2", "torch")
    for n_frames in (20, 100, 333):
        log_mel = torch.randn(3, 1, n_frames, 64)
        expected = model.heads["pitch"](model.trunk(log_mel)).detach()
        assert np.allclose(run(log_mel.numpy())[0], expected, atol=1e-4)


def test_labels_and_frontend_travel_in_the_file(model, windows, tmp_path):
    onnx = pytest.importorskip("onnx")
    expected = metadata(model, takes_log_mel=False, any_length=True)
    assert expected["tasks"]["pitch"]["labels"] == ["low", "high"]
    export_model(model, tmp_path / "model.onnx", "onnx", windows)
    props = {entry.key: entry.value for entry in onnx.load(tmp_path / "model.onnx").metadata_props}
    assert json.loads(props["audiostride"]) == expected
    export_model(model, tmp_path / "model.pt2", "torch", windows)
    files = {"audiostride.json": ""}
    torch.export.load(tmp_path / "model.pt2", extra_files=files)
    assert json.loads(files["audiostride.json"]) == expected


@pytest.mark.slow
def test_int8_keeps_labels_and_metadata_and_is_smaller(windows, tmp_path):
    onnx = pytest.importorskip("onnx")
    model = create_model("audio_cnn_small_strided", heads={"pitch": ["low", "high"]})
    high = (windows[:, 1:] * windows[:, :-1] < 0).sum(1) > 2000
    optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
    for _ in range(12):
        loss = torch.nn.functional.cross_entropy(model(windows)["pitch"], high.long())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    whole = export_model(model.eval(), tmp_path / "model.onnx", "onnx", windows)
    small = export_model(model, tmp_path / "small.onnx", "onnx", windows, quantize="int8")
    assert small.labels_agree >= 0.95
    assert small.windows == 12
    # What remains in float32 is the Fourier basis of the frontend, 822 kB.
    assert small.size_bytes - 822_000 < 0.5 * (whole.size_bytes - 822_000)
    props = {entry.key: entry.value for entry in onnx.load(tmp_path / "small.onnx").metadata_props}
    assert json.loads(props["audiostride"])["tasks"]["pitch"]["labels"] == ["low", "high"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.onnx", "small.onnx"]


def test_a_file_that_computes_something_else_is_not_kept(model, windows, tmp_path, monkeypatch):
    monkeypatch.setattr(exported_model, "LOG_OFFSET", 1e-2)  # another frontend
    with pytest.raises(ExportError, match=r"was not written: on 24 windows its logits differ by up to") as caught:
        export_model(model, tmp_path / "model.pt2", "torch", windows)
    assert caught.value.exit_code == 7
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_exported_is_a_named_error(model, windows, tmp_path):
    with pytest.raises(UsageError, match=r"model\.onnx: a file for --format torch must end in \.pt2"):
        export_model(model, tmp_path / "model.onnx", "torch", windows)
    with pytest.raises(UsageError, match="int8 is for"):
        export_model(model, tmp_path / "model.pt2", "torch", windows, quantize="int8")
    with pytest.raises(UsageError, match="needs at least two clips"):
        export_model(model, tmp_path / "model.onnx", "onnx", windows[:1], quantize="int8")
    wave = create_model("wave_cnn_strided", heads={"pitch": 2})
    with pytest.raises(UsageError, match="this model has no log-mel: its frontend is RawWaveform"):
        export_model(wave, tmp_path / "model.onnx", "onnx", windows, takes_log_mel=True)


@pytest.mark.slow
def test_the_script_of_the_documentation_labels_a_sound_without_torch(model, windows, command, tmp_path):
    pytest.importorskip("onnxruntime")
    model.save(tmp_path / "run")
    for i, window in enumerate(windows):
        soundfile.write(tmp_path / f"{i:02d}.wav", window.numpy(), 16000)
    done = command(tmp_path, "export", "run", "--clips", ".", "--json", "--out", "model.onnx")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["labels_agree"] == 1

    sound = np.concatenate([windows[0].numpy(), windows[1].numpy(), windows[2].numpy()[:12000]])
    soundfile.write(tmp_path / "sound.wav", sound, 16000)
    page = (Path(__file__).parents[1] / "docs" / "export.md").read_text()
    script = re.search(r"```python\n(import json.*?)```", page, re.DOTALL)
    assert script is not None
    assert sum(bool(line.strip()) for line in script[1].splitlines()) <= 10
    without_torch = "import sys; sys.modules['torch'] = None\n" + script[1]
    done = subprocess.run(
        [sys.executable, "-c", without_torch], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    expected = model.predict(read_audio(tmp_path / "sound.wav", 16000), 16000)
    assert done.stdout.split() == [word for task in expected for word in (task, expected[task].label)]


def test_the_page_names_every_format():
    page = (Path(__file__).parents[1] / "docs" / "export.md").read_text()
    for format in FORMATS.values():
        assert re.search(rf"\| `{format.name}` \| `{re.escape(format.ending)}`", page), format.name
