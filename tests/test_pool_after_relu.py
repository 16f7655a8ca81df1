"""Facts about pooling what has passed the ReLU: what the nonlinearity makes of modulations before they are removed."""

import copy
import math

import pytest
import torch
from torch import Tensor

from audiostride import AudioCNN
from audiostride.analysis.measured_response import layer_responses
from audiostride.layers import downsampling
from audiostride.layers.choice import Downsampling
from audiostride.layers.crop_spectrum import crop_spectrum_fft
from audiostride.layers.spectrum import diffstride_mask
from audiostride.layers.strides import diffstride_layers, freeze_strides
from audiostride.models.audio_cnn import SeparableBlock
from audiostride.models.classifier import load
from audiostride.models.cost import model_cost
from audiostride.models.registry import create_model

SMALL = {"channels": (8, 16), "strides": ((2.25, 1.75), (2, 2)), "smoothness": 1}
LEARNING = [("spectral", None), ("spectral", 0.3), ("diffstride", None), ("diffstride", 0.3)]


def trunk(kind: str, aliasing: float | None) -> AudioCNN:
    return AudioCNN(kind, **SMALL, aliasing=aliasing, pool_after_relu=True)


def passing_block(pool_after_relu: bool) -> SeparableBlock:
    """A block of one channel whose convolutions pass their input on, in front of a ReLU and no norm."""
    block = SeparableBlock(1, 1, (4.0, 1.0), Downsampling("diffstride", smoothness=1, after_relu=pool_after_relu))
    for conv in (block.time_conv.conv, block.mel_conv.conv):
        torch.nn.init.dirac_(conv.weight)
        torch.nn.init.zeros_(conv.bias)
    return block.eval()


def tone(cycles: int) -> Tensor:
    """A modulation over 96 frames, the same in 8 mel bands."""
    frames = torch.arange(96) / 96
    return torch.cos(2 * math.pi * cycles * frames).view(1, 1, 96, 1).expand(1, 1, 96, 8).contiguous()


def test_a_modulation_above_the_cutoff_vanishes_before_the_relu_and_leaves_its_mean_behind_it() -> None:
    fast = tone(32)  # the layer keeps 12 cycles in full, and 13 at all
    assert passing_block(pool_after_relu=False)(fast).abs().max() < 1e-5
    rectified = passing_block(pool_after_relu=True)(fast)
    # 32 cycles in 96 frames are 1, -1/2, -1/2 again and again: rectified, a mean of 1/3 and nothing below 32 cycles.
    assert torch.allclose(rectified, torch.full_like(rectified, 1 / 3), atol=1e-4)


def test_what_is_kept_in_full_and_positive_is_the_same_on_both_sides_of_the_relu() -> None:
    slow = tone(3) + 2
    before, after = passing_block(pool_after_relu=False)(slow), passing_block(pool_after_relu=True)(slow)
    assert torch.allclose(before, after, atol=1e-5)


def test_a_block_is_convolution_relu_downsampling_norm_over_time_and_then_over_mel() -> None:
    block = (
        SeparableBlock(3, 5, (2.25, 1.75), Downsampling("diffstride", smoothness=2, after_relu=True)).double().eval()
    )
    x = torch.randn(2, 3, 40, 30, dtype=torch.float64)
    y = x
    for axis, (conv, norm) in enumerate(((block.time_conv, block.time_norm), (block.mel_conv, block.mel_norm))):
        active = conv(y).relu()
        crop = block.pool.axis_crop(active.shape[2 + axis], axis)
        mask = diffstride_mask(crop, block.pool.stride[axis].detach(), 2.0)
        y = norm(crop_spectrum_fft(active, mask, crop, 2 + axis))
    assert torch.allclose(block(x), y, atol=1e-12)


def test_folding_in_full_is_the_strided_network_in_this_order_too() -> None:
    """Reading a map off at every second sample commutes with the ReLU."""
    settings = {"channels": (8, 16), "strides": ((2, 2), (3, 4))}
    strided = AudioCNN("strided", **settings).eval()
    folding = AudioCNN("spectral", **settings, aliasing=1.0, pool_after_relu=True).eval()
    folding.load_state_dict(strided.state_dict(), strict=False)
    x = torch.randn(2, 1, 96, 64)
    torch.testing.assert_close(folding.forward_features(x), strided.forward_features(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("kind", "aliasing"), LEARNING)
def test_every_parameter_learns_and_freezing_changes_nothing(kind: str, aliasing: float | None) -> None:
    cnn, x = trunk(kind, aliasing), torch.randn(4, 1, 60, 40)
    cnn(x).square().sum().backward()
    for name, parameter in cnn.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name
    cnn.eval()
    before = cnn(x)
    freeze_strides(cnn)
    torch.testing.assert_close(cnn(x), before, rtol=1e-4, atol=1e-4)


def test_gradients_are_those_of_finite_differences() -> None:
    cnn = AudioCNN(
        "diffstride", (2,), ((2.3, 1.7),), smoothness=1, aliasing=0.3, pool_after_relu=True
    ).double().eval()  # fmt: skip
    pool = diffstride_layers(cnn)[0]

    def features(x: Tensor, stride: Tensor, aliasing: Tensor) -> Tensor:
        return torch.func.functional_call(cnn.blocks[0], {"pool.stride": stride, "pool.aliasing": aliasing}, (x,))

    x = torch.randn(1, 1, 13, 11, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(features, (x, pool.stride, pool.aliasing))


@pytest.mark.parametrize(("kind", "aliasing"), LEARNING)
def test_map_sizes_are_those_of_pooling_before_the_relu_and_the_cost_is_that_of_what_runs(
    kind, aliasing, monkeypatch
) -> None:
    cnn, plain = trunk(kind, aliasing), AudioCNN(kind, **SMALL, aliasing=aliasing)
    assert cnn.map_sizes(100, 64) == plain.map_sizes(100, 64)
    spectrogram = torch.zeros(1, 1, 100, 64)
    cost = model_cost(cnn, spectrogram).macs
    assert cost > model_cost(plain, spectrogram).macs
    monkeypatch.setattr(downsampling, "pools_first", lambda *_: False)  # every convolution at the input's resolution
    assert cost == model_cost(plain, spectrogram).macs


def test_large_batches_give_the_gradients_of_their_clips() -> None:
    """A batch so large that norms are recomputed in the backward pass, and the same clip by clip."""
    cnn = trunk("diffstride", 0.3).eval()  # a batch norm by running statistics knows no other clips
    whole, parts = cnn, copy.deepcopy(cnn)
    x = torch.randn(24, 1, 100, 64)
    whole(x).square().sum().backward()
    for clip in x.split(1):
        parts(clip).square().sum().backward()
    for one, other in zip(whole.parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-3, atol=1e-3)


def test_the_measured_response_of_each_layer_is_its_mask() -> None:
    for aliasing in (None, 0.4):
        responses = layer_responses(trunk("diffstride", aliasing), torch.randn(2, 1, 100, 64), 100.0)
        assert [(r.layer, r.axis) for r in responses] == [(1, "time"), (1, "mel"), (2, "time"), (2, "mel")]
        assert max(r.error for r in responses) < 1e-3


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # the compiler looks at all
def test_a_compiled_trunk_gives_the_same() -> None:
    cnn = trunk("diffstride", 0.3)
    twin, x = copy.deepcopy(cnn), torch.randn(4, 1, 50, 32)
    torch._dynamo.reset()
    y, expected = torch.compile(cnn, backend="aot_eager")(x), twin(x)
    torch.testing.assert_close(y, expected)
    y.square().sum().backward()
    expected.square().sum().backward()
    for mine, theirs in zip(cnn.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad)


def test_a_saved_model_still_pools_after_the_relu(tmp_path) -> None:
    model = create_model(
        "audio_cnn_small_diffstride", heads={"word": 3}, smoothness=1, aliasing=0.2, pool_after_relu=True
    ).eval()  # fmt: skip
    model.save(tmp_path)
    loaded, x = load(tmp_path).eval(), torch.randn(2, 16000)
    assert loaded.trunk.settings["pool_after_relu"] is True
    assert torch.equal(loaded(x)["word"], model(x)["word"])


def test_strided_convolutions_cannot() -> None:
    with pytest.raises(ValueError, match="strided convolutions downsample before any ReLU"):
        AudioCNN("strided", pool_after_relu=True)
