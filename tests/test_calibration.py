"""Scores that are probabilities and the answer "none of the classes": how they are found, saved and said."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from typer.testing import CliRunner

from audiostride import create_model
from audiostride.analysis.confidence import calibration_error
from audiostride.cli import app
from audiostride.errors import ModelFileError, UsageError
from audiostride.inference.embedding import Sound
from audiostride.inference.predict import predict_sounds
from audiostride.models.calibration import Calibration, calibrated, is_none, none_score
from audiostride.models.classifier import AudioClassifier, load
from audiostride.models.files import save_model
from audiostride.training.calibration import (
    TEMPERATURES,
    binomial_interval,
    centre_heads_,
    fit_temperature,
    kept_interval,
    none_threshold,
    precision_thresholds,
)
from audiostride.training.recipe import load_recipe
from audiostride.training.run import run
from audiostride.training.run_files import read_results

TINY = ["model.channels=[4,4,4,4,4,4]", "train.epochs=1", "train.batch_size=8", "train.workers=0"]
SOUND = np.random.default_rng(0).standard_normal(16000).astype(np.float32)


def make() -> AudioClassifier:
    torch.manual_seed(0)
    return create_model("audio_resnet_pico_strided", heads={"animal": ["cat", "cow", "dog"]}).eval()


@pytest.mark.parametrize("kind", ["multiclass", "binary", "multilabel"])
def test_the_temperature_moves_scores_and_never_the_order_of_classes(kind: str) -> None:
    logits = torch.randn(100, 2 if kind == "binary" else 3, generator=torch.Generator().manual_seed(0))
    for temperature in (0.2, 1.0, 7.0):
        scores = calibrated(logits, kind, temperature)
        assert torch.equal(scores.argsort(-1), logits.argsort(-1))
    assert calibrated(logits, kind, 0.2).max(1).values.gt(calibrated(logits, kind, 7.0).max(1).values).all() or (
        kind == "multilabel"
    )
    assert calibrated(logits, kind, 1e6).sub(0.5 if kind == "multilabel" else 1 / logits.shape[1]).abs().max() < 1e-5


def test_none_is_what_lies_below_the_threshold_and_a_multilabel_task_needs_one_class_that_reaches_its_own() -> None:
    logits = torch.tensor([[4.0, 1.0, 0.0], [1.5, 1.0, 0.0]])
    assert is_none(logits, "multiclass", Calibration(2.0)).tolist() == [False, False]
    assert is_none(logits, "multiclass", Calibration(2.0, 1.0)).tolist() == [False, True]
    assert is_none(logits + 50, "multiclass", Calibration(2.0, 1.0)).tolist() == [False, True]
    assert is_none(logits, "multiclass", Calibration(1.0, None), [0.9, 0.0, 0.0]).tolist() == [False, True]
    assert is_none(logits, "multiclass", Calibration(9.0, None), [0.9, 0.0, 0.0]).tolist() == [True, True]
    assert is_none(logits - 3, "multilabel", Calibration(1.0, 99.0), [0.7, 0.9, 0.9]).tolist() == [False, True]
    assert is_none(logits[:, :2], "binary", Calibration(1.0, 1.0), [1.0]).tolist() == [False, True]
    assert is_none(logits[0], "multiclass", Calibration(1.0, 2.0)).shape == ()
    assert none_score(logits, "multiclass").shape == (2,)


def test_a_calibration_is_saved_with_the_model_and_a_damaged_one_is_refused(tmp_path: Path) -> None:
    model = make()
    assert model.calibration("animal") == Calibration()
    assert "calibration" not in model.config()["tasks"]["animal"]
    model.calibrations = {"animal": Calibration(1.7, 3.25)}
    model.save(tmp_path)
    assert load(tmp_path).calibrations == model.calibrations
    for damaged in ({"temperature": -1.0}, {"temperature": "1"}, {"none_below": True}, {"temprature": 1.0}, [1.0]):
        config = model.config()
        config["tasks"]["animal"]["calibration"] = damaged
        save_model(tmp_path, config, model.state_dict())
        with pytest.raises(ModelFileError, match="calibration"):
            load(tmp_path)


def test_every_answer_says_none_with_the_score_of_the_likeliest_class_and_always_names_it() -> None:
    model = make()
    plain = model.predict(SOUND, 16000)["animal"]
    assert plain.label in model.labels["animal"]
    model.calibrations = {"animal": Calibration(3.0, 1e6)}
    said, named = (model.predict(SOUND, 16000, always=always)["animal"] for always in (False, True))
    assert (said.label, named.label) == ("none", plain.label)
    assert said.score == named.score == max(said.probabilities.values()) < plain.score

    def rows(**options):
        parts = predict_sounds(model, [Sound("a", lambda: [SOUND])], workers=0, **options)
        return [(row.rank, row.label, row.score) for part in parts for row in part.rows]

    score = pytest.approx(said.score, abs=1e-6)
    assert rows() == rows(per_window=True) == [(1, "none", score)]
    assert rows(always=True) == [(1, plain.label, score)]
    assert [label for _, label, _ in rows(top_k=3)] == ["none", *[label for _, label, _ in rows(top_k=2, always=True)]]


def test_new_heads_have_no_calibration() -> None:
    model = make()
    model.calibrations = {"animal": Calibration(3.0, 1e6)}
    model.reset_classifier({"bird": 4})
    assert model.calibrations == {}


def drawn(kind: str, n: int = 4000, temperature: float = 2.5) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of a network whose scores are probabilities at that temperature, and labels drawn by them."""
    generator = torch.Generator().manual_seed(0)
    logits = 5 * torch.randn(n, 2 if kind == "binary" else 4, generator=generator)
    likely = calibrated(logits, kind, temperature)
    if kind == "multilabel":
        return logits, torch.bernoulli(likely, generator=generator)
    return logits, torch.multinomial(likely, 1, generator=generator)[:, 0]


@pytest.mark.parametrize("kind", ["multiclass", "binary", "multilabel"])
def test_the_temperature_that_labels_were_drawn_with_is_found(kind: str) -> None:
    logits, labels = drawn(kind)
    assert fit_temperature(logits, labels, kind) == pytest.approx(2.5, rel=0.1)
    if kind == "multilabel":
        labels[:, 0] = torch.nan
        assert fit_temperature(logits, labels, kind) == pytest.approx(2.5, rel=0.1)


@pytest.mark.parametrize("kind", ["multiclass", "binary", "multilabel"])
def test_clips_that_are_all_right_do_not_make_every_score_one(kind: str) -> None:
    logits, _ = drawn(kind, 20)
    labels = (logits > 0).float() if kind == "multilabel" else logits.argmax(1)
    temperature = fit_temperature(logits, labels, kind)
    assert TEMPERATURES[0] < temperature
    assert calibrated(logits, kind, temperature).sub(0.5).abs().min() < 0.4


def test_the_threshold_of_none_keeps_the_share_and_equal_scores_together() -> None:
    scores = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    for keep in (0.5, 0.9, 0.95, 1.0):
        assert (scores >= none_threshold(scores, keep)).double().mean() == pytest.approx(keep)
    assert none_threshold(torch.ones(40), 0.9) == 1.0
    assert none_threshold(torch.tensor([3.0, 1.0, 2.0]), 0.95) == 1.0  # of few clips none is given up


def test_the_interval_of_what_is_kept_holds_what_new_clips_show() -> None:
    generator = torch.Generator().manual_seed(0)
    held = 0
    for _ in range(2000):
        kept = 1 - none_threshold(torch.rand(60, generator=generator), 0.9)  # of all of a uniform distribution
        held += kept_interval(60, 0.9)[0] <= kept <= kept_interval(60, 0.9)[1]
    assert held / 2000 == pytest.approx(0.95, abs=0.015)


def test_from_its_threshold_on_a_class_is_right_as_often_as_asked_for() -> None:
    for kind in ("multiclass", "binary", "multilabel"):
        logits, labels = drawn(kind)
        likely = calibrated(logits, kind, 2.5)
        for number, one in enumerate(precision_thresholds(logits, labels, kind, 2.5, 0.9), kind == "binary"):
            named = likely[:, number] >= one.threshold - 1e-6
            if kind == "multiclass":
                named &= likely.argmax(1) == number
            right = (labels[:, number] == 1 if kind == "multilabel" else labels == number)[named]
            assert one.precision == pytest.approx(right.double().mean().item(), abs=0.01)
            assert 0.9 <= one.precision < 0.92
            assert one.interval[0] < 0.9 < one.interval[1]
    (never, _) = precision_thresholds(torch.tensor([[1.0, 0.0]] * 9), torch.ones(9).long(), "multiclass", 1.0, 0.5)
    assert (never.threshold, never.clips) == (1.0, 0)
    json.loads(json.dumps(never._asdict(), allow_nan=False))


def test_exact_intervals_are_those_of_the_binomial_test() -> None:
    from scipy.stats import binomtest

    for k, n in ((0, 5), (5, 5), (9, 10), (37, 80)):
        wanted = binomtest(k, n).proportion_ci()
        assert binomial_interval(k, n) == pytest.approx((wanted.low, wanted.high))


def test_scores_that_are_probabilities_have_a_calibration_error_of_chance_and_others_a_larger_one() -> None:
    random = np.random.default_rng(0)
    scores = random.uniform(0.3, 1, 2000)
    right = random.random(2000) < scores
    clips = [str(i) for i in range(2000)]
    found = calibration_error(scores, right, clips)
    assert found["calibration_error"] < found["perfect"] < 0.06
    assert found["interval"][0] < found["calibration_error"] + 0.01
    bold = calibration_error(1 - (1 - scores) / 4, right, clips)
    assert bold["calibration_error"] > bold["interval"][0] > bold["perfect"]
    assert sum(one["n"] for one in bold["bins"]) == 2000
    assert calibration_error(scores, right, ["one"] * 2000)["interval"] is None


def test_a_run_is_calibrated_at_its_end_and_again_without_training(run_dir: Path, tmp_path: Path) -> None:
    model, results = load(run_dir), json.loads((run_dir / "results.json").read_text())
    found = results["calibration"]["label"]
    assert model.calibrations["label"] == Calibration(found["temperature"], found["none_below"])
    held_out = found["background"]
    assert held_out["windows"] == 1  # of four files of a second
    assert 0 <= held_out["interval"][0] <= held_out["none"] <= held_out["interval"][1] <= 1
    again = tmp_path / "run"
    shutil.copytree(run_dir, again)
    told = json.loads(call("calibrate", again, "--json"))["label"]
    assert (told["temperature"], told["none_below"]) == (found["temperature"], found["none_below"])
    told = json.loads(call("calibrate", again, "--keep", 0.5, "--precision", 0.5, "--json"))["label"]
    assert told["none_below"] >= found["none_below"]
    assert load(again).thresholds["label"] == [one["threshold"] for one in told["thresholds"]]
    read_results(again)  # they still belong to the model
    assert "from score" in call("calibrate", again, "--precision", 0.5)
    assert "background called none" in call("calibrate", again, "--background", run_dir.parent / "rain")


def test_what_all_logits_have_in_common_is_taken_off_at_the_end_of_a_training(run_dir: Path) -> None:
    logits = load(run_dir)(torch.randn(3, 16000))["label"]
    assert logits.mean(1).abs().max() < 1e-5
    model = make()
    wave = torch.randn(3, 16000)
    before = model(wave)["animal"]
    centre_heads_(model)
    torch.testing.assert_close(model(wave)["animal"], before - before.mean(1, keepdim=True))
    model.kinds["animal"], before = "multilabel", {name: p.clone() for name, p in model.named_parameters()}
    centre_heads_(model)
    assert all(torch.equal(before[name], p) for name, p in model.named_parameters())


def test_evaluate_says_how_far_scores_can_be_believed_and_what_none_costs(run_dir: Path, tmp_path: Path) -> None:
    again = tmp_path / "run"
    shutil.copytree(run_dir, again)
    model = load(again)
    model.calibrations["label"] = Calibration(1.0, 1e6)
    model.save(again)
    found = json.loads(call("evaluate", again, "--json"))["tasks"]["label"]["confidence"]
    assert (found["none"]["share"], found["none"]["accuracy"]) == (1.0, None)
    assert 0 <= found["calibration_error"] <= 1
    assert "calibration error" in call("evaluate", again)


def test_what_cannot_be_calibrated_is_named(run_dir: Path, tmp_path: Path) -> None:
    assert "is not a folder" in call("calibrate", "audio_resnet_small_strided", error=UsageError)
    assert "--keep 2: it must be a share" in call("calibrate", run_dir, "--keep", 2, error=UsageError)
    assert "omit --data" in call("calibrate", run_dir, "--events", run_dir, "--keep", 0.5, error=UsageError)
    assert "no task 'bird'" in call("calibrate", run_dir, "--task", "bird", error=UsageError)
    make().save(tmp_path)
    assert "calibrate on other clips with --data" in call("calibrate", tmp_path, error=ModelFileError)


def call(*arguments: object, error: type[Exception] | None = None) -> str:
    done = CliRunner().invoke(app, [*map(str, arguments)])
    if error is None:
        assert done.exception is None, done.exception
        return done.stdout
    assert isinstance(done.exception, error), done.exception
    return str(done.exception)


@pytest.fixture(scope="module")
def run_dir(tone_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short run with background."""
    folder = tmp_path_factory.mktemp("calibration")
    (folder / "rain").mkdir()
    for number in range(4):
        soundfile.write(folder / "rain" / f"{number}.wav", 0.1 * SOUND, 16000)
    overrides = [f"tasks.label.data.path={tone_folder}", f"tasks.label.data.background={folder / 'rain'}"]
    run(load_recipe("folder", [*overrides, *TINY]), folder / "run")
    return folder / "run"


def test_the_weights_of_the_package_are_calibrated_and_call_noise_none() -> None:
    model = load("audio_resnet_small_strided")
    assert model.calibrations.keys() == model.labels.keys()
    assert model.predict(0.1 * SOUND, 16000)["word"].label == "none"
    assert model.predict(0.1 * SOUND, 16000, always=True)["word"].label in model.labels["word"]
