"""Every source gives the table that its files describe, and names what is wrong with them."""

import csv
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from audiostride.data.annotations import Segment, read_annotated, read_labels, write_audacity, write_raven
from audiostride.data.clips import ArrayClips
from audiostride.data.folder import read_folder
from audiostride.data.manifest import read_manifest, write_manifest
from audiostride.data.preparation import prepare_data
from audiostride.data.sections import TaskSection
from audiostride.data.shards import read_shards
from audiostride.data.splits import assign_splits, resplit, shared_groups
from audiostride.data.text_column import Texts, class_numbers
from audiostride.errors import DataError

RATE = 8000


def ramp(seconds: float = 4.0) -> np.ndarray:
    """A signal whose value tells the time: full scale at 10 s."""
    return (np.arange(round(seconds * RATE)) / RATE / 10).astype(np.float32)


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    (tmp_path / "sub").mkdir()
    soundfile.write(tmp_path / "a.wav", ramp(), RATE, subtype="FLOAT")
    soundfile.write(tmp_path / "sub" / "b.wav", ramp(), RATE, subtype="FLOAT")
    return tmp_path


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl"])
def test_a_table_of_any_kind_gives_segments_labels_and_splits(recordings: Path, suffix: str) -> None:
    rows = [
        {"file": "a.wav", "start_s": 1.5, "end_s": 2.0, "word": "no", "speaker": "7", "split": "train"},
        {"file": "sub/b.wav", "start_s": 3, "end_s": "", "word": "yes, or", "speaker": "8", "split": "val"},
    ]
    write_manifest(recordings / f"table{suffix}", rows)
    clips = read_manifest(recordings / f"table{suffix}")
    assert clips.names == ["a.wav", "sub/b.wav"]
    assert clips.columns == {"word": ["no", "yes, or"], "speaker": ["7", "8"]}
    assert clips.splits == ["train", "validation"]
    assert clips.n_samples(0, RATE) == RATE // 2
    np.testing.assert_array_equal(clips.read(0, RATE), ramp()[int(1.5 * RATE) : 2 * RATE])
    np.testing.assert_array_equal(clips.read(1, RATE), ramp()[3 * RATE :])
    np.testing.assert_array_equal(clips.read(0, RATE, start=100, length=50), ramp()[12100:12150])


def test_reading_never_goes_beyond_a_segment(recordings: Path) -> None:
    write_manifest(recordings / "t.csv", [{"file": "a.wav", "start_s": 1, "end_s": 2, "word": "no"}])
    assert len(read_manifest(recordings / "t.csv").read(0, RATE, start=RATE // 2, length=RATE)) == RATE // 2


@pytest.mark.parametrize(
    ("content", "wrong"),
    [
        ("word\nno\n", "line 2: names no file; none of the columns word is file or"),
        ("fiel,word\na.wav,no\n", "did you mean 'file'"),
        ("file,word\n,no\n", "line 2: names no file"),
        ("file,word\na.wav\n", "line 2: has 1 columns, but the header has 2"),
        ("file,start_s\na.wav,soon\n", "line 2: start_s is 'soon'"),
        ("file,start_s\na.wav,-1\n", "start_s is '-1'"),
        ("file,start_s,end_s\na.wav,2,1\n", "end_s 1 is not after start_s 2"),
        ("file,split\na.wav,holdout\n", "'holdout' is not one of train, validation, test"),
        ("file,word,word\na.wav,a,b\n", "two columns have the same name"),
        ("file,word\n", "has no rows"),
    ],
)
def test_a_wrong_table_is_an_error_that_names_the_line(tmp_path: Path, content: str, wrong: str) -> None:
    (tmp_path / "t.csv").write_text(content)
    with pytest.raises(DataError, match=wrong):
        read_manifest(tmp_path / "t.csv")


@pytest.mark.parametrize("line", ["{", "[1]", "null", "[" * 5000])
def test_a_line_that_is_no_json_object_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "t.jsonl").write_text('{"file": "a.wav"}\n' + line + "\n")
    with pytest.raises(DataError, match="line 2"):
        read_manifest(tmp_path / "t.jsonl")


def test_a_table_that_is_missing_or_of_another_kind_is_named(tmp_path: Path) -> None:
    (tmp_path / "t.xlsx").touch()
    with pytest.raises(DataError, match=r"must end in \.csv, \.tsv, \.jsonl"):
        read_manifest(tmp_path / "t.xlsx")
    with pytest.raises(DataError, match="no such file"):
        read_manifest(tmp_path / "t.csv")


@pytest.mark.parametrize("source", ["folder", "manifest", "annotated"])
def test_a_path_of_a_recipe_that_is_not_there_is_named_with_its_key(source: str) -> None:
    task = TaskSection.model_validate({"data": {"source": source, "path": "nowhere"}})
    with pytest.raises(
        DataError, match=r"^nowhere: no such file or folder \(/.*\); set tasks\.bird\.data\.path to yours"
    ):
        prepare_data({"bird": task}, sample_rate=16000)


def test_label_files_of_audacity_and_raven_come_back_as_they_were_written(tmp_path: Path) -> None:
    segments = [Segment(0.25, 1.5, "wren", 2000.0, 8000.0), Segment(2.0, 2.75, "robin's song")]
    write_audacity(tmp_path / "a.txt", segments)
    write_raven(tmp_path / "a.selections.txt", segments)
    assert read_labels(tmp_path / "a.txt") == segments
    assert read_labels(tmp_path / "a.selections.txt") == segments


def test_a_raven_selection_in_two_views_is_one_segment(tmp_path: Path) -> None:
    header = "Selection\tView\tBegin Time (s)\tEnd Time (s)\tSpecies\n"
    (tmp_path / "t.txt").write_text(header + "1\tWaveform 1\t1\t2\twren\n1\tSpectrogram 1\t1\t2\twren\n")
    assert read_labels(tmp_path / "t.txt") == [Segment(1.0, 2.0, "wren")]


def test_a_folder_with_label_files_gives_a_clip_for_each_segment(recordings: Path) -> None:
    write_audacity(recordings / "a.txt", [Segment(1.0, 1.5, "wren"), Segment(2.0, 2.0, "a point")])
    write_raven(recordings / "sub" / "b.Table.1.selections.txt", [Segment(3.0, 3.25, "robin")])
    clips = read_annotated(recordings)
    assert [clips.title(i) for i in range(len(clips))] == ["a.wav#t=1,1.5", "sub/b.wav#t=3,3.25"]
    assert clips.columns == {"label": ["wren", "robin"]}
    np.testing.assert_array_equal(clips.read(1, RATE), ramp()[3 * RATE : round(3.25 * RATE)])


def test_hidden_twins_of_recordings_and_label_files_are_not_read(recordings: Path) -> None:
    write_audacity(recordings / "a.txt", [Segment(1.0, 1.5, "wren")])
    for name in ("._a.wav", "._a.txt"):  # as macOS writes beside each file on foreign disks
        (recordings / name).write_bytes(b"\x00\x05\x16\x07")
    assert read_annotated(recordings).columns == {"label": ["wren"]}


@pytest.mark.parametrize("content", ["1\t2\n", "one\t2\twren\n", "1\t-2\twren\n", "\x00\n", "1 two wren\n"])
def test_a_wrong_label_file_is_an_error_that_names_the_line(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.txt").write_text("0\t1\tgood\n" + content)
    with pytest.raises(DataError, match="line 2"):
        read_labels(tmp_path / "a.txt")


def make_shard(path: Path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def wav(samples: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, RATE, format="WAV", subtype="FLOAT")
    return buffer.getvalue()


def test_shards_are_read_where_they_lie(tmp_path: Path) -> None:
    make_shard(
        tmp_path / "train-0.tar", {"x/1.cls": b"3", "x/1.wav": wav(ramp(1)), "x/2.wav": wav(ramp(2)), "x/2.cls": b"4"}
    )
    make_shard(
        tmp_path / "test-0.tar", {"3.json": json.dumps({"label": 3, "who": ["a", "b"]}).encode(), "3.wav": wav(ramp(3))}
    )
    clips = read_shards(tmp_path)
    assert clips.names == ["test-0/3.wav", "train-0/x/1.wav", "train-0/x/2.wav"]
    assert clips.splits == ["test", "train", "train"]
    assert clips.columns == {"label": ["3", "3", "4"], "who": ["a|b", "", ""]}
    np.testing.assert_array_equal(clips.read(2, RATE), ramp(2))
    np.testing.assert_array_equal(clips.select([2, 0]).read(1, RATE, 50, 20), ramp(3)[50:70])
    assert clips.n_samples(0, RATE) == 3 * RATE


def test_bad_shards_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.tar.gz").touch()
    with pytest.raises(DataError, match=r"a\.tar\.gz is compressed"):
        read_shards(tmp_path)
    make_shard(tmp_path / "b.tar", {"1.wav": wav(ramp())})
    whole = (tmp_path / "b.tar").read_bytes()
    (tmp_path / "b.tar").write_bytes(whole[:5000])
    with pytest.raises(DataError, match=r"b\.tar"):
        read_shards(tmp_path)
    (tmp_path / "b.tar").write_bytes(b"no tar at all" * 100)
    with pytest.raises(DataError, match="is not a plain tar file"):
        read_shards(tmp_path)


def test_texts_behave_as_the_list_they_stand_for() -> None:
    words = [f"w{i % 7}" for i in range(50)] + [f"file {i}\udcff.wav" for i in range(70_000)]
    texts = Texts(words)
    assert texts == words
    assert texts.distinct() == set(words)
    assert texts.select([60_000, 3, 3]) == [words[60_000], "w3", "w3"]
    assert texts[-1] == words[-1]
    assert texts[10:12] == words[10:12]
    assert (class_numbers(texts, ["w0", "w6"]) == class_numbers(words, ["w0", "w6"])).all()
    texts.append("w0")
    assert texts[-1] == "w0"


def test_a_million_rows_take_a_few_bytes_each() -> None:
    texts = Texts(f"word{i % 35}" for i in range(1_000_000))
    assert texts._rows.itemsize * len(texts._rows) + len(texts._bytes) < 4_100_000


def test_folds_become_splits_and_the_rest_is_left_out() -> None:
    clips = ArrayClips(list("abcd"), {"fold": ["1", "2", "3", "4"]}, [""] * 4, waveforms=np.eye(4, dtype=np.float32))
    chosen = resplit(clips, "fold", {"1": "train", "4": "test", "2": ""})
    assert chosen.names == ["a", "b", "d"]
    assert chosen.splits == ["train", "", "test"]
    np.testing.assert_array_equal(chosen.read(2, 16000), np.eye(4)[3])
    with pytest.raises(DataError, match="no clips of '5'; the data has '1', '2', '3', '4'"):
        resplit(clips, "fold", {"5": "test"})


def test_a_group_is_never_divided_and_every_label_is_in_every_split() -> None:
    speakers = [f"s{i // 5}" for i in range(600)]
    labels = [str(i // 5 % 3) for i in range(600)]
    clips = ArrayClips([f"{i}" for i in range(600)], {"speaker": speakers, "label": labels}, [""] * 600)
    splits = assign_splits(clips, labels, seed=1, group="speaker")
    assert shared_groups(speakers, splits) == {}
    for split, n in (("train", 480), ("validation", 60), ("test", 60)):
        assert splits.count(split) == n
        assert {label for label, s in zip(labels, splits, strict=True) if s == split} == {"0", "1", "2"}
    assert splits != assign_splits(clips, labels, seed=2, group="speaker")


def test_segments_of_one_file_stay_together() -> None:
    clips = ArrayClips([f"{i // 10}.wav" for i in range(500)], {}, [""] * 500)
    assert shared_groups(clips.names, assign_splits(clips, ["x"] * 500, seed=0)) == {}


def test_a_folder_remembers_its_splits_and_fills_missing_columns(tmp_path: Path) -> None:
    for split, header in (("train", ["file_name", "label"]), ("test", ["file_name", "label", "who"])):
        (tmp_path / split).mkdir()
        (tmp_path / split / "a.wav").touch()
        with (tmp_path / split / "metadata.csv").open("w", newline="") as file:
            csv.writer(file).writerows([header, ["a.wav", "no", "ann"][: len(header)]])
    clips = read_folder(tmp_path)
    assert clips.names == ["test/a.wav", "train/a.wav"]
    assert clips.splits == ["test", "train"]
    assert clips.columns == {"label": ["no", "no"], "who": ["ann", ""]}
