"""Kinds of events that both an institution and the coordinator may log, with their fields.

Fields that end in `_commitment` are salted digests of values that may be personal; the values lie
in the log's erasable table of disclosures (`audit.disclosures`), never in the log.
"""

from __future__ import annotations

from collections.abc import Mapping

from audit.fields import (
    CODE,
    COUNT,
    DIGEST,
    KEYS,
    NAME,
    NOTE,
    SETTING,
    TEXT,
    TICKET,
    TIME,
    ListOf,
    OneOf,
    Table,
)

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
        },
        # Of a period rather than of one request: how many, in the power of ten, and salted exactly.
        {
            "requests": OneOf(("1-9", "10-99", "100-999", "1000-or-more")),
            "requests_commitment": DIGEST,
        },
    ),
    # Salted digests of the whole; `keys` names the settings that differ, without their values.
    "config-changed": Table(
        {
            "subject": CODE,
            "before_commitment": DIGEST,
            "after_commitment": DIGEST,
            "by_commitment": DIGEST,
        },
        {"keys": ListOf(SETTING, distinct=True)},
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
        },
        # Of a closed one: the entry that opened it. A ticket's number in a system of the party.
        {"opened": COUNT, "reference": TICKET},
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
    # A term that ended: what was kept of before that time is erased, and how much that was. The
    # commitment is to the list of (name, SHA-256) of files, or of (name, count) of rows.
    "retention-pruned": Table(
        {"retention": OneOf(("evidence", "access", "ops")), "before": TIME, "disclosures": COUNT},
        {"files": COUNT, "rows": COUNT, "listed_commitment": DIGEST},
    ),
}
IN_RUN: frozenset[str] = frozenset()
# Written for every request: in a long log they are signed through the chain, see audit.reading.
BULK = frozenset({"serving-access"})
# Whose values are kept for the term `access`; the values of all other kinds are `evidence`.
ACCESS = frozenset({"serving-access"})
