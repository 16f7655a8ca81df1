"""The commands and pages that a reader follows."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
QUICK = ["train.epochs=1", "model.channels=[4,4,4,4,4,4]", "train.batch_size=16", "train.workers=0"]


def shell_commands(page: Path) -> list[list[str]]:
    """The `audiostride` commands of a page's ```sh blocks, in order."""
    blocks = re.findall(r"^```sh\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True) for line in lines if line.startswith("audiostride ")]


@pytest.mark.slow
@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "docs" / "training.md"], ids=lambda page: page.name)
def test_the_commands_of_a_page_run_in_order(page: Path, tone_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(tone_folder, tmp_path / "my_sounds")
    commands = shell_commands(page)
    assert len(commands) >= 3
    for _, *arguments in commands:
        quick = QUICK if arguments[0] == "train" else []
        done = subprocess.run(
            [sys.executable, "-m", "audiostride", *arguments, *quick],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, (arguments, done.stderr)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
        if not target.startswith(("http://", "https://", "mailto:")):
            assert (page.parent / target).exists(), target
