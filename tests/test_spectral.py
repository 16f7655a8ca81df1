"""Facts about the mathematics of spectral downsampling."""

import math

import numpy as np
import pytest
import scipy.signal
import torch
from torch import Tensor

from audiostride.layers.crop_spectrum import (
    crop_spectrum,
    crop_spectrum_constant,
    crop_spectrum_fft,
)
from audiostride.layers.pooling_matrix import bin_weights, fourier_basis, pooling_matrix, shift_columns
from audiostride.layers.spectrum import Crop, diffstride_crop, diffstride_mask, edge_bin, spectral_crop

LENGTHS = [*range(1, 34), 64, 99, 100, 127]
SMOOTHNESS = [1, 2, 2.5, 4]


def strides_for(n: int) -> list[float]:
    """Strides inside and at both limits, some of them on the mask's kinks."""
    return sorted({s for s in (1.0, 1.3, 2.0, 3.7, n / 4, n / 2) if 1 <= s <= max(1.0, n / 2)})


def pooled(x: Tensor, stride: float, smoothness: float, crop: bool = True) -> Tensor:
    """DiffStride along the last axis in the precision of `x`."""
    sizes = diffstride_crop(x.shape[-1], stride, smoothness, crop)
    return crop_spectrum(x, diffstride_mask(sizes, torch.tensor(stride, dtype=x.dtype), smoothness), sizes, dim=-1)


def full_mask(mask: Tensor, n: int) -> np.ndarray:
    """The mask over all n DFT bins in FFT order, as scipy wants it."""
    bins = np.minimum(np.arange(n), n - np.arange(n))
    return np.concatenate([mask.numpy(), np.zeros(n)])[bins]


@pytest.mark.parametrize("smoothness", SMOOTHNESS)
@pytest.mark.parametrize("crop", [True, False])
def test_the_matrix_is_the_fft_form_and_scipys_resample(smoothness: float, crop: bool) -> None:
    for n in LENGTHS:
        x = torch.randn(3, n, dtype=torch.float64)
        for stride in strides_for(n):
            sizes = diffstride_crop(n, stride, smoothness, crop)
            mask = diffstride_mask(sizes, torch.tensor(stride, dtype=torch.float64), smoothness)
            matrix = crop_spectrum(x, mask, sizes, dim=1)
            fft = crop_spectrum_fft(x, mask, sizes, dim=1)
            assert torch.allclose(matrix, fft, rtol=0, atol=1e-13), (n, stride)
            if n > 1:
                oracle = scipy.signal.resample(x.numpy(), sizes.m, axis=1, window=full_mask(mask, n))
                np.testing.assert_allclose(matrix.numpy(), oracle, rtol=0, atol=1e-13)


def test_spectral_pooling_is_scipys_resample_with_even_and_odd_outputs() -> None:
    for n in range(2, 41):
        x = torch.randn(3, n, dtype=torch.float64)
        for stride in (1.0, 1.5, 2.0, 2.5, 3.0, float(n)):
            sizes = spectral_crop(n, stride)
            oracle = scipy.signal.resample(x.numpy(), sizes.m, axis=1)
            mask = torch.ones(sizes.n_bins, dtype=torch.float64)
            for form in (crop_spectrum, crop_spectrum_fft):
                np.testing.assert_allclose(form(x, mask, sizes, 1).numpy(), oracle, rtol=0, atol=1e-13)
            np.testing.assert_allclose(crop_spectrum_constant(x, sizes, 1).numpy(), oracle, rtol=0, atol=1e-13)


def test_kept_bins_and_lengths_follow_the_definition() -> None:
    for n in range(2, 200):
        for smoothness in SMOOTHNESS:
            for stride in strides_for(n):
                edge = min(max(n / (2 * stride), 1), n // 2)
                kept = math.ceil(smoothness + edge)
                sizes = diffstride_crop(n, stride, smoothness)
                assert edge_bin(n, stride) == edge
                assert sizes.m == (n if kept > n // 2 else 2 * kept - 1)
                assert diffstride_crop(n, stride, smoothness, crop=False).m == n


def test_the_papers_first_layer_gives_57_frames_and_not_58() -> None:
    assert diffstride_crop(100, 2.0, 4.0).m == 57


@pytest.mark.parametrize("smoothness", [1, 2, 4])
def test_maps_up_to_2r_plus_1_never_shrink_and_none_falls_below(smoothness: int) -> None:
    for n in range(1, 2 * smoothness + 2):
        for stride in (1.0, 2.0, 100.0):
            assert diffstride_crop(n, stride, smoothness).m == n
    for n in range(2 * smoothness + 2, 100):
        assert diffstride_crop(n, n / 2, smoothness).m >= 2 * smoothness + 1


def test_a_stride_of_one_is_exactly_the_identity() -> None:
    for n in LENGTHS:
        x = torch.randn(2, n, dtype=torch.float64)
        for smoothness in SMOOTHNESS:
            assert torch.allclose(pooled(x, 1.0, smoothness), x, rtol=0, atol=1e-13), n
        assert torch.allclose(crop_spectrum_constant(x, spectral_crop(n, 1.0), 1), x, rtol=0, atol=1e-13)


def test_a_constant_stays_that_constant() -> None:
    for n in LENGTHS:
        for stride in strides_for(n):
            for smoothness in SMOOTHNESS:
                y = pooled(torch.full((1, n), 3.7, dtype=torch.float64), stride, smoothness)
                assert torch.allclose(y, torch.full_like(y, 3.7), rtol=0, atol=1e-12), (n, stride)


def test_a_tone_below_the_edge_passes_and_one_beyond_the_last_kept_bin_vanishes() -> None:
    n, stride, smoothness = 100, 2.5, 3.0  # edge 20, bins up to 22 kept
    sizes = diffstride_crop(n, stride, smoothness)
    time = torch.arange(n, dtype=torch.float64) / n
    resampled = torch.arange(sizes.m, dtype=torch.float64) / sizes.m
    for k in range(n // 2):
        y = pooled(torch.cos(2 * math.pi * k * time + 0.3)[None], stride, smoothness)[0]
        gain = min(max((smoothness + 20 - k) / smoothness, 0), 1)
        assert torch.allclose(y, gain * torch.cos(2 * math.pi * k * resampled + 0.3), atol=1e-12), k
    assert sizes.n_bins - 1 == 22


def test_pooling_is_circular() -> None:
    impulse = torch.zeros(1, 100, dtype=torch.float64)
    impulse[0, -1] = 1.0
    assert pooled(impulse, 2.0, 4.0)[0, 0].abs() > 0.1


def test_pooling_one_axis_of_many_ignores_the_memory_format() -> None:
    x = torch.randn(2, 5, 20, 24, dtype=torch.float64)
    for dim in (2, 3):
        sizes = diffstride_crop(x.shape[dim], 2.3, 2.0)
        mask = diffstride_mask(sizes, torch.tensor(2.3, dtype=torch.float64), 2.0)
        expected = crop_spectrum_fft(x, mask, sizes, dim)
        for memory_format in (torch.contiguous_format, torch.channels_last):
            y = crop_spectrum(x.contiguous(memory_format=memory_format), mask, sizes, dim)
            assert torch.allclose(y, expected, rtol=0, atol=1e-13)
            assert y.is_contiguous(memory_format=memory_format)


def smooth_cases() -> list[tuple[int, float, float]]:
    """(n, stride, smoothness) with the mask's kinks at least 1e-3 from a bin and the stride inside its limits."""
    cases = []
    for n in (5, 6, 9, 16, 21):
        for smoothness in (1.0, 2.0, 2.3, 4.0):
            for stride in (1.27, 1.9, 2.83, 4.4):
                kinks = (n / (2 * stride), smoothness + n / (2 * stride))
                inside = 1 < kinks[0] < n // 2
                if inside and all(abs(kink - round(kink)) > 1e-3 for kink in kinks):
                    cases.append((n, stride, smoothness))
    return cases


@pytest.mark.parametrize("crop", [True, False])
@pytest.mark.parametrize("taps", [1, 3])
def test_gradients_of_input_and_stride_are_right_where_they_are_defined(crop: bool, taps: int) -> None:
    cases = smooth_cases()
    assert len(cases) > 30
    for n, stride, smoothness in cases:
        sizes = diffstride_crop(n, stride, smoothness, crop)

        def pool(x: Tensor, s: Tensor, sizes: Crop = sizes, smoothness: float = smoothness) -> Tensor:
            return crop_spectrum(x, diffstride_mask(sizes, s, smoothness), sizes, 1, taps)

        x = torch.randn(1, n, 2, dtype=torch.float64, requires_grad=True)
        inputs = (x, torch.tensor(stride, dtype=torch.float64, requires_grad=True))
        assert torch.autograd.gradcheck(pool, inputs, fast_mode=taps > 1)


def test_gradients_equal_those_of_autograd_through_the_fft_form() -> None:
    for n, stride, smoothness in smooth_cases():
        sizes = diffstride_crop(n, stride, smoothness)
        x = torch.randn(2, n, 3, dtype=torch.float64, requires_grad=True)
        s = torch.tensor(stride, dtype=torch.float64, requires_grad=True)
        weight = torch.randn(2, sizes.m, 3, dtype=torch.float64)
        gradients = [
            torch.autograd.grad((form(x, diffstride_mask(sizes, s, smoothness), sizes, 1) * weight).sum(), (x, s))
            for form in (crop_spectrum, crop_spectrum_fft)
        ]
        for ours, oracle in zip(*gradients, strict=True):
            assert torch.allclose(ours, oracle, rtol=1e-10, atol=1e-12)


def test_the_gradient_on_the_kinks_is_the_stated_one_sided_value() -> None:
    # Edge 25 at S = 2 lies on a bin: it counts as on the ramp, with slope da/dS / R = -N / (2 S^2 R).
    for smoothness in (1.0, 4.0):
        sizes = diffstride_crop(100, 2.0, smoothness)
        stride = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
        mask = diffstride_mask(sizes, stride, smoothness)
        for k in range(sizes.n_bins):
            (slope,) = torch.autograd.grad(mask[k], stride, retain_graph=True)
            expected = -100 / (2 * 2.0**2 * smoothness) if 25 <= k < 25 + smoothness else 0.0
            assert slope.item() == pytest.approx(expected)


@pytest.mark.parametrize("smoothness", [1, 2, 4])
def test_the_gradient_to_the_stride_is_alive_at_both_limits(smoothness: int) -> None:
    for n in range(2, 400):
        x = torch.randn(1, n, 1, dtype=torch.float64)
        for limit in (1.0, n / 2):
            stride = torch.tensor(limit, dtype=torch.float64, requires_grad=True)
            sizes = diffstride_crop(n, limit, smoothness)
            y = crop_spectrum(x, diffstride_mask(sizes, stride, smoothness), sizes, 1)
            (gradient,) = torch.autograd.grad((y * torch.randn_like(y)).sum(), stride)
            assert gradient.abs() > 1e-9, (n, limit)


def test_masks_beyond_the_limits_act_as_the_limit_and_keep_their_gradient() -> None:
    x = torch.randn(1, 50, dtype=torch.float64)
    assert torch.allclose(pooled(x, 0.5, 2.0), pooled(x, 1.0, 2.0))
    assert torch.allclose(pooled(x, 1000.0, 2.0), pooled(x, 25.0, 2.0))


@pytest.mark.parametrize("stride", [0.0, -1.0, math.nan, math.inf])
def test_a_stride_that_is_no_positive_number_is_refused(stride: float) -> None:
    with pytest.raises(ValueError, match="clamp_strides_"):
        diffstride_crop(100, stride, 4.0)


def test_pooled_shifted_copies_are_what_a_convolution_adds_up() -> None:
    n, taps = 20, 5
    x, kernel = torch.randn(1, n, dtype=torch.float64), torch.randn(1, 1, taps, dtype=torch.float64)
    sizes = diffstride_crop(n, 1.8, 2.0)
    mask = diffstride_mask(sizes, torch.tensor(1.8, dtype=torch.float64), 2.0)
    convolved = torch.nn.functional.conv1d(x[None], kernel, padding=taps // 2)[0]
    copies = crop_spectrum(x, mask, sizes, 1, taps)
    assert torch.allclose(
        torch.nn.functional.conv1d(copies[None], kernel, stride=taps)[0], crop_spectrum(convolved, mask, sizes, 1)
    )


def test_shifting_columns_moves_rows_by_whole_samples_with_zeros_at_the_ends() -> None:
    rows, x = torch.randn(2, 9), torch.randn(9)
    shifted = shift_columns(rows, 3) @ x
    before, after = torch.cat([torch.zeros(1), x[:-1]]), torch.cat([x[1:], torch.zeros(1)])
    assert torch.allclose(shifted.view(2, 3), torch.stack([rows @ before, rows @ x, rows @ after], 1), atol=1e-6)


def test_long_axes_take_the_fft_and_agree_with_the_matrix() -> None:
    n = 1500
    x, stride = torch.randn(2, n, dtype=torch.float64), torch.tensor(7.3, dtype=torch.float64)
    sizes = diffstride_crop(n, 7.3, 4.0)
    mask = diffstride_mask(sizes, stride, 4.0)
    assert torch.allclose(crop_spectrum(x, mask, sizes, 1), x @ pooling_matrix(mask, sizes).T, atol=1e-12)


def test_half_precision_masks_are_made_in_float32() -> None:
    sizes = diffstride_crop(100, 2.2, 4.0)
    assert diffstride_mask(sizes, torch.tensor(2.2, dtype=torch.bfloat16), 4.0).dtype == torch.float32
    x = torch.randn(2, 100)
    y = crop_spectrum(x.bfloat16(), diffstride_mask(sizes, torch.tensor(2.2), 4.0), sizes, 1)
    assert y.dtype == torch.bfloat16
    assert torch.allclose(y.float(), pooled(x, 2.2, 4.0), atol=0.05)


def test_shared_tables_made_under_inference_mode_serve_training_afterwards() -> None:
    sizes = diffstride_crop(89, 2.0, 4.0)  # a length no other test uses
    with torch.inference_mode():
        pooled(torch.randn(1, 89), 2.0, 4.0)
    stride = torch.tensor(2.0, requires_grad=True)
    crop_spectrum(torch.randn(1, 89), diffstride_mask(sizes, stride, 4.0), sizes, 1).sum().backward()
    assert stride.grad is not None


def test_the_basis_is_orthogonal_with_its_weights() -> None:
    for n in (7, 8):
        basis = fourier_basis(n, torch.float64, torch.device("cpu")).flatten(0, 1)
        weights = bin_weights(n, torch.float64, torch.device("cpu")).repeat(2)
        assert torch.allclose(basis.T @ (weights[:, None] * basis), torch.eye(n, dtype=torch.float64), atol=1e-13)
