from __future__ import annotations

import json
import math
import re
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from audit import canonical, events, kinds, schema
from audit.errors import EventInvalid

TIME = datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)
ZERO = "sha256:" + "0" * 64


def build(kind: str = "release-received", fields: Any = None, **more: Any) -> dict[str, Any]:
    header = {"emitter": "alpha", "origin": "alpha/log", "seq": 3, "prev": ZERO, "time": TIME}
    fields = {"release_digest": ZERO} if fields is None else fields
    return events.statement(kind, fields, **{**header, "run": "r", **more})


def test_a_statement_reads_back_as_the_event_it_was_made_of() -> None:
    event = events.read(build(subjects=[events.Subject("release", ZERO)]))
    assert (event.kind, event.emitter, event.seq, event.run, event.round) == (
        *("release-received", "alpha", 3, "r", None),
    )
    assert event.time == TIME
    assert event.subject("release") == ZERO
    assert event.subject("update") is None


def test_an_event_about_no_artifact_names_its_own_fields() -> None:
    fields = {"release_digest": ZERO}
    expected = canonical.digest(canonical.encode(fields))
    assert events.read(build(fields=fields)).subject("fields") == expected


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"release_digest": ZERO, "note": "free text"},
        {"release_digest": "0" * 64},
        {"release_digest": ZERO + "\n"},
        {"release_digest": 1},
        {"release_digest": None},
    ],
)
def test_fields_outside_the_table_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(EventInvalid):
        build(fields=fields)


def test_unknown_kinds_and_versions_are_refused() -> None:
    with pytest.raises(EventInvalid):
        build(kind="gossip")
    for old, new in (("/v1", "/v2"), ("privity.invalid", "example.com")):
        made = build()
        made["predicateType"] = made["predicateType"].replace(old, new)
        with pytest.raises(EventInvalid):
            events.check(made)


def test_a_round_event_without_round_or_run_is_refused() -> None:
    fields = {"institution": "alpha", "reason": "late"}
    assert build("update-rejected", fields, round=0)
    with pytest.raises(EventInvalid, match="round"):
        build("update-rejected", fields)
    with pytest.raises(EventInvalid, match="run"):
        build("update-rejected", fields, round=0, run=None)


@pytest.mark.parametrize(
    "change",
    [
        {"_type": "x"},
        {"subject": []},
        {"subject": [{"name": "a"}]},
        {"subject": [{"name": "a", "digest": {"sha256": "00"}}]},
        {"subject": [{"name": "a", "digest": {"sha256": "0" * 64}, "more": 1}]},
        {"subject": [{"name": "a", "digest": {"sha256": "0" * 64, "md5": "0"}}]},
        {"subject": [{"name": "a\nb", "digest": {"sha256": "0" * 64}}]},
        {"subject": "x"},
        {"subject": 5},
        {"predicate": {}},
        {"predicate": None},
        {"extra": 1},
    ],
)
def test_statements_of_another_form_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(EventInvalid):
        events.check({**build(), **change})


@pytest.mark.parametrize("value", [5, ["_type", "subject", "predicateType", "predicate"]])
def test_what_is_no_object_is_no_statement(value: Any) -> None:
    with pytest.raises(EventInvalid):
        events.check(value)


def test_a_time_that_never_was_is_refused() -> None:
    made = build()
    made["predicate"]["time"] = "2026-13-45T25:61:61.000000Z"
    with pytest.raises(EventInvalid, match="is no time"):
        events.check(made)


def test_a_header_outside_the_table_is_neither_written_nor_read() -> None:
    with pytest.raises(EventInvalid):
        build(emitter="no party!")
    made = build()
    made["predicate"]["emitter"] = "no party!"
    with pytest.raises(EventInvalid):
        events.check(made)


def test_a_training_is_about_one_update() -> None:
    trained = {
        "plan_digest": ZERO, "noise_multiplier": "1", "sample_rate": "0.1", "steps": 1,
        "clip_norm": "1", "unit": "patient", "adjacency": "zero-out", "accountant": "PLD",
        "delta": "0.1", "ledger_head": ZERO, "input_digest": ZERO,
    }  # fmt: skip
    assert build("dp-training", trained, round=0, subjects=[events.Subject("update", ZERO)])
    with pytest.raises(EventInvalid, match="one subject named 'update'"):
        build("dp-training", trained, round=0, subjects=[events.Subject("weights", ZERO)])


@pytest.mark.parametrize("value", [True, -1, 2**53, 1.0, "1"])
def test_counts_are_whole_numbers(value: object) -> None:
    fields = {"outcome": "completed", "rounds": value, "participants": []}
    with pytest.raises(EventInvalid):
        build("run-finished", fields)


def test_names_in_a_list_are_distinct() -> None:
    with pytest.raises(EventInvalid, match="twice"):
        build("run-finished", {"outcome": "x", "rounds": 1, "participants": ["a", "a"]})


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1e-06, "0.000001"),
        (1.50, "1.5"),
        (2, "2"),
        (0.0, "0"),
        ("0.10", "0.1"),
        (100.0, "100"),
        (Decimal("1e-7"), "0.0000001"),
        (np.float64(0.25), "0.25"),
    ],
)
def test_decimals_are_exact_and_plain(value: Any, text: str) -> None:
    assert events.decimal(value) == text
    assert float(text) == float(value)


@pytest.mark.parametrize("value", [math.nan, math.inf, "abc", None, 1e300])
def test_what_is_no_finite_number_has_no_decimal(value: Any) -> None:
    with pytest.raises(EventInvalid):
        events.decimal(value)


def test_schema_files_agree_with_the_table() -> None:
    stored = {path.stem: path.read_text() for path in schema.FOLDER.glob("*.json")}
    assert set(stored) == set(kinds.KINDS)
    for kind, text in stored.items():
        assert text == schema.text(kind), "run python -m audit.schema"


@pytest.mark.parametrize("kind", sorted(kinds.KINDS))
def test_no_field_takes_free_text_or_control_characters(kind: str) -> None:
    """Every text in every schema is bounded, and its pattern rejects a sentence of a record."""
    found: list[tuple[str, int]] = []

    def collect(node: Any) -> None:
        if isinstance(node, dict):
            if node.get("type") == "string" and "pattern" in node:
                found.append((node["pattern"], node["maxLength"]))
            for item in node.values():
                collect(item)
        elif isinstance(node, list):
            for item in node:
                collect(item)

    collect(json.loads(schema.text(kind))["properties"]["fields"])
    for pattern, most in found:
        assert most <= 128 or pattern.endswith("\\n)$")
        assert not re.match(pattern, "Mrs O'Neil,\tborn 1950")
