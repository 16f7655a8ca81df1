"""The pages with measured figures: their tables are what the benchmarks left."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(("name", "numbers"), [("cost.md", 100), ("data.md", 19)])
def test_the_tables_of_a_page_are_those_of_the_csv_files(name: str, numbers: int, tmp_path: Path) -> None:
    page, table = (ROOT / "docs" / name).read_text(), re.compile(r"(?<= -->\n\n)(?:\|.*\n)+")
    assert len(re.findall(r"(?<=\| )\d+\.\d+(?= \|)", "".join(table.findall(page)))) > numbers
    (tmp_path / name).write_text(table.sub("| gone |\n", page))
    subprocess.run([sys.executable, ROOT / "benchmarks" / "tables.py", tmp_path / name], check=True)
    assert (tmp_path / name).read_text() == page
