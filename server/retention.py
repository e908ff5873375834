"""What a coordinator keeps beside its log, and for how long: coordinator.toml, [retention]."""

from __future__ import annotations

from pathlib import Path

from audit.retention import Terms
from server import store


def policy(path: Path) -> Terms:
    """The terms of what lies behind the log's entries."""
    table = store.open_folder(path).settings.retention
    return Terms(access=table.access_days or None, evidence=table.evidence_days or None)
