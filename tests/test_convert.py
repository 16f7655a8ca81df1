"""Converting any model: weights kept, parallel branches share, undone exactly, refused where it cannot be told."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from zoo import DenseNetBC121, EfficientNetB0, ResNet18

from audiostride import clamp_strides_, parameter_groups
from audiostride.layers.conversion import Downsampled, find_downsampling, replace_downsampling, restore_downsampling
from audiostride.layers.strides import diffstride_layers

PARAMETERS = {ResNet18: 11_689_512, EfficientNetB0: 5_288_548, DenseNetBC121: 7_978_856}
GROUPS = {ResNet18: 5, EfficientNetB0: 5, DenseNetBC121: 5}

networks = pytest.mark.parametrize("network", PARAMETERS, ids=lambda n: n.__name__)


@networks
def test_the_network_is_the_published_one(network):
    assert sum(p.numel() for p in network().parameters()) == PARAMETERS[network]


@networks
@pytest.mark.parametrize("kind", ["diffstride", "spectral"])
def test_conversion_keeps_every_weight_and_the_way_back_is_exact(network, kind):
    # Double precision: the signal of an untrained EfficientNet is lost beside its biases in float32.
    net = network(classes=10).double().eval()
    x = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    before, output = copy.deepcopy(net.state_dict()), net(x)
    weights = list(net.parameters())
    assert replace_downsampling(net, kind, smoothness=1) is net
    kept = {id(p) for p in net.parameters()}
    assert all(id(p) in kept for p in weights)
    assert net(x).shape == output.shape
    assert not torch.equal(net(x), output)
    assert restore_downsampling(net) is net
    assert list(net.state_dict()) == list(before)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert torch.equal(net(x), output)


@networks
def test_five_strides_are_learned_one_for_each_halving(network):
    net = replace_downsampling(network(classes=10), smoothness=1)
    assert [pool.strides() for pool in diffstride_layers(net)] == [[2.0, 2.0]] * GROUPS[network]
    net(torch.randn(2, 3, 64, 64)).square().sum().backward()
    assert all(pool.stride.grad.abs().min() > 0 for pool in diffstride_layers(net))


def test_the_main_and_the_shortcut_branch_of_a_residual_block_share_one_stride():
    net = ResNet18(classes=10, width=8)
    assert [group.layers for group in find_downsampling(net)] == [
        ["conv1"],
        ["maxpool"],
        ["layer2.0.conv1", "layer2.0.downsample.0"],
        ["layer3.0.conv1", "layer3.0.downsample.0"],
        ["layer4.0.conv1", "layer4.0.downsample.0"],
    ]
    replace_downsampling(net, smoothness=1)
    assert net.layer2[0].conv1.pool is net.layer2[0].downsample[0].pool
    with torch.no_grad():
        for pool, stride in zip(diffstride_layers(net), (1.3, 1.7, 2.4, 1.1, 3.0), strict=True):
            pool.stride.fill_(stride)
    assert net(torch.randn(2, 3, 61, 80)).shape == (2, 10)


def test_branches_that_are_concatenated_share_one_stride():
    class Reduction(nn.Module):
        """As in Inception and its kin: a convolution and a max-pool side by side."""

        def __init__(self):
            super().__init__()
            self.conv, self.pool = nn.Conv2d(4, 8, 3, 2, 1), nn.MaxPool2d(3, 2, 1)

        def forward(self, x):
            return torch.cat([self.conv(x), self.pool(x)], 1)

    net = Reduction()
    assert [group.layers for group in find_downsampling(net)] == [["conv", "pool"]]
    replace_downsampling(net, smoothness=1)
    assert net.conv.pool is net.pool.pool
    with torch.no_grad():
        net.conv.pool.stride.copy_(torch.tensor([1.6, 2.7]))
    assert net(torch.randn(2, 4, 50, 32)).shape == (2, 12, 33, 13)


def test_a_converted_model_is_copied_saved_and_loaded_like_any_other(tmp_path):
    net = replace_downsampling(ResNet18(classes=10, width=8), smoothness=1).eval()
    with torch.no_grad():
        diffstride_layers(net)[2].stride.fill_(1.4)
    x = torch.randn(1, 3, 64, 64)
    twin = copy.deepcopy(net)
    assert twin.layer2[0].conv1.pool is twin.layer2[0].downsample[0].pool
    torch.save(net.state_dict(), tmp_path / "net.pt")
    fresh = replace_downsampling(ResNet18(classes=10, width=8), smoothness=1).eval()
    fresh.load_state_dict(torch.load(tmp_path / "net.pt", weights_only=True))
    assert torch.equal(net(x), twin(x))
    assert torch.equal(net(x), fresh(x))


def test_a_converted_model_trains_and_its_strides_move_together():
    net = replace_downsampling(ResNet18(classes=2, width=4), smoothness=1)
    optimizer = torch.optim.Adam(parameter_groups(net, 1e-3, 0.05))
    x, labels = torch.randn(8, 3, 64, 64), torch.arange(8) % 2
    for _ in range(3):
        optimizer.zero_grad()
        F.cross_entropy(net(x), labels).backward()
        optimizer.step()
        clamp_strides_(net)
    assert all(pool.strides() != [2.0, 2.0] for pool in diffstride_layers(net))
    restore_downsampling(net)
    assert not any(isinstance(module, Downsampled) for module in net.modules())


@pytest.mark.parametrize("n_axes", [1, 2, 3])
def test_convolutions_and_pools_of_one_to_three_axes_are_converted(n_axes):
    conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[n_axes - 1]
    max_pool = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)[n_axes - 1]
    avg_pool = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)[n_axes - 1]
    net = nn.Sequential(conv(2, 4, 3, stride=2, padding=1), max_pool(3, 2, 1), conv(4, 4, 1), avg_pool(2))
    x = torch.randn(1, 2, *(40,) * n_axes)
    before = net(x)
    assert before.shape[2:] == (5,) * n_axes
    assert replace_downsampling(net, "spectral")(x).shape == before.shape
    torch.testing.assert_close(restore_downsampling(net)(x), before)


def test_strides_of_one_axis_only_are_kept_as_they_are():
    net = replace_downsampling(nn.Sequential(nn.Conv2d(1, 4, 3, stride=(2, 1), padding=1)), smoothness=1)
    assert diffstride_layers(net)[0].strides() == [2.0, 1.0]


def test_only_the_named_layers_are_converted():
    net = replace_downsampling(ResNet18(10, 8), only=["layer3.0.conv1", "layer3.0.downsample.0"])
    assert len(diffstride_layers(net)) == 1
    assert net.conv1.stride == (2, 2)


def test_a_module_used_in_two_branches_has_one_stride():
    class Siamese(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(1, 4, 3, 2, 1)

        def forward(self, a, b):
            return self.conv(a) + self.conv(b)

    assert [group.layers for group in find_downsampling(Siamese())] == [["conv"]]


class Joined(nn.Module):
    """Two branches, summed."""

    def __init__(self, a, b, then=None):
        super().__init__()
        self.a, self.b, self.then = a, b, then

    def forward(self, x):
        joined = self.a(x) + self.b(x)
        return joined if self.then is None else self.then(joined)


class Calls(nn.Module):
    """A strided convolution and a function."""

    def __init__(self, function):
        super().__init__()
        self.conv, self.function = nn.Conv2d(1, 4, 3, 2, 1), function

    def forward(self, x):
        return self.function(self.conv(x))


def conv(stride, kernel=3):
    return nn.Conv2d(1, 1, kernel, stride, kernel // 2)


REFUSED = {
    "no downsampling": (nn.Sequential(conv(1)), "no strided convolution"),
    "another number of halvings": (Joined(nn.Sequential(conv(2), conv(2)), conv(4)), "downsampled 2 and 1 times"),
    "other strides": (Joined(conv(2), conv(3)), "strides differ"),
    "other sizes": (Joined(conv(2), nn.Conv2d(1, 1, 2, 2)), "differently at stride 1"),
    "a skipped branch": (Joined(conv(2), nn.Identity()), "downsampled 1 and 0 times"),
    "a pool called as a function": (Calls(lambda x: F.max_pool2d(x, 2)), "make it a module"),
    "a fixed number of features": (nn.Sequential(conv(2), nn.Flatten(), nn.Linear(9, 2)), "1: .*Flatten"),
    "a flattening function": (Calls(lambda x: x.flatten(1)), "cannot be told what flatten"),
    "upsampling": (Calls(lambda x: F.interpolate(x, scale_factor=2)), "cannot be told what interpolate"),
    "transposed convolution": (nn.Sequential(conv(2), nn.ConvTranspose2d(1, 1, 2, 2)), "ConvTranspose2d"),
    "every second sample": (Calls(lambda x: x[:, :, ::2]), "cuts out"),
    "a branch on values": (Calls(lambda x: x if x.sum() > 0 else -x), "cannot be traced"),
    "converted before": (replace_downsampling(nn.Sequential(conv(2))), "already"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_told_is_refused_by_name_and_left_as_it_was(case):
    net, message = REFUSED[case]
    before = str(net)
    with pytest.raises(ValueError, match=message):
        replace_downsampling(net)
    assert str(net) == before


def test_wrong_arguments_are_refused():
    net = ResNet18(10, 8)
    with pytest.raises(ValueError, match="kind must be"):
        replace_downsampling(net, "strided")
    with pytest.raises(ValueError, match=r"no downsampling layer is called conv9; there are conv1, maxpool"):
        replace_downsampling(net, only=["conv9"])
    with pytest.raises(ValueError, match="convert all of them or none"):
        replace_downsampling(net, only=["layer2.0.conv1"])
    with pytest.raises(ValueError, match="smoothness"):
        replace_downsampling(net, smoothness=0.5)
    with pytest.raises(ValueError, match="no converted layer"):
        restore_downsampling(net)
    assert len(find_downsampling(net)) == 5
