"""Prepared sets in DIR/prepared/NAME: files of mode 0600, and a manifest that says what they are.

Digests are keyed by the site's secret: they say nothing to whoever has only them. The manifest's
own digest covers source, recipe, parent, software and every file; the same input and recipe give
the same digest.
"""

from __future__ import annotations

import hmac
import json
import os
import secrets
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from audit import canonical
from audit.errors import Malformed
from client.errors import ClientError
from client.folder import Folder
from client.prepare.draws import Draws
from client.prepare.making import Item
from client.records import Record
from configs import files
from configs.run import is_name

_MANIFEST: Final = "manifest.json"
_PEOPLE: Final = "people.json"
_WRITTEN: Final = frozenset({"category", "prepared"})


@dataclass(frozen=True, slots=True)
class Prepared:
    """A set on disk.

    Attributes:
        name: of its folder. path: the folder.
        manifest: what it says about itself.
    """

    name: str
    path: Path
    manifest: Mapping[str, Any] = field(repr=False)

    @property
    def digest(self) -> str:
        """What identifies the set."""
        return str(self.manifest["digest"])

    def people(self) -> dict[str, tuple[str, ...]]:
        """The persons of each side, those included of whom nothing could be used.

        Raises:
            ClientError: the list is missing or damaged.
        """
        try:
            values = json.loads((self.path / _PEOPLE).read_bytes())
            return {str(side): tuple(map(str, persons)) for side, persons in values.items()}
        except (OSError, ValueError, AttributeError, TypeError):
            raise _damaged(self.path / _PEOPLE) from None


def root(folder: Folder) -> Path:
    """Where the sets lie."""
    return folder.path / "prepared"


def names(folder: Folder) -> list[str]:
    """The names of all sets."""
    place = root(folder)
    return sorted(p.parent.name for p in place.glob(f"*/{_MANIFEST}") if is_name(p.parent.name))


def free_name(folder: Folder) -> str:
    """The next name that no set has: set-1, set-2 and so on."""
    taken, number = set(names(folder)), 1
    while f"set-{number}" in taken:
        number += 1
    return f"set-{number}"


def open_set(folder: Folder, name: str) -> Prepared:
    """Open a set by its name and check its manifest.

    Raises:
        ClientError: there is none, or its manifest was changed (exit code 4).
    """
    return _open(folder, root(folder) / checked(name))


def checked(name: str) -> str:
    """The name of a set, which is never taken for a path.

    Raises:
        ClientError: it is none.
    """
    if not is_name(name):
        raise ClientError(
            "a set's name is 1 to 64 of a-z 0-9 . _ - and begins with a letter or digit",
            code="bad-name",
        )
    return name


def holding(folder: Folder, data: Path) -> Prepared | None:
    """The set that a records file belongs to, behind links too, or None if it is one of its own.

    Raises:
        ClientError: the file or the manifest was changed since it was prepared (exit code 4).
    """
    data = data.resolve()
    if not (data.parent / _MANIFEST).exists() or data.parent.parent != root(folder).resolve():
        return None
    found = _open(folder, data.parent)
    said = found.manifest["files"].get(data.name)
    try:
        content = data.read_bytes()
    except OSError:
        raise _damaged(data) from None
    if said is None or not hmac.compare_digest(said, _draws(folder).bytes_digest(content)):
        raise _damaged(data)
    return found


def beside(folder: Folder, data: Path) -> tuple[Path, ...]:
    """The files that say what a records file is, where it belongs to a set."""
    data = data.resolve()
    if data.parent.parent != root(folder).resolve():
        return ()
    return data.parent / _MANIFEST, data.parent / _PEOPLE


def write(
    folder: Folder,
    name: str,
    *,
    sides: Mapping[str, Sequence[Item]],
    people: Mapping[str, Sequence[str]],
    facts: Mapping[str, Any],
    dropped: Mapping[str, Sequence[int]],
    report: str,
) -> Prepared:
    """Write a set, whole or not at all.

    Args:
        folder: the institution's.
        name: of the set.
        sides: the lines of each side.
        people: everybody on each side.
        facts: source, recipe, parent, software, counts.
        dropped: lines of the source that are in no side, by reason.
        report: the quality report's page.

    Returns:
        The set; the one that is there already, if it is the same.

    Raises:
        ClientError: another set has that name.
    """
    column, draws = folder.settings.data.person_column, _draws(folder)
    content = {f"{side}.jsonl": _lines(items, column) for side, items in sides.items()}
    content[_PEOPLE] = _json({side: list(persons) for side, persons in people.items()})
    content["dropped.json"] = _json({code: list(lines) for code, lines in dropped.items()})
    manifest: dict[str, Any] = {
        "format": 1,
        **facts,
        "files": {part: draws.bytes_digest(data) for part, data in sorted(content.items())},
    }
    manifest["digest"] = _digest(draws, manifest)
    target = root(folder) / checked(name)
    if (target / _MANIFEST).exists():
        there = open_set(folder, name)
        if there.digest != manifest["digest"]:
            raise ClientError(
                f"{target} holds another set; a set is never changed, so give another --out",
                code="name-taken",
            )
        return there
    root(folder).mkdir(mode=0o700, exist_ok=True)
    draft = root(folder) / f".{name}.{secrets.token_hex(4)}"
    draft.mkdir(mode=0o700)
    try:
        content["report.html"] = report.encode()
        content[_MANIFEST] = _json(manifest)
        for part, data in content.items():
            files.replace(draft / part, data, mode=files.PRIVATE)
        os.rename(draft, target)
        files.sync(root(folder))
    except OSError:
        raise ClientError(
            f"{target} cannot be written; free space, or remove what is there", code="not-written"
        ) from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return Prepared(name, target, manifest)


def _open(folder: Folder, path: Path) -> Prepared:
    try:
        manifest = json.loads((path / _MANIFEST).read_bytes())
        said, made = str(manifest["digest"]), _digest(_draws(folder), manifest)
        sound = isinstance(manifest["files"], dict) and manifest["format"] == 1
        sound = sound and hmac.compare_digest(said.encode(), made.encode())
    except FileNotFoundError:
        known = ", ".join(names(folder)) or "none yet"
        raise ClientError(
            f"there is no prepared set {path.name}; known: {known}", code="no-set"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, Malformed):
        raise _damaged(path / _MANIFEST) from None
    if not sound:
        raise _damaged(path / _MANIFEST)
    return Prepared(path.name, path, manifest)


def _digest(draws: Draws, manifest: Mapping[str, Any]) -> str:
    inside = {name: value for name, value in manifest.items() if name != "digest"}
    return draws.bytes_digest(b"manifest" + canonical.encode(inside))


def _draws(folder: Folder) -> Draws:
    return Draws.of(folder.pseudonym_secret())


def _lines(items: Iterable[Item], person_column: str) -> bytes:
    return b"".join(_row(item.record, item.origin, person_column) for item in items)


def _row(record: Record, origin: str, person_column: str) -> bytes:
    """One line; a column that stood several times is a list again."""
    columns: dict[str, Any] = {}
    for name, value in record.columns:
        if name in columns:
            held = columns[name]
            columns[name] = [*held, value] if isinstance(held, list) else [held, value]
        elif name not in _WRITTEN and name != person_column:
            columns[name] = value
    row = {
        **columns,
        person_column: record.person,
        "instruction": record.instruction,
        "response": record.response,
    }
    held = {
        "category": record.category, "institution": record.institution,
        "rejected": record.rejected,
    }  # fmt: skip
    for name, label in held.items():
        if label is not None:
            row[name] = label
    return json.dumps({**row, "prepared": origin}, ensure_ascii=False).encode() + b"\n"


def _json(values: Any) -> bytes:
    return json.dumps(values, ensure_ascii=False, indent=1, sort_keys=True).encode() + b"\n"


def _damaged(path: Path) -> ClientError:
    return ClientError(
        f"{path} was changed since it was prepared, or is damaged; prepare the set again",
        code="set-changed",
        exit_code=4,
    )
