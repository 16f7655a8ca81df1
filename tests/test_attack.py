"""What commands read, changed; what they write, on a full disk and killed: a sample of what tests/attack.py does."""

import random
import sys
from pathlib import Path

import attack
import pytest
from attack_cases import READINGS, WRITINGS, Reading, build_ground

import audiostride.cli

SEED = 0
READ = ("evaluate run --json", "cutoffs", "predict run -", "predict run sounds --out rows.csv", "calibrate",
        "init tables", "validate table.yaml")  # fmt: skip
WRITTEN = ("init", "predict run sounds --out out/rows.csv", "predict run sounds --out out/labels", "embed", "calibrate",
           "report")  # fmt: skip


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("attack") / "ground"
    folder.mkdir()
    build_ground(folder)
    attack.warm_up(folder, folder.parent / "work", ["report run -o out/report.html", "predict run sounds --csv"])
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("reading", [r for r in READINGS if r.command.startswith(READ)], ids=lambda r: r.command)
def test_a_changed_file_is_a_named_error_or_changes_nothing(reading, ground):
    counts, findings = attack.attack_reading(ground, ground.parent / "work", reading, 1, random.Random(SEED))
    assert findings == []
    assert counts.total() > 0


@pytest.mark.slow
@pytest.mark.parametrize("writing", [w for w in WRITINGS if w.command.startswith(WRITTEN)], ids=lambda w: w.command)
def test_a_full_disk_and_a_kill_leave_the_old_file_or_the_new_one(writing, ground):
    counts, findings = attack.attack_writing(ground, ground.parent / "work", writing, 1, random.Random(SEED))
    assert findings == []
    assert counts["full disk"]


@pytest.mark.slow
def test_each_foreign_exception_and_each_other_result_is_noticed(ground, monkeypatch):
    """The attack itself: it sees a reader that ends in a traceback, and one that takes a cut file for a whole one."""
    whole = (ground / "rows.csv").read_bytes()

    def findings(reader: str) -> set[str]:
        def main() -> None:
            content = Path("rows.csv").read_bytes() if Path("rows.csv").exists() else b""
            if content != whole and reader == "foreign":
                raise KeyError(content)
            if content != whole and reader == "careful":
                sys.exit(4)
            print(content)  # noqa: T201

        monkeypatch.setattr(audiostride.cli, "main", main)
        case = Reading("evaluate", ("rows.csv",))
        return {f.kind for f in attack.attack_reading(ground, ground.parent / "work", case, 12, random.Random(SEED))[1]}

    assert findings("careful") == set()
    assert findings("foreign") == {"foreign"}
    assert findings("silent") == {"silent"}
