"""Folders, archives and official lists as people have them."""

import os
import zipfile
from pathlib import Path

import pytest

from audiostride.data import decoding, ffmpeg, folder
from audiostride.data.archives import read_archives
from audiostride.data.folder import read_folder
from audiostride.errors import DataError, DataWarning


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def seen(root: Path) -> dict[str, tuple[str, ...]]:
    clips = read_folder(root)
    return {n: (s, *c) for n, s, *c in zip(clips.names, clips.splits, *clips.columns.values(), strict=True)}


@pytest.mark.parametrize(
    ("folders", "splits"),
    [
        (("Train", "Test"), ("train", "test")),
        (("TRAINING", "VALIDATION", "TESTING"), ("train", "validation", "test")),
        (("dev", "eval"), ("train", "test")),
        (("train", "dev", "test"), ("train", "validation", "test")),
        (("train_set", "val-set"), ("train", "validation")),
    ],
)
def test_split_folders_in_any_usual_spelling(tmp_path: Path, folders, splits) -> None:
    touch(tmp_path, *(f"{folder}/{label}/a.wav" for folder in folders for label in ("cat", "dog")))
    wanted = {
        f"{f}/{label}/a.wav": (s, label) for f, s in zip(folders, splits, strict=True) for label in ("cat", "dog")
    }
    assert seen(tmp_path) == wanted


def test_splits_without_classes_are_an_error_and_a_class_may_be_called_train(tmp_path: Path) -> None:
    touch(tmp_path / "one", "Train/a.wav", "Test/b.wav")
    with pytest.raises(DataError, match="are called like splits, but hold no class sub-folders"):
        read_folder(tmp_path / "one")
    touch(tmp_path / "two", "train/a.wav", "bus/b.wav", "car/c.wav")
    assert {labels[1] for labels in seen(tmp_path / "two").values()} == {"train", "bus", "car"}
    touch(tmp_path / "three", "train/dog/a.wav", "test/dog/b.wav", "extra/c.wav")
    with pytest.warns(DataWarning, match="left out, as test, train are splits: extra"):
        assert len(read_folder(tmp_path / "three")) == 2


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.tsv", "metadata.jsonl"])
def test_metadata_above_the_splits(tmp_path: Path, name: str) -> None:
    touch(tmp_path, "train/x/1.wav", "train/y/2.wav", "test/x/3.wav")
    rows = [("train/x/1.wav", "dog"), ("./train/y/2.wav", "cat"), ("test/x/3.wav", "dog")]
    if name.endswith("jsonl"):
        text = "".join(f'{{"file_name": "{file}", "species": "{label}"}}\n' for file, label in rows)
    else:
        text = "".join(",".join(row) + "\n" for row in [("file_name", "species"), *rows])
        text = text.replace(",", "\t") if name.endswith("tsv") else text
    (tmp_path / name).write_text(text)
    clips = read_folder(tmp_path)
    assert list(clips.splits) == ["train", "train", "test"]
    assert clips.columns == {"species": ["dog", "cat", "dog"]}


def test_metadata_of_segments_gives_segments(tmp_path: Path) -> None:
    touch(tmp_path, "a.wav")
    (tmp_path / "metadata.csv").write_text("file_name,start,end,label\na.wav,1,2,x\na.wav,3,4.5,y\n")
    clips = read_folder(tmp_path)
    assert [clips.title(i) for i in range(2)] == ["a.wav#t=1,2", "a.wav#t=3,4.5"]


def test_a_zip_with_one_top_folder_and_what_macos_adds(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "s.zip", "w") as archive:
        for name in ("my_sounds/dog/a.wav", "my_sounds/cat/b.wav", "__MACOSX/my_sounds/dog/._a.wav"):
            archive.writestr(name, b"RIFF")
        archive.writestr("__MACOSX/my_sounds/c.wav", b"RIFF")
    clips = read_archives("folder", tmp_path / "out", [str(tmp_path / "s.zip")])
    assert dict(zip(clips.names, clips.columns["label"], strict=True)) == {
        "my_sounds/cat/b.wav": "cat",
        "my_sounds/dog/a.wav": "dog",
    }
    touch(tmp_path / "deep", "x/y/train/dog/a.wav", "x/y/test/dog/b.wav")
    assert list(read_folder(tmp_path / "deep").splits) == ["test", "train"]


def test_folds_are_not_classes(tmp_path: Path) -> None:
    touch(tmp_path / "flat", *(f"fold{i}/{i}.wav" for i in range(1, 6)))
    with pytest.raises(DataError, match="fold1, fold2, fold3, fold4, fold5 are called like folds, not classes"):
        read_folder(tmp_path / "flat")
    touch(tmp_path / "nested", *(f"Fold_{i}/{label}/{i}.wav" for i in range(1, 4) for label in ("cat", "dog")))
    clips = read_folder(tmp_path / "nested")
    assert clips.columns == {"label": ["cat", "dog"] * 3, "fold": ["1", "1", "2", "2", "3", "3"]}


def test_folders_that_are_evidently_no_classes_are_left_out_and_said(tmp_path: Path) -> None:
    touch(tmp_path, "yes/a.wav", "no/b.wav", "_background_noise_/c.wav")
    with pytest.warns(DataWarning, match="_background_noise_: left out, its name is no class's"):
        assert {labels[1] for labels in seen(tmp_path).values()} == {"yes", "no"}


def test_links_to_class_folders_are_followed_and_loops_refused(tmp_path: Path) -> None:
    touch(tmp_path / "elsewhere", "a.wav")
    touch(tmp_path / "sounds", "cat/b.wav")
    (tmp_path / "sounds" / "dog").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    assert {labels[1] for labels in seen(tmp_path / "sounds").values()} == {"cat", "dog"}
    (tmp_path / "sounds" / "cat" / "again").symlink_to(tmp_path / "sounds", target_is_directory=True)
    with pytest.raises(DataError, match=r"again: is a link to .*sounds, a folder that it is in"):
        read_folder(tmp_path / "sounds")
    os.unlink(tmp_path / "sounds" / "cat" / "again")
    touch(tmp_path / "sounds", "p/c.wav", "q/d.wav")
    for one, other in ("pq", "qp"):
        (tmp_path / "sounds" / one / "link").symlink_to(tmp_path / "sounds" / other, target_is_directory=True)
    with pytest.raises(DataError, match="is a link to"):
        read_folder(tmp_path / "sounds")


def test_unreadable_kinds_are_counted_and_a_class_does_not_vanish_with_them(tmp_path: Path, monkeypatch) -> None:
    without = decoding.EXTENSIONS - ffmpeg.EXTENSIONS
    monkeypatch.setattr(decoding, "EXTENSIONS", without)
    monkeypatch.setattr(folder, "UNREADABLE", folder.UNREADABLE | ffmpeg.EXTENSIONS)
    touch(tmp_path, "dog/a.wav", "cat/b.wav", "cat/c.m4a", "cat/d.M4A", "cat/e.wma")
    with pytest.warns(DataWarning, match=r"cat: left out, files of a kind that cannot be read \(2 \.m4a, 1 \.wma\)"):
        assert len(read_folder(tmp_path)) == 2
    (tmp_path / "cat" / "b.wav").unlink()
    with pytest.raises(
        DataError, match=r"all files of the class 'cat' \(2 \.m4a, 1 \.wma\) cannot be read; convert .*ffmpeg"
    ):
        read_folder(tmp_path)


def test_one_name_in_two_unicode_forms_is_one_class(tmp_path: Path) -> None:
    touch(tmp_path, "train/\u00e9t\u00e9/a.wav", "train/no/b.wav", "test/e\u0301te\u0301/c.wav", "test/no/d.wav")
    with pytest.warns(DataWarning, match="are one label"):
        assert set(read_folder(tmp_path).columns["label"]) == {"\u00e9t\u00e9", "no"}


@pytest.mark.parametrize(
    "line", ["./yes/a_nohash_0.wav", "yes\\a_nohash_0.wav", "Yes/A_nohash_0.WAV", "yes//a_nohash_0.wav"]
)
def test_official_lists_are_matched_however_they_write_paths(tmp_path: Path, line: str) -> None:
    touch(tmp_path, "yes/a_nohash_0.wav", "no/b_nohash_0.wav")
    (tmp_path / "testing_list.txt").write_text(line + "\n")
    (tmp_path / "validation_list.txt").write_text("no/b_nohash_0.wav\n")
    assert list(read_archives("speech_commands", tmp_path).splits) == ["validation", "test"]


def test_an_official_list_that_matches_nothing_is_an_error(tmp_path: Path) -> None:
    touch(tmp_path, "yes/a_nohash_0.wav", "no/b_nohash_0.wav")
    (tmp_path / "testing_list.txt").write_text("maybe/c.wav\n")
    (tmp_path / "validation_list.txt").write_text("")
    with pytest.raises(DataError, match=r"testing_list\.txt: none of its 1 files is in the data, such as maybe/c\.wav"):
        read_archives("speech_commands", tmp_path)


@pytest.mark.parametrize(
    ("test", "header"), [("fold1_evaluate.csv", "filename\tscene_label\n"), ("fold1_test.csv", "filename\n")]
)
def test_tau_urban_2019_to_2022(tmp_path: Path, test: str, header: str) -> None:
    files = [f"audio/airport-lisbon-{i}-0-{d}.wav" for i in range(4) for d in ("a", "s1")]
    rows = "".join(f"{f}\tairport\tlisbon-{f.split('-')[2]}\t{f[-6:-4].strip('-')}\n" for f in files)
    (tmp_path / "meta.csv").write_text("filename\tscene_label\tidentifier\tsource_label\n" + rows)
    setup = tmp_path / "evaluation_setup"
    setup.mkdir()
    (setup / "fold1_train.csv").write_text("filename\tscene_label\n" + "".join(f"{f}\tairport\n" for f in files[:4]))
    more = "\tairport" if "scene_label" in header else ""
    (setup / test).write_text(header + "".join(f"{f}{more}\n" for f in files[4:6]))
    clips = read_archives("tau_urban", tmp_path)
    assert list(clips.splits) == ["train"] * 4 + ["test"] * 2
    assert list(clips.columns["location"])[:3] == ["lisbon-0", "lisbon-0", "lisbon-1"]
    assert list(clips.columns["source_label"])[:2] == ["a", "s1"]


def test_a_byte_order_mark_in_an_official_table(tmp_path: Path) -> None:
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta" / "esc50.csv").write_text("\ufefffilename,fold,category\na.wav,1,dog\n", encoding="utf-8")
    assert list(read_archives("esc50", tmp_path).columns["label"]) == ["dog"]
