"""Keys are rotated between two runs, and everybody follows without a new invitation."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from audit import canonical, custody, incidents, keys
from audit.errors import AuditError
from audit.log import Log
from audit.merkle import ProofFailed
from client import border, succession
from client import exchange as at_site
from privacy.parcel import ParcelInvalid
from privacy.wire import Close, Handover, pack
from server import exchange
from server import succession as of_hub
from server.box import Box

Make = Callable[..., Any]
NO_RELEASE = "sha256:" + "0" * 64


def _run(made: Any, name: str, **more: Any) -> Path:
    return Path(made.federation.run_file(name=name, epsilon=0.5, rounds=1, quorum=2, **more))


def test_a_federation_goes_on_after_every_party_rotated_its_keys(world: Make) -> None:
    made = world()
    made.train(_run(made, "first"))
    invited = made.sites["clinic-a"].invitation().keys
    for party in (made.coordinator.path, made.sites["clinic-a"].path):
        custody.rotate(party, reason="scheduled")
    made.connect()
    run = _run(made, "second")
    made.train(run)
    custody.rotate(made.coordinator.path, reason="scheduled")
    made.connect()
    released = made.release(run)
    found = made.verify(released)
    assert found.ok, list(found.lines())
    assert {signer.cosigned_by for signer in found.signers} == {("clinic-a", "clinic-b"), ("hub",)}
    for site in made.sites.values():
        invitation = site.invitation()
        assert invitation.keys == invited
        known = succession.known(site, invitation)
        assert len(known) == 3
        assert known[-1] == made.coordinator.keys().public()
        assert incidents.listed(site.log()) == ()
    # A verifier that was given the keys of the invitation, years ago, still knows the log by them.
    pinned = made.verify(released, trust={"hub": invited.log})
    assert pinned.ok
    assert next(signer for signer in pinned.signers if signer.name == "hub").pinned


@pytest.fixture
def rotated(federation: Callable[..., Any]) -> Any:
    """A site that has cosigned its coordinator's log once, which has been rotated since."""
    made = federation(["clinic-a"])
    site, hub = made.sites["clinic-a"], made.coordinator
    cosign(made, hub.log())
    shutil.copytree(hub.path, hub.path.parent / "copy")
    custody.rotate(hub.path, reason="scheduled")
    made.site, made.hub = site, hub
    return made


def message(made: Any, log: Log) -> dict[str, Any]:
    hub, site = made.coordinator, made.sites["clinic-a"]
    seen = site.witness().last(hub.origin)
    return of_hub.down(log, hub.mirror_of(hub.enrolled()["clinic-a"]), seen[0] if seen else 0)


def follow(made: Any, sent: dict[str, Any]) -> Any:
    site = made.sites["clinic-a"]
    return succession.follow(site, site.invitation(), sent["handovers"], sent["witness"])


def cosign(made: Any, log: Log) -> None:
    site, sent = made.sites["clinic-a"], message(made, log)
    held = follow(made, sent)
    body = sent["witness"].encode()
    site.witness().cosign_request(body, log_key=held.log, origin=made.coordinator.origin)


def test_a_rotation_is_followed_once_and_the_old_key_counts_no_more(rotated: Any) -> None:
    site, hub = rotated.site, rotated.hub
    sent = message(rotated, hub.log())
    assert len(sent["handovers"]) == 1
    cosign(rotated, hub.log())
    assert follow(rotated, {**sent, "handovers": ()}) == hub.keys().public()
    cosign(rotated, hub.log())
    old = Log.open(hub.path.parent / "copy" / "log", keys=rotated_keys(rotated))
    old.append("institution-revoked", {"name": "zq"})
    with pytest.raises(AuditError):  # what the retired key signs
        cosign(rotated, old)
    kept = site.path / "state" / "succession.json"
    kept.write_text("{")
    with pytest.raises(AuditError, match="is damaged"):
        follow(rotated, sent)


def rotated_keys(made: Any) -> Any:
    return keys.load(made.hub.path.parent / "copy" / "keys")


def test_a_rotation_that_the_old_key_did_not_sign_is_not_followed(rotated: Any) -> None:
    site, hub = rotated.site, rotated.hub
    (genuine,) = message(rotated, hub.log())["handovers"]
    entry = json.loads(hub.log().entry(hub.log().size - 1))
    entry["signatures"][0]["sig"] = "A" * 86 + "=="
    forged = genuine.model_copy(update={"entry": of_hub.to_base64(canonical.encode(entry))})
    before = site.invitation().keys
    assert succession.offered(site, site.invitation(), [forged]) == before
    other = genuine.model_copy(update={"entry": of_hub.to_base64(hub.log().entry(0))})
    with pytest.raises(AuditError):
        succession.offered(site, site.invitation(), [other])
    assert not (site.path / "state" / "succession.json").exists()


def test_a_rotation_that_is_not_in_the_log_is_not_followed(rotated: Any) -> None:
    sent = message(rotated, rotated.hub.log())
    (genuine,) = sent["handovers"]
    alone = Handover(entry=genuine.entry, proof=())
    with pytest.raises(ProofFailed):
        follow(rotated, {**sent, "handovers": (alone,)})
    assert not (rotated.site.path / "state" / "succession.json").exists()


def test_two_rotations_by_one_key_are_not_both_followed(rotated: Any) -> None:
    cosign(rotated, rotated.hub.log())
    custody.rotate(rotated.hub.path.parent / "copy", reason="scheduled")
    copy = Log.open(rotated.hub.path.parent / "copy" / "log", keys=rotated_keys(rotated))
    with pytest.raises(AuditError, match="to others than it did before"):
        follow(rotated, message(rotated, copy))


def test_files_are_carried_on_after_both_sides_rotated(
    federation: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = federation(["clinic-a"])
    monkeypatch.setattr(border, "_check_run", lambda folder, header: None)  # there is no plan here
    hub, site = made.coordinator, made.sites["clinic-a"]
    shutil.copytree(hub.path / "keys", hub.path / "before")
    for party in (hub.path, site.path):
        custody.rotate(party, reason="scheduled")
    mirror = hub.mirror_of(hub.enrolled()["clinic-a"])
    sent = of_hub.down(hub.log(), mirror, 0)
    run = hub.run("first")
    run.mkdir(parents=True)
    (run / "state.json").write_text("{}")
    for place in ("before", "keys"):
        box = Box(run, keys.load(hub.path / place))
        shutil.rmtree(run / "outgoing", ignore_errors=True)
        box.leave("clinic-a", pack(Close(**sent, run="first", release_digest=NO_RELEASE)))
        question, answer = box.outgoing("clinic-a"), tmp_path / place
        if place == "before":  # the rotated key signs nothing that counts, by its own hand-over
            with pytest.raises(ParcelInvalid) as refused:
                at_site.answer(site, question, out=answer)
            assert refused.value.code == "wrong-coordinator"
            continue
        at_site.answer(site, question, out=answer)
        assert exchange.take(hub, answer).kind == "closed"
    assert succession.known(site, site.invitation())[-1] == hub.keys().public()
    assert mirror.keys() != site.keys().public(), "the run takes the entries, not the import"
