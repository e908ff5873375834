"""How an institution serves releases to its own people: `Serving`, beside site.toml."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from configs.run import Positive, Table

Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
_Path = Annotated[str, Field(max_length=4096)]


class EngineTable(Table):
    """What answers: the embedded model, or another engine with OpenAI's interface."""

    rows: Annotated[int, Field(ge=1, le=1024)] = 16
    cache_tokens: Annotated[int, Field(ge=256, le=100_000_000)] = 16_384
    read_tokens: Annotated[int, Field(ge=16, le=1_000_000)] = 512
    queue: Annotated[int, Field(ge=0, le=100_000)] = 64
    threads: Annotated[int, Field(ge=0, le=256)] = 0
    precision: Literal["float32", "int8", "nf4"] = "float32"
    labels: Annotated[tuple[str, ...], Field(max_length=1000)] = ()
    mark_text: bool = True
    upstream: Annotated[str, Field(pattern=r"^(https?://\S+)?$", max_length=2000)] = ""
    upstream_model: Annotated[str, Field(max_length=200)] = ""
    upstream_key: _Path = ""
    timeout_s: Positive = 120.0


class CacheTable(Table):
    """Answers that are kept in memory for the same question of the same user."""

    entries: Annotated[int, Field(ge=0, le=1_000_000)] = 1000
    seconds: Positive = 3600.0


class AccessTable(Table):
    """Who may ask, and how often."""

    keys: Literal["auto", "required"] = "auto"
    per_minute: Annotated[int, Field(ge=1, le=1_000_000)] = 120
    hosts: Annotated[tuple[str, ...], Field(max_length=64)] = ()


class PolicyTable(Table):
    """What happens to identifiers of persons in questions and in answers."""

    input: Literal["off", "scrub", "refuse"] = "off"
    output: Literal["off", "scrub"] = "off"
    profile: Literal["clinical", "strict"] = "clinical"
    language: Literal["en", "zh", "auto"] = "auto"


class TrialTable(Table):
    """A second release that answers a share of the users, until it does worse."""

    candidate: Annotated[str, Field(max_length=200)] = ""
    kind: Literal["canary", "ab"] = "canary"
    share: Share = 0.1
    requests: Annotated[int, Field(ge=1, le=1_000_000)] = 50
    error_rate: Share = 0.05
    p99_s: Positive = 30.0


class TlsTable(Table):
    """Paths of the certificate chain and its key; both or neither."""

    certificate: _Path = ""
    key: _Path = ""

    @model_validator(mode="after")
    def _both(self) -> Self:
        if bool(self.certificate) != bool(self.key):
            raise ValueError("tls needs both a certificate and a key, or neither")
        return self


class FeedbackTable(Table):
    """What people say about answers."""

    keep: bool = True


class Serving(Table):
    """The service (serving.toml)."""

    format: Literal[1] = 1
    releases: Annotated[tuple[str, ...], Field(max_length=64)] = ()
    log_minutes: Annotated[int, Field(ge=1, le=1440)] = 60
    access_log: Literal["period", "off"] = "period"
    drain_s: Positive = 30.0
    engine: EngineTable = EngineTable()
    cache: CacheTable = CacheTable()
    access: AccessTable = AccessTable()
    policy: PolicyTable = PolicyTable()
    trial: TrialTable = TrialTable()
    tls: TlsTable = TlsTable()
    feedback: FeedbackTable = FeedbackTable()
