"""The SuperLink's list of nodes: kept as enrolment has it, whatever one site's file holds."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from client import folder as clients
from server import enrolment, node, pki, store


class _Nodes:
    """What `synchronise` needs of Flower's state."""

    def __init__(self) -> None:
        self.infos: list[Any] = []

    def get_node_info(self, **_: Any) -> list[Any]:
        return self.infos

    def create_node(self, *, public_key: bytes, name: str, **_: Any) -> None:
        self.infos.append(SimpleNamespace(public_key=public_key, name=name, node_id=7, status=""))


def _hub(root: Path, *names: str) -> store.Folder:
    hub = store.create(root / "hub", name="hub", host="127.0.0.1", port=8443, control_port=8444)
    for name in names:
        clients.create(root / name, name=name, coordinator="127.0.0.1:8443")
        enrolment.enroll(hub, root / name / "enroll.json")
    return hub


def test_a_damaged_node_key_shuts_out_its_own_site_alone_and_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = _hub(tmp_path, "clinic-a", "clinic-b")
    place = hub.path / "enrolled" / "clinic-a.json"
    values = json.loads(place.read_text())
    place.write_text(json.dumps(values | {"node_key": values["node_key"][:-9]}))
    told: list[str] = []
    monkeypatch.setattr(
        node, "log", SimpleNamespace(warning=lambda text, *names: told.append(text % names))
    )
    node._warn.cache_clear()
    state = _Nodes()
    for _ in range(3):
        node.synchronise(state, hub.node_keys())
    key = hub.enrolled()["clinic-b"].node_key
    assert [(i.name, i.public_key) for i in state.infos] == [("clinic-b", pki.node_key(key))]
    assert node.connected_keys(state, hub.node_keys()) == [key]
    (words,) = told
    assert "node key of clinic-a is damaged" in words
    enrolment.revoke(hub, "clinic-a")
    assert list(hub.node_keys().values()) == ["clinic-b"]


def test_a_node_key_is_kept_as_flower_keeps_it(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives.serialization import load_ssh_public_key
    from flwr.supercore.primitives.asymmetric import public_key_to_bytes

    (line,) = _hub(tmp_path, "clinic-a").node_keys()
    key: Any = load_ssh_public_key(line.encode())
    assert pki.node_key(f"{line} with a comment") == public_key_to_bytes(key)
