"""`prepare` and `withdraw` as an institution types them, rightly and wrongly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.said import SECRET, one_sentence


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "export.jsonl"
    rows = [{"unit_id": f"p{n}", "instruction": f"{SECRET} asks for {chr(97 + n % 26) * (n + 3)}",
             "response": "no"} for n in range(40)]  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_file_becomes_a_set_and_the_person_can_leave_it(
    say: Any, site: Path, source: Path, tmp_path: Path
) -> None:
    recipe = tmp_path / "prepare.toml"
    recipe.write_text('format = 1\n[split]\nratio = "7:2:1"\n')
    code, out, err = say("client", "prepare", site, "--from", source, "--recipe", recipe)
    assert code == 0, err
    assert "prepared/set-1/train.jsonl" in out
    assert SECRET not in out + err
    code, out, err = say("client", "prepare", site, "--from", source, "--out", "b", "--json")
    found = json.loads(out)
    assert (code, found["name"], found["scope"]) == (0, "b", "person")
    assert sum(side["persons"] for side in found["sides"].values()) == 40
    code, out, err = say("client", "withdraw", site, "p7")
    assert code == 0, err
    assert "prepared set b holds records of that person" in out
    assert "prepared set set-1" in out
    code, out, err = say("client", "withdraw", site, "p7", "--json")
    assert json.loads(out)["new"] is False
    (site / "prepared" / "b" / "people.json").unlink()
    code, out, err = say("client", "withdraw", site, "p8")
    assert code == 0, err
    assert "withdrawn\n" in out
    assert "prepared set b may hold records of that person: it is damaged" in out
    code, out, err = say("client", "withdraw", site, "p77")
    assert code == 0
    assert "check its spelling" in err


@pytest.mark.parametrize(
    ("words", "exit_code", "said"),
    [
        ([], 2, "give either --from FILE, or --query"),
        (["--feedback"], 2, "review them on the service's page /feedback"),
        (["--feedback", "--from", "S", "--query", "select 1"], 2, "give either"),
        (["--from", "no.jsonl"], 2, "no.jsonl cannot be read"),
        (["--from", "S", "--query", "select 1"], 2, "give either"),
        (["--from", "S", "--format", "fax"], 2, "use --format auto|records"),
        (["--from", "S", "--encoding", "klingon"], 2, "no known --encoding"),
        (["--from", "S", "--out", "../up"], 2, "a set's name is"),
        (["--from", "S", "--parent", "none"], 2, "no prepared set none"),
        (["--from", "S", "--format", "hl7"], 2, "not-hl7"),
        (["--from", "S", "--format", "parquet"], 2, "cannot be read as a Parquet file"),
        (["--from", "S", "--format", "excel"], 2, "cannot be read as an .xlsx file"),
        (["--from", "S", "--recipe", "R"], 2, "scope"),
        (["--query", "select 1", "--url", "postgresql://u:pw@h/x"], 2, "command line"),
        (["--query", "select 1", "--url", "sqlite:////nowhere/x.db"], 5, "does not answer"),
    ],
)
def test_a_wrong_wish_is_one_sentence(
    say: Any, site: Path, source: Path, tmp_path: Path, words: list[str], exit_code: int, said: str
) -> None:
    recipe = tmp_path / "bad.toml"
    recipe.write_text('format = 1\nscope = "some"\n')
    real = {"S": source, "R": recipe}
    code, out, err = say("client", "prepare", site, *(real.get(word, word) for word in words))
    assert code == exit_code, err
    assert said in err
    assert one_sentence(err)
    assert SECRET not in out + err
    assert not any((site / "prepared").glob("*")) if (site / "prepared").exists() else True
