"""Files of a folder that a person owns: private from birth, replaced whole or not at all."""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from configs.errors import ConfigError

PRIVATE = 0o600
PUBLIC = 0o644


def replace(path: Path, data: bytes, *, mode: int = PUBLIC, durable: bool = True) -> None:
    """Write `data` to `path`; a reader sees the old file or the new one.

    Guarantees: the file has `mode` from its first byte on; fsync of file and folder before return,
        unless `durable` is False: then a power cut may take the file, and the disk is not awaited.

    Raises:
        ConfigError: no space, or the folder is not writable.
    """
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                if durable:
                    file.flush()
                    os.fsync(file.fileno())
            draft.replace(path)
            if durable:
                sync(path.parent)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
    except OSError as fault:
        raise ConfigError(
            f"{path} cannot be written ({os.strerror(fault.errno or 0).lower()}); free space or "
            "correct the folder's permissions"
        ) from None


def create_secret(path: Path, *, bytes_long: int = 32) -> None:
    """Create `path` with fresh random hexadecimal digits, mode 0600; never overwrites.

    Raises:
        ConfigError: the file exists already.
    """
    if path.exists():
        raise ConfigError(f"{path} exists already; a secret is never overwritten")
    replace(path, secrets.token_hex(bytes_long).encode("ascii"), mode=PRIVATE)


def read_secret(path: Path) -> bytes:
    """Read a secret of `create_secret` as raw bytes.

    Raises:
        ConfigError: missing, unreadable, or readable by others than its owner.
    """
    try:
        if path.stat().st_mode & 0o077:
            raise ConfigError(f"{path} is readable by others; run chmod 600 on it")
        return bytes.fromhex(path.read_text(encoding="ascii").strip())
    except (OSError, ValueError):
        raise ConfigError(f"{path} is missing or damaged; restore it from your backup") from None


def sync(folder: Path) -> None:
    """Make renames inside `folder` durable."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def hold(path: Path, busy: Exception | None) -> Iterator[None]:
    """Hold the lock file `path` for this process; its end, whatever it is, frees it.

    Args:
        path: created if absent, never deleted.
        busy: raised where another holds it; None waits for the other.
    """
    with open(path, "a+b") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX if busy is None else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if busy is None:
                raise
            raise busy from None
        yield
