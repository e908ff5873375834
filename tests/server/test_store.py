"""The coordinator's folder: who is enrolled, with which certificate, and where each run stands."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID

from client import folder as clients
from configs.errors import ConfigError
from configs.load import load
from configs.run import Run
from server import enrolment, pki, plans, state, store
from server.errors import ServerError
from server.progress import Progress


@pytest.fixture
def hub(tmp_path: Path) -> store.Folder:
    return store.create(
        tmp_path / "hub", name="hub", host="fl.example.org", port=8443, control_port=8444
    )


def _site(root: Path, name: str) -> Path:
    clients.create(root / name, name=name, coordinator="fl.example.org:8443")
    return root / name / "enroll.json"


# -- the folder -----------------------------------------------------------------------------------


def test_a_new_coordinator_keeps_its_secrets_to_itself(hub: store.Folder) -> None:
    assert hub.path.stat().st_mode & 0o077 == 0
    secrets = [hub.tls / "ca.key", hub.tls / "server.key", *(hub.path / "secrets").iterdir()]
    assert len(secrets) == 5
    for path in secrets:
        assert path.stat().st_mode & 0o077 == 0, path
    assert store.open_folder(hub.path).settings == hub.settings
    assert hub.control_token() != hub.runtime_secret().hex()
    with pytest.raises(ServerError, match="not empty"):
        store.create(hub.path, name="hub", host="h", port=1, control_port=2)
    with pytest.raises(ServerError, match="privity server init"):
        store.open_folder(hub.path / "runs")


@pytest.mark.parametrize(
    ("name", "host", "code"),
    [
        ("Consortium X", "fl.example.org", "bad-name"),
        ("a" * 64, "fl.example.org", "bad-name"),
        ("a..b", "fl.example.org", "bad-name"),
        ("hub", "krankenh\u00e4user.example", "bad-host"),
        ("hub", "a" * 254, "bad-host"),
        ("hub", "", "bad-host"),
        ("hub", "fl.example.org:8443", "bad-host"),
        ("hub", 'fl"example', "bad-host"),
    ],
)
def test_a_refused_name_or_host_leaves_the_folder_free(
    tmp_path: Path, name: str, host: str, code: str
) -> None:
    with pytest.raises(ServerError) as refusal:
        store.create(tmp_path / "hub", name=name, host=host, port=8443, control_port=8444)
    assert (refusal.value.code, refusal.value.exit_code) == (code, 2)
    assert not (tmp_path / "hub").exists()


def test_the_longest_name_and_host_make_a_coordinator(tmp_path: Path) -> None:
    store.create(tmp_path / "hub", name="a" * 63, host="b" * 253, port=8443, control_port=8444)
    assert store.open_folder(tmp_path / "hub").settings.name == "a" * 63


# -- enrolment ------------------------------------------------------------------------------------


def test_a_site_is_enrolled_once_and_invited_with_public_keys_only(
    hub: store.Folder, tmp_path: Path
) -> None:
    file = _site(tmp_path, "clinic-a")
    site, invitation = enrolment.enroll(hub, file)
    again, _ = enrolment.enroll(hub, file)
    assert again == site
    assert list(hub.enrolled()) == ["clinic-a"]
    assert len(list(hub.log().entries("institution-joined"))) == 1
    assert "PRIVATE" not in invitation.read_text()
    opened = clients.read_invitation(invitation)
    assert opened.coordinator == "fl.example.org:8443"
    assert opened.keys == hub.keys().public()
    assert opened.origin == hub.origin
    assert hub.node_keys() == {site.node_key: "clinic-a"}


def test_another_site_of_the_same_name_is_refused(hub: store.Folder, tmp_path: Path) -> None:
    enrolment.enroll(hub, _site(tmp_path / "x", "clinic-a"))
    with pytest.raises(ServerError, match="another site named clinic-a") as refusal:
        enrolment.enroll(hub, _site(tmp_path / "y", "clinic-a"))
    assert refusal.value.exit_code == 3


def test_a_node_key_has_one_name(hub: store.Folder, tmp_path: Path) -> None:
    first, second = _site(tmp_path, "clinic-a"), _site(tmp_path, "clinic-b")
    enrolment.enroll(hub, first)
    values = json.loads(second.read_text())
    values["node_key"] = json.loads(first.read_text())["node_key"]
    second.write_text(json.dumps(values))
    for comment in ("", " clinic-b@example"):
        second.write_text(json.dumps(values | {"node_key": values["node_key"] + comment}))
        with pytest.raises(ServerError, match="under another name") as refusal:
            enrolment.enroll(hub, second)
        assert refusal.value.code == "key-taken"
    enrolment.revoke(hub, "clinic-a")
    with pytest.raises(ServerError, match="was enrolled under another name"):
        enrolment.enroll(hub, second)


@pytest.mark.parametrize("curve", [None, ec.SECP256R1()])
def test_a_node_key_that_nobody_can_connect_with_is_not_admitted(
    hub: store.Folder, tmp_path: Path, curve: ec.EllipticCurve | None
) -> None:
    file = _site(tmp_path, "clinic-a")
    values = json.loads(file.read_text())
    if curve is None:
        values["node_key"] = values["node_key"][:-9]
    else:
        public = ec.generate_private_key(curve).public_key()
        values["node_key"] = public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    file.write_text(json.dumps(values))
    with pytest.raises(ServerError, match="is damaged") as refusal:
        enrolment.enroll(hub, file)
    assert refusal.value.code == "bad-enrolment"
    assert hub.enrolled() == {}


def test_a_revoked_site_stays_out(hub: store.Folder, tmp_path: Path) -> None:
    file = _site(tmp_path, "clinic-a")
    enrolment.enroll(hub, file)
    enrolment.revoke(hub, "clinic-a")
    assert hub.enrolled() == {}
    assert hub.node_keys() == {}
    assert len(list(hub.log().entries("institution-revoked"))) == 1
    with pytest.raises(ServerError, match="revoked") as refusal:
        enrolment.enroll(hub, file)
    assert refusal.value.exit_code == 3
    with pytest.raises(ServerError, match="no site named"):
        enrolment.revoke(hub, "clinic-a")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": 2}, "newer version"),
        ({"name": "other"}, "not a site's enrolment"),
        ({"node_key": 5}, "not a site's enrolment"),
        ({"keys": {}}, "not a site's enrolment"),
    ],
)
def test_a_file_that_is_no_enrolment_is_refused(
    hub: store.Folder, tmp_path: Path, change: Any, words: str
) -> None:
    file = _site(tmp_path, "clinic-a")
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(ServerError, match=words):
        enrolment.enroll(hub, file)
    for content in (b"", b"[]", b"\xff"):
        file.write_bytes(content)
        with pytest.raises(ServerError, match="not a site's enrolment"):
            enrolment.enroll(hub, file)


@pytest.mark.parametrize("name", ["../clinic", "clinic/../../x", ".", "a b", ""])
def test_a_name_that_is_a_path_cannot_be_enrolled(
    hub: store.Folder, tmp_path: Path, name: str
) -> None:
    file = _site(tmp_path, "clinic-a")
    file.write_text(file.read_text().replace("clinic-a", name))
    before = sorted(path for path in hub.path.rglob("*") if "log" not in path.parts)
    with pytest.raises(ServerError):
        enrolment.enroll(hub, file)
    assert sorted(path for path in hub.path.rglob("*") if "log" not in path.parts) == before


# -- certificates ---------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["fl.example.org", "10.0.0.7", "localhost", "::1"])
def test_a_server_certificate_names_its_host_and_may_not_sign(host: str) -> None:
    authority = pki.authority("hub")
    pair = pki.server(host, authority)
    root = x509.load_pem_x509_certificate(authority.certificate)
    leaf = x509.load_pem_x509_certificate(pair.certificate)
    leaf.verify_directly_issued_by(root)
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    texts = {str(name.value) for name in names}
    assert {host, "localhost", "127.0.0.1"} <= texts
    constraints = leaf.extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical
    assert not constraints.value.ca
    usage = leaf.extensions.get_extension_for_oid(ExtensionOID.EXTENDED_KEY_USAGE).value
    assert list(usage) == [ExtendedKeyUsageOID.SERVER_AUTH]
    assert root.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length == 0
    key = leaf.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert key.curve.name == "secp384r1"
    assert 390 <= pki.days_left(pair.certificate) <= 397
    assert "PRIVATE" not in repr(pair)


# -- runs -----------------------------------------------------------------------------------------


def test_a_run_names_enrolled_sites_once_and_a_quorum_that_can_be_met(
    federation: Callable[..., Any],
) -> None:
    made = federation(["clinic-a"])
    for changes, words in (
        ({"institutions": ["clinic-a", "stranger"]}, "stranger not enrolled"),
        ({"institutions": ["clinic-a", "clinic-a"]}, "listed twice"),
        ({"quorum": 2}, "quorum is larger"),
    ):
        with pytest.raises(ServerError, match=words) as refusal:
            store.load_run(made.run_file(**changes), made.coordinator)
        assert refusal.value.exit_code == 2
    assert store.load_run(made.run_file(), made.coordinator).name == "triage"
    with pytest.raises(ConfigError, match="does not exist"):
        store.load_run(made.root / "none.toml", made.coordinator)


@pytest.fixture
def run_state(federation: Callable[..., Any], tmp_path: Path) -> state.State:
    plan = plans.make(load(federation(["clinic-a"]).run_file(), Run))
    return state.create(tmp_path / "run", plan, {"m.B": np.zeros((2, 2), np.float32)})


def test_the_record_of_a_run_survives_the_process(run_state: state.State) -> None:
    run_state.round = 1
    run_state.witnessed["clinic-a"] = 7
    run_state.participants = ["clinic-a"]
    run_state.save()
    run_state.keep_adapter(1, {"m.B": np.ones((2, 2), np.float32)})
    again = state.load(run_state.path)
    assert again == run_state
    np.testing.assert_array_equal(again.adapter(1)["m.B"], np.ones((2, 2)))
    np.testing.assert_array_equal(again.adapter(0)["m.B"], np.zeros((2, 2)))


def test_a_run_is_never_started_twice_and_a_newer_one_is_not_read(run_state: state.State) -> None:
    with pytest.raises(ServerError, match="exists already"):
        state.create(run_state.path, run_state.plan, {})
    file = run_state.path / "state.json"
    file.write_text(file.read_text().replace('"format": 1', '"format": 2'))
    with pytest.raises(ServerError, match="newer version"):
        state.load(run_state.path)
    file.unlink()
    with pytest.raises(ServerError, match="holds no run"):
        state.load(run_state.path)


def test_the_updates_of_an_open_round_are_kept_until_it_closes(run_state: state.State) -> None:
    arrays = {"m.B": np.full((2, 2), 0.5, np.float32)}
    run_state.keep_update(0, "clinic-a", arrays)
    run_state.keep_update(1, "clinic-a", arrays)
    np.testing.assert_array_equal(run_state.update(0, "clinic-a")["m.B"], arrays["m.B"])
    run_state.drop_updates(0)
    with pytest.raises(ServerError, match="missing") as refusal:
        run_state.update(0, "clinic-a")
    assert refusal.value.exit_code == 4
    assert run_state.update(1, "clinic-a")


def test_a_plan_meets_its_target_and_pins_the_model(federation: Callable[..., Any]) -> None:
    from privacy.plan import Mechanism, epsilon

    made = federation(["clinic-a"])
    plan = plans.make(load(made.run_file(), Run))
    spent = epsilon([Mechanism(plan.noise_multiplier, plan.sample_rate, plan.steps)],
                    delta=plan.delta)  # fmt: skip
    less = epsilon([Mechanism(plan.noise_multiplier - 0.01, plan.sample_rate, plan.steps)],
                   delta=plan.delta)  # fmt: skip
    assert spent <= plan.epsilon < less
    assert plans.make(load(made.run_file(), Run)) == plan
    pinned = made.run_file().read_text().replace(
        'name = "tiny-llama"', f'name = "tiny-llama"\ndigest = "sha256:{"0" * 64}"'
    )  # fmt: skip
    (made.root / "pinned.toml").write_text(pinned)
    with pytest.raises(Exception, match="digest") as refusal:
        plans.make(load(made.root / "pinned.toml", Run))
    assert getattr(refusal.value, "exit_code", None) == 4


def test_progress_is_one_line_an_event_and_shown(tmp_path: Path) -> None:
    shown: list[tuple[str, dict[str, Any]]] = []
    tell = Progress(
        tmp_path / "runs" / "p.jsonl", lambda event, facts: shown.append((event, facts))
    )
    tell("round", round=0, rounds=2)
    tell("update", institution="clinic-a", accepted=True)
    lines = [json.loads(line) for line in (tmp_path / "runs" / "p.jsonl").read_text().splitlines()]
    assert [line["event"] for line in lines] == ["round", "update"]
    assert shown == [("round", {"round": 0, "rounds": 2}),
                     ("update", {"institution": "clinic-a", "accepted": True})]  # fmt: skip
    Progress(tmp_path / "runs" / "p.jsonl")("closed")
    assert len((tmp_path / "runs" / "p.jsonl").read_text().splitlines()) == 3
