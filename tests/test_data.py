"""Folders, splits, batches and the embedded ripples."""

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from audiostride.data.any_path import read_path
from audiostride.data.bad_files import drop_bad_files
from audiostride.data.batches import LabelledClips, training_batches
from audiostride.data.clips import ArrayClips, Clips, class_names
from audiostride.data.epoch_plan import plan_epoch
from audiostride.data.folder import read_folder, unlabelled_files
from audiostride.data.ripples import RATES_HZ, make_ripples, ripple
from audiostride.data.splits import assign_splits
from audiostride.errors import DataError
from audiostride.models.log_mel import LogMel
from conftest import tone


def write_metadata(folder: Path, rows: list[str], header: str = "file_name,label,speaker") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for row in rows:
        soundfile.write(folder / row.split(",")[0], tone(440, 0.1), 16000)
    (folder / "metadata.csv").write_text("\n".join([header, *rows]) + "\n")


def test_class_folders_become_the_label_column(tone_folder: Path) -> None:
    clips = read_folder(tone_folder)
    assert len(clips) == 60
    assert set(clips.columns) == {"label"}
    assert clips.names[0] == "high/00.wav"
    assert set(clips.splits) == {""}


def test_metadata_gives_every_column_and_split_folders_the_splits(tmp_path: Path) -> None:
    write_metadata(tmp_path / "train", ["a.wav,x,s1", "b.wav,y,s2"])
    write_metadata(tmp_path / "test", ["c.wav,x,s3"])
    clips = read_folder(tmp_path)
    assert dict(zip(clips.names, clips.splits, strict=True)) == {
        "test/c.wav": "test",
        "train/a.wav": "train",
        "train/b.wav": "train",
    }
    assert clips.column("speaker") == ["s3", "s1", "s2"]


def test_a_table_in_a_split_folder_names_files_that_lie_elsewhere(tmp_path: Path) -> None:
    write_metadata(tmp_path / "sounds", ["a.wav,x,s1"])
    (tmp_path / "set" / "train").mkdir(parents=True)
    path = tmp_path / "sounds" / "a.wav"
    (tmp_path / "set" / "train" / "metadata.csv").write_text(f"file_name,label\n{path},x\n")
    clips = read_folder(tmp_path / "set")
    assert len(clips.read(0, 16000)) == 1600
    assert list(clips.splits) == ["train"]


def test_what_a_table_names_in_another_way_is_not_left_out(tmp_path: Path) -> None:
    write_metadata(tmp_path / "train", ["./a.wav,x,s1", "b.wav,y,s2"])
    soundfile.write(tmp_path / "train" / "c.wav", tone(440, 0.1), 16000)
    assert unlabelled_files(tmp_path, read_folder(tmp_path).names) == ["train/c.wav"]


def test_a_wrong_column_is_answered_with_the_nearest(tmp_path: Path) -> None:
    write_metadata(tmp_path, ["a.wav,x,s1"])
    with pytest.raises(DataError, match=r"'speeker'.*did you mean 'speaker'"):
        read_folder(tmp_path).column("speeker")


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda p: None, "no such folder"),
        (lambda p: p.mkdir(), "holds no audio"),
        (lambda p: (p.mkdir(), soundfile.write(p / "a.wav", tone(440), 16000)), "its 1 audio files have no labels"),
        (lambda p: p.write_text(""), "is not a folder"),
        (lambda p: write_metadata(p, ["a.wav,x,s"], "sound,label,speaker"), "names no file"),
        (lambda p: (write_metadata(p, ["a.wav,x,s"]), (p / "a.wav").unlink()), "line 2: there is no file"),
        (
            lambda p: (write_metadata(p, ["a.wav,x,s"]), (p / "metadata.csv").write_text("file_name,label\na.wav\n")),
            "line 2",
        ),
        (lambda p: (p.mkdir(), (p / "metadata.csv").write_bytes(b"file_name\n\xff\xfe\n")), "not a UTF-8 CSV"),
    ],
)
def test_what_is_wrong_with_a_folder_is_said_with_its_name(tmp_path: Path, prepare, message: str) -> None:
    folder = tmp_path / "sounds"
    prepare(folder)
    with pytest.raises(DataError, match=message) as caught:
        read_folder(folder)
    assert str(folder) in str(caught.value)


def test_a_file_that_is_no_table_is_refused_with_the_endings_of_tables(tmp_path: Path) -> None:
    (tmp_path / "calls.txt").write_text("")
    with pytest.raises(DataError, match=r"calls\.txt: is neither a folder nor a table .*\.csv, \.tsv, \.jsonl"):
        read_path(tmp_path / "calls.txt")


def test_hidden_folders_are_no_classes(tone_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tone_folder, tmp_path / "tones")
    shutil.copytree(folder / "low", folder / ".ipynb_checkpoints")
    assert set(read_folder(folder).columns["label"]) == {"high", "low"}


def test_a_split_of_another_name_is_said_in_full() -> None:
    clips = Clips(["a", "b"], {"label": ["x", "y"]}, ["train", "validation.clean"])
    with pytest.raises(DataError, match=r"splits named validation\.clean; say what each is for with the key splits"):
        assign_splits(clips, ["x", "y"], seed=0)


def test_numbers_sort_as_numbers_and_words_as_words() -> None:
    assert class_names(["10", "9", "9", "100"]) == ["9", "10", "100"]
    assert class_names(["b", "10", "a"]) == ["10", "a", "b"]


def bad_copy(tone_folder: Path, folder: Path) -> Path:
    shutil.copytree(tone_folder, folder)
    (folder / "low" / "03.wav").write_bytes(b"")
    (folder / "low" / "99.wav").mkdir()
    return folder


def test_all_bad_files_are_named_in_one_error(tone_folder: Path, tmp_path: Path) -> None:
    clips = read_folder(bad_copy(tone_folder, tmp_path / "copy"))
    with pytest.raises(DataError, match="2 of 61 audio files") as caught:
        drop_bad_files(clips, 16000, "error")
    assert "low/03.wav: is empty" in str(caught.value)
    assert "low/99.wav: is not a file but a directory" in str(caught.value)
    assert "on_bad_file=skip" in str(caught.value)


def test_bad_files_are_left_out_and_listed_on_request(tone_folder: Path, tmp_path: Path) -> None:
    clips = read_folder(bad_copy(tone_folder, tmp_path / "copy"))
    good, bad = drop_bad_files(clips, 16000, "skip")
    assert len(good) == 59
    assert len(bad) == 2
    assert not {"low/03.wav", "low/99.wav"} & set(good.names)


def test_splits_are_stratified_seeded_and_leave_no_group_on_two_sides() -> None:
    labels = [["a", "b", "c"][i % 3] for i in range(600)]
    speakers = [f"s{i % 3}-{i // 3 % 40}" for i in range(600)]
    clips = Clips([f"{i}.wav" for i in range(600)], {"speaker": speakers}, [""] * 600)
    splits = assign_splits(clips, labels, seed=0, group="speaker")
    assert splits == assign_splits(clips, labels, seed=0, group="speaker")
    assert splits != assign_splits(clips, labels, seed=1, group="speaker")
    assert len(set(zip(speakers, splits, strict=True))) == len(set(speakers))
    for label in "abc":
        own = [s for s, lab in zip(splits, labels, strict=True) if lab == label]
        assert [own.count(name) for name in ("train", "validation", "test")] == [160, 20, 20]


def test_given_splits_are_kept_and_validation_is_held_back_from_train_alone() -> None:
    clips = Clips([str(i) for i in range(200)], {}, ["train"] * 100 + ["test"] * 100)
    splits = assign_splits(clips, ["a"] * 200, seed=0, validation_fraction=0.2)
    assert splits[100:] == ["test"] * 100
    assert splits[:100].count("validation") == 20


def test_a_split_that_stays_empty_is_an_error() -> None:
    with pytest.raises(DataError, match="nothing for the"):
        assign_splits(Clips(["a", "b"], {}, ["", ""]), ["x", "y"], seed=0)


def labelled(n: int, samples: int = 1600) -> LabelledClips:
    waveforms = np.arange(n, dtype=np.float32)[:, None] / n + np.zeros((1, samples), np.float32)
    clips = ArrayClips([f"{i}" for i in range(n)], {}, ["train"] * n, waveforms=waveforms, sample_rate=16000)
    return LabelledClips(clips, {"task": np.arange(n)}, ["train"] * n)


@pytest.mark.parametrize("size", [2, 63, 64, 65, 129, 200])
def test_an_epoch_holds_every_clip_once_and_no_batch_of_one(size: int) -> None:
    plan = plan_epoch([size], 64, "uniform", seed=0, epoch=3)
    assert sorted(np.concatenate([rows for ((_, rows),) in plan]).tolist()) == list(range(size))
    assert min(len(rows) for ((_, rows),) in plan) > 1


def test_epochs_and_seeds_have_their_own_order() -> None:
    orders = {tuple(plan_epoch([50], 50, "uniform", seed, epoch)[0][0][1]) for seed in (0, 1) for epoch in (0, 1)}
    assert len(orders) == 4


def test_proportional_mixing_takes_every_clip_once_and_uniform_every_set_as_often() -> None:
    proportional = plan_epoch([640, 64], 64, "proportional", 0, 0)
    assert [sum(number == n for ((number, _),) in proportional) for n in (0, 1)] == [10, 1]
    uniform = plan_epoch([640, 64], 64, "uniform", 0, 0)
    assert [sum(number == n for ((number, _),) in uniform) for n in (0, 1)] == [6, 6]


def test_uniform_mixing_goes_on_through_a_large_set_in_the_next_epoch() -> None:
    seen = [
        rows
        for epoch in range(2)
        for ((number, rows),) in plan_epoch([640, 64], 64, "uniform", 0, epoch)
        if number == 0
    ]
    first_pass = np.concatenate(seen)[:640] if len(seen) >= 10 else None
    assert first_pass is not None
    assert len(set(np.concatenate(seen).tolist())) == 640


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_do_not_depend_on_the_number_of_workers(workers: int) -> None:
    data = [labelled(20, samples=3000)]
    batches = list(training_batches(data, 16000, 1600, 8, "uniform", seed=0, epoch=1, workers=workers))
    reference = list(training_batches(data, 16000, 1600, 8, "uniform", seed=0, epoch=1, workers=0))
    assert len(batches) == 3
    for batch, expected in zip(batches, reference, strict=True):
        assert torch.equal(batch.waveform, expected.waveform)
        assert torch.equal(batch.labels["task"], expected.labels["task"])
        assert batch.names == [str(i) for i in batch.labels["task"].tolist()]


def test_a_bad_file_met_by_a_worker_is_a_plain_error(tone_folder: Path, tmp_path: Path) -> None:
    clips = read_folder(bad_copy(tone_folder, tmp_path / "copy"))
    data = [LabelledClips(clips, {"task": np.zeros(61, np.int64)}, ["train"] * 61)]
    with pytest.raises(DataError, match=r"low/(03|99).wav") as caught:
        list(training_batches(data, 16000, 16000, 8, "uniform", seed=0, epoch=0, workers=2))
    assert "Traceback" not in str(caught.value)


def test_a_random_window_lies_inside_a_long_clip_and_around_a_short_one() -> None:
    ramp = np.arange(1, 1001, dtype=np.float32)[None]
    long = ArrayClips(["long"], {}, [""], waveforms=ramp, sample_rate=16000)
    short = ArrayClips(["short"], {}, [""], waveforms=ramp[:, :10], sample_rate=16000)
    starts, places = set(), set()
    for seed in range(200):
        window = long.random_window(0, 16000, 100, np.random.default_rng(seed))
        assert (np.diff(window) == 1).all()
        starts.add(int(window[0]))
        window = short.random_window(0, 16000, 30, np.random.default_rng(seed))
        assert window.sum() == 55
        places.add(int(np.flatnonzero(window)[0]))
    assert len(starts) > 150
    assert places == set(range(21))


RIPPLES_DIGEST = "182c7b7d93314aa21fc92f97b69e856ef878f1ad0b35215295b09049bb1db3f8"


def test_ripples_are_the_same_on_every_machine() -> None:
    clips = make_ripples(250)
    rounded = np.round(clips.waveforms / 16.0).astype(np.int16)
    assert hashlib.sha256(rounded.tobytes()).hexdigest() == RIPPLES_DIGEST
    assert [clips.splits.count(name) for name in ("train", "validation", "test")] == [200, 25, 25]
    assert sorted(set(clips.columns["rate"]), key=float) == [f"{rate:g}" for rate in RATES_HZ]


def test_ripples_that_were_made_last_are_taken_again() -> None:
    said: list[str] = []
    first, again = (make_ripples(50, 1, lambda what, *_: said.append(what)).waveforms for _ in range(2))
    assert said == ["making ripples"]
    assert first is again
    with pytest.raises(ValueError, match="read-only"):
        first[0] = 0
    assert not np.array_equal(make_ripples(50, 2).waveforms, first)
    assert np.array_equal(make_ripples(50, 1).waveforms, first)


def test_a_ripples_modulation_is_found_where_it_was_put() -> None:
    noise = np.random.RandomState(0).standard_normal((1, 16000))
    for rate_hz, scale in ((4.0, 0.06), (16.0, 0.0), (-8.0, 0.12)):
        waveform = ripple(rate_hz, scale, 14.0, 0.0, noise)[0]
        spectrogram = LogMel()(torch.from_numpy(waveform).float())[0, :, 16:].numpy()
        plane = np.abs(np.fft.fft2(spectrogram - spectrogram.mean(0)))
        rates, scales = np.fft.fftfreq(100, 0.01), np.fft.fftfreq(48)
        row, column = np.unravel_index(plane.argmax(), plane.shape)
        sign = np.sign(rates[row]) or 1.0
        assert sign * rates[row] == pytest.approx(abs(rate_hz), abs=1.0)
        assert sign * scales[column] == pytest.approx(np.sign(rate_hz) * scale, abs=0.022)
