"""Data sets on the Hugging Face hub, or a local copy of one: parquet with an audio column.

`datasets` finds the parquet files and either downloads and memory-maps them, or they are streamed: the
label columns are read first, and the audio column row group by row group as it is needed. The audio is
decoded by us.
"""

import io
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError
from ..files import expand_user
from .clips import PER_CLIP, EncodedClips, Progress
from .streaming import Blocks, StreamedClips
from .table import TableBuilder, label_text, split_names
from .text_column import Texts


@dataclass
class HubClips(EncodedClips):
    """Clips in the memory-mapped tables of `datasets`.

    Attributes:
        tables: a `datasets.Dataset` for each split, with the audio column only.
        rows: number of the table and row in it of each clip, int64 of shape ``(n_clips, 2)``.
    """

    tables: list[Any] = field(default_factory=list)
    rows: np.ndarray = field(default_factory=lambda: np.zeros((0, 2), np.int64), metadata=PER_CLIP)

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


def read_hub(
    path: str | os.PathLike[str],
    config: str | None = None,
    revision: str | None = None,
    audio: str = "audio",
    streaming: bool = False,
    progress: Progress | None = None,
    key: str = "data",
) -> HubClips | StreamedClips:
    """Read a data set of the hub, or a local tree of parquet files; no audio is decoded.

    Every column but the audio is a label column; class numbers become their names.

    Args:
        path: `OWNER/NAME` on the hub (or a mirror, `HF_ENDPOINT`), or a local folder.
        config: the data set's configuration, where it has several.
        revision: branch, tag or commit.
        audio: name of the audio column.
        streaming: leave the data set where it is and fetch its audio row group by row group.
        progress: called after each parquet file that is looked into, where it is streamed.
        key: what the reader of an error sets `.path` of.

    Returns:
        All splits; "train", "validation" (also "val", "valid") and "test" keep their names, a clip
        of another split gets that split's own name, which a recipe's `splits` can map.

    Raises:
        DataError: if there is no such data set, it has no such column, or the hub cannot be reached.
    """
    import datasets

    local = expand_user(path)
    is_local = local.is_dir()
    if not is_local:
        _check_reachable(str(path), revision, key)
    datasets.disable_progress_bars()
    name = str(local if is_local else path)
    try:
        if streaming:
            return _stream(name, config, revision, audio, progress)
        loaded = datasets.load_dataset(name, config, revision=revision)
    except DataError:
        raise
    except Exception as error:  # datasets raises dozens of kinds, builtin ones too
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DataError(f"{path}: cannot be read as a data set ({reason})") from error
    table, tables = _HubTable(), list[Any]()
    places: list[tuple[int, int]] = []
    for split, part in loaded.items():
        _check_audio(str(path), audio, part.features)
        part = part.cast_column(audio, datasets.Audio(decode=False))
        files = part.data.column(audio).combine_chunks().field("path").to_pylist() if len(part) else []
        columns = {name: part.data.column(name) for name in _label_columns(part.features)}
        places += [(len(tables), row) for row in range(len(files))]
        table.add_rows(split, files, columns, part.features)
        tables.append(part.select_columns([audio]))
    if not places:
        raise DataError(f"{path}: holds no rows")
    return HubClips(*table.parts(), tables=tables, rows=np.array(places, np.int64))


class _HubTable(TableBuilder):
    """Its clips' names say their split and their file, or which row of the split they are."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes = Counter[str]()

    def add_rows(self, split: str, files: Sequence[str | None], columns: Mapping[str, Any], features: Any) -> None:
        """Add clips of one split: the names of their files, and arrow columns with their features."""
        first = self.sizes[split]
        self.sizes[split] += len(files)
        self.extend(
            (f"{split}/{os.path.basename(file) if file else first + i}" for i, file in enumerate(files)),
            (str(split) for _ in files),  # `datasets` has a kind of string of its own
            {name: _as_text(column, features[name]) for name, column in columns.items()},
        )

    def parts(self) -> tuple[Texts, dict[str, Sequence[str]], Texts]:
        """As any table's, with a number after repeated names: parquet keeps no folders, which distinguished them."""
        _, columns, splits = super().parts()
        known = split_names(map(str, self.sizes))
        return self._unique_names(), columns, splits.mapped(lambda split: known.get(split, split))

    def _unique_names(self) -> Texts:
        hashes = np.fromiter(map(hash, self.names), np.int64, len(self.names))
        values, counts = np.unique(hashes, return_counts=True)
        if len(values) == len(hashes):
            return self.names
        repeated, seen = set(values[counts > 1].tolist()), Counter[str]()
        unique = Texts()
        for name, number in zip(self.names, hashes.tolist(), strict=True):
            if number in repeated:
                seen[name] += 1
            unique.append(f"{name} ({seen[name]})" if seen[name] > 1 else name)
        return unique


class _RowGroups:
    """Fetches the audio of whole row groups: a file and a number in it for each block."""

    def __init__(self, column: str) -> None:
        self.column, self.groups, self.metadata = column, list[tuple[str, int]](), dict[str, Any]()

    def __call__(self, block: int) -> list[bytes]:
        file, number = self.groups[block]
        try:
            with _opened(file) as source:
                parquet = _parquet(source, self.metadata[file])
                rows = parquet.read_row_group(number, columns=[f"{self.column}.bytes"], use_threads=False)
        except Exception as error:  # file systems, hub clients and arrow each have their own kinds
            raise DataError(f"{file}: cannot be streamed ({error})") from error
        return [content or b"" for content in rows.column(0).combine_chunks().field("bytes").to_pylist()]


def _stream(
    path: str, config: str | None, revision: str | None, audio: str, progress: Progress | None
) -> StreamedClips:
    import datasets

    builder = datasets.load_dataset_builder(path, config, revision=revision)
    found = [(split, str(file)) for split, files in (builder.config.data_files or {}).items() for file in files]
    other = next((file for _, file in found if not file.endswith(".parquet")), None)
    if other or not found:
        raise DataError(f"{path}: only parquet files can be streamed{f', not {other}' if other else ''}")

    def look(file: str) -> tuple[Any, Any, Any]:
        with _opened(file) as source:
            parquet = _parquet(source)
            features = builder.info.features or datasets.Features.from_arrow_schema(parquet.schema_arrow)
            _check_audio(path, audio, features)
            rows = parquet.read(columns=[f"{audio}.path", *_label_columns(features)], use_threads=False)
            return parquet.metadata, rows, features

    fetch, table, versions = _RowGroups(audio), _HubTable(), list[str]()
    places: list[tuple[int, int]] = []
    with ThreadPoolExecutor(8) as pool:
        looks = pool.map(look, [file for _, file in found])
        for done, ((split, file), (metadata, rows, features)) in enumerate(zip(found, looks, strict=True), 1):
            fetch.metadata[file] = metadata
            for number in range(metadata.num_row_groups):
                places += [(len(versions), row) for row in range(metadata.row_group(number).num_rows)]
                versions.append(f"{file} {_changed(file)} {number}")
                fetch.groups.append((file, number))
            names = rows.column(audio).combine_chunks().field("path").to_pylist() if len(rows) else []
            columns = {name: rows.column(name) for name in _label_columns(features)}
            table.add_rows(split, names, columns, features)
            if progress:
                progress("reading labels", done, len(found))
    if not places:
        raise DataError(f"{path}: holds no rows")
    spots = np.array(places, np.int64)
    return StreamedClips(*table.parts(), blocks=Blocks(fetch), places=spots, versions=versions)


def _opened(file: str) -> Any:
    """A parquet file on the hub (`hf://...`) or on a disk."""
    import fsspec

    return fsspec.open(file, "rb")


def _parquet(source: Any, metadata: Any = None) -> Any:
    import pyarrow.parquet

    return pyarrow.parquet.ParquetFile(source, metadata=metadata, pre_buffer=True)


def _changed(file: str) -> str:
    """When a local file was changed; the address of one on the hub names its commit."""
    if "://" in file:
        return ""
    found = os.stat(file)
    return f"{found.st_size} {found.st_mtime_ns}"


def _check_audio(path: str, audio: str, features: Any) -> None:
    import datasets

    if audio not in features:
        raise DataError(f"{path}: has no audio column {audio!r} among {', '.join(features)}")
    if not isinstance(features[audio], datasets.Audio):
        raise DataError(f"{path}: the column {audio!r} holds {features[audio]}, not audio")


def _label_columns(features: Any) -> list[str]:
    """Columns that hold labels: text, numbers or classes, not tensors or further audio."""
    import datasets

    single = {name: getattr(feature, "feature", feature) for name, feature in features.items()}
    return [name for name, kind in single.items() if isinstance(kind, datasets.ClassLabel | datasets.Value)]


def _as_text(column: Any, feature: Any) -> Iterable[str]:
    """An arrow column of labels as text."""
    import datasets

    single = getattr(feature, "feature", feature)
    if isinstance(single, datasets.ClassLabel):
        return (label_text(_class_names(value, single)) for value in column.to_pylist())
    return map(label_text, column.to_pylist())


def _class_names(value: Any, feature: Any) -> Any:
    if value is None or value == -1:
        return None
    return [_class_names(part, feature) for part in value] if isinstance(value, list) else feature.int2str(value)


def _check_reachable(name: str, revision: str | None, key: str) -> None:
    """One question to the hub, so that a missing network or name is said at once, without retries."""
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    if constants.is_offline_mode():  # the user says so; what was fetched before can be read
        return
    try:
        HfApi().dataset_info(name, revision=revision, timeout=10)
    except (HfHubHTTPError, HFValidationError) as error:
        reason = str(error).strip().splitlines()[0]
        raise DataError(
            f"{name}: is neither a local folder nor a data set on {constants.ENDPOINT} ({reason})"
        ) from error
    except Exception as error:  # the client's own kinds of connection errors differ between its versions
        raise DataError(
            f"{name}: is not a local folder, and {constants.ENDPOINT} cannot be reached ({error}).\n"
            "Fetch the data set on a machine with a network (`hf download --repo-type dataset "
            f"{name} --local-dir DIR`) and give its folder: {key}.path=DIR"
        ) from error
