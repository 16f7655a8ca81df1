"""Learning from a teacher: the loss by hand, the windows it is given, and what is refused."""

import copy
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_training import SEED, freeze_batch_norm, small_data, small_model, train_small
from torch import Tensor

from audiostride import AudioClassifier, AudioCNN, LogMel, load
from audiostride.data.augment import Augmentation
from audiostride.errors import ModelFileError, RecipeError
from audiostride.training.build import check_recipe
from audiostride.training.distillation import Teacher, distillation_loss
from audiostride.training.recipe import dump_recipe, load_recipe
from audiostride.training.report import Report
from audiostride.training.run import run

STILL: dict[str, Any] = {"learning_rate": 1e-12, "stride_learning_rate": 1e-12, "batch_size": 32, "epochs": 1}
"""One batch of all training clips, which moves nothing."""


@pytest.fixture
def double_precision() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def large_model() -> AudioClassifier:
    """A teacher with another frontend and trunk, other order of classes, and a task more."""
    torch.manual_seed(SEED + 1)
    trunk = AudioCNN("diffstride", (8, 8), ((2, 2), (1, 2)), smoothness=1)
    heads = {"other": 4, "third": ["2", "0", "1"], "loud": ["1", "0"]}
    return AudioClassifier(LogMel(n_mels=24), trunk, heads, window_s=0.2).eval()


def large_teacher(weight: float = 0.3, temperature: float = 4.0) -> Teacher:
    teacher = Teacher(large_model(), weight, temperature)
    teacher.match_classes(small_model().labels)
    return teacher


def training_windows() -> Tensor:
    data = small_data()[0]
    return torch.from_numpy(data.clips.waveforms[data.indexes("train")])  # type: ignore[attr-defined]


def divergence_by_hand(student: Tensor, teacher: Tensor, temperature: float) -> float:
    """T^2 times the mean over clips of sum_c p_c log(p_c / q_c), in float64."""
    p, q = (
        np.exp(x / temperature) / np.exp(x / temperature).sum(1, keepdims=True)
        for x in (teacher.detach().double().numpy(), student.detach().double().numpy())
    )
    return float(temperature**2 * (p * np.log(p / q)).sum(1).mean())


def first_loss(out: Path) -> float:
    return float.fromhex(json.loads((out / "steps.jsonl").read_text().splitlines()[0])["loss_hex"])


def test_a_steps_loss_is_the_formula(tmp_path: Path) -> None:
    student, data, windows = small_model(), small_data()[0], training_windows()
    freeze_batch_norm(student)
    truth = {task: torch.from_numpy(numbers[data.indexes("train")]) for task, numbers in data.labels.items()}
    before, theirs = copy.deepcopy(student).eval()(windows), large_model()(windows)
    taught = {"loud": theirs["loud"][:, [1, 0]], "third": theirs["third"][:, [1, 2, 0]]}  # by name: 0, 1, 2
    weights = {"third": torch.tensor([0.5, 1.0, 3.0])}
    expected = 0.0
    for task, share in (("loud", 1.0), ("third", 0.4)):
        usual = torch.nn.functional.cross_entropy(before[task], truth[task], weight=weights.get(task))
        expected += share * (0.7 * float(usual.detach()) + 0.3 * divergence_by_hand(before[task], taught[task], 4.0))
    settings = STILL | {"task_weights": {"third": 0.4}, "class_weights": weights}
    train_small(student, tmp_path / "taught", teacher=large_teacher(), **settings)
    assert first_loss(tmp_path / "taught") == pytest.approx(expected, rel=1e-5)
    train_small(student, tmp_path / "half", teacher=large_teacher(), precision="bfloat16", **settings)
    assert first_loss(tmp_path / "half") == pytest.approx(expected, rel=0.02)
    assert first_loss(tmp_path / "half") != first_loss(tmp_path / "taught")


def test_each_kind_of_task_has_its_loss() -> None:
    own, taught, temperature = torch.randn(6, 2), torch.randn(6, 2), 3.0
    for kind in ("multiclass", "binary"):
        found = distillation_loss(own, taught, kind, temperature)
        assert float(found) == pytest.approx(divergence_by_hand(own, taught, temperature), rel=1e-5)
    p, q = (taught / temperature).sigmoid(), (own / temperature).sigmoid()
    by_hand = -(temperature**2) * (p * q.log() + (1 - p) * (1 - q).log()).mean()
    torch.testing.assert_close(distillation_loss(own, taught, "multilabel", temperature), by_hand)


def test_a_binary_tasks_gradient_is_that_of_the_binary_cross_entropy() -> None:
    own, taught, temperature = torch.randn(6, 2, requires_grad=True), torch.randn(6, 2), 3.0
    (found,) = torch.autograd.grad(distillation_loss(own, taught, "binary", temperature), own)
    odds = (own[:, 1] - own[:, 0]) / temperature
    target = (taught / temperature).softmax(1)[:, 1]
    loss = temperature**2 * torch.nn.functional.binary_cross_entropy_with_logits(odds, target)
    torch.testing.assert_close(found, torch.autograd.grad(loss, own)[0])


def test_far_apart_logits_leave_a_finite_loss_and_gradient() -> None:
    for kind in ("multiclass", "multilabel"):
        own = torch.tensor([[500.0, -500.0]], requires_grad=True)
        loss = distillation_loss(own, torch.tensor([[-500.0, 500.0]]), kind, 0.5)
        loss.backward()
        assert torch.isfinite(loss)
        assert own.grad is not None
        assert torch.isfinite(own.grad).all()


@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize("kinds", [{}, {"loud": "multilabel", "third": "multilabel"}])
def test_a_student_that_is_its_own_teacher_has_nothing_to_learn(tmp_path: Path, kinds: dict[str, str]) -> None:
    student = small_model()
    student.kinds |= kinds
    freeze_batch_norm(student)
    data = small_data()
    if kinds:
        data[0].labels = {task: np.eye(numbers.max() + 1)[numbers] for task, numbers in data[0].labels.items()}
    found: dict[float, float] = {}
    for weight in (1.0, 0.5):

        def note(*_: object, weight: float = weight) -> None:
            gradients = [p.grad.abs().max() for p in student.parameters() if p.grad is not None]
            assert len(gradients) == len(list(student.parameters()))
            found[weight] = float(torch.stack(gradients).max())

        train_small(
            student, tmp_path / str(weight), sets=data, **STILL, teacher=Teacher(student, weight, 2.0), on_step=note
        )
    assert found[1.0] < 1e-12
    assert found[0.5] > 1e-3


def test_the_teacher_is_given_the_students_windows_but_not_its_masks(tmp_path: Path) -> None:
    student, windows = small_model(), training_windows()
    freeze_batch_norm(student)
    augmentation = Augmentation(
        waveform=[lambda waveform, rng: waveform[::-1].copy() * np.float32(0.5)],
        log_mel=[lambda log_mel, rng: torch.zeros_like(log_mel)],
    )
    heard = 0.5 * windows.flip(1)
    blank = copy.deepcopy(student).eval().trunk(torch.zeros_like(student.frontend(heard)))
    theirs = large_teacher().logits(heard, ["loud", "third"])
    expected = sum(divergence_by_hand(student.heads[task](blank), theirs[task], 2.0) for task in theirs)
    train_small(student, tmp_path, teacher=large_teacher(1.0, 2.0), augmentation=augmentation, **STILL)
    assert first_loss(tmp_path) == pytest.approx(expected, rel=1e-5)


@pytest.mark.usefixtures("double_precision")
def test_accumulated_batches_are_taught_as_one(tmp_path: Path) -> None:
    models = []
    for name, settings in {"whole": {"batch_size": 32}, "parts": {"batch_size": 8, "accumulate": 4}}.items():
        model = small_model()
        freeze_batch_norm(model)
        models.append(train_small(model, tmp_path / name, teacher=large_teacher(), **settings))
    for (name, one), other in zip(models[0].state_dict().items(), models[1].state_dict().values(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10, msg=name)


def test_a_teacher_learns_nothing_and_the_model_it_was_made_of_is_left_alone(tmp_path: Path) -> None:
    model = large_model().train()
    before = copy.deepcopy(model.state_dict())
    teacher = Teacher(model, 0.5, 2.0)
    teacher.match_classes(small_model().labels)
    digest = teacher.digest()
    train_small(small_model(), tmp_path, teacher=teacher)
    assert teacher.digest() == digest
    assert not teacher.model.training
    assert not any(p.requires_grad for p in teacher.model.parameters())
    assert model.training
    assert all(p.requires_grad for p in model.parameters())
    assert model.labels["loud"] == ["1", "0"]
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0, msg=name)


def test_classes_are_matched_by_name() -> None:
    windows, teacher = training_windows(), large_teacher()
    theirs, found = large_model()(windows), teacher.logits(windows, ["loud", "third"])
    for task, labels in small_model().labels.items():
        for number, label in enumerate(labels):
            column = theirs[task][:, large_model().labels[task].index(label)]
            torch.testing.assert_close(found[task][:, number], column)


def test_the_digest_is_of_weights_strides_and_settings() -> None:
    def changed(change: Any) -> str:
        model = large_model()
        with torch.no_grad():
            change(model)
        return Teacher(model, 0.5, 2.0).digest()

    first = Teacher(large_model(), 0.5, 2.0).digest()
    assert changed(lambda model: None) == first
    assert changed(lambda model: model.heads["loud"].bias.add_(1e-3)) != first
    assert changed(lambda model: model.trunk.blocks[0].pool.stride.add_(1e-3)) != first
    assert changed(lambda model: setattr(model, "frontend", LogMel(n_mels=24, f_max=7000))) != first


@pytest.mark.parametrize(("weight", "temperature"), [(0.0, 2.0), (1.1, 2.0), (0.5, 0.0), (0.5, float("inf"))])
def test_a_weight_or_temperature_out_of_range_is_refused(weight: float, temperature: float) -> None:
    with pytest.raises(ValueError, match=r"weight must be in \(0, 1\] and temperature above 0"):
        Teacher(large_model(), weight, temperature)
    settings = [f"train.teacher_weight={weight}", f"train.teacher_temperature={temperature}".replace("inf", ".inf")]
    with pytest.raises(RecipeError, match=r"train\.teacher_(weight|temperature): .*(than|valid number)"):
        load_recipe("folder", ["train.teacher=runs/large", *settings])


# Recipes.

TINY = ["model.channels=[4,4]", "model.strides=[[2,2],[2,2]]", "train.batch_size=16", "train.workers=0"]


@pytest.fixture(scope="module")
def taught_by(tone_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], Path]:
    """Settings of a student, and its teacher, whose classes stand the other way round."""
    torch.manual_seed(SEED)
    trunk = AudioCNN("diffstride", (8, 8), ((2, 2), (2, 2)), smoothness=1)
    folder = tmp_path_factory.mktemp("teachers") / "large"
    AudioClassifier(LogMel(), trunk, {"label": ["low", "high"]}).save(folder)
    return [f"tasks.label.data.path={tone_folder}", *TINY, "train.epochs=2"], folder


class _Stopped(Exception):
    pass


def _stop(step: int, *_: object) -> None:
    if step == 5:
        raise _Stopped


@pytest.mark.slow
def test_a_run_that_was_stopped_goes_on_to_the_bit_with_the_same_teacher_alone(
    taught_by: tuple[list[str], Path], tmp_path: Path
) -> None:
    settings, folder = taught_by
    ways = ["augment.mixup=0.5", "augment.spec_augment={}", "train.accumulate=2", "train.early_stopping=5"]
    settings = [*settings, *ways, "train.batch_size=8", "train.checkpoint_steps=2", "train.epochs=3"]
    recipe = load_recipe("folder", [*settings, f"train.teacher={folder}"])
    run(recipe, tmp_path / "straight")
    with pytest.raises(_Stopped):
        run(recipe, tmp_path / "stopped", Report(on_step=_stop))
    other = load(folder)
    with torch.no_grad():
        other.heads["label"].bias += 1
    other.save(tmp_path / "other")
    for teacher in (f"train.teacher={tmp_path / 'other'}", "train.teacher=null"):
        with pytest.raises(ModelFileError, match=r"teacher\.sha256 was '\w{64}', is '"):
            run(load_recipe("folder", [*settings, teacher]), tmp_path / "stopped", resume=True)
    shutil.copytree(folder, tmp_path / "moved")  # what counts is what it says, not where it lies
    moved = load_recipe("folder", [*settings, f"train.teacher={tmp_path / 'moved'}"])
    run(moved, tmp_path / "stopped", Report(notify=lambda _: None), resume=True)
    for name in ("steps.jsonl", "model.safetensors"):
        assert (tmp_path / "straight" / name).read_bytes() == (tmp_path / "stopped" / name).read_bytes(), name


def test_a_student_begins_with_the_weights_it_has_without_a_teacher(
    taught_by: tuple[list[str], Path], tmp_path: Path
) -> None:
    settings, folder = taught_by
    first, losses = [], []
    for name, more in (("alone", []), ("taught", [f"train.teacher={folder}"])):
        run(
            load_recipe("folder", [*settings, "train.steps=1", *more]),
            tmp_path / name,
            Report(on_start=lambda model, *_: first.append(copy.deepcopy(model.state_dict()))),
        )
        losses.append(first_loss(tmp_path / name))
    assert losses[0] != losses[1]
    assert all(torch.equal(value, first[1][name]) for name, value in first[0].items())


def test_a_recipe_says_what_it_does(taught_by: tuple[list[str], Path], tmp_path: Path) -> None:
    settings, folder = taught_by
    recipe = load_recipe("folder", [*settings, f"train.teacher={folder}"])
    assert (recipe.train.teacher_weight, recipe.train.teacher_temperature) == (0.5, 2.0)
    for name, wanted in {"taught": recipe, "alone": load_recipe("folder", settings)}.items():
        path = tmp_path / f"{name}.yaml"
        path.write_text(dump_recipe(wanted))
        assert load_recipe(str(path)) == wanted


@pytest.mark.parametrize("key", ["teacher_weight", "teacher_temperature"])
def test_settings_of_a_teacher_without_one_are_refused_by_name(key: str) -> None:
    with pytest.raises(RecipeError, match=rf"train\.{key}: .*set train\.teacher=RUN_DIR"):
        load_recipe("folder", [f"train.{key}=0.5"])


def _saved(
    folder: Path, labels: Any, sample_rate: int = 16000, window_s: float = 1.0, kind: str = "multiclass"
) -> Path:
    frontend = LogMel(sample_rate=sample_rate, f_max=3800)
    trunk = AudioCNN("strided", (4,), ((2, 2),))
    AudioClassifier(frontend, trunk, labels, window_s, dict.fromkeys(labels, kind)).save(folder)
    return folder


@pytest.mark.parametrize(
    ("teacher", "message"),
    [
        ({"labels": {"word": ["high", "low"]}}, "has no task 'label', only 'word'"),
        (
            {"labels": {"label": ["high", "middle", "top"]}},
            "task 'label' of .*teacher has different classes; only in the data: low; only in the teacher: middle, top",
        ),
        ({"labels": {"label": ["high", "low", "top"]}}, "only in the data: none; only in the teacher: top"),
        ({"labels": {"label": ["high", "low"]}, "kind": "multilabel"}, r"tasks\.label\.kind is multiclass"),
        ({"labels": {"label": ["high", "low"]}, "sample_rate": 8000}, "windows of 1 s at 8000 Hz, .* at 16000 Hz"),
        ({"labels": {"label": ["high", "low"]}, "window_s": 2.5}, "windows of 2.5 s at 16000 Hz, .*windows of 1 s"),
    ],
)
def test_what_cannot_teach_is_named_before_any_training(
    taught_by: tuple[list[str], Path], tmp_path: Path, teacher: dict[str, Any], message: str
) -> None:
    recipe = load_recipe("folder", [*taught_by[0], f"train.teacher={_saved(tmp_path / 'teacher', **teacher)}"])
    for work in (lambda: run(recipe, tmp_path / "out"), lambda: check_recipe(recipe)):
        with pytest.raises(RecipeError, match=rf"train\.teacher: .*{message}"):
            work()
    assert not (tmp_path / "out").exists()


def test_a_teacher_that_is_not_there_is_named_before_data_is_read(tmp_path: Path) -> None:
    recipe = load_recipe("folder", ["tasks.label.data.path=nowhere", f"train.teacher={tmp_path / 'gone'}"])
    with pytest.raises(ModelFileError, match=r"gone/config\.json: no such file"):
        run(recipe, tmp_path / "out")


def test_images_are_not_taught_by_a_listener(taught_by: tuple[list[str], Path], tmp_path: Path) -> None:
    settings = ["tasks.label.data.path=nowhere", "sweep={}", f"train.teacher={taught_by[1]}"]
    with pytest.raises(RecipeError, match=r"takes windows of 1 s at 16000 Hz, and .* images of 32 x 32"):
        run(load_recipe("cifar10", settings), tmp_path / "out")
