"""The institution's policy on identifiers in questions and answers."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping
from typing import Any, Protocol

from client.errors import ClientError
from configs.serving import PolicyTable
from privacy.errors import Quarantined


class Refused(Exception):
    """The policy does not let this text through; `code` says why and quotes nothing."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class Tool(Protocol):
    """What finds identifiers: `privacy.scrub.Scrubber`, or a stand-in in tests."""

    def scrub(self, text: str, *, person: str) -> Any:
        """Replace identifiers; raises Quarantined for a text that it cannot vouch for."""


class Policy:
    """Applies one policy; a text that cannot be judged is refused."""

    def __init__(self, table: PolicyTable, tool: Tool | None) -> None:
        self.table, self._tool = table, tool

    @classmethod
    def load(cls, table: PolicyTable) -> Policy:
        """Load the scrubber if the policy needs it.

        Raises:
            ScrubberError: the scrubber is not what it must be.
            ClientError: its packages are not installed.
        """
        if table.input == table.output == "off":
            return cls(table, None)
        try:
            from privacy.scrub import Scrubber
        except ModuleNotFoundError:
            raise ClientError(
                "policy.input and policy.output need the scrub's packages; in privity's folder "
                "run: pip install '.[client]', or set both to \"off\"",
                code="no-scrubber",
            ) from None

        # A fresh key: surrogates agree within this process and say nothing about any other's.
        secret = secrets.token_bytes(32)
        return cls(
            table, Scrubber.load(profile=table.profile, language=table.language, secret=secret)
        )

    @property
    def holds_answers(self) -> bool:
        """Whether an answer is looked at as a whole before any of it is given away."""
        return self.table.output != "off"

    async def ask(
        self, messages: tuple[Mapping[str, str], ...], *, person: str
    ) -> tuple[Mapping[str, str], ...]:
        """Apply the policy to a question.

        Raises:
            Refused: it has an identifier and those are refused, or it cannot be judged.
        """
        if self.table.input == "off":
            return messages
        passed = []
        for message in messages:
            done = await self._scrub(message["content"], person)
            if self.table.input == "refuse" and done.spans:
                raise Refused("identifiers")
            passed.append({**message, "content": done.text})
        return tuple(passed)

    async def answer(self, text: str, *, person: str) -> str:
        """Apply the policy to a whole answer.

        Raises:
            Refused: it cannot be judged.
        """
        if self.table.output == "off" or not text.strip():
            return text
        done = await self._scrub(text, person)
        return str(done.text)

    async def _scrub(self, text: str, person: str) -> Any:
        if self._tool is None:
            raise Refused("no-scrubber")
        if not text.strip():
            return _Nothing
        try:
            return await asyncio.to_thread(self._tool.scrub, text, person=person)
        except Quarantined as fault:
            raise Refused(fault.code) from None


class _Nothing:
    text = ""
    spans = ()
