"""What the tests of commands share beside their fixtures."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import privity
from server import store

ROOT = Path(__file__).parents[2]
SECRET = "Quillfeather"
NOWHERE = "/nonexistent-privity"

Said = tuple[int, str, str]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def one_sentence(err: str) -> bool:
    lines = err.strip().splitlines()
    return len(lines) == 1 and lines[0].startswith("privity: ") and len(lines[0]) < 400


def commands() -> Iterator[tuple[tuple[str, ...], Any]]:
    for group in privity._GROUPS:
        found = privity._app([group]).commands[group]
        yield from (((group, name), command) for name, command in found.commands.items())
    for name in privity._COMMANDS:
        yield (name,), privity._app([name]).commands[name]


def edited(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def invited(site: Path, hub: Path) -> None:
    from server import enrolment

    _, invitation = enrolment.enroll(store.open_folder(hub), site / "enroll.json")
    shutil.copy(invitation, site / "invitation.json")
