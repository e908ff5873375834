"""What a compliance officer reads: exact, complete, and never reassuring where nothing is known."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

import privity
from audit import bundle as bundles
from audit import cli_mark, keys, mark_keys, watermark

Said = tuple[int, str, str]


@pytest.fixture
def say(
    capsys: pytest.CaptureFixture[str], account: Any, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Said]:
    """Runs `privity audit ...` with the stand-in accountant: (exit code, stdout, stderr)."""
    monkeypatch.setattr(privity, "_recompute", account)
    monkeypatch.setenv("PRIVITY_DEBUG", "")

    def run(*words: object) -> Said:
        code = privity.main(["audit", *(str(word) for word in words)])
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return code, out, err

    return run


@pytest.fixture(scope="module")
def holding(federate: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A federation in which gamma misses the second round; its bundle holds."""
    federation = federate(tmp_path_factory.mktemp("holding"), absent={1: ("gamma",)}).play()
    federation.bundle()
    return federation


@pytest.fixture
def bundle(holding: Any) -> Path:
    return Path(holding.root / "bundle")


@pytest.fixture
def damaged(bundle: Path, tmp_path: Path) -> Path:
    """The same with one bit of alpha's entries turned."""
    copy = Path(shutil.copytree(bundle, tmp_path / "damaged"))
    tile = next((copy / "sites/alpha/tile/entries").rglob("*.p/*"))
    data = bytearray(tile.read_bytes())
    data[len(data) // 2] ^= 1
    tile.write_bytes(data)
    return copy


def one_sentence(err: str) -> bool:
    return len(err.strip().splitlines()) == 1 and err.startswith("privity: ")


def test_a_holding_bundle_says_everything_an_officer_signs_for(say: Any, bundle: Path) -> None:
    code, out, err = say("verify", bundle)
    assert (code, err) == (0, "")
    for words in (
        "Verdict\n  verdict: holds",
        "intact: yes",
        "complete: yes",
        "consistent: yes",
        "Signatures and witnesses",
        "signed by coordinator hub (key only stated by this bundle, fingerprint ",
        "log of alpha: 9 entries, witnessed by hub",
        "Privacy budgets, recomputed from the logs",
        "spent of cap 2 (unit patient, adjacency zero-out, delta 1e-05), 2 rounds accepted of 2",
        "release follows from round 1: beta sha256:",
        "only stated by the bundle: compare the fingerprints",
    ):
        assert words in out
    assert "Faults" not in out


def test_a_faulty_bundle_ends_with_4_and_names_its_first_fault(say: Any, damaged: Path) -> None:
    code, out, err = say("verify", damaged)
    assert code == 4
    assert "verdict: FAULTY" in out
    assert "complete, consistent: not judged" in out
    assert "complete: yes" not in out
    assert one_sentence(err)
    assert "sites/alpha" in err
    code, out, err = say("verify", damaged, "--json")
    assert code == 4
    found = json.loads(out)
    assert (found["ok"], found["intact"], found["complete"]) == (False, False, False)


def test_epsilon_is_that_of_the_accountant_it_was_handed(
    say: Any, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(privity, "_recompute", lambda rows, delta: 1.75)
    code, out, err = say("verify", bundle)
    assert code == 4
    assert "epsilon 1.7500 spent of cap 2" in out
    assert "recomputed as 1.75" in err


def test_the_front_door_hands_over_the_pld_accountant() -> None:
    from privacy.plan import Mechanism, epsilon

    rows = [(1.2, 0.1, 20)]
    assert privity._recompute(rows, 1e-5) == epsilon([Mechanism(*rows[0])], delta=1e-5)


def test_no_bundle_is_wrong_usage(say: Any, tmp_path: Path, bundle: Path) -> None:
    for words in (
        ("verify", tmp_path),
        ("verify", tmp_path / "none"),
        ("show", tmp_path),
        ("verify", bundle, "--against", tmp_path / "none"),
        ("verify", bundle, "--trust", tmp_path / "none"),
    ):
        code, _, err = say(*words)
        assert code == 2
        assert one_sentence(err)


def test_a_kept_checkpoint_shows_a_rolled_back_log(
    say: Any, holding: Any, bundle: Path, sound: Any, tmp_path: Path
) -> None:
    assert say("verify", bundle, "--against", bundle / "coordinator/checkpoint")[0] == 0
    other = sound.root / "bundle/coordinator/checkpoint"
    code, _, err = say("verify", bundle, "--against", other)  # same origin, another log
    assert code == 4
    assert "checkpoint" in err
    (tmp_path / "no-text").write_bytes(b"\xff\xfe")
    assert say("verify", bundle, "--against", tmp_path / "no-text")[0] == 2


def forms(holding: Any, folder: Path) -> dict[str, Path]:
    """The same key in every form that --trust takes."""
    public = holding.coordinator.public
    documents = {
        "invitation": {"format": 1, "coordinator": "h:1", "keys": public.to_json()},
        "public keys": public.to_json(),
        "names": {"hub": public.log, "alpha": holding.sites["alpha"].public.log},
    }
    for name, document in documents.items():
        (folder / name).write_text(json.dumps(document))
    return {name: folder / name for name in documents}


def test_keys_that_came_another_way_are_told_from_stated_ones(
    say: Any, holding: Any, bundle: Path, tmp_path: Path
) -> None:
    for path in forms(holding, tmp_path).values():
        code, out, err = say("verify", bundle, "--trust", path)
        assert (code, err) == (0, "")
        assert "signed by coordinator hub (key pinned by you" in out
        assert "signed by institution beta (key only stated by this bundle" in out
        assert "compare the fingerprints" not in out


def test_trust_in_another_key_refuses_the_bundle(say: Any, bundle: Path, tmp_path: Path) -> None:
    for name, words in (("hub", "than the one you trust"), ("stranger", "none of the keys")):
        made = keys.create(tmp_path / name, name).public()
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(made.to_json()))
        code, _, err = say("verify", bundle, "--trust", path)
        assert code == 4
        assert words in err


def test_a_trusted_party_without_a_log_is_pointed_out(
    say: Any, holding: Any, bundle: Path, tmp_path: Path
) -> None:
    known = forms(holding, tmp_path)["public keys"]
    made = keys.create(tmp_path / "k", "stranger").public()
    (tmp_path / "more").write_text(json.dumps({"stranger": made.log}))
    code, _, err = say("verify", bundle, "--trust", known, "--trust", tmp_path / "more")
    assert code == 0
    assert "stranger, whom you trust, has no log in this bundle" in err


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", "null", '"hub"', '{"hub": "no key"}', '{"hub": 1}', '{"format": 1}'],
)
def test_a_file_without_keys_pins_nothing_and_is_refused(
    say: Any, bundle: Path, tmp_path: Path, text: str
) -> None:
    (tmp_path / "trust.json").write_text(text)
    code, out, err = say("verify", bundle, "--trust", tmp_path / "trust.json")
    assert (code, out) == (2, "")
    assert one_sentence(err)


def test_two_files_that_disagree_about_a_party_are_refused(
    say: Any, holding: Any, bundle: Path, tmp_path: Path
) -> None:
    known = forms(holding, tmp_path)["names"]
    other = keys.create(tmp_path / "k", "hub").public()
    (tmp_path / "other").write_text(json.dumps(other.to_json()))
    code, _, err = say("verify", bundle, "--trust", known, "--trust", tmp_path / "other")
    assert code == 2
    assert one_sentence(err)


def shown(say: Any, *words: object) -> list[dict[str, Any]]:
    code, out, _ = say("show", *words, "--json")
    assert code == 0
    return list(json.loads(out)["entries"])


def test_show_lists_every_entry_of_every_log(say: Any, holding: Any, bundle: Path) -> None:
    entries = shown(say, bundle)
    logs = {"hub": holding.coordinator.log, **{n: s.log for n, s in holding.sites.items()}}
    for name, log in logs.items():
        assert [e["index"] for e in entries if e["log"] == name] == list(range(log.size))
    code, out, _ = say("show", bundle)
    assert code == 0
    assert out.splitlines()[-1] == f"{len(entries)} entries"
    assert len(out.splitlines()) == len(entries) + 2
    assert "alpha:3" in out
    assert "epsilon_after=" in out


def test_filters_narrow_by_kind_party_run_and_round(say: Any, bundle: Path) -> None:
    assert {e["kind"] for e in shown(say, bundle, "--kind", "egress")} == {"egress"}
    about = shown(say, bundle, "--institution", "gamma")
    assert {e["log"] for e in about} == {"hub", "gamma"}
    assert all(
        e["log"] == "gamma" or "gamma" in (e["fields"].get("institution"), e["fields"].get("name"))
        for e in about
    )
    assert {e["round"] for e in shown(say, bundle, "--round", "1")} == {1}
    assert shown(say, bundle, "--run", "another") == []
    code, _, err = say("show", bundle, "--kind", "egres")
    assert code == 2
    assert "egress" in err


def test_problems_are_what_the_entries_admit(say: Any, bundle: Path) -> None:
    found = shown(say, bundle, "--problems")
    assert [(e["log"], e["kind"], e["problem"]) for e in found] == [
        ("hub", "round-closed", "absent: gamma")
    ]


def test_every_kind_of_event_can_be_shown_in_a_line(say: Any, bundle: Path) -> None:
    from audit import entries, kinds

    assert set(entries._FACTS) == set(kinds.KINDS)
    for kind, names in entries._FACTS.items():
        table = kinds.KINDS[kind]
        assert set(names) <= {*table.required, *table.optional}


def test_show_of_a_damaged_log_says_so_and_ends_with_4(say: Any, damaged: Path) -> None:
    for words in ((), ("--problems",)):
        code, out, err = say("show", damaged, *words)
        assert code == 4
        assert "fault [bytes/" in out
        assert one_sentence(err)


def test_an_entry_comes_with_a_proof_that_leads_to_the_signed_root(
    say: Any, holding: Any, bundle: Path
) -> None:
    from audit import merkle, note

    for name, folder in (("hub", "coordinator"), ("alpha", "sites/alpha")):
        code, out, _ = say("show", bundle, "--entry", f"{name}:2", "--json")
        assert code == 0
        found = json.loads(out)
        assert found["statement"]["predicate"]["emitter"] == name
        proof = found["inclusion"]
        text = (bundle / folder / bundles.CHECKPOINT).read_text()
        signed = note.parse_checkpoint(note.parse(text))
        merkle.check_inclusion(
            bytes.fromhex(proof["leaf"]),
            2,
            signed.size,
            [bytes.fromhex(item) for item in proof["proof"]],
            signed.root,
        )
    code, out, _ = say("show", bundle, "--entry", "alpha:3")
    assert code == 0
    assert '"epsilon_after"' in out
    assert "the proof leads from the leaf to the signed root" in out


def test_a_damaged_entry_is_not_shown(say: Any, damaged: Path) -> None:
    codes = {say("show", damaged, "--entry", f"alpha:{i}")[0] for i in range(9)}
    assert codes == {4}


@pytest.mark.parametrize(
    "place", ["alpha", "alpha:", ":1", "alpha:x", "alpha:-1", "alpha:99", "x:0"]
)
def test_an_entry_that_is_not_there_is_wrong_usage(say: Any, bundle: Path, place: str) -> None:
    code, _, err = say("show", bundle, "--entry", place)
    assert code == 2
    assert one_sentence(err)


@pytest.fixture(scope="module")
def marked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key file with its reference, a marked copy for beta, and the unmarked adapter."""
    folder = tmp_path_factory.mktemp("marked")
    draw = np.random.default_rng(7)
    b = {f"m{i}": draw.standard_normal((192, 8)).astype(np.float32) for i in range(6)}
    a = {f"m{i}": np.linalg.qr(draw.standard_normal((192, 8)))[0].T for i in range(6)}
    a = {name: np.ascontiguousarray(x, dtype=np.float32) for name, x in a.items()}
    owner, *others = (
        mark_keys.Key(name, draw.bytes(32), draw.bytes(32)) for name in ("", "alpha", "beta")
    )
    keys = mark_keys.create(
        folder, release="r1", scale=2.0, strength=0.05, tree_size=1, tree_root="r",
        owner=owner, recipients=tuple(others), basis=a,
    )  # fmt: skip
    keys.keep_reference(2, {f"{name}.B": x for name, x in b.items()})
    copy = watermark.mark(
        watermark.Reference.of(b, a, 2.0), owner=owner.subkey, recipient=others[1].subkey
    )
    for name, factor in (("copy", copy), ("other", {n: x[::-1].copy() for n, x in b.items()})):
        (folder / name).mkdir()
        tensors = {f"base_model.model.{n}.lora_B.weight": x for n, x in factor.items()}
        tensors |= {f"base_model.model.{n}.lora_A.weight": x for n, x in a.items()}
        save_file(tensors, folder / name / "adapter_model.safetensors")
    return folder


def test_detect_names_whose_copy_it_is_and_by_how_much(say: Any, marked: Path) -> None:
    code, out, err = say("detect", marked / "copy", "--key", marked / mark_keys.KEY_FILE)
    assert (code, err) == (0, "")
    assert "verdict: ATTRIBUTED\ncopy of: beta\n" in out
    assert "key of beta: z " in out
    assert "tests: 6; " in out
    assert "commitment: not checked" in out
    assert "NO EVIDENCE never means 'not ours'" in out
    code, out, _ = say("detect", marked / "copy", "--key", marked / mark_keys.KEY_FILE, "--json")
    assert code == 0
    found = json.loads(out)
    assert (found["verdict"], found["attributed"]) == ("ATTRIBUTED", ["beta"])


def test_a_verdict_is_an_answer_whatever_it_says(say: Any, marked: Path) -> None:
    code, out, _ = say("detect", marked / "other", "--key", marked / mark_keys.KEY_FILE)
    assert code == 0
    assert "verdict: ATTRIBUTED" not in out
    assert "NO EVIDENCE never means 'not ours'" in out


def test_a_probability_is_never_printed_as_zero() -> None:
    assert cli_mark.tiny(0.0) == "<= 1e-300"
    assert cli_mark.tiny(1e-310) == "<= 1e-300"
    assert cli_mark.tiny(2.5e-9) == "2.5e-09"


def test_detect_without_its_files_is_wrong_usage(say: Any, marked: Path, tmp_path: Path) -> None:
    for words in (
        (tmp_path / "none", "--key", marked / mark_keys.KEY_FILE),
        (marked / "copy", "--key", tmp_path / "none"),
    ):
        code, _, err = say("detect", *words)
        assert code == 2
        assert one_sentence(err)
    (tmp_path / "key.json").write_text("{}")
    code, _, err = say("detect", marked / "copy", "--key", tmp_path / "key.json")
    assert code == 4
    assert one_sentence(err)
