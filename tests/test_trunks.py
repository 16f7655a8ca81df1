"""Every trunk that `TRUNKS` names works everywhere a trunk does: classifier, files, recipes, cost, cut-offs."""

import inspect
import json

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from audiostride import AudioClassifier, AudioCNN, AudioResNet, LogMel, RawWaveform, ResNet, WaveCNN, load
from audiostride.analysis.listening import keep
from audiostride.cli import app
from audiostride.errors import RecipeError, UsageError
from audiostride.layers.choice import Downsampling
from audiostride.models.classifier import FRONTENDS, TRUNKS
from audiostride.models.cost import count_parameters, model_cost
from audiostride.models.cutoffs import model_cutoffs, summarise, trunk_cutoffs
from audiostride.models.parts import TrunkSection
from audiostride.models.registry import MODELS
from audiostride.models.wave_cnn import WaveBlock
from audiostride.training.build import make_frontend, make_trunk
from audiostride.training.recipe import dump_recipe, load_recipe

KINDS = pytest.mark.parametrize("kind", ["strided", "spectral", "diffstride"])

SMALL = {
    "audio_cnn": (LogMel, lambda kind: AudioCNN(kind, channels=(8, 8), strides=((2, 2), (2, 2)), smoothness=1)),
    "audio_resnet": (
        LogMel,
        lambda kind: AudioResNet(kind, channels=(8,), time_channels=(8,), strides=((2, 2), (2, 1)), mel_regions=16),
    ),
    "resnet": (
        LogMel,
        lambda kind: ResNet(kind, channels=(8, 8), blocks=(1, 1), strides=(2, 2), smoothness=1),
    ),
    "wave_cnn": (
        lambda: RawWaveform(8000),
        lambda kind: WaveCNN(kind, channels=(8, 8), kernel_sizes=(79, 3), strides=(16, 4)),
    ),
}


def classifier(name, kind):
    frontend, trunk = SMALL[name]
    return AudioClassifier(frontend(), trunk(kind), {"word": ["no", "yes"]}).eval()


def test_all_of_them_are_tested_here():
    elsewhere = {"custom"}  # test_custom.py
    assert list(SMALL) == [name for name in TRUNKS if name not in elsewhere]


@KINDS
@pytest.mark.parametrize("name", SMALL)
def test_a_classifier_on_it_predicts_and_comes_back_from_disk_the_same(name, kind, tmp_path):
    model = classifier(name, kind)
    model.save(tmp_path)
    twin = load(tmp_path)
    waveform = torch.randn(2, model.window_length)
    assert torch.equal(model(waveform)["word"], twin(waveform)["word"])
    assert model(waveform)["word"].shape == (2, 2)
    assert model.predict(torch.randn(20000), 16000)["word"].label in ("no", "yes")
    assert twin.trunk.settings == model.trunk.settings


@KINDS
@pytest.mark.parametrize("name", SMALL)
def test_map_sizes_strides_and_cutoffs_agree_with_the_network(name, kind):
    model = classifier(name, kind)
    features = model.forward_features(torch.zeros(1, model.window_length))
    sizes = model.trunk.map_sizes(*model.frontend(torch.zeros(model.window_length)).shape[1:])
    if name == "audio_resnet":  # its mel regions are channels
        sizes[-1] = (sizes[-1][0], 1)
    assert tuple(features.shape[2:]) == sizes[-1]
    assert len(sizes) == len(model.trunk.strides()) + 1
    rows = model_cutoffs(model)
    assert len(rows) == 2 * (1 if name == "wave_cnn" else 2)
    assert [row.stride for row in rows] == [s for strides in model.trunk.strides() for s in strides]


def test_the_cutoffs_of_a_waveform_network_are_in_hz_of_the_waveform():
    trunk = WaveCNN("diffstride", channels=(4, 4), kernel_sizes=(79, 3), strides=(16, 4), smoothness=4)
    first, second = trunk_cutoffs(trunk, 8000, None, 8000.0)
    assert (first.axis, first.own.full_gain, first.own.last_bin) == ("time", 250.0, 253.0)
    n = trunk.map_sizes(8000)[1][0]
    assert second.cumulative.full_gain == pytest.approx(n / 8)
    assert first.paper is second.paper is None  # the paper's convention counts frames of a spectrogram
    assert [row["paper"] for row in summarise([[first, second]] * 2)] == [None, None]


def test_a_wave_block_keeps_the_envelope_of_a_tone_far_above_its_cutoff():
    block = WaveBlock(1, 1, 79, 16.0, Downsampling("diffstride")).eval()
    time_s = torch.arange(8000) / 8000
    with torch.no_grad():  # the filter passes 2 kHz; what is left of it after pooling is below 254 Hz
        block.conv.conv.weight.copy_(torch.cos(2 * torch.pi * 2000 * (torch.arange(79) - 39) / 8000).view(1, 1, -1))
        block.conv.conv.bias.zero_()
    carrier = torch.sin(2 * torch.pi * 2000 * time_s)
    loudness = 1 + 0.5 * torch.sin(2 * torch.pi * 10 * time_s)
    out = block((carrier * loudness).view(1, 1, -1)).detach().flatten()
    spectrum = torch.fft.rfft(out - out.mean()).abs()
    assert spectrum.argmax() == 10


def test_batch_and_single_example_agree_on_a_waveform():
    net = SMALL["wave_cnn"][1]("diffstride").eval()
    x = torch.randn(3, 1, 4000)
    torch.testing.assert_close(net(x)[1:2], net(x[1:2]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"downsampling": "magic"}, "downsampling must be"),
        ({"channels": (8,)}, "got 1, 2 and 2"),
        ({"kernel_sizes": (80, 3)}, "must be odd"),
        ({"strides": (0.5, 2)}, "at least 1"),
    ],
)
def test_wrong_settings_of_a_waveform_network_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        WaveCNN(**({"channels": (8, 8), "kernel_sizes": (79, 3), "strides": (16, 4)} | settings))
    with pytest.raises(ValueError, match="sample rate"):
        RawWaveform(0)


def test_the_measured_cost_of_resnet18_is_the_published_one():
    imagenet = nn.Sequential(ResNet("strided", stem="imagenet", in_channels=3, strides=(2, 2, 2)), nn.Linear(512, 1000))
    cost = model_cost(imagenet, torch.zeros(1, 3, 224, 224))
    assert round(cost.macs / 1e6) == 1814  # 1.8 billion multiply-adds in He et al. 2015, Table 1
    assert cost.parameters == count_parameters(imagenet)
    assert imagenet.training


def test_the_cost_of_pooling_is_that_of_its_matrices():
    net = ResNet("spectral", channels=(2,), blocks=(1,), strides=((2, 4),), in_channels=1)
    pools = 2 * (8 * 16 * 20 + 8 * 20 * 5) * 2  # both branches: 16 -> 8 at 20 columns, 20 -> 5 at 8 rows, 2 channels
    convolutions = 9 * 1 * 2 * 320 + 9 * 2 * 2 * 320 + 9 * 2 * 2 * 40
    assert model_cost(net, torch.zeros(1, 1, 16, 20)).macs == pools + convolutions


@pytest.mark.parametrize("part", [*FRONTENDS.values(), *TRUNKS.values()], ids=lambda part: part.__name__)
def test_a_recipe_has_the_arguments_of_a_constructor_with_their_defaults(part):
    section, arguments = part.section(), inspect.signature(part).parameters
    assert section.model_fields.keys() - TrunkSection.model_fields.keys() == set(arguments)
    if not any(field.is_required() for field in section.model_fields.values()):
        chosen = section().model_dump(include=set(arguments))
        made, again = part(**chosen), part()
        assert made.settings == again.settings
        assert made.settings.keys() == chosen.keys()


def test_models_are_the_sizes_of_all_trunks_in_every_kind_of_downsampling():
    sizes = [size for trunk in TRUNKS.values() for size in trunk.sizes]
    assert list(MODELS) == [f"{size}_{kind}" for size in sizes for kind in ("strided", "spectral", "diffstride")]


def test_recipes_build_every_trunk_and_read_back():
    for recipe, overrides in (
        ("folder", []),
        ("folder", ["model={name: resnet, blocks: [1, 1, 1, 1], strides: [2, [1, 2], 2]}"]),
        ("wave_commands", []),
    ):
        loaded = load_recipe(recipe, overrides)
        frontend, trunk = make_frontend(loaded), make_trunk(loaded)
        features = trunk(frontend(torch.zeros(2, frontend.sample_rate)))
        assert features.shape == (2, trunk.num_features)
        assert type(trunk) is TRUNKS[loaded.model.name]
        assert dump_recipe(loaded).count("name:") == 3


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.name=resnet", "model.chanels=[8]"], r"model\.chanels: no such key"),
        (["model={name: wave_cnn}"], "belong together, got 'log_mel' and 'wave_cnn'"),
        (["model={name: resnett}"], "did you mean 'resnet'"),
        (["model={name: resnet, kernel_sizes: [3]}"], r"model\.kernel_sizes: no such key"),
    ],
)
def test_mistakes_in_the_model_section_are_named(overrides, message):
    with pytest.raises(RecipeError, match=message):
        load_recipe("folder", overrides)


@pytest.mark.parametrize("name", ["resnet", "wave_cnn"])
def test_what_is_made_for_the_spectrogram_cnn_refuses_other_trunks_by_name(name):
    model = classifier(name, "diffstride")
    trunk = type(model.trunk).__name__
    with pytest.raises(
        UsageError, match=f"listening is made for an AudioCNN or AudioResNet on .*; this model is a {trunk} on"
    ):
        keep(model, np.zeros(16000, np.float32))


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["wave_commands", "resnet"])
def test_a_recipe_with_another_trunk_trains_and_shows_its_cutoffs(recipe, tone_folder, tmp_path):
    task = "word" if recipe == "wave_commands" else "label"
    model = {
        "wave_commands": ["model.channels=[4,4]", "model.kernel_sizes=[79,3]", "model.strides=[16,4]"],
        "resnet": ["model={name: resnet, channels: [4, 8], blocks: [1, 1], strides: [2, 2], smoothness: 1}"],
    }[recipe]
    arguments = ["wave_commands" if recipe == "wave_commands" else "folder", f"tasks.{task}.data.path={tone_folder}"]
    settings = ["train.epochs=1", "train.batch_size=16", "train.workers=0"]
    out = str(tmp_path / "run")

    def command(*arguments):
        done = CliRunner().invoke(app, arguments, catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.stdout

    results = json.loads(command("train", *arguments, *model, *settings, "--out", out, "--json"))
    assert results["macs_per_second"] > 0
    assert len(results["strides"]) == 2
    layers = json.loads(command("cutoffs", out, "--json"))["layers"]
    assert {row["axis"] for row in layers} == ({"time"} if recipe == "wave_commands" else {"time", "mel"})
