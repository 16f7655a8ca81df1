"""Recipes are strict, and say what is wrong with what to do."""

import warnings
from pathlib import Path

import pytest

from audiostride.errors import RecipeError
from audiostride.training.recipe import dump_recipe, load_recipe
from audiostride.training.shipped_recipes import MAX_BYTES, shipped_recipes

MINIMAL = "name: mine\ntasks:\n  label: {data: {source: folder, path: sounds}}\n"


def written(folder: Path, text: str | bytes) -> str:
    path = folder / "mine.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def test_defaults_are_the_designs() -> None:
    recipe = load_recipe("folder", ["model={}", "train={}"])
    assert recipe.model.channels == [64, 128, 256, 256, 512, 512]
    assert recipe.model.smoothness == 4
    assert recipe.train.learning_rate == 1e-4
    assert recipe.frontend.f_max == 7800


@pytest.mark.parametrize("name", sorted(shipped_recipes()))
def test_every_shipped_recipe_is_valid_and_survives_a_round_trip(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert load_recipe(written(tmp_path, dump_recipe(recipe))) == recipe
    text = shipped_recipes()[name].read_text()
    assert text.startswith("# ")
    assert f"audiostride train {name}" in text


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.epoch=3", "train.epoch: no such key; did you mean 'epochs'?"),
        ("nam=x", "nam: no such key; did you mean 'name'?"),
        ("tasks.label.data.pth=x", "tasks.label.data.pth: no such key; did you mean 'path'?"),
        ("train.epochs=many", "train.epochs: input should be a valid integer, got 'many'"),
        ("train.epochs=1.5", "train.epochs: input should be a valid integer, got 1.5"),
        ("train.epochs=0", "train.epochs: input should be greater than or equal to 1, got 0"),
        ("train.epochs=no", "got 'no'"),
        ("model.shared_stride=yes", "valid boolean, got 'yes'"),
        ("model.downsampling=diffstrid", "got 'diffstrid'; did you mean 'diffstride'?"),
        ("tasks.label.data.source=foldr", "tasks.label.data.source: input should be one of 'folder', 'manifest',"),
        ("tasks.label.data.source=foldr", "got 'foldr'; did you mean 'folder'?"),
        ("tasks.label.data={path: x}", "tasks.label.data.source: is missing"),
        ("model.name=audio_resnt", "got 'audio_resnt'; did you mean 'audio_resnet'?"),
        ("model=audio_cnn", "model: input should be a mapping of keys to values, got 'audio_cnn'"),
        ("tasks.label.data=sounds", "tasks.label.data: input should be a mapping of keys to values, got 'sounds'"),
        ("model.channels=[1,x]", "model.channels.1"),
        ("model.aliasing=2", "model.aliasing: input should be less than or equal to 1, got 2"),
        ("model.aliasing=x", "model.aliasing: input should be a valid number, got 'x'"),
        ("tasks={}", "at least 1"),
        ("train.learning_rate=.inf", "train.learning_rate"),
        ("epochs", "an override is KEY=VALUE"),
        ("name.x=1", "'name' has no keys below it"),
        ("train.epochs={a: 1, a: 2}", "the key 'a' appears twice"),
    ],
)
def test_a_wrong_override_names_the_key_the_value_and_the_nearest(override: str, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe("folder", [override])
    assert message in str(caught.value)


def test_all_mistakes_are_reported_at_once() -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe("folder", ["train.epoch=3", "model.smoothness=0"])
    assert str(caught.value).count("\n") == 1


def test_a_value_that_may_be_of_several_kinds_is_explained_by_the_one_it_comes_nearest_to() -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe("folder", ["model.aliasing=[0,1.5]"])
    assert str(caught.value) == "folder: model.aliasing.1: input should be less than or equal to 1, got 1.5"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: &x 1\nb: *x\n", "aliases are not allowed"),
        ("a: " + "[" * 100_000 + "]" * 100_000, "nested deeper"),
        (MINIMAL + "name: again\n", "line 4: the key 'name' appears twice"),
        (MINIMAL + "1: x\n", "the key 1 is not text"),
        ("- a\n- b\n", "a mapping of keys"),
        ("", "a mapping of keys"),
        ("a: [1\n", "mine.yaml, line"),
        ("a: !!python/object/apply:os.system [ls]\n", "could not determine a constructor"),
        (b"\xff\xfe\x00", "not UTF-8"),
        ("x" * (MAX_BYTES + 1), "too large"),
    ],
)
def test_files_that_are_no_recipe_are_refused_with_their_name(tmp_path: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe(written(tmp_path, text))
    assert message in str(caught.value)
    assert "mine.yaml" in str(caught.value)


def test_numbers_are_those_of_yaml_1_2(tmp_path: Path) -> None:
    recipe = load_recipe(written(tmp_path, MINIMAL + "train: {learning_rate: 1e-3, weight_decay: 5e-3}\n"))
    assert recipe.train.learning_rate == 1e-3
    with pytest.raises(RecipeError, match="got '012'"):
        load_recipe(written(tmp_path, MINIMAL + "train: {epochs: 012}\n"))


def test_an_unknown_recipe_is_answered_with_the_nearest_and_the_list() -> None:
    with pytest.raises(RecipeError, match=r"did you mean 'ripples'\?.*folder"):
        load_recipe("riples")


@pytest.mark.parametrize("name", ["audio_cnn", "audio_resnet", "resnet"])
def test_the_defaults_of_every_trunk_are_written_without_a_warning(name: str) -> None:
    section = load_recipe("folder", ["tasks.label.data.path=DIR", f"model={{name: {name}}}"]).model
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert type(section).model_validate(section.model_dump()) == section
