"""Official data sets in the layouts they are published in: download, unpack, read.

Each layout is one function that reads an unpacked folder; `LAYOUTS` names them. Splits are the
official ones.
"""

import csv
import json
import os
import posixpath
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from ..errors import DataError
from ..files import exclusive, expand_user, file_status
from .clips import FileClips, Progress
from .decoding import EXTENSIONS, is_audio
from .download import extract, fetch, parse_link
from .folder import read_folder
from .table import TableBuilder, label_text

_STATE = ".audiostride"  # holds downloads and a stamp for each archive that is unpacked


def read_archives(
    layout: str,
    path: str | os.PathLike[str],
    archives: Sequence[str] = (),
    progress: Progress | None = None,
    key: str = "data",
) -> FileClips:
    """Read an official data set; download and unpack it first where its folder does not exist yet.

    Args:
        layout: a key of `LAYOUTS`.
        path: the unpacked data set. A folder that is there and was not made by this function is
            read as it is.
        archives: where to get it: URLs or local files, each with an optional `#sha256=HEX` or
            `#md5=HEX`. Zip and tar archives are unpacked, other files are copied.
        progress: called while downloading and unpacking.
        key: what the reader of an error sets `.path` or `.archives` of.

    Raises:
        DataError: if it is missing and cannot be downloaded, or its layout is another one.
    """
    folder = expand_user(path)
    if is_unpacked(folder, archives):
        return LAYOUTS[layout](folder)
    if not archives:
        what = "is not complete" if folder.exists() else "no such folder"
        raise DataError(f"{folder}: {what}, and {key}.archives gives no archives to make it from")
    state = folder / _STATE
    state.mkdir(parents=True, exist_ok=True)  # first of all: a half unpacked folder must not look like a user's
    with exclusive(state / "lock"):
        for text in archives:
            link = parse_link(text)
            stamp = _stamp(folder, text)
            if stamp.exists():
                continue
            try:
                archive = fetch(link, state, progress)
            except DataError as error:
                raise DataError(
                    f"{error}\nThe data can be fetched by hand on any machine: unpack it and give its folder "
                    f"({key}.path=DIR), or give the archives' own paths ({key}.archives=[FILE, ...])."
                ) from error
            if link.name.lower().endswith((".zip", ".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz")):
                try:
                    extract(archive, folder, progress)
                except DataError as error:
                    if archive.parent != state:
                        raise
                    archive.unlink()
                    raise DataError(
                        f"{error}\nThe download was removed; run it again, or give another address."
                    ) from error
            else:
                shutil.copyfile(archive, folder / link.name)
            stamp.touch()
    return LAYOUTS[layout](folder)


def is_unpacked(folder: Path, archives: Sequence[str]) -> bool:
    """Whether a data set is all there: unpacked by `read_archives`, or a folder that it did not make."""
    if not (folder / _STATE).exists():
        return folder.exists()
    return bool(archives) and all(_stamp(folder, text).exists() for text in archives)


def _stamp(folder: Path, archive: str) -> Path:
    return folder / _STATE / f"{parse_link(archive).name}.unpacked"


def read_speech_commands(folder: Path) -> FileClips:
    """Speech Commands (Warden 2018): WORD/SPEAKER_nohash_N.wav, with the official lists as splits.

    Columns: label (the word), speaker.
    """
    folder = _find(folder, "testing_list.txt").parent
    lists = {split: folder / f"{name}_list.txt" for split, name in (("validation", "validation"), ("test", "testing"))}
    split_of = {
        _plain_path(line): split for split, path in lists.items() for line in _text(path).splitlines() if line.strip()
    }
    table = TableBuilder()
    for word in sorted(entry for entry in folder.iterdir() if entry.is_dir() and entry.name[0] not in "_."):
        for file in sorted(os.listdir(word)):
            if Path(file).suffix.lower() in EXTENSIONS:
                name = f"{word.name}/{file}"
                speaker = file.partition("_nohash_")[0]
                table.add(name, split_of.get(_plain_path(name), "train"), {"label": word.name, "speaker": speaker})
    for split, path in lists.items():
        _check_list(path, split_of, split, table)
    return _clips(table, folder)


def read_nsynth(folder: Path) -> FileClips:
    """NSynth (Engel et al. 2017), json+wav: nsynth-{train,valid,test}/examples.json and audio/.

    Columns: family (11 instrument families), pitch (MIDI note), instrument, velocity, source.
    """
    table = TableBuilder()
    for part, split in (("train", "train"), ("valid", "validation"), ("test", "test")):
        examples = folder / f"nsynth-{part}" / "examples.json"
        if not examples.exists():
            continue
        try:
            notes = json.loads(_text(examples))
            for key in sorted(notes):
                note = notes[key]
                labels = {
                    "family": note["instrument_family_str"],
                    "pitch": label_text(note["pitch"]),
                    "instrument": note["instrument_str"],
                    "velocity": label_text(note["velocity"]),
                    "source": note["instrument_source_str"],
                }
                table.add(f"nsynth-{part}/audio/{key}.wav", split, labels)
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise DataError(f"{examples}: is not NSynth's table of notes ({error})") from error
        except KeyError as error:
            raise DataError(f"{examples}: a note has no {error}") from error
    return _clips(table, folder, "nsynth-train/examples.json")


def read_tut_urban_2018(folder: Path) -> FileClips:
    """TUT Urban Acoustic Scenes 2018, development set: meta.csv, evaluation_setup/fold1_*.txt, audio/.

    Columns: label (the scene), location (city and place; the group to split by), source_label.
    The official fold trains on some locations of each city and tests on others.
    """
    folder = _find(folder, "meta.csv").parent
    return _read_scenes(folder, folder / "evaluation_setup" / "fold1_evaluate.txt", None)


def read_tau_urban(folder: Path) -> FileClips:
    """TAU Urban Acoustic Scenes 2019, 2020 Mobile and 2022 Mobile, development sets, as `read_tut_urban_2018`.

    The lists are evaluation_setup/fold1_train.csv and fold1_evaluate.csv (or fold1_test.csv); clips in neither are left
    out. Column source_label is the device.
    """
    setup = _find(folder, "meta.csv").parent / "evaluation_setup"
    test = next(filter(Path.exists, (setup / f"fold1_{name}.csv" for name in ("evaluate", "test"))), None)
    if test is None:
        raise DataError(f"{setup}: is not laid out as expected: there is no fold1_evaluate.csv in it; see docs/data.md")
    return _read_scenes(setup.parent, test, setup / "fold1_train.csv")


def _read_scenes(folder: Path, test: Path, train: Path | None) -> FileClips:
    """The clips of meta.csv; those that are not in the list of the test are for training, or in a list of their own."""
    split_of = {} if train is None else dict.fromkeys(_listed(train), "train")
    split_of |= dict.fromkeys(_listed(test), "test")
    table = TableBuilder()
    for row in _dicts(folder / "meta.csv", "\t", ("filename", "scene_label", "identifier")):
        labels = {
            "label": row["scene_label"],
            "location": row["identifier"],
            "source_label": row.get("source_label", ""),
        }
        split = split_of.get(_plain_path(row["filename"]), "train" if train is None else "")
        if split:
            table.add(row["filename"], split, labels)
    for split, path in (("test", test), ("train", train)):
        if path:
            _check_list(path, split_of, split, table)
    return _clips(table, folder)


def read_dcase_birds(folder: Path) -> FileClips:
    """DCASE 2018 bird detection: tables with itemid, datasetid, hasbird, and the recordings as ITEMID.wav.

    Any number of tables and of folders with recordings; no official split. Columns: label (bird or
    no_bird), dataset.
    """
    recordings = {file.stem: str(file.relative_to(folder)) for file in sorted(folder.rglob("*")) if is_audio(file)}
    table = TableBuilder()
    for listing in sorted(folder.rglob("*.csv")):
        for row in _dicts(listing, ",", ("itemid", "hasbird")):
            name = recordings.get(row["itemid"])
            if name is None:
                raise DataError(f"{listing}: there is no recording {row['itemid']}.wav below {folder}")
            if row["hasbird"] not in ("0", "1"):
                raise DataError(f"{listing}: hasbird of {row['itemid']} is {row['hasbird']!r}, not 0 or 1")
            label = "bird" if row["hasbird"] == "1" else "no_bird"
            table.add(name, "", {"label": label, "dataset": row.get("datasetid", "")})
    return _clips(table, folder, "a table with the columns itemid, datasetid, hasbird")


def read_esc50(folder: Path) -> FileClips:
    """ESC-50 (Piczak 2015): meta/esc50.csv and audio/. Columns: label, fold (1 to 5), recording, esc10.

    Which fold is for what is up to the recipe (`split_column: fold`).
    """
    folder = _find(folder, "esc50.csv").parent.parent
    table = TableBuilder()
    for row in _dicts(folder / "meta" / "esc50.csv", ",", ("filename", "fold", "category")):
        labels = {
            "label": row["category"],
            "fold": row["fold"],
            "recording": row.get("src_file", ""),
            "esc10": row.get("esc10", ""),
        }
        table.add(f"audio/{row['filename']}", "", labels)
    return _clips(table, folder)


LAYOUTS: dict[str, Callable[[Path], FileClips]] = {
    "speech_commands": read_speech_commands,
    "nsynth": read_nsynth,
    "tut_urban_2018": read_tut_urban_2018,
    "tau_urban": read_tau_urban,
    "dcase_birds": read_dcase_birds,
    "esc50": read_esc50,
    "folder": read_folder,
}


def _clips(table: TableBuilder, root: Path, wanted: str = "audio") -> FileClips:
    if not table.names:
        raise DataError(f"{root}: is not laid out as expected: it holds no {wanted}; see docs/data.md")
    return FileClips(*table.parts(), root=root)


def _plain_path(name: str) -> str:
    """A path in a list of files in the one form in which equal ones are equal: `.\\Yes\\a.WAV` is `yes/a.wav`."""
    return posixpath.normpath(name.strip().replace("\\", "/")).casefold()


def _check_list(path: Path, split_of: Mapping[str, str], split: str, table: TableBuilder) -> None:
    """Refuse a list of files none of which is in the data."""
    listed = [name for name, of in split_of.items() if of == split]
    if listed and split not in table.splits.distinct():
        raise DataError(
            f"{path}: none of its {len(listed):,} files is in the data, such as {listed[0]}; "
            "is it the list of this data set?"
        )


def _listed(path: Path) -> list[str]:
    """The files in the first column of a list, which may have a header."""
    names = [line.split("\t")[0] for line in _text(path).splitlines() if line.strip()]
    return [_plain_path(name) for name in names if name.strip() != "filename"]


def _find(folder: Path, name: str) -> Path:
    """The file of that name, in the folder or a little below: archives differ in their top folder."""
    for pattern in (name, f"*/{name}", f"*/*/{name}"):
        found = sorted(folder.glob(pattern))
        if found:
            return found[0]
    raise DataError(f"{folder}: is not laid out as expected: there is no {name} in it; see docs/data.md")


def _text(path: Path) -> str:
    try:
        file_status(path)
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not UTF-8 text ({error})") from error


def _dicts(path: Path, delimiter: str, needed: Sequence[str]) -> Iterator[dict[str, str]]:
    lines = _text(path).splitlines()
    table = csv.DictReader(lines, delimiter=delimiter)
    missing = [name for name in needed if name not in (table.fieldnames or [])]
    if missing:
        raise DataError(f"{path}: has no column {', '.join(missing)}, only {', '.join(table.fieldnames or [])}")
    try:
        for row in table:
            if None in row or None in row.values():
                raise DataError(f"{path}, line {table.line_num}: does not have {len(table.fieldnames or [])} columns")
            yield row
    except csv.Error as error:
        raise DataError(f"{path}: is not a table ({error})") from error
