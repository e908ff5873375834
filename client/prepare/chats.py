"""Chat logs: turns of speakers become questions and answers, in the order they were said."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from client.records import TEXTS, Row
from configs.prepare import ChatTable

_TURNS: Final = ("turns", "conversation", "dialogue", "dialog", "utterances", "messages")
_SPEAKERS: Final = ("role", "speaker", "author", "sender", "from")
_WORDS: Final = ("content", "text", "utterance", "message", "value")
_TALKS: Final = (
    "conversation_id", "dialogue_id", "dialog_id", "chat_id", "session_id", "thread_id",
)  # fmt: skip
_NEVER_ALONG: Final = TEXTS.union(_TURNS, _WORDS)
_SILENT: Final = frozenset({"system", "tool", "function", "developer"})


@dataclass(frozen=True, slots=True)
class _Turn:
    """Who said what."""

    speaker: str
    text: str = field(repr=False)


def is_chat(value: Any) -> bool:
    """Whether a row is a conversation, or one turn of one.

    A list of `messages` alone is none: it is a record whose last message is the answer.
    """
    if not isinstance(value, dict):
        return False
    return any(isinstance(value.get(name), list) for name in _TURNS[:-1]) or (
        _first(value, _TALKS) is not None
        and _first(value, _SPEAKERS) is not None
        and _first(value, _WORDS) is not None
    )


def pairs(rows: Iterable[Row], table: ChatTable, person_column: str) -> Iterator[Row]:
    """Yield one row a question and its answer.

    Args:
        rows: conversations, each with a list of turns; or turns, each with its conversation's id.
        table: whose turns ask, whose answer, and how much of what was said before goes along.
        person_column: kept on every row of a conversation, as is what its rows or it state
            otherwise; of several rows, each distinct value.

    Guarantees: turns of one speaker that follow each other are one; a conversation with a speaker
        whom the table does not name is a fault as a whole, and so is one without any answer, or
        one of several persons.
    """
    held: dict[str, tuple[int, dict[str, Any], dict[str, dict[str, Any]], list[Any], set[str]]] = {}
    for row in rows:
        value = row.value
        if row.code is not None or not isinstance(value, dict):
            yield Row(row.line, None, row.code or "not-object")
            continue
        name = next((n for n in _TURNS if isinstance(value.get(n), list)), None)
        if name is not None:
            rest = {key: item for key, item in value.items() if key != name}
            yield from _talk(row.line, rest, value[name], table)
            continue
        talk = _first(value, _TALKS)
        if talk is None:
            yield Row(row.line, None, "unknown-columns")
            continue
        _, rest, along, said, whose = held.setdefault(
            str(value[talk]), (row.line, {}, {}, [], set())
        )
        said.append(value)
        speaker = _first(value, _SPEAKERS)
        for key, item in value.items():
            if key in (person_column, "institution", "category"):
                if item not in (None, ""):
                    rest.setdefault(key, item)
            elif key != speaker and key not in _NEVER_ALONG:
                for one in item if isinstance(item, list) else [item]:
                    if one not in (None, ""):
                        along.setdefault(key, {}).setdefault(str(one), one)
        if value.get(person_column) not in (None, ""):
            whose.add(str(value[person_column]).strip())
    for line, rest, along, said, whose in held.values():
        if len(whose) > 1:  # such as where ids of conversations are used again
            yield Row(line, None, "several-persons")
        else:
            stated = {key: list(values.values()) for key, values in along.items()}
            yield from _talk(line, {**stated, **rest}, said, table)


def _talk(line: int, rest: dict[str, Any], said: Sequence[Any], table: ChatTable) -> Iterator[Row]:
    asks = {name.casefold() for name in table.asks}
    answers = {name.casefold() for name in table.answers}
    turns: list[_Turn] = []
    for item in said:
        turn = _turn(item)
        if turn is None or turn.speaker not in asks | answers | _SILENT:
            yield Row(line, None, "not-text" if turn is None else "unknown-speaker")
            return
        if turn.speaker in _SILENT or not turn.text.strip():
            continue
        side = "ask" if turn.speaker in asks else "answer"
        if turns and turns[-1].speaker == side:
            turns[-1] = _Turn(side, f"{turns[-1].text}\n{turn.text}")
        else:
            turns.append(_Turn(side, turn.text))
    found = False
    for at in range(1, len(turns)):
        if turns[at].speaker != "answer":
            continue
        found = True
        before = turns[max(0, at - 1 - 2 * table.history) : at]
        asked = "\n\n".join(turn.text for turn in before)
        yield Row(line, {**rest, "instruction": asked, "response": turns[at].text})
    if not found:
        yield Row(line, None, "no-response")


def _turn(item: Any) -> _Turn | None:
    if not isinstance(item, Mapping):
        return None
    who, what = _first(item, _SPEAKERS), _first(item, _WORDS)
    if who is None or what is None or not isinstance(item[what], str):
        return None
    return _Turn(str(item[who]).strip().casefold(), item[what])


def _first(value: Mapping[str, Any], names: Iterable[str]) -> str | None:
    return next((name for name in names if value.get(name) is not None), None)
