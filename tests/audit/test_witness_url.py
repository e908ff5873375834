"""Any witness that speaks C2SP over HTTP can be asked, and none is believed without its key."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from audit import keys, log, merkle, note, witness, witness_url
from audit.cli import app
from audit.errors import AuditError, InconsistentLog, StaleRequest

RAN = {"bundle_digest": "sha256:" + "0" * 64, "verdict": "ok"}


class Server:
    """A witness as c2sp.org/tlog-witness describes it; `answer` overrides what it says."""

    def __init__(self, folder: Path, logs: dict[str, str]) -> None:
        self.keys = keys.create(folder / "keys", "w1")
        self.memory = witness.Witness(folder / "witness.sqlite", self.keys)
        self.logs = logs  # origin -> log key
        self.asked: list[bytes] = []
        self.answer: tuple[int, bytes] | None = None
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.asked.append(body)
                status, text = (404, b"") if self.path != "/w1/add-checkpoint" else (0, b"")
                if not status:
                    status, text = outer.answer or outer.judge(body)
                self.send_response(status)
                if status == 409:
                    self.send_header("Content-Type", "text/x.tlog.size")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *given: Any) -> None:
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/w1"

    def judge(self, body: bytes) -> tuple[int, bytes]:
        try:
            asked = witness.parse_request(body)
            origin = note.parse_checkpoint(note.parse(asked.checkpoint)).origin
            if origin not in self.logs:
                return 404, b""
            line = self.memory.cosign_request(body, log_key=self.logs[origin])
        except StaleRequest as error:
            return 409, f"{error.size}\n".encode()
        except InconsistentLog:
            return 422, b""
        except AuditError as error:
            return (403 if error.code == "not-signed" else 400), b""
        return 200, line.encode()


@pytest.fixture
def party(tmp_path: Path) -> log.Log:
    ring = keys.create(tmp_path / "hub" / "keys", "hub")
    return log.Log.create(tmp_path / "hub" / "log", keys=ring)


@pytest.fixture
def server(tmp_path: Path, party: log.Log) -> Iterator[Server]:
    made = Server(tmp_path / "w1", {party.origin: party.keys.log})
    thread = threading.Thread(target=made.http.serve_forever, daemon=True)
    thread.start()
    yield made
    made.http.shutdown()
    made.http.server_close()
    thread.join()


def test_a_witness_cosigns_and_the_log_keeps_its_line(party: log.Log, server: Server) -> None:
    key = server.keys.public().witness
    first = witness_url.ask(party, server.url, key)
    assert (first.size, first.witness) == (1, "w1/witness")
    note.check_signed(note.parse(party.checkpoint()), note.parse_key(key))
    for _ in range(5):
        party.append("verifier-run", RAN)
    assert witness_url.ask(party, server.url + "/", key).size == 6
    # It did not know the size: the witness said it, and the second request proved from there.
    assert [body.split(b"\n")[0] for body in server.asked] == [b"old 0", b"old 0", b"old 1"]
    assert witness_url.ask(party, server.url, key, old_size=6).size == 6
    assert len(server.asked) == 4


def test_a_line_by_another_key_is_not_kept(party: log.Log, server: Server, tmp_path: Path) -> None:
    other = keys.create(tmp_path / "other", "w1").public().witness
    with pytest.raises(AuditError, match="no cosignature by its key"):
        witness_url.ask(party, server.url, other)
    assert party.checkpoint().count("—") == 1
    signed = note.cosign("other text\n", name="w1/witness", key=server.keys.witness, time=5)
    server.answer = (200, str(signed).encode())
    with pytest.raises(AuditError, match="no cosignature by its key"):
        witness_url.ask(party, server.url, server.keys.public().witness)
    server.answer = (200, b"\xff\xfe")
    with pytest.raises(AuditError, match="no cosignature by its key"):
        witness_url.ask(party, server.url, server.keys.public().witness)
    with pytest.raises(AuditError, match="not that of a witness"):
        witness_url.ask(party, server.url, server.keys.public().log)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((403, b""), "does not trust"),
        ((404, b""), "does not know"),
        ((422, b""), "does not extend"),
        ((500, b"x" * 100_000), "status 500"),
        ((302, b""), "status 302"),
        ((409, b"nonsense"), "status 409"),
    ],
)
def test_a_refusal_says_why(
    party: log.Log, server: Server, answer: tuple[int, bytes], said: str
) -> None:
    server.answer = answer
    with pytest.raises(AuditError, match=said) as error:
        witness_url.ask(party, server.url, server.keys.public().witness)
    assert (error.value.code, error.value.exit_code) == ("witness-refused", 4)
    logged = [entry.event.kind for entry in party.entries()]
    assert ("witness-refused" in logged) == (answer[0] in (409, 422))


def test_a_witness_that_knows_a_longer_log_shows_a_rollback(party: log.Log, server: Server) -> None:
    server.answer = (409, b"99\n")
    with pytest.raises(AuditError, match="rolled back"):
        witness_url.ask(party, server.url, server.keys.public().witness)
    assert list(party.entries())[-1].event.fields["reason"] == "log-rolled-back"


def test_a_forked_log_is_refused_and_both_notes_are_kept(
    party: log.Log, server: Server, tmp_path: Path
) -> None:
    key = server.keys.public().witness
    party.append("verifier-run", RAN)
    witness_url.ask(party, server.url, key)
    ring = keys.load(tmp_path / "hub" / "keys")
    twin = log.Log.create(tmp_path / "twin", keys=ring)
    for _ in range(3):
        twin.append("verifier-run", {**RAN, "verdict": "faults"})
    with pytest.raises(AuditError, match="does not extend"):
        witness_url.ask(twin, server.url, key)
    ((origin, older, newer),) = server.memory.contradictions()
    assert origin == "hub/log"
    assert note.parse_checkpoint(note.parse(older)).root != merkle.EMPTY_ROOT
    assert note.parse_checkpoint(note.parse(newer)).size == 4


def test_two_requests_at_once_cannot_roll_a_witness_back(party: log.Log, server: Server) -> None:
    key = server.keys.public().witness
    early = witness.request(party, 0)
    party.append("verifier-run", RAN)
    late = witness.request(party, 0)
    threads = [threading.Thread(target=server.judge, args=(b,)) for b in (late, early) * 4]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    held = server.memory.last("hub/log")
    assert held is not None
    assert witness_url.ask(party, server.url, key).size == 2
    assert server.judge(early)[0] in (409, 422)


def test_only_https_or_this_machine_is_asked(party: log.Log, server: Server) -> None:
    key = server.keys.public().witness
    for url in ("http://witness.example/w1", "ftp://localhost/w1", "file:///etc", "nonsense"):
        with pytest.raises(AuditError, match="begins with https"):
            witness_url.ask(party, url, key)
    with pytest.raises(AuditError) as error:
        witness_url.ask(party, "http://127.0.0.1:1/w1", key)
    assert (error.value.code, error.value.exit_code) == ("unreachable", 5)


def test_the_command_asks_a_witness(party: log.Log, server: Server, tmp_path: Path) -> None:
    file = tmp_path / "witness.vkey"
    file.write_text(server.keys.public().witness + "\n")
    place = ["witness", str(tmp_path / "hub"), "--url", server.url, "--key"]
    done = CliRunner().invoke(app, [*place, str(file)])
    assert "w1/witness cosigned size 1 at 20" in done.stdout
    assert "cannot be read" in str(CliRunner().invoke(app, [*place, "absent"]).exception)
