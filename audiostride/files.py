"""Writing files so that a crash, a power cut or a full disk leaves the old one or the new one, nothing between."""

import hashlib
import json
import os
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock

from .errors import AudiostrideError, DataError, ModelFileError, UsageError, WriteError, printable


@contextmanager
def explain_write_errors(path: Path) -> Iterator[None]:
    """Turn what a block that writes a file raises into an error with the path and the bytes that are free there.

    Libraries name a full disk in many ways: OSError, RuntimeError (torch), LibsndfileError, SafetensorError, ...

    Raises:
        WriteError: in place of every exception but audiostride's own and MemoryError.
    """
    try:
        yield
    except (AudiostrideError, MemoryError):
        raise
    except Exception as error:
        try:
            free = f"{shutil.disk_usage(path.parent).free:,} bytes are free there"
        except OSError:
            free = f"{printable(path.parent)} cannot be reached"
        reason = getattr(error, "strerror", None) or error
        raise WriteError(f"{printable(path)}: cannot be written ({reason}); {free}") from error


def write_synced(path: Path, content: bytes) -> None:
    """Write a file and wait until it is on the disk.

    Raises:
        WriteError: names the path and the bytes that are free there.
    """
    with explain_write_errors(path), path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder (what was made, renamed or removed there) are on the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file to write next to `path`, which takes its place, whole and on the disk, at the end of the block.

    The block does nothing but write. If it fails, an old file at `path` is untouched and the new one is removed.

    Args:
        path: the file that is made or replaced; its folder is made if need be.

    Yields:
        Path of an empty file to write. Its ending is not that of `path`, so a library that goes by the ending needs to
        be told the format.

    Raises:
        WriteError: names the path and the bytes that are free there; at once if nothing can be written there.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "new", "scores.csv")
        >>> with replacing(path) as partial:
        ...     _ = partial.write_text("score")
        ...     path.exists()
        False
        >>> path.read_text(), len(list(path.parent.iterdir()))
        ('score', 1)
    """
    with explain_write_errors(path):
        path, partial = _begin(path)
        try:
            yield partial
            if path.exists():
                shutil.copymode(path, partial)
            with partial.open("r+b") as file:
                os.fsync(file.fileno())
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
        sync_folder(path.parent)


def check_writable(path: Path) -> None:
    """Find out before long work whether its result can be written; makes the folder and leaves nothing else.

    Raises:
        WriteError: as `replacing`.
    """
    with explain_write_errors(path):
        _begin(path)[1].unlink()


def _begin(path: Path) -> tuple[Path, Path]:
    """The real path of a file, and an empty one next to it to write first."""
    path = path.resolve()  # what a link points to is replaced, not the link
    if path.exists() and not path.is_file():
        raise OSError(f"it is {'a directory' if path.is_dir() else 'a device or a pipe'}, not a file")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{os.fsdecode(os.fsencode(path.name)[:240])}.partial")
    partial.write_bytes(b"")
    return path, partial


def replace_file(path: Path, content: bytes | str) -> None:
    """Write a file, or replace it whole, see `replacing`.

    Args:
        path: the file; its folder is made if need be.
        content: text is written as UTF-8; bytes of a name that are not text are written back as they were.

    Raises:
        WriteError: as `replacing`.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "results.json")
        >>> replace_file(path, "{}")
        >>> path.read_text(), len(list(path.parent.iterdir()))
        ('{}', 1)
    """
    replace_files({path: content})


def replace_files(contents: Mapping[Path, bytes | str]) -> None:
    """Write or replace files that belong together, as `replace_file`; none is replaced before all are written.

    Raises:
        WriteError: as `replacing`.
    """
    with ExitStack() as stack:
        for path, content in contents.items():
            partial = stack.enter_context(replacing(path))
            partial.write_bytes(content.encode("utf-8", "surrogateescape") if isinstance(content, str) else content)


@contextmanager
def exclusive(path: Path) -> Iterator[bool]:
    """Hold a lock file; a process that waits for it continues when the holder is done or dead.

    Yields:
        Whether the lock is held: some network file systems have none.
    """
    lock = FileLock(path)
    with suppress(NotImplementedError, OSError):  # no locks here:
        lock.acquire()  # two runs may do the same work, and the first one done wins
    try:
        yield lock.is_locked
    finally:
        lock.release()


def check_absent(path: Path) -> None:
    """Refuse to write where something is already.

    Raises:
        UsageError: if there is anything at `path`.

    Example:
        >>> check_absent(Path("/dev/null"))
        Traceback (most recent call last):
            ...
        audiostride.errors.UsageError: /dev/null: already exists; choose another name, or remove it first
    """
    if path.exists():
        raise UsageError(f"{printable(path)}: already exists; choose another name, or remove it first")


def check_new(*paths: Path | None) -> None:
    """`check_absent` for each path that is given, and that it can be written: a result never replaces a file."""
    for path in filter(None, paths):
        check_absent(path)
        check_writable(path)


def write_new(path: Path, text: str) -> None:
    """Write a new file as UTF-8, and its folder where there is none.

    Raises:
        UsageError: if there is anything at `path`.
        WriteError: names the path and the bytes that are free there.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "new", "recipe.yaml")
        >>> write_new(path, "seed: 0")
        >>> path.read_text()
        'seed: 0'
    """
    check_absent(path)
    replace_file(path, text)


def expand_user(path: str | os.PathLike[str]) -> Path:
    """A path; a leading `~` or `~name` stands for a home directory.

    Raises:
        DataError: if there is no such user.

    Example:
        >>> expand_user("~nobody-of-this-name/sounds")
        Traceback (most recent call last):
            ...
        audiostride.errors.DataError: ~nobody-of-this-name/sounds: there is no such user; ...
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise DataError(
            f"{printable(path)}: there is no such user; write out the path, or ./~... for a name"
        ) from error


def file_status(path: str | os.PathLike[str]) -> os.stat_result:
    """Size and times of a file that is about to be opened.

    Raises:
        OSError: if there is no file, or something else: opening a FIFO would wait for ever, a device may never end.
    """
    found = os.stat(path)
    if not stat.S_ISREG(found.st_mode):
        raise OSError("is not a file" + (" but a directory" if stat.S_ISDIR(found.st_mode) else ""))
    return found


def read_bounded(path: Path, limit: int) -> bytes:
    """Content of a file that came from anywhere: of no more than `limit` bytes, and a file indeed.

    Raises:
        ModelFileError: if it is missing, larger, or no plain file (opening a FIFO would wait for ever).

    Example:
        >>> read_bounded(Path("/dev/zero"), 100)
        Traceback (most recent call last):
            ...
        audiostride.errors.ModelFileError: /dev/zero: is not a file
    """
    try:
        size = file_status(path).st_size
        if size > limit:
            raise ModelFileError(f"{path}: has {size:,} bytes, more than the limit of {limit:,}")
        return path.read_bytes()
    except OSError as error:
        raise ModelFileError(f"{path}: {error.strerror or error}") from error


class JsonLines:
    """A file of JSON lines that is appended to, and can be cut back to where a checkpoint left it.

    Args:
        path: the file.
        keep: bytes to keep of a file that exists; what follows them is cut off. 0 starts anew.
        sha256: digest of the bytes to keep.

    Attributes:
        sha256: of all that is in the file, a `hashlib` object.

    Raises:
        ModelFileError: if the file is shorter than `keep`, or other bytes are in it.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "steps.jsonl")
        >>> lines = JsonLines(path)
        >>> lines.append({"step": 1})
        >>> length = lines.sync()
        >>> lines.append({"step": 2})
        >>> lines.close()
        >>> JsonLines(path, length, hashlib.sha256(b'{"step": 1}\\n').hexdigest()).close()
        >>> path.read_text()
        '{"step": 1}\\n'
    """

    def __init__(self, path: Path, keep: int = 0, sha256: str = ""):
        self.path, self.sha256 = path, hashlib.sha256()
        found = path.stat().st_size if keep and path.exists() else 0
        if found < keep:
            raise ModelFileError(
                f"{path}: has {found} bytes, not the {keep} it had at the checkpoint: truncated or replaced"
            )
        if keep:
            with path.open("rb") as file:
                self.sha256.update(file.read(keep))
            if self.sha256.hexdigest() != sha256:
                raise ModelFileError(
                    f"{path}: its first {keep} bytes are not those it had at the checkpoint: changed, or of another run"
                )
        with explain_write_errors(path):
            self.file = path.open("r+b" if keep else "wb", buffering=0)
            if keep:
                self.file.truncate(keep)
                self.file.seek(keep)

    def append(self, record: Mapping[str, Any]) -> None:
        """Add one line, which a reader of the file sees at once."""
        with explain_write_errors(self.path):
            line = (json.dumps(record) + "\n").encode()
            self.sha256.update(line)
            while line:  # an unbuffered write may take a part, on a disk that is nearly full
                line = line[self.file.write(line) :]

    def sync(self) -> int:
        """Wait until all lines are on the disk; returns the length of the file in bytes."""
        with explain_write_errors(self.path):
            os.fsync(self.file.fileno())
        return self.file.tell()

    def __enter__(self) -> "JsonLines":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self.file.close()
