"""Who withdraws is used no more, stays counted, is named to nobody, and is found where used."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from threading import Barrier, BrokenBarrierError
from typing import Any

import pytest

from audit import canonical, events
from audit.errors import EventInvalid
from client import folder as folders
from client import lineage, people, withdrawals
from client.errors import ClientError
from client.prepare import pipeline
from configs.prepare import Recipe

COLOURS = ("red", "green", "blue", "white", "black")


@pytest.fixture
def site(tmp_path: Path) -> folders.Folder:
    made = folders.create(tmp_path / "site", name="clinic-a", coordinator="127.0.0.1:9")
    rows = [{"unit_id": f"zebulon-{n}", "instruction": f"{COLOURS[n % 5]} number {'i' * n} here",
             "response": "yes"} for n in range(1, 11)]  # fmt: skip
    made.data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return made


def _persons(reading: Any) -> set[str]:
    return {record.person for record in reading.records}


def test_nothing_of_whoever_withdrew_is_read_again_and_they_stay_counted(
    site: folders.Folder,
) -> None:
    before = people.read(site)
    done = withdrawals.withdraw(site, "zebulon-3")
    assert (done.new, done.seen) == (True, True)
    after = people.read(site)
    assert _persons(before) - _persons(after) == {"zebulon-3"}
    assert after.also == ("zebulon-3",)
    assert [r for r in before.records if r.person != "zebulon-3"] == list(after.records)


def test_a_set_prepared_before_is_blocked_and_one_prepared_after_holds_nothing(
    site: folders.Folder,
) -> None:
    def made(name: str) -> pipeline.Outcome:
        recipe = Recipe.model_validate({"split": {"ratio": "1:0:0"}})
        return pipeline.prepare(site, site.data, recipe, name=name)

    first = made("one")
    done = withdrawals.withdraw(site, "zebulon-3")
    assert done.sets == {"one": "train"}
    place = site.path / "site.toml"
    place.write_text(place.read_text().replace("records.jsonl", "prepared/one/train.jsonl"))
    reading = people.read(folders.open_folder(site.path))
    assert "zebulon-3" not in _persons(reading)
    assert "zebulon-3" in reading.also
    assert "zebulon-3" in (first.made.path / "people.json").read_text()
    second = made("two")
    for path in second.made.path.iterdir():
        assert '"zebulon-3"' not in path.read_text()
    third = pipeline.prepare(site, site.data, Recipe(), name="three", parent="one")
    assert '"zebulon-3"' not in (third.made.path / "train.jsonl").read_text()


def test_the_log_gets_a_commitment_that_the_site_can_open_and_nobody_can_guess(
    site: folders.Folder,
) -> None:
    withdrawals.withdraw(site, "zebulon-3")
    with closing(site.log()) as log:
        (entry,) = log.entries("withdrawal")
        said = entry.event.fields
    kept = json.loads((site.path / "withdrawn.json").read_text())
    ((digest, salt),) = kept["withdrawn"].items()
    opened = canonical.digest(canonical.encode({"person": digest, "salt": salt}))
    assert said == {"person_commitment": opened}
    assert (site.path / "withdrawn.json").stat().st_mode & 0o777 == 0o600
    assert "zebulon" not in json.dumps(kept)
    for path in (site.path / "log").rglob("*"):
        assert not path.is_file() or b"zebulon" not in path.read_bytes()


def test_withdrawing_twice_says_so_and_logs_once(site: folders.Folder) -> None:
    assert withdrawals.withdraw(site, "zebulon-3").new
    assert not withdrawals.withdraw(site, " zebulon-3 ").new
    assert withdrawals.withdraw(site, "zebulon-4").new
    with closing(site.log()) as log:
        assert len(list(log.entries("withdrawal"))) == 2


def test_a_fall_between_list_and_log_is_made_good_the_next_time(
    site: folders.Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fall(*_: Any, **__: Any) -> None:
        raise OSError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr("audit.log.Log.append", fall)
        with pytest.raises(OSError, match="disk"):
            withdrawals.withdraw(site, "zebulon-3")
    assert "zebulon-3" not in _persons(people.read(site))
    assert not withdrawals.withdraw(site, "zebulon-3").new
    with closing(site.log()) as log:
        assert len(list(log.entries("withdrawal"))) == 1


def test_two_withdrawals_at_once_are_both_kept_even_while_a_client_runs(
    site: folders.Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Had both read the list before either wrote it, one of them would be lost."""
    listed, both = withdrawals._listed, Barrier(2)

    def met(folder: folders.Folder) -> dict[str, str]:
        found = listed(folder)
        with suppress(BrokenBarrierError):
            both.wait(timeout=1)
        return found

    with monkeypatch.context() as patch, ThreadPoolExecutor(2) as pool, site.lock():
        patch.setattr(withdrawals, "_listed", met)
        done = list(
            pool.map(lambda name: withdrawals.withdraw(site, name), ("zebulon-3", "zebulon-4"))
        )
    assert [one.new for one in done] == [True, True]
    assert _persons(people.read(site)).isdisjoint({"zebulon-3", "zebulon-4"})
    withdrawals.check(site)


def test_a_check_beside_a_withdrawal_finds_no_damage(
    site: folders.Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = folders.Folder.log

    def meanwhile(folder: folders.Folder) -> Any:
        patch.undo()
        withdrawals.withdraw(folder, "zebulon-3")
        return log(folder)

    with monkeypatch.context() as patch:
        patch.setattr(folders.Folder, "log", meanwhile)
        withdrawals.check(site)


@pytest.mark.parametrize(
    ("part", "content"),
    [("manifest.json", '{"format": 1}'), ("manifest.json", None), ("people.json", "[]"),
     ("manifest.json", '{"format": 1, "files": {}, "digest": "\u00e4"}'),
     ("manifest.json", '{"format": 1, "files": {}, "digest": "a", "counts": NaN}'),
     ("people.json", None)],
)  # fmt: skip
def test_a_damaged_set_is_doubtful_and_hinders_no_withdrawal(
    site: folders.Folder, part: str, content: str | None
) -> None:
    old = pipeline.prepare(site, site.data, Recipe(), name="old").made.path / part
    pipeline.prepare(
        site, site.data, Recipe.model_validate({"split": {"ratio": "1:0:0"}}), name="sound"
    )
    old.unlink()
    if content is not None:
        old.write_text(content)
    elif part == "manifest.json":
        old.mkdir()
    done = withdrawals.withdraw(site, "zebulon-3")
    assert (done.sets, done.doubtful_sets) == ({"sound": "train"}, ("old",))
    assert "zebulon-3" not in _persons(people.read(site))
    withdrawals.check(site)


def test_a_run_that_used_the_person_is_named_and_others_are_not(site: folders.Folder) -> None:
    lineage.remember(site, "first", lineage.of(site, people.read(site)))
    withdrawals.withdraw(site, "zebulon-3")
    lineage.remember(site, "second", lineage.of(site, people.read(site)))
    lineage.remember(
        site, "first", lineage.of(site, people.read(site))
    )  # a later round; what was used stays noted
    done = withdrawals.withdraw(site, "zebulon-3")
    assert (done.runs, done.doubtful) == (("first",), ())
    note = site.run("first") / "lineage.json"
    assert note.stat().st_mode & 0o777 == 0o600
    assert "zebulon" not in note.read_text()


def test_a_run_that_trained_without_a_readable_note_is_doubtful(site: folders.Folder) -> None:
    from privacy.plan import Mechanism

    mechanism = Mechanism(noise_multiplier=4.0, sample_rate=0.1, steps=4)
    for run, cohort in (("unnoted", "all"), ("planned", "all"), ("renamed", "of-last-year")):
        site.ledger().reserve(
            cohort=cohort, run=run, plan_digest="sha256:" + "1" * 64, mechanism=mechanism,
            rounds=2, delta=1e-5, cap=2.0,
        )  # fmt: skip
        if run != "planned":
            site.ledger().begin_round(run, 0, input_digest="sha256:" + "2" * 64)
    lineage.remember(site, "broken", lineage.of(site, people.read(site)))
    (site.run("broken") / "lineage.json").write_text("{")
    done = withdrawals.withdraw(site, "zebulon-3")
    assert (done.runs, done.doubtful) == ((), ("broken", "renamed", "unnoted"))


def test_a_damaged_list_stops_everything(site: folders.Folder) -> None:
    withdrawals.withdraw(site, "zebulon-3")
    path = site.path / "withdrawn.json"
    older = path.read_text()
    withdrawals.withdraw(site, "zebulon-4")
    for content in ("{}", older, None):  # broken, restored from an old copy, gone
        path.unlink()
        if content is not None:
            path.write_text(content)
        with pytest.raises(ClientError) as fault:
            withdrawals.check(site)
        assert fault.value.code == "withdrawals-damaged"
        path.touch()


@pytest.mark.parametrize("person", ["", "  ", "public:q1"])
def test_nobody_and_public_records_cannot_withdraw(site: folders.Folder, person: str) -> None:
    with pytest.raises(ClientError, match="give the person's key"):
        withdrawals.withdraw(site, person)


def test_a_key_that_nobody_has_is_listed_and_said_to_be_unknown(site: folders.Folder) -> None:
    done = withdrawals.withdraw(site, "zebulon-33")
    assert (done.new, done.seen) == (True, False)


@pytest.mark.parametrize(
    "fields",
    [{}, {"person_commitment": "zebulon-3"},
     {"person_commitment": "sha256:" + "0" * 64, "person": "zebulon-3"}],
)  # fmt: skip
def test_a_statement_of_a_withdrawal_holds_a_commitment_and_nothing_else(
    site: folders.Folder, fields: dict[str, Any]
) -> None:
    assert "withdrawal" in events.KINDS
    with closing(site.log()) as log, pytest.raises(EventInvalid):
        log.append("withdrawal", fields)
