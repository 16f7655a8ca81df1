"""From label columns to class names and numbers."""

import ast
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from ..errors import DataError, DataWarning
from .clips import Clips, class_names
from .table import plain_label
from .text_column import Texts, class_numbers

SEPARATOR = "|"
"""Stands between the labels of a clip in a multilabel column, once `one_column` has read it."""

UNKNOWN = "?"
"""In a multilabel column: which classes the clip has is not known; before a class: whether it has that one is not."""

YES, NO = frozenset(("1", "1.0", "true", "yes", "y", "x")), frozenset(("0", "0.0", "false", "no", "n"))
"""What a column that stands for one class may hold, in any case; `UNKNOWN`, -1, nan or nothing is not known."""

_NOT_KNOWN = frozenset(("", UNKNOWN, "-1", "nan", "na", "none"))


def one_column(
    clips: Clips, column: str, kind: str, separator: str = SEPARATOR, columns: Sequence[str] | None = None
) -> Clips:
    """The clips with the labels of a task in one column; several labels of a clip are joined by `SEPARATOR`.

    Warns where the column of a multiclass task seems to hold several labels a clip.

    Args:
        clips: the clips.
        column: with the labels, or the one to make of `columns`.
        kind: of the task; only "multilabel" has several labels a clip.
        separator: between labels in the column; lists as Python and JSON write them are read, too.
        columns: one for each class, with `YES`, `NO` or unknown.

    Raises:
        DataError: if there is no such column, or it holds something else.

    Example:
        >>> clips = Clips(["a", "b"], {"dog": ["1", "0"], "cat": ["1", "?"]}, ["", ""])
        >>> one_column(clips, "label", "multilabel", columns=["dog", "cat"]).columns["label"]
        ['dog|cat', '?cat']
    """
    if columns is not None:
        values = _from_columns(clips, columns, kind)
    else:
        given = clips.column(column)
        values = given if isinstance(given, Texts) else Texts(given)
        if kind == "multilabel":
            values = values.mapped(lambda value: SEPARATOR.join(labels_of(value, separator)))
        elif found := find_separator(values.distinct()):
            example = next(value for value in sorted(values.distinct()) if len(labels_of(value, found)) > 1)
            what = (
                f"column {column!r}: {example!r} looks like several labels, and is one class of a {kind} task; if it is"
            )
            how = " several, set kind: multilabel" + ("" if found == SEPARATOR else f" and label_separator: {found!r}")
            warnings.warn(what + how, DataWarning, stacklevel=2)
        if values == given:
            return clips
    return replace(clips, columns={**clips.columns, column: values})


def _from_columns(clips: Clips, columns: Sequence[str], kind: str) -> Texts:
    found: list[list[str]] = [[] for _ in range(len(clips))]
    for name in columns:
        cells = [cell.strip().lower() for cell in clips.column(name)]
        there = set(cells)
        if strange := there - YES - NO - _NOT_KNOWN:
            index = next(i for i, cell in enumerate(cells) if cell in strange)
            raise DataError(f"{clips.title(index)}: the column {name!r} holds {cells[index]!r}, not 0, 1 or ?")
        if not there & YES:
            raise DataError(f"the column {name!r} has no clip with a 1; leave it out of label_columns")
        if "" in there and not there & NO:
            raise DataError(f"the column {name!r} has empty cells, which mean not known, and no 0; write 0 for no")
        for labels, cell in zip(found, cells, strict=True):
            labels += [name] if cell in YES else [] if cell in NO else [UNKNOWN + name]
    for index, labels in enumerate(found):
        if kind != "multilabel" and (len(labels) != 1 or labels[0].startswith(UNKNOWN)):
            raise DataError(
                f"{clips.title(index)}: has {len(labels)} classes in the columns {', '.join(columns)}, and a {kind} "
                "task needs one; is the kind multilabel?"
            )
    return Texts(map(SEPARATOR.join, found))


def labels_of(value: str, separator: str = SEPARATOR) -> list[str]:
    """The labels in a cell, also where it is a list as Python and JSON write it.

    Example:
        >>> labels_of("wren | robin"), labels_of("['wren', 'robin']"), labels_of("")
        (['wren', 'robin'], ['wren', 'robin'], [])
    """
    if value[:1] in ("[", "(", "{") and value[-1:] in ("]", ")", "}"):
        try:
            listed = ast.literal_eval(value)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            listed = value[1:-1].split(separator if separator != SEPARATOR else ",")
        parts = [str(part) for part in (listed if isinstance(listed, list | tuple | set) else [value])]
    else:
        parts = value.split(separator)
    return [label for part in parts if (label := plain_label(part))]


def find_separator(values: Iterable[str]) -> str | None:
    """What stands between labels where a column seems to hold several a clip, `SEPARATOR` for lists too; else None.

    All but `SEPARATOR` and ";" may be part of a name ("car, passing"): they count if most parts are labels alone, too.

    Example:
        >>> find_separator(["dog", "cat", "dog;cat"]), find_separator(["dog bark", "car horn"])
        (';', None)
    """
    distinct = {plain_label(value) for value in values} - {""}
    listed = [value for value in distinct if value[0] + value[-1] in ("[]", "()", "{}")]
    if len(listed) > len(distinct) / 2:
        return SEPARATOR
    for separator in (SEPARATOR, ";", ",", "+", "/", "#", "&", ":", "\n", " "):
        split = {value: labels_of(value, separator) for value in distinct if separator in value}
        several = {part for parts in split.values() if len(parts) > 1 for part in parts}
        shared = Counter(part for value in distinct for part in set(split.get(value, [value])))
        alone = [part for part in several if part in distinct]
        common = [part for part in several if shared[part] > 1]
        certain = separator in (SEPARATOR, ";")
        enough = len(alone) > len(several) / 2 or (separator == "," and len(common) > len(several) / 2)
        if several and (certain or enough):
            return separator
    return None


def task_labels(clips: Clips, column: str, kind: str) -> list[str]:
    """The classes of a task, sorted. Warns of two that differ in case only.

    Raises:
        DataError: if there is no such column, or it has less than two classes (one, for "multilabel").

    Example:
        >>> task_labels(Clips(["a", "b"], {"species": ["wren|robin", "wren"]}, ["", ""]), "species", "multilabel")
        ['robin', 'wren']
    """
    values = clips.column(column)
    distinct: Iterable[str] = values.distinct() if isinstance(values, Texts) else set(values)
    if kind == "multilabel":
        distinct = {label for value in distinct for label in labels_of(value) if label[0] != UNKNOWN}
    labels = class_names(label for label in distinct if label)
    if not labels:
        raise DataError(f"the label column {column!r} is empty")
    if len(labels) == 1 and kind != "multilabel":
        raise DataError(
            f"all clips are of one class, {labels[0]!r} in the column {column!r}; a classifier needs two: add clips of "
            "others (such as background), or name another column"
        )
    for several in same_but_for_case(labels):
        what = f"column {column!r}: {' and '.join(map(repr, several))} differ in case only, and are different classes"
        warnings.warn(what, DataWarning, stacklevel=2)
    return labels


def same_but_for_case(labels: Iterable[str]) -> list[list[str]]:
    """Labels that differ in upper and lower case only, a list of those that are alike.

    Example:
        >>> same_but_for_case(["dog", "Dog", "cat"])
        [['Dog', 'dog']]
    """
    alike = defaultdict(list)
    for label in sorted(labels):
        alike[label.casefold()].append(label)
    return [several for several in alike.values() if len(several) > 1]


def unlabelled(clips: Clips, column: str) -> np.ndarray:
    """Numbers of the clips that have nothing in a column."""
    return np.flatnonzero(class_numbers(clips.column(column), [""]) == 0)


def label_numbers(clips: Clips, column: str, labels: Sequence[str], kind: str) -> np.ndarray:
    """The truth of a task as numbers, see `LabelledClips.labels`.

    Raises:
        DataError: names the clips that have no label, or the one whose label is not among `labels`.

    Example:
        >>> clips = Clips(["a", "b", "c"], {"species": ["wren|robin", "", "?wren"]}, ["", "", ""])
        >>> label_numbers(clips, "species", ["robin", "wren"], "multilabel").tolist()
        [[1.0, 1.0], [0.0, 0.0], [0.0, nan]]
    """
    values = clips.column(column)
    if kind != "multilabel":
        numbers = class_numbers(values, labels)
        if len(missing := unlabelled(clips, column)):
            raise no_label(clips, missing, column)
        for index in np.flatnonzero(numbers < 0)[:1]:
            raise _unknown(clips, int(index), values[index], labels)
        return numbers
    position = {label: i for i, label in enumerate(labels)}
    truth = np.zeros((len(clips), len(labels)), np.float32)
    for index, value in enumerate(values):
        for label in labels_of(value):
            if label in position:
                truth[index, position[label]] = 1
            elif label == UNKNOWN:
                truth[index] = np.nan
            elif label[0] == UNKNOWN and label[1:] in position:
                truth[index, position[label[1:]]] = np.nan
            else:
                raise _unknown(clips, index, label, labels)
    return truth


def no_label(
    clips: Clips, missing: Sequence[int] | np.ndarray, column: str, key: str = "on_missing_label"
) -> DataError:
    """The error that counts and names clips without a label.

    Args:
        clips: the clips.
        missing: numbers of those without.
        column: where the label should be.
        key: what the reader sets to "skip".
    """
    shown = ", ".join(clips.title(int(i)) for i in missing[:10]) + (", ..." if len(missing) > 10 else "")
    return DataError(
        f"{len(missing)} of {len(clips)} clips: no label in the column {column!r}: {shown}. "
        f"Label them, or set {key}=skip to leave them out."
    )


def _unknown(clips: Clips, index: int, value: str, labels: Sequence[str]) -> DataError:
    return DataError(f"{clips.title(index)}: the label {value!r} is not one the model knows: {', '.join(labels[:20])}")
