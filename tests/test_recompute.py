"""Facts about activation recomputation."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

import audiostride.layers.recomputation
import audiostride.models.audio_cnn
from audiostride import AudioCNN
from audiostride.layers.recomputation import norm_recomputably, remake_by, remake_of, save_remake


def gradients(trunk: AudioCNN, x: Tensor, bfloat16: bool = False) -> list[Tensor]:
    trunk.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        y = trunk(x)
    y.float().square().sum().backward()
    return [p.grad for p in trunk.parameters() if p.grad is not None]


def held_after_forward(trunk: AudioCNN, x: Tensor) -> int:
    trunk(x)  # makes the shared tables
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        y = trunk(x)
    assert y.requires_grad
    events = record.profiler.kineto_results.events()  # type: ignore[union-attr]
    return sum(e.nbytes() for e in events if e.name() == "[memory]")


@pytest.mark.parametrize("kind", ["spectral", "diffstride"])
@pytest.mark.parametrize("mode", ["training", "eval", "bfloat16"])
def test_a_trunk_learns_bit_for_bit_as_one_that_keeps_everything(
    kind: str, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    trunk = AudioCNN(kind, channels=(4, 8, 8, 8, 256, 256), smoothness=1)  # type: ignore[arg-type]
    trunk.train(mode != "eval")
    monkeypatch.setattr(audiostride.layers.recomputation, "KEPT_NUMBERS", 0)
    twin, x = copy.deepcopy(trunk), torch.randn(2, 1, 60, 40)
    ours = gradients(trunk, x, mode == "bfloat16")
    monkeypatch.setattr(audiostride.models.audio_cnn, "norm_recomputably", lambda norm, x: norm(x))
    for mine, theirs in zip(ours, gradients(twin, x, mode == "bfloat16"), strict=True):
        assert torch.equal(mine, theirs)
    for name, value in trunk.state_dict().items():  # running statistics count a batch once
        assert torch.equal(value, twin.state_dict()[name]), name


def test_it_holds_little_more_than_half(monkeypatch: pytest.MonkeyPatch) -> None:
    trunk, x = AudioCNN("diffstride", channels=(8, 16, 16), strides=((2, 2),) * 3), torch.randn(4, 1, 100, 64)
    monkeypatch.setattr(audiostride.layers.recomputation, "KEPT_NUMBERS", 0)
    ours = held_after_forward(trunk, x)
    monkeypatch.setattr(audiostride.models.audio_cnn, "norm_recomputably", lambda norm, x: norm(x))
    assert ours < 0.65 * held_after_forward(trunk, x)


def test_small_maps_a_norm_over_processes_and_other_norms_are_left_alone() -> None:
    x = torch.randn(5, 4, 125, 101, requires_grad=True)
    assert remake_of(norm_recomputably(nn.BatchNorm2d(4), x)) is not None
    assert remake_of(norm_recomputably(nn.BatchNorm2d(4), x[..., :100])) is None  # 250,000 numbers
    assert remake_of(norm_recomputably(nn.GroupNorm(2, 4), x)) is None
    assert remake_of(norm_recomputably(nn.SyncBatchNorm(4).eval(), x)) is None
    with torch.no_grad():
        assert remake_of(norm_recomputably(nn.BatchNorm2d(4), x)) is None


def test_only_the_tensor_itself_is_made_again() -> None:
    x, made = torch.randn(5, requires_grad=True), []
    doubled = remake_by(2 * x, lambda: made.append(1) or 2 * x.detach())  # type: ignore[func-returns-value]
    other = 3 * x
    with save_remake(doubled):
        y = doubled.square().sum() + doubled.view(5, 1).exp().sum() + other.square().sum()
    y.backward()
    assert len(made) == 1  # for the square; exp keeps its output
    assert x.grad is not None
    torch.testing.assert_close(x.grad, 8 * x + 2 * (2 * x).exp() + 18 * x)
