"""A model as a list of operations, as C and as a page: the same logits everywhere."""

import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from audiostride import AudioClassifier, AudioCNN, AudioResNet, LogMel, ResNet, WaveCNN, create_model, list_models, load
from audiostride.errors import UsageError
from audiostride.inference.c_source import c_files
from audiostride.inference.export_source import export_source
from audiostride.inference.operations import Affine, operations
from audiostride.inference.run_operations import run_operations
from audiostride.inference.web_page import web_page
from audiostride.models.custom import CustomTrunk
from audiostride.models.wave_cnn import RawWaveform

HEADS = {"word": ["no", 'say "yes"?', "</script>", "\n\x1b[2J", "é"], "int": ["a", "b"], "tags": ["x", "y", "z"]}
KINDS = {"word": "multiclass", "int": "binary", "tags": "multilabel"}


def narrow(kind: str, **settings: object) -> AudioCNN:
    return AudioCNN(
        kind, (4, 8, 4), ((2, 2), (1.5, 2), (1, 1)) if kind != "strided" else ((2, 2), (1, 2), (1, 1)), 1, **settings
    )


MODELS = {
    "pico": lambda: create_model("audio_resnet_pico_strided", heads=HEADS),
    "nano, learned strides": lambda: create_model("audio_resnet_nano_diffstride", heads=HEADS),
    "mean and max": lambda: AudioClassifier(
        LogMel(), AudioResNet("strided", (4, 8), (8,), ((2, 2), (1, 2), (2, 1)), pooling="mean_max"), HEADS
    ),
    "no blocks over time": lambda: AudioClassifier(
        LogMel(), AudioResNet("spectral", (4, 8), (), ((2, 2), (1.5, 2))), HEADS
    ),
    "strided": lambda: AudioClassifier(LogMel(), narrow("strided"), HEADS),
    "spectral": lambda: AudioClassifier(LogMel(), narrow("spectral"), HEADS),
    "learned, in groups, after the ReLU": lambda: AudioClassifier(
        LogMel(), narrow("diffstride", aliasing=(0.0, 1.0), pool_after_relu=True), HEADS
    ),
    "resnet": lambda: AudioClassifier(LogMel(), ResNet("strided", (4, 8), (1, 2), (2, 1, 2)), HEADS),
    "resnet, learned": lambda: AudioClassifier(
        LogMel(), ResNet("diffstride", (4, 8), (1, 1), (2, 1, 2), smoothness=1), HEADS
    ),
    "waveform": lambda: AudioClassifier(RawWaveform(8000), WaveCNN("strided", (4, 8), (79, 3), (16, 4)), HEADS),
    "waveform, spectral": lambda: AudioClassifier(
        RawWaveform(8000), WaveCNN("spectral", (4, 4), (9, 3), (16, 4)), HEADS, 0.1
    ),
    "44.1 kHz, 0.7 s": lambda: AudioClassifier(
        LogMel(44100, 20, 12.5, 2048, 40, 20, 20000), narrow("strided"), HEADS, 0.7
    ),
    "hop longer than the window": lambda: AudioClassifier(
        LogMel(8000, 16, 20, 256, 16, 60, 3900), narrow("strided"), HEADS, 0.33
    ),
}


def trained(name: str) -> AudioClassifier:
    """A model whose batch norms do something."""
    model = MODELS[name]()
    model.reset_classifier(HEADS, KINDS)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
    return model.eval()


def sounds(model: AudioClassifier) -> Tensor:
    """Windows of noise, of silence, and of a tone that stops, in steps of 16 bits."""
    n = model.window_length
    tone = torch.sin(torch.arange(n) * 0.3) * (torch.arange(n) < n // 3)
    windows = torch.stack([0.1 * torch.randn(n), torch.zeros(n), 0.5 * tone])
    return (windows * 32768).round().clamp(-32768, 32767) / 32768


def logits_of(model: AudioClassifier, windows: Tensor) -> list[np.ndarray]:
    with torch.no_grad():
        return [values.numpy() for values in model(windows).values()]


@pytest.mark.parametrize("name", list_models())
def test_every_registered_model_is_in_the_list(name):
    model = create_model(name, heads=HEADS).eval()
    windows = 0.1 * torch.randn(2, model.window_length)
    expected = np.concatenate(logits_of(model, windows), axis=1)
    found = torch.cat(run_operations(operations(model), model.frontend(windows)), dim=1)
    assert np.abs(found.numpy() - expected).max() < 1e-4


@pytest.mark.parametrize("name", MODELS)
def test_the_list_of_operations_gives_the_logits_of_the_model(name):
    model = trained(name)
    windows = sounds(model)
    steps = operations(model)
    found = torch.cat(run_operations(steps, model.frontend(windows)), dim=1).numpy()
    np.testing.assert_allclose(found, np.concatenate(logits_of(model, windows), axis=1), atol=1e-3)
    if "after the ReLU" in name:
        assert any(isinstance(step, Affine) for step in steps)  # a batch norm that no convolution takes in


def test_labels_in_c_are_those_of_the_model(tmp_path):
    model = trained("strided")
    for file, text in c_files(model, "net", sounds(model).numpy(), logits_of(model, sounds(model))).items():
        (tmp_path / file).write_text(text)
    (tmp_path / "labels.c").write_text(
        '#include <stdio.h>\n#include "net.h"\n'
        "int main(void) { for (int i = 0; i < 5; i++) fwrite(net_word_labels[i], 1, 99, stdout); return 0; }".replace(
            "fwrite(net_word_labels[i], 1, 99, stdout)", 'printf("%s%c", net_word_labels[i], 0)'
        )
    )
    subprocess.run(["gcc", "-std=c99", "net.c", "labels.c", "-lm", "-o", "labels"], cwd=tmp_path, check=True)
    printed = subprocess.run([tmp_path / "labels"], capture_output=True, check=True).stdout
    assert printed.decode().split("\0")[:-1] == HEADS["word"]


def compiled_size(folder: Path) -> int:
    """Bytes of code and constants of net.c."""
    subprocess.run(["gcc", "-O2", "-c", "net.c"], cwd=folder, check=True)
    printed = subprocess.run(["size", "net.o"], cwd=folder, capture_output=True, text=True, check=True).stdout
    return sum(map(int, printed.splitlines()[1].split()[:2]))


def test_weights_of_eight_bits_take_a_quarter_of_the_bytes(tmp_path):
    model = create_model("audio_resnet_nano_strided", heads=HEADS).eval()
    n_weights = sum(p.numel() for p in model.parameters() if p.dim() > 1)
    sizes = []
    for int8 in (False, True):
        for file, text in c_files(model, "net", np.zeros((0, 16000)), [np.zeros((0, 2))] * 3, int8).items():
            (tmp_path / file).write_text(text)
        sizes.append(compiled_size(tmp_path))
    assert sizes[0] - sizes[1] >= 3 * n_weights
    assert sizes[1] < 2 * n_weights  # with the tables of the features and the code


class Squashed(nn.Module):
    """A trunk with an operation that is not in the list."""

    num_features = 4

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.squash = nn.Sigmoid()

    def forward(self, log_mel: Tensor) -> Tensor:
        return self.squash(self.conv(log_mel)).mean((-1, -2))


def test_an_operation_that_is_not_in_the_list_is_named_with_its_module():
    model = AudioClassifier(LogMel(), CustomTrunk("test_operations:Squashed"), {"word": 2}).eval()
    with pytest.raises(UsageError, match=r"squash.*sigmoid.*--format onnx"):
        operations(model)


def test_a_batch_norm_behind_a_convolution_is_folded_into_it():
    kinds = [type(step) for step in operations(trained("pico"))]
    assert kinds.count(Affine) == 1  # the one of the input


def test_an_fft_of_another_length_is_refused():
    model = AudioClassifier(LogMel(n_fft=500), narrow("strided"), {"word": 2}).eval()
    for export in (lambda: c_files(model, "net", np.zeros((1, 16000)), []), lambda: web_page(model, "net")):
        with pytest.raises(UsageError, match="n_fft is 500"):
            export()


def test_a_file_dropped_on_the_page_is_answered_as_predict_does(browser, tmp_path):
    import soundfile

    model = trained("pico")
    sound = (0.1 * np.random.standard_normal(40_000)).astype(np.float32)
    soundfile.write(tmp_path / "sound.wav", sound, 16000, subtype="PCM_16")
    path = tmp_path / "page.html"
    path.write_text(web_page(model, "Words"), encoding="utf-8")
    page = browser.new_page()
    page.goto(path.as_uri())
    page.set_input_files("#file", tmp_path / "sound.wav")
    page.get_by_role("status").filter(has_text="sound.wav: 2.50 s").wait_for()
    prediction = model.predict(soundfile.read(tmp_path / "sound.wav", dtype="float32")[0], 16000)
    for task in HEADS:
        assert page.locator(f'.answer[data-task="{task}"]').text_content() == prediction[task].label
    for bar in page.locator(".bar").all():
        drawn = bar.evaluate("bar => bar.querySelector('i').offsetWidth / bar.querySelector('div').offsetWidth")
        assert 100 * drawn == pytest.approx(float(bar.locator("span").last.text_content().rstrip(" %")), abs=0.5)
    page.set_input_files("#file", Path(__file__))
    page.get_by_role("status").filter(has_text="no sound that this browser can read").wait_for()
    page.close()


def test_the_page_listens_to_a_microphone(browser, tmp_path):
    path = tmp_path / "page.html"
    path.write_text(web_page(trained("pico"), "Words"), encoding="utf-8")
    page = browser.new_page()
    page.goto(path.as_uri())
    page.get_by_role("button", name="Use the microphone").press("Enter")
    page.locator(".answer").first.wait_for()
    assert page.get_by_role("status").text_content() == "Listening."
    page.get_by_role("button", name="Stop listening").press("Enter")
    page.get_by_role("button", name="Use the microphone").wait_for()
    page.close()


def test_a_c_file_is_compiled_and_run_before_it_is_written(tmp_path):
    model = trained("pico")
    check = export_source(model, tmp_path / "my_words.c", "c", sounds(model))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["my_words.c", "my_words.h", "my_words_test.c"]
    with pytest.raises(UsageError, match=r"try my_words\.c"):
        export_source(model, tmp_path / "my-words.c", "c", sounds(model))
    assert not check.by_operations
    assert check.max_error < 1e-3
    assert check.ram_bytes < 64_000
    assert check.flash_bytes < 200_000


def test_weights_of_eight_bits_keep_the_labels(tmp_path):
    model = load("audio_resnet_small_strided")
    windows = sounds(model)[[0, 2]]
    check = export_source(model, tmp_path / "small.c", "c", windows, quantize=True)
    assert check.labels_agree == 1
    with pytest.raises(UsageError, match="page computes in float32"):
        export_source(model, tmp_path / "small.html", "web", windows, quantize=True)
    with pytest.raises(UsageError, match=r"must end in \.html"):
        export_source(model, tmp_path / "small.c", "web", windows)
