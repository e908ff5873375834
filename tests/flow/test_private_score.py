"""A score on private records is one more charge in the log, and the next run's bundle verifies."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from client import private_score
from privacy.plan import Mechanism
from tests.flow.world import World

Make = Callable[..., World]


def test_a_run_after_a_private_score_verifies_and_counts_both(world: Make) -> None:
    made = world()
    site = made.sites["clinic-a"]
    row = Mechanism(20.0, 1.0, 1)
    private_score._charge(site, "evaluation-0123456789ab", "sha256:" + "1" * 64, row)
    alone = site.ledger().balance("all", delta=1e-5, cap=2.0).spent
    run = made.federation.run_file(epsilon=1.5)
    made.train(run)
    found = made.verify(made.release(run))
    assert found.ok, list(found.lines())
    told = {one.name: one.epsilon for one in found.institutions}
    held = site.ledger().balance("all", delta=1e-5, cap=2.0)
    assert told["clinic-a"] == pytest.approx(held.spent + held.reserved, abs=1e-3)
    assert held.spent > alone > 0
    assert told["clinic-a"] > told["clinic-b"]
