"""What ends is told thirty days ahead, with the command that renews it."""

from __future__ import annotations

import dataclasses
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from client import connect, doctor, renewal
from server import pki
from server import renewal as hub_renewal

Make = Callable[..., Any]


@contextmanager
def _answering(hub: Any) -> Iterator[int]:
    """A port that shows the coordinator's certificate to whoever comes."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(hub.tls / "server.pem", hub.tls / "server.key")
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            plain, _ = listener.accept()
            with plain, context.wrap_socket(plain, server_side=True) as channel:
                channel.recv(1)

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(timeout=60)


@pytest.mark.parametrize(("days", "warns"), [(30, True), (32, False)])
def test_a_certificate_that_ends_within_thirty_days_is_warned_of(
    federation: Make, monkeypatch: pytest.MonkeyPatch, days: int, warns: bool
) -> None:
    made = federation(("clinic-a",))
    monkeypatch.setattr(pki, "_SERVER_DAYS", days)
    hub_renewal.certificate(made.coordinator)
    site = made.sites["clinic-a"]
    with _answering(made.coordinator) as port:
        invitation = dataclasses.replace(site.invitation(), coordinator=f"127.0.0.1:{port}")
        monkeypatch.setattr(type(site), "invitation", lambda _: invitation)
        found = doctor._certificate(site)
    assert isinstance(found, doctor.Check) is warns
    if isinstance(found, doctor.Check):
        assert (found.verdict, found.finding.split(",")[0]) == (
            "WARN", "the coordinator's ends in 29 days"
        )  # fmt: skip
        assert "privity server renew" in found.remedy


def test_an_authority_that_ends_takes_a_new_invitation(
    federation: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = federation(("clinic-a",)).sites["clinic-a"]
    monkeypatch.setattr(connect, "certificate_days", lambda _: (29, 29))
    found = doctor._certificate(site)
    assert isinstance(found, doctor.Check)
    assert found.remedy == "ask the coordinator for a new invitation"


@pytest.mark.parametrize(("days", "warns"), [(29, True), (30, False)])
def test_a_node_key_that_is_due_within_thirty_days_is_warned_of(
    federation: Make, monkeypatch: pytest.MonkeyPatch, days: int, warns: bool
) -> None:
    site = federation(("clinic-a",)).sites["clinic-a"]
    monkeypatch.setattr(renewal, "KEY_DAYS", days)
    found = doctor._node_key(site)
    assert isinstance(found, doctor.Check) is warns
    if isinstance(found, doctor.Check):
        assert found.finding == "due in 29 days"
        assert found.remedy == f"privity client renew {site.path}"
