"""The networks and settings of the paper's appendix: counts that are published, and a few steps from each recipe."""

import numpy as np
import pytest
import torch
from audiostride.training.image_recipe import load_image_recipe
from audiostride.training.image_run import run_images
from PIL import Image

from audiostride import DiffStride, clamp_strides_
from audiostride.errors import RecipeError
from audiostride.models.converted import ConvertedTrunk
from audiostride.models.cost import count_parameters
from audiostride.models.image_nets import DenseNetBC, EfficientNetB0

APPENDIX = {"cifar10_random_strides": 3, "cifar10_densenet": 2, "cifar10_efficientnet": 7}
"""Learned places of each recipe."""


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
@pytest.mark.parametrize("name", APPENDIX)
def test_each_recipe_trains_some_steps(name, images, tmp_path):
    small = ["sweep={}", "train.epochs=2", "train.batch_size=4", "train.workers=0", "train.drop_epochs=[]"]
    recipe = load_image_recipe(name, [f"data.path={images}", *small])
    (result,) = run_images(recipe, tmp_path / "run")
    initial, learned = result["initial_strides"], result["strides"]
    assert len(initial) == len(learned) == APPENDIX[name]
    assert initial != learned
    assert np.isfinite(learned).all()
    assert np.min(learned) >= 1
    if recipe.train.highest_stride:
        assert np.max(learned) <= recipe.train.highest_stride


def test_random_strides_are_those_of_the_seed(images, tmp_path):
    small = ["sweep={}", "train.epochs=1", "train.batch_size=4", "model.channels=[4,4,4,4]", "train.drop_epochs=[]"]
    starts = []
    for seed in (0, 1):
        recipe = load_image_recipe("cifar10_random_strides", [f"data.path={images}", f"seed={seed}", *small])
        starts += [result["initial_strides"] for result in run_images(recipe, tmp_path / f"{seed}")]
    assert starts[0] != starts[1]
    assert all(1 <= stride <= 3 for start in starts for place in start for stride in place)


def test_the_network_as_it_is_keeps_its_strides_and_takes_no_others():
    net = ConvertedTrunk("densenet_bc", "strided")
    assert net.strides() == [[2.0, 2.0], [2.0, 2.0]]
    with pytest.raises(ValueError, match="strided downsampling keeps the network's own strides"):
        ConvertedTrunk("densenet_bc", "strided", strides=3)
    with pytest.raises(ValueError, match="name must be efficientnet_b0 or densenet_bc, got 'vgg'"):
        ConvertedTrunk("vgg")
    with pytest.raises(RecipeError, match="strides"):
        load_image_recipe("cifar10_densenet", ["data.path=x", "model.strides=[0.5,2]"])


def test_strides_are_held_to_the_highest_where_one_is_given():
    pool = DiffStride((3.0, 1.5))
    pool(torch.zeros(1, 32, 32))
    clamp_strides_(pool, highest=2.0)
    assert pool.strides() == [2.0, 1.5]
