"""A set on disk: reproduced byte by byte, private, and trained on only as it was prepared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from client import folder as folders
from client import people, records
from client.errors import ClientError
from client.prepare import sets
from client.prepare.sides import SIDES
from tests.client.preparing import lines_of, many, one_row, prepared, some_words


@pytest.fixture
def site(tmp_path: Path) -> folders.Folder:
    return folders.create(tmp_path / "site", name="clinic-a", coordinator="127.0.0.1:9")


def test_the_same_input_and_recipe_give_the_same_set_and_another_name_is_needed_for_another(
    site: folders.Folder, tmp_path: Path
) -> None:
    first = prepared(site, many(), name="one")
    assert prepared(site, many(), name="one").made.digest == first.made.digest
    second = prepared(site, many(), name="two")
    for part in ("train.jsonl", "validation.jsonl", "test.jsonl", "people.json", "manifest.json"):
        assert (second.made.path / part).read_bytes() == (first.made.path / part).read_bytes()
    with pytest.raises(ClientError, match="never changed"):
        prepared(site, many(), name="one", recipe={"split": {"ratio": "7:2:1"}})
    other = folders.create(tmp_path / "other", name="clinic-b", coordinator="127.0.0.1:9")
    # Keyed by the site's secret: nobody else can tell that these are the same records.
    assert prepared(other, many()).made.manifest["source"] != first.made.manifest["source"]


def test_every_file_is_private_and_nothing_is_left_on_the_way(site: folders.Folder) -> None:
    done = prepared(site, many(), name="one")
    for path in (sets.root(site), *sets.root(site).rglob("*")):
        assert path.stat().st_mode & 0o077 == 0, path.name
    assert [p.name for p in sets.root(site).iterdir()] == ["one"]
    assert "waaa wbaa" not in (done.made.path / "report.html").read_text()
    assert "waaa wbaa" not in (done.made.path / "manifest.json").read_text()
    assert "waaa wbaa" not in repr(done)


@pytest.mark.parametrize("part", ["train.jsonl", "manifest.json"])
def test_a_changed_set_is_not_trained_on(site: folders.Folder, part: str) -> None:
    done = prepared(site, many(), name="one")
    used = _using(site, "prepared/one/train.jsonl")
    assert people.read(used).records
    path = done.made.path / part
    path.write_bytes(path.read_bytes().replace(b"p1", b"p2").replace(b'"person"', b'"all"'))
    with pytest.raises(ClientError) as fault:
        people.read(used)
    assert (fault.value.code, fault.value.exit_code) == ("set-changed", 4)


def test_a_set_prepared_across_persons_is_not_trained_on(site: folders.Folder) -> None:
    prepared(site, many(), name="one", recipe={"scope": "all"})
    with pytest.raises(ClientError) as fault:
        people.read(_using(site, "prepared/one/train.jsonl"))
    assert (fault.value.code, fault.value.exit_code) == ("prepared-across", 3)
    (site.path / "link.jsonl").symlink_to(site.path / "prepared/one/train.jsonl")
    with pytest.raises(ClientError, match="prepared"):  # nor behind a link
        people.read(_using(site, "link.jsonl"))


@pytest.mark.parametrize("side", ["validation", "test"])
def test_a_side_that_was_thinned_out_by_training_is_not_trained_on(
    site: folders.Folder, side: str
) -> None:
    prepared(site, many(), name="one")
    with pytest.raises(ClientError) as fault:
        people.read(_using(site, f"prepared/one/{side}.jsonl"))
    assert (fault.value.code, fault.value.exit_code) == ("prepared-across", 3)


def test_persons_of_whom_nothing_was_usable_still_count_in_training(site: folders.Folder) -> None:
    rows = [*many(20), *(one_row(f"e{n}", "<br>", "aaa") for n in range(20))]
    done = prepared(site, rows, name="one")
    reading = people.read(_using(site, "prepared/one/train.jsonl"))
    listed = set(done.made.people()["train"])
    assert any(person.startswith("e") for person in listed)
    scrubbed = people.scrub(reading, _Plain())
    assert set(scrubbed.people) == listed
    assert {note.person for note in scrubbed.notes} == {p for p in listed if p[0] == "p"}


def test_what_a_records_columns_say_goes_along_for_the_scrub(site: folders.Folder) -> None:
    said: dict[str, Any] = {"phones": ["1 555", "2 555"]}
    rows = [
        one_row(f"p{n}", some_words(9, 20 * n), patient_name=f"Zeb{n}", **said) for n in range(5)
    ]
    done = prepared(site, rows, recipe={"split": {"ratio": "1:0:0"}}, name="one")
    found = records.read(done.made.path / "train.jsonl").records
    assert all(("patient_name", f"Zeb{r.person[1:]}") in r.columns for r in found)
    assert all([v for n, v in r.columns if n == "phones"] == ["1 555", "2 555"] for r in found)


def test_a_following_set_names_its_parent_and_keeps_a_share_of_it(site: folders.Folder) -> None:
    first = prepared(site, many(200), name="one")
    fresh = [one_row(f"n{n}", f"new {some_words(9, 11 * n)}") for n in range(20)]
    done = prepared(site, fresh, name="two", parent="one")
    assert done.made.manifest["parent"] == {"name": "one", "digest": first.made.digest}
    old = [row for row in lines_of(done, "train") if row["unit_id"][0] == "p"]
    share = len(old) / len(lines_of(first, "train"))
    assert share == pytest.approx(0.7, abs=0.18)  # 5 standard deviations
    assert {r["unit_id"] for r in old} <= {r["unit_id"] for r in lines_of(first, "train")}
    with pytest.raises(ClientError, match="no prepared set three; known: one, two"):
        prepared(site, fresh, parent="three")


class _Plain:
    """A scrubber that takes nothing."""

    digest = "sha256:" + "0" * 64

    def scrub_many(self, texts: Any, persons: Any, known: Any = None) -> Any:
        from types import SimpleNamespace

        return iter([SimpleNamespace(text=t, spans=(), counts={}) for t in texts])


def test_a_rejected_answer_is_cleaned_and_stays_with_its_record(site: folders.Folder) -> None:
    rows = [
        one_row(f"p{n}", some_words(12, 7 * n), f"good {n}", rejected=f"<b>bad</b> {n}")
        for n in range(60)
    ]
    empty = one_row("q", some_words(12, 900), "good", rejected="<b></b>")
    done = prepared(site, [*rows, empty])
    assert done.document()["dropped"] == {"empty": 1}
    kept = [row for side in SIDES for row in lines_of(done, side)]
    assert len(kept) == 60
    for row in kept:
        number = row["unit_id"][1:]
        assert (row["response"], row["rejected"]) == (f"good {number}", f"bad {number}")
    read = records.read(done.made.path / "train.jsonl").records
    assert all(record.rejected == f"bad {record.person[1:]}" for record in read)


def _using(site: folders.Folder, path: str) -> folders.Folder:
    place = site.path / "site.toml"
    text = place.read_text()
    place.write_text(text.replace('path = "records.jsonl"', f'path = "{path}"'))
    return folders.open_folder(site.path)
