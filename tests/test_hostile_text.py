"""Recipes, tables and model headers from anywhere: read, or refused with our own error, in bounded time."""

import json
import os
import zipfile
from pathlib import Path

import fuzz
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from audiostride import AudioClassifier, AudioCNN, LogMel, load
from audiostride.data.download import extract
from audiostride.data.folder import read_folder
from audiostride.errors import AudiostrideError, DataError, ModelFileError, RecipeError
from audiostride.models.files import save_config
from audiostride.training.build import make_frontend, make_trunk
from audiostride.training.recipe import Recipe, load_recipe
from audiostride.training.shipped_recipes import shipped_recipes

_RELAXED = settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
_RECIPE = shipped_recipes()["ripples"].read_text()
_BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{','.join(['*' + chr(97 + i)] * 9)}]\n" for i in range(8)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (_BOMB, "aliases are not allowed"),
        ("a: " + "[" * 100_000 + "]" * 100_000, "nested deeper than 20"),
        ("- " * 100_000, "nested deeper than 20"),
        ("name: x\n" + "#" * 10_000_000, "too large for a recipe"),
        (_RECIPE + "name: twice\n", "the key 'name' appears twice"),
        (_RECIPE.replace("seed: 0", "seed: no"), "seed: .*got 'no'"),
        (_RECIPE.replace("seed: 0", "seed: 012"), "seed: .*got '012'"),
        (_RECIPE.replace("seed: 0", "seed: !!python/object/apply:os.system [ls]"), "could not determine a constructor"),
        (_RECIPE.replace("epochs: 6", "epochs: 1e400"), "epochs"),
        ("a: \x00", "not allowed"),
        ("", "a recipe is a mapping"),
        ("? [1, 2]\n: 3", "is not text"),
        ("a: 2001-99-99", "no such key"),
    ],
)
def test_a_hostile_recipe_is_refused_by_name(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError, match=message) as caught:
        load_recipe(str(path))
    assert len(str(caught.value)) < 3000


def test_numbers_are_read_as_yaml_1_2_writes_them(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(_RECIPE.replace("learning_rate: 2.0e-3", "learning_rate: 1e-3"))
    assert load_recipe(str(path)).train.learning_rate == 0.001


@_RELAXED
@given(st.one_of(st.text(max_size=300), st.binary(max_size=300).map(lambda b: b.decode("latin-1"))))
def test_any_text_is_a_recipe_or_a_recipe_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text, errors="replace", newline="")
    with pytest.raises(RecipeError):
        load_recipe(str(path))  # none of these is a whole recipe


@_RELAXED
@given(st.data())
def test_any_change_of_a_recipe_is_read_or_refused_with_our_own_error(tmp_path: Path, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(_RECIPE)))
    piece = data.draw(st.text(st.characters(codec="utf-8"), max_size=8))
    cut = data.draw(st.integers(0, 12))
    path = tmp_path / "recipe.yaml"
    path.write_text(_RECIPE[:place] + piece + _RECIPE[place + cut :], newline="")
    try:
        assert isinstance(load_recipe(str(path)), Recipe)
    except RecipeError as error:
        assert str(error)  # noqa: PT017 (either outcome is right)


@_RELAXED
@given(st.one_of(st.binary(max_size=200), st.text(max_size=200).map(str.encode)), st.booleans())
def test_any_table_of_clips_is_read_or_refused_by_name(tmp_path: Path, content: bytes, header: bool) -> None:
    (tmp_path / "metadata.csv").write_bytes(b"file_name,label\n" * header + content)
    try:
        assert len(read_folder(tmp_path)) > 0
    except DataError as error:
        assert str(tmp_path) in str(error)  # noqa: PT017 (either outcome is right)


@_RELAXED
@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=5), lambda v: st.lists(v, max_size=3)))
def test_any_value_in_a_model_s_config_is_refused_by_name(tmp_path: Path, value: object) -> None:
    model = AudioClassifier(LogMel(), AudioCNN("strided", (2,), ((2, 2),)), {"word": 2})
    model.save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    for key in ("model", "frontend", "tasks", "window_s", "format", "weights_sha256"):
        (tmp_path / "config.json").write_text(json.dumps(config | {key: value}))
        with pytest.raises(ModelFileError, match=r"config\.json|model\.safetensors"):
            load(tmp_path)


@pytest.mark.parametrize("target", fuzz.TARGETS)
def test_the_fuzzer_begins_with_files_that_are_read(target: str) -> None:
    read = [fuzz.try_input(target, seed) for seed in fuzz.seeds(target)]
    assert sum(read) >= len(read) - 1  # one of each may be hostile


@pytest.mark.filterwarnings("ignore::audiostride.errors.DataWarning")
@_RELAXED
@given(st.data())
def test_any_change_of_any_file_is_read_or_refused_with_our_own_error(data: st.DataObject) -> None:
    target = data.draw(st.sampled_from(sorted(fuzz.TARGETS)))
    content = data.draw(st.sampled_from(list(fuzz.seeds(target))))
    place = data.draw(st.integers(0, len(content)))
    piece = data.draw(st.one_of(st.binary(max_size=8), st.sampled_from(fuzz.TOKENS)))
    fuzz.try_input(target, content[:place] + piece + content[place + data.draw(st.integers(0, 12)) :])


def test_a_zip_whose_members_lie_before_its_beginning_is_named(tmp_path: Path) -> None:
    """Found by hypothesis: with a byte cut away, seeking to a member is an OSError of the system."""
    zipped = next(seed for seed in fuzz.seeds("archive") if seed.startswith(b"PK"))
    (tmp_path / "cut.zip").write_bytes(zipped[1:])
    with pytest.raises(DataError, match=r"cut\.zip: is not a valid tar or zip archive"):
        extract(tmp_path / "cut.zip", tmp_path / "out")


def test_a_zip_with_a_member_without_a_name_is_named(tmp_path: Path) -> None:
    """Found by the fuzzer, as an IndexError of zipfile."""
    with zipfile.ZipFile(tmp_path / "nameless.zip", "w") as zipped:
        zipped.writestr("x", b"content")
    content = (tmp_path / "nameless.zip").read_bytes().replace(b"x", b"\0")  # a name ends at a null byte
    (tmp_path / "nameless.zip").write_bytes(content)
    with pytest.raises(DataError, match=r"nameless\.zip: is not a valid tar or zip archive"):
        extract(tmp_path / "nameless.zip", tmp_path / "out")


@pytest.mark.parametrize("length", [11, 12])
def test_a_gzip_cut_in_its_extra_field_is_named(tmp_path: Path, length: int) -> None:
    """Found by the fuzzer, as a TypeError of tarfile."""
    header = b"\x1f\x8b\x08\x04" + bytes(6) + b"\x05\x00"
    (tmp_path / "cut.tar.gz").write_bytes(header[:length])
    with pytest.raises(DataError, match=r"cut\.tar\.gz: is not a valid tar or zip archive"):
        extract(tmp_path / "cut.tar.gz", tmp_path / "out")


def _saved(folder: Path, **changes: object) -> Path:
    """A model whose config says something else, with right checksums."""
    AudioClassifier(LogMel(), AudioCNN("strided", (2,), ((2, 2),)), {"word": 2}).save(folder)
    config = json.loads((folder / "config.json").read_text())
    for section, change in changes.items():
        merge = isinstance(change, dict) and "name" not in change
        config[section] = {**config[section], **change} if merge else change
    save_config(folder / "config.json", config, (folder / "model.safetensors").read_bytes())
    return folder


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": {"channels": [10**9]}}, "more than the .* weights it may have"),
        ({"model": {"channels": [10**5] * 50, "strides": [[2, 2]] * 50}}, "more than the .* weights it may have"),
        (
            {"model": {"name": "resnet", "blocks": [10**9], "channels": [1], "strides": [2]}},
            "more than the .* weights it may have",
        ),
        (
            {"model": {"name": "wave_cnn", "channels": [4], "kernel_sizes": [10**12 + 1], "strides": [2]}},
            r"kernel_sizes is \[1000000000001\], which is beyond",
        ),
        ({"frontend": {"n_fft": 10**9}}, "n_mels=64 bands of n_fft=1000000000 are too many"),
        ({"frontend": {"n_mels": 10**9}}, "n_mels=1000000000 bands of n_fft=512 are too many"),
        ({"window_s": 1e9}, "must be a window of 1 to"),
        ({"window_s": float("nan")}, "window_s is nan: Input should be a finite number"),
        (
            {"tasks": {"word": {"kind": "multiclass", "labels": 10**9}}},
            "labels of task 'word' are not a list of strings",
        ),
        ({"tasks": {"word": {"kind": "guess", "labels": ["a", "b"]}}}, "unknown kind 'guess'"),
        ({"tasks": {"train": {"kind": "binary", "labels": ["a", "b"]}}}, "a task cannot be named 'train'"),
    ],
)
def test_a_model_s_config_cannot_ask_for_more_than_there_is(tmp_path: Path, changes: dict, message: str) -> None:
    with pytest.raises(ModelFileError, match=message):
        load(_saved(tmp_path, **changes))


def test_a_config_that_is_too_large_or_no_file_is_not_read(tmp_path: Path) -> None:
    _saved(tmp_path)
    with (tmp_path / "config.json").open("wb") as file:
        file.truncate(2**40)  # sparse: it takes no room on the disk
    with pytest.raises(ModelFileError, match="more than the limit of 16,777,216"):
        load(tmp_path)
    (tmp_path / "config.json").unlink()
    os.mkfifo(tmp_path / "config.json")
    with pytest.raises(ModelFileError, match=r"config\.json: is not a file"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.channels=[1000000000,1,1]", "less than or equal to 65536"),
        ("model.channels=[65536,65536,65536]", "model: more than the 2,147,483,648 weights it may have"),
        ("frontend.n_fft=1000000000", "less than or equal to 1048576"),
        ("frontend={n_fft: 1048576, n_mels: 16384}", "n_mels=16384 bands of n_fft=1048576 are too many"),
    ],
)
def test_a_recipe_cannot_ask_for_more_than_any_machine_has(override: str, message: str) -> None:
    def make() -> None:
        recipe = load_recipe("ripples", ["model.strides=[[2,2],[2,2],[2,2]]", "model.channels=[4,4,4]", override])
        make_frontend(recipe)
        make_trunk(recipe)

    with pytest.raises(RecipeError, match=message):
        make()


def test_a_pickle_is_never_opened(tmp_path: Path) -> None:
    model = AudioClassifier(LogMel(), AudioCNN("strided", (2,), ((2, 2),)), {"word": 2})
    model.save(tmp_path)
    torch.save(model.state_dict(), tmp_path / "model.safetensors")
    with pytest.raises(AudiostrideError, match=r"model\.safetensors"):
        load(tmp_path)
