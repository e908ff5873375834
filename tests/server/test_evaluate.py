"""Some of the coordinator's public records shape the mark; the release is judged on the others."""

from __future__ import annotations

import pytest

from server import evaluate


@pytest.mark.parametrize(("count", "shaping"), [(0, 0), (63, 0), (64, 16), (200, 16)])
def test_no_record_is_used_both_for_shaping_and_for_judging(count: int, shaping: int) -> None:
    rows = tuple((f"ask {number}", "yes") for number in range(count))
    shaped_on, judged_on = evaluate.spared(rows)
    assert len(shaped_on) == shaping
    assert (*shaped_on, *judged_on) == rows
