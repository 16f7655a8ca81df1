"""From tasks as settings to what training takes: clips, class numbers, splits, class weights."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import DataError, RecipeError
from .background import read_background
from .bad_files import drop_bad_files
from .batches import LabelledClips
from .cache import cached
from .clips import Clips, EncodedClips, Progress, class_names
from .folds import draw_folds, fold_column, hold_out
from .labels import label_numbers, no_label, one_column, task_labels, unlabelled
from .leaks import group_leak
from .sections import DataSection, EncodedData, TaskSection
from .splits import assign_splits, resplit


def prepare_data(
    tasks: Mapping[str, TaskSection],
    *,
    sample_rate: int,
    seed: int = 0,
    validation_fraction: float = 0.1,
    cache: str | None = None,
    progress: Progress | None = None,
    labels: Mapping[str, list[str]] | None = None,
) -> tuple[list[LabelledClips], dict[str, list[str]], list[str]]:
    """Read the data of all tasks, check every file, decide classes and splits.

    Args:
        tasks: the tasks; those with equal `data` share one data set.
        sample_rate: at which clips are decoded, in Hz; for images the pixels on a side.
        seed: decides a split that the data does not have.
        validation_fraction: share of the training clips for validation where the data has none; 0: none.
        cache: folder of the decoded cache; None: no cache.
        progress: called after each file.
        labels: class labels of each task, where a trained model has fixed them.

    Returns:
        The data sets, the class labels of each task in the tasks' order, a line for each bad file.

    Raises:
        DataError: names the file, the column or the label.
    """
    sets, found, bad_files = [], dict(labels or {}), []
    for block, of_block, key in _blocks(tasks):
        clips = _open(block, of_block, key, progress)
        group = getattr(block, "group", None)
        if (fold := block.test_fold) is not None:
            try:
                folds = _folds(clips, block, of_block, fold.column, fold.n_folds, seed)
                clips = hold_out(clips, folds, fold.value)
            except DataError as error:
                raise DataError(f"{key}.test_fold: {error}") from error
        if isinstance(block, EncodedData):
            _refuse_shared_groups(clips, block, key)
            clips, bad = _checked(clips, block, sample_rate, cache, progress, f"{key}.on_bad_file")
            bad_files += bad
        if fold is not None and "test" not in clips.splits:
            raise DataError(f"{key}.test_fold: no file of the fold {fold.value!r} can be used")
        clips = clips.loaded(sample_rate, progress)
        stratify = clips.column(next(iter(of_block.values())).column)
        splits = assign_splits(clips, stratify, seed, validation_fraction, group)
        numbers = {}
        for name, task in of_block.items():
            known = name in found
            if not known:
                found[name] = task_labels(clips, task.column, task.kind)
            if task.kind == "binary" and len(found[name]) != 2:
                raise DataError(f"task {name!r} is binary, but {task.column!r} has {len(found[name])} classes")
            numbers[name] = label_numbers(clips, task.column, found[name], task.kind)
            if fold is not None:
                _refuse_untrained(numbers[name], splits, found[name], f"task {name!r}, fold {fold.value!r}")
            elif not known:
                _refuse_untrained(numbers[name], splits, found[name], f"task {name!r}")
        skip_bad = isinstance(block, EncodedData) and block.on_bad_file == "skip"
        data = LabelledClips(clips, numbers, splits, {name: len(found[name]) for name in of_block}, skip_bad)
        if isinstance(block, EncodedData) and block.background is not None:
            place = f"{key}.background"
            data.background = read_background(block.background, sample_rate, seed, validation_fraction, place)
            data.background.channel = block.channel
        sets.append(data)
    return sets, {name: found[name] for name in tasks}, bad_files


def fold_names(
    tasks: Mapping[str, TaskSection],
    column: str | None,
    n_folds: int | None,
    seed: int = 0,
    progress: Progress | None = None,
) -> list[str]:
    """The folds of the data of all tasks, in order; each was tried, no audio is decoded.

    Args:
        tasks: the tasks; what their data says of `test_fold` does not count.
        column: column whose values name the folds; None: they are drawn.
        n_folds: number of folds to draw, else None.
        seed: decides a draw.
        progress: called while the data is opened.

    Raises:
        DataError: if there is no such column, a fold is empty in one of several data sets, a group is in two
            folds, or a class is in one fold alone and could not be learned.

    Example:
        >>> task = TaskSection.model_validate({"data": {"source": "ripples", "n_clips": 250}, "column": "rate"})
        >>> fold_names({"rate": task}, None, n_folds=3)
        ['1', '2', '3']
    """
    tables = []
    for block, of_block, key in _blocks(tasks):
        clips = _open(block, of_block, key, progress)
        try:
            tables.append((block, of_block, key, clips, _folds(clips, block, of_block, column, n_folds, seed)))
        except DataError as error:
            raise DataError(f"{key}: {error}") from error
    names = class_names(name for *_, folds in tables for name in folds)
    for block, of_block, key, clips, folds in tables:
        labels = {name: task_labels(clips, task.column, task.kind) for name, task in of_block.items()}
        numbers = {
            name: label_numbers(clips, of_block[name].column, labels[name], of_block[name].kind) for name in labels
        }
        for value in names:
            try:
                held_out = hold_out(clips, folds, value)
            except DataError as error:
                raise DataError(f"{key}: {error}") from error
            if isinstance(block, EncodedData):
                _refuse_shared_groups(held_out, block, key)
            for name in of_block:
                _refuse_untrained(numbers[name], held_out.splits, labels[name], f"task {name!r}, fold {value!r}")
    return names


def make_class_weights(
    tasks: Mapping[str, TaskSection], sets: Sequence[LabelledClips], labels: Mapping[str, Sequence[str]]
) -> dict[str, Tensor]:
    """Weight of each class in the loss, float32 ``(n_classes,)``, of the tasks that ask for them.

    "balanced" gives every class the same weight in all: ``n / (n_classes * n_of_class)`` over the
    training clips; for the classes of a multilabel task the clips without it over those with it.

    Raises:
        RecipeError: if a class is named that the task does not have.

    Example:
        >>> from audiostride.data.clips import ArrayClips
        >>> clips = ArrayClips(list("abcd"), {}, ["train"] * 4, waveforms=np.zeros((4, 1), np.float32))
        >>> settings = {"data": {"source": "ripples"}, "column": "rate", "class_weights": "balanced"}
        >>> task = TaskSection.model_validate(settings)
        >>> data = LabelledClips(clips, {"call": np.array([0, 0, 0, 1])}, clips.splits)
        >>> make_class_weights({"call": task}, [data], {"call": ["no", "yes"]})["call"]
        tensor([0.6667, 2.0000])
    """
    return {
        name: _class_weights(tasks[name], name, data.labels[name][data.indexes("train")], labels[name])
        for data in sets
        for name in data.labels
        if tasks[name].class_weights is not None
    }


def _blocks(tasks: Mapping[str, TaskSection]) -> list[tuple[Any, dict[str, TaskSection], str]]:
    """The different `data` sections, each with its tasks and the key that a reader of an error sets."""
    blocks: list[Any] = []
    for task in tasks.values():
        if task.data not in blocks:
            blocks.append(task.data)
    of_blocks = [{name: task for name, task in tasks.items() if task.data == block} for block in blocks]
    return [(block, own, f"tasks.{next(iter(own))}.data") for block, own in zip(blocks, of_blocks, strict=True)]


def _open(block: Any, of_block: Mapping[str, TaskSection], key: str, progress: Progress | None) -> Clips:
    """The clips that a section names, with the columns of all its tasks; none is decoded."""
    clips: Clips = block.open(progress, key)
    for name, task in of_block.items():
        try:  # a wrong column is an error before an hour of decoding
            clips = one_column(clips, task.column, task.kind, task.label_separator, task.label_columns)
        except DataError as error:
            which = "label_columns" if task.label_columns else "column"
            raise DataError(f"tasks.{name}.{which}: {error}") from error
    if not isinstance(block, EncodedData):
        return clips
    clips = resplit(clips, block.split_column, block.splits)
    assert isinstance(clips, EncodedClips)
    clips.channel = block.channel
    for task in of_block.values():
        missing = unlabelled(clips, task.column) if task.kind != "multilabel" else ()
        if len(missing) and block.on_missing_label == "error":
            raise no_label(clips, missing, task.column, f"{key}.on_missing_label")
        if len(missing):
            clips = clips.select(np.setdiff1d(np.arange(len(clips)), missing))
    return clips


def _folds(
    clips: Clips,
    block: DataSection,
    of_block: Mapping[str, TaskSection],
    column: str | None,
    n_folds: int | None,
    seed: int,
) -> Sequence[str]:
    """The fold of each clip: of a column, or drawn by group with each label of the first task spread evenly."""
    if n_folds is None:
        assert column is not None
        return fold_column(clips, column)
    group = getattr(block, "group", None)
    groups = clips.names if group is None else clips.column(group)
    return draw_folds(groups, clips.column(next(iter(of_block.values())).column), n_folds, seed)


def _checked(
    clips: Clips, block: EncodedData, sample_rate: int, cache: str | None, progress: Progress | None, key: str
) -> tuple[Clips, list[str]]:
    """The clips that can be used, out of the decoded cache if there is one, and a line for each other."""
    if cache is not None:
        assert isinstance(clips, EncodedClips)
        return cached(clips, sample_rate, cache, block.on_bad_file, progress, key=key)
    if block.check == "none":
        return clips, []
    return drop_bad_files(clips, sample_rate, block.on_bad_file, progress, key=key)


def _refuse_shared_groups(clips: Clips, block: EncodedData, key: str) -> None:
    if block.group is None or block.allow_shared_groups:
        return
    if leak := group_leak(block.group, clips.column(block.group), clips.splits):
        raise DataError(f"{leak}; scores would be inflated. Fix the splits, or set {key}.allow_shared_groups=true.")


def _refuse_untrained(numbers: np.ndarray, splits: Sequence[str], labels: Sequence[str], where: str) -> None:
    """Refuse splits, such as those of a fold, that leave a class without a training clip."""

    def clips_of_each(rows: np.ndarray) -> np.ndarray:
        return np.nansum(rows, 0) if rows.ndim == 2 else np.bincount(rows, minlength=len(labels))

    train = np.array([split == "train" for split in splits])
    missing = np.flatnonzero((clips_of_each(numbers) > 0) & (clips_of_each(numbers[train]) == 0))
    if len(missing):
        shown = ", ".join(repr(labels[i]) for i in missing[:10])
        if "fold" in where:
            raise DataError(
                f"{where}: the class {shown} has no training clip when this fold is tested; "
                "every class needs clips, or groups, in several folds"
            )
        raise DataError(
            f"{where}: the class {shown} has no training clip, only others; every class needs clips (or groups, which "
            "stay whole) to train on: add some, change the splits, or leave the class out"
        )


def _class_weights(task: TaskSection, name: str, numbers: np.ndarray, labels: Sequence[str]) -> Tensor:
    if isinstance(task.class_weights, dict):
        unknown = sorted(set(task.class_weights) - set(labels))
        if unknown:
            raise RecipeError(f"tasks.{name}.class_weights: there is no class {unknown[0]!r} among {', '.join(labels)}")
        return torch.tensor([task.class_weights.get(label, 1.0) for label in labels])
    if numbers.ndim == 2:
        present = np.nansum(numbers, 0).clip(min=1)
        known = (~np.isnan(numbers)).sum(0)
        return torch.from_numpy((known - present) / present).float().clamp(min=1e-3)
    counts = np.bincount(numbers, minlength=len(labels)).clip(min=1)
    return torch.from_numpy(len(numbers) / (len(labels) * counts)).float()
