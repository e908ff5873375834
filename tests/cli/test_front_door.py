"""Help, versions and crashes: what every command has in common."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import privity
from client import folder as folders
from client.errors import ClientError
from tests.cli.said import NOWHERE, ROOT, SECRET, commands, one_sentence


def test_every_command_has_help_with_an_example_of_itself(say: Any) -> None:
    lacking = []
    for words, command in commands():
        code, out, _ = say(*words, "--help")
        assert code == 0, words
        assert "Usage: privity" in out, words
        arguments = [p for p in command.params if p.param_type_name == "argument"]
        if not all(getattr(p, "help", None) for p in arguments):
            lacking.append(f"an argument of {' '.join(words)}")
        if f"Example: privity {' '.join(words)}" not in (command.help or ""):
            lacking.append(" ".join(words))
    assert lacking == []


def test_an_unknown_option_command_or_group_is_wrong_usage(say: Any) -> None:
    for words, _ in commands():
        code, _, err = say(*words, "--no-such-option")
        assert code == 2, words
        assert "--no-such-option" in err, words
    for words in (("nosuch",), ("client", "nosuch"), ("audit", "verify"), ("client",), ()):
        assert say(*words)[0] == 2, words


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("client", "doctor", NOWHERE), 2),
        (("client", "scrub", NOWHERE), 2),
        (("client", "deid", NOWHERE), 2),
        (("client", "plan", NOWHERE, "--run", NOWHERE), 2),
        (("client", "run", NOWHERE), 2),
        (("client", "approve", NOWHERE, "triage"), 2),
        (("client", "refuse", NOWHERE, "triage"), 2),
        (("client", "budget", NOWHERE), 2),
        (("server", "enroll", NOWHERE, NOWHERE), 2),
        (("server", "revoke", NOWHERE, "clinic-a"), 2),
        (("server", "start", NOWHERE), 2),
        (("server", "run", NOWHERE, "--run", NOWHERE), 2),
        (("server", "release", NOWHERE, "triage"), 2),
        (("server", "status", NOWHERE), 2),
        (("audit", "verify", NOWHERE), 2),
        (("audit", "show", NOWHERE), 2),
        (("audit", "detect", NOWHERE, "--key", NOWHERE), 2),
        (("model", "show", "no-such-model"), 2),
        (("model", "pull", "no-such-model"), 2),
        (("serve", NOWHERE, "--key", NOWHERE), 2),
        (("client", "init", NOWHERE, "--name", "Not A Name", "--coordinator", "h:1"), 2),
        (("client", "init", NOWHERE, "--name", "a", "--coordinator", "no port"), 2),
        (("server", "init", NOWHERE, "--name", "Not A Name"), 2),
    ],
)
def test_what_is_missing_or_misnamed_is_one_sentence(say: Any, words: Any, code: int) -> None:
    found, out, err = say(*words)
    assert found == code
    assert out == ""
    assert one_sentence(err)


def test_debug_shows_where_and_nothing_else_does(say: Any) -> None:
    with pytest.raises(ClientError):
        privity.main(["client", "doctor", NOWHERE, "--debug"])
    assert one_sentence(say("client", "doctor", NOWHERE)[2])


def test_an_unforeseen_fault_is_named_by_its_type_and_not_by_its_text(
    say: Any, site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path) -> None:
        raise ZeroDivisionError(SECRET)

    monkeypatch.setattr(folders, "open_folder", fail)
    code, out, err = say("client", "budget", site)
    assert code == 1
    assert one_sentence(err)
    assert "ZeroDivisionError" in err
    assert SECRET not in out + err


def test_the_version_is_printed(say: Any) -> None:
    assert say("--version") == (0, "privity 0.1.0\n", "")


def test_an_old_python_is_refused_in_a_sentence(say: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 10, 9))
    code = privity.main(["--version"])
    monkeypatch.undo()
    assert code == 2


def python(program: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program, *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_group_loads_neither_the_others_nor_a_heavy_library() -> None:
    heavy = ["torch", "flwr", "transformers", "presidio_analyzer", "fastapi"]
    program = (
        "import sys, privity\n"
        "privity.main(['audit', '--help']); privity.main(['audit', 'verify', '/nonexistent'])\n"
        f"print([m for m in {heavy} + ['client.cli', 'server.cli', 'model.cli', 'demo.cli']"
        " if m in sys.modules])"
    )
    assert python(program).stdout.splitlines()[-1] == "[]"


def test_debug_prints_the_traceback_in_a_real_process() -> None:
    program = "import privity, sys; sys.exit(privity.main(sys.argv[1:]))"
    ended = python(program, "server", "status", NOWHERE, "--debug")
    assert ended.returncode == 1
    assert "Traceback" in ended.stderr


def test_a_reader_that_goes_away_causes_no_traceback() -> None:
    program = "import privity, sys; sys.exit(privity.main(sys.argv[1:]))"
    reading, writing = os.pipe()
    os.close(reading)
    try:
        ended = subprocess.run(
            [sys.executable, "-c", program, "audit", "show", "--help"],
            cwd=ROOT,
            stdout=writing,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    finally:
        os.close(writing)
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    assert "BrokenPipe" not in ended.stderr
