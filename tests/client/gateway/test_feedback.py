"""What people say is kept at the site, reviewed there, and then becomes training records."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import privity
from client import folder
from client.errors import ClientError
from client.gateway import feedback
from client.gateway.feedback import FeedbackStore, Judgement
from client.serving import Site
from tests.client.serving_world import SECRET, Fake, make_app, near

SAID = {
    "id": "chatcmpl-1",
    "model": "r1",
    "verdict": "down",
    "messages": [{"role": "user", "content": SECRET}],
    "answer": "the cards desk",
    "correction": "the fraud desk",
    "comment": "<script>alert(1)</script>",
}


@pytest.fixture
def site(tmp_path: Path) -> folder.Folder:
    return folder.create(tmp_path / "clinic", name="clinic", coordinator="h:1")


@pytest.fixture
def client(tmp_path: Path, site: folder.Folder) -> Any:
    return near(make_app(tmp_path, Fake(), site=Site.of(site)))


@pytest.fixture
def store(site: folder.Folder) -> FeedbackStore:
    return FeedbackStore(site.path / "serving" / "feedback.sqlite")


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def run(*words: object) -> tuple[int, str, str]:
        code = privity.main(["client", *(str(word) for word in words)])
        return (code, *capsys.readouterr())

    return run


def judgement(number: int = 1, **more: Any) -> Judgement:
    messages = ({"role": "user", "content": f"q{number}"},)
    rest = {"verdict": "up", "messages": messages, "answer": f"a{number}", **more}
    return Judgement(f"id-{number}", "r1", f"key/{number}", **rest)


def test_the_file_is_private(store: FeedbackStore, site: folder.Folder) -> None:
    path = site.path / "serving" / "feedback.sqlite"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    path.chmod(0o644)
    with pytest.raises(ClientError, match="chmod 600"):
        FeedbackStore(path)


def test_a_damaged_or_newer_file_is_refused(store: FeedbackStore, site: folder.Folder) -> None:
    path = site.path / "serving" / "feedback.sqlite"
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA user_version = 9")
    database.close()
    with pytest.raises(ClientError, match="newer"):
        FeedbackStore(path)
    path.write_bytes(b"x" * 5000)
    path.with_name("feedback.sqlite-wal").unlink(missing_ok=True)
    with pytest.raises(ClientError, match="damaged"):
        FeedbackStore(path)


def test_a_judgement_is_kept_and_a_later_one_takes_its_place(client: Any, store: Any) -> None:
    assert client.post("/v1/feedback", json={**SAID, "verdict": "up"}).json() == {"kept": True}
    assert client.post("/v1/feedback", json=SAID).status_code == 200
    (row,) = store.rows()
    assert row.judgement.verdict == "down"
    assert row.judgement.messages == ({"role": "user", "content": SECRET},)
    assert row.judgement.correction == "the fraud desk"
    assert SECRET not in repr(row)


def test_a_person_is_kept_only_with_consent(client: Any, store: FeedbackStore) -> None:
    refused = client.post("/v1/feedback", json={**SAID, "person": "p7"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "no-consent")
    assert store.rows() == []
    client.post("/v1/feedback", json={**SAID, "person": "p7", "consented": True})
    assert [row.judgement.person for row in store.rows()] == ["p7"]
    assert store.forget("p7") == 1
    assert store.rows() == []


def test_a_persons_key_is_kept_as_records_have_it(client: Any, store: FeedbackStore) -> None:
    spaced = {**SAID, "person": " p7 ", "consented": True}
    assert client.post("/v1/feedback", json=spaced).status_code == 200
    assert [row.judgement.person for row in store.rows()] == ["p7"]
    assert client.post("/v1/feedback", json={**spaced, "person": "  "}).status_code == 400


def test_a_number_that_a_reviewer_sees_never_becomes_another_judgements(store: Any) -> None:
    """Else an acceptance could fall on words that came after a person was forgotten."""
    store.add(judgement(1, person="p7"))
    (shown,) = store.rows()
    store.forget("p7")
    store.add(judgement(2))
    assert store.review(shown.number, "accepted") is False
    assert store.counts()["new"] == 1


def test_without_a_folder_or_by_choice_nothing_is_kept(tmp_path: Path, site: Any) -> None:
    for more in ({}, {"site": Site.of(site), "feedback": {"keep": False}}):
        client = near(make_app(tmp_path, Fake(), **more))
        assert client.post("/v1/feedback", json=SAID).status_code == 404
        assert 'data-judge=""' in client.get("/chat").text


def test_the_page_shows_what_is_new_as_text_and_takes_a_decision(client: Any, store: Any) -> None:
    client.post("/v1/feedback", json=SAID)
    page = client.get("/feedback")
    assert SECRET in page.text
    assert "&lt;script&gt;" in page.text
    assert "<script>alert" not in page.text
    number = store.rows()[0].number
    for wrong in ({"decision": "maybe"}, {}):
        assert client.post(f"/feedback/{number}", data=wrong).status_code == 400
    assert client.post("/feedback/99", data={"decision": "accepted"}).status_code == 404
    done = client.post(f"/feedback/{number}", data={"decision": "accepted"})
    assert "Nothing to review" in done.text
    assert store.counts() == {"new": 0, "accepted": 1, "rejected": 0}


def test_pages_fetch_nothing_from_elsewhere_and_run_no_script_of_others(client: Any) -> None:
    for path in ("/chat", "/sign-in", "/feedback", "/assets/chat.js", "/assets/style.css"):
        answer = client.get(path)
        assert answer.status_code == 200
        assert "http" not in answer.text
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'")
        assert "unsafe" not in policy
        assert answer.headers["referrer-policy"] == "same-origin"  # else forms have no origin
        assert " style=" not in answer.text
        assert " onclick=" not in answer.text
    assert client.get("/assets/base.html").status_code == 404
    assert client.get("/assets/..%2Fkeys.py").status_code == 404


def test_accepted_judgements_become_records_and_preferences() -> None:
    rows = [
        feedback.Kept(3, "t", "accepted", judgement(3, verdict="down")),
        feedback.Kept(2, "t", "accepted", judgement(2, verdict="down", correction="c2")),
        feedback.Kept(1, "t", "accepted", judgement(1, person="p")),
        feedback.Kept(4, "t", "new", judgement(4)),
    ]
    assert feedback.records(rows, person_column="unit_id") == {
        2: {
            "instruction": "q2", "response": "c2", "unit_id": "feedback:key/2",
            "category": "feedback", "rejected": "a2",
        },
        1: {"instruction": "q1", "response": "a1", "unit_id": "p", "category": "feedback"},
    }  # fmt: skip


def test_the_commands_count_forget_and_manage_keys(say: Any, site: Any, store: Any) -> None:
    store.add(judgement(1, person="p"))
    assert say("feedback", site.path)[1] == "1 new, 0 accepted, 0 rejected\n"
    assert say("feedback", site.path, "--forget", "p")[1] == "1 forgotten\n"
    assert "no keys" in say("keys", site.path)[1]
    code, key, err = say("keys", site.path, "--add", "ward")
    assert (code, key[:3]) == (0, "pk-")
    assert "once" in err
    listed = json.loads(say("keys", site.path, "--json")[1])
    assert [(row["name"], row["scopes"], row["revoked"]) for row in listed] == [
        ("ward", ["chat", "feedback"], None)
    ]
    assert say("keys", site.path, "--add", "ward")[0] == 2
    assert "ward" in say("keys", site.path, "--revoke", "ward")[1]
    assert say("keys", site.path, "--revoke", "ward")[0] == 2
    assert say("keys", site.path, "--add", "x", "--revoke", "y")[0] == 2
