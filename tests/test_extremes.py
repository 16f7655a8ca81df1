"""Settings at their extremes: numbers, sizes of recipes, users that do not exist, environments left over."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from test_run_files import QUIET, tiny
from typer.testing import CliRunner

from audiostride.cli import app
from audiostride.data.archives import read_archives
from audiostride.data.cache import cached
from audiostride.data.clips import ArrayClips
from audiostride.data.folder import read_folder
from audiostride.data.images import read_images
from audiostride.data.manifest import read_manifest
from audiostride.errors import AudiostrideError, DataError, RecipeError, UsageError
from audiostride.training import processes
from audiostride.training.recipe import load_recipe
from audiostride.training.run import run

KEYS = {
    "": ["seed", "window_s"],
    "model": ["smoothness", "aliasing"],
    "tasks.rate": ["weight"],
    "augment": ["gain_db", "time_shift_ms", "mixup", "equalize_db", "crop_s", "skip_quiet_db"],
    "frontend": ["sample_rate", "window_ms", "hop_ms", "n_fft", "n_mels", "f_min", "f_max"],
    "train": [
        "epochs",
        "steps",
        "batch_size",
        "learning_rate",
        "stride_learning_rate",
        "aliasing_learning_rate",
        "highest_stride",
        "warmup_steps",
        "weight_decay",
        "stride_cost",
        "label_smoothing",
        "gradient_clip",
        "accumulate",
        "ema_decay",
        "validate_every",
        "early_stopping",
        "validation_fraction",
        "checkpoint_steps",
        "keep_checkpoints",
    ],
}
NUMBERS = [f"{section}.{key}".lstrip(".") for section, keys in KEYS.items() for key in keys]
EXTREMES = ["0", "1e-300", "1e15", "9223372036854775807"]
REFUSED = [
    "1e16",
    "1e300",
    "-1e300",
    "9223372036854775808",
    "9999999999999999999",
    ".inf",
    "-.inf",
    ".nan",
    "True",
    "NaN",
]


@pytest.mark.parametrize("key", NUMBERS)
def test_numbers_that_nothing_can_take_are_refused_by_every_key(key: str) -> None:
    for value in REFUSED:
        with pytest.raises(RecipeError, match=key.rpartition(".")[2]):
            load_recipe("ripples", [f"{key}={value}"])


@pytest.mark.slow
@pytest.mark.parametrize("key", NUMBERS)
def test_an_extreme_number_trains_or_is_named(key: str, tmp_path: Path) -> None:
    for value in EXTREMES:
        try:
            run(tiny("train.steps=1", f"{key}={value}"), tmp_path / value.replace(".", "_"), QUIET)
        except AudiostrideError as error:
            assert str(error)  # noqa: PT017


@pytest.mark.parametrize(
    "override",
    [
        "model.strides=[[1e300,1]]",
        "model.strides=[[1e15,1]]",
        "augment.coloured_noise={snr_db: [-1e300,1e300]}",
        "augment.coloured_noise={snr_db: [-1e14,1e14]}",
        "augment.coloured_noise={snr_db: [-1e4,1e4]}",
    ],
)
def test_extremes_within_lists_train_or_are_named(override: str, tmp_path: Path) -> None:
    try:
        run(tiny("train.steps=1", override), tmp_path / "run", QUIET)
    except AudiostrideError as error:
        assert str(error)  # noqa: PT017


def test_a_recipe_of_thousands_of_keys_is_refused_at_once(tmp_path: Path) -> None:
    recipe = tmp_path / "keys.yaml"
    for text in ("\n".join(f"{i:x}x: " for i in range(32_000)), "{" + ",".join(f"{i:x}x" for i in range(40_000)) + "}"):
        recipe.write_text(text)
        with pytest.raises(RecipeError, match="more than 10,000 keys and values"):
            load_recipe(str(recipe))
    recipe.write_text("\n".join(f"key{i}: 0" for i in range(4_000)))
    with pytest.raises(RecipeError) as caught:
        load_recipe(str(recipe))
    assert str(caught.value).endswith("and 3952 more")
    recipe.write_text("a: 1\nb: 2\na: 3")
    with pytest.raises(RecipeError, match="line 3: the key 'a' appears twice"):
        load_recipe(str(recipe))


@pytest.mark.parametrize("seeds", ["²", "1,²", "٣", "-1", "1.5", "", ",", "1,,2", "0x1", "1e3", "9" * 30])
def test_seeds_are_whole_numbers(seeds: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["sweep", "ripples", "--seeds", seeds, "--out", str(tmp_path / "sweep")])
    assert isinstance(done.exception, UsageError)
    assert not (tmp_path / "sweep").exists()


def test_a_user_that_does_not_exist_is_one_line_everywhere(tmp_path: Path) -> None:
    nobody = "~nobody-of-this-name/x"
    clips = ArrayClips(["a"], {}, [""], waveforms=[[0.0]], sample_rate=16000)
    for read in (
        lambda: read_folder(nobody),
        lambda: read_manifest(f"{nobody}.csv"),
        lambda: read_images(nobody, "padded"),
        lambda: read_archives("esc50", nobody),
        lambda: cached(clips, 16000, nobody),
    ):
        with pytest.raises(DataError, match=r"~nobody-of-this-name/x.*: there is no such user"):
            read()
    with pytest.raises(DataError, match="there is no such user"):
        run(load_recipe("folder", [f"tasks.label.data.path={nobody}"]), tmp_path / "run", QUIET)


@pytest.mark.parametrize(
    "variables",
    [
        {"WORLD_SIZE": "2"},
        {"WORLD_SIZE": "x"},
        {"WORLD_SIZE": "0"},
        {"WORLD_SIZE": "-2", "RANK": "0"},
        {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": "x"},
        {"WORLD_SIZE": "2", "RANK": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"},
        {"WORLD_SIZE": "2", "RANK": "²", "LOCAL_RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"},
    ],
)
def test_half_an_environment_of_torchrun_is_named(variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    assert processes.start().type in ("cpu", "cuda")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(
        UsageError, match=f"WORLD_SIZE is '{variables['WORLD_SIZE']}', but not set as torchrun does: .*unset"
    ):
        processes.start()


def test_the_command_says_so_in_a_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "audiostride", "train", "ripples", "--json", "--out", str(tmp_path / "run")]
    done = subprocess.run(command, env=os.environ | {"WORLD_SIZE": "2"}, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("error: WORLD_SIZE is '2'")
    assert not (tmp_path / "run").exists()
    assert json.dumps(done.stdout) == '""'
