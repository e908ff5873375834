"""A search on private records is so many charges in the log, and the next run's bundle verifies."""

from __future__ import annotations

import secrets
from collections.abc import Callable

import pytest

from client import estimate
from client.search import paid
from client.search.space import read_run
from client.trainer import Trainer
from model import adapter, base, catalog
from tests.flow.world import World

Make = Callable[..., World]


def test_a_run_after_a_private_search_verifies_and_counts_every_trial(
    world: Make, plain_scrub: None
) -> None:
    made = world()
    site = made.sites["clinic-a"]
    run = read_run(made.federation.run_file(epsilon=0.5), "clinic-a")
    found = catalog.find(run.model.name)
    plans = [
        estimate.proposal(run.model_copy(update={"name": f"{name}-{secrets.token_hex(2)}"}), found)
        for name in paid.names(2)
    ]
    _, after = paid.cost(site, plans)
    assert paid.reserve(site, plans) == pytest.approx(after)
    model = adapter.attach(base.load(found), adapter.Spec(rank=2, seed=run.adapter.seed))
    start = adapter.read(model)
    trained = paid.train(
        site, plans[0], start, trainer=Trainer(site), progress=lambda what, done, total: None
    )
    assert any((trained[name] != start[name]).any() for name in start)
    file = made.federation.run_file(epsilon=1.0)
    made.train(file)
    verdict = made.verify(made.release(file))
    assert verdict.ok, list(verdict.lines())
    told = {one.name: one.epsilon for one in verdict.institutions}
    held = site.ledger().balance("all", delta=1e-5, cap=2.0)
    # Also the trial that was paid for and not trained.
    assert told["clinic-a"] == pytest.approx(held.spent + held.reserved, abs=1e-3)
    assert told["clinic-a"] > after > 0.5
    assert told["clinic-b"] < told["clinic-a"]
