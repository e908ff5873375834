"""Private records are scored at a price, with noise, and not at all beyond the cap."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client import people, private_score
from client.errors import ClientError
from client.folder import open_folder
from model import scoring
from privacy.errors import BudgetExhausted
from privacy.plan import epsilon

LABELS = ("billing", "cards")


class Fixed:
    """A release whose base model answers "billing" and whose adapter makes it right."""

    name, labels, chooses, base = "r1", LABELS, True, None

    @contextmanager
    def arm(self, *, tuned: bool) -> Any:
        yield tuned


def _choose(model: Any, base: Any, asked: Any, labels: Any, **settings: Any) -> Any:
    best = tuple(LABELS.index(text.split()[0]) if model else 0 for text in asked)
    return scoring.Chosen(best, np.ones(len(asked)))


@pytest.fixture
def site(federation: Callable[..., Any], plain_scrub: None, monkeypatch: pytest.MonkeyPatch) -> Any:
    made = federation(("clinic-a",))
    monkeypatch.setattr(scoring, "choose", _choose)
    folder = made.sites["clinic-a"]
    rows = [
        {"unit_id": f"p{n}", "instruction": f"{label} {n}", "response": label}
        for n in range(40)
        for label in (LABELS if n % 2 else LABELS[:1])
    ]
    _write(folder, rows)
    return folder


def _write(folder: Any, rows: Any) -> None:
    folder.data.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_two_noised_shares_near_the_true_ones_come_back_and_the_ledger_pays(site: Any) -> None:
    found = private_score.score(site, Fixed(), epsilon=1.0)
    assert abs(found.released - 1.0) <= 6 * found.error
    assert abs(found.base - 0.75) <= 6 * found.error
    rows = site.ledger().rows(site.settings.budget.cohort)
    assert [row.rounds_begun for row in rows] == [1]
    assert epsilon([rows[0].mechanism], delta=1e-5) == pytest.approx(found.epsilon)
    assert 0.9 < found.epsilon <= 1.0
    kinds = [entry.event.kind for entry in site.log().entries("budget-reserved")]
    assert kinds == ["budget-reserved"]


def test_noise_is_fresh_and_as_large_as_the_ledger_says(site: Any) -> None:
    first = private_score.score(site, Fixed(), epsilon=0.5)
    second = private_score.score(site, Fixed(), epsilon=0.5)
    assert (first.base, first.released) != (second.base, second.released)
    row = site.ledger().rows(site.settings.budget.cohort)[0]
    assert first.error == pytest.approx(row.noise_multiplier * math.sqrt(2) / 40)
    assert second.epsilon_after > first.epsilon_after


def test_beyond_the_cap_nothing_is_opened(site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    private_score.score(site, Fixed(), epsilon=1.9)
    monkeypatch.setattr(people, "read", lambda folder: pytest.fail("records were opened"))
    with pytest.raises(BudgetExhausted):
        private_score.score(site, Fixed(), epsilon=1.0)


def test_the_price_is_paid_before_records_are_opened(
    site: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(folder: Any) -> Any:
        held = folder.ledger().rows(folder.settings.budget.cohort)
        assert held[0].rounds_begun == 1
        raise ClientError("no records", code="none")

    monkeypatch.setattr(people, "read", fail)
    with pytest.raises(ClientError, match="no records"):
        private_score.score(site, Fixed(), epsilon=0.2)
    assert len(site.ledger().rows(site.settings.budget.cohort)) == 1


def test_taking_one_persons_records_away_moves_the_sums_by_at_most_the_clip_norm(
    site: Any,
) -> None:
    def sums() -> Any:
        return private_score._shares(site, Fixed(), lambda what, done, total: None).sum(axis=0)

    whole = sums()
    rows = [json.loads(line) for line in site.data.read_text().splitlines()]
    for n in (0, 1):
        _write(site, [row for row in rows if row["unit_id"] != f"p{n}"])
        assert 0 < np.linalg.norm(whole - sums()) <= math.sqrt(2) + 1e-9
    # However many records the person has.
    many = [{"unit_id": "p0", "instruction": "cards x", "response": "cards"}] * 50
    _write(site, [*rows, *many])
    assert np.linalg.norm(whole - sums()) <= math.sqrt(2) + 1e-9


def test_a_release_without_labels_is_not_scored_on_private_records(site: Any) -> None:
    class Free(Fixed):
        labels = ()

    with pytest.raises(ClientError, match="labels"):
        private_score.score(site, Free(), epsilon=0.2)
    assert site.ledger().rows(site.settings.budget.cohort) == ()


def test_a_folder_in_use_is_left_alone(site: Any, tmp_path: Path) -> None:
    again = open_folder(site.path)
    with site.lock(), pytest.raises(ClientError, match="already"):
        private_score.score(again, Fixed(), epsilon=0.2)
    assert site.ledger().rows(site.settings.budget.cohort) == ()
