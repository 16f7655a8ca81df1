"""Frame scores of many sounds as a file: CSV with a row for each frame, or arrays in an .npz."""

import csv
import io
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from ..files import replace_file
from ..models.classifier import AudioClassifier
from .embedding import Sound
from .events import sound_frames


def frame_lines(model: AudioClassifier, sounds: Iterable[Sound], errors: dict[str, str]) -> Iterator[str]:
    """Lines of CSV: file, time_s, and the logit of each class (named `task: label` where there are several tasks).

    Args:
        model: the classifier.
        sounds: from `embedding.open_sounds`.
        errors: receives why a sound could not be read to its end, by its name.

    Example:
        >>> from audiostride import create_model
        >>> model = create_model("audio_resnet_pico_strided", heads={"word": ["no", "yes"]})
        >>> silence = Sound("a.wav", lambda: [np.zeros(16000, np.float32)])
        >>> next(frame_lines(model, [silence], {}))
        'file,time_s,no,yes\\n'
    """
    several = len(model.labels) > 1
    names = [f"{task}: {label}" if several else label for task, labels in model.labels.items() for label in labels]
    yield _line(["file", "time_s", *names])
    for name, times_ms, logits, error in sound_frames(model, sounds):
        if logits:
            values = np.concatenate([logits[task].numpy() for task in model.labels], axis=1)
            rows = zip(times_ms.tolist(), values.tolist(), strict=True)
            yield "".join(_line([name, round(ms / 1000, 5), *(f"{v:.5g}" for v in row)]) for ms, row in rows)
        if error is not None:
            errors[name] = error


def write_npz(model: AudioClassifier, sounds: Iterable[Sound], path: Path, errors: dict[str, str]) -> None:
    """Write the frames of all sounds as arrays; they are held in memory until all are there.

    The arrays: `files` (names), `file_number` (of each frame), `time_s`, and for each task TASK
    `logits/TASK` ``(frames, n_classes)`` and `labels/TASK`. Arguments as `frame_lines`.

    Raises:
        WriteError: if the file cannot be written.
    """
    files: list[str] = []
    owners, times = [np.zeros(0, np.int64)], [np.zeros(0)]
    values = {task: [np.zeros((0, len(labels)), np.float32)] for task, labels in model.labels.items()}
    for name, times_ms, logits, error in sound_frames(model, sounds):
        if not files or files[-1] != name:
            files.append(name)
        for task, frames in logits.items():
            values[task].append(frames.numpy())
        owners.append(np.full(len(times_ms), len(files) - 1))
        times.append(times_ms.numpy() / 1000)
        if error is not None:
            errors[name] = error
    arrays = {f"logits/{task}": np.concatenate(parts) for task, parts in values.items()}
    arrays |= {f"labels/{task}": np.array(labels) for task, labels in model.labels.items()}
    arrays |= {"files": np.array(files), "file_number": np.concatenate(owners), "time_s": np.concatenate(times)}
    content = io.BytesIO()
    np.savez(content, **arrays)  # type: ignore[arg-type]
    replace_file(path, content.getvalue())


def _line(values: list[object]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(values)
    return text.getvalue()
