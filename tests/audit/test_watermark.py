"""The mark survives what a thief would do, and accuses nobody who did not."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from math import erfc, sqrt
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from audit import trace, watermark
from audit.errors import AuditError

sys.path.insert(0, str(Path(__file__).parents[1] / "vectors"))

RANK, OUT, IN, SCALE = 8, 96, 64, 2.0
MASTER = b"m" * 32


def subkey(recipient: str, release: str = "r1") -> bytes:
    return watermark.derive(MASTER, tree_head="head", release=release, recipient=recipient)


OWNER, ANNA, BERT = subkey(watermark.OWNER), subkey("anna"), subkey("bert")


def adapter(seed: int = 1, modules: int = 12) -> tuple[dict, dict]:
    rng = np.random.default_rng(seed)
    names = [f"model.layers.{i}.self_attn.q_proj" for i in range(modules)]
    a = {n: np.linalg.qr(rng.normal(size=(IN, RANK)))[0].T.astype(np.float32) for n in names}
    b = {
        f"{n}.B": (rng.normal(size=(OUT, RANK)) * 10 ** rng.uniform(-3, -1)).astype(np.float32)
        for n in names
    }
    return b, {f"{n}.A": x for n, x in a.items()}


B, A = adapter()
DIMENSIONS = 12 * OUT * RANK
MARKED = watermark.mark(B, A, scale=SCALE, owner=OWNER, recipient=ANNA)


def z(suspect_b: dict, suspect_a: dict, key: bytes) -> float:
    return watermark.detect(suspect_b, suspect_a, reference_b=B, a=A, scale=SCALE, key=key).z


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
    assert z(b, a, ANNA) > 6
    assert abs(z(b, a, BERT)) < 4.5


def test_a_clipping_attack_on_one_module_does_not_drown_the_others() -> None:
    b = dict(MARKED)
    first = next(iter(b))
    b[first] = (b[first] * 1e-12).astype(np.float32)
    other = next(reversed(b))
    b[other] = (b[other] + 1e6).astype(np.float32)
    assert z(b, A, ANNA) > 0.8 * z(MARKED, A, ANNA)


def test_a_stolen_subset_of_modules_is_still_attributed() -> None:
    part = dict(list(MARKED.items())[:3])
    assert z(part, A, ANNA) == pytest.approx(sqrt(0.84 * DIMENSIONS / 4), rel=0.1)


def test_averaging_two_copies_names_both_and_keeps_the_owner() -> None:
    other = watermark.mark(B, A, scale=SCALE, owner=OWNER, recipient=BERT)
    mean = {n: ((MARKED[n] + other[n]) / 2).astype(np.float32) for n in B}
    assert z(mean, A, ANNA) > 20
    assert z(mean, A, BERT) > 20
    assert z(mean, A, OWNER) > 20


def test_random_keys_follow_the_normal_law_and_biased_chips_would_not(monkeypatch) -> None:
    residuals = watermark.residual(MARKED, A, reference_b=B, a=A, scale=SCALE)
    part = dict(list(residuals.items())[:1])

    def scores() -> np.ndarray:
        rng = np.random.default_rng(5)
        return np.array([watermark.score(part, key=rng.bytes(32)).z for _ in range(2000)])

    def distance(sample: np.ndarray) -> float:
        expected = np.array([1 - 0.5 * erfc(x / sqrt(2)) for x in np.sort(sample)])
        return float(np.abs(expected - (np.arange(sample.size) + 0.5) / sample.size).max())

    limit = 1.95 / sqrt(2000)  # Kolmogorov-Smirnov, p = 0.001
    fair = scores()
    assert distance(fair) < limit
    assert np.abs(fair).max() < 6
    table = watermark._table()
    monkeypatch.setattr(watermark, "_table", lambda: 1.3 * table)
    assert distance(scores()) > limit


@pytest.mark.parametrize("t", [0.5, 1.0, 2.0, 4.0, 8.0])
def test_chips_have_a_smaller_moment_generating_function_than_a_normal(t: float) -> None:
    chips = watermark._table()
    assert np.exp(t * chips).mean() <= np.exp(t * t / 2)
    assert not np.exp(1.01 * t * chips).mean() <= np.exp(t * t / 2) or t > 2


def test_the_shipped_table_is_what_its_maker_makes() -> None:
    import make_chips

    made = make_chips.table()
    assert made.shape == (65_536,)
    np.testing.assert_allclose(made, watermark._table(), rtol=1e-6, atol=1e-10)


def test_marking_moves_each_module_by_the_stated_strength_and_nothing_else() -> None:
    for strength in (0.02, 0.05):
        marked = watermark.mark(B, A, scale=SCALE, owner=OWNER, recipient=ANNA, strength=strength)
        assert list(marked) == sorted(B)
        for name, x in marked.items():
            assert x.dtype == np.float32
            assert x.flags.c_contiguous
            moved = np.linalg.norm(x - B[name]) / np.linalg.norm(B[name])
            assert moved == pytest.approx(strength, rel=0.15)


def test_marking_is_deterministic() -> None:
    again = watermark.mark(B, A, scale=SCALE, owner=OWNER, recipient=ANNA)
    for name, x in again.items():
        np.testing.assert_array_equal(x, MARKED[name])


def test_a_zero_module_is_left_alone_and_an_all_zero_adapter_is_refused() -> None:
    first, *rest = sorted(B)
    b = {**B, first: np.zeros_like(B[first])}
    marked = watermark.mark(b, A, scale=SCALE, owner=OWNER, recipient=ANNA)
    assert not marked[first].any()
    assert all((marked[name] != b[name]).any() for name in rest)
    zeros = {n: np.zeros_like(x) for n, x in B.items()}
    with pytest.raises(AuditError, match="zero"):
        watermark.mark(zeros, A, scale=SCALE, owner=OWNER, recipient=ANNA)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused_everywhere(bad: float) -> None:
    first = sorted(B)[0]
    b = {**B, first: B[first].copy()}
    b[first][0, 0] = bad
    with pytest.raises(AuditError, match="not finite"):
        watermark.mark(b, A, scale=SCALE, owner=OWNER, recipient=ANNA)
    with pytest.raises(AuditError, match="not finite"):
        z(b, A, ANNA)
    with pytest.raises(AuditError):
        watermark.mark(B, A, scale=bad, owner=OWNER, recipient=ANNA)
    with pytest.raises(AuditError):
        watermark.mark(B, A, scale=SCALE, owner=OWNER, recipient=ANNA, strength=bad)


def test_a_rank_deficient_basis_is_refused() -> None:
    first = sorted(A)[0]
    a = {**A, first: A[first].copy()}
    a[first][1] = a[first][0]
    with pytest.raises(AuditError, match="rank"):
        watermark.mark(B, a, scale=SCALE, owner=OWNER, recipient=ANNA)


def test_subkeys_depend_on_every_part_of_their_context() -> None:
    keys = {
        watermark.derive(master, tree_head=head, release=release, recipient=recipient)
        for master in (b"m" * 32, b"n" * 32)
        for head, release in (("h", "r"), ("hr", "x"), ("h", "x"))
        for recipient in ("", "anna", "x")
    }
    assert len(keys) == 18
    with pytest.raises(AuditError):
        watermark.derive(b"short", tree_head="h", release="r", recipient="")
    with pytest.raises(AuditError):
        watermark.derive(MASTER, tree_head="", release="r", recipient="")


def test_a_commitment_opens_to_one_key_only() -> None:
    nonce = b"n" * 32
    assert watermark.commitment(ANNA, nonce) != watermark.commitment(BERT, nonce)
    assert watermark.commitment(ANNA, nonce) != watermark.commitment(ANNA, b"o" * 32)
    with pytest.raises(AuditError):
        watermark.commitment(ANNA, b"short")


def test_digests_follow_what_they_name(monkeypatch) -> None:
    assert watermark.basis_digest(A) == watermark.basis_digest(dict(reversed(A.items())))
    assert watermark.basis_digest(A) != watermark.basis_digest(adapter(seed=2)[1])
    assert watermark.table_digest() == watermark.TABLE_DIGEST
    assert watermark.detector_digest().startswith("sha256:")
    watermark._table.cache_clear()
    monkeypatch.setattr(watermark, "TABLE_DIGEST", "sha256:" + "0" * 64)
    with pytest.raises(AuditError, match=r"chips\.f32"):
        watermark.table_digest()
    watermark._table.cache_clear()


# From here on: folders and key files.


def write_peft(folder: Path, b: dict, a: dict, dtype=np.float32) -> Path:
    folder.mkdir()
    tensors = {}
    for side, arrays in (("A", a), ("B", b)):
        for name, x in arrays.items():
            module = name.removesuffix(f".{side}")
            tensors[f"base_model.model.{module}.lora_{side}.weight"] = np.ascontiguousarray(
                x, dtype
            )
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder


@pytest.fixture
def sealed(tmp_path: Path) -> Path:
    return trace.seal(
        tmp_path / "keys",
        release="r1",
        b=B,
        a=A,
        scale=SCALE,
        owner=trace.Key("", OWNER, b"0" * 32),
        recipients=(trace.Key("anna", ANNA, b"1" * 32), trace.Key("bert", BERT, b"2" * 32)),
    )


def test_a_leaked_folder_names_its_recipient(tmp_path: Path, sealed: Path) -> None:
    for dtype in (np.float32, np.float16):
        leaked = write_peft(tmp_path / np.dtype(dtype).name, MARKED, A, dtype)
        found = trace.detect_folder(leaked, sealed)
        assert (found.verdict, found.attributed) == ("ATTRIBUTED", ("anna",))
        assert found.recipients[0].commitment == watermark.commitment(ANNA, b"1" * 32)
        assert found.recipients[0].detection.bound < 1e-12
        assert abs(found.recipients[1].detection.z) < 4.5
        assert found.tests == 3


def test_bfloat16_files_are_read(tmp_path: Path, sealed: Path) -> None:
    torch = pytest.importorskip("torch", reason="torch writes the bfloat16 file")
    from safetensors.torch import save_file as save_torch

    tensors = {}
    for side, arrays in (("A", A), ("B", MARKED)):
        for name, x in arrays.items():
            key = f"base_model.model.{name.removesuffix('.' + side)}.lora_{side}.default.weight"
            tensors[key] = torch.from_numpy(x.copy()).to(torch.bfloat16)
    save_torch(tensors, tmp_path / "leaked.safetensors")
    found = trace.detect_folder(tmp_path / "leaked.safetensors", sealed)
    assert found.attributed == ("anna",)


def test_a_copy_for_an_unknown_recipient_is_ours_but_not_attributed(tmp_path, sealed) -> None:
    other = watermark.mark(B, A, scale=SCALE, owner=OWNER, recipient=subkey("unknown"))
    found = trace.detect_folder(write_peft(tmp_path / "x", other, A), sealed)
    assert (found.verdict, found.attributed) == ("OURS, BUT NOT ATTRIBUTED", ())


def test_a_stranger_shows_no_evidence(tmp_path: Path, sealed: Path) -> None:
    b, a = adapter(seed=99)
    assert trace.detect_folder(write_peft(tmp_path / "x", b, a), sealed).verdict == "NO EVIDENCE"


def test_too_little_to_test_is_inconclusive(tmp_path: Path, sealed: Path) -> None:
    b, a = adapter(seed=99)
    elsewhere = [{n.replace("q_proj", "x"): x for n, x in side.items()} for side in (b, a)]
    found = trace.detect_folder(write_peft(tmp_path / "x", *elsewhere), sealed)
    assert found.verdict == "INCONCLUSIVE"
    assert found.owner.detection == watermark.Detection(0.0, 0.5, 1.0, 0)


def test_a_score_between_suspicion_and_attribution_is_inconclusive() -> None:
    def at(value: float) -> trace.Score:
        return trace.Score("x", "", watermark.Detection(value, 0.0, 0.0, DIMENSIONS))

    for best, verdict in ((7.9, "INCONCLUSIVE"), (8.0, "ATTRIBUTED"), (4.9, "NO EVIDENCE")):
        assert trace._verdict(at(0.0), [at(best)]) == verdict
    assert trace._verdict(at(float("nan")), [at(float("nan"))]) == "INCONCLUSIVE"


def test_key_material_is_private_and_never_printed(sealed: Path) -> None:
    for path in (sealed, sealed.with_name(trace.REFERENCE_FILE)):
        assert path.stat().st_mode & 0o777 == 0o600
    key = trace.Key("anna", ANNA, b"1" * 32)
    assert ANNA.hex() not in repr(key)
    assert repr(ANNA) not in repr(key)
    with pytest.raises(AuditError, match="never overwritten"):
        trace.write_secret(sealed, b"")


@pytest.mark.parametrize("part", ["reference", "subkey", "format", "recipients", "json"])
def test_a_damaged_key_file_is_refused(tmp_path: Path, sealed: Path, part: str) -> None:
    document = json.loads(sealed.read_text())
    if part == "reference":
        changed = {f"{n.removesuffix('.B')}.B": x + 1 for n, x in B.items()}
        save_file(changed, sealed.with_name(trace.REFERENCE_FILE))
    elif part == "subkey":
        document["recipients"][0]["subkey"] = BERT.hex()
    elif part == "format":
        document["format"] = 2
    elif part == "recipients":
        document["recipients"] = []
    sealed.write_text("{" if part == "json" else json.dumps(document))
    with pytest.raises(AuditError) as caught:
        trace.detect_folder(write_peft(tmp_path / "x", MARKED, A), sealed)
    assert caught.value.exit_code == 4


@pytest.mark.parametrize("content", [b"", b"no", b"\xff" * 64, None])
def test_a_damaged_adapter_is_refused(tmp_path: Path, sealed: Path, content) -> None:
    path = tmp_path / "adapter_model.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(AuditError):
        trace.detect_folder(tmp_path, sealed)


def test_recipients_need_names_of_their_own(tmp_path: Path) -> None:
    key = trace.Key("anna", ANNA, b"1" * 32)
    for keys in ((), (key, key), (replace(key, name=""),)):
        with pytest.raises(AuditError, match="name of its own"):
            trace.seal(tmp_path, release="r", b=B, a=A, scale=SCALE, owner=key, recipients=keys)
