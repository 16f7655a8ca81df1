"""Tables as people have them mean what their owner meant, or the reader is told what to change."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import yaml
from typer.testing import CliRunner

from audiostride import AudioClassifier, create_model
from audiostride.cli import app
from audiostride.data.clips import Clips, FileClips, class_names
from audiostride.data.inspection import inspect_path
from audiostride.data.labels import find_separator, label_numbers, one_column, task_labels
from audiostride.data.leaks import origin_column
from audiostride.data.manifest import read_manifest
from audiostride.data.preparation import make_class_weights, prepare_data
from audiostride.data.sections import TaskSection
from audiostride.data.table import seconds, split_names
from audiostride.errors import DataError, DataWarning
from audiostride.training.first_recipe import make_recipe, rate_for


def sound(path: Path, seed: int, seconds: float = 0.1, rate: int = 8000) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.random.RandomState(seed).uniform(-0.5, 0.5, round(seconds * rate)), rate)


def table(at: Path, text: str | bytes, name: str = "t.csv") -> FileClips:
    (at / name).write_bytes(text.encode() if isinstance(text, str) else text)
    return read_manifest(at / name)


def prepared(at: Path, text: str, **task):
    (at / "t.csv").write_text(text)
    data = {"source": "manifest", "path": str(at / "t.csv")} | task.pop("data", {})
    section = TaskSection.model_validate({"data": data} | task)
    return prepare_data({"x": section}, sample_rate=8000), {"x": section}


# Labels


def test_no_label_breaks_the_order_of_classes() -> None:
    labels = ["1", "2", "3", "10", "nan", "inf", "-inf", "NA", "dog"]
    wanted = ["1", "2", "3", "10", "-inf", "NA", "dog", "inf", "nan"]
    for seed in range(20):
        assert class_names(np.random.RandomState(seed).permutation(labels).tolist()) == wanted
    script = f"from audiostride.data.clips import class_names; print(class_names(set({labels})))"
    for seed in ("0", "1", "2"):
        shown = subprocess.run([sys.executable, "-c", script], env={"PYTHONHASHSEED": seed}, capture_output=True)
        assert shown.stdout.decode().strip() == str(wanted)


def test_blanks_and_unicode_forms_make_no_class_of_their_own_and_case_is_pointed_at(tmp_path: Path) -> None:
    rows = "file, label\na.wav,dog\nb.wav, dog\u200b \nc.wav,e\u0301te\u0301\nd.wav,\u00e9t\u00e9\n"
    with pytest.warns(DataWarning, match="are one label"):
        clips = table(tmp_path, rows)
    assert list(clips.columns) == ["label"]
    assert task_labels(clips, "label", "multiclass") == ["dog", "\u00e9t\u00e9"]
    with pytest.warns(DataWarning, match="'Dog' and 'dog' differ in case only"):
        assert task_labels(Clips(["a", "b"], {"label": ["dog", "Dog"]}, [""] * 2), "label", "binary") == ["Dog", "dog"]


@pytest.mark.parametrize(
    ("values", "separator"),
    [
        (["dog", "cat", "dog;cat"], ";"),
        (["dog", "cat", "dog,cat"], ","),
        (["dog", "cat", "dog, cat"], ","),
        (["dog", "cat", "cat/dog"], "/"),
        (["dog", "cat", "dog cat"], " "),
        (["dog", "cat", "dog & cat"], "&"),
        (["dog", "cat", "dog:cat"], ":"),
        (["dog", "cat", "dog\ncat"], "\n"),
        (["{'dog', 'cat'}", "{'dog'}"], "|"),
        (["dog", "cat", "dog|cat"], "|"),
        (["['dog', 'cat']", "['dog']"], "|"),
        (['["dog", "cat"]', "[]"], "|"),
        (["air conditioner", "car horn", "street music"], None),
        (["Male speech, man speaking", "Child speech, kid speaking", "Bark"], None),
        (["1", "2"], None),
    ],
)
def test_several_labels_a_clip_are_seen_proposed_and_read(tmp_path: Path, values: list[str], separator) -> None:
    assert find_separator(values) == separator
    if separator is None:
        return
    quoted = "\n".join(f'{i}.wav,"{v.replace(chr(34), chr(34) * 2)}"' for i, v in enumerate(values * 6))
    for i in range(6 * len(values)):
        sound(tmp_path / f"{i}.wav", seed=i)
    (tmp_path / "t.csv").write_text(f"file,label\n{quoted}\n")
    found = inspect_path(tmp_path / "t.csv")
    task = yaml.safe_load(make_recipe(tmp_path / "t.csv", found))["tasks"]["label"]
    assert (task["kind"], task.get("label_separator", "|")) == ("multilabel", separator)
    (sets, labels, _), _ = prepared(
        tmp_path, (tmp_path / "t.csv").read_text(), **{k: task[k] for k in task if k != "data"}
    )
    assert labels["x"] == ["cat", "dog"]
    assert sets[0].labels["x"].sum() == 6 * sum(("dog" in v) + ("cat" in v) for v in values)
    if separator != "|":
        with pytest.warns(DataWarning, match="looks like several labels"):
            prepared(tmp_path, (tmp_path / "t.csv").read_text())


def test_a_column_per_class_is_several_labels_and_what_is_not_known_is_left_out(tmp_path: Path) -> None:
    rows = ["1,0,A", "0,1,A", "1,1,B", "0,?,B", ",1,A"] * 6
    for i in range(30):
        sound(tmp_path / f"{i}.wav", seed=i)
    text = "file,dog,cat,site\n" + "".join(f"{i}.wav,{row}\n" for i, row in enumerate(rows))
    (tmp_path / "t.csv").write_text(text)
    found = inspect_path(tmp_path / "t.csv")
    task = yaml.safe_load(make_recipe(tmp_path / "t.csv", found))["tasks"]["label"]
    assert (task["kind"], task["label_columns"]) == ("multilabel", ["dog", "cat"])
    (sets, labels, _), tasks = prepared(tmp_path, text, kind="multilabel", label_columns=["dog", "cat"])
    assert labels["x"] == ["cat", "dog"]
    truth = sets[0].labels["x"][:5]
    np.testing.assert_array_equal(truth, [[0, 1], [1, 0], [1, 1], [np.nan, 0], [1, np.nan]])
    weights = make_class_weights({"x": tasks["x"].model_copy(update={"class_weights": "balanced"})}, sets, labels)["x"]
    assert weights.isfinite().all()


def test_one_hot_columns_of_one_class_a_clip_are_a_multiclass_task(tmp_path: Path) -> None:
    clips = Clips(list("abc"), {"dog": ["1", "0", "0"], "cat": ["0", "1", "0"], "owl": ["0", "0", "1.0"]}, [""] * 3)
    made = one_column(clips, "label", "multiclass", columns=["dog", "cat", "owl"])
    assert list(made.columns["label"]) == ["dog", "cat", "owl"]
    for wrong, message in ((["1", "1", "0"], "has 2 classes"), (["0.7", "0", "0"], "holds '0.7', not 0, 1")):
        clips.columns["dog"] = wrong
        with pytest.raises(DataError, match=message):
            one_column(clips, "label", "multiclass", columns=["dog", "cat", "owl"])
    clips.columns["dog"] = ["1", "", ""]
    with pytest.raises(DataError, match="write 0 for no"):
        one_column(clips, "label", "multilabel", columns=["dog", "cat", "owl"])


def test_unknown_labels_in_one_column_are_masked() -> None:
    clips = Clips(list("abcd"), {"s": ["wren|?robin", "?", "", "robin"]}, [""] * 4)
    assert task_labels(clips, "s", "multilabel") == ["robin", "wren"]
    truth = label_numbers(clips, "s", ["robin", "wren"], "multilabel")
    np.testing.assert_array_equal(truth, [[np.nan, 1], [np.nan, np.nan], [0, 0], [1, 0]])


def test_empty_labels_are_counted_named_and_can_be_left_out(tmp_path: Path) -> None:
    for i in range(24):
        sound(tmp_path / f"{i}.wav", seed=i)
    text = "file,label\n" + "".join(f"{i}.wav,{'' if i % 6 == 5 else 'ab'[i % 2]}\n" for i in range(24))
    with pytest.raises(DataError, match=r"4 of 24 clips: no label in the column 'label': 5.wav, 11.wav, 17"):
        prepared(tmp_path, text)
    (sets, _, _), _ = prepared(tmp_path, text, data={"on_missing_label": "skip"})
    assert len(sets[0].clips) == 20
    found = inspect_path(tmp_path / "t.csv")
    assert found.missing == ["5.wav", "11.wav", "17.wav", "23.wav"]
    assert (
        yaml.safe_load(make_recipe(tmp_path / "t.csv", found))["tasks"]["label"]["data"]["on_missing_label"] == "skip"
    )


def test_one_class_and_missing_values_as_classes_are_said(tmp_path: Path) -> None:
    for i in range(12):
        sound(tmp_path / f"{i}.wav", seed=i)
    rows = "".join(f"{i}.wav,dog\n" for i in range(12))
    with pytest.raises(DataError, match="all clips are of one class, 'dog'"):
        prepared(tmp_path, "file,label\n" + rows)
    with pytest.raises(DataError, match="all clips are of one class, 'dog'"):
        make_recipe(tmp_path / "t.csv", inspect_path(tmp_path / "t.csv"))
    (tmp_path / "t.csv").write_text("file,label\n" + "".join(f"{i}.wav,{['1', 'nan'][i % 2]}\n" for i in range(12)))
    assert "classes that may be missing values: 'nan'" in inspect_path(tmp_path / "t.csv").notes


def test_eight_classes_of_two_clips_train_and_say_that_they_are_few(tmp_path: Path) -> None:
    for i in range(16):
        sound(tmp_path / f"{i}.wav", seed=i)
    text = "file,label\n" + "".join(f"{i}.wav,c{i // 2}\n" for i in range(16))
    (sets, labels, _), _ = prepared(tmp_path, text)
    train = set(sets[0].labels["x"][sets[0].indexes("train")])
    assert len(train) == len(labels["x"]) == 8
    assert len(sets[0].indexes("test")) >= 1 <= len(sets[0].indexes("validation"))
    found = inspect_path(tmp_path / "t.csv")
    assert found.label == "label"
    assert any("8 classes have less than three clips" in note for note in found.notes)


def test_a_class_of_the_test_alone_is_an_error(tmp_path: Path) -> None:
    for i in range(20):
        sound(tmp_path / f"{i}.wav", seed=i)
    rows = [f"{i}.wav,{'owl' if i > 17 else 'ab'[i % 2]},{'test' if i > 14 else 'train'}" for i in range(20)]
    with pytest.raises(DataError, match="the class 'owl' has no training clip"):
        prepared(tmp_path, "file,label,split\n" + "\n".join(rows))


def test_classes_of_several_labels_a_clip_are_scored_one_by_one(tmp_path: Path) -> None:
    made = create_model("audio_cnn_strided", heads={"tags": 2}, channels=(4,), strides=((2, 2),))
    model = AudioClassifier(made.frontend, made.trunk, {"tags": ["cat", "dog"]}, kinds={"tags": "multilabel"}).eval()
    with torch.no_grad():
        model.heads["tags"].weight.zero_()
        model.heads["tags"].bias.copy_(torch.tensor([-2.0, 2.0]))  # it hears a dog and no cat, whatever it is given
    model.save(tmp_path / "model")
    for i in range(4):
        sound(tmp_path / f"{i}.wav", seed=i)
    (tmp_path / "t.csv").write_text("file,tags\n0.wav,dog|cat\n1.wav,dog\n2.wav,cat\n3.wav,dog|?cat\n")
    command = ["evaluate", str(tmp_path / "model"), "--data", str(tmp_path / "t.csv"), "--by-class"]
    done = CliRunner().invoke(app, [*command, "--json"])
    cat, dog = json.loads(done.stdout)["tasks"]["tags"]["classes"]
    assert (dog["clips"], dog["recall"], dog["precision"]) == (3, 1.0, 0.75)
    assert (cat["clips"], cat["recall"], cat["precision"]) == (2, 0.0, None)
    shown = CliRunner().invoke(app, command).stdout
    assert "cat" in shown
    assert "dog" in shown


# Cells, delimiters, columns


def test_tabs_are_not_quoted(tmp_path: Path) -> None:
    says = {10: '"She opened the door', 30: 'and said "no', 40: '"whole"'}
    rows = "".join(f"{i}.wav\t{says.get(i, 'words')}\tl{i % 2}\n" for i in range(60))
    clips = table(tmp_path, "path\tsentence\tlabel\n" + rows, "t.tsv")
    assert len(clips) == 60
    assert [clips.columns["sentence"][i] for i in says] == ['"She opened the door', 'and said "no', "whole"]


def test_a_quote_that_swallows_rows_is_said_where_it_opens(tmp_path: Path) -> None:
    rows = [f"{i}.wav,words,l{i % 2}" for i in range(60)]
    rows[10], rows[30] = '10.wav,"Oh,l0', '30.wav,and" no,l0'
    with pytest.raises(DataError, match="line 12: a quote opens here and is not closed before line 32"):
        table(tmp_path, "file,sentence,label\n" + "\n".join(rows))
    rows[30] = "30.wav,and no,l0"
    with pytest.raises(DataError, match="line 12: "):
        table(tmp_path, "file,sentence,label\n" + "\n".join(rows))
    clips = table(tmp_path, 'file,sentence,label\na.wav,"two\nlines, fine",x\nb.wav,y,z\n')
    assert list(clips.columns["sentence"]) == ["two\nlines, fine", "y"]


@pytest.mark.parametrize(("delimiter", "said"), [(";", "semicolons"), ("\t", "tabs")])
def test_other_delimiters_in_a_csv_are_read_and_said(tmp_path: Path, delimiter: str, said: str) -> None:
    text = "file,label,x\na.wav,dog,1\nb.wav,cat,2\n".replace(",", delimiter)
    with pytest.warns(DataWarning, match=f"separated by {said}"):
        assert list(table(tmp_path, text).columns["label"]) == ["dog", "cat"]
    with pytest.warns(DataWarning, match="separated by commas"):
        table(tmp_path, "file,label\na.wav,dog\n", "t.tsv")


@pytest.mark.parametrize(
    "text",
    [
        "\ufefffile,label\na.wav,dog\n".encode(),
        "\ufefffile,label\r\na.wav,dog\r\n".encode("utf-16-le"),
        b"# made by Ann, in May\n#\n\nfile,label\na.wav,dog\n",
        b"# made by Ann\n# file, label\na.wav, dog\n",
        b"File , Label \na.wav , dog \n",
        b"Filename,label,\na.wav,dog,\n",
        b",file,label\n0,a.wav,dog\n",
    ],
)
def test_byte_order_marks_comments_blanks_and_capitals_do_not_matter(tmp_path: Path, text: bytes) -> None:
    clips = table(tmp_path, text)
    assert list(clips.names) == ["a.wav"]
    assert [list(values) for values in clips.columns.values()] == [["dog"]]


@pytest.mark.parametrize("column", ["Split", "SPLIT", "split ", "subset", "Partition"])
def test_a_column_of_splits_is_the_split(tmp_path: Path, column: str) -> None:
    text = f"File,label,{column}\na.wav,x,Train\nb.wav,x,validation\nc.wav,y,TEST\n"
    clips = table(tmp_path, text)
    assert list(clips.splits) == ["train", "validation", "test"]
    assert list(clips.columns) == ["label"]


def test_a_column_that_is_called_like_one_of_splits_and_is_none_is_a_label(tmp_path: Path) -> None:
    clips = table(tmp_path, "file,label,subset\na.wav,x,clean\nb.wav,y,noisy\n")
    assert list(clips.columns["subset"]) == ["clean", "noisy"]


def test_usual_names_of_splits() -> None:
    assert split_names(["Train", "Test"]) == {"Train": "train", "Test": "test"}
    assert split_names(["development", "evaluation"]) == {"development": "train", "evaluation": "test"}
    assert split_names(["train", "dev", "eval"]) == {"train": "train", "dev": "validation", "eval": "test"}
    assert split_names(["train", "eval", "test"]) == {"train": "train", "eval": "validation", "test": "test"}
    assert split_names(["tested", "dog", "training day"]) == {}


@pytest.mark.parametrize(
    "columns",
    ["start,end", "Start (s),End (s)", "begin_time,end_time", "Begin Time (s),End Time (s)", "onset,offset",
     "START_S,END_S", "start_time,stop_time", "start_ms,end_ms", "offset,duration", "start,length", "tmin,tmax",
     "start sec,end sec", "from,to", "t0,t1"],
)  # fmt: skip
def test_segments_under_any_usual_name_are_segments(tmp_path: Path, columns: str) -> None:
    lasting = "duration" in columns or "length" in columns
    start, end = (1500, 2250) if "ms" in columns else (1.5, 0.75 if lasting else 2.25)
    clips = table(tmp_path, f"file,{columns},label\na.wav,{start},{end},wren\n")
    assert clips.title(0) == "a.wav#t=1.5,2.25"
    assert list(clips.columns) == ["label"]


def test_times_in_minutes_are_minutes_and_a_column_from_alone_is_a_label(tmp_path: Path) -> None:
    clips = table(tmp_path, "file,start_min,end_min,label\na.wav,1,1.5,wren\n")
    assert clips.title(0) == "a.wav#t=60,90"
    clips = table(tmp_path, "file,from,label\na.wav,Kenya,wren\n")
    assert (clips.title(0), list(clips.columns["from"])) == ("a.wav", ["Kenya"])


def test_times_are_read_as_people_write_them_and_samples_are_refused(tmp_path: Path) -> None:
    assert [seconds(text) for text in ("1.5", "1,5", "00:01.5", "0:00:01.5", " 2 ")] == [1.5, 1.5, 1.5, 1.5, 2.0]
    for wrong in ("-1", "nan", "inf", "1:2:3:4", "x", "0:-1"):
        with pytest.raises(ValueError, match=r"could not|is not"):
            seconds(wrong)
    with pytest.raises(DataError, match="'start_sample' counts samples"):
        table(tmp_path, "file,start_sample,end_sample,label\na.wav,0,100,x\n")
    with pytest.raises(DataError, match="line 2: start is '2020-01-01'"):
        table(tmp_path, "file,start,end,label\na.wav,2020-01-01,3,x\n")


# Where the files are, what they have in common, where their energy is


def test_files_below_another_folder_are_found_and_the_root_is_named(tmp_path: Path) -> None:
    for i in range(12):
        sound(tmp_path / "data" / "audio" / f"{i}.wav", seed=i)
    text = "file,label\n" + "".join(f"audio/{i}.wav,{'ab'[i % 2]}\n" for i in range(12))
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(DataError, match=rf"audio/0.wav; --root .*set --root to {tmp_path / 'data'}$"):
        inspect_path(tmp_path / "t.csv")
    with pytest.raises(DataError, match=rf"set tasks.x.data.root to {tmp_path / 'data'}$"):
        prepared(tmp_path, text)
    found = inspect_path(tmp_path / "t.csv", root=tmp_path / "data")
    made = make_recipe(tmp_path / "t.csv", found, root=str(tmp_path / "data"))
    assert yaml.safe_load(made)["tasks"]["label"]["data"]["root"] == str(tmp_path / "data")


@pytest.mark.parametrize("column", ["fsID", "identifier", "recording", "session", "src_file", "zyx"])
def test_what_clips_have_in_common_is_proposed_under_any_name(column: str) -> None:
    rng = np.random.RandomState(0)
    origins = np.repeat(np.arange(20), 7).tolist()
    classes = [f"c{o % 5}" for o in origins]
    clips = Clips([f"{i}.wav" for i in range(140)], {}, [""] * 140)
    clips.columns = {
        "label": classes,
        "classID": [c[1:] for c in classes],
        "salience": rng.randint(1, 3, 140).astype(str).tolist(),
        "gain": rng.randint(0, 40, 140).astype(str).tolist(),
        column: [f"1{o:03d}" for o in origins],
    }
    assert origin_column(clips, "label") == column
    del clips.columns[column]
    assert origin_column(clips, "label") is None


@pytest.mark.parametrize(
    ("rate", "tones", "wanted"),
    [
        (8000, [500], 8000),
        (44100, [500], 16000),
        (44100, [12000], 32000),
        (256000, [45000, 80000], 256000),
        (384000, [2000], 384000),
    ],
)
def test_the_rate_is_where_the_energy_is(tmp_path: Path, rate: int, tones: list[int], wanted: int) -> None:
    time = np.arange(rate // 4) / rate
    for i in range(12):
        (tmp_path / "ab"[i % 2]).mkdir(exist_ok=True)
        tone = sum(np.sin(2 * np.pi * hz * time) for hz in tones)
        soundfile.write(
            tmp_path / "ab"[i % 2] / f"{i}.wav", 0.1 * tone + 1e-4 * np.random.RandomState(i).randn(len(time)), rate
        )
    assert rate_for(inspect_path(tmp_path)) == wanted


def test_a_channel_is_chosen_and_kept_apart_in_the_cache(tmp_path: Path) -> None:
    wave = np.stack([np.full(800, 0.25), np.full(800, -0.5)], 1)
    for i in range(20):
        soundfile.write(tmp_path / f"{i}.wav", wave + 1e-3 * i, 8000)
    rows = "file,label\n" + "".join(f"{i}.wav,{'ab'[i % 2]}\n" for i in range(20))
    for channel, level in (("mix", -0.125), ("left", 0.25), ("right", -0.5), (2, -0.5), ("loudest", -0.5)):
        (sets, _, _), tasks = prepared(tmp_path, rows, data={"channel": channel})
        assert sets[0].clips.read(0, 8000).mean() == pytest.approx(level, abs=1e-4)
        kept, _, _ = prepare_data(tasks, sample_rate=8000, cache=str(tmp_path / "cache"))
        assert kept[0].clips.read(0, 8000).mean() == pytest.approx(level, abs=1e-4)
    with pytest.raises(DataError, match="there is no channel 3"):
        prepared(tmp_path, rows, data={"channel": 3})
