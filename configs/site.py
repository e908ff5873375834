"""What an institution allows: `Site`, written and owned by the institution; it never leaves it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from configs.run import Digest, Name, Positive, Table


class DataTable(Table):
    """Where the records are, and how persons and language are told apart."""

    path: str = "records.jsonl"
    person_column: Annotated[str, Field(min_length=1, max_length=100)] = "unit_id"
    language: Literal["en", "zh", "auto"] = "auto"
    profile: Literal["clinical", "strict"] = "clinical"


class BudgetTable(Table):
    """The most that any person of this cohort may ever cost, over all runs."""

    cohort: Name = "all"
    epsilon: Annotated[Positive, Field(le=10)] = 2.0
    delta: Annotated[Positive, Field(lt=0.001)] = 1e-5


class PolicyTable(Table):
    """Which runs are accepted. `ask` waits for `privity client approve`; `policy` decides here."""

    approve: Literal["ask", "policy"] = "ask"
    models: tuple[str, ...] = ("smollm2-135m-instruct",)
    plans: tuple[Digest, ...] = ()
    run_epsilon: Annotated[Positive, Field(le=10)] = 2.0
    max_steps: Annotated[int, Field(ge=1)] = 1000
    max_update_norm: Positive = 10_000.0


class RuntimeTable(Table):
    """Resources of this machine."""

    threads: Annotated[int, Field(ge=0, le=256)] = 0
    chunk_tokens: Annotated[int, Field(ge=64, le=1_000_000)] = 384
    precision: Literal["auto", "float32", "bfloat16", "int8", "nf4"] = "float32"
    columns: Annotated[int, Field(ge=0, le=256)] = 0
    processes: Annotated[int, Field(ge=1, le=16)] = 1
    port: Annotated[int, Field(ge=0, le=65_535)] = 0
    connect_timeout_s: Positive = 300.0


ColumnName = Annotated[str, Field(min_length=1, max_length=100)]


class ColumnsTable(Table):
    """What columns of the records are, where their names do not say so."""

    names: tuple[ColumnName, ...] = ()
    ids: tuple[ColumnName, ...] = ()
    national_ids: tuple[ColumnName, ...] = ()
    phones: tuple[ColumnName, ...] = ()
    emails: tuple[ColumnName, ...] = ()
    addresses: tuple[ColumnName, ...] = ()
    dates: tuple[ColumnName, ...] = ()
    quasi: tuple[ColumnName, ...] = ()
    plain: tuple[ColumnName, ...] = ()


class DetectorTable(Table):
    """A further detector in a local folder, pinned by its digest."""

    path: Annotated[str, Field(min_length=1, max_length=4096)]
    digest: Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
    use: Literal["token-classification", "gliner", "medical"]
    labels: dict[str, str] = Field(default_factory=dict)
    score: Annotated[float, Field(gt=0, le=1)] = 0.5


class ScrubTable(Table):
    """What de-identification uses beyond what is built in."""

    lists: str = ""
    models: Annotated[tuple[DetectorTable, ...], Field(max_length=8)] = ()
    columns: ColumnsTable = ColumnsTable()


class TrainerTable(Table):
    """The process that opens records: `none` cuts it off from the network or trains nothing.

    `warn` trains also where the system cannot cut it off, and says so.
    """

    network: Literal["none", "warn"] = "none"


class MetricsTable(Table):
    """Where a Prometheus server may read; off until a port is given, and then for this machine."""

    port: Annotated[int, Field(ge=0, le=65_535)] = 0
    host: Annotated[str, Field(min_length=1, max_length=64)] = "127.0.0.1"


_Term = Annotated[int, Field(ge=0, le=36_525)]


class TermsTable(Table):
    """Days that values behind log entries are kept; 0: for good. At least six months."""

    access_days: _Term = 2192
    evidence_days: _Term = 3653

    @field_validator("access_days", "evidence_days")
    @classmethod
    def _long_enough(cls, days: int) -> int:
        if 0 < days < 183:
            raise ValueError("is kept for at least 183 days")
        return days


class RetentionTable(TermsTable):
    """The same, and days that record text of a review and feedback are kept; 0: for good."""

    review_days: _Term = 90
    feedback_days: _Term = 0


class Site(Table):
    """One institution (site.toml)."""

    format: Literal[1] = 1
    name: Name
    coordinator: Annotated[str, Field(pattern=r"^[A-Za-z0-9.\-\[\]:]+:\d{1,5}$")]
    data: DataTable = DataTable()
    scrub: ScrubTable = ScrubTable()
    budget: BudgetTable = BudgetTable()
    policy: PolicyTable = PolicyTable()
    trainer: TrainerTable = TrainerTable()
    runtime: RuntimeTable = RuntimeTable()
    metrics: MetricsTable = MetricsTable()
    retention: RetentionTable = RetentionTable()


class Coordinator(Table):
    """The coordinator's own settings (coordinator.toml)."""

    format: Literal[1] = 1
    name: Name
    host: Annotated[str, Field(min_length=1, max_length=253)] = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65_535)] = 8443
    control_port: Annotated[int, Field(ge=1, le=65_535)] = 8444
    bind: Annotated[str, Field(min_length=1, max_length=64)] = "127.0.0.1"
    metrics: MetricsTable = MetricsTable()
    retention: TermsTable = TermsTable()
