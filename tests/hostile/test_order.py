"""A coordinator that asks for rounds in another order gets each once, for one charge."""

from __future__ import annotations

from tests.hostile.attacks import Siege


def test_rounds_that_come_in_another_order_are_charged_once_each(siege: Siege) -> None:
    assert siege.send(siege.round(2)).word == "update"  # round 1 was left out
    assert siege.send(siege.round(1)).word == "update"
    spent = siege.spent()
    assert spent[1] == {0, 1, 2}
    assert len(spent[0]) == 1, "one reservation, made before the first of them"
    for number in (2, 0, 1, 2):  # and once more, from the past
        assert siege.send(siege.round(number)).word == "update"
    assert siege.spent() == spent
