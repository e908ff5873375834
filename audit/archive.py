"""A bundle in one zip file, packed the same on every machine and unpacked with care.

What arrives in a zip is foreign: names may climb out of the folder, entries may be links or
devices, a small file may swell to fill the disk, two entries may have one name. None of that is
unpacked.
"""

from __future__ import annotations

import lzma
import os
import shutil
import stat
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from audit import bundle as bundles
from audit.errors import AuditError, Malformed

MOST_BYTES = 8 << 30  # unpacked
MOST_RATIO = 200  # a bundle is mostly digests and signatures, which hardly shrink
_FREE_BYTES = 1 << 20  # below it the ratio is not looked at
_PIECE = 1 << 20
_DAMAGED = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, ValueError, RuntimeError, struct.error
)  # fmt: skip
_EPOCH = (1980, 1, 1, 0, 0, 0)


def pack(folder: Path, out: Path) -> None:
    """Pack a bundle's folder; equal folders give equal bytes.

    Raises:
        AuditError: `out` exists, or the folder is no bundle or holds a link.
    """
    bundles.read(folder)
    try:
        stream = out.open("xb")
    except FileExistsError:
        raise AuditError(
            f"{out} exists already; choose another name", code="exists", exit_code=2
        ) from None
    with stream, zipfile.ZipFile(stream, "w") as archive:
        for name in sorted(bundles.walk(folder)):
            path = folder / name
            if path.is_symlink() or not path.is_file():
                raise AuditError(f"{name} is not a plain file; leave it out", code="symlink")
            item = zipfile.ZipInfo(name, _EPOCH)
            item.external_attr = (stat.S_IFREG | 0o644) << 16
            item.compress_type = zipfile.ZIP_DEFLATED
            item.file_size = path.stat().st_size
            with path.open("rb") as source, archive.open(item, "w") as target:
                shutil.copyfileobj(source, target, _PIECE)


def unpack(archive: Path, into: Path) -> Path:
    """Unpack a bundle into a new folder below `into`, and return that folder.

    Guarantees: every file is below the folder, is a plain file that did not exist, and all together
    they are no larger than the limits of a bundle; otherwise nothing is left.

    Raises:
        Malformed: the zip breaks one of these rules, or is damaged.
        AuditError: it cannot be read (exit code 2).
    """
    place = Path(tempfile.mkdtemp(prefix="bundle-", dir=into))
    try:
        with zipfile.ZipFile(archive) as opened:
            _unpack(opened, place)
    except OSError as error:
        shutil.rmtree(place, ignore_errors=True)
        raise AuditError(
            f"{archive} cannot be unpacked ({error.strerror}); check the path and the disk",
            code="unreadable",
            exit_code=2,
        ) from None
    except _DAMAGED:
        shutil.rmtree(place, ignore_errors=True)
        raise Malformed(f"{archive.name} is no intact zip file", code="bad-archive") from None
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        raise
    return place


@contextmanager
def opened(place: Path) -> Iterator[Path]:
    """Give a bundle's folder, whether `place` is one or a zip file of one."""
    if not place.is_file():
        yield place
        return
    with tempfile.TemporaryDirectory(prefix="privity-") as folder:
        yield unpack(place, Path(folder))


def _unpack(archive: zipfile.ZipFile, place: Path) -> None:
    items = archive.infolist()
    if not len(items) <= bundles.MAX_FILES:
        raise Malformed(f"the zip has over {bundles.MAX_FILES} files", code="too-many-files")
    if not sum(item.file_size for item in items) <= MOST_BYTES:
        raise Malformed(f"the zip unpacks to over {MOST_BYTES} bytes", code="too-large")
    left = MOST_BYTES
    for item in items:
        name = item.orig_filename
        if name != item.filename:
            raise Malformed("the zip has a name with odd characters", code="path-escape")
        if name.endswith("/"):
            bundles.check_path(name[:-1])
            continue
        bundles.check_path(name)
        kind = stat.S_IFMT(item.external_attr >> 16)
        if kind not in (0, stat.S_IFREG):
            raise Malformed(f"{name} is a link or a device", code="symlink")
        if item.flag_bits & 0x1:
            raise Malformed(f"{name} is encrypted", code="bad-archive")
        left -= _write(archive, item, place / name, left)


def _write(archive: zipfile.ZipFile, item: zipfile.ZipInfo, path: Path, left: int) -> int:
    """Unpack one file of at most `left` bytes, whatever its header says; return its size."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)
    except (FileExistsError, NotADirectoryError):
        raise Malformed("the zip has two entries of one name", code="bad-archive") from None
    size = 0
    with archive.open(item) as source, os.fdopen(handle, "wb") as target:
        while piece := source.read(_PIECE):
            size += len(piece)
            swollen = size > _FREE_BYTES and size > MOST_RATIO * max(item.compress_size, 1)
            if swollen or not size <= left:
                raise Malformed("the zip swells far beyond its size", code="too-large")
            target.write(piece)
    return size
