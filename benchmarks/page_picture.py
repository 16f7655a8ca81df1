"""A picture of the page that `audiostride export --format web` writes, with a sound in it: `docs/page.png`.

python benchmarks/page_picture.py audio_resnet_small_strided '../shared/data/commands/test/down_004ae714_0.ogg'
"""

import re
import sys
import tempfile
from pathlib import Path

import numpy as np
import soundfile
from playwright.sync_api import sync_playwright

from audiostride import load
from audiostride.inference.web_page import web_page


def main(model: str, sound: str) -> None:
    """Export, open the sound, said three times, in Chromium, take the picture."""
    folder = Path(tempfile.mkdtemp())
    (folder / "words.html").write_text(web_page(load(model), "words"), encoding="utf-8")
    waveform, sample_rate = soundfile.read(sound, dtype="float32")
    soundfile.write(folder / "sound.wav", np.tile(waveform, 3), sample_rate)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 900, "height": 1200})
        page.goto((folder / "words.html").as_uri())
        page.set_input_files("#file", folder / "sound.wav")
        page.get_by_role("status").filter(has_text=re.compile(r"\d events\.$")).wait_for()
        page.screenshot(path="docs/page.png")
        browser.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
