"""Networks of other people for comparison: their sizes are the published ones, their costs are counted right."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from audiostride.models.cost import count_parameters, model_cost
from audiostride.training.build import make_network

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))  # where peers.py finds it, too

from peer_models import BCResNet, MatchboxNet, TCResNet, TimmTrunk  # noqa: E402
from peers import front, recipe_of, summary, table  # noqa: E402
from trunk_variants import SqueezeExciteNet, SubSpectralNet  # noqa: E402


def with_head(trunk, classes):
    return count_parameters(trunk) + classes * (trunk.num_features + 1)


@pytest.mark.parametrize(
    ("trunk", "classes", "published"),
    [
        (MatchboxNet(), 30, 77_000),  # Table 2
        (BCResNet(1), 12, 9_200),  # Table 1
        (BCResNet(3), 12, 54_200),  # Table 2
        (TCResNet(), 12, 66_000),  # Table 1
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else str(value),
)
def test_a_network_has_the_published_number_of_parameters(trunk, classes, published):
    assert with_head(trunk, classes) == pytest.approx(published, rel=0.015)


@pytest.mark.parametrize(
    ("trunk", "mels"),
    [
        (MatchboxNet(), 64),
        (MatchboxNet(sub_blocks=2), 64),
        (BCResNet(2), 40),
        (TCResNet(), 40),
        (SqueezeExciteNet(), 64),
        (SubSpectralNet(downsampling="strided"), 64),
    ],
)
def test_an_embedding_does_not_depend_on_the_other_clips_and_any_length_is_taken(trunk, mels):
    trunk.eval()
    for frames in (50, 100, 173):
        batch = torch.randn(3, 1, frames, mels)
        together = trunk(batch)
        assert together.shape == (3, trunk.num_features)
        torch.testing.assert_close(trunk(batch[1:2])[0], together[1], rtol=1e-4, atol=1e-5)


def test_bands_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="multiple of 20"):
        BCResNet(1, n_mels=64)


def test_each_band_is_normalised_by_itself():
    """A band made louder, and another one shifted, are taken out by the batch's own mean and variance."""
    torch.manual_seed(0)
    norm = SubSpectralNet(downsampling="strided").stem.norm
    x = torch.randn(4, 16, 20, 32)
    changed = x.clone()
    changed[..., :8] *= 3.0
    changed[..., 24:] += 5.0
    torch.testing.assert_close(norm(changed), norm(x), rtol=1e-4, atol=1e-4)


def test_macs_are_those_counted_by_hand():
    depthwise = nn.Conv2d(6, 6, (3, 5), stride=(2, 1), padding=(1, 0), groups=6)
    assert model_cost(depthwise, torch.zeros(1, 6, 20, 16)).macs == 6 * 10 * 12 * 15
    # TC-ResNet8 on 100 frames: 100, 50, 25 and 13 of them.
    blocks = [50 * 9 * (16 * 24 + 24 * 24), 25 * 9 * (24 * 32 + 32 * 32), 13 * 9 * (32 * 48 + 48 * 48)]
    shortcuts = [50 * 16 * 24, 25 * 24 * 32, 13 * 32 * 48]
    assert model_cost(TCResNet(), torch.zeros(1, 1, 100, 40)).macs == 100 * 3 * 40 * 16 + sum(blocks) + sum(shortcuts)


def test_a_network_of_timm_is_a_trunk():
    try:
        import timm  # noqa: F401
    except (ImportError, RuntimeError) as error:  # a torchvision that does not fit this torch
        pytest.skip(f"timm: {error}")
    trunk = TimmTrunk("mobilenetv3_small_100").eval()
    assert trunk(torch.zeros(2, 1, 100, 64)).shape == (2, trunk.num_features)
    assert count_parameters(trunk) == 1_517_568  # without colours and classes


@pytest.mark.parametrize("model", ["pico", "nano", "small", "base", "matchboxnet_3x1x64", "bc_resnet_1", "tc_resnet_8"])
def test_the_committed_costs_are_those_that_are_counted(model):
    frontend, trunk = make_network(recipe_of(model, 0, []))
    counted = model_cost(trunk, frontend(torch.zeros(1, 16000)))
    with (ROOT / "benchmarks" / "peers.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["model"] == model]
    assert rows
    for row in rows:
        assert float(row["mmac_per_s"]) * 1e6 == pytest.approx(counted.macs)
        assert int(row["parameters"]) == with_head(trunk, 9)


def test_the_pareto_front_leaves_out_what_is_beaten():
    assert front([(1, 50), (2, 40), (3, 60), (3, 70), (4, 70), (0.5, 10)]) == [(0.5, 10), (1, 50), (3, 70)]


def test_seeds_are_averaged():
    rows = [
        {"task": "a", "model": "m", "seed": str(i), "accuracy": str(x), "parameters": "10", "mmac_per_s": "1.5"}
        for i, x in enumerate((0.8, 0.9))
    ]
    (row,) = summary(rows, [{"model": "m", "ms": "2.5"}])
    assert (row["accuracy"], row["sd"], row["ms"]) == pytest.approx((85.0, 50**0.5, 2.5))
    assert "| a | m | 85.0 ± 7.1 | 2 | 10 | 1.5 | 2.50 |" in table([row])


@pytest.mark.slow
def test_the_command_trains_once_times_and_draws(tone_folder, tmp_path):
    def peers(*arguments):
        command = [sys.executable, str(ROOT / "benchmarks" / "peers.py"), *map(str, arguments)]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    models = "--models=strided,tc_resnet_8,svm"
    training = ["train", tone_folder, models, "--seeds=0", "--epochs=1", "--set", "train.workers=0"]
    peers(*training)
    before = (tmp_path / "peers" / "peers.csv").read_bytes()
    assert peers(*training) == ""
    assert (tmp_path / "peers" / "peers.csv").read_bytes() == before
    rows = list(csv.DictReader(before.decode().splitlines()))
    assert [row["model"] for row in rows] == ["strided", "tc_resnet_8", "svm"]
    assert float(rows[2]["accuracy"]) == 1.0  # low and high tones
    assert int(rows[1]["parameters"]) == with_head(TCResNet(), 2)
    assert peers("time", models, "--repeats=3").count(" ms (") == 2
    assert "| tc_resnet_8 |" in peers("figure", models, "--plot", "peers.png")
    assert (tmp_path / "peers.png").read_bytes().startswith(b"\x89PNG")
