"""A run with each way to train an adapter ends in a release that verifies, loads and is traced."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from audit import trace
from client import released as releases
from server.errors import ServerError

Make = Callable[..., Any]


def _prefer(run: Path) -> None:
    asked = '[training]\nobjective = "preference"\n'
    run.write_text(run.read_text().replace("[training]\n", asked))


@pytest.mark.parametrize(
    ("method", "sites"), [("lora-xs", ("clinic-a", "clinic-b")), ("lora", ("clinic-a",))]
)
def test_a_run_ends_in_a_plain_lora_that_verifies_and_is_traced(
    world: Make, method: str, sites: tuple[str, ...]
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
    traced = trace.detect_folder(one, Path(done["watermark_key"]))
    assert traced.attributed == ("clinic-a",), traced


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


def test_records_without_a_rejected_answer_end_a_run_on_preferences(world: Make) -> None:
    made = world("clinic-a")
    run = made.federation.run_file()
    run.write_text(
        run.read_text().replace("[training]\n", '[training]\nobjective = "preference"\n')
    )
    with pytest.raises(ServerError, match=r"needed updates"):
        made.train(run)
