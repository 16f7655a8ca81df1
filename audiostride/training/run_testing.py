"""Testing a trained run, on its own test clips or on other data: its scores, its thresholds, clips to check on."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ..data.any_path import read_path
from ..data.batches import LabelledClips
from ..data.clips import Clips, FileClips, Progress
from ..data.decoding import read_audio
from ..data.images import read_images
from ..data.labels import label_numbers, one_column
from ..data.sections import EncodedData
from ..data.sounds import find_sounds
from ..errors import DataError, ModelFileError, UsageError
from ..models.adaptive_log_mel import learned_resolution
from ..models.classifier import AudioClassifier, load
from ..models.cost import cost_per_second
from ..sections import Channel
from ..windows import split_windows
from .build import read_data
from .calibration import KEEP, calibrate_tasks, none_share
from .directory import PREDICTIONS_FILE, RECIPE_FILE, RESULTS_FILE
from .evaluation import Score, evaluate
from .predictions_file import TaskPredictions, make_predictions, read_predictions
from .recipe import Recipe
from .run_files import recipe_of


def evaluate_run(
    run_dir: str | Path,
    data: str | None = None,
    task: str | None = None,
    progress: Progress | None = None,
    overlap: float = 0.0,
    fetch: bool = False,
) -> dict[str, Score]:
    """Test a trained model on the test set of its run, or on other data.

    Args:
        run_dir: the run directory; with `data` any model that `load` takes.
        data: a folder or table of audio, or a folder of images, laid out as for training; its test
            split is used if it has one, else all of it. None: the data of the run's recipe.
        task: the task to score; None: all, with `data` those whose columns it has. The columns are those of the
            recipe; without one a task is in the column of its name, or else in "label".
        progress: called while data is read and evaluated.
        overlap: of windows, see `window_hop`.
        fetch: let the recipe of the run download its data and write where it says; see that it comes from somebody
            you trust.

    Raises:
        ModelFileError, DataError, UsageError: each names the file or task.
    """
    return evaluate_with_predictions(run_dir, data, task, progress, overlap, fetch)[0]


def evaluate_with_predictions(
    run_dir: str | Path,
    data: str | None = None,
    task: str | None = None,
    progress: Progress | None = None,
    overlap: float = 0.0,
    fetch: bool = False,
    channel: Channel | None = None,
) -> tuple[dict[str, Score], dict[str, TaskPredictions]]:
    """`evaluate_run`, and the predictions that were scored, for each task; other data may be heard by a `channel`."""
    model, groups = load(run_dir), dict[str, str | None]()
    model.channel = channel or model.channel
    if overlap and model.frontend.takes_images:
        raise UsageError(f"{run_dir}: classifies images, each of which is one window; omit the overlap")
    sets = data_of(run_dir, model, data, task, progress, fetch)
    if data is None:
        groups = {name: getattr(of.data, "group", None) for name, of in recipe_of(Path(run_dir)).tasks.items()}
    scores: dict[str, Score] = {}
    predictions: dict[str, TaskPredictions] = {}
    for clips, labels, indexes in sets:
        found, logits = evaluate(model, clips, labels, indexes, 2, progress, overlap)
        scores |= found
        for name in found:
            truth = labels[name][indexes]
            group = groups.get(name)
            predictions[name] = make_predictions(model, name, clips, indexes, truth, logits[name], group)
    return scores, predictions


def calibrate_run(
    run_dir: Path,
    data: str | None = None,
    background: str | None = None,
    task: str | None = None,
    keep: float = KEEP,
    precision: float | None = None,
    progress: Progress | None = None,
    fetch: bool = False,
) -> dict[str, Any]:
    """Calibrate a trained model on the validation clips of its run, or on other data, and save that with it.

    Args:
        run_dir: the run directory; its `config.json` is rewritten.
        data: as for `evaluate_run`; its validation split is used if it has one, else all of it.
        background: sounds that are none of the classes, to count of how many windows the model now says so.
        task: only this one; None: all, with `data` those whose columns it has.
        keep: share of the clips that are not to be called none.
        precision: wanted share of each class's answers that is right, see `calibration.precision_thresholds`.
        progress: called while data is read.
        fetch: see `evaluate_run`.

    Returns:
        See `calibration.calibrate_tasks`, and "background" of `calibration.none_share`.

    Raises:
        ModelFileError, DataError, UsageError: each names the file or task.
    """
    model = load(run_dir)
    found: dict[str, Any] = {}
    for clips, labels, rows in data_of(run_dir, model, data, task, progress, fetch, "validation"):
        found |= calibrate_tasks(model, clips, labels, rows, keep, precision, workers=2)
    if background is not None:
        sounds = find_sounds([background])
        files = FileClips(sounds, {}, [], channel=model.channel)
        for name, share in none_share(model, files, range(len(sounds)), list(found)).items():
            found[name]["background"] = share
    model.save(run_dir)
    return found


def check_windows(
    run_dir: str, model: AudioClassifier, clips: str | None = None, progress: Progress | None = None, n: int = 128
) -> Tensor:
    """Windows of real clips to check an exported model on: the first window of up to `n` clips.

    Args:
        run_dir: the run directory; its test set is used.
        model: its model.
        clips: files to use instead, as in `sounds.find_sounds`.
        progress: called while data is read.
        n: number of clips, spread evenly over the set.

    Returns:
        Shape ``(n_clips, samples)``.

    Raises:
        ModelFileError: if there are no clips and no recipe to find them by.
        DataError: if a clip cannot be read.
        UsageError: if the model classifies images.
    """
    sample_rate = model.sample_rate
    if clips is None:
        sources: list[Callable[[], np.ndarray]] = [
            partial(data.clips.read, index, sample_rate)
            for data, rows in _own_data(Path(run_dir), model, progress, None, "give some with --clips")
            for index in rows
        ]
    else:
        sources = [partial(read_audio, name, sample_rate, channel=model.channel) for name in find_sounds([clips])]
    if not sources:
        raise DataError(f"{run_dir}: its data has no test clips to check the export on; give some with --clips")
    chosen = [sources[i] for i in np.linspace(0, len(sources) - 1, min(n, len(sources))).round().astype(int)]
    return torch.stack([split_windows(torch.from_numpy(read()), model.window_length)[0] for read in chosen])


def describe(model: AudioClassifier) -> dict[str, Any]:
    """What `results.json` says of a model: its cost on one second of audio, or on one image, and its strides.

    Example:
        >>> from audiostride import create_model
        >>> found = describe(create_model("audio_resnet_pico_strided", heads={"word": 2}))
        >>> found["parameters"], found["strides"][:2]
        (21844, [[2.0, 2.0], [2.0, 4.0]])
    """
    cost = cost_per_second(model)
    return {
        "macs_per_second": cost.macs,
        "parameters": sum(p.numel() for p in model.parameters()),
        "strides": model.trunk.strides(),
        **learned_resolution(model),
        **({"aliasing": aliasing} if (aliasing := model.trunk.aliasing()) else {}),
    }


def check_here(recipe: Recipe, advice: str, can_fetch: bool = True) -> None:
    """Refuse a recipe whose data is not here: a run directory from somebody else downloads and writes nothing.

    Args:
        recipe: of the run.
        advice: what to do instead.
        can_fetch: whether the command has the option --fetch.

    Raises:
        DataError: names what would be fetched.
    """
    for name, task in recipe.tasks.items():
        if what := task.data.to_fetch():
            raise DataError(
                f"tasks.{name}.data: is not on this machine, and the recipe of a run is not followed to fetch {what}; "
                f"{'if you trust it, allow that with --fetch; or ' if can_fetch else ''}{advice}"
            )


def data_of(
    run_dir: str | Path,
    model: AudioClassifier,
    data: str | None = None,
    task: str | None = None,
    progress: Progress | None = None,
    fetch: bool = False,
    split: Literal["test", "validation"] = "test",
) -> list[tuple[Clips, dict[str, np.ndarray], np.ndarray]]:
    """The clips of a run's split, or of other data: tables, the truth of each task that is asked for, and which rows.

    Arguments and errors are those of `evaluate_run`.

    Raises:
        DataError: if the run has no validation clips, or its data is not split any more as it was for the training.
    """
    if task is not None and task not in model.labels:
        raise UsageError(f"{run_dir} has no task {task!r}; its tasks: {', '.join(model.labels)}")
    asked = list(model.labels) if task is None else [task]
    if data is not None:
        clips, labels = _other_data(data, model, Path(run_dir), asked, progress, split)
        return [(clips, labels, np.arange(len(clips)))]
    advice = f"{'test' if split == 'test' else 'calibrate'} on other clips with --data"
    sets = []
    for part, rows in _own_data(Path(run_dir), model, progress, fetch, advice):
        if split == "validation":
            if not np.array_equal(rows, part.indexes("test")):
                raise DataError(
                    f"{run_dir}: its data has changed since, so the validation clips are not known; {advice}"
                )
            rows = part.indexes("validation")
            if not len(rows):
                raise DataError(
                    f"{run_dir}: was trained without validation clips (train.validation_fraction); {advice}"
                )
        if wanted := {name: numbers for name, numbers in part.labels.items() if name in asked}:
            sets.append((part.clips, wanted, rows))
    return sets


def _own_data(
    run_dir: Path, model: AudioClassifier, progress: Progress | None, fetch: bool | None, advice: str
) -> list[tuple[LabelledClips, np.ndarray]]:
    """The data of a run's recipe, and where its test clips are in each set.

    A split drawn anew, of data that has changed, may hold clips it was trained on, so clips are looked up by name.

    Args:
        run_dir: the run directory.
        model: its model.
        progress: called while the data is read.
        fetch: see `evaluate_run`; None where a command has no such option.
        advice: what to do where the data is not here.

    Raises:
        DataError: if the data or some of the test clips are gone, or cannot be distinguished by their names.
    """
    if not (run_dir / RECIPE_FILE).is_file():
        raise ModelFileError(f"{run_dir / RECIPE_FILE}: no such file, so the model's own data is not known; {advice}")
    recipe = recipe_of(run_dir)
    if not fetch:
        check_here(recipe, advice, can_fetch=fetch is not None)
        recipe = recipe.model_copy(update={"cache": None})  # it would be written where the recipe says
    tested = (run_dir / PREDICTIONS_FILE).exists() and (run_dir / RESULTS_FILE).exists()
    for task in recipe.tasks.values():
        if isinstance(task.data, EncodedData):
            task.data.background = None  # for training only
            if tested:
                task.data.check = "none"  # which clips were used is known; the others need not be decoded
    sets, _, _ = read_data(recipe, progress, model.labels)
    if not tested:
        return [(data, data.indexes("test")) for data in sets]
    predictions = read_predictions(run_dir, model)
    found = []
    for data in sets:
        files = next((predictions[task].files for task in data.labels if task in predictions), [])
        names = set(files)
        titles = [data.clips.title(i) for i in range(len(data.clips))]
        if missing := sorted(names - set(titles)):
            raise DataError(
                f"{run_dir}: {len(missing)} of its {len(names)} test clips are missing, such as {missing[0]}; "
                f"put them back, or {advice}"
            )
        rows = [i for i, title in enumerate(titles) if title in names]
        if len(rows) != len(files):
            raise DataError(
                f"{run_dir}: it was tested on {len(files)} clips, and {len(rows)} have their names now; restore the "
                f"data, or {advice}"
            )
        found.append((data, np.array(rows, int)))
    return found


def _other_data(
    data: str,
    model: AudioClassifier,
    run_dir: Path,
    asked: Sequence[str],
    progress: Progress | None,
    split: str,
) -> tuple[Clips, dict[str, np.ndarray]]:
    """The clips of a split of data that is not the run's, or all, and their numbers for the tasks that it can test."""
    tasks = recipe_of(run_dir).tasks if (run_dir / RECIPE_FILE).is_file() else {}
    if model.frontend.takes_images:
        clips: Clips = read_images(data, getattr(tasks[asked[0]].data, "crop", "padded") if tasks else "padded")
    else:
        clips = replace(read_path(data), channel=model.channel)
    if split in clips.splits:
        clips = clips.select([i for i, its in enumerate(clips.splits) if its == split])
    clips = clips.loaded(model.resolution, progress)
    columns = {}
    for name in asked:
        kind, section = model.kinds[name], tasks.get(name)
        columns[name] = section.column if section else name if name in clips.columns else "label"
        if section and (section.column in clips.columns or section.label_columns):
            clips = one_column(clips, section.column, kind, section.label_separator, section.label_columns)
        elif columns[name] in clips.columns:
            clips = one_column(clips, columns[name], kind)
    if len(asked) > 1:  # those that can be tested there; a single one says itself what it misses
        wanted = ", ".join(f"{column} (task {name})" for name, column in columns.items())
        columns = {name: column for name, column in columns.items() if column in clips.columns}
        if not columns:
            raise UsageError(f"{data}: has none of the columns {wanted}, only {', '.join(clips.columns)}")
    return clips, {
        name: label_numbers(clips, column, model.labels[name], model.kinds[name]) for name, column in columns.items()
    }
