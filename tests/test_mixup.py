"""Mixup: shares, pairs and labels; between-class mixing by what is heard."""

import numpy as np
import pytest
import torch

from audiostride.data.augment import Augmentation
from audiostride.data.batches import LabelledClips, training_batches
from audiostride.data.clips import ArrayClips
from audiostride.data.mixup import audible_mix, mix_pairs
from audiostride.errors import RecipeError
from audiostride.training.recipe import load_recipe
from conftest import tone


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def mixed_units(n: int, alpha: float, seed: int = 0) -> torch.Tensor:
    """Unit vectors mixed: row i holds the shares of its clips."""
    return mix_pairs(torch.eye(n), {}, {}, alpha, rng(seed))[0]


def test_every_task_mixes_its_labels_as_the_sounds_are_mixed() -> None:
    several = (torch.arange(18).view(6, 3) % 2).float()
    labels = {"family": torch.arange(6) % 3, "pitch": torch.arange(6), "tags": several}
    shares, soft = mix_pairs(torch.eye(6), labels, {"family": 3, "pitch": 6, "tags": 3}, 1.0, rng(3))
    torch.testing.assert_close(soft["pitch"], shares)
    torch.testing.assert_close(soft["family"], shares @ torch.eye(3)[labels["family"]])
    torch.testing.assert_close(soft["tags"], shares @ several)


@pytest.mark.parametrize("n", [2, 3, 16])
def test_each_clip_meets_one_other_and_is_met_once(n: int) -> None:
    for seed in range(20):
        met = (mixed_units(n, 1.0, seed) > 0).float()
        assert (met.diagonal() == 1).all()
        assert (met.sum(0) == 2).all()
        assert (met.sum(1) == 2).all()


def test_a_share_is_drawn_for_each_pair_from_the_beta_distribution() -> None:
    for alpha in (0.3, 1.0, 4.0):
        share = mixed_units(4000, alpha).diagonal()
        assert len(share.unique()) > 3900
        assert share.mean().item() == pytest.approx(0.5, abs=0.03)
        assert share.var().item() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.1)


def test_a_batch_of_one_clip_stays_as_it_is() -> None:
    waveform, labels = torch.randn(1, 100), {"a": torch.tensor([1])}
    mixed, soft = mix_pairs(waveform, labels, {"a": 3}, 1.0, rng())
    torch.testing.assert_close(mixed, waveform)
    assert soft["a"].tolist() == [[0.0, 1.0, 0.0]]


def test_images_mix_pixel_by_pixel() -> None:
    views = torch.full((2, 4, 4, 3), 200, dtype=torch.uint8)
    views[1] = 100
    mixed, soft = mix_pairs(views, {"a": torch.tensor([0, 1])}, {"a": 2}, 1.0, rng())
    for view, share in zip(mixed, soft["a"][:, 0], strict=True):
        torch.testing.assert_close(view, torch.full((4, 4, 3), float(100 + 100 * share)))


@pytest.mark.parametrize("level_db", [-60.0, -20.0, 0.0, 30.0])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_the_amplitudes_that_are_heard_are_as_the_labels_say(level_db: float, share: float) -> None:
    low, high = torch.from_numpy(tone(440)), torch.from_numpy(tone(3000) * 10 ** (level_db / 20)).float()
    mixed = audible_mix(low[None], high[None], torch.tensor([share]))[0]
    spectrum = torch.fft.rfft(mixed.double()).abs()
    assert float(spectrum[440] / spectrum[3000]) == pytest.approx(share / (1 - share), rel=1e-4)


def test_sounds_of_one_level_keep_it() -> None:
    low, high = (torch.from_numpy(tone(hz))[None] for hz in (440, 3000))
    for share in (0.0, 0.2, 0.5, 1.0):
        mixed = audible_mix(low, high, torch.tensor([share]))
        assert float(mixed.square().mean()) == pytest.approx(float(low.square().mean()), rel=1e-4)


def test_beside_silence_a_sound_is_still_heard() -> None:
    sound, silence = torch.from_numpy(tone(440))[None], torch.zeros(1, 16000)
    share = torch.tensor([0.25])
    expected = 0.25 / (0.25**2 + 0.75**2) ** 0.5
    torch.testing.assert_close(audible_mix(sound, silence, share), expected * sound)
    torch.testing.assert_close(audible_mix(silence, sound, 1 - share), expected * sound)
    assert not audible_mix(silence, silence, share).any()


def test_a_training_batch_is_mixed_by_what_is_heard() -> None:
    waveforms = np.stack([tone(1000 + 500 * i) * 10.0 ** (-i / 2) for i in range(4)]).astype(np.float32)
    clips = ArrayClips([str(i) for i in range(4)], {}, [""] * 4, waveforms=waveforms)
    data = [LabelledClips(clips, {"pitch": np.arange(4)}, ["train"] * 4, {"pitch": 4})]
    ways = Augmentation(mixup=1.0, between_class=True)
    (batch,) = training_batches(data, 16000, 16000, 4, "uniform", 0, 0, 0, ways)
    bins = torch.fft.rfft(batch.waveform.double()).abs()[:, 1000:3000:500]
    torch.testing.assert_close((bins / bins.sum(1, keepdim=True)).float(), batch.labels["pitch"], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("recipe", "override", "message"),
    [
        ("folder", "augment.between_class=true", "augment.between_class: is a way of mixing; set augment.mixup too"),
        ("folder", "augment={mixup: 1.0, between_class: 3}", "augment.between_class: input should be a valid boolean"),
        ("cifar10", "augment={mixup: 1.0, between_class: true}", "augment.between_class is for sounds"),
    ],
)
def test_what_cannot_be_mixed_names_the_key(recipe: str, override: str, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe(recipe, [override])
    assert message in str(caught.value)
