"""Every copy that leaves the coordinator is marked, no mark comes back, and any leak is named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from audit import mark_detect, mark_keys, trace
from audit.digests import arrays_digest
from server import aggregate
from server.errors import ServerError

Make = Callable[..., Any]


def test_broadcasts_are_marked_and_nothing_of_the_mark_enters_the_aggregate(
    world: Make, tmp_path: Path
) -> None:
    made = world()
    run = made.federation.run_file()
    state = made.train(run)
    sent = {
        (c.site, number): c.message
        for number in (0, 1)
        for c in made.wire.crossings
        if not c.up and c.kind == "round" and f'"round":{number}'.encode() in c.message.header
    }
    zero, start = state.adapter(0), state.adapter(1)
    assert not any(x.any() for x in zero.values())
    for site in made.sites:
        assert arrays_digest(sent[site, 0].arrays) == arrays_digest(zero)
        for name, x in sent[site, 1].arrays.items():
            moved = np.linalg.norm(x - start[name]) / np.linalg.norm(start[name])
            assert moved == pytest.approx(0.05, rel=0.6)
    names = sorted(made.sites)
    assert arrays_digest(sent[names[0], 1].arrays) != arrays_digest(sent[names[1], 1].arrays)

    # What comes back is the change of what was received; it goes onto the unmarked adapter.
    updates = [made.wire.sent(site, "update")[1].arrays for site in names]
    mean = aggregate.mean(start, updates)
    assert arrays_digest(mean) == arrays_digest(state.adapter(2))
    keys = mark_keys.read(state.path / "watermark" / mark_keys.KEY_FILE)
    reference = keys.references()[1]
    halves = [key.halves for key in keys.all]

    def highest(b: Any) -> float:
        suspect = mark_detect.factored(
            {n.removesuffix(".B"): x for n, x in b.items()},
            {m: c.a for m, c in reference.carriers.items()},
        )
        answers = mark_detect.detect(mark_detect.residuals(suspect, reference), halves)
        return max(answer.z for answer in answers)

    assert highest(sent[names[0], 1].arrays) > 8
    for b in (*updates, mean):
        assert highest(b) < 5

    # The log tells of it, each site signs for its own copy, and the officer's verifier agrees.
    (broadcast,) = made.events("hub", "broadcast-marked")
    stated = {row["recipient"]: row["adapter_digest"] for row in broadcast.fields["copies"]}
    for site in names:
        trained = made.events(site, "dp-training")[1]
        assert trained.fields["input_digest"] == stated[site]
    released = made.release(run)
    found = made.verify(released)
    assert found.ok, list(found.lines())
    assert not [n for n in found.notices if "signed for" in n]

    # A leak of either kind names its source.
    site = names[1]
    hub = made.coordinator.path
    traced = trace.coordinator(Path(released["copies"][site]), hub)
    assert (traced.verdict, traced.attributed, traced.round) == ("ATTRIBUTED", (site,), 2)
    assert {receipt.what for receipt in traced.receipts} == {"round 2", "release"}
    leaked = {f"{n.removesuffix('.B')}.lora_B.weight": x for n, x in sent[site, 1].arrays.items()}
    save_file({n: np.array(x) for n, x in leaked.items()}, tmp_path / "leak.safetensors")
    traced = trace.coordinator(tmp_path / "leak.safetensors", hub)
    assert (traced.attributed, traced.round) == ((site,), 1)


def test_a_release_without_a_commitment_from_the_start_cannot_be_cut(
    world: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    from server.marking import Marking

    made = world("clinic-a")
    run = made.federation.run_file()
    with monkeypatch.context() as older:
        older.setattr(Marking, "commit", lambda self, log: None)
        older.setattr(
            Marking, "copies",
            lambda self, log, number, names: dict.fromkeys(
                names, type("C", (), {"arrays": self.state.adapter(number),
                                      "digest": arrays_digest(self.state.adapter(number))})
            ),
        )  # fmt: skip
        made.train(run)
    with pytest.raises(ServerError, match="nothing was committed") as refusal:
        made.release(run)
    assert refusal.value.exit_code == 3
    assert not list(made.coordinator.path.glob("releases/*/*"))


def test_copies_are_the_same_after_a_resume_and_other_keys_are_refused(world: Make) -> None:
    from server.marking import Marking

    made = world("clinic-a")
    run = made.federation.run_file()
    state = made.train(run)
    log = made.coordinator.log()
    first = Marking(made.coordinator, state).copies(log, 1, ["clinic-a"])
    size = log.size
    again = Marking(made.coordinator, state).copies(log, 1, ["clinic-a"])
    assert (first["clinic-a"].digest, log.size) == (again["clinic-a"].digest, size)
    file = state.path / "watermark" / mark_keys.KEY_FILE
    keys = mark_keys.read(file)
    new = mark_keys.Key("clinic-a", b"x" * 32, b"n" * 32)
    text = file.read_text().replace(keys.of("clinic-a").subkey.hex(), new.subkey.hex())
    text = text.replace(keys.of("clinic-a").nonce.hex(), new.nonce.hex())
    file.write_text(text.replace(keys.of("clinic-a").commitment, new.commitment))
    with pytest.raises(ServerError, match="not those that the log committed to") as refusal:
        Marking(made.coordinator, state).commit(log)
    assert refusal.value.exit_code == 4
