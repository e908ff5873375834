"""A reader's decisions as recognisers in Presidio's YAML, for the site to switch on.

What was missed becomes a recogniser with a deny list for each type; what was taken and should not
have been becomes the list of allowed words. The file holds record text: it stays at the site.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from configs import files

TYPES = (
    "PERSON", "RECORD_NUMBER", "NATIONAL_ID", "PHONE_NUMBER", "EMAIL_ADDRESS", "ADDRESS",
    "LOCATION", "ORGANIZATION", "DATE_TIME", "CREDIT_CARD", "IBAN_CODE", "URL",
)  # fmt: skip


def document(decisions: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The decisions as Presidio's YAML has them: `recognizers`, and `allow_list` beside them."""
    deny: defaultdict[str, set[str]] = defaultdict(set)
    allow: set[str] = set()
    for decision in decisions.values():
        for kind, text in decision["deny"]:
            deny[kind].add(text)
        allow |= set(decision["allow"])
    return {
        "recognizers": [
            {
                "name": f"Reviewed {kind}",
                "supported_language": "en",
                "supported_entity": kind,
                "deny_list": sorted(words),
            }
            for kind, words in sorted(deny.items())
        ],
        "allow_list": sorted(allow),
    }


def write(path: Path, decisions: Mapping[str, Mapping[str, Any]]) -> tuple[int, int]:
    """Write the lists, mode 0600.

    Returns:
        How many words are denied and how many allowed.
    """
    import yaml

    made = document(decisions)
    head = b"# From a review of de-identification. Holds words of records: keep it at the site.\n"
    body = yaml.safe_dump(made, allow_unicode=True, sort_keys=False).encode()
    files.replace(path, head + body, mode=files.PRIVATE)
    return sum(len(one["deny_list"]) for one in made["recognizers"]), len(made["allow_list"])
