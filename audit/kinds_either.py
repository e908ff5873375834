"""Kinds of events that both an institution and the coordinator may log, with their fields.

Fields that end in `_commitment` are salted digests of values that may be personal; the values lie
in the log's erasable table of disclosures (`audit.disclosures`), never in the log.
"""

from __future__ import annotations

from collections.abc import Mapping

from audit.fields import CODE, COUNT, DIGEST, KEYS, NAME, NOTE, TEXT, TIME, ListOf, OneOf, Table

KINDS: Mapping[str, Table] = {
    "log-started": Table(
        {"origin": TEXT, "software": TEXT, "keys": KEYS},
        {"keys_expire": TIME},
    ),
    # `note` is signed by the old and the new log key: see audit.rotation.
    "key-rotated": Table({"keys": KEYS, "reason": CODE, "note": NOTE}, {"keys_expire": TIME}),
    # A message that people carried as a file, or a file that was refused.
    "exchange": Table(
        {
            "direction": OneOf(("out", "in")),
            "verdict": OneOf(("written", "taken", "refused")),
            "code": CODE,
            "file_digest": DIGEST,
        },
        {"institution": NAME},  # whose signature it bears, or whom it is for
    ),
    # Of a key that was rotated away: nothing that it signed after `size` entries counts.
    "key-revoked": Table({"log_key": TEXT, "size": COUNT, "reason": CODE}),
    "serving-access": Table(
        {
            "adapter_digest": DIGEST,
            "route": CODE,
            "outcome": CODE,
            "caller_commitment": DIGEST,
        }
    ),
    "config-changed": Table(
        {"subject": CODE, "before": DIGEST, "after": DIGEST, "by_commitment": DIGEST}
    ),
    "export": Table(
        {"form": CODE, "digest": DIGEST, "entries": COUNT, "recipient_commitment": DIGEST}
    ),
    "verifier-run": Table(
        {"bundle_digest": DIGEST, "verdict": OneOf(("ok", "faults"))},
        {"faults": ListOf(CODE, distinct=True)},
    ),
    "incident": Table(
        {
            "code": CODE,
            "severity": OneOf(("low", "medium", "high")),
            "state": OneOf(("opened", "closed")),
            "description_commitment": DIGEST,
        }
    ),
    # The clock showed `seen` after it had shown `before`; entries went on from `before`.
    "clock-anomaly": Table({"before": TIME, "seen": TIME}),
    # Both notes, signed by the refused log, are what shows a stranger what it did.
    "witness-refused": Table(
        {"origin": TEXT, "reason": CODE},
        {"older": NOTE, "newer": NOTE},
    ),
    # Which entries had a disclosure erased, and of which fields; never of what.
    "disclosure-erased": Table(
        {
            "erased": ListOf(Table({"entry": COUNT, "field": CODE}), distinct=True),
            "reason": CODE,
        }
    ),
    "retention-pruned": Table(
        {"retention": OneOf(("evidence", "access", "ops")), "before": TIME, "disclosures": COUNT}
    ),
}
IN_RUN: frozenset[str] = frozenset()
# Written for every request: in a long log they are signed through the chain, see audit.reading.
BULK = frozenset({"serving-access"})
