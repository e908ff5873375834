"""A policy says who counts and how many; a receipt is checked against nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from audit import keys, log, merkle, note, policy, receipt
from audit.errors import AuditError, Malformed

RAN = {"bundle_digest": "sha256:" + "0" * 64, "verdict": "ok"}


@pytest.fixture(scope="module")
def rings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, keys.KeyRing]:
    place = tmp_path_factory.mktemp("rings")
    return {name: keys.create(place / name, name) for name in ("hub", "a", "b", "c", "d")}


@pytest.fixture
def made(rings: dict[str, keys.KeyRing], tmp_path: Path) -> log.Log:
    opened = log.Log.create(tmp_path / "log", keys=rings["hub"])
    for _ in range(5):
        opened.append("verifier-run", RAN)
    return opened


def cosigned(signed: str, rings: dict[str, keys.KeyRing], *names: str) -> str:
    text = note.parse(signed).text
    lines = [
        str(note.cosign(text, name=f"{n}/witness", key=rings[n].witness, time=9)) for n in names
    ]
    return signed + "".join(lines)


def rule(rings: dict[str, keys.KeyRing], *more: str) -> bytes:
    lines = [f"log {rings['hub'].public().log} https://hub.example/"]
    lines += [f"witness {n} {rings[n].public().witness}" for n in ("a", "b", "c", "d")]
    return "\n".join(["# who counts", "", *lines, *more, ""]).encode()


@pytest.mark.parametrize(
    ("groups", "enough", "short"),
    [
        (["quorum none"], [()], []),
        (["quorum a"], ["a", "ab"], ["", "b"]),
        (["group g 2 a b c", "quorum g"], ["ab", "bc", "abc"], ["", "a", "ad"]),
        (["group g all a b", "quorum g"], ["ab"], ["a", "b"]),
        (["group g any a b", "quorum g"], ["a", "b"], ["", "c"]),
        (
            ["group x 2 a b c", "group y any d", "group z all x y", "quorum z"],
            ["abd", "bcd"],
            ["abc", "ad", "d"],
        ),
    ],
)
def test_a_quorum_is_met_or_not(
    made: log.Log, rings: Any, groups: list[str], enough: list[str], short: list[str]
) -> None:
    read = policy.parse(rule(rings, *groups))
    signed = made.checkpoint()
    for names in enough:
        assert read.check(cosigned(signed, rings, *names)).size == 6
    for names in short:
        with pytest.raises(AuditError) as error:
            read.check(cosigned(signed, rings, *names))
        assert error.value.code == "quorum-not-met"


def test_another_log_or_a_false_cosignature_does_not_count(made: log.Log, rings: Any) -> None:
    read = policy.parse(rule(rings, "quorum a"))
    stated = note.Checkpoint("other/log", 6, made.root(6))
    line = note.sign(stated.text, name="other/log", key=rings["hub"].log)
    with pytest.raises(AuditError) as error:
        read.check(str(note.Note(stated.text, (line,))))
    assert error.value.code == "unknown-log"
    stated = note.Checkpoint("hub/log", 6, made.root(6))
    line = note.sign(stated.text, name="hub/log", key=rings["a"].log)
    with pytest.raises(AuditError) as error:
        read.check(str(note.Note(stated.text, (line,))))
    assert error.value.code == "unknown-log"
    false = note.cosign("else\n", name="a/witness", key=rings["a"].witness, time=9)
    with pytest.raises(AuditError) as error:
        read.check(made.checkpoint() + str(false))
    assert error.value.code == "quorum-not-met"


@pytest.mark.parametrize(
    "lines",
    [
        ["quorum none", "quorum none"],
        ["quorum nobody"],
        ["quorum"],
        ["quorum a b"],
        ["nonsense"],
        ["group g 2 a", "quorum g"],
        ["group g 0 a", "quorum g"],
        ["group g 02 a b", "quorum g"],
        ["group g any", "quorum g"],
        ["group g any a a", "quorum g"],
        ["group g any g", "quorum g"],
        ["group g any none", "quorum g"],
        ["group a any b", "quorum a"],
        ["group none any b", "quorum none"],
        ["group g any a", "group h any a", "quorum h"],
        ["quorum g", "group g any a"],
        ["witness e nonsense", "quorum a"],
        ["quorum none\x00"],
        ["quorum none\r"],
        [],
    ],
)
def test_what_breaks_a_rule_of_the_format_is_refused(rings: Any, lines: list[str]) -> None:
    with pytest.raises(Malformed) as error:
        policy.parse(rule(rings, *lines))
    assert error.value.code == "bad-policy"


def test_one_key_twice_or_of_another_type_is_refused(rings: Any) -> None:
    public, other = rings["hub"].public(), rings["a"].public()
    for line in (
        f"log {public.log}",
        f"log {public.witness}",
        f"witness e {other.witness}",
        f"witness e {other.log}",
        f"log {other.log} url url",
        f"witness e {public.witness} url url",
    ):
        with pytest.raises(Malformed):
            policy.parse(rule(rings, line, "quorum none"))
    with pytest.raises(Malformed):
        policy.parse(b"quorum none")
    with pytest.raises(Malformed):
        policy.parse(b"#\n" * 5000 + b"quorum none\n")


def test_a_written_policy_reads_back(rings: Any) -> None:
    witnesses = {name: rings[name].public().witness for name in ("a", "b", "c")}
    text = policy.text(
        [rings["hub"].public().log], witnesses, least=2, urls={"a": "https://a.example/"}
    )
    read = policy.parse(text.encode())
    assert read.groups["witnesses"].least == 2
    assert "https://a.example/" in text
    assert policy.parse(policy.text([], {}, least=0).encode()).quorum == "none"
    with pytest.raises(Malformed):
        policy.text([], witnesses, least=4)


def test_a_receipt_shows_one_entry_and_no_other(made: log.Log, rings: Any) -> None:
    read = policy.parse(rule(rings, "quorum a"))
    signed = cosigned(made.checkpoint(), rings, "a")
    given = receipt.Receipt(3, made.inclusion(3, 6), signed)
    again = receipt.parse(str(given).encode())
    assert again == given
    assert again.check(made.entry(3), read).size == 6
    for wrong in (made.entry(2), made.entry(3) + b" "):
        with pytest.raises(merkle.ProofFailed):
            again.check(wrong, read)
    moved = receipt.Receipt(2, given.proof, signed)
    with pytest.raises(merkle.ProofFailed):
        moved.check(made.entry(3), read)
    bare = receipt.Receipt(3, given.proof, made.checkpoint(), extra=b"context")
    assert receipt.parse(str(bare).encode()).extra == b"context"
    with pytest.raises(AuditError):
        bare.check(made.entry(3), read)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("c2sp.org/tlog-proof@v1", "c2sp.org/tlog-proof@v2"),
        ("index 3", "index 03"),
        ("index 3", "index -3"),
        ("index 3\n", ""),
        ("index 3\n", "index 3\nAAAA\n"),
        ("index 3\n", "extra !\nindex 3\n"),
        ("index 3\n", "index 3\n" + ("A" * 43 + "=\n") * 64),
        ("\n\nhub/log", "\nhub/log"),
    ],
)
def test_what_is_no_receipt_is_refused(made: log.Log, old: str, new: str) -> None:
    text = str(receipt.Receipt(3, made.inclusion(3, 6), made.checkpoint()))
    assert text.count(old) == 1
    with pytest.raises(AuditError):
        receipt.parse(text.replace(old, new).encode())
    with pytest.raises(AuditError):
        receipt.parse(b"\xff" + text.encode())
