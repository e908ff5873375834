"""The coordinator's public release key, from a file or from an institution's invitation."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from client.errors import ClientError


@contextmanager
def public_key(release: Path, key: Path | None, directory: Path | None) -> Iterator[Path]:
    """The release key as a file; one from an invitation goes into a temporary file.

    Args:
        release: the folder that is to be verified with it.
        key: a PEM file, or None.
        directory: an institution's folder, or None; exactly one of the two is given.

    Raises:
        ClientError: none or both are given, or the release is no folder.
    """
    if (key is None) == (directory is None):
        raise ClientError(
            "give either --key PUBLIC-KEY.pem or --dir SITE-DIR: a release is used only if the "
            "coordinator's key, which did not come with it, signed it",
            code="no-release-key",
        )
    if not release.is_dir():
        raise ClientError(f"{release} is not a release's folder; check the path", code="no-release")
    if directory is None:
        yield key or Path()
        return
    from client import folder

    invitation = folder.read_invitation(directory / "invitation.json")
    with tempfile.TemporaryDirectory(prefix="privity-") as place:
        path = Path(place) / "release.pem.pub"
        path.write_bytes(invitation.release_key)
        yield path
