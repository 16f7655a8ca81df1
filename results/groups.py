"""What the test clips of collected runs belong to: python results/groups.py DATA_DIR COLUMN

Adds a line to `groups.csv` for the test set of a data folder: for each of its clips, in the order of their names, the
number of its group, which are the values of COLUMN in `test/metadata.csv` (a speaker, an instrument of a bank, a
source recording). Needed for runs whose recipe names no `data.group`; `collect.py` adds the others on its own.
"""

import csv
import hashlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

HERE = Path(__file__).parent
COLUMNS = ("clips", "data", "column", "n_groups", "groups")


def main(data: Path, column: str) -> None:
    """Add or replace the line of a data folder."""
    with (data / "test" / "metadata.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if column not in rows[0]:
        raise SystemExit(f"error: {data}/test/metadata.csv has no column {column!r}; it has {', '.join(rows[0])}")
    by_clip = {f"test/{row['file_name']}": row[column] for row in rows}
    add_groups({clips_digest(by_clip): groups_row(data.name, column, by_clip)})
    print(f"{data.name}: {len(by_clip)} test clips in {len(set(by_clip.values()))} groups; now: python results/page.py")


def clips_digest(clips: Mapping[str, object]) -> str:
    """What `runs.csv` knows a set of test clips by."""
    return hashlib.sha256("\n".join(sorted(clips)).encode("utf-8", "surrogateescape")).hexdigest()[:12]


def groups_row(data: str, column: str, by_clip: Mapping[str, str]) -> dict[str, str]:
    """The line of `groups.csv` of a test set."""
    numbers = {name: i for i, name in enumerate(dict.fromkeys(by_clip[clip] for clip in sorted(by_clip)))}
    groups = " ".join(f"{numbers[by_clip[clip]]}" for clip in sorted(by_clip))
    found = {"clips": clips_digest(by_clip), "data": data, "column": column}
    return found | {"n_groups": f"{len(numbers)}", "groups": groups}


def read_groups() -> dict[str, dict[str, str]]:
    """The lines of `groups.csv` by the digest of their clips."""
    path = HERE / "groups.csv"
    if not path.is_file():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        return {row["clips"]: row for row in csv.DictReader(file)}


def add_groups(rows: Mapping[str, Mapping[str, str]]) -> None:
    """Add lines to `groups.csv`; one of the same clips is replaced."""
    merged = {**read_groups(), **rows}
    if not merged:
        return
    with (HERE / "groups.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        table.writeheader()
        table.writerows(sorted(merged.values(), key=lambda row: (row["data"], row["clips"])))


def command(arguments: Sequence[str]) -> None:
    """Run from a shell."""
    if len(arguments) != 2:
        raise SystemExit(__doc__)
    main(Path(arguments[0]), arguments[1])


if __name__ == "__main__":
    command(sys.argv[1:])
