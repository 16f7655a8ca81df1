"""What the strides of runs mean: their cut-offs, the gains measured in the network, and what to compare them with."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..data.clips import Clips, Progress
from ..data.ripples import RATES_HZ, SCALES
from ..data.sections import RipplesData
from ..errors import UsageError
from ..models.classifier import load
from ..models.cutoffs import UNITS, model_cutoffs, summarise, why_no_cutoffs
from ..models.folding import survival
from ..models.frames import frame_grid
from ..models.log_mel import LogMel
from ..models.network import spectrogram_parts
from ..models.reference_ranges import reference_ranges
from ..training.directory import RECIPE_FILE
from ..training.run_files import recipe_of
from ..training.run_testing import check_here
from .measured_response import LayerResponse, layer_responses, noise_log_mel

MAX_SECONDS = 60
"""Of an input on which layers are measured, where the model's own window is not longer."""


def describe_cutoffs(
    run_dirs: Sequence[Path], seconds: float | None = None
) -> tuple[dict[str, Any], list[LayerResponse]]:
    """Cut-offs of one or more runs, what to compare them with, and the gains measured in every network.

    Args:
        run_dirs: run directories of models with the same blocks; converted one by one, then averaged.
        seconds: length of the input; None: the window of the first run.

    Returns:
        What `audiostride cutoffs --json` prints, and the measured responses of all runs.

    Raises:
        UsageError: if the runs do not fit together or the input is too short.
        ModelFileError: if a run cannot be loaded.
    """
    models = [load(run_dir) for run_dir in run_dirs]
    length = models[0].window_s if seconds is None else seconds
    if not length <= max(MAX_SECONDS, models[0].window_s):
        raise UsageError(f"an input of {length:g} s cannot be measured; choose {MAX_SECONDS} s at most")
    for run_dir, model in zip(run_dirs, models, strict=True):
        if reason := why_no_cutoffs(model):
            raise UsageError(f"{run_dir}: {reason}")
    for key in ("downsampling", "smoothness"):
        values = {f"{model.trunk.settings[key]}" for model in models}
        if len(values) > 1:
            raise UsageError(
                f"the runs differ in {key} ({', '.join(sorted(values))}) and cannot be averaged; "
                "give each by itself, or give all of them to audiostride compare"
            )
    try:
        layers = summarise([model_cutoffs(model, length) for model in models])
    except ValueError as error:
        raise UsageError(str(error)) from error
    if len({json.dumps(model.frontend.settings) for model in models}) > 1:
        raise UsageError("the runs have different frontends, so their cut-offs are not comparable")
    frontend = models[0].frontend
    n_noises = 4 if length <= 10 else 1
    responses = [
        response
        for model in models
        if (parts := spectrogram_parts(model)) and parts[0].first_pool is None
        for response in layer_responses(parts[1], noise_log_mel(parts[0], length, n_noises), parts[0].frame_rate)
    ]
    tiles = [tile for model in models if (tile := model.frontend.tile(model.window_length))]
    ripples = ripple_limits(run_dirs[0]) if (run_dirs[0] / RECIPE_FILE).is_file() else {}
    found = {
        "runs": [str(run_dir) for run_dir in run_dirs],
        "seconds": length,
        **({"resolution": tiles} if tiles else {}),
        "units": UNITS,
        "layers": layers,
        "onset_ms": sum(frame_grid(model).onset_ms for model in models) / len(models),
        "references": reference_ranges(frontend) if isinstance(frontend, LogMel) else [],
        "ripples": [survival(layers, axis, fastest) for axis, fastest in ripples.items()],
        "measured": {"largest_error": max((response.error for response in responses), default=None)},
    }
    return found, responses


def task_clips(run_dir: Path, task: str, progress: Progress | None = None, fetch: bool = False) -> Clips:
    """All clips of the data a task was trained on, to look its test clips up by name.

    Args:
        run_dir: the run directory.
        task: one of its tasks.
        progress: called while the data is opened.
        fetch: let the recipe download the data and write where it says.

    Raises:
        DataError: if the data is no longer there, or would have to be fetched.
    """
    recipe = recipe_of(run_dir)
    if not fetch:
        check_here(recipe, "see the clips where they are")
    return recipe.tasks[task].data.open(progress)


def ripple_limits(run_dir: Path) -> dict[str, float]:
    """The fastest ripple a run was trained to tell, on each axis its tasks ask for; empty for other data.

    Returns:
        "time" in Hz and "mel" in cycles per mel band.

    Raises:
        ModelFileError: if it is no run directory.
    """
    fastest = {"rate": ("time", max(RATES_HZ)), "scale": ("mel", max(SCALES))}
    tasks = recipe_of(run_dir).tasks.values()
    return dict(fastest[task.column] for task in tasks if isinstance(task.data, RipplesData) and task.column in fastest)
