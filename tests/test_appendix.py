"""The networks of the paper's appendix: counts that are published, and a few steps from each recipe."""

import itertools
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from audiostride import AudioClassifier, CustomTrunk, DiffStride, clamp_strides_, load
from audiostride.layers.strides import pooling_layers
from audiostride.models.cost import count_parameters
from audiostride.models.image_frontend import ImageFrontend
from audiostride.training.build import make_trunk
from audiostride.training.recipe import load_recipe
from audiostride.training.run import run

sys.path.append(str(Path(__file__).parents[1]))

from benchmarks.appendix import ConvertedTrunk, DenseNetBC, EfficientNetB0

RECIPES = Path(__file__).parents[1] / "benchmarks" / "recipes"
LEARNED = {"cifar10_random_strides": 3, "cifar10_densenet": 2, "cifar10_efficientnet": 7}
"""Learned places of each recipe."""

SMALL = ["sweep={}", "train.batch_size=4", "train.workers=0", "train.drop_epochs=[]", "train.schedule=constant"]


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Eight random pictures of 32 x 32 to train on, four to test."""
    folder, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for split, n in (("train", 4), ("test", 2)):
        for name in ("a", "b"):
            (folder / split / name).mkdir(parents=True)
            for i in range(n):
                picture = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(picture).save(folder / split / name / f"{i}.png")
    return folder


def test_the_networks_have_their_published_numbers_of_parameters():
    assert count_parameters(EfficientNetB0()) + 1280 * 1000 + 1000 == 5_288_548
    assert count_parameters(DenseNetBC()) + 342 * 10 + 10 == 769_162  # L = 100, k = 12
    assert count_parameters(DenseNetBC((6, 12, 24, 16), 32, "imagenet")) + 1024 * 1000 + 1000 == 7_978_856


@pytest.mark.slow
@pytest.mark.parametrize("name", LEARNED)
def test_each_recipe_trains_some_steps(name, images, tmp_path, monkeypatch):
    monkeypatch.chdir(RECIPES.parents[1])
    recipe = load_recipe(RECIPES / f"{name}.yaml", [f"tasks.label.data.path={images}", "train.epochs=2", *SMALL])
    initial, learned = make_trunk(recipe).strides(), run(recipe, tmp_path / "run")["strides"]
    assert load(tmp_path / "run").trunk.strides() == learned
    assert len(initial) == len(learned) == LEARNED[name]
    assert initial != learned
    assert np.isfinite(learned).all()
    assert np.min(learned) >= 1
    if recipe.train.highest_stride:
        assert np.max(learned) <= recipe.train.highest_stride


@pytest.mark.parametrize("name", LEARNED)
def test_each_recipe_is_a_sweep_over_kinds_and_drawn_strides(name, monkeypatch):
    monkeypatch.chdir(RECIPES.parents[1])
    recipe = load_recipe(RECIPES / f"{name}.yaml")
    runs = [load_recipe(RECIPES / f"{name}.yaml", ["sweep={}", *settings]) for settings in combinations(recipe.sweep)]
    assert len(runs) == 6
    trunks = [make_trunk(one) for one in runs]
    pools = [tuple(tuple(np.round(pool.strides(), 5)) for pool in pooling_layers(trunk)) for trunk in trunks]
    assert pools[:3] == pools[3:]  # spectral pooling has the strides that DiffStride starts from
    assert len(set(pools)) == (1 if name == "cifar10_efficientnet" else 3)
    assert all(1 <= stride <= 3 for place in pools for pair in place for stride in pair)


def combinations(sweep):
    values = itertools.product(*sweep.values())
    return [[f"{key}={value}" for key, value in zip(sweep, own, strict=True)] for own in values]


def test_the_highest_stride_of_a_recipe_holds_the_learned_ones(images, tmp_path):
    small = ["model.channels=[4,4,4,4]", "model.strides=[3,3,3]", "train.epochs=1"]
    small += [f"tasks.label.data.path={images}", "train.highest_stride=1.5", "train.stride_learning_rate=1e-9"]
    learned = run(load_recipe("cifar10", [*SMALL, *small]), tmp_path)["strides"]
    np.testing.assert_allclose(learned, 1.5, rtol=1e-6)


@pytest.mark.parametrize("network", ["efficientnet_b0", "densenet_bc"])
@pytest.mark.parametrize(
    "settings", [{"downsampling": "strided"}, {"strides": 1.5}, {"downsampling": "spectral", "aliasing": 0.25}], ids=str
)
def test_a_saved_network_is_the_one_that_is_loaded(network, settings, tmp_path, monkeypatch):
    monkeypatch.chdir(RECIPES.parents[1])
    torch.manual_seed(0)
    trunk = CustomTrunk("benchmarks.appendix:ConvertedTrunk", {"network": network, "smoothness": 1} | settings)
    model = AudioClassifier(ImageFrontend(32), trunk, {"label": 3}).eval()
    model.save(tmp_path)
    again = load(tmp_path)
    assert again.config() == model.config()
    pixels = torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8)
    assert torch.equal(again(pixels)["label"], model(pixels)["label"])
    assert torch.equal(model.block_features(pixels)[-1], model.forward_features(pixels))
    alphas = trunk.aliasing()
    assert alphas is None if "aliasing" not in settings else {tuple(pair) for pair in alphas} == {(0.25, 0.25)}


def test_the_network_as_it_is_keeps_its_strides_and_takes_no_others():
    with pytest.raises(ValueError, match="strided downsampling keeps the network's own strides"):
        ConvertedTrunk("densenet_bc", "strided", strides=3)
    with pytest.raises(ValueError, match="network must be efficientnet_b0 or densenet_bc, got 'vgg'"):
        ConvertedTrunk("vgg")
    with pytest.raises(ValueError, match="random strides need 1 <= low <= high, got 3 and 2"):
        ConvertedTrunk("densenet_bc", strides={"low": 3, "high": 2})


def test_strides_are_held_to_the_highest_where_one_is_given():
    pool = DiffStride((3.0, 1.5))
    pool(torch.zeros(1, 32, 32))
    clamp_strides_(pool, highest=2.0)
    assert pool.strides() == [2.0, 1.5]
