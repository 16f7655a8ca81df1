"""The pooling layers on one and on three axes: the same definition, the same facts as on two."""

import numpy as np
import pytest
import scipy.signal
import torch

from audiostride import DiffStride, SpectralPool, clamp_strides_
from audiostride.layers.spectrum import diffstride_crop, diffstride_mask, spectral_crop

SIZES = {1: (90,), 2: (40, 33), 3: (12, 20, 17)}
"""Time; time and mel; frames, height and width of a short video. Even and odd lengths."""

STRIDES = {1: (3.3,), 2: (1.7, 2.6), 3: (2.4, 2.3, 1.9)}

axes = pytest.mark.parametrize("n_axes", [1, 2, 3])


def pools(n_axes):
    """Both layers with fractional strides."""
    return DiffStride(STRIDES[n_axes], smoothness=2), SpectralPool(STRIDES[n_axes])


@axes
def test_a_constant_stays_that_constant(n_axes):
    for pool in pools(n_axes):
        out = pool(torch.full((2, 3, *SIZES[n_axes]), 5.0))
        torch.testing.assert_close(out, torch.full_like(out, 5.0))


@axes
def test_a_stride_of_one_is_the_identity(n_axes):
    x = torch.randn(2, 3, *SIZES[n_axes])
    for pool in (DiffStride((1.0,) * n_axes), SpectralPool((1,) * n_axes)):
        torch.testing.assert_close(pool(x), x)


@axes
def test_diffstride_is_scipys_resample_with_its_mask_along_each_axis(n_axes):
    x = torch.randn(2, 3, *SIZES[n_axes], dtype=torch.float64)
    pool = DiffStride(STRIDES[n_axes], smoothness=2).double()
    expected = x.numpy()
    for axis, (n, stride) in enumerate(zip(SIZES[n_axes], pool.strides(), strict=True)):
        crop = diffstride_crop(n, stride, 2.0)
        mask = diffstride_mask(crop, pool.stride[axis].detach(), 2.0).numpy()
        window = np.concatenate([mask, np.zeros(n // 2 + 1 - len(mask))])
        window = np.concatenate([window, window[1 : n - len(window) + 1][::-1]])
        expected = scipy.signal.resample(expected, crop.m, axis=2 + axis, window=window)
    np.testing.assert_allclose(pool(x).detach().numpy(), expected, atol=1e-12)


@axes
def test_spectral_pooling_is_scipys_resample_along_each_axis(n_axes):
    x = torch.randn(2, 3, *SIZES[n_axes], dtype=torch.float64)
    expected = x.numpy()
    for axis, (n, stride) in enumerate(zip(SIZES[n_axes], STRIDES[n_axes], strict=True)):
        expected = scipy.signal.resample(expected, spectral_crop(n, stride).m, axis=2 + axis)
    np.testing.assert_allclose(SpectralPool(STRIDES[n_axes])(x).numpy(), expected, atol=1e-12)


@axes
def test_gradients_to_the_input_and_to_every_stride_are_those_of_finite_differences(n_axes):
    sizes = {1: (21,), 2: (11, 9), 3: (7, 5, 9)}[n_axes]
    x = torch.randn(1, 1, *sizes, dtype=torch.float64, requires_grad=True)
    pool = DiffStride((1.9,) * n_axes, smoothness=1.3).double()

    def forward(x, stride):
        return torch.func.functional_call(pool, {"stride": stride}, (x,))

    assert torch.autograd.gradcheck(forward, (x, pool.stride), fast_mode=n_axes == 3)


@axes
def test_an_example_alone_gives_what_it_gives_in_a_batch(n_axes):
    x = torch.randn(4, 3, *SIZES[n_axes])
    for pool in pools(n_axes):
        torch.testing.assert_close(pool(x)[1:2], pool(x[1:2]))


@axes
def test_the_output_has_the_announced_lengths(n_axes):
    x = torch.randn(2, 3, *SIZES[n_axes])
    for pool in pools(n_axes):
        announced = [pool.output_length(n, axis) for axis, n in enumerate(SIZES[n_axes])]
        assert list(pool(x).shape[2:]) == announced
        assert all(m < n for m, n in zip(announced, SIZES[n_axes], strict=True))


@axes
def test_permuting_the_axes_and_their_strides_permutes_the_output(n_axes):
    x = torch.randn(2, 3, *SIZES[n_axes], dtype=torch.float64)
    turned = tuple(reversed(range(2, 2 + n_axes)))
    pool = DiffStride(STRIDES[n_axes], smoothness=2).double()
    pool_turned = DiffStride(STRIDES[n_axes][::-1], smoothness=2).double()
    torch.testing.assert_close(pool_turned(x.permute(0, 1, *turned)), pool(x).permute(0, 1, *turned))


@axes
def test_a_shared_stride_is_one_parameter_whose_gradient_is_the_sum_over_the_axes(n_axes):
    x = torch.randn(2, 3, *SIZES[n_axes])
    shared = DiffStride((1.7,) * n_axes, smoothness=2, shared_stride=True)
    own = DiffStride((1.7,) * n_axes, smoothness=2)
    for pool in (shared, own):
        pool(x).square().sum().backward()
    assert shared.stride.shape == (1,)
    torch.testing.assert_close(shared.stride.grad, own.stride.grad.sum(0, keepdim=True), rtol=1e-4, atol=1e-4)


@axes
def test_each_stride_is_clamped_to_half_its_own_axis(n_axes):
    pool = DiffStride((1e3,) * n_axes)
    pool(torch.zeros(1, *SIZES[n_axes]))
    clamp_strides_(pool)
    assert pool.strides() == [n / 2 for n in SIZES[n_axes]]


def test_a_long_waveform_goes_through_the_fft_with_the_same_definition():
    x = torch.randn(1, 1, 4000, dtype=torch.float64)
    expected = scipy.signal.resample(x.numpy(), 1000, axis=2)
    np.testing.assert_allclose(SpectralPool(4)(x).numpy(), expected, atol=1e-12)


def test_a_slow_wave_in_a_video_survives_and_a_fast_flicker_does_not():
    frame = torch.arange(24) / 24
    slow, fast = torch.cos(2 * torch.pi * 2 * frame), torch.cos(2 * torch.pi * 11 * frame)
    pool = DiffStride((3.0, 1.0, 1.0), smoothness=1)  # keeps 4 of the 12 bins of time in full

    def gain(signal):
        video = signal.view(1, 1, 24, 1, 1).expand(1, 1, 24, 6, 6)
        return (pool(video).std() / video.std()).item()

    assert gain(slow) == pytest.approx(1.0, abs=0.1)
    assert gain(fast) < 1e-5
