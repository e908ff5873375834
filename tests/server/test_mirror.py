"""What the coordinator takes over from a site's log, and how updates become an adapter."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from audit import incidents, note
from audit.canonical import to_base64
from audit.errors import AuditError, InconsistentLog
from server import aggregate, alarms, evaluate
from server.errors import ServerError
from server.mirror import Mirror

DIGEST = "sha256:" + "0" * 64


@pytest.fixture
def pair(federation: Callable[..., Any]) -> tuple[Any, Mirror, Any]:
    """A site's log, the coordinator's empty mirror of it, and the coordinator's witness."""
    made = federation(["clinic-a"])
    hub = made.coordinator
    return made.sites["clinic-a"].log(), hub.mirror_of(hub.enrolled()["clinic-a"]), hub.witness()


def _entries(log: Any, start: int = 0) -> list[str]:
    return [to_base64(log.entry(index)) for index in range(start, log.size)]


def _approve(log: Any) -> None:
    log.append("approval", {"plan_digest": DIGEST, "decision": "approved", "by": "policy"}, run="r")


def test_a_mirror_follows_its_log_and_cosigns_it(pair: Any) -> None:
    log, mirror, witness = pair
    assert (mirror.size, mirror.cosigned) == (0, "")
    head = mirror.extend(_entries(log), log.checkpoint(), witness)
    # The world's own settings are the first thing that its log has to say.
    assert (head.size, mirror.size) == (2, 2)
    _approve(log)
    head = mirror.extend(_entries(log, 2), log.checkpoint(), witness)
    assert head.root == "sha256:" + log.root(3).hex()
    kinds = [event.kind for event in mirror.events()]
    assert kinds == ["log-started", "config-changed", "approval"]
    assert len(note.parse(mirror.cosigned).signatures) == 2
    again = Mirror(mirror.folder, mirror._keys, mirror._origin)
    assert (again.size, again.cosigned) == (3, mirror.cosigned)
    with pytest.raises(ServerError, match="no such entry"):
        mirror.event(3)


def _tampered(log: Any, entries: list[str]) -> dict[str, tuple[list[str], str]]:
    checkpoint = log.checkpoint()
    broken = json.dumps(json.loads(log.entry(1)) | {"signatures": []}).encode()
    return {
        "an entry is missing": (entries[:-1], checkpoint),
        "an entry is there twice": ([*entries, entries[-1]], checkpoint),
        "the order is another": (entries[::-1], checkpoint),
        "an entry is not signed": ([entries[0], to_base64(broken)], checkpoint),
        "an entry is no envelope": ([entries[0], to_base64(b"zq")], checkpoint),
        "an entry is no base64": ([entries[0], "!"], checkpoint),
        "the checkpoint is changed": (entries, checkpoint.replace("\n3\n", "\n4\n")),
        "the checkpoint is none": (entries, "zq"),
        "the checkpoint is empty": (entries, ""),
    }


def test_a_mirror_takes_nothing_over_that_the_log_did_not_sign(pair: Any) -> None:
    log, mirror, witness = pair
    _approve(log)
    taken = []
    for name, (entries, checkpoint) in _tampered(log, _entries(log)).items():
        try:
            mirror.extend(entries, checkpoint, witness)
            taken.append(name)
        except (AuditError, ServerError):
            assert (mirror.size, mirror.cosigned) == (0, ""), name
    assert taken == []
    assert mirror.extend(_entries(log), log.checkpoint(), witness).size == 3


def test_another_sites_log_is_not_taken_over(
    federation: Callable[..., Any],
) -> None:
    made = federation(["clinic-a", "clinic-b"])
    hub = made.coordinator
    mirror = hub.mirror_of(hub.enrolled()["clinic-a"])
    other = made.sites["clinic-b"].log()
    with pytest.raises((AuditError, ServerError)):
        mirror.extend(_entries(other), other.checkpoint(), hub.witness())


def test_a_mirror_never_shrinks(pair: Any) -> None:
    log, mirror, witness = pair
    early = log.checkpoint()
    first = _entries(log)
    _approve(log)
    mirror.extend(_entries(log), log.checkpoint(), witness)
    fresh = Mirror(mirror.folder.parent / "fresh", mirror._keys, mirror._origin)
    with pytest.raises(AuditError):
        fresh.extend(first, early, witness)


def test_a_forked_log_is_an_incident_of_which_both_notes_are_kept(
    federation: Callable[..., Any],
) -> None:
    made = federation(["clinic-a"])
    site, hub = made.sites["clinic-a"], made.coordinator
    mirror, ours = hub.mirror_of(hub.enrolled()["clinic-a"]), hub.log()
    shutil.copytree(site.path / "log", site.path / "log-before")
    log = site.log()
    _approve(log)

    def answer(log: Any, start: int) -> Any:
        return SimpleNamespace(entries=tuple(_entries(log, start)), checkpoint=log.checkpoint())

    alarms.extend(mirror, answer(log, 0), hub.witness(), ours)
    roots = [log.root(size) for size in range(1, log.size + 1)]
    log.close()
    shutil.rmtree(site.path / "log")
    (site.path / "log-before").rename(site.path / "log")
    forked = site.log()
    forked.append("withdrawal", {"person_commitment": DIGEST})
    for _ in range(2):
        with pytest.raises(InconsistentLog):
            alarms.extend(mirror, answer(forked, forked.size), hub.witness(), ours)
    (refused,) = (entry.event.fields for entry in ours.entries("witness-refused"))
    key = note.parse_key(site.keys().public().log)
    older, newer = (
        note.open_checkpoint(refused[name], key=key, origin=site.origin)
        for name in ("older", "newer")
    )
    assert newer.size <= older.size
    assert newer.root not in roots
    assert [item.code for item in incidents.listed(ours)] == ["log-inconsistent"]


# -- averaging ------------------------------------------------------------------------------------

MATRICES = arrays_of.arrays(np.float32, (2, 3), elements=st.floats(-100, 100, width=32))


@settings(max_examples=60)
@given(start=MATRICES, updates=st.lists(MATRICES, min_size=1, max_size=5))
def test_the_mean_is_exact_to_one_rounding_and_knows_no_order(start: Any, updates: Any) -> None:
    given_ = [{"m.B": u} for u in updates]
    (result,) = aggregate.mean({"m.B": start}, given_).values()
    exact = start.astype(np.float64) + np.mean([u.astype(np.float64) for u in updates], axis=0)
    np.testing.assert_allclose(result, exact, rtol=1e-6, atol=1e-5)
    assert result.dtype == np.float32
    turned = aggregate.mean({"m.B": start}, given_[::-1])["m.B"]
    np.testing.assert_allclose(result, turned, rtol=1e-6, atol=1e-5)


def test_one_update_is_added_whole_and_none_is_an_error() -> None:
    start = {"b.B": np.ones((1, 1), np.float32), "a.B": np.zeros((1, 1), np.float32)}
    update = {name: np.full((1, 1), 0.25, np.float32) for name in start}
    result = aggregate.mean(start, [update])
    assert list(result) == ["a.B", "b.B"]
    assert [float(a[0, 0]) for a in result.values()] == [0.25, 1.25]
    with pytest.raises(ServerError, match="nothing to average"):
        aggregate.mean(start, [])


# -- evaluation records ---------------------------------------------------------------------------


def test_evaluation_records_are_thinned_the_same_for_every_reader(tmp_path: Path) -> None:
    path = tmp_path / "e.jsonl"
    path.write_text(
        "".join(json.dumps({"instruction": str(n), "response": "a"}) + "\n" for n in range(30))
    )
    rows = evaluate.read(path, limit=10)
    assert len(rows) == 10
    assert rows == evaluate.read(path, limit=10)
    assert len(evaluate.read(path, limit=100)) == 30


@pytest.mark.parametrize("line", ["zqsecret", "{}", "[]", '{"instruction": "zqsecret"}',
                                  '{"instruction": "zqsecret", "response": ""}',
                                  '{"instruction": 1, "response": "a"}'])  # fmt: skip
def test_a_bad_evaluation_line_is_named_by_number(tmp_path: Path, line: str) -> None:
    path = tmp_path / "e.jsonl"
    path.write_text('{"instruction": "a", "response": "b"}\n' + line + "\n")
    with pytest.raises(ServerError, match="line 2") as refusal:
        evaluate.read(path, limit=5)
    assert "zqsecret" not in str(refusal.value)
    path.write_text("")
    with pytest.raises(ServerError, match="no evaluation record"):
        evaluate.read(path, limit=5)
    with pytest.raises(ServerError, match="cannot be read"):
        evaluate.read(tmp_path / "none", limit=5)
