"""The app bundle that Flower requires and nobody executes.

Flower hands every run's bundle to every node. Ours holds one TOML file without any code; its
digest is pinned, and a site answers no task of a run whose bundle is another.
"""

from __future__ import annotations

import hashlib
import io
import zipfile

_PYPROJECT = """\
[project]
name = "privity"
version = "1.0.0"
license = "Apache-2.0"
dependencies = []

[tool.flwr.app]
publisher = "privity"

[tool.flwr.app.components]
serverapp = "nothing:runs"
clientapp = "nothing:runs"

[tool.flwr.app.config]
"""


def content() -> bytes:
    """The bundle's bytes; the same on every machine and in every release of this format."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as bundle:
        entry = zipfile.ZipInfo("pyproject.toml", date_time=(1980, 1, 1, 0, 0, 0))
        entry.create_system = 3  # the default differs between operating systems
        bundle.writestr(entry, _PYPROJECT.encode("ascii"))
    return buffer.getvalue()


def digest() -> str:
    """SHA-256 of `content()` in hexadecimal, as Flower names bundles."""
    return hashlib.sha256(content()).hexdigest()
