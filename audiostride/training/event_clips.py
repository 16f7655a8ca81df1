"""Recordings made of clips at known times, and by which settings a model's events are found best in them.

Clips with labels are what most people have, annotated recordings few. Laid into faint noise, validation clips say how
high the scores of a network rise in a sound and how low they are between two: settings that were found so give others'
clips nearly the events that settings from their own would (docs/events.md). What else is heard where the model will
listen they do not know; `calibrate --events` finds settings on annotated recordings of the place.
"""

import math
from collections.abc import Sequence

import numpy as np

from ..data.annotations import Segment
from ..data.batches import LabelledClips
from ..models.classifier import AudioClassifier
from ..models.frames import frame_grid
from .event_testing import Heard, best_settings

MINUTE_S, GAP_S, WITHIN_DB = 60.0, (0.6, 3.0), 13.0

FEWEST, MOST, MOST_MINUTES, LONGEST_S = 20, 200, 5, 10.0
"""Clips that are needed, and that are used at most; minutes made of them; what is used of a clip."""

Clip = tuple[np.ndarray, Sequence[str]]
"""Samples ``(n,)`` and the labels of what they hold."""


def made_recording(
    clips: Sequence[Clip], sample_rate: int, noise: float, seed: int, within_db: float = WITHIN_DB
) -> tuple[np.ndarray, list[Segment]]:
    """A minute of clips drawn at random, one after the other, in white noise.

    Args:
        clips: each may be drawn several times; none is longer than 50 s.
        sample_rate: in Hz.
        noise: standard deviation of the noise.
        seed: of clips, gaps and noise.
        within_db: see `loud_part`.

    Returns:
        The recording, and where its clips' loud parts are.

    Example:
        >>> recording, events = made_recording([(np.ones(16000, np.float32), ["yes"])], 16000, 0.001, seed=0)
        >>> len(recording) / 16000, len(events), events[0].start_s, events[0].label
        (60.0, 20, 0.5, 'yes')
    """
    random = np.random.default_rng(seed)
    recording = (noise * random.standard_normal(round(MINUTE_S * sample_rate))).astype(np.float32)
    at, events = 0.5, list[Segment]()
    while True:
        clip, labels = clips[int(random.integers(len(clips)))]
        if at + len(clip) / sample_rate > MINUTE_S - 0.3:
            return recording, events
        first = round(at * sample_rate)
        recording[first : first + len(clip)] += clip
        begin, end = loud_part(clip, sample_rate, within_db)
        events += [Segment(at + begin, at + end, label) for label in labels]
        at += len(clip) / sample_rate + random.uniform(*GAP_S)


def loud_part(clip: np.ndarray, sample_rate: int, within_db: float = WITHIN_DB) -> tuple[float, float]:
    """From when to when a clip's level is within some dB of its highest, in seconds."""
    power = level(clip, sample_rate)
    loud = np.flatnonzero(power >= 10 ** (-within_db / 10) * power.max())
    return float(loud[0]) / sample_rate, float(loud[-1] + 1) / sample_rate


def level(clip: np.ndarray, sample_rate: int) -> np.ndarray:
    """Power of a clip over the 25 ms around each sample.

    Example:
        >>> level(np.ones(1000), 16000)[[0, 500]].round(2).tolist()
        [0.5, 1.0]
    """
    half = sample_rate // 80
    sums = np.cumsum(np.pad(np.square(clip, dtype=np.float64), (half + 1, half - 1)))
    return (sums[2 * half :] - sums[: -2 * half]) / (2 * half)


def find_event_settings(model: AudioClassifier, sets: Sequence[LabelledClips]) -> None:
    """Set by which settings events of each task are found best, on recordings made of its validation clips.

    Left out are tasks with fewer than `FEWEST` such clips, images, and trunks that do not end in a mean: their
    frames are windows, which know an onset to half a window only.
    """
    if model.frontend.takes_images or not model.trunk.ends_in_mean:
        return
    grid, rate = frame_grid(model), model.sample_rate
    for data in sets:
        rows = data.indexes("validation")
        if len(rows) < FEWEST:
            continue
        rows = np.random.default_rng(0).permutation(rows)[:MOST]
        samples = [data.clips.read(int(row), rate)[: round(LONGEST_S * rate)] for row in rows]
        noise = 0.01 * math.sqrt(float(np.median([level(one, rate).max() for one in samples])))
        seconds = sum(len(one) / rate + sum(GAP_S) / 2 for one in samples)
        for task, truth in data.labels.items():
            labels = [_labels(model, task, truth[row]) for row in rows]
            clips = list(zip(samples, labels, strict=True))
            heard = []
            for minute in range(min(MOST_MINUTES, math.ceil(seconds / MINUTE_S))):
                recording, true = made_recording(clips, rate, noise, minute)
                logits = model.frame_logits(recording, rate)[1][task].numpy()
                heard.append(Heard("made", MINUTE_S, true, logits))
            if any(one.true for one in heard):
                model.event_settings[task] = best_settings(heard, grid, model.labels[task], model.kinds[task])


def _labels(model: AudioClassifier, task: str, truth: np.ndarray) -> list[str]:
    """The labels of a clip that events are found of: of a binary task the second one."""
    labels = model.labels[task]
    if model.kinds[task] == "multilabel":
        return [label for label, share in zip(labels, truth, strict=True) if share > 0.5]
    return [] if model.kinds[task] == "binary" and truth == 0 else [labels[int(truth)]]
