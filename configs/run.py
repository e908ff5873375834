"""What the coordinator proposes: `Run`, as written in TOML, and `Plan`, as sent to the sites.

A run names the wish (ε at most 2); a plan names the consequence (σ, q, T, C, δ and the adapter's
frozen half) and is fixed before round 1. Sites see the plan and nothing else; its digest is in
every signed statement of the run.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    model_validator,
)

from configs import offered

FORMAT: Final = 1
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9_-]|\.(?!\.)){0,62}")  # what audit.keys takes, too
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def decimal(value: float) -> str:
    """A finite float as a plain decimal string, exact to its shortest repr.

    >>> decimal(1e-05), decimal(2.0)
    ('0.00001', '2')
    """
    text = format(Decimal(repr(float(value))), "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def is_name(value: str) -> bool:
    """Whether `value` may name a run or an institution."""
    return _NAME.fullmatch(value) is not None


def _name(value: str) -> str:
    if not is_name(value):
        raise ValueError(
            "use 1 to 63 of a-z 0-9 _ - and single dots, and start with a letter or digit"
        )
    return value


def _digest(value: str) -> str:
    if not _DIGEST.fullmatch(value):
        raise ValueError("expected sha256: and 64 hexadecimal digits")
    return value


Name = Annotated[str, AfterValidator(_name)]
Digest = Annotated[str, AfterValidator(_digest)]
# Numbers that matter travel as decimal strings, so that no JSON reader can round them.
Number = Annotated[
    float,
    Field(allow_inf_nan=False),
    PlainSerializer(decimal, return_type=str, when_used="json"),
]
Positive = Annotated[Number, Field(gt=0)]
Share = Annotated[Number, Field(gt=0, le=1)]
# Bounded, so that noise of its size is finite in float32.
ClipNorm = Annotated[Number, Field(gt=0, le=1e6)]

# flat: gradients over the clip norm are cut to it; auto: all are scaled towards it (AUTO-S).
Clipping = Literal["flat", "auto"]
# Most notes that a person brings into one step.
NotesPerPerson = Annotated[int, Field(ge=1, le=16)]


class Table(BaseModel):
    """A frozen table that refuses unknown keys and never quotes the values it was given."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", hide_input_in_errors=True, allow_inf_nan=False
    )


class ModelTable(Table):
    """The frozen base model: a name of `privity model list` and, if pinned, its digest."""

    name: str = "smollm2-135m-instruct"
    digest: Digest | None = None


class AdapterTable(Table):
    """Which small part of the model is trained.

    "ffa-lora": A frozen, orthonormal, from a public seed; B trained (Sun et al., 2024).
    "lora-xs": A and L frozen, both from the seed; the square R between them trained.
    "lora": A and B trained, at one institution.
    """

    method: Annotated[Literal["ffa-lora", "lora-xs", "lora"], BeforeValidator(offered.method)] = (
        "ffa-lora"
    )
    rank: Annotated[int, Field(ge=1, le=256)] = 8
    alpha: Annotated[int, Field(ge=1, le=1024)] = 16
    targets: tuple[str, ...] = ()
    seed: Annotated[str, Field(min_length=1, max_length=200)] = "privity/ffa-lora/1"


class PrivacyTable(Table):
    """What the whole run may cost one person at one institution."""

    epsilon: Annotated[Positive, Field(le=10)] = 2.0
    delta: Annotated[Positive, Field(lt=0.001)] = 1e-5
    clip_norm: ClipNorm = 1.0
    clipping: Clipping = "flat"
    notes_per_person: NotesPerPerson = 1
    sample_rate: Share = 0.1
    rounds: Annotated[int, Field(ge=1, le=1000)] = 5
    steps_per_round: Annotated[int, Field(ge=1, le=10_000)] = 4


class TrainingTable(Table):
    """What is learnt and how the noised gradient is used; chosen on synthetic or public data.

    `objective = "response"` learns the words of any response; "label" learns the choice among
    `task.labels`, all else left out: with noise, far more is learnt about far less; "preference"
    learns which of two answers is better (DPO with `beta`, against the base model). The schedule
    runs over all rounds, and like weight decay looks at no record.
    """

    objective: Annotated[
        Literal["response", "label", "preference"], BeforeValidator(offered.method)
    ] = "response"
    thoughts: Literal["drop", "learn"] = "drop"
    beta: Annotated[Positive, Field(le=10)] = 0.1
    optimizer: Literal["adamw", "sgd"] = "adamw"
    learning_rate: Positive = 3e-3
    schedule: Literal["constant", "cosine", "linear"] = "constant"
    warmup_steps: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    rate_floor: Annotated[Number, Field(ge=0, le=1)] = 0.0
    weight_decay: Annotated[Number, Field(ge=0, le=100)] = 0.0
    label_smoothing: Annotated[Number, Field(ge=0, le=0.5)] = 0.0
    max_tokens: Annotated[int, Field(ge=16, le=8192)] = 128

    @model_validator(mode="before")
    @classmethod
    def _offered(cls, values: Any) -> Any:
        return offered.keys(values)


class FederationTable(Table):
    """Who is invited, how many must take part, and how long a round may last."""

    institutions: Annotated[tuple[Name, ...], Field(min_length=1, max_length=1000)]
    quorum: Annotated[int, Field(ge=1)] = 1
    round_timeout_s: Annotated[Positive, Field(le=86_400)] = 900.0
    join_timeout_s: Annotated[Positive, Field(le=86_400)] = 300.0


class AggregationTable(Table):
    """How a round's updates become one; everything but "mean" pays noise for robustness.

    Attributes:
        method: the rule.
        faulty: how many sites may lie; what trimmed-mean leaves out at each end, and Krum's f.
        max_update_norm: largest joint l2 norm of an update; 0: the most that the plan's steps can
            move an honest one.
    """

    method: Literal["mean", "trimmed-mean", "median", "krum"] = "mean"
    faulty: Annotated[int, Field(ge=0, le=499)] = 0
    max_update_norm: Annotated[Number, Field(ge=0)] = 0.0

    @property
    def least(self) -> int:
        """The fewest updates that the rule can combine."""
        return {
            "mean": 1,
            "median": 2 * self.faulty + 1,
            "trimmed-mean": 2 * self.faulty + 1,
            "krum": 2 * self.faulty + 3,
        }[self.method]


class StoppingRule(Table):
    """Ends a run after a round, by the mean loss on public records of the coordinator.

    Attributes:
        digest: of the file with the records.
        patience: how many averaged rounds in a row may gain too little.
        least_gain: by how many nats the best of them must be under the best before.
        limit: how many records are used at most.
    """

    digest: Digest
    patience: Annotated[int, Field(ge=1, le=1000)]
    least_gain: Annotated[Number, Field(ge=0)]
    limit: Annotated[int, Field(ge=1)]


class StoppingTable(Table):
    """The rule as the coordinator writes it, with where the records are; no path: no rule."""

    path: str = ""
    digest: Digest | None = None
    patience: Annotated[int, Field(ge=1, le=1000)] = 2
    least_gain: Annotated[Number, Field(ge=0)] = 0.0
    limit: Annotated[int, Field(ge=1)] = 200

    @model_validator(mode="after")
    def _named(self) -> Self:
        if self.path and self.digest is None:
            raise ValueError(
                "stopping.path needs stopping.digest, as sha256: and what sha256sum says"
            )
        return self

    @property
    def rule(self) -> StoppingRule | None:
        """What of it is in the plan."""
        return StoppingRule(**self.model_dump(exclude={"path"})) if self.path else None


class TaskTable(Table):
    """What the model is to learn, in words for the model card, and the public label set."""

    description: Annotated[str, Field(max_length=500)] = ""
    labels: Annotated[tuple[str, ...], Field(max_length=1000)] = ()


class EvaluationTable(Table):
    """Public or synthetic records of the coordinator on which base and release are scored."""

    path: str = ""
    # Stands in the coordinator's log, whose texts are plain and short.
    description: Annotated[
        str, Field(max_length=128, pattern=r"^([A-Za-z0-9][A-Za-z0-9 ._:;,/()=+-]*)?$")
    ] = ""
    limit: Annotated[int, Field(ge=1)] = 400


class _Trains(Table):
    """What a run and its plan have in common: something is learnt, perhaps a choice of labels."""

    training: TrainingTable = TrainingTable()
    task: TaskTable = TaskTable()

    @model_validator(mode="after")
    def _labels_to_choose_from(self) -> Self:
        training = self.training
        if training.thoughts == "learn" and training.objective != "response":
            raise ValueError(
                'training.thoughts = "learn" needs training.objective = "response"; use "drop"'
            )
        if training.objective == "preference" and training.label_smoothing > 0:
            raise ValueError(
                'training.label_smoothing has no place in "preference"; remove it or set 0'
            )
        labels = self.task.labels
        if self.training.objective == "label" and not len(set(labels)) == len(labels) >= 2:
            raise ValueError(
                'training.objective = "label" needs two or more distinct task.labels; list them, '
                'or use "response"'
            )
        return self


def _one_pair(training: TrainingTable, notes_per_person: int) -> None:
    """Raise where several preferences of a person would have to share a row."""
    if training.objective == "preference" and notes_per_person != 1:
        raise ValueError(
            'training.objective = "preference" takes one pair of answers of a person in a step; '
            "set notes_per_person = 1"
        )


def _averaged(
    adapter: AdapterTable, institutions: tuple[str, ...], aggregation: AggregationTable
) -> None:
    """Raise where the mean of the updates would not be the mean of what they do."""
    if adapter.method == "lora" and aggregation.method != "mean":
        raise ValueError(
            f'aggregation.method = "{aggregation.method}" compares institutions, and '
            'adapter.method = "lora" has one; use "mean"'
        )
    if adapter.method == "lora" and len(institutions) > 1:
        raise ValueError(
            'adapter.method = "lora" trains both factors, and the mean of factors is not the mean '
            'of their products; use "ffa-lora" or "lora-xs", or invite one institution'
        )


def _paced(training: TrainingTable, steps: int) -> None:
    """Raise where schedule and decay make no sense over so many steps: before anything is spent."""
    if training.schedule != "constant" and not training.warmup_steps < steps:
        raise ValueError(
            f"training.warmup_steps leaves none of the run's {steps} noisy steps; shorten it"
        )
    if not training.weight_decay * training.learning_rate < 1.0:
        raise ValueError("training.weight_decay times training.learning_rate reaches 1; lower it")


class Run(_Trains):
    """One run as its coordinator writes it (RUN.toml)."""

    format: Literal[1] = FORMAT
    name: Name
    model: ModelTable = ModelTable()
    adapter: AdapterTable = AdapterTable()
    privacy: PrivacyTable = PrivacyTable()
    federation: FederationTable
    aggregation: AggregationTable = AggregationTable()
    stopping: StoppingTable = StoppingTable()
    evaluation: EvaluationTable = EvaluationTable()

    @model_validator(mode="after")
    def _paced(self) -> Self:
        _paced(self.training, self.privacy.rounds * self.privacy.steps_per_round)
        _averaged(self.adapter, self.federation.institutions, self.aggregation)
        _one_pair(self.training, self.privacy.notes_per_person)
        return self


class Plan(_Trains):
    """What the sites are asked to agree to: data, never code.

    Guarantees: every field that decides privacy is here (σ, q, steps, C, δ, unit, adjacency);
    `digest(canonical(plan.document()))` identifies it in every statement of the run.
    """

    format: Literal[1] = FORMAT
    run: Name
    model: str
    model_digest: Digest
    adapter: AdapterTable
    frozen_digest: Digest
    unit: Literal["person"] = "person"
    adjacency: Literal["zero-out"] = "zero-out"
    accountant: Literal["pld"] = "pld"
    epsilon: Annotated[Positive, Field(le=10)]
    delta: Annotated[Positive, Field(lt=0.001)]
    noise_multiplier: Positive
    clip_norm: ClipNorm
    clipping: Clipping = "flat"
    notes_per_person: NotesPerPerson = 1
    sample_rate: Share
    rounds: Annotated[int, Field(ge=1, le=1000)]
    steps_per_round: Annotated[int, Field(ge=1, le=10_000)]
    institutions: Annotated[tuple[Name, ...], Field(min_length=1)]
    quorum: Annotated[int, Field(ge=1)]
    round_timeout_s: Positive
    aggregation: AggregationTable = AggregationTable()
    stopping: StoppingRule | None = None

    @model_validator(mode="after")
    def _paced(self) -> Self:
        _paced(self.training, self.steps)
        _averaged(self.adapter, self.institutions, self.aggregation)
        _one_pair(self.training, self.notes_per_person)
        return self

    @classmethod
    def of(
        cls, run: Run, *, model_digest: str, frozen_digest: str, noise_multiplier: float
    ) -> Self:
        """What `run` asks its sites to agree to, once its model is known and its noise is found."""
        return cls(
            run=run.name,
            model=run.model.name,
            model_digest=model_digest,
            adapter=run.adapter,
            frozen_digest=frozen_digest,
            noise_multiplier=noise_multiplier,
            **dict(run.privacy),  # the same numbers under the same names
            training=run.training,
            task=run.task,
            institutions=tuple(sorted(run.federation.institutions)),
            quorum=run.federation.quorum,
            round_timeout_s=run.federation.round_timeout_s,
            aggregation=run.aggregation,
            stopping=run.stopping.rule,
        )

    @property
    def steps(self) -> int:
        """Noisy steps over all rounds."""
        return self.rounds * self.steps_per_round

    def document(self) -> dict[str, Any]:
        """The plan as JSON values, decimal strings where numbers matter."""
        return self.model_dump(mode="json")
