"""Recordings as the report shows them, with what is heard when; and why a clip was taken for what it is not."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..data.annotations import Segment
from ..data.clips import Progress
from ..data.decoding import read_audio
from ..errors import printable
from ..models.classifier import AudioClassifier
from ..models.events import EventSettings, tracks
from ..models.frames import frame_grid
from ..training.event_testing import Heard, event_report, found_segments, hear_annotated
from .plot_style import FAINT, INK, PALETTE, new_figure, styled, svg

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN_S = 15.0
"""Longest part of a recording that is shown."""

LEFT, RIGHT = 0.09, 0.985
"""Where the time axis of a recording's figure begins and ends, as shares of its width: the page draws a cursor."""


def show_recordings(
    model: AudioClassifier, folder: Path, n: int = 2, progress: Progress | None = None
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Scores of a model's events in annotated recordings, and the `n` recordings with the most events.

    Returns:
        What `event_testing.event_report` returns, and for each recording its "file", "waveform" (of the part shown, at
        the model's rate), "from_s", "seconds" and "figure", an SVG.

    Raises:
        DataError: as `event_testing.hear_annotated`.
    """
    task, heard = hear_annotated(model, folder, None, progress)
    shown = [
        _show(model, task, one) for one in sorted(heard, key=lambda one: (-len(one.true), one.name))[:n] if one.true
    ]
    return event_report(model, task, heard), shown


def _show(model: AudioClassifier, task: str, heard: Heard) -> dict[str, Any]:
    """The part of a recording in which most true events begin."""
    grid, labels, kind, settings = frame_grid(model), model.labels[task], model.kinds[task], model.events_by(task)
    starts = np.array([event.start_s for event in heard.true])
    begins = np.clip(starts - 0.5, 0, max(0.0, heard.seconds - SHOWN_S))
    begin = float(max(begins, key=lambda b: ((starts >= b) & (starts < b + SHOWN_S)).sum()))
    rate = model.sample_rate
    waveform = read_audio(heard.name, rate)[round(begin * rate) : round((begin + SHOWN_S) * rate)]
    seconds = len(waveform) / rate
    with torch.inference_mode():
        log_mel = model.frontend(model.take(torch.from_numpy(waveform)[None]))[0, 0].cpu().numpy()

    def within(segments: Sequence[Segment]) -> list[Segment]:
        return [s for s in segments if s.end_s > begin and s.start_s < begin + seconds]

    times_s = grid.times_ms(0, len(heard.logits)).numpy() / 1000
    part = (times_s >= begin) & (times_s < begin + seconds)
    figure = recording_figure(
        log_mel,
        (begin, begin + seconds),
        times_s[part],
        heard.logits[part],
        within(found_segments(heard, grid, labels, kind, settings)),
        within(heard.true),
        labels,
        kind,
        settings,
    )
    about = {"file": Path(heard.name).name, "waveform": waveform, "from_s": begin, "seconds": seconds}
    return about | {"figure": svg(figure, f"Spectrogram, scores and events of {Path(heard.name).name}")}


@styled
def recording_figure(
    log_mel: np.ndarray,
    span_s: tuple[float, float],
    times_s: np.ndarray,
    logits: np.ndarray,
    found: Sequence[Segment],
    true: Sequence[Segment],
    labels: Sequence[str],
    kind: str,
    settings: EventSettings,
) -> "Figure":
    """Spectrogram ``(time, mel)``, scores of frames, and the events found and true ones, above one another."""
    figure = new_figure(9.0, 4.4)
    figure.set_layout_engine(None)  # which would move the time axis
    spectrogram, scores, events = figure.subplots(3, 1, sharex=True, gridspec_kw={"height_ratios": [3, 3, 1.3]})
    figure.subplots_adjust(LEFT, 0.1, RIGHT, 0.93, hspace=0.12)
    spectrogram.grid(False)
    extent = (*span_s, 0, log_mel.shape[1])
    spectrogram.imshow(log_mel.T, origin="lower", aspect="auto", extent=extent, cmap="magma", interpolation="nearest")
    spectrogram.set_ylabel("mel band")
    names = list(dict.fromkeys(s.label for s in (*true, *found)))
    colours = {name: PALETTE[labels.index(name) % len(PALETTE)] for name in names}
    if kind == "binary":
        scores.plot(times_s, tracks(logits, kind)[:, 0], color=PALETTE[0], label=printable(labels[1]))
    else:
        for name in names:
            scores.plot(times_s, logits[:, labels.index(name)], color=colours[name], label=printable(name), lw=1.4)
    for level in sorted({settings.thresholds[labels.index(name)] for name in names}):
        scores.axhline(level, color=FAINT, lw=1.2, ls="--", zorder=0)
    scores.set_ylabel("logit")
    if names:
        scores.legend(loc="lower right", bbox_to_anchor=(1, 2.05), ncols=10)
    events.grid(False)
    events.set_yticks([1, 0], ["true", "found"])
    events.set_ylim(-0.5, 1.5)
    for level, segments in ((1, true), (0, found)):
        for s in segments:
            events.barh(level, s.end_s - s.start_s, left=s.start_s, height=0.7, color=colours[s.label])
            text = {"fontsize": 7, "ha": "center", "va": "center", "clip_on": True, "color": INK}
            events.text((s.start_s + s.end_s) / 2, level, printable(s.label), **text)
    events.set_xlabel("s")
    events.set_xlim(*span_s)
    return figure


@torch.inference_mode()
def reasons(
    model: AudioClassifier, task: str, waveform: np.ndarray, truth: str, label: str
) -> tuple[np.ndarray, np.ndarray] | None:
    """How much each frame of a clip speaks for a label and against the true one, a difference of logits.

    Over a clip of one window their mean is the difference of the clip's logits, if the trunk ends in a mean over time:
    no approximation. Over a longer one, whose windows are averaged, it is that of the recording as a whole.

    Returns:
        Times in seconds and differences, both ``(frames,)``; None where the two are not single classes.

    Example:
        >>> from audiostride import create_model
        >>> model = create_model("audio_resnet_pico_strided", heads={"word": ["no", "yes"]}).eval()
        >>> times_s, why = reasons(model, "word", np.ones(16000, np.float32), "no", "yes")
        >>> no, yes = model(torch.ones(1, 16000))["word"][0].tolist()
        >>> bool(abs(why.mean() - (yes - no)) < 1e-5)
        True
    """
    labels = model.labels[task]
    if truth == label or truth not in labels or label not in labels:
        return None
    times_ms, logits = model.frame_logits(waveform, model.sample_rate)
    frames = logits[task].numpy()
    return times_ms.numpy() / 1000, frames[:, labels.index(label)] - frames[:, labels.index(truth)]
