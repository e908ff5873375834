"""Who may connect: sites are admitted and shut out by files, and each step is in the log."""

from __future__ import annotations

import json
from pathlib import Path

from configs import files
from server import pki, store
from server.errors import ServerError
from server.store import Enrolled, Folder


def enroll(folder: Folder, site_file: Path) -> tuple[Enrolled, Path]:
    """Admit the site of an enrolment file.

    Returns:
        The site and the invitation file to send back.

    Raises:
        ServerError: the file is not one, or the name is taken by other keys or was revoked.
    """
    site = store.read_enrolment(site_file)
    key = pki.node_key(site.node_key)
    if key is None:
        raise ServerError(
            f"the node key in {site_file} is damaged; ask the site for its enroll.json again",
            code="bad-enrolment",
        )
    place = folder.path / "enrolled" / f"{site.name}.json"
    if (folder.path / "revoked" / f"{site.name}.json").exists():
        raise ServerError(
            f"{site.name} was revoked; enrol the site under a new name with new keys",
            code="revoked",
            exit_code=3,
        )
    if place.exists() and store.read_enrolment(place) != site:
        raise ServerError(
            f"another site named {site.name} is enrolled; choose another name, or revoke it first",
            code="name-taken",
            exit_code=3,
        )
    if any(
        key in (pki.node_key(other.node_key), pki.node_key(other.next_key))
        for other in folder.known().values()
        if other.name != site.name
    ):
        raise ServerError(
            f"the node key of {site_file} is or was enrolled under another name; each site makes "
            "its own with privity client init",
            code="key-taken",
            exit_code=3,
        )
    if site.next_key:
        raise ServerError(
            f"{site_file} holds a renewal; use the enroll.json of privity client init",
            code="bad-enrolment",
        )
    if not place.exists():
        keys = site.keys.to_json()
        folder.log().append("institution-joined", {"name": site.name, "keys": keys})
        files.replace(place, site_file.read_bytes())
    settings = folder.settings
    invitation = {
        "format": 1,
        "site": site.name,
        "coordinator": f"{settings.host}:{settings.port}",
        "origin": folder.origin,
        "authority": (folder.tls / "ca.pem").read_text(encoding="ascii"),
        "keys": folder.keys().public().to_json(),
        "release_key": folder.release_public.read_text(encoding="ascii"),
    }
    target = folder.path / "invitations" / f"{site.name}.json"
    files.replace(target, json.dumps(invitation, indent=2).encode() + b"\n")
    return site, target


def revoke(folder: Folder, name: str) -> None:
    """Shut a site out; a running SuperLink follows within seconds.

    Raises:
        ServerError: no such site is enrolled.
    """
    place = folder.path / "enrolled" / f"{name}.json"
    if name not in folder.enrolled():
        raise ServerError(
            f"no site named {name!r} is enrolled; see privity server status", code="unknown-site"
        )
    folder.log().append("institution-revoked", {"name": name})
    target = folder.path / "revoked"
    target.mkdir(mode=0o700, exist_ok=True)
    place.replace(target / place.name)
    files.sync(target)
    files.sync(place.parent)
