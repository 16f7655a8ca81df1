"""A model's settings are what its constructors expect, of a size that a machine holds, or the file is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from audiostride import create_model, load
from audiostride.errors import ModelFileError
from audiostride.models.files import save_model

pytestmark = pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")

BASE = create_model("audio_cnn_small_diffstride", heads={"word": ["no", "yes"]})
WRONG: list[tuple[tuple[str | int, ...], Any]] = [
    *[
        (("model", "smoothness"), value)
        for value in (float("nan"), float("inf"), 1e308, 1e10, "4", True, [4.0], None, 0)
    ],
    *[(("frontend", "n_mels"), value) for value in (True, "64", 64.5, float("nan"), 0, -1, 10**18, None, [64])],
    *[(("frontend", "sample_rate"), value) for value in (16000.5, "16000", True, 0, 10**12)],
    *[(("frontend", "hop_ms"), value) for value in ("10", float("nan"), 0, -1, True, 1e300)],
    *[(("model", "strides", 0, 0), value) for value in ("2", True, float("nan"), float("inf"), 1e300, None, -1)],
    *[(("model", "channels", 0), value) for value in (True, "16", 1.5, 0, -1, 10**12)],
    *[(("model", "shared_stride"), value) for value in (0, 1, "no", None)],
    *[(("window_s",), value) for value in (True, "1", float("nan"), float("inf"), 0, -1, 1e300, None)],
    *[(("tasks", "word", "labels"), value) for value in (["yes", "yes"], ["no", ""], [], "no", [1, 2], None)],
]


def saved(folder: Path, config: dict[str, Any]) -> Path:
    save_model(folder, config, BASE.state_dict())
    return folder


@pytest.mark.parametrize(("keys", "value"), WRONG, ids=str)
def test_a_setting_of_another_kind_or_size_is_refused(tmp_path: Path, keys: tuple[str | int, ...], value: Any) -> None:
    config = json.loads(json.dumps(BASE.config()))
    place = config
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    with pytest.raises(ModelFileError, match=r"config\.json"):
        load(saved(tmp_path, config))


@pytest.mark.parametrize(("window_s", "hop_ms"), [(60, 1 / 16), (4000, 10.0), (600, 10.0)])
def test_a_window_that_no_memory_pools_is_refused(tmp_path: Path, window_s: float, hop_ms: float) -> None:
    config = json.loads(json.dumps(BASE.config()))
    config["window_s"], config["frontend"]["hop_ms"] = window_s, hop_ms
    with pytest.raises(ModelFileError, match="too long to be pooled in its spectrum"):
        load(saved(tmp_path, config))


def test_what_is_not_changed_is_loaded(tmp_path: Path) -> None:
    found = load(saved(tmp_path, BASE.config()))
    torch.testing.assert_close(found.embed(torch.ones(16000), 16000), BASE.embed(torch.ones(16000), 16000))
