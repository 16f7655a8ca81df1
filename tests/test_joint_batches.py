"""Batches that hold clips of several data sets: who is in them, whose labels they carry, what is learned from them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_training import freeze_batch_norm, small_data, train_small

from audiostride.data.augment import Augmentation, SpecAugment
from audiostride.data.batches import LabelledClips, TrainingBatch, training_batches
from audiostride.data.epoch_plan import plan_epoch
from audiostride.models.audio_cnn import AudioCNN
from audiostride.models.classifier import AudioClassifier
from audiostride.models.log_mel import LogMel
from audiostride.training.recipe import TrainSection
from audiostride.training.steps import Objective


def two_sets() -> list[LabelledClips]:
    """`small_data` twice, 32 and 8 training clips, with a task of its own each."""
    (large,), (small,) = small_data(40), small_data(10)
    large.labels, small.labels = {"loud": large.labels["loud"]}, {"third": small.labels["third"]}
    large.n_classes, small.n_classes = {"loud": 2}, {"third": 3}
    return [large, small]


def two_task_model() -> AudioClassifier:
    torch.manual_seed(0)
    trunk = AudioCNN("diffstride", (4, 4), ((2, 2), (1.5, 2)), smoothness=1)
    return AudioClassifier(LogMel(n_mels=16), trunk, {"loud": 2, "third": 3}, window_s=0.2)


def joint_batches(**settings: Any) -> list[TrainingBatch]:
    return list(training_batches(two_sets(), 16000, 3200, 10, "joint", 0, 0, **{"workers": 0, **settings}))


@pytest.mark.parametrize(
    ("sizes", "batch_size"), [([640, 64], 64), ([100, 7, 1], 10), ([3], 64), ([4000, 4000, 200], 64)]
)
def test_every_clip_comes_once_and_every_batch_has_the_shares_of_the_sets(sizes: list[int], batch_size: int) -> None:
    plan = plan_epoch(sizes, batch_size, "joint", seed=0, epoch=0)
    for number, size in enumerate(sizes):
        rows = [rows for parts in plan for n, rows in parts if n == number]
        assert sorted(np.concatenate(rows)) == list(range(size))
        counts = [sum(len(rows) for n, rows in parts if n == number) for parts in plan]
        assert max(counts) - min(counts) <= 1
    assert max(sum(len(rows) for _, rows in parts) for parts in plan) <= batch_size + len(sizes)


def test_each_epoch_has_an_order_of_its_own() -> None:
    first, second = (plan_epoch([50, 20], 10, "joint", seed=0, epoch=epoch)[0] for epoch in (0, 1))
    assert [len(rows) for _, rows in first] == [len(rows) for _, rows in second]
    assert first[0][1].tolist() != second[0][1].tolist()


def test_a_batch_carries_the_labels_of_each_set_for_its_own_clips() -> None:
    sets = two_sets()
    for batch in joint_batches():
        assert (batch.rows, batch.waveform.shape) == ({"loud": slice(0, 8), "third": slice(8, 10)}, (10, 3200))
        for data, task in zip(sets, ("loud", "third"), strict=True):
            for name, label in zip(batch.names[batch.rows[task]], batch.labels[task], strict=True):
                assert data.labels[task][list(data.clips.names).index(name)] == label


def test_an_epoch_that_is_taken_up_again_goes_on_with_the_same_batches() -> None:
    whole, rest = joint_batches(), joint_batches(first=2)
    assert len(rest) == len(whole) - 2 > 0
    for expected, batch in zip(whole[2:], rest, strict=True):
        assert (batch.names, batch.rows, batch.shares) == (expected.names, expected.rows, expected.shares)
        assert torch.equal(batch.waveform, expected.waveform)


def test_processes_share_the_clips_of_every_set() -> None:
    whole, shares = joint_batches(), [joint_batches(process=(index, 4)) for index in range(4)]
    for batch, *parts in zip(whole, *shares, strict=True):
        for task in ("loud", "third"):
            owned = [name for part in parts if part.shares[task] for name in part.names[part.rows[task]]]
            assert sorted(owned) == sorted(batch.names[batch.rows[task]])
            assert sum(part.shares[task] for part in parts) == 1.0


def test_without_batch_norm_a_joint_batch_teaches_what_its_parts_teach() -> None:
    model = two_task_model()
    freeze_batch_norm(model.train())
    objective = Objective(TrainSection(), log_mel_transforms=(SpecAugment(2, 5, 2, 3),))
    batch = joint_batches(augmentation=Augmentation(mixup=0.5, log_mel=objective.log_mel_transforms))[0]
    assert batch.seeds is not None
    parts = [
        TrainingBatch(
            batch.waveform[rows],
            {task: batch.labels[task]},
            batch.names[rows],
            {task: slice(0, rows.stop - rows.start)},
            {task: 1.0},
            batch.seeds[rows],
        )
        for task, rows in batch.rows.items()
    ]
    gradients = []
    for group in ([batch], parts):
        model.zero_grad()
        loss = objective.gradients(model, model, group, {}) * len(group)
        gradients.append([loss, *(len(group) * p.grad for p in model.parameters() if p.grad is not None)])
    for joint, separate in zip(*gradients, strict=True):
        torch.testing.assert_close(joint, separate)


def test_a_run_is_the_same_whoever_decodes(tmp_path: Path) -> None:
    weights = []
    for workers in (0, 2):
        model = two_task_model()
        train_small(model, tmp_path / str(workers), sets=two_sets(), mixing="joint", workers=workers)
        weights.append(model.state_dict())
    for name, values in weights[0].items():
        assert torch.equal(values, weights[1][name]), name
