"""Rounds that are sent without a mark: only where the logged plan's adapter can carry none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from audit import aggregation, canonical

Fields = dict[str, Any]
ONE = "sha256:" + "1" * 64
MEANS = {"lora-xs": "uniform mean of R, A and L frozen", "lora": "A and B of one institution"}


class Unmarked:
    """A run whose adapter is trained by `method`; `said` is what the log says of broadcasts."""

    def __init__(self, method: str, *, said: bool = True, basis: str = "", start: str = "") -> None:
        self.method, self.said, self.basis, self.start = method, said, basis, start
        self.last = ""

    def __call__(self, party: str, kind: str, turn: int | None, fields: Fields) -> Fields | None:
        if kind == "broadcast-marked":
            return None
        if kind == "dp-training" and turn:
            return {**fields, "input_digest": self.start or self.last}
        if kind == "aggregation":
            self.last = fields["output_adapter"]
            return {**fields, "method": MEANS.get(self.method, fields["method"])}
        if kind == "watermark-keys" and self.said:
            return {**fields, "broadcasts": "unmarked"}
        if kind == "watermark-committed" and self.basis:
            return {**fields, "basis_digest": self.basis}
        return fields


def judged(federate: Any, judge: Any, path: Path, edit: Unmarked) -> Any:
    names = ("alpha",) if edit.method == "lora" else ("alpha", "beta", "gamma")
    made = federate(path, edit=edit, names=names, quorum=1)
    made.plan |= {"adapter": {"method": edit.method}, "institutions": list(names)}
    made.plan_digest = canonical.digest(canonical.encode(made.plan))
    return judge(made.play().bundle())


@pytest.mark.parametrize("method", MEANS)
def test_such_a_run_is_in_order_and_the_reader_is_told(
    federate: Any, judge: Any, tmp_path: Path, method: str
) -> None:
    found = judged(federate, judge, tmp_path, Unmarked(method))
    assert found.ok, list(found.lines())
    assert any(f"the plan's {method} sends only" in line for line in found.notices)


BAD = [
    # A plan whose B could be marked, or that says nothing known, excuses nothing.
    (Unmarked("ffa-lora"), "broadcast-unmarked"),
    (Unmarked("ffa-lora", said=False), "broadcast-unmarked"),
    (Unmarked("lora-xs-2"), "broadcast-unmarked"),
    # The log and the plan say the same, or neither counts.
    (Unmarked("lora-xs", said=False), "broadcast-unmarked"),
    # Unmarked is not unchecked: the round starts from the aggregate, and the keys stay the same.
    (Unmarked("lora-xs", start=ONE), "input-differs"),
    (Unmarked("lora-xs", basis=ONE), "mark-changed"),
]


@pytest.mark.parametrize(("edit", "code"), BAD)
def test_what_is_not_excused_is_found(
    federate: Any, judge: Any, tmp_path: Path, edit: Unmarked, code: str
) -> None:
    found = judged(federate, judge, tmp_path, edit)
    assert code in {fault.code for fault in found.faults}
    assert not found.ok


def test_where_both_factors_are_trained_the_basis_may_be_of_the_last_a(
    federate: Any, judge: Any, tmp_path: Path
) -> None:
    assert judged(federate, judge, tmp_path, Unmarked("lora", basis=ONE)).ok


@pytest.mark.parametrize(
    "plan",
    [
        {"adapter": {"method": "lora"}, "institutions": ["a", "b"]},
        {"adapter": {"method": "lora"}},
        {"adapter": {"method": "lora"}, "institutions": ["a"], "aggregation": {"method": "krum"}},
        {"adapter": {"method": ["lora-xs"]}},
        {"adapter": "lora-xs"},
        {"aggregation": {"method": {}}},
    ],
)
def test_no_words_fit_a_plan_that_cannot_be_combined(plan: dict[str, Any]) -> None:
    assert aggregation.words(plan) == ""
