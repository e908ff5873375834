"""Marked text is drawn from the model's own distribution, and its p-value is what it says."""

from __future__ import annotations

import json
from math import log
from pathlib import Path

import numpy as np
import pytest

from audit import keys, response, text_mark
from audit.errors import AuditError
from audit.text_mark import CONTEXT, Sampler, candidates, detect

KEY, OTHER = b"k" * 32, b"o" * 32
VOCABULARY = 400


def logits(context: tuple[int, ...]) -> np.ndarray:
    """A made-up model: its logits depend on the last two tokens."""
    rng = np.random.default_rng([7, *context[-2:]])
    return (2.5 * rng.normal(size=VOCABULARY)).astype(np.float32)


def write(length: int, *, key: bytes = KEY, seed: int = 1, **setting: float) -> list[int]:
    rng = np.random.default_rng(seed)
    sampler = Sampler(
        key, fresh=lambda: float(rng.uniform(1e-9, 1)), **{"temperature": 0.8, **setting}
    )
    tokens: list[int] = []
    for _ in range(length):
        tokens.append(sampler(logits(tuple(tokens)), tokens))
    return tokens


def distance(sample: np.ndarray) -> float:
    """Kolmogorov-Smirnov distance from the uniform law."""
    ordered = np.sort(sample)
    return float(np.abs(ordered - (np.arange(sample.size) + 0.5) / sample.size).max())


@pytest.mark.parametrize("top_p", [1.0, 0.95])
def test_a_hundred_tokens_name_their_key_and_no_other(top_p: float) -> None:
    for seed in range(10):
        tokens = write(100, seed=seed, top_p=top_p)
        found = detect(tokens, KEY)
        assert found.log10_p < -6
        assert found.marked
        assert not detect(tokens, OTHER).marked
        # Cut out of a longer text, with others' words around it.
        around = [*range(50), *tokens, *range(50)]
        assert detect(around, KEY).log10_p < -4


def test_the_p_value_of_unmarked_text_is_uniform_and_a_biased_one_would_not_be() -> None:
    rng = np.random.default_rng(3)
    texts = [rng.integers(0, 50, size=60).tolist() for _ in range(1500)]
    found = [detect(text, KEY) for text in texts]
    limit = 1.95 / np.sqrt(len(found))  # p = 0.001
    assert distance(np.array([d.p_value for d in found])) < limit
    biased = [np.exp(text_mark._log_gamma_tail(d.tested, 1.1 * d.score)) for d in found]
    assert distance(np.array(biased)) > limit


def test_repeated_text_is_counted_once() -> None:
    tokens = write(40)
    assert detect(tokens * 10, KEY).tested <= len(tokens) + CONTEXT
    boring = [5] * 500
    assert detect(boring, KEY).tested == 1


@pytest.mark.parametrize("top_p", [1.0, 0.9])
def test_over_keys_the_next_token_has_the_models_own_distribution(top_p: float) -> None:
    context = [3, 1, 4, 1]
    plain = logits(tuple(context))
    tokens, logp = candidates(plain, temperature=0.8, top_p=top_p)
    expected = np.zeros(VOCABULARY)
    expected[tokens] = np.exp(logp) / np.exp(logp).sum()
    rng = np.random.default_rng(5)
    count = 4000
    drawn = np.bincount(
        [
            Sampler(rng.bytes(32), temperature=0.8, top_p=top_p)(plain, context)
            for _ in range(count)
        ],
        minlength=VOCABULARY,
    )

    def chi(probability: np.ndarray) -> float:
        big = probability * count >= 10
        seen = np.append(drawn[big], drawn[~big].sum())
        wanted = np.append(probability[big], probability[~big].sum()) * count
        wanted = np.maximum(wanted, 1e-9)
        return float((((seen - wanted) ** 2) / wanted).sum() / max(1, big.sum()))

    assert chi(expected) < 2.0
    warmer, other = candidates(plain, temperature=1.0, top_p=top_p)
    wrong = np.zeros(VOCABULARY)
    wrong[warmer] = np.exp(other) / np.exp(other).sum()
    assert chi(wrong) > 3.0


def test_within_one_answer_no_choice_is_used_twice() -> None:
    """A repeated context is drawn afresh: else it would repeat its choice for certain."""
    sampler = Sampler(KEY, temperature=1.0)
    flat = np.zeros(VOCABULARY, dtype=np.float32)
    context = [1, 2, 3, 4]
    drawn = [sampler(flat, context) for _ in range(40)]
    assert (sampler.marked, sampler.unmarked) == (1, 39)
    assert len(set(drawn)) > 20
    assert sampler(flat, []) >= 0
    assert sampler.unmarked == 40


def test_neither_the_batch_nor_the_stream_changes_a_choice() -> None:
    """Rows side by side, in any order, step by step: each the same as alone."""
    alone = [write(60, seed=seed) for seed in range(4)]

    def fresh(seed: int):
        rng = np.random.default_rng(seed)
        return lambda: float(rng.uniform(1e-9, 1))

    rows = [Sampler(KEY, temperature=0.8, fresh=fresh(seed)) for seed in range(4)]
    texts: list[list[int]] = [[] for _ in rows]
    order = np.random.default_rng(9)
    left = [60] * 4
    while any(left):
        row = int(order.choice([n for n in range(4) if left[n]]))
        batch = np.stack([logits(tuple(t)) for t in texts])
        texts[row].append(rows[row](batch[row], texts[row]))
        left[row] -= 1
    assert texts == alone


def test_the_same_question_gets_different_answers() -> None:
    answers = set()
    for _ in range(5):
        sampler, tokens = Sampler(KEY, temperature=0.8), []
        for _ in range(20):
            tokens.append(sampler(logits(tuple(tokens)), tokens))
        answers.add(tuple(tokens))
    assert len(answers) == 5


@pytest.mark.parametrize("top_p", [0.1, 0.5, 0.95, 0.9999])
def test_top_p_keeps_the_smallest_set_that_reaches_it(top_p: float) -> None:
    rng = np.random.default_rng(11)
    for spread in (0.01, 1.0, 8.0):
        plain = (spread * rng.normal(size=5000)).astype(np.float32)
        tokens, logp = candidates(plain, temperature=0.7, top_p=top_p)
        p = np.exp(plain.astype(np.float64) / 0.7 - (plain / 0.7).max())
        p /= p.sum()
        order = np.argsort(-p, kind="stable")
        need = int(np.searchsorted(np.cumsum(p[order]), top_p)) + 1
        assert abs(tokens.size - need) <= 1
        assert set(order[: need - 1]) <= set(tokens.tolist())
        np.testing.assert_allclose(np.exp(logp), p[tokens], rtol=1e-3)


def test_a_gamma_tail_is_the_one_that_integration_gives() -> None:
    for shape, x in ((1, 0.5), (3, 2.0), (40, 70.0)):
        steps = np.linspace(x, x + 400, 2_000_001)
        density = np.exp((shape - 1) * np.log(steps) - steps - sum(map(log, range(1, shape))))
        area = float(((density[1:] + density[:-1]) / 2 * np.diff(steps)).sum())
        assert np.exp(text_mark._log_gamma_tail(shape, x)) == pytest.approx(area, rel=1e-4)
    assert text_mark._log_gamma_tail(0, 0.0) == 0.0
    assert text_mark._log_gamma_tail(100, 10_000.0) == pytest.approx(-9447.3, abs=0.1)


@pytest.mark.parametrize(
    ("key", "setting"),
    [(b"short", {}), (KEY, {"temperature": 0.0}), (KEY, {"temperature": float("nan")}),
     (KEY, {"top_p": 0.0}), (KEY, {"top_p": 1.1})],
)  # fmt: skip
def test_settings_that_cannot_be_marked_are_refused(key: bytes, setting: dict) -> None:
    with pytest.raises(AuditError):
        Sampler(key, **{"temperature": 1.0, **setting})


def test_a_key_is_private_kept_once_and_never_printed(tmp_path: Path) -> None:
    made = text_mark.create_key(tmp_path / "k.json", "clinic-a")
    assert (tmp_path / "k.json").stat().st_mode & 0o777 == 0o600
    assert text_mark.read_key(tmp_path / "k.json") == made
    assert made.key.hex() not in repr(made)
    assert made.key.hex() not in made.id
    with pytest.raises(AuditError):
        text_mark.create_key(tmp_path / "k.json", "clinic-a")
    for text in ("{", "{}", '{"format": 1, "institution": "a", "text_key": "00"}'):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(AuditError) as caught:
            text_mark.read_key(tmp_path / "bad.json")
        assert caught.value.exit_code == 4


def test_a_record_is_of_one_answer_and_one_signer(tmp_path: Path) -> None:
    from audit import canonical

    ring = keys.create(tmp_path, "clinic-a")
    document = {"answer_digest": canonical.digest(b"yes"), "format": 1}
    envelope = json.loads(json.dumps(response.seal(document, ring.event)))
    public = ring.event.public_key().public_bytes_raw()
    assert response.check(envelope, public, answer="yes") == document
    with pytest.raises(AuditError, match="another answer"):
        response.check(envelope, public, answer="no")
    with pytest.raises(AuditError, match="not signed"):
        response.check(envelope, ring.log.public_key().public_bytes_raw(), answer="yes")
    with pytest.raises(AuditError):
        response.check({**envelope, "signatures": []}, public, answer="yes")
