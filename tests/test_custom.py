"""Trunks and frontends of the user's own: by the name of their class, through files, recipes and every command."""

import json
import os
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from audiostride import AudioClassifier, AudioCNN, CustomFrontend, CustomTrunk, LogMel, load
from audiostride.cli import app
from audiostride.errors import ModelFileError, RecipeError, UsageError
from audiostride.models.cost import cost_per_second
from audiostride.models.cutoffs import model_cutoffs, why_no_cutoffs
from audiostride.models.model_card import model_card
from audiostride.training.build import make_network
from audiostride.training.recipe import dump_recipe, load_recipe
from audiostride.training.report import Report
from audiostride.training.run import run

NETS = """
import torch
from torch import nn
from audiostride import DiffStride, LogMel

def function(**_):
    raise AssertionError("was called")

class Net(nn.Module):
    def __init__(self, width=4):
        super().__init__()
        self.num_features = width
        self.layers = nn.Sequential(
            nn.Conv2d(1, width, 3, 2, 1), nn.BatchNorm2d(width), nn.ReLU(), DiffStride((2, 2), smoothness=1),
            nn.Dropout(0.1),
        )
    def forward(self, x):
        return self.layers(x).mean((-2, -1))

class NoFeatures(nn.Module):
    pass

class WrongLength(Net):
    def forward(self, x):
        return super().forward(x)[:, 1:]

class Fails(Net):
    def forward(self, x):
        return x @ torch.ones(3)

class Mel(nn.Module):
    def __init__(self, bands):
        super().__init__()
        self.mel, self.hop_length, self.n_mels, self.sample_rate = LogMel(n_mels=bands), 160, bands, 16000
    def forward(self, waveform):
        return self.mel(waveform)

class OneLength(Net):
    def forward(self, x):
        return super().forward(x.reshape(len(x), 1, 100, 64))
"""


@pytest.fixture
def nets(tmp_path, monkeypatch, request):
    """A module in the working directory under a name that no other test has; returns the name."""
    name = "nets_of_" + request.node.name.partition("[")[0]
    (tmp_path / f"{name}.py").write_text(NETS)
    monkeypatch.chdir(tmp_path)
    yield name
    sys.modules.pop(name, None)


def recipe(tone_folder, trunk, *settings):
    return load_recipe(
        "folder",
        [
            f"tasks.label.data.path={tone_folder}",
            f"model={{name: custom, trunk: '{trunk}'}}",
            "train.epochs=2",
            "train.batch_size=16",
            "train.workers=0",
            *settings,
        ],
    )


def test_a_network_of_ones_own_trains_resumes_and_comes_back_from_disk(nets, tone_folder, tmp_path):
    mine = recipe(tone_folder, f"{nets}:Net", "model.settings={width: 6}")
    assert load_recipe_text(dump_recipe(mine), tmp_path) == mine
    results = run(mine, tmp_path / "straight")
    assert results["strides"][0][0] != 2.0  # its DiffStride learned
    assert results["macs_per_second"] == 50 * 32 * 9 * 6 + pooling_macs(results["strides"][0], 6)
    half = recipe(tone_folder, f"{nets}:Net", "model.settings={width: 6}", "train.checkpoint_steps=1")
    with pytest.raises(KeyboardInterrupt):
        run(half, tmp_path / "stopped", Report(on_step=stop_after(2)))
    run(mine, tmp_path / "stopped", Report(notify=lambda _: None), resume=True)
    lines = [(tmp_path / name / "steps.jsonl").read_text() for name in ("straight", "stopped")]
    assert lines[0] == lines[1]
    waveform = torch.randn(2, 16000)
    first, second = load(tmp_path / "straight"), load(tmp_path / "stopped")
    assert torch.equal(first(waveform)["label"], second(waveform)["label"])
    assert first.trunk.settings == {"trunk": f"{nets}:Net", "settings": {"width": 6}}


def stop_after(n):
    def on_step(step, *_):
        if step == n:
            raise KeyboardInterrupt

    return on_step


def pooling_macs(strides, width):
    from audiostride.layers.spectrum import diffstride_crop

    time, mel = (diffstride_crop(n, stride, 1).m for n, stride in ((50, strides[0]), (32, strides[1])))
    return width * (50 * time * 32 + time * 32 * mel)


def load_recipe_text(text, folder):
    (folder / "dumped.yaml").write_text(text)
    return load_recipe(str(folder / "dumped.yaml"))


def test_the_commands_find_it_in_the_working_directory(nets, tone_folder, command):
    """As the installed command does, which has not the working directory among the folders of its modules."""
    settings = [f"tasks.label.data.path={tone_folder}", f"model={{name: custom, trunk: '{nets}:Net'}}"]
    settings += ["train.steps=2", "train.workers=0"]

    def audiostride(*arguments, code=0):
        done = command(Path.cwd(), *arguments)
        assert done.returncode == code, done.stderr
        return done.stdout + done.stderr

    audiostride("train", "folder", *settings, "--out", "mine")
    assert set(json.loads(audiostride("evaluate", "mine", "--json").partition("\n}")[0] + "\n}")) == {"tasks"}
    audiostride("predict", "mine", tone_folder / "low")
    audiostride("embed", "mine", tone_folder / "low", "-o", "embeddings.npz")
    assert f"{nets}:Net" in audiostride("cutoffs", "mine", code=2)
    assert "AudioCNN or AudioResNet on LogMel" in audiostride("report", "mine", code=2)
    audiostride("train", "folder", *settings, "model.name=audio_cnn", "--out", "other", code=3)
    audiostride("train", "folder", settings[0], *settings[2:], "model.channels=[4,4,4,4,4,4]", "--out", "other")
    assert f"trunk={nets}:Net" in audiostride("compare", "mine", "other")
    os.rename(f"{nets}.py", "gone.txt")
    assert f"there is no module '{nets}'" in audiostride("predict", "mine", tone_folder / "low", code=5)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("os:system", "not a subclass of torch.nn.Module but a builtin_function"),
        ("subprocess:Popen", "but the class Popen; it was not called"),
        ("NETS:function", "but a function; it was not called"),
        ("no_such_package.nets:Net", "there is no module 'no_such_package'"),
        ("NETS:Nett", "has no Nett"),
        ("NETS.Net", "PACKAGE.MODULE:CLASS"),
        ("NETS:NoFeatures", "num_features"),
        ("NETS:WrongLength", r"of shape \(batch, 4\), as its num_features says, but returned one of shape \(2, 3\)"),
        ("NETS:Fails", r"fails on an input of shape \(2, 1, 100, 64\): RuntimeError: .*nets_of_.*\.py, line 29\)"),
    ],
)
def test_what_is_wrong_with_a_class_is_said_before_any_data_is_read(name, message, nets):
    with pytest.raises(RecipeError, match=message):
        make_network(recipe("nowhere", name.replace("NETS", nets)))


def test_it_has_to_take_the_parts_of_windows_that_training_sees(nets):
    name = f"{nets}:OneLength"
    make_network(recipe("nowhere", name))
    with pytest.raises(RecipeError, match=r"OneLength: fails on an input of shape \(2, 1, 50, 64\)"):
        make_network(recipe("nowhere", name, "augment.crop_s=0.5"))


def test_settings_that_it_does_not_take_and_files_that_do_not_run_are_named(nets, tmp_path):
    with pytest.raises(RecipeError, match="unexpected keyword argument 'widht'"):
        make_network(recipe("nowhere", f"{nets}:Net", "model.settings={widht: 8}"))
    (tmp_path / "with_an_error.py").write_text("x = 1\ny = x +\n")
    with pytest.raises(RecipeError, match=r"cannot be imported: SyntaxError.*with_an_error\.py, line 2"):
        make_network(recipe("nowhere", "with_an_error:Net"))
    (tmp_path / "with_a_need.py").write_text("import not_installed_anywhere\n")
    with pytest.raises(RecipeError, match=r"No module named 'not_installed_anywhere' \(.*with_a_need\.py, line 1"):
        make_network(recipe("nowhere", "with_a_need:Net"))


def test_a_changed_file_is_a_changed_condition(nets, tone_folder, tmp_path):
    mine = recipe(tone_folder, f"{nets}:Net", "train.checkpoint_steps=1")
    with pytest.raises(KeyboardInterrupt):
        run(mine, tmp_path / "run", Report(on_step=stop_after(2)))
    with Path(f"{nets}.py").open("a") as file:
        file.write("# changed\n")
    with pytest.raises(ModelFileError, match=r"code\.sha256_of_trunk was"):
        run(mine, tmp_path / "run", Report(notify=lambda _: None), resume=True)


def test_a_frontend_of_ones_own_is_what_it_wraps(nets, tmp_path):
    frontend = CustomFrontend(f"{nets}:Mel", 16000, {"bands": 40})
    waveform = torch.randn(2, 16000)
    assert torch.equal(frontend(waveform), LogMel(n_mels=40)(waveform))
    torch.manual_seed(0)
    trunk = AudioCNN("diffstride", channels=(4, 8), strides=((2, 2), (2, 2)), smoothness=1)
    model = AudioClassifier(frontend, trunk, {"word": ["no", "yes"]}).eval()
    model.save(tmp_path / "saved")
    twin = load(tmp_path / "saved")
    assert torch.equal(model(waveform)["word"], twin(waveform)["word"])
    assert model_cutoffs(model) == model_cutoffs(AudioClassifier(LogMel(n_mels=40), trunk, {"word": 2}))
    assert twin.predict(torch.zeros(48000), 48000)["word"].label in ("no", "yes")
    with pytest.raises(ValueError, match="is made for 16000 Hz, and sample_rate is 8000"):
        CustomFrontend(f"{nets}:Mel", 8000, {"bands": 40})
    with pytest.raises(RecipeError, match=r"augment\.spec_augment"):
        validate_masks(nets)


def validate_masks(nets):
    from audiostride.training.transforms import make_transforms

    frontend = f"frontend={{name: custom, frontend: '{nets}:Mel', settings: {{bands: 64}}}}"
    make_transforms(recipe("nowhere", f"{nets}:Net", frontend, "augment.spec_augment={}"))


def test_what_is_not_known_of_it_is_said_and_not_made_up(nets):
    model = AudioClassifier(LogMel(), CustomTrunk(f"{nets}:Net"), {"word": ["no", "yes"]})
    assert f"{nets}:Net" in why_no_cutoffs(model)
    with pytest.raises(UsageError, match="forward_features"):
        model.forward_features(torch.zeros(1, 16000))
    with pytest.raises(UsageError, match="no blocks"):
        model.block_features(torch.zeros(1, 16000))
    card = model_card(model, model_id="user/words")
    assert "Cut-offs" not in card
    assert f"calls `{nets}:Net`" in card
    assert cost_per_second(model).parameters == 4 * 9 + 4 + 2 * 4 + 2
    with pytest.raises(ValueError, match=r"pass one of your own as CustomTrunk\('PACKAGE\.MODULE:CLASS'\)"):
        AudioClassifier(LogMel(), torch.nn.Flatten(), {"word": 2})


def test_a_sweep_goes_through_its_settings(nets, tone_folder, tmp_path):
    settings = [f"tasks.label.data.path={tone_folder}", f"model={{name: custom, trunk: '{nets}:Net'}}"]
    settings += ["train.steps=1", "train.workers=0", "--set", "model.settings.width=4,8", "-o", str(tmp_path / "out")]
    done = CliRunner().invoke(app, ["sweep", "folder", *settings])
    assert done.exit_code == 0, done.output
    assert [load(tmp_path / "out" / f"width-{n}_seed-0").trunk.num_features for n in (4, 8)] == [4, 8]
