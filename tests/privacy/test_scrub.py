from __future__ import annotations

import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from demo import generate
from privacy import lac, recognizers, scrub, scrub_models
from privacy.errors import Quarantined
from privacy.lac import ModelFault
from privacy.scrub import Scrubber

SECRET = b"s" * 32


@pytest.fixture(scope="module")
def scrubber() -> Scrubber:
    return Scrubber.load(secret=SECRET)


def test_identifiers_go_and_the_rest_stays(scrubber):
    text = "Maria Lopez, MRN 4482913, reports chest pain since 2019. Call 617-555-2831."
    result = scrubber.scrub(text, person="p1")
    assert {text[s.start : s.end] for s in result.spans} == {
        "Maria Lopez",
        "4482913",
        "617-555-2831",
    }
    assert result.counts == {"PERSON": 1, "RECORD_NUMBER": 1, "PHONE_NUMBER": 1}
    assert "reports chest pain since 2019. Call" in result.text
    for gone in ("Maria", "Lopez", "4482913", "2831"):
        assert gone not in result.text


def test_spans_are_code_points_of_the_input_even_where_the_copy_differs(scrubber):
    text = "患者王小明，MRN １２３\u200b４５６，电话１３８００００１２３４"
    result = scrubber.scrub(text, person="p1")
    assert [text[s.start : s.end] for s in result.spans] == [
        "王小明",
        "１２３\u200b４５６",
        "１３８００００１２３４",
    ]


def test_one_person_keeps_one_fictitious_name_over_texts_and_loads(scrubber):
    again = Scrubber.load(secret=SECRET)
    one = scrubber.scrub("Patient Maria Lopez is here.", person="p1").text
    two = again.scrub("Patient Maria Lopez is here.", person="p1").text
    other = scrubber.scrub("Patient Maria Lopez is here.", person="p2").text
    assert one == two != other


@pytest.mark.parametrize("kind", ["hospital", "bank"])
@pytest.mark.parametrize("language", ["en", "zh"])
def test_known_identifiers_of_made_up_notes_are_caught(scrubber, kind, language):
    people = list(generate.persons(kind, count=40, language=language, seed=11))
    notes = [note for person in people for note in person.notes]
    keys = [person.key for person in people for _ in person.notes]
    results = list(scrubber.scrub_many([n.instruction for n in notes], keys))
    clean = [(n, r) for n, r in zip(notes, results, strict=True) if not isinstance(r, Quarantined)]
    assert len(clean) == len(notes)
    share = generate.caught_share([n for n, _ in clean], [r.spans for _, r in clean])
    assert share >= 0.99


def test_a_batch_gives_what_one_by_one_gives(scrubber):
    texts = ["Dr. Iyer saw Ann Bell.", "x" * 20_001, "患者王小明", "", "Plain words."]
    many = list(scrubber.scrub_many(texts, ["p"] * 5))
    for text, result in zip(texts, many, strict=True):
        if isinstance(result, Quarantined):
            with pytest.raises(Quarantined):
                scrubber.scrub(text, person="p")
        else:
            assert scrubber.scrub(text, person="p") == result


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("x " * 10_001, "too-long"),
        ("Меня зовут Иван Петров", "unsupported-script"),
        ("caf\ufffd", "not-text"),
        ("\ud800", "not-text"),
        (None, "not-text"),
    ],
)
def test_what_cannot_be_judged_is_held_back(scrubber, text, code):
    with pytest.raises(Quarantined) as caught:
        scrubber.scrub(text, person="p")
    assert caught.value.code == code


KINDS = [type(r).__name__ + ":" + r.name for r in recognizers.build("clinical")]


@pytest.mark.parametrize("at", range(len(KINDS)), ids=KINDS)
@pytest.mark.parametrize(
    ("fault", "code"),
    [(RuntimeError("Maria Lopez"), "detector-failed"), (TimeoutError(), "timeout")],
)
def test_any_recogniser_that_fails_holds_the_text_back(scrubber, monkeypatch, at, fault, code):
    def fail(*_, **__):
        raise fault

    monkeypatch.setattr(scrubber._recognizers[at], "analyze", fail)
    with pytest.raises(Quarantined) as caught:
        scrubber.scrub("Maria Lopez", person="p")
    assert caught.value.code == code
    assert "Lopez" not in str(caught.value)
    chained = caught.value.__cause__ or caught.value.__context__
    assert chained is None


@pytest.mark.parametrize(
    ("fault", "code"),
    [(ValueError("Ann Bell"), "detector-failed"), (TimeoutError(), "timeout")],
)
@pytest.mark.parametrize("part", ["_open_english", "_open_chinese"])
def test_a_model_that_fails_on_one_text_takes_no_neighbour_along(monkeypatch, part, fault, code):
    own = Scrubber.load(secret=SECRET)
    real = getattr(own._engine, part)()

    class Broken:
        def pipe(self, texts, batch_size):
            return real.pipe(self._judge(texts), batch_size=batch_size)

        def many(self, texts):
            return real.many(self._judge(texts))

        def _judge(self, texts):
            texts = list(texts)
            if any("poison" in text for text in texts):
                raise fault
            return texts

    monkeypatch.setattr(own._engine, part, Broken)
    good, bad, after = own.scrub_many(
        ["Ann Bell 王小明", "poison Ann Bell 王小明", "Carl Jones 王小明"], ["p"] * 3
    )
    assert not isinstance(good, Quarantined)
    assert isinstance(bad, Quarantined)
    assert bad.code == code
    assert "Bell" not in str(bad)
    assert not isinstance(after, Quarantined)


def test_a_surface_that_survives_holds_the_text_back(scrubber, monkeypatch):
    alias = scrubber._surrogates.of("survivor")
    monkeypatch.setattr(alias, "replace", lambda kind, value: value)
    with pytest.raises(Quarantined) as caught:
        scrubber.scrub("Patient Maria Lopez is here.", person="survivor")
    assert caught.value.code == "verify"


def test_spaced_digits_do_not_get_past_the_verification():
    with pytest.raises(Quarantined):
        scrub._check_gone(["617-555-2831"], "call 617 555 2831")
    with pytest.raises(Quarantined):
        scrub._check_gone(["王小明"], "又见王小明")
    scrub._check_gone(["617-555-2831", "Ann"], "call 617 555 2832, said Anna")


def test_no_socket_is_opened_and_nothing_is_downloaded(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "connect_ex", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(scrub_models.spacy.cli, "download", refuse)
    own = Scrubber.load(secret=SECRET)
    text = "Maria Lopez, maria@example.com, https://example.com/x, 617-555-2831, 10.0.0.1"
    assert own.scrub(text, person="p").counts["EMAIL_ADDRESS"] == 1


def test_a_model_whose_files_differ_is_refused(monkeypatch):
    monkeypatch.setattr(scrub_models, "MODEL_DIGEST", "sha256:" + "0" * 64)
    with pytest.raises(ModelFault) as caught:
        Scrubber.load(secret=SECRET)
    assert caught.value.exit_code == 4


def test_a_missing_model_is_refused(monkeypatch):
    monkeypatch.setattr(scrub_models, "MODEL_PACKAGE", "no_such_model")
    with pytest.raises(ModelFault, match="not installed"):
        Scrubber.load(secret=SECRET)


@pytest.mark.parametrize("name", sorted(lac.FILES))
@pytest.mark.parametrize("fault", ["missing", "altered"])
def test_chinese_without_its_own_files_is_refused(monkeypatch, tmp_path, name, fault):
    root = lac.folder()
    for file in lac.FILES:
        (tmp_path / file).symlink_to(root / file)
    (tmp_path / name).unlink()
    if fault == "altered":
        content = bytearray((root / name).read_bytes())
        content[len(content) // 2] ^= 1
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelFault, match=name):
        lac.Lac(tmp_path)


def test_a_missing_chinese_model_is_refused_where_it_is_asked_for(monkeypatch):
    monkeypatch.setattr(lac, "PACKAGE", "no_such_model")
    for language in ("zh", "auto"):
        with pytest.raises(ModelFault, match="not installed"):
            Scrubber.load(language=language, secret=SECRET)
    assert Scrubber.load(language="en", secret=SECRET).digest


def test_chinese_alone_needs_no_english_model(monkeypatch):
    monkeypatch.setattr(scrub_models, "MODEL_PACKAGE", "no_such_model")
    own = Scrubber.load(language="zh", secret=SECRET)
    assert own.scrub("患者王小明", person="p").counts == {"PERSON": 1}


def test_what_the_record_says_is_found_in_its_text(scrubber):
    text = "Smyth, jonathan came in; his mother (Quill) called. Ref 77-12-9. 王晓明到场。"
    columns = {"patient_name": "Jonathan Smith", "mother": "Ida Quill", "mrn": "77129"}
    columns["姓名"] = "王小明"
    found = scrubber.scrub(text, person="p", known=columns)
    taken = {text[s.start : s.end] for s in found.spans}
    assert {"Smyth", "jonathan", "Quill", "77-12-9", "王晓明"} <= taken


def test_a_name_found_in_one_text_is_found_in_the_others_of_the_same_person(scrubber):
    texts = ["Patient name: Orla Quennell-Vik.", "saw quennell-vik again", "saw quennell-vik again"]
    mine, also, other = scrubber.scrub_many(texts, ["p", "p", "q"])
    assert "quennell" not in mine.text.casefold() + also.text.casefold()
    assert "quennell" in other.text


def test_a_persons_texts_stay_together_whoever_stands_before_them(scrubber, monkeypatch):
    monkeypatch.setattr(scrub, "BATCH", 3)
    mine = ["Patient name: Orla Quennell-Vik.", "saw quennell-vik again"]
    for others in range(4):
        keys = [*(f"o{n}" for n in range(others)), "p", "p"]
        *_, first, second = scrubber.scrub_many([*["plain words"] * others, *mine], keys)
        assert "quennell" not in first.text.casefold() + second.text.casefold()


def test_known_columns_of_another_number_than_texts_are_refused(scrubber):
    with pytest.raises(ValueError, match="as many"):
        list(scrubber.scrub_many(["a", "b"], ["p", "p"], [{}]))


def test_the_digest_names_the_configuration_and_not_the_secret(scrubber, monkeypatch):
    assert Scrubber.load(secret=b"t" * 32).digest == scrubber.digest
    assert Scrubber.load(secret=SECRET, profile="strict").digest != scrubber.digest
    assert Scrubber.load(secret=SECRET, language="zh").digest != scrubber.digest
    monkeypatch.setattr(scrub, "VERSION", scrub.VERSION + 1)
    assert Scrubber.load(secret=SECRET).digest != scrubber.digest
    assert scrubber.digest.startswith("sha256:")


def test_no_repr_holds_the_text(scrubber):
    assert "Langmere" not in repr(scrub.Scrubbed("Langmere", ()))


@settings(deadline=None, max_examples=60)
@given(text=st.text(max_size=200), person=st.text(max_size=10))
def test_any_text_is_either_scrubbed_or_held_back(scrubber, text, person):
    result = next(scrubber.scrub_many([text], [person]))
    if isinstance(result, Quarantined):
        assert result.code in {"verify", "unsupported-script", "not-text"}
        return
    ends = [0, *(s.end for s in result.spans)]
    assert all(
        end <= span.start < span.end <= len(text)
        for end, span in zip(ends, result.spans, strict=False)
    )


@pytest.mark.parametrize("unit", ["a", "1 ", "A ", "a.", "1-", "王", "Ab ", "a@", "省市区", "MRN "])
def test_long_repetitive_texts_end_in_bounded_time(scrubber, unit):
    text = (unit * scrub.MAX_CHARACTERS)[:6_000]
    start = time.process_time()
    next(scrubber.scrub_many([text], ["p"]))
    assert time.process_time() - start < 20


def test_importing_warns_about_nothing():
    code = "import warnings; warnings.simplefilter('error'); import privacy.scrub"
    root = Path(scrub.__file__).parents[1]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root, timeout=120)
