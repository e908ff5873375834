"""What the verifier says of a federation that was played, as codes and as sentences."""

from __future__ import annotations

from typing import Any

from audit.verify import verify
from tests.audit.conftest import recompute


def faults(played: Any, name: str = "bundle") -> list[tuple[str, str]]:
    for site in played.sites.values():
        site.witnessed_by(played.coordinator)
    played.cosign(played.names)
    found = verify(played.bundle(name), recompute=recompute)
    return [(fault.layer, fault.code) for fault in found.faults]


def notices(played: Any) -> str:
    faults(played, "told")
    return "\n".join(verify(played.root / "told", recompute=recompute).notices)
