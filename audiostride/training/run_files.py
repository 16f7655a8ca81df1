"""The files that a finished run leaves, as inputs: a schema and one reader each, and that they belong together.

`results.json` is written last and holds the digests of the files it was made with, so that one that was cut short,
edited or taken from another run is noticed. Each line of `metrics.jsonl` names the run (`conditions.identity`), and a
checkpoint holds the digests of the logs. Predictions are read in `predictions_file`.
"""

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from ..errors import ModelFileError, TrainingError, printable
from ..files import read_bounded, replace_file
from ..models import results
from ..models.files import CONFIG_FILE
from ..models.results import Record, check_record
from .directory import METRICS_FILE, PREDICTIONS_FILE, RECIPE_FILE, RESULTS_FILE, STEPS_FILE
from .recipe import Recipe, load_recipe

MAX_BYTES = 2**30
"""Of a file of a run: that of a million clips of a hundred classes."""

SET_LATER = ("events", "calibration", "thresholds")
"""Settings of a task that are found after the training, and are saved with the model then."""

_ELSEWHERE = re.compile(rb'"clips_per_s": [^,}]*|^ *(path|root|cache|background): .*$', re.MULTILINE)

Count = Annotated[int, Field(ge=0, le=2**53)]
Stride = Annotated[float, Field(ge=1, le=2**24)]
Figure = Annotated[float, Field(ge=0, le=1e30)]
Share = Annotated[float, Field(ge=0, le=1)]
Aliasing = list[list[Share | list[Share]]] | None


RunId = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]


class Score(Record):
    """Loss, accuracy and whatever else a kind of task is scored by, each a number."""

    __pydantic_extra__: dict[str, Figure]
    accuracy: float = Field(ge=0, le=1)


class TaskScore(Score, results.TaskScore):
    """The score of a task in `results.json`."""

    split: Literal["test"]


class NoneShare(Record):
    """Of how many windows of background a model says that they are none of the classes."""

    windows: Count
    none: Share
    interval: list[Share]


class TaskCalibration(Record):
    """What was found of a task on its validation clips, see `calibration.calibrate`."""

    clips: Count
    kept: list[Share]
    temperature: Figure
    none_below: float | None
    background: NoneShare | None = None


class Results(results.Results):
    """`results.json` of a finished run.

    run: see `conditions.identity`.
    files: `digest` of the files of the run when it was written, by name; of `results.json` itself without its own.
    """

    run: RunId | None = None
    tasks: dict[str, TaskScore] = Field(min_length=1)  # type: ignore[assignment]
    seed: Count
    macs_per_second: Figure
    parameters: Count
    strides: list[list[Stride]]
    aliasing: Aliasing = None
    published: Annotated[float, Field(ge=0, le=100)] | None = None
    n_train: dict[str, Count] = Field(default_factory=dict)
    calibration: dict[str, TaskCalibration] = Field(default_factory=dict)
    environment: dict[str, str | int | float | bool | None] = Field(default_factory=dict)
    files: dict[str, str] = Field(default_factory=dict)


class EpochScore(Score):
    """The score of a task in `metrics.jsonl`."""

    loss: Figure


class Epoch(Record):
    """A line of `metrics.jsonl`: one epoch and split."""

    run: RunId | None = None
    epoch: int = Field(ge=1, le=2**53)
    step: Count
    split: Literal["train", "validation", "test"]
    tasks: dict[str, EpochScore] = Field(min_length=1)
    strides: list[list[Stride]]
    aliasing: Aliasing = None
    lr: Figure | None = None
    stride_lr: Figure | None = None
    clips_per_s: Figure | None = None


class Step(Record):
    """A line of `steps.jsonl`: the exact loss of a step, as `float.hex` writes it."""

    step: int = Field(ge=1, le=2**53)
    loss_hex: str = Field(pattern=r"^-?0x[01]\.[0-9a-f]{1,13}p[+-]\d{1,4}$")


def recipe_of(run_dir: Path) -> Recipe:
    """The recipe a run was made with; where its data is may have been changed since.

    Raises:
        ModelFileError: if there is none, or it is not what `results.json` was written with.

    Example:
        >>> recipe_of(Path("nowhere"))
        Traceback (most recent call last):
            ...
        audiostride.errors.ModelFileError: nowhere/recipe.yaml: no such file; a run directory is needed
    """
    path = run_dir / RECIPE_FILE
    if not path.is_file():
        raise ModelFileError(f"{printable(path)}: no such file; a run directory is needed")
    if (run_dir / RESULTS_FILE).exists():
        read_own(path)
    return load_recipe(str(path))


def read_results(run_dir: Path) -> dict[str, Any]:
    """A finished run's `results.json`, as `Results` describes it.

    Raises:
        ModelFileError: if the run is not finished or the file damaged.
    """
    path, config = run_dir / RESULTS_FILE, run_dir / CONFIG_FILE
    if not path.exists():
        raise ModelFileError(f"{printable(path)}: no such file; the run is not finished")
    found = results.read_results(path, Results)
    _check_digest(path, read_bounded(path, MAX_BYTES), found)
    if config.exists():
        _check_digest(config, read_bounded(config, MAX_BYTES), found)
    return found


def read_metrics(run_dir: Path) -> list[dict[str, Any]]:
    """The lines of a run's `metrics.jsonl`, one for each epoch and split that was scored, as `Epoch` describes them.

    Raises:
        ModelFileError: if the file is missing, damaged or of another run; names the line.
    """
    path = run_dir / METRICS_FILE
    if not path.exists():
        raise ModelFileError(f"{printable(path)}: no such file; it holds the training curves of a run")
    lines: list[dict[str, Any]] = []
    for where, line in _json_lines(path, Epoch):
        lines.append(line)
        if line.get("run") != lines[0].get("run"):
            raise ModelFileError(f"{where}: is of run {line.get('run')}, line 1 of {lines[0].get('run')}")
        if lines[-1]["tasks"].keys() - lines[0]["tasks"].keys() or _shape(lines[-1]) != _shape(lines[0]):
            raise ModelFileError(f"{where}: has other tasks or layers than line 1; it is of another run")
    if not any(line["split"] != "train" for line in lines):
        raise ModelFileError(f"{printable(path)}: holds no epoch that was scored on clips held out")
    return lines


def read_steps(run_dir: Path) -> list[float]:
    """The loss of every step of a finished run, from the first one.

    Raises:
        ModelFileError: if the file is missing, damaged, of another run or lacks a step; names the line.
    """
    losses = []
    for where, line in _json_lines(run_dir / STEPS_FILE, Step):
        losses.append(float.fromhex(line["loss_hex"]))
        if line["step"] != len(losses):
            raise ModelFileError(f"{where}: is of step {line['step']}")
    return losses


def is_finished(run_dir: Path) -> bool:
    """Whether a run directory holds complete results, which are written last, of the model in it.

    Example:
        >>> is_finished(Path("nowhere"))
        False
    """
    try:
        return bool(read_results(run_dir))
    except ModelFileError:
        return False


def read_own(path: Path) -> bytes:
    """The content of a file of a run, which must be what it was when `results.json` was written.

    Raises:
        ModelFileError: if it is missing, no plain file, or another one; or as `read_results`.
    """
    content = read_bounded(path, MAX_BYTES)
    _check_digest(path, content, read_results(path.parent))
    return content


def write_results(run_dir: Path, results: Mapping[str, Any]) -> dict[str, Any]:
    """Write `results.json`, with the `digest` of each file that belongs to it.

    Args:
        run_dir: the run directory, whose other files are complete.
        results: what `Results` lists, but for `files`.

    Returns:
        What was written.

    Raises:
        TrainingError: if a score is not finite.
        WriteError: if it cannot be written.
    """
    paths = [run_dir / name for name in (CONFIG_FILE, RECIPE_FILE, METRICS_FILE, STEPS_FILE, PREDICTIONS_FILE)]
    written = {**results, "files": {path.name: digest(_bound(path.name, path.read_bytes())) for path in paths}}
    for task, scores in results["tasks"].items():
        for name, value in scores.items():
            if isinstance(value, float) and not math.isfinite(value):
                raise TrainingError(f"the test {name} of task {task!r} is {value}: the training diverged")
    written["files"][RESULTS_FILE] = digest(json.dumps(written, sort_keys=True).encode())
    replace_file(run_dir / RESULTS_FILE, json.dumps(written, indent=1) + "\n")
    return written


def digest(content: bytes) -> str:
    """SHA-256 of a file, but for how fast the training was and where the data is, which may differ in a repeated run.

    Example:
        >>> digest(b'{"epoch": 1, "clips_per_s": 98.5}') == digest(b'{"epoch": 1, "clips_per_s": 7}')
        True
    """
    return hashlib.sha256(_ELSEWHERE.sub(b"", content)).hexdigest()


def _bound(name: str, content: bytes) -> bytes:
    """What of a file of a run may not change: all but what `calibrate` sets in a model, and a digest of itself."""
    with suppress(ValueError, KeyError, TypeError, AttributeError, RecursionError):  # damaged, so all of it differs
        if name == RESULTS_FILE:
            value = json.loads(content)
            del value["files"][RESULTS_FILE]
            content = json.dumps(value, sort_keys=True).encode()
        elif name == CONFIG_FILE:
            value = json.loads(content)
            del value["config_sha256"]
            for settings in value["tasks"].values():
                for key in SET_LATER:
                    settings.pop(key, None)
            content = json.dumps(value, sort_keys=True).encode()
    return content


def _check_digest(path: Path, content: bytes, found: Mapping[str, Any]) -> None:
    recorded = found.get("files", {}).get(path.name)
    if recorded is not None and recorded not in (digest(content), digest(_bound(path.name, content))):
        raise ModelFileError(
            f"{printable(path)}: is not the file that {RESULTS_FILE} was written with: it was cut short, edited or "
            "comes from another run; restore it, or train anew"
        )


def _json_lines(path: Path, schema: type[Record]) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, line in enumerate(read_own(path).splitlines(keepends=True), start=1):
        where = f"{printable(path)}: line {number}"
        if not line.endswith(b"\n"):
            raise ModelFileError(f"{where}: is cut short; restore the file, or train anew")
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ModelFileError(f"{where}: is not JSON ({error}); restore the file, or train anew") from error
        yield where, check_record(value, schema, where)


def _shape(line: Mapping[str, Any]) -> list[int]:
    return [len(strides) for strides in line["strides"]]
