"""The cost page: its tables are what the benchmarks left."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_tables_of_the_cost_page_are_those_of_the_csv_files(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "cost.md").read_text()
    wrong, n_numbers = re.subn(r"(?<=\| )\d+\.\d+(?= \|)", "0.00", page)
    assert n_numbers > 100
    (tmp_path / "cost.md").write_text(wrong)
    subprocess.run([sys.executable, ROOT / "benchmarks" / "tables.py", tmp_path / "cost.md"], check=True)
    assert (tmp_path / "cost.md").read_text() == page
