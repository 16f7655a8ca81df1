"""`results.json` as a model carries it: what it scored on its test clips. The schema, and the one reader."""

from pathlib import Path
from typing import Any

from pydantic import ConfigDict, Field, ValidationError

from ..errors import ModelFileError, printable
from ..sections import Section, explain_all
from .files import read_json


class Record(Section):
    """A mapping in a file that a run left; keys that are not named here are kept as they are."""

    model_config = ConfigDict(extra="allow")


class TaskScore(Record):
    """What a model card says of one task: the split, the share of correct clips, and how many there are."""

    split: str
    accuracy: float = Field(ge=0, le=1)
    n: int = Field(ge=1, le=2**53)


class Results(Record):
    """What a model card needs of `results.json`; a finished run's has more, see `training.run_files`."""

    tasks: dict[str, TaskScore] = Field(min_length=1)
    seed: int | None = Field(None, ge=0)


def read_results(path: Path, schema: type[Results] = Results) -> dict[str, Any]:
    """What a `results.json` holds, checked.

    Raises:
        ModelFileError: if it is missing or damaged; names the key, its value and what to do.
    """
    return check_record(read_json(path), schema, str(path))


def check_record(value: Any, schema: type[Record], where: str) -> dict[str, Any]:
    """A mapping from a file, whose values are what they must be.

    Args:
        value: what the file holds.
        schema: what it must be.
        where: file, and line if it has several, for the error.

    Raises:
        ModelFileError: names every wrong key with its value.

    Example:
        >>> check_record({"tasks": {"word": {"split": "test", "accuracy": 2, "n": 4}}}, Results, "results.json")
        Traceback (most recent call last):
            ...
        audiostride.errors.ModelFileError: results.json: tasks.word.accuracy: input should be less than or equal to 1, \
got 2; the file was damaged or edited: restore it, or train anew
    """
    if not isinstance(value, dict):
        problem = f"holds {type(value).__name__}, a mapping is needed"
    else:
        try:
            return schema.model_validate(value).model_dump(exclude_unset=True)
        except ValidationError as error:
            problem = "; ".join(explain_all(error.errors(), schema)[:3])
    raise ModelFileError(f"{where}: {printable(problem)}; the file was damaged or edited: restore it, or train anew")
