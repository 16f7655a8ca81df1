"""Fixtures that several test modules share."""

import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from small_training import SEED

Command = Callable[..., subprocess.CompletedProcess[str]]
"""Called with a folder, then arguments and, by name, variables of the environment."""


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Every test starts from the same random state; `TEST_SEED` chooses another, which no test may mind."""
    torch.manual_seed(SEED)
    np.random.seed(SEED)
    random.seed(SEED)


def tone(frequency_hz: float, seconds: float = 1.0, sample_rate: int = 16000) -> np.ndarray:
    """A sine at half of full scale, float32."""
    time_s = np.arange(round(seconds * sample_rate)) / sample_rate
    return (0.5 * np.sin(2 * np.pi * frequency_hz * time_s)).astype(np.float32)


@pytest.fixture(scope="session")
def warm_audiostride(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """How to call the `audiostride` command in a process of its own that has imported torch already."""
    script, path = Path(__file__).with_name("warm_command.py"), tmp_path_factory.mktemp("warm") / "socket"
    with subprocess.Popen([sys.executable, script, "serve", path], stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == b"ready\n"
        yield [sys.executable, "-S", "-E", str(script), "call", str(path)]
        server.terminate()


@pytest.fixture(scope="session")
def command(warm_audiostride: list[str]) -> Command:
    """The `audiostride` command, in a process of its own."""

    def call(folder: Path, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*warm_audiostride, *map(str, arguments)],
            cwd=folder,
            env=os.environ | environment,
            capture_output=True,
            text=True,
            timeout=300,
        )

    return call


@pytest.fixture(scope="session")
def tone_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two easy classes of real WAV files: 30 low and 30 high tones of 0.6 to 1.6 s in noise."""
    folder = tmp_path_factory.mktemp("tones")
    draws = np.random.RandomState(SEED)
    for label, low, high in (("high", 2000, 4000), ("low", 200, 500)):
        (folder / label).mkdir()
        for i in range(30):
            sound = tone(draws.uniform(low, high), draws.uniform(0.6, 1.6))
            sound += 0.01 * draws.standard_normal(len(sound)).astype(np.float32)
            soundfile.write(folder / label / f"{i:02d}.wav", sound, 16000)
    return folder


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """A real headless Chromium, whose microphone beeps; where there is none the tests are skipped, in CI they fail."""
    executable = shutil.which("chromium")
    if executable is None:
        reason = "no chromium: pages are not tried in a browser (Debian: apt-get install chromium)"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    from playwright.sync_api import sync_playwright  # one for all tests: two at once are refused

    arguments = ["--no-sandbox", "--disable-background-networking", "--autoplay-policy=no-user-gesture-required"]
    microphone = ["--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"]
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=executable, args=[*arguments, *microphone])
        yield chromium
        chromium.close()
