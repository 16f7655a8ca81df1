"""Fetching archives and unpacking them: resumed where they broke off, checked, and never outside their folder."""

import errno
import hashlib
import http.client
import lzma
import os
import posixpath
import re
import shutil
import stat
import struct
import tarfile
import urllib.error
import urllib.parse
import urllib.request
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, NamedTuple

from ..errors import DataError
from ..files import expand_user, explain_write_errors
from .bounded_tar import BoundedTar, open_packed
from .clips import Progress

TIMEOUT_S = 20.0
"""A server that says nothing for this long counts as unreachable."""

MAX_MEMBERS = 3_000_000
MAX_BYTES = 500 * 2**30
MAX_RATIO = 100
"""An archive that unpacks to more than this many times its own size is refused (above 100 MB)."""

UNSOUND = (
    *(tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error),
    *(EOFError, ValueError, TypeError, LookupError, ArithmeticError, RuntimeError),
)
"""What the readers of the standard library raise at archives that are none."""

_CHUNK = 1 << 20
_TRIES = 3


class Link(NamedTuple):
    """Where an archive comes from.

    Attributes:
        address: a URL or a local path.
        name: file name to keep it under.
        algorithm: "sha256" or "md5"; "" without a checksum.
        digest: the checksum in hexadecimal.
    """

    address: str
    name: str
    algorithm: str = ""
    digest: str = ""


def parse_link(text: str) -> Link:
    """Read `ADDRESS#sha256=HEX&name=FILE`, both parts after the # optional.

    Raises:
        DataError: if the part after the # is of another kind.

    Example:
        >>> parse_link("https://example.org/birds.zip#md5=0123456789abcdef0123456789abcdef").name
        'birds.zip'
    """
    address, _, fragment = text.partition("#")
    options = dict(urllib.parse.parse_qsl(fragment)) if fragment else {}
    name = options.pop("name", posixpath.basename(urllib.parse.urlparse(address).path)) or "download"
    algorithm = next((a for a in ("sha256", "md5") if a in options), "")
    digest = options.pop(algorithm, "").lower()
    if options or (fragment and not (algorithm or "name=" in fragment)):
        raise DataError(
            f"{text}: after the # only name=, sha256= and md5= are allowed, not {', '.join(options) or fragment}"
        )
    if algorithm and not re.fullmatch("[0-9a-f]{64}" if algorithm == "sha256" else "[0-9a-f]{32}", digest):
        raise DataError(f"{text}: {digest!r} is not a hexadecimal {algorithm}")
    if name != os.path.basename(name) or name in (".", ".."):
        raise DataError(f"{text}: {name!r} is not a plain file name")
    return Link(address, name, algorithm, digest)


def fetch(link: Link, folder: Path, progress: Progress | None = None) -> Path:
    """The file behind a link: local ones where they lie, others downloaded into `folder`.

    A download that broke off resumes where it stopped; a complete one is not repeated.

    Args:
        link: from `parse_link`.
        folder: where downloads are kept; made if need be.
        progress: called with megabytes done and in all.

    Raises:
        DataError: if it cannot be reached, breaks off or has another checksum.
    """
    if not re.match(r"^[a-z][a-z0-9+]*://", link.address):
        path = expand_user(link.address)
        if not path.is_file():
            raise DataError(f"{path}: no such file")
        _check(path, link, progress)
        return path
    if not link.address.startswith(("http://", "https://")):
        raise DataError(f"{link.address}: only http and https addresses can be downloaded")
    path, part = folder / link.name, folder / (link.name + ".part")
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        _download(link.address, part, progress)
        _check(part, link, progress)
        os.replace(part, path)
        _version_file(part).unlink(missing_ok=True)
    return path


def extract(archive: Path, folder: Path, progress: Progress | None = None) -> None:
    """Unpack a tar (plain or compressed) or zip archive into a folder.

    Only plain files and directories below the folder are ever written: an archive with an absolute
    path, a `..`, a link or a device is refused before that member, as is one that grows beyond all
    proportion. What a header claims is judged before it is read, so memory is bounded, too.

    Args:
        archive: the archive.
        folder: made if need be; files in it are overwritten.
        progress: called with the members done; the number in all is not known before the end.

    Raises:
        DataError: names the archive, and the member that is refused or damaged.
    """
    limit = min(MAX_BYTES, max(100 * 2**20, MAX_RATIO * archive.stat().st_size))
    folder.mkdir(parents=True, exist_ok=True)
    written = 0
    made: set[Path] = set()
    try:
        for count, (name, content) in enumerate(_members(archive, 2 * limit), 1):
            target = folder / _inside(name, archive)
            if target.parent not in made:
                target.parent.mkdir(parents=True, exist_ok=True)
                made.add(target.parent)
            with content, target.open("wb") as file:
                while chunk := content.read(_CHUNK):
                    written += len(chunk)
                    if written > limit:
                        raise DataError(
                            f"{archive}: unpacks to more than {limit >> 20} MB from {archive.stat().st_size >> 20} MB; "
                            "if that is expected, unpack it yourself and give the folder"
                        )
                    file.write(chunk)
            if count > MAX_MEMBERS:
                raise DataError(f"{archive}: has more than {MAX_MEMBERS} members")
            if progress:
                progress(f"unpacking {archive.name}", count, count + 1)
    except UNSOUND as error:
        raise DataError(f"{archive}: is not a valid tar or zip archive ({error})") from error
    except OSError as error:
        wrong_names = FileExistsError | NotADirectoryError | IsADirectoryError
        if error.errno in (None, errno.EINVAL, errno.ENAMETOOLONG) or isinstance(error, wrong_names):
            raise DataError(f"{archive}: is not a valid tar or zip archive ({error})") from error
        with explain_write_errors(folder / archive.name):
            raise
    if progress:
        progress(f"unpacking {archive.name}", count, count)


def _download(url: str, part: Path, progress: Progress | None) -> None:
    failures = 0
    while True:
        before = part.stat().st_size if part.exists() else 0
        try:
            if _download_once(url, part, before, progress):
                return
            reason = "the connection was lost"
        except urllib.error.HTTPError as error:
            if error.code == 416 and before:  # nothing follows what there is
                if error.headers.get("Content-Range") == f"bytes */{before}":
                    return  # all of it is there: the process was killed before it could say so
                part.unlink()  # it was another file's
                continue
            reason = f"HTTP {error.code} {error.reason}"
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = str(getattr(error, "reason", "") or error) or type(error).__name__
        after = part.stat().st_size if part.exists() else 0
        # An address that cannot be reached fails at once; one that broke off is taken up again.
        failures = failures + 1 if after > before else _TRIES
        if failures >= _TRIES:
            kept = f" {after >> 20} MB are kept; run it again to continue." if after else ""
            raise DataError(f"{url}: cannot be downloaded ({reason}).{kept}")


def _download_once(url: str, part: Path, before: int, progress: Progress | None) -> bool:
    """Fetch what is missing, or all of it where the server has another file by now; whether it is complete."""
    version_file = _version_file(part)
    version = version_file.read_text(encoding="utf-8") if before and version_file.exists() else ""
    request = urllib.request.Request(url, headers={"User-Agent": "audiostride"})
    if before:
        request.add_header("Range", f"bytes={before}-")
        if version and not version.startswith("W/"):
            request.add_header("If-Range", version)
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
        resumed = response.status == 206
        if resumed and (
            not (response.headers.get("Content-Range") or "").startswith(f"bytes {before}-")
            or version_of(response.headers) != version
        ):
            part.unlink()  # of another version, or an unknown one
            return _download_once(url, part, 0, progress)
        if not resumed:
            version_file.write_text(version_of(response.headers), encoding="utf-8")
        done = before if resumed else 0
        length = response.headers.get("Content-Length")
        total = done + int(length) if length else 0
        with part.open("ab" if resumed else "wb") as file:
            _check_room(url, part, total - done)
            while chunk := response.read(_CHUNK):
                _check_room(url, part, len(chunk))
                file.write(chunk)
                done += len(chunk)
                if progress and done < total:
                    progress(f"downloading {part.stem} (MB)", done >> 20, max(total >> 20, (done >> 20) + 1))
        if progress and done >= total:
            progress(f"downloading {part.stem} (MB)", done >> 20, done >> 20)
    return done >= total


def _version_file(part: Path) -> Path:
    return part.with_name(part.name + ".version")


def version_of(headers: Mapping[str, str]) -> str:
    """What a server says of the version of a file, for `If-Range` and comparisons; "" where it says nothing.

    Example:
        >>> version_of({"ETag": '"5f-1"', "Last-Modified": "Tue, 01 Dec 2026 00:00:00 GMT"})
        '"5f-1"'
    """
    tag, changed = headers.get("ETag") or "", headers.get("Last-Modified") or ""
    return changed or tag if tag.startswith("W/") else tag or changed


def _check_room(url: str, part: Path, size: int) -> None:
    """Refuse to fill the disk, where others work too: a twentieth of it, or 1 GB, stays free."""
    disk = shutil.disk_usage(part.parent)
    if size > disk.free - min(2**30, disk.total // 20):
        kept = part.stat().st_size
        raise DataError(
            f"{url}: {part.parent} has only {disk.free:,} free bytes left for it; make room there and run it again "
            f"({kept:,} bytes are kept), or download it by hand"
        )


def _check(path: Path, link: Link, progress: Progress | None) -> None:
    if not link.algorithm:
        return
    hasher, size, done = hashlib.new(link.algorithm, usedforsecurity=False), path.stat().st_size, 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            hasher.update(chunk)
            done += len(chunk)
            if progress:
                progress(f"checking {link.name} (MB)", -(-done >> 20), -(-size >> 20))
    if hasher.hexdigest() != link.digest:
        damaged = ""
        if path.suffix == ".part":
            path.unlink()
            _version_file(path).unlink(missing_ok=True)
            damaged = " The download was removed; run it again, or give another address."
        raise DataError(f"{link.address}: its {link.algorithm} is {hasher.hexdigest()}, not {link.digest}.{damaged}")


def _members(archive: Path, max_bytes: int) -> Iterator[tuple[str, IO[bytes]]]:
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as zipped:
            for info in zipped.infolist():
                kind = stat.S_IFMT(info.external_attr >> 16)
                if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                    raise DataError(f"{archive}: {info.filename!r} is a link or device; it is not unpacked")
                if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    # Of the others zipfile unpacks all that a piece of the file stands for, at once.
                    raise DataError(
                        f"{archive}: {info.filename!r} is compressed by method {info.compress_type}, only deflate is "
                        "supported; unpack it yourself and give the folder"
                    )
                if not info.is_dir():
                    yield info.filename, zipped.open(info)
        return
    with open_packed(archive) as file:
        tar = BoundedTar(file, max_bytes)
        for member in tar:
            if member.isdir():
                continue
            if not member.isreg():
                raise DataError(f"{archive}: {member.name!r} is a link or device; it is not unpacked")
            yield member.name, tar.content(member)


def _inside(name: str, archive: Path) -> Path:
    parts = name.replace("\\", "/").split("/")
    if name.startswith(("/", "\\")) or ".." in parts or ":" in parts[0] or "\0" in name:
        raise DataError(f"{archive}: {name!r} is outside the archive's folder; it is not unpacked")
    return Path(*[part for part in parts if part not in ("", ".")])
