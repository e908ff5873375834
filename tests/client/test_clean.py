"""Markup goes, letters come back, and every character still knows where it stood."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client.clean import clean
from privacy.errors import Quarantined


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("<p>José &amp; Ann<br>x</p>", "\nJosé & Ann\nx\n"),
        ("<b>Ma</b>ria", "Maria"),
        ("a<!-- Maria -->b<script>Maria</script>c<style>x</style>", "abc"),
        ('<a href="mailto:m@x.org" title="Maria">call</a>', "call"),
        ("Ann&nbsp;Roe &#74;&#x6f;e", "Ann Roe Joe"),
        ("JosÃ© GarcÃ\xada, Ã¼ber 5 Âµg", "José García, über 5 µg"),
    ],
)
def test_markup_goes_and_letters_are_mended(written: str, read: str) -> None:
    assert clean(written).text == read


@pytest.mark.parametrize(
    "text",
    ["BP <120 and >80, K<3.5", "if a<b then", "5 µg ±2 °C naïve café", "王小明 <120", "P<0.05 & x",
     "Pat1ent J0hn Sm1th, l2/O3/2O2l", "T-cell (CD4<200)", "Ångström, château", ""],
)  # fmt: skip
def test_medicine_and_bad_optics_stay_as_they_are(text: str) -> None:
    assert clean(text).text == text
    assert clean(text).offsets is None


def test_letters_that_are_lost_hold_the_text_back() -> None:
    broken = "患者张三来了".encode().decode("latin-1").replace("\x80", "").replace("\x9d", "")
    with pytest.raises(Quarantined) as held:
        clean(broken)
    assert held.value.code == "mojibake"


def test_a_span_of_the_clean_text_leads_back() -> None:
    written = "<p>Dear <b>Ma</b>ria &amp; JosÃ©</p>"
    cleaned = clean(written)
    for word, source in (("Maria", "Ma</b>ria"), ("José", "JosÃ©"), ("&", "&amp;")):
        at = cleaned.text.index(word)
        start, end = cleaned.source(at, at + len(word))
        assert written[start:end].startswith(source)


@settings(deadline=None, max_examples=150)
@given(st.text(st.sampled_from("abZé<>/&;#p br!-Ã©'\" =1")))
def test_offsets_never_go_back_and_stay_inside(text: str) -> None:
    try:
        cleaned = clean(text)
    except Quarantined:
        return
    if cleaned.offsets is None:
        assert cleaned.text == text
        return
    assert len(cleaned.offsets) == len(cleaned.text) + 1
    assert list(cleaned.offsets) == sorted(cleaned.offsets)
    assert cleaned.offsets[-1] == len(text)


def test_a_long_run_of_open_tags_takes_no_time() -> None:
    import time

    begun = time.process_time()
    clean("<p " * 20_000 + "<!--" * 5_000 + "<script>" * 2_000)
    assert time.process_time() - begun < 20
