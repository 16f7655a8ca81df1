"""Saving, loading and sharing: damaged files are named errors; a hub, spoken to over HTTP, gives back what it got."""

import json
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hub_server import Hub

from audiostride import AudioClassifier, CustomTrunk, RawWaveform, create_model, load
from audiostride.errors import ModelFileError
from audiostride.models.image_frontend import ImageFrontend
from audiostride.models.model_card import model_card


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    model = create_model(
        "audio_cnn_diffstride", heads={"word": ["no", "yes"]}, channels=(4, 8), strides=((2, 2), (2, 2)), smoothness=1.0
    )
    model.save(tmp_path / "run")
    results = {"tasks": {"word": {"split": "test", "accuracy": 0.875, "n": 40}}, "seed": 3}
    (tmp_path / "run" / "results.json").write_text(json.dumps(results))
    return tmp_path / "run"


def test_a_renamed_pickle_is_refused_and_never_opened(run_dir, tmp_path):
    class Trap:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "sprung"),))

    for content in (pickle.dumps(Trap()), b"PK\x03\x04 and so on"):
        (run_dir / "model.safetensors").write_bytes(content)
        with pytest.raises(ModelFileError, match="is a pickle"):
            load(run_dir)
    assert not (tmp_path / "sprung").exists()


def test_names_of_tasks_and_classes_stay_in_the_tables_of_a_model_card():
    names = {"a|b": ["no\n| x |", "\x1b[2J"], "two\nlines": ["no", "yes"]}
    model = create_model("audio_cnn_small_strided", heads=names)
    model.results = {"tasks": {task: {"split": "te|st", "accuracy": 0.5, "n": 4} for task in names}, "seed": 0}
    card = model_card(model)
    assert "\x1b" not in card
    rows = [line for line in card.splitlines() if line.startswith("| ")]
    assert rows.count(r"| a\|b | te\|st | 50.0 % | 4 |") == 1
    assert sum(row.startswith("| two lines | no, yes |") for row in rows) == 1


def test_truncated_flipped_missing_and_misshapen_weights_are_named_errors(run_dir):
    weights = run_dir / "model.safetensors"
    content = weights.read_bytes()
    for damaged in (
        b"",
        content[:-1],
        content[: len(content) // 2],
        content[:-9] + bytes([content[-9] ^ 1]) + content[-8:],
    ):
        weights.write_bytes(damaged)
        with pytest.raises(ModelFileError, match=r"model\.safetensors: damaged or changed"):
            load(run_dir)
    weights.unlink()
    with pytest.raises(ModelFileError, match="No such file"):
        load(run_dir)


def test_weights_of_another_shape_are_a_named_error(run_dir):
    # Saved together, checksums right, but config and weights describe different networks.
    model = load(run_dir)
    model.trunk.settings["channels"] = [4, 16]
    model.save(run_dir)
    with pytest.raises(ModelFileError, match=r"does not fit config\.json"):
        load(run_dir)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format": 99}', "[" * 100000])
def test_a_damaged_config_is_a_named_error(run_dir, content):
    (run_dir / "config.json").write_text(content)
    with pytest.raises(ModelFileError, match=r"config\.json"):
        load(run_dir)


def test_save_pretrained_leaves_a_model_its_scores_and_a_card(run_dir, tmp_path):
    load(run_dir).save_pretrained(
        tmp_path / "shared", model_card_kwargs={"data": "two spoken words", "license": "cc-by-4.0"}
    )
    assert sorted(path.name for path in (tmp_path / "shared").iterdir()) == [
        *("README.md", "config.json", "model.safetensors", "results.json"),
    ]
    card = (tmp_path / "shared" / "README.md").read_text()
    facts = ("license: cc-by-4.0", "| word | no, yes |", "two spoken words", "87.5 %", "Seed 3", "25.0 Hz", "million")
    for fact in facts:
        assert fact in card, fact
    model = AudioClassifier.from_pretrained(tmp_path / "shared")
    assert model.results == load(run_dir).results
    assert not model.training


def test_every_kind_of_model_has_a_card_with_a_cut_off_for_each_of_its_axes():
    settings = {"channels": (4, 8), "strides": (16, 4), "kernel_sizes": (79, 3), "smoothness": 1.0}
    card = model_card(create_model("wave_cnn_diffstride", heads={"word": 2}, **settings))
    assert "| 1 | time | 16.00 | 250.0 Hz |" in card
    assert "cycles per mel band" not in card
    images = create_model("resnet18_strided", heads={"animal": 2}, in_channels=3, frontend=ImageFrontend(32))
    card = model_card(images, model_id="me/animals")
    assert "pipeline_tag: image-classification" in card
    assert "per image" in card
    code = card.partition("```python")[2].partition("```")[0]
    loading = next(line for line in code.splitlines() if line.startswith("model ="))
    exec(code.replace(loading, ""), {"model": images})
    card = model_card(create_model("resnet18_strided", heads={"word": 2}))
    assert card.count("| time |") == card.count("| mel |") == 5


@pytest.fixture
def hub() -> Iterator[Hub]:
    server = Hub()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def client(hub: Hub, folder: Path, code: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"HF_ENDPOINT": hub.url, "HF_HOME": str(folder / "cache"), "HF_HUB_DISABLE_XET": "1"}
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], env=environment, capture_output=True, text=True, timeout=120
    )


@pytest.mark.slow
def test_what_is_pushed_to_a_hub_comes_back(hub, run_dir, tmp_path):
    code = (
        "import audiostride as au\n"
        f"au.load({str(run_dir)!r}).push_to_hub('someone/words', token='x', model_card_kwargs={{'data': 'words'}})\n"
        "model = au.AudioClassifier.from_pretrained('someone/words')\n"
        f"model.save({str(tmp_path / 'back')!r})\n"
        "print(model.results, au.load('hf-hub:someone/words@main').labels)\n"
    )
    done = client(hub, tmp_path, code)
    assert done.returncode == 0, done.stderr
    assert "0.875" in done.stdout
    assert "['no', 'yes']" in done.stdout
    assert set(hub.repos["someone/words"]) == {"README.md", "config.json", "model.safetensors", "results.json"}
    before, after = load(run_dir).state_dict(), load(tmp_path / "back").state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_no_model_from_a_hub_names_a_class_to_call(hub, tmp_path):
    trunk = CustomTrunk("audiostride.models.wave_cnn:WaveCNN", {"channels": [4, 4, 4, 4]})
    AudioClassifier(RawWaveform(8000), trunk, {"word": ["no", "yes"]}).save(tmp_path / "saved")
    assert load(tmp_path / "saved").labels == {"word": ["no", "yes"]}
    files = {name: (tmp_path / "saved" / name).read_bytes() for name in ("config.json", "model.safetensors")}
    hub.repos["someone/custom"] = files
    code = (
        "import audiostride as au\n"
        "ways = (au.load, 'hf-hub:someone/custom'), (au.AudioClassifier.from_pretrained, 'someone/custom')\n"
        "for fetch, name in ways:\n"
        "    try: fetch(name)\n"
        "    except au.AudiostrideError as error: print(error.exit_code, error)\n"
    )
    done = client(hub, tmp_path, code)
    assert done.returncode == 0, done.stderr
    for line in done.stdout.splitlines():
        assert line.startswith("5 ")
        assert "which no model from the hub may do" in line
    assert len(done.stdout.splitlines()) == 2


@pytest.mark.slow
def test_a_missing_an_empty_and_a_damaged_model_on_a_hub_are_named_errors(hub, run_dir, tmp_path):
    hub.repos["someone/empty"] = {}
    config, weights = ((run_dir / name).read_bytes() for name in ("config.json", "model.safetensors"))
    hub.repos["someone/damaged"] = {"config.json": config, "model.safetensors": weights[:-1] + b"!"}
    code = (
        "import audiostride as au\n"
        "for name in ('someone/missing', 'someone/empty', 'someone/damaged', 'no id'):\n"
        "    try: au.load('hf-hub:' + name)\n"
        "    except au.AudiostrideError as error: print(error.exit_code, str(error).splitlines()[0])\n"
    )
    done = client(hub, tmp_path, code)
    assert done.returncode == 0, done.stderr
    missing, empty, damaged, no_id = done.stdout.splitlines()
    assert missing.startswith("5 someone/missing: the hub has no such model")
    assert empty.startswith("5 someone/empty: holds no audiostride model")
    assert damaged.startswith("5 ")
    assert "damaged or changed" in damaged
    assert no_id.startswith("5 no id: is neither")
