"""Counted costs against PyTorch's own counter."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from audiostride import AudioCNN, stride_cost
from audiostride.layers.spectrum import Crop
from audiostride.models.cost import model_cost

SECOND = torch.zeros(1, 1, 100, 64)


@pytest.mark.parametrize("kind", ["strided", "spectral", "diffstride"])
@pytest.mark.parametrize("smoothness", [1, 4])
def test_macs_are_half_of_the_flops_pytorch_counts(kind: str, smoothness: int) -> None:
    cnn = AudioCNN(kind, channels=(8, 8, 16), strides=((2, 2), (1.0, 3.0), (2, 2)), smoothness=smoothness).eval()
    x = torch.randn(1, 1, 100, 64)
    with torch.no_grad():
        with FlopCounterMode(display=False) as whole:
            cnn(x)
        making = 0  # the pooling matrices are made once a batch and are not part of a clip's cost
        if kind == "diffstride":
            for block, (time, mel) in zip(cnn.separable_blocks, cnn.map_sizes(100, 64), strict=False):
                for axis, n in enumerate((time, mel)):
                    crop: Crop = block.pool.axis_crop(n, axis)
                    making += 2 * crop.m * crop.n * 2 * crop.n_bins
        cnn(x)  # fills the tables of constant matrices, which are made once a process
        with FlopCounterMode(display=False) as whole:
            cnn(x)
    assert model_cost(cnn, SECOND).macs * 2 == whole.get_total_flops() - making


def test_the_cost_of_a_strided_block_by_hand() -> None:
    cnn = AudioCNN("strided", channels=(8,), strides=((2, 2),))
    time_conv, mel_conv = 3 * 1 * 8 * 50 * 64, 3 * 8 * 8 * 50 * 32
    assert model_cost(cnn, SECOND) == (time_conv + mel_conv, 8 * 50 * 64 + 8 * 50 * 32, 8 * 3 + 8 + 8 * 24 + 8 + 32)


def test_the_cost_of_a_pooled_block_by_hand_at_both_resolutions() -> None:
    cnn = AudioCNN("spectral", channels=(8,), strides=((2, 2),))
    mel = 50 * (3 * 8 * 8 * 64 + 8 * 64 * 32)
    assert model_cost(cnn, SECOND).macs == 64 * (3 * 1 * 100 * 50 + 3 * 1 * 8 * 50) + mel
    assert (
        model_cost(AudioCNN("spectral", channels=(8,), strides=((2, 2),), pool_after_relu=True), SECOND).macs
        == 64 * (3 * 1 * 8 * 100 + 8 * 100 * 50) + mel
    )


def test_the_stride_cost_pushes_every_stride_up() -> None:
    cnn = AudioCNN("diffstride", channels=(8, 8), strides=((2, 2), (2, 4)))
    cost = stride_cost(cnn)
    cost.backward()
    assert cost.item() == pytest.approx(1 / 4 + 1 / 8)
    assert all((block.pool.stride.grad < 0).all() for block in cnn.separable_blocks)


def test_a_shared_stride_counts_for_both_axes() -> None:
    cnn = AudioCNN("diffstride", channels=(8,), strides=((3, 3),), shared_stride=True)
    assert stride_cost(cnn).item() == pytest.approx(1 / 9)
