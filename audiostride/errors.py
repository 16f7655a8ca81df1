"""The errors a person at the terminal sees: one line of what was wrong and what to do, and an exit code each."""


class AudiostrideError(Exception):
    """Base of all errors that audiostride raises on purpose. `exit_code` is the CLI's exit status."""

    exit_code = 1


class TrainingError(AudiostrideError):
    """Training cannot go on: a non-finite loss, a full disk."""

    exit_code = 1


class WriteError(AudiostrideError, OSError):
    """A file cannot be written: the disk is full, a quota is reached, the folder is read-only."""

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
