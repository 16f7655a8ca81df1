"""Facts whose violation the other tests did not see: each kills a fault that was once planted in the code.

`tests/mutants.py` plants every one of them again, and a sample of others.
"""

import json
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from small_training import freeze_batch_norm, small_data, small_model, train_small

from audiostride import load
from audiostride.analysis.listening import through_mel
from audiostride.analysis.plot_style import svg
from audiostride.analysis.result_plots import confusion_figure, cost_figure
from audiostride.data import images
from audiostride.data.cache import cached
from audiostride.data.clips import Clips
from audiostride.data.folder import read_folder
from audiostride.data.preparation import make_class_weights
from audiostride.data.sections import TaskSection
from audiostride.data.splits import assign_splits
from audiostride.layers.strides import diffstride_layers
from audiostride.models.audio_cnn import AudioCNN
from audiostride.models.classifier import AudioClassifier
from audiostride.models.cost import model_cost
from audiostride.models.log_mel import LogMel
from audiostride.training.evaluation import best_thresholds, evaluate, score
from audiostride.training.interrupt import StopSignals


def losses(out: Path) -> list[float]:
    """The loss of each step."""
    return [float.fromhex(json.loads(line)["loss_hex"]) for line in (out / "steps.jsonl").read_text().splitlines()]


def last_validation(out: Path) -> dict[str, dict[str, float]]:
    """Scores of the last epoch on the validation clips."""
    return json.loads((out / "metrics.jsonl").read_text().splitlines()[-1])["tasks"]


def test_after_every_step_of_training_strides_lie_between_1_and_half_the_input(tmp_path: Path) -> None:
    model, seen = small_model(), list[float]()

    def on_step(*_: object) -> None:
        for layer, sizes in zip(diffstride_layers(model), ((20, 16), None), strict=True):
            seen.extend(layer.stride.tolist())
            assert layer.stride.min() >= 1
            if sizes:  # 0.2 s are 20 frames of 16 mel bands
                assert layer.stride[0] <= sizes[0] / 2
                assert layer.stride[1] <= sizes[1] / 2

    train_small(model, tmp_path, epochs=2, stride_learning_rate=50.0, on_step=on_step)
    assert set(seen) - {1.5, 2.0}  # they did move


def test_the_loss_is_the_sum_of_the_tasks_losses_by_their_weights(tmp_path: Path) -> None:
    first = {}
    for name, (loud, third) in {"loud": (1.0, 0.0), "third": (0.0, 1.0), "both": (2.0, 0.5)}.items():
        train_small(small_model(), tmp_path / name, steps=1, task_weights={"loud": loud, "third": third})
        first[name] = losses(tmp_path / name)[0]
    assert first["both"] == pytest.approx(2 * first["loud"] + 0.5 * first["third"], rel=1e-5)


def test_a_task_of_weight_0_leaves_its_head_as_it_was(tmp_path: Path) -> None:
    model = small_model()
    before = {task: head.weight.detach().clone() for task, head in model.heads.items()}
    train_small(model, tmp_path, epochs=1, task_weights={"third": 0.0})
    assert torch.equal(model.heads["third"].weight, before["third"])
    assert not torch.equal(model.heads["loud"].weight, before["loud"])


def test_it_is_the_moving_average_that_is_validated(tmp_path: Path) -> None:
    # At a high rate the last weights are far from the average.
    model = train_small(small_model(), tmp_path, epochs=1, ema_decay=0.9, learning_rate=0.1)
    (data,) = small_data()
    of = {
        name: evaluate(net, data.clips, data.labels, data.indexes("validation"))[0]["third"].loss
        for name, net in {"average": load(tmp_path), "last": model}.items()
    }
    assert last_validation(tmp_path)["third"]["loss"] == pytest.approx(of["average"], rel=1e-6)
    assert of["average"] != pytest.approx(of["last"], rel=1e-5)


def test_the_average_has_the_batch_norm_statistics_of_the_model(tmp_path: Path) -> None:
    model = train_small(small_model(), tmp_path, epochs=1, ema_decay=0.9)
    found, fresh = dict(load(tmp_path).named_buffers()), dict(small_model().named_buffers())
    for name, buffer in model.named_buffers():
        torch.testing.assert_close(found[name], buffer, msg=name)
        if name.endswith("running_var"):
            assert not torch.equal(buffer, fresh[name])


def test_the_short_last_step_of_an_epoch_averages_over_the_batches_it_has(tmp_path: Path) -> None:
    """At no learning rate to speak of, its loss is that batch's own, and its gradient, too."""
    norms: dict[str, list[float]] = {}
    for name, accumulate in (("alone", 1), ("grouped", 3)):  # 4 batches: groups of 3 and 1
        model = small_model()
        freeze_batch_norm(model)
        norms[name] = []

        def on_step(*_: object, model: Any = model, name: str = name) -> None:
            norms[name].append(sum(float(p.grad.square().sum()) for p in model.parameters() if p.grad is not None))

        nothing = dict.fromkeys(("learning_rate", "stride_learning_rate", "aliasing_learning_rate"), 1e-30)
        train_small(model, tmp_path / name, epochs=1, accumulate=accumulate, on_step=on_step, **nothing)
    alone, grouped = losses(tmp_path / "alone"), losses(tmp_path / "grouped")
    assert grouped == pytest.approx([sum(alone[:3]) / 3, alone[3]], rel=1e-6)
    assert norms["grouped"][1] == pytest.approx(norms["alone"][3], rel=1e-4)


def weights_of(labels: np.ndarray, kind: str) -> list[float]:
    task = TaskSection.model_validate(
        {"data": {"source": "folder", "path": "x"}, "column": "label", "kind": kind, "class_weights": "balanced"}
    )
    (data,) = small_data()
    data.labels, data.splits = {"t": labels}, ["train"] * len(labels)
    return make_class_weights({"t": task}, [data], {"t": ["a", "b"]})["t"].tolist()


def test_balanced_weights_make_a_rare_class_count_as_much_as_a_frequent_one() -> None:
    numbers = np.array([0] * 30 + [1] * 10)
    assert weights_of(numbers, "multiclass") == pytest.approx([40 / (2 * 30), 40 / (2 * 10)])
    several = np.stack([np.arange(40) < 8, np.arange(40) < 20], 1).astype(np.float32)
    assert weights_of(several, "multilabel") == pytest.approx([32 / 8, 20 / 20])


@pytest.mark.parametrize("positives", [2, 5, 20, 35, 38])
def test_the_threshold_of_a_binary_task_is_the_best_there_is_however_rare_a_class(positives: int) -> None:
    for seed in range(10):
        random = torch.Generator().manual_seed(seed)
        truth = (torch.arange(40) < positives).long()
        logits = torch.stack([torch.zeros(40), torch.randn(40, generator=random) + truth], 1)
        (cut,) = best_thresholds(logits, truth, "binary")
        probability = torch.softmax(logits, 1)[:, 1].sort().values.tolist()
        between = [(a + b) / 2 for a, b in zip([0.0, *probability], [*probability, 1.0], strict=True)]
        best = max(score(logits, truth, "binary", [t]).macro_f1 or 0 for t in between)
        assert score(logits, truth, "binary", [cut]).macro_f1 == pytest.approx(best, abs=1e-6)


def test_a_cache_that_holds_one_sample_rate_makes_a_second_entry_for_another(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    sound = np.sin(np.arange(1600) / 20)
    soundfile.write(tmp_path / "a" / "x.wav", sound, 16000)
    clips, folder = read_folder(tmp_path), tmp_path / "cache"
    lengths = [cached(clips, rate, folder)[0].n_samples(0, rate) for rate in (16000, 8000, 16000)]
    assert lengths == [1600, 800, 1600]
    assert len([path for path in folder.iterdir() if path.is_dir()]) == 2
    np.testing.assert_allclose(cached(clips, 16000, folder)[0].read(0, 16000), sound, atol=1 / 32768)


@pytest.mark.parametrize("rare", [1, 2, 3, 4, 5])
def test_of_three_clips_of_a_class_on_one_is_tested_and_of_fewer_none(rare: int) -> None:
    label = ["common"] * 100 + ["rare"] * rare
    for seed in range(5):
        splits = assign_splits(Clips([f"{i}.wav" for i in range(100 + rare)], {}, [""] * (100 + rare)), label, seed)
        counts = Counter(splits[100:])
        assert counts["test"] == (1 if rare >= 3 else 0)
        assert counts["validation"] == (1 if rare - counts["test"] >= 3 else 0)
        assert counts["train"] >= 1


def test_what_a_figure_is_called_cannot_write_into_the_page() -> None:
    text = svg(confusion_figure(np.eye(2, dtype=int), ["a", "b"]), 'of "><script>x</script>&.wav')
    assert text.startswith(
        '<svg role="img" aria-label="of &quot;&gt;&lt;script&gt;x&lt;/script&gt;&amp;.wav"',
    )


def envelope(waveform: np.ndarray) -> np.ndarray:
    """Level over 5 ms."""
    return np.convolve(np.abs(waveform), np.ones(80) / 80, "same")


def test_a_sound_through_the_mel_spectrogram_is_neither_early_nor_late() -> None:
    random = np.random.RandomState(0)
    sound = 1e-3 * random.standard_normal(32000)
    for start in range(2000, 30000, 4000):
        sound[start : start + 800] += 0.2 * random.standard_normal(800)
    model = AudioClassifier(LogMel(), AudioCNN("diffstride", (4,), ((1, 1),), smoothness=1), {"x": 2})
    found = envelope(through_mel(model, sound.astype(np.float32)))
    wanted = envelope(sound)
    lags = range(-400, 401, 20)
    likeness = [float(np.dot(np.roll(wanted, lag)[500:-500], found[500:-500])) for lag in lags]
    late = lags[int(np.argmax(likeness))]
    assert abs(late) <= 60  # half a window, 200 samples, would be the fault


def test_activations_are_the_numbers_in_the_outputs_of_convolutions_and_pooling() -> None:
    strided, spectrogram = AudioCNN("strided", channels=(4, 6), strides=((2, 2), (2, 1))), torch.zeros(1, 1, 20, 16)
    # 20 frames of 16 bands: time, then mel, of each block.
    assert model_cost(strided, spectrogram).activations == 4 * 10 * 16 + 4 * 10 * 8 + 6 * 5 * 8 + 6 * 5 * 8
    pooled = AudioCNN("spectral", channels=(4, 6), strides=((2, 2), (2, 1)), pool_after_relu=True)
    at_full = model_cost(pooled, spectrogram).activations
    convolutions = 4 * 20 * 16 + 4 * 10 * 16 + 6 * 10 * 8  # the last axis is not pooled
    assert at_full == convolutions + 4 * 10 * 16 + 4 * 10 * 8 + 6 * 5 * 8 + 6 * 5 * 8
    wide = AudioCNN("spectral", channels=(2, 64), strides=((1, 1), (4, 1)))
    # Pooled first: the three shifted inputs of the convolution over time, then its output.
    first = 2 * 20 * 16 + 2 * 20 * 16
    assert model_cost(wide, spectrogram).activations == first + 3 * 2 * 5 * 16 + 64 * 5 * 16 + 64 * 5 * 16


def test_the_training_loss_of_an_epoch_is_the_mean_of_its_steps(tmp_path: Path) -> None:
    train_small(small_model(), tmp_path, epochs=1)  # 4 batches of 8 clips each
    training = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[0])["tasks"]
    assert training["loud"]["loss"] + training["third"]["loss"] == pytest.approx(np.mean(losses(tmp_path)), rel=1e-5)


def test_a_confusion_matrix_is_coloured_by_the_share_of_the_true_class() -> None:
    (image,) = confusion_figure(np.array([[3, 1], [0, 5]]), ["a", "b"]).axes[0].images
    assert np.asarray(image.get_array()).tolist() == [[75, 25], [0, 100]]


def test_accuracy_stands_over_millions_of_macs() -> None:
    point = {"task": "word", "method": "strided", "macs_per_second": 428e6, "mean": 0.9, "sd": None}
    (line,) = cost_figure([point]).axes[0].lines
    assert line.get_xydata().tolist() == [[428.0, 90.0]]


def test_after_a_block_of_stop_signals_their_handlers_are_those_of_before() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with StopSignals():
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_random_part_of_an_image_has_an_area_and_a_form_within_its_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    boxes: list[tuple[int, int, int, int]] = []
    monkeypatch.setattr(images, "_resize", lambda image, box, size: boxes.append(box) or np.zeros((size, size, 3)))
    for seed in range(200):
        images.random_part(np.zeros((300, 400, 3), np.uint8), 8, np.random.default_rng(seed))
    sides = np.array([(right - left, lower - upper) for left, upper, right, lower in boxes])
    share, form = sides.prod(1) / (300 * 400), sides[:, 0] / sides[:, 1]
    assert 0.075 < share.min() < 0.2  # small parts are drawn, too
    assert 0.6 < share.max() <= 1
    assert 0.72 < form.min() < 1 < form.max() < 1.36
