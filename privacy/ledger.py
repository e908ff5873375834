"""What the institution's cohorts have spent: reserve first, train second, never refund.

Every head of the ledger is published in the institution's log, so that a restored older copy shows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from privacy import chain
from privacy.chain import Entry
from privacy.errors import BudgetExhausted, LedgerFault, PlanInvalid, RoundSpent
from privacy.journal import Journal
from privacy.plan import Mechanism, check_delta, epsilon

GENESIS = chain.GENESIS


@dataclass(frozen=True, slots=True)
class Row:
    """One reservation and how much of it was begun.

    Attributes:
        index: position of the reservation in the chain, from 0.
        steps: noisy steps over all of its `rounds`.
        rounds_begun: how many of the rounds have been charged as spent.
        time: when it was reserved, ISO 8601, UTC.
        digest: chain digest of the reservation, "sha256:<hex>".
    """

    index: int
    cohort: str
    run: str
    plan_digest: str
    noise_multiplier: float
    sample_rate: float
    steps: int
    rounds: int
    rounds_begun: int
    delta: float
    time: str
    digest: str

    @property
    def mechanism(self) -> Mechanism:
        """The whole plan, which is what counts against the cap."""
        return Mechanism(self.noise_multiplier, self.sample_rate, self.steps)


@dataclass(frozen=True, slots=True)
class Reservation:
    """A plan that fits. `head` is the chain digest that the institution's log publishes."""

    run: str
    plan_digest: str
    epsilon_before: float
    epsilon_after: float
    head: str


@dataclass(frozen=True, slots=True)
class Balance:
    """Epsilon of one cohort at `delta`: begun, set aside, and still free under `cap`."""

    spent: float
    reserved: float
    left: float
    cap: float
    delta: float
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class Charge:
    """One entry: a reservation (`round` is None) or a round that was begun.

    Attributes:
        mechanism: the whole plan. steps: of one round.
        epsilon_after: of the cohort at its reservation.
    """

    time: str
    run: str
    round: int | None
    mechanism: Mechanism
    steps: int
    epsilon_after: float


class Ledger:
    """The door to one ledger file. Safe across processes, threads and forks: nothing stays open.

    Guarantees: what a call returned is on disk; at a kill at any moment the ledger holds at least
    what was acknowledged; entries are never changed or removed; every call checks the whole chain.
    """

    __slots__ = ("_journal", "path")

    def __init__(self, path: Path) -> None:
        self.path = path
        self._journal = Journal(path)

    @classmethod
    def create(cls, path: Path) -> Ledger:
        """Make an empty ledger, mode 0600, complete or not at all.

        Raises:
            LedgerFault: the file exists already, or cannot be written.
        """
        Journal.create(path)
        return cls(path)

    @classmethod
    def open(cls, path: Path) -> Ledger:
        """Open an existing ledger and check its format and its whole chain.

        Raises:
            LedgerFault: missing, not a ledger, written by a newer version, or damaged.
        """
        ledger = cls(path)
        ledger._journal.read()
        return ledger

    def reserve(
        self,
        *,
        cohort: str,
        run: str,
        plan_digest: str,
        mechanism: Mechanism,
        rounds: int,
        delta: float,
        cap: float,
    ) -> Reservation:
        """Charge a whole plan to a cohort, before any record is opened.

        Epsilon is composed anew from every reservation of the cohort and this one. The same run
        with the same plan again returns the first answer and charges nothing.

        Raises:
            BudgetExhausted: the cohort would be over `cap`; nothing is charged.
            PlanInvalid: impossible numbers, the run was reserved with another plan, or the cohort
                is accounted at another delta.
            LedgerFault: the ledger is damaged or cannot be written.
        """
        wanted = _request(cohort, run, plan_digest, mechanism, rounds, delta)
        _check_cap(cap)
        with self._journal.write() as (entries, append):
            for entry in entries:
                if entry.body["kind"] == "reservation" and entry.body["run"] == run:
                    return _repeated(entry, wanted, cap)
            rows = _rows(entries, cohort)
            _check_one_delta(rows, delta)
            before = epsilon([row.mechanism for row in rows], delta=delta)
            after = epsilon([*(row.mechanism for row in rows), mechanism], delta=delta)
            if not after <= cap:
                raise BudgetExhausted(
                    f"run {run} takes cohort {cohort} from epsilon {before:.4g} to {after:.4g}, "
                    f"over its cap {cap:g} at delta {delta:g}; ask for more noise or fewer steps"
                )
            charges = {"epsilon_before": before, "epsilon_after": after, "cap": float(cap)}
            entry = append(wanted | charges)
        return Reservation(run, plan_digest, before, after, entry.digest)

    def begin_round(self, run: str, round: int, *, input_digest: str) -> None:  # noqa: A002
        """Mark a round as spent, durably, before its first record is read; there is no way back.

        Args:
            run: a reserved run.
            round: 0-based, below the reserved number of rounds.
            input_digest: digest of the adapter that the round starts from.

        Raises:
            RoundSpent: this round was begun before, even if it never finished.
            PlanInvalid: no such run or round.
            LedgerFault: the ledger is damaged or cannot be written.
        """
        with self._journal.write() as (entries, append):
            row = next((row for row in _rows(entries) if row.run == run), None)
            if row is None:
                raise PlanInvalid(f"run {run} has no reservation in {self.path}; reserve it first")
            if type(round) is not int or not 0 <= round < row.rounds:
                raise PlanInvalid(
                    f"round {round!r} is not in run {run}, which has rounds 0 to {row.rounds - 1}"
                )
            if round in _begun(entries, run):
                raise RoundSpent(
                    f"round {round} of run {run} was begun before and is spent; go on with the next"
                )
            body = {"kind": "round", "run": run, "round": round, "input_digest": input_digest}
            append(body)

    def balance(self, cohort: str, *, delta: float, cap: float) -> Balance:
        """Say what the cohort has spent, set aside and left.

        `spent` composes the steps of the begun rounds; `reserved` is what the rest of the
        reservations adds to it; `left` is `cap` less everything reserved, and never below 0.

        Raises:
            PlanInvalid: the cohort is accounted at another delta, or a number is out of range.
            LedgerFault: the ledger is damaged.
        """
        _check_cap(cap)
        check_delta(delta)
        rows = self.rows(cohort)
        _check_one_delta(rows, delta)
        everything = epsilon([row.mechanism for row in rows], delta=delta)
        spent = epsilon(
            [
                replace(row.mechanism, steps=row.steps // row.rounds * row.rounds_begun)
                for row in rows
                if row.rounds_begun
            ],
            delta=delta,
        )
        return Balance(
            spent=spent,
            reserved=max(0.0, everything - spent),
            left=max(0.0, cap - everything),
            cap=cap,
            delta=delta,
            rows=rows,
        )

    def head(self) -> str:
        """Return the digest of the newest entry, "sha256:<hex>", or `GENESIS` if there is none."""
        return chain.head(self._journal.read())

    def rows(self, cohort: str | None = None) -> tuple[Row, ...]:
        """Return the reservations of one cohort, or of all, oldest first."""
        return _rows(self._journal.read(), cohort)

    def begun(self, run: str) -> frozenset[int]:
        """Return the rounds of a run that were charged, 0-based."""
        return frozenset(_begun(self._journal.read(), run))

    def charges(self, cohort: str) -> tuple[Charge, ...]:
        """Return every entry of one cohort, oldest first."""
        known: dict[str, Charge] = {}
        found: list[Charge] = []
        for entry in self._journal.read():
            body = entry.body
            if body["kind"] == "reservation" and body["cohort"] == cohort:
                row = Mechanism(body["noise_multiplier"], body["sample_rate"], body["steps"])
                known[body["run"]] = Charge(
                    body["time"], body["run"], None, row, body["steps"] // body["rounds"],
                    body["epsilon_after"],
                )  # fmt: skip
                found.append(known[body["run"]])
            elif body["kind"] == "round" and body["run"] in known:
                found.append(replace(known[body["run"]], time=body["time"], round=body["round"]))
        return tuple(found)

    def check_holds(self, *heads: str) -> None:
        """Refuse a ledger that lacks a head it once published: an older copy was restored.

        Raises:
            LedgerFault: no entry of this ledger has one of these digests.
        """
        known = {GENESIS, *(entry.digest for entry in self._journal.read())}
        for head in heads:
            if head not in known:
                raise LedgerFault(
                    f"the ledger at {self.path} lacks the published head {head}: it is an older "
                    "copy or another ledger; restore the newest, for this one forgets what was "
                    "spent"
                )


def _request(
    cohort: str, run: str, plan_digest: str, mechanism: Mechanism, rounds: int, delta: float
) -> dict[str, Any]:
    """Check what is asked for and put it in the words of a reservation entry."""
    if not (cohort and run and plan_digest):
        raise PlanInvalid(
            "a reservation needs a cohort, a run and a plan digest; none may be empty"
        )
    check_delta(delta)
    if type(rounds) is not int or rounds < 1:
        raise PlanInvalid(f"rounds is {rounds!r}; give a whole number of at least 1")
    if mechanism.steps % rounds != 0:
        raise PlanInvalid(
            f"{mechanism.steps} steps do not divide into {rounds} rounds; change one of the two"
        )
    return {
        "kind": "reservation",
        "cohort": cohort,
        "run": run,
        "plan_digest": plan_digest,
        "noise_multiplier": float(mechanism.noise_multiplier),
        "sample_rate": float(mechanism.sample_rate),
        "steps": mechanism.steps,
        "rounds": rounds,
        "delta": float(delta),
    }


def _repeated(entry: Entry, wanted: Mapping[str, Any], cap: float) -> Reservation:
    """Answer a reservation that was made before, unless anything about it has changed."""
    for key, value in wanted.items():
        if entry.body[key] != value:
            raise PlanInvalid(
                f"run {wanted['run']} was reserved with another {key}; a plan is fixed once its "
                "budget is reserved, so give the new plan a new run name"
            )
    after = entry.body["epsilon_after"]
    if not after <= cap:
        raise BudgetExhausted(
            f"run {wanted['run']} reaches epsilon {after:.4g} and the cap is now {cap:g}; "
            "raise the cap again or give the run up"
        )
    body = entry.body
    return Reservation(
        body["run"], body["plan_digest"], body["epsilon_before"], after, entry.digest
    )


def _begun(entries: Sequence[Entry], run: str) -> set[int]:
    return {
        entry.body["round"]
        for entry in entries
        if entry.body["kind"] == "round" and entry.body["run"] == run
    }


def _rows(entries: Sequence[Entry], cohort: str | None = None) -> tuple[Row, ...]:
    return tuple(
        Row(
            index=entry.position,
            rounds_begun=len(_begun(entries, entry.body["run"])),
            digest=entry.digest,
            **{name: entry.body[name] for name in _ROW_FIELDS},
        )
        for entry in entries
        if entry.body["kind"] == "reservation" and cohort in (None, entry.body["cohort"])
    )


_ROW_FIELDS = tuple(
    field.name for field in fields(Row) if field.name not in ("index", "rounds_begun", "digest")
)


def _check_cap(cap: float) -> None:
    if not 0.0 < cap < math.inf:
        raise PlanInvalid(f"the cap is {cap}; give a finite epsilon over 0")


def _check_one_delta(rows: Sequence[Row], delta: float) -> None:
    for row in rows:
        if row.delta != delta:
            raise PlanInvalid(
                f"cohort {row.cohort} is accounted at delta {row.delta:g}, not {delta:g}; "
                "one cohort keeps one delta"
            )
