"""Files that are not whole, or not one file, are refused whatever their kind; standard input is judged as a file is."""

import io
import os
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from audiostride.data.annotations import read_labels
from audiostride.data.containers import mp3_samples, ogg_checksum
from audiostride.data.decoding import audio_blocks, audio_info, read_audio
from audiostride.data.manifest import read_manifest
from audiostride.data.sounds import find_sounds
from audiostride.errors import DataError, UsageError
from audiostride.inference.streams import pipe_blocks

KINDS = [
    *(
        ("WAV", "PCM_16"),
        ("WAV", "FLOAT"),
        ("WAVEX", "PCM_24"),
        ("RF64", "PCM_16"),
        ("W64", "PCM_16"),
        ("AU", "PCM_16"),
    ),
    *(("AIFF", "PCM_16"), ("CAF", "PCM_16"), ("CAF", "ALAC_16"), ("NIST", "PCM_16"), ("WAV", "IMA_ADPCM")),
    *(("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III")),
]
ENDINGS = {"MP3": "mp3", "WAVEX": "wav"}
NOISE = (0.1 * np.random.RandomState(0).standard_normal(8000)).astype(np.float32)


def encoded(folder: Path, kind: str, subtype: str, sound: np.ndarray = NOISE, rate: int = 16000) -> bytes:
    path = folder / f"made.{ENDINGS.get(kind, kind.lower())}"
    soundfile.write(path, sound, rate, format=kind, subtype=subtype)
    return path.read_bytes()


def refused(content: bytes) -> str:
    """What a file of this content is refused with."""
    with pytest.raises(DataError) as caught:
        read_audio(io.BytesIO(content), 16000)
    return str(caught.value)


@pytest.mark.parametrize(("kind", "subtype"), KINDS)
def test_no_cut_is_read_as_a_shorter_sound(tmp_path: Path, kind: str, subtype: str) -> None:
    whole = encoded(tmp_path, kind, subtype)
    n = len(read_audio(io.BytesIO(whole), 16000))
    for length in {*range(1, len(whole), len(whole) // 60), *range(len(whole) - 40, len(whole))}:
        try:
            assert len(read_audio(io.BytesIO(whole[:length]), 16000)) == n  # the cut took no sample
        except DataError:
            continue


def test_a_cut_anywhere_in_the_last_page_of_an_ogg_file_is_refused_by_path_and_by_bytes(tmp_path: Path) -> None:
    whole = encoded(tmp_path, "OGG", "VORBIS", np.tile(NOISE, 10))
    path = tmp_path / "cut.ogg"
    for length in range(whole.rfind(b"OggS") + 1, len(whole), 9):
        assert "Ogg page" in refused(whole[:length])
        path.write_bytes(whole[:length])
        for read in (audio_info, lambda path: list(audio_blocks(path, 16000))):
            with pytest.raises(DataError, match="Ogg page"):
                read(path)


@pytest.mark.parametrize(("kind", "subtype"), [("OGG", "VORBIS"), ("OGG", "OPUS"), ("FLAC", "PCM_16")])
def test_every_flipped_bit_is_noticed_where_a_checksum_is(tmp_path: Path, kind: str, subtype: str) -> None:
    whole = encoded(tmp_path, kind, subtype)
    first = 8 * 90 if kind == "FLAC" else 0  # its header has no checksum
    for place in np.random.RandomState(1).randint(first, 8 * len(whole), 150).tolist():
        damaged = bytearray(whole)
        damaged[place // 8] ^= 1 << place % 8
        refused(bytes(damaged))


def test_missing_pages_of_an_ogg_file_are_noticed(tmp_path: Path) -> None:
    whole = encoded(tmp_path, "OGG", "VORBIS", np.tile(NOISE, 10))
    pages = [b"OggS" + page for page in whole.split(b"OggS")[1:]]
    assert len(pages) > 4
    assert "pages are missing" in refused(b"".join(pages[:3] + pages[4:]))
    assert ogg_checksum(pages[3][:22] + bytes(4) + pages[3][26:]) == pages[3][22:26]


@pytest.mark.parametrize(("kind", "subtype"), KINDS)
def test_files_one_after_the_other_are_refused_and_a_tag_behind_the_sound_is_not(
    tmp_path: Path, kind: str, subtype: str
) -> None:
    whole, other = encoded(tmp_path, kind, subtype), encoded(tmp_path, kind, subtype, NOISE[:3000])
    for content in (whole + other, other + whole, whole + whole):
        refused(content)
        path = tmp_path / f"several.{ENDINGS.get(kind, kind.lower())}"
        path.write_bytes(content)
        with pytest.raises(DataError):
            read_audio(path, 16000, start_s=0.1, duration_s=0.1)
    if kind not in ("W64", "NIST"):  # libsndfile takes it for samples
        assert len(read_audio(io.BytesIO(whole + b"TAG" + bytes(125)), 16000)) == len(
            read_audio(io.BytesIO(whole), 16000)
        )


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44100, 48000])
def test_the_frames_of_an_mp3_are_counted_and_none_is_left_unread(tmp_path: Path, rate: int) -> None:
    """Without the frame that declares it, libsndfile guesses the length of a varying bit rate by its first frame."""
    a, b = (
        encoded(tmp_path, "MP3", "MPEG_LAYER_III", 0.3 * np.sin(np.arange(2 * rate) * tone).astype(np.float32), rate)
        for tone in (0.1, 0.5)
    )
    whole = len(read_audio(io.BytesIO(a), rate))
    assert whole <= mp3_samples(a) - 576 <= whole + 3 * 1152
    tags = b"ID3\4\0\0\0\0\1\0" + bytes(128), b"TAG" + bytes(125)
    assert mp3_samples(tags[0] + a + tags[1]) == mp3_samples(a)
    undeclared = [content[content.index(b"\xff", 50) :] for content in (a, b)]
    path = tmp_path / "several.mp3"
    for content in (a + undeclared[1], a + tags[0] + undeclared[1], undeclared[0] + undeclared[1], undeclared[0] + b):
        path.write_bytes(content)
        for given in (io.BytesIO(content), path):
            try:
                assert len(read_audio(given, rate)) > mp3_samples(content) - 5 * 1152  # all of it
            except DataError as error:
                assert "several MP3 files one after the other" in str(error)  # noqa: PT017
    assert "several MP3" in refused(a + undeclared[1])


@pytest.mark.parametrize("kind", ["AVR", "IRCAM", "MAT4", "MAT5", "PAF", "PVF", "SVX", "VOC"])
def test_kinds_that_do_not_tell_whether_they_are_whole_are_refused(tmp_path: Path, kind: str) -> None:
    assert f"of the kind {kind}" in refused(encoded(tmp_path, kind, "PCM_16"))


def test_a_flac_of_unknown_length_says_what_to_do(tmp_path: Path) -> None:
    content = bytearray(encoded(tmp_path, "FLAC", "PCM_16"))
    content[21] &= 0xF0
    content[22:26] = bytes(4)
    assert "encode it again" in refused(bytes(content))


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44100])
def test_mp3_in_memory_is_mp3_in_a_file(tmp_path: Path, rate: int) -> None:
    content = encoded(tmp_path, "MP3", "MPEG_LAYER_III", rate=rate)
    np.testing.assert_array_equal(read_audio(io.BytesIO(content), rate), read_audio(tmp_path / "made.mp3", rate))


def wav(sound: np.ndarray = NOISE, rate: int = 16000, subtype: str = "PCM_16", kind: str = "WAV") -> bytes:
    stream = io.BytesIO()
    soundfile.write(stream, sound, rate, format=kind, subtype=subtype)
    return stream.getvalue()


def with_rate(rate: int) -> bytes:
    return wav()[:24] + struct.pack("<I", rate) + wav()[28:]


def with_channels(channels: int) -> bytes:
    content = bytearray(wav(np.tile(NOISE[:, None], 4)))
    content[22:24], content[32:34] = struct.pack("<H", channels), struct.pack("<H", 2 * channels)
    return bytes(content)


def with_declared(content: bytes, size: int) -> bytes:
    place = content.index(b"data") + 4
    return content[:place] + struct.pack("<I", size) + content[place + 4 :]


def of_a_dead_recorder(kind: str) -> bytes:
    """All samples are there, the header has the zeros it began with."""
    content = wav(kind=kind)
    if kind == "RF64":
        return content[:20] + bytes(16) + content[36:]
    return with_declared(content[:4] + bytes(4) + content[8:], 0)


LIST = b"LIST" + struct.pack("<I", 4000) + bytes(4000)
WAVS: dict[str, Callable[[], bytes]] = {
    "stereo": lambda: wav(np.stack([NOISE, 0.5 * NOISE], 1)),
    "double": lambda: wav(subtype="DOUBLE"),
    "1 Hz": lambda: with_rate(1),
    "99 Hz": lambda: with_rate(99),
    "1,000,001 Hz": lambda: with_rate(1_000_001),
    "4 GHz": lambda: with_rate(4_000_000_000),
    "0 Hz": lambda: with_rate(0),
    "1024 channels": lambda: with_channels(1024),
    "1025 channels": lambda: with_channels(1025),
    "32,767 channels": lambda: with_channels(32_767),
    "NaN": lambda: wav(np.where(np.arange(8000) == 7000, np.nan, NOISE), subtype="FLOAT"),
    "peaks of 2^30": lambda: wav(NOISE * 2**30, subtype="FLOAT"),
    "peaks of 1e38": lambda: wav(NOISE * 3e37, subtype="FLOAT"),
    "peaks of 1e300": lambda: wav(NOISE.astype(float) * 1e300, subtype="DOUBLE"),
    "RF64": lambda: wav(kind="RF64"),
    "RF64 with a chunk behind the samples": lambda: wav(kind="RF64") + LIST,
    "RF64 cut short": lambda: wav(kind="RF64")[:-100],
    "a chunk behind the samples": lambda: wav() + LIST,
    "cut short": lambda: wav()[:-100],
    "several": lambda: wav() + wav(),
    "no samples": lambda: wav(NOISE[:0]),
    "no samples, but a chunk": lambda: wav(NOISE[:0]) + LIST,
    "of a dead recorder": lambda: of_a_dead_recorder("WAV"),
    "extensible of a dead recorder": lambda: of_a_dead_recorder("WAVEX"),
    "RF64 of a dead recorder": lambda: of_a_dead_recorder("RF64"),
    "of unknown length": lambda: with_declared(wav(), 0xFFFFFFFF),
    "text": lambda: b"These are words. " * 100,
    "nothing": lambda: b"",
}
READABLE = {
    *("stereo", "double", "1024 channels", "peaks of 2^30", "RF64", "RF64 with a chunk behind the samples"),
    *("a chunk behind the samples", "of a dead recorder", "extensible of a dead recorder"),
    *("RF64 of a dead recorder", "of unknown length"),
}


@pytest.mark.parametrize("name", WAVS)
def test_standard_input_is_read_or_refused_as_the_file_and_the_bytes_are(tmp_path: Path, name: str) -> None:
    content = WAVS[name]()
    (tmp_path / "sound.wav").write_bytes(content)
    found: list[np.ndarray | None] = []
    for read in (
        lambda: read_audio(tmp_path / "sound.wav", 16000),
        lambda: read_audio(io.BytesIO(content), 16000),
        lambda: np.concatenate(list(pipe_blocks(io.BufferedReader(io.BytesIO(content)), 16000))),
    ):
        try:
            found.append(read())
        except DataError:
            found.append(None)
    if name in READABLE:
        assert all(waveform is not None and np.allclose(waveform, found[0], rtol=1e-5) for waveform in found)
    else:
        assert found == [None] * 3


@pytest.mark.parametrize("rate", [-1, 0, 99, 1_000_001, 2_000_000_000, 99999999999999999999999])
def test_a_rate_of_raw_samples_out_of_range_is_a_usage_error(rate: int) -> None:
    with pytest.raises(UsageError, match="100 Hz to 1,000,000 Hz"):
        next(pipe_blocks(io.BufferedReader(io.BytesIO(bytes(100))), 16000, pcm_rate=rate))


STEREO = np.stack([NOISE, 0.25 * NOISE[::-1], 4 * NOISE], 1)


@pytest.mark.parametrize(("channel", "column"), [("left", 0), ("right", 1), (1, 0), (3, 2), ("loudest", 2)])
def test_one_channel_is_heard_alone(tmp_path: Path, channel: str | int, column: int) -> None:
    path = tmp_path / "three.wav"
    soundfile.write(path, STEREO, 16000, subtype="FLOAT")
    expected = STEREO[:, column]
    np.testing.assert_array_equal(read_audio(path, 16000, channel=channel), expected)  # type: ignore[arg-type]
    np.testing.assert_array_equal(
        read_audio(path, 16000, 0.1, 0.2, channel=channel),  # type: ignore[arg-type]
        expected[1600:4800],
    )
    blocks = list(audio_blocks(path, 16000, channel=channel))  # type: ignore[arg-type]
    np.testing.assert_array_equal(np.concatenate(blocks), expected)
    piped = pipe_blocks(io.BufferedReader(io.BytesIO(path.read_bytes())), 16000, channel=channel)  # type: ignore[arg-type]
    if channel == "loudest":
        with pytest.raises(UsageError, match="loudest"):
            next(piped)
    else:
        np.testing.assert_array_equal(np.concatenate(list(piped)), expected)


def test_a_channel_that_a_file_does_not_have_is_named(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "mono.wav", NOISE, 16000)
    assert len(read_audio(tmp_path / "mono.wav", 16000, channel="left")) == 8000
    with pytest.raises(DataError, match=r"mono\.wav: has 1 channel, there is no channel 2"):
        read_audio(tmp_path / "mono.wav", 16000, channel="right")


def test_channels_that_cancel_each_other_are_warned_about_and_no_others(tmp_path: Path) -> None:
    path = tmp_path / "sound.wav"
    soundfile.write(path, np.stack([NOISE, -NOISE], 1), 16000)
    with pytest.warns(UserWarning, match=r"sound\.wav: its channels cancel each other \(antiphase\)"):
        assert np.abs(read_audio(path, 16000)).max() < 1e-4
    with pytest.warns(UserWarning, match="antiphase"):
        list(audio_blocks(path, 16000))
    with pytest.warns(UserWarning, match=r"standard input: .*antiphase"):
        list(pipe_blocks(io.BufferedReader(io.BytesIO(path.read_bytes())), 16000))
    assert np.abs(read_audio(path, 16000, channel="left")).max() > 0.1
    one_of_many = np.zeros((8000, 300), np.float32)
    one_of_many[:, 7] = NOISE
    for sound in (0 * STEREO, STEREO, np.stack([NOISE, NOISE[::-1]], 1), one_of_many):
        soundfile.write(path, sound, 16000, subtype="FLOAT")
        read_audio(path, 16000)  # a warning is an error here


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.tsv", "a.txt"])
def test_a_pipe_in_the_place_of_a_table_is_no_file(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(DataError, match="is not a file"):
        (read_labels if name == "a.txt" else read_manifest)(tmp_path / name)


def test_a_pattern_names_each_file_once_whatever_links_there_are(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.wav").write_bytes(wav())
    (tmp_path / "a" / "loop").symlink_to(tmp_path / "a")
    assert find_sounds([f"{tmp_path}/**/*.wav"]) == [str(tmp_path / "a" / "1.wav")]
