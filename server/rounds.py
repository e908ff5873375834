"""The run, top to bottom: invite, agree, train round by round, close.

Every answer is validated before it counts; a bad one is a recorded failure of that site and the
run goes on while the quorum holds. Sites that were absent are invited beside the running round and
take part from the next one; one that failed without an answer is asked again while there is time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from audit.errors import AuditError
from audit.log import Log
from audit.witness import Witness
from privacy.errors import PrivacyError
from privacy.wire import Answer, Close, Closed, Message, Propose, Round, Update, pack, unpack
from server import accept, alarms, closing, plans, succession
from server.errors import ServerError
from server.marking import Marking
from server.mirror import own_note
from server.progress import Progress
from server.state import State
from server.turn import LOST, Link, Party, Turn

_ASK_AGAIN_SECONDS = 3.0
# How long a round that has its quorum waits for those who have just come back.
_GRACE_SECONDS = 1.0
_LOOK_SECONDS = 1.0
_NO_RELEASE = "sha256:" + "0" * 64


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
    stop: Callable[[int], bool] = lambda closed: False  # whether the run is over after so many

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
        while self.state.round < plan.rounds and not self.stop(self.state.round):
            self._round(self.state.round)
        if self.state.outcome == "running":
            closing.finish(self.log, self.state, self.tell)

    def _agree(self, timeout_s: float) -> None:
        """Propose the plan until every invited site has decided or the time is over."""
        deadline = self.clock() + timeout_s
        self.tell("inviting", institutions=sorted(self.parties))
        connected = self.link.online()
        for name, party in self.parties.items():
            if name not in connected and _undecided(party):
                self._propose(party, leave=True)
        while self.clock() < deadline and any(map(_undecided, self.parties.values())):
            self._invite()
            for reply in self.link.receive():
                self._take_answer(reply)
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

    def _invite(self) -> None:
        """Propose the plan to every connected site that has not decided, now and then."""
        now = self.clock()
        due = [
            party
            for name, party in self.parties.items()
            if _undecided(party) and now >= party.again and name not in self.link.waiting
        ]
        if not due:
            return
        connected = self.link.online()
        for party in due:
            if party.site.name in connected:
                party.again = now + _ASK_AGAIN_SECONDS
                self._propose(party)

    def _propose(self, party: Party, *, leave: bool = False) -> None:
        plan, name = self.state.plan, party.site.name
        party.asked = "plan"
        message = pack(
            Propose(**self._down(name), run=plan.run, plan=plans.document(plan).decode())
        )
        if leave:
            self.link.leave(name, message)
            return
        self.link.send({name: message}, group="plan", ttl_s=plan.round_timeout_s)

    def _take_answer(self, reply: Any) -> None:
        """Take a decision about the plan, or the word that stands in its place."""
        party = self.parties[reply.site]
        try:
            if reply.message is None:
                party.reason = reply.failure or "no-answer"
                return
            header = unpack(reply.message, Answer)
            self._take_evidence(party, header)
        except (PrivacyError, AuditError, ServerError) as fault:
            party.status, party.reason = "declined", fault.code
        else:
            if header.reason == "coordinator-behind":
                self._propose(party)
                return
            party.status, party.reason = header.decision, header.reason
        self.tell("answered", institution=reply.site, status=party.status, reason=party.reason)

    def _round(self, number: int) -> None:
        plan, log = self.state.plan, self.log
        start = self.state.adapter(number)
        updates, rejected = closing.left_behind(log, self.state, number)
        notes = {
            name: own_note(party.mirror.cosigned)
            for name, party in self.parties.items()
            if name in updates
        }
        turn = Turn(number, start, updates, rejected, notes)
        self.tell("round", round=number, rounds=plan.rounds)
        if not closing.began(log, plan.run, number):
            self._train(turn)
        self.link.forget()
        absent = sorted(set(plan.institutions) - updates.keys() - rejected.keys())
        for name, party in self.parties.items():
            party.asked = ""
            if name in absent and name in turn.asked:
                party.status, party.again = "invited", 0.0
        if len(updates) < plan.quorum and not turn.is_spent(plan):
            self.tell("quorum-lost", round=number, accepted=sorted(updates))
            raise ServerError(
                f"round {number + 1} has {len(updates)} of {plan.quorum} needed updates; see to "
                f"{', '.join(sorted({*rejected, *absent}))}, then go on with --resume",
                code="no-quorum",
                exit_code=3,
            )
        skipped = len(updates) < plan.quorum
        end = closing.skip if skipped else closing.close
        end(log, self.state, closing.Fates(number, updates, rejected, absent, notes))
        self.link.settle()
        self.tell(
            "closed",
            round=number,
            accepted=sorted(updates),
            rejected=dict(rejected),
            absent=absent,
            skipped=skipped,
        )

    def _train(self, turn: Turn) -> None:
        """Ask for the round's updates until all asked have answered or the time is over.

        A round without its quorum goes on, until its deadline, for sites that may come back.
        """
        plan = self.state.plan
        began = looked = self.clock()
        self._invite()
        self._ask(turn, newcomers=True)
        waits = False
        while self.clock() < began + plan.round_timeout_s:
            soon = self.clock() < began + _GRACE_SECONDS
            if not self._asked():
                if len(turn.updates) >= plan.quorum:
                    if not (soon and self.link.waiting):
                        break
                elif not self._may_come(turn):
                    break
                elif not (waits or self.link.waiting):
                    waits = True
                    self.tell("waiting", round=turn.number, missing=self._missing(turn))
            for reply in self.link.receive(turn.number):
                if self.parties[reply.site].asked == "round":
                    self._take_update(reply, turn)
                else:
                    self._take_answer(reply)
                    self._ask(turn, newcomers=soon)
            if self.clock() >= looked + _LOOK_SECONDS:
                looked = self.clock()
                self._invite()
                self._ask(turn, newcomers=False)

    def _asked(self) -> set[str]:
        """Sites that owe an update."""
        return {name for name in self.link.waiting if self.parties[name].asked == "round"}

    def _missing(self, turn: Turn) -> list[str]:
        """Sites that owe nothing now but could still come back and answer."""
        return sorted(
            name
            for name, party in self.parties.items()
            if turn.open_to(name) and party.status != "declined"
        )

    def _may_come(self, turn: Turn) -> bool:
        return len(turn.updates) + len(self._missing(turn)) >= self.state.plan.quorum

    def _ask(self, turn: Turn, *, newcomers: bool) -> None:
        """Send the round to every site that agreed and has not answered it.

        One that agreed in the middle of the round is asked only where the quorum needs it: it
        would hold up the others, and pay for a round that may close without it.
        """
        plan = self.state.plan
        needed = len(turn.updates) + len(self._asked()) < plan.quorum
        asked = []
        for name, party in self.parties.items():
            if party.status != "accepted" or not turn.open_to(name):
                continue
            if party.asked and name in self.link.waiting:  # not asked: a file of an earlier command
                continue
            if newcomers or needed or name in turn.asked:
                party.asked = "round"
                turn.asked.add(name)
                asked.append(name)
        copies = self.marking.copies(self.log, turn.number, asked) if asked else {}
        messages = {
            name: pack(
                Round(
                    **self._down(name),
                    run=plan.run,
                    round=turn.number,
                    plan_digest=plans.digest(plan),
                    input_digest=copy.digest,
                ),
                copy.arrays,
            )
            for name, copy in copies.items()
        }
        turn.sent |= {name: copy.digest for name, copy in copies.items()}
        if messages:
            self.link.send(messages, group=f"round-{turn.number}", ttl_s=plan.round_timeout_s)

    def _sent(self, turn: Turn, name: str) -> str:
        """The digest of the copy that a site was sent; by an earlier command, it may be."""
        if name not in turn.sent:
            turn.sent[name] = self.marking.copies(self.log, turn.number, [name])[name].digest
        return turn.sent[name]

    def _take_update(self, reply: Any, turn: Turn) -> None:
        """Let one update count, or record why it does not."""
        name, plan = reply.site, self.state.plan
        party = self.parties[name]
        party.asked = ""
        try:
            if reply.message is None:
                raise ServerError("the site failed", code=reply.failure or "no-answer")
            turn.updates[name] = self._accept(party, reply.message, turn)
            turn.notes[name] = own_note(party.mirror.cosigned)
            turn.rejected.pop(name, None)
        except (PrivacyError, AuditError, ServerError) as fault:
            party.status, party.reason, party.again = "invited", fault.code, 0.0
            if turn.rejected.get(name) != fault.code:
                self.log.append(
                    "update-rejected",
                    {"institution": name, "reason": fault.code},
                    run=plan.run,
                    round=turn.number,
                )
            turn.rejected[name] = fault.code
            if fault.code not in LOST:
                turn.final.add(name)
        self.tell(
            "update",
            round=turn.number,
            institution=name,
            accepted=name in turn.updates,
            reason=turn.rejected.get(name, ""),
        )

    def _accept(self, party: Party, message: Message, turn: Turn) -> str:
        """Validate one update, keep it and log its acceptance; raises what is wrong with it."""
        plan = self.state.plan
        update, header = accept.check(message, plan, number=turn.number, start=turn.start)
        head = self._take_evidence(party, header)
        accept.check_statement(
            party.mirror,
            header,
            plan,
            input_digest=self._sent(turn, party.site.name),
            columns=accept.trained_columns(update, plan),
        )
        # The arrays are on disk before the log says that they count: a crash in between, or a
        # lost quorum, leaves a round that can be finished without this site.
        self.state.keep_update(turn.number, party.site.name, update)
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
            round=turn.number,
        )
        return header.update_digest

    def close(self, *, release_digests: Mapping[str, str], timeout_s: float) -> list[str]:
        """Tell every connected site the end of the run, and gather its last evidence.

        Args:
            release_digests: of each site's own copy of the release, if there is one for it; the
                site signs for it in its log.
            timeout_s: how long to wait for answers.

        Returns:
            The sites that answered.
        """
        connected = self.link.online()
        for name in connected:
            if name in self.parties:
                message = pack(
                    Close(
                        **self._down(name),
                        run=self.state.plan.run,
                        release_digest=release_digests.get(name, _NO_RELEASE),
                    )
                )
                if connected[name]:
                    self.link.send({name: message}, group="close", ttl_s=timeout_s)
                else:  # it answers by file, and nobody waits for that here
                    self.link.leave(name, message)
        answered: list[str] = []
        deadline = self.clock() + timeout_s
        while any(connected.get(n) for n in self.link.waiting) and self.clock() < deadline:
            answered += filter(None, map(self.take_closed, self.link.receive()))
        self.link.forget()
        return sorted(answered)

    def take_closed(self, reply: Any) -> str:
        """Take one site's last evidence; returns its name, or nothing where it gave none."""
        try:
            if reply.message is not None:
                header = unpack(reply.message, Closed)
                self._take_evidence(self.parties[reply.site], header)
                return str(reply.site)
        except (PrivacyError, AuditError, ServerError) as fault:
            self.tell("close-failed", institution=reply.site, reason=fault.code)
        return ""

    def _down(self, name: str) -> dict[str, Any]:
        mirror, seen = self.parties[name].mirror, self.state.witnessed.get(name, 0)
        return succession.down(self.log, mirror, seen)

    def _take_evidence(self, party: Party, header: Answer | Update | Closed) -> Any:
        """Extend the site's mirror, and keep its cosignature on our log."""
        head = alarms.extend(party.mirror, header, self.witness, self.log)
        if header.cosignature:
            self.log.add_cosignature(header.cosignature, witness=party.mirror.keys().witness)
        self.state.witnessed[party.site.name] = header.witnessed
        self.state.save()
        return head


def _undecided(party: Party) -> bool:
    return party.status in ("invited", "pending")
