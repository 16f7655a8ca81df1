"""Decoding of real files, good and bad."""

import os
from pathlib import Path

import numpy as np
import pytest
import soundfile

from audiostride.data.decoding import audio_info, read_audio
from audiostride.errors import DataError
from conftest import tone


@pytest.mark.parametrize(
    ("ending", "tolerance"), [("wav", 1e-4), ("flac", 1e-4), ("aiff", 1e-4), ("ogg", 0.1), ("mp3", 0.1)]
)
def test_every_common_format_is_read(tmp_path: Path, ending: str, tolerance: float) -> None:
    path = tmp_path / f"tone.{ending}"
    soundfile.write(path, tone(440), 16000)
    waveform = read_audio(path, 16000)
    assert waveform.dtype == np.float32
    assert len(waveform) == audio_info(path).frames == 16000
    assert np.abs(waveform - tone(440))[1000:-1000].max() < tolerance


def test_channels_are_averaged(tmp_path: Path) -> None:
    path = tmp_path / "stereo.wav"
    soundfile.write(path, np.stack([tone(440), -0.5 * tone(440)], 1), 16000, subtype="FLOAT")
    np.testing.assert_allclose(read_audio(path, 16000), 0.25 * tone(440), atol=1e-6)


@pytest.mark.parametrize("rate", [8000, 11025, 44100, 48000])
def test_other_rates_are_resampled_to_the_same_sound(tmp_path: Path, rate: int) -> None:
    path = tmp_path / "tone.wav"
    soundfile.write(path, tone(440, sample_rate=rate), rate, subtype="FLOAT")
    waveform = read_audio(path, 16000)
    assert len(waveform) == 16000
    assert np.abs(waveform - tone(440))[500:-500].max() < 1e-3


def test_a_part_is_the_same_samples_as_in_the_whole(tmp_path: Path) -> None:
    path = tmp_path / "noise.wav"
    soundfile.write(path, np.random.RandomState(0).uniform(-0.5, 0.5, 16000), 16000, subtype="FLOAT")
    np.testing.assert_array_equal(
        read_audio(path, 16000, start_s=0.25, duration_s=0.5), read_audio(path, 16000)[4000:12000]
    )


def bad_files(folder: Path) -> dict[str, Path]:
    """One file for each way to be bad, by the words its error must hold."""
    good = folder / "good.wav"
    soundfile.write(good, tone(440), 16000)
    files: dict[str, Path] = {}
    for ending in ("wav", "flac", "ogg", "mp3", "aiff"):
        whole = folder / f"whole.{ending}"
        soundfile.write(whole, tone(440), 16000)
        half = folder / f"half.{ending}"
        half.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
        files[f"half {ending}"] = half
    files["is empty"] = folder / "empty.wav"
    files["is empty"].touch()
    files["holds no samples"] = folder / "header.wav"
    files["holds no samples"].write_bytes(good.read_bytes()[:44])
    files["not audio"] = folder / "text.wav"
    files["not audio"].write_text("I am not a sound")
    files["directory"] = folder / "directory.wav"
    files["directory"].mkdir()
    files["is not a file"] = folder / "fifo.wav"
    os.mkfifo(files["is not a file"])
    files["No such file"] = folder / "missing.wav"
    for name, value in (("NaN", np.nan), ("infinite", np.inf)):
        sound = tone(440)
        sound[77] = value
        files[name] = folder / f"{name}.wav"
        soundfile.write(files[name], sound, 16000, subtype="FLOAT")
    return files


def test_every_bad_file_is_named_with_what_is_wrong(tmp_path: Path) -> None:
    for reason, path in bad_files(tmp_path).items():
        with pytest.raises(DataError) as caught:
            read_audio(path, 16000)
        assert str(path) in str(caught.value)
        if not reason.startswith("half"):
            assert reason in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_wav_written_to_a_pipe_with_an_unknown_length_is_read(tmp_path: Path) -> None:
    path = tmp_path / "streamed.wav"
    soundfile.write(path, tone(440), 16000)
    content = bytearray(path.read_bytes())
    content[4:8] = content[40:44] = b"\xff\xff\xff\xff"
    path.write_bytes(content)
    assert len(read_audio(path, 16000)) == 16000
