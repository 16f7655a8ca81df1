"""Files are written whole or not at all, and what hinders it is named with the path and the free bytes."""

import os
import resource
import stat
from pathlib import Path

import pytest
import soundfile
from safetensors import SafetensorError

from audiostride.errors import UsageError, WriteError, printable
from audiostride.files import check_writable, replace_file, replace_files, replacing

RAISED = [
    OSError(28, "No space left on device"),
    OSError("1000 requested and 12 written"),  # numpy
    RuntimeError("[enforce fail at inline_container.cc:820] . PytorchStreamWriter failed writing file"),
    soundfile.LibsndfileError(2, "Error : "),
    SafetensorError("I/O error: No space left on device"),
    UnicodeEncodeError("utf-8", "\udce9", 0, 1, "surrogates not allowed"),
    BrokenPipeError(32, "Broken pipe"),
]


def write_half(path: Path, error: BaseException) -> None:
    with replacing(path) as partial:
        partial.write_text("half of the")
        raise error


@pytest.mark.parametrize("error", RAISED, ids=lambda error: type(error).__name__)
def test_whatever_a_library_raises_leaves_the_old_file_and_names_the_path(tmp_path: Path, error: Exception) -> None:
    path = tmp_path / "table.csv"
    path.write_text("old")
    with pytest.raises(WriteError, match=r"table\.csv: cannot be written \(.+\); [\d,]+ bytes are free"):
        write_half(path, error)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_of_files_that_belong_together_none_is_replaced_before_all_are_written(tmp_path: Path) -> None:
    paths = [tmp_path / "words.c", tmp_path / "words.h"]
    for path in paths:
        path.write_text("old")
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, resource.RLIM_INFINITY))
    try:
        with pytest.raises(WriteError, match=r"words\.h: cannot be written"):
            replace_files({paths[0]: "new", paths[1]: "longer than ten"})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert [path.read_text() for path in paths] == ["old", "old"]
    assert sorted(tmp_path.iterdir()) == paths
    replace_files(dict.fromkeys(paths, "new"))
    assert [path.read_text() for path in paths] == ["new", "new"]
    assert sorted(tmp_path.iterdir()) == paths


def test_our_own_errors_and_an_interruption_pass_and_leave_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("old")
    for error in (UsageError("no"), KeyboardInterrupt(), MemoryError()):
        with pytest.raises(type(error)):
            write_half(path, error)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_written_is_known_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    impossible = ["file/below.csv", "folder", "pipe", "n" * 256, "nul\0byte"]
    if os.getuid():
        (tmp_path / "locked").mkdir(mode=0o500)
        impossible.append("locked/a.csv")
    before = sorted(tmp_path.rglob("*"))
    for name in [*map(tmp_path.joinpath, impossible), Path("/dev/null"), Path("/proc/a.csv")]:
        with pytest.raises(WriteError, match="cannot be written"):
            check_writable(name)
        with pytest.raises(WriteError, match="cannot be written"), replacing(name):
            pytest.fail("the block was entered")
    assert sorted(tmp_path.rglob("*")) == before
    check_writable(tmp_path / "new/deeper/a.csv")
    assert list((tmp_path / "new/deeper").iterdir()) == []


@pytest.mark.parametrize("name", ["n" * 255, "ü" * 127, "caf\udce9.csv", "-", " ", "a\nb\x1b[2J.csv"])
def test_every_name_that_a_file_can_have_is_written(tmp_path: Path, name: str) -> None:
    replace_file(tmp_path / name, "first")
    replace_file(tmp_path / name, "second \udce9")
    assert (tmp_path / name).read_bytes() == b"second \xe9"
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_link_and_the_rights_of_a_file_are_kept(tmp_path: Path) -> None:
    private, link = tmp_path / "private.csv", tmp_path / "link.csv"
    private.write_text("old")
    private.chmod(0o600)
    link.symlink_to(private)
    replace_file(link, "new")
    assert link.is_symlink()
    assert private.read_text() == "new"
    assert stat.S_IMODE(private.stat().st_mode) == 0o600


def test_what_is_shown_holds_no_command_for_a_terminal() -> None:
    evil = "\x1b]0;title\x07 \x1b[2J \x9b31m \u202egnp.exe \u2066 \r\n\t\x00\x7f \udce9 \u2028"
    assert printable(evil).isprintable()
    assert printable("Amsel ½ 猫 🐈") == "Amsel ½ 猫 🐈"
    assert printable("two\nlines\x1b", keep="\n") == "two\nlines\\x1b"
