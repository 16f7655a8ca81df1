"""Data sets on the Hugging Face hub, or a local copy of one: parquet with an audio column.

`datasets` finds, downloads and memory-maps the parquet files; the audio in them is decoded by us.
"""

import io
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError
from .clips import EncodedClips
from .folder import SPLIT_FOLDERS
from .manifest import label_text
from .texts import Texts


@dataclass
class HubClips(EncodedClips):
    """Clips in the memory-mapped tables of `datasets`.

    Attributes:
        tables: a `datasets.Dataset` for each split, with the audio column only.
        rows: number of the table and row in it of each clip, int64 of shape ``(n_clips, 2)``.
    """

    tables: list[Any] = field(default_factory=list)
    rows: np.ndarray = field(default_factory=lambda: np.zeros((0, 2), np.int64))

    def audio(self, index: int) -> io.BytesIO | Path:
        table, row = (int(value) for value in self.rows[index])
        (value,) = self.tables[table][row].values()
        if not value or (value["bytes"] is None and not value["path"]):
            raise DataError(f"{self.names[index]}: has no audio")
        if value["bytes"] is None:
            return Path(value["path"])
        content = io.BytesIO(value["bytes"])
        content.name = self.names[index]
        return content

    def state(self, index: int) -> str:
        table, row = (int(value) for value in self.rows[index])
        return f"{self.tables[table]._fingerprint} {row}"

    def select(self, indexes: Iterable[int]) -> "HubClips":
        rows = list(indexes)
        chosen = super().select(rows)
        assert isinstance(chosen, HubClips)
        chosen.rows = self.rows[rows]
        return chosen


def read_hub(
    path: str | os.PathLike[str], config: str | None = None, revision: str | None = None, audio: str = "audio"
) -> HubClips:
    """Read a data set of the hub, or a local tree of parquet files; no audio is decoded.

    Every column but the audio is a label column; class numbers become their names.

    Args:
        path: `OWNER/NAME` on the hub (or a mirror, `HF_ENDPOINT`), or a local folder.
        config: the data set's configuration, where it has several.
        revision: branch, tag or commit.
        audio: name of the audio column.

    Returns:
        All splits; "train", "validation" (also "val", "valid") and "test" keep their names, a clip
        of another split gets that split's own name, which a recipe's `splits` can map.

    Raises:
        DataError: if there is no such data set, it has no such column, or the hub cannot be reached.
    """
    import datasets

    local = Path(path).expanduser()
    is_local = local.is_dir()
    if not is_local:
        _check_reachable(str(path), revision)
    datasets.disable_progress_bars()
    try:
        loaded = datasets.load_dataset(str(local if is_local else path), config, revision=revision)
    except Exception as error:  # datasets raises dozens of kinds, builtin ones too
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DataError(f"{path}: cannot be read as a data set ({reason})") from error
    clips = HubClips(Texts(), {}, Texts())
    columns: dict[str, Texts] = {}
    places: list[tuple[int, int]] = []
    for split, table in loaded.items():
        if audio not in table.column_names:
            raise DataError(f"{path}: has no audio column {audio!r} among {', '.join(table.column_names)}")
        if not isinstance(table.features[audio], datasets.Audio):
            raise DataError(f"{path}: the column {audio!r} holds {table.features[audio]}, not audio")
        table = table.cast_column(audio, datasets.Audio(decode=False))
        paths = table.data.column(audio).combine_chunks().field("path").to_pylist() if len(table) else []
        names, splits = clips.names, clips.splits
        assert isinstance(names, Texts)
        assert isinstance(splits, Texts)
        names.extend(f"{split}/{os.path.basename(p) if p else i}" for i, p in enumerate(paths))
        splits.extend(SPLIT_FOLDERS.get(split, split) for _ in paths)
        places += [(len(clips.tables), row) for row in range(len(paths))]
        for column in [name for name in table.column_names if name != audio]:
            values = _label_column(table, column)
            if values is not None:
                filled = columns.setdefault(column, Texts("" for _ in range(len(names) - len(paths))))
                filled.extend(values)
        for values in columns.values():
            values.extend("" for _ in range(len(names) - len(values)))
        clips.tables.append(table.select_columns([audio]))
    if not places:
        raise DataError(f"{path}: holds no rows")
    clips.columns, clips.rows = dict(columns), np.array(places, np.int64)
    return clips


def _label_column(table: Any, column: str) -> Iterable[str] | None:
    """The column as text; None where it holds no labels (tensors, further audio)."""
    import datasets

    feature = table.features[column]
    single = getattr(feature, "feature", feature)
    if isinstance(single, datasets.ClassLabel):
        return (label_text(_class_names(value, single)) for value in table.data.column(column).to_pylist())
    if isinstance(single, datasets.Value):
        return map(label_text, table.data.column(column).to_pylist())
    return None


def _class_names(value: Any, feature: Any) -> Any:
    if value is None or value == -1:
        return None
    return [_class_names(part, feature) for part in value] if isinstance(value, list) else feature.int2str(value)


def _check_reachable(name: str, revision: str | None) -> None:
    """One question to the hub, so that a missing network or name is said at once, without retries."""
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    if constants.is_offline_mode():  # the user says so; what was fetched before can be read
        return
    try:
        HfApi().dataset_info(name, revision=revision, timeout=10)
    except (HfHubHTTPError, HFValidationError) as error:
        reason = str(error).strip().splitlines()[0]
        raise DataError(f"{name}: is no local folder and no data set of {constants.ENDPOINT} ({reason})") from error
    except Exception as error:  # the client's own kinds of connection errors differ between its versions
        raise DataError(
            f"{name}: is no local folder, and {constants.ENDPOINT} cannot be reached ({error}).\n"
            "Fetch the data set on a machine with a network (`hf download --repo-type dataset "
            f"{name} --local-dir DIR`) and give its folder: data.path=DIR"
        ) from error
