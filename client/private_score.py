"""The one way to evaluate on an institution's own records: charged, noised, two numbers.

Each person's share of right answers, a number within [0, 1] for each arm, is summed, and Gaussian
noise is added once. Zeroing out all records of one person moves the pair of sums by at most the
square root of two, which is the clip norm of a Gaussian mechanism with sample rate 1 and one step:
the ledger composes it with training as it composes any other row.
"""

from __future__ import annotations

import math
import secrets
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from audit import canonical
from audit.events import decimal
from client import charge, people, withdrawals
from client.errors import ClientError
from client.folder import Folder
from client.records import Reading
from client.released import Released
from privacy import plan as accounting
from privacy.csprng import Csprng
from privacy.plan import Mechanism

Progress = Callable[[str, int, int], None]
_ARMS = ("base", "released")
_MOST_EPSILON = 2.0  # of one evaluation
MAX_ERROR = 0.1  # two standard deviations are then twenty points of a hundred
_MAX_PERSON_RECORDS = 16  # of one person are asked about: bounds the time, not the privacy


@dataclass(frozen=True, slots=True)
class Foreseen:
    """What a private score will be worth, known before it is paid for.

    Attributes:
        persons: with a readable record; the claim does not hide how many they are.
        noise: multiplier of the Gaussian mechanism.
        error: standard deviation of the noise in each share.
        gap: the same of the difference between the two shares.
    """

    persons: int
    noise: float
    error: float
    gap: float


@dataclass(frozen=True, slots=True)
class PrivateScore:
    """Two noised shares and what they cost.

    Attributes:
        base: mean over persons of the share of their records that the base model answers rightly,
            with noise; within [0, 1].
        released: the same of the release.
        error: standard deviation of the noise in each.
        epsilon: what this evaluation cost alone, at `delta`.
        epsilon_after: of the cohort, with everything so far.
    """

    run: str
    base: float
    released: float
    error: float
    epsilon: float
    epsilon_after: float
    delta: float
    cap: float


def score(
    folder: Folder,
    load: Callable[[], Released],
    *,
    epsilon: float,
    max_error: float = MAX_ERROR,
    foreseen: Callable[[Foreseen], None] = lambda found: None,
    progress: Progress = lambda what, done, total: None,
) -> PrivateScore:
    """Score base and release on the site's records, at a price.

    Args:
        folder: the institution's; its ledger is charged before anything but the number of persons
            is taken from the records, and what was charged is never given back.
        load: returns a verified release that was trained on labels; called before the charge, and
            not at all where something else refuses already.
        epsilon: what the evaluation may cost at the budget's δ.
        max_error: the noise in a share may have this standard deviation.
        foreseen: told what the score will be worth, before it is charged.
        progress: called with (arm, done, total).

    Returns:
        Two numbers; nothing else about the records leaves this function.

    Raises:
        BudgetExhausted: the cap would be exceeded; nothing was charged.
        ClientError: the release has no labels, the records or the scrubber cannot be used, or
            (exit code 3) the noise would drown what it is added to; nothing was charged.
    """
    budget = folder.settings.budget
    withdrawals.check(folder)
    ahead = foresee(folder, epsilon=epsilon)
    foreseen(ahead)
    _check(ahead, max_error, delta=budget.delta)
    released = load()
    if not released.labels:
        raise ClientError(
            "only a release with labels is scored on private records: written answers have no "
            "bounded figure; use public records for them",
            code="no-labels",
        )
    tool = people.scrubber(folder)
    noise = ahead.noise
    row = Mechanism(noise, 1.0, 1)
    run = f"evaluation-{secrets.token_hex(6)}"
    document = {
        "evaluation": released.name,
        "arms": list(_ARMS),
        "noise_multiplier": decimal(noise),
        "clip_norm": decimal(math.sqrt(len(_ARMS))),
    }
    digest = canonical.digest(canonical.encode(document))
    with folder.lock():
        after = _charge(folder, run, digest, row)
        shares = _shares(folder, released, tool, progress)
    total = shares.sum(axis=0) + Csprng().normal((len(_ARMS),), noise * math.sqrt(len(_ARMS)))
    found = np.clip(total / len(shares), 0.0, 1.0)
    return PrivateScore(
        run=run,
        base=float(found[0]),
        released=float(found[1]),
        error=_error(noise, len(shares)),
        epsilon=accounting.epsilon([row], delta=budget.delta),
        epsilon_after=after,
        delta=budget.delta,
        cap=budget.epsilon,
    )


def foresee(folder: Folder, *, epsilon: float) -> Foreseen:
    """Tell the noise of a private score from the number of persons; charges nothing.

    Raises:
        ClientError: the records cannot be used.
    """
    persons = len(_everybody(people.read(folder)))
    noise = accounting.find_noise(
        epsilon=epsilon, delta=folder.settings.budget.delta, sample_rate=1.0, steps=1
    )
    error = _error(noise, persons)
    return Foreseen(persons, noise, error, error * math.sqrt(len(_ARMS)))


def _everybody(reading: Reading) -> list[str]:
    return sorted({*reading.also, *(record.person for record in reading.records)})


def _error(noise: float, persons: int) -> float:
    return noise * math.sqrt(len(_ARMS)) / persons


def _check(ahead: Foreseen, max_error: float, *, delta: float) -> None:
    """Refuse a score that would say nothing, with what it takes to say something."""
    if not max_error > 0:
        raise ClientError("--max-error must be a number over 0", code="bad-option")
    if ahead.error <= max_error:
        return
    remedy = f"wait for {math.ceil(ahead.error * ahead.persons / max_error)} persons"
    enough = Mechanism(max_error * ahead.persons / math.sqrt(len(_ARMS)), 1.0, 1)
    price = accounting.epsilon([enough], delta=delta)
    if price <= _MOST_EPSILON:
        remedy = f"give --epsilon {math.ceil(100 * price) / 100:g}, or {remedy}"
    raise ClientError(
        f"with {ahead.persons} persons each share would carry noise of standard deviation "
        f"{ahead.error:.3f}, more than --max-error {max_error:g}, and say little or nothing; "
        f"nothing was charged; {remedy}",
        code="too-noisy",
        exit_code=3,
    )


def _charge(folder: Folder, run: str, digest: str, row: Mechanism) -> float:
    """Reserve and begin, in the ledger and then in the log, before anything is opened."""
    log = folder.log()
    try:
        reservation = charge.reserve(folder, log, run=run, plan_digest=digest, row=row)
    finally:
        log.close()
    folder.ledger().begin_round(run, 0, input_digest=digest)
    return reservation.epsilon_after


def _shares(
    folder: Folder, released: Released, tool: people.Scrubber, progress: Progress
) -> np.ndarray:
    """Share of right answers by person and arm, shape (persons, 2); who has none counts as 0."""
    from model import scoring

    reading, said = people.read(folder), people.stated(folder)
    try:
        notes = people.scrub(reading, tool, said=said).notes
    except ClientError as fault:
        if fault.code != "all-quarantined":
            raise
        notes = ()  # everybody counts as 0: a refusal would tell of the records without noise
    held: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for note in notes:
        answer, mine = note.response.strip(), held[note.person]
        if answer in released.labels and len(mine) < _MAX_PERSON_RECORDS:
            mine.append((note.instruction, answer))
    everybody = _everybody(reading)
    shares = np.zeros((len(everybody), len(_ARMS)))
    flat = [(place, row) for place, who in enumerate(everybody) for row in held.get(who, ())]
    if not flat:
        return shares
    index = {label: place for place, label in enumerate(released.labels)}
    counts = np.bincount([place for place, _ in flat], minlength=len(everybody))
    for arm, name in enumerate(_ARMS):
        with released.arm(tuned=name == "released") as model:
            # Choosing the rule by the records would be a further question to them. Apart: the
            # nearest of two labels is no smooth figure, and rounding may decide between them.
            chosen = scoring.choose(
                model, released.base, [row[0] for _, row in flat], released.labels,
                rule="choice" if released.chooses else "calibrated",
                progress=partial(progress, name), apart=True,
            )  # fmt: skip
        for (place, row), best in zip(flat, chosen.best, strict=True):
            shares[place, arm] += (index[row[1]] == best) / counts[place]
    return shares
