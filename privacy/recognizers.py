"""Presidio recognisers: our patterns, our name rules, its telephone numbers, and a language model.

Presidio's own pattern recogniser skips a pattern that takes too long, and drops a match whose
checksum fails. Both would let an identifier out, so ours raises in the first case and keeps the
match in the second. None of the recognisers opens a socket: Presidio's own e-mail recogniser is not
used, because it asks the network for the list of top-level domains.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final, Literal

import regex

from privacy import (
    lean,
    medical,
    naming,
    naming_zh,
    normalise,
    patterns,
    search,
    structured,
    unknown,
)
from privacy.errors import PlanInvalid
from privacy.spans import TYPES, Hit

with lean.imports():
    from presidio_analyzer import (
        AnalysisExplanation,
        EntityRecognizer,
        Pattern,
        PatternRecognizer,
        RecognizerRegistry,
        RecognizerResult,
    )
    from presidio_analyzer.predefined_recognizers import PhoneRecognizer

Profile = Literal["clinical", "strict"]
PHONE_REGIONS: Final = ("US", "GB", "CN")

# OntoNotes labels of the English model; what is not listed stays.
_CLINICAL: Final = {"PERSON": "PERSON", "GPE": "LOCATION", "LOC": "LOCATION", "FAC": "ORGANIZATION"}
_STRICT: Final = _CLINICAL | {"ORG": "ORGANIZATION", "NORP": "GROUP", "DATE": "DATE_TIME"}
_AT: Final = regex.compile(r"(?:\b(?:at|from|by|to|in|with|near|visited|through)(?: the)?|@) $")
_LATIN: Final = regex.compile(r"\p{Latin}[\p{Latin}'’ .-]*")
_DIGIT: Final = regex.compile(r"[0-9]")
_DIGITS: Final = regex.compile(r"(?:[0-9][ ().\-/]{0,3}){7}")
# Words that the model takes along with what they stand before.
_LEADS: Final = regex.compile(
    r"(?:the|hi|hello|hey|dear|mr|mrs|ms|dr|prof|miss|ssn|iban|mrn|id|dob|name|tel|re)\b[.:]?\s+",
    regex.IGNORECASE,
)
# A date of the model's that tells when, not for how long.
_WHEN: Final = regex.compile(
    r"\b(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec|mon|tue|wed|thu|fri|sat|sun|"
    r"(?:18|19|20)\d\d|\d{1,2}[/.-]\d|last|next|past|this|yesterday|today|tonight|tomorrow|ago|"
    r"since|spring|summer|autumn|fall|winter|christmas|easter|thanksgiving|new year|ramadan|eid|"
    r"diwali|hanukkah)",
    regex.IGNORECASE,
)
_LABELS: Final = frozenset(
    ("ssn", "iban", "mrn", "dob", "id", "ids", "url", "pin", "ip", "tv", "pt", "bot", "user")
)
_EDGES: Final = " •\t\r\n.,;:!?()[]{}\"'’-–#*/"


class Numbers(PatternRecognizer):
    """All patterns of one type, run with a time limit that raises."""

    def __init__(
        self, kind: str, rows: Iterable[patterns.Pattern], *, name: str | None = None
    ) -> None:
        self.rows = tuple(rows)
        super().__init__(
            supported_entity=kind,
            name=name or f"Privity{kind.title().replace('_', '')}",
            patterns=[Pattern(row.name, row.regex, row.score) for row in self.rows],
            global_regex_flags=patterns.FLAGS,
        )
        self._compiled = tuple(regex.compile(row.regex, patterns.FLAGS) for row in self.rows)

    def analyze(
        self,
        text: str,
        entities: list[str],
        nlp_artifacts: Any = None,
        regex_flags: int | None = None,
    ) -> list[RecognizerResult]:
        """Return every match; a checksum that holds makes it certain, one that fails changes none.

        Raises:
            TimeoutError: a pattern took longer than `privacy.search` allows.
        """
        found = []
        digits, han = _DIGIT.search(text) is not None, normalise.has_han(text)
        for row, compiled in zip(self.rows, self._compiled, strict=True):
            if (row.needs == "digit" and not digits) or (row.needs == "han" and not han):
                continue
            for match in search.matches(compiled, text):
                start, end = match.span("v" if "v" in compiled.groupindex else 0)
                certain = row.check is not None and row.check(match.group())
                score = 1.0 if certain else row.score
                found.append(_result(self, start, end, score, pattern=row))
        return found


class Rules(EntityRecognizer):
    """Names by their company, English and Chinese (`privacy.naming`)."""

    def __init__(self, profile: Profile) -> None:
        self.strict = profile == "strict"
        super().__init__(supported_entities=sorted(TYPES), name="PrivityNameRules")

    def load(self) -> None:
        """Do nothing: rules need no loading."""

    def analyze(
        self, text: str, entities: list[str], nlp_artifacts: Any = None
    ) -> list[RecognizerResult]:
        """Return names and institutions found by rule."""
        hits = [*naming.english(text, strict=self.strict), *naming.places(text)]
        hits += structured.find(text)
        if normalise.has_han(text):
            hits += naming_zh.find(text)
        if self.strict:
            hits += unknown.find(text)
        return [_result(self, hit.start, hit.end, hit.score, hit.type) for hit in hits]


class Telephones(PhoneRecognizer):
    """Presidio's telephone numbers, asked only where there are digits enough for one."""

    def __init__(self) -> None:
        super().__init__(name="PrivityTelephones", supported_regions=PHONE_REGIONS)

    def analyze(
        self, text: str, entities: list[str], nlp_artifacts: Any = None
    ) -> list[RecognizerResult]:
        """Return telephone numbers of the regions in `PHONE_REGIONS`."""
        if _DIGITS.search(text) is None:
            return []
        return super().analyze(text, entities, nlp_artifacts)


class Model(EntityRecognizer):
    """What the language model took for people, places, and institutions, filtered by profile."""

    def __init__(self, profile: Profile) -> None:
        self.strict = profile == "strict"
        self.labels = _STRICT if self.strict else _CLINICAL
        super().__init__(
            supported_entities=sorted(set(_STRICT.values())), name="PrivityLanguageModel"
        )

    def load(self) -> None:
        """Do nothing: the model is loaded once, by the scrubber."""

    def analyze(
        self, text: str, entities: list[str], nlp_artifacts: Any = None
    ) -> list[RecognizerResult]:
        """Return the entities of `nlp_artifacts`; without them there is nothing to return."""
        if nlp_artifacts is None:
            return []
        words = getattr(nlp_artifacts, "words", ())
        found = [
            _result(self, hit.start, hit.end, hit.score, hit.type)
            for hit in naming_zh.read(text, words, strict=self.strict)
        ]
        for entity in nlp_artifacts.entities:
            kind = self.labels.get(entity.label_)
            start, end = _latin(text, entity.start_char, entity.end_char)
            start, end = _trim(text, *_line(text, start, end))
            surface = text[start:end]
            if entity.label_ == "ORG" and kind is None and _named_place(text, start, end):
                kind = "ORGANIZATION"
            if kind == "DATE_TIME" and _WHEN.search(surface) is None:
                continue
            if kind is None or not self._likely(surface, text[end : end + 20], kind):
                continue
            found.append(_result(self, start, end, 0.5, kind))
        return found

    def _likely(self, surface: str, following: str, kind: str) -> bool:
        if sum(character.isalpha() for character in surface) < 2:
            return self.strict and kind == "DATE_TIME"
        if self.strict:
            return surface.casefold() not in _LABELS
        # A name is capitalised, is no shouted abbreviation, and holds no digits.
        if not any(character.isupper() for character in surface):
            return False
        if any(character.isdigit() for character in surface) or (
            surface.isupper() and len(surface) <= 5
        ):
            return False
        return not (medical.is_medical(surface, following) or medical.is_term(surface))


def build(profile: Profile) -> tuple[EntityRecognizer, ...]:
    """Return every recogniser of a profile, in a fixed order."""
    rows = [row for row in patterns.PATTERNS if row.profile == "clinical" or profile == "strict"]
    kinds = dict.fromkeys(row.type for row in rows)
    numbers = [Numbers(kind, (row for row in rows if row.type == kind)) for kind in kinds]
    return (*numbers, Telephones(), Rules(profile), Model(profile))


def find(recognizers: Iterable[EntityRecognizer], text: str, artifacts: Any) -> Iterator[Hit]:
    """Yield what each recogniser finds in one text; whatever one of them raises goes on up."""
    for recognizer in recognizers:
        for result in recognizer.analyze(text, recognizer.supported_entities, artifacts):
            if result.start < result.end:
                yield Hit(
                    result.start, result.end, result.entity_type, result.score, _source(result)
                )


def describe(recognizers: Iterable[EntityRecognizer]) -> list[dict[str, Any]]:
    """Return the recognisers' configuration as plain values, for a digest."""
    described = []
    for recognizer in recognizers:
        rows = [
            [row.name, row.regex, str(row.score), _check_name(row.check)]
            for row in getattr(recognizer, "rows", ())
        ]
        kinds = sorted(recognizer.supported_entities)
        described.append({"name": recognizer.name, "types": kinds, "patterns": rows})
    return described


def _check_name(check: Callable[[str], bool] | None) -> str:
    return "" if check is None else check.__name__


def from_yaml(path: Path) -> tuple[EntityRecognizer, ...]:
    """Read a site's own recognisers from a file in Presidio's YAML form.

    Patterns and deny-lists are run by `Numbers`, so that one which takes too long holds the text
    back instead of being skipped. A country's recogniser can be named by its Presidio class.

    Raises:
        PlanInvalid: the file cannot be read, or is not what Presidio takes.
    """
    registry = RecognizerRegistry()
    try:
        registry.add_recognizers_from_yaml(path)
        return tuple(_closed(recognizer) for recognizer in registry.recognizers)
    except Exception:
        raise PlanInvalid(
            f"{path} cannot be read as Presidio recognisers; compare it with "
            "docs/deidentification.md"
        ) from None


def _closed(recognizer: EntityRecognizer) -> EntityRecognizer:
    """Return a recogniser that does what a plain pattern recogniser does, and fails closed."""
    if type(recognizer) is not PatternRecognizer:
        return recognizer
    kind = recognizer.supported_entities[0]
    rows = [
        patterns.Pattern(kind, pattern.name, pattern.regex, pattern.score, needs="")
        for pattern in recognizer.patterns
    ]
    return Numbers(kind, rows, name=recognizer.name)


def registry(profile: Profile) -> RecognizerRegistry:
    """Return our recognisers as a Presidio registry, for its `AnalyzerEngine` and what uses it."""
    found = RecognizerRegistry(supported_languages=["en"])
    for recognizer in build(profile):
        found.add_recognizer(recognizer)
    return found


def _result(
    recognizer: EntityRecognizer,
    start: int,
    end: int,
    score: float,
    kind: str | None = None,
    pattern: patterns.Pattern | None = None,
) -> RecognizerResult:
    why = AnalysisExplanation(recognizer.name, score)
    if pattern is not None:
        why.pattern_name, why.pattern = pattern.name, pattern.regex
    return RecognizerResult(kind or recognizer.supported_entities[0], start, end, score, why)


def _source(result: RecognizerResult) -> str:
    why = result.analysis_explanation
    if why is None:
        return ""
    return f"{why.recognizer}/{why.pattern_name}" if why.pattern_name else str(why.recognizer)


def _latin(text: str, start: int, end: int) -> tuple[int, int]:
    """Cut a span to its Latin words: an English model only guesses at the Chinese around them."""
    if not normalise.has_han(text[start:end]):
        return start, end
    match = _LATIN.search(text, start, end)
    return match.span() if match else (start, start)


def _line(text: str, start: int, end: int) -> tuple[int, int]:
    """Cut a span to its first line that has letters: a name does not go over a heading."""
    while start < end and not text[start].isalnum():
        start += 1
    broken = text.find("\n", start, end)
    return start, end if broken < 0 else broken


def _trim(text: str, start: int, end: int) -> tuple[int, int]:
    """Cut titles, possessives, and punctuation off the ends of what the model marked."""
    while start < end and text[start] in _EDGES:
        start += 1
    if end - start > 2 and text[end - 2 : end] in {"'s", "’s"}:
        end -= 2
    # The full stop of an initial belongs to the name.
    while start < end and text[end - 1] in _EDGES:
        if text[end - 1] == "." and end - start > 2 and text[end - 3] == " ":
            break
        end -= 1
    while (lead := _LEADS.match(text, start, end)) is not None and lead.end() < end:
        start = lead.end()
    return start, end


def _named_place(text: str, start: int, end: int) -> bool:
    """Say whether an institution by the model stands where a place would: "seen at ..."."""
    surface = text[start:end]
    words = surface.split()
    capitals = all(word[:1].isupper() for word in words if len(word) > 3)
    return (
        capitals
        and not surface.isupper()
        and _AT.search(text[max(0, start - 16) : start]) is not None
    )
