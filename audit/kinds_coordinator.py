"""Kinds of events in the coordinator's log, with their fields."""

from __future__ import annotations

from collections.abc import Mapping

from audit.fields import (
    CODE,
    COUNT,
    DECIMAL,
    DIGEST,
    DOCUMENT,
    KEYS,
    NAME,
    NOTE,
    TEXT,
    ListOf,
    MapOf,
    OneOf,
    Table,
)

_SCORES = Table({"accuracy": DECIMAL, "loss": DECIMAL, "macro_f1": DECIMAL})
_UPDATE = Table({"institution": NAME, "update_digest": DIGEST})
_COMMITMENT = Table({"recipient": NAME, "commitment": DIGEST})
_COPY = Table({"recipient": NAME, "adapter_digest": DIGEST})
KINDS: Mapping[str, Table] = {
    "institution-joined": Table({"name": NAME, "keys": KEYS}),
    "institution-revoked": Table({"name": NAME}),
    # Somebody without the right key or token; at most a few of each sort are written down.
    "access-refused": Table({"interface": OneOf(("fleet", "control", "runtime", "other"))}),
    "institution-renewed": Table({"name": NAME, "node_key_digest": DIGEST}),
    "run-started": Table(
        {
            "plan_digest": DIGEST,
            "plan": DOCUMENT,
            "institutions": ListOf(NAME, distinct=True),
            "quorum": COUNT,
        }
    ),
    "update-accepted": Table(
        {
            "institution": NAME,
            "update_digest": DIGEST,
            "site_size": COUNT,
            "site_root": DIGEST,
            "statement_index": COUNT,
            "statement_leaf": DIGEST,
        }
    ),
    "update-rejected": Table({"institution": NAME, "reason": CODE}),
    "aggregation": Table(
        {
            "method": TEXT,
            "inputs": ListOf(_UPDATE, distinct=True),
            "input_adapter": DIGEST,
            "output_adapter": DIGEST,
        }
    ),
    "round-closed": Table(
        {
            "accepted": ListOf(NAME, distinct=True),
            "rejected": ListOf(NAME, distinct=True),
            "absent": ListOf(NAME, distinct=True),
            "site_checkpoints": MapOf(NOTE),
        }
    ),
    # Before anything is sent: subkeys bound to the log's head (RFC 6962) right before this entry.
    "watermark-keys": Table(
        {
            "tree_size": COUNT,
            "tree_root": DIGEST,
            "basis_digest": DIGEST,
            "table_digest": DIGEST,
            "detector_digest": DIGEST,
            "strength": DECIMAL,
            "commitments": ListOf(_COMMITMENT, distinct=True),
        },
        # "unmarked" where what travels is no factor B that a mark could be put into.
        {"broadcasts": OneOf(("unmarked",))},
    ),
    # What each site gets as the start of a round; its own statement names the same digest.
    "broadcast-marked": Table(
        {"input_adapter": DIGEST, "copies": ListOf(_COPY, distinct=True)},
        {"reference_halves": ListOf(DIGEST)},
    ),
    "watermark-committed": Table(
        {
            "reference_digest": DIGEST,
            "basis_digest": DIGEST,
            "table_digest": DIGEST,
            "detector_digest": DIGEST,
            "strength": DECIMAL,
            "commitments": ListOf(_COMMITMENT, distinct=True),
        },
        # Digests of the modules of even and of odd layers, so that one half can be opened alone; of
        # the product that copies are made of, where other arrays than its B were trained.
        {"reference_halves": ListOf(DIGEST), "product_digest": DIGEST},
    ),
    "watermark-embedded": Table({"copies": ListOf(_COPY, distinct=True)}),
    "evaluation": Table({"data": TEXT, "records": COUNT, "base": _SCORES, "released": _SCORES}),
    "release": Table(
        {
            "adapter_digest": DIGEST,
            "reference_digest": DIGEST,
            "card_digest": DIGEST,
            "bom_digest": DIGEST,
            "claims": ListOf(
                Table(
                    {
                        "institution": NAME,
                        "epsilon": DECIMAL,
                        "delta": DECIMAL,
                        "cap": DECIMAL,
                        "unit": TEXT,
                        "adjacency": TEXT,
                    }
                ),
                distinct=True,
            ),
        },
        {"folder_digest": DIGEST},
    ),
    # The mean loss on public records after a round, by which the plan's rule may end the run.
    "public-loss": Table({"data_digest": DIGEST, "loss": DECIMAL}),
    "run-finished": Table(
        {"outcome": CODE, "rounds": COUNT, "participants": ListOf(NAME, distinct=True)}
    ),
}
IN_ROUND = frozenset(
    {
        "aggregation",
        "broadcast-marked",
        "public-loss",
        "round-closed",
        "update-accepted",
        "update-rejected",
    }
)
IN_RUN = IN_ROUND | {
    "evaluation",
    "release",
    "run-finished",
    "run-started",
    "watermark-committed",
    "watermark-embedded",
    "watermark-keys",
}
