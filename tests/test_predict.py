"""Classifying and embedding many sounds, from Python and from the terminal."""

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import soundfile
import torch

from audiostride import AudioClassifier, create_model, read_audio
from audiostride.cli import main
from audiostride.data.sounds import find_sounds
from audiostride.errors import DataError, UsageError
from audiostride.inference.embedding import open_sounds
from audiostride.inference.predict import predict_sounds
from audiostride.inference.row_file import CSV_HEADER, RowFile
from audiostride.inference.streams import pipe_blocks, windows_of
from audiostride.windows import split_windows
from conftest import tone


@pytest.fixture(scope="module")
def model() -> AudioClassifier:
    return create_model(
        "audio_cnn_strided", heads={"word": ["no", "yes", "up"]}, channels=(4, 8), strides=((2, 2), (2, 2))
    ).eval()


@pytest.fixture(scope="module")
def run_dir(model: AudioClassifier, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    model.save(folder)
    return folder


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight sounds of 0.3 to 3.4 s at two rates, mono and stereo, WAV and FLAC, and one that is none."""
    folder = tmp_path_factory.mktemp("sounds")
    random = np.random.RandomState(0)
    for i, (seconds, rate, channels, kind) in enumerate(
        [(0.3, 16000, 1, "wav"), (1.0, 16000, 1, "wav"), (1.4, 44100, 2, "wav"), (1.6, 8000, 1, "flac")] * 2
    ):
        sound = 0.1 * random.standard_normal((round((seconds + i / 10) * rate), channels))
        soundfile.write(folder / f"{i}.{kind}", sound, rate)
    (folder / "3a-broken.wav").write_text("no sound at all")
    return folder


class Done(NamedTuple):
    """What a command left behind."""

    returncode: int
    stdout: bytes
    stderr: bytes


def cli(*arguments: object, stdin: bytes = b"") -> Done:
    """The `audiostride` command, in this process: another would first import torch."""
    streams = [io.TextIOWrapper(io.BytesIO(content), encoding="utf-8") for content in (stdin, b"", b"")]
    before = sys.argv, sys.stdin, sys.stdout, sys.stderr
    sys.argv, (sys.stdin, sys.stdout, sys.stderr) = ["audiostride", *map(str, arguments)], streams
    try:
        main()
    except SystemExit as end:
        code = end.code or 0
    finally:
        sys.argv, sys.stdin, sys.stdout, sys.stderr = before
    for stream in streams[1:]:
        stream.flush()
    return Done(int(code), *(stream.buffer.getvalue() for stream in streams[1:]))  # type: ignore[attr-defined]


def rows_of(text: str | bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text if isinstance(text, str) else text.decode())))


@pytest.mark.parametrize("batch_size", [1, 3, 64])
@pytest.mark.parametrize("workers", [0, 1, 3])
def test_a_batch_answers_as_predict_does_for_each_file_alone(model, sounds, batch_size, workers):
    names = find_sounds([str(sounds)])
    answers = list(predict_sounds(model, open_sounds(names, 16000), batch_size=batch_size, workers=workers))
    assert [answer.name for answer in answers] == names
    for answer in answers:
        if "broken" in answer.name:
            assert "is not audio" in answer.rows[0].error
        else:
            expected = model.predict(read_audio(answer.name, 16000), 16000)["word"]
            assert answer.rows[0].label == expected.label
            assert answer.rows[0].score == pytest.approx(expected.score, abs=2e-6)


@pytest.mark.parametrize("overlap", [0.0, 0.3, 0.5, 0.9])
def test_the_windows_of_blocks_are_the_windows_of_the_whole(overlap):
    waveform = np.random.RandomState(0).standard_normal(57).astype(np.float32)
    for n in (1, 4, 5, 9, 10, 11, 14, 15, 19, 20, 57):
        for block in (1, 3, 10, 25, 100):
            parts = list(windows_of((waveform[i : min(i + block, n)] for i in range(0, n, block)), 10, overlap))
            whole = split_windows(torch.from_numpy(waveform[:n]), 10, overlap=overlap).numpy()
            assert np.array_equal(np.concatenate([part.windows for part in parts]), whole)
            assert parts[-1].samples == n


def test_closely_overlapping_windows_are_handed_out_a_few_at_a_time():
    parts = windows_of([np.arange(3000, dtype=np.float32)], 1000, overlap=0.9999)
    sizes = [len(part.windows) for part in parts]
    assert max(sizes) <= 64
    assert sum(sizes) == 2001


def test_an_event_in_the_last_half_window_is_heard():
    sound = np.zeros(12_400, np.float32)
    sound[11_200:11_300] = 1
    blocks = np.array_split(sound, 7)
    windows = np.concatenate([part.windows for part in windows_of(blocks, 5000)])
    assert [int(window.sum()) for window in windows] == [0, 0, 100]


@pytest.mark.parametrize(
    ("subtype", "channels", "rate"),
    [("PCM_U8", 1, 16000), ("PCM_16", 2, 16000), ("PCM_24", 1, 8000), ("PCM_32", 3, 16000), ("FLOAT", 1, 44100)],
)
def test_a_wav_on_a_pipe_is_the_wav_in_a_file(tmp_path, subtype, channels, rate):
    path = tmp_path / "sound.wav"
    soundfile.write(path, np.random.RandomState(0).uniform(-0.9, 0.9, (5001, channels)), rate, subtype=subtype)
    stream = io.BufferedReader(io.BytesIO(path.read_bytes()), buffer_size=1000)
    waveform = np.concatenate(list(pipe_blocks(stream, 16000)))
    expected = read_audio(path, 16000)
    assert waveform.shape == expected.shape
    assert np.allclose(waveform, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"hello, world", "is not a WAV file"),
        (b"RIFF\x00\x00\x00\x00WAVEfmt ", "ends within its header"),
        (b"RIFF\x00\x00\x00\x00WAVEdata\x08\x00\x00\x00" + bytes(8), "come before their format"),
        (b"RIFF\x00\x00\x00\x00WAVEjunk\xff\xff\xff\x0f", "a header chunk"),
    ],
)
def test_a_pipe_that_holds_no_wav_is_a_named_error(content, message):
    with pytest.raises(DataError, match=message):
        list(pipe_blocks(io.BufferedReader(io.BytesIO(content)), 16000))


def test_a_cut_wav_on_a_pipe_gives_what_is_there_and_then_its_error(tmp_path):
    path = tmp_path / "sound.wav"
    soundfile.write(path, tone(440, 3.0), 16000)
    stream = io.BufferedReader(io.BytesIO(path.read_bytes()[:-20000]))
    blocks: list[np.ndarray] = []
    with pytest.raises(DataError, match="20000 of 96000 declared bytes are missing"):
        blocks.extend(pipe_blocks(stream, 16000))
    assert sum(map(len, blocks)) == 38000


def test_folders_patterns_and_files_are_found_once_and_in_order(sounds):
    found = find_sounds([str(sounds / "7.flac"), str(sounds), str(sounds / "**" / "*.flac"), "missing.wav"])
    assert [Path(name).name for name in found] == [
        "7.flac",
        *["0.wav", "1.wav", "2.wav", "3.flac", "3a-broken.wav", "4.wav", "5.wav", "6.wav"],
        "missing.wav",
    ]
    for nothing in (str(sounds / "*.ogg"), str(Path(__file__).parent)):
        with pytest.raises(DataError, match="holds no audio file"):
            find_sounds([nothing])


def test_predict_prints_the_same_rows_as_csv_json_and_into_a_file_and_exits_6(run_dir, sounds, tmp_path):
    as_csv = cli("predict", run_dir, sounds, "--csv", "--top-k", 2)
    as_json = cli("predict", run_dir, sounds, "--json", "--top-k", 2)
    to_file = cli("predict", run_dir, sounds, "--top-k", 2, "--out", tmp_path / "rows.csv")
    assert [done.returncode for done in (as_csv, as_json, to_file)] == [6, 6, 6]
    assert b"1 of 9 sounds could not be used" in as_csv.stderr
    assert (tmp_path / "rows.csv").read_bytes() == as_csv.stdout
    rows = rows_of(as_csv.stdout)
    for row, line in zip(rows, as_json.stdout.splitlines(), strict=True):
        assert row == {key: "" if value is None else str(value) for key, value in json.loads(line).items()}
    assert [row["rank"] for row in rows if "broken" not in row["file"]] == ["1", "2"] * 8
    assert [row["file"] for row in rows if row["error"]] == [str(sounds / "3a-broken.wav")]


def test_predict_shows_a_table_and_wrong_calls_are_usage_errors(run_dir, sounds, tmp_path):
    table = cli("predict", run_dir, sounds / "1.wav")
    assert table.returncode == 0
    assert "1.wav" in table.stdout.decode()
    assert cli("predict", run_dir, sounds, "--resume").returncode == 2
    assert cli("predict", run_dir, sounds, "--out", tmp_path / "rows.txt").returncode == 2
    assert cli("predict", run_dir, sounds, "--stream").returncode == 2
    assert cli("predict", tmp_path, sounds).returncode == 5
    assert cli("predict", run_dir, tmp_path / "missing.wav").returncode == 4


def test_a_stream_answers_each_window_as_offline_and_before_the_pipe_ends(run_dir, tmp_path):
    path = tmp_path / "sound.wav"
    soundfile.write(path, 0.1 * np.random.RandomState(1).standard_normal(16000 * 5 + 9000), 16000)
    offline = rows_of(cli("predict", run_dir, path, "--windows", "--csv").stdout)
    assert [(row["start_s"], row["end_s"]) for row in offline[-2:]] == [("4.0", "5.0"), ("4.562", "5.562")]
    piped = rows_of(cli("predict", run_dir, "-", "--windows", "--csv", stdin=path.read_bytes()).stdout)
    command = [sys.executable, "-m", "audiostride", "predict", str(run_dir), "-", "--stream", "--csv"]
    with subprocess.Popen(
        [*command, "--pcm-rate", "16000"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as live:
        assert live.stdin is not None
        assert live.stdout is not None
        assert live.stderr is not None
        samples = soundfile.read(path, dtype="int16")[0].astype("<i2").tobytes()
        live.stdin.write(samples[: 2 * 16100])
        live.stdin.flush()
        first = live.stdout.readline() + live.stdout.readline()  # while the pipe is still open
        assert b"latency" in live.stderr.readline()
        live.stdin.write(samples[2 * 16100 :])
        live.stdin.close()
        streamed = rows_of(first + live.stdout.read())
    for rows in (piped, streamed):
        assert len(rows) == len(offline) == 6
        for row, expected in zip(rows, offline, strict=True):
            assert row["label"] == expected["label"]
            assert (row["start_s"], row["end_s"]) == (expected["start_s"], expected["end_s"])
            assert float(row["score"]) == pytest.approx(float(expected["score"]), abs=2e-6)


def test_ctrl_c_ends_a_stream_with_a_word(run_dir):
    command = [sys.executable, "-m", "audiostride", "predict", str(run_dir), "-", "--stream", "--pcm-rate", "16000"]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # tests in the background are told to ignore it
    try:
        live = subprocess.Popen(command, **pipes)
    finally:
        signal.signal(signal.SIGINT, before)
    with live:
        assert live.stdin is not None
        assert live.stdout is not None
        assert live.stderr is not None
        live.stdin.write(bytes(2 * 16100))
        live.stdin.flush()
        live.stdout.readline()
        live.send_signal(signal.SIGINT)
        assert live.wait(300) == 130
        assert live.stderr.read().endswith(b"error: interrupted\n")


def test_overlapping_windows_are_averaged_and_have_rows_of_their_own(model, run_dir, tmp_path):
    path = tmp_path / "sound.wav"
    soundfile.write(path, 0.1 * np.random.RandomState(1).standard_normal(16000 * 3), 16000)
    waveform = read_audio(path, 16000)
    windows = torch.from_numpy(np.stack([waveform[start : start + 16000] for start in range(0, 32001, 4000)]))
    embedding = model.embed_windows(windows).mean(0)
    torch.testing.assert_close(model.embed(waveform, 16000, overlap=0.75), embedding)
    score = model.probabilities("word", model.heads["word"](embedding)).max().item()
    (row,) = rows_of(cli("predict", run_dir, path, "--csv", "--overlap", 0.75).stdout)
    assert float(row["score"]) == pytest.approx(score, abs=2e-6)
    assert model.predict(waveform, 16000, overlap=0.75)["word"].score == pytest.approx(score, abs=2e-6)
    timeline = cli("predict", run_dir, path, "--windows", "--csv", "--overlap", 0.75).stdout
    assert [(row["start_s"], row["end_s"]) for row in rows_of(timeline)[:3]] == [
        ("0.0", "1.0"), ("0.25", "1.25"), ("0.5", "1.5"),
    ]  # fmt: skip
    assert len(rows_of(timeline)) == 9
    streamed = cli("predict", run_dir, "-", "--stream", "--csv", "--overlap", 0.75, stdin=path.read_bytes())
    assert b"a prediction every 0.25 s" in streamed.stderr
    for live, offline in zip(rows_of(streamed.stdout), rows_of(timeline), strict=True):
        assert all(live[key] == offline[key] for key in ("start_s", "end_s", "label"))
    plain, at_zero = (cli("predict", run_dir, path, "--csv", *way).stdout for way in ((), ("--overlap", 0)))
    assert plain == at_zero


def test_an_overlap_that_cannot_be_is_a_usage_error_and_a_batch_keeps_its_own(run_dir, sounds, tmp_path):
    for share in ("1", "-0.5", "nan"):
        said = cli("predict", run_dir, sounds, "--overlap", share)
        assert said.returncode == 2
        assert b"it must be at least 0 and less than 1" in said.stderr
    for first, then in ((0.5, 0.0), (0.0, 0.5)):
        out = tmp_path / f"{first}.csv"
        cli("predict", run_dir, sounds, "--out", out, "--overlap", first)
        said = cli("predict", run_dir, sounds, "--out", out, "--overlap", then, "--resume")
        assert said.returncode == 2
        assert b"was started with another overlap" in said.stderr


def test_a_batch_killed_at_any_byte_is_continued_to_the_same_file(model, sounds, tmp_path):
    # A sound that cannot be read is tried again, so its row ends up last.
    names, made_by = sorted(find_sounds([str(sounds)]), key=lambda name: "broken" in name), {"model": "m"}

    def write(path: Path, resume: bool = False) -> None:
        with RowFile(path, made_by, resume) as file:
            left = [name for name in names if name not in file.done]
            for answer in predict_sounds(model, open_sounds(left, 16000), per_window=True):
                file.write(answer)

    whole, killed = tmp_path / "whole.csv", tmp_path / "killed.csv"
    write(whole)
    content, journal = whole.read_bytes(), (tmp_path / "whole.csv.journal").read_bytes()
    for cut in range(len(journal.splitlines(keepends=True)[0]), len(journal), 37):
        (tmp_path / "killed.csv.journal").write_bytes(journal[:cut])
        entries = journal[:cut].split(b"\n")[:-1]
        killed.write_bytes(content[: json.loads(entries[-1])["bytes"] + 23])  # a row more than the journal knows
        write(killed, resume=True)
        assert killed.read_bytes() == content
        assert (tmp_path / "killed.csv.journal").read_bytes() == journal


def test_an_output_is_neither_overwritten_nor_continued_with_other_options(tmp_path):
    path = tmp_path / "rows.csv"
    with RowFile(path, {"model": "a", "top_k": 1}):
        assert path.read_text() == CSV_HEADER
    with pytest.raises(UsageError, match="already exists"):
        RowFile(path, {"model": "a", "top_k": 1})
    with pytest.raises(UsageError, match="started with another top_k"):
        RowFile(path, {"model": "a", "top_k": 2}, resume=True)
    (tmp_path / "rows.csv.journal").write_text("[]\n")
    with pytest.raises(UsageError, match="is not a journal"):
        RowFile(path, {"model": "a", "top_k": 1}, resume=True)


@pytest.mark.slow
def test_an_interrupted_command_resumes(run_dir, tmp_path):
    folder = tmp_path / "many"
    folder.mkdir()
    for i in range(200):
        soundfile.write(folder / f"{i:03d}.wav", 0.1 * np.random.RandomState(i).standard_normal(16000), 16000)
    out = tmp_path / "rows.jsonl"
    command = [sys.executable, "-m", "audiostride", "predict", str(run_dir), str(folder), "--out", str(out)]
    with subprocess.Popen([*command, "--batch-size", "1"], stderr=subprocess.DEVNULL) as process:
        while not out.exists() or out.stat().st_size < 2000:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    assert 0 < len(out.read_text().splitlines()) < 200
    assert subprocess.run([*command, "--resume"], stderr=subprocess.DEVNULL).returncode == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [Path(row["file"]).stem for row in rows] == [f"{i:03d}" for i in range(200)]


@pytest.mark.slow
def test_memory_does_not_grow_with_the_length_of_a_file(run_dir, tmp_path):
    def peak_mb(minutes: int) -> float:
        path = tmp_path / f"{minutes}.wav"
        with soundfile.SoundFile(path, "w", 4000, 1) as file:
            for i in range(minutes):
                file.write(0.1 * np.random.RandomState(i).standard_normal(4000 * 60))
        code = (
            "import resource, sys; from audiostride.cli import app\n"
            "try: app(sys.argv[1:])\n"
            "finally: print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, file=sys.stderr)"
        )
        command = [sys.executable, "-c", code, "predict", str(run_dir), str(path), "--windows", "--csv"]
        done = subprocess.run(command, capture_output=True, check=True)
        assert len(done.stdout.splitlines()) == 60 * minutes + 1
        return float(done.stderr.splitlines()[-1])

    assert peak_mb(20) < peak_mb(5) + 30  # 15 more minutes at 16 kHz are 58 MB


def test_memory_does_not_grow_with_the_overlap_of_windows(run_dir, tmp_path):
    soundfile.write(tmp_path / "noise.wav", 0.1 * np.random.RandomState(0).standard_normal(24_000), 16000)
    code = (
        "import resource, sys; from audiostride.cli import app\n"
        "try: app(sys.argv[1:])\n"
        "finally: print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, file=sys.stderr)"
    )
    peak_mb = []
    for overlap in ("0", "0.9999"):
        command = [sys.executable, "-c", code, "predict", str(run_dir), str(tmp_path / "noise.wav"), "--csv"]
        done = subprocess.run([*command, "--overlap", overlap], capture_output=True, check=True)
        assert len(done.stdout.splitlines()) == 2
        peak_mb.append(float(done.stderr.splitlines()[-1]))
    assert peak_mb[1] < peak_mb[0] + 100  # its 4,001 windows are 256 MB


def test_a_file_name_that_is_no_utf8_keeps_its_bytes(run_dir, tmp_path):
    name = os.fsencode(tmp_path) + b"/caf\xe9.wav"
    Path(os.fsdecode(name)).write_bytes(b"")
    done = cli("predict", run_dir, tmp_path, "--csv")
    assert done.returncode == 4
    assert name in done.stdout


@pytest.mark.parametrize("kind", ["npz", "parquet"])
def test_embed_writes_a_row_for_each_sound(run_dir, model, sounds, tmp_path, kind):
    out = tmp_path / f"table.{kind}"
    assert cli("embed", run_dir, sounds, "-o", out).returncode == 6
    if kind == "npz":
        with np.load(out) as table:
            paths, embeddings, errors = (table[name] for name in ("path", "embedding", "error"))
    else:
        pyarrow = pytest.importorskip("pyarrow.parquet")
        columns = pyarrow.read_table(out).to_pydict()
        paths, errors = columns["path"], [error or "" for error in columns["error"]]
        embeddings = [np.full(8, np.nan) if row is None else np.array(row) for row in columns["embedding"]]
    assert list(paths) == find_sounds([str(sounds)])
    for path, embedding, error in zip(paths, embeddings, errors, strict=True):
        if error:
            assert "broken" in path
            assert np.isnan(embedding).all()
        else:
            assert np.allclose(embedding, model.embed(read_audio(path, 16000), 16000), atol=1e-5)
