"""Every audio file is decoded as documented or refused by name, in bounded time and memory."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hostile_audio import OK, make_corpus, measure_all
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from audiostride import read_audio
from audiostride.data.decoding import MAX_SAMPLES
from audiostride.errors import DataError, printable


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    folder = tmp_path_factory.mktemp("corpus")
    return folder, make_corpus(folder)


def test_every_hostile_file_is_read_or_refused_by_name_within_a_second_and_200_mb(tmp_path: Path) -> None:
    readings = measure_all(tmp_path / "corpus")
    assert len(readings) > 80
    for reading in readings:
        assert reading.cpu_s < 1, reading
        assert reading.peak_mb < 200, reading
        assert bool(reading.message) == (reading.expected != OK), reading
        assert reading.expected in reading.message, reading
        assert not reading.message or printable(reading.name) in reading.message, reading


def test_a_part_of_a_ten_hour_file_can_be_read(corpus: tuple[Path, dict[str, str]]) -> None:
    assert len(read_audio(corpus[0] / "ten-hours.wav", 16000, start_s=35_000, duration_s=1.0)) == 16000


def test_the_longest_file_is_judged_by_its_length_after_resampling_too(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "slow.wav", np.zeros(MAX_SAMPLES // 150), 100)
    with pytest.raises(DataError, match="samples that can be decoded at once"):
        read_audio(tmp_path / "slow.wav", 16000)


def test_channels_read_block_by_block_are_averaged_as_a_whole(tmp_path: Path) -> None:
    sound = np.random.RandomState(0).uniform(-0.5, 0.5, (300_000, 5)).astype(np.float32)
    soundfile.write(tmp_path / "five.wav", sound, 16000, subtype="FLOAT")
    np.testing.assert_array_equal(read_audio(tmp_path / "five.wav", 16000), sound.mean(axis=1))


def test_the_command_prints_a_name_that_is_no_text(tmp_path: Path) -> None:
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        for i in range(3):
            soundfile.write(tmp_path / label / f"{i}.wav", np.zeros(1600), 16000)
    name = os.path.join(os.fsencode(tmp_path), b"a", b"bad\n\xff.wav")
    with open(name, "wb") as file:
        file.write(b"no sound")
    command = [sys.executable, "-m", "audiostride", "train", "folder", f"tasks.label.data.path={tmp_path}"]
    done = subprocess.run([*command, "--out", str(tmp_path / "run")], capture_output=True, text=True)
    assert done.returncode == 4
    assert r"a/bad\n\udcff.wav: is not audio" in done.stderr
    assert "Traceback" not in done.stderr


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_file_with_changed_bytes_is_read_or_refused_with_our_own_error(tmp_path: Path, data: st.DataObject) -> None:
    ending = data.draw(st.sampled_from(["wav", "flac", "ogg", "aiff", "mp3"]))
    path = tmp_path / f"x.{ending}"
    soundfile.write(path, 0.1 * np.random.RandomState(0).standard_normal(2000), 16000)
    content = bytearray(path.read_bytes())
    for place in data.draw(st.lists(st.integers(0, min(len(content), 400) - 1), min_size=1, max_size=4)):
        content[place] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(1, len(content)))])
    message = ""
    try:
        assert np.isfinite(read_audio(path, 16000)).all()
    except DataError as error:
        message = str(error)
    assert str(path) in message or not message
