"""Kinds of events in a compliance officer's own log, with their fields."""

from __future__ import annotations

from collections.abc import Mapping

from audit.fields import COUNT, DIGEST, NAME, OneOf, Table

SIGN_OFF = "review-signoff"
KINDS: Mapping[str, Table] = {
    # An officer read entries `first` to `last` of a party's log, which then had `size` entries
    # under `root`, in a bundle of that digest; no free text, which could name a person.
    SIGN_OFF: Table(
        {
            "bundle_digest": DIGEST,
            "log": NAME,
            "first": COUNT,
            "last": COUNT,
            "size": COUNT,
            "root": DIGEST,
            "verdict": OneOf(("ok", "faults")),  # the verifier's, at that moment
            "decision": OneOf(("reviewed", "objected")),
            "problems": COUNT,  # entries of the range that report one
        }
    ),
}
