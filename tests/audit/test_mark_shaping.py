"""A mark shaped on public records spares the directions that matter, and loses little of itself."""

from __future__ import annotations

from math import sqrt

import numpy as np
import pytest

from audit import chips, mark_detect, watermark
from audit.errors import AuditError
from tests.audit.hub import IN, OUT, RANK, SCALE, adapter

OWNER, ANNA, BERT = b"o" * 32, b"a" * 32, b"b" * 32
B, A = adapter(1)


def reference(*, mixed: bool) -> watermark.Reference:
    """An adapter whose A has orthonormal rows, or rows that are mixed and scaled."""
    turn = np.random.default_rng(5).normal(size=(RANK, RANK)) if mixed else np.eye(RANK)
    a = {name: (turn @ x).astype(np.float32) for name, x in A.items()}
    return watermark.Reference.of(B, a, SCALE)


def marked(found: watermark.Reference, loud: np.ndarray | None) -> dict[str, np.ndarray]:
    """A copy for anna, shaped on gradients by B that all lie in the columns of `loud`."""
    moments = None if loud is None else dict.fromkeys(found.carriers, loud @ loud.T)
    return watermark.mark(found, owner=OWNER, recipient=ANNA, sensitivity=moments)


LOUD = np.random.default_rng(6).normal(size=(RANK, 2)).astype(np.float32)


@pytest.mark.parametrize("mixed", [False, True])
def test_the_mark_moves_a_public_loss_an_eighth_as_far_at_the_same_strength(mixed: bool) -> None:
    found = reference(mixed=mixed)
    plain, shaped = marked(found, None), marked(found, LOUD)

    def moved(copy: dict) -> tuple[float, float]:
        """Size of the change along the gradient's directions, and of ΔW's change over ΔW."""
        along = sqrt(sum(np.sum(((x - B[n]) @ LOUD) ** 2) for n, x in copy.items()))
        beyond = sum(
            np.sum(((copy[c.name] - c.b) @ c.a.astype(float)) ** 2) for c in found.carriers.values()
        )
        whole = sum(np.sum((c.b @ c.a.astype(float)) ** 2) for c in found.carriers.values())
        return along, sqrt(beyond / whole)

    (before, strength), (after, same) = moved(plain), moved(shaped)
    assert after / before == pytest.approx(
        0.125 * sqrt(RANK / (RANK - 2 * (1 - 0.125**2))), rel=0.1
    )
    assert same == pytest.approx(strength, rel=0.03)
    assert strength == pytest.approx(0.05, rel=0.05)


@pytest.mark.parametrize("mixed", [False, True])
def test_a_shaped_copy_is_traced_by_the_same_chips(mixed: bool) -> None:
    found = reference(mixed=mixed)
    suspect = mark_detect.factored(marked(found, LOUD), {m: c.a for m, c in found.carriers.items()})
    keys = [chips.halves(key) for key in (ANNA, OWNER, BERT)]
    anna, owner, bert = mark_detect.detect(mark_detect.residuals(suspect, found), keys)
    most = sqrt(len(B) * OUT * RANK)
    assert anna.z > 0.8 * sqrt(0.84) * most
    assert owner.z > 0.8 * sqrt(0.16) * most
    assert abs(bert.z) < 4.5


def test_what_is_left_in_the_spared_directions_still_answers() -> None:
    """A thief who keeps only the directions that matter keeps a part of the mark."""
    found = reference(mixed=False)
    space, _ = np.linalg.qr(LOUD)
    b = {n: (x @ space @ space.T).astype(np.float32) for n, x in marked(found, LOUD).items()}
    suspect = mark_detect.factored(b, {m: c.a for m, c in found.carriers.items()})
    (anna,) = mark_detect.detect(mark_detect.residuals(suspect, found), [chips.halves(ANNA)])
    assert anna.z > 8


def test_a_module_that_lies_in_the_loud_directions_is_marked_as_before() -> None:
    space, _ = np.linalg.qr(LOUD)
    b = {n: (x @ (0.3 * np.eye(RANK) + space @ space.T)).astype(np.float32) for n, x in B.items()}
    found = watermark.Reference.of(b, A, SCALE)
    same = watermark.mark(found, owner=OWNER, recipient=ANNA)
    for name, x in marked(found, LOUD).items():
        np.testing.assert_allclose(x, same[name], atol=1e-6)


def test_a_rank_below_four_is_marked_as_before() -> None:
    b = {n: np.ascontiguousarray(x[:, :3]) for n, x in B.items()}
    found = watermark.Reference.of(b, {n: x[:3] for n, x in A.items()}, SCALE)
    moments = {m: np.eye(3, dtype=np.float32) for m in found.carriers}
    for name, x in watermark.mark(found, owner=OWNER, recipient=ANNA, sensitivity=moments).items():
        same = watermark.mark(found, owner=OWNER, recipient=ANNA)[name]
        np.testing.assert_allclose(x, same, atol=1e-6)


@pytest.mark.parametrize("bad", [np.eye(RANK - 1), np.full((RANK, RANK), np.nan)])
def test_a_sensitivity_that_is_no_finite_matrix_of_the_rank_is_refused(bad: np.ndarray) -> None:
    found = reference(mixed=False)
    with pytest.raises(AuditError, match="sensitivity"):
        watermark.mark(
            found, owner=OWNER, recipient=ANNA, sensitivity=dict.fromkeys(found.carriers, bad)
        )
    assert next(iter(found.carriers.values())).a.shape == (RANK, IN)
