"""Kinds of events in an institution's log, with their fields."""

from __future__ import annotations

from collections.abc import Mapping

from audit.fields import CODE, COUNT, DECIMAL, DIGEST, NAME, TEXT, OneOf, Table, Type

_HELD = OneOf(("passed", "failed"))


def _all(kind: Type, *names: str) -> dict[str, Type]:
    """Several fields of one type."""
    return dict.fromkeys(names, kind)


KINDS: Mapping[str, Table] = {
    "approval": Table(
        {
            "plan_digest": DIGEST,
            "decision": OneOf(("approved", "refused")),
            "by": OneOf(("operator", "policy")),
        }
    ),
    "pii-scrub": Table(
        {"profile": CODE, "scrubber_digest": DIGEST, "records_commitment": DIGEST},
    ),
    # A person's reading of a random sample. Counts of the sample only, and of no record's content.
    "scrub-review": Table(
        {
            "reviewer": NAME,
            "scrubber_digest": DIGEST,
            **_all(COUNT, "sampled", "accepted", "missed", "damaged"),
            "miss_bound": DECIMAL,  # at 95 % confidence: the share of records with a miss
            "report_digest": DIGEST,
        }
    ),
    # That somebody withdrew, and nothing about whom: the site can show it with its salt.
    "withdrawal": Table({"person_commitment": DIGEST}),
    "budget-reserved": Table(
        {
            "plan_digest": DIGEST,
            "cohort_commitment": DIGEST,
            "noise_multiplier": DECIMAL,
            "sample_rate": DECIMAL,
            "steps": COUNT,  # over all rounds
            "rounds": COUNT,
            "delta": DECIMAL,
            "epsilon_before": DECIMAL,
            "epsilon_after": DECIMAL,
            "cap": DECIMAL,
            "ledger_head": DIGEST,
        }
    ),
    "dp-training": Table(
        {
            "plan_digest": DIGEST,
            "noise_multiplier": DECIMAL,
            "sample_rate": DECIMAL,
            "steps": COUNT,  # in this round
            "clip_norm": DECIMAL,
            "unit": TEXT,
            "adjacency": TEXT,
            "accountant": TEXT,
            "delta": DECIMAL,
            "ledger_head": DIGEST,
            "input_digest": DIGEST,
        },
        # How many columns of each B were trained, where that is not all of them.
        {"columns": COUNT},
    ),
    "egress": Table(
        {"verdict": OneOf(("cleared", "denied")), "code": CODE, "update_digest": DIGEST}
    ),
    "node-key-renewed": Table({"node_key_digest": DIGEST}),
    "release-received": Table({"release_digest": DIGEST}),
    # What was asked here, and the fixed word that left in place of an answer, if any word left.
    "request-refused": Table(
        {
            "request": OneOf(("propose", "round", "close", "task", "answer", "unknown")),
            "word": CODE,
        },
        {"plan_digest": DIGEST},
    ),
    # Whether the process that opens records could be cut off from the network.
    "trainer-started": Table({"network": OneOf(("none", "open"))}),
    # Attacks on the software with made-up people: nothing in it depends on a record.
    "privacy-audit": Table(
        {
            "plan_digest": DIGEST,
            "core_digest": DIGEST,  # of the source files that were attacked
            "effort": OneOf(("full", "quick")),
            **_all(DECIMAL, "epsilon", "delta"),  # what the plan claims
            "mechanism": Table(
                _all(DECIMAL, "mu_expected", "mu_estimate", "mu_bound")
                | {"draws": COUNT, "verdict": _HELD}
            ),
            "twin": Table(
                {
                    **_all(COUNT, "canaries", "guesses", "correct", "verbatim"),
                    # Rates are true positives at 1 % false ones.
                    **_all(DECIMAL, "epsilon_bound", "auc", "tpr", "tpr_low", "tpr_high"),
                    **{"ceiling": DECIMAL, "verdict": _HELD},
                }
            ),
            "control": Table(
                {
                    **_all(DECIMAL, "noise_multiplier", "epsilon_bound"),
                    "verdict": OneOf(("caught", "missed")),
                }
            ),
            "verdict": OneOf(("passed", "failed", "blind")),
            "report_digest": DIGEST,
        }
    ),
    # A period of service of one release: no question, no user and no number of either.
    "serving": Table(
        {
            "release_digest": DIGEST,
            "state": OneOf(("started", "going", "rolled-back", "stopped")),
            "engine": OneOf(("embedded", "upstream")),
            "input_policy": OneOf(("off", "scrub", "refuse")),
            "output_policy": OneOf(("off", "scrub")),
            "condition": OneOf(("idle", "good", "strained", "failing")),
        }
    ),
}
IN_ROUND = frozenset({"dp-training", "egress"})
IN_RUN = IN_ROUND | {
    "approval",
    "budget-reserved",
    "pii-scrub",
    "privacy-audit",
    "release-received",
    "trainer-started",
}
