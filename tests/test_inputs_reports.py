"""Inputs of public bug reports of other programs, each with what it means here."""

from pathlib import Path

import pytest

from audiostride.data.annotations import read_annotated, read_labels
from audiostride.data.folder import read_folder
from audiostride.data.labels import find_separator, one_column, task_labels
from audiostride.data.manifest import read_manifest
from audiostride.errors import DataError, DataWarning


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


@pytest.mark.filterwarnings("ignore::audiostride.errors.DataWarning")
def test_na_is_a_label(tmp_path: Path) -> None:
    """pyannote/pyannote-database 27 and 115: "NA", "nan", "NULL" became a missing value."""
    (tmp_path / "t.csv").write_text("file,label\na.wav,NA\nb.wav,AA\nc.wav,nan\nd.wav,NULL\n")
    assert task_labels(read_manifest(tmp_path / "t.csv"), "label", "multiclass") == ["AA", "NA", "NULL", "nan"]


def test_labels_that_look_like_numbers_stay_what_they_are(tmp_path: Path) -> None:
    """vocalpy/crowsetta 257: labels came back as integers, and no clip had a known one."""
    (tmp_path / "t.csv").write_text("file,label\na.wav,01\nb.wav,1\nc.wav,1.0\n")
    assert task_labels(read_manifest(tmp_path / "t.csv"), "label", "multiclass") == ["01", "1", "1.0"]


def test_metadata_beside_its_files(tmp_path: Path) -> None:
    """huggingface/datasets 5046: no rows where the table and the files are in one folder."""
    touch(tmp_path, "2063_a.wav", "2064_b.wav")
    (tmp_path / "metadata.csv").write_text("file_name,duration,word\n./2063_a.wav,10.768,hello\n./2064_b.wav,3.1,bye\n")
    clips = read_folder(tmp_path)
    assert (clips.spans, list(clips.columns["word"])) == (None, ["hello", "bye"])


def test_names_in_a_table_that_are_no_files_are_said(tmp_path: Path) -> None:
    """huggingface/datasets 7369: 'Instruction "train" corresponds to no data!'."""
    touch(tmp_path, "one.mp3")
    (tmp_path / "metadata.csv").write_text("file_name,sentence\nfilename1.mp3,hello\n")
    with pytest.raises(DataError, match=r"metadata\.csv, line 2: there is no file .*filename1\.mp3"):
        read_folder(tmp_path)


def test_train_and_test_in_the_name_of_a_file_say_nothing(tmp_path: Path) -> None:
    """huggingface/datasets 5608 and 5021: all other files were left out."""
    touch(tmp_path, "noise/a train.wav", "noise/rain.wav", "glass/test tubes.wav")
    clips = read_folder(tmp_path)
    assert len(clips) == 3
    assert set(clips.splits) == {""}


def test_split_folders_are_no_labels(tmp_path: Path) -> None:
    """huggingface/datasets 7880: a label column with the classes test and train."""
    touch(tmp_path, "train/a.wav", "test/b.wav")
    with pytest.raises(DataError, match="test, train are called like splits"):
        read_folder(tmp_path)


def test_a_folder_beside_the_splits_does_not_vanish_without_a_word(tmp_path: Path) -> None:
    """huggingface/datasets 7529: a fourth folder with a metadata.csv was left out."""
    for folder in ("train", "test", "validation", "custom"):
        touch(tmp_path, f"{folder}/a.wav")
        (tmp_path / folder / "metadata.csv").write_text("file_name,label\na.wav,x\n")
    with pytest.warns(DataWarning, match="left out, as .* are splits: custom"):
        assert sorted(set(read_folder(tmp_path).splits)) == ["test", "train", "validation"]


def test_metadata_above_one_folder_of_files(tmp_path: Path) -> None:
    """huggingface/datasets 5465: one row of 400."""
    touch(tmp_path, *(f"data/{i}.mp3" for i in range(4)))
    (tmp_path / "metadata.csv").write_text("file_name,label\n" + "".join(f"data/{i}.mp3,{i % 2}\n" for i in range(4)))
    assert list(read_folder(tmp_path).columns["label"]) == ["0", "1", "0", "1"]


def test_a_row_that_continues_in_the_next_is_said(tmp_path: Path) -> None:
    """cdjkim/audiocaps 23: a caption goes on in the column of names of another row."""
    text = "audiocap_id,file,caption\n1,a.wav,A dog barks and\nthe dog is whimpering,,\n2,b.wav,Rain\n"
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(DataError, match="line 3: names no file"):
        read_manifest(tmp_path / "t.csv")


@pytest.mark.parametrize(
    "text",
    [
        "43352,824046\t43525,837661\tmusic\n",  # ynop/audiomate 30: decimal commas
        "43352.824046 43525.837661 music\n",  # justinsalamon/scaper 23: blanks
        "12:02:32.824046\t12:05:25.837661\tmusic\n",  # audacity/audacity 819: hours, minutes, seconds
    ],
)
def test_audacity_labels_of_other_places(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.txt").write_text(text)
    (segment,) = read_labels(tmp_path / "a.txt")
    assert segment[:3] == pytest.approx((43352.824046, 43525.837661, "music"))


def test_markers_of_audition(tmp_path: Path) -> None:
    """DmitryVarennikov/cuegenerator 15: 58:23.855, and a .csv that is separated by tabs."""
    text = "Name\tStart\tDuration\tTime Format\tType\tDescription\nwren\t58:23.855\t0:01.500\tdecimal\tCue\t\n"
    (tmp_path / "a.csv").write_text("\ufeff" + text)
    (segment,) = read_labels(tmp_path / "a.csv", label_column="Name")
    assert segment[:3] == pytest.approx((3503.855, 3505.355, "wren"))


def test_tables_of_birdnet(tmp_path: Path) -> None:
    """birdnet-team/BirdNET-Analyzer 188, 58 and 535: with and without Begin File, whose recording may be named anew."""
    touch(tmp_path, "G024.flac")
    header = "Selection\tView\tChannel\tBegin{}File\tBegin Time (s)\tEnd Time (s)\tLow Freq (Hz)\tCommon Name\tScore\n"
    rows = "1\tSpectrogram 1\t1\tG024.flac\t3.0\t6.0\t150\tGreat Horned Owl\t0.165\n"
    rows += "2\tSpectrogram 1\t1\tG024.flac\t3.0\t6.0\t150\tRed-breasted Nuthatch\t0.955\n"
    for between in " .":
        (tmp_path / "G024.BirdNET.selection.table.txt").write_text(header.format(between) + rows)
        assert list(read_annotated(tmp_path).columns["label"]) == ["Great Horned Owl", "Red-breasted Nuthatch"]
    # 404: the combined table counts time through all files
    touch(tmp_path, "G025.flac")
    (tmp_path / "G024.BirdNET.selection.table.txt").unlink()
    header = "Selection\tBegin Time (s)\tEnd Time (s)\tCommon Name\tBegin Path\tFile Offset (s)\n"
    rows = "1\t3.0\t6.0\tOwl\t/data/G024.flac\t3.0\n2\t63.0\t66.0\tFinch\t/data/G025.flac\t3.0\n"
    (tmp_path / "BirdNET_SelectionTable.txt").write_text(header + rows)
    clips = read_annotated(tmp_path)
    assert [clips.title(i) for i in range(2)] == ["G024.flac#t=3,6", "G025.flac#t=3,6"]


def test_labels_joined_by_a_hash_are_several(tmp_path: Path) -> None:
    """doccano/doccano 1821: exported as label1#label2, and read back as one class of that name."""
    (tmp_path / "t.csv").write_text("file,label\na.wav,rain\nb.wav,wind\nc.wav,rain#wind\n")
    clips = read_manifest(tmp_path / "t.csv")
    assert find_separator(clips.columns["label"]) == "#"
    several = one_column(clips, "label", "multilabel", "#")
    assert task_labels(several, "label", "multilabel") == ["rain", "wind"]
    with pytest.warns(DataWarning, match="set kind: multilabel and label_separator: '#'"):
        one_column(clips, "label", "multiclass")


def test_folders_of_several_labels(tmp_path: Path) -> None:
    """birdnet-team/BirdNET-Analyzer 241: folders whose names are several labels, separated by commas."""
    touch(tmp_path, "Owl/a.wav", "Finch/b.wav", "Owl,Finch/c.wav")
    clips = read_folder(tmp_path)
    assert find_separator(clips.columns["label"]) == ","
    several = one_column(clips, "label", "multilabel", ",")
    assert dict(zip(several.names, several.columns["label"], strict=True))["Owl,Finch/c.wav"] == "Owl|Finch"


def test_a_table_whose_files_got_another_ending_is_said(tmp_path: Path) -> None:
    """lucascesarfd/underwater_snd 3: the table says .wav, and the files have become .flac."""
    touch(tmp_path, "vessel/167.flac", "vessel/168.flac")
    (tmp_path / "metadata.csv").write_text("path,label\n./vessel/167.wav,Cargo\n./vessel/168.wav,Tug\n")
    with pytest.raises(DataError, match=r"metadata\.csv, line 2: there is no file .*167\.wav; .*167\.flac is there"):
        read_folder(tmp_path)


def test_a_raven_table_with_a_column_of_nothing(tmp_path: Path) -> None:
    """DrCoffey/DeepSqueak 48: an empty column before that of the labels, without frequencies in some rows."""
    text = "Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tLow Freq (Hz)\tHigh Freq (Hz)\t"
    text += "Delta Time (s)\t\tAnnotation\n"
    rows = "356\tSpectrogram 1\t1\t152.749\t152.802\t49149.4\t58172.9\t0.054\t\tTrill\n"
    rows += "362\tSpectrogram 1\t1\t153.801\t153.866\t\t\t0.065\t\tFlat\n"
    (tmp_path / "a.txt").write_text(text + rows)
    first, second = read_labels(tmp_path / "a.txt")
    assert first[:5] == pytest.approx((152.749, 152.802, "Trill", 49149.4, 58172.9))
    assert (second.label, second.low_hz) == ("Flat", None)
