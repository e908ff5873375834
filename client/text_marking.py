"""The institution's mark in what its gateway generates, and the signed record beside an answer.

One key an institution, in its folder with mode 0600, made when it is first needed. Greedy decoding
has no choice that could be marked, and the record says so. The record tells what was marked and by
whom; it holds the answer's digest and nothing of the question.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from audit import canonical, response, text_mark
from audit.errors import AuditError
from audit.signer import Signer
from audit.text_mark import SCHEME, Sampler, TextKey
from client.folder import Folder

KEY_FILE = Path("keys") / "text-mark.json"


class Setting(Protocol):
    """The part of a question that decides whether its answer can be marked."""

    @property
    def temperature(self) -> float: ...  # noqa: D102
    @property
    def top_p(self) -> float: ...  # noqa: D102


@dataclass(slots=True)
class Row:
    """Chooses one answer's tokens. One for each answer: it remembers where the answer begins."""

    _sampler: Sampler = field(repr=False)
    _start: int | None = None

    def __call__(self, logits: Any, tokens: Sequence[int]) -> int:
        """The next token.

        Args:
            logits: shape (vocabulary,), float32, an array or a tensor in main memory.
            tokens: of the conversation and of the answer so far; the first call has none of the
                answer yet.
        """
        if self._start is None:
            self._start = len(tokens)
        array = logits.numpy() if hasattr(logits, "numpy") else logits
        return self._sampler(array, tokens[self._start :])


def key(folder: Folder) -> TextKey:
    """The institution's text key; made the first time.

    Raises:
        AuditError: the file is damaged, is another institution's, or cannot be written.
    """
    path = folder.path / KEY_FILE
    if not path.exists():
        return text_mark.create_key(path, folder.settings.name)
    found = text_mark.read_key(path)
    if found.institution != folder.settings.name:
        raise AuditError(
            f"{path} is the text key of another institution; restore this one's",
            code="bad-key-file",
        )
    return found


def sampling(held: TextKey | None) -> Callable[[Setting], Row | None]:
    """What an engine asks for each question: its own sampler, or None to choose by itself."""

    def of(question: Setting) -> Row | None:
        if held is None or not question.temperature > 0.0:
            return None
        return Row(Sampler(held.key, temperature=question.temperature, top_p=question.top_p))

    return of


def describe(held: TextKey | None, *, temperature: float) -> dict[str, Any]:
    """Say of an answer whether its text is marked, and if not, why."""
    if held is None:
        return {"marked": False, "reason": "this service has no text key"}
    if not temperature > 0.0:
        return {"marked": False, "reason": "temperature 0 leaves no choice to mark"}
    return {"marked": True, "scheme": SCHEME, "key_id": held.id}


@dataclass(frozen=True, slots=True)
class Notary:
    """Signs records of answers for one institution, with keys that were opened once.

    Attributes:
        institution: its name.
        held: its text key; None where nothing is marked.
        signer: its event key.
    """

    institution: str
    held: TextKey | None
    signer: Signer = field(repr=False)

    @classmethod
    def of(cls, folder: Folder, *, mark: bool) -> Notary:
        """The notary of an institution's folder; makes its text key if it is to mark."""
        return cls(folder.settings.name, key(folder) if mark else None, folder.keys().event)


def record(notary: Notary, *, release: str, answer: str, temperature: float) -> dict[str, Any]:
    """The signed record of one answer: a DSSE envelope under the institution's event key.

    Guarantees: of the answer only its SHA-256 is in it, of the question nothing.
    """
    document: dict[str, canonical.JSON] = {
        "format": 1,
        "institution": notary.institution,
        "release": release,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "answer_digest": canonical.digest(answer.encode()),
        "text_mark": describe(notary.held, temperature=temperature),
        "generated_by": "a language model",
    }
    return response.seal(document, notary.signer)
