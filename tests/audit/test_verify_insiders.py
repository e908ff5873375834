"""Parties who hold all their keys and sign falsehoods: each is found and named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from audit import canonical, events

Fields = dict[str, Any]
ONE = "sha256:" + "1" * 64
RUN = "run-1"


def change(party: str, kind: str, turn: int | None = None, **values: Any) -> Callable[..., Any]:
    """An insider who writes other values into one kind of event of one party."""

    def edit(at: str, of: str, in_turn: int | None, fields: Fields) -> Fields | None:
        if (at, of) != (party, kind) or (turn is not None and in_turn != turn):
            return fields
        return {
            **fields,
            **{name: v(fields) if callable(v) else v for name, v in values.items()},
        }

    return edit


def drop(party: str, kind: str, turn: int | None = None) -> Callable[..., Any]:
    """An insider who leaves out one kind of event."""

    def edit(at: str, of: str, in_turn: int | None, fields: Fields) -> Fields | None:
        hit = (at, of) == (party, kind) and (turn is None or in_turn == turn)
        return None if hit else fields

    return edit


def repeat(party: str, kind: str, turn: int | None = None, **values: Any) -> Callable[..., Any]:
    """An insider who writes one kind of event a second time, perhaps with other values."""

    def edit(at: str, of: str, in_turn: int | None, fields: Fields) -> list[Fields]:
        hit = (at, of) == (party, kind) and (turn is None or in_turn == turn)
        return [fields, {**fields, **values}] if hit else [fields]

    return edit


def codes(findings: Any) -> set[tuple[str, str]]:
    return {(fault.layer, fault.code) for fault in findings.faults}


FILE = {"direction": "in", "verdict": "taken", "code": "none", "file_digest": ONE}
KEY = {"name": "mallory", "node_key_digest": ONE}


def beside(party: str, kind: str, other: str, fields: Fields) -> Callable[..., Any]:
    """An insider whose log has one more event of another kind after the first of a kind."""
    done: list[int] = []

    def edit(at: str, of: str, in_turn: int | None, given: Fields) -> Fields | list[Any]:
        if (at, of) != (party, kind) or done:
            return given
        done.append(1)
        return [given, (other, fields)]

    return edit


INSIDERS = [
    # A coordinator that combines in another way, or deals with files and keys of strangers.
    (
        change("hub", "aggregation", method="median of each number of B, A frozen"),
        "meaning",
        "method-differs",
    ),
    (change("hub", "aggregation", method="mean"), "meaning", "method-differs"),
    (
        beside("hub", "institution-joined", "exchange", {**FILE, "institution": "mallory"}),
        "completeness",
        "stranger",
    ),
    (beside("hub", "institution-joined", "exchange", FILE), "completeness", "stranger"),
    (beside("hub", "institution-joined", "institution-renewed", KEY), "completeness", "stranger"),
    # An institution that understates what it spent, or spends what it never reserved.
    (change("alpha", "budget-reserved", epsilon_after="0.1"), "meaning", "epsilon-differs"),
    (change("alpha", "budget-reserved", epsilon_before="0.1"), "meaning", "epsilon-differs"),
    (change("alpha", "budget-reserved", cap="0.1"), "meaning", "over-cap"),
    (change("alpha", "budget-reserved", noise_multiplier="1.4"), "meaning", "epsilon-differs"),
    (change("alpha", "budget-reserved", steps=19), "meaning", "bad-reservation"),
    (change("alpha", "budget-reserved", rounds=1), "meaning", "over-reserved"),
    (
        change("alpha", "budget-reserved", noise_multiplier="0"),
        "meaning",
        "epsilon-not-recomputable",
    ),
    (change("alpha", "budget-reserved", plan_digest=ONE), "meaning", "plan-differs"),
    (drop("alpha", "budget-reserved"), "meaning", "not-reserved"),
    (drop("alpha", "approval"), "meaning", "not-approved"),
    (change("alpha", "approval", decision="refused"), "meaning", "not-approved"),
    (change("alpha", "dp-training", noise_multiplier="0.5"), "meaning", "parameters-differ"),
    (change("alpha", "dp-training", sample_rate="0.5"), "meaning", "parameters-differ"),
    (change("alpha", "dp-training", steps=11), "meaning", "parameters-differ"),
    (change("alpha", "dp-training", delta="0.1"), "meaning", "parameters-differ"),
    (change("alpha", "dp-training", plan_digest=ONE), "meaning", "parameters-differ"),
    (change("alpha", "dp-training", input_digest=ONE), "meaning", "input-differs"),
    (change("alpha", "egress", verdict="denied"), "meaning", "not-cleared"),
    (drop("alpha", "egress"), "meaning", "not-cleared"),
    (drop("alpha", "dp-training", turn=1), "completeness", "statement-wrong"),
    # A coordinator that leaves out, adds or swaps.
    (drop("hub", "run-started"), "completeness", "run-missing"),
    (drop("hub", "run-finished"), "completeness", "run-unfinished"),
    (drop("hub", "round-closed", turn=0), "completeness", "round-gap"),
    (drop("hub", "round-closed", turn=1), "completeness", "round-open"),
    (drop("hub", "institution-joined"), "completeness", "not-a-member"),
    (drop("hub", "aggregation", turn=1), "meaning", "aggregation-missing"),
    (drop("hub", "update-accepted", turn=0), "completeness", "participants-differ"),
    (change("hub", "update-accepted", update_digest=ONE), "completeness", "statement-wrong"),
    (change("hub", "update-accepted", statement_leaf=ONE), "completeness", "statement-differs"),
    (change("hub", "update-accepted", statement_index=0), "completeness", "statement-wrong"),
    (change("hub", "update-accepted", statement_index=99), "completeness", "statement-missing"),
    (change("hub", "update-accepted", site_root=ONE), "completeness", "log-forked"),
    (change("hub", "update-accepted", site_size=99), "completeness", "log-rolled-back"),
    (change("hub", "round-closed", accepted=["alpha"]), "completeness", "institution-unaccounted"),
    (
        change("hub", "round-closed", accepted=["alpha"], absent=["beta", "gamma"]),
        *("completeness", "participants-differ"),
    ),
    (change("hub", "round-closed", absent=["delta"]), "completeness", "participant-uninvited"),
    (change("hub", "round-closed", absent=["alpha"]), "completeness", "participant-repeated"),
    (change("hub", "round-closed", rejected=["alpha"]), "completeness", "participants-differ"),
    (change("hub", "round-closed", site_checkpoints={}), "completeness", "site-checkpoint-missing"),
    (change("hub", "run-finished", rounds=1), "completeness", "rounds-differ"),
    (change("hub", "run-finished", participants=["alpha"]), "completeness", "participants-differ"),
    (
        change("hub", "run-started", institutions=["alpha", "beta"]),
        "completeness",
        "site-uninvited",
    ),
    (
        change("hub", "run-started", institutions=["alpha", "beta", "gamma", "delta"]),
        *("completeness", "site-missing"),
    ),
    (change("hub", "run-started", plan_digest=ONE), "meaning", "plan-differs"),
    (change("hub", "run-started", plan={"rounds": 9}), "meaning", "plan-differs"),
    (change("hub", "run-started", quorum=0), "meaning", "bad-quorum"),
    (
        change("hub", "aggregation", turn=1, inputs=lambda f: f["inputs"][:2]),
        *("meaning", "inputs-differ"),
    ),
    (change("hub", "aggregation", turn=1, input_adapter=ONE), "meaning", "chain-broken"),
    (change("hub", "aggregation", turn=1, output_adapter=ONE), "meaning", "reference-differs"),
    (drop("hub", "watermark-committed"), "meaning", "mark-uncommitted"),
    (drop("hub", "watermark-embedded"), "meaning", "release-unmarked"),
    (change("hub", "watermark-committed", commitments=[]), "meaning", "mark-uncommitted"),
    (change("hub", "watermark-committed", reference_digest=ONE), "meaning", "reference-differs"),
    (change("hub", "watermark-committed", strength="0.1"), "meaning", "mark-changed"),
    (
        change(
            "hub",
            "watermark-committed",
            commitments=lambda f: [
                {**row, "commitment": ONE} if row["recipient"] == "beta" else row
                for row in f["commitments"]
            ],
        ),
        *("meaning", "mark-changed"),
    ),
    # Keys made after the fact, ground for a better fit, or edited.
    (drop("hub", "watermark-keys"), "meaning", "mark-uncommitted"),
    (change("hub", "watermark-keys", tree_root=ONE), "meaning", "mark-unbound"),
    (change("hub", "watermark-keys", tree_size=0), "meaning", "mark-unbound"),
    (repeat("hub", "watermark-keys"), "meaning", "mark-recommitted"),
    (
        change("hub", "watermark-keys", commitments=lambda f: f["commitments"][:2]),
        *("meaning", "mark-uncommitted"),
    ),
    (
        change(
            "hub",
            "watermark-keys",
            commitments=lambda f: [{**row, "commitment": ONE} for row in f["commitments"]],
        ),
        *("meaning", "mark-recommitted"),
    ),
    # Broadcasts that carry no mark, a shared one, or another one than was logged.
    (drop("hub", "broadcast-marked", turn=1), "meaning", "broadcast-unmarked"),
    (change("hub", "broadcast-marked", copies=[]), "meaning", "broadcast-unmarked"),
    (
        change(
            "hub",
            "broadcast-marked",
            copies=lambda f: [{**row, "adapter_digest": f["input_adapter"]} for row in f["copies"]],
        ),
        *("meaning", "broadcast-unmarked"),
    ),
    (
        change(
            "hub",
            "broadcast-marked",
            copies=lambda f: [
                {**row, "adapter_digest": f["copies"][0]["adapter_digest"]} for row in f["copies"]
            ],
        ),
        *("meaning", "broadcast-shared"),
    ),
    (repeat("hub", "broadcast-marked", turn=1), "meaning", "broadcast-repeated"),
    (change("hub", "broadcast-marked", input_adapter=ONE), "meaning", "input-differs"),
    (change("hub", "release", reference_digest=ONE), "meaning", "reference-differs"),
    (change("hub", "release", adapter_digest=ONE), "meaning", "adapter-differs"),
    (change("hub", "release", card_digest=ONE), "meaning", "release-differs"),
    (change("hub", "release", bom_digest=ONE), "meaning", "release-differs"),
    (change("hub", "release", folder_digest=ONE), "meaning", "release-differs"),
    (change("hub", "release", claims=[]), "meaning", "claim-differs"),
    (
        change("hub", "release", claims=lambda f: [{**c, "epsilon": "0.1"} for c in f["claims"]]),
        *("meaning", "claim-differs"),
    ),
    (
        change("hub", "release", claims=lambda f: [{**c, "unit": "record"} for c in f["claims"]]),
        *("meaning", "claim-differs"),
    ),
    (drop("hub", "release"), "meaning", "release-unlogged"),
    # Either, saying things twice.
    (repeat("alpha", "budget-reserved", cap="9"), "meaning", "reservation-changed"),
    (repeat("alpha", "dp-training", turn=0), "meaning", "round-repeated"),
    (repeat("hub", "run-started"), "completeness", "run-repeated"),
    (repeat("hub", "run-finished"), "completeness", "run-unfinished"),
    (repeat("hub", "update-accepted"), "completeness", "update-repeated"),
    (repeat("hub", "round-closed"), "completeness", "round-gap"),
    (repeat("hub", "aggregation"), "meaning", "aggregation-repeated"),
]


@pytest.mark.parametrize(("edit", "layer", "code"), INSIDERS)
def test_an_insider_with_all_keys_is_found_and_named(
    federate: Any, judge: Any, tmp_path: Path, edit: Any, layer: str, code: str
) -> None:
    findings = judge(federate(tmp_path, edit=edit).play().bundle())
    assert (layer, code) in codes(findings)
    assert not findings.ok
    assert findings.intact
    assert not (findings.complete if layer == "completeness" else findings.consistent)


def test_a_reservation_told_again_on_resuming_counts_once(
    federate: Any, judge: Any, tmp_path: Path
) -> None:
    assert judge(federate(tmp_path, edit=repeat("alpha", "budget-reserved")).play().bundle()).ok


@pytest.mark.parametrize(
    ("name", "value", "layer", "code"),
    [
        ("seq", 9, "completeness", "seq-gap"),
        ("prev", ONE, "completeness", "prev-broken"),
        ("emitter", "beta", "bytes", "foreign-event"),
        ("origin", "beta/log", "bytes", "foreign-event"),
    ],
)
def test_an_event_that_is_not_at_its_place_is_found(
    federate: Any,
    judge: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    value: Any,
    layer: str,
    code: str,
) -> None:
    honest = events.statement

    def forged(kind: str, fields: Fields, **header: Any) -> Any:
        if kind == "pii-scrub" and header["emitter"] == "alpha":
            header[name] = value
        return honest(kind, fields, **header)

    monkeypatch.setattr(events, "statement", forged)
    played = federate(tmp_path).play()
    findings = judge(played.bundle())
    assert codes(findings) == {(layer, code)}
    assert [fault.where for fault in findings.faults] == ["sites/alpha entry 2"]


def test_what_is_logged_after_its_round_was_closed_is_found(
    federate: Any, judge: Any, tmp_path: Path
) -> None:
    held: list[tuple[str, Fields]] = []

    def hold(party: str, kind: str, turn: int | None, fields: Fields) -> Fields | None:
        late = kind == "aggregation" or (kind == "update-accepted" and not held)
        if turn != 0 or not late:
            return fields
        held.append((kind, fields))
        return None

    class Late(federate):  # type: ignore[misc]
        def cut(self, adapter: str) -> None:
            for kind, fields in held:
                self.coordinator.log.append(kind, fields, run=RUN, round=0)
            super().cut(adapter)

    findings = judge(Late(tmp_path, edit=hold).play().bundle())
    late = [fault for fault in findings.faults if fault.code == "out-of-round"]
    assert len(late) == 2


def test_a_release_that_the_coordinator_never_logged_is_found(
    federate: Any, judge: Any, tmp_path: Path
) -> None:
    class Side(federate):  # type: ignore[misc]
        def cut(self, adapter: str) -> None:
            received = {"release_digest": ONE}
            self.sites["alpha"].log.append("release-received", received, run=RUN)
            super().cut(adapter)

    assert codes(judge(Side(tmp_path).play().bundle())) == {("meaning", "release-unlogged")}


def test_a_site_that_signed_for_anothers_copy_is_found(
    federate: Any, judge: Any, tmp_path: Path
) -> None:
    class Swapped(federate):  # type: ignore[misc]
        def receive(self) -> None:
            for name, of in (("alpha", "beta"), ("beta", "beta")):
                digest = canonical.digest(of.encode())
                self.sites[name].log.append("release-received", {"release_digest": digest}, run=RUN)

    found = judge(Swapped(tmp_path).play().bundle())
    assert codes(found) == {("meaning", "receipt-differs")}
    assert [fault.sentence.split()[0] for fault in found.faults] == ["alpha"]


def test_a_broadcast_logged_after_its_update_came_back_is_found(
    federate: Any, judge: Any, tmp_path: Path
) -> None:
    held: list[Fields] = []

    def hold(party: str, kind: str, turn: int | None, fields: Fields) -> Fields | None:
        if kind == "broadcast-marked":
            held.append(fields)
            return None
        if kind == "aggregation" and turn == 1:
            played.coordinator.log.append("broadcast-marked", held[0], run=RUN, round=1)
        return fields

    played = federate(tmp_path, edit=hold)
    assert codes(judge(played.play().bundle())) == {("meaning", "mark-uncommitted")}


def test_serving_a_release_that_the_coordinator_never_logged_is_found(
    federate: Any, judge: Any, tmp_path: Path
) -> None:
    served = {
        "state": "started", "engine": "embedded", "input_policy": "off", "output_policy": "off",
        "condition": "idle",
    }  # fmt: skip

    class Side(federate):  # type: ignore[misc]
        digest = ONE

        def cut(self, adapter: str) -> None:
            super().cut(adapter)
            digest = self.digest or self.released()
            fields = {**served, "release_digest": digest}
            self.sites["alpha"].log.append("serving", fields, run=RUN)

        def released(self) -> str:
            (event,) = self.coordinator.log.entries("release")
            return str(event.event.fields["adapter_digest"])

    class Honest(Side):
        digest = ""

    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    bad = judge(Side(tmp_path / "a").play().bundle())
    assert codes(bad) == {("meaning", "release-unlogged")}
    assert judge(Honest(tmp_path / "b").play().bundle()).ok


def test_a_mark_committed_after_it_was_embedded_is_found(
    federate: Any, judge: Any, tmp_path: Path
) -> None:
    held: list[Fields] = []

    def hold(party: str, kind: str, turn: int | None, fields: Fields) -> Fields | None:
        if kind == "watermark-committed":
            held.append(fields)
            return None
        if kind == "evaluation":
            played.coordinator.log.append("watermark-committed", held[0], run=RUN)
        return fields

    played = federate(tmp_path, edit=hold)
    assert codes(judge(played.play().bundle())) == {("meaning", "mark-uncommitted")}
