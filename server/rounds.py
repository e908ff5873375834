"""The run, top to bottom: invite, agree, train round by round, close.

Every answer is validated before it counts; a bad one is a recorded failure of that site and the
run goes on while the quorum holds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from audit import witness as witnessing
from audit.errors import AuditError
from audit.log import Log
from audit.note import parse as parse_note
from audit.witness import Witness
from privacy.errors import PrivacyError
from privacy.wire import Answer, Close, Closed, Message, Propose, Round, Update, pack, unpack
from server import accept, closing, plans
from server.errors import ServerError
from server.marking import Marking
from server.mirror import Mirror
from server.progress import Progress
from server.state import State
from server.store import Enrolled

_ASK_AGAIN_SECONDS = 3.0
_NO_RELEASE = "sha256:" + "0" * 64


class Link(Protocol):
    """What the rounds need of Flower; `server.flower.Session` is the real one."""

    @property
    def waiting(self) -> frozenset[str]:
        """Sites whose answer is outstanding."""

    def online(self) -> Mapping[str, int]:
        """Connected sites."""

    def send(self, messages: Mapping[str, Message], *, group: str, ttl_s: float) -> None:
        """Queue one message a site."""

    def receive(self) -> list[Any]:
        """Answers since the last call."""

    def forget(self) -> None:
        """Stop waiting for outstanding answers."""


@dataclass(slots=True)
class Party:
    """One invited site during a run."""

    site: Enrolled
    mirror: Mirror
    status: str = "invited"  # invited, pending, accepted, declined
    reason: str = ""


@dataclass(slots=True)
class Conductor:
    """One run in progress: the log, the parties and the state, and the link to the sites."""

    log: Log
    witness: Witness
    state: State
    parties: dict[str, Party]
    link: Link
    tell: Progress
    marking: Marking
    clock: Callable[[], float] = time.monotonic

    def run(self, *, join_timeout_s: float) -> None:
        """Take the run from where its state says to the end of its last round.

        Raises:
            ServerError: the quorum was not met (exit code 3); nothing is lost, `--resume` goes on.
        """
        plan = self.state.plan
        if not list(self.log.entries("run-started", plan.run)):
            self.log.append(
                "run-started",
                {
                    "plan_digest": plans.digest(plan),
                    "plan": plan.document(),
                    "institutions": list(plan.institutions),
                    "quorum": plan.quorum,
                },
                run=plan.run,
            )
        self.marking.commit(self.log)
        self._agree(join_timeout_s)
        while self.state.round < plan.rounds:
            self._invite_late()
            self._round(self.state.round)
        if self.state.outcome == "running":
            self._finish("completed")

    def _finish(self, outcome: str) -> None:
        if not list(self.log.entries("run-finished", self.state.plan.run)):
            self.log.append(
                "run-finished",
                {
                    "outcome": outcome,
                    "rounds": self.state.round,
                    "participants": sorted(self.state.participants),
                },
                run=self.state.plan.run,
            )
        self.state.outcome = "trained"
        self.state.save()
        self.tell("finished", outcome=outcome, participants=sorted(self.state.participants))

    # -- agreeing -------------------------------------------------------------------------------

    def _agree(self, timeout_s: float) -> None:
        """Propose the plan until every invited site has decided or the time is over."""
        deadline = self.clock() + timeout_s
        self.tell("inviting", institutions=sorted(self.parties))
        asked: dict[str, float] = {}
        while self.clock() < deadline:
            now = self.clock()
            open_sites = [n for n, p in self.parties.items() if p.status in ("invited", "pending")]
            if not open_sites:
                break
            due = [
                name
                for name in open_sites
                if name in self.link.online()
                and name not in self.link.waiting
                and now >= asked.get(name, 0.0)
            ]
            for name in due:
                asked[name] = now + _ASK_AGAIN_SECONDS
                self._propose(name)
            self._collect_answers()
        self.link.forget()
        accepted = [name for name, party in self.parties.items() if party.status == "accepted"]
        if len(accepted) < self.state.plan.quorum:
            reasons = "; ".join(
                f"{name}: {party.reason or 'not connected'}"
                for name, party in sorted(self.parties.items())
                if party.status != "accepted"
            )
            raise ServerError(
                f"{len(accepted)} of {self.state.plan.quorum} needed sites agreed ({reasons}); "
                "ask them, then go on with --resume",
                code="no-quorum",
                exit_code=3,
            )

    def _invite_late(self) -> None:
        """Give sites that were absent or out of step one quick chance before a round."""
        late = [
            name
            for name, party in self.parties.items()
            if party.status in ("invited", "pending") and name in self.link.online()
        ]
        if not late:
            return
        for name in late:
            self._propose(name)
        deadline = self.clock() + 2 * _ASK_AGAIN_SECONDS
        while self.link.waiting and self.clock() < deadline:
            self._collect_answers()
        self.link.forget()

    def _propose(self, name: str) -> None:
        plan = self.state.plan
        message = pack(
            Propose(**self._down(name), run=plan.run, plan=plans.document(plan).decode())
        )
        self.link.send({name: message}, group="plan", ttl_s=plan.round_timeout_s)

    def _collect_answers(self) -> None:
        for reply in self.link.receive():
            party = self.parties[reply.site]
            try:
                if reply.message is None:
                    party.reason = reply.failure or "no-answer"
                    continue
                header = unpack(reply.message, Answer)
                self._take_evidence(party, header)
            except (PrivacyError, AuditError, ServerError) as fault:
                party.status, party.reason = "declined", fault.code
            else:
                if header.reason == "coordinator-behind":
                    self._propose(reply.site)
                    continue
                party.reason = header.reason
                party.status = "accepted" if header.decision == "accepted" else header.decision
            self.tell("answered", institution=reply.site, status=party.status, reason=party.reason)

    # -- training -------------------------------------------------------------------------------

    def _round(self, number: int) -> None:
        plan, log = self.state.plan, self.log
        group = f"round-{number}"
        self.tell("round", round=number, rounds=plan.rounds)
        updates, rejected = closing.left_behind(log, self.state, number)
        notes = {
            name: _own_note(party.mirror.cosigned)
            for name, party in self.parties.items()
            if name in updates
        }
        closed = closing.began(log, plan.run, number)
        asked = [
            name
            for name, party in self.parties.items()
            if not closed and name not in updates and party.status == "accepted"
        ]
        copies = self.marking.copies(log, number, asked)
        for name in asked:
            message = pack(
                Round(
                    **self._down(name),
                    run=plan.run,
                    round=number,
                    plan_digest=plans.digest(plan),
                    input_digest=copies[name].digest,
                ),
                copies[name].arrays,
            )
            self.link.send({name: message}, group=group, ttl_s=plan.round_timeout_s)
        deadline = self.clock() + plan.round_timeout_s
        while self.link.waiting and self.clock() < deadline:
            for reply in self.link.receive():
                party = self.parties[reply.site]
                try:
                    if reply.message is None:
                        raise ServerError("the site failed", code=reply.failure or "no-answer")
                    updates[reply.site] = self._accept(
                        party, reply.message, number, copies[reply.site].digest
                    )
                    notes[reply.site] = _own_note(party.mirror.cosigned)
                    rejected.pop(reply.site, None)
                except (PrivacyError, AuditError, ServerError) as fault:
                    rejected[reply.site] = fault.code
                    party.status, party.reason = "invited", fault.code
                    log.append(
                        "update-rejected",
                        {"institution": reply.site, "reason": fault.code},
                        run=plan.run,
                        round=number,
                    )
                self.tell(
                    "update",
                    round=number,
                    institution=reply.site,
                    accepted=reply.site in updates,
                    reason=rejected.get(reply.site, ""),
                )
        self.link.forget()
        absent = sorted(set(plan.institutions) - updates.keys() - rejected.keys())
        for name in absent:
            self.parties[name].status = "invited"
        if len(updates) < plan.quorum:
            self.tell("quorum-lost", round=number, accepted=sorted(updates))
            raise ServerError(
                f"round {number + 1} has {len(updates)} of {plan.quorum} needed updates; see to "
                f"{', '.join(sorted({*rejected, *absent}))}, then go on with --resume",
                code="no-quorum",
                exit_code=3,
            )
        closing.close(log, self.state, number, updates, rejected, absent, notes)
        self.tell(
            "closed",
            round=number,
            accepted=sorted(updates),
            rejected=dict(rejected),
            absent=absent,
        )

    def _accept(
        self, party: Party, message: Message, number: int, input_digest: str
    ) -> Mapping[str, Any]:
        """Validate one update, keep it and log its acceptance; raises what is wrong with it."""
        plan = self.state.plan
        update, header = accept.check(
            message, plan, number=number, start=self.state.adapter(number)
        )
        head = self._take_evidence(party, header)
        accept.check_statement(party.mirror, header, plan, input_digest=input_digest)
        # The arrays are on disk before the log says that they count: a crash in between, or a
        # lost quorum, leaves a round that can be finished without this site.
        self.state.keep_update(number, party.site.name, update)
        self.log.append(
            "update-accepted",
            {
                "institution": party.site.name,
                "update_digest": header.update_digest,
                "site_size": head.size,
                "site_root": head.root,
                "statement_index": header.statement_index,
                "statement_leaf": party.mirror.leaf(header.statement_index),
            },
            run=plan.run,
            round=number,
        )
        return update

    # -- closing and evidence -------------------------------------------------------------------

    def close(self, *, release_digests: Mapping[str, str], timeout_s: float) -> list[str]:
        """Tell every connected site the end of the run, and gather its last evidence.

        Args:
            release_digests: of each site's own copy of the release, if there is one for it; the
                site signs for it in its log.
            timeout_s: how long to wait for answers.

        Returns:
            The sites that answered.
        """
        for name in self.link.online():
            if name in self.parties:
                message = pack(
                    Close(
                        **self._down(name),
                        run=self.state.plan.run,
                        release_digest=release_digests.get(name, _NO_RELEASE),
                    )
                )
                self.link.send({name: message}, group="close", ttl_s=timeout_s)
        answered = []
        deadline = self.clock() + timeout_s
        while self.link.waiting and self.clock() < deadline:
            for reply in self.link.receive():
                try:
                    if reply.message is not None:
                        header = unpack(reply.message, Closed)
                        self._take_evidence(self.parties[reply.site], header)
                        answered.append(reply.site)
                except (PrivacyError, AuditError, ServerError) as fault:
                    self.tell("close-failed", institution=reply.site, reason=fault.code)
        self.link.forget()
        return sorted(answered)

    def _down(self, name: str) -> dict[str, Any]:
        party = self.parties[name]
        body = witnessing.request(self.log, self.state.witnessed.get(name, 0))
        return {
            "witness": body.decode(),
            "cosigned": party.mirror.cosigned,
            "have": party.mirror.size,
        }

    def _take_evidence(self, party: Party, header: Answer | Update | Closed) -> Any:
        """Extend the site's mirror, and keep its cosignature on our log."""
        head = party.mirror.extend(header.entries, header.checkpoint, self.witness)
        if header.cosignature:
            self.log.add_cosignature(header.cosignature, witness=party.site.keys.witness)
        self.state.witnessed[party.site.name] = header.witnessed
        self.state.save()
        return head


def _own_note(cosigned: str) -> str:
    """A site's checkpoint as it signed it, without the cosignature that we added."""
    note = parse_note(cosigned)
    return str(type(note)(note.text, note.signatures[:1]))
