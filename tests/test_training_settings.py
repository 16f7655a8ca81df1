"""What each setting of the training loop does, against a calculation by hand."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from small_training import freeze_batch_norm, small_data, small_model, train_small

from audiostride import load
from audiostride.errors import RecipeError, TrainingError, UsageError
from audiostride.training.evaluation import task_loss
from audiostride.training.optimizers import OPTIMIZERS, make_optimizer
from audiostride.training.recipe import TrainSection, load_recipe
from audiostride.training.schedules import SCHEDULES, schedule_factor


@pytest.fixture
def double_precision() -> Any:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def _metrics(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.usefixtures("double_precision")
def test_two_accumulated_batches_are_one_batch_of_twice_the_size(tmp_path: Path) -> None:
    models = []
    for name, settings in {"whole": {"batch_size": 32}, "parts": {"batch_size": 8, "accumulate": 4}}.items():
        model = small_model()
        freeze_batch_norm(model)
        models.append(train_small(model, tmp_path / name, epochs=5, **settings))
        assert len((tmp_path / name / "steps.jsonl").read_text().splitlines()) == 5
    for (name, one), other in zip(models[0].state_dict().items(), models[1].state_dict().values(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10, msg=name)


def test_the_last_step_of_an_epoch_takes_the_batches_that_are_left(tmp_path: Path) -> None:
    train_small(small_model(), tmp_path, epochs=2, batch_size=8, accumulate=3)  # 32 clips: 4 batches an epoch
    assert [record["step"] for record in _metrics(tmp_path)] == [2, 2, 4, 4]


def test_gradients_are_clipped_to_the_norm_asked_for(tmp_path: Path) -> None:
    norms: dict[str, list[float]] = {"free": [], "clipped": []}
    for name, limit in (("free", None), ("clipped", 0.01)):
        model = small_model()

        def note(*_: object, model: Any = model, name: str = name) -> None:
            squares = [p.grad.square().sum() for p in model.parameters() if p.grad is not None]
            norms[name].append(float(torch.stack(squares).sum().sqrt()))

        train_small(model, tmp_path / name, epochs=1, gradient_clip=limit, on_step=note)
    assert min(norms["free"]) > 0.1
    assert norms["clipped"] == pytest.approx([0.01] * len(norms["clipped"]), rel=1e-4)


def test_the_model_that_is_kept_is_the_moving_average_computed_by_hand(tmp_path: Path) -> None:
    model, decay = small_model(), 0.3
    expected = {name: p.detach().clone() for name, p in model.named_parameters()}

    def follow(step: int, *_: object) -> None:
        share = min(decay, step / (9 + step))  # the step's number is from 1 here
        for name, value in model.named_parameters():
            expected[name] = share * expected[name] + (1 - share) * value.detach()

    train_small(model, tmp_path, epochs=1, ema_decay=decay, on_step=follow)
    for name, value in load(tmp_path).named_parameters():
        torch.testing.assert_close(value, expected[name], msg=name)
        assert not torch.equal(value, dict(model.named_parameters())[name]), name


def test_training_stops_after_so_many_epochs_without_a_better_one(tmp_path: Path) -> None:
    model = small_model()
    freeze_batch_norm(model)  # with no statistics and no rate to speak of, no epoch is better than the first
    nothing = dict.fromkeys(("learning_rate", "stride_learning_rate", "aliasing_learning_rate"), 1e-30)
    train_small(model, tmp_path, epochs=9, early_stopping=2, **nothing)
    assert [record["epoch"] for record in _metrics(tmp_path)] == [1, 1, 2, 2, 3, 3]


def test_epochs_between_validations_are_logged_but_neither_scored_nor_kept(tmp_path: Path) -> None:
    kept = []

    def note(step: int, *_: object) -> None:  # 4 steps an epoch: the one before it belongs to the epoch before
        kept.append((tmp_path / "model.safetensors").exists())

    train_small(small_model(), tmp_path, epochs=5, validate_every=2, on_step=note)
    scored = [(line["epoch"], line["split"]) for line in _metrics(tmp_path)]
    trained = [(epoch, "train") for epoch in range(1, 6)]
    assert sorted(scored) == sorted([*trained, (2, "validation"), (4, "validation"), (5, "validation")])
    assert kept == [False] * 8 + [True] * 12


def test_rare_validation_changes_no_weight(tmp_path: Path) -> None:
    models = [
        train_small(small_model(), tmp_path / str(every), epochs=4, validate_every=every, keep="last")
        for every in (1, 3)
    ]
    for name, value in models[0].state_dict().items():
        assert torch.equal(value, models[1].state_dict()[name]), name


def test_training_stops_early_only_where_it_has_looked(tmp_path: Path) -> None:
    model = small_model()
    freeze_batch_norm(model)
    nothing = dict.fromkeys(("learning_rate", "stride_learning_rate", "aliasing_learning_rate"), 1e-30)
    train_small(model, tmp_path, epochs=20, validate_every=3, early_stopping=1, **nothing)
    assert [line["epoch"] for line in _metrics(tmp_path) if line["split"] == "validation"] == [3, 6]
    assert _metrics(tmp_path)[-1]["epoch"] == 6


def test_the_rate_warms_up_in_a_straight_line_and_then_follows_its_schedule(tmp_path: Path) -> None:
    train_small(small_model(), tmp_path, epochs=3, warmup_steps=8, schedule="cosine")  # 4 steps an epoch
    rates = [record["lr"] for record in _metrics(tmp_path) if record["split"] == "train"]
    assert rates == pytest.approx([0.005, 0.01, 0.01 * schedule_factor("cosine", 3, 4)])


def test_step_drops_the_rates_to_a_tenth_after_the_epochs_named(tmp_path: Path) -> None:
    train_small(small_model(), tmp_path, epochs=4, schedule="step", drop_epochs=[1, 3])
    rates = [(line["lr"], line["stride_lr"]) for line in _metrics(tmp_path)[::2]]
    assert rates == [pytest.approx((0.01 * f, 0.05 * f)) for f in (1, 0.1, 0.1, 0.01)]


def test_sgd_moves_weights_by_momentum_and_decay_as_computed_by_hand(tmp_path: Path) -> None:
    model, rate, momentum, decay = small_model(), 0.1, 0.9, 0.01
    head = model.heads["loud"].weight
    expected, velocity = head.detach().clone(), torch.zeros_like(head)

    def follow(*_: object) -> None:
        nonlocal expected, velocity
        assert head.grad is not None
        velocity = momentum * velocity + head.grad + decay * expected
        expected = expected - rate * velocity
        torch.testing.assert_close(head.detach(), expected)

    settings = {"learning_rate": rate, "weight_decay": decay}
    train_small(model, tmp_path, epochs=2, optimizer="sgd", momentum=momentum, on_step=follow, **settings)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_no_optimizer_decays_strides(optimizer: str) -> None:
    model = small_model()
    before = model.trunk.strides()
    head = model.heads["loud"].weight.detach().clone()
    updates = make_optimizer(model, TrainSection(optimizer=optimizer, learning_rate=0.1, weight_decay=0.5))
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    updates.step()
    assert model.trunk.strides() == before
    assert not torch.equal(model.heads["loud"].weight, head)


def test_decoupled_decay_shrinks_weights_by_the_rate_times_the_decay() -> None:
    model = small_model()
    head = model.heads["loud"].weight.detach().clone()
    updates = make_optimizer(model, TrainSection(optimizer="adamw", learning_rate=0.1, weight_decay=0.5))
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    updates.step()
    torch.testing.assert_close(model.heads["loud"].weight.detach(), head * 0.95)


def test_the_last_epoch_is_kept_if_that_is_asked_for(tmp_path: Path) -> None:
    model = small_model()
    train_small(model, tmp_path, epochs=3, keep="last", learning_rate=0.3)  # too fast to be the best by chance
    for name, value in load(tmp_path).state_dict().items():
        torch.testing.assert_close(value, model.state_dict()[name], rtol=0, atol=0, msg=name)


def test_without_validation_clips_the_test_is_watched_and_cannot_choose_the_epoch(tmp_path: Path) -> None:
    data = small_data()
    data[0].splits = ["train" if split == "validation" else split for split in data[0].splits]
    with pytest.raises(ValueError, match="no validation clips to choose the best epoch by"):
        train_small(small_model(), tmp_path, sets=data)
    train_small(small_model(), tmp_path, sets=data, keep="last")
    assert [record["split"] for record in _metrics(tmp_path)] == ["train", "test"] * 3


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.momentum=0.9", r"train\.momentum: .*sgd only; set train\.optimizer=sgd"),
        ("train.schedule=step", r"train\.drop_epochs: .*belongs to train\.schedule=step"),
        ("train.drop_epochs=[3]", r"train\.drop_epochs: .*belongs to train\.schedule=step"),
        ("train.validation_fraction=0", r"train\.validation_fraction: .*set train\.keep=last"),
        ("train.optimizer=adan", r"train\.optimizer: .*did you mean 'adam'"),
    ],
)
def test_settings_that_do_not_go_together_are_refused_by_name(override: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        load_recipe("ripples", [override])


def test_one_cycle_with_a_second_warm_up_is_refused_by_the_recipe() -> None:
    with pytest.raises(RecipeError, match=r"train\.warmup_steps: .*one_cycle has a warm-up of its own"):
        load_recipe("ripples", ["train.schedule=one_cycle", "train.warmup_steps=3"])


@pytest.mark.parametrize(
    "override",
    [
        "train.gradient_clip=0",
        "train.ema_decay=1.0",
        "train.accumulate=0",
        "train.early_stopping=0",
        "train.keep_checkpoints=0",
        "train.checkpoint_steps=0",
        "train.warmup_steps=-1",
        "train.label_smoothing=1.0",
        "train.label_smoothing=-0.1",
    ],
)
def test_a_setting_out_of_range_is_refused_by_name(override: str) -> None:
    with pytest.raises(RecipeError, match=override.partition("=")[0]):
        load_recipe("ripples", [override])


def test_a_loss_that_is_not_finite_stops_before_the_update_and_names_the_files(tmp_path: Path) -> None:
    model = small_model()
    before: dict[str, torch.Tensor] = {}

    def remember(*_: object) -> None:
        before.update({name: p.detach().clone() for name, p in model.named_parameters()})

    with pytest.raises(TrainingError, match=r"the loss became (nan|inf) at step \d+.*clip-\d\d, clip-\d\d"):
        train_small(model, tmp_path, learning_rate=1e30, on_step=remember)
    assert before
    assert all(torch.equal(before[name], p) for name, p in model.named_parameters())


def test_a_directory_with_checkpoints_is_not_trained_over(tmp_path: Path) -> None:
    train_small(small_model(), tmp_path, epochs=1)
    with pytest.raises(UsageError, match="holds checkpoints of another run"):
        train_small(small_model(), tmp_path, epochs=1)


def test_bfloat16_training_stays_near_float32_and_keeps_float32_weights(tmp_path: Path) -> None:
    losses = {}
    for precision in ("float32", "bfloat16"):
        trained = train_small(small_model(), tmp_path / precision, precision=precision)
        lines = (tmp_path / precision / "steps.jsonl").read_text().splitlines()
        losses[precision] = [float.fromhex(json.loads(line)["loss_hex"]) for line in lines]
        assert {p.dtype for p in trained.parameters()} == {torch.float32}
    first, half = (torch.tensor(losses[precision]) for precision in ("float32", "bfloat16"))
    assert not torch.equal(first, half)
    # Of the same weights; a step later the two are different networks.
    torch.testing.assert_close(first[0], half[0], rtol=0.01, atol=0)


def test_label_smoothing_is_a_share_of_the_truth_spread_over_all_classes() -> None:
    logits, numbers = torch.randn(6, 4), torch.tensor([0, 3, 1, 1, 2, 0])
    spread = 0.7 * torch.eye(4)[numbers] + 0.3 / 4
    by_hand = -(spread * logits.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(task_loss(logits, numbers, label_smoothing=0.3), by_hand)
    mixed = torch.rand(6, 4).softmax(1)  # as mixup leaves them
    by_hand = -((0.7 * mixed + 0.3 / 4) * logits.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(task_loss(logits, mixed, "binary", label_smoothing=0.3), by_hand)


def test_labels_are_smoothed_in_training_and_in_no_score(tmp_path: Path) -> None:
    losses = {}
    for share in (0.0, 0.5):
        out = tmp_path / f"{share}"
        settings = {"learning_rate": 1e-12, "stride_learning_rate": 1e-12, "batch_size": 32}
        model = small_model()
        freeze_batch_norm(model)
        train_small(model, out, epochs=1, label_smoothing=share, **settings)
        losses[share] = [record["tasks"]["third"]["loss"] for record in _metrics(out)]
    assert losses[0.5][1] == pytest.approx(losses[0.0][1], rel=1e-6)  # validation
    data, model = small_data()[0], small_model().eval()
    rows = data.indexes("train")
    logits = model(torch.from_numpy(data.clips.waveforms[rows]))["third"].detach()  # type: ignore[attr-defined]
    by_hand = torch.nn.functional.cross_entropy(
        logits, torch.from_numpy(data.labels["third"][rows]), label_smoothing=0.5
    )
    assert losses[0.5][0] == pytest.approx(float(by_hand), rel=1e-4)


def test_label_smoothing_is_refused_for_a_multilabel_task_which_is_named(tmp_path: Path) -> None:
    message = r"train\.label_smoothing is for tasks with one class per clip, but tasks\.label\.kind is multilabel"
    with pytest.raises(RecipeError, match=message):
        load_recipe("folder", ["tasks.label.kind=multilabel", "train.label_smoothing=0.1"])
    assert load_recipe("folder", ["tasks.label.kind=binary", "train.label_smoothing=0.1"]).train.label_smoothing == 0.1
    model = small_model()
    model.reset_classifier({"loud": 2, "third": 3}, {"third": "multilabel"})
    with pytest.raises(ValueError, match="'third' is multilabel"):
        train_small(model, tmp_path, label_smoothing=0.1)


def test_an_unknown_precision_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="float16"):
        train_small(small_model(), tmp_path, precision="float16")


@pytest.mark.parametrize(("key", "table"), [("optimizer", OPTIMIZERS), ("schedule", SCHEDULES)])
def test_the_documentation_and_the_error_of_a_wrong_name_list_what_there_is(key: str, table: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match=rf"train\.{key}: .*" + ".*".join(map(repr, table)) + ".*got 'none'"):
        load_recipe("ripples", [f"train.{key}=none"])
    page = (Path(__file__).parents[1] / "docs" / "training.md").read_text()
    for name, kind in table.items():
        assert f"\n| `{name}` | {kind.about} |\n" in page
