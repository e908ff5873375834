"""Reaching the coordinator: a wrong clock is named before Flower refuses it without a word."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from client import connect
from client.errors import ClientError

NOW = datetime(2030, 5, 6, 7, 8, 9, tzinfo=UTC)


@pytest.mark.parametrize(
    ("ahead", "way"), [(7, "ahead of"), (86_400, "ahead of"), (-301, "behind")]
)
def test_a_wrong_clock_is_refused_with_its_error(ahead: int, way: str) -> None:
    shown = format_datetime(NOW - timedelta(seconds=ahead), usegmt=True)
    with pytest.raises(ClientError, match=f"{abs(ahead)} s {way} the coordinator") as refusal:
        connect.check_clock(shown, NOW)
    assert (refusal.value.code, refusal.value.exit_code) == ("wrong-clock", 3)


@pytest.mark.parametrize("ahead", [0, 5, -5, -290])
def test_a_clock_that_flower_takes_is_taken(ahead: int) -> None:
    connect.check_clock(format_datetime(NOW - timedelta(seconds=ahead), usegmt=True), NOW)


@pytest.mark.parametrize("date", ["", "yesterday", "Mon"])
def test_an_answer_without_a_date_is_not_judged(date: str) -> None:
    connect.check_clock(date, NOW)
