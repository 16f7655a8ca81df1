"""What the result of a run depends on: noted in every checkpoint, compared when a run is resumed."""

import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import soundfile
import soxr
import torch

from .. import __version__
from ..data.batches import LabelledClips
from ..errors import ModelFileError
from ..models.custom import source_digest
from ..sections import flatten
from .checkpoints import Notify
from .distillation import Teacher
from .processes import process_count
from .recipe import Recipe


def conditions(recipe: Recipe, sets: Sequence[LabelledClips], teacher: Teacher | None = None) -> dict[str, Any]:
    """What the result of a run depends on: recipe, environment, clips, teacher and custom classes.

    Settings that do not change the result (decoding processes, when to save, where the teacher is stored) are left out.
    """
    settings = recipe.model_dump(exclude={"cache", "published"})
    for key in ("workers", "checkpoint_steps", "keep_checkpoints", "teacher"):
        del settings["train"][key]
    table = hashlib.sha256()
    for data in sets:
        for index, split in enumerate(data.splits):
            table.update(f"{data.clips.title(index)}\0{split}\n".encode("utf-8", "surrogateescape"))
        for task, numbers in data.labels.items():
            table.update(task.encode() + np.ascontiguousarray(numbers).tobytes())
        for index in range(len(data.background or ())):
            assert data.background is not None
            table.update(f"{data.background.title(index)}\0".encode("utf-8", "surrogateescape"))
    found = {
        "recipe": settings,
        "environment": environment(),
        "data": {"sha256_of_names_and_labels": table.hexdigest()},
    }
    if teacher:
        found["teacher"] = {"sha256": teacher.digest()}
    sources = {"frontend": recipe.frontend.source, "trunk": recipe.model.source}
    code = {f"sha256_of_{part}": source_digest(source) for part, source in sources.items() if source}
    return found | ({"code": code} if code else {})


def identity(conditions: Mapping[str, Any]) -> str:
    """A run's name in its files: runs with the same conditions are bit-exact copies of each other.

    Example:
        >>> identity({"recipe": {"seed": 0}})
        '30e9ebebf9a3d301'
    """
    return hashlib.sha256(json.dumps(conditions, sort_keys=True).encode()).hexdigest()[:16]


def environment() -> dict[str, Any]:
    """Machine and versions on which a run repeats bit-exactly.

    Example:
        >>> environment()["processes"]
        1
    """
    return {
        "audiostride": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "libsndfile": soundfile.__libsndfile_version__,
        "soxr": soxr.__version__,
        "threads": torch.get_num_threads(),
        "machine": platform.machine(),
        "processor": torch.backends.cpu.get_cpu_capability(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "processes": process_count(),
    }


def check_conditions(now: Mapping[str, Any], then: Mapping[str, Any], allow_inexact: bool, notify: Notify) -> None:
    """Compare what a result depends on (recipe, data, machine, versions) with what it was for a checkpoint.

    Args:
        now: nested plain data.
        then: the checkpoint's.
        allow_inexact: only notify of differences.
        notify: called with a line if there are differences and they are allowed.

    Raises:
        ModelFileError: names each difference, unless they are allowed.

    Example:
        >>> check_conditions({"torch": "2.13"}, {"torch": "2.12"}, False, print)
        Traceback (most recent call last):
            ...
        audiostride.errors.ModelFileError: the run would not continue exactly: torch was '2.12', is '2.13'; ...
    """
    flat_now, flat_then = (flatten(_as_json(tree)) for tree in (now, then))
    missing = "not set"
    differences = [
        f"{key} was {flat_then.get(key, missing)!r}, is {flat_now.get(key, missing)!r}"
        for key in sorted(flat_now.keys() | flat_then.keys())
        if flat_now.get(key, missing) != flat_then.get(key, missing)
    ]
    if differences and not allow_inexact:
        raise ModelFileError(
            f"the run would not continue exactly: {'; '.join(differences)}; change it back, or continue anyway "
            "with --allow-inexact"
        )
    if differences:
        notify(f"the run does not continue exactly: {'; '.join(differences)}")


def _as_json(tree: Mapping[str, Any]) -> dict[str, Any]:
    """As a checkpoint returns it: tuples are lists."""
    return json.loads(json.dumps(tree))
