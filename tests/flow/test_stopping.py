"""A run that ends early by public records: released, verified, and never by anything else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from audit.digests import file_digest
from server import conduct, store
from server.errors import ServerError

Make = Callable[..., Any]


def _run(made: Any, *, least_gain: float, rounds: int = 3, digest: str = "") -> Path:
    """RUN.toml with a rule over a few public records."""
    rows = made.sites["clinic-a"].data.read_text().splitlines()[:3]
    public = made.federation.root / "public.jsonl"
    public.write_text("\n".join(rows) + "\n")
    run: Path = made.federation.run_file(rounds=rounds)
    run.write_text(
        run.read_text()
        + f'[stopping]\npath = "public.jsonl"\ndigest = "{digest or file_digest(public)}"\n'
        f"patience = 1\nleast_gain = {least_gain}\n"
    )
    return run


def _train(made: Any, run: Path, *, resume: bool = False) -> Any:
    wanted = store.load_run(run, made.coordinator)
    return conduct.train(made.coordinator, wanted, resume=resume, base=run.parent)


def test_a_run_that_gains_too_little_ends_and_is_released_from_where_it_stands(world: Make) -> None:
    made = world("clinic-a")
    run = _run(made, least_gain=100.0)
    state = _train(made, run)
    assert (state.round, state.outcome) == (2, "trained")
    judged = made.events("hub", "public-loss")
    assert [event.round for event in judged] == [0, 1]
    (end,) = made.events("hub", "run-finished")
    assert (end.fields["outcome"], end.fields["rounds"]) == ("stopped", 2)
    # Going on is not training on.
    assert _train(made, run, resume=True).round == 2
    assert len(made.events("hub", "public-loss")) == 2
    found = made.verify(made.release(run))
    assert found.ok, list(found.lines())
    assert any("ended after 2 rounds" in line for line in found.notices)
    # The site reserved the whole plan before the first round, and that is what it claims.
    (reserved,) = made.events("clinic-a", "budget-reserved")
    assert reserved.fields["rounds"] == 3


def test_a_run_that_gains_enough_goes_on_to_its_last_round(world: Make) -> None:
    made = world("clinic-a")
    run = _run(made, least_gain=0.0)
    run.write_text(run.read_text().replace("patience = 1", "patience = 2"))
    state = _train(made, run)
    (end,) = made.events("hub", "run-finished")
    assert (state.round, end.fields["outcome"]) == (3, "completed")
    assert made.verify(made.release(run)).ok


def test_records_with_another_digest_are_refused_before_anybody_is_asked(world: Make) -> None:
    made = world("clinic-a")
    run = _run(made, least_gain=0.0, digest="sha256:" + "0" * 64)
    with pytest.raises(ServerError, match=r"has the digest sha256:\w+, which is not stopping"):
        _train(made, run)
    assert not made.wire.crossings
