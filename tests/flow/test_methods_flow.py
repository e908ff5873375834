"""A run with each way to train an adapter ends in a release that verifies, loads and is traced."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from audit import dispute, mark_evidence, mark_keys, trace
from client import released as releases
from privacy.plan import Mechanism, epsilon
from server.errors import ServerError

Make = Callable[..., Any]


def _prefer(run: Path) -> None:
    asked = '[training]\nobjective = "preference"\n'
    run.write_text(run.read_text().replace("[training]\n", asked))


@pytest.mark.parametrize(
    ("method", "sites"), [("lora-xs", ("clinic-a", "clinic-b")), ("lora", ("clinic-a",))]
)
def test_a_run_ends_in_a_plain_lora_that_verifies_and_is_traced(
    world: Make, method: str, sites: tuple[str, ...], tmp_path: Path
) -> None:
    made = world(*sites)
    rows = made.sites["clinic-a"].data.read_text().splitlines()[:3]
    (made.federation.root / "public.jsonl").write_text("\n".join(rows) + "\n")
    run = made.federation.run_file(method=method, evaluation="public.jsonl")
    made.train(run)
    done = made.release(run)
    found = made.verify(done)
    assert found.ok, list(found.lines())
    one = Path(done["copies"]["clinic-a"])
    loaded = releases.load(one)
    with loaded.arm(tuned=True) as model:
        assert model is not None
    keys = mark_keys.read(Path(done["watermark_key"]))
    traced = trace.suspect(one, keys)
    assert traced.attributed == ("clinic-a",), traced
    # Against the log as well: what the copies are made of, whole and by halves, is held there.
    mark_evidence.check(mark_evidence.from_bundle(Path(done["bundle"])), keys)
    opened = dispute.disclose(keys, "clinic-a", half=0, number=None, out=tmp_path / "case")
    again = dispute.repeat(one, opened, Path(done["bundle"]))
    assert again.recipient == "clinic-a"
    # What the rounds sent has no mark: the log says so, and the verifier tells the reader.
    (committed,) = made.events("hub", "watermark-keys")
    assert committed.fields["broadcasts"] == "unmarked"
    assert not made.events("hub", "broadcast-marked")
    assert any("sent without a mark" in line for line in found.notices)


def test_a_small_machine_trains_fewer_columns_of_r(world: Make) -> None:
    made = world("clinic-a", "clinic-b")
    made.federation.set("clinic-b", columns=1)
    made.connect()
    run = made.federation.run_file(method="lora-xs")
    state = made.train(run)
    assert made.verify(made.release(run)).ok
    assert [e.fields.get("columns") for e in made.events("clinic-b", "dp-training")] == [1, 1]
    arrays = made.wire.sent("clinic-b", "update")[0].arrays
    assert all(array.shape == (2, 1) for array in arrays.values())
    assert all(array.shape == (2, 2) for array in state.adapter(2).values())


def test_a_machine_that_trains_fewer_columns_declines_both_factors(world: Make) -> None:
    made = world("clinic-a")
    made.federation.set("clinic-a", columns=1)
    made.connect()
    with pytest.raises(ServerError, match="needs-all-columns"):
        made.train(made.federation.run_file(method="lora"))


def test_a_run_on_preferences_trains_pairs_from_the_records(world: Make) -> None:
    made = world("clinic-a")
    site = made.sites["clinic-a"]
    rows = [json.loads(line) for line in site.data.read_text().splitlines()]
    pairs = [
        {"unit_id": row["unit_id"], "prompt": row["instruction"], "chosen": row["response"],
         "rejected": f"not {row['response']}"} for row in rows
    ]  # fmt: skip
    site.data.write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    run = made.federation.run_file()
    run.write_text(
        run.read_text().replace("[training]\n", '[training]\nobjective = "preference"\n')
    )
    done = made.release(run) if made.train(run) else {}
    found = made.verify(done)
    assert found.ok, list(found.lines())
    (site_found,) = found.institutions
    (reserved,) = made.events("clinic-a", "budget-reserved")
    row = Mechanism(*(float(reserved.fields[n]) for n in ("noise_multiplier", "sample_rate")), 2)
    assert site_found.epsilon == pytest.approx(epsilon([row], delta=1e-5))
    assert 1.0 < site_found.epsilon <= 2.0


def test_records_without_a_rejected_answer_end_a_run_on_preferences(world: Make) -> None:
    made = world("clinic-a")
    run = made.federation.run_file()
    run.write_text(
        run.read_text().replace("[training]\n", '[training]\nobjective = "preference"\n')
    )
    with pytest.raises(ServerError, match=r"needed updates"):
        made.train(run)
