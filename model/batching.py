"""Answer many conversations at once: rows join and leave the batch between two tokens.

One token for sixteen rows reads the weights once, as one token for one row does, and reading them
is what a token costs. Nothing here waits or locks: whoever owns a `Batch` calls it from one thread.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from model import architectures, forward, prompts
from model.errors import ModelError
from model.shelf import Shelf
from model.slab import Slab
from model.spelling import Spelling

# Chooses a row's next token from its logits, shape (vocabulary,), and the tokens of its answer so
# far, without the conversation; stands in for the choice by temperature and top_p. A mark in the
# text is such a choice. One for each answer: rows never share one.
Sampler = Callable[[npt.NDArray[np.float32], Sequence[int]], int]
Finish = Literal["stop", "length"]
LONGEST_STOP: Final = 200


@dataclass(frozen=True, slots=True)
class Ask:
    """One conversation to continue.

    Attributes:
        ids: its tokens, see `prompts.conversation`; never shown.
        max_new_tokens: the answer has at most this many.
        temperature: 0 takes the likeliest token each time; up to 2 samples ever more freely.
        top_p: sample among the likeliest tokens that together have this probability.
        stops: the answer ends before the first of these texts.
        adapter: the adapter on the shelf that answers; None is the base model.
        sampler: chooses the tokens in place of temperature and top_p.
        continues: the answer is put behind the text that was asked with, blanks and all.
    """

    ids: tuple[int, ...] = field(repr=False)
    max_new_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    stops: tuple[str, ...] = field(default=(), repr=False)
    adapter: str | None = None
    sampler: Sampler | None = None
    continues: bool = False

    @property
    def width(self) -> int:
        """Tokens that the row may come to hold."""
        return len(self.ids) + self.max_new_tokens


@dataclass(frozen=True, slots=True)
class Piece:
    """What one step added to one answer.

    Attributes:
        key: whose answer it is.
        text: the text that is certain since; may be empty.
        tokens: of the answer so far.
        finish: why it ended, if it did: by itself or a stop, or at its limit.
    """

    key: Hashable
    text: str = field(repr=False)
    tokens: int
    finish: Finish | None


@dataclass(slots=True)
class _Row:
    key: Hashable
    ask: Ask
    spelling: Spelling
    read: int = 0  # tokens in the slab
    answer: list[int] = field(default_factory=list)


class Batch:
    """The conversations that are being answered.

    Guarantees: each row gets what it would get alone, up to how the machine rounds a product of
        another number of rows; memory for keys and values stays within `tokens`.
    """

    def __init__(
        self,
        model: Any,
        base: Any,
        *,
        rows: int = 16,
        tokens: int = 16_384,
        prefill: int = 512,
        shelf: Shelf | None = None,
    ) -> None:
        """Prepare an empty batch.

        Args:
            model: causal language model, without an adapter of its own if a shelf is given.
            base: the `Base` whose tokenizer is used.
            rows: most conversations at once.
            tokens: most tokens that all rows together may come to hold.
            prefill: most tokens of new conversations read between two tokens of the others.
            shelf: adapters on the model.
        """
        inner = forward.bare(model)
        architectures.of(type(inner).__name__)
        self._model, self._base, self.shelf = model, base, shelf or Shelf(model)
        self._backbone = getattr(inner, inner.base_model_prefix)
        self._device = forward.device_of(model)
        self.rows, self.prefill = rows, prefill
        self._slab = Slab(inner.config, tokens=tokens, dtype=inner.dtype, device=self._device)
        # Rows that write their answer come first, then those whose conversation is being read.
        self._rows: list[_Row] = []
        self._writing = 0
        end = prompts.end_token(base)
        self._ends = frozenset({end, base.tokenizer.eos_token_id or end})
        self.limit = _limit(inner.config, tokens)

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def held(self) -> int:
        """Bytes that keys and values take."""
        return self._slab.held

    def check(self, ask: Ask) -> None:
        """Check that a conversation can be answered at all.

        Raises:
            ModelError: a setting out of range, a conversation that with its answer exceeds what
                the model can read or the cache can hold, or no such adapter.
        """
        if not (ask.max_new_tokens >= 1 and 0 <= ask.temperature <= 2 and 0 < ask.top_p <= 1):
            raise ModelError(
                "the answer needs max_new_tokens of at least 1, a temperature of 0 to 2 and a "
                "top_p above 0 and up to 1; correct the setting",
                code="bad-setting",
            )
        if not all(1 <= len(stop) <= LONGEST_STOP for stop in ask.stops):
            raise ModelError(
                f"a stop has 1 to {LONGEST_STOP} characters; correct it", code="bad-setting"
            )
        if not (ask.ids and ask.width <= self.limit and self._slab.fits(1, ask.width)):
            raise ModelError(
                f"the conversation has {len(ask.ids)} tokens and with {ask.max_new_tokens} more "
                f"exceeds the {self.limit} that can be served; shorten it or lower max_new_tokens",
                code="too-long",
            )
        if ask.adapter is not None and ask.adapter not in self.shelf.names:
            raise ModelError("no adapter of that name is loaded", code="no-adapter")

    def has_room(self, ask: Ask) -> bool:
        """Whether a conversation can join now."""
        width = max([ask.width, *(row.ask.width for row in self._rows)])
        return len(self._rows) < self.rows and self._slab.fits(len(self._rows) + 1, width)

    def admit(self, key: Hashable, ask: Ask) -> None:
        """Let a conversation join.

        Args:
            key: its name among the pieces; no other row has it.
            ask: passed `check`, and `has_room` for it.
        """
        width = max([ask.width, *(row.ask.width for row in self._rows)])
        self._slab.reserve(len(self._rows) + 1, width, used=len(self._rows))
        spelling = Spelling(self._base.tokenizer, ask.stops, continues=ask.continues)
        self._rows.append(_Row(key, ask, spelling))

    def evict(self, key: Hashable) -> None:
        """Let a conversation leave, finished or not; one that is not there is no fault."""
        for place, row in enumerate(self._rows):
            if row.key == key:
                self._drop(place)
                return

    def uses(self, adapter: str) -> bool:
        """Whether a row is answered by this adapter."""
        return any(row.ask.adapter == adapter for row in self._rows)

    @torch.inference_mode()
    def step(self) -> list[Piece]:
        """Read some of the new conversations and add one token to each answer.

        Returns:
            The pieces; a row whose piece has a `finish` is gone.
        """
        pieces = self._read() if self._writing < len(self._rows) else []
        if self._writing:
            writing = self._rows[: self._writing]
            logits = self._pass(
                slice(0, self._writing), [(row.answer[-1],) for row in writing], writing
            )
            pieces += self._choose(writing, logits)
        for piece in pieces:
            if piece.finish is not None:
                self.evict(piece.key)
        return pieces

    def _read(self) -> list[Piece]:
        """One pass over conversations that are not read yet, in turn, up to `prefill` tokens."""
        chosen: list[int] = []
        parts: list[tuple[int, ...]] = []
        for place in range(self._writing, len(self._rows)):
            row = self._rows[place]
            part = row.ask.ids[row.read : row.read + self.prefill]
            wide = max(len(part), *map(len, parts), 0) if parts else len(part)
            if parts and (len(parts) + 1) * wide > self.prefill:
                break
            chosen.append(place)
            parts.append(part)
        rows = [self._rows[place] for place in chosen]
        logits = self._pass(torch.tensor(chosen, device=self._device), parts, rows)
        ready = [at for at, row in enumerate(rows) if row.read == len(row.ask.ids)]
        if not ready:
            return []
        begun = [rows[at] for at in ready]
        pieces = self._choose(begun, logits[ready])
        for row in begun:
            self._swap(self._rows.index(row), self._writing)
            self._writing += 1
        return pieces

    def _pass(
        self, place: slice | Tensor, parts: Sequence[tuple[int, ...]], rows: Sequence[_Row]
    ) -> Tensor:
        """Read the next tokens of some rows; logits after the last of each, (rows, vocabulary)."""
        lengths = [len(part) for part in parts]
        starts = torch.tensor([row.read for row in rows], device=self._device)
        ids = forward.pad(list(parts), device=self._device)
        # Padding writes beyond its row's end, where the next pass overwrites it.
        width = ids.shape[1]
        self._slab.reserve(
            len(self._rows), int(max(row.read for row in rows)) + width, used=len(self._rows)
        )
        mask = self._slab.aim(place, starts, width)
        positions = (starts[:, None] + torch.arange(width, device=self._device)).clamp(
            max=self.limit - 1
        )
        self.shelf.select([row.ask.adapter for row in rows])
        hidden = self._backbone(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=self._slab,
            use_cache=True,
        ).last_hidden_state
        for row, length in zip(rows, lengths, strict=True):
            row.read += length
        last = hidden[torch.arange(len(rows)), torch.tensor(lengths) - 1]
        return forward.head(self._model, last).float()

    def _choose(self, rows: Sequence[_Row], logits: Tensor) -> list[Piece]:
        likeliest = logits.argmax(dim=-1).tolist()
        pieces = []
        for row, token, own in zip(rows, likeliest, logits, strict=True):
            if row.ask.sampler is not None:
                token = row.ask.sampler(own.cpu().numpy(), tuple(row.answer))
            elif row.ask.temperature > 0:
                token = sample(own, temperature=row.ask.temperature, top_p=row.ask.top_p)
            pieces.append(self._write(row, int(token)))
        return pieces

    def _write(self, row: _Row, token: int) -> Piece:
        row.answer.append(token)
        finish: Finish | None = None
        text = ""
        if token in self._ends:
            finish = "stop"
        else:
            text = row.spelling.add(token)
            if row.spelling.stopped:
                finish = "stop"
            elif len(row.answer) >= row.ask.max_new_tokens:
                finish = "length"
        if finish is not None:
            text += row.spelling.end()
        return Piece(row.key, text, len(row.answer), finish)

    def _drop(self, place: int) -> None:
        if place < self._writing:
            self._writing -= 1
            self._swap(place, self._writing)
            place = self._writing
        self._swap(place, len(self._rows) - 1)
        self._rows.pop()

    def _swap(self, one: int, other: int) -> None:
        if one == other:
            return
        first, second = self._rows[one], self._rows[other]
        self._slab.swap(one, other, first.read, second.read)
        self._rows[one], self._rows[other] = second, first


def sample(logits: Tensor, *, temperature: float, top_p: float) -> int:
    """Draw a token from logits of shape (vocabulary,), among the likeliest that have `top_p`."""
    shares = torch.softmax(logits / temperature, dim=-1)
    if top_p < 1:
        ranked, order = shares.sort(descending=True)
        kept = ranked.cumsum(dim=-1) - ranked < top_p
        return int(order[torch.multinomial(ranked * kept, 1)])
    return int(torch.multinomial(shares, 1))


def _limit(config: Any, tokens: int) -> int:
    """Longest row: what the model reads, and, as every token sees all before it, its window."""
    known = [getattr(config, name, None) for name in ("max_position_embeddings", "sliding_window")]
    return min([tokens, *(length for length in known if length)])
