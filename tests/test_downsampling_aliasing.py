"""Facts about learned aliasing: between DiffStride (or spectral pooling) and the strided convolution."""

import copy

import pytest
import torch
from torch import Tensor, nn

from audiostride import (
    AudioCNN,
    DiffStride,
    ResNet,
    SpectralPool,
    StridedConv,
    WaveCNN,
    clamp_strides_,
    parameter_groups,
    replace_downsampling,
)
from audiostride.layers.crop_spectrum import crop_spectrum, crop_spectrum_fft
from audiostride.layers.pooling_matrix import pooling_matrix, sampling_matrix
from audiostride.layers.spectrum import diffstride_crop, diffstride_mask, spectral_crop
from audiostride.layers.strides import freeze_strides

SIZES = {1: (90,), 2: (40, 33), 3: (12, 20, 17)}
STRIDES = {1: (3.3,), 2: (1.7, 2.6), 3: (2.4, 2.3, 1.9)}
FIFTEEN_TO_FIVE = 3.75
"""Stride that makes 5 samples of 15: the edge is bin 2, and with R = 1 three bins are kept."""

axes = pytest.mark.parametrize("n_axes", [1, 2, 3])
host = torch.device("cpu")


def pools(n_axes: int, aliasing: float | None) -> list[nn.Module]:
    return [
        DiffStride(STRIDES[n_axes], smoothness=2, aliasing=aliasing),
        DiffStride((1.9,) * n_axes, smoothness=1, shared_stride=True, aliasing=aliasing),
        DiffStride(STRIDES[n_axes], smoothness=2, crop=False, aliasing=aliasing),
        SpectralPool(STRIDES[n_axes], aliasing=aliasing),
    ]


@axes
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_aliasing_of_zero_is_the_layer_without_it_to_the_bit(n_axes: int, dtype: torch.dtype) -> None:
    x = torch.randn(2, 3, *SIZES[n_axes], dtype=dtype)
    for mine, plain in zip(pools(n_axes, 0.0), pools(n_axes, None), strict=True):
        assert torch.equal(mine(x), plain(x))
        freeze_strides(mine)
        freeze_strides(plain)
        assert torch.equal(mine(x), plain(x))


def test_aliasing_of_zero_on_a_long_axis_is_the_layer_without_it_to_the_bit() -> None:
    x = torch.randn(2, 1500)
    assert torch.equal(DiffStride(7.3, aliasing=0.0)(x), DiffStride(7.3)(x))


@axes
def test_full_aliasing_after_a_convolution_is_the_strided_convolution_where_the_length_divides(n_axes: int) -> None:
    torch.manual_seed(n_axes)
    kernel, ones = (3,) * n_axes, (1,) * n_axes
    conv, strided = StridedConv(2, 5, kernel, ones), StridedConv(2, 5, kernel, (3,) * n_axes)
    strided.load_state_dict(conv.state_dict())
    for pool in (
        DiffStride((FIFTEEN_TO_FIVE,) * n_axes, smoothness=1, aliasing=1.0),
        SpectralPool((3.0,) * n_axes, aliasing=1.0),
    ):
        x = torch.randn(2, 2, *(15,) * n_axes)
        torch.testing.assert_close(pool(conv(x)), strided(x), rtol=0, atol=2e-6)


@pytest.mark.parametrize("channels", [(1, 16), (16, 16)])
def test_full_aliasing_is_the_strided_convolution_in_every_form_of_convolving(channels: tuple[int, int]) -> None:
    for axis, (kernel, stride) in enumerate((((3, 1), (3, 1)), ((1, 3), (1, 3)))):
        conv, strided = StridedConv(*channels, kernel, (1, 1)), StridedConv(*channels, kernel, stride)
        strided.load_state_dict(conv.state_dict())
        x = torch.randn(4, channels[0], 15, 15).contiguous(memory_format=torch.channels_last)
        for pool in (
            SpectralPool((3.0, 3.0), aliasing=1.0),
            DiffStride((FIFTEEN_TO_FIVE,) * 2, smoothness=1, aliasing=1.0),
        ):
            torch.testing.assert_close(pool.pool_conv(conv, x, axis), strided(x), rtol=0, atol=2e-6)
            freeze_strides(pool)
            torch.testing.assert_close(pool.pool_conv(conv, x, axis), strided(x), rtol=0, atol=2e-6)


def test_without_a_crop_full_aliasing_is_the_identity() -> None:
    x = torch.randn(2, 3, 20, 17)
    torch.testing.assert_close(DiffStride((2.0, 3.0), crop=False, aliasing=1.0)(x), x)


def test_every_bin_has_its_stated_gain_and_lands_on_its_stated_bin() -> None:
    n, stride, smoothness, alpha = 30, 3.0, 2.0, 0.3  # edge 5, bins 0 to 6 kept, 13 samples
    crop = diffstride_crop(n, stride, smoothness)
    pool = DiffStride(stride, smoothness=smoothness, aliasing=alpha).double()
    mask = torch.zeros(n // 2 + 1, dtype=torch.float64)
    mask[: crop.n_bins] = diffstride_mask(crop, pool.stride[0].detach(), smoothness)
    time, resampled = (torch.arange(length, dtype=torch.float64) / length for length in (n, crop.m))
    for k in range(n // 2):
        gain = mask[k] + alpha * (1 - mask[k])
        y = pool(torch.cos(2 * torch.pi * k * time + 0.4)[None])[0]
        torch.testing.assert_close(y, gain * torch.cos(2 * torch.pi * k * resampled + 0.4), rtol=0, atol=1e-7)
        landed = torch.fft.rfft(y).abs().argmax().item()
        assert landed == min(k % crop.m, -k % crop.m)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 7, 8, 9, 16, 33])
def test_odd_even_and_small_lengths_are_the_sum_of_the_definition(n: int) -> None:
    for crop, stride in [(spectral_crop(n, s), None) for s in (1.0, 2.0, 3.0)] + [
        (diffstride_crop(n, s, r), (s, r)) for s in (1.0, 1.7, 3.0) for r in (1.0, 2.0)
    ]:
        kept = torch.ones(crop.n_bins, dtype=torch.float64)
        if stride:
            kept = diffstride_mask(crop, torch.tensor(stride[0], dtype=torch.float64), stride[1])
        mask = torch.cat([kept, torch.zeros(n // 2 + 1 - len(kept), dtype=torch.float64)])
        alpha = torch.tensor(0.35, dtype=torch.float64)
        k = torch.arange(n // 2 + 1)
        weights = torch.where((k == 0) | (2 * k == n), 1 / n, 2 / n).double()
        phases = torch.arange(crop.m)[:, None, None] / crop.m - torch.arange(n)[:, None] / n
        gains = weights * (mask + alpha * (1 - mask))
        expected = (gains * (2 * torch.pi * k * phases.double()).cos()).sum(-1)
        x = torch.randn(2, n, dtype=torch.float64)
        torch.testing.assert_close(pooling_matrix(kept, crop, alpha), expected, rtol=0, atol=1e-5)
        for form in (crop_spectrum, crop_spectrum_fft):
            y = form(x, kept, crop, 1, aliasing=alpha)
            torch.testing.assert_close(y, x @ pooling_matrix(kept, crop, alpha).T, rtol=0, atol=1e-12)


@axes
def test_a_constant_stays_that_constant(n_axes: int) -> None:
    for pool in pools(n_axes, 0.4):
        out = pool(torch.full((2, 3, *SIZES[n_axes]), 5.0))
        torch.testing.assert_close(out, torch.full_like(out, 5.0))


def test_where_the_output_divides_the_input_the_sampling_matrix_takes_every_so_manyth_sample() -> None:
    for n, m in ((12, 4), (15, 5), (15, 15), (16, 8), (9, 1)):
        expected = torch.eye(n, dtype=torch.float64)[:: n // m]
        torch.testing.assert_close(sampling_matrix(n, m, torch.float64, host), expected, rtol=0, atol=1e-14)


@axes
def test_gradients_to_the_input_every_stride_and_every_alpha_are_those_of_finite_differences(n_axes: int) -> None:
    sizes = {1: (21,), 2: (11, 9), 3: (7, 5, 9)}[n_axes]
    x = torch.randn(1, 1, *sizes, dtype=torch.float64, requires_grad=True)
    learned = DiffStride((1.9,) * n_axes, smoothness=1.3, aliasing=0.3).double()
    fixed = SpectralPool((1.9,) * n_axes, aliasing=0.6).double()

    def diffstride(x: Tensor, stride: Tensor, aliasing: Tensor) -> Tensor:
        return torch.func.functional_call(learned, {"stride": stride, "aliasing": aliasing}, (x,))

    def spectral(x: Tensor, aliasing: Tensor) -> Tensor:
        return torch.func.functional_call(fixed, {"aliasing": aliasing}, (x,))

    assert torch.autograd.gradcheck(diffstride, (x, learned.stride, learned.aliasing), fast_mode=n_axes == 3)
    assert torch.autograd.gradcheck(spectral, (x, fixed.aliasing), fast_mode=n_axes == 3)


@pytest.mark.parametrize("taps", [1, 3])
def test_gradients_through_the_copies_and_through_the_fft_form_are_right(taps: int) -> None:
    crop = diffstride_crop(16, 1.9, 2.0)
    x = torch.randn(2, 16, 3, dtype=torch.float64, requires_grad=True)
    learned = [torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in (1.9, 0.3)]

    def pool(x: Tensor, stride: Tensor, alpha: Tensor) -> Tensor:
        return crop_spectrum(x, diffstride_mask(crop, stride, 2.0), crop, 1, taps, alpha)

    def fft(x: Tensor, stride: Tensor, alpha: Tensor) -> Tensor:
        return crop_spectrum_fft(x, diffstride_mask(crop, stride, 2.0), crop, 1, alpha)

    assert torch.autograd.gradcheck(pool, (x, *learned))
    if taps == 1:
        assert torch.autograd.gradcheck(fft, (x, *learned))


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_the_gradient_to_alpha_is_alive_at_both_limits(alpha: float) -> None:
    for pool in (DiffStride((2.0, 2.0), smoothness=1, aliasing=alpha), SpectralPool((2.0, 2.0), aliasing=alpha)):
        pool(torch.randn(2, 1, 20, 30)).square().sum().backward()
        assert (pool.aliasing.grad.abs() > 1e-3).all()


def test_alpha_beyond_its_limits_acts_as_the_limit_and_is_clamped_after_a_step() -> None:
    pool = DiffStride((2.0, 2.0), aliasing=0.5)
    with torch.no_grad():
        pool.aliasing.copy_(torch.tensor([-0.5, 1.7]))
    x = torch.randn(2, 1, 40, 40)
    before = pool(x)
    clamp_strides_(pool)
    assert pool.alphas() == [0.0, 1.0]
    torch.testing.assert_close(pool(x), before)


def test_gradient_descent_finds_the_alphas_that_made_the_target() -> None:
    x = torch.randn(8, 1, 60, 40)
    target = DiffStride((2.0, 2.0), smoothness=1, aliasing=0.0)
    with torch.no_grad():
        target.aliasing.copy_(torch.tensor([0.2, 0.9]))
    wanted = target(x).detach()
    pool = DiffStride((2.0, 2.0), smoothness=1, aliasing=0.5)
    optimizer = torch.optim.Adam([pool.aliasing], 0.02)
    for _ in range(150):
        optimizer.zero_grad()
        (pool(x) - wanted).square().mean().backward()
        optimizer.step()
        clamp_strides_(pool)
    assert pool.alphas() == pytest.approx([0.2, 0.9], abs=0.02)


def test_alphas_have_a_group_of_their_own_without_weight_decay() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), DiffStride((2.0, 2.0), aliasing=0.1), SpectralPool((2, 2), aliasing=0.2))
    optimizer = torch.optim.AdamW(parameter_groups(model, 1e-3, 0.06, aliasing_lr=0.02), weight_decay=0.5)
    weights, strides, aliasing = optimizer.param_groups
    assert [group["name"] for group in optimizer.param_groups] == ["weights", "strides", "aliasing"]
    assert (len(weights["params"]), len(strides["params"])) == (2, 1)
    assert (aliasing["lr"], aliasing["weight_decay"]) == (0.02, 0.0)
    assert [id(p) for p in aliasing["params"]] == [id(model[1].aliasing), id(model[2].aliasing)]


def test_frozen_layers_give_the_same_and_keep_their_state() -> None:
    x = torch.randn(2, 3, 40, 33)
    for pool in pools(2, 0.3):
        before, state = pool(x), copy.deepcopy(pool.state_dict())
        freeze_strides(pool)
        torch.testing.assert_close(pool(x), before, rtol=0, atol=1e-5)
        assert not list(pool.parameters())
        assert pool.state_dict().keys() == state.keys()
        clamp_strides_(pool)


def test_a_state_without_aliasing_loads_where_there_is_none() -> None:
    assert set(DiffStride(2.0).state_dict()) == {"stride"}
    assert set(SpectralPool(2.0).state_dict()) == set()
    assert set(DiffStride(2.0, aliasing=0.1).state_dict()) == {"stride", "aliasing"}


@pytest.mark.parametrize("aliasing", [0.4, (0.2, 0.7)])
@pytest.mark.parametrize("in_channels", [1, 16])
def test_half_precision_stays_near_float32(in_channels: int, aliasing: float | tuple[float, float]) -> None:
    conv = StridedConv(in_channels, 16, (3, 1), (1, 1))
    x = torch.randn(4, in_channels, 50, 16).contiguous(memory_format=torch.channels_last)
    for pool in (DiffStride((2.0, 2.0), smoothness=1, aliasing=aliasing), SpectralPool((2.0, 2.0), aliasing)):
        outputs, gradients = [], []
        for half in (True, False):
            pool.aliasing.grad = None
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                outputs.append(pool.pool_conv(conv, x, 0))
            outputs[-1].float().square().sum().backward()
            gradients.append(pool.aliasing.grad[0])
        assert (outputs[0].dtype, gradients[0].dtype) == (torch.bfloat16, torch.float32)
        assert (outputs[0] - outputs[1]).norm() < 0.01 * outputs[1].norm()
        assert ((gradients[0] - gradients[1]).abs() < 0.05 * gradients[1].abs()).all()


def test_the_alpha_of_an_axis_that_keeps_its_length_gets_a_gradient_of_zero() -> None:
    pool = SpectralPool((1.0, 1.0), aliasing=0.4)
    x = torch.randn(2, 1, 8, 9)
    y = pool(x)
    assert torch.equal(y, x)
    y.sum().backward()
    assert pool.aliasing.grad.tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    "trunk",
    [
        AudioCNN("diffstride", channels=(4, 8), strides=((2, 2),) * 2, smoothness=1, aliasing=0.25),
        AudioCNN("spectral", channels=(4, 8), strides=((2, 2),) * 2, aliasing=0.25),
        ResNet("diffstride", channels=(4, 8), blocks=(1, 1), strides=(2, 2), smoothness=1, aliasing=0.25),
    ],
)
def test_a_trunk_pools_with_alpha_and_every_alpha_learns(trunk: AudioCNN | ResNet) -> None:
    x = torch.randn(3, 1, 40, 32)
    trunk(x).square().sum().backward()
    assert trunk.aliasing() == [[0.25, 0.25], [0.25, 0.25]]
    assert trunk.settings["aliasing"] == 0.25
    for name, parameter in trunk.named_parameters():
        assert parameter.grad is not None, name
    trunk.eval()
    before = trunk(x)
    freeze_strides(trunk)
    torch.testing.assert_close(trunk(x), before, rtol=1e-4, atol=1e-4)


def test_a_waveform_is_pooled_with_alpha_by_the_fft() -> None:
    trunk = WaveCNN(channels=(4, 8), kernel_sizes=(9, 3), strides=(8, 4), aliasing=0.5)
    trunk(torch.randn(2, 1, 4000)).square().sum().backward()
    assert trunk.aliasing() == [[0.5], [0.5]]
    assert all(parameter.grad.abs().max() > 0 for name, parameter in trunk.named_parameters() if "aliasing" in name)


def test_any_model_is_converted_with_aliasing() -> None:
    net = nn.Sequential(nn.Conv2d(1, 4, 3, 3, 1), nn.ReLU(), nn.Conv2d(4, 4, 3, 1, 1))
    x = torch.randn(2, 1, 15, 15)
    strided = net(x)
    converted = replace_downsampling(net, "spectral", aliasing=1.0)
    torch.testing.assert_close(converted(x), strided, rtol=0, atol=2e-6)
    assert [name for name, _ in converted.named_parameters() if "aliasing" in name] == ["0.pool.aliasing"]


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # the compiler looks at all
@pytest.mark.parametrize("kind", ["spectral", "diffstride"])
def test_a_compiled_trunk_gives_the_same(kind: str) -> None:
    trunk = AudioCNN(kind, channels=(8, 8), strides=((2, 2),) * 2, smoothness=1, aliasing=0.3)
    twin, x = copy.deepcopy(trunk), torch.randn(4, 1, 50, 32)
    torch._dynamo.reset()
    y, expected = torch.compile(trunk, backend="aot_eager")(x), twin(x)
    y.square().sum().backward()
    expected.square().sum().backward()
    torch.testing.assert_close(y, expected)
    for mine, theirs in zip(trunk.blocks, twin.blocks, strict=True):
        torch.testing.assert_close(mine.pool.aliasing.grad, theirs.pool.aliasing.grad)
    freeze_strides(trunk)
    torch._dynamo.reset()
    torch.testing.assert_close(torch.compile(trunk, backend="aot_eager", fullgraph=True)(x), twin(x))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DiffStride(2.0, aliasing=1.1), "between 0 and 1, got 1.1"),
        (lambda: SpectralPool(2.0, aliasing=-0.1), "between 0 and 1, got -0.1"),
        (lambda: AudioCNN("strided", aliasing=0.5), "strided convolutions have no aliasing to learn"),
        (lambda: ResNet("strided", aliasing=0.5), "strided convolutions have no aliasing to learn"),
        (lambda: WaveCNN("strided", aliasing=0.5), "strided convolutions have no aliasing to learn"),
    ],
)
def test_arguments_out_of_range_are_refused_by_name(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
