"""False alarms per hour, with an exact interval."""

import json

import numpy as np
import pytest
import soundfile
import torch
from typer.testing import CliRunner

from audiostride import create_model
from audiostride.cli import app
from audiostride.errors import UsageError
from audiostride.models.events import EventSettings
from audiostride.training.false_alarms import false_alarms, poisson_interval


@pytest.mark.parametrize("n", [0, 1, 2, 10, 137, 5000])
def test_the_interval_is_that_of_the_chi_squared_distribution(n):
    from scipy.stats import chi2

    expected = (chi2.ppf(0.025, 2 * n) / 2 if n else 0.0, chi2.ppf(0.975, 2 * n + 2) / 2)
    assert poisson_interval(n) == pytest.approx(expected, rel=1e-9)


def test_the_interval_holds_the_mean_as_often_as_it_says():
    random = np.random.default_rng(0)
    for mean in (0.7, 4.0, 30.0):
        intervals = {int(n): poisson_interval(int(n)) for n in range(120)}
        held = [intervals[n][0] <= mean <= intervals[n][1] for n in random.poisson(mean, 4000).tolist()]
        assert np.mean(held) >= 0.945


@pytest.fixture
def model(tmp_path):
    """A model that hears "b" all the time, in whole pieces of a recording."""
    model = create_model("audio_resnet_pico_strided", heads={"one": ["a", "b"], "two": 2}).eval()
    with torch.no_grad():
        for head in model.heads.values():
            head.weight.zero_()
        model.heads["one"].bias.copy_(torch.tensor([0.0, 9.0]))
        model.heads["two"].bias.zero_()
    model.event_settings = {"one": EventSettings((6.0, 6.0)), "two": EventSettings((6.0, 6.0))}
    model.save(tmp_path / "run")
    for number in range(3):
        soundfile.write(tmp_path / f"{number}.wav", np.zeros(16000 * 12), 16000)
    return model


def test_events_are_counted_per_hour(model, tmp_path):
    found = false_alarms(model, [str(tmp_path / f"{number}.wav") for number in range(3)])
    assert found["hours"] == pytest.approx(36 / 3600)
    assert found["tasks"]["one"]["events"] == 3
    assert found["tasks"]["one"]["classes"] == {"b": pytest.approx(300)}
    assert found["tasks"]["one"]["interval"] == pytest.approx([100 * end for end in poisson_interval(3)])
    assert found["tasks"]["two"]["per_hour"] == 0


def test_the_command_prints_them(model, tmp_path):
    def call(*options):
        return CliRunner().invoke(app, ["evaluate", str(tmp_path / "run"), *map(str, options)])

    done = call("--background", tmp_path / "0.wav", "--json")
    assert json.loads(done.stdout)["tasks"]["one"]["per_hour"] == pytest.approx(300)
    assert "300" in call("--background", tmp_path).stdout
    assert "two" not in call("--background", tmp_path, "--task", "one").stdout
    assert isinstance(call("--background", tmp_path, "--events", tmp_path).exception, UsageError)
    assert isinstance(call("--background", tmp_path, "--task", "three").exception, UsageError)
