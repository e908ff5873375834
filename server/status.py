"""How things stand at the coordinator, for people, scripts and monitors: one set of facts."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

from audit.log import Log
from server import pki, state, traffic
from server.box import Box
from server.state import State
from server.store import Enrolled, Folder

WARN_DAYS = 30
# A node key has no date of its own; it is renewed as often as the certificate.
KEY_DAYS = 397
# What is left of a site's budget is told in steps: nobody needs more to plan a run.
BUCKETS = (0.0, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)


def bucket(left: float) -> float:
    """The largest step that is not over `left`."""
    return max((step for step in BUCKETS if step <= left), default=0.0)


def facts(folder: Folder) -> dict[str, Any]:
    """Everything that `privity server status --json` prints.

    Guarantees: names, counts, codes and times only; of a budget, the step that is left.
    """
    from server import flower

    seen = flower.nodes(folder)
    log = folder.log()
    born = {
        str(entry.event.fields["name"]): entry.event.time
        for kind in ("institution-joined", "institution-renewed")
        for entry in log.entries(kind)
    }
    runs = [state.load(path.parent) for path in sorted((folder.path / "runs").glob("*/state.json"))]
    found = {
        "name": folder.settings.name,
        "address": f"{folder.settings.host}:{folder.settings.port}",
        "running": seen is not None,
        "certificate_days": pki.days_left((folder.tls / "server.pem").read_bytes()),
        "authority_days": pki.days_left((folder.tls / "ca.pem").read_bytes()),
        "log_entries": log.size,
        "traffic": traffic.read(folder.traffic),
        "sites": [
            _site(folder, site, seen, born.get(site.name)) for site in folder.enrolled().values()
        ],
        "runs": [_run(folder, log, run) for run in runs],
    }
    return found | {"warnings": warnings(found)}


def warnings(found: dict[str, Any]) -> list[str]:
    """Sentences about what will stop working within 30 days, each with its remedy."""
    said = []
    if found["certificate_days"] < WARN_DAYS:
        said.append(
            f"the certificate ends in {found['certificate_days']} days; run: privity server renew"
        )
    if found["authority_days"] < WARN_DAYS:
        said.append(
            f"the authority ends in {found['authority_days']} days; make a new coordinator and "
            "enrol the sites there"
        )
    for site in found["sites"]:
        if site["node_key_days"] is not None and site["node_key_days"] < WARN_DAYS:
            said.append(
                f"the node key of {site['name']} is due in {site['node_key_days']} days; ask the "
                "site for privity client renew"
            )
    return said


def _site(folder: Folder, site: Enrolled, seen: Any, born: datetime | None) -> dict[str, Any]:
    mirror = folder.mirror_of(site)
    node = None if seen is None else seen.get(site.name)
    return {
        "name": site.name,
        "connected": None if seen is None else bool(node and node.online),
        "heartbeat_seconds": None
        if node is None or not node.heartbeat
        else round(max(0.0, time.time() - node.heartbeat), 1),
        "entries": mirror.size,
        "epsilon_left": _left(mirror.events()),
        "node_key_days": None if born is None else KEY_DAYS - (datetime.now(UTC) - born).days,
    }


def _left(events: Any) -> float | None:
    reserved = [event.fields for event in events if event.kind == "budget-reserved"]
    if not reserved:
        return None
    return bucket(float(reserved[-1]["cap"]) - float(reserved[-1]["epsilon_after"]))


def _run(folder: Folder, log: Log, run: State) -> dict[str, Any]:
    name = run.plan.run
    averaged = {entry.event.round for entry in log.entries("aggregation", name)}
    box = Box(run.path, folder.keys())
    return {
        "run": name,
        "round": run.round,
        "rounds": run.plan.rounds,
        "outcome": run.outcome,
        "participants": run.participants,
        "institutions": list(run.plan.institutions),
        "quorum": run.plan.quorum,
        "by_file": run.by_file,
        "waiting_for_file": sorted(box.left() - {p.stem for p in box.path.glob("incoming/*")}),
        "history": [
            {
                "round": entry.event.round,
                "time": entry.event.time.isoformat(timespec="seconds"),
                "accepted": entry.event.fields["accepted"],
                "rejected": entry.event.fields["rejected"],
                "absent": entry.event.fields["absent"],
                "averaged": entry.event.round in averaged,
            }
            for entry in log.entries("round-closed", name)
        ],
    }
