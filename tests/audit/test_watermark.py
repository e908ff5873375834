"""The mark survives what a thief would do, and accuses nobody who did not."""

from __future__ import annotations

import sys
from math import erfc, sqrt
from pathlib import Path

import numpy as np
import pytest

from audit import chips, mark_detect, watermark
from audit.errors import AuditError

sys.path.insert(0, str(Path(__file__).parents[1] / "vectors"))

RANK, OUT, IN, SCALE = 8, 96, 64, 2.0
MASTER = b"m" * 32


def subkey(recipient: str, release: str = "r1") -> bytes:
    return chips.derive(
        MASTER, origin="hub", size=3, root="head", release=release, recipient=recipient
    )


OWNER, ANNA, BERT = subkey(chips.OWNER), subkey("anna"), subkey("bert")


def adapter(seed: int = 1, modules: int = 24) -> tuple[dict, dict]:
    rng = np.random.default_rng(seed)
    names = [f"model.layers.{i}.self_attn.q_proj" for i in range(modules)]
    a = {n: np.linalg.qr(rng.normal(size=(IN, RANK)))[0].T.astype(np.float32) for n in names}
    b = {
        f"{n}.B": (rng.normal(size=(OUT, RANK)) * 10 ** rng.uniform(-3, -1)).astype(np.float32)
        for n in names
    }
    return b, {f"{n}.A": x for n, x in a.items()}


B, A = adapter()
DIMENSIONS = 24 * OUT * RANK
REFERENCE = watermark.Reference.of(B, A, SCALE)
MARKED = watermark.mark(REFERENCE, owner=OWNER, recipient=ANNA)


def residuals(suspect_b: dict, suspect_a: dict) -> dict:
    return mark_detect.residuals(mark_detect.factored(suspect_b, suspect_a), REFERENCE)


def z(suspect_b: dict, suspect_a: dict, key: bytes, variant: str = "") -> float:
    found = residuals(suspect_b, suspect_a)
    if variant:
        found = {variant: found[variant]}
    return mark_detect.detect(found, [chips.halves(key)])[0].z


def both(change_b=lambda x, rng: x, change_a=lambda x, rng: x) -> tuple[dict, dict]:
    rng = np.random.default_rng(7)
    b = {n: np.asarray(change_b(x, rng), np.float32) for n, x in MARKED.items()}
    return b, {n: np.asarray(change_a(x, rng), np.float32) for n, x in A.items()}


def noise(factor: float):
    return lambda x, rng: x + factor * rng.normal(size=x.shape) * np.sqrt(np.mean(x**2))


def int4(x, rng):
    step = np.abs(x).max() / 7
    return np.round(x / step) * step


def test_an_untouched_copy_scores_what_theory_says() -> None:
    for key, share in ((ANNA, 0.84), (OWNER, 0.16)):
        assert z(MARKED, A, key) == pytest.approx(sqrt(share * DIMENSIONS), rel=0.05)


def test_another_recipients_key_and_the_unmarked_reference_score_nothing() -> None:
    assert abs(z(MARKED, A, BERT)) < 4.5
    assert abs(z(MARKED, A, subkey("anna", release="r2"))) < 4.5
    for key in (OWNER, ANNA, BERT):
        assert abs(z(B, A, key)) < 4.5


def test_refactoring_and_scaling_do_not_move_the_score() -> None:
    rng = np.random.default_rng(3)
    b, a = {}, {}
    for name, x in MARKED.items():
        module = name.removesuffix(".B")
        turn = rng.normal(size=(RANK, RANK))
        gain = rng.choice([-3.0, 0.2, 1.0])
        b[name] = (gain * x @ turn).astype(np.float32)
        a[f"{module}.A"] = (np.linalg.inv(turn) @ A[f"{module}.A"]).astype(np.float32)
    assert z(b, a, ANNA) == pytest.approx(z(MARKED, A, ANNA), rel=0.01)


@pytest.mark.parametrize(
    ("name", "change_b", "change_a"),
    [
        ("half precision", lambda x, _: x.astype(np.float16), lambda x, _: x.astype(np.float16)),
        ("int4", int4, int4),
        ("prune half of B", lambda x, _: np.where(np.abs(x) < np.median(np.abs(x)), 0, x), None),
        ("noise of half the norm", noise(0.5), None),
        ("one bit", lambda x, _: np.sign(x) * np.mean(np.abs(x)), None),
        ("halved", lambda x, _: 0.5 * x, None),
    ],
)
def test_a_weight_attack_leaves_the_thief_named(name, change_b, change_a) -> None:
    b, a = both(change_b, change_a or (lambda x, _: x))
    assert z(b, a, ANNA) > 5
    assert abs(z(b, a, BERT)) < 4.5


def test_a_clipping_attack_on_one_module_does_not_drown_the_others() -> None:
    b = dict(MARKED)
    first = next(iter(b))
    b[first] = (b[first] * 1e-12).astype(np.float32)
    other = next(reversed(b))
    b[other] = (b[other] + 1e6).astype(np.float32)
    assert z(b, A, ANNA) > 0.8 * z(MARKED, A, ANNA)


def test_a_stolen_subset_of_modules_is_still_attributed() -> None:
    part = dict(list(MARKED.items())[:6])
    assert z(part, A, ANNA) == pytest.approx(sqrt(0.84 * DIMENSIONS / 4), rel=0.1)


def test_averaging_two_copies_names_both_and_keeps_the_owner() -> None:
    other = watermark.mark(REFERENCE, owner=OWNER, recipient=BERT)
    mean = {n: ((MARKED[n] + other[n]) / 2).astype(np.float32) for n in B}
    assert z(mean, A, ANNA) > 20
    assert z(mean, A, BERT) > 20
    assert z(mean, A, OWNER) > 20


def test_random_keys_follow_the_normal_law_and_biased_chips_would_not(monkeypatch) -> None:
    whole = residuals(MARKED, A)["plain"]
    part = {"plain": dict(list(whole.items())[:1])}

    def scores() -> np.ndarray:
        rng = np.random.default_rng(5)
        keys = [chips.halves(rng.bytes(32)) for _ in range(2000)]
        return mark_detect.scores(part, keys)[0][:, 0]

    def distance(sample: np.ndarray) -> float:
        expected = np.array([1 - 0.5 * erfc(x / sqrt(2)) for x in np.sort(sample)])
        return float(np.abs(expected - (np.arange(sample.size) + 0.5) / sample.size).max())

    limit = 1.95 / sqrt(2000)  # Kolmogorov-Smirnov, p = 0.001
    fair = scores()
    assert distance(fair) < limit
    assert np.abs(fair).max() < 6
    table = chips._table()
    monkeypatch.setattr(chips, "_table", lambda: 1.3 * table)
    assert distance(scores()) > limit


@pytest.mark.parametrize("t", [0.5, 1.0, 2.0, 4.0, 8.0])
def test_chips_have_a_smaller_moment_generating_function_than_a_normal(t: float) -> None:
    table = chips._table().astype(np.float64)
    assert np.exp(t * table).mean() <= np.exp(t * t / 2)
    assert not np.exp(1.01 * t * table).mean() <= np.exp(t * t / 2) or t > 2


def test_the_shipped_table_is_what_its_maker_makes() -> None:
    import make_chips

    made = make_chips.table()
    assert made.shape == (65_536,)
    np.testing.assert_allclose(made, chips._table(), rtol=1e-6, atol=1e-10)


def test_marking_moves_each_module_by_the_stated_strength_and_nothing_else() -> None:
    for strength in (0.02, 0.05):
        marked = watermark.mark(REFERENCE, owner=OWNER, recipient=ANNA, strength=strength)
        assert list(marked) == sorted(B)
        for name, x in marked.items():
            assert x.dtype == np.float32
            assert x.flags.c_contiguous
            moved = np.linalg.norm(x - B[name]) / np.linalg.norm(B[name])
            assert moved == pytest.approx(strength, rel=0.15)


def test_marking_is_deterministic() -> None:
    again = watermark.mark(REFERENCE, owner=OWNER, recipient=ANNA)
    for name, x in again.items():
        np.testing.assert_array_equal(x, MARKED[name])


def test_a_zero_module_is_left_alone_and_an_all_zero_adapter_is_refused() -> None:
    first, *rest = sorted(B)
    b = {**B, first: np.zeros_like(B[first])}
    marked = watermark.mark(watermark.Reference.of(b, A, SCALE), owner=OWNER, recipient=ANNA)
    assert not marked[first].any()
    assert all((marked[name] != b[name]).any() for name in rest)
    zeros = {n: np.zeros_like(x) for n, x in B.items()}
    with pytest.raises(AuditError, match="zero"):
        watermark.mark(watermark.Reference.of(zeros, A, SCALE), owner=OWNER, recipient=ANNA)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused_everywhere(bad: float) -> None:
    first = sorted(B)[0]
    b = {**B, first: B[first].copy()}
    b[first][0, 0] = bad
    with pytest.raises(AuditError, match="not finite"):
        watermark.mark(watermark.Reference.of(b, A, SCALE), owner=OWNER, recipient=ANNA)
    with pytest.raises(AuditError, match="not finite"):
        z(b, A, ANNA)
    with pytest.raises(AuditError):
        watermark.Reference.of(B, A, bad)
    with pytest.raises(AuditError):
        watermark.mark(REFERENCE, owner=OWNER, recipient=ANNA, strength=bad)


def test_a_rank_deficient_basis_is_refused() -> None:
    first = sorted(A)[0]
    a = {**A, first: A[first].copy()}
    a[first][1] = a[first][0]
    with pytest.raises(AuditError, match="rank"):
        watermark.Reference.of(B, a, SCALE)


def test_subkeys_depend_on_every_part_of_their_context() -> None:
    keys = {
        chips.derive(
            master, origin=origin, size=size, root=root, release=release, recipient=recipient
        )
        for master in (b"m" * 32, b"n" * 32)
        for origin, size in (("o", 1), ("o", 11), ("o1", 1))
        for root, release in (("h", "r"), ("hr", "x"), ("h", "x"))
        for recipient in ("", "anna", "x")
    }
    assert len(keys) == 54
    with pytest.raises(AuditError):
        chips.derive(b"short", origin="o", size=1, root="h", release="r", recipient="")
    with pytest.raises(AuditError):
        chips.derive(MASTER, origin="o", size=1, root="", release="r", recipient="")


def test_a_commitment_opens_to_one_key_only() -> None:
    nonce = b"n" * 32
    assert chips.commitment(ANNA, nonce) != chips.commitment(BERT, nonce)
    assert chips.commitment(ANNA, nonce) != chips.commitment(ANNA, b"o" * 32)
    with pytest.raises(AuditError):
        chips.commitment(ANNA, b"short")


def test_digests_follow_what_they_name(monkeypatch) -> None:
    assert watermark.basis_digest(A) == watermark.basis_digest(dict(reversed(A.items())))
    assert watermark.basis_digest(A) != watermark.basis_digest(adapter(seed=2)[1])
    assert chips.table_digest() == chips.TABLE_DIGEST
    assert watermark.detector_digest().startswith("sha256:")
    chips._table.cache_clear()
    monkeypatch.setattr(chips, "TABLE_DIGEST", "sha256:" + "0" * 64)
    with pytest.raises(AuditError, match=r"chips\.f32"):
        chips.table_digest()
    chips._table.cache_clear()


def test_one_opened_half_shows_the_mark_of_its_layers_and_nothing_of_the_other() -> None:
    nonce = b"n" * 32
    found = residuals(MARKED, A)
    for half in chips.HALVES:
        opened = chips.opening(ANNA, nonce, half)
        assert opened.commitment == chips.commitment(ANNA, nonce)
        (detection,) = mark_detect.detect(found, [{half: opened.key}])
        assert detection.z == pytest.approx(sqrt(0.84 * DIMENSIONS / 2), rel=0.07)
        (wrong,) = mark_detect.detect(found, [{1 - half: opened.key}])
        assert abs(wrong.z) < 4.5
    other = chips.opening(BERT, nonce, 0)
    assert other.commitment != chips.commitment(ANNA, nonce)
    assert opened.key.hex() not in repr(opened)


def truncated(rank: int) -> tuple[dict, dict]:
    b, a = {}, {}
    for name, x in MARKED.items():
        module = name.removesuffix(".B")
        u, s, vt = np.linalg.svd(x @ A[f"{module}.A"], full_matrices=False)
        b[name], a[f"{module}.A"] = (u[:, :rank] * s[:rank]).astype(np.float32), vt[:rank]
    return b, a


def pruned(share: float) -> tuple[dict, dict]:
    def cut(x: np.ndarray, _: object) -> np.ndarray:
        return np.where(np.abs(x) < np.quantile(np.abs(x), share), 0.0, x)

    return both(cut)


@pytest.mark.parametrize(
    ("variant", "suspect"),
    [("reprojected", truncated(4)), ("reprojected", truncated(1)), ("erasure", pruned(0.9))],
)
def test_each_variant_sees_more_than_plain_where_it_is_made_for(variant, suspect) -> None:
    assert z(*suspect, ANNA, variant) > 1.5 * z(*suspect, ANNA, "plain")
    assert z(*suspect, ANNA) > 8
    assert abs(z(*suspect, BERT)) < 4.5


def merged(change=lambda x: x) -> dict:
    """A merged model as parts, over a base that is far larger than the adapter."""
    rng = np.random.default_rng(11)
    parts = {}
    for name, carrier in REFERENCE.carriers.items():
        base = rng.normal(size=(OUT, IN)).astype(np.float32)
        theirs = change(base + SCALE * MARKED[f"{name}.B"] @ A[f"{name}.A"]).astype(np.float32)
        delta = theirs - base
        part = mark_detect.Part(delta=delta, known=(theirs != 0) & (delta != 0))
        parts[name] = lambda part=part: part
        assert carrier.g.shape == (OUT, RANK)
    return parts


def test_a_merged_model_names_its_recipient_and_erasure_helps_a_pruned_one() -> None:
    def scores(parts: dict) -> dict[str, float]:
        found = mark_detect.residuals(parts, REFERENCE)
        row = mark_detect.scores(found, [chips.halves(ANNA), chips.halves(BERT)])
        assert np.abs(row[0][1]).max() < 4.5
        return dict(zip(row[1], row[0][0], strict=True))

    whole = scores(merged())
    assert whole["plain"] == pytest.approx(sqrt(0.84 * DIMENSIONS), rel=0.07)
    cut = scores(merged(lambda w: np.where(np.abs(w) < np.median(np.abs(w)), 0.0, w)))
    assert cut["erasure"] > 8
    assert cut["erasure"] > 2 * cut["plain"]


def test_a_suspect_of_other_modules_or_shapes_takes_no_part() -> None:
    b, a = adapter(seed=3)
    found = mark_detect.residuals(
        mark_detect.factored(
            {n.replace("q_proj", "x"): x for n, x in b.items()},
            {n.replace("q_proj", "x"): x for n, x in a.items()},
        ),
        REFERENCE,
    )
    assert mark_detect.detect(found, [chips.halves(ANNA)]) == [mark_detect.Detection.of(0.0, 0)]


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_key_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(AuditError):
        chips.halves(b"k" * length)
    with pytest.raises(AuditError):
        mark_detect.scores(residuals(MARKED, A), [{0: b"k" * length}])
