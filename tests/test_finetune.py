"""Starting from a trained run: its trunk, strides and frontend, with new heads."""

import json

import pytest
import torch

from audiostride import create_model, load
from audiostride.errors import ModelFileError, RecipeError
from audiostride.models.image_frontend import ImageFrontend
from audiostride.training.recipe import load_recipe
from audiostride.training.run import run

SMALL = [
    "model.channels=[4,8]",
    "model.strides=[[2,2],[2,2]]",
    "train.workers=0",
    "train.epochs=1",
    "train.batch_size=16",
]


@pytest.fixture(scope="module")
def trained(tone_folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("trained")
    settings = [f"tasks.label.data.path={tone_folder}", "frontend.n_mels=40", *SMALL]
    run(load_recipe("folder", settings), out)
    return out


@pytest.mark.parametrize("linear_probe", [False, True])
def test_a_run_goes_on_from_another(trained, tone_folder, tmp_path, linear_probe):
    settings = [f"tasks.tone.data={{source: folder, path: {tone_folder}}}", f"model.init={trained}", "seed=1"]
    recipe = load_recipe("folder", [f"tasks.label.data.path={tone_folder}", *settings, "train.workers=0"])
    recipe = recipe.model_copy(update={"tasks": {"tone": recipe.tasks["tone"]}})
    recipe.train.epochs, recipe.train.batch_size, recipe.model.linear_probe = 1, 16, linear_probe
    run(recipe, tmp_path)
    before, after = load(trained), load(tmp_path)
    assert list(after.labels) == ["tone"]
    assert after.trunk.settings == before.trunk.settings
    assert after.frontend.settings == before.frontend.settings
    assert after.frontend.n_mels == 40
    same = [
        torch.equal(a, b)
        for a, b in zip(before.trunk.state_dict().values(), after.trunk.state_dict().values(), strict=True)
    ]
    assert all(same) if linear_probe else not any(same[:2])
    assert "n_mels: 40" in (tmp_path / "recipe.yaml").read_text()  # the resolved recipe tells what ran
    assert json.loads((tmp_path / "results.json").read_text())["strides"] == after.trunk.strides()


def test_what_cannot_be_started_from_is_an_error_before_any_work(tone_folder, tmp_path):
    settings = [f"tasks.label.data.path={tone_folder}", *SMALL]
    with pytest.raises(RecipeError, match=r"set model\.init"):
        run(load_recipe("folder", [*settings, "model.linear_probe=true"]), tmp_path / "a")
    with pytest.raises(ModelFileError, match="no such file"):
        run(load_recipe("folder", [*settings, "model.init=nowhere"]), tmp_path / "b")
    assert list(tmp_path.iterdir()) == []
    images = create_model("resnet18_strided", heads={"animal": 2}, in_channels=3, frontend=ImageFrontend(32))
    images.save(tmp_path / "images")
    with pytest.raises(RecipeError, match=r"model\.init: .*images does not fit this recipe"):
        run(load_recipe("folder", [*settings, f"model.init={tmp_path / 'images'}"]), tmp_path / "c")
