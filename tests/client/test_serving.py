"""A release is served only if it verifies, and no request's text goes anywhere but the model."""

from __future__ import annotations

import json
import logging
import threading
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the test client warns about its own HTTP library
    from fastapi.testclient import TestClient

from audit import signing
from client import serving
from client.errors import ClientError

SECRET = "Zebulon Quartermaine 4711"
ASK = {"model": "r1", "messages": [{"role": "user", "content": SECRET}]}


@dataclass(frozen=True)
class Answer:
    text: str = "the cards desk"
    prompt_tokens: int = 7
    completion_tokens: int = 3
    finished: bool = True


class Fake:
    def __init__(self) -> None:
        self.calls: list[tuple[Sequence[Mapping[str, str]], dict]] = []
        self.fault: Exception | None = None

    def chat(self, messages, **settings) -> Answer:
        self.calls.append((messages, settings))
        if self.fault is not None:
            raise self.fault
        return Answer()


@pytest.fixture
def release(tmp_path: Path) -> Path:
    folder = tmp_path / "r1"
    folder.mkdir()
    (folder / "release.json").write_text('{"format": 1, "release": "r1"}')
    (folder / "adapter_model.safetensors").write_bytes(b"weights")
    signing.create_key(tmp_path / "key")
    signing.sign_folder(folder, tmp_path / "key")
    return folder


@pytest.fixture
def key(release: Path) -> Path:
    return release.with_name("key.pub")


@pytest.fixture
def engine() -> Fake:
    return Fake()


@pytest.fixture
def client(release: Path, key: Path, engine: Fake) -> TestClient:
    return TestClient(serving.create_app(release, key=key, load=lambda: engine))


def never() -> Fake:
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
        serving.create_app(release, key=key, load=never)
    assert caught.value.exit_code == 4


def test_the_model_is_listed_under_the_release_id(client: TestClient) -> None:
    assert client.get("/health").json() == {"status": "ok", "model": "r1"}
    listed = client.get("/v1/models").json()
    assert [model["id"] for model in listed["data"]] == ["r1"]


def test_a_completion_has_openais_shape(client: TestClient, engine: Fake) -> None:
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
    assert engine.calls == [
        (
            [{"role": "user", "content": SECRET}],
            {"max_new_tokens": 9, "temperature": 0.5, "top_p": 0.9},
        )
    ]


def test_text_parts_are_joined(client: TestClient, engine: Fake) -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    client.post(
        "/v1/chat/completions", json={**ASK, "messages": [{"role": "user", "content": parts}]}
    )
    assert engine.calls[0][0] == [{"role": "user", "content": "a\nb"}]


def test_a_stream_spells_the_same_answer(client: TestClient) -> None:
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
        ({SECRET: SECRET}, 400, "unsupported_parameter"),
    ],
)
def test_a_bad_request_is_an_openai_error_without_its_text(
    client: TestClient, engine: Fake, change: dict, status: int, code: str
) -> None:
    answer = client.post("/v1/chat/completions", json={**ASK, **change})
    assert answer.status_code == status
    error = answer.json()["error"]
    assert error["code"] == code
    assert set(error) == {"message", "type", "param", "code"}
    assert SECRET not in answer.text
    assert engine.calls == []


@pytest.mark.parametrize("body", [b"", b"{", b"[" * 20_000, b"\xff", SECRET.encode(), b"NaN"])
def test_a_body_that_is_not_a_request_is_refused(client: TestClient, body: bytes) -> None:
    headers = {"content-type": "application/json"}
    answer = client.post("/v1/chat/completions", content=body, headers=headers)
    assert answer.status_code == 400
    assert "error" in answer.json()
    assert SECRET not in answer.text


def test_unknown_places_and_methods_are_openai_errors(client: TestClient) -> None:
    assert client.get("/v1/files").json()["error"]["code"] == "not_found"
    assert client.get("/v1/chat/completions").status_code == 405
    for path in ("/docs", "/redoc", "/openapi.json"):
        assert client.get(path).status_code == 404


def test_a_body_over_the_limit_is_refused_even_without_a_length(client, engine) -> None:
    big = json.dumps({**ASK, "user": "x" * serving.LARGEST_REQUEST_BYTES}).encode()
    headers = {"content-type": "application/json"}

    def pieces():
        for start in range(0, len(big), 4096):
            yield big[start : start + 4096]

    for content in (big, pieces()):
        answer = client.post("/v1/chat/completions", content=content, headers=headers)
        assert answer.status_code == 413
        assert answer.json()["error"]["code"] == "too-large"
    assert engine.calls == []


def test_what_the_model_cannot_serve_is_the_callers_error(client, engine) -> None:
    engine.fault = ValueError(SECRET)
    answer = client.post("/v1/chat/completions", json=ASK)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "unservable")
    assert SECRET not in answer.text


def test_neither_logs_nor_errors_hold_the_prompt(client, engine, caplog, capfd) -> None:
    caplog.set_level(logging.DEBUG)
    client.post("/v1/chat/completions", json=ASK)
    engine.fault = RuntimeError(f"could not answer {SECRET}")
    answer = client.post("/v1/chat/completions", json=ASK)
    assert (answer.status_code, answer.json()["error"]["type"]) == (500, "server_error")
    seen = answer.text + caplog.text + "".join(capfd.readouterr())
    assert "RuntimeError" in seen
    assert SECRET not in seen
    engine.fault = None
    assert client.post("/v1/chat/completions", json=ASK).status_code == 200


def test_a_crowd_is_turned_away_and_served_again_later(release, key, monkeypatch) -> None:
    monkeypatch.setattr(serving, "_WAITING", 1)
    inside, go = threading.Event(), threading.Event()

    class Slow(Fake):
        def chat(self, messages, **settings) -> Answer:
            inside.set()
            assert go.wait(10)
            return Answer()

    client = TestClient(serving.create_app(release, key=key, load=Slow))
    first: list[int] = []
    thread = threading.Thread(
        target=lambda: first.append(client.post("/v1/chat/completions", json=ASK).status_code)
    )
    thread.start()
    assert inside.wait(10)
    assert client.post("/v1/chat/completions", json=ASK).status_code == 429
    go.set()
    thread.join(10)
    assert first == [200]
    assert client.post("/v1/chat/completions", json=ASK).status_code == 200
