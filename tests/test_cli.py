"""Every command answers a mistake with one sentence, the right exit code and no record's text."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

import privity
from client import folder as folders
from client.errors import ClientError
from server import store

ROOT = Path(__file__).parents[1]
SECRET = "Quillfeather"
NOWHERE = "/nonexistent-privity"

Said = tuple[int, str, str]


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRIVITY_DEBUG", "")
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """In memory where there is some: keys and ledgers wait for the disk at every write."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as place:
        yield Path(place)


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """Runs one command in this process: (exit code, stdout, stderr)."""

    def run(*words: object) -> Said:
        code = privity.main([str(word) for word in words])
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return code, out, err

    return run


@pytest.fixture(scope="session")
def made() -> Iterator[Path]:
    """A site and a coordinator that never met; copied, never used."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as place:
        folders.create(Path(place) / "site", name="clinic-a", coordinator="127.0.0.1:9")
        store.create(
            Path(place) / "hub", name="hub", host="127.0.0.1", port=9, control_port=free_port()
        )
        yield Path(place)


@pytest.fixture
def site(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made / "site", tmp_path / "site"))


@pytest.fixture
def hub(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made / "hub", tmp_path / "hub"))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder that has the form of a model, and two small matrices."""
    folder = tmp_path / "toy-model"
    folder.mkdir()
    (folder / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    (folder / "tokenizer.json").write_text("{}")
    name = "model.layers.0.self_attn.{}_proj.weight"
    weights = {name.format(part): np.zeros((16, 16), np.float32) for part in ("q", "v")}
    save_file(weights, folder / "model.safetensors")
    return folder


@pytest.fixture
def run_file(tmp_path: Path, model: Path) -> Path:
    path = tmp_path / "run.toml"
    path.write_text(
        f'name = "triage"\n[model]\nname = "{model}"\n[privacy]\nepsilon = 2.0\n'
        '[federation]\ninstitutions = ["clinic-a"]\n'
    )
    return path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def one_sentence(err: str) -> bool:
    lines = err.strip().splitlines()
    return len(lines) == 1 and lines[0].startswith("privity: ") and len(lines[0]) < 400


def commands() -> Iterator[tuple[tuple[str, ...], Any]]:
    for group in privity._GROUPS:
        found = privity._app([group]).commands[group]
        yield from (((group, name), command) for name, command in found.commands.items())
    for name in privity._COMMANDS:
        yield (name,), privity._app([name]).commands[name]


def edited(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


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


RECORDS = {
    "missing": None,
    "empty": b"",
    "not UTF-8": b'{"instruction": "\xff\xfe ' + SECRET.encode() + b'", "response": "x"}\n',
    "truncated": b'{"instruction": "' + SECRET.encode(),
    "no response": b'{"instruction": "' + SECRET.encode() + b'"}\n',
    "wrong columns": b'{"question": "' + SECRET.encode() + b'", "reply": "x"}\n',
    "no object": b'"' + SECRET.encode() + b'"\n[1]\nnull\n',
    "ten thousand characters": b'{"instruction": "' + (SECRET + " ").encode() * 800 + b"\n",
}


@pytest.mark.parametrize("case", RECORDS)
def test_no_message_repeats_a_record_of_a_bad_file(say: Any, site: Path, case: str) -> None:
    content = RECORDS[case]
    if content is not None:
        (site / "records.jsonl").write_bytes(content)
    code, out, err = say("client", "scrub", site)
    assert code == 2
    assert out == ""
    assert one_sentence(err)
    assert "records.jsonl" in err
    assert SECRET not in out + err
    assert not (site / "scrub-review.jsonl").exists()


def test_a_table_without_a_header_does_not_show_its_first_record(say: Any, site: Path) -> None:
    edited(site / "site.toml", '"records.jsonl"', '"records.csv"')
    (site / "records.csv").write_text(f"{SECRET},chestpain\nOther,cough\n")
    code, out, err = say("client", "scrub", site)
    assert code == 2
    assert one_sentence(err)
    assert SECRET not in out + err
    assert "chestpain" not in out + err


def test_the_good_lines_go_on_beside_the_bad_ones(say: Any, site: Path) -> None:
    lines = [
        {"instruction": f"Mr. John {SECRET} called.", "response": "triage", "unit_id": "p1"},
        {"instruction": f"{SECRET} " * 800, "response": "triage", "unit_id": "p2"},
        {"instruction": SECRET},
    ]
    text = "\n".join(json.dumps(line) for line in lines)
    (site / "records.jsonl").write_text(text + f'\n{{"instruction": "{SECRET}')
    code, out, err = say("client", "scrub", site)
    assert code == 0
    assert "no-response" in out
    assert "truncated" in out
    assert SECRET not in out + err
    assert (site / "scrub-review.jsonl").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (SECRET.encode() + b"\n", "not-json"),
        (b'{"txt": "' + SECRET.encode() + b'"}\n', "no-text"),
        (b'{"text": "\xff' + SECRET.encode() + b'"}\n', "not-utf-8"),
        (b'{"text": "' + SECRET.encode() + b"\n", "not-json"),
        (b"[" + b'"x",' * 2500 + b'"' + SECRET.encode() + b'"]\n', "no-text"),
    ],
)
def test_deid_holds_a_bad_line_back_and_goes_on(
    say: Any, tmp_path: Path, content: bytes, reason: str
) -> None:
    fine = b'{"text": "call 212 555 0143", "person": 7}\n'
    (tmp_path / "notes.jsonl").write_bytes(content + fine)
    code, out, err = say("client", "deid", tmp_path / "notes.jsonl")
    assert code == 0, err
    bad, good = map(json.loads, out.splitlines())
    assert bad == {"text": None, "spans": [], "quarantined": reason}
    assert not good["quarantined"]
    assert good["spans"]
    assert "0143" not in good["text"]
    assert SECRET not in out + err


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ("epsilon = 2.0", "epsilon = 0", "budget.epsilon"),
        ("epsilon = 2.0", "epsilon = -1.25", "budget.epsilon"),
        ("epsilon = 2.0", "epsilon = nan", "budget.epsilon"),
        ("epsilon = 2.0", "epsilon = inf", "budget.epsilon"),
        ("epsilon = 2.0", f'epsilon = "{SECRET}"', "budget.epsilon"),
        ("epsilon = 2.0", "epsilom = 2.0", "budget.epsilom"),
        ("delta = 1e-5", "delta = 0.5", "budget.delta"),
        ("[budget]", f'[{SECRET.lower()}]\nx = "{SECRET}"\n[budget]', SECRET.lower()),
        ("threads = 0", 'threads = "all"', "runtime.threads"),
        ('name = "clinic-a"', "", "name"),
    ],
)
def test_a_wrong_value_in_site_toml_is_named_by_its_key(
    say: Any, site: Path, old: str, new: str, key: str
) -> None:
    edited(site / "site.toml", old, new)
    for command in ("budget", "doctor"):
        code, out, err = say("client", command, site)
        assert code == 2
        assert out == ""
        assert one_sentence(err)
        assert "site.toml" in err
        assert f"'{key}'" in err
        assert SECRET not in err


def test_text_that_is_no_toml_is_named_by_its_line(say: Any, site: Path) -> None:
    (site / "site.toml").write_text(f"name = 'a'\n{SECRET} {SECRET}\n")
    code, _, err = say("client", "budget", site)
    assert code == 2
    assert "line 2" in err
    assert SECRET not in err
    (site / "site.toml").write_bytes(b"\xff\xfe")
    assert say("client", "budget", site)[0] == 2


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ("epsilon = 2.0", "epsilon = 0", "privacy.epsilon"),
        ("epsilon = 2.0", "epsilon = -2.0", "privacy.epsilon"),
        ("epsilon = 2.0", "epsilon = nan", "privacy.epsilon"),
        ("epsilon = 2.0", "epsilon = [2.0]", "privacy.epsilon"),
        ("epsilon = 2.0", "noise_multiplier = 2.0", "privacy.noise_multiplier"),
        ("epsilon = 2.0", "rounds = 1.5", "privacy.rounds"),
        ("[federation]", "[federatoin]", "federation"),
    ],
)
def test_a_wrong_value_in_run_toml_is_named_by_its_key(
    say: Any, site: Path, hub: Path, run_file: Path, old: str, new: str, key: str
) -> None:
    edited(run_file, old, new)
    for words in (("client", "plan", site), ("server", "run", hub)):
        code, out, err = say(*words, "--run", run_file)
        assert code == 2
        assert out == ""
        assert one_sentence(err)
        assert "run.toml" in err
        assert f"'{key}'" in err


def test_a_model_without_weights_or_with_others_than_asked_for_is_refused(
    say: Any, site: Path, model: Path, run_file: Path
) -> None:
    code, out, _ = say("client", "plan", site, "--run", run_file, "--json")
    assert code == 3  # the site's policy names other models
    assert json.loads(out)["decision"] != "acceptable"
    edited(run_file, "[privacy]", f'digest = "sha256:{"0" * 64}"\n[privacy]')
    code, out, err = say("client", "plan", site, "--run", run_file)
    assert code == 4
    assert one_sentence(err)
    (model / "model.safetensors").unlink()
    for words in (("model", "show", model), ("model", "pull", model)):
        code, out, err = say(*words)
        assert (code, out) == (2, "")
        assert one_sentence(err)


def newer_database(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 999")
    db.close()


def newer_toml(path: Path) -> None:
    edited(path, "format = 1", "format = 2")


def newer_json(path: Path) -> None:
    values = json.loads(path.read_text())
    path.write_text(json.dumps({**values, "format": 2}))


def invited(site: Path, hub: Path) -> None:
    from server import enrolment

    _, invitation = enrolment.enroll(store.open_folder(hub), site / "enroll.json")
    shutil.copy(invitation, site / "invitation.json")


def test_what_a_newer_version_wrote_is_refused_and_said_so(
    say: Any, site: Path, hub: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(code: int, *words: object) -> None:
        found, _, err = say(*words)
        assert found == code, err
        assert one_sentence(err)
        assert "newer" in err

    monkeypatch.setenv("PRIVITY_HOME", str(model.parent / "home"))
    invited(site, hub)
    newer_json(site / "invitation.json")
    refused(2, "client", "run", site)
    newer_database(next((site / "log").glob("*.sqlite")))
    code, out, _ = say("client", "doctor", site, "--json")
    assert code == 2
    failed = {item["name"]: item["finding"] for item in json.loads(out) if "FAIL" in str(item)}
    assert "newer" in failed["log"]
    newer_database(site / "ledger.sqlite")
    refused(4, "client", "budget", site)
    newer_json(site / "enroll.json")
    refused(2, "server", "enroll", hub, site / "enroll.json")
    newer_toml(site / "site.toml")
    refused(2, "client", "budget", site)
    newer_toml(hub / "coordinator.toml")
    refused(2, "server", "status", hub)
    assert say("model", "pull", model)[0] == 0
    newer_json(model.parent / "home" / "models" / model.name / "privity-model.json")
    refused(2, "model", "show", model.name)


def test_a_pulled_model_that_was_changed_does_not_verify(
    say: Any, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRIVITY_HOME", str(model.parent / "home"))
    assert say("model", "pull", model)[0] == 0
    assert model.name in say("model", "list")[1]
    kept = model.parent / "home" / "models" / model.name / "config.json"
    kept.write_text(kept.read_text() + " ")
    code, _, err = say("model", "show", model.name)
    assert code == 4
    assert one_sentence(err)


def test_a_folder_is_made_once(say: Any, site: Path, hub: Path) -> None:
    code, _, err = say("client", "init", site, "--name", "b", "--coordinator", "h:1")
    assert code == 2
    assert one_sentence(err)
    code, _, err = say("server", "init", hub, "--name", "b")
    assert code == 2
    assert one_sentence(err)
    assert folders.open_folder(site).settings.name == "clinic-a"


def test_both_inits_say_what_comes_next(say: Any, tmp_path: Path) -> None:
    code, out, _ = say("client", "init", tmp_path / "s", "--name", "b", "--coordinator", "h:1")
    assert code == 0
    assert "fingerprint" in out
    assert "enroll.json" in out
    code, out, _ = say("server", "init", tmp_path / "h", "--name", "hub")
    assert code == 0
    assert f"privity server start {tmp_path / 'h'}" in out


def test_only_an_enrolment_admits_and_only_an_enrolled_site_is_shut_out(
    say: Any, site: Path, hub: Path
) -> None:
    for wrong in ("site.toml", "nofile.json", "keys/public.json"):
        code, _, err = say("server", "enroll", hub, site / wrong)
        assert code == 2
        assert one_sentence(err)
    code, _, err = say("server", "revoke", hub, "clinic-a")
    assert code == 2
    assert one_sentence(err)
    assert say("server", "enroll", hub, site / "enroll.json")[0] == 0
    assert say("server", "revoke", hub, "clinic-a")[0] == 0
    code, _, err = say("server", "enroll", hub, site / "enroll.json")
    assert code == 3
    assert one_sentence(err)


def test_a_run_without_a_running_coordinator_is_unreachable_and_leaves_no_trace(
    say: Any, site: Path, hub: Path, run_file: Path
) -> None:
    code, _, err = say("server", "run", hub, "--run", run_file)
    assert code == 2
    assert "not enrolled" in err
    assert say("server", "enroll", hub, site / "enroll.json")[0] == 0
    for _ in range(2):  # the name is not used up
        code, _, err = say("server", "run", hub, "--run", run_file)
        assert code == 5
        assert one_sentence(err)
        assert "privity server start" in err
    code, out, _ = say("server", "status", hub, "--json")
    assert code == 0
    assert json.loads(out)["runs"] == []
    code, _, err = say("server", "run", hub, "--run", run_file, "--resume")
    assert code == 2
    assert one_sentence(err)


def test_a_client_needs_an_invitation_and_a_coordinator_that_answers(
    say: Any, site: Path, hub: Path
) -> None:
    code, _, err = say("client", "run", site)
    assert code == 2
    assert one_sentence(err)
    invited(site, hub)
    edited(site / "invitation.json", "127.0.0.1:9", f"127.0.0.1:{free_port()}")
    edited(site / "site.toml", "connect_timeout_s = 300.0", "connect_timeout_s = 1")
    code, _, err = say("client", "run", site)
    assert code == 5
    assert one_sentence(err.splitlines()[-1])
    assert "does not answer" in err


@pytest.mark.parametrize("command", ["approve", "refuse"])
def test_only_a_proposed_run_can_be_decided(say: Any, site: Path, command: str) -> None:
    for name in ("triage", "../../site", ""):
        code, _, err = say("client", command, site, name)
        assert code == 2
        assert one_sentence(err)


def test_a_fresh_ledger_has_all_left(say: Any, site: Path) -> None:
    code, out, _ = say("client", "budget", site, "--json")
    facts = json.loads(out)
    assert code == 0
    assert (facts["spent"], facts["reserved"], facts["left"], facts["cap"]) == (0, 0, 2, 2)
    assert (facts["unit"], facts["adjacency"], facts["delta"]) == ("person", "zero-out", 1e-5)
    code, out, _ = say("client", "budget", site)
    assert code == 0
    assert "no run has reserved anything" in out
