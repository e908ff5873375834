"""The images and the compose file give an institution no more than it needs."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import click
import yaml

import privity

DOCKER = Path(__file__).parents[2] / "docker"
ROLES = {"client", "server", "audit", "serve"}


def _compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((DOCKER / "compose.yaml").read_text())
    return loaded


def _stages() -> dict[str, tuple[str, str]]:
    text = (DOCKER / "Containerfile").read_text()
    parts = re.split(r"(?m)^FROM (\S+) AS (\S+)$", text)[1:]
    return {name: (base, body) for base, name, body in zip(*[iter(parts)] * 3, strict=True)}


def test_every_service_has_a_read_only_root_and_no_rights() -> None:
    for name, service in _compose()["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert not {"privileged", "ports", "network_mode", "user", "cap_add"} & service.keys(), name


def test_institutions_share_a_network_with_nobody_but_the_coordinator() -> None:
    loaded = _compose()
    places = {name: set(service["networks"]) for name, service in loaded["services"].items()}
    hub = places.pop("coordinator")
    assert len(places) == 3
    for name, networks in places.items():
        assert networks == {f"to-{name}"}
    assert hub == set().union(*places.values()) == set(loaded["networks"])
    assert all(network == {"internal": True} for network in loaded["networks"].values())


def test_an_institutions_records_are_mounted_read_only_and_into_its_own_service_alone() -> None:
    seen: list[str] = []
    for name, service in _compose()["services"].items():
        for volume in service["volumes"]:
            source, target, *mode = volume.split(":")
            assert source.startswith(f"./data/{name}"), volume
            assert target != "/records" or mode == ["ro"], volume
            seen.append(source)
    assert len(seen) == len(set(seen))


def test_every_role_has_an_image_that_ends_as_a_user_without_rights() -> None:
    stages = _stages()
    assert stages.keys() >= ROLES
    base, body = stages["runtime"]
    assert base == "${BASE}"
    assert "USER 10001:10001" in body
    for role in ROLES:
        base, body = stages[role]
        assert base == "runtime", role
        assert f"COPY --from=built-{role} /opt/privity /opt/privity" in body
        assert "USER" not in body, role
        assert "sbom.cdx.json" in stages[f"built-{role}"][1]


def test_nothing_is_fetched_while_an_image_is_built() -> None:
    for name, (_, body) in _stages().items():
        for line in re.findall(r"pip install[^\n]*", body):
            assert "--no-index" in line, name
        assert not re.search(r"\b(apt|apt-get|curl|wget|git)\b", body), name


def test_each_images_command_says_all_that_the_command_needs() -> None:
    for role in ROLES:
        (line,) = re.findall(r"(?m)^CMD (\[.*\])$", _stages()[role][1])
        words = json.loads(line)
        command: Any = privity._app(words)
        while isinstance(command, click.Group):
            command = command.commands[words.pop(0)]
        given = command.make_context(role, words).params
        if role == "serve":  # a release is served only if a key that came another way signed it
            assert (given["key"] is None) != (given["directory"] is None)


def test_the_commands_of_compose_are_those_of_the_images() -> None:
    stages = _stages()
    for name, service in _compose()["services"].items():
        role = service["image"].removeprefix("privity-")
        command = ", ".join(f'"{word}"' for word in service["command"])
        assert f"CMD [{command}]" in stages[role][1], name
