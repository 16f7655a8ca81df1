"""`Report`: the callbacks through which a training reports its progress."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..data.batches import LabelledClips
    from ..data.clips import Progress
    from ..models.classifier import AudioClassifier


def _ignore(*_: object) -> None:
    pass


@dataclass(frozen=True)
class Report:
    """What a training run calls while it works; by default only `notify` does anything: it warns.

    Attributes:
        progress: called with (what, done, total) while data is read and evaluated.
        on_start: called with the model, the data sets and a line for each unreadable file, before the first step.
        on_step: called after each step with (step, number of steps, loss, clips per second).
        on_epoch: called with each line of `metrics.jsonl`.
        notify: called with a line that the person who started the training should read, for example when a run is
            resumed or a checkpoint turns out to be damaged.

    Example:
        >>> losses = []
        >>> report = Report(on_step=lambda step, n_steps, loss, clips_per_s: losses.append(loss))
        >>> report.on_step(1, 10, 0.7, 250.0)
        >>> losses
        [0.7]
    """

    progress: "Progress" = _ignore
    on_start: "Callable[[AudioClassifier, Sequence[LabelledClips], list[str]], None]" = _ignore
    on_step: Callable[[int, int, float, float], None] = _ignore
    on_epoch: Callable[[dict[str, Any]], None] = _ignore
    notify: Callable[[str], None] = warnings.warn
