"""The officer's page over HTTP: closed to strangers, read-only, exact, and escaped."""

from __future__ import annotations

import re
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the test client warns about its own HTTP library
    from fastapi.testclient import TestClient

from audit import bundle as bundles
from audit import merkle, note, page, page_run, page_shelf
from audit.canonical import from_base64
from audit.errors import AuditError
from audit.page_access import LINK_SECONDS, SESSION_SECONDS, Access
from audit.signoff import Officer

HOST = "127.0.0.1:8090"
BASE = f"http://{HOST}"


@pytest.fixture(scope="module")
def missed(federate: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A run in which gamma misses the second of two rounds."""
    played = federate(tmp_path_factory.mktemp("page"), absent={1: ("gamma",)}).play()
    played.bundle()
    return played


@pytest.fixture(scope="module")
def books(missed: Any, account: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    cache = tmp_path_factory.mktemp("cache")
    return page_shelf.load(missed.root / "bundle", recompute=account, trust={}, cache=cache)


class Time:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Time:
    return Time()


@pytest.fixture
def access(clock: Time) -> Access:
    return Access(frozenset({HOST}), clock=clock)


@pytest.fixture
def stranger(books: Any, access: Access) -> TestClient:
    return TestClient(page.create(books, access), base_url=BASE, follow_redirects=False)


@pytest.fixture
def officer(tmp_path: Path) -> Officer:
    return Officer.create(tmp_path / "desk", "compliance-office")


@pytest.fixture
def client(books: Any, access: Access, officer: Officer) -> TestClient:
    """Logged in, with an officer who can sign."""
    found = TestClient(
        page.create(books, access, officer=officer), base_url=BASE, follow_redirects=False
    )
    assert found.get(f"/login?token={access.link()}").status_code == 200
    return found


def _form(text: str) -> str:
    found = re.search(r'name="form" value="([0-9a-f]{64})"', text)
    assert found
    return found[1]


@pytest.mark.parametrize(
    "path",
    ["/", "/b/bundle", "/b/bundle/entries", "/b/bundle/entry/hub/0", "/b/bundle/release",
     "/b/bundle/entry/hub/0/receipt", "/b/bundle/witnesses", "/b/bundle/signoff", "/docs",
     "/openapi.json", "/nothing"],
)  # fmt: skip
def test_a_stranger_sees_nothing(stranger: TestClient, path: str) -> None:
    answer = stranger.get(path)

    assert answer.status_code == 401
    assert "run-1" not in answer.text
    assert "alpha" not in answer.text
    assert stranger.post(path).status_code == 401


def test_a_link_works_once_and_not_for_long(
    stranger: TestClient, access: Access, clock: Time
) -> None:
    token = access.link()
    first = stranger.get(f"/login?token={token}")
    cookie = first.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert stranger.get("/").status_code == 200

    stranger.cookies.clear()
    assert stranger.get(f"/login?token={token}").status_code == 401
    assert stranger.get("/login").status_code == 401
    late = access.link()
    clock.now += LINK_SECONDS + 1
    assert stranger.get(f"/login?token={late}").status_code == 401


def test_a_session_ends(client: TestClient, clock: Time) -> None:
    assert client.get("/").status_code == 200
    clock.now += SESSION_SECONDS + 1
    assert client.get("/").status_code == 401


def test_logging_out_ends_the_session_also_for_who_kept_the_cookie(client: TestClient) -> None:
    kept = dict(client.cookies)
    form = _form(client.get("/").text)
    assert client.post("/logout", data={"form": "0" * 64}).status_code == 400
    assert client.post("/logout", data={"form": form}).status_code == 303
    client.cookies.update(kept)

    assert client.get("/").status_code == 401


def test_a_proxys_header_logs_in_and_its_absence_does_not(books: Any) -> None:
    behind = Access(frozenset({HOST}), header="X-Remote-User")
    app = TestClient(page.create(books, behind), base_url=BASE)

    assert app.get("/").status_code == 401
    assert app.get("/", headers={"X-Remote-User": ""}).status_code == 401
    twice = [("X-Remote-User", "mallory"), ("X-Remote-User", "m.curie")]
    assert app.get("/", headers=twice).status_code == 401
    assert "m.curie" in app.get("/", headers={"X-Remote-User": "m.curie"}).text
    assert app.get(f"/login?token={behind.link()}").status_code == 401


def test_a_proxys_header_is_believed_on_loopback_only(books: Any) -> None:
    with pytest.raises(AuditError) as fault:
        page_run.run(books, host="0.0.0.0", port=0, header="X-User", tell=print)

    assert fault.value.exit_code == 2
    assert page_run.is_loopback("127.0.0.1")
    assert page_run.is_loopback("::1")
    assert not page_run.is_loopback("192.0.2.1")
    assert not page_run.is_loopback("example.org")


def test_another_host_name_is_refused(client: TestClient) -> None:
    assert client.get("/", headers={"Host": "evil.example"}).status_code == 421


def test_nothing_is_loaded_from_elsewhere_and_no_script_runs(client: TestClient) -> None:
    for path in ("/", "/b/bundle", "/b/bundle/entries", "/b/bundle/entry/hub/3",
                 "/b/bundle/release", "/b/bundle/witnesses", "/b/bundle/signoff"):  # fmt: skip
        answer = client.get(path)
        assert answer.status_code == 200, path
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["cache-control"] == "no-store"
        assert not re.search(r"<script|\sstyle=|\son\w+=", answer.text), path
        targets = re.findall(r'(?:src|href|action)="([^"]*)"', answer.text)
        assert all(target.startswith(("/", "#")) for target in targets), path


def test_the_overview_has_institutions_budgets_and_open_problems(
    client: TestClient, account: Any
) -> None:
    text = client.get("/").text

    for name in ("alpha", "beta", "gamma", "hub"):
        assert name in text
    assert f"{account([(1.5, 0.01, 20)], 0.00001):.4f}" in text
    assert "absent: gamma" in text
    assert "Every check held." in text
    assert '<svg class="bar"' in text
    assert "0.00001, one patient, zero-out" in text


def test_the_grid_says_who_was_absent_in_which_round(client: TestClient) -> None:
    text = client.get("/b/bundle").text
    rows = re.findall(r'<tr><th scope="row">(\d)</th>(.*?)</tr>', text, re.DOTALL)
    states = {turn: re.findall(r">(accepted|rejected|absent|not named)<", row)
              for turn, row in rows}  # fmt: skip

    assert states == {"0": ["accepted"] * 3, "1": ["accepted", "accepted", "absent"]}


@pytest.mark.parametrize(
    ("filters", "count"),
    [
        ("kind=egress", 5),
        ("kind=egress&institution=alpha", 2),
        ("institution=gamma&round=1", 0),
        ("kind=update-accepted&institution=gamma", 1),
        ("problems=1", 1),
        ("kind=dp-training&round=0&run=run-1", 3),
        ("kind=no-such", 0),
        ("since=2000-01-01&until=2000-01-02", 0),
        ("since=2000-01-01&kind=release", 1),
        ("until=2000-01-01", 0),
    ],
)
def test_each_filter_keeps_exactly_what_it_says(
    client: TestClient, filters: str, count: int
) -> None:
    text = client.get(f"/b/bundle/entries?{filters}").text

    assert f"{count} entr{'y' if count == 1 else 'ies'}, newest first" in text
    assert text.count('data-label="entry"') == count


@pytest.mark.parametrize("wrong", ["round=x", "round=-1", "since=yesterday", "until=2026-13-01",
                                   "before=1e9", "until=9999-12-31T23:59:59.9999999"])  # fmt: skip
def test_a_filter_that_is_none_is_refused_with_a_sentence(client: TestClient, wrong: str) -> None:
    answer = client.get(f"/b/bundle/entries?{wrong}")

    assert answer.status_code == 400
    assert "is not a" in answer.text


def test_what_a_visitor_types_is_escaped(client: TestClient) -> None:
    text = client.get("/b/bundle/entries?round=7&since=2026-01-01&kind=<b>x</b>&x=<script>").text

    assert "<b>x" not in text
    assert "<script" not in text


def test_the_entry_shows_a_proof_that_was_checked_and_the_command_that_checks_it_again(
    client: TestClient, missed: Any
) -> None:
    text = client.get("/b/bundle/entry/hub/6").text

    assert "The signature holds" in text
    assert f"privity audit show {missed.root / 'bundle'} --entry hub:6" in text
    assert "update-accepted" in text


def test_the_receipt_checks_against_the_signed_root_without_this_page(
    client: TestClient, missed: Any
) -> None:
    envelope = client.get("/b/bundle/entry/hub/5/envelope").content
    answer = client.get("/b/bundle/entry/hub/5/receipt")
    assert "attachment" in answer.headers["content-disposition"]
    head, _, checkpoint = answer.text.partition("\n\n")
    first, index, *hashes = head.split("\n")
    key = note.parse_key(missed.coordinator.public.log)
    stated = note.open_checkpoint(checkpoint, key=key, origin=None)

    assert (first, index) == ("c2sp.org/tlog-proof@v1", "index 5")
    proof = [from_base64(item, where="a hash") for item in hashes]
    leaf = merkle.leaf_hash(envelope)
    merkle.check_inclusion(leaf, 5, stated.size, proof, stated.root)
    with pytest.raises(merkle.ProofFailed):
        merkle.check_inclusion(leaf, 4, stated.size, proof, stated.root)


@pytest.mark.parametrize("path", ["/b/other", "/b/bundle/entry/nobody/0", "/b/bundle/entry/hub/99",
                                  "/b/..%2f..%2fetc", "/b/bundle/entry/hub/x"])  # fmt: skip
def test_what_is_not_there_is_refused_without_a_trace(client: TestClient, path: str) -> None:
    answer = client.get(path)

    assert answer.status_code in (400, 404)
    assert answer.headers["content-type"].startswith("text/html")
    assert "Traceback" not in answer.text


def test_a_damaged_entry_is_never_shown_as_held(
    missed: Any, account: Any, access: Access, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(missed.root / "bundle", tmp_path / "bundle"))
    tile = next((copy / "coordinator/tile/entries").rglob("*.p/*"))
    data = tile.read_bytes()
    tile.write_bytes(data.replace(b'"sig":"', b'"sig":"A', 1)[: len(data)])
    books = page_shelf.load(copy, recompute=account, trust={}, cache=tmp_path / "cache")
    app = TestClient(page.create(books, access), base_url=BASE)
    app.get(f"/login?token={access.link()}")

    assert "FAULTY" in app.get("/").text
    answer = app.get("/b/bundle/entry/hub/0")
    assert answer.status_code == 409
    assert "The signature holds" not in answer.text


@pytest.mark.parametrize(
    "name",
    ["coordinator/checkpoint", "sites/alpha/checkpoint", "plan.json", "release/README.md",
     "release/adapter_model.safetensors", "coordinator/tile/entries", "coordinator/tile/0"],
)  # fmt: skip
def test_every_view_of_a_bundle_with_a_hole_answers_and_says_faulty(
    missed: Any, account: Any, access: Access, tmp_path: Path, name: str
) -> None:
    copy = Path(shutil.copytree(missed.root / "bundle", tmp_path / "bundle"))
    hole = copy / name
    shutil.rmtree(hole) if hole.is_dir() else hole.unlink()
    books = page_shelf.load(copy, recompute=account, trust={}, cache=tmp_path / "cache")
    app = TestClient(page.create(books, access), base_url=BASE)
    app.get(f"/login?token={access.link()}")

    for path in ("/", "/b/bundle", "/b/bundle/entries", "/b/bundle/release",
                 "/b/bundle/witnesses", "/b/bundle/signoff"):  # fmt: skip
        answer = app.get(path)
        assert answer.status_code == 200, path
        assert "FAULTY" in answer.text, path
    assert app.get("/b/bundle/entry/hub/4").status_code in (200, 400, 409)


_ANY = st.text(max_size=20) | st.sampled_from(["1", "0", "hub", "2026-01-01", "-1", "9" * 15, "\0"])


@given(asked=st.dictionaries(
    st.sampled_from(["institution", "kind", "run", "round", "since", "until", "problems",
                     "before", "first", "x"]), _ANY, max_size=6,
))  # fmt: skip
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_whatever_is_asked_is_answered_or_refused(
    client: TestClient, asked: dict[str, str]
) -> None:
    for path in ("/b/bundle/entries", "/b/bundle"):
        assert client.get(path, params=asked).status_code in (200, 400)


def test_the_dossier_leads_from_updates_to_the_signature(client: TestClient) -> None:
    text = client.get("/b/bundle/release").text
    headings = re.findall(r"<h3>\d\. ([A-Za-z ]+) <span", text)

    assert headings == ["Updates", "Aggregate", "Watermark", "Evaluation", "Approvals",
                        "Signature and files"]  # fmt: skip
    assert "adapter_model.safetensors" in text


def test_the_witness_board_says_who_cosigned_whom(client: TestClient) -> None:
    text = client.get("/b/bundle/witnesses").text

    assert text.count(">yes<") == 6
    assert "only the bundle says" in text


def test_a_sign_off_is_signed_and_stands_in_the_officers_own_log(
    client: TestClient, officer: Officer, books: Any
) -> None:
    before = bundles.read(books[0].bundle.path).digest
    form = _form(client.get("/b/bundle/signoff").text)
    asked = {"form": form, "log": "hub", "first": "0", "last": "15", "decision": "reviewed"}
    answer = client.post("/b/bundle/signoff", data=asked, headers={"Origin": BASE})
    assert answer.status_code == 303

    (signed,) = officer.listed(books[0].bundle)
    assert (signed.log, signed.first, signed.last, signed.fits) == ("hub", 0, 15, True)
    assert signed.problems == 1
    assert "yes, and only grew since" in client.get("/b/bundle/signoff").text
    assert bundles.read(books[0].bundle.path).digest == before


@pytest.mark.parametrize(
    "wrong",
    [{"form": "0" * 64}, {"log": "nobody"}, {"first": "9", "last": "3"}, {"last": "9999"},
     {"decision": "perfect"}, {"first": "x"}, {"first": ""}],
)  # fmt: skip
def test_a_wrong_sign_off_is_refused_and_not_logged(
    client: TestClient, officer: Officer, wrong: dict[str, str]
) -> None:
    form = _form(client.get("/b/bundle/signoff").text)
    asked = {"form": form, "log": "hub", "first": "0", "last": "1", "decision": "reviewed"}

    assert client.post("/b/bundle/signoff", data=asked | wrong).status_code == 400
    assert officer.listed() == ()


def test_a_form_from_another_site_is_refused(client: TestClient, officer: Officer) -> None:
    form = _form(client.get("/b/bundle/signoff").text)
    asked = {"form": form, "log": "hub", "first": "0", "last": "1", "decision": "reviewed"}
    for origin in ("https://evil.example", "null", "http://127.0.0.1"):
        far = {"Origin": origin}
        assert client.post("/b/bundle/signoff", data=asked, headers=far).status_code == 400
    long = asked | {"more": "x" * 10_000}
    assert client.post("/b/bundle/signoff", data=long).status_code == 400
    assert officer.listed() == ()


def test_without_an_officer_nothing_can_be_signed(stranger: TestClient, access: Access) -> None:
    stranger.get(f"/login?token={access.link()}")
    text = stranger.get("/b/bundle/signoff").text

    assert "Nobody signs off here" in text
    answer = stranger.post("/b/bundle/signoff", data={"form": _form(text), "log": "hub"})
    assert answer.status_code == 400
