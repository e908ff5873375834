"""Private records are scored at a price, with noise, and not at all beyond the cap."""

from __future__ import annotations

import json
import math
import re
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
from privacy.errors import BudgetExhausted, Quarantined
from privacy.plan import epsilon

LABELS = ("billing", "cards")


class Fixed:
    """A release whose base model answers "billing" and whose adapter makes it right."""

    name, labels, chooses, base = "r1", LABELS, True, None

    @contextmanager
    def arm(self, *, tuned: bool) -> Any:
        yield tuned


def _choose(model: Any, base: Any, asked: Any, labels: Any, *, apart: bool, **_: Any) -> Any:
    assert apart  # in a pass together one person's records would reach the rounding of others'
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


def score(folder: Any, release: Any, **settings: Any) -> Any:
    """Whatever the noise."""
    return private_score.score(folder, lambda: release, max_error=100.0, **settings)


def _write(folder: Any, rows: Any) -> None:
    folder.data.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_two_noised_shares_near_the_true_ones_come_back_and_the_ledger_pays(site: Any) -> None:
    found = score(site, Fixed(), epsilon=1.0)
    assert abs(found.released - 1.0) <= 6 * found.error
    assert abs(found.base - 0.75) <= 6 * found.error
    rows = site.ledger().rows(site.settings.budget.cohort)
    assert [row.rounds_begun for row in rows] == [1]
    assert epsilon([rows[0].mechanism], delta=1e-5) == pytest.approx(found.epsilon)
    assert 0.9 < found.epsilon <= 1.0
    kinds = [entry.event.kind for entry in site.log().entries("budget-reserved")]
    assert kinds == ["budget-reserved"]


def test_noise_is_fresh_and_as_large_as_the_ledger_says(site: Any) -> None:
    first = score(site, Fixed(), epsilon=0.5)
    second = score(site, Fixed(), epsilon=0.5)
    assert (first.base, first.released) != (second.base, second.released)
    row = site.ledger().rows(site.settings.budget.cohort)[0]
    assert first.error == pytest.approx(row.noise_multiplier * math.sqrt(2) / 40)
    assert second.epsilon_after > first.epsilon_after


def test_beyond_the_cap_nothing_is_looked_at(site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    score(site, Fixed(), epsilon=1.9)
    monkeypatch.setattr(people, "scrub", lambda *_, **__: pytest.fail("records were looked at"))
    with pytest.raises(BudgetExhausted):
        score(site, Fixed(), epsilon=1.0)


def test_the_price_is_paid_before_records_are_looked_at(
    site: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        held = site.ledger().rows(site.settings.budget.cohort)
        assert held[0].rounds_begun == 1
        raise ClientError("no records", code="none")

    monkeypatch.setattr(people, "scrub", fail)
    with pytest.raises(ClientError, match="no records"):
        score(site, Fixed(), epsilon=0.2)
    assert len(site.ledger().rows(site.settings.budget.cohort)) == 1


def test_pure_noise_is_refused_before_it_is_charged_with_what_would_help(
    site: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(people, "scrub", lambda *_, **__: pytest.fail("records were looked at"))
    told = []
    with pytest.raises(ClientError) as refused:
        private_score.score(site, lambda: pytest.fail("loaded"), epsilon=0.1, foreseen=told.append)
    assert (refused.value.code, refused.value.exit_code) == ("too-noisy", 3)
    assert told[0].error == pytest.approx(43.5 / 40, rel=0.01)
    assert told[0].gap == pytest.approx(told[0].error * math.sqrt(2))
    assert site.ledger().rows(site.settings.budget.cohort) == ()
    assert not list(site.log().entries("budget-reserved"))
    # What it says would help does help, and a little less does not.
    epsilon_named = float(re.search(r"--epsilon ([0-9.]+)", str(refused.value))[1])  # type: ignore[index]
    persons_named = int(re.search(r"wait for (\d+) persons", str(refused.value))[1])  # type: ignore[index]
    assert private_score.foresee(site, epsilon=epsilon_named).error <= 0.1
    assert private_score.foresee(site, epsilon=epsilon_named - 0.02).error > 0.1
    assert persons_named == pytest.approx(43.5 / 0.1, rel=0.01)


def test_what_the_noise_will_be_is_told_before_the_charge_and_kept(site: Any) -> None:
    def look(ahead: Any) -> None:
        assert site.ledger().rows(site.settings.budget.cohort) == ()
        told.append(ahead)

    told: list[Any] = []
    found = private_score.score(site, Fixed, epsilon=1.0, max_error=0.2, foreseen=look)
    assert found.error == told[0].error <= 0.2


@pytest.mark.parametrize("limit", [math.nan, 0.0, 0.01])
def test_no_limit_on_noise_lets_an_unknown_one_through(site: Any, limit: float) -> None:
    with pytest.raises(ClientError, match="max-error"):
        private_score.score(site, Fixed, epsilon=1.0, max_error=limit)
    assert site.ledger().rows(site.settings.budget.cohort) == ()


def test_a_missing_records_file_costs_nothing(site: Any) -> None:
    site.data.unlink()
    with pytest.raises(ClientError):
        score(site, Fixed(), epsilon=0.2)
    assert site.ledger().rows(site.settings.budget.cohort) == ()


def test_a_scrubber_that_cannot_be_made_costs_nothing(
    site: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(folder: Any) -> Any:
        raise ClientError("no lists", code="bad-lists")

    monkeypatch.setattr(people, "scrubber", missing)
    with pytest.raises(ClientError, match="no lists"):
        score(site, Fixed(), epsilon=0.2)
    assert site.ledger().rows(site.settings.budget.cohort) == ()


def test_records_that_are_all_held_back_count_as_wrong_and_are_not_told_of(
    site: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Strict:
        digest = "sha256:" + "6" * 64

        def scrub_many(self, texts: Any, persons: Any) -> Any:
            return [Quarantined("verify") for _ in texts]

    monkeypatch.setattr(people, "scrubber", lambda folder: Strict())
    found = score(site, Fixed(), epsilon=1.0)
    assert max(found.base, found.released) <= 6 * found.error
    assert private_score._shares(site, Fixed(), Strict(), lambda *_: None).tolist() == [[0, 0]] * 40


def test_taking_one_persons_records_away_moves_the_sums_by_at_most_the_clip_norm(
    site: Any,
) -> None:
    def sums() -> Any:
        tool = people.scrubber(site)
        return private_score._shares(site, Fixed(), tool, lambda *_: None).sum(axis=0)

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
        score(site, Free(), epsilon=0.2)
    assert site.ledger().rows(site.settings.budget.cohort) == ()


def test_a_folder_in_use_is_left_alone(site: Any, tmp_path: Path) -> None:
    again = open_folder(site.path)
    with site.lock(), pytest.raises(ClientError, match="already"):
        score(again, Fixed(), epsilon=0.2)
    assert site.ledger().rows(site.settings.budget.cohort) == ()
