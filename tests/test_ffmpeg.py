"""Files that libsndfile does not read, made by the library that reads them."""

import io
from pathlib import Path

import numpy as np
import pytest

from audiostride.data.decoding import audio_blocks, audio_info, is_audio, read_audio
from audiostride.data.folder import read_folder
from audiostride.errors import DataError

av = pytest.importorskip("av", reason="the extra ffmpeg")

KINDS = {
    "m4a": ("aac", None, 44100),
    "mp4": ("aac", None, 22050),
    "wma": ("wmav2", "asf", 44100),
    "webm": ("libopus", None, 48000),
    "mka": ("aac", None, 44100),
    "wv": ("wavpack", None, 16000),
}


def sweep(rate: int, length_s: float) -> np.ndarray:
    """Left a rising tone, right another, float32 ``(2, samples)``."""
    time = np.arange(round(rate * length_s)) / rate
    tones = [0.4 * np.sin(2 * np.pi * (hz + 300 * time) * time) for hz in (400, 900)]
    return np.stack(tones).astype(np.float32)


def write(path: Path, length_s: float = 2.0) -> np.ndarray:
    codec, container, rate = KINDS[path.suffix[1:]]
    waveform = sweep(rate, length_s)
    with av.open(str(path), "w", format=container) as file:
        stream = file.add_stream(codec, rate=rate, layout="stereo", bit_rate=128000)
        frame = av.AudioFrame.from_ndarray(waveform, format="fltp", layout="stereo")
        frame.sample_rate, frame.pts = rate, 0
        for part in (frame, None):
            file.mux(stream.encode(part))
    return waveform


def alignment(made: np.ndarray, read: np.ndarray) -> tuple[int, float]:
    """By how many samples what was read is late, and how it correlates with what was written, so shifted."""
    n = 2 ** (len(made) + len(read)).bit_length()
    late = int(np.fft.irfft(np.fft.rfft(read, n) * np.fft.rfft(made, n).conj()).argmax())
    late -= n * (late > n / 2)
    made, read = (made, read[late:]) if late >= 0 else (made[-late:], read)
    n = min(len(made), len(read))
    return late, float(np.corrcoef(made[:n], read[:n])[0, 1])


@pytest.mark.parametrize("kind", KINDS)
def test_lengths_rates_and_channels_are_those_that_were_written(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"sound.{kind}"
    made, rate = write(path), KINDS[kind][2]
    info = audio_info(path)
    assert is_audio(path)
    assert (info.sample_rate, info.channels) == (rate, 2)
    assert info.frames == pytest.approx(made.shape[1], abs=0.05 * rate)
    if kind in ("m4a", "mp4", "wv", "webm"):
        assert info.frames == made.shape[1]
    for channel, wanted in (("left", made[0]), ("right", made[1]), ("mix", made.mean(0))):
        read = read_audio(path, rate, channel=channel)  # type: ignore[arg-type]
        assert len(read) == info.frames
        late, similar = alignment(wanted, read)
        assert late == (-2048 if kind == "wma" else 0)  # the first frame of WMA only prepares the next one
        assert similar > 0.98
    memory = io.BytesIO(path.read_bytes())
    memory.name = path.name
    np.testing.assert_array_equal(read_audio(memory, rate), read_audio(path, rate))
    part = read_audio(path, rate, start_s=0.5, duration_s=0.25)
    np.testing.assert_array_equal(part, read_audio(path, rate)[rate // 2 : rate // 2 + rate // 4])
    np.testing.assert_array_equal(np.concatenate(list(audio_blocks(path, rate))), read_audio(path, rate))


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_cut_or_damaged_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"sound.{kind}"
    write(path)
    whole = path.read_bytes()
    for share in (0.0, 0.02, 0.3, 0.6, 0.9):
        path.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(DataError, match=f"sound.{kind}: "):
            read_audio(path, 16000)
    if kind not in ("wma", "webm"):  # the frames of these have no checksum, as those of MP3
        damaged = bytearray(whole)
        for at in np.random.RandomState(0).randint(len(whole) // 3, 2 * len(whole) // 3, 50):
            damaged[at] ^= 255
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"cannot be decoded behind|cut short"):
            read_audio(path, 16000)


def test_playlists_and_films_without_sound_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "sound.m4a")
    (tmp_path / "list.m4a").write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\n{tmp_path}/sound.m4a\n")
    with pytest.raises(DataError, match=r"list.m4a: is not audio that FFmpeg can read"):
        read_audio(tmp_path / "list.m4a", 16000)
    with av.open(str(tmp_path / "film.mp4"), "w") as file:
        stream = file.add_stream("mpeg4", rate=10, width=32, height=32, pix_fmt="yuv420p")
        for part in (av.VideoFrame(32, 32, "yuv420p"), None):
            file.mux(stream.encode(part))
    with pytest.raises(DataError, match=r"film.mp4: is not audio that FFmpeg can read \(no audio stream\)"):
        audio_info(tmp_path / "film.mp4")


def test_a_class_of_m4a_files_is_read_as_any_other(tmp_path: Path) -> None:
    for name in ("cat/a.m4a", "dog/b.M4A"):
        (tmp_path / name).parent.mkdir()
        write(tmp_path / "x.m4a")
        (tmp_path / "x.m4a").rename(tmp_path / name)
    clips = read_folder(tmp_path)
    assert clips.columns == {"label": ["cat", "dog"]}
    assert clips.n_samples(0, 16000) == len(clips.read(0, 16000)) == 32000
