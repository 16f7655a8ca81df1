"""The pages with measured figures: their tables are what the benchmarks left."""

import csv
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("name", "numbers"),
    [
        ("cost.md", 100),
        ("data.md", 19),
        ("models.md", 18),
        ("finetune.md", 20),
        ("events.md", 11),
        ("resolution.md", 30),
    ],
)
def test_the_tables_of_a_page_are_those_of_the_csv_files(name: str, numbers: int, tmp_path: Path) -> None:
    page, table = (ROOT / "docs" / name).read_text(), re.compile(r"(?<= -->\n\n)(?:\|.*\n)+")
    assert len(re.findall(r"(?<=\| )\d+\.\d+(?: ± \d+\.\d+)?(?= \|)", "".join(table.findall(page)))) > numbers
    (tmp_path / name).write_text(table.sub("| gone |\n", page))
    subprocess.run([sys.executable, ROOT / "benchmarks" / "tables.py", tmp_path / name], check=True)
    assert (tmp_path / name).read_text() == page


def test_the_cost_page_opens_with_what_was_measured(tmp_path: Path) -> None:
    """If this fails: python benchmarks/figure.py, and correct the first paragraph of docs/cost.md."""
    subprocess.run([sys.executable, ROOT / "benchmarks" / "figure.py", tmp_path / "cost.png"], check=True)
    assert (tmp_path / "cost.png").read_bytes().startswith(b"\x89PNG")
    with (ROOT / "benchmarks" / "step.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if (row["network"], row["batch"]) == ("paper", "64")]
    found = {(row["what"], row["method"], row["R"]): row for row in rows}
    columns = (("training", "MAC ratio"), ("training", "time / strided"), ("inference", "time / strided"))
    columns += (("training", "memory / strided"),)
    one, four, fft = (
        [float(found[what, *form][column]) for what, column in columns]
        for form in (("diffstride", "1"), ("diffstride", "4"), ("fft", "4"))
    )
    opening = " ".join((ROOT / "docs" / "cost.md").read_text().split("![")[0].split())
    stated = [float(number) for number in re.findall(r"\d\.\d", opening)]
    assert stated == pytest.approx([*one, *four, fft[1] / four[1], fft[3] / four[3]], abs=0.051)


@pytest.mark.slow
def test_forms_of_a_convolution_and_waiting_for_data_are_measured(tone_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(tone_folder, tmp_path / "few", ignore=shutil.ignore_patterns("[12]?.wav"))
    small = {
        "conv_resolution": ["--batch", "1", "--repeats", "1"],
        "input_wait": [str(tmp_path / "few"), "--bare-steps", "1"],
    }
    for name, arguments in small.items():
        out = tmp_path / f"{name}.csv"
        script = ROOT / "benchmarks" / f"{name}.py"
        subprocess.run([sys.executable, script, *arguments, "--out", out], check=True, capture_output=True)
        with out.open(newline="") as file, (script.with_suffix(".csv")).open(newline="") as committed:
            assert next(csv.reader(file)) == next(csv.reader(committed))
