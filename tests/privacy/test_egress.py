"""The gate's arithmetic: exactly the plan's arrays, finite and bounded, or nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy.egress import clear
from privacy.errors import EgressDenied

SHAPES = {"a.B": (3, 2), "b.B": (2, 2)}


def _arrays() -> dict[str, Any]:
    return {name: np.full(shape, 0.5, np.float32) for name, shape in SHAPES.items()}


def test_the_plans_arrays_are_cleared_with_norm_and_size() -> None:
    cleared = clear(_arrays(), shapes=SHAPES, max_norm=10.0)
    assert cleared.norm == pytest.approx(np.sqrt(10 * 0.25))
    assert cleared.bytes == 40
    assert list(cleared.arrays) == list(SHAPES)
    assert "0.5" not in repr(cleared)


@pytest.mark.parametrize(
    "change",
    [
        {"c.B": np.zeros((1, 1), np.float32)},
        {"a.B": None},
        {"a.B": np.zeros((2, 3), np.float32)},
        {"a.B": np.zeros((3, 2), np.float64)},
        {"a.B": np.zeros((3, 2), ">f4")},
        {"a.B": np.zeros((3, 2), np.int32)},
        {"a.B": [[0.0, 0.0]] * 3},
        {"a.B": np.full((3, 2), np.nan, np.float32)},
        {"a.B": np.full((3, 2), -np.inf, np.float32)},
        {"a.B": np.full((3, 2), 3e38, np.float32)},
    ],
)
def test_anything_else_is_denied(change: dict[str, Any]) -> None:
    arrays = {name: a for name, a in (_arrays() | change).items() if a is not None}
    with pytest.raises(EgressDenied):
        clear(arrays, shapes=SHAPES, max_norm=1e6)


def test_an_empty_allow_list_lets_nothing_go() -> None:
    with pytest.raises(EgressDenied):
        clear({}, shapes={}, max_norm=1.0)


@pytest.mark.parametrize("limit", [0.0, -1.0, float("nan")])
def test_a_limit_that_is_no_number_denies(limit: float) -> None:
    with pytest.raises(EgressDenied, match="norm"):
        clear(_arrays(), shapes=SHAPES, max_norm=limit)


@settings(max_examples=50)
@given(st.floats(0.01, 100), st.floats(0.01, 100))
def test_the_norm_limit_is_the_joint_norm(value: float, limit: float) -> None:
    arrays = {name: np.full(shape, value, np.float32) for name, shape in SHAPES.items()}
    norm = float(np.linalg.norm(np.concatenate([a.ravel() for a in arrays.values()]).astype(float)))
    if abs(norm - limit) < 1e-6 * limit:
        return
    if norm < limit:
        assert clear(arrays, shapes=SHAPES, max_norm=limit).norm == pytest.approx(norm)
    else:
        with pytest.raises(EgressDenied):
            clear(arrays, shapes=SHAPES, max_norm=limit)


def test_columns_first_arrays_leave_in_row_order() -> None:
    turned = np.asfortranarray(np.arange(6, dtype=np.float32).reshape(3, 2))
    arrays = _arrays() | {"a.B": turned}
    out = clear(arrays, shapes=SHAPES, max_norm=100.0).arrays["a.B"]
    assert out.flags.c_contiguous
    np.testing.assert_array_equal(out, turned)
