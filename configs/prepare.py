"""How raw files become training data: `Recipe`, written by the institution; it never leaves it."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from configs.run import Number, Table

Text = Annotated[str, Field(min_length=1, max_length=2000)]
Share = Annotated[Number, Field(ge=0, le=0.9)]


class ChatTable(Table):
    """Whose turns ask, and whose answer."""

    asks: tuple[Text, ...] = ("user", "customer", "patient", "client", "caller", "human")
    answers: tuple[Text, ...] = ("assistant", "agent", "doctor", "nurse", "advisor", "bot")
    history: Annotated[int, Field(ge=0, le=20)] = 0


class ClinicalTable(Table):
    """What of a message or a resource is asked about, and what is the answer."""

    question: Text = "What is the conclusion of this report?"
    hl7_ask: tuple[Text, ...] = ("OBX-5", "NTE-3")
    hl7_answer: tuple[Text, ...] = ("DG1-4",)
    fhir_answer: tuple[Text, ...] = ("conclusion", "summary", "valueString")


class CleanTable(Table):
    """What is taken out of the texts of every record."""

    markup: bool = True
    controls: bool = True
    boilerplate: tuple[Text, ...] = ()
    boilerplate_persons: Annotated[int, Field(ge=3, le=1_000_000)] = 20


class DuplicatesTable(Table):
    """Which records count as the same."""

    exact: bool = True
    near: bool = True
    similarity: Annotated[Number, Field(ge=0.5, le=1)] = 0.8
    words: Annotated[int, Field(ge=1, le=10)] = 3


class LimitsTable(Table):
    """Which records are too short, too long, or in another language."""

    least_characters: Annotated[int, Field(ge=2, le=8000)] = 2
    most_characters: Annotated[int, Field(ge=2, le=8000)] = 8000
    languages: tuple[Literal["en", "zh", "de", "fr", "es", "it", "pt", "nl"], ...] = ()
    most_records: Annotated[int, Field(ge=1, le=100_000)] = 64


class LabelsTable(Table):
    """What a response may be; none is any text."""

    allowed: tuple[Text, ...] = ()


class SplitTable(Table):
    """Shares of the persons that train, validate and test."""

    ratio: Annotated[str, Field(pattern=r"^\d{1,3}:\d{1,3}:\d{1,3}$")] = "8:1:1"
    stratify: bool = True

    @field_validator("ratio")
    @classmethod
    def _some(cls, value: str) -> str:
        if int(value.split(":")[0]) == 0:
            raise ValueError("somebody must train; use a ratio such as 8:1:1")
        return value

    @property
    def shares(self) -> tuple[float, float, float]:
        """The three shares; their sum is 1."""
        parts = [int(part) for part in self.ratio.split(":")]
        return parts[0] / sum(parts), parts[1] / sum(parts), parts[2] / sum(parts)


class ClassTable(Table):
    """How often each record of a class is used."""

    name: Text
    times: Annotated[int, Field(ge=1, le=16)]


class BalanceTable(Table):
    """Classes that are used more than once."""

    classes: tuple[ClassTable, ...] = ()
    measured: bool = False
    most: Annotated[int, Field(ge=1, le=16)] = 4


class AugmentTable(Table):
    """Further wordings of a person's own records, for the same person."""

    copies: Annotated[int, Field(ge=0, le=4)] = 0
    templates: tuple[Text, ...] = ()
    synonyms: tuple[Annotated[tuple[Text, ...], Field(min_length=2)], ...] = ()
    back_translation: Annotated[tuple[Text, ...], Field(max_length=2)] = ()

    @model_validator(mode="after")
    def _usable(self) -> Self:
        if any(template.count("{instruction}") != 1 for template in self.templates):
            raise ValueError("augment.templates: write {instruction} once in each template")
        if len(self.back_translation) == 1:
            raise ValueError(
                "augment.back_translation: name two model folders, there and back, or none"
            )
        if self.copies and not (self.templates or self.synonyms or self.back_translation):
            raise ValueError("augment.copies needs templates, synonyms or back_translation")
        return self


class PublicTable(Table):
    """Public records that are mixed in against forgetting."""

    path: str = ""
    share: Share = 0.1


class OrderTable(Table):
    """In which order the records stand."""

    by: str = "shuffled"

    @field_validator("by")
    @classmethod
    def _independent(cls, value: str) -> str:
        if value not in ("shuffled", "public-first"):
            raise ValueError(
                "use shuffled or public-first; an order by length, loss or difficulty follows from "
                "the records, and would tell about them"
            )
        return value


class ParentTable(Table):
    """What of an earlier set is kept when a new one follows it."""

    keep: Annotated[Number, Field(ge=0, le=1)] = 0.7


class Recipe(Table):
    """prepare.toml."""

    format: Literal[1] = 1
    scope: Literal["person", "all"] = "person"
    chat: ChatTable = ChatTable()
    clinical: ClinicalTable = ClinicalTable()
    clean: CleanTable = CleanTable()
    duplicates: DuplicatesTable = DuplicatesTable()
    limits: LimitsTable = LimitsTable()
    labels: LabelsTable = LabelsTable()
    split: SplitTable = SplitTable()
    balance: BalanceTable = BalanceTable()
    augment: AugmentTable = AugmentTable()
    public: PublicTable = PublicTable()
    order: OrderTable = OrderTable()
    parent: ParentTable = ParentTable()

    @model_validator(mode="after")
    def _alone(self) -> Self:
        if self.scope == "person" and self.balance.measured:
            raise ValueError(
                "balance.measured counts classes over all persons; name them under balance.classes,"
                ' or set scope = "all", which no private training accepts'
            )
        return self
