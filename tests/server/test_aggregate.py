"""Aggregation: exact over columns, the same as Flower's rules, bounded in memory, and its price."""

from __future__ import annotations

import tracemalloc
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.server.strategy import aggregate as flowers

from configs.run import AggregationTable
from server import aggregate
from server.aggregate import combine
from server.errors import ServerError
from server.state import Kept

Arrays = dict[str, Any]


def _updates(count: int, *, columns: list[int] | None = None, seed: int = 5) -> list[Arrays]:
    made = np.random.default_rng(seed)
    wide = columns or [4] * count
    return [
        {name: made.normal(size=(6, c)).astype(np.float32) for name in ("a.B", "b.B")} for c in wide
    ]


def _start() -> Arrays:
    return {name: np.full((6, 4), 0.5, np.float32) for name in ("a.B", "b.B")}


def _how(method: str, faulty: int = 0) -> AggregationTable:
    return AggregationTable.model_validate({"method": method, "faulty": faulty})


def _flower(updates: list[Arrays]) -> list[tuple[list[Any], int]]:
    return [([u[name].astype(np.float64) for name in sorted(u)], 1) for u in updates]


def test_columns_are_averaged_over_the_sites_that_trained_them() -> None:
    updates = _updates(3, columns=[1, 4, 2])
    out = combine(_start(), updates, _how("mean"))
    for name in ("a.B", "b.B"):
        one, four, two = (u[name].astype(np.float64) for u in updates)
        wanted = np.stack(
            [
                (one[:, 0] + four[:, 0] + two[:, 0]) / 3,
                (four[:, 1] + two[:, 1]) / 2,
                four[:, 2],
                four[:, 3],
            ],
            axis=1,
        )
        np.testing.assert_array_equal(out[name], (0.5 + wanted).astype(np.float32))


def test_a_column_that_nobody_trained_stays_where_it_was() -> None:
    for method in ("mean", "median", "trimmed-mean", "krum"):
        out = combine(_start(), _updates(3, columns=[2, 2, 2]), _how(method))
        assert (out["a.B"][:, 2:] == 0.5).all()
        assert (out["a.B"][:, :2] != 0.5).any()


def test_the_mean_of_products_is_the_product_of_the_mean_with_fewer_columns() -> None:
    """What each site's model changed by, averaged where it trained, is what the result changes."""
    a = np.random.default_rng(1).normal(size=(4, 5))
    updates = _updates(2, columns=[4, 4])
    out = combine({n: np.zeros((6, 4), np.float32) for n in ("a.B", "b.B")}, updates, _how("mean"))
    by_site = np.mean([u["a.B"].astype(np.float64) @ a for u in updates], axis=0)
    np.testing.assert_allclose(out["a.B"] @ a, by_site, atol=1e-6)


@pytest.mark.parametrize(("method", "faulty"), [("median", 1), ("trimmed-mean", 1), ("krum", 1)])
def test_the_robust_rules_are_flowers(method: str, faulty: int) -> None:
    updates = _updates(7)
    given = _flower(updates)
    theirs = {
        "median": lambda: flowers.aggregate_median(given),
        "trimmed-mean": lambda: flowers.aggregate_trimmed_avg(given, 1 / 7 + 1e-9),
        "krum": lambda: flowers.aggregate_krum(given, faulty, 0),
    }[method]()
    zero = {name: np.zeros((6, 4), np.float32) for name in ("a.B", "b.B")}
    ours = combine(zero, updates, _how(method, faulty))
    for name, wanted in zip(sorted(ours), theirs, strict=True):
        np.testing.assert_array_equal(ours[name], wanted.astype(np.float32))


@pytest.mark.parametrize("method", ["median", "trimmed-mean", "krum"])
def test_one_liar_moves_a_robust_rule_little_and_the_mean_without_bound(method: str) -> None:
    honest = _updates(7)
    lie = [*honest[:6], {name: np.full((6, 4), 1e4, np.float32) for name in honest[0]}]
    assert np.abs(combine(_start(), lie, _how("mean"))["a.B"]).max() > 1e3
    assert np.abs(combine(_start(), lie, _how(method, 1))["a.B"]).max() < 5


def test_too_few_updates_for_a_rule_are_refused() -> None:
    for method, count in (("median", 2), ("trimmed-mean", 2), ("krum", 4)):
        with pytest.raises(ServerError, match="needs") as refusal:
            combine(_start(), _updates(count), _how(method, 1))
        assert refusal.value.code == "too-few-updates"
        combine(_start(), _updates(count + 1), _how(method, 1))


class _Counted(Mapping[str, Any]):
    def __init__(self, values: Mapping[str, Any], seen: list[str]) -> None:
        self.values_, self.seen = values, seen

    def __getitem__(self, name: str) -> Any:
        self.seen.append(name)
        return self.values_[name]

    def __iter__(self) -> Any:
        return iter(self.values_)

    def __len__(self) -> int:
        return len(self.values_)


def test_memory_of_the_mean_does_not_grow_with_the_number_of_updates(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    big = {f"{n}.B": np.ones((2000, 8), np.float32) for n in range(4)}
    for n in range(24):
        save_file(big, tmp_path / f"{n}.safetensors")

    def peak(count: int) -> int:
        updates = [Kept(tmp_path / f"{n}.safetensors") for n in range(count)]
        tracemalloc.start()
        aggregate.mean(big, updates)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    few, many = peak(2), peak(24)
    assert many < few + 64_000  # one array of one update is 64 kB; 22 more updates are 5.6 MB


def test_every_array_of_every_update_is_read_once_for_the_mean() -> None:
    seen: list[str] = []
    aggregate.mean(_start(), [_Counted(u, seen) for u in _updates(5)])
    assert sorted(seen) == sorted(["a.B", "b.B"] * 5)


def test_the_price_of_robustness_is_the_one_in_the_document() -> None:
    """Standard deviation of the aggregate's noise, over that of the mean, for Gaussian updates."""
    text = (Path(__file__).parents[2] / "docs" / "federation.md").read_text(encoding="utf-8")
    noise = np.random.default_rng(11)
    for count, faulty in ((3, 0), (5, 1), (10, 1), (10, 2)):
        stack = [{"x": noise.normal(size=(400, 100)).astype(np.float32)} for _ in range(count)]
        zero = {"x": np.zeros((400, 100), np.float32)}
        base = float(combine(zero, stack, _how("mean"))["x"].std())
        for method in ("median", "trimmed-mean", "krum"):
            if count < _how(method, faulty).least or (method == "trimmed-mean" and not faulty):
                continue
            ratio = float(combine(zero, stack, _how(method, faulty))["x"].std()) / base
            row = f"| {method} | {count} | {faulty} | "
            stated = float(text.split(row)[1].split()[0])
            assert ratio == pytest.approx(stated, abs=0.05), (method, count, faulty, ratio)
