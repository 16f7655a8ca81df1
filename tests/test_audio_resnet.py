"""`AudioResNet`: its blocks and its regions by hand, and that reports and cut-offs know it."""

import pytest
import torch

from audiostride import AudioClassifier, AudioResNet, LogMel
from audiostride.analysis.listening import trunk_gain
from audiostride.analysis.measured_response import layer_responses
from audiostride.layers.choice import Downsampling
from audiostride.models.audio_resnet import Stem, mel_regions
from audiostride.models.cost import cost_per_second, model_cost
from audiostride.models.cutoffs import model_cutoffs
from audiostride.models.state_at_strides import state_at

SMALL = {"channels": (4, 6), "time_channels": (8, 10), "strides": ((1, 2), (2, 2), (1, 1), (2, 1))}
ONES = ((1, 1), (1, 1), (1, 1), (1, 1))
KINDS = pytest.mark.parametrize("kind", ["strided", "spectral", "diffstride"])


def test_at_strides_of_one_all_kinds_of_downsampling_are_one_network():
    kinds = ("strided", "spectral", "diffstride")
    nets = [AudioResNet(kind, **(SMALL | {"strides": ONES})).eval() for kind in kinds]
    x = torch.randn(2, 1, 30, 64)
    for net in nets[1:]:
        net.load_state_dict(nets[0].state_dict(), strict=False)
        assert torch.allclose(net(x), nets[0](x), atol=1e-6)


def test_main_branch_and_shortcut_of_a_block_over_time_are_those_of_the_formula():
    net = AudioResNet("spectral", **SMALL).eval()
    block = net.time_blocks[1]
    x = torch.randn(2, 8, 25, 1)
    pooled = block.pool(block.depthwise(x).transpose(2, 3)).transpose(2, 3)
    main = block.pointwise_norm(block.pointwise(block.depthwise_norm(pooled).relu()))
    shortcut = block.shortcut(block.pool(x.transpose(2, 3)).transpose(2, 3))
    assert torch.allclose(block(x), (main + shortcut).relu(), atol=1e-6)
    assert block(x).shape == (2, 10, 12, 1)


def test_an_axis_with_a_stride_of_one_is_not_pooled_and_learns_nothing():
    net = AudioResNet("diffstride", **SMALL, aliasing=0.25)
    assert [block.pooled_axes for block in net.blocks] == [[1], [0, 1], [], [0]]
    assert [tuple(p.shape) for name, p in net.named_parameters() if name.endswith("pool.stride")] == [(1,), (2,), (1,)]
    assert net.aliasing() == [[0, 0.25], [0.25, 0.25], [0, 0], [0.25, 0]]


@KINDS
def test_a_batch_gives_what_its_clips_give_one_by_one(kind):
    net = AudioResNet(kind, **SMALL, pooling="mean_max").eval()
    x = torch.randn(3, 1, 47, 64)
    assert torch.allclose(net(x), torch.cat([net(one[None]) for one in x]), atol=1e-5)


def test_the_pools_of_the_frames_are_mean_and_maximum():
    nets = {pooling: AudioResNet("strided", **SMALL, pooling=pooling).eval() for pooling in ("mean", "max", "mean_max")}
    for net in nets.values():
        net.load_state_dict(nets["mean"].state_dict())
    x = torch.randn(2, 1, 47, 64)
    frames = nets["mean"].forward_features(x).flatten(2)
    assert torch.allclose(nets["mean"](x), frames.mean(2))
    assert torch.equal(nets["max"](x), frames.amax(2))
    assert torch.equal(nets["mean_max"](x), torch.cat([nets["mean"](x), nets["max"](x)], dim=1))
    assert nets["mean_max"].num_features == 20


def test_without_blocks_over_time_an_embedding_holds_every_channel_of_every_region():
    net = AudioResNet("strided", channels=(4, 6), time_channels=(), strides=((1, 2), (2, 2)), mel_regions=4).eval()
    x = torch.randn(2, 1, 50, 64)
    features = net.mel_blocks[0](net.stem(net.input_norm(x)))  # 16 mel bands are left: 4 a region
    regions = features.mean(2).unflatten(2, (4, 4)).mean(3)
    assert net.num_features == 24
    assert torch.allclose(net(x), regions.transpose(1, 2).reshape(2, 24)[:, _by_channel(4, 6)], atol=1e-6)


def _by_channel(n_regions: int, n_channels: int) -> list[int]:
    return [region * n_channels + channel for channel in range(n_channels) for region in range(n_regions)]


@pytest.mark.parametrize("n", [1, 3, 8, 19, 64])
@pytest.mark.parametrize("n_regions", [1, 4, 8])
def test_regions_keep_a_constant_and_the_mean(n, n_regions):
    matrix = mel_regions(n, n_regions)
    assert torch.allclose(matrix.sum(1), torch.ones(n_regions))
    x = torch.randn(n)
    assert torch.allclose((matrix @ x).mean(), x.mean(), atol=1e-6)


def test_dropout_is_for_training_only():
    net = AudioResNet("strided", **SMALL, dropout=0.5)
    x = torch.randn(4, 1, 47, 64)
    with torch.no_grad():
        features = net(x)
    assert (features == 0).float().mean() > 0.2
    net.eval()
    assert torch.equal(net(x), net(x))


def test_the_cost_by_hand():
    net = AudioResNet("strided", channels=(4, 6), time_channels=(8,), strides=((1, 2), (2, 2), (2, 1)), mel_regions=8)
    stem = 9 * 4 * 100 * 32
    mel_block = 3 * 4 * 6 * 50 * 32 + 3 * 6 * 6 * 50 * 16 + 4 * 6 * 50 * 16
    regions, squeeze = 6 * 50 * 16 * 8, 6 * 8 * 8 * 50
    time_block = 9 * 8 * 25 + 8 * 8 * 25
    assert (
        cost_per_second(AudioClassifier(LogMel(), net, {"word": 2})).macs
        == stem + mel_block + regions + squeeze + time_block
    )


def test_the_cost_of_learned_strides_does_not_count_the_making_of_matrices():
    net = AudioResNet("diffstride", channels=(4,), time_channels=(), strides=((2, 1),), mel_regions=1).eval()
    m = net.map_sizes(100, 64)[-1][0]
    assert model_cost(net, torch.zeros(1, 1, 100, 64)).macs == 9 * 4 * 6400 + 4 * 64 * 100 * m + 4 * m * 64


def test_cutoffs_state_gain_and_measured_response_of_learned_strides_agree():
    net = AudioResNet("diffstride", **SMALL).eval()
    model = AudioClassifier(LogMel(), net, {"word": 2})
    rows = model_cutoffs(model)
    assert [row.stride for row in rows] == [1, 2, 2, 2, 1, 1, 2, 1]
    state = state_at(model, [[1, 2], [4, 2], [1, 1], [2, 1]])
    assert state["total_stride"] == [8, 4]
    assert net.strides() == [[1, 2], [2, 2], [1, 1], [2, 1]]  # the model itself is not changed
    time, mel = trunk_gain(net, 100, 64)
    assert int(time.sum()) == 1 + int(rows[-2].cumulative.full_gain)
    assert int(mel.sum()) == 1 + int(rows[3].cumulative.full_gain * 64)
    responses = layer_responses(net, torch.randn(2, 1, 100, 64), 100.0)
    assert [(r.layer, r.axis) for r in responses] == [(1, "mel"), (2, "time"), (2, "mel"), (4, "time")]
    assert max(response.error for response in responses) < 1e-3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"channels": ()}, "channels needs at least the stem's"),
        ({"strides": ((1, 2), (2, 2))}, "got 2 channels, 2 time_channels and 2 strides"),
        ({"strides": ((1, 2), (2, 2), (1, 1), (2, 2))}, "blocks over time have a mel stride of 1"),
        ({"strides": ((1, 2), (2, 2, 2), (1, 1), (2, 1))}, "pair of strides"),
        ({"kernel_size": 4}, "must be odd, got 4"),
        ({"mel_regions": 0}, "at least 1, got 0"),
        ({"pooling": "median"}, "pooling must be one of"),
        ({"downsampling": "magic"}, "downsampling must be one of"),
        ({"downsampling": "strided", "strides": ((1, 1.5), (2, 2), (1, 1), (2, 1))}, "whole strides"),
        ({"downsampling": "strided", "aliasing": 0.1}, "no aliasing to learn"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        AudioResNet(**(SMALL | settings))


@pytest.mark.parametrize("stride", [(1, 2), (2, 1), (2, 2), (1.5, 3)])
@pytest.mark.parametrize("aliasing", [None, 0.3])
def test_the_stem_convolves_on_pooled_copies_as_it_would_before_pooling(stride, aliasing):
    stem = Stem(5, stride, Downsampling("diffstride", smoothness=1, aliasing=aliasing)).eval()
    x = torch.randn(2, 1, 40, 64, requires_grad=True)
    for frozen in (False, True):
        if frozen:
            stem.pool.freeze_strides()
        expected = stem.norm(stem.pooled(stem.conv(x))).relu()
        assert torch.allclose(stem(x), expected, atol=1e-5)
        gradients = [torch.autograd.grad(y.square().sum(), x, retain_graph=True)[0] for y in (stem(x), expected)]
        assert torch.allclose(*gradients, rtol=1e-3, atol=1e-4)
