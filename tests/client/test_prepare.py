"""A prepared set: sides that share nothing, persons that do not touch each other, same digests."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from client import folder as folders
from client import people, records
from client.errors import ClientError
from client.prepare import likeness, making, pipeline, sets, wording
from client.prepare.draws import Draws
from client.records import Record
from configs.prepare import CleanTable, DuplicatesTable, Recipe

SIDES = ("train", "validation", "test")
Row = dict[str, Any]


@pytest.fixture
def site(tmp_path: Path) -> folders.Folder:
    return folders.create(tmp_path / "site", name="clinic-a", coordinator="127.0.0.1:9")


def _recipe(**tables: Any) -> Recipe:
    return Recipe.model_validate(tables)


def _prepare(site: folders.Folder, rows: Sequence[Row], **more: Any) -> pipeline.Outcome:
    source = site.path / "source.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = _recipe(**more.pop("recipe", {}))
    return pipeline.prepare(site, source, recipe, **more)


def _side(done: pipeline.Outcome, side: str) -> list[Row]:
    text = (done.made.path / f"{side}.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def _row(person: str, text: str, answer: str = "yes it is", **more: Any) -> Row:
    return {"unit_id": person, "instruction": text, "response": answer, **more}


def _words(count: int, start: int = 0) -> str:
    letters = "abcdefghijklmnopqrstuvwxyz"
    return " ".join(
        f"w{letters[n % 26]}{letters[n // 26 % 26]}{letters[n // 676]}"
        for n in range(start, start + count)
    )


def _many(count: int = 60) -> list[Row]:
    return [_row(f"p{n}", _words(12, 7 * n), "abc"[n % 3] * 3, category="abc"[n % 3])
            for n in range(count)]  # fmt: skip


# --- cleaning, limits -------------------------------------------------------------------------


def test_markup_control_characters_and_fixed_lines_go_and_the_words_stay() -> None:
    table = CleanTable(boilerplate=("Confidential: page 1",))
    said = "<p>Caf\u0065\u0301&nbsp;au  lait</p>\x07\u200b\r\nCONFIDENTIAL:  page 7\n\n\n\nJosÃ©"
    assert wording.cleaned(said, table) == "Caf\u00e9 au lait\n\nJosé"
    raw = CleanTable(markup=False, controls=False)
    assert wording.cleaned("<p>a\x07  b</p>", raw) == "<p>a\x07  b</p>"


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("The patient was seen and it is not the same as before", "en"),
        ("Der Patient ist nicht mit der Frau und die Sache wird geprüft", "de"),
        ("患者今天没有发热，继续服药", "zh"),
        ("Пациент поступил вчера", "other"),
        ("ok 12", ""),
    ],
)
def test_a_language_is_told_where_there_is_enough_of_it(text: str, language: str) -> None:
    assert wording.language([text]) == language


def test_what_is_left_out_is_counted_by_reason_and_line(site: folders.Folder) -> None:
    rows = [
        *_many(20),
        _row("x1", "a question of five words", "who knows"),
        _row("x2", "Der Patient ist nicht mit der Frau und die Sache wird geprüft", "aaa"),
        _row("x3", "<br>", "aaa"),
        _row(
            "x4",
            "患者张三来了".encode().decode("latin-1").replace("\x80", "").replace("\x9d", ""),
            "aaa",
        ),
        _row("x5", "q" * 300, "aaa"),
    ]
    done = _prepare(site, rows, recipe={
        "labels": {"allowed": ["aaa", "BBB", "ccc"]},
        "limits": {"languages": ["en"], "most_characters": 200},
    })  # fmt: skip
    assert {code: n for code, n in done.dropped.items() if "side" not in code} == {
        "unknown-label": 1, "other-language": 1, "empty": 1, "mojibake": 1, "too-long": 1,
    }  # fmt: skip
    assert {row["response"] for side in SIDES for row in _side(done, side)} == {"aaa", "BBB", "ccc"}
    lines = json.loads((done.made.path / "dropped.json").read_text())
    assert lines["unknown-label"] == [21]


# --- duplicates -------------------------------------------------------------------------------


def test_a_persons_own_copies_go_and_the_same_form_with_other_numbers_stays(
    site: folders.Folder,
) -> None:
    long = _words(40)
    rows = [
        *_many(10),
        _row("d", long), _row("d", long.upper() + " !"), _row("d", long + " tail"),
        _row("d", f"pressure 120 over 80 {_words(30, 200)}"),
        _row("d", f"pressure 140 over 90 {_words(30, 200)}"),
    ]  # fmt: skip
    done = _prepare(site, rows, recipe={"split": {"ratio": "1:0:0"}})
    assert done.dropped == {"duplicate": 1, "near-duplicate": 1}
    assert sum(row["unit_id"] == "d" for row in _side(done, "train")) == 3


def test_a_large_group_of_one_person_is_judged_like_a_small_one() -> None:
    table = DuplicatesTable()
    texts = [_words(20, 25 * n) for n in range(40)] + [_words(20, 25 * n) + " x" for n in range(40)]
    prints = [likeness.fingerprint(text, "ok", 3) for text in texts]
    assert [number for number, _ in likeness.within(prints, table)] == list(range(40, 80))


def test_copies_of_other_persons_stay_in_training_and_go_in_scope_all(
    site: folders.Folder,
) -> None:
    rows = [*_many(20), *(_row(f"s{n}", _words(30, 500), "same") for n in range(6))]
    ratio = {"split": {"ratio": "1:0:0"}}
    done = _prepare(site, rows, recipe=ratio)
    assert done.across == 5
    assert sum(row["response"] == "same" for row in _side(done, "train")) == 6
    every = _prepare(site, rows, recipe={"scope": "all", **ratio})
    assert every.dropped["duplicate-across"] == 5
    assert sum(row["response"] == "same" for row in _side(every, "train")) == 1


def test_lines_that_many_persons_share_are_shown_and_go_in_scope_all(site: folders.Folder) -> None:
    rows = [_row(r["unit_id"], f"{r['instruction']}\nThis mail is confidential 2024")
            for r in _many(30)]  # fmt: skip
    done = _prepare(site, rows)
    assert any("1 lines stand in the records" in sentence for sentence in done.warnings)
    assert "this mail is confidential 0000" in (done.made.path / "report.html").read_text()
    assert all("confidential" in row["instruction"] for row in _side(done, "train"))
    every = _prepare(site, rows, recipe={"scope": "all"})
    assert not any("confidential" in row["instruction"] for row in _side(every, "train"))


# --- sides ------------------------------------------------------------------------------------


def _jaccard(one: str, other: str) -> float:
    """An oracle of its own: the words of a text in runs of three, as plain sets."""
    a, b = one.casefold().split(), other.casefold().split()
    runs = [{tuple(x[i : i + 3]) for i in range(max(1, len(x) - 2))} for x in (a, b)]
    return len(runs[0] & runs[1]) / len(runs[0] | runs[1])


_TEXTS = st.one_of(
    st.builds(_words, st.integers(1, 14), st.integers(0, 12)),
    st.integers(0, 999).map("please refund order {} to my card today".format),
    st.tuples(st.integers(0, 3), st.integers(0, 3)).map(
        lambda t: f"{_words(20, 40 * t[0])} tail{'abcd'[t[1]]}"
    ),
)
_PEOPLE = st.lists(st.tuples(st.integers(0, 25), _TEXTS), min_size=8, max_size=45)
_SETTINGS = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@_SETTINGS
@given(found=_PEOPLE, ratio=st.sampled_from(["8:1:1", "7:2:1", "1:1:1"]),
       scope=st.sampled_from(["person", "all"]))  # fmt: skip
def test_no_person_template_or_near_duplicate_stands_on_two_sides(
    site: folders.Folder, found: list[tuple[int, str]], ratio: str, scope: str
) -> None:
    rows = [_row(f"p{person}", text, "ok") for person, text in found]
    recipe = {"split": {"ratio": ratio}, "scope": scope,
              "augment": {"copies": 1, "templates": ["please {instruction}"]}}  # fmt: skip
    done = _prepare(site, rows, recipe=recipe)
    held = {side: _side(done, side) for side in SIDES}
    listed = done.made.people()
    for one, other in (("train", "validation"), ("train", "test"), ("validation", "test")):
        assert not set(listed[one]) & set(listed[other])
        for a in held[one]:
            assert a["unit_id"] in listed[one]
            for b in held[other]:
                left, right = (f"{r['instruction']} {r['response']}" for r in (a, b))
                assert _jaccard(left, right) < 0.8
                masked = ["".join("0" if c.isdigit() else c for c in t) for t in (left, right)]
                assert " ".join(masked[0].split("0")) != " ".join(masked[1].split("0"))
    assert sorted(p for side in SIDES for p in listed[side]) == sorted({r["unit_id"] for r in rows})


@_SETTINGS
@given(found=_PEOPLE, gone=st.integers(0, 25))
def test_what_trains_of_a_person_does_not_change_with_another_persons_records(
    site: folders.Folder, found: list[tuple[int, str]], gone: int
) -> None:
    assert _moved(site, found, gone, "person") == set()


def _moved(site: folders.Folder, found: list[tuple[int, str]], gone: int, scope: str) -> set[str]:
    """Persons whose training items change when somebody else's records are zeroed out."""
    recipe = {
        "scope": scope, "limits": {"most_records": 3}, "split": {"ratio": "2:1:1"},
        "balance": {"classes": [{"name": "x", "times": 3}]},
        "augment": {"copies": 1, "templates": ["please {instruction}", "now {instruction}"]},
    }  # fmt: skip
    rows = [_row(f"p{person}", text, "ok", category="xy"[person % 2]) for person, text in found]
    rows.append(_row("stays", "somebody who is always there with a question", "ok"))
    seen = []
    for part in (rows, [row for row in rows if row["unit_id"] != f"p{gone}"]):
        try:
            done = _prepare(site, part, recipe=recipe)
        except ClientError as nothing:
            assert nothing.code == "nothing-left"  # noqa: PT017
            return set()
        by: dict[str, list[str]] = {}
        for row in _side(done, "train"):
            by.setdefault(row["unit_id"], []).append(json.dumps(row, sort_keys=True))
        seen.append({person: sorted(texts) for person, texts in by.items()})
    every = {*seen[0], *seen[1]} - {f"p{gone}"}
    return {person for person in every if seen[0].get(person) != seen[1].get(person)}


def test_the_check_of_persons_apart_notices_a_preparation_across_persons(
    site: folders.Folder,
) -> None:
    found = [(n % 12, _words(30, 31 * (n % 5))) for n in range(24)]
    assert any(_moved(site, found, gone, "all") for gone in range(6))


def test_shares_hold_and_a_person_keeps_its_side_in_the_next_set(site: folders.Folder) -> None:
    rows = _many(600)
    first = _prepare(site, rows)
    again = _prepare(site, [*rows[:300], *(_row(f"n{n}", _words(9, 11 * n)) for n in range(50))])
    shares = [len(first.made.people()[side]) / 600 for side in SIDES]
    # The side that trains is drawn person by person: 5 standard deviations of a binomial share.
    assert shares[0] == pytest.approx(0.8, abs=0.082)
    assert shares[1] == pytest.approx(shares[2], abs=0.01)
    old = {p for p in first.made.people()["train"] if int(p[1:]) < 300}
    assert {p for p in again.made.people()["train"] if p[0] == "p"} == old
    exact = _prepare(site, rows, recipe={"scope": "all", "split": {"ratio": "7:2:1"}})
    assert [len(exact.made.people()[side]) for side in SIDES] == [420, 120, 60]
    classes = [sum(r["category"] == "a" for r in _side(exact, side)) for side in SIDES]
    assert classes == pytest.approx([140, 40, 20], abs=6)


# --- what trains ------------------------------------------------------------------------------


def test_repetitions_and_new_wordings_stay_with_their_person_and_within_the_bound(
    site: folders.Folder,
) -> None:
    rows = [_row("a", f"the physician saw {_words(9, 20 * n)}", "x", category="rare")
            for n in range(4)]  # fmt: skip
    rows += [_row("b", f"a doctor wrote {_words(9, 90 + 20 * n)}", "y", category="usual")
             for n in range(9)]  # fmt: skip
    done = _prepare(site, rows, recipe={
        "split": {"ratio": "1:0:0"}, "limits": {"most_records": 7},
        "balance": {"classes": [{"name": "rare", "times": 2}]},
        "augment": {"copies": 2, "templates": ["Please: {instruction}"],
                    "synonyms": [["physician", "doctor"]]},
    })  # fmt: skip
    train = _side(done, "train")
    by = {p: [row for row in train if row["unit_id"] == p] for p in "ab"}
    assert {person: len(mine) for person, mine in by.items()} == {"a": 7, "b": 7}
    assert sum(row["prepared"] == "own" for row in by["a"]) == 4
    assert {row["prepared"] for row in by["a"]} <= {"own", "repeated", "reworded"}
    own = {row["instruction"] for row in rows if row["unit_id"] == "a"}
    for row in by["a"]:
        plain = row["instruction"].removeprefix("Please: ").replace("doctor", "physician")
        assert plain in own
        assert row["response"] == "x"
    assert all(row["prepared"] == "own" for row in by["b"])


def test_measured_balance_evens_classes_out_and_needs_scope_all(site: folders.Folder) -> None:
    rows = [_row(f"p{n}", _words(9, 20 * n), "x", category="rare" if n < 3 else "usual")
            for n in range(12)]  # fmt: skip
    done = _prepare(site, rows, recipe={
        "scope": "all", "balance": {"measured": True}, "split": {"ratio": "1:0:0"},
    })  # fmt: skip
    count = [row["category"] for row in _side(done, "train")].count
    assert (count("rare"), count("usual")) == (9, 9)
    with pytest.raises(ValueError, match="no private training accepts"):
        _recipe(balance={"measured": True})


def test_a_translation_there_and_back_is_a_wording_of_the_same_person() -> None:
    recipe = _recipe(augment={"copies": 1, "back_translation": ["a", "b"]})
    mine = [Record("p", "where is it", "there", None, None, 1)]
    made = making.train(mine, recipe, Draws.of(b"s" * 32), translate=lambda texts: [
        f"{text}, please" for text in texts
    ])  # fmt: skip
    assert [(i.record.person, i.record.instruction, i.origin) for i in made] == [
        ("p", "where is it", "own"), ("p", "where is it, please", "reworded"),
    ]  # fmt: skip


def test_public_persons_train_only_and_their_number_follows_from_the_count_of_persons(
    site: folders.Folder,
) -> None:
    public = [_row(f"q{n}", f"what is {_words(5, 400 + 6 * n)}", "a fact") for n in range(80)]
    (site.path / "general.jsonl").write_text("".join(json.dumps(r) + "\n" for r in public))
    recipe = {"public": {"path": "general.jsonl", "share": 0.25}, "order": {"by": "public-first"}}
    done = _prepare(site, _many(90), recipe=recipe)
    train = done.made.people()["train"]
    ours = [p for p in train if not p.startswith(making.PUBLIC)]
    assert len(train) - len(ours) == round(len(ours) / 3)
    rows = _side(done, "train")
    origins = [row["prepared"] for row in rows]
    assert origins == sorted(origins, key=lambda origin: origin != "public")
    assert all((r["prepared"] == "public") == r["unit_id"].startswith("public:") for r in rows)
    for side in SIDES[1:]:
        assert not any(p.startswith(making.PUBLIC) for p in done.made.people()[side])
    with pytest.raises(ClientError, match="kept for public records"):
        _prepare(site, [*_many(9), _row("public:p", "a text of mine")])


def test_an_order_by_what_records_say_is_refused_with_the_reason() -> None:
    with pytest.raises(ValueError, match="would tell about them"):
        _recipe(order={"by": "length"})


# --- the set ----------------------------------------------------------------------------------


def test_the_same_input_and_recipe_give_the_same_set_and_another_name_is_needed_for_another(
    site: folders.Folder, tmp_path: Path
) -> None:
    first = _prepare(site, _many(), name="one")
    assert _prepare(site, _many(), name="one").made.digest == first.made.digest
    second = _prepare(site, _many(), name="two")
    for part in ("train.jsonl", "validation.jsonl", "test.jsonl", "people.json", "manifest.json"):
        assert (second.made.path / part).read_bytes() == (first.made.path / part).read_bytes()
    with pytest.raises(ClientError, match="never changed"):
        _prepare(site, _many(), name="one", recipe={"split": {"ratio": "7:2:1"}})
    other = folders.create(tmp_path / "other", name="clinic-b", coordinator="127.0.0.1:9")
    # Keyed by the site's secret: nobody else can tell that these are the same records.
    assert _prepare(other, _many()).made.manifest["source"] != first.made.manifest["source"]


def test_every_file_is_private_and_nothing_is_left_on_the_way(site: folders.Folder) -> None:
    done = _prepare(site, _many(), name="one")
    for path in (sets.root(site), *sets.root(site).rglob("*")):
        assert path.stat().st_mode & 0o077 == 0, path.name
    assert [p.name for p in sets.root(site).iterdir()] == ["one"]
    assert "waaa wbaa" not in (done.made.path / "report.html").read_text()
    assert "waaa wbaa" not in (done.made.path / "manifest.json").read_text()
    assert "waaa wbaa" not in repr(done)


@pytest.mark.parametrize("part", ["train.jsonl", "manifest.json"])
def test_a_changed_set_is_not_trained_on(site: folders.Folder, part: str) -> None:
    done = _prepare(site, _many(), name="one")
    used = _using(site, "prepared/one/train.jsonl")
    assert people.read(used).records
    path = done.made.path / part
    path.write_bytes(path.read_bytes().replace(b"p1", b"p2").replace(b'"person"', b'"all"'))
    with pytest.raises(ClientError) as fault:
        people.read(used)
    assert (fault.value.code, fault.value.exit_code) == ("set-changed", 4)


def test_a_set_prepared_across_persons_is_not_trained_on(site: folders.Folder) -> None:
    _prepare(site, _many(), name="one", recipe={"scope": "all"})
    with pytest.raises(ClientError) as fault:
        people.read(_using(site, "prepared/one/train.jsonl"))
    assert (fault.value.code, fault.value.exit_code) == ("prepared-across", 3)


@pytest.mark.parametrize("side", ["validation", "test"])
def test_a_side_that_was_thinned_out_by_training_is_not_trained_on(
    site: folders.Folder, side: str
) -> None:
    _prepare(site, _many(), name="one")
    with pytest.raises(ClientError) as fault:
        people.read(_using(site, f"prepared/one/{side}.jsonl"))
    assert (fault.value.code, fault.value.exit_code) == ("prepared-across", 3)


def test_persons_of_whom_nothing_was_usable_still_count_in_training(site: folders.Folder) -> None:
    rows = [*_many(20), *(_row(f"e{n}", "<br>", "aaa") for n in range(20))]
    done = _prepare(site, rows, name="one")
    reading = people.read(_using(site, "prepared/one/train.jsonl"))
    listed = set(done.made.people()["train"])
    assert any(person.startswith("e") for person in listed)
    scrubbed = people.scrub(reading, _Plain())
    assert set(scrubbed.people) == listed
    assert {note.person for note in scrubbed.notes} == {p for p in listed if p[0] == "p"}


def test_what_a_records_columns_say_goes_along_for_the_scrub(site: folders.Folder) -> None:
    rows = [_row(f"p{n}", _words(9, 20 * n), patient_name=f"Zeb{n}", phones=["1 555", "2 555"])
            for n in range(5)]  # fmt: skip
    done = _prepare(site, rows, recipe={"split": {"ratio": "1:0:0"}}, name="one")
    found = records.read(done.made.path / "train.jsonl").records
    assert all(("patient_name", f"Zeb{r.person[1:]}") in r.columns for r in found)
    assert all([v for n, v in r.columns if n == "phones"] == ["1 555", "2 555"] for r in found)


def test_a_following_set_names_its_parent_and_keeps_a_share_of_it(site: folders.Folder) -> None:
    first = _prepare(site, _many(200), name="one")
    fresh = [_row(f"n{n}", f"new {_words(9, 11 * n)}") for n in range(20)]
    done = _prepare(site, fresh, name="two", parent="one")
    assert done.made.manifest["parent"] == {"name": "one", "digest": first.made.digest}
    old = [row for row in _side(done, "train") if row["unit_id"][0] == "p"]
    share = len(old) / len(_side(first, "train"))
    assert share == pytest.approx(0.7, abs=0.18)  # 5 standard deviations
    assert {r["unit_id"] for r in old} <= {r["unit_id"] for r in _side(first, "train")}
    with pytest.raises(ClientError, match="no prepared set three; known: one, two"):
        _prepare(site, fresh, parent="three")


class _Plain:
    """A scrubber that takes nothing."""

    digest = "sha256:" + "0" * 64

    def scrub_many(self, texts: Any, persons: Any, known: Any = None) -> Any:
        from types import SimpleNamespace

        return iter([SimpleNamespace(text=t, spans=(), counts={}) for t in texts])


def _using(site: folders.Folder, path: str) -> folders.Folder:
    place = site.path / "site.toml"
    text = place.read_text()
    place.write_text(text.replace('path = "records.jsonl"', f'path = "{path}"'))
    return folders.open_folder(site.path)


def test_a_rejected_answer_is_cleaned_and_stays_with_its_record(site: folders.Folder) -> None:
    rows = [
        _row(f"p{n}", _words(12, 7 * n), f"good {n}", rejected=f"<b>bad</b> {n}") for n in range(60)
    ]
    done = _prepare(site, [*rows, _row("q", _words(12, 900), "good", rejected="<b></b>")])
    assert done.document()["dropped"] == {"empty": 1}
    kept = [row for side in SIDES for row in _side(done, side)]
    assert len(kept) == 60
    for row in kept:
        number = row["unit_id"][1:]
        assert (row["response"], row["rejected"]) == (f"good {number}", f"bad {number}")
    read = records.read(done.made.path / "train.jsonl").records
    assert all(record.rejected == f"bad {record.person[1:]}" for record in read)
