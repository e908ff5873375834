"""From an answer's tokens to its text as they come, without a piece that must be taken back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

_UNFINISHED: Final = "\N{REPLACEMENT CHARACTER}"  # half a character: its other bytes are to come


class Spelling:
    """The text of one answer, token by token.

    Guarantees: all pieces together are what the tokens decode to, without control tokens, without
        white space around it (before it only if it `continues` a text, which it is put behind), and
        up to the first of `stops`, which is left out.
    """

    def __init__(
        self, tokenizer: Any, stops: Sequence[str] = (), *, continues: bool = False
    ) -> None:
        self._tokenizer = tokenizer
        self._stops = tuple(stops)
        self._continues = continues
        self._tokens: list[int] = []
        self._from = self._to = 0  # tokens before `_to` are read; from `_from` on they are context
        self._text = ""  # everything read
        self._said = 0  # code points of it that were given away
        self.stopped = False

    def add(self, token: int) -> str:
        """Take one token; return the text that is certain now and was not before."""
        self._tokens.append(token)
        before = self._decode(self._tokens[self._from : self._to])
        after = self._decode(self._tokens[self._from :])
        if len(after) > len(before) and not after.endswith(_UNFINISHED):
            self._text += after[len(before) :]
            if not self._said and not self._continues:
                self._text = self._text.lstrip()
            self._from, self._to = self._to, len(self._tokens)
        self._cut()
        return self._say(len(self._text) if self.stopped else self._certain())

    def end(self) -> str:
        """No more tokens come; return the rest of the text."""
        if not self.stopped:
            whole = self._decode(self._tokens).rstrip()
            whole = whole if self._continues else whole.lstrip()
            if whole.startswith(self._text[: self._said]):
                self._text = whole
            self._cut()
        return self._say(len(self._text.rstrip()))

    def _cut(self) -> None:
        found = [place for stop in self._stops if (place := self._text.find(stop)) >= 0]
        if found and not self.stopped:
            self._text, self.stopped = self._text[: min(found)].rstrip(), True

    def _certain(self) -> int:
        """How far no stop can begin and no white space can turn out to be the end."""
        end = len(self._text)
        for stop in self._stops:
            for length in range(min(len(stop) - 1, len(self._text)), 0, -1):
                if self._text.endswith(stop[:length]):
                    end = min(end, len(self._text) - length)
                    break
        return len(self._text[:end].rstrip())

    def _say(self, end: int) -> str:
        piece = self._text[self._said : max(end, self._said)]
        self._said += len(piece)
        return piece

    def _decode(self, tokens: Sequence[int]) -> str:
        text: str = self._tokenizer.decode(list(tokens), skip_special_tokens=True)
        return text
