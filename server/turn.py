"""A run's parts while it goes: the way to the sites, each invited site, and the open round."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from configs.run import Plan
from privacy.wire import Message
from server.mirror import Mirror
from server.store import Enrolled

# The site may have done nothing yet, or hold its answer: asking again spends nothing.
LOST = frozenset({"no-answer", "runner-stopped"})
# It was charged for the round and has no answer to give any more.
SPENT = "round-already-spent"


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back from one site: a message, or a failure word of the closed list."""

    site: str
    message: Message | None
    failure: str | None


class Link(Protocol):
    """What the rounds need of the way to the sites; `server.post.Post` is the real one."""

    @property
    def waiting(self) -> frozenset[str]:
        """Sites whose answer is outstanding."""

    def online(self) -> Mapping[str, int]:
        """Sites that can be asked now."""

    def send(self, messages: Mapping[str, Message], *, group: str, ttl_s: float) -> None:
        """Queue one message a site."""

    def leave(self, site: str, message: Message) -> None:
        """Keep a message for a site that is not connected, to be carried as a file."""

    def receive(self, number: int = -1) -> list[Reply]:
        """Answers since the last call, about the plan and about round `number`."""

    def forget(self) -> None:
        """Stop waiting for outstanding answers."""

    def settle(self) -> None:
        """Take back what was left for sites: its round is over."""


@dataclass(slots=True)
class Party:
    """One invited site during a run."""

    site: Enrolled
    mirror: Mirror
    status: str = "invited"  # invited, pending, accepted, declined
    reason: str = ""
    asked: str = ""  # what is outstanding: plan or round
    again: float = 0.0  # not before this time is it asked about the plan again


@dataclass(slots=True)
class Turn:
    """One round in progress; updates by digest, for their arrays are on disk."""

    number: int
    start: Mapping[str, Any] = field(repr=False)
    updates: dict[str, str]
    rejected: dict[str, str]
    notes: dict[str, str]
    asked: set[str] = field(default_factory=set)
    sent: dict[str, str] = field(default_factory=dict)  # digest of the copy that each site got
    final: set[str] = field(default_factory=set)  # rejected in this attempt, for what they said

    def open_to(self, name: str) -> bool:
        """Whether an answer of this site could still count."""
        return name not in self.updates and name not in self.final

    def is_spent(self, plan: Plan) -> bool:
        """Whether no wait and no resuming can bring the round to its quorum any more."""
        spent = {name for name, why in self.rejected.items() if why == SPENT}
        return len(set(plan.institutions) - spent) < plan.quorum
