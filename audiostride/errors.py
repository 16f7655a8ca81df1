"""The errors a person at the terminal sees: one line of what was wrong and what to do, and an exit code each."""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager


def printable(text: str | os.PathLike[str], keep: str = "") -> str:
    """A name, label or message that is safe to show: what is not printable in it is written as escapes.

    Line breaks, bytes that are not text (surrogates), terminal control sequences and characters that change the
    direction of writing are not printable. Data files keep what was there.

    Args:
        text: from a file or a file system.
        keep: characters that stay as they are, such as line breaks in a message of several lines.

    Example:
        >>> printable("two\\nlines/\\x1b[2J\\udcff.wav")
        'two\\\\nlines/\\\\x1b[2J\\\\udcff.wav'
    """
    return "".join(c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in os.fspath(text))


class AudiostrideError(Exception):
    """Base of all errors that audiostride raises on purpose. `exit_code` is the CLI's exit status."""

    exit_code = 1


class TrainingError(AudiostrideError):
    """Training cannot go on: a non-finite loss, a full disk."""

    exit_code = 1


class WriteError(AudiostrideError, OSError):
    """A file cannot be written: the disk is full, a quota is reached, the folder is read-only."""

    exit_code = 1


class ResourceError(AudiostrideError):
    """Memory ran out, here or on the GPU, or a process that decodes data died."""

    exit_code = 1


class Interrupted(AudiostrideError):
    """A signal stopped the training after a checkpoint was saved; the exit code is 128 + its number."""

    def __init__(self, message: str, signal_number: int):
        super().__init__(message)
        self.exit_code = 128 + signal_number


class UsageError(AudiostrideError):
    """A command was called with arguments that do not fit."""

    exit_code = 2


class RecipeError(AudiostrideError):
    """A recipe has an unknown key, a wrong type, a value out of range or no such file."""

    exit_code = 3


class DataWarning(UserWarning):
    """Something about data that a person should know, though it can be used."""


class DataError(AudiostrideError):
    """Audio or its labels cannot be used; the message names the file."""

    exit_code = 4


class ModelFileError(AudiostrideError):
    """A saved model is missing, damaged or of another format."""

    exit_code = 5


class PartialError(AudiostrideError):
    """A batch went through, but some of its inputs could not be used."""

    exit_code = 6


class ExportError(AudiostrideError):
    """An exported model does not compute what the model computes."""

    exit_code = 7


def resource_error(error: BaseException) -> ResourceError | None:
    """What torch, numpy or multiprocessing raised because memory ran out or a worker died, said plainly; else None.

    Example:
        >>> str(resource_error(MemoryError()))
        'memory ran out; lower the batch size or the number of workers, or close other programs'
        >>> resource_error(RuntimeError("shapes do not match")) is None
        True
    """
    text = " ".join(str(error).split())
    worker = re.search(r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\) (is killed by signal: [\w ]+|exited)", text)
    if worker:
        pid, end = worker.group(1), worker.group(2).replace("is killed", "was killed")
        likely = "its shared memory (/dev/shm) is full" if "Bus error" in text else "the machine ran out of memory"
        return ResourceError(
            f"a process that decodes data (pid {pid}) {end}; most likely {likely}: lower train.workers (0: none) "
            "or train.batch_size"
        )
    asked = re.search(r"(?:tried to allocate|Unable to allocate) ([\d.]+ \w+)", text)
    where = "GPU memory" if "CUDA" in text else "memory"
    if not isinstance(error, MemoryError) and not re.search(r"can't allocate memory|out of memory", text):
        return None
    wanted = f" when {asked.group(1)} more were requested" if asked else ""
    return ResourceError(
        f"{where} ran out{wanted}; lower the batch size or the number of workers, or close other programs"
    )


@contextmanager
def resources_named(advice: Callable[[], str] = str) -> Iterator[None]:
    """Turn what is raised in the block because memory ran out or a worker died into a ResourceError.

    Args:
        advice: what to add to the message, asked for when it is needed.

    Raises:
        ResourceError: in place of such an error; any other passes.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        named = resource_error(error)
        if named is None:
            raise
        raise ResourceError(f"{named}{advice()}") from error
    except ResourceError as error:  # of a worker, which handed it back
        raise ResourceError(f"{error}{advice()}") from error
