"""A batch resumes only what it wrote itself: rows that were lost, edited or extended are neither damaged nor mixed."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from audiostride.errors import UsageError
from audiostride.inference.predict import Row, SoundRows
from audiostride.inference.row_file import CSV_HEADER, RowFile

NAMES = ["a.wav", "two\nlines.wav", "caf\udce9.wav", "\x1b[2J.wav", 'quo"te,.wav']
MADE_BY: dict[str, object] = {"model": "m", "top_k": 1}


def write(path: Path, names: list[str], resume: bool = False) -> None:
    with RowFile(path, MADE_BY, resume) as file:
        for name in names:
            if name not in file.done:
                failed = name.startswith("quo")
                row = Row(name, error="damaged") if failed else Row(name, "word", 0.0, 1.0, 1, "yes", 0.5)
                file.write(SoundRows(name, [row], last=True, failed=failed))


@pytest.fixture(params=[".csv", ".jsonl"])
def rows(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / f"rows{request.param}"
    write(path, NAMES)
    return path


@pytest.mark.slow
def test_a_file_cut_at_any_byte_is_completed_or_untouched(rows: Path) -> None:
    content, journal = rows.read_bytes(), Path(f"{rows}.journal").read_bytes()
    for cut in range(len(content) + 1):
        rows.write_bytes(content[:cut])
        Path(f"{rows}.journal").write_bytes(journal)
        write(rows, NAMES, resume=True)
        assert rows.read_bytes() == content, cut


@pytest.mark.slow
def test_a_journal_cut_at_any_byte_is_completed_or_refused(rows: Path) -> None:
    content, journal = rows.read_bytes(), Path(f"{rows}.journal").read_bytes()
    for cut in range(len(journal) + 1):
        rows.write_bytes(content)
        Path(f"{rows}.journal").write_bytes(journal[:cut])
        if b"\n" in journal[:cut]:
            write(rows, NAMES, resume=True)
        else:
            with pytest.raises(UsageError, match="is not a journal"):
                write(rows, NAMES, resume=True)
        assert rows.read_bytes() == content, cut


def failing(path: Path, names: list[str], failed: set[str], resume: bool = False) -> list[str]:
    """Write rows of sounds, of which some cannot be read; returns those that were tried."""
    with RowFile(path, MADE_BY, resume) as file:
        tried = [name for name in names if name not in file.done]
        for name in tried:
            row = Row(name, error="damaged") if name in failed else Row(name, "word", 0.0, 1.0, 1, "yes", 0.5)
            file.write(SoundRows(name, [row], last=True, failed=name in failed))
    return tried


@pytest.mark.parametrize("failed", [{"a.wav"}, {"caf\udce9.wav"}, {"a.wav", "two\nlines.wav"}, set(NAMES)])
def test_a_sound_that_failed_is_tried_again_and_its_old_row_is_gone(tmp_path: Path, failed: set[str]) -> None:
    path = tmp_path / "rows.csv"
    failing(path, NAMES, failed)
    assert failing(path, NAMES, {"a.wav"}, resume=True) == [name for name in NAMES if name in failed]
    again = [*[name for name in NAMES if name not in failed], *[name for name in NAMES if name in failed]]
    failing(tmp_path / "whole.csv", again, failed & {"a.wav"})
    assert path.read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert Path(f"{path}.journal").read_bytes() == (tmp_path / "whole.csv.journal").read_bytes()
    assert failing(path, NAMES, set(), resume=True) == sorted(failed & {"a.wav"})
    assert b"damaged" not in path.read_bytes()


def test_a_resume_that_is_killed_between_file_and_journal_loses_nothing(tmp_path: Path) -> None:
    path, failed = tmp_path / "rows.csv", {"a.wav", "caf\udce9.wav", NAMES[-1]}
    failing(path, NAMES, failed)
    journal = Path(f"{path}.journal").read_bytes()
    failing(path, [], set(), resume=True)
    without = path.read_bytes()
    Path(f"{path}.journal").write_bytes(journal)
    assert failing(path, NAMES, set(), resume=True) == [name for name in NAMES if name in failed]
    assert path.read_bytes().startswith(without)
    assert path.read_text(errors="surrogateescape").count("yes") == len(NAMES)


def test_rows_that_somebody_changed_are_refused_and_stay(rows: Path) -> None:
    content = rows.read_bytes()
    lines = content.splitlines(keepends=True)
    changed = {
        "a row less": b"".join([*lines[:2], *lines[3:]]),
        "the first row less": b"".join([*lines[:1], *lines[2:]]),
        "a note": content + b"notes\n",
        "two notes": content + b"notes\nmore\n",
        "another label": content.replace(b"yes", b"noo", 1),
        "another order": b"".join([lines[1], lines[0], *lines[2:]]),
        "sorted": b"".join(sorted(lines)),
        "a line in front": b"# mine\n" + content,
        "other ends of lines": content.replace(b"\n", b"\r\n"),
        "zeros": bytes(len(content)),
    }
    for what, now in changed.items():
        rows.write_bytes(now)
        with pytest.raises(UsageError, match="cannot be continued; choose another --out"):
            write(rows, [*NAMES, "new.wav"], resume=True)
        assert rows.read_bytes() == now, what
    rows.write_bytes(content)
    write(rows, [*NAMES, "new.wav"], resume=True)
    assert rows.read_bytes().startswith(content)
    assert rows.read_bytes().count(b"new.wav") == 1


@pytest.mark.parametrize("value", [None, -1, True, 1.5, float("nan"), "text", [], {}, 99999999999, 10**30])
@pytest.mark.parametrize("line", [0, 2])
def test_a_journal_with_any_field_of_another_kind_is_refused(rows: Path, line: int, value: object) -> None:
    content, path = rows.read_bytes(), Path(f"{rows}.journal")
    journal = [json.loads(text) for text in path.read_text().splitlines()]
    for key in journal[line]:
        if (key, value) == ("failed", True):
            continue
        broken = [dict(entry) for entry in journal]
        broken[line][key] = value
        path.write_text("".join(json.dumps(entry) + "\n" for entry in broken))
        with pytest.raises(UsageError):
            write(rows, [*NAMES, "new.wav"], resume=True)
        assert rows.read_bytes() == content, key


@pytest.mark.parametrize("journal", [b"5\n", b"null\n", b"[" * 100_000 + b"\n", b"\xff\xfe\n", b'{"made_by": {}}\n'])
def test_what_is_no_journal_is_refused(rows: Path, journal: bytes) -> None:
    Path(f"{rows}.journal").write_bytes(journal)
    with pytest.raises(UsageError, match="is not a journal of"):
        write(rows, NAMES, resume=True)
    Path(f"{rows}.journal").unlink()
    with pytest.raises(UsageError, match=r"its journal .* is missing"):
        write(rows, NAMES, resume=True)


@pytest.mark.parametrize("journal", [None, b"", b'{"made_by": {"mo'])
@pytest.mark.parametrize("content", ["", "file,ta", CSV_HEADER])
def test_a_batch_stopped_before_its_first_row_starts_anew(tmp_path: Path, journal: bytes | None, content: str) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(content)
    if journal is not None:
        (tmp_path / "rows.csv.journal").write_bytes(journal)
    write(path, ["a.wav"], resume=True)
    write(tmp_path / "whole.csv", ["a.wav"])
    assert path.read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_two_batches_cannot_write_one_file(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    code = (
        "import sys; from pathlib import Path; from audiostride.inference.row_file import RowFile\n"
        "RowFile(Path(sys.argv[1]), {'model': 'm', 'top_k': 1}, resume=True)\n"
    )
    with RowFile(path, MADE_BY):
        done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=120)
    assert "another process writes to it" in done.stderr
    write(path, ["a.wav"], resume=True)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["rows.csv", "rows.csv.journal"]
