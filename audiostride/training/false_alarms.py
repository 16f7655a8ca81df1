"""False alarms per hour: the events that a model finds in sound that holds none of its classes."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scipy.special import gammaincinv

from ..data.clips import Progress
from ..data.decoding import audio_blocks
from ..errors import UsageError
from ..models.classifier import AudioClassifier
from ..models.events import EventFinder
from ..models.frames import frame_blocks, frame_grid


def false_alarms(
    model: AudioClassifier, files: Sequence[str], task: str | None = None, progress: Progress | None = None
) -> dict[str, Any]:
    """Events found in recordings that hold none of the classes, per hour, of each task.

    Args:
        model: the classifier; its events are found by its settings.
        files: the recordings, of any length; each is read in bounded memory.
        task: only this one; None: all.
        progress: called after each recording.

    Returns:
        "recordings", "hours", and "tasks": for each "events", "per_hour", "interval" (95 %, see `poisson_interval`)
        and "classes", the events per hour of each class that was found.

    Raises:
        DataError: if a recording cannot be read.
        UsageError: if there is no such task.
    """
    if task is not None and task not in model.labels:
        raise UsageError(f"the model has no task {task!r}; its tasks: {', '.join(model.labels)}")
    model.eval()
    grid, samples = frame_grid(model), 0
    found: dict[str, Counter[str]] = {name: Counter() for name in model.labels if task in (None, name)}
    for number, file in enumerate(files, 1):
        finders = {
            name: EventFinder(grid.hop_ms, grid.first_ms, model.kinds[name], model.events_by(name)) for name in found
        }
        lengths: list[int] = []

        def blocks(path: Path = Path(file), lengths: list[int] = lengths) -> Any:
            for block in audio_blocks(path, grid.sample_rate, model.channel):
                lengths.append(len(block))
                yield block

        for logits in frame_blocks(model, grid, blocks()):
            for name, finder in finders.items():
                found[name].update(model.labels[name][event.label] for event in finder.feed(logits[name].numpy()))
        for name, finder in finders.items():
            found[name].update(model.labels[name][event.label] for event in finder.finish())
        samples += sum(lengths)
        if progress:
            progress("listening", number, len(files))
    hours = samples / grid.sample_rate / 3600
    tasks = {}
    for name, counts in found.items():
        low, high = poisson_interval(counts.total())
        classes = {label: n / hours for label, n in counts.most_common()}
        per_hour = counts.total() / hours
        interval = (low / hours, high / hours)
        tasks[name] = {"events": counts.total(), "per_hour": per_hour, "interval": interval, "classes": classes}
    return {"recordings": len(files), "hours": hours, "tasks": tasks}


def poisson_interval(n: int, share: float = 0.95) -> tuple[float, float]:
    """Exact interval of the mean of a Poisson distribution of which `n` was seen.

    Source:
        Garwood 1936, "Fiducial limits for the Poisson distribution".

    Example:
        >>> [round(end, 3) for end in poisson_interval(0)], [round(end, 3) for end in poisson_interval(3)]
        ([0.0, 3.689], [0.619, 8.767])
    """
    tail = (1 - share) / 2
    return float(gammaincinv(n, tail)) if n else 0.0, float(gammaincinv(n + 1, 1 - tail))
