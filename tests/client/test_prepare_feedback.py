"""Accepted judgements become records beside a share of what was trained on before."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from client import folder as folders
from client import people, withdrawals
from client.errors import ClientError
from client.gateway.feedback import FeedbackStore, Judgement, Verdict
from client.prepare import pipeline
from configs.prepare import Recipe
from tests.client.preparing import Row, lines_of, many, one_row, prepared, some_words

ALL = {"split": {"ratio": "1:0:0"}}


@pytest.fixture
def site(tmp_path: Path) -> folders.Folder:
    return folders.create(tmp_path / "site", name="clinic-a", coordinator="127.0.0.1:9")


def judge(
    site: folders.Folder, number: int, *, verdict: Verdict = "up", accept: bool = True, **more: Any
) -> None:
    store = FeedbackStore(site.path / "serving" / "feedback.sqlite")
    asked = more.pop("asked", some_words(9, 5000 + 13 * number))
    messages = ({"role": "user", "content": asked},)
    given = Judgement(
        f"id-{number}", "r1", more.pop("user", f"ward/{number}"), verdict, messages,
        more.pop("answer", f"answer {number}"), **more,
    )  # fmt: skip
    store.add(given)
    if accept:
        store.review(store.rows()[0].number, "accepted")


def take(site: folders.Folder, **more: Any) -> pipeline.Outcome:
    recipe = Recipe.model_validate({**ALL, **more.pop("recipe", {})})
    return pipeline.prepare(site, more.pop("path", None), recipe, feedback=True, **more)


def records_file(site: folders.Folder, rows: Sequence[Row]) -> Path:
    site.data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return site.data


def said(done: pipeline.Outcome) -> list[Row]:
    return [row for row in lines_of(done, "train") if row.get("category") == "feedback"]


def test_what_trains_now_keeps_seven_tenths_and_all_that_was_accepted_joins_it(
    site: folders.Folder,
) -> None:
    records_file(site, many(400))
    for number in range(12):
        judge(site, number, accept=number != 3)
    done = take(site)
    assert len(said(done)) == 11
    assert done.kept is not None
    assert done.kept[1] == 400
    assert done.kept[0] / 400 == pytest.approx(0.7, abs=0.12)  # 5 standard deviations
    old = [row for row in lines_of(done, "train") if row["unit_id"].startswith("p")]
    assert len(old) == done.kept[0]
    # Who lost every record still counts as a person.
    assert {f"p{n}" for n in range(400)} <= set(done.made.people()["train"])
    assert done.made.manifest["source"]["form"] == "feedback, records"
    again = take(site)
    assert again.made.digest == done.made.digest
    every = take(site, recipe={"parent": {"keep": 1.0}})
    assert every.kept == (400, 400)
    assert take(site, recipe={"parent": {"keep": 0.0}}).kept == (0, 400)


def test_a_prepared_set_that_trains_now_is_the_parent(site: folders.Folder) -> None:
    first = prepared(site, many(300), name="spring", recipe=ALL)
    place = site.path / "site.toml"
    text = place.read_text().replace('"records.jsonl"', '"prepared/spring/train.jsonl"')
    place.write_text(text)
    judge(site, 1)
    used = folders.open_folder(site.path)
    for done in (take(used), take(site, parent="spring")):
        assert done.made.manifest["parent"] == {"name": "spring", "digest": first.made.digest}
        assert len(said(done)) == 1
        assert done.kept is not None
        assert done.kept[0] / done.kept[1] == pytest.approx(0.7, abs=0.14)
    summer = take(used, name="summer")
    autumn = take(used, name="autumn", parent="summer")
    assert len(said(autumn)) == 1  # the judgement is in both, and once
    place.write_text(text.replace("spring", "summer"))
    reading = people.read(folders.open_folder(site.path))
    assert len(reading.records) == len(lines_of(summer, "train"))


def test_a_file_may_be_named_as_what_was_before(site: folders.Folder, tmp_path: Path) -> None:
    path = tmp_path / "old.csv"
    lines = [f"p{n},{some_words(8, 9 * n)},fine" for n in range(90)]
    path.write_text("unit_id,instruction,response\n" + "\n".join(lines) + "\n")
    judge(site, 1)
    done = take(site, path=path)
    assert done.kept is not None
    assert (done.kept[1], len(said(done))) == (90, 1)


def test_a_judgement_is_the_consenting_persons_and_else_the_users(site: folders.Folder) -> None:
    records_file(site, many(20))
    judge(site, 1, person="p7")
    judge(site, 2, user="ward/ann")
    judge(site, 3, user="ward/ann")
    assert sorted(row["unit_id"] for row in said(take(site))) == [
        "feedback:ward/ann", "feedback:ward/ann", "p7",
    ]  # fmt: skip
    found = withdrawals.withdraw(site, "p7")
    assert (found.judgements, found.seen) == (1, True)
    later = take(site, name="later")
    assert {row["unit_id"] for row in said(later)} == {"feedback:ward/ann"}
    assert later.kept is not None
    assert later.kept[1] == 19  # of 20: who withdrew is no record to keep a share of


def test_a_correction_stands_against_the_earlier_record_that_it_resembles(
    site: folders.Folder,
) -> None:
    asked = some_words(40)
    records_file(site, [*many(10), one_row("p77", asked, "the cards desk")])
    judge(site, 1, verdict="down", asked=asked, answer="the cards desk", person="p77",
          correction="the loans desk")  # fmt: skip
    judge(site, 2, verdict="down", asked=asked, answer="the cards desk", person="p77",
          correction="the fraud desk")  # fmt: skip
    done = take(site, recipe={"parent": {"keep": 1.0}})
    mine = [row for row in lines_of(done, "train") if row["unit_id"] == "p77"]
    assert [row["response"] for row in mine] == ["the fraud desk"]  # the newest of them
    assert mine[0]["rejected"] == "the cards desk"
    assert done.dropped["near-duplicate"] == 2


def test_a_bad_answer_without_a_better_one_is_counted_and_not_learnt(site: folders.Folder) -> None:
    records_file(site, many(10))
    judge(site, 1, verdict="down")
    with pytest.raises(ClientError, match="no accepted judgement gives a record yet"):
        take(site)
    judge(site, 2)
    done = take(site)
    assert len(said(done)) == 1
    assert done.made.manifest["faults"] == {"no-correction": 1}


def test_without_judgements_or_anything_earlier_it_says_what_is_missing(
    site: folders.Folder,
) -> None:
    with pytest.raises(ClientError, match="/feedback"):
        take(site)
    assert not (site.path / "serving").exists()
    judge(site, 1)
    with pytest.raises(ClientError, match=r"records\.jsonl does not exist.*--parent NAME"):
        take(site)


@pytest.mark.parametrize("gone", range(4))
def test_what_trains_of_a_person_does_not_change_with_another_persons_judgements(
    site: folders.Folder, tmp_path: Path, gone: int
) -> None:
    """Zero out one person, in records and in judgements: everybody else's lines stay."""
    rows = [one_row(f"p{n}", some_words(8, 3 * n), "abc"[n % 3] * 3) for n in range(24)]

    def trained(without: str) -> list[str]:
        # One secret, since what is drawn follows from it.
        place = site.path / "serving" / "feedback.sqlite"
        for path in place.parent.glob("feedback.sqlite*") if place.parent.exists() else ():
            path.unlink()
        records_file(site, [row for row in rows if row["unit_id"] != without])
        for number in range(12):
            if f"p{number % 6}" != without:
                # Two persons a question, so that near-duplicates stand across persons.
                judge(site, number, asked=some_words(12, 60 * (number // 2)),
                      person=f"p{number % 6}")  # fmt: skip
        done = take(site, name=f"set-{without or 'all'}", recipe={"split": {"ratio": "7:2:1"}})
        return sorted(
            json.dumps(row, sort_keys=True)
            for row in lines_of(done, "train")
            if row["unit_id"] != f"p{gone}"
        )

    assert trained("") == trained(f"p{gone}")
