"""Put the weights of a finished run of `recipes/pretrained.yaml` into the package, with their model card.

python results/pretrained.py RUN_DIR

To calibrate those of the package anew, without training, make RUN_DIR of them; the recipe says which clips are for
validation, and the model card stays as it is:

    cp -r audiostride/pretrained/audio_resnet_small_strided RUN_DIR && cp recipes/pretrained.yaml RUN_DIR/recipe.yaml
    audiostride calibrate RUN_DIR
"""

import sys

from audiostride import load
from audiostride.models.classifier import RESULTS_FILE
from audiostride.models.model_card import model_card
from audiostride.models.pretrained import FOLDER

NAME = "audio_resnet_small_strided"
LICENCE = "cc-by-4.0"
DATA = """\
windows of one second from three sets, all tasks at once (`recipes/pretrained.yaml`):

- `word`: nine words of Speech Commands v0.01 by 354 speakers (Warden 2018, CC BY 4.0);
- `family` and `pitch`: single notes of General MIDI sound fonts, MIDI 36 to 95: FluidR3 (MIT), Live HQ Natural and
  SGM (CC BY 4.0), Aspirin and 90's Retro Vintage (public domain), as their uploaders state;
- `sound`: the clips of ESC-10 that are CC0 or CC BY (Piczak 2015; recordings of freesound.org)"""
LIMITS = """
## Limits

A start for other tasks and a small example, not a product: nine English words at close range, single notes of sound
fonts, ten kinds of environmental sound from 212 clips. A network trained for one of these tasks alone scores more on
it. Test speakers, instruments and recordings are not in the training data; the scores above are of one seed. It has
heard no other language, no chords, and of animals dogs and roosters alone. Other rates than 16 kHz are resampled.
"""


def main(run_dir: str) -> None:
    model = load(run_dir)
    folder = FOLDER / NAME
    model.save(folder)
    if model.results is None:  # calibrated anew
        return
    card = model_card(model, DATA, LICENCE, f"audiostride/{NAME}")
    card = card.replace(f'au.AudioClassifier.from_pretrained("audiostride/{NAME}")', f'au.load("{NAME}")')
    card = card.replace("\n## Cost\n", f"{LIMITS}\n## Cost\n", 1)
    (folder / "README.md").write_text(card, encoding="utf-8")
    (folder / RESULTS_FILE).unlink(missing_ok=True)
    print(f"{folder}: {sum(path.stat().st_size for path in folder.iterdir()):,} bytes")


if __name__ == "__main__":
    main(sys.argv[1])
