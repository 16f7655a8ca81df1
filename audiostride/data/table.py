"""`TableBuilder`: names, splits and label columns of clips in the making; what splits, labels and times are called."""

import re
import unicodedata
import warnings
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..errors import DataWarning
from .text_column import Texts


class TableBuilder:
    """Columns that grow together; what a row does not have is "".

    Attributes:
        names, splits: of the clips so far.
        columns: label columns by name.

    Example:
        >>> table = TableBuilder()
        >>> table.add("a.wav", "train", {"label": "no"})
        >>> table.extend(["b.wav", "c.wav"], ["", ""], {"speaker": ["7", "8"]})
        >>> table.columns
        {'label': ['no', '', ''], 'speaker': ['', '7', '8']}
    """

    def __init__(self) -> None:
        self.names, self.splits = Texts(), Texts()
        self.columns: dict[str, Texts] = {}

    def add(self, name: str, split: str, labels: Mapping[str, str]) -> None:
        """Add one clip."""
        self.extend([name], [split], {column: [label] for column, label in labels.items()})

    def extend(self, names: Iterable[str], splits: Iterable[str], columns: Mapping[str, Iterable[str]]) -> None:
        """Add clips whose names, splits and columns have one length."""
        before = len(self.names)
        self.names.extend(names)
        self.splits.extend(splits)
        for column, values in columns.items():
            if column not in self.columns:
                self.columns[column] = Texts("" for _ in range(before))
            self.columns[column].extend(values)
        for filled in self.columns.values():
            filled.extend("" for _ in range(len(self.names) - len(filled)))

    def parts(self) -> tuple[Texts, dict[str, Sequence[str]], Texts]:
        """Names, columns and splits, as a `Clips` takes them; labels are `plain_label`s.

        Warns where that makes one label of two.
        """
        return self.names, {column: _plain(column, values) for column, values in self.columns.items()}, self.splits


def _plain(column: str, values: Texts) -> Texts:
    changed = values.mapped(plain_label)
    if changed is not values:
        spellings = defaultdict(set)
        for value in values.distinct():
            spellings[plain_label(value)].add(value)
        for label, several in spellings.items():
            if len(several) > 1 and label:
                shown = " and ".join(map(ascii, sorted(several)))
                what = f"column {column!r}: {shown} are one label, they differ in blanks or Unicode form only"
                warnings.warn(what, DataWarning, stacklevel=3)
    return changed


_NO_WIDTH = "\u200b\u200c\u200d\u2060\ufeff"


def plain_label(label: str) -> str:
    """A label in the one form in which equal labels are equal strings: without outer blanks, in Unicode's form C.

    Characters of no width, which copying from web pages brings along, count as blanks.

    Example:
        >>> plain_label(" e\\u0301te\\u0301 ") == "\\u00e9t\\u00e9"
        True
    """
    return label.strip() if label.isascii() else unicodedata.normalize("NFC", label).strip().strip(_NO_WIDTH).strip()


def label_text(value: Any) -> str:
    """A label as the text it has in a table; several labels are joined by "|", and an object is none.

    Example:
        >>> label_text(60), label_text(None), label_text(["wren", "robin"]), label_text(True), label_text({})
        ('60', '', 'wren|robin', 'true', '')
    """
    if isinstance(value, str):
        return value
    if value is None or isinstance(value, dict):
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return "|".join(label_text(part) for part in value)
    return str(value)


_SPLITS = {
    "train": re.compile("(train|training|trn)(set|data|split|files|clips|audio)?"),
    "validation": re.compile("(validation|validate|valid|val)(set|data|split|files|clips|audio)?"),
    "test": re.compile("(test|testing|tst)(set|data|split|files|clips|audio)?"),
    "dev": re.compile("(dev|devel|development)(set|data|split|files|clips|audio)?"),
    "eval": re.compile("(eval|evaluation)(set|data|split|files|clips|audio)?"),
}


def split_names(names: Iterable[str]) -> dict[str, str]:
    """What some folders or values stand for: "train", "validation" or "test"; one that is no split's name is missing.

    Case, blanks, hyphens and underscores do not matter. `dev` is for validation where something else is for training,
    else for training; `eval` is the test where nothing else is.

    Example:
        >>> split_names(["Training", "val", "TEST_SET", "dog"])
        {'Training': 'train', 'val': 'validation', 'TEST_SET': 'test'}
        >>> split_names(["dev", "eval"]), split_names(["train", "dev", "eval"])
        ({'dev': 'train', 'eval': 'test'}, {'train': 'train', 'dev': 'validation', 'eval': 'test'})
    """
    found = {}
    for name in names:
        word = key_of(name)
        meaning = next((split for split, pattern in _SPLITS.items() if pattern.fullmatch(word)), None)
        if meaning:
            found[name] = meaning
    there = set(found.values())
    dev = "validation" if "train" in there else "train"
    other = "validation" if "test" in there and not there & {"validation", "dev"} else "test"
    return {name: {"dev": dev, "eval": other}.get(split, split) for name, split in found.items()}


def key_of(name: str) -> str:
    """The letters and digits of a column's or folder's name, in lower case: by these it is recognised.

    Example:
        >>> key_of("Begin Time (s)"), key_of(" File_Name")
        ('begintimes', 'filename')
    """
    return re.sub(r"[\W_]", "", name).casefold()


def seconds(text: str) -> float:
    """A time as a number of seconds: `12.5`, `12,5`, `01:02.5` or `1:00:00`.

    Raises:
        ValueError: if it is none of these, negative or not finite.

    Example:
        >>> seconds("12,5"), seconds("01:02.5"), seconds("1:00:00")
        (12.5, 62.5, 3600.0)
    """
    value = 0.0
    parts = text.strip().replace(",", ".").split(":")
    for part in parts:
        value = 60 * value + float(part)
    if not 0 <= value < float("inf") or len(parts) > 3 or any(float(part) < 0 for part in parts):
        raise ValueError(f"{text!r} is not a time in seconds")
    return value
