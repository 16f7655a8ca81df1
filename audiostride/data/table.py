"""`TableBuilder`: names, splits and label columns of clips in the making, and what splits and labels are called."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .text_column import Texts

SPLIT_FOLDERS = {
    "train": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "test": "test",
}


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

    def parts(self) -> tuple[Texts, dict[str, Sequence[str]], Texts]:
        """Names, columns and splits, as a `Clips` takes them."""
        return self.names, dict(self.columns), self.splits

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


def label_text(value: Any) -> str:
    """A label as the text it has in a table; several labels are joined by "|".

    Example:
        >>> label_text(60), label_text(None), label_text(["wren", "robin"]), label_text(True)
        ('60', '', 'wren|robin', 'true')
    """
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return "|".join(label_text(part) for part in value)
    return str(value)
