"""The bundles that a page shows: found, verified, and indexed, once, before it answers."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from audit import bundle as bundles
from audit import index, verify
from audit.bundle import Bundle
from audit.errors import AuditError
from audit.evidence import Recompute
from audit.findings import Findings
from audit.index import Index

_INSIDE = "bundles"  # where a coordinator's folder keeps them


@dataclass(frozen=True, slots=True)
class Book:
    """One bundle on the shelf: what the verifier said about it, when, and its index."""

    key: str
    bundle: Bundle
    findings: Findings
    verified: datetime
    index: Index
    release_key: Path | None = None

    @property
    def run(self) -> str:
        """The run that it is about."""
        return self.bundle.run

    @property
    def path(self) -> str:
        """The folder, as a command line takes it."""
        return str(self.bundle.path)


def find(folder: Path) -> tuple[Path, ...]:
    """Return the bundles in a folder: itself, those inside, or those of a coordinator's folder.

    Raises:
        AuditError: exit code 2; there is none.
    """
    if (folder / bundles.MANIFEST).is_file():
        return (folder,)
    places = (folder, folder / _INSIDE)
    found = [
        path
        for place in places
        if place.is_dir()
        for path in sorted(place.iterdir())
        if not path.name.startswith(".") and (path / bundles.MANIFEST).is_file()
    ]
    if not found:
        raise AuditError(
            f"{folder} has no bundle; give a bundle, a folder of bundles or a coordinator's folder",
            code="no-bundle",
            exit_code=2,
        )
    return tuple(found)


def load(
    folder: Path,
    *,
    recompute: Recompute,
    trust: Mapping[str, str],
    cache: Path,
    release_key: Path | None = None,
    tell: Callable[[str], None] = lambda text: None,
) -> tuple[Book, ...]:
    """Verify and index every bundle of a folder.

    A bundle that does not verify is on the shelf with its faults; one whose manifest cannot be read
    is left out, and `tell` says so.

    Raises:
        AuditError: there is no bundle, or none can be read.
    """
    books: list[Book] = []
    for path in find(folder):
        try:
            bundle = bundles.read(path)
        except AuditError as error:
            tell(f"left out: {error}")
            continue
        tell(f"verifying {path}")
        findings = verify.verify(path, recompute=recompute, trust=trust)
        key = _key(path, {book.key for book in books})
        books.append(
            Book(key, bundle, findings, datetime.now(UTC), index.opened(bundle, cache), release_key)
        )
    if not books:
        raise AuditError(f"no bundle in {folder} can be read; fetch them again", code="bad-bundle")
    return tuple(books)


def default_cache() -> Path:
    """Where indexes lie unless another folder is named."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "privity" / "officer"


def _key(path: Path, taken: set[str]) -> str:
    """A short name for addresses, from the folder's name."""
    plain = "".join(
        c if c.isascii() and (c.isalnum() or c in "-_.") else "-" for c in path.resolve().name
    )
    plain = plain.strip(".") or "bundle"
    number, key = 1, plain
    while key in taken:
        number += 1
        key = f"{plain}-{number}"
    return key
