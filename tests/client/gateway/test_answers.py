"""A kept answer is for the same question of the same user, and only for a while."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from client.gateway.answers import Answer, AnswerCache
from client.gateway.question import Question
from tests.client.serving_world import ASK, SECRET, Fake, make_app, near

ASKED = Question("r1", ({"role": "user", "content": SECRET},))
ANSWER = Answer("yes", 3, 1, "stop")


def cache(**settings: Any) -> AnswerCache:
    return AnswerCache(**{"entries": 3, "seconds": 10.0, **settings})


@pytest.mark.parametrize(
    "other",
    [
        {"model": "r2"},
        {"messages": ({"role": "system", "content": SECRET},)},
        {"messages": ({"role": "user", "content": SECRET + " "},)},
        {"max_new_tokens": 9},
        {"stops": ("x",)},
        {"choices": ("a", "b")},
        {"raw": True},
        {"temperature": 0.5},
    ],
)
def test_another_question_finds_nothing(other: dict[str, Any]) -> None:
    held = cache()
    held.keep("u", ASKED, ANSWER)
    assert held.find("u", ASKED) == ANSWER
    assert held.find("u", dataclasses.replace(ASKED, **other)) is None
    assert held.find("v", ASKED) is None


def test_sampled_answers_are_not_kept() -> None:
    held = cache()
    held.keep("u", dataclasses.replace(ASKED, temperature=0.7), ANSWER)
    assert len(held) == 0


def test_the_cache_is_bounded_and_forgets_in_time() -> None:
    now = [0.0]
    held = cache(clock=lambda: now[0])
    for number in range(9):
        held.keep("u", dataclasses.replace(ASKED, max_new_tokens=number + 1), ANSWER)
        held.find("u", dataclasses.replace(ASKED, max_new_tokens=1))
    assert len(held) == 3
    assert held.find("u", dataclasses.replace(ASKED, max_new_tokens=1)) == ANSWER
    now[0] = 10.0
    assert held.find("u", dataclasses.replace(ASKED, max_new_tokens=1)) is None


def test_nothing_of_a_question_is_held(tmp_path: Path) -> None:
    held = cache()
    held.keep("u", ASKED, ANSWER)
    assert SECRET not in repr(vars(held))
    assert SECRET not in repr(ASKED)


def test_through_the_service_the_engine_is_asked_once_a_user(tmp_path: Path) -> None:
    engine = Fake()
    client = near(make_app(tmp_path, engine))
    first, second = (client.post("/v1/chat/completions", json=ASK).json() for _ in range(2))
    assert first["choices"] == second["choices"]
    assert first["usage"] == second["usage"]
    assert first["id"] != second["id"]
    assert len(engine.calls) == 1
    streamed = client.post("/v1/chat/completions", json={**ASK, "stream": True})
    assert "the cards desk" in streamed.text
    assert len(engine.calls) == 1
    client.post("/v1/chat/completions", json={**ASK, "user": "another"})
    assert len(engine.calls) == 2


def test_the_cache_can_be_switched_off(tmp_path: Path) -> None:
    engine = Fake()
    client = near(make_app(tmp_path, engine, cache={"entries": 0}))
    for _ in range(2):
        client.post("/v1/chat/completions", json=ASK)
    assert len(engine.calls) == 2
