"""Residual nets: one learned stride for both branches, the published sizes, and a use in every place of a trunk."""

import pytest
import torch
from torch import nn

from audiostride import DiffStride, clamp_strides_, parameter_groups
from audiostride.layers.choice import Downsampling
from audiostride.layers.strides import diffstride_layers
from audiostride.models.resnet import ResidualBlock, ResNet, resnet18

KINDS = ["strided", "spectral", "diffstride"]
ACTIVATIONS = pytest.mark.parametrize("pre_activation", [False, True], ids=["post", "pre"])


def count(module):
    return sum(p.numel() for p in module.parameters())


def small(downsampling, **settings):
    return ResNet(downsampling, **({"channels": (8, 16, 32), "blocks": (1, 2, 1), "smoothness": 1} | settings))


def test_resnet18_has_the_published_number_of_parameters():
    head_1000, head_10 = 512 * 1000 + 1000, 512 * 10 + 10
    imagenet = resnet18(downsampling="strided", in_channels=3, stem="imagenet", strides=(2, 2, 2))
    assert count(imagenet) + head_1000 == 11_689_512
    assert count(resnet18(downsampling="strided", in_channels=3, strides=(2, 2, 2))) + head_10 == 11_173_962


@ACTIVATIONS
def test_a_learned_stride_costs_two_parameters_a_place(pre_activation):
    with_strides, without = (
        resnet18(downsampling=kind, strides=(1, 1, 2, 2, 2), pre_activation=pre_activation)
        for kind in ("diffstride", "strided")
    )
    assert count(with_strides) - count(without) == 2 * 5


@ACTIVATIONS
def test_one_diffstride_pools_both_branches_of_a_block(pre_activation):
    block = ResidualBlock(8, 16, (2.0, 2.0), Downsampling("diffstride", smoothness=1), pre_activation)
    assert len(diffstride_layers(block)) == 1
    pooled = []
    block.pool.register_forward_hook(lambda _module, _args, out: pooled.append(tuple(out.shape[2:])))
    for stride in (1.0, 1.7, 3.1):
        with torch.no_grad():
            block.pool.stride.fill_(stride)
        out = block(torch.randn(2, 8, 40, 30))
        main, shortcut = pooled[-2:]
        assert main == shortcut == tuple(out.shape[2:])


def test_the_gradient_of_a_shared_stride_is_that_of_both_branches_together():
    block = ResidualBlock(2, 2, (1.7, 2.3), Downsampling("diffstride", smoothness=2)).double().eval()
    x = torch.randn(1, 2, 16, 15, dtype=torch.float64)

    def output(stride):
        return torch.func.functional_call(block, {"pool.stride": stride}, (x,)).square().sum()

    assert torch.autograd.gradcheck(output, (block.pool.stride,))


@ACTIVATIONS
def test_pooling_before_the_shortcuts_1x1_convolution_is_pooling_after_it(pre_activation):
    block = ResidualBlock(4, 6, (1.7, 2.3), Downsampling("diffstride", smoothness=2), pre_activation).double()
    x = torch.randn(2, 4, 21, 18, dtype=torch.float64)
    torch.testing.assert_close(block.shortcut(block.pool(x)), block.pool(block.shortcut(x)))


@ACTIVATIONS
def test_after_the_relu_a_block_pools_what_is_rectified(pre_activation):
    least = []
    for after in (False, True):
        block = ResidualBlock(4, 6, (1.7, 2.3), Downsampling("diffstride", 1.0, after_relu=after), pre_activation)
        block.pool.register_forward_hook(lambda _module, args, _out: least.append(args[0].min().item()))
        block(torch.randn(2, 4, 21, 18).relu())
    (before, _), (behind, shortcut) = least[:2], least[2:]
    assert before < 0
    assert behind == shortcut == 0


@ACTIVATIONS
@pytest.mark.parametrize("settings", [{"strides": (2, None, 2, 2)}, {"strides": (2, 2), "stem": "imagenet"}], ids=str)
def test_folding_in_full_after_the_relu_is_the_strided_network(settings, pre_activation):
    """Reading a map off at every second sample commutes with batch norm and ReLU."""
    strided = small("strided", **settings, pre_activation=pre_activation).eval()
    folding = small("spectral", **settings, aliasing=1.0, pool_after_relu=True, pre_activation=pre_activation).eval()
    folding.load_state_dict(strided.state_dict(), strict=False)
    x = torch.randn(2, 1, 64, 48)
    torch.testing.assert_close(folding.forward_features(x), strided.forward_features(x), rtol=1e-4, atol=1e-4)


@ACTIVATIONS
def test_at_a_stride_of_one_the_three_kinds_are_one_network(pre_activation):
    nets = [small(kind, strides=(1, 1, 1, 1), pre_activation=pre_activation).eval() for kind in KINDS]
    for net in nets[1:]:
        net.load_state_dict(nets[0].state_dict(), strict=False)
    x = torch.randn(2, 1, 20, 16)
    for net in nets[1:]:
        torch.testing.assert_close(net(x), nets[0](x), rtol=1e-4, atol=1e-5)


@ACTIVATIONS
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("strides", [(2,), (2, 2), (1, 2, 2), (2, 1, (3, 2), 2)])
def test_map_sizes_and_strides_say_what_the_network_does(kind, strides, pre_activation):
    net = small(kind, strides=strides, pre_activation=pre_activation)
    assert net.strides() == [[float(s), float(s)] if isinstance(s, int) else list(map(float, s)) for s in strides]
    sizes = net.map_sizes(45, 32)
    assert len(sizes) == len(strides) + 1
    assert tuple(net.forward_features(torch.zeros(2, 1, 45, 32)).shape) == (2, 32, *sizes[-1])


def test_the_imagenet_stem_quarters_the_image_and_leaves_the_first_identity_block_to_learn():
    net = small("diffstride", stem="imagenet", in_channels=3, strides=(1, 2, 2))
    assert net.map_sizes(224, 150)[0] == (56, 38)
    assert isinstance(net.stages[0][0].pool, DiffStride)
    assert tuple(net.forward_features(torch.zeros(1, 3, 224, 150)).shape[2:]) == net.map_sizes(224, 150)[-1]


def test_an_identity_block_can_leave_a_stride_of_one():
    net = small("diffstride", strides=(1, 2, 2))
    optimizer = torch.optim.SGD(parameter_groups(net, 0.0, 0.1))
    x, target = torch.randn(8, 1, 24, 24), torch.randn(8, 32)
    moved = []
    for _ in range(4):
        optimizer.zero_grad()
        (net(x) - target).square().sum().backward()
        assert net.stages[0][0].pool.stride.grad.abs().min() > 0
        optimizer.step()
        clamp_strides_(net)
        moved.append(net.strides()[0])
    assert max(max(strides) for strides in moved) > 1.0


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_alone_gives_what_it_gives_in_a_batch(kind):
    net, x = small(kind, strides=(2, 2, 2)).eval(), torch.randn(4, 1, 33, 28)
    torch.testing.assert_close(net(x)[2:3], net(x[2:3]), rtol=1e-4, atol=1e-5)


def test_settings_rebuild_the_network():
    net = small("diffstride", strides=(2, 1, (3, 2), 2), pre_activation=True, pool_after_relu=True).eval()
    twin = ResNet(**net.settings).eval()
    twin.load_state_dict(net.state_dict())
    x = torch.randn(1, 1, 20, 20)
    assert torch.equal(net(x), twin(x))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"strides": (2, 2, 2, 2, 2)}, "take 1 to 4 strides, got 5"),
        ({"strides": ()}, "take 1 to 4 strides, got 0"),
        ({"strides": (2, 2, 2, 2), "stem": "imagenet"}, "imagenet stem and 3 stages take 1 to 3 strides"),
        ({"strides": (1.5, 2), "downsampling": "strided"}, "whole strides"),
        ({"strides": (0.5, 2)}, "at least 1"),
        ({"strides": ((2, 2, 2),)}, "one number or a"),
        ({"stem": "large"}, "stem must be"),
        ({"downsampling": "magic"}, "downsampling must be"),
        ({"blocks": (1, 1)}, "each stage needs"),
        ({"downsampling": "strided", "pool_after_relu": True}, "downsample before any ReLU"),
    ],
)
def test_wrong_settings_are_refused_with_what_is_right(settings, message):
    with pytest.raises(ValueError, match=message):
        small(**({"downsampling": "diffstride", "strides": (2, 2)} | settings))


def test_it_learns_which_of_two_textures_an_image_shows():
    net = nn.Sequential(small("diffstride", strides=(2, 2, 2)), nn.Linear(32, 2))
    optimizer = torch.optim.Adam(parameter_groups(net, 1e-2, 1e-2))
    row = torch.arange(32).float()
    fast, slow = torch.sin(row * 1.2), torch.sin(row * 0.4)
    labels = torch.arange(16) % 2
    x = torch.stack([(fast if label else slow).outer(torch.ones(32)) for label in labels])[:, None]
    for _ in range(15):
        loss = nn.functional.cross_entropy(net(x + torch.randn_like(x)), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        clamp_strides_(net)
    assert (net(x + torch.randn_like(x)).argmax(1) == labels).float().mean() == 1.0
