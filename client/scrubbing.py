"""The site's own scrubber: the built-in one, with the site's lists and further detectors.

A further detector only adds: what it finds is handed to the scrubber as known values, which then
replaces, propagates and verifies them like any other. A list of allowed words, and a medical
detector, only spare whole spans that rest on a guess about a name or a place.
"""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from client import columns, redact
from client.errors import ClientError
from client.redact import Reader, Redacted
from privacy.errors import Quarantined
from privacy.normalise import normalise
from privacy.surrogates import Surrogates

if TYPE_CHECKING:
    from client.folder import Folder

Detector = Callable[[str], Sequence[tuple[int, int, str, float]]]
"""Reads a text and returns what it found: start, end, label, score."""

_GUESSED: Final = frozenset({"PERSON", "ORGANIZATION", "LOCATION", "GROUP"})
_MAX_LISTS: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Further:
    """One further detector.

    Attributes:
        find: reads a text.
        labels: type of `privacy.spans` by the detector's label; others are left out.
        keeps: whether it spares what it finds instead.
        score: the least that counts.
    """

    find: Detector = field(repr=False)
    labels: Mapping[str, str]
    keeps: bool
    score: float


class SiteScrubber:
    """Scrubs texts as the site's settings say, HL7 and JSON inside them by field."""

    def __init__(
        self,
        engine: Any,
        *,
        surrogates: Surrogates,
        strict: bool,
        allowed: Sequence[str] = (),
        further: Sequence[Further] = (),
        digest: str | None = None,
    ) -> None:
        """Keep what it is given; `load` is how a site's is made."""
        self.digest: Final = digest or str(engine.digest)
        self._inner: Reader = (
            _Listed(engine, surrogates, allowed, further) if allowed or further else engine
        )
        self._engine = engine
        self._surrogates, self._strict = surrogates, strict

    def scrub_many(
        self,
        texts: Sequence[str],
        persons: Sequence[str],
        known: Sequence[Mapping[str, str]] | None = None,
    ) -> Iterator[Redacted | Quarantined]:
        """Yield for each text, in order, the scrubbed one or why it is held back.

        Args:
            texts: what to scrub.
            persons: whose each is.
            known: for each what its record's columns say (`client.columns.known`).
        """
        return redact.redact(
            [redact.embedded(text) for text in texts],
            persons,
            tool=self._inner,
            surrogates=self._surrogates,
            strict=self._strict,
            known=known,
        )

    def reasons(self, text: str, person: str, known: Mapping[str, str]) -> list[dict[str, Any]]:
        """Why each span of a plain text was taken: recogniser, type and score; none if unknown."""
        explain = getattr(self._engine, "explain", None)
        if explain is None:
            return []
        try:
            _, found = explain(text, person=person, known=known)
        except Quarantined:
            return []
        return [
            {"start": r.start, "end": r.end, "type": r.type, "score": round(float(r.score), 2),
             "recogniser": str(r.recogniser)}
            for r in found
        ]  # fmt: skip

    def pieces(self, text: str, person: str, outcome: Redacted) -> list[str] | None:
        """What stands in the output for each span; None where that can't be told to the letter."""
        made = _made(text, outcome.spans, self._surrogates, person)
        return made if _joined(text, outcome.spans, made) == outcome.text else None


class _Listed:
    """A reader with further detectors before it and allowed words after it."""

    def __init__(
        self, engine: Any, surrogates: Surrogates, allowed: Sequence[str], more: Sequence[Further]
    ) -> None:
        self._engine, self._surrogates, self._further = engine, surrogates, tuple(more)
        self._allowed = frozenset(word.casefold() for word in allowed)

    def scrub_many(
        self,
        texts: Sequence[str],
        persons: Sequence[str],
        known: Sequence[Mapping[str, str]] | None = None,
    ) -> Iterator[Any]:
        """Yield for each text a scrubbed one or why it is held back."""
        own = [{}] * len(texts) if known is None else known
        read = [self._read(text) for text in texts]
        more = [{**mine, **found} for mine, (found, _, _) in zip(own, read, strict=True)]
        outcomes = redact.many(self._engine, texts, persons, more)
        for text, person, values, (_, spared, fault), outcome in zip(
            texts, persons, own, read, outcomes, strict=True
        ):
            if fault or isinstance(outcome, Quarantined):
                yield Quarantined("detector-failed") if fault else outcome
                continue
            # What the record's own columns name is never spared.
            sure = {value.casefold() for value in values.values()}
            yield self._spare(text, person, outcome, (self._allowed | spared) - sure)

    def _read(self, text: str) -> tuple[dict[str, str], frozenset[str], bool]:
        """What the detectors found to be known, what to spare, and whether one of them failed."""
        found: dict[str, str] = {}
        spared: set[str] = set()
        for number, detector in enumerate(self._further):
            try:
                hits = list(detector.find(text))
            except Exception:
                return {}, frozenset(), True
            for start, end, label, score in hits:
                if not score >= detector.score or not 0 <= start < end <= len(text):
                    continue
                if detector.keeps:
                    spared.add(text[start:end].strip().casefold())
                elif (kind := detector.labels.get(label)) in columns.SAID:
                    found[f"{columns.SAID[kind]} {number}-{start}"] = text[start:end]
        return found, frozenset(spared), False

    def _spare(self, text: str, person: str, outcome: Any, words: frozenset[str]) -> Any:
        """Put allowed words back, if the rest of the output can be rebuilt to the letter."""
        keep = [
            span.type in _GUESSED and text[span.start : span.end].casefold() in words
            for span in outcome.spans
        ]
        if not any(keep):
            return outcome
        made = _made(text, outcome.spans, self._surrogates, person)
        if _joined(text, outcome.spans, made) != outcome.text:
            return outcome
        old = [text[span.start : span.end] for span in outcome.spans]
        mixed = [was if kept else new for was, new, kept in zip(old, made, keep, strict=True)]
        left = tuple(span for span, kept in zip(outcome.spans, keep, strict=True) if not kept)
        return dataclasses.replace(outcome, text=_joined(text, outcome.spans, mixed), spans=left)


def _made(text: str, spans: Sequence[Any], surrogates: Surrogates, person: str) -> list[str]:
    alias = surrogates.of(person)
    return [alias.replace(s.type, normalise(text[s.start : s.end]).text) for s in spans]


def _joined(text: str, spans: Sequence[Any], values: Sequence[str]) -> str:
    out, at = list[str](), 0
    for span, value in zip(spans, values, strict=True):
        out += (text[at : span.start], value)
        at = span.end
    return "".join((*out, text[at:]))


def load(folder: Folder) -> SiteScrubber:
    """The scrubber that a site's settings ask for, keyed by the site's secret.

    Raises:
        ClientError: the lists cannot be read. ModelError: a detector's files are not the pinned
            ones. ScrubberError: a built-in model's are not.
    """
    from privacy.scrub import Scrubber

    settings, secret = folder.settings, folder.pseudonym_secret()
    more: dict[str, Any] = {}
    allowed: tuple[str, ...] = ()
    parts: list[Any] = []
    if settings.scrub.lists:
        path = folder.path / settings.scrub.lists
        allowed, lists_digest = read_allowed(path)
        more["recognizers_yaml"] = path
        parts.append(lists_digest)
    engine = Scrubber.load(
        profile=settings.data.profile, language=settings.data.language, secret=secret, **more
    )
    further = []
    if settings.scrub.models:
        from model import detectors

        for table in settings.scrub.models:
            path = folder.path / table.path
            found = detectors.load(path, use=table.use, digest=table.digest, labels=table.labels)
            keeps = table.use == "medical"
            labels = detectors.types(found.labels, table.labels)
            further.append(Further(found.find, labels, keeps, table.score))
            parts.append([table.digest, table.use, sorted(labels.items()), str(table.score)])
    digest = str(engine.digest)
    if parts:
        packed = json.dumps([digest, parts], separators=(",", ":")).encode()
        # Lists hold words of records: whoever sees the log must not test guesses by the digest.
        digest = f"sha256:{hmac.new(secret, packed, hashlib.sha256).hexdigest()}"
    return SiteScrubber(
        engine,
        surrogates=Surrogates(secret),
        strict=settings.data.profile == "strict",
        allowed=allowed,
        further=further,
        digest=digest,
    )


def read_allowed(path: Path) -> tuple[tuple[str, ...], str]:
    """The allowed words of a file of lists, and the file's digest.

    Raises:
        ClientError: it cannot be read as lists.
    """
    import yaml

    try:
        raw = path.read_bytes()
        values: Any = yaml.safe_load(raw) if len(raw) <= _MAX_LISTS else None
        words = values.get("allow_list", [])
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            raise ValueError
    except (OSError, ValueError, AttributeError, yaml.YAMLError):
        raise ClientError(
            f"{path} cannot be read as lists of recognisers; export them again with privity "
            "client review, or take it out of site.toml",
            code="bad-lists",
        ) from None
    return tuple(words), f"sha256:{hashlib.sha256(raw).hexdigest()}"
