"""Facts about the trunk."""

import copy

import pytest
import torch

from audiostride import AudioCNN, DiffStride
from audiostride.layers.choice import Downsampling
from audiostride.layers.crop_spectrum import crop_spectrum_fft
from audiostride.layers.spectrum import diffstride_mask
from audiostride.layers.strides import diffstride_layers, freeze_strides
from audiostride.models.audio_cnn import SeparableBlock

SMALL = {"channels": (4, 8, 8), "strides": ((2, 2), (1, 1), (2, 2)), "smoothness": 1}
KINDS = ["strided", "spectral", "diffstride"]


def test_the_strided_trunk_has_the_papers_parameters_and_final_map() -> None:
    cnn = AudioCNN("strided")
    assert sum(p.numel() for p in cnn.parameters()) == 3_537_216
    assert cnn.map_sizes(100, 64)[-1] == (7, 4)


@pytest.mark.parametrize(
    ("kind", "smoothness", "final"), [("spectral", 4, (6, 4)), ("diffstride", 4, (21, 19)), ("diffstride", 1, (9, 7))]
)
def test_final_maps_are_those_of_the_design(kind: str, smoothness: int, final: tuple[int, int]) -> None:
    assert AudioCNN(kind, smoothness=smoothness).map_sizes(100, 64)[-1] == final


@pytest.mark.parametrize("kind", KINDS)
def test_predicted_map_sizes_are_the_real_ones(kind: str) -> None:
    cnn = AudioCNN(kind, **SMALL)
    for time, mel in ((100, 64), (37, 33), (5, 7), (1, 1)):
        x = torch.randn(2, 1, time, mel)
        for block, size, after in zip(cnn.blocks, cnn.map_sizes(time, mel), cnn.map_sizes(time, mel)[1:], strict=False):
            assert x.shape[2:] == size
            x = block(x)
            assert x.shape[2:] == after


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_equals_its_clips_one_by_one_in_eval_mode(kind: str) -> None:
    cnn = AudioCNN(kind, **SMALL).eval()
    x = torch.randn(4, 1, 50, 32)
    assert torch.allclose(cnn(x), torch.cat([cnn(clip) for clip in x.split(1)]), atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_gets_a_gradient(kind: str) -> None:
    cnn = AudioCNN(kind, **SMALL)
    cnn(torch.randn(8, 1, 100, 64)).square().sum().backward()
    for name, parameter in cnn.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_a_block_is_convolution_downsampling_relu_norm_over_time_and_then_over_mel() -> None:
    block = SeparableBlock(3, 5, (2.25, 1.75), Downsampling("diffstride", smoothness=2)).double().eval()
    x = torch.randn(2, 3, 40, 30, dtype=torch.float64)
    y = x
    for axis, (conv, norm) in enumerate(((block.time_conv, block.time_norm), (block.mel_conv, block.mel_norm))):
        convolved = conv(y)
        crop = block.pool.axis_crop(convolved.shape[2 + axis], axis)
        mask = diffstride_mask(crop, block.pool.stride[axis].detach(), 2.0)
        y = norm(crop_spectrum_fft(convolved, mask, crop, 2 + axis).relu())
    assert torch.allclose(block(x), y, atol=1e-12)


def test_a_shared_stride_is_one_parameter_a_block() -> None:
    cnn = AudioCNN("diffstride", shared_stride=True, **SMALL)
    assert [len(p) for n, p in cnn.named_parameters() if n.endswith("stride")] == [1, 1, 1]
    assert cnn.strides() == [[2.0, 2.0], [1.0, 1.0], [2.0, 2.0]]


def test_autocast_runs_and_stays_near_float32() -> None:
    cnn = AudioCNN("diffstride", **SMALL).eval()
    x = torch.randn(2, 1, 100, 64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = cnn(x)
    assert half.dtype == torch.bfloat16
    assert torch.allclose(half.float(), cnn(x), atol=0.15)


def test_training_under_autocast_gives_the_strides_a_finite_gradient() -> None:
    cnn = AudioCNN("diffstride", **SMALL)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = cnn(torch.randn(8, 1, 100, 64)).float().square().mean()
    loss.backward()
    for module in cnn.modules():
        if isinstance(module, DiffStride):
            assert module.stride.grad.dtype == torch.float32
            assert module.stride.grad.isfinite().all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"downsampling": "pool"}, "strided.*spectral.*diffstride"),
        ({"channels": (4, 8)}, "one entry per block"),
        ({"channels": (4,), "strides": ((2,),)}, "pair"),
        ({"downsampling": "strided", "channels": (4,), "strides": ((1.5, 2),)}, "whole strides"),
    ],
)
def test_arguments_out_of_range_are_refused_by_name(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AudioCNN(**arguments)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # the compiler looks at all
def test_a_compiled_trunk_is_not_compiled_again_when_strides_move() -> None:
    trunk = AudioCNN("diffstride", channels=(8, 8), strides=((2, 2),) * 2, smoothness=1)
    twin, x, sizes = copy.deepcopy(trunk), torch.randn(4, 1, 100, 64), set()
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    graphs = torch._dynamo.utils.counters["stats"]
    compiled = torch.compile(trunk, backend="aot_eager")
    for step in range(6):
        y, expected = compiled(x), twin(x)
        y.square().sum().backward()
        expected.square().sum().backward()
        torch.testing.assert_close(y, expected)
        for mine, theirs in zip(diffstride_layers(trunk), diffstride_layers(twin), strict=True):
            torch.testing.assert_close(mine.stride.grad, theirs.stride.grad)
        if step == 0:
            first = graphs["unique_graphs"]
        sizes.add(tuple(trunk.map_sizes(100, 64)))
        with torch.no_grad():
            for layer in diffstride_layers(trunk) + diffstride_layers(twin):
                layer.stride += 0.1
    assert len(sizes) == 6
    assert graphs["unique_graphs"] == first

    freeze_strides(trunk)
    torch._dynamo.reset()
    torch.testing.assert_close(torch.compile(trunk, backend="aot_eager", fullgraph=True)(x), twin(x))
