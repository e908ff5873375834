"""The trainer in a cell: no network, no keys, nothing to write to, and nothing but frames out."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from client import cell, frames, namespace, withdrawals
from client import folder as folders
from client.cell import Cell
from client.cell_main import main
from client.errors import ClientError
from client.folder import Folder
from client.frames import Frame
from tests.client.isolation import isolated

# Code of an attacker who owns the trainer, in exactly the view that a trainer has.
_ATTACK = """
import ctypes, json, os, socket, sys
from client import namespace
view, listening, path_socket, folder, runner = json.loads(sys.argv[1])
namespace.enter(namespace.View(*map(tuple, view)))
done = {}

def attempt(name, act):
    try:
        done[name] = f"done: {act()!r}"[:200]
    except BaseException as fault:
        done[name] = type(fault).__name__

def connect(family, address):
    with socket.socket(family) as line:
        line.settimeout(2)
        line.connect(address)

def escape():
    libc = ctypes.CDLL(None, use_errno=True)
    def call(name, *given):
        if getattr(libc, name)(*given) != 0:
            raise OSError(ctypes.get_errno())
    call("unshare", 0x10000000 | 0x20000)
    call("umount2", folder.encode(), 2)

attempt("loopback", lambda: connect(socket.AF_INET, ("127.0.0.1", listening)))
attempt("outside", lambda: connect(socket.AF_INET, ("192.0.2.1", 443)))
attempt("outside v6", lambda: connect(socket.AF_INET6, ("2001:db8::1", 443)))
attempt("name server", lambda: socket.getaddrinfo("example.org", 443))
attempt("path socket", lambda: connect(socket.AF_UNIX, path_socket))
attempt("abstract socket", lambda: connect(socket.AF_UNIX, "\\0" + path_socket))
attempt("raw socket", lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW))
attempt("read records", lambda: open(f"{folder}/records.jsonl").read(1))
attempt("append records", lambda: open(f"{folder}/records.jsonl", "a"))
attempt("remove records", lambda: os.unlink(f"{folder}/records.jsonl"))
attempt("replace records", lambda: os.rename(f"{folder}/records.jsonl", "/tmp/x"))
attempt("chmod records", lambda: os.chmod(f"{folder}/records.jsonl", 0o777))
attempt("remount", lambda: escape())
attempt("keys", lambda: os.listdir(f"{folder}/keys"))
attempt("ledger", lambda: open(f"{folder}/ledger.sqlite", "rb").read(1))
attempt("new file", lambda: open(f"{folder}/x", "w"))
attempt("home", lambda: os.listdir(os.path.expanduser("~")) if False else open("/root/x", "w"))
attempt("runner's memory", lambda: open(f"/proc/{runner}/mem", "rb"))
attempt("runner's files", lambda: os.listdir(f"/proc/{runner}/root"))
attempt("own processes", lambda: os.listdir("/proc/self"))
attempt("package", lambda: open(namespace.__file__, "a"))
done["folder"] = sorted(os.listdir(folder))
done["tmp"] = open("/tmp/scratch", "w").write("x")
print(json.dumps(done))
"""


@pytest.fixture
def site(tmp_path: Path) -> Folder:
    made = folders.create(tmp_path / "clinic-a", name="clinic-a", coordinator="127.0.0.1:8443")
    made.data.write_text('{"instruction": "a", "response": "b"}\n')
    return made


def _attack(site: Folder, tmp_path: Path) -> dict[str, Any]:
    with socket.socket() as tcp, socket.socket(socket.AF_UNIX) as unix, \
            socket.socket(socket.AF_UNIX) as abstract:  # fmt: skip
        tcp.bind(("127.0.0.1", 0))
        unix.bind(str(tmp_path / "s"))
        abstract.bind("\0" + str(tmp_path / "s"))
        for line in (tcp, unix, abstract):
            line.listen()
        given = [cell._view(site), tcp.getsockname()[1], str(tmp_path / "s"), str(site.path),
                 os.getpid()]  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-P", "-c", _ATTACK, json.dumps(given)], env=cell._environment(),
            cwd="/", capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


@isolated
def test_code_in_the_trainer_has_no_network_no_keys_and_nothing_to_write_to(
    site: Folder, tmp_path: Path
) -> None:
    found = _attack(site, tmp_path)
    assert found.pop("folder") == ["records.jsonl"]
    assert found.pop("tmp") == 1
    assert found.pop("read records").startswith("done")  # so the view itself works
    assert [name for name, outcome in found.items() if outcome.startswith("done")] == []
    assert len(found) == 20


@isolated
def test_the_same_code_outside_would_have_reached_everything(site: Folder, tmp_path: Path) -> None:
    """The attacks above can succeed: without the namespaces most of them do."""
    text = _ATTACK.replace("namespace.enter(", "(lambda view: None)(")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(globals(), "_ATTACK", text.replace("/root/x", str(tmp_path / "x")))
        found = _attack(site, tmp_path)
    reached = {name for name, outcome in found.items() if str(outcome).startswith("done")}
    wanted = ("loopback", "path socket", "abstract socket", "append records", "remove records",
              "keys", "ledger", "new file", "home", "package")  # fmt: skip
    assert reached >= set(wanted)


@isolated
def test_records_outside_the_folder_and_behind_links_are_seen_and_not_written(
    site: Folder, tmp_path: Path
) -> None:
    (tmp_path / "far").mkdir()
    real = tmp_path / "far" / "real.jsonl"
    real.write_text("{}\n")
    (site.path / "records.jsonl").unlink()
    (site.path / "records.jsonl").symlink_to("../far/real.jsonl")
    found = _attack(site, tmp_path)
    assert found["read records"].startswith("done")
    assert [n for n in ("append records", "replace records", "keys") if "done" in found[n]] == []


# -- a round through the pipe ---------------------------------------------------------------------


def _plan(federation: Any, **changes: object) -> Any:
    from configs.load import load
    from configs.run import Run
    from server import plans

    plan = plans.make(load(federation.run_file(**changes), Run))
    return plan, plans.digest(plan)


@isolated
def test_a_cell_loads_once_scrubs_and_trains_round_after_round(
    federation: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    from server.conduct import _start

    monkeypatch.setenv("SECRET_TOKEN", "zqtoken")
    made = federation(("clinic-a",))
    made.set("clinic-a", language="en")
    plan, digest = _plan(made)
    trainer = Cell(made.sites["clinic-a"])
    try:
        assert trainer.load(plan, digest) == "none"
        child: Any = trainer._child
        environment = Path(f"/proc/{child._process.pid}/environ").read_bytes()
        assert b"zqtoken" not in environment
        assert made.sites["clinic-a"].pseudonym_secret().hex().encode() not in environment
        opened = trainer.open()
        assert opened is not None
        assert opened.report.records == opened.report.kept > 0
        assert trainer.open() is None
        start, steps = _start(plan), []
        first = trainer.train(start, None, lambda done, total: steps.append((done, total)))
        second = trainer.train(
            {n: start[n] + first.delta[n] for n in start}, first.state, lambda *_: None
        )
        assert steps[-1] == (plan.steps_per_round, plan.steps_per_round)
        assert trainer.load(plan, digest) == "none"
        assert trainer._child is child
        assert first.delta.keys() == second.delta.keys() == start.keys()
        assert all(np.isfinite(array).all() for array in second.delta.values())
        assert not np.array_equal(first.delta[min(start)], second.delta[min(start)])
        # Killed from outside, as by a system without memory: an error, and another one starts.
        child._process.kill()
        child._process.wait()
        with pytest.raises(ClientError) as lost:
            trainer.train(start, None, lambda *_: None)
        assert lost.value.code == "trainer-stopped"
        assert trainer.load(plan, digest) == "none"
        assert trainer.open() is not None
    finally:
        trainer.stop()


@isolated
@pytest.mark.parametrize("in_place", [False, True])
def test_changed_records_are_what_the_next_run_reads(
    federation: Callable[..., Any], in_place: bool
) -> None:
    made = federation(("clinic-a",))
    plan, digest = _plan(made)
    site = made.sites["clinic-a"]
    trainer = Cell(site)
    try:
        assert trainer.load(plan, digest) == "none"
        before = trainer._child
        new = site.data if in_place else site.path / "new"
        new.write_text("not a record\n")
        new.replace(site.data)
        with pytest.raises(ClientError) as fault:
            trainer.open()
        assert fault.value.code == "data-not-usable"
        assert trainer._child is not before
    finally:
        trainer.stop()


class _Still:
    """A child that does nothing, and stays."""

    alive = True

    def stop(self) -> None:
        pass


def test_what_changed_since_the_last_round_is_loaded_before_the_next_is_charged(
    site: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def ask(self: Cell, frame: Frame, *kinds: str, **_: Any) -> Frame:
        asked.append(frame.kind)
        return Frame(kinds[0], {"answer": "none"})

    monkeypatch.setattr(cell, "_Child", lambda folder: _Still())
    monkeypatch.setattr(Cell, "_ask", ask)
    trainer, plan = Cell(site), SimpleNamespace(document=dict)
    for change in (
        lambda: None,
        lambda: site.data.write_text("longer than it was before, by far, and no record at all"),
        lambda: withdrawals.list_file(site).write_text("{}"),
    ):
        change()
        for _ in range(2):  # a proposal and a round
            assert trainer.load(plan, "sha256:1") == "none"  # type: ignore[arg-type]
    assert asked == ["load"] * 3


# -- where it cannot be cut off -------------------------------------------------------------------


def test_who_withdraws_is_gone_when_records_are_opened_next_and_the_note_names_the_rest(
    federation: Callable[..., Any],
) -> None:
    from client import people

    made = federation(("clinic-a",))
    made.set("clinic-a", language="en")
    plan, digest = _plan(made)
    site = made.sites["clinic-a"]
    persons = sorted({record.person for record in people.read(site).records})
    trainer = Cell(site)
    try:
        assert trainer.load(plan, digest) == "none"
        first = trainer.open()
        assert first is not None
        assert len(first.lineage.persons) == len(persons)
        withdrawals.withdraw(site, persons[0])
        second = trainer.open()
        assert second is not None
        assert set(second.lineage.persons) < set(first.lineage.persons)
        assert len(second.lineage.persons) == len(persons) - 1
        assert second.report.records < first.report.records
        assert trainer.open() is None
    finally:
        trainer.stop()


def test_digests_come_back_from_numbers_and_nothing_else_is_taken_for_them() -> None:
    known = tuple("hmac-sha256:" + digit * 64 for digit in "09af")
    assert frames.digests(frames.numbers(known)) == known
    assert frames.digests(frames.numbers(())) == ()
    for wrong in (
        np.zeros((1, 31), np.float32),
        np.zeros((1, 32), np.float64),
        np.full((1, 32), 0.5, np.float32),
        np.full((1, 32), 256, np.float32),
        np.full((1, 32), np.nan, np.float32),
    ):
        with pytest.raises(ClientError):
            frames.digests(wrong)


@pytest.fixture
def forbidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """A system that does not know the child's architecture, and so makes no namespaces."""
    real = cell._environment

    def environment() -> dict[str, str]:
        code = "import client.namespace as n; n._SYS_PIVOT_ROOT.clear()"
        return real() | {"PRIVITY_TEST_FIRST": code}

    monkeypatch.setattr(cell, "_environment", environment)
    popen = subprocess.Popen

    def start(command: list[str], **more: Any) -> Any:
        first = "import os, sys; exec(os.environ['PRIVITY_TEST_FIRST']); " \
                "from client.cell_main import main; main(sys.argv[2:])"  # fmt: skip
        return popen([command[0], "-P", "-c", first, "x", command[-1]], **more)

    monkeypatch.setattr(cell.subprocess, "Popen", start)


def test_a_site_that_wants_no_network_does_not_train_with_one(
    forbidden: None, federation: Callable[..., Any]
) -> None:
    made = federation(("clinic-a",))
    plan, digest = _plan(made)
    for act in (
        lambda: Cell(made.sites["clinic-a"]).load(plan, digest),
        lambda: cell.check(made.sites["clinic-a"]),
    ):
        with pytest.raises(ClientError, match=r"trainer\.network") as refusal:
            act()
        assert (refusal.value.code, refusal.value.exit_code) == ("trainer-not-isolated", 3)


def test_a_site_that_is_content_with_a_warning_trains_and_says_so(
    forbidden: None, federation: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    made = federation(("clinic-a",))
    made.set("clinic-a", network="warn")
    assert cell.check(made.sites["clinic-a"]).network == "open"
    assert "has the network" in caplog.text
    trainer = Cell(made.sites["clinic-a"])
    try:
        assert trainer.load(*_plan(made)) == "none"
        assert "not cut off" in caplog.text
    finally:
        trainer.stop()


def test_a_platform_without_namespaces_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(namespace.sys, "platform", "darwin")
    with pytest.raises(namespace.Refused, match="not supported on darwin"):
        namespace.enter(namespace.View((), (), ()))


def test_frames_come_back_as_they_were_sent() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        sent = Frame("trained", {"a": 1}, {"x": np.arange(3, dtype=np.float32)})
        frames.send(ours, sent)
        back = frames.receive(theirs, most_bytes=1000)
        assert (back.kind, back.facts) == (sent.kind, sent.facts)
        assert np.array_equal(back.arrays["x"], sent.arrays["x"])
        frames.send(ours, sent)
        with pytest.raises(ClientError, match="never writes"):
            frames.receive(theirs, most_bytes=10)
    assert main is not None
