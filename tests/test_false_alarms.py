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
from audiostride.models.classifier import load
from audiostride.models.events import EventSettings
from audiostride.training.false_alarms import at_rate, false_alarms, poisson_interval


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
    assert isinstance(call("--background", tmp_path, "--by-class").exception, UsageError)
    assert isinstance(call("--background", tmp_path, "--task", "three").exception, UsageError)


@pytest.fixture
def annotated(tmp_path):
    """Twelve seconds in which two events are said to be."""
    folder = tmp_path / "annotated"
    folder.mkdir()
    soundfile.write(folder / "bursts.wav", np.zeros(16000 * 12), 16000)
    (folder / "bursts.txt").write_text("1.0\t2.0\tb\n5.0\t6.0\ta\n")
    return folder


def test_what_is_missed_is_told_at_a_few_rates_and_the_threshold_of_one_is_saved(model, annotated, tmp_path):
    def call(*options):
        arguments = ["evaluate", tmp_path / "run", "--background", tmp_path / "0.wav", "--task", "one", *options]
        return CliRunner().invoke(app, list(map(str, arguments)))

    done = call("--events", annotated, "--json", "--plot", tmp_path / "curve.svg")
    assert done.exception is None, done.exception
    found = json.loads(done.stdout)["tasks"]["one"]
    # The model hears "b" at 9 whatever there is: an alarm in 12 s up to that threshold, and one of the two events.
    for point in found["curve"]:
        assert (point["events"], point["missed"]) == ((1, 0.5) if 6 * point["factor"] <= 9 else (0, 1.0))
    assert found["at"]["10"]["factor"] == pytest.approx(1.5, rel=0.08)
    assert found["at"]["10"]["missed"] == 1.0
    assert (tmp_path / "curve.svg").stat().st_size > 1000
    assert "100.0 %" in call("--events", annotated).stdout
    assert load(tmp_path / "run").event_settings["one"].thresholds == (6.0, 6.0)
    assert call("--set-threshold", "10/h").exception is None
    assert load(tmp_path / "run").event_settings["one"].thresholds == pytest.approx((9, 9), rel=0.08)
    assert json.loads(call("--json").stdout)["tasks"]["one"]["events"] == 0
    for options in (("--set-threshold", "often"), ("--set-threshold", "0/h"), ("--overlap", "0.5")):
        assert isinstance(call(*options).exception, UsageError)
    assert "omit it with --background" in str(call("--data", tmp_path, "--channel", "left").exception)
    done = CliRunner().invoke(app, ["evaluate", str(tmp_path / "run"), "--plot", "x.svg"])
    assert "add --background" in str(done.exception)


def test_clips_are_missed_where_no_event_of_their_class_is_found(model, tmp_path):
    for label in ("a", "b"):
        (tmp_path / "clips" / label).mkdir(parents=True)
        soundfile.write(tmp_path / "clips" / label / "one.wav", np.zeros(16000), 16000)
    arguments = ["evaluate", tmp_path / "run", "--background", tmp_path / "0.wav", "--data", tmp_path / "clips"]
    done = CliRunner().invoke(app, [*map(str, arguments), "--task", "one", "--json"])
    assert done.exception is None, done.exception
    assert {point["missed"] for point in json.loads(done.stdout)["tasks"]["one"]["curve"]} == {0.5, 1.0}


def test_the_point_of_a_rate_is_the_lowest_from_which_on_there_are_no_more():
    curve = [{"factor": f, "per_hour": r} for f, r in ((1, 5.0), (2, 0.9), (3, 2.0), (4, 1.0), (5, 0.0))]
    assert at_rate(curve, 1.0) == curve[3]
    assert at_rate(curve, 9.0) == curve[0]
    assert at_rate(curve[:2], 0.1) is None
