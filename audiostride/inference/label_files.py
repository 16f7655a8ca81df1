"""Predictions as label files of Audacity and Raven: what the model hears, on the recording's own time line."""

import math
import os
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

from ..data.annotations import Segment, write_audacity, write_raven
from ..data.clips import Progress
from ..data.sounds import STDIN
from ..errors import UsageError, printable
from ..files import check_absent, check_writable
from ..models.calibration import NONE
from ..models.classifier import AudioClassifier
from .embedding import Sound
from .events import Changes, sound_events
from .predict import Row, predict_sounds

FORMATS: dict[str, tuple[str, Callable[[str | os.PathLike[str], Sequence[Segment]], None]]] = {
    "audacity": (".txt", write_audacity),
    "raven": (".selections.txt", write_raven),
}
"""Ending of a label file and what writes it; the endings are those that `source: annotated` reads."""


def write_label_files(
    model: AudioClassifier,
    sounds: Sequence[Sound],
    folder: Path,
    label_format: str,
    batch_size: int = 64,
    workers: int = 2,
    progress: Progress | None = None,
    on_error: Callable[[str], None] = warnings.warn,
    events: Changes | None = None,
    resume: bool = False,
    always: bool = False,
    overlap: float = 0.0,
    min_score: float = 0.0,
) -> int:
    """Write a label file for each of many sounds: its events, or its windows with neighbours of one label joined.

    Args:
        model: the classifier.
        sounds: from `embedding.open_sounds`.
        folder: where to; made if need be.
        label_format: a key of `FORMATS`.
        batch_size: see `embedding.embed_sounds`.
        workers: see `embedding.embed_sounds`.
        progress: called after each sound.
        on_error: called with a line for each sound that cannot be read, which gets no file.
        events: what is to differ from the model's settings for events; None: windows.
        resume: keep label files that exist, and classify the other sounds.
        always: write a class where the answer would be "none"; else such windows are left out.
        overlap: of windows, see `window_hop`.
        min_score: windows, or events, that score less are left out.

    Returns:
        How many of the sounds failed.

    Raises:
        UsageError: before anything is classified, if a label file is there already.
        WriteError: before anything is classified, if nothing can be written there.
    """
    ending, write = FORMATS[label_format]
    paths = label_paths([sound.name for sound in sounds], folder, ending, resume)
    sounds = [sound for sound in sounds if not paths[sound.name].exists()]
    for path in list(paths.values())[:1]:
        check_writable(path.with_name(f"{path.name}.partial"))
    kinds = dict(model.kinds)
    if events is None:
        top_k = max(len(model.labels[task]) if kind == "multilabel" else 1 for task, kind in kinds.items())
        parts = predict_sounds(
            model,
            sounds,
            top_k=top_k,
            per_window=True,
            batch_size=batch_size,
            workers=workers,
            overlap=overlap,
            always=always,
        )
    else:
        kinds = dict.fromkeys(kinds, "multiclass")  # a threshold has decided already
        parts = sound_events(model, sounds, events)
    rows: list[Row] = []
    failed = done = 0
    for part in parts:
        rows += part.rows
        if not part.last:
            continue
        done += 1
        if part.failed:
            failed += 1
            on_error(rows[-1].error or part.name)
        else:
            if events is None:
                rows = _side_by_side(rows)
            rows = [row for row in rows if row.score is None or row.score >= min_score]
            write(paths[part.name], segments(rows, kinds, model.labels, model.thresholds))
        rows = []
        if progress:
            progress("predicting", done, len(sounds))
    return failed


def label_paths(names: Sequence[str], folder: Path, ending: str, resume: bool = False) -> dict[str, Path]:
    """Where the label file of each sound goes: into `folder`, in the subfolders that the sounds are in.

    Args:
        names: paths of the sounds, as `sounds.find_sounds` gives them.
        folder: where to.
        ending: of the label files.
        resume: whether label files may exist already.

    Raises:
        UsageError: if a label file is there already, or two sounds differ in their ending only.

    Example:
        >>> paths = label_paths(["may/a.wav", "may/6/b.wav"], Path("labels"), ".txt")
        >>> [path.as_posix() for path in paths.values()]
        ['labels/a.txt', 'labels/6/b.txt']
    """
    places = {name: "stdin" if name == STDIN else os.path.splitext(os.path.abspath(name))[0] for name in names}
    folders = [os.path.dirname(place) for name, place in places.items() if name != STDIN]
    common = os.path.commonpath(folders) if folders else ""
    paths: dict[str, Path] = {}
    taken: dict[Path, str] = {}
    for name, place in places.items():
        path = folder / ((place if name == STDIN else os.path.relpath(place, common)) + ending)
        if not resume:
            check_absent(path)
        if path in taken:
            raise UsageError(
                f"{printable(name)} and {printable(taken[path])} would share the label file {printable(path)}; give "
                "them one at a time"
            )
        paths[name], taken[path] = path, name
    return paths


def segments(
    rows: Iterable[Row],
    kinds: Mapping[str, str],
    labels: Mapping[str, Sequence[str]],
    thresholds: Mapping[str, Sequence[float]],
) -> list[Segment]:
    """What a timeline says, windows of the same label joined, in order of time.

    A window has its likeliest label; for a multilabel task every label whose probability reaches its
    threshold. What is none of the classes is left out. Where there are several tasks, a label reads `task: label`.

    Args:
        rows: of one sound, window by window; with all ranks where a task is multilabel.
        kinds: kind of each task.
        labels: classes of each task.
        thresholds: for multilabel tasks the threshold of each class; 0.5 where there is none.

    Example:
        >>> rows = [Row("a.wav", "word", t, t + 1, 1, label, 0.5) for t, label in enumerate(["up", "up", "go"])]
        >>> [tuple(s[:3]) for s in segments(rows, {"word": "multiclass"}, {"word": ["go", "up"]}, {})]
        [(0, 2, 'up'), (2, 3, 'go')]
    """
    runs: dict[tuple[str, str], list[list[Segment]]] = {}
    for row in rows:
        if row.error is not None:
            continue
        assert row.task is not None
        assert row.label is not None
        if row.label == NONE and NONE not in labels[row.task]:
            continue
        assert row.score is not None
        assert row.start_s is not None
        assert row.end_s is not None
        if kinds[row.task] == "multilabel":
            cuts = thresholds.get(row.task) or [0.5] * len(labels[row.task])
            heard = row.score >= cuts[labels[row.task].index(row.label)]
        else:
            heard = row.rank == 1
        if heard:
            name = row.label if len(kinds) == 1 else f"{row.task}: {row.label}"
            window = Segment(row.start_s, row.end_s, name, score=row.score)
            parts = runs.setdefault((row.task, row.label), [])
            if parts and parts[-1][-1].end_s >= window.start_s:
                parts[-1].append(window)
            else:
                parts.append([window])
    joined = [
        part[0]._replace(end_s=part[-1].end_s, score=sum(window.score or 0.0 for window in part) / len(part))
        for parts in runs.values()
        for part in parts
    ]
    return sorted(joined, key=lambda segment: (segment.start_s, segment.label))


def _side_by_side(rows: Sequence[Row]) -> list[Row]:
    """The same timeline with each window ending where the next one begins: they share what both hold evenly.

    Example:
        >>> rows = [Row("a.wav", "word", t, t + 2, 1, "up", 0.5) for t in (0, 1, 2)]
        >>> [(row.start_s, row.end_s) for row in _side_by_side(rows)]
        [(0.0, 1.5), (1.5, 2.5), (2.5, 4)]
    """
    windows = sorted({(row.start_s or 0.0, row.end_s or 0.0) for row in rows if row.error is None})
    own, begin = {}, 0.0
    for (start, end), (following, _) in pairwise([*windows, (math.inf, math.inf)]):
        border = min(end, (end + following) / 2)
        own[start, end] = begin, border
        begin = max(following, border)
    times = [own.get((row.start_s or 0.0, row.end_s or 0.0), (None, None)) for row in rows]
    return [row._replace(start_s=start, end_s=end) for row, (start, end) in zip(rows, times, strict=True)]
