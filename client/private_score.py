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
from client.released import Released
from privacy import plan as accounting
from privacy.csprng import Csprng
from privacy.plan import Mechanism

Progress = Callable[[str, int, int], None]
_ARMS = ("base", "released")
_MAX_PERSON_RECORDS = 16  # of one person are asked about: bounds the time, not the privacy


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
    released: Released,
    *,
    epsilon: float,
    progress: Progress = lambda what, done, total: None,
) -> PrivateScore:
    """Score base and release on the site's records, at a price.

    Args:
        folder: the institution's; its ledger is charged before a record is opened, and what was
            charged is never given back.
        released: a verified release that was trained on labels.
        epsilon: what the evaluation may cost at the budget's δ.
        progress: called with (arm, done, total).

    Returns:
        Two numbers; nothing else about the records leaves this function.

    Raises:
        BudgetExhausted: the cap would be exceeded; nothing was opened.
        ClientError: the release has no labels, or the records cannot be used.
    """
    if not released.labels:
        raise ClientError(
            "only a release with labels is scored on private records: written answers have no "
            "bounded figure; use public records for them",
            code="no-labels",
        )
    budget = folder.settings.budget
    noise = accounting.find_noise(epsilon=epsilon, delta=budget.delta, sample_rate=1.0, steps=1)
    row = Mechanism(noise, 1.0, 1)
    run = f"evaluation-{secrets.token_hex(6)}"
    document = {
        "evaluation": released.name,
        "arms": list(_ARMS),
        "noise_multiplier": decimal(noise),
        "clip_norm": decimal(math.sqrt(len(_ARMS))),
    }
    digest = canonical.digest(canonical.encode(document))
    withdrawals.check(folder)
    with folder.lock():
        after = _charge(folder, run, digest, row)
        shares = _shares(folder, released, progress)
    total = shares.sum(axis=0) + Csprng().normal((len(_ARMS),), noise * math.sqrt(len(_ARMS)))
    found = np.clip(total / len(shares), 0.0, 1.0)
    return PrivateScore(
        run=run,
        base=float(found[0]),
        released=float(found[1]),
        error=noise * math.sqrt(len(_ARMS)) / len(shares),
        epsilon=accounting.epsilon([row], delta=budget.delta),
        epsilon_after=after,
        delta=budget.delta,
        cap=budget.epsilon,
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


def _shares(folder: Folder, released: Released, progress: Progress) -> np.ndarray:
    """Share of right answers by person and arm, shape (persons, 2); who has none counts as 0."""
    from model import scoring

    reading, said = people.read(folder), people.stated(folder)
    done = people.scrub(reading, people.scrubber(folder), said=said)
    held: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for note in done.notes:
        answer, mine = note.response.strip(), held[note.person]
        if answer in released.labels and len(mine) < _MAX_PERSON_RECORDS:
            mine.append((note.instruction, answer))
    everybody = list(done.people)
    shares = np.zeros((len(everybody), len(_ARMS)))
    flat = [(place, row) for place, who in enumerate(everybody) for row in held.get(who, ())]
    if not flat:
        return shares
    index = {label: place for place, label in enumerate(released.labels)}
    counts = np.bincount([place for place, _ in flat], minlength=len(everybody))
    for arm, name in enumerate(_ARMS):
        with released.arm(tuned=name == "released") as model:
            # Choosing the rule by the records would be a further question to them.
            chosen = scoring.choose(
                model, released.base, [row[0] for _, row in flat], released.labels,
                rule="choice" if released.chooses else "calibrated",
                progress=partial(progress, name),
            )  # fmt: skip
        for (place, row), best in zip(flat, chosen.best, strict=True):
            shares[place, arm] += (index[row[1]] == best) / counts[place]
    return shares
