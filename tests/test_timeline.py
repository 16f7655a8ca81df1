"""Predictions as label files: what Audacity and Raven, and `source: annotated`, read back."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from typer.testing import CliRunner

from audiostride import AudioClassifier, create_model
from audiostride.cli import app
from audiostride.data.annotations import Segment, read_annotated, read_labels, write_raven
from audiostride.errors import DataError, PartialError, UsageError
from audiostride.inference.embedding import open_sounds
from audiostride.inference.label_files import segments, write_label_files
from audiostride.inference.predict import Row, predict_sounds


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that tells loud from soft, without training: its head is set by hand."""
    folder = tmp_path_factory.mktemp("run")
    model = create_model("audio_cnn_strided", heads={"level": ["loud", "soft"]}, channels=(4,), strides=((2, 2),))
    model.eval()
    means = [model.embed_windows(level * torch.randn(8, 16000)).mean(0) for level in (0.5, 0.001)]
    direction = means[0] - means[1]
    direction *= 2 / direction.square().sum()  # scores of 0.88: none is 1 to rounding
    with torch.no_grad():
        head = model.heads["level"]
        head.weight.copy_(torch.stack([direction, -direction]))
        middle = (means[0] + means[1]) / 2 @ direction
        head.bias.copy_(torch.stack([-middle, middle]))
    model.save(folder)
    return folder


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    """A recording that is soft for 3 s and then loud for 2 s, one that is soft throughout, and one that is none."""
    random = np.random.RandomState(0)
    folder = tmp_path / "recordings"
    (folder / "june").mkdir(parents=True)
    level = np.repeat([0.001, 0.5], [48000, 32000])
    soundfile.write(folder / "may.wav", np.clip(level * random.standard_normal(80000), -1, 1), 16000)
    soundfile.write(folder / "june" / "first.flac", 0.001 * random.standard_normal(32000), 16000)
    return folder


def call(*arguments: object) -> None:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize(("label_format", "ending"), [("audacity", ".txt"), ("raven", ".selections.txt")])
def test_the_command_writes_a_label_file_for_each_recording(
    run_dir: Path, recordings: Path, tmp_path: Path, label_format: str, ending: str
) -> None:
    call("predict", run_dir, recordings, "--format", label_format, "--out", tmp_path / "labels")
    found = read_labels(tmp_path / "labels" / f"may{ending}")
    assert [tuple(segment[:3]) for segment in found] == [(0.0, 3.0, "soft"), (3.0, 5.0, "loud")]
    assert [s.label for s in read_labels(tmp_path / "labels" / "june" / f"first{ending}")] == ["soft"]
    assert all((s.score is None) == (label_format == "audacity") for s in found)
    with pytest.raises(UsageError, match=r"already exists"):
        call("predict", run_dir, recordings, "--format", label_format, "--out", tmp_path / "labels")


def test_overlapping_windows_share_their_time_and_what_scores_little_is_left_out(
    run_dir: Path, recordings: Path, tmp_path: Path
) -> None:
    arguments = ("predict", run_dir, recordings / "may.wav", "--format", "raven", "--out")
    call(*arguments, tmp_path / "half", "--overlap", 0.5)
    found = read_labels(tmp_path / "half" / "may.selections.txt")
    assert [segment.label for segment in found] == ["soft", "loud"]
    assert [segment.start_s for segment in found] == [0.0, found[0].end_s]
    assert found[0].end_s == pytest.approx(3.0, abs=0.26)  # half a step of the windows
    assert found[1].end_s == 5.0
    for number, smallest in enumerate((0.0, found[0].score, 1.0)):
        call(*arguments, tmp_path / str(number), "--min-score", smallest)
        kept = read_labels(tmp_path / str(number) / "may.selections.txt")
        assert all((segment.score or 0) >= smallest for segment in kept)
    assert kept == []
    with pytest.raises(UsageError, match="add --format"):
        call("predict", run_dir, recordings, "--min-score", 0.5)


def test_windows_that_end_with_the_sound_overlap_no_others(run_dir: Path, tmp_path: Path) -> None:
    noise = np.random.RandomState(0).standard_normal(16000 * 3 - 9600)
    noise[: 16000 * 2 - 9600] *= 0.001  # 1.4 s soft, then 1 s loud, which is the last of three windows
    soundfile.write(tmp_path / "a.wav", np.clip(0.5 * noise, -1, 1), 16000)
    call("predict", run_dir, tmp_path / "a.wav", "--format", "audacity", "--out", tmp_path / "labels")
    found = read_labels(tmp_path / "labels" / "a.txt")
    assert found[-1].end_s == pytest.approx(2.4)
    assert all(one.end_s <= two.start_s for one, two in itertools.pairwise(found))


def test_label_files_beside_their_recordings_are_training_data(run_dir: Path, recordings: Path) -> None:
    call("predict", run_dir, recordings, "--format", "raven", "--out", recordings)
    clips = read_annotated(recordings)
    assert list(clips.columns["label"]) == ["soft", "soft", "loud"]
    assert clips.title(2) == "may.wav#t=3,5"
    assert clips.n_samples(2, 16000) == 32000


def test_a_recording_that_cannot_be_read_is_named_and_has_no_file(
    run_dir: Path, recordings: Path, tmp_path: Path
) -> None:
    (recordings / "torn.wav").write_bytes(b"RIFF")
    with pytest.raises(PartialError, match="1 of 3 sounds could not be used"):
        call("predict", run_dir, recordings, "--format", "raven", "--out", tmp_path / "labels")
    assert len(list((tmp_path / "labels").rglob("*.txt"))) == 2
    with pytest.raises(DataError, match="1 of 1 sounds"):
        call("predict", run_dir, recordings / "torn.wav", "--format", "raven", "--out", tmp_path / "other")


def test_two_sounds_that_would_share_a_label_file_are_refused(run_dir: Path, recordings: Path, tmp_path: Path) -> None:
    soundfile.write(recordings / "may.flac", np.zeros(16000), 16000)
    with pytest.raises(UsageError, match=r"may\.wav and .*may\.flac would share"):
        call("predict", run_dir, recordings, "--format", "raven", "--out", tmp_path / "labels")
    with pytest.raises(UsageError, match="needs --out DIR"):
        call("predict", run_dir, recordings, "--format", "raven")


def test_a_multilabel_task_has_every_label_that_reaches_its_threshold(recordings: Path, tmp_path: Path) -> None:
    tags = ["crow", "rain", "wren"]
    model = create_model("audio_cnn_strided", heads={"tags": tags}, channels=(4,), strides=((2, 2),)).eval()
    model = AudioClassifier(model.frontend, model.trunk, {"tags": tags}, kinds={"tags": "multilabel"}).eval()
    with torch.no_grad():
        model.heads["tags"].weight.zero_()
        model.heads["tags"].bias.copy_(torch.tensor([2.0, 0.1, -2.0]))
    model.thresholds = {"tags": [0.5, 0.9, 0.05]}
    sounds = list(open_sounds([str(recordings / "may.wav")], 16000))
    assert write_label_files(model, sounds, tmp_path / "labels", "audacity", workers=0) == 0
    found = read_labels(tmp_path / "labels" / "may.txt")
    assert [tuple(segment[:3]) for segment in found] == [(0.0, 5.0, "crow"), (0.0, 5.0, "wren")]


def test_segments_of_several_tasks_carry_their_task_and_gaps_stay_gaps() -> None:
    rows = [Row("a", task, t, t + 1, 1, "x", 0.5 + t / 10) for t in (0, 1, 3) for task in ("one", "two")]
    rows.append(Row("a", error="cut short"))
    kinds = {"one": "multiclass", "two": "binary"}
    found = segments(rows, kinds, {"one": ["x"], "two": ["x", "y"]}, {})
    assert [tuple(s[:3]) for s in found] == [
        (0, 2, "one: x"),
        (0, 2, "two: x"),
        (3, 4, "one: x"),
        (3, 4, "two: x"),
    ]
    assert found[0].score == pytest.approx(0.55)


def test_scores_come_back_from_a_raven_table(tmp_path: Path) -> None:
    wanted = [Segment(0.0, 1.0, "wren", score=0.75), Segment(2.0, 3.0, "crow")]
    write_raven(tmp_path / "a.selections.txt", wanted)
    assert read_labels(tmp_path / "a.selections.txt") == wanted


def test_a_timeline_has_the_windows_of_the_rows(run_dir: Path, recordings: Path) -> None:
    from audiostride import load

    sounds = open_sounds([str(recordings / "may.wav")], 16000)
    rows = [row for answer in predict_sounds(load(run_dir), sounds, per_window=True) for row in answer.rows]
    assert [row.label for row in rows] == ["soft"] * 3 + ["loud"] * 2
