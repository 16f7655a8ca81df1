"""Makes a corpus of audio files that are not what they claim to be, and measures what reading each one takes.

python tests/hostile_audio.py FOLDER

makes the corpus in the folder, reads every file in a process of its own, and prints a line of JSON for each.
"""

import json
import os
import resource
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile

from audiostride.data.decoding import read_audio
from audiostride.errors import DataError

OK = ""
"""Expectation of a file that is accepted; else a part of the message with which it is refused."""

_RATE = 16000


def make_corpus(folder: Path) -> dict[str, str]:
    """Make every file; returns what to expect of each, by name."""
    random = np.random.RandomState(0)
    second = 0.1 * random.standard_normal(_RATE)
    expected: dict[str, str] = {}

    def add(name: str, content: bytes, expectation: str) -> None:
        with open(os.path.join(os.fsencode(folder), os.fsencode(name)), "wb") as file:
            file.write(content)
        expected[name] = expectation

    def encode(name: str, sound: np.ndarray, subtype: str | None = None, rate: int = _RATE) -> bytes:
        path = folder / name
        soundfile.write(path, sound, rate, subtype=subtype)
        content = path.read_bytes()
        path.unlink()
        return content

    # Unusual, and accepted.
    for subtype in ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW", "IMA_ADPCM", "GSM610"):
        add(f"{subtype}.wav", encode("x.wav", second, subtype), OK)
    for ending in ("aiff", "au", "caf", "flac", "mp3", "ogg", "w64"):
        add(f"whole.{ending}", encode(f"x.{ending}", second), OK)
    add("one-sample.wav", encode("x.wav", second[:1]), OK)
    add("silence.wav", encode("x.wav", 0 * second), OK)
    add("1024-channels.wav", encode("x.wav", np.tile(second[:100, None], 1024)), OK)
    add("int16-scale.wav", encode("x.wav", 32768 * second, "FLOAT"), OK)
    add("100-Hz.wav", encode("x.wav", second[:50], rate=100), OK)
    add("two\nlines.wav", encode("x.wav", second), OK)
    add(os.fsdecode(b"latin1-\xe9.wav"), encode("x.wav", second), OK)
    wav = encode("x.wav", second)
    add("riff-length-too-small.wav", wav[:4] + struct.pack("<I", 100) + wav[8:], OK)
    add("riff-length-too-large.wav", wav[:4] + struct.pack("<I", 2**31 - 9) + wav[8:], OK)
    add("length-unknown-as-pipes-write-it.wav", wav[:40] + struct.pack("<I", 2**32 - 1) + wav[44:], OK)
    add("more-data-than-declared.wav", wav[:40] + struct.pack("<I", 8000) + wav[44:], OK)
    add("trailing-garbage.wav", wav + bytes(random.randint(0, 256, 1000, np.uint8)), OK)

    # Cut at every kind of place.
    for length in (1, 4, 11, 12, 20, 35, 36, 40, 43):
        add(f"cut-in-header-{length}.wav", wav[:length], "holds no samples" if length == 43 else "not audio")
    add("header-only.wav", wav[:44], "holds no samples")
    for length in (45, 46, 1001, len(wav) // 2, len(wav) - 2, len(wav) - 1):
        add(f"cut-in-data-{length}.wav", wav[:length], "cut short" if length > 45 else "samples")
    for ending in ("flac", "ogg", "aiff", "au", "w64", "caf"):
        whole = encode(f"x.{ending}", second)
        for part in (0.02, 0.3, 0.9):
            add(f"cut-{part}.{ending}", whole[: int(part * len(whole))], ":")
    add("data-length-lies.wav", wav[:40] + struct.pack("<I", 2 * _RATE + 1000) + wav[44:], "cut short")

    # No sound, or none that can be used.
    add("empty.wav", b"", "is empty")
    add("text.wav", b"These are words.\n" * 100, "not audio")
    add("zeros.wav", bytes(5000), "not audio")
    add("png.wav", b"\x89PNG\r\n\x1a\n" + bytes(random.randint(0, 256, 3000, np.uint8)), "not audio")
    add("no-samples.flac", encode("x.flac", second[:0]), "")
    expected["no-samples.flac"] = ":"
    for channels in (0, 2000):
        add(f"{channels}-channels.wav", wav[:22] + struct.pack("<H", channels) + wav[24:], "not audio")
    for rate in (0, 1, 3_000_000, 2**31 - 1):
        reason = "sample rate of" if rate else ":"
        add(f"{rate}-Hz.wav", wav[:24] + struct.pack("<I", rate) + wav[28:], reason)
    for value, name in ((np.nan, "nan"), (np.inf, "inf"), (-np.inf, "minus-inf")):
        broken = second.copy()
        broken[7000] = value
        add(f"{name}.wav", encode("x.wav", broken, "FLOAT"), "NaN or infinite")
    add("peaks-1e19.wav", encode("x.wav", 1e19 * second, "DOUBLE"), "where 1 is full scale")
    add("peaks-1e300.wav", encode("x.wav", 1e300 * second, "DOUBLE"), ":")
    with (folder / "ten-hours.wav").open("wb") as file:  # sparse: it takes no room on the disk
        size = 10 * 3600 * _RATE * 2
        file.write(wav[:4] + struct.pack("<I", size + 36) + wav[8:40] + struct.pack("<I", size))
        file.truncate(44 + size)
    expected["ten-hours.wav"] = "samples that can be decoded at once"

    # No files at all.
    os.mkfifo(folder / "fifo.wav")
    (folder / "directory.wav").mkdir()
    (folder / "loop.wav").symlink_to("loop.wav")
    (folder / "dangling.wav").symlink_to("nowhere.wav")
    expected |= {"fifo.wav": "is not a file", "directory.wav": "is not a file but a directory"}
    expected |= {"loop.wav": "symbolic links", "dangling.wav": "No such file", "missing.wav": "No such file"}
    return expected


class Reading(NamedTuple):
    """What came of reading a file, in a process of its own.

    Attributes:
        name: of the file.
        expected: part of the message, "" if the file is accepted.
        message: the error; "" if the file was read and is sound.
        cpu_s: processor time it took.
        peak_mb: most memory the process had, Python and libraries included.
    """

    name: str
    expected: str
    message: str
    cpu_s: float
    peak_mb: float


def read_all(folder: Path, expected: dict[str, str]) -> Iterator[Reading]:
    """Read every file of a corpus; what hangs for 20 s is killed."""
    for name, expectation in expected.items():
        end, other_end = os.pipe()
        child = os.fork()
        if not child:
            signal.alarm(20)
            began = resource.getrusage(resource.RUSAGE_SELF)
            try:
                sound = read_audio(folder / name, 16000)
                right = len(sound) and sound.dtype == np.float32 and np.isfinite(sound).all()
                message = "" if right else f"is no sound: {sound}"
            except DataError as error:
                message = str(error)
            used = resource.getrusage(resource.RUSAGE_SELF)
            cpu_s = used.ru_utime + used.ru_stime - began.ru_utime - began.ru_stime
            os.write(other_end, json.dumps([message, cpu_s, used.ru_maxrss / 1024]).encode())
            os._exit(0)
        os.close(other_end)
        with open(end) as pipe:
            told = pipe.read()
        os.waitpid(child, 0)
        yield Reading(name, expectation, *(json.loads(told) if told else ("died or hung", 20.0, 0.0)))


def measure_all(folder: Path) -> list[Reading]:
    """Make the corpus in a new folder and read it, all from a process that holds nothing else."""
    done = subprocess.run([sys.executable, __file__, str(folder)], capture_output=True, text=True, check=True)
    return [Reading(*json.loads(line)) for line in done.stdout.splitlines()]


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True)
    for reading in read_all(folder, make_corpus(folder)):
        print(json.dumps(reading))


if __name__ == "__main__":
    main()
