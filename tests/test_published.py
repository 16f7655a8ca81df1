"""The published TensorFlow code, run by `published_reference.py`, beside our version of it and beside our layers."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from published_cases import DATA, NETWORK, diffstride_cases, network_input, network_weights, sample, spectral_cases
from torch import nn

from audiostride import DiffStride, SpectralPool, clamp_strides_
from audiostride.layers.choice import Downsampling
from audiostride.layers.published import PublishedDiffStride, PublishedSpectralPool
from audiostride.layers.strides import diffstride_layers
from audiostride.models.cost import count_parameters
from audiostride.models.resnet import ResNet, repository_resnet18
from audiostride.training.build import make_trunk
from audiostride.training.recipe import load_recipe

REFERENCE = dict(np.load(DATA / "published.npz"))
FACTS = json.loads((DATA / "published.json").read_text())
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def published(*arguments, **settings) -> DiffStride:
    return PublishedDiffStride(*arguments, **settings)


def test_the_reference_was_run_on_76_cases_of_diffstride_and_38_of_spectral_pooling():
    assert len(diffstride_cases()) == 76
    assert len(spectral_cases()) == 38


@pytest.mark.parametrize("name", diffstride_cases())
def test_diffstride_as_published_is_the_references(name):
    case = diffstride_cases()[name]
    pool = published(case.stride, case.smoothness)
    x, weight = (torch.from_numpy(values) for values in sample(name, case.size))
    y = pool(x)
    (y * weight[..., : y.shape[2], : y.shape[3]]).sum().backward()
    torch.testing.assert_close(y, torch.from_numpy(REFERENCE[f"{name} y"]), **CLOSE)
    torch.testing.assert_close(pool.stride.grad, torch.from_numpy(REFERENCE[f"{name} gradient"]), **CLOSE)
    torch.testing.assert_close(pool.stride.detach(), torch.from_numpy(REFERENCE[f"{name} left"]), rtol=0, atol=0)
    assert [pool.output_length(n, axis) for axis, n in enumerate(case.size)] == list(y.shape[2:])


@pytest.mark.parametrize("name", spectral_cases())
def test_spectral_pooling_as_published_is_the_references(name):
    case = spectral_cases()[name]
    pool = PublishedSpectralPool(case.stride)
    x = torch.from_numpy(sample(name, case.size)[0])
    torch.testing.assert_close(pool(x), torch.from_numpy(REFERENCE[f"{name} y"]), **CLOSE)
    assert [pool.output_length(n, axis) for axis, n in enumerate(case.size)] == list(pool(x).shape[2:])


def load_reference_weights(net: ResNet, head: nn.Linear) -> None:
    """The weights that the reference's network had, by the order of its variables."""
    blocks = [net.stem, *net.blocks]
    ours: list[nn.Parameter] = [net.stem.conv.weight, net.stem.pool.stride]
    for block in blocks[1:]:
        ours += [block.pool.stride] if isinstance(block.pool, DiffStride) else []
        ours += [block.conv1.weight, block.conv2.weight]
        ours += [block.norm1.weight, block.norm1.bias, block.norm2.weight, block.norm2.bias]
        ours += [block.shortcut.weight] if isinstance(block.shortcut, nn.Conv2d) else []
    ours += [net.norm.weight, net.norm.bias, head.weight, head.bias]
    names = [str(name) for name in REFERENCE["network names"]]
    assert len(ours) == len(names)
    shapes = [tuple(p.shape[i] for i in ((2, 3, 1, 0) if p.dim() == 4 else range(p.dim())[::-1])) for p in ours]
    with torch.no_grad():
        for parameter, name, values in zip(ours, names, network_weights(shapes), strict=True):
            if "strides" not in name:
                order = (3, 2, 0, 1) if values.ndim == 4 else range(values.ndim)[::-1]
                parameter.copy_(torch.from_numpy(values).permute(*order))


def test_a_whole_residual_net_is_the_references():
    stem, _, *stages = NETWORK["published_strides"]
    net = ResNet(
        channels=NETWORK["channels"],
        blocks=(2, 2, 2),
        strides=(stem, None, *stages),
        pre_activation=True,
        activated_shortcut=False,
        as_published=True,
        in_channels=3,
    )
    head = nn.Linear(NETWORK["channels"][-1], NETWORK["classes"])
    load_reference_weights(net, head)
    net, head = net.double(), head.double()  # in float32 ten layers add up to 1e-4 on some processors
    y = head(net.eval()(torch.from_numpy(network_input()).double()))
    y.square().sum().backward()
    gradients = torch.stack([pool.stride.grad for pool in diffstride_layers(net)])
    torch.testing.assert_close(y, torch.from_numpy(REFERENCE["network y"]).double(), **CLOSE)
    torch.testing.assert_close(gradients, torch.from_numpy(REFERENCE["network gradients"]).double(), **CLOSE)


@pytest.mark.parametrize("kind", ["strided", "spectral", "diffstride"])
def test_the_repositorys_resnet18_has_its_parameters_and_pooling_layers(kind):
    net = repository_resnet18(kind)
    counted = {"parameters": count_parameters(net) + 512 * 10 + 10, "pooling_layers": 0}
    counted["pooling_layers"] = sum(isinstance(m, DiffStride | SpectralPool) for m in net.modules())
    assert counted == FACTS["resnet18"][kind]
    if kind == "diffstride":
        assert counted == {"parameters": 11_172_178, "pooling_layers": 4}


# Every claim of docs/layers.md, "Differences from the published TensorFlow layer".


def test_amplitude_is_multiplied_by_the_ratio_of_the_sizes():
    x = torch.ones(1, 100, 64)
    y = published((2.0, 2.0))(x)
    assert y.mean().item() == pytest.approx(100 * 64 / (58 * 40), rel=1e-5)
    torch.testing.assert_close(DiffStride((2.0, 2.0))(x), torch.ones(1, 57, 39))


def test_58_for_57_frames_is_of_the_rows_and_40_for_39_bands_of_equation_4():
    """Eq. 4 adds a bin on the mel axis; on the rows two are kept for each of K frequencies, DC twice."""
    ours, theirs = DiffStride((2.0, 2.0)), published((2.0, 2.0))
    assert [ours.output_length(100, 0), ours.output_length(64, 1)] == [57, 39]
    assert [theirs.output_length(100, 0), theirs.output_length(64, 1)] == [58, 40]
    a, r = 100 / 4, 4
    assert theirs.output_length(100, 0) == 2 * (a + r)
    assert theirs.output_length(64, 1) == 2 * (64 / 4 + 1 + r - 1)


@pytest.mark.parametrize("n", [16, 17], ids=["even", "odd"])
def test_the_row_mask_is_off_by_one_below_zero_and_for_odd_heights_above_it_too(n):
    """The weight of each row frequency, read off plane waves: the column frequency tells k from -k."""
    pool = published((2.0, 1.0), smoothness=1.0, crop=False)
    weights = {}
    for k in range(-7, 8):
        row, column = torch.meshgrid(torch.arange(n), torch.arange(16), indexing="ij")
        wave = torch.cos(2 * torch.pi * (k * row / n + column / 16))
        weights[k] = (pool(wave) * wave).sum() / wave.square().sum()
    for k, weight in weights.items():
        position = -k - 1 if k < 0 else k + n % 2
        assert weight.item() == pytest.approx(min(max(1 + n / 4 - position, 0.0), 1.0), abs=1e-4), k


def test_an_odd_width_loses_a_column():
    assert published((1.0, 1.0), smoothness=1.0)(torch.zeros(1, 8, 9)).shape == (1, 8, 8)
    assert DiffStride((1.0, 1.0), smoothness=1.0)(torch.zeros(1, 8, 9)).shape == (1, 8, 9)


def test_a_forward_overwrites_the_stride_in_evaluation_too_and_one_small_input_for_good():
    ours, theirs = (layer.eval() for layer in (DiffStride((1.0, 1.0)), published((1.0, 1.0))))
    for pool in (ours, theirs):
        pool(torch.zeros(1, 8, 8))
        pool(torch.zeros(1, 100, 64))
    assert ours.strides() == [1.0, 1.0]
    assert theirs.strides() == [2.0, 2.0]


def test_a_height_of_r_makes_the_stride_infinite():
    theirs, ours = published((2.0, 2.0)), DiffStride((2.0, 2.0))
    for pool in (theirs, ours):
        pool(torch.ones(1, 4, 16)).sum().backward()
    assert theirs.strides() == [float("inf"), 2.0]
    assert ours.strides() == [2.0, 2.0]


def test_a_stride_above_half_the_length_has_no_gradient_and_nothing_holds_it_below():
    x = torch.randn(1, 16, 16)
    theirs, ours = published((9.0, 9.0), smoothness=1.0), DiffStride((9.0, 9.0), smoothness=1.0)
    for pool in (theirs, ours):
        pool(x).square().sum().backward()
        clamp_strides_(pool)
    assert theirs.stride.grad.tolist() == [0.0, 0.0]
    assert theirs.strides() == [9.0, 9.0]
    assert ours.stride.grad.abs().min() > 0
    assert ours.strides() == [8.0, 8.0]


def test_published_spectral_pooling_rounds_the_height_to_even():
    assert PublishedSpectralPool((3.0, 3.0))(torch.zeros(1, 100, 100)).shape == (1, 32, 33)
    assert SpectralPool((3.0, 3.0))(torch.zeros(1, 100, 100)).shape == (1, 33, 33)


def test_as_published_is_never_the_default_and_pools_two_axes_only():
    for kind in ("spectral", "diffstride"):
        pool = Downsampling(kind).pool((2.0, 2.0))
        assert not isinstance(pool, PublishedDiffStride | PublishedSpectralPool)
    for layer in (PublishedDiffStride, PublishedSpectralPool):
        with pytest.raises(ValueError, match="pools two axes at once, got 1"):
            layer(2.0)
        with pytest.raises(ValueError, match="both axes at once"):
            layer((2.0, 2.0)).pool_axis(torch.zeros(1, 8, 8), 0)
    with pytest.raises(ValueError, match="at least two columns"):
        published((2.0, 2.0))(torch.zeros(1, 8, 1))


def test_frozen_strides_are_not_overwritten():
    pool = published((1.0, 1.0))
    pool.freeze_strides()
    pool(torch.zeros(1, 8, 8))
    assert pool.strides() == [1.0, 1.0]


# Claims of docs/images.md and of recipes/images/cifar10_repository.yaml.


def test_the_repositorys_recipe_trains_as_its_configuration_says():
    recipe, training = load_recipe("cifar10_repository"), FACTS["training"]
    assert recipe.train.batch_size == training["batch_size"]
    assert recipe.augment.mixup == training["mixup_alpha"]
    assert recipe.train.momentum == training["momentum"]
    assert recipe.train.weight_decay == 2 * training["weight_decay"]  # the gradient of w^2 is 2 w
    steps = training["num_epochs"] * (50_000 // 2 // training["batch_size"])  # pairs become one image
    per_epoch = 50_000 / training["batch_size"]
    assert steps == 78_000
    assert round(steps / per_epoch) == recipe.train.epochs
    assert [round(step / per_epoch) for step in training["boundaries"][1:]] == recipe.train.drop_epochs
    assert training["values"] == [recipe.train.learning_rate / 10**k for k in (1, 0, 1, 2)]
    first, _, *stages = training["strides"]
    assert recipe.model.strides == [first, None, *stages]


def test_the_published_accuracies_are_those_of_its_readme():
    recipe = load_recipe("cifar10_repository")
    cifar10, cifar100 = FACTS["accuracies"][:3], FACTS["accuracies"][3:]
    for kind, good, poor in cifar10:
        assert recipe.published[f"{kind} 1 - 2 2 2"] == float(good[0])
        assert recipe.published[f"{kind} 1 - 3 2 3"] == float(poor[0])
    page = (Path(__file__).parents[1] / "docs" / "images.md").read_text()
    for name, rows in (("CIFAR-10", cifar10), ("CIFAR-100", cifar100)):
        for which, strides in ((1, "1 1 2 2 2"), (2, "1 1 3 2 3")):
            cells = [" ± ".join(row[which]) for row in rows]
            assert f"| {name} | {strides} | {' | '.join(cells)} |" in page


def test_the_repositorys_net_is_the_recipes():
    recipe = load_recipe("cifar10_repository")
    assert make_trunk(recipe).settings == repository_resnet18().settings
