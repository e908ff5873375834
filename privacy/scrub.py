"""Take the identifiers out of a text and put fictitious ones in, or hold the text back.

`text -> detection copy -> hits -> disjoint spans -> surrogates -> verification of the output`. The
door to Presidio and spaCy, with `privacy.recognizers` and `privacy.scrub_models`. Every doubt ends
in `Quarantined`: a recogniser that fails or takes too long, a text that is too long or in a script
that nobody here can read, an identifier that is still there afterwards. No error quotes a text.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import itertools
import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from privacy import known as columns
from privacy import naming, recognizers, together, vocabulary
from privacy.errors import Quarantined
from privacy.lac import ModelFault
from privacy.normalise import Normalised, known_script_share, normalise
from privacy.recognizers import Profile
from privacy.scrub_models import BATCH, Artifacts, Engine, Language
from privacy.spans import Hit, Span, resolve
from privacy.surrogates import Surrogates, count_han

VERSION: Final = 3
"""Version of what this module does: its order, its policy, its verification."""
_SOURCES: Final = (
    "checksums", "dates", "known", "lac", "lean", "medical", "names", "naming", "naming_zh",
    "normalise", "patterns", "patterns_dates", "patterns_numbers", "patterns_places",
    "patterns_row", "recognizers", "scrub_models", "search", "spans", "structured", "surrogates",
    "together", "unknown", "vocabulary",
)  # fmt: skip
MAX_CHARACTERS: Final = 20_000
MIN_KNOWN_SCRIPT: Final = 0.5
_SEPARATORS: Final = re.compile(r"(?<=\d)[\s().\-/]+(?=\d)")
_Row = tuple[str, str, Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class Scrubbed:
    """A text without the identifiers that were found in it.

    Attributes:
        text: the text with fictitious values.
        spans: where identifiers stood, in code points of the input, disjoint and in order.
    """

    text: str = field(repr=False)
    spans: tuple[Span, ...]

    @property
    def counts(self) -> dict[str, int]:
        """How many spans there are of each type."""
        return dict(Counter(span.type for span in self.spans))


@dataclass(frozen=True, slots=True)
class _Prepared:
    text: str = field(repr=False)
    copy: Normalised = field(repr=False)
    person: str = field(repr=False)
    known: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a span was taken: one hit of one recogniser, in code points of the input."""

    start: int
    end: int
    type: str
    score: float
    recogniser: str


class Scrubber:
    """Recognisers, a language model, and the institution's surrogates, ready to use."""

    def __init__(
        self,
        *,
        profile: Profile,
        language: Language,
        surrogates: Surrogates,
        engine: Engine,
        more: Sequence[Any] = (),
    ) -> None:
        """Use `Scrubber.load`; this only keeps what it is given."""
        self.profile: Final = profile
        self.language: Final = language
        self._surrogates = surrogates
        self._recognizers = (*recognizers.build(profile), *more)
        self._engine = engine
        self.digest: Final = _digest(profile, language, self._recognizers, engine)

    @classmethod
    def load(
        cls,
        *,
        profile: Profile = "clinical",
        language: Language = "auto",
        secret: bytes,
        recognizers_yaml: Path | None = None,
        more: Sequence[Any] = (),
    ) -> Scrubber:
        """Prepare a scrubber; the language models are opened when the first text needs them.

        Args:
            profile: "clinical" keeps years, ages under ninety, spans of time, doses, and medical
                words; "strict" keeps none of these where they could tell on someone.
            language: "en" or "zh" for the one language model, or "auto", which decides text by
                text.
            secret: the institution's, at least 16 random bytes; surrogates hang on it.
            recognizers_yaml: the site's own recognisers, in Presidio's YAML form.
            more: further Presidio recognisers, such as those of `privacy.scrub_optional`.

        Raises:
            ModelFault: a model is missing, or its files are not the ones that we pin.
            ValueError: an unknown profile or language, or a secret that is too short.
            PlanInvalid: the YAML file is not readable as recognisers.
        """
        if profile not in {"clinical", "strict"} or language not in {"en", "zh", "auto"}:
            raise ValueError("profile is clinical or strict; language is en, zh, or auto")
        own = () if recognizers_yaml is None else recognizers.from_yaml(recognizers_yaml)
        return cls(
            profile=profile,
            language=language,
            surrogates=Surrogates(secret),
            engine=Engine(language),
            more=(*own, *more),
        )

    def scrub(self, text: str, *, person: str, known: Mapping[str, str] | None = None) -> Scrubbed:
        """Return `text` with fictitious values in place of what identifies someone.

        Args:
            text: at most `MAX_CHARACTERS` code points.
            person: whose text it is; the same person gets the same fictitious values.
            known: the record's own columns, name -> value; names and numbers among them are looked
                for in the text, with slips of the pen (`privacy.known`).

        Guarantees: no surface that was found, of four or more letters and digits or two or more
            Chinese characters, is left in the output; the same inputs and secret give the same
            output on any machine. What no recogniser finds stays: this is de-identification, and a
            sample of its output needs a human reader.

        Raises:
            Quarantined: too-long, unsupported-script, not-text, timeout, detector-failed, verify.
        """
        outcome = next(self.scrub_many([text], [person], None if known is None else [known]))
        if isinstance(outcome, Quarantined):
            raise outcome
        return outcome

    def scrub_many(
        self,
        texts: Iterable[str],
        persons: Iterable[str],
        known: Sequence[Mapping[str, str]] | None = None,
    ) -> Iterator[Scrubbed | Quarantined]:
        """Yield for each text, in order, what `scrub` returns or the `Quarantined` it raises.

        Texts are taken in batches of at most `BATCH`, which is what makes the language model fast.
        A name found in one text of a batch is looked for in the same person's other texts of that
        batch. Texts of a person that follow each other are cut as `together.batches` does, so give
        each person's in one piece where nobody's output may depend on anybody else.

        Args:
            texts: what to scrub.
            persons: whose each text is.
            known: for each text the record's own columns, as many as there are texts.
        """
        none: Mapping[str, str] = {}
        beside = itertools.repeat(none) if known is None else iter(known)
        rows = _rows(zip(texts, persons, strict=True), beside)
        for batch in together.batches(rows, person=lambda row: row[1], most=BATCH):
            for outcome, _ in self._batch(batch):
                yield outcome

    def explain(
        self, text: str, *, person: str, known: Mapping[str, str] | None = None
    ) -> tuple[Scrubbed, tuple[Reason, ...]]:
        """Return what `scrub` returns and every hit behind its spans, in text order.

        Raises:
            Quarantined: as `scrub` does.
        """
        outcome, hits = next(self._batch([(text, person, known or {})]))
        if isinstance(outcome, Quarantined):
            raise outcome
        copy = normalise(text)
        reasons = [
            Reason(*copy.source(hit.start, hit.end), hit.type, hit.score, hit.source)
            for hit in sorted(hits, key=lambda hit: (hit.start, hit.end))
        ]
        return outcome, tuple(reasons)

    def _batch(
        self, batch: Sequence[_Row]
    ) -> Iterator[tuple[Scrubbed | Quarantined, Sequence[Hit]]]:
        ready = [_guard(functools.partial(_prepare, *row)) for row in batch]
        read = self._read(ready)
        found = [self._found(*both) for both in zip(ready, read, strict=True)]
        keep = self.profile == "clinical"
        own = [
            {} if isinstance(hits, Quarantined) else naming.known_names(item.copy.text, hits, keep)
            for item, hits in zip(ready, found, strict=True)
        ]
        shared: defaultdict[str, dict[str, str]] = defaultdict(dict)
        for item, surfaces in zip(ready, own, strict=True):
            people = {value: kind for value, kind in surfaces.items() if kind == "PERSON"}
            if people:
                shared[item.person] |= people
        for item, hits, surfaces in zip(ready, found, own, strict=True):
            if isinstance(hits, Quarantined):
                yield hits, ()
                continue
            known = {**shared.get(item.person, {}), **surfaces}
            outcome = _guard(functools.partial(self._finish, item, hits, known))
            yield (outcome, ()) if isinstance(outcome, Quarantined) else outcome

    def _read(self, ready: Sequence[_Prepared | Quarantined]) -> list[Artifacts | Quarantined]:
        """Run the language models over the texts; in one batch, or one by one if that fails."""
        texts = [item.copy.text if isinstance(item, _Prepared) else "" for item in ready]
        together = _guard(functools.partial(self._engine.read, texts))
        if not isinstance(together, Quarantined):
            return list(together)
        # One bad text must not take its neighbours along: find out which it is.
        alone = [_guard(functools.partial(self._engine.read, [text])) for text in texts]
        return [one if isinstance(one, Quarantined) else one[0] for one in alone]

    def _found(
        self, item: _Prepared | Quarantined, read: Artifacts | Quarantined
    ) -> list[Hit] | Quarantined:
        if isinstance(item, Quarantined):
            return item
        if isinstance(read, Quarantined):
            return read
        outcome: list[Hit] | Quarantined = _guard(functools.partial(self._find, item, read))
        return outcome

    def _find(self, item: _Prepared, artifacts: Artifacts) -> list[Hit]:
        hits = list(recognizers.find(self._recognizers, item.copy.text, artifacts))
        if item.known:
            hits += columns.find(item.copy.text, item.known)
        return hits

    def _finish(
        self, item: _Prepared, hits: Sequence[Hit], known: Mapping[str, str]
    ) -> tuple[Scrubbed, Sequence[Hit]]:
        copy = item.copy
        hits = [*hits, *naming.repeats(copy.text, known)]
        alias = self._surrogates.of(item.person)
        out: list[str] = []
        spans: list[Span] = []
        surfaces: list[str] = []
        at = 0
        for span in resolve(hits):
            start, end = copy.source(span.start, span.end)
            surface = copy.text[span.start : span.end]
            # Two spans of the copy can come from one character, such as a ligature.
            start = max(start, at)
            out += (item.text[at:start], alias.replace(span.type, surface) if start < end else "")
            surfaces.append(surface)
            if start < end:
                spans.append(Span(start, end, span.type))
            at = max(at, end)
        out.append(item.text[at:])
        scrubbed = Scrubbed("".join(out), tuple(spans))
        _check_gone(surfaces, scrubbed.text)
        return scrubbed, hits


def _rows(pairs: Iterable[tuple[str, str]], known: Iterator[Mapping[str, str]]) -> Iterator[_Row]:
    for text, person in pairs:
        columns = next(known, None)
        if columns is None:
            raise ValueError("the known columns must be as many as the texts")
        yield text, person, columns


def _guard(step: Callable[[], Any]) -> Any:
    """Run one step; whatever goes wrong becomes a fixed code, without the text in it."""
    try:
        return step()
    except Quarantined as held:
        return Quarantined(held.code)
    except ModelFault:
        raise
    except TimeoutError:
        return Quarantined("timeout")
    except Exception:
        return Quarantined("detector-failed")


def _prepare(text: str, person: str, known: Mapping[str, str]) -> _Prepared:
    values = [*known.keys(), *known.values()]
    if not all(isinstance(value, str) for value in (text, person, *values)):
        raise Quarantined("not-text")
    if not len(text) <= MAX_CHARACTERS:
        raise Quarantined("too-long")
    if "\ufffd" in text or any("\ud800" <= c <= "\udfff" for c in text):
        raise Quarantined("not-text")
    if not known_script_share(text) >= MIN_KNOWN_SCRIPT:
        raise Quarantined("unsupported-script")
    return _Prepared(text, normalise(text), person, known)


def _check_gone(surfaces: Iterable[str], output: str) -> None:
    """Raise unless every surface that was found is gone from the output."""
    plain = normalise(output).text
    folded, joined = naming.fold(plain), _SEPARATORS.sub("", plain)
    for surface in surfaces:
        digits = "".join(c for c in surface if c.isdigit())
        if len(digits) >= 6 and digits in joined:
            raise Quarantined("verify")
        if sum(c.isalnum() for c in surface) < 4 and count_han(surface) < 2:
            continue
        if next(naming.mentions(plain, folded, surface), None) is not None:
            raise Quarantined("verify")


def _digest(profile: Profile, language: Language, found_by: Sequence[Any], engine: Engine) -> str:
    """Digest everything that decides what is found and kept."""
    sources = hashlib.sha256()
    for name in (*(f"{name}.py" for name in _SOURCES), *vocabulary.FILES):
        sources.update(Path(__file__).with_name(name).read_bytes())
    described = {
        "version": VERSION,
        "profile": profile,
        "language": language,
        "recognizers": recognizers.describe(found_by),
        "sources": sources.hexdigest(),
        "models": engine.digests,
        "presidio": importlib.metadata.version("presidio-analyzer"),
        "spacy": importlib.metadata.version("spacy"),
    }
    packed = json.dumps(described, sort_keys=True, separators=(",", ":")).encode()
    return f"sha256:{hashlib.sha256(packed).hexdigest()}"
