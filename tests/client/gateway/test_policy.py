"""The policy on identifiers: they are replaced or refused before the model and after it."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from client.errors import ClientError
from client.gateway import policy as policies
from configs.serving import PolicyTable
from privacy.errors import Quarantined
from tests.client.serving_world import ASK, SECRET, Fake, make_app, near

NAME = "Zebulon Quartermaine"


@dataclass
class Done:
    text: str
    spans: tuple[int, ...]


class Tool:
    def scrub(self, text: str, *, person: str) -> Done:
        if "unreadable" in text:
            raise Quarantined("unknown-script")
        return Done(text.replace(NAME, "Ann Other"), (1,) if NAME in text else ())


@pytest.fixture
def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    def load(table: PolicyTable) -> policies.Policy:
        return policies.Policy(table, Tool())

    monkeypatch.setattr(policies.Policy, "load", load)
    return lambda engine, **table: near(make_app(tmp_path, engine, policy=table))


def test_a_policy_whose_packages_are_missing_says_which_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "privacy.scrub", None)
    assert policies.Policy.load(PolicyTable(input="off", output="off")).holds_answers is False
    with pytest.raises(ClientError, match=r"\[client\]") as fault:
        policies.Policy.load(PolicyTable(output="scrub"))
    assert fault.value.exit_code == 2


def test_the_model_gets_a_question_without_identifiers(serve: Any) -> None:
    engine = Fake()
    client = serve(engine, input="scrub")
    assert client.post("/v1/chat/completions", json=ASK).status_code == 200
    assert engine.calls[0].messages == ({"role": "user", "content": "Ann Other 4711"},)


def test_a_question_with_identifiers_is_refused_without_being_quoted(serve: Any) -> None:
    engine = Fake()
    client = serve(engine, input="refuse")
    answer = client.post("/v1/chat/completions", json=ASK)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "policy-identifiers")
    assert SECRET not in answer.text
    plain = {**ASK, "messages": [{"role": "user", "content": "hello"}]}
    assert client.post("/v1/chat/completions", json=plain).status_code == 200
    assert len(engine.calls) == 1


@pytest.mark.parametrize("stream", [False, True])
def test_no_part_of_an_answer_leaves_before_the_whole_was_looked_at(
    serve: Any, stream: bool
) -> None:
    client = serve(Fake(text=f"ask {NAME} again"), output="scrub")
    for _ in range(2):  # the second from the cache
        answer = client.post("/v1/chat/completions", json={**ASK, "stream": stream})
        assert "ask Ann Other again" in answer.text
        assert "Zebulon" not in answer.text
        assert "Quartermaine" not in answer.text


def test_what_cannot_be_judged_does_not_pass(serve: Any) -> None:
    plain = {**ASK, "messages": [{"role": "user", "content": "unreadable"}]}
    for engine, table, asked in (
        (Fake(), {"input": "scrub"}, plain),
        (Fake(text="un unreadable"), {"output": "scrub"}, ASK),
    ):
        answer = serve(engine, **table).post("/v1/chat/completions", json=asked)
        assert answer.status_code == 400
        assert answer.json()["error"]["code"] == "policy-unknown-script"


async def _ask(policy: policies.Policy) -> Any:
    return await policy.ask(({"role": "user", "content": "x"},), person="u")


def test_a_policy_without_its_tool_lets_nothing_through() -> None:
    import asyncio

    with pytest.raises(policies.Refused):
        asyncio.run(_ask(policies.Policy(PolicyTable(input="scrub"), None)))


def test_the_real_scrubber_stands_behind_the_policy() -> None:
    import asyncio

    policy = policies.Policy.load(PolicyTable(input="scrub", output="scrub", language="en"))
    text = "Call Mr. John Miller on 212-555-7147 about the invoice."
    (message,) = asyncio.run(policy.ask(({"role": "user", "content": text},), person="u"))
    assert "7147" not in message["content"]
    assert "invoice" in message["content"]
    assert "7147" not in asyncio.run(policy.answer(text, person="u"))
