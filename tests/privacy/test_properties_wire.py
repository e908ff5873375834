"""What leaves an institution in a run: listed fields of fixed sizes, whatever its data are."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from audit import kinds
from privacy import wire
from tests.flow.world import World

Make = Callable[..., Any]

_UP = {"checkpoint", "entries", "witnessed", "cosignature", "run"}
_FIELDS = {
    "answer": _UP | {"plan_digest", "decision", "reason"},
    "update": _UP | {"round", "plan_digest", "update_digest", "statement_index"},
    "closed": _UP,
}
_STATED = {
    "log-started": {"origin", "software", "keys"},
    "approval": {"plan_digest", "decision", "by"},
    "pii-scrub": {"profile", "scrubber_digest", "records_commitment"},
    "budget-reserved": {
        "plan_digest", "cohort_commitment", "noise_multiplier", "sample_rate", "steps", "rounds",
        "delta", "epsilon_before", "epsilon_after", "cap", "ledger_head",
    },
    "dp-training": {
        "plan_digest", "noise_multiplier", "sample_rate", "steps", "clip_norm", "unit",
        "adjacency", "accountant", "delta", "ledger_head", "input_digest",
    },
    "egress": {"verdict", "code", "update_digest"},
    "release-received": {"release_digest"},
    "trainer-started": {"network"},
    "config-changed": {"subject", "before_commitment", "after_commitment", "by_commitment"},
}  # fmt: skip
# Values that are keys, salted commitments, signatures, times or noise: as many bytes, other ones.
_RANDOM = re.compile(
    r"sha256:[0-9a-f]{64}|[A-Za-z0-9+/]{43}=|[A-Za-z0-9+/]{86}==|[A-Za-z0-9+/]{40,}={0,2}"
    r"|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)|[0-9a-f]{32,}"
)


def test_an_answer_has_no_field_beside_the_listed_ones() -> None:
    for header in (wire.Answer, wire.Update, wire.Closed):
        assert set(header.model_fields) == _FIELDS[header.__name__.lower()]
    assert set(_STATED) == {kind for kind in _STATED if kind in kinds.KINDS}


def _records(kind: str, name: str) -> list[dict[str, Any]]:
    """Two hospitals that differ in everything but the question that is asked of them."""
    if kind == "few":
        return [
            {"instruction": f"A cough since day {n}.", "response": "Lung", "unit_id": f"p{n}",
             "institution": name}
            for n in range(7)
        ]  # fmt: skip
    return [
        {"instruction": "Herr Ng, born 1970-01-02, phone 555-0147, writes again. " * (1 + n % 6),
         "response": ("Heart", "Skin and allergies")[n % 2], "unit_id": f"person-{n % 19}",
         "institution": name}
        for n in range(60)
    ]  # fmt: skip


def _statement(entry: str) -> dict[str, Any]:
    envelope = json.loads(base64.b64decode(entry))
    return json.loads(base64.b64decode(envelope["payload"]))


def _shape(value: Any) -> Any:
    """A JSON value with random parts replaced by their lengths, and everything else as it is."""
    if isinstance(value, dict):
        return {key: _shape(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_shape(part) for part in value]
    if isinstance(value, str):
        return _RANDOM.sub(lambda found: f"<{len(found[0])}>", value)
    return value


def _run(make: Make, root: Path, patch: pytest.MonkeyPatch, kind: str) -> World:
    made = make(root, patch)
    folder = made.sites["clinic-a"]
    lines = [json.dumps(record) for record in _records(kind, "clinic-a")]
    folder.data.write_text("\n".join(lines) + "\n")
    run = made.federation.run_file()
    made.train(run)
    made.release(run)
    return made


def _leaving(made: World) -> list[Any]:
    return [crossing for crossing in made.wire.crossings if crossing.up]


def _keep_bytes(made: World) -> None:
    """Keep every object of every answer, as serialised, in `wire.left`."""
    made.wire.left = []
    for station in made.wire.stations.values():
        real = station.answer

        def answer(request: Any, real: Any = real, **more: Any) -> Any:
            contents, sent = real(request, **more)
            made.wire.left.append(sorted(contents.values()))
            return contents, sent

        station.answer = answer


@pytest.fixture
def two_runs(
    tmp_path: Path, tiny_home: Path, plain_scrub: None, monkeypatch: pytest.MonkeyPatch
) -> Sequence[World]:
    from tests.conftest import _federation

    del plain_scrub
    monkeypatch.setenv("PRIVITY_HOME", str(tiny_home))

    def make(root: Path, patch: pytest.MonkeyPatch) -> World:
        root.mkdir()
        made = World(_federation(root, ["clinic-a"]), patch)
        made.connect()
        _keep_bytes(made)
        return made

    return [_run(make, tmp_path / kind, monkeypatch, kind) for kind in ("few", "many")]


def test_only_listed_fields_of_fixed_sizes_leave_whatever_the_data_are(
    two_runs: Sequence[World],
) -> None:
    few, many = (_leaving(made) for made in two_runs)
    assert {crossing.kind for crossing in few} == {"answer", "update", "closed"}
    for crossing in (*few, *many):
        header = json.loads(crossing.message.header)
        assert set(header) == _FIELDS[crossing.kind]
        for entry in header["entries"]:
            predicate = _statement(entry)["predicate"]
            kind = _statement(entry)["predicateType"].split("/")[-2]
            assert set(predicate.get("fields", predicate)) >= _STATED[kind]
        shapes = {name: array.shape for name, array in crossing.message.arrays.items()}
        assert bool(shapes) is (crossing.kind == "update")
        assert all(array.dtype.str == "<f4" for array in crossing.message.arrays.values())

    # No word of a record, of a report or of a score.
    for crossing in (*few, *many):
        header = json.loads(crossing.message.header)
        for text in map(json.dumps, map(_statement, header["entries"])):
            assert not re.search(r"persons|quarantined|cough|phone|allergies|accuracy|loss", text)

    # Everything but noise, keys, signatures, commitments and the clock is the same to the byte.
    assert [crossing.kind for crossing in few] == [crossing.kind for crossing in many]
    sizes = [[sum(map(len, objects)) for objects in made.wire.left] for made in two_runs]
    assert sizes[0] == sizes[1]
    assert len(sizes[0]) == len(few)
    assert min(sizes[0]) > 500
    for one, other in zip(few, many, strict=True):
        assert [len(a.tobytes()) for a in one.message.arrays.values()] == [
            len(a.tobytes()) for a in other.message.arrays.values()
        ]
        assert list(one.message.arrays) == list(other.message.arrays)
        mine, theirs = (json.loads(each.message.header) for each in (one, other))
        for header in (mine, theirs):
            header["entries"] = [_shape(_statement(entry)) for entry in header["entries"]]
        assert _shape(mine) == _shape(theirs)
        assert one.message.header != other.message.header
    for made, counts in zip(two_runs, ((7, 7), (19, 60)), strict=True):
        report = json.loads((made.sites["clinic-a"].path / "scrub-report.json").read_text())
        assert (report["report"]["persons"], report["report"]["records"]) == counts  # they differ
