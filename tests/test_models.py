"""Every registered model passes these, and the features that every classifier has."""

import importlib.util
import sys
import types

import numpy as np
import pytest
import torch

from audiostride import AudioClassifier, AudioCNN, LogMel, create_model, list_models, load
from audiostride.analysis.listening import keep
from audiostride.analysis.report import write_report
from audiostride.errors import ModelFileError, UsageError
from audiostride.inference import hear
from audiostride.inference.export import export_model
from audiostride.inference.exported_model import ExportedClip, ExportedWindow
from audiostride.models.registry import MODELS
from audiostride.windows import split_windows
from conftest import tone

NARROW = {"channels": (4, 4, 8, 8, 8, 8), "smoothness": 1.0}
NARROW_RESNET = {"channels": (4, 4, 8), "time_channels": (8, 8, 8)}
NARROW_PICO = {"channels": (4, 8), "time_channels": (8, 8, 8)}
NARROW_FOUR = {"channels": (4, 4, 8, 8), "smoothness": 1.0}


@pytest.fixture(params=sorted(MODELS))
def model(request: pytest.FixtureRequest) -> AudioClassifier:
    kinds = {"audio_cnn": NARROW, "audio_resnet_pico": NARROW_PICO, "audio_resnet": NARROW_RESNET}
    narrow = next((own for kind, own in kinds.items() if request.param.startswith(kind)), NARROW_FOUR)
    return create_model(request.param, heads={"word": ["no", "yes"], "speaker": 3}, **narrow)


def noise(model: AudioClassifier, n_windows: int) -> torch.Tensor:
    return torch.randn(n_windows, model.window_length)


def test_every_model_gives_logits_and_a_gradient_to_every_parameter(model):
    logits = model(noise(model, 2))
    assert {task: tuple(values.shape) for task, values in logits.items()} == {"word": (2, 2), "speaker": (2, 3)}
    sum(values.square().sum() for values in logits.values()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0 or "bias" in name or "norm" in name, name


def test_every_model_gives_the_features_of_every_block(model):
    model.eval()
    windows = noise(model, 2)
    maps = model.block_features(windows)
    assert len(maps) == len(model.trunk.blocks)
    assert {features.shape[1] for features in maps} == {4, 8}
    assert torch.equal(maps[-1], model.forward_features(windows))
    flat = maps[-1].flatten(2)
    pooled = flat.amax(2) if isinstance(model.trunk, AudioCNN) else flat.mean(2)
    assert torch.allclose(pooled, model.embed_windows(windows), atol=1e-6)
    assert model.embed(windows.flatten(), model.frontend.sample_rate).shape == (model.trunk.num_features,)


def test_every_model_learns_only_its_heads_when_frozen_and_all_when_not(model):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.freeze()
    model.train()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0)
    model(noise(model, 2))["word"].square().sum().backward()
    optimizer.step()
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"heads.word.weight", "heads.word.bias"}
    model.unfreeze()
    assert all(p.requires_grad for p in model.parameters())
    assert model.trunk.training


def test_every_model_is_the_same_after_saving_and_loading(model, tmp_path):
    model(noise(model, 2))
    model.eval().save(tmp_path)
    windows = noise(model, 2)
    again = load(tmp_path)
    assert again.config() == model.config()
    with torch.inference_mode():
        for task, logits in again(windows).items():
            assert torch.equal(logits, model(windows)[task])


def test_every_model_is_the_same_in_its_exported_form(model):
    model(noise(model, 8))
    windows, length = noise(model.eval(), 3), model.window_length
    window = ExportedWindow(model, takes_log_mel=False).eval()
    clip = ExportedClip(window, length)
    with torch.inference_mode():
        for found, logits in zip(window(windows), model(windows).values(), strict=True):
            assert torch.allclose(found, logits, atol=1e-4)
        for n in (length // 3, length, 3 * length // 2 - 1, 3 * length // 2, 3 * length):
            sound = windows.flatten()[:n]
            expected = model(split_windows(sound, length)).values()
            for found, logits in zip(clip(sound[None]), expected, strict=True):
                assert torch.allclose(found[0], logits.mean(0), atol=1e-4), n


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of torch's exporter
@pytest.mark.parametrize("name", ["resnet18_diffstride", "wave_cnn_diffstride", "wave_cnn_strided"])
def test_other_trunks_are_exported_and_checked(name, tmp_path):
    model = create_model(name, heads={"word": 3}, **NARROW_FOUR).eval()
    check = export_model(model, tmp_path / "model.pt2", "torch", noise(model, 3))
    assert check.max_error < 1e-3
    assert check.other_lengths_s == (0.4, 2.6)


@pytest.mark.parametrize("name", ["resnet18_strided", "wave_cnn_diffstride"])
def test_what_needs_the_blocks_of_an_audio_cnn_says_so_of_other_trunks(name, tmp_path):
    model = create_model(name, heads={"word": 2}, **NARROW_FOUR)
    with pytest.raises(UsageError, match=r"listening is made for an AudioCNN or .*; this model is a (ResNet|Wave)"):
        keep(model, np.zeros(16000, np.float32))
    model.save(tmp_path)
    with pytest.raises(UsageError, match="the report is made for an AudioCNN or AudioResNet on LogMel"):
        write_report(tmp_path, tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


def test_a_wrong_name_or_setting_says_what_is_right():
    with pytest.raises(ValueError, match="did you mean 'audio_cnn_strided'"):
        create_model("audio_cnn_strides", heads={"word": 2})
    with pytest.raises(ValueError, match="unexpected keyword argument 'stride'"):
        create_model("audio_cnn_strided", heads={"word": 2}, stride=2)
    with pytest.raises(ValueError, match="no weights come with audio_cnn_strided"):
        create_model("audio_cnn_strided", pretrained=True, heads={"word": 2})
    with pytest.raises(ValueError, match="belong together, got LogMel and WaveCNN"):
        create_model("wave_cnn_strided", heads={"word": 2}, frontend=LogMel())
    assert list_models("audio_*diffstride*") == [
        *("audio_cnn_diffstride", "audio_cnn_small_diffstride"),
        *(f"audio_resnet_{size}_diffstride" for size in ("base", "nano", "pico", "small")),
    ]


def test_a_pretrained_trunk_comes_with_its_strides_and_new_heads(tmp_path):
    trained = create_model("audio_cnn_diffstride", heads={"word": 2}, **NARROW)
    with torch.no_grad():
        trained.trunk.blocks[0].pool.stride.fill_(1.7)
    trained.save(tmp_path)
    model = create_model("audio_cnn_diffstride", tmp_path, heads={"digit": 10}, **NARROW)
    assert model.trunk.strides()[0] == pytest.approx([1.7, 1.7])
    assert model(torch.zeros(1, 16000))["digit"].shape == (1, 10)
    with pytest.raises(ValueError, match="is not audio_cnn_spectral"):
        create_model("audio_cnn_spectral", tmp_path, heads={"digit": 10}, **NARROW)
    with pytest.raises(ValueError, match="was trained on the frontend"):
        create_model("audio_cnn_diffstride", tmp_path, heads={"digit": 2}, frontend=LogMel(n_mels=32), **NARROW)


def test_heads_are_replaced_by_number_or_by_name():
    model = create_model("audio_cnn_strided", heads={"word": 2}, **NARROW)
    model.reset_classifier(5)
    assert model.labels == {"word": ["0", "1", "2", "3", "4"]}
    model.reset_classifier({"a": ["x", "y"], "b": 3})
    assert model(torch.zeros(1, 16000))["b"].shape == (1, 3)
    with pytest.raises(ValueError, match="several tasks"):
        model.reset_classifier(5)


@pytest.mark.parametrize("hop_ms", [50.0, 12.345, 400.0])
def test_a_timestamp_embedding_is_that_of_the_window_around_it(hop_ms):
    model = create_model("audio_cnn_small_strided", heads={"word": 2}).eval()
    waveform = np.concatenate([tone(300, 1.0), tone(2000, 1.3)])
    embeddings, centres_ms = model.embed_timestamps(waveform, 16000, hop_ms)
    assert centres_ms.numpy() == pytest.approx(np.arange(len(centres_ms)) * hop_ms, rel=1e-6)
    assert 2300 - hop_ms <= centres_ms[-1] < 2300
    padded = np.pad(waveform, 8000)
    for i in (0, len(centres_ms) // 2, len(centres_ms) - 1):
        start = round(i * hop_ms * 16)
        window = padded[start : start + 16000]
        assert torch.allclose(embeddings[i], model.embed(window, 16000), atol=1e-4)


def test_hear_meets_the_rules_of_its_public_validator(tmp_path):
    create_model("audio_cnn_small_strided", heads={"word": 2}).save(tmp_path)
    model = hear.load_model(str(tmp_path))
    assert isinstance(model, torch.nn.Module)
    assert model.sample_rate in (16000, 22050, 44100, 48000)
    assert type(model.scene_embedding_size) is int
    assert type(model.timestamp_embedding_size) is int
    for seconds in (1.07, 1.98, 4.0):
        audio = 2 * torch.rand(2, int(seconds * model.sample_rate)) - 1
        embeddings, timestamps = hear.get_timestamp_embeddings(audio, model)
        assert embeddings.dtype == torch.float32
        assert embeddings.shape == (2, timestamps.shape[1], model.timestamp_embedding_size)
        steps = timestamps.diff(dim=1)
        assert steps.max() <= 50
        assert (steps - steps.mean()).abs().max() <= 1
        assert timestamps.min() <= steps.mean()
        assert 1000 * seconds - 50 <= timestamps.max() <= 1000 * seconds
    scenes = hear.get_scene_embeddings(2 * torch.rand(4, int(2.74 * model.sample_rate)) - 1, model)
    assert scenes.dtype == torch.float32
    assert scenes.shape == (4, model.scene_embedding_size)
    with pytest.raises(ModelFileError, match="audio_resnet_small_strided, which comes with the package"):
        hear.load_model()
    create_model("wave_cnn_strided", heads={"word": 2}).save(tmp_path)
    with pytest.raises(ModelFileError, match="takes audio at 8000 Hz, HEAR offers 16000"):
        hear.load_model(str(tmp_path))


@pytest.mark.slow
def test_hear_passes_its_public_validator_itself(tmp_path, monkeypatch):
    if importlib.util.find_spec("hearvalidator") is None:
        pytest.skip("hearvalidator is not installed")
    # The validator imports tensorflow to tell its models from PyTorch's; for ours nothing else of it is used.
    tensorflow = types.ModuleType("tensorflow")
    monkeypatch.setattr(tensorflow, "Module", type("Module", (), {}), raising=False)
    monkeypatch.setitem(sys.modules, "tensorflow", tensorflow)
    validate = importlib.import_module("hearvalidator.validate")
    create_model("audio_cnn_small_diffstride", heads={"word": 2}).save(tmp_path)
    with pytest.warns(UserWarning, match="rounding errors accumulating over longer audio") as warned:
        validate.ValidateModel("audiostride.inference.hear", str(tmp_path), device="cpu")()
    assert len(warned) == 1  # it gives this advice to everybody
