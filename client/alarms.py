"""Faults that are incidents: what the software finds out by itself goes into the site's log."""

from __future__ import annotations

import logging
from contextlib import closing

from audit import incidents
from audit.errors import AuditError, InconsistentLog
from audit.log import Log
from client.errors import ClientError
from client.folder import Folder

_CODES = {"ledger-fault": "ledger-fault", "wrong-clock": "clock-refused"}
_SEVERITIES = {"ledger-fault": "high", "clock-refused": "low"}
log = logging.getLogger("privity.alarms")


def note(folder: Folder, fault: BaseException) -> None:
    """Log a fault that is an incident, once while it is open. Never raises: refusing comes first.

    Args:
        folder: the institution.
        fault: what was raised; most faults are no incidents, and nothing is done then.
    """
    code = _CODES.get(str(getattr(fault, "code", "")))
    if code is None and not isinstance(fault, InconsistentLog):
        return
    try:
        with closing(folder.log()) as opened:
            if isinstance(fault, InconsistentLog):
                incidents.contradiction(opened, folder.invitation().origin, fault)
            elif code is not None:
                incidents.raised(opened, code, _SEVERITIES[code])
    except (AuditError, ClientError, OSError) as failure:
        log.error("an incident could not be written down (%s)", type(failure).__name__)


def check(opened: Log) -> None:
    """Refuse to take part while the coordinator's log is known to contradict itself.

    Raises:
        ClientError: exit code 4; somebody has to look into it and close the incident first.
    """
    for item in incidents.listed(opened):
        if item.code == "log-inconsistent" and item.closed is None:
            raise ClientError(
                "the coordinator's log contradicted itself, and nothing is answered until somebody "
                f"has looked into it; then run: privity audit incident DIR --close {item.entry}",
                code="log-forked",
                exit_code=4,
            )
