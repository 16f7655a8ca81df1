"""Facts about a frontend of learned resolution: window, strides, what is held, and every way out of it."""

import copy
import json
import math
import signal
from pathlib import Path

import pytest
import torch
from small_training import small_adaptive_model, train_small
from torch import Tensor
from typer.testing import CliRunner

from audiostride import (
    AdaptiveLogMel,
    AudioClassifier,
    AudioResNet,
    DiffStride,
    LogMel,
    clamp_strides_,
    load,
    parameter_groups,
)
from audiostride.cli import app
from audiostride.errors import Interrupted
from audiostride.inference.export import export_model, metadata
from audiostride.inference.export_formats import FORMATS, run_exported
from audiostride.inference.exported_model import ExportedWindow, exported_program
from audiostride.layers.crop_spectrum import crop_spectrum_fft
from audiostride.layers.learned_window import LearnedWindow, hann
from audiostride.layers.spectrum import diffstride_crop, diffstride_mask
from audiostride.layers.strides import freeze_strides, with_product
from audiostride.models.cost import cost_per_second
from audiostride.models.cutoffs import model_cutoffs
from audiostride.training.recipe import load_recipe
from audiostride.training.run import run

NANO = {"channels": (4, 6), "time_channels": (8,), "strides": ((2, 2), (2, 2), (1, 1)), "mel_regions": 4}


def small_model(window_s: float = 1.0, **settings: object) -> AudioClassifier:
    return AudioClassifier(
        AdaptiveLogMel(**settings), AudioResNet("strided", **NANO), {"word": ["no", "yes"]}, window_s
    )


def moved(model: AudioClassifier) -> AudioClassifier:
    with torch.no_grad():
        model.frontend.pool.stride.copy_(torch.tensor([1.6, 2.5]))
        model.frontend.spectrogram.learned_window.log2_length.copy_(torch.tensor([math.log2(537.3)]))
    return model


@pytest.mark.parametrize("length", [40.0, 400.0, 400.5, 1024.0])
def test_the_power_of_a_window_does_not_depend_on_its_length_nor_does_the_level_of_noise(length: float) -> None:
    window = hann(torch.tensor(length, dtype=torch.float64), 1024, 150.0)
    assert window.square().sum().item() == pytest.approx(150, rel=1e-12)
    noise = torch.randn(400, 1024, dtype=torch.float64)
    assert (noise * window).square().sum(1).mean().item() == pytest.approx(150, rel=0.15)


def test_a_whole_length_is_the_usual_window_and_gradients_are_those_of_finite_differences() -> None:
    window = LearnedWindow(400.0, 1024)().double()
    torch.testing.assert_close(window[:400], torch.hann_window(400, dtype=torch.float64), rtol=0, atol=1e-6)
    assert window[400:].abs().max() < 1e-6
    octaves = torch.tensor([8.6437], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: hann(x.exp2(), 512, 150.0), octaves)


def test_at_strides_of_one_it_is_a_plain_log_mel() -> None:
    waveform = torch.randn(2, 16000)
    settings = {"hop_ms": 10.0, "n_fft": 512, "n_mels": 64}
    ours = AdaptiveLogMel(**settings, strides=(1, 1))(waveform)
    torch.testing.assert_close(ours, LogMel()(waveform), rtol=0, atol=2e-4)


def test_it_is_a_log_mel_pooled_by_fft() -> None:
    frontend, waveform = AdaptiveLogMel(strides=(1.7, 2.3), smoothness=2), torch.randn(2, 16000)
    fine = frontend.spectrogram(waveform)
    for dim, n, stride in ((2, 200, 1.7), (3, 128, 2.3)):
        crop = diffstride_crop(n, torch.tensor(stride).item(), 2.0)
        fine = crop_spectrum_fft(fine, diffstride_mask(crop, torch.tensor(stride), 2.0), crop, dim)
    torch.testing.assert_close(frontend(waveform), fine, rtol=0, atol=1e-4)
    assert frontend.map_size(16000) == fine.shape[2:]


def test_silence_is_constant_at_any_resolution() -> None:
    for strides in ((1, 1), (1.37, 2.9), (4, 1)):
        silent = AdaptiveLogMel(strides=strides)(torch.zeros(1, 16000))
        torch.testing.assert_close(silent, torch.full_like(silent, math.log(1e-5)), rtol=0, atol=1e-4)


def test_the_gradient_to_strides_and_window_is_that_of_finite_differences() -> None:
    frontend = AdaptiveLogMel(4000, 25, 5, 128, 16, 60, 1900, (1.62, 2.21), 1.5, hold_product=False).double()
    waveform = torch.randn(1, 800, dtype=torch.float64)
    weight = torch.randn(frontend(waveform).shape, dtype=torch.float64)

    def output(stride: Tensor, octaves: Tensor) -> Tensor:
        own = {"pool.stride": stride, "spectrogram.learned_window.log2_length": octaves}
        return (torch.func.functional_call(frontend, own, (waveform,)) * weight).sum()

    stride = frontend.pool.stride.detach().clone().requires_grad_()
    octaves = frontend.spectrogram.learned_window.log2_length.detach().clone() + 0.0123
    assert torch.autograd.gradcheck(output, (stride, octaves.requires_grad_()))


def test_a_held_product_leaves_no_gradient_that_would_change_it() -> None:
    x, free, held = torch.randn(4, 3, 60, 40), DiffStride((1.6, 2.5)), DiffStride((1.6, 2.5), hold_product=True)
    for pool in (free, held):
        pool(x).square().sum().backward()
    octaves = held.stride.grad * held.stride.detach()  # of the logarithms of the strides
    assert octaves.sum().abs() < 1e-3 * octaves.abs().max()
    ours = free.stride.grad * free.stride.detach()
    torch.testing.assert_close(octaves, ours - ours.mean(), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("strides", "product"), [((3.0, 2.0), 4.0), ((1.0, 9.0), 4.0), ((60.0, 1.0), 4.0), ((2.0,), 3.0)]
)
def test_the_product_is_restored_within_the_range_of_each_stride(strides: tuple[float, ...], product: float) -> None:
    highest = torch.tensor([50.0, 8.0][: len(strides)])
    found = with_product(torch.tensor(strides).minimum(highest), product, highest)
    assert found.prod().item() == pytest.approx(product, rel=1e-6)
    assert ((found >= 1) & (found <= highest)).all()
    torch.testing.assert_close(with_product(found, product, highest), found, rtol=0, atol=0)


def test_the_product_holds_through_training_and_without_it_the_strides_are_free() -> None:
    for hold in (True, False):
        torch.manual_seed(0)
        model = small_model(hold_product=hold).train()
        optimizer = torch.optim.Adam(parameter_groups(model, 1e-3, 0.1))
        assert [len(group["params"]) for group in optimizer.param_groups if group["name"] == "strides"] == [2]
        for _ in range(5):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(torch.randn(8, 8000))["word"], torch.arange(8) % 2).backward()
            optimizer.step()
            clamp_strides_(model)
        time, mel = model.frontend.pool.strides()
        assert time != 2
        assert model.frontend.tile(16000)["window_ms"] != 25
        assert (abs(time * mel - 4) < 1e-5) == hold


def test_the_window_is_held_between_a_hop_and_the_fft() -> None:
    model, octaves = small_model(), []
    for far in (-5.0, 20.0):
        with torch.no_grad():
            model.frontend.spectrogram.learned_window.log2_length.fill_(far)
        clamp_strides_(model)
        octaves.append(model.frontend.tile(16000)["window_ms"])
    assert octaves == [5, 64]


def test_frozen_it_is_constants_that_give_the_same() -> None:
    model, waveform = moved(small_model()).eval(), torch.randn(2, 16000)
    frozen = copy.deepcopy(model)
    freeze_strides(frozen)
    assert not list(frozen.frontend.parameters())
    assert len(frozen.frontend.window) == 538
    torch.testing.assert_close(frozen(waveform)["word"], model(waveform)["word"], rtol=0, atol=1e-5)
    assert frozen.frontend.tile(16000) == model.frontend.tile(16000)


def test_what_is_saved_is_what_is_loaded_and_a_frozen_model_learns_its_heads_only(tmp_path: Path) -> None:
    model, waveform = moved(small_model(smoothness=2.0)).eval(), torch.randn(2, 16000)
    model.save(tmp_path)
    again = load(tmp_path)
    assert torch.equal(again(waveform)["word"], model(waveform)["word"])
    assert again.config() == model.config()
    assert again.frontend.tile(16000) == model.frontend.tile(16000)
    again.freeze()
    assert [name for name, p in again.named_parameters() if p.requires_grad] == ["heads.word.weight", "heads.word.bias"]


def test_its_exported_graph_gives_the_same() -> None:
    model, waveform = moved(small_model()).eval(), torch.randn(2, 16000)
    window = ExportedWindow(model, takes_log_mel=False)
    program = exported_program(model, window, False, any_length=False, any_batch=True)
    torch.testing.assert_close(program.module()(waveform)[0], model(waveform)["word"], rtol=0, atol=1e-3)
    assert not window.any_length


def test_pooling_counts_and_the_cut_offs_begin_with_the_spectrogram() -> None:
    model = small_model()
    n_time, n_mel = model.frontend.map_size(16000)
    pooling = 200 * 128 * n_time + n_time * 128 * n_mel
    plain = AudioClassifier(AdaptiveLogMel(strides=(1, 1)), model.trunk, {"word": 2})
    assert cost_per_second(model).macs > pooling
    assert cost_per_second(plain).macs > 2 * cost_per_second(model).macs - 2 * pooling
    time, mel, *others = model_cutoffs(moved(model))
    assert (time.layer, mel.layer, others[0].layer) == (0, 0, 1)
    assert time.own.continuous == pytest.approx(200 / (2 * 1.6))
    assert mel.own.continuous == pytest.approx(1 / (2 * 2.5))
    assert others[0].cumulative.continuous <= time.own.continuous


def test_training_moves_it_and_resumes_as_if_never_stopped(tmp_path: Path) -> None:
    def model() -> AudioClassifier:
        torch.manual_seed(0)
        frontend, trunk = AdaptiveLogMel(n_mels=32, n_fft=512), AudioResNet("strided", **NANO)
        return AudioClassifier(frontend, trunk, {"loud": 2, "third": 3}, window_s=0.2)

    def stop(step: int, *_: object) -> None:
        if step == 6:
            signal.raise_signal(signal.SIGTERM)

    whole = train_small(model(), tmp_path / "whole", stride_learning_rate=0.05)
    with pytest.raises(Interrupted):
        train_small(model(), tmp_path / "run", on_step=stop)
    resumed = train_small(model(), tmp_path / "run", resume=True)
    assert all(torch.equal(one, resumed.state_dict()[name]) for name, one in whole.state_dict().items())
    last = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])["resolution"]
    assert last["strides"] != [2, 2]
    assert last["window_ms"] != 25
    assert math.prod(last["strides"]) == pytest.approx(4, rel=1e-5)


@pytest.mark.slow
def test_a_recipe_trains_it_and_says_in_its_results_what_was_learned(tmp_path: Path) -> None:
    settings = ["tasks.rate.data.n_clips=250", "tasks.scale.data.n_clips=250", "frontend={name: adaptive_log_mel}"]
    settings += ["train.batch_size=32", "train.workers=0", "train.stride_learning_rate=0.05", "train.epochs=1"]
    settings += ["model={name: audio_resnet, downsampling: strided, channels: [4, 6], time_channels: [8]}"]
    found = run(load_recipe("ripples", [*settings, "model.strides=[[2, 2], [2, 2], [1, 1]]"]), tmp_path)
    assert found["resolution"] == load(tmp_path).frontend.tile(16000)
    assert found["macs_per_second"] == cost_per_second(load(tmp_path)).macs
    assert CliRunner().invoke(app, ["cutoffs", str(tmp_path), "--json"]).exit_code == 0


@pytest.mark.filterwarnings("ignore")  # of torch's exporter
@pytest.mark.slow
@pytest.mark.parametrize("takes_log_mel", [False, True])
@pytest.mark.parametrize("format", ["torch", "onnx"])
def test_files_of_it_compute_what_it_computes(format: str, takes_log_mel: bool, tmp_path: Path) -> None:
    model, path = moved(small_model()).eval(), tmp_path / f"model{FORMATS[format].ending}"
    windows = 0.1 * torch.randn(6, 16000)
    assert export_model(model, path, format, windows, takes_log_mel=takes_log_mel).max_error < 1e-3
    inputs = model.frontend.spectrogram(windows) if takes_log_mel else windows
    (found,) = run_exported(path, format)(inputs[:3].detach().numpy())
    torch.testing.assert_close(torch.from_numpy(found), model(windows[:3])["word"].detach(), rtol=0, atol=1e-3)
    assert metadata(model, takes_log_mel, False)["resolution"]["window_ms"] == pytest.approx(33.58, abs=0.01)


@pytest.mark.filterwarnings("ignore")  # of torch's exporter
@pytest.mark.slow
def test_it_is_quantised(tmp_path: Path) -> None:
    model, loud = moved(small_model()), torch.arange(40) % 2
    windows = torch.randn(40, 16000) * (0.02 + 0.1 * loud[:, None])
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(15):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(windows)["word"], loud).backward()
        optimizer.step()
    whole = export_model(model.eval(), tmp_path / "whole.onnx", "onnx", windows)
    small = export_model(model, tmp_path / "small.onnx", "onnx", windows, quantize="int8")
    assert small.labels_agree >= 0.95
    assert small.size_bytes < whole.size_bytes


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # the compiler looks at all
@pytest.mark.slow
def test_compiled_it_trains_and_infers_as_it_does_uncompiled() -> None:
    model, waveform = moved(small_model()), torch.randn(4, 16000)
    twin = copy.deepcopy(model)
    compiled = torch.compile(twin, backend="aot_eager")
    for own, network in ((model, model), (twin, compiled)):
        optimizer = torch.optim.SGD(parameter_groups(own, 1e-3, 0.05))
        for _ in range(3):
            optimizer.zero_grad()
            network(waveform)["word"].square().sum().backward()
            optimizer.step()
            clamp_strides_(own)
    assert twin.frontend.tile(16000)["strides"] != [1.6, 2.5]
    torch.testing.assert_close(twin.frontend.pool.stride, model.frontend.pool.stride, rtol=1e-4, atol=1e-4)
    model.eval(), twin.eval()
    torch.testing.assert_close(compiled(waveform)["word"], model(waveform)["word"], rtol=0, atol=1e-3)


def test_its_moving_average_has_a_resolution_between_first_and_last(tmp_path: Path) -> None:
    plain = train_small(small_adaptive_model(), tmp_path / "plain")
    train_small(small_adaptive_model(), tmp_path / "average", ema_decay=0.9)
    first, last = 25.0, plain.frontend.tile(3200)["window_ms"]
    mean = json.loads((tmp_path / "average" / "metrics.jsonl").read_text().splitlines()[-1])["resolution"]
    assert min(first, last) < mean["window_ms"] < max(first, last)
    assert math.prod(mean["strides"]) == pytest.approx(4, rel=0.05)


@pytest.mark.slow
def test_a_trained_one_is_fine_tuned_from_its_resolution_and_a_probe_leaves_it(tmp_path: Path) -> None:
    settings = ["tasks.rate.data.n_clips=250", "tasks.scale.data.n_clips=250", "train.workers=0", "train.epochs=1"]
    settings += ["train.batch_size=50"]
    moved(small_model()).save(tmp_path / "start")
    tiles = []
    for name, probe in (("tuned", False), ("probe", True)):
        own = [f"model.init={tmp_path / 'start'}", f"model.linear_probe={str(probe).lower()}"]
        recipe = Path(__file__).parents[1] / "recipes" / "ripples.yaml"
        tree = [*settings, *own, "train.stride_learning_rate=0.01"]
        run(load_recipe(str(recipe), tree), tmp_path / name)
        tiles.append(load(tmp_path / name).frontend.tile(16000))
    start = load(tmp_path / "start").frontend.tile(16000)
    assert tiles[1] == start
    assert tiles[0]["window_ms"] != start["window_ms"]
    assert tiles[0]["strides"] == pytest.approx(start["strides"], abs=0.1)
