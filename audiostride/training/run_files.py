"""The files that a finished run leaves, as inputs: a schema and one reader each, and that they belong together.

`results.json` is written last and holds the digests of the files it was made with, so that one that was cut short,
edited or taken from another run is noticed. Predictions are read in `predictions_file`.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from ..errors import ModelFileError, printable
from ..files import read_bounded
from ..models import results
from ..models.files import CONFIG_FILE
from ..models.results import Record, check_record
from .directory import METRICS_FILE, PREDICTIONS_FILE, RESULTS_FILE

MAX_BYTES = 2**30
"""Of a file of a run: that of a million clips of a hundred classes."""

Count = Annotated[int, Field(ge=0, le=2**53)]
Stride = Annotated[float, Field(ge=1, le=2**24)]
Figure = Annotated[float, Field(ge=0, le=1e30)]


class Score(Record):
    """Loss, accuracy and whatever else a kind of task is scored by, each a number."""

    __pydantic_extra__: dict[str, Figure]
    accuracy: float = Field(ge=0, le=1)


class TaskScore(Score, results.TaskScore):
    """The score of a task in `results.json`."""


class Results(results.Results):
    """`results.json` of a finished run.

    files: `digest` of the other files of the run when it was written, by name.
    """

    tasks: dict[str, TaskScore] = Field(min_length=1)  # type: ignore[assignment]
    seed: Count
    macs_per_second: Figure
    parameters: Count
    strides: list[list[Stride]]
    n_train: dict[str, Count] = Field(default_factory=dict)
    environment: dict[str, str | int | float | bool | None] = Field(default_factory=dict)
    files: dict[str, str] = Field(default_factory=dict)


class EpochScore(Score):
    """The score of a task in `metrics.jsonl`."""

    loss: Figure


class Epoch(Record):
    """A line of `metrics.jsonl`: one epoch and split."""

    epoch: int = Field(ge=1, le=2**53)
    step: Count
    split: Literal["train", "validation", "test"]
    tasks: dict[str, EpochScore] = Field(min_length=1)
    strides: list[list[Stride]]


def read_results(run_dir: Path) -> dict[str, Any]:
    """A finished run's `results.json`, as `Results` describes it.

    Raises:
        ModelFileError: if the run is not finished or the file damaged.
    """
    path, config = run_dir / RESULTS_FILE, run_dir / CONFIG_FILE
    if not path.exists():
        raise ModelFileError(f"{printable(path)}: no such file; the run is not finished")
    found = results.read_results(path, Results)
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
    content = read_own(path)
    lines = []
    for number, line in enumerate(content.splitlines(keepends=True), start=1):
        where = f"{printable(path)}: line {number}"
        if not line.endswith(b"\n"):
            raise ModelFileError(f"{where}: is cut short; restore the file, or train anew")
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ModelFileError(f"{where}: is not JSON ({error}); restore the file, or train anew") from error
        lines.append(check_record(value, Epoch, where))
        if lines[-1]["tasks"].keys() - lines[0]["tasks"].keys() or _shape(lines[-1]) != _shape(lines[0]):
            raise ModelFileError(f"{where}: has other tasks or layers than line 1; it is of another run")
    if not any(line["split"] != "train" for line in lines):
        raise ModelFileError(f"{printable(path)}: holds no epoch that was scored on clips held out")
    return lines


def read_own(path: Path) -> bytes:
    """The content of a file of a run, which must be what it was when `results.json` was written.

    Raises:
        ModelFileError: if it is missing, no plain file, or another one; or as `read_results`.
    """
    content = read_bounded(path, MAX_BYTES)
    _check_digest(path, content, read_results(path.parent))
    return content


def digests(run_dir: Path) -> dict[str, str]:
    """What "files" in `results.json` says: the `digest` of each file of the run that is there."""
    paths = [run_dir / name for name in (CONFIG_FILE, METRICS_FILE, PREDICTIONS_FILE)]
    return {path.name: digest(path.read_bytes()) for path in paths if path.exists()}


def digest(content: bytes) -> str:
    """SHA-256 of a file, but for how fast the training was: all else is the same when a run is repeated.

    Example:
        >>> digest(b'{"epoch": 1, "clips_per_s": 98.5}') == digest(b'{"epoch": 1, "clips_per_s": 7}')
        True
    """
    return hashlib.sha256(re.sub(rb'"clips_per_s": [^,}]*', b"", content)).hexdigest()


def _check_digest(path: Path, content: bytes, found: Mapping[str, Any]) -> None:
    if found.get("files", {}).get(path.name, digest(content)) != digest(content):
        raise ModelFileError(
            f"{printable(path)}: is not the file that {RESULTS_FILE} was written with: it was cut short, edited or "
            "comes from another run; restore it, or train anew"
        )


def _shape(line: Mapping[str, Any]) -> list[int]:
    return [len(strides) for strides in line["strides"]]
