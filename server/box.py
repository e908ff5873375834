"""The files of one run: questions that wait to be carried to a site, answers that were brought."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from audit.keys import KeyRing
from configs import files
from privacy import parcel
from privacy.errors import PrivacyError
from privacy.parcel import Facts, Parcel
from privacy.wire import Close, Message, Propose, Round, unpack
from server.turn import Reply

_END = ".safetensors"
_QUESTIONS: Mapping[str, Any] = {"propose": Propose, "round": Round, "close": Close}


@dataclass(frozen=True, slots=True)
class Box:
    """Two folders of a run: `outgoing` and `incoming`, one parcel a site in each at most.

    Only the process that runs the run writes questions and takes answers; `privity server import`
    adds answers, each to a question that is out.
    """

    path: Path
    keys: KeyRing = field(repr=False)

    def leave(self, site: str, message: Message) -> None:
        """Write a question for `site`, unless the same one is out already."""
        known = self._asked(site)
        if known is not None and _same(known, message):
            return
        header: Any = unpack(message, _QUESTIONS[message.kind])
        place = self.outgoing(site)
        place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        data = parcel.write(
            message,
            sign=self.keys.event.sign,
            direction="down",
            exchange=secrets.token_hex(16),
            site=site,
            run=header.run,
            round=header.round if message.kind == "round" else -1,
        )
        self.incoming(site).unlink(missing_ok=True)
        files.replace(place, data, mode=files.PRIVATE)

    def outgoing(self, site: str) -> Path:
        """Where the question for a site lies."""
        return self.path / "outgoing" / f"{site}{_END}"

    def incoming(self, site: str) -> Path:
        """Where the answer of a site lies, until the run takes it."""
        return self.path / "incoming" / f"{site}{_END}"

    def left(self) -> frozenset[str]:
        """Sites whose answer is outstanding."""
        return frozenset(path.stem for path in (self.path / "outgoing").glob(f"*{_END}"))

    def question(self, site: str) -> Facts | None:
        """What a site is asked, or None."""
        found = self._asked(site)
        return found.facts if found else None

    def withdraw(self, site: str) -> None:
        """Take a question back, and the answer that nobody has taken yet."""
        self.outgoing(site).unlink(missing_ok=True)
        self.incoming(site).unlink(missing_ok=True)

    def settle(self) -> None:
        """Take every question about a round back; a plan may be answered still."""
        for site in self.left():
            asked = self.question(site)
            if asked is None or asked.round >= 0:
                self.withdraw(site)

    def arrived(self, number: int) -> list[Reply]:
        """Answers about the plan, or round `number`, that are asked for, each once."""
        replies = []
        for path in sorted((self.path / "incoming").glob(f"*{_END}")):
            site, asked = path.stem, self.question(path.stem)
            if asked is not None and asked.round not in (-1, number):
                continue
            try:
                # `import` checked the signature; the folder is ours.
                brought = parcel.read(path.read_bytes(), check=lambda *_: None)
            except (OSError, PrivacyError):
                brought = None
            self.withdraw(site)
            if brought and asked and brought.facts.exchange == asked.exchange:
                replies.append(Reply(site, brought.message, brought.facts.failure or None))
        return replies

    def _asked(self, site: str) -> Parcel | None:
        try:
            return parcel.read(self.outgoing(site).read_bytes(), check=lambda *_: None)
        except (OSError, PrivacyError):
            return None


def _same(known: Parcel, message: Message) -> bool:
    """Whether a question that is out asks the same, from the same state of the site's log."""
    if known.message is None or known.message.kind != message.kind:
        return False
    fields = (
        "have",
        "cosigned",
        "run",
        "plan",
        "round",
        "plan_digest",
        "input_digest",
        "release_digest",
    )
    old, new = (json.loads(m.header) for m in (known.message, message))
    return all(old.get(key) == new.get(key) for key in fields)
