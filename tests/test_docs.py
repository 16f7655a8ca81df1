"""The commands and pages that a reader follows."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hub_server import Hub
from PIL import Image

import audiostride
from audiostride.training.recipe import load_recipe
from audiostride.training.run import run
from conftest import tone

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]

QUICK = ["train.epochs=1", "train.batch_size=16", "train.workers=0"]
NARROW = ["model.channels=[4,4,4,4,4,4]"]

COMMANDS: dict[str, list[str]] = {
    "README.md": [],
    "docs/training.md": NARROW,
    "docs/models.md": [],
    "docs/data.md": [],
    "docs/predict.md": [],
    "docs/confidence.md": NARROW,
    "docs/features.md": [],
    "docs/finetune.md": [],
    "docs/custom.md": [],
    "docs/export.md": [],
    "docs/share.md": [],
    "docs/cutoffs.md": [],
    "docs/report.md": [],
    "docs/sweeps.md": [*NARROW, "train.steps=2", "tasks.rate.data.n_clips=250", "tasks.scale.data.n_clips=250"],
    "docs/images.md": [],
}
"""Pages whose ```sh blocks are run, with what is appended to their trainings to make them quick.

A block runs as it stands, in bash, in a folder with the sounds and runs that the pages speak of. A block
that begins with ```sh skip is left out: it needs hours, a GPU or data that is not here.
"""


def shell_blocks(page: Path) -> list[str]:
    """The ```sh blocks of a page that are to be run."""
    return re.findall(r"^```sh\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def workspace(tone_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the pages speak of: folders of sounds and images, a long and two short recordings, trained runs."""
    folder = tmp_path_factory.mktemp("workspace")
    shutil.copytree(tone_folder, folder / "my_sounds")
    (folder / "sounds").mkdir()
    (folder / "more" / "deeper").mkdir(parents=True)
    for i in range(8):
        soundfile.write(folder / "sounds" / f"{i}.wav", tone(300 + 200 * i), 16000)
    soundfile.write(folder / "more" / "deeper" / "1.flac", tone(3000, sample_rate=44100), 44100)
    (folder / "quiet_nights").mkdir()
    for i in range(3):
        hiss = 0.1 * np.random.default_rng(i).standard_normal(48000).astype(np.float32)
        soundfile.write(folder / "quiet_nights" / f"{i}.wav", hiss, 16000)
    soundfile.write(folder / "recording.wav", tone(300, 1.3), 16000)
    soundfile.write(folder / "long.wav", np.concatenate([tone(300, 3.2), tone(3000, 2.0)]), 16000)
    settings = ["train.epochs=6", "train.batch_size=16", "train.workers=0", "model.channels=[8,8,8,8,8,8]"]
    recipe = load_recipe("folder", [f"tasks.label.data.path={folder / 'my_sounds'}", *settings])
    run(recipe, folder / "runs" / "mine")
    for name in ("words", "ripples", "seed0", "seed1", "seed2"):
        shutil.copytree(folder / "runs" / "mine", folder / "runs" / name)
    shutil.copytree(tone_folder, folder / "my_words")
    soundfile.write(folder / "clip.wav", tone(300, 1.0), 16000)
    for i in range(16):
        image = folder / "my_cifar10" / ("train" if i % 4 else "test") / f"class{i // 4 % 2}" / f"{i}.png"
        image.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(i).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(image)
    return folder


def programs(folder: Path, audiostride: list[str], quick: list[str]) -> Path:
    """A folder with the programs that pages call: `audiostride` as it is called here, and a microphone."""
    folder.mkdir()
    quicker = shlex.join([*QUICK, *quick])
    (folder / "audiostride").write_text(
        f'#!/bin/sh\ncase "$1" in train|sweep|crossval) set -- "$@" {quicker};; esac\n'
        f'exec {shlex.join(audiostride)} "$@"\n'
    )
    samples = f"import sys; sys.stdout.buffer.write({(2**14 * tone(300, 2.0)).astype('<i2').tobytes()!r})"
    (folder / "samples.py").write_text(samples)
    (folder / "arecord").write_text(f"#!/bin/sh\nexec {shlex.quote(sys.executable)} {folder / 'samples.py'}\n")
    for name in ("audiostride", "arecord"):
        (folder / name).chmod(0o755)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("page", COMMANDS)
def test_the_commands_of_a_page_run_in_order(
    page: str, workspace: Path, warm_audiostride: list[str], tmp_path: Path
) -> None:
    blocks = shell_blocks(ROOT / page)
    assert blocks
    folder = tmp_path / "work"
    shutil.copytree(workspace, folder)
    for trained in re.findall(r"audiostride train .*--out (\S+)", "".join(blocks)):
        shutil.rmtree(folder / trained, ignore_errors=True)  # the page makes it itself
    hub = Hub()
    hub.repos["user/words"] = {
        name: (workspace / "runs" / "words" / name).read_bytes() for name in ("config.json", "model.safetensors")
    }
    server = threading.Thread(target=hub.serve_forever)
    server.start()
    try:
        environment = os.environ | {
            "PATH": f"{programs(tmp_path / 'bin', warm_audiostride, COMMANDS[page])}{os.pathsep}{os.environ['PATH']}",
            "HF_ENDPOINT": hub.url,
            "HF_HOME": str(tmp_path / "hub"),
        }
        for block in blocks:
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", block],
                cwd=folder,
                env=environment,
                capture_output=True,
                text=True,
                timeout=900,
            )
            assert done.returncode == 0, (block, done.stdout, done.stderr)
    finally:
        hub.shutdown()
        server.join()
        hub.server_close()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
        if not target.startswith(("http://", "https://", "mailto:")):
            assert (page.parent / target).exists(), target


def test_the_reference_names_every_public_name_and_has_a_page_for_every_package() -> None:
    reference = ROOT / "docs" / "reference"
    names = re.findall(r"^\| \[`(\w+)`\]", (reference / "index.md").read_text(), re.MULTILINE)
    assert sorted(names) == sorted(set(audiostride.__all__) - {"__version__"})
    packages = {path.parent.name for path in (ROOT / "audiostride").glob("*/__init__.py")}
    assert {path.stem for path in reference.glob("*.md")} == packages - {"cli"} | {"index"}


def test_the_map_names_modules_that_are_there() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    modules = re.findall(r"`((?:layers|models|data|training|analysis|inference|cli)/\w+\.py)`", text)
    assert len(modules) > 30
    assert not [module for module in modules if not (ROOT / "audiostride" / module).exists()]
