from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from audit import bundle, keys, note, tiles
from audit.errors import AuditError
from audit.verify import verify


def codes(findings: Any) -> set[tuple[str, str]]:
    return {(fault.layer, fault.code) for fault in findings.faults}


def test_a_sound_bundle_holds(sound: Any, judge: Any, account: Any) -> None:
    findings = judge(sound.root / "bundle")
    assert findings.faults == ()
    assert (findings.ok, findings.complete, findings.intact) == (True, True, True)
    assert findings.notices == ()
    for site in findings.institutions:
        assert site.epsilon == pytest.approx(account([(1.5, 0.01, 20)], 1e-5))
        assert (site.cap, site.delta, site.rounds_accepted) == (2.0, 1e-5, 2)
    assert findings.release.checked
    assert findings.release.recipients == ("alpha",)
    assert len(findings.release.updates) == 6
    assert all(set(s.cosigned_by) == {"alpha", "beta", "gamma"} for s in findings.signers[:1])


def test_findings_speak_plainly_and_as_json(sound: Any, judge: Any) -> None:
    findings = judge(sound.root / "bundle")
    assert json.loads(json.dumps(findings.to_json()))["ok"] is True
    text = "\n".join(findings.lines())
    assert "spent of cap 2 (unit patient, adjacency zero-out, delta 1e-05)" in text
    assert "key only stated by this bundle" in text
    assert "witnessed by alpha, beta, gamma" in text


def test_pinned_keys_are_told_from_stated_ones(sound: Any, judge: Any, tmp_path: Path) -> None:
    pinned = {"hub": sound.coordinator.public.log, "alpha": sound.sites["alpha"].public.log}
    findings = judge(sound.root / "bundle", trust=pinned)
    assert findings.ok
    assert {s.name for s in findings.signers if s.pinned} == {"hub", "alpha"}
    other = keys.create(tmp_path / "k", "hub").public().log
    assert ("bytes", "untrusted-key") in codes(judge(sound.root / "bundle", trust={"hub": other}))


def test_an_absent_institution_is_no_fault(federate: Any, judge: Any, tmp_path: Path) -> None:
    played = federate(tmp_path, absent={1: ("gamma",)}).play()
    findings = judge(played.bundle())
    assert findings.ok
    assert [site.rounds_accepted for site in findings.institutions] == [2, 2, 1]


@pytest.mark.parametrize(("size", "code"), [(10**15, "absurd-size"), (22, "wrong-root")])
def test_a_checkpoint_signed_over_something_else_is_found(
    sound: Any, copied: Path, judge: Any, relisted: Any, size: int, code: str
) -> None:
    text = note.Checkpoint("hub/log", size, bytes(32)).text
    signature = note.sign(text, name="hub/log", key=sound.coordinator.keys.log)
    (copied / "coordinator" / "checkpoint").write_text(str(note.Note(text, (signature,))))
    relisted(copied)
    assert ("bytes", code) in codes(judge(copied))


def test_a_false_cosignature_by_a_known_witness_is_a_fault(
    copied: Path, judge: Any, relisted: Any
) -> None:
    path = copied / "coordinator" / "checkpoint"
    read = note.parse(path.read_bytes())
    *rest, last = read.signatures
    false = note.Signature(last.name, last.id, bytes(len(last.blob)))
    path.write_text(str(note.Note(read.text, (*rest, false))))
    relisted(copied)
    assert codes(judge(copied)) == {("bytes", "bad-cosignature")}


def test_one_key_for_two_parties_is_a_fault(
    federate: Any, judge: Any, tmp_path: Path, relisted: Any
) -> None:
    played = federate(tmp_path)
    alpha, beta = played.sites["alpha"], played.sites["beta"]
    beta.keys = keys.KeyRing("beta", beta.keys.log, beta.keys.event, alpha.keys.witness)
    shutil.rmtree(beta.log.folder)
    beta.log = type(beta.log).create(beta.log.folder, keys=beta.keys)
    beta.witness = type(beta.witness)(tmp_path / "beta" / "w.sqlite", beta.keys)
    assert ("bytes", "same-key") in codes(judge(played.play().bundle()))


def test_too_few_cosignatures_are_a_fault_below_the_quorum_only(
    federate: Any, judge: Any, tmp_path: Path
) -> None:
    enough = judge(federate(tmp_path / "a", final_witnesses=("alpha", "beta")).play().bundle())
    assert enough.ok
    assert any("gamma" in notice for notice in enough.notices)
    few = judge(federate(tmp_path / "b", final_witnesses=("alpha",)).play().bundle())
    assert codes(few) == {("completeness", "quorum-not-met")}


def test_a_site_log_rolled_back_after_the_run_is_named(
    federate: Any, judge: Any, tmp_path: Path
) -> None:
    played = federate(tmp_path)
    site = played.sites["alpha"]
    site.log.checkpoint()
    shutil.copytree(site.log.folder, tmp_path / "old")
    played.play()
    shutil.rmtree(site.log.folder)
    shutil.copytree(tmp_path / "old", site.log.folder)
    assert ("completeness", "log-rolled-back") in codes(judge(played.bundle()))


def test_an_earlier_checkpoint_shows_rollback_and_fork(
    federate: Any, judge: Any, sound: Any, tmp_path: Path
) -> None:
    text = sound.coordinator.log.note_for(5)
    assert judge(sound.root / "bundle", against=text).ok
    site = sound.sites["beta"].log.note_for(2)
    assert judge(sound.root / "bundle", against=site).ok
    stranger = judge(sound.root / "bundle", against=text.replace("hub/log", "xyz/log"))
    assert ("bytes", "unknown-log") in codes(stranger)
    false = judge(sound.root / "bundle", against=text.replace("\n5\n", "\n6\n"))
    assert ("bytes", "bad-signature") in codes(false)
    assert not judge(sound.root / "bundle", against="nonsense").intact

    played = federate(tmp_path / "one").play()
    folder = played.bundle()
    played.coordinator.log.append("institution-revoked", {"name": "alpha"})
    longer = judge(folder, against=played.coordinator.log.checkpoint())
    assert codes(longer) == {("bytes", "log-rolled-back")}

    twin = federate(tmp_path / "two")  # same keys, another history
    twin.coordinator.keys = played.coordinator.keys
    shutil.rmtree(twin.coordinator.log.folder)
    twin.coordinator.log = type(played.coordinator.log).create(
        twin.coordinator.log.folder, keys=played.coordinator.keys
    )
    twin.coordinator.log.append("institution-revoked", {"name": "alpha"})
    forked = judge(folder, against=twin.coordinator.log.checkpoint())
    assert codes(forked) == {("bytes", "log-forked")}


def test_every_damaged_entry_is_listed(copied: Path, judge: Any, relisted: Any) -> None:
    path = next((copied / "sites" / "alpha" / "tile" / "entries").rglob("*.p")) / "9"
    entries = tiles.unpack(path.read_bytes(), 9)
    for index in (2, 5):
        entries[index] = entries[index].replace(b'"payload":"e', b'"payload":"f')
    path.write_bytes(tiles.pack(entries))
    for again in (False, True):
        findings = judge(copied)
        where = {fault.where for fault in findings.faults if fault.code == "damaged-entry"}
        assert where == {"sites/alpha entry 2", "sites/alpha entry 5"}
        verdict = (findings.intact, findings.complete, findings.consistent)
        assert verdict == (False, False, False)
        assert ("bytes", "changed-file") in codes(findings) or again
        relisted(copied)


def test_a_deleted_tail_is_found(copied: Path, judge: Any, relisted: Any) -> None:
    path = next((copied / "coordinator" / "tile" / "entries").rglob("*.p"))
    (full,) = path.iterdir()
    entries = tiles.unpack(full.read_bytes(), int(full.name))
    full.write_bytes(tiles.pack(entries[:-1]))
    relisted(copied)
    assert ("bytes", "bad-tile") in codes(judge(copied))
    full.rename(full.with_name(str(len(entries) - 1)))
    relisted(copied)
    assert {("bytes", "missing-file"), ("bytes", "unexpected-file")} <= codes(judge(copied))


def test_a_swapped_adapter_is_found(copied: Path, judge: Any, relisted: Any) -> None:
    weights = {"layer.q.B": np.zeros((4, 2), np.float32)}
    save_file(weights, copied / "release" / "adapter_model.safetensors")
    assert codes(judge(copied)) == {("bytes", "changed-file")}
    relisted(copied)
    assert codes(judge(copied)) == {("meaning", "adapter-differs")}


def test_swapped_logs_are_found(copied: Path, judge: Any, relisted: Any) -> None:
    (copied / "sites" / "alpha").rename(copied / "sites" / "x")
    (copied / "sites" / "beta").rename(copied / "sites" / "alpha")
    (copied / "sites" / "x").rename(copied / "sites" / "beta")
    relisted(copied)
    assert ("bytes", "not-signed") in codes(judge(copied))


def test_self_made_keys_do_not_pass_for_the_enrolled_ones(
    federate: Any, judge: Any, sound: Any, tmp_path: Path, relisted: Any
) -> None:
    """Another federation's alpha, whole and self-consistent, put in the place of ours."""
    folder = Path(shutil.copytree(sound.root / "bundle", tmp_path / "bundle"))
    other = federate(tmp_path / "other").play().bundle()
    shutil.rmtree(folder / "sites" / "alpha")
    shutil.copytree(other / "sites" / "alpha", folder / "sites" / "alpha")
    manifest = json.loads((folder / bundle.MANIFEST).read_bytes())
    theirs = json.loads((other / bundle.MANIFEST).read_bytes())
    manifest["sites"]["alpha"] = theirs["sites"]["alpha"]
    (folder / bundle.MANIFEST).write_text(json.dumps(manifest))
    relisted(folder)
    assert ("completeness", "wrong-keys") in codes(judge(folder))


@pytest.mark.parametrize(
    ("damage", "code"),
    [
        (lambda f: (f / "extra").write_text("x"), "unexpected-file"),
        (lambda f: (f / "plan.json").unlink(), "missing-file"),
        (lambda f: (f / "link").symlink_to("/etc/passwd"), "unexpected-file"),
        (lambda f: shutil.rmtree(f / "coordinator"), "missing-file"),
        (lambda f: (f / "bundle.json").write_text("[]"), "bad-bundle"),
        (lambda f: (f / "bundle.json").write_text("{"), "not-json"),
        (lambda f: (f / "plan.json").write_text("{}"), "changed-file"),
        (lambda f: (f / "sites/alpha/checkpoint").write_text("x"), "bad-note"),
        (lambda f: (f / "sites/alpha/checkpoint").write_bytes(b"\xff"), "bad-note"),
    ],
)
def test_damage_of_any_kind_is_a_fault_and_never_an_exception(
    copied: Path, judge: Any, damage: Any, code: str
) -> None:
    damage(copied)
    findings = judge(copied)
    assert code in {fault.code for fault in findings.faults}
    assert not findings.ok
    assert list(findings.lines())


def test_a_file_replaced_by_a_link_is_found(copied: Path, judge: Any, tmp_path: Path) -> None:
    (copied / "plan.json").rename(tmp_path / "plan.json")
    (copied / "plan.json").symlink_to(tmp_path / "plan.json")
    assert ("bytes", "symlink") in codes(judge(copied))


def test_no_bundle_at_all_is_wrong_usage(tmp_path: Path, judge: Any) -> None:
    with pytest.raises(AuditError) as caught:
        judge(tmp_path)
    assert caught.value.exit_code == 2


def test_an_accountant_that_answers_nan_never_passes(sound: Any) -> None:
    findings = verify(sound.root / "bundle", recompute=lambda rows, delta: float("nan"))
    assert {("meaning", "epsilon-differs"), ("meaning", "over-cap")} <= codes(findings)
    assert all(site.epsilon is None for site in findings.institutions)


def test_two_parties_of_one_name_are_a_fault(copied: Path, judge: Any, relisted: Any) -> None:
    manifest = json.loads((copied / bundle.MANIFEST).read_bytes())
    manifest["sites"]["hub"] = manifest["coordinator"]
    (copied / bundle.MANIFEST).write_text(json.dumps(manifest))
    shutil.copytree(copied / "coordinator", copied / "sites" / "hub")
    relisted(copied)
    assert ("bytes", "same-name") in codes(judge(copied))


def test_a_damaged_hash_tile_is_told_from_a_damaged_entry(
    federate: Any, judge: Any, tmp_path: Path, relisted: Any
) -> None:
    played = federate(tmp_path)
    for _ in range(300):
        fields = {"release_digest": "sha256:" + "1" * 64}
        played.sites["alpha"].log.append("release-received", fields, run="another-run")
    folder = played.play().bundle()
    assert judge(folder).ok
    for name, where in (("0/000", "sites/alpha entry 0"), ("1/000.p/1", "sites/alpha/tile/1")):
        path = folder / "sites" / "alpha" / "tile" / name
        data = path.read_bytes()
        path.write_bytes(bytes([data[0] ^ 1]) + data[1:])
        relisted(folder)
        (fault,) = judge(folder).faults
        assert fault.code == "damaged-tile"
        assert fault.where.startswith(where)
        path.write_bytes(data)


def test_names_in_a_bundle_cannot_steer_the_terminal(copied: Path, judge: Any) -> None:
    (copied / "a\x1b[2Jb\nverdict: holds").write_text("x")
    lines = list(judge(copied).lines())
    assert lines[0] == "verdict: FAULTY"
    assert all(line.isprintable() for line in lines)
