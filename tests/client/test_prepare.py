"""A prepared set: sides that share nothing, persons that do not touch each other, same digests."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from client import folder as folders
from client.errors import ClientError
from client.prepare import likeness, making, wording
from client.prepare.draws import Draws
from client.records import Record
from configs.prepare import CleanTable, DuplicatesTable
from tests.client.preparing import lines_of, many, one_row, prepared, recipe_of, some_words

SIDES = ("train", "validation", "test")


@pytest.fixture
def site(tmp_path: Path) -> folders.Folder:
    return folders.create(tmp_path / "site", name="clinic-a", coordinator="127.0.0.1:9")


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
        *many(20),
        one_row("x1", "a question of five words", "who knows"),
        one_row("x2", "Der Patient ist nicht mit der Frau und die Sache wird geprüft", "aaa"),
        one_row("x3", "<br>", "aaa"),
        one_row(
            "x4",
            "患者张三来了".encode().decode("latin-1").replace("\x80", "").replace("\x9d", ""),
            "aaa",
        ),
        one_row("x5", "q" * 300, "aaa"),
    ]
    done = prepared(site, rows, recipe={
        "labels": {"allowed": ["aaa", "BBB", "ccc"]},
        "limits": {"languages": ["en"], "most_characters": 200},
    })  # fmt: skip
    assert {code: n for code, n in done.dropped.items() if "side" not in code} == {
        "unknown-label": 1, "other-language": 1, "empty": 1, "mojibake": 1, "too-long": 1,
    }  # fmt: skip
    assert {row["response"] for side in SIDES for row in lines_of(done, side)} == {
        "aaa",
        "BBB",
        "ccc",
    }
    lines = json.loads((done.made.path / "dropped.json").read_text())
    assert lines["unknown-label"] == [21]


# --- duplicates -------------------------------------------------------------------------------


def test_a_persons_own_copies_go_and_the_same_form_with_other_numbers_stays(
    site: folders.Folder,
) -> None:
    long = some_words(40)
    rows = [
        *many(10),
        one_row("d", long), one_row("d", long.upper() + " !"), one_row("d", long + " tail"),
        one_row("d", f"pressure 120 over 80 {some_words(30, 200)}"),
        one_row("d", f"pressure 140 over 90 {some_words(30, 200)}"),
    ]  # fmt: skip
    done = prepared(site, rows, recipe={"split": {"ratio": "1:0:0"}})
    assert done.dropped == {"duplicate": 1, "near-duplicate": 1}
    assert sum(row["unit_id"] == "d" for row in lines_of(done, "train")) == 3


def test_a_large_group_of_one_person_is_judged_like_a_small_one() -> None:
    table = DuplicatesTable()
    texts = [some_words(20, 25 * n) for n in range(40)] + [
        some_words(20, 25 * n) + " x" for n in range(40)
    ]
    prints = [likeness.fingerprint(text, "ok", 3) for text in texts]
    assert [number for number, _ in likeness.within(prints, table)] == list(range(40, 80))


def test_copies_of_other_persons_stay_in_training_and_go_in_scope_all(
    site: folders.Folder,
) -> None:
    rows = [*many(20), *(one_row(f"s{n}", some_words(30, 500), "same") for n in range(6))]
    ratio = {"split": {"ratio": "1:0:0"}}
    done = prepared(site, rows, recipe=ratio)
    assert done.across == 5
    assert sum(row["response"] == "same" for row in lines_of(done, "train")) == 6
    every = prepared(site, rows, recipe={"scope": "all", **ratio})
    assert every.dropped["duplicate-across"] == 5
    assert sum(row["response"] == "same" for row in lines_of(every, "train")) == 1


def test_lines_that_many_persons_share_are_shown_and_go_in_scope_all(site: folders.Folder) -> None:
    rows = [one_row(r["unit_id"], f"{r['instruction']}\nThis mail is confidential 2024")
            for r in many(30)]  # fmt: skip
    done = prepared(site, rows)
    assert any("1 line stands in the records" in sentence for sentence in done.warnings)
    assert "this mail is confidential 0000" in (done.made.path / "report.html").read_text()
    assert all("confidential" in row["instruction"] for row in lines_of(done, "train"))
    every = prepared(site, rows, recipe={"scope": "all"})
    assert not any("confidential" in row["instruction"] for row in lines_of(every, "train"))


# --- sides ------------------------------------------------------------------------------------


def _jaccard(one: str, other: str) -> float:
    """An oracle of its own: the words of a text in runs of three, as plain sets."""
    a, b = one.casefold().split(), other.casefold().split()
    runs = [{tuple(x[i : i + 3]) for i in range(max(1, len(x) - 2))} for x in (a, b)]
    return len(runs[0] & runs[1]) / len(runs[0] | runs[1])


_TEXTS = st.one_of(
    st.builds(some_words, st.integers(1, 14), st.integers(0, 12)),
    st.integers(0, 999).map("please refund order {} to my card today".format),
    st.tuples(st.integers(0, 3), st.integers(0, 3)).map(
        lambda t: f"{some_words(20, 40 * t[0])} tail{'abcd'[t[1]]}"
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
    rows = [one_row(f"p{person}", text, "ok") for person, text in found]
    recipe = {"split": {"ratio": ratio}, "scope": scope,
              "augment": {"copies": 1, "templates": ["please {instruction}"]}}  # fmt: skip
    done = prepared(site, rows, recipe=recipe)
    held = {side: lines_of(done, side) for side in SIDES}
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
    rows = [one_row(f"p{person}", text, "ok", category="xy"[person % 2]) for person, text in found]
    rows.append(one_row("stays", "somebody who is always there with a question", "ok"))
    seen = []
    for part in (rows, [row for row in rows if row["unit_id"] != f"p{gone}"]):
        try:
            done = prepared(site, part, recipe=recipe)
        except ClientError as nothing:
            assert nothing.code == "nothing-left"  # noqa: PT017
            return set()
        by: dict[str, list[str]] = {}
        for row in lines_of(done, "train"):
            by.setdefault(row["unit_id"], []).append(json.dumps(row, sort_keys=True))
        seen.append({person: sorted(texts) for person, texts in by.items()})
    every = {*seen[0], *seen[1]} - {f"p{gone}"}
    return {person for person in every if seen[0].get(person) != seen[1].get(person)}


def test_the_check_of_persons_apart_notices_a_preparation_across_persons(
    site: folders.Folder,
) -> None:
    found = [(n % 12, some_words(30, 31 * (n % 5))) for n in range(24)]
    assert any(_moved(site, found, gone, "all") for gone in range(6))


def test_shares_hold_and_a_person_keeps_its_side_in_the_next_set(site: folders.Folder) -> None:
    rows = many(600)
    first = prepared(site, rows)
    again = prepared(
        site, [*rows[:300], *(one_row(f"n{n}", some_words(9, 11 * n)) for n in range(50))]
    )
    shares = [len(first.made.people()[side]) / 600 for side in SIDES]
    # The side that trains is drawn person by person: 5 standard deviations of a binomial share.
    assert shares[0] == pytest.approx(0.8, abs=0.082)
    assert shares[1] == pytest.approx(shares[2], abs=0.01)
    old = {p for p in first.made.people()["train"] if int(p[1:]) < 300}
    assert {p for p in again.made.people()["train"] if p[0] == "p"} == old
    exact = prepared(site, rows, recipe={"scope": "all", "split": {"ratio": "7:2:1"}})
    assert [len(exact.made.people()[side]) for side in SIDES] == [420, 120, 60]
    classes = [sum(r["category"] == "a" for r in lines_of(exact, side)) for side in SIDES]
    assert classes == pytest.approx([140, 40, 20], abs=6)


# --- what trains ------------------------------------------------------------------------------


def test_repetitions_and_new_wordings_stay_with_their_person_and_within_the_bound(
    site: folders.Folder,
) -> None:
    rows = [one_row("a", f"the physician saw {some_words(9, 20 * n)}", "x", category="rare")
            for n in range(4)]  # fmt: skip
    rows += [one_row("b", f"a doctor wrote {some_words(9, 90 + 20 * n)}", "y", category="usual")
             for n in range(9)]  # fmt: skip
    done = prepared(site, rows, recipe={
        "split": {"ratio": "1:0:0"}, "limits": {"most_records": 7},
        "balance": {"classes": [{"name": "rare", "times": 2}]},
        "augment": {"copies": 2, "templates": ["Please: {instruction}"],
                    "synonyms": [["physician", "doctor"]]},
    })  # fmt: skip
    train = lines_of(done, "train")
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
    rows = [one_row(f"p{n}", some_words(9, 20 * n), "x", category="rare" if n < 3 else "usual")
            for n in range(12)]  # fmt: skip
    done = prepared(site, rows, recipe={
        "scope": "all", "balance": {"measured": True}, "split": {"ratio": "1:0:0"},
    })  # fmt: skip
    count = [row["category"] for row in lines_of(done, "train")].count
    assert (count("rare"), count("usual")) == (9, 9)
    with pytest.raises(ValueError, match="no private training accepts"):
        recipe_of(balance={"measured": True})


def test_a_translation_there_and_back_is_a_wording_of_the_same_person() -> None:
    recipe = recipe_of(augment={"copies": 1, "back_translation": ["a", "b"]})
    mine = [Record("p", "where is it", "there", None, None, 1)]
    made = making.train(mine, recipe, Draws.of(b"s" * 32), translate=lambda texts: [
        f"{text}, please" for text in texts
    ])  # fmt: skip
    assert [(i.record.person, i.record.instruction, i.origin) for i in made] == [
        ("p", "where is it", "own"), ("p", "where is it, please", "reworded"),
    ]  # fmt: skip


def test_private_records_are_not_mixed_in_as_public_ones(site: folders.Folder) -> None:
    """A person would count twice, and a withdrawal would miss the public half."""
    recipe = {"public": {"path": "old.jsonl", "share": 0.25}}
    old = [one_row("q1", "an earlier question"), many(9)[3]]
    (site.path / "old.jsonl").write_text("".join(json.dumps(row) + "\n" for row in old))
    with pytest.raises(ClientError, match="count twice") as fault:
        prepared(site, many(9), recipe=recipe)
    assert fault.value.exit_code == 3
    assert old[1]["instruction"] not in str(fault.value)


def test_public_persons_train_only_and_their_number_follows_from_the_count_of_persons(
    site: folders.Folder,
) -> None:
    public = [
        one_row(f"q{n}", f"what is {some_words(5, 400 + 6 * n)}", "a fact") for n in range(80)
    ]
    (site.path / "general.jsonl").write_text("".join(json.dumps(r) + "\n" for r in public))
    recipe = {"public": {"path": "general.jsonl", "share": 0.25}, "order": {"by": "public-first"}}
    done = prepared(site, many(90), recipe=recipe)
    train = done.made.people()["train"]
    ours = [p for p in train if not p.startswith(making.PUBLIC)]
    assert len(train) - len(ours) == round(len(ours) / 3)
    rows = lines_of(done, "train")
    origins = [row["prepared"] for row in rows]
    assert origins == sorted(origins, key=lambda origin: origin != "public")
    assert all((r["prepared"] == "public") == r["unit_id"].startswith("public:") for r in rows)
    for side in SIDES[1:]:
        assert not any(p.startswith(making.PUBLIC) for p in done.made.people()[side])
    with pytest.raises(ClientError, match="kept for public records"):
        prepared(site, [*many(9), one_row("public:p", "a text of mine")])


def test_an_order_by_what_records_say_is_refused_with_the_reason() -> None:
    with pytest.raises(ValueError, match="would tell about them"):
        recipe_of(order={"by": "length"})
