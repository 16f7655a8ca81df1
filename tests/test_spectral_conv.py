"""Facts about a convolution and its pooling in one, bin by bin."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from audiostride import DiffStride, SpectralPool, StridedConv, clamp_strides_
from audiostride.layers import spectral_conv
from audiostride.layers.conv_form import convolves_in_spectrum
from audiostride.layers.crop_spectrum import crop_spectrum
from audiostride.layers.spectral_conv import conv_crop_spectrum
from audiostride.layers.spectrum import Crop, diffstride_crop, diffstride_mask, spectral_crop
from audiostride.layers.strides import freeze_strides


def one_after_the_other(x: Tensor, weight: Tensor, bias: Tensor, mask: Tensor, crop: Crop, dim: int) -> Tensor:
    axes = x.dim() - 2
    kernel = weight.view(*weight.shape[:2], *(3 if axis == dim - 2 else 1 for axis in range(axes)))
    conv = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}[axes]
    convolved = conv(x, kernel, bias, padding=tuple(int(axis == dim - 2) for axis in range(axes)))
    return crop_spectrum(convolved, mask, crop, dim)


@pytest.fixture(params=["whole", "in parts"])
def parts(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole batch at once, or every clip on its own."""
    if request.param == "in parts":
        monkeypatch.setattr(spectral_conv, "CACHE_NUMBERS", 1)


@pytest.mark.usefixtures("parts")
@pytest.mark.parametrize("shape", [(3, 4, 20), (3, 4, 21, 5), (3, 4, 5, 20), (2, 4, 3, 12, 5)])
@pytest.mark.parametrize(("stride", "smoothness"), [(2.3, 2.0), (1.0, 4.0), (7.0, 1.0)])
def test_it_is_the_convolution_and_then_the_pooling(shape: tuple[int, ...], stride: float, smoothness: float) -> None:
    dim = shape.index(max(shape[2:]))
    crop, learned = diffstride_crop(shape[dim], stride, smoothness), torch.tensor(stride, dtype=torch.float64)
    inputs = [torch.randn(size, dtype=torch.float64) for size in (shape, (6, 4, 3), (6,))]
    inputs = [value.requires_grad_() for value in [*inputs, learned]]
    outputs, gradients = [], []
    for form in (conv_crop_spectrum, one_after_the_other):
        x, weight, bias, s = inputs
        outputs.append(form(x, weight, bias, diffstride_mask(crop, s, smoothness), crop, dim))
        upstream = torch.linspace(-1, 1, outputs[-1].numel(), dtype=torch.float64).view_as(outputs[-1])
        gradients.append(torch.autograd.grad(outputs[-1], inputs, upstream))
    torch.testing.assert_close(*outputs, rtol=0, atol=1e-12)
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-11)


@pytest.mark.usefixtures("parts")
@pytest.mark.parametrize("stride", [2.0, 1.7, 1.0])
def test_spectral_pooling_of_even_and_odd_lengths_is_the_same_too(stride: float) -> None:
    for n in (19, 20):
        crop, x = spectral_crop(n, stride), torch.randn(2, 3, n, 4, dtype=torch.float64)
        weight, bias = torch.randn(5, 3, 3, dtype=torch.float64), torch.randn(5, dtype=torch.float64)
        arguments = x, weight, bias, torch.ones(crop.n_bins, dtype=torch.float64), crop, 2
        torch.testing.assert_close(conv_crop_spectrum(*arguments), one_after_the_other(*arguments), rtol=0, atol=1e-12)


@pytest.mark.usefixtures("parts")
def test_gradients_are_those_of_finite_differences() -> None:
    crop = diffstride_crop(11, 2.3, 2.0)
    shapes = ((2, 2, 11, 2), (3, 2, 3), (3,), ())
    values = [torch.randn(shape, dtype=torch.float64) for shape in shapes[:3]]
    inputs = [value.requires_grad_() for value in [*values, torch.tensor(2.3, dtype=torch.float64)]]

    def form(x: Tensor, weight: Tensor, bias: Tensor, stride: Tensor) -> Tensor:
        return conv_crop_spectrum(x, weight, bias, diffstride_mask(crop, stride, 2.0), crop, 2)

    assert torch.autograd.gradcheck(form, inputs)


def test_a_tone_beyond_the_last_kept_bin_vanishes_whatever_the_convolution_does() -> None:
    crop = diffstride_crop(64, 4.0, 2.0)
    mask = diffstride_mask(crop, torch.tensor(4.0, dtype=torch.float64), 2.0)
    time = torch.arange(64, dtype=torch.float64)
    weight, bias = torch.randn(5, 1, 3, dtype=torch.float64), torch.zeros(5, dtype=torch.float64)

    def loudest(bin_: int) -> float:
        tone = torch.sin(2 * torch.pi * bin_ * time / 64).view(1, 1, 64)  # zero at the ends, but for one sample
        return conv_crop_spectrum(tone, weight, bias, mask, crop, 2).abs().max().item()

    ends = weight.abs().max().item() * torch.sin(torch.tensor(2 * torch.pi * 20 / 64)).item()
    assert loudest(20) < 0.5 * ends < loudest(4)  # only the zeros beyond the ends make a sound


@pytest.mark.parametrize("form", [SpectralPool, lambda stride: DiffStride(stride, smoothness=1)])
def test_a_layer_that_is_large_enough_takes_it_and_gives_the_same(
    form: Callable[[tuple[float, float]], SpectralPool | DiffStride], monkeypatch: pytest.MonkeyPatch
) -> None:
    conv, pool = StridedConv(64, 64, (3, 1), (1, 1)), form((2.0, 2.0))
    x = torch.randn(16, 64, 60, 200).contiguous(memory_format=torch.channels_last)
    assert convolves_in_spectrum(16 * 200, 64, 64, 3, pool.axis_crop(60, 0))
    called = []
    ours = spectral_conv._ConvCrop.forward
    monkeypatch.setattr(spectral_conv._ConvCrop, "forward", lambda *a: (called.append(1), ours(*a))[1])
    for _ in range(2):
        expected = pool.pool_axis(conv(x), 0)
        y = pool.pool_conv(conv, x, 0)
        torch.testing.assert_close(y, expected, rtol=0, atol=1e-5)
        assert y.is_contiguous(memory_format=torch.channels_last)
        freeze_strides(pool)
    assert len(called) == 2
    clip = pool.pool_conv(conv, x[:1], 0)  # too small for it
    assert len(called) == 2
    torch.testing.assert_close(clip, y[:1], rtol=0, atol=1e-5)


def test_it_tells_the_layer_its_length_so_that_strides_can_be_clamped() -> None:
    conv, pool = StridedConv(64, 64, (3, 1), (1, 1)), DiffStride((2.0, 2.0), smoothness=1)
    pool.pool_conv(conv, torch.randn(16, 64, 60, 200).contiguous(memory_format=torch.channels_last), 0)
    with torch.no_grad():
        pool.stride.fill_(1000)
    clamp_strides_(pool)
    assert pool.stride[0].item() == 30


@pytest.mark.usefixtures("parts")
def test_half_precision_stays_near_float32() -> None:
    crop = diffstride_crop(40, 2.0, 2.0)
    mask, conv = diffstride_mask(crop, torch.tensor(2.0), 2.0), torch.nn.Conv2d(16, 16, (3, 1), padding=(1, 0))
    x = torch.randn(4, 16, 40, 6)
    gradients = []
    for half in (True, False):
        conv.weight.grad = None
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            y = conv_crop_spectrum(x, conv.weight.flatten(2), conv.bias, mask, crop, 2)
        assert y.dtype == (torch.bfloat16 if half else torch.float32)
        y.float().square().sum().backward()
        assert conv.weight.grad is not None
        gradients.append(conv.weight.grad)
    assert (gradients[0] - gradients[1]).norm() < 0.03 * gradients[1].norm()


def test_shapes_that_do_not_fit_are_refused_by_name() -> None:
    crop, x = spectral_crop(20, 2.0), torch.randn(1, 2, 20)
    mask, bias = torch.ones(crop.n_bins), torch.zeros(4)
    with pytest.raises(ValueError, match="must be 20 long"):
        conv_crop_spectrum(torch.randn(1, 2, 21), torch.randn(4, 2, 3), bias, mask, crop, 2)
    with pytest.raises(ValueError, match="3 taps"):
        conv_crop_spectrum(x, torch.randn(4, 2, 5), bias, mask, crop, 2)
