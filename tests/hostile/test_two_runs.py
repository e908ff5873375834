"""Two whole runs whose records differ: what leaves is the same, but for noise, digests and time."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from audit import dsse, events
from privacy.wire import Answer, Closed, Update, unpack
from tests.conftest import _federation
from tests.flow.world import World

Run = list[Any]
# What stands for something else, and differs whenever the keys, the salt or the noise do.
_OPAQUE = re.compile(r"sha256:[0-9a-f]{64}|[A-Za-z0-9+/]{40,}={0,2}|\d{4}-\d\d-\d\dT[0-9:.+Z-]+")


def _few() -> Iterator[dict[str, str]]:
    for n in range(3):
        yield {"instruction": "Cough.", "response": "asthma", "unit_id": f"p{n}"}


def _many() -> Iterator[dict[str, str]]:
    for n in range(40):
        text = "Zqfracture of the left wrist after a fall on the ice, " * (n % 4)
        yield {"instruction": f"{text}seen {n} times.", "response": "surgery",
               "unit_id": f"q{n % 9}"}  # fmt: skip


def _run(root: Path, patch: pytest.MonkeyPatch, records: Iterator[dict[str, str]]) -> Run:
    root.mkdir()
    world = World(_federation(root, ("clinic-a",)), patch)
    world.sites["clinic-a"].data.write_text("".join(json.dumps(r) + "\n" for r in records))
    world.connect()
    run = world.federation.run_file()
    world.train(run)
    world.release(run)
    return [crossing for crossing in world.wire.crossings if crossing.up]


@pytest.fixture
def runs(
    tmp_path: Path, tiny_home: Path, plain_scrub: None, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Run]]:
    monkeypatch.setenv("PRIVITY_HOME", str(tiny_home))
    return lambda name, records: _run(tmp_path / name, monkeypatch, records)


def _header(crossing: Any) -> Any:
    kinds: dict[str, Any] = {"answer": Answer, "update": Update, "closed": Closed}
    return unpack(crossing.message, kinds[crossing.kind])


def _statements(run: Run) -> list[Any]:
    return [
        events.read(dsse.parse(base64.b64decode(entry)).statement)
        for crossing in run
        for entry in _header(crossing).entries
    ]


def test_whatever_the_records_the_same_leaves_but_noise_and_digests(runs: Any) -> None:
    first, second = runs("one", _few()), runs("two", _many())
    # As many messages, of the same kinds, of the same length to the byte.
    assert [c.kind for c in first] == [c.kind for c in second]
    assert [c.kind for c in first].count("update") == 2
    assert [len(c.objects) for c in first] == [len(c.objects) for c in second]
    for one, two in zip(first, second, strict=True):
        # The same arrays by name, type and shape, and no other difference than their values.
        described = [
            {name: (array.dtype.str, array.shape) for name, array in c.message.arrays.items()}
            for c in (one, two)
        ]
        assert described[0] == described[1]
        heads = [_header(c).model_dump(mode="json", exclude={"entries"}) for c in (one, two)]
        assert heads[0].keys() == heads[1].keys()
        masked = [_OPAQUE.sub("#", json.dumps(head, ensure_ascii=False)) for head in heads]
        assert masked[0] == masked[1]
    # The same statements, field by field, but for digests, which are salted or of noised values.
    said = [_statements(run) for run in (first, second)]
    assert len(said[0]) == len(said[1]) > 8
    for a, b in zip(*said, strict=True):
        assert (a.kind, a.run, a.round) == (b.kind, b.run, b.round)
        assert a.fields.keys() == b.fields.keys()
        texts = [_OPAQUE.sub("#", json.dumps(dict(e.fields), sort_keys=True)) for e in (a, b)]
        assert texts[0] == texts[1]
    differing = {
        (a.kind, key)
        for a, b in zip(*said, strict=True)
        for key in a.fields
        if a.fields[key] != b.fields[key]
    }
    assert differing <= {
        ("log-started", "keys"),  # another institution's keys
        ("budget-reserved", "cohort_commitment"),  # salted with the surrogate secret
        ("pii-scrub", "records_commitment"),  # salted afresh
        ("budget-reserved", "ledger_head"), ("dp-training", "ledger_head"),  # with their time
        ("dp-training", "input_digest"),  # of the adapter that noise has moved
        ("egress", "update_digest"),
        ("release-received", "release_digest"),
        # Salted afresh.
        *(("config-changed", f"{name}_commitment") for name in ("by", "before", "after")),
    }  # fmt: skip
    assert ("pii-scrub", "records_commitment") in differing


def test_the_same_records_do_not_give_the_same_commitment_twice(runs: Any) -> None:
    """So nobody can guess at the counts and try them against the log."""
    said = [_statements(runs(name, _few())) for name in ("one", "two")]
    commitments = [
        next(e.fields["records_commitment"] for e in part if e.kind == "pii-scrub") for part in said
    ]
    assert commitments[0] != commitments[1]


def test_a_count_that_left_would_be_seen(runs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison can fail: of a site that writes an entry a person, two runs differ."""
    from client import people

    real = people.keep_report

    def telling(folder: Any, report: Any) -> str:
        for _ in range(report.persons):
            folder.log().append("request-refused", {"request": "task", "word": "failed"})
        return real(folder, report)

    monkeypatch.setattr(people, "keep_report", telling)
    lengths = [[len(c.objects) for c in runs(n, make())] for n, make in
               (("one", _few), ("two", _many))]  # fmt: skip
    assert lengths[0] != lengths[1]
