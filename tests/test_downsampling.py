"""Facts about the three downsampling layers and their optimiser helpers."""

import copy
import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from audiostride import DiffStride, SpectralPool, StridedConv, clamp_strides_, parameter_groups
from audiostride.layers.conv_form import pools_first
from audiostride.layers.spectrum import diffstride_crop
from audiostride.layers.strides import freeze_strides, read_strides


def test_two_axes_are_pooled_one_after_the_other_in_any_order() -> None:
    x = torch.randn(2, 3, 30, 20, dtype=torch.float64)
    pool = DiffStride((2.3, 1.7), smoothness=2).double()
    reversed_order = pool.pool_axis(pool.pool_axis(x, 1), 0)
    assert torch.allclose(pool(x), reversed_order, atol=1e-13)


def test_a_two_dimensional_mask_is_the_outer_product() -> None:
    (height, width), strides = (30, 21), (2.25, 1.75)
    x = torch.randn(1, 1, height, width, dtype=torch.float64)
    h, w = (diffstride_crop(n, s, 2.0) for n, s in zip((height, width), strides, strict=True))
    down, across = (
        torch.clamp((2 + c.n / (2 * s) - torch.arange(c.n_bins, dtype=torch.float64)) / 2, 0, 1)
        for c, s in zip((h, w), strides, strict=True)
    )
    both_signs = torch.cat([down, down[1:].flip(0)])  # symmetric, as the spectrum of a real image is
    spectrum = torch.fft.rfft2(x)[..., : w.n_bins]
    kept = torch.cat([spectrum[..., : h.n_bins, :], spectrum[..., -h.n_bins + 1 :, :]], -2)
    expected = torch.fft.irfft2(kept * torch.outer(both_signs, across), s=(h.m, w.m)) * (h.m * w.m / (height * width))
    assert torch.allclose(DiffStride(strides, smoothness=2).double()(x), expected, atol=1e-12)


@pytest.mark.parametrize("pool", [DiffStride((2.2, 1.6)), SpectralPool((2.2, 1.6))])
def test_a_batch_is_pooled_like_its_clips_one_by_one(pool: nn.Module) -> None:
    x = torch.randn(4, 3, 50, 32)
    assert torch.allclose(pool(x), torch.cat([pool(clip) for clip in x.split(1)]), atol=1e-6)


def test_forward_writes_to_no_parameter_or_buffer_in_training_or_eval() -> None:
    pool = DiffStride((50.0, 3.0), smoothness=1)
    before = copy.deepcopy(pool.state_dict())
    for mode in (True, False):
        pool.train(mode)
        for size in ((100, 64), (6, 5), (2, 1)):  # small inputs put the stride beyond its upper limit
            pool(torch.randn(1, *size))
    assert all(torch.equal(value, before[name]) for name, value in pool.state_dict().items())


def test_eval_leaves_the_lengths_of_training_alone() -> None:
    pool = DiffStride((2.0, 2.0))
    pool(torch.randn(1, 100, 64))
    pool.eval()
    pool(torch.randn(1, 40, 30))
    assert pool.input_lengths == [100, 64]


def test_one_small_input_does_not_change_what_comes_after() -> None:
    pool, x = DiffStride((2.0, 2.0)), torch.randn(1, 100, 64)
    before = pool(x)
    pool(torch.randn(1, 4, 4))
    assert torch.equal(pool(x), before)


def test_a_shared_stride_is_one_parameter_that_learns_from_both_axes() -> None:
    pool = DiffStride((2.2, 2.2), smoothness=2, shared_stride=True).double()
    x = torch.randn(1, 2, 30, 30, dtype=torch.float64)
    assert pool.stride.shape == (1,)
    pool(x).square().sum().backward()
    separate = DiffStride((2.2, 2.2), smoothness=2).double()
    separate.load_state_dict({"stride": pool.stride.detach().expand(2)})
    separate(x).square().sum().backward()
    assert torch.allclose(pool.stride.grad, separate.stride.grad.sum())


def test_gradient_descent_finds_the_stride_that_made_the_target() -> None:
    x = torch.randn(8, 1, 60, 40)
    target = DiffStride((3.0, 1.5), smoothness=4, crop=False)(x).detach()
    pool = DiffStride((2.0, 2.0), smoothness=4, crop=False)
    optimizer = torch.optim.Adam(parameter_groups(pool, 1e-3, 0.05))
    for _ in range(150):
        optimizer.zero_grad()
        (pool(x) - target).square().mean().backward()
        optimizer.step()
        clamp_strides_(pool)
    assert pool.strides() == pytest.approx([3.0, 1.5], abs=0.1)


def test_strides_are_clamped_to_half_of_the_last_training_length() -> None:
    pool = DiffStride((40.0, 40.0))
    pool(torch.randn(1, 20, 64))
    with torch.no_grad():
        pool.stride[1] = 0.3
    clamp_strides_(pool)
    assert pool.strides() == pytest.approx([10.0, 1.0])


def test_a_shared_stride_is_clamped_to_the_shortest_axis() -> None:
    pool = DiffStride((40.0, 40.0), shared_stride=True)
    pool(torch.randn(1, 20, 64))
    clamp_strides_(pool)
    assert pool.strides() == [10.0, 10.0]


def test_strides_have_their_own_rate_and_no_weight_decay() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), DiffStride((2.0, 2.0)))
    optimizer = torch.optim.AdamW(parameter_groups(model, lr=1e-3, stride_lr=0.1), weight_decay=0.5)
    weights, strides = optimizer.param_groups
    assert (weights["lr"], weights["weight_decay"]) == (1e-3, 0.5)
    assert (strides["lr"], strides["weight_decay"]) == (0.1, 0.0)
    assert strides["params"] == [model[1].stride]
    assert len(weights["params"]) == 2


def test_reading_all_strides_at_once_gives_what_each_layer_says() -> None:
    layers = [DiffStride((2.0, 1.5)), DiffStride((3.0, 3.0), shared_stride=True), DiffStride(4.0)]
    assert [strides.tolist() for strides in read_strides(layers)] == [layer.strides() for layer in layers]
    layers[1].freeze_strides()
    assert [strides.tolist() for strides in read_strides(layers)] == [layer.strides() for layer in layers]
    assert read_strides([]) == []


def test_frozen_strides_change_no_output_and_leave_nothing_to_train() -> None:
    model = nn.Sequential(DiffStride((2.2, 1.6), smoothness=2), DiffStride((1.3, 1.3), shared_stride=True))
    x = torch.randn(2, 3, 50, 40)
    before, state = model(x), copy.deepcopy(model.state_dict())
    freeze_strides(model)
    assert torch.allclose(model(x), before, atol=1e-6)
    assert list(model.parameters()) == []
    assert model.state_dict().keys() == state.keys()
    clamp_strides_(model)


def test_a_convolution_runs_before_or_after_pooling_with_the_same_result() -> None:
    for axis, (kernel, stride) in enumerate((((3, 1), (2.3, 1.0)), ((1, 3), (1.0, 2.3)))):
        conv, pool = StridedConv(1, 16, kernel, (1, 1)).double(), DiffStride(stride, smoothness=2).double()
        x = torch.randn(2, 1, 40, 30, dtype=torch.float64)
        assert pools_first(1, 16, 3, pool.axis_crop(x.shape[2 + axis], axis))
        assert torch.allclose(pool.pool_conv(conv, x, axis), pool.pool_axis(conv(x), axis), atol=1e-12)


def test_strided_convolutions_round_lengths_up() -> None:
    for n in (7, 8, 99, 100):
        assert StridedConv(1, 1, (3,), (2,))(torch.zeros(1, 1, n)).shape[-1] == -(-n // 2)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DiffStride(0.5), "at least 1, got"),
        (lambda: DiffStride(2.0, smoothness=0.5), "smoothness"),
        (lambda: DiffStride((2.0, 3.0), shared_stride=True), "equal initial strides"),
        (lambda: DiffStride((2.0,) * 4), "one to three strides"),
        (lambda: SpectralPool(0.9), "at least 1"),
        (lambda: StridedConv(1, 1, (3, 1), (1.5, 1)), "whole strides"),
        (lambda: StridedConv(1, 1, (4, 1), (1, 1)), "odd"),
    ],
)
def test_arguments_out_of_range_are_refused_by_name(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(("length", "stride"), [(1, 2), (2, 2), (3, 3)])
def test_a_strided_convolution_to_one_column_keeps_its_gradient_in_half_precision(length: int, stride: int) -> None:
    torch.manual_seed(0)
    conv = StridedConv(16, 16, (1, 3), (1, stride)).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    for _ in range(4):  # what torch gets wrong there depends on what lay in memory before
        x = torch.randn(8, 16, 7, length).contiguous(memory_format=torch.channels_last)
        gradients = []
        for half in (True, False):
            conv.conv.weight.grad = None
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                y = conv(x)
            y.float().square().sum().backward()
            gradients.append(conv.conv.weight.grad)
        torch.testing.assert_close(*gradients, rtol=0.05, atol=0.05 * gradients[1].abs().max().item())


@pytest.mark.parametrize("channels", [3, 4, 6, 8])
def test_a_strided_1x1_convolution_has_the_gradient_of_the_samples_that_it_takes(channels: int) -> None:
    # Without AVX-512, torch's own writes past its buffer for fewer than 8 channels: many times, to be noticed.
    torch.manual_seed(0)
    conv = StridedConv(channels, 8, (1, 1), (2, 3)).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    for _ in range(50):
        x = torch.randn(16, channels, 8, 9).contiguous(memory_format=torch.channels_last)
        conv.conv.weight.grad = None
        (y := conv(x)).square().sum().backward()
        expected = torch.einsum("bihw,bohw->oi", x[:, :, ::2, ::3], 2 * y.detach())
        torch.testing.assert_close(conv.conv.weight.grad[..., 0, 0], expected, rtol=1e-4, atol=1e-3)


@pytest.mark.slow
def test_that_gradient_holds_on_cpus_without_avx512() -> None:
    test = f"{__file__}::{test_a_strided_1x1_convolution_has_the_gradient_of_the_samples_that_it_takes.__name__}"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", test],
        env=os.environ | {"ONEDNN_MAX_CPU_ISA": "AVX2"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    assert "4 passed" in done.stdout
