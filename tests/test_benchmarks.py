"""The pages with measured figures: their tables are what the benchmarks left."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(("name", "numbers"), [("cost.md", 100), ("data.md", 8)])
def test_the_tables_of_a_page_are_those_of_the_csv_files(name: str, numbers: int, tmp_path: Path) -> None:
    page = (ROOT / "docs" / name).read_text()
    head, *tables = re.split(r"(?=<!-- table:)", page)
    parts = [re.subn(r"(?<=\| )\d+\.\d+(?= (?:% )?\|)", "0.00", part, count=numbers) for part in tables]
    assert sum(n for _, n in parts) >= numbers
    (tmp_path / name).write_text(head + "".join(part for part, _ in parts))
    subprocess.run([sys.executable, ROOT / "benchmarks" / "tables.py", tmp_path / name], check=True)
    assert (tmp_path / name).read_text() == page
