"""Label files as annotators and other programs write them."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml

from audiostride.data.annotations import Segment, read_annotated, read_labels
from audiostride.data.inspection import inspect_path
from audiostride.data.preparation import prepare_data
from audiostride.data.sections import TaskSection
from audiostride.errors import DataError, DataWarning
from audiostride.training.first_recipe import make_recipe

RAVEN = "Selection\tView\tBegin Time (s)\tEnd Time (s)\tLow Freq (Hz)\tSpecies\tNotes\n"


def sound(path: Path, seed: int = 0, length_s: float = 3.0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.random.RandomState(seed).uniform(-0.5, 0.5, round(8000 * length_s)), 8000)


def labels(at: Path, text: str, name: str = "a.txt", **keys) -> list[tuple[float, float, str]]:
    (at / name).write_text(text)
    return [tuple(segment[:3]) for segment in read_labels(at / name, **keys)]


def test_raven_tables_joined_from_several_keep_every_row(tmp_path: Path) -> None:
    rows = [f"{i % 6 + 1}\tSpectrogram 1\t{i}\t{i + 0.5}\t1000\twren\t\n" for i in range(18)]
    assert len(labels(tmp_path, RAVEN + "".join(rows))) == 18
    twice = [row.replace("Spectrogram", view) for row in rows for view in ("Spectrogram", "Waveform")]
    assert len(labels(tmp_path, RAVEN + "".join(twice))) == 18


def test_rows_shorter_than_the_header_are_filled_up(tmp_path: Path) -> None:
    assert labels(tmp_path, RAVEN + "1\tS\t1\t2\t900\twren\n2\tS\t3\t4\t900\trobin\tfaint\n") == [
        (1, 2, "wren"),
        (3, 4, "robin"),
    ]


def test_the_label_column_is_found_or_named(tmp_path: Path) -> None:
    text = "Begin Time (s)\tEnd Time (s)\tCall Type\n1\t2\tsong\n"
    with pytest.raises(DataError, match=r"label_column; it has .*Call Type"):
        labels(tmp_path, text)
    assert labels(tmp_path, text, label_column="call type") == [(1, 2, "song")]
    sound(tmp_path / "a.wav")
    assert read_annotated(tmp_path, "Call Type").columns == {"label": ["song"]}


@pytest.mark.parametrize(
    "text",
    [
        "1.5\t2.25\twren\n",
        "1,5\t2,25\twren\n",
        "1.5 2.25 wren\n",
        "  1.5   2.25   wren\n",
        "00:00:01.5\t00:00:02.25\twren\n",
        "00:01.5 00:02.25 wren\n",
        "\ufeff1.5\t2.25\twren\n0.5\ta point\n",
        "Start (s)\tEnd (s)\tLabel\n1.5\t2.25\twren\n",
        "onset,duration,label\n1.5,0.75,wren\n",
    ],
)
def test_audacity_files_as_people_write_them(tmp_path: Path, text: str) -> None:
    sound(tmp_path / "a.wav")
    (tmp_path / "a.txt").write_text(text)
    clips = read_annotated(tmp_path)
    assert [clips.title(i) for i in range(len(clips))] == ["a.wav#t=1.5,2.25"]
    assert clips.columns == {"label": ["wren"]}


@pytest.mark.parametrize(
    "name",
    ["A.txt", "A.wav.txt", "A_labels.txt", "A.labels.txt", "A-annotations.txt", "A.selections.txt",
     "A.Table.1.selections.txt", "A.BirdNET.selection.table.txt", "A.BirdNET.selections.txt", "A.tsv"],
)  # fmt: skip
def test_other_programs_names_of_label_files(tmp_path: Path, name: str) -> None:
    sound(tmp_path / "A.wav")
    header = "Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tCommon Name\tConfidence\n"
    (tmp_path / name).write_text(header + "1\tS\t1\t0.0\t1.5\tEurasian Wren\t0.91\n")
    clips = read_annotated(tmp_path)
    assert (clips.title(0), clips.columns) == ("A.wav#t=0,1.5", {"label": ["Eurasian Wren"]})
    assert read_labels(tmp_path / name)[0].score == 0.91


def test_a_label_file_belongs_to_the_recording_that_it_is_most_like(tmp_path: Path) -> None:
    for name in ("A.wav", "A.2.wav"):
        sound(tmp_path / name)
    (tmp_path / "A.txt").write_text("0\t1\tone\n")
    (tmp_path / "A.2.txt").write_text("0\t1\ttwo\n")
    (tmp_path / "B.txt").write_text("0\t1\tthree\n")
    (tmp_path / "README.txt").write_text("Recorded by Ann.\n")
    with pytest.warns(DataWarning, match=r"B\.txt: left out") as said:
        clips = read_annotated(tmp_path)
    assert dict(zip(clips.names, clips.columns["label"], strict=True)) == {"A.wav": "one", "A.2.wav": "two"}
    assert len(said) == 1


def test_one_table_of_many_recordings(tmp_path: Path) -> None:
    for name in ("s1/a.wav", "s2/a.wav", "s2/b.wav"):
        sound(tmp_path / name)
    header = "Selection\tBegin Time (s)\tEnd Time (s)\tBegin Path\tFile Offset (s)\tSpecies\n"
    rows = "1\t0.5\t1\tD:\\birds\\s1\\a.wav\t0.5\twren\n2\t3.5\t4\tD:\\birds\\s2\\a.wav\t0.5\trobin\n"
    rows += "3\t7\t8\tb.wav\t1\towl\n"
    (tmp_path / "all.selections.txt").write_text(header + rows)
    clips = read_annotated(tmp_path)
    assert [(clips.title(i), clips.columns["label"][i]) for i in range(3)] == [
        ("s1/a.wav#t=0.5,1", "wren"),
        ("s2/a.wav#t=0.5,1", "robin"),
        ("s2/b.wav#t=1,2", "owl"),
    ]
    (tmp_path / "all.selections.txt").write_text(header + "1\t0.5\t1\tc.wav\t0.5\twren\n")
    with pytest.raises(DataError, match=r"names 'c\.wav', which is no recording"):
        read_annotated(tmp_path)


def test_split_folders_below_an_annotated_folder_are_splits_and_init_sees_what_it_is(tmp_path: Path) -> None:
    for split in ("Train", "dev", "Test"):
        for i in range(6):
            sound(tmp_path / split / f"{i}.wav", seed=i)
            (tmp_path / split / f"{i}.txt").write_text("0\t1\twren\n1\t2\trobin\n")
    clips = read_annotated(tmp_path)
    assert set(zip((name.split("/")[0] for name in clips.names), clips.splits, strict=True)) == {
        ("Train", "train"),
        ("dev", "validation"),
        ("Test", "test"),
    }
    found = inspect_path(tmp_path)
    task = yaml.safe_load(make_recipe(tmp_path, found, allow_shared_groups=True))["tasks"]["label"]
    assert task["data"]["source"] == "annotated"
    assert task["kind"] == "binary"


def test_few_recordings_are_split_whole_or_the_message_says_why_not(tmp_path: Path) -> None:
    rng = np.random.RandomState(0)
    for i in range(8):
        sound(tmp_path / f"{i}.wav", seed=i, length_s=14)
        rows = [f"{t}\t{t + 0.5}\t{['wren', 'robin', 'owl'][rng.randint(3)]}\n" for t in range(13)]
        (tmp_path / f"{i}.txt").write_text("".join(rows))
    section = TaskSection.model_validate({"data": {"source": "annotated", "path": str(tmp_path)}})
    for seed in range(10):
        sets, _, _ = prepare_data({"x": section}, sample_rate=8000, seed=seed)
        sides = {name: set(np.array(sets[0].splits)[np.array(sets[0].clips.names) == name]) for name in "01234567"}
        assert all(len(side) <= 1 for side in sides.values())
        assert set(sets[0].splits) == {"train", "validation", "test"}
    for i in range(2, 8):
        (tmp_path / f"{i}.wav").unlink()
        (tmp_path / f"{i}.txt").unlink()
    with pytest.raises(DataError, match=r"26 clips leave nothing .* 2 recordings or groups \(all clips of a recording"):
        prepare_data({"x": section}, sample_rate=8000)


@pytest.mark.filterwarnings("ignore")  # crowsetta's, about pandas
def test_crowsetta_reads_the_same_segments(tmp_path: Path) -> None:
    crowsetta = pytest.importorskip("crowsetta")
    header = "Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tLow Freq (Hz)\tHigh Freq (Hz)\tSpecies\n"
    path = tmp_path / "a.selections.txt"
    path.write_text(header + "1\tS\t1\t0.5\t1.25\t100.0\t900.0\twren\n2\tS\t1\t2.0\t2.5\t200.0\t800.0\trobin\n")
    boxes = crowsetta.formats.bbox.Raven.from_file(path, annot_col="Species").to_bbox()
    wanted = [Segment(b.onset, b.offset, b.label, b.low_freq, b.high_freq) for b in boxes]
    assert [tuple(segment)[:5] for segment in read_labels(path)] == [tuple(segment)[:5] for segment in wanted]
