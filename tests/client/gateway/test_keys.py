"""Who may ask: keys are held as digests, each allows what it says, and a revoked one nothing."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from client.errors import ClientError
from client.gateway.guard import COOKIE
from client.gateway.keys import KeyFile
from client.gateway.limits import Limits
from client.serving import Site
from tests.client.serving_world import ASK, NEAR, Fake, make_app, near


@pytest.fixture
def keys(tmp_path: Path) -> KeyFile:
    return KeyFile(tmp_path / "serving" / "keys.json")


@pytest.fixture
def client(tmp_path: Path, keys: KeyFile) -> Any:
    return near(make_app(tmp_path, Fake(), site=Site(keys=keys), access={"per_minute": 5}))


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def test_the_file_is_private_and_holds_no_key(keys: KeyFile, tmp_path: Path) -> None:
    key = keys.add("ward", scopes=("chat",))
    file = tmp_path / "serving" / "keys.json"
    assert file.stat().st_mode & 0o777 == 0o600
    assert key not in file.read_text()
    assert key.removeprefix("pk-") not in file.read_text()
    assert keys.find(key) is not None
    assert keys.find(key[:-1]) is None
    file.chmod(0o644)
    os.utime(file, ns=(1, 1))
    with pytest.raises(ClientError, match="chmod 600"):
        keys.find(key)


@pytest.mark.parametrize(("name", "scopes"), [("A b", ("chat",)), ("x", ("root",)), ("x", ())])
def test_a_key_without_a_name_or_with_an_unknown_scope_is_not_made(
    keys: KeyFile, name: str, scopes: tuple[str, ...]
) -> None:
    with pytest.raises(ClientError):
        keys.add(name, scopes=scopes)
    assert keys.rows() == ()


def test_a_damaged_file_lets_nobody_in(client: Any, keys: KeyFile, tmp_path: Path) -> None:
    key = keys.add("ward", scopes=("chat",))
    (tmp_path / "serving" / "keys.json").write_text("{")
    answer = client.post("/v1/chat/completions", json=ASK, headers=bearer(key))
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "bad-keys")


def test_once_there_is_a_key_nobody_gets_in_without_one(client: Any, keys: KeyFile) -> None:
    assert client.post("/v1/chat/completions", json=ASK).status_code == 200
    key = keys.add("ward", scopes=("chat",))
    assert client.get("/v1/models").status_code == 401
    assert client.post("/v1/chat/completions", json=ASK).status_code == 401
    wrong = client.post("/v1/chat/completions", json=ASK, headers=bearer("pk-wrong"))
    assert wrong.json()["error"]["code"] == "invalid_api_key"
    assert client.post("/v1/chat/completions", json=ASK, headers=bearer(key)).status_code == 200
    keys.revoke("ward")
    assert client.post("/v1/chat/completions", json=ASK, headers=bearer(key)).status_code == 401
    assert client.get("/health/ready").status_code == 200


def test_required_keys_are_asked_for_before_there_is_one(tmp_path: Path, keys: KeyFile) -> None:
    app = make_app(tmp_path, Fake(), site=Site(keys=keys), access={"keys": "required"})
    assert near(app).get("/v1/models").status_code == 401


@pytest.mark.parametrize(
    ("scope", "allowed"),
    [("chat", "/v1/models"), ("metrics", "/metrics"), ("review", "/feedback"), ("chat", "/chat")],
)
def test_a_key_allows_its_scopes_and_no_other(
    client: Any, keys: KeyFile, scope: str, allowed: str
) -> None:
    key = keys.add("some", scopes=(scope,))
    for path in ("/v1/models", "/metrics", "/feedback", "/chat"):
        status = client.get(path, headers=bearer(key)).status_code
        mine = path == allowed or (scope == "chat" and path in ("/v1/models", "/chat"))
        # Without an institution's folder there is no page of judgements.
        assert status == ((404 if path == "/feedback" else 200) if mine else 403), path


def test_each_key_has_its_own_rate(client: Any, keys: KeyFile) -> None:
    one, two = keys.add("one", scopes=("chat",)), keys.add("two", scopes=("chat",), per_minute=2)
    codes = [
        client.post("/v1/chat/completions", json=ASK, headers=bearer(one)).status_code
        for _ in range(7)
    ]
    assert codes == [200] * 5 + [429] * 2
    answers = [client.post("/v1/chat/completions", json=ASK, headers=bearer(two)) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert int(answers[-1].headers["retry-after"]) >= 1


def test_a_bucket_fills_evenly() -> None:
    now = [0.0]
    limits = Limits(clock=lambda: now[0])
    assert [limits.take("x", 60) for _ in range(61)] == [0] * 60 + [1]
    now[0] = 0.5
    assert limits.take("x", 60) == 1
    now[0] = 1.1
    assert [limits.take("x", 60), limits.take("x", 60)] == [0, 1]
    now[0] = 1e9
    assert [limits.take("x", 60) for _ in range(61)][-1] == 1


def test_without_keys_only_loopback_names_and_our_own_pages_get_in(tmp_path: Path) -> None:
    client = near(make_app(tmp_path, Fake()))
    ask = {"json": ASK, "headers": {"host": "evil.example"}}
    assert client.post("/v1/chat/completions", **ask).json()["error"]["code"] == "foreign-host"
    for origin, status in (("https://evil.example", 403), ("null", 403), (NEAR, 200)):
        headers = {"origin": origin}
        assert client.post("/v1/chat/completions", json=ASK, headers=headers).status_code == status
    open_to = make_app(tmp_path, Fake(), site=Site(hosts=frozenset({"evil.example"})))
    assert near(open_to).post("/v1/chat/completions", **ask).status_code == 200


def test_a_person_signs_in_with_a_key_and_the_cookie_is_for_our_pages_only(
    client: Any, keys: KeyFile
) -> None:
    key = keys.add("ward", scopes=("chat",))
    turned = client.get("/chat", follow_redirects=False)
    assert (turned.status_code, turned.headers["location"]) == (303, "/sign-in?to=/chat")
    assert client.post("/sign-in", data={"key": "pk-no"}).url.query == b"to=/chat&wrong"
    done = client.post("/sign-in", data={"key": key, "to": "/chat"}, follow_redirects=False)
    cookie = done.headers["set-cookie"].lower()
    assert cookie.startswith(COOKIE)
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert client.get("/chat").status_code == 200
    client.post("/sign-out")
    assert client.get("/chat", follow_redirects=False).status_code == 303


def test_a_form_of_many_fields_is_no_key(client: Any, keys: KeyFile) -> None:
    keys.add("ward", scopes=("chat",))
    answer = client.post("/sign-in", content="a=b&" * 30, follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/sign-in?to=/chat&wrong")


def test_a_way_to_elsewhere_is_not_taken_after_signing_in(client: Any, keys: KeyFile) -> None:
    key = keys.add("ward", scopes=("chat",))
    form = {"key": key, "to": "https://evil.example"}
    done = client.post("/sign-in", data=form, follow_redirects=False)
    assert done.headers["location"] == "/chat"
