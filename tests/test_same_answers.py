"""One model in every format: the same logits of clips and frames, the same events, and none where it is none."""

import functools
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from test_operations import HEADS, MODELS, trained

from audiostride import AudioClassifier
from audiostride.inference.c_source import c_files
from audiostride.inference.web_page import web_page
from audiostride.models.calibration import Calibration, none_score
from audiostride.models.events import EventSettings, find_events, tracks
from audiostride.models.frames import frame_grid


class Answers(NamedTuple):
    """What a model says: logits of windows, whether they are none, logits of frames, events; each by task.

    An event is its start and end in s, its class and its probability.
    """

    windows: dict[str, np.ndarray]
    none: dict[str, list[bool]]
    frames: list[dict[str, np.ndarray]]
    events: list[dict[str, np.ndarray]]


def between(values: torch.Tensor, share: float) -> float:
    """A number that this share of the values are below, and none is near."""
    ordered = values.flatten().sort().values
    return ordered[round(share * (len(ordered) - 1)) :][:2].mean().item()


def decided(model: AudioClassifier, windows: torch.Tensor, recording: np.ndarray) -> AudioClassifier:
    """The model with settings by which some windows are none and some stretches events."""
    frames = model.frame_logits(recording, model.sample_rate)[1]
    with torch.no_grad():
        logits = model(windows)
    for task, kind in model.kinds.items():
        scores = torch.from_numpy(tracks(frames[task].numpy(), kind))
        thresholds = tuple(between(scores[:, min(i, scores.shape[1] - 1)], 0.8) for i in range(len(model.labels[task])))
        model.event_settings[task] = EventSettings(thresholds, between(scores, 0.1), min_ms=50, join_ms=70)
        model.calibrations[task] = Calibration(1.7, between(none_score(logits[task], kind), 0.4))
    likely = model.probabilities("tags", logits["tags"])
    model.thresholds = {"tags": [between(likely[:, i], 0.7) for i in range(3)], "int": [0.4]}
    return model


def of_the_model(model: AudioClassifier, windows: torch.Tensor, recordings: list[np.ndarray]) -> Answers:
    with torch.no_grad():
        logits = model(windows)
    grid, frames, events = frame_grid(model), [], []
    for recording in recordings:
        frames.append({task: f.numpy() for task, f in model.frame_logits(recording, model.sample_rate)[1].items()})
        found = {
            task: find_events(f, grid.hop_ms, grid.times_ms(0, 1).item(), model.kinds[task], model.events_by(task))
            for task, f in frames[-1].items()
        }
        end_s = len(recording) / model.sample_rate
        rows = {
            task: [
                [e.start_ms / 1000, min(end_s, e.end_ms / 1000), e.label, score(model, task, e.logits, e.label)]
                for e in some
            ]
            for task, some in found.items()
        }
        events.append({task: np.array(some).reshape(-1, 4) for task, some in rows.items()})
    none = {task: model.is_none(task, values).tolist() for task, values in logits.items()}
    return Answers({task: values.numpy() for task, values in logits.items()}, none, frames, events)


def score(model: AudioClassifier, task: str, logits: np.ndarray, label: int) -> float:
    return model.probabilities(task, torch.from_numpy(logits))[label].item()


def of_the_c_file(compiler: str) -> Callable[..., Answers]:
    def run(model: AudioClassifier, windows: torch.Tensor, recordings: list[np.ndarray], folder: Path) -> Answers:
        """Compiled without a warning, run without a fault that the sanitizers know of."""
        with torch.no_grad():
            expected = [values.numpy() for values in model(windows).values()]
        for file, text in c_files(model, "net", windows.numpy(), expected).items():
            (folder / file).write_text(text)
        strict = ["-std=c99", "-O1", "-Wall", "-Wextra", "-Werror", "-pedantic"]
        sanitized = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
        subprocess.run(
            [compiler, *strict, *sanitized, "net.c", "net_test.c", "-lm", "-o", "net"], cwd=folder, check=True
        )
        subprocess.run([folder / "net"], check=True, cwd=folder)

        def call(samples: np.ndarray, *more: str) -> list[list[str]]:
            (folder / "samples").write_bytes(samples.astype("<f4").tobytes())
            command = [folder / "net", "samples", *more]
            return [
                line.split() for line in subprocess.check_output(command, cwd=folder, text=True).splitlines() if line
            ]

        def split(lines: list[list[str]]) -> tuple[dict[str, np.ndarray], dict[str, list[bool]]]:
            rows, at, logits, none = np.array(lines, float), 0, {}, {}
            for task, labels in model.labels.items():
                none[task] = (rows[:, at] < 0).tolist()
                logits[task] = rows[:, at + 1 : at + 1 + len(labels)]
                at += 1 + len(labels)
            return logits, none

        logits, none = split(call(windows.numpy()))
        frames, events = [], []
        for recording in recordings:
            lines = call(recording, "recording")
            frames.append(split([line for line in lines if line[0] != "event"])[0])
            found = [line[1:] for line in lines if line[0] == "event"]
            events.append(by_task(model, [(line[4], *map(float, line[:4])) for line in found]))
        return Answers(logits, none, frames, events)

    return run


def by_task(model: AudioClassifier, events: list[tuple[Any, ...]]) -> dict[str, np.ndarray]:
    return {task: np.array(sorted(e[1:] for e in events if e[0] == task)).reshape(-1, 4) for task in model.labels}


def of_the_page(model: AudioClassifier, windows: torch.Tensor, recordings: list[np.ndarray], page: Any) -> Answers:
    page.goto("about:blank")
    page.set_content(web_page(model, "Sounds"))
    classify = """async (window) => {
        const logits = await audiostride.classify(Float32Array.from(window));
        return Object.entries(logits).map(([task, of]) => [[...of], audiostride.answer(task, of).length === 0]);
    }"""
    hear = """async (samples) => {
        const { frames, events } = await audiostride.events(Float32Array.from(samples));
        const score = (e) => audiostride.probabilities(e.task, e.logits)[e.index];
        const scored = events.map((e) => [e.task, e.start_s, e.end_s, e.index, score(e)]);
        return [Object.keys(frames[0]).map((task) => frames.map((one) => [...one[task]])), scored];
    }"""
    found = [page.evaluate(classify, window.tolist()) for window in windows]
    heard = [page.evaluate(hear, recording.tolist()) for recording in recordings]
    return Answers(
        {task: np.array([one[i][0] for one in found]) for i, task in enumerate(model.labels)},
        {task: [one[i][1] for one in found] for i, task in enumerate(model.labels)},
        [{task: np.array(frames[i]) for i, task in enumerate(model.labels)} for frames, _ in heard],
        [by_task(model, events) for _, events in heard],
    )


@functools.cache
def prepared(name: str) -> tuple[AudioClassifier, torch.Tensor, list[np.ndarray], Answers]:
    """A model, windows, recordings, and what it says of them."""
    model = trained(name)
    n = model.window_length
    loud = torch.rand(9).repeat_interleave(n // 2) * torch.randn(9 * (n // 2))
    recordings = [(0.2 * loud).numpy(), (0.2 * loud[: n // 3]).numpy()]
    tone = 0.5 * torch.sin(torch.arange(n) * 0.3) * (torch.arange(n) < n // 3)
    windows = torch.stack([0.1 * torch.randn(n), torch.zeros(n), tone, loud[:n] / 9])
    windows = (windows * 32768).round().clamp(-32768, 32767) / 32768  # as in the test beside a C file
    decided(model, windows, recordings[0])
    return model, windows, recordings, of_the_model(model, windows, recordings)


ONE_OF_EACH_KIND_OF_FRAMES = ("pico", "nano, learned strides", "strided", "waveform")


@pytest.mark.parametrize(
    ("format", "name"),
    [
        *((format, name) for format in ("web", "gcc") for name in MODELS),
        *(("clang", name) for name in ONE_OF_EACH_KIND_OF_FRAMES),
    ],
)
def test_every_format_gives_the_same_answers(format, name, tmp_path, request):
    model, windows, recordings, expected = prepared(name)
    if format == "web":
        page = request.getfixturevalue("browser").new_page()
        problems: list[str] = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda sent: problems.append(sent.url) if sent.url.startswith("http") else None)
        found = of_the_page(model, windows, recordings, page)
        page.close()
        assert not problems
    else:
        if not shutil.which(format):
            pytest.skip(f"{format} is not here")
        found = of_the_c_file(format)(model, windows, recordings, tmp_path)
    for task in HEADS:
        np.testing.assert_allclose(found.windows[task], expected.windows[task], atol=1e-3)
        assert found.none[task] == expected.none[task]
        assert len(set(expected.none[task])) == 2  # some are none
        for ours, theirs in zip(found.frames, expected.frames, strict=True):
            np.testing.assert_allclose(ours[task], theirs[task], atol=1e-3)
        for ours, theirs in zip(found.events, expected.events, strict=True):
            np.testing.assert_allclose(ours[task], sorted(theirs[task].tolist()) or np.zeros((0, 4)), atol=1e-3)
    assert sum(len(events) for events in expected.events[0].values()) > 2
