"""Scores that are probabilities and the answer "none of the classes": what is saved, what is said."""

from pathlib import Path

import numpy as np
import pytest
import torch

from audiostride import create_model
from audiostride.errors import ModelFileError
from audiostride.inference.embedding import Sound
from audiostride.inference.predict import predict_sounds
from audiostride.models.calibration import Calibration, calibrated, is_none, none_score
from audiostride.models.classifier import AudioClassifier, load
from audiostride.models.files import save_model

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
