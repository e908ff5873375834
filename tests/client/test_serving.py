"""A release is served only if it verifies, and no request's text goes anywhere but the model."""

from __future__ import annotations

import base64
import json
import logging
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from audit import response, signing
from client import serving
from client.errors import ClientError
from client.gateway import guard
from client.gateway.question import Busy, Failed, Unservable
from tests.client.serving_world import ASK, SECRET, Fake, make_app, make_release, near


@pytest.fixture
def release(tmp_path: Path) -> Path:
    return make_release(tmp_path, "r1", tmp_path / "key")


@pytest.fixture
def key(release: Path) -> Path:
    return release.with_name("key.pub")


@pytest.fixture
def engine() -> Fake:
    return Fake()


@pytest.fixture
def client(tmp_path: Path, engine: Fake) -> Any:
    return near(make_app(tmp_path, engine))


def never(paths: Any) -> Fake:
    raise AssertionError("loaded before it verified")


@pytest.mark.parametrize("harm", ["changed", "missing", "extra", "unsigned", "key", "facts"])
def test_a_release_that_does_not_verify_is_not_even_loaded(release, key, tmp_path, harm) -> None:
    if harm == "changed":
        (release / "adapter_model.safetensors").write_bytes(b"weightz")
    elif harm == "missing":
        (release / "adapter_model.safetensors").unlink()
    elif harm == "extra":
        (release / "tokenizer.json").write_text("{}")
    elif harm == "unsigned":
        (release / "model.sig").unlink()
    elif harm == "key":
        key = signing.create_key(tmp_path / "other")
    else:
        (release / "release.json").write_text('{"format": 2, "release": "r1"}')
        signing.sign_folder(release, tmp_path / "key")
    with pytest.raises(ClientError) as caught:
        serving.create_app([release], key=key, load=never)
    assert caught.value.exit_code == 4


def test_the_model_is_listed_under_the_release_id(client: Any) -> None:
    assert client.get("/health").json() == {"status": "ok", "model": "r1"}
    listed = client.get("/v1/models").json()
    assert [model["id"] for model in listed["data"]] == ["r1", "base"]


def test_a_completion_has_openais_shape(client: Any, engine: Fake) -> None:
    answer = client.post(
        "/v1/chat/completions",
        json={**ASK, "max_tokens": 9, "temperature": 0.5, "top_p": 0.9, "user": "u", "n": 1},
    )
    assert answer.status_code == 200
    body = answer.json()
    assert body["object"] == "chat.completion"
    assert body["choices"][0]["message"] == {"role": "assistant", "content": "the cards desk"}
    assert body["choices"][0]["finish_reason"] == "stop"
    assert body["usage"] == {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
    (asked,) = engine.calls
    assert (asked.max_new_tokens, asked.temperature, asked.top_p) == (9, 0.5, 0.9)
    assert asked.messages == ({"role": "user", "content": SECRET},)


def test_text_parts_are_joined(client: Any, engine: Fake) -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    client.post(
        "/v1/chat/completions", json={**ASK, "messages": [{"role": "user", "content": parts}]}
    )
    assert engine.calls[0].messages == ({"role": "user", "content": "a\nb"},)


def test_a_stream_spells_the_same_answer(client: Any) -> None:
    answer = client.post(
        "/v1/chat/completions",
        json={**ASK, "stream": True, "stream_options": {"include_usage": True}},
    )
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = [line.removeprefix("data: ") for line in answer.text.split("\n\n") if line]
    assert events[-1] == "[DONE]"
    chunks = [json.loads(event) for event in events[:-1]]
    assert len({chunk["id"] for chunk in chunks}) == 1
    said = "".join(c["delta"].get("content", "") for chunk in chunks for c in chunk["choices"])
    assert said == "the cards desk"
    assert chunks[-2]["choices"][0]["finish_reason"] == "stop"
    assert chunks[-1]["usage"]["total_tokens"] == 10


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"model": "other"}, 404, "model_not_found"),
        ({"messages": []}, 400, "invalid"),
        ({"messages": [{"role": SECRET, "content": "x"}]}, 400, "invalid"),
        ({"messages": [{"role": "user", "content": "x", SECRET: 1}]}, 400, "unsupported_parameter"),
        ({"temperature": 3}, 400, "invalid"),
        ({"max_tokens": 0}, 400, "invalid"),
        ({"max_tokens": 10**9}, 400, "invalid"),
        ({"n": 2}, 400, "invalid"),
        ({"tools": [SECRET]}, 400, "unsupported_parameter"),
        ({"frequency_penalty": 0.5}, 400, "unsupported_parameter"),
        ({"response_format": {"type": SECRET}}, 400, "unsupported_parameter"),
        ({"seed": 1}, 400, "unsupported_parameter"),
        ({SECRET: SECRET}, 400, "unsupported_parameter"),
        # Half a character, which JSON can spell and no tokenizer takes.
        ({"messages": [{"role": "user", "content": "\ud800"}]}, 400, "invalid"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "\ud800"}]}]}, 400,
         "invalid"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {
            "type": "object", "required": ["\ud800"],
            "properties": {"\ud800": {"enum": ["a"]}}}}}}, 400, "unsupported_parameter"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {
            "$ref": "#/$defs/a", "$defs": {"a": SECRET}}}}}, 400, "unsupported_parameter"),
    ],
)  # fmt: skip
def test_a_bad_request_is_an_openai_error_without_its_text(
    client: Any, engine: Fake, change: dict, status: int, code: str
) -> None:
    body = json.dumps({**ASK, **change})
    kind = {"content-type": "application/json"}
    answer = client.post("/v1/chat/completions", content=body, headers=kind)
    assert answer.status_code == status
    error = answer.json()["error"]
    assert error["code"] == code
    assert set(error) == {"message", "type", "param", "code"}
    assert SECRET not in answer.text
    assert engine.calls == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"max_tokens": 10**9}, "max_tokens must be at most 2048"),
        ({"temperature": -1}, "temperature must be at least 0.0"),
        ({"messages": []}, "messages must hold at least 1"),
        ({"top_k": 40}, "top_k is not supported here"),
        ({"seed": 4}, "seed is not supported here"),
        ({"tools": [SECRET]}, "tools is not supported here"),
    ],
)
def test_an_error_names_the_parameter_and_what_it_must_be(
    client: Any, change: dict, said: str
) -> None:
    error = client.post("/v1/chat/completions", json={**ASK, **change}).json()["error"]
    assert error["message"] == said
    assert error["param"] == said.split(" ")[0]


def test_settings_that_ask_for_nothing_pass(client: Any) -> None:
    silent = {
        "frequency_penalty": 0, "presence_penalty": 0.0, "n": 1, "tools": [], "logit_bias": {},
        "logprobs": False, "response_format": {"type": "text"}, "store": False, "stop": None,
        "temperature": None, "top_p": None, "user": None, "seed": None, "tool_choice": None,
        "max_tokens": None, "stream": None,
    }  # fmt: skip
    answer = client.post("/v1/chat/completions", json={**ASK, **silent})
    assert answer.status_code == 200, answer.text
    legacy = {"model": ASK["model"], "prompt": "x", "best_of": 1, "echo": False, "suffix": None}
    assert client.post("/v1/completions", json=legacy).status_code == 200


@pytest.mark.parametrize("body", [b"", b"{", b"[" * 20_000, b"\xff", SECRET.encode(), b"NaN"])
def test_a_body_that_is_not_a_request_is_refused(client: Any, body: bytes) -> None:
    headers = {"content-type": "application/json"}
    answer = client.post("/v1/chat/completions", content=body, headers=headers)
    assert answer.status_code == 400
    assert "error" in answer.json()
    assert SECRET not in answer.text


def test_unknown_places_and_methods_are_openai_errors(client: Any) -> None:
    assert client.get("/v1/files").json()["error"]["code"] == "not_found"
    assert client.get("/v1/chat/completions").status_code == 405
    for path in ("/docs", "/redoc", "/openapi.json"):
        assert client.get(path).status_code == 404


def test_a_body_over_the_limit_is_refused_even_without_a_length(client, engine) -> None:
    big = json.dumps({**ASK, "x": "x" * guard.LARGEST_REQUEST_BYTES}).encode()
    headers = {"content-type": "application/json"}

    def pieces():
        for start in range(0, len(big), 4096):
            yield big[start : start + 4096]

    for content in (big, pieces()):
        answer = client.post("/v1/chat/completions", content=content, headers=headers)
        assert answer.status_code == 413
        assert answer.json()["error"]["code"] == "too-large"
    assert engine.calls == []


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        (Unservable("too-long"), 400, "unservable"),
        (Busy(7), 429, "busy"),
        (Failed("unreachable"), 502, "bad_gateway"),
        (RuntimeError(SECRET), 500, "internal"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_what_goes_wrong_has_its_status_and_quotes_nothing(
    client: Any, engine: Fake, fault: Exception, status: int, code: str, stream: bool
) -> None:
    engine.faults["r1"] = fault
    answer = client.post("/v1/chat/completions", json={**ASK, "stream": stream})
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert SECRET not in answer.text
    assert answer.headers.get("retry-after") == ("7" if status == 429 else None)
    engine.faults.clear()
    assert client.post("/v1/chat/completions", json=ASK).status_code == 200


def test_neither_logs_nor_errors_hold_the_prompt(
    client: Any, engine: Fake, caplog: Any, capfd: Any
) -> None:
    caplog.set_level(logging.DEBUG)
    client.post("/v1/chat/completions", json=ASK)
    engine.faults["base"] = RuntimeError(f"could not answer {SECRET}")
    answer = client.post("/v1/chat/completions", json={**ASK, "model": "base"})
    assert (answer.status_code, answer.json()["error"]["type"]) == (500, "server_error")
    seen = answer.text + caplog.text + "".join(capfd.readouterr())
    seen += client.get("/metrics").text
    assert "RuntimeError" in seen
    assert SECRET not in seen


@pytest.mark.parametrize("begun", [False, True])
def test_whatever_fails_is_logged_by_its_kind_alone(
    tmp_path: Path, engine: Fake, caplog: Any, begun: bool
) -> None:
    app = make_app(tmp_path, engine)
    service = app.state.running.service

    def fail(*_: Any) -> Any:
        raise ValueError(SECRET)

    setattr(service, "record" if begun else "route", fail)
    with near(app) as client:
        try:
            answer = client.post("/v1/chat/completions", json={**ASK, "stream": True}).text
        except ValueError:
            answer = SECRET
    assert SECRET not in answer + caplog.text
    assert "ValueError" in caplog.text
    assert begun or json.loads(answer)["error"]["code"] == "internal"


def test_a_text_is_continued_in_the_shape_of_completions(client: Any, engine: Fake) -> None:
    asked = {"model": "r1", "prompt": "Dear", "max_tokens": 5, "stop": "."}
    body = client.post("/v1/completions", json=asked).json()
    assert body["object"] == "text_completion"
    assert body["choices"][0]["text"] == "the cards desk"
    assert engine.calls[0].raw
    assert engine.calls[0].stops == (".",)
    answer = client.post("/v1/completions", json={**asked, "stream": True})
    events = [line.removeprefix("data: ") for line in answer.text.split("\n\n") if line]
    said = [json.loads(event)["choices"][0]["text"] for event in events[:-1]]
    assert "".join(said) == "the cards desk"


def test_an_answer_that_breaks_off_in_a_stream_ends_with_an_error(client: Any) -> None:
    class Breaks(Fake):
        async def answer(self, question: Any) -> Any:
            async for part in super().answer(question):
                yield part
                raise RuntimeError(SECRET)

    engine = Breaks()
    client.app.state.running.service.engine = engine
    answer = client.post("/v1/chat/completions", json={**ASK, "stream": True})
    last = [line for line in answer.text.split("\n\n") if line][-1]
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "internal"
    assert SECRET not in answer.text


def test_a_service_that_drains_is_not_ready_and_takes_nothing(client: Any, engine: Fake) -> None:
    assert client.get("/health/ready").status_code == 200
    running = client.app.state.running
    server = serving._Server(serving.uvicorn.Config(client.app), running.service)
    server.handle_exit(signal.SIGTERM, None)
    assert server.should_exit
    assert client.get("/health/ready").status_code == 503
    assert client.get("/health/live").status_code == 200
    answer = client.post("/v1/chat/completions", json=ASK)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "draining")
    assert engine.calls == []


def test_labels_of_the_settings_close_every_chat(tmp_path: Path, engine: Fake) -> None:
    client = near(make_app(tmp_path, engine, engine={"labels": ["yes", "no"]}))
    client.post("/v1/chat/completions", json=ASK)
    client.post("/v1/chat/completions", json={**ASK, "structured_outputs": {"choice": ["a", "b"]}})
    client.post("/v1/completions", json={"model": "r1", "prompt": "x"})
    assert [question.choices for question in engine.calls] == [("yes", "no"), ("a", "b"), ()]


def test_answers_come_with_a_record_that_the_institution_signed(
    tmp_path: Path, federation: Callable[..., Any]
) -> None:
    folder = federation(("clinic-a",)).sites["clinic-a"]
    site = serving.Site.of(folder)
    public = folder.keys().event.public_key().public_bytes_raw()
    client = near(make_app(tmp_path, Fake(), site=site))
    for temperature, marked in ((0.0, False), (0.8, True)):
        body = client.post("/v1/chat/completions", json={**ASK, "temperature": temperature}).json()
        record = response.check(body["privity"], public, answer="the cards desk")
        assert record["release"] == "r1"
        assert record["text_mark"]["marked"] is marked
        streamed = client.post(
            "/v1/chat/completions", json={**ASK, "temperature": temperature, "stream": True}
        ).text
        last = json.loads(streamed.split("data: ")[-2])
        again = response.check(last["privity"], public, answer="the cards desk")
        assert again["text_mark"] == record["text_mark"]
    # One of a few given answers leaves no word to choose; without a folder nobody signs.
    bound = {**ASK, "temperature": 0.8, "structured_outputs": {"choice": ["the cards desk"]}}
    body = client.post("/v1/chat/completions", json=bound).json()
    assert response.check(body["privity"], public, answer="the cards desk")["text_mark"] == {
        "marked": False,
        "reason": "temperature 0 leaves no choice to mark",
    }
    assert (
        "privity"
        not in near(make_app(tmp_path, Fake())).post("/v1/chat/completions", json=ASK).json()
    )


def test_the_institution_can_leave_its_answers_unmarked(
    tmp_path: Path, federation: Callable[..., Any]
) -> None:
    site = serving.Site.of(federation(("clinic-a",)).sites["clinic-a"])
    client = near(make_app(tmp_path, Fake(), site=site, engine={"mark_text": False}))
    body = client.post("/v1/chat/completions", json={**ASK, "temperature": 0.8}).json()
    text = json.loads(base64.b64decode(body["privity"]["payload"]))["text_mark"]
    assert text == {"marked": False, "reason": "this service has no text key"}
