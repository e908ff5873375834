"""What was decided about a run: by a person with `privity client approve`, or by policy."""

from __future__ import annotations

import json
from typing import Literal

from audit import canonical
from audit.log import Log
from client.errors import ClientError
from client.folder import Folder
from configs import files
from configs.load import read_plan
from configs.run import Plan

By = Literal["operator", "policy"]
Decision = Literal["approved", "refused"]


def digest(plan: Plan) -> str:
    """The digest that identifies a plan in every statement about it."""
    return canonical.digest(canonical.encode(plan.document()))


def remember(folder: Folder, plan: Plan) -> None:
    """Keep a proposed plan, so that a person can look at it and decide."""
    place = folder.run(plan.run)
    place.mkdir(parents=True, exist_ok=True, mode=0o700)
    files.replace(place / "plan.json", canonical.encode(plan.document()))


def proposed(folder: Folder, run: str) -> Plan:
    """The plan that was last proposed under the name `run`.

    Raises:
        ClientError: none was.
    """
    path = folder.run(run) / "plan.json"
    if not path.exists():
        known = sorted(p.name for p in (folder.path / "runs").iterdir() if p.is_dir())
        heard = f"known runs: {', '.join(known)}" if known else "no run was proposed yet"
        raise ClientError(f"no run {run!r} was proposed here; {heard}", code="unknown-run")
    return read_plan(path.read_bytes())


def read(folder: Folder, plan: Plan) -> Decision | None:
    """The decision about exactly this plan, or None. A changed plan has none."""
    path = folder.run(plan.run) / "decision.json"
    try:
        values = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        return "refused"
    if not isinstance(values, dict) or values.get("plan_digest") != digest(plan):
        return None
    return "approved" if values.get("decision") == "approved" else "refused"


def write(folder: Folder, log: Log, plan: Plan, decision: Decision, by: By) -> None:
    """Sign the decision into the log, then let it take effect."""
    identity = digest(plan)
    log.append("approval", {"plan_digest": identity, "decision": decision, "by": by}, run=plan.run)
    values = {"plan_digest": identity, "decision": decision, "by": by}
    files.replace(
        folder.run(plan.run) / "decision.json", json.dumps(values).encode(), mode=files.PRIVATE
    )
