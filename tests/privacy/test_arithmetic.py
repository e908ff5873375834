from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from privacy import arithmetic, dpsgd
from privacy.arithmetic import Rounding
from privacy.errors import UnsupportedModel
from tests.privacy.adapted import Adapted, Note, mean_loss, traces


def _make(tokens: int, number: int) -> Note:
    return tuple(0.1 + (number * 7 + place) % 5 for place in range(tokens))


def _measure(model: nn.Module, loss: dpsgd.Loss[Note] = mean_loss, tokens: int = 200) -> Rounding:
    return arithmetic.measure(model, make=_make, loss=loss, longest=32, chunk_tokens=tokens)


def test_a_machine_that_treats_rows_alike_passes() -> None:
    model = Adapted()
    found = _measure(model)
    assert found.moved <= 1e-6
    assert found.resized <= 1e-6
    arithmetic.check(found, people=10)
    assert traces(model) == []


@pytest.mark.parametrize(("longest", "tokens"), [(8, 200), (18, 200), (32, 40)])
def test_a_run_of_few_widths_is_measured_too(longest: int, tokens: int) -> None:
    """As where the longest label nearly fills a sequence: one width, or two."""

    def loss(model: nn.Module, notes: Sequence[Note], width: int) -> Tensor:
        full = len(notes) * width > tokens - width and width >= min(longest, tokens // 2)
        return mean_loss(model, notes, width) * (1 + 1e-3 * full)

    found = arithmetic.measure(
        Adapted(), make=_make, loss=loss, longest=longest, chunk_tokens=tokens
    )
    assert 1e-4 < found.resized < 2e-2


def test_rounding_by_rows_is_found_and_refused() -> None:
    def loss(model: nn.Module, notes: Sequence[Note], width: int) -> Tensor:
        return mean_loss(model, notes, width) * (1 + 1e-3 / len(notes))

    found = _measure(Adapted(), loss)
    assert found.moved <= 1e-6
    assert 1e-5 < found.resized < 1e-2
    with pytest.raises(UnsupportedModel, match="float32"):
        arithmetic.check(found, people=1)


def test_everybody_counts_whose_pass_may_lose_a_row() -> None:
    """A kernel for one row alone changes two persons; one for more than three may change all."""

    def loss(alone: int) -> dpsgd.Loss[Note]:
        return lambda model, notes, width: (
            mean_loss(model, notes, width) * (1 + 1e-4 * (len(notes) <= alone))
        )

    few, many = (
        arithmetic.measure(
            Adapted(), make=_make, loss=loss(n), longest=16, chunk_tokens=200
        ).resized
        for n in (1, 3)
    )
    assert few == pytest.approx(2e-4 + 1e-4, rel=0.05)
    assert many == pytest.approx(200 // 16 * 1e-4 + 1e-4, rel=0.05)


def test_a_brief_look_is_at_few_rows_of_the_shortest() -> None:
    shapes: list[tuple[int, int]] = []

    def loss(model: nn.Module, notes: Sequence[Note], width: int) -> Tensor:
        shapes.append((len(notes), width))
        return mean_loss(model, notes, width) * (1 + 1e-4 / len(notes))

    found = arithmetic.measure(
        Adapted(), make=_make, loss=loss, longest=32, chunk_tokens=200, brief=True
    )
    assert shapes == [(1, 16), (2, 16), (3, 16)]
    assert found.moved == 0.0
    assert found.resized > 1e-4


def test_a_gradient_that_clipping_leaves_short_changes_by_no_more_than_its_length() -> None:
    def loss(model: nn.Module, notes: Sequence[Note], width: int) -> Tensor:
        return mean_loss(model, notes, width) * (1e-9 / len(notes))

    def measure(loss: dpsgd.Loss[Note], floor: float) -> Rounding:
        return arithmetic.measure(
            Adapted(), make=_make, loss=loss, longest=32, chunk_tokens=200, floor=floor
        )

    assert measure(loss, 0.0).resized > 1.0
    assert measure(loss, 0.5).resized < 1e-6
    assert measure(lambda *given: loss(*given) * 0.0, 0.5).resized == 0.0
    for broken in (float("nan"), float("inf")):
        with pytest.raises(UnsupportedModel, match=r"not finite|incomplete"):
            measure(lambda *given, by=broken: loss(*given) * by, 0.5)


@pytest.mark.parametrize("by_place", [True, False])
def test_rounding_by_place_or_company_is_found_and_refused(by_place: bool) -> None:
    def loss(model: nn.Module, notes: Sequence[Note], width: int) -> Tensor:
        company = float(sum(note[1] for note in notes)) % 1
        bend = torch.arange(len(notes)) / len(notes) if by_place else torch.tensor(company)
        return mean_loss(model, notes, width) * (1 + 1e-3 * bend)

    def make(tokens: int, number: int) -> Note:
        return tuple(0.1 + number * 0.37913 + place % 5 for place in range(tokens))

    found = arithmetic.measure(Adapted(), make=make, loss=loss, longest=32, chunk_tokens=200)
    assert found.moved > 1e-5
    with pytest.raises(UnsupportedModel):
        arithmetic.check(found, people=100)


def test_the_allowance_is_for_all_people_and_all_rows_together() -> None:
    arithmetic.check(Rounding(moved=0.0, resized=1e-3), people=10**9)
    arithmetic.check(Rounding(moved=1e-6, resized=0.0), people=999)
    for bad in (Rounding(1e-6, 1e-5), Rounding(float("nan"), 0.0), Rounding(0.0, 1.1e-3)):
        with pytest.raises(UnsupportedModel):
            arithmetic.check(bad, people=1000)


def test_a_gradient_that_is_zero_or_not_finite_is_refused() -> None:
    for factor in (0.0, float("nan"), float("inf")):

        def loss(
            model: nn.Module, notes: Sequence[Note], width: int, factor: float = factor
        ) -> Tensor:
            return mean_loss(model, notes) * factor

        with pytest.raises(UnsupportedModel, match=r"zero or not finite|incomplete"):
            _measure(Adapted(), loss)


def test_a_weight_that_is_used_outside_its_layer_is_refused() -> None:
    class Direct(Adapted):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + self.a(x) @ self.b.weight.T

    with pytest.raises(UnsupportedModel, match="outside its layer"):
        _measure(Direct())


def test_passes_of_one_row_have_no_company_to_be_measured_in() -> None:
    assert _measure(Adapted(), tokens=8) == Rounding(0.0, 0.0)
