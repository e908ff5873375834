"""A keyed mark in generated text: the Gumbel-max sampler, and its exact p-value.

Token v is drawn as the argmax of log p(v) + g(v), where g(v) is a Gumbel variable that a key and
the last four generated tokens determine. Averaged over keys this is sampling from p itself, at the
same temperature and top-p: nothing is preferred (Aaronson 2022; Kirchenbauer et al. 2023 for the
setting). Whoever has the key sees that the chosen tokens had suspiciously large g.

The first four tokens of an answer, and any context that came before in the same answer, are drawn
with fresh randomness: so an answer as a whole follows the model's distribution exactly, and the
same question gets different answers. The choice depends on the key and on the answer's own tokens,
never on the row of a batch, the time or the stream.

Needs only numpy. Evidence is that a gateway with this key wrote the text, not that a model was
stolen; paraphrase removes it, and text without choice (codes, temperature 0) cannot carry it.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import exp, inf, lgamma, log, log1p
from pathlib import Path

import numpy as np
import numpy.typing as npt

from audit.errors import AuditError, unreadable
from audit.mark_keys import write_secret

Float64 = npt.NDArray[np.float64]

CONTEXT = 4  # generated tokens that seed the next choice
SCHEME = "gumbel-max-h4"
KEY_BYTES = 32
SIGNIFICANT = 1e-6  # p-value from which on a text counts as marked
_FORMAT = 1
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # splitmix64 (Steele, Lea, Flood 2014)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_HEAD = 512  # likeliest tokens looked at first, for a top-p below 1


@dataclass(frozen=True, slots=True)
class TextKey:
    """An institution's key for marking what its gateway generates."""

    institution: str
    key: bytes = field(repr=False)

    @property
    def id(self) -> str:
        """Names the key without telling it."""
        return hashlib.sha256(b"privity-text-key|" + self.key).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class TextDetection:
    """What a text says about one key.

    Attributes:
        tokens: of the text.
        tested: tokens whose context of four stands in the text for the first time.
        score: sum over them of -ln(1 - u); Gamma(tested, 1) if the key has nothing to do with it.
        p_value: P(Gamma(tested, 1) >= score), exact.
        log10_p: its logarithm, which does not underflow.
    """

    tokens: int
    tested: int
    score: float
    p_value: float
    log10_p: float

    @property
    def marked(self) -> bool:
        """Whether chance is ruled out at one in a million."""
        return self.log10_p <= log(SIGNIFICANT) / log(10.0)


class Sampler:
    """Draws one answer's tokens, marked. One for each answer; rows of a batch never share one."""

    def __init__(
        self,
        key: bytes,
        *,
        temperature: float,
        top_p: float = 1.0,
        fresh: Callable[[], float] | None = None,
    ) -> None:
        """Start an answer.

        Args:
            key: the institution's 32 bytes.
            temperature: above 0; greedy decoding has no choice to mark.
            top_p: sample among the likeliest tokens that together have this probability.
            fresh: gives uniform numbers in (0, 1); the operating system's if None.

        Raises:
            AuditError: a setting is out of range.
        """
        if len(key) != KEY_BYTES or not temperature > 0.0 or not 0.0 < top_p <= 1.0:
            raise AuditError(
                f"a text mark needs a key of {KEY_BYTES} bytes, a temperature above 0 and a top_p "
                "above 0 and up to 1",
                code="bad-setting",
                exit_code=2,
            )
        self._key, self._temperature, self._top_p = key, temperature, top_p
        self._fresh = fresh or _uniform
        self._seen: set[tuple[int, ...]] = set()
        self.marked = 0
        self.unmarked = 0

    def __call__(self, logits: npt.NDArray[np.float32], generated: Sequence[int]) -> int:
        """The next token.

        Args:
            logits: shape (vocabulary,), before temperature and top-p.
            generated: the answer's tokens so far, without the prompt.
        """
        tokens, logp = candidates(logits, temperature=self._temperature, top_p=self._top_p)
        context = tuple(int(token) for token in generated[-CONTEXT:])
        if len(context) < CONTEXT or context in self._seen:
            self.unmarked += 1
            return _draw(tokens, logp, self._fresh())
        self._seen.add(context)
        self.marked += 1
        u = uniforms(self._key, context, tokens)
        return int(tokens[np.argmax(logp - np.log(-np.log(u)))])


def candidates(
    logits: npt.NDArray[np.float32], *, temperature: float, top_p: float
) -> tuple[npt.NDArray[np.int64], Float64]:
    """The tokens that may be drawn, likeliest first if top_p < 1, and their log-probabilities.

    As in the usual top-p: the smallest set of likeliest tokens whose probability reaches top_p.
    The probabilities are not scaled up to 1 again, which no argmax notices.
    """
    scaled = logits.astype(np.float32, copy=False) * np.float32(1.0 / temperature)
    scaled = scaled - scaled.max()
    weights = np.exp(scaled)
    logp = scaled - np.float32(np.log(weights.sum(dtype=np.float64)))
    if top_p >= 1.0:
        allowed = np.flatnonzero(weights > 0.0)
        return allowed, logp[allowed].astype(np.float64)
    total = float(weights.sum(dtype=np.float64))
    size = min(_HEAD, logits.size)
    while True:
        head = np.argpartition(scaled, logits.size - size)[logits.size - size :]
        head = head[np.lexsort((head, -scaled[head]))]
        reached = np.cumsum(weights[head], dtype=np.float64) / total
        if size == logits.size or reached[-1] >= top_p:
            break
        size = min(8 * size, logits.size)
    count = min(int(np.searchsorted(reached, top_p)) + 1, head.size)
    kept = head[:count].astype(np.int64)
    return kept, logp[kept].astype(np.float64)


def uniforms(key: bytes, context: Sequence[int], tokens: npt.NDArray[np.int64]) -> Float64:
    """Uniform numbers in (0, 1), one a token: HMAC-SHA-256 of the context, then splitmix64."""
    message = b"".join(int(token).to_bytes(4, "little") for token in context)
    digest = hmac.digest(key, b"privity-text-v1|" + message, "sha256")
    seed = int.from_bytes(digest[:8], "little")
    z = np.uint64(seed) + (tokens.astype(np.uint64) + np.uint64(1)) * _GOLDEN
    z = (z ^ (z >> np.uint64(30))) * _FIRST
    z = (z ^ (z >> np.uint64(27))) * _SECOND
    z = z ^ (z >> np.uint64(31))
    u: Float64 = ((z >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
    return u


def detect(tokens: Sequence[int], key: bytes) -> TextDetection:
    """Test a text for one key.

    Args:
        tokens: the text in the tokens of the model that may have written it, without a prompt.
        key: the institution's 32 bytes.

    Guarantees: for a text that is independent of the key, p_value is exactly uniform up to its
        discreteness-free Gamma law: contexts count once, so the terms are independent.
    """
    seen: set[tuple[int, ...]] = set()
    score, tested = 0.0, 0
    for at in range(CONTEXT, len(tokens)):
        context = tuple(int(token) for token in tokens[at - CONTEXT : at])
        if context in seen:
            continue
        seen.add(context)
        u = float(uniforms(key, context, np.array([tokens[at]], dtype=np.int64))[0])
        score -= log1p(-u)
        tested += 1
    log_p = _log_gamma_tail(tested, score)
    return TextDetection(len(tokens), tested, score, exp(log_p), log_p / log(10.0))


def create_key(path: Path, institution: str) -> TextKey:
    """Make an institution's text key, mode 0600; never replaces one.

    Raises:
        AuditError: the file exists or cannot be written.
    """
    key = secrets.token_bytes(KEY_BYTES)
    document = {"format": _FORMAT, "institution": institution, "text_key": key.hex()}
    write_secret(path, json.dumps(document, indent=2).encode() + b"\n")
    return TextKey(institution, key)


def read_key(path: Path) -> TextKey:
    """Read a text key.

    Raises:
        AuditError: it is missing (exit code 2) or not one.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        key = bytes.fromhex(document["text_key"])
        if document["format"] != _FORMAT or len(key) != KEY_BYTES:
            raise ValueError
        return TextKey(str(document["institution"]), key)
    except OSError as error:
        raise unreadable(f"the key file {path}", error) from None
    except (KeyError, TypeError, ValueError):
        raise AuditError(
            f"{path} is not a text key; an institution's is keys/text-mark.json in its folder",
            code="bad-key-file",
        ) from None


def _draw(tokens: npt.NDArray[np.int64], logp: Float64, u: float) -> int:
    weights = np.cumsum(np.exp(logp))
    return int(tokens[min(int(np.searchsorted(weights, u * weights[-1])), tokens.size - 1)])


def _uniform() -> float:
    return (secrets.randbits(53) + 0.5) * 2.0**-53


def _log_gamma_tail(shape: int, x: float) -> float:
    """Logarithm of P(Gamma(shape, 1) >= x), shape whole: a Poisson sum Σ_{k<shape} e⁻ˣ xᵏ / k!."""
    if shape == 0 or x <= 0.0:
        return 0.0
    terms = [k * log(x) - x - lgamma(k + 1.0) for k in range(shape)]
    top = max(terms)
    if top == -inf:
        return -inf
    return min(0.0, top + log(sum(exp(term - top) for term in terms)))
