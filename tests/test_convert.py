"""Converting any model: weights kept, parallel branches share, undone exactly, refused where it cannot be told."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from zoo import DenseNetBC121, EfficientNetB0, ResNet18

from audiostride import RandomStrides, clamp_strides_, parameter_groups
from audiostride.layers.conversion import replace_downsampling, restore_downsampling
from audiostride.layers.downsampled import Downsampled
from audiostride.layers.parallel_branches import find_downsampling
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


def test_paddings_that_are_words_are_read_as_numbers():
    net = nn.Sequential(nn.Conv2d(1, 4, 3, stride=2, padding="valid"), nn.Conv2d(4, 4, 5, padding="same"))
    converted = replace_downsampling(net, "spectral", candidates=["1"])
    assert converted(torch.zeros(1, 1, 42, 42)).shape[2:] == (20, 20)  # 42 - 2 at stride 1, halved


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


STAGES = [f"0.features.{first}.block.{int(first > 1)}.0" for first in (1, 2, 4, 6, 9, 12, 16)]


def test_seven_places_of_efficientnet_learn_with_the_layers_of_stride_1_named():
    """The first depthwise convolution of each of its seven stages, three of which do not downsample."""
    still = [STAGES[0], STAGES[4], STAGES[6]]
    net = EfficientNetB0(classes=10).double().eval()
    x = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    output = net(x)
    replace_downsampling(net, smoothness=1, only=STAGES, candidates=still)
    assert [pool.strides()[0] for pool in diffstride_layers(net)] == [1.0, 2.0, 2.0, 2.0, 1.0, 2.0, 1.0]
    net(x).square().sum().backward()
    assert all(pool.stride.grad.abs().min() > 0 for pool in diffstride_layers(net)[:-2])
    assert torch.equal(restore_downsampling(net)(x), output)


def test_candidates_are_named_or_match_a_pattern():
    net = nn.Sequential(conv(1), nn.Sequential(conv(1), conv(2)), conv(1))
    assert [group.layers for group in find_downsampling(net, ["0", "1.*"])] == [["0"], ["1.0"], ["1.1"]]
    assert [group.stride for group in find_downsampling(net, ["0", "1.*"])] == [(1, 1), (1, 1), (2, 2)]
    with pytest.raises(
        ValueError, match=r"no convolution or max-pool of stride 1 matches '1.1'; the model has 0, 1.0, 2"
    ):
        find_downsampling(net, ["1.1"])
    with pytest.raises(ValueError, match="downsampled 1 and 0 times"):
        find_downsampling(Joined(conv(1), nn.Identity()), ["a"])


def test_initial_strides_are_a_number_or_one_for_each_place():
    def started(strides, **settings):
        net = replace_downsampling(ResNet18(10, 8), strides=strides, **settings)
        return [tuple(pool.strides()) for pool in diffstride_layers(net)]

    assert started(None) == [(2.0, 2.0)] * 5
    assert started(1.5) == [(1.5, 1.5)] * 5
    assert started([1, 1.25, (3, 2), 2, 1]) == [(1.0, 1.0), (1.25, 1.25), (3.0, 2.0), (2.0, 2.0), (1.0, 1.0)]
    net = replace_downsampling(ResNet18(10, 8), "spectral", strides=1.6)
    assert net.maxpool.pool.stride == (1.6, 1.6)


def test_random_initial_strides_follow_from_the_seed_and_lie_in_their_range():
    def started(seed, **settings):
        net = replace_downsampling(ResNet18(10, 8), strides=RandomStrides(1, 3, seed), **settings)
        return [pool.strides() for pool in diffstride_layers(net)]

    assert started(0) == started(0) != started(1)
    drawn = [stride for seed in range(20) for place in started(seed) for stride in place]
    assert 1 <= min(drawn) < 1.1
    assert 2.9 < max(drawn) <= 3
    assert len(set(drawn)) == 200  # each place and axis by itself
    assert all(time == mel for time, mel in started(0, shared_stride=True))


def test_a_model_started_elsewhere_goes_back_to_its_own_strides():
    net = ResNet18(10, 8).eval()
    x = torch.randn(1, 3, 64, 64)
    output = net(x)
    replace_downsampling(net, strides=RandomStrides(1, 3))
    assert torch.equal(restore_downsampling(net)(x), output)


@pytest.mark.parametrize(
    ("strides", "message"),
    [
        ([2, 2], r"got 2 strides for 1 places: 0"),
        ([(2, 2, 2)], r"0: has 2 axes, got the strides \(2, 2, 2\)"),
        (0.5, "strides must be at least 1"),
        (RandomStrides(0.5, 2), "1 <= low <= high, got 0.5 and 2"),
        (RandomStrides(3, 2), "1 <= low <= high, got 3 and 2"),
    ],
)
def test_initial_strides_that_do_not_fit_are_refused_and_nothing_is_changed(strides, message):
    net = nn.Sequential(conv(2))
    before = str(net)
    with pytest.raises(ValueError, match=message):
        replace_downsampling(net, strides=strides)
    assert str(net) == before


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
    "a flattening function": (Calls(lambda x: x.flatten(1)), "is unknown what flatten"),
    "upsampling": (Calls(lambda x: F.interpolate(x, scale_factor=2)), "is unknown what interpolate"),
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
    with pytest.raises(ValueError, match=r"no downsampling layer is called conv9; the model has conv1, maxpool"):
        replace_downsampling(net, only=["conv9"])
    with pytest.raises(ValueError, match="convert all of them or none"):
        replace_downsampling(net, only=["layer2.0.conv1"])
    with pytest.raises(ValueError, match="smoothness"):
        replace_downsampling(net, smoothness=0.5)
    with pytest.raises(ValueError, match="no converted layer"):
        restore_downsampling(net)
    assert len(find_downsampling(net)) == 5
