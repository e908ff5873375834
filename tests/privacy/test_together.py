from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from privacy import together


@settings(deadline=None)
@given(counts=st.lists(st.integers(1, 9), min_size=1, max_size=8), most=st.integers(1, 4))
def test_who_else_is_there_does_not_move_where_a_person_is_cut(
    counts: list[int], most: int
) -> None:
    items = [(person, n) for person, count in enumerate(counts) for n in range(count)]
    found = list(together.batches(items, person=lambda item: item[0], most=most))
    assert [item for batch in found for item in batch] == items
    assert all(1 <= len(batch) <= most for batch in found)
    for person, count in enumerate(counts):
        parts = [[n for p, n in batch if p == person] for batch in found]
        alone = list(together.batches(range(count), person=lambda _: 0, most=most))
        assert [part for part in parts if part] == alone
