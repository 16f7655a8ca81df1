"""The networks and settings of the paper's appendix: counts that are published, and a few steps from each recipe."""

import numpy as np
import pytest
import torch
from PIL import Image

from audiostride import AudioClassifier, DiffStride, clamp_strides_, load
from audiostride.errors import RecipeError
from audiostride.models.converted import ConvertedTrunk
from audiostride.models.cost import count_parameters
from audiostride.models.image_frontend import ImageFrontend
from audiostride.models.image_nets import DenseNetBC, EfficientNetB0
from audiostride.training.build import make_trunk
from audiostride.training.recipe import load_recipe
from audiostride.training.run import run
from audiostride.training.summary import summarise

APPENDIX = {"cifar10_random_strides": 3, "cifar10_densenet": 2, "cifar10_efficientnet": 7}
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
@pytest.mark.parametrize("name", APPENDIX)
def test_each_recipe_trains_some_steps(name, images, tmp_path):
    recipe = load_recipe(name, [f"tasks.label.data.path={images}", "train.epochs=2", *SMALL])
    initial, learned = make_trunk(recipe).strides(), run(recipe, tmp_path / "run")["strides"]
    assert load(tmp_path / "run").trunk.strides() == learned
    assert len(initial) == len(learned) == APPENDIX[name]
    assert initial != learned
    assert np.isfinite(learned).all()
    assert np.min(learned) >= 1
    if recipe.train.highest_stride:
        assert np.max(learned) <= recipe.train.highest_stride


def test_random_strides_are_those_of_the_seed():
    starts = [make_trunk(load_recipe("cifar10_random_strides", [f"seed={seed}"])).strides() for seed in (0, 0, 1)]
    assert starts[0] == starts[1] != starts[2]
    assert all(1 <= stride <= 3 for start in starts for place in start for stride in place)


def test_a_run_says_what_was_drawn_and_its_model_starts_there(images, tmp_path):
    small = ["model.channels=[4,4,4,4]", "train.epochs=1", "train.stride_learning_rate=1e-9", "published={}"]
    recipes, found = [], []
    for seed in (0, 1):
        settings = [f"tasks.label.data.path={images}", f"seed={seed}", *SMALL, *small]
        recipes.append(load_recipe("cifar10_random_strides", settings))
        found.append(run(recipes[-1], tmp_path / f"{seed}"))
        drawn = found[-1]["initial_strides"]
        assert load(tmp_path / f"{seed}").trunk.settings["strides"] == drawn
        np.testing.assert_allclose(found[-1]["strides"], drawn, rtol=1e-5)
    (row,) = summarise(zip(recipes, found, strict=True))
    assert (row["initial_strides"], row["n"]) == ("random 1 to 3", 2)


def test_a_published_score_is_of_given_strides_not_of_drawn_ones():
    settings = ["published={diffstride 2 2 2: 94.0}"]
    assert load_recipe("cifar10_random_strides", settings).published_score() is None
    assert load_recipe("cifar10_random_strides", [*settings, "model.random_strides=null"]).published_score() == 94


def test_a_place_without_a_stride_draws_none():
    settings = ["model.strides=[2,null,2,2]", "model.shared_stride=true"]
    trunk = make_trunk(load_recipe("cifar10_random_strides", settings))
    assert [pair is None for pair in trunk.settings["strides"]] == [False, True, False, False]
    assert all(height == width for height, width in trunk.strides())


def test_the_highest_stride_of_a_recipe_holds_the_learned_ones(images, tmp_path):
    small = ["model.channels=[4,4,4,4]", "model.strides=[3,3,3]", "model.random_strides=null", "train.epochs=1"]
    small += [f"tasks.label.data.path={images}", "train.highest_stride=1.5", "train.stride_learning_rate=1e-9"]
    learned = run(load_recipe("cifar10_random_strides", [*SMALL, *small]), tmp_path)["strides"]
    np.testing.assert_allclose(learned, 1.5, rtol=1e-6)


@pytest.mark.parametrize("network", ["efficientnet_b0", "densenet_bc"])
@pytest.mark.parametrize(
    "settings", [{"downsampling": "strided"}, {"strides": 1.5}, {"downsampling": "spectral", "aliasing": 0.25}], ids=str
)
def test_a_saved_network_is_the_one_that_is_loaded(network, settings, tmp_path):
    torch.manual_seed(0)
    trunk = ConvertedTrunk(network, smoothness=1, **settings)
    model = AudioClassifier(ImageFrontend(32), trunk, {"label": 3}).eval()
    model.save(tmp_path)
    again = load(tmp_path)
    assert again.config() == model.config()
    pixels = torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8)
    assert torch.equal(again(pixels)["label"], model(pixels)["label"])
    assert torch.equal(model.block_features(pixels)[-1], model.forward_features(pixels))
    alphas = trunk.aliasing()
    assert alphas is None if "aliasing" not in settings else alphas == [[0.25, 0.25]] * len(trunk.strides())


@pytest.mark.parametrize("network", ["efficientnet_b0", "densenet_bc"])
def test_all_kinds_have_the_same_places_and_map_sizes_follow_from_the_strides(network):
    strided = ConvertedTrunk(network, "strided")
    sizes = strided.map_sizes(64, 32)
    for before, after, stride in zip(sizes[:-1], sizes[1:], strided.strides(), strict=True):
        assert after == tuple(-(-n // int(s)) for n, s in zip(before, stride, strict=True))
    assert ConvertedTrunk(network, "spectral").strides() == ConvertedTrunk(network).strides() == strided.strides()
    still = ConvertedTrunk(network, strides=1.0)
    assert still.map_sizes(64, 32) == sizes[:1] * len(sizes)


def test_the_network_as_it_is_keeps_its_strides_and_takes_no_others():
    net = ConvertedTrunk("densenet_bc", "strided")
    assert net.strides() == [[2.0, 2.0], [2.0, 2.0]]
    with pytest.raises(ValueError, match="strided downsampling keeps the network's own strides"):
        ConvertedTrunk("densenet_bc", "strided", strides=3)
    with pytest.raises(ValueError, match="network must be efficientnet_b0 or densenet_bc, got 'vgg'"):
        ConvertedTrunk("vgg")
    with pytest.raises(RecipeError, match="strides"):
        load_recipe("cifar10_densenet", ["model.strides=[0.5,2]"])
    with pytest.raises(RecipeError, match=r"model: random strides need 1 <= low <= high, got 3\.0 and 2\.0"):
        make_trunk(load_recipe("cifar10_densenet", ["model.random_strides={low: 3, high: 2}"]))


def test_strides_are_held_to_the_highest_where_one_is_given():
    pool = DiffStride((3.0, 1.5))
    pool(torch.zeros(1, 32, 32))
    clamp_strides_(pool, highest=2.0)
    assert pool.strides() == [2.0, 1.5]
