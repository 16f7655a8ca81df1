"""Batches of windows: random ones for training, all of them for evaluation.

Every random choice of training is a pure function of (seed, epoch, clip), never of a generator's
history, so the number of workers does not matter and a run can be taken up again at any step.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ..errors import DataError
from .augment import Augmentation, change_speed
from .background import SHOWN, background_window, mixed_in
from .clips import Clips
from .epoch_plan import plan_epoch
from .loading import load
from .loud_windows import loud_window
from .mixup import mix_pairs


@dataclass
class LabelledClips:
    """One data set with the tasks that read it.

    Attributes:
        clips: the clips.
        labels: for each task the class number of each clip, int64 of shape ``(n_clips,)``; of a
            multilabel task which classes it has, float32 of shape ``(n_clips, n_classes)``.
        splits: "train", "validation" or "test" of each clip.
        n_classes: number of classes of each task.
        skip_bad: leave a training clip that cannot be read (any more) out of its batch, instead of raising.
        background: sounds that are none of the classes, see `background`; those of its split "train" are trained on.
    """

    clips: Clips
    labels: dict[str, np.ndarray]
    splits: Sequence[str]
    n_classes: dict[str, int] = field(default_factory=dict)
    skip_bad: bool = False
    background: Clips | None = None

    def indexes(self, split: str) -> np.ndarray:
        """Numbers of the clips of one split."""
        return np.flatnonzero(np.array(self.splits) == split)


class TrainingBatch(NamedTuple):
    """One batch of training: clips of one data set, or of several one after another.

    Attributes:
        waveform: shape ``(batch, samples)``; views of images ``(batch, size, size, 3)``.
        labels: for each task the class numbers of its clips, shape ``(n,)``; of a multilabel task, and after
            mixup, shares of the classes, shape ``(n, n_classes)``.
        names: name of each clip.
        rows: for each task which clips of the batch are its own.
        shares: for each task these clips as a share of its clips in the whole batch, which several processes may have
            split among them; 0 for a stand-in where there are fewer clips than processes.
        seeds: a number for each clip to draw the augmentation of its spectrogram from, int64.
        left_out: a line for each clip that could not be read, of a set with `skip_bad`.
        none: for each task whose data has background which rows are none of its classes; they have no name.
    """

    waveform: Tensor
    labels: dict[str, Tensor]
    names: list[str]
    rows: Mapping[str, slice]
    shares: Mapping[str, float]
    seeds: Tensor | None = None
    left_out: Sequence[str] = ()
    none: Mapping[str, slice] = {}


class EvaluationBatch(NamedTuple):
    """Windows of one or more whole clips.

    Attributes:
        waveform: windows of shape ``(n_windows, samples)``; views of images ``(n, size, size, 3)``.
        clip: number of the clip each window belongs to, shape ``(n_windows,)``.
    """

    waveform: Tensor
    clip: Tensor


def training_batches(
    sets: Sequence[LabelledClips],
    sample_rate: int,
    window_length: int,
    batch_size: int,
    mixing: str | float,
    seed: int,
    epoch: int,
    workers: int,
    augmentation: Augmentation | None = None,
    first: int = 0,
    process: tuple[int, int] = (0, 1),
) -> Iterator[TrainingBatch]:
    """The batches of one epoch from number `first` on: a random window of each training clip.

    Where several processes train together, `process` is (index, count) and each gets its share of every batch.
    Close the generator (`contextlib.closing`), or worker processes may live as long as a traceback does.

    Raises:
        DataError: if a file cannot be read.
        ResourceError: if a worker died or memory ran out.

    Example:
        >>> from audiostride.data.clips import ArrayClips
        >>> waveforms = np.zeros((6, 16000), np.float32)
        >>> clips = ArrayClips(list("abcdef"), {}, ["train"] * 6, waveforms=waveforms)
        >>> data = LabelledClips(clips, {"word": np.array([0, 1] * 3)}, clips.splits)
        >>> batches = training_batches([data], 16000, 8000, 2, "uniform", seed=0, epoch=0, workers=0)
        >>> [(tuple(batch.waveform.shape), tuple(batch.labels["word"].shape)) for batch in batches]
        [((2, 8000), (2,)), ((2, 8000), (2,)), ((2, 8000), (2,))]
    """
    train = [data.indexes("train") for data in sets]
    blocks = [
        None if b is None else b[t] for b, t in zip((data.clips.block_numbers() for data in sets), train, strict=True)
    ]
    plan = plan_epoch([len(t) for t in train], batch_size, mixing, seed, epoch, blocks)[first:]
    index, count = process
    jobs = []
    for parts in plan:
        job = []
        for number, rows in parts:
            mine = train[number][rows][index::count]
            # A process without a clip of its own takes part with weight 0: the others wait for it.
            job.append((number, mine if len(mine) else train[number][rows[:1]], len(mine) / len(rows)))
        jobs.append(job)
    return load(_TrainingWindows(sets, sample_rate, window_length, seed, epoch, jobs, augmentation), workers)


def evaluation_batches(
    clips: Clips,
    indexes: Sequence[int],
    sample_rate: int,
    window_length: int,
    workers: int,
    clips_per_batch: int = 32,
    overlap: float = 0.0,
) -> Iterator[EvaluationBatch]:
    """All windows of the clips at `indexes`; `EvaluationBatch.clip` counts positions in `indexes`.

    Windows overlap by a share from 0 up to but not including 1.

    Raises:
        DataError: if a file cannot be read.

    Example:
        >>> from audiostride.data.clips import ArrayClips
        >>> clips = ArrayClips(["a", "b"], {}, ["test"] * 2, waveforms=np.zeros((2, 20000), np.float32))
        >>> (batch,) = evaluation_batches(clips, [0, 1], 16000, 10000, workers=0)
        >>> batch.waveform.shape, batch.clip
        (torch.Size([4, 10000]), tensor([0, 0, 1, 1]))
    """
    jobs = [list(range(i, min(i + clips_per_batch, len(indexes)))) for i in range(0, len(indexes), clips_per_batch)]
    return load(_EvaluationWindows(clips, indexes, sample_rate, window_length, jobs, overlap), workers)


def _joined(parts: Sequence[TrainingBatch]) -> TrainingBatch:
    """One batch of parts that have no task in common, the clips of one after those of the other."""
    if len(parts) == 1:
        return parts[0]
    rows: dict[str, slice] = {}
    none: dict[str, slice] = {}
    first = 0
    for part in parts:
        n, end = len(part.names), first + len(part.waveform)
        rows |= dict.fromkeys(part.labels, slice(first, first + n))
        none |= dict.fromkeys(part.none, slice(first + n, end))
        first = end
    seeds = [part.seeds for part in parts if part.seeds is not None]
    return TrainingBatch(
        torch.cat([part.waveform for part in parts]),
        {task: labels for part in parts for task, labels in part.labels.items()},
        [name for part in parts for name in part.names],
        rows,
        {task: share for part in parts for task, share in part.shares.items()},
        torch.cat(seeds) if seeds else None,
        [line for part in parts for line in part.left_out],
        none,
    )


class _TrainingWindows(Dataset):
    def __init__(self, sets, sample_rate, window_length, seed, epoch, jobs, augmentation):
        self.sets, self.sample_rate = sets, sample_rate
        self.seed, self.epoch, self.jobs = seed, epoch, jobs
        self.augmentation = augmentation
        self.window_length = (augmentation and augmentation.crop_length) or window_length

    def __len__(self):
        return len(self.jobs)

    def __getitem__(self, job):
        return _joined([self._part(*part) for part in self.jobs[job]])

    def _part(self, number, indexes, share):
        data = self.sets[number]
        windows, left_out = self._windows(number, indexes)
        indexes = np.array([index for index in indexes if int(index) in windows])
        waveform = torch.from_numpy(np.stack(list(windows.values())))
        labels = {task: torch.from_numpy(numbers[indexes]) for task, numbers in data.labels.items()}
        titles = [data.clips.title(i) for i in indexes]
        rows, shares = dict.fromkeys(labels, slice(0, len(indexes))), dict.fromkeys(labels, share)
        seeds = None
        if self.augmentation is not None:
            alpha, between_class = self.augmentation.mixup, self.augmentation.between_class
            if alpha:
                rng = self._generator(5, number, int(indexes[0]))
                waveform, labels = mix_pairs(waveform, labels, data.n_classes, alpha, rng, between_class)
            seeds = torch.tensor([int(self._generator(6, number, int(i)).integers(2**62)) for i in indexes])
        batch = TrainingBatch(waveform, labels, titles, rows, shares, seeds, left_out)
        return self._with_none(batch, number, indexes)

    def _with_none(self, batch, number, indexes):
        """The batch with further windows that are none of the classes, augmented as all others."""
        data = self.sets[number]
        if data.background is None:
            return batch
        none, seeds = [], []
        for index in indexes[: math.ceil(SHOWN * len(indexes))]:
            rng = self._generator(7, number, int(index))
            window = background_window(data.background, self.sample_rate, self.window_length, rng)
            for transform in self.augmentation.waveform if self.augmentation else ():
                window = transform(window, rng)
            none.append(window)
            seeds.append(int(rng.integers(2**62)))
        return batch._replace(
            waveform=torch.cat([batch.waveform, torch.from_numpy(np.stack(none))]),
            seeds=None if batch.seeds is None else torch.cat([batch.seeds, torch.tensor(seeds)]),
            none=dict.fromkeys(batch.labels, slice(len(indexes), len(indexes) + len(none))),
        )

    def _windows(self, number, indexes):
        """A window of each clip by its number, and a line for each clip that is left out."""
        windows, left_out = {}, []
        for index in map(int, indexes):
            try:
                windows[index] = self._window(number, index)
            except DataError as error:
                if not self.sets[number].skip_bad:
                    raise
                left_out.append(str(error))
        if len(windows) < min(2, len(indexes)):  # no batch to learn from: not one file is gone, but the disk
            raise DataError(f"{left_out[0]}; {len(left_out)} of the {len(indexes)} files of its batch cannot be read")
        return windows, left_out

    def _window(self, number, index):
        data, rng = self.sets[number], self._generator(4, number, index)
        if self.augmentation is None or self.augmentation.speed is None:
            window = self._crop(number, index, self.window_length)
        else:
            speed = rng.uniform(*self.augmentation.speed)
            window = self._crop(number, index, round(self.window_length * speed))
            window = change_speed(window, speed, self.window_length)
        if data.background is not None:
            window = mixed_in(data.background, window, self.sample_rate, rng)
        for transform in self.augmentation.waveform if self.augmentation else ():
            window = transform(window, rng)
        return window

    def _crop(self, number, index, length):
        clips, place = self.sets[number].clips, self._generator(3, number, index)
        skip_quiet_db = None if self.augmentation is None else self.augmentation.skip_quiet_db
        if skip_quiet_db is None:
            return clips.random_window(index, self.sample_rate, length, place)
        return loud_window(clips, index, self.sample_rate, length, place, skip_quiet_db)

    def _generator(self, purpose, number, index):
        return np.random.default_rng([self.seed, purpose, number, self.epoch, index])


class _EvaluationWindows(Dataset):
    def __init__(self, clips, indexes, sample_rate, window_length, jobs, overlap):
        self.clips, self.indexes, self.jobs = clips, indexes, jobs
        self.how = sample_rate, window_length, overlap

    def __len__(self):
        return len(self.jobs)

    def __getitem__(self, job):
        windows = [self.clips.windows(self.indexes[i], *self.how) for i in self.jobs[job]]
        owner = torch.tensor(self.jobs[job]).repeat_interleave(torch.tensor([len(w) for w in windows]))
        return EvaluationBatch(torch.cat(windows), owner)
