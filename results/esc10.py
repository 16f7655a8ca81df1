"""A table of the ESC-10 clips of a folder of ESC-50 that are CC0 or CC BY: what `recipes/pretrained.yaml` trains on.

    python results/esc10.py DATA/esc

The folder holds `train/` and `test/`, each with a `metadata.csv` that has the columns file_name, label, esc10,
clip_licence and freesound_id. Writes `esc10.csv` next to them.
"""

import csv
import sys
from pathlib import Path

COLUMNS = ("file_name", "label", "freesound_id", "split")


def main(folder: Path) -> None:
    rows = []
    for split in ("train", "test"):
        with (folder / split / "metadata.csv").open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                if row["esc10"] == "True" and row["clip_licence"] in ("CC0", "CC-BY"):
                    rows.append([f"{split}/{row['file_name']}", row["label"], row["freesound_id"], split])
    with (folder / "esc10.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([COLUMNS, *rows])
    print(f"{folder / 'esc10.csv'}: {len(rows)} clips")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
