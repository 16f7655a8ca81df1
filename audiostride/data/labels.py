"""From label columns to class names and numbers."""

from collections.abc import Iterable, Sequence

import numpy as np

from ..errors import DataError
from .clips import Clips, class_names
from .text_column import Texts, class_numbers

SEPARATOR = "|"
"""Stands between the labels of a clip in a multilabel column."""


def task_labels(clips: Clips, column: str, kind: str) -> list[str]:
    """The classes of a task, sorted.

    Raises:
        DataError: if there is no such column.

    Example:
        >>> task_labels(Clips(["a", "b"], {"species": ["wren|robin", "wren"]}, ["", ""]), "species", "multilabel")
        ['robin', 'wren']
    """
    values = clips.column(column)
    distinct: Iterable[str] = values.distinct() if isinstance(values, Texts) else set(values)
    if kind == "multilabel":
        distinct = {label for value in distinct for label in _several(value)}
    labels = class_names(label for label in distinct if label)
    if not labels:
        raise DataError(f"the label column {column!r} is empty")
    return labels


def label_numbers(clips: Clips, column: str, labels: Sequence[str], kind: str) -> np.ndarray:
    """The truth of a task as numbers, see `LabelledClips.labels`.

    Raises:
        DataError: names the clip that has no label, or one that is not among `labels`.

    Example:
        >>> clips = Clips(["a", "b"], {"species": ["wren|robin", ""]}, ["", ""])
        >>> label_numbers(clips, "species", ["robin", "wren"], "multilabel").tolist()
        [[1.0, 1.0], [0.0, 0.0]]
    """
    values = clips.column(column)
    if kind != "multilabel":
        numbers = class_numbers(values, labels)
        for index in np.flatnonzero(numbers < 0)[:1]:
            raise _unknown(clips, int(index), column, values[index], labels)
        return numbers
    position = {label: i for i, label in enumerate(labels)}
    truth = np.zeros((len(clips), len(labels)), np.float32)
    for index, value in enumerate(values):
        for label in _several(value):
            if label not in position:
                raise _unknown(clips, index, column, label, labels)
            truth[index, position[label]] = 1
    return truth


def _several(value: str) -> list[str]:
    return [label.strip() for label in value.split(SEPARATOR) if label.strip()]


def _unknown(clips: Clips, index: int, column: str, value: str, labels: Sequence[str]) -> DataError:
    if value == "":
        return DataError(f"{clips.title(index)}: has no label in the column {column!r}")
    return DataError(f"{clips.title(index)}: the label {value!r} is not one the model knows: {', '.join(labels[:20])}")
