"""De-identify a stream of texts, one JSON object a line, without an institution's folder."""

from __future__ import annotations

import json
import secrets
import sys
from collections.abc import Iterator
from itertools import islice
from typing import Any, BinaryIO, Literal

from client.errors import ClientError
from privacy.errors import Quarantined

_BATCH = 256


def stream(
    source: str,
    *,
    profile: Literal["clinical", "strict"],
    language: Literal["en", "zh", "auto"],
) -> Iterator[str]:
    """Yield one output line for each input line, in order.

    Args:
        source: a JSONL file of {"text"[, "person"]}, or "-" for standard input.
        profile: which identifiers count.
        language: of the texts.

    Yields:
        {"text", "spans": [{"start", "end", "type"}], "quarantined"}; spans are in code points of
        the input. A quarantined line has null text and its reason; a line that is no such object
        is quarantined as "not-json", "not-utf-8", "no-text" or "bad-person", and the rest goes on.

    Surrogates are consistent within one call and unlinkable between calls: the key is fresh.

    Raises:
        ClientError: the source cannot be opened.
    """
    from privacy.scrub import Scrubber

    tool = Scrubber.load(profile=profile, language=language, secret=secrets.token_bytes(32))
    with _open(source) as lines:  # bytes: a line that is not UTF-8 has a number too
        numbered = enumerate(lines, start=1)
        while batch := [_parse(number, line) for number, line in islice(numbered, _BATCH)]:
            usable = [line for line in batch if not isinstance(line, Quarantined)]
            scrubbed = tool.scrub_many([text for text, _ in usable], [who for _, who in usable])
            for line in batch:
                outcome = line if isinstance(line, Quarantined) else next(scrubbed)
                yield json.dumps(_answer(outcome), ensure_ascii=False)


def _open(source: str) -> BinaryIO:
    if source == "-":
        return sys.stdin.buffer
    try:
        return open(source, "rb")
    except OSError:
        raise ClientError(f"{source} cannot be opened; check the path", code="no-file") from None


def _parse(number: int, line: bytes) -> tuple[str, str] | Quarantined:
    """One line's text and person, or why it is held back."""
    try:
        values = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError:
        return Quarantined("not-utf-8")
    except (ValueError, RecursionError):
        return Quarantined("not-json")
    if not isinstance(values, dict) or not isinstance(values.get("text"), str):
        return Quarantined("no-text")
    person = values.get("person")
    if isinstance(person, bool) or not isinstance(person, str | int | None):
        return Quarantined("bad-person")
    return values["text"], f"line-{number}" if person in (None, "") else str(person)


def _answer(outcome: Any) -> dict[str, Any]:
    if isinstance(outcome, Quarantined):
        return {"text": None, "spans": [], "quarantined": outcome.code}
    return {
        "text": outcome.text,
        "spans": [{"start": s.start, "end": s.end, "type": s.type} for s in outcome.spans],
        "quarantined": False,
    }
