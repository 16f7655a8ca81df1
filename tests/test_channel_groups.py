"""Facts about groups of channels that learn an aliasing each: some may filter what others fold."""

import copy
import signal

import pytest
import torch
from small_training import SEED, train_small
from torch import Tensor, nn

from audiostride import (
    AudioClassifier,
    AudioCNN,
    DiffStride,
    LogMel,
    ResNet,
    SpectralPool,
    StridedConv,
    WaveCNN,
    clamp_strides_,
    load,
)
from audiostride.analysis.measured_response import layer_responses
from audiostride.analysis.wording import folding_sentence
from audiostride.errors import Interrupted
from audiostride.layers.downsampling import SpectralDownsampling
from audiostride.layers.strides import freeze_strides, model_aliasing, parameter_groups
from audiostride.models.cost import model_cost
from audiostride.models.cutoffs import summarise, trunk_cutoffs

SIZES = {1: (90,), 2: (40, 33), 3: (12, 20, 17)}
STRIDES = {1: (3.3,), 2: (1.7, 2.6), 3: (2.4, 2.3, 1.9)}
NARROW = {"channels": (8, 16), "strides": ((2.3, 1.9), (2, 2)), "smoothness": 1}

axes = pytest.mark.parametrize("n_axes", [1, 2, 3])


def pools(n_axes: int, aliasing: float | tuple[float, ...]) -> list[SpectralDownsampling]:
    return [DiffStride(STRIDES[n_axes], smoothness=2, aliasing=aliasing), SpectralPool(STRIDES[n_axes], aliasing)]


@axes
@pytest.mark.parametrize("groups", [(0.0, 1.0), (0.2, 0.5, 0.9)])
def test_each_group_is_pooled_and_learns_as_by_a_layer_of_its_own(n_axes: int, groups: tuple[float, ...]) -> None:
    x = torch.randn(2, 6, *SIZES[n_axes], dtype=torch.float64, requires_grad=True)
    for number in (0, 1):
        grouped = pools(n_axes, groups)[number].double()
        alone = [pools(n_axes, alpha)[number].double() for alpha in groups]

        def by_layers(x: torch.Tensor, alone: list[SpectralDownsampling] = alone) -> torch.Tensor:
            return torch.cat([pool(part) for pool, part in zip(alone, x.chunk(len(alone), dim=1), strict=True)], 1)

        y = grouped(x)
        torch.testing.assert_close(y, by_layers(x), rtol=0, atol=1e-12)
        weights = torch.randn_like(y)
        own = torch.autograd.grad((y * weights).sum(), [x, *grouped.parameters()])
        loss = (by_layers(x) * weights).sum()
        torch.testing.assert_close(own[0], torch.autograd.grad(loss, x, retain_graph=True)[0], rtol=0, atol=1e-12)
        by_name = dict(zip([name for name, _ in grouped.named_parameters()], own[1:], strict=True))
        loss.backward()
        torch.testing.assert_close(by_name["aliasing"], torch.stack([pool.aliasing.grad for pool in alone], 1))
        if "stride" in by_name:
            torch.testing.assert_close(by_name["stride"], sum(pool.stride.grad for pool in alone))
        for pool in (grouped, *alone):
            freeze_strides(pool)
        assert torch.equal(grouped(x), by_layers(x))


@pytest.mark.parametrize(
    ("shape", "shared"), [((2, 4, 1100), False), ((2, 4, 40, 33), True)], ids=["long axis, by FFT", "shared stride"]
)
def test_groups_are_pooled_by_every_way_there_is(shape: tuple[int, ...], shared: bool) -> None:
    x, stride = torch.randn(shape, dtype=torch.float64), (2.3,) * (len(shape) - 2)
    pool = DiffStride(stride, 2, shared, aliasing=(0.1, 0.7)).double()
    alone = [DiffStride(stride, 2, shared, aliasing=alpha).double() for alpha in (0.1, 0.7)]
    expected = torch.cat([pool(part) for pool, part in zip(alone, x.chunk(2, dim=1), strict=True)], 1)
    torch.testing.assert_close(pool(x), expected, rtol=0, atol=1e-12)


def test_half_filters_and_half_is_the_strided_convolution() -> None:
    conv, strided = StridedConv(3, 8, (3, 3), (1, 1)), StridedConv(3, 8, (3, 3), (3, 3))
    strided.load_state_dict(conv.state_dict())
    pool = DiffStride((3.75, 3.75), smoothness=1, aliasing=(0, 1))  # makes 5 samples of 15, which divides
    plain = DiffStride((3.75, 3.75), smoothness=1)
    x = torch.randn(2, 3, 15, 15)
    y = pool(conv(x))
    assert torch.equal(y[:, :4], plain(conv(x))[:, :4])
    torch.testing.assert_close(y[:, 4:], strided(x)[:, 4:], rtol=0, atol=2e-6)


def test_a_constant_stays_that_constant() -> None:
    for pool in pools(2, (0.1, 0.8)):
        y = pool(torch.full((1, 4, 40, 33), 1.5))
        torch.testing.assert_close(y, torch.full_like(y, 1.5))


@pytest.mark.parametrize(
    ("pool", "sizes"),
    [
        (DiffStride((1.7, 2.3), smoothness=1, aliasing=(0.3, 0.6)), (9, 8)),
        (DiffStride((3.9, 1.4), smoothness=1, aliasing=(0.3, 0.6)), (15, 7)),  # 15 to 5, 7 to 7
        (SpectralPool((2, 3), aliasing=(0.3, 0.6)), (8, 9)),  # 8 to 4, 9 to 3
    ],
    ids=["any sizes", "sizes that divide", "sizes that divide, fixed"],
)
def test_gradients_are_those_of_finite_differences(pool: nn.Module, sizes: tuple[int, int]) -> None:
    pool = pool.double()
    x = torch.randn(1, 2, *sizes, dtype=torch.float64, requires_grad=True)
    learned = dict(pool.named_parameters())

    def pooled(x, *values):
        return torch.func.functional_call(pool, dict(zip(learned, values, strict=True)), (x,))

    assert torch.autograd.gradcheck(pooled, (x, *learned.values()))


def test_groups_learn_apart_and_are_held_to_their_range() -> None:
    trunk = AudioCNN("diffstride", **NARROW, aliasing=(0, 1))
    groups = {group["name"]: group for group in parameter_groups(trunk, 1e-3, 1e-3, aliasing_lr=5.0)}
    assert [tuple(p.shape) for p in groups["aliasing"]["params"]] == [(2, 2), (2, 2)]
    trunk(torch.randn(4, 1, 60, 40)).square().sum().backward()
    gradients = torch.stack([p.grad for p in groups["aliasing"]["params"]])
    assert gradients.flatten().unique().numel() == 8
    torch.optim.Adam(list(groups.values())).step()
    clamp_strides_(trunk)
    alphas = torch.tensor(trunk.aliasing())
    assert alphas.shape == (2, 2, 2)
    assert alphas.min() >= 0
    assert alphas.max() <= 1


@pytest.mark.parametrize("pool_after_relu", [False, True])
def test_a_trunk_costs_what_runs_and_keeps_its_state(pool_after_relu: bool) -> None:
    trunk = AudioCNN("diffstride", **NARROW, aliasing=(0.1, 0.9), pool_after_relu=pool_after_relu).eval()
    x = torch.randn(2, 1, 100, 64)
    by_hand = 0  # every convolution at its input's resolution, and a matrix for each group of channels
    sizes = trunk.map_sizes(100, 64)
    for block, (time, mel), (less, fewer) in zip(trunk.separable_blocks, sizes, sizes[1:], strict=False):
        c_in, c_out = block.time_conv.conv.in_channels, block.mel_conv.conv.in_channels
        by_hand += mel * c_out * (3 * c_in * time + time * less) + less * c_out * (3 * c_out * mel + mel * fewer)
    assert model_cost(trunk, x[:1]).macs == by_hand
    check_state_is_kept(trunk, x)


def check_state_is_kept(trunk: AudioCNN | ResNet, x: Tensor) -> None:
    """Its settings and state make a trunk that gives the same, and so does freezing, with alphas of 0.1 and 0.9."""
    again, frozen = type(trunk)(**copy.deepcopy(trunk.settings)).eval(), copy.deepcopy(trunk)
    again.load_state_dict(trunk.state_dict())
    assert torch.equal(again(x), trunk(x))
    freeze_strides(frozen)
    torch.testing.assert_close(frozen(x), again(x), rtol=1e-4, atol=1e-4)
    assert torch.tensor(frozen.aliasing()) == pytest.approx(torch.tensor([[[0.1, 0.9]] * 2] * 2))


def test_a_residual_net_with_equal_groups_is_the_one_without_groups_and_keeps_its_state() -> None:
    small = {"downsampling": "diffstride", "channels": (4, 6), "blocks": (1, 1), "strides": (2, 2), "smoothness": 1}
    alike, single, trunk = (ResNet(**small, aliasing=alpha).eval() for alpha in ((0.3, 0.3), 0.3, (0.1, 0.9)))
    weights = {name: value for name, value in single.state_dict().items() if not name.endswith("pool.aliasing")}
    alike.load_state_dict(weights, strict=False)
    x = torch.randn(2, 1, 40, 33)
    torch.testing.assert_close(alike(x), single(x))
    assert model_cost(alike, x[:1]).macs == model_cost(single, x[:1]).macs
    check_state_is_kept(trunk, x)
    row = summarise([trunk_cutoffs(trunk, 100, 64, 100.0)])[0]
    assert row["folding"]["groups"] == pytest.approx([0.1, 0.9])


def test_cutoffs_state_the_mean_and_each_group_and_the_measured_response_is_theirs() -> None:
    trunk = AudioCNN("diffstride", **NARROW, aliasing=(0.1, 0.9), pool_after_relu=True)
    row = summarise([trunk_cutoffs(trunk, 100, 64, 100.0)])[0]
    assert row["folding"]["share"] == pytest.approx(0.5)
    assert row["folding"]["groups"] == pytest.approx([0.1, 0.9])
    assert folding_sentence(row).startswith("layer 1 folds 50 % (10 and 90 % in its 2 groups of channels) of what")
    responses = layer_responses(trunk, torch.randn(2, 1, 100, 64), 100.0)
    assert max(response.error for response in responses) < 1e-3
    assert responses[0].mask[-1] == pytest.approx(0.5)


def test_a_run_that_is_stopped_and_resumed_ends_as_one_that_was_not(tmp_path) -> None:
    def model() -> AudioClassifier:
        torch.manual_seed(SEED)
        trunk = AudioCNN("diffstride", (4, 4), ((2, 2), (2, 2)), 1, aliasing=(0, 1), pool_after_relu=True)
        return AudioClassifier(LogMel(n_mels=16), trunk, {"loud": 2, "third": 3}, window_s=0.2)

    def stop(step: int, *_: object) -> None:
        if step == 6:
            signal.raise_signal(signal.SIGTERM)

    train_small(model(), tmp_path / "whole")
    with pytest.raises(Interrupted):
        train_small(model(), tmp_path / "run", on_step=stop)
    train_small(model(), tmp_path / "run", resume=True)
    for name in ("steps.jsonl", "model.safetensors"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert load(tmp_path / "run").trunk.aliasing() != model().trunk.aliasing()


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # the compiler looks at all
def test_a_compiled_trunk_gives_the_same() -> None:
    trunk = AudioCNN("diffstride", **NARROW, aliasing=(0.2, 0.7))
    twin, x = copy.deepcopy(trunk), torch.randn(4, 1, 50, 32)
    torch._dynamo.reset()
    torch.testing.assert_close(torch.compile(trunk, backend="aot_eager")(x), twin(x))


def test_a_model_lists_the_alphas_of_its_groups() -> None:
    net = nn.Sequential(nn.Conv1d(1, 4, 3), DiffStride(2.0, aliasing=(0.25, 0.5)))
    assert model_aliasing(net) == [[[0.25, 0.5]]]
    assert "aliasing=[[0.25, 0.5]]" in repr(net)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DiffStride(2.0, aliasing=(0.5, 1.5)), "between 0 and 1, got"),
        (lambda: DiffStride(2.0, aliasing=()), "between 0 and 1, got"),
        (lambda: DiffStride(2.0, aliasing=(0, 1))(torch.zeros(1, 3, 20)), "3 channels cannot be split into 2"),
        (lambda: DiffStride(2.0, aliasing=(0, 1))(torch.zeros(20)), "1 channels cannot be split into 2"),
        (lambda: AudioCNN(channels=(6, 9), strides=((2, 2),) * 2, aliasing=(0, 1)), "9 channels cannot be split"),
        (lambda: AudioCNN("strided", aliasing=(0, 1)), "strided convolutions have no aliasing to learn"),
        (lambda: ResNet("diffstride", channels=(3, 4, 8, 8), aliasing=(0, 1)), "3 channels cannot be split into 2"),
        (lambda: WaveCNN("diffstride", aliasing=(0, 1)), "for AudioCNN and ResNet only"),
    ],
)
def test_arguments_out_of_range_are_refused_by_name(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
