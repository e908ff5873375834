"""A choice among strings can be asked for as OpenAI's programs ask for it: by a JSON schema."""

from __future__ import annotations

import json
from enum import Enum
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import BaseModel, ValidationError

from client.gateway.formats import Choice
from tests.client.serving_world import ASK, Fake, make_app, make_release, near

ENUM = {"type": "string", "enum": ["cards", "loans"]}


def _object(value: Any, **more: Any) -> dict[str, Any]:
    closed = {"required": ["desk"], "additionalProperties": False}
    return {"type": "object", "properties": {"desk": value}, **closed, **more}


def _format(schema: Any) -> dict[str, Any]:
    inner = {"name": "triage", "schema": schema, "strict": True}
    return {"response_format": {"type": "json_schema", "json_schema": inner}}


class Desk(Enum):
    CARDS = "cards"
    LOANS = "loans"


class ByEnum(BaseModel, extra="forbid"):
    desk: Desk


class ByLiteral(BaseModel, extra="forbid"):
    desk: Literal["cards", "loans"]


class ByOne(BaseModel, extra="forbid"):
    desk: Literal["cards"]


@pytest.mark.parametrize(
    ("schema", "labels"),
    [
        (ENUM, ("cards", "loans")),
        ({"enum": ["cards", "loans"]}, ("cards", "loans")),
        (_object(ENUM), ("cards", "loans")),
        (ByEnum.model_json_schema(), ("cards", "loans")),
        (ByLiteral.model_json_schema(), ("cards", "loans")),
        (ByOne.model_json_schema(), ("cards",)),
    ],
)
def test_a_choice_is_read_out_of_the_schemas_that_programs_write(
    schema: Any, labels: tuple[str, ...]
) -> None:
    found = Choice.model_validate(schema)
    assert found.labels == labels
    said = json.loads(found.write("cards"))
    assert said == ({"desk": "cards"} if schema.get("type") == "object" else "cards")


@pytest.mark.parametrize(
    "schema",
    [
        "cards", {}, {"type": "string"}, {"type": "integer", "enum": [1]}, {"enum": [1, 2]},
        {"enum": []}, {"enum": ["a", "a"]}, {"enum": ["a"], "maxLength": 2},
        {"type": "object", "properties": {"desk": ENUM}}, _object(ENUM, minProperties=1),
        {**_object(ENUM), "properties": {"desk": ENUM, "why": {"type": "string"}}},
        {**_object(ENUM), "additionalProperties": True}, _object({"type": "string"}),
        _object({"$ref": "#/$defs/Gone"}), _object({"$ref": "#/$defs/Gone"}, **{"$defs": 3}),
        _object({"type": "array", "items": ENUM}), {"anyOf": [ENUM, ENUM]},
    ],
)  # fmt: skip
def test_whatever_else_a_schema_asks_for_is_refused(schema: Any) -> None:
    with pytest.raises(ValidationError):
        Choice.model_validate(schema)


@pytest.mark.parametrize("stream", [False, True])
def test_the_answer_is_the_json_that_the_schema_describes(tmp_path: Path, stream: bool) -> None:
    behind = Fake(text="cards")
    with near(make_app(tmp_path, behind)) as client:
        asked = {**ASK, **_format(_object(ENUM)), "stream": stream}
        answer = client.post("/v1/chat/completions", json=asked)
    assert answer.status_code == 200
    assert behind.calls[-1].choices == ("cards", "loans")
    if stream:
        events = [json.loads(line[6:]) for line in answer.text.split("\n\n")[:-2]]
        text = "".join(event["choices"][0]["delta"].get("content", "") for event in events)
    else:
        text = answer.json()["choices"][0]["message"]["content"]
    assert json.loads(text) == {"desk": "cards"}


@pytest.mark.parametrize(
    "more",
    [
        _format({"type": "object"}),
        {"response_format": {"type": "json_object"}},
        {**_format(ENUM), "structured_outputs": {"choice": ["x"]}},
    ],
)
def test_another_form_is_refused_and_the_refusal_says_which_there_are(
    tmp_path: Path, more: dict[str, Any]
) -> None:
    behind = Fake()
    with near(make_app(tmp_path, behind)) as client:
        answer = client.post("/v1/chat/completions", json={**ASK, **more})
    assert answer.status_code == 400
    if "structured_outputs" not in more:
        assert answer.json()["error"]["message"] == (
            "response_format may be text, or a json_schema of one choice among strings"
        )
    assert not behind.calls


def _trained(root: Path, name: str, objective: str, labels: list[str]) -> None:
    plan = {"training": {"objective": objective}, "task": {"labels": labels}}
    make_release(root, name, root / "key", plan=plan)


def test_a_release_that_was_trained_to_choose_is_asked_to_choose(tmp_path: Path) -> None:
    _trained(tmp_path, "r1", "label", ["cards", "loans"])
    _trained(tmp_path, "r2", "response", ["cards", "loans"])
    behind = Fake(("r1", "r2"), text="cards")
    with near(make_app(tmp_path, behind)) as client:
        listed = {one["id"]: one for one in client.get("/v1/models").json()["data"]}
        page = client.get("/chat").text
        choices = []
        for model in ("r1", "r2", "base"):
            client.post("/v1/chat/completions", json={**ASK, "model": model})
            choices.append(behind.calls[-1].choices)
        client.post("/v1/completions", json={"model": "r1", "prompt": "one"})
    assert choices == [("cards", "loans"), (), ()]
    assert behind.calls[-1].choices == ()
    assert behind.calls[-1].raw
    assert listed["r1"]["labels"] == ["cards", "loans"]
    assert "labels" not in listed["r2"]
    # Once in each of the page's two lists.
    assert page.count("""data-labels='["cards", "loans"]'>r1""") == 2
    assert "data-labels" not in page.replace("""data-labels='["cards", "loans"]'""", "")
