"""Which resolution of the spectrogram a task needs: successive halving over log-mels of one cost.

Short trainings of all candidates, longer ones of the better half by their validation scores, and so on; what is left is
trained as the recipe says. Each round is a sweep, so the whole resumes where it was stopped.

Source: Jamieson & Talwalkar 2016, "Non-stochastic best arm identification and hyperparameter optimization".
"""

import json
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import RecipeError, TrainingError, printable
from ..models.log_mel import LogMel
from .recipe import load_recipe
from .run_files import read_metrics
from .sweep import Outcome, Planned, plan_sweep

SCALES = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Of hop and bands; their product, the size of the spectrogram, stays."""

WINDOWS = (1.0, 2.0)
"""Of the window, in addition."""


class Round(NamedTuple):
    """One round of the search.

    Attributes:
        epochs: of each training.
        tried: the score on validation clips of each candidate's settings, best first.
    """

    epochs: int
    tried: list[tuple[float, dict[str, Any]]]


def candidates(frontend: Any) -> list[dict[str, Any]]:
    """Settings of log-mels with as many frames times bands as this one; those that its sample rate allows.

    Example:
        >>> len(candidates(LogMel.section()())), candidates(LogMel.section()())[0]
        (10, {'window_ms': 6.25, 'hop_ms': 2.5, 'n_mels': 16, 'n_fft': 512})
    """
    found = []
    for scale in SCALES:
        for window in WINDOWS:
            settings = {
                "window_ms": frontend.window_ms * scale * window,
                "hop_ms": frontend.hop_ms * scale,
                "n_mels": round(frontend.n_mels * scale),
            }
            found += list(islice(_with_fft(frontend, settings), 1))
    return found


def _with_fft(frontend: Any, settings: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The settings with each FFT, shortest first, that holds the window and has a bin in every band."""
    others: dict[str, Any] = {"sample_rate": frontend.sample_rate, "f_min": frontend.f_min, "f_max": frontend.f_max}
    for n_fft in (2**k for k in range(9, 17)):
        try:
            LogMel(**others, **settings, n_fft=n_fft)
        except ValueError:
            continue
        yield settings | {"n_fft": n_fft}


def find_resolution(
    recipe: str,
    out: Path,
    overrides: Sequence[str],
    train_all: Callable[[Sequence[Planned]], Sequence[Outcome]],
) -> tuple[list[Round], Planned]:
    """Search the resolution of a recipe's log-mel by successive halving.

    Args:
        recipe: a recipe file or the name of a shipped one, whose frontend is a `LogMel`.
        out: a folder a round is made in it.
        overrides: ``key=value`` settings of every training.
        train_all: trains what is not finished of a sweep, as `sweep.run_sweep` does.

    Returns:
        The rounds, and the training of what is left by the whole recipe, which is not run yet.

    Raises:
        RecipeError: if the frontend is another, the recipe has a sweep of its own, or there are no validation clips to
            choose by.
        TrainingError: if a training failed.
    """
    loaded = load_recipe(recipe, overrides)
    if loaded.frontend.name != "log_mel" or loaded.model.init:
        raise RecipeError("frontend: a resolution is searched for a new network on frontend.name log_mel")
    if loaded.sweep:
        raise RecipeError("sweep: a resolution is searched for one network; set sweep={} for it")
    left = candidates(loaded.frontend)
    rounds: list[Round] = []
    n_rounds = (len(left) - 1).bit_length()
    while len(left) > 1:
        epochs = max(1, loaded.train.epochs >> (n_rounds - len(rounds)))
        grid = ",".join(json.dumps(loaded.frontend.model_dump() | settings) for settings in left)
        short = [*overrides, f"train.epochs={epochs}"]
        planned = plan_sweep(recipe, out / f"round-{len(rounds) + 1}", [f"frontend={grid}"], (), short)
        scores = []
        for one in planned:  # without validation clips the first training shows it
            (outcome,) = train_all([one])
            if outcome.state == "failed":
                raise TrainingError(f"{printable(outcome.path)}: {outcome.error}")
            scores.append(_validation_score(one.path))
        order = sorted(range(len(left)), key=lambda i: -scores[i])
        rounds.append(Round(epochs, [(scores[i], left[i]) for i in order]))
        left = [left[i] for i in order[: (len(left) + 1) // 2]]
    best = json.dumps(loaded.frontend.model_dump() | left[0])
    (final,) = plan_sweep(recipe, out / "final", [f"frontend={best}"], (), overrides)
    return rounds, final


def _validation_score(run_dir: Path) -> float:
    """Mean score of the tasks in the best epoch of a run, by accuracy or, of multilabel tasks, average precision."""
    scored = [line["tasks"].values() for line in read_metrics(run_dir) if line["split"] == "validation"]
    if not scored:
        raise RecipeError("train.validation_fraction: a resolution is chosen on validation clips, and there are none")
    return max(
        sum(task.get("mean_average_precision", task["accuracy"]) for task in tasks) / len(tasks) for tasks in scored
    )
