"""Each kind of identifier, right and wrong by its checksum, written in every way."""

from __future__ import annotations

import json
from datetime import date

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy import checksums, recognizers
from privacy.normalise import normalise
from privacy.spans import resolve

RECOGNIZERS = recognizers.build("clinical")
DIGITS = "0123456789"


def covered(text: str, value: str) -> bool:
    copy = normalise(text)
    at = text.index(value)
    taken: set[int] = set()
    for span in resolve(recognizers.find(RECOGNIZERS, copy.text, None)):
        taken |= set(range(*copy.source(span.start, span.end)))
    return {i for i in range(at, at + len(value)) if text[i].isalnum()} <= taken


def digits(count: int) -> st.SearchStrategy[str]:
    return st.text(DIGITS, min_size=count, max_size=count)


@st.composite
def residents(draw: st.DrawFn) -> str:
    born = draw(st.dates(min_value=date(1930, 1, 1)))
    born = born.replace(year=1930 + born.year % 90, day=min(born.day, 28))
    body = (
        draw(st.sampled_from(("110199", "330299", "440399"))) + f"{born:%Y%m%d}" + draw(digits(3))
    )
    return body + draw(st.sampled_from("0123456789X"))


@st.composite
def old_residents(draw: st.DrawFn) -> str:
    month, day = draw(st.integers(1, 12)), draw(st.integers(1, 28))
    return f"110199{draw(st.integers(30, 99)):02d}{month:02d}{day:02d}{draw(digits(3))}"


@st.composite
def credit_codes(draw: st.DrawFn) -> str:
    letters = "0123456789ABCDEFGHJKLMNPQRTUWXY"
    body = "91" + draw(digits(6)) + draw(st.text(letters, min_size=9, max_size=9))
    return body + draw(st.sampled_from(letters))


@st.composite
def hong_kong(draw: st.DrawFn) -> str:
    return (
        f"{draw(st.sampled_from('AGKRZ'))}{draw(digits(6))}({draw(st.sampled_from('0123456789A'))})"
    )


@st.composite
def taiwan(draw: st.DrawFn) -> str:
    return draw(st.sampled_from("ABFHNZ")) + draw(st.sampled_from("12")) + draw(digits(8))


@st.composite
def plates(draw: st.DrawFn) -> str:
    size = draw(st.sampled_from((5, 6)))
    tail = draw(st.text("0123456789DF", min_size=size, max_size=size))
    return draw(st.sampled_from("京沪浙粤川新")) + draw(st.sampled_from("ABCE")) + tail


@st.composite
def cards(draw: st.DrawFn) -> str:
    return "62" + draw(digits(draw(st.integers(14, 17))))


VALUES = {
    "resident": residents(),
    "old resident": old_residents(),
    "credit code": credit_codes(),
    "hong kong": hong_kong(),
    "taiwan": taiwan(),
    "macau": st.builds("{}{}({})".format, st.sampled_from("157"), digits(6), digits(1)),
    "passport": st.builds("E{}".format, digits(8)),
    "mobile": st.builds("{}{}".format, st.sampled_from(("138", "159", "187")), digits(8)),
    "landline": st.builds("0571-{}{}".format, st.sampled_from("2568"), digits(7)),
    "service": st.builds("400-{}-{}".format, digits(3), digits(4)),
    "card": cards(),
    "plate": plates(),
    "ssn": st.builds("{}-{}-{}".format, st.sampled_from(("123", "456")), digits(2), digits(4)),
}


@pytest.mark.parametrize("kind", VALUES)
@settings(deadline=None, max_examples=12)
@given(data=st.data())
def test_an_identifier_is_found_inside_chinese_text_whatever_its_checksum_says(
    kind: str, data: st.DataObject
) -> None:
    value = data.draw(VALUES[kind])
    assert covered(f"证件是{value}请核对", value)
    assert covered(f"it is {value}, as noted", value)


@pytest.mark.parametrize("kind", VALUES)
@settings(deadline=None, max_examples=8)
@given(data=st.data())
def test_an_identifier_in_wide_or_split_characters_is_found(kind: str, data: st.DataObject) -> None:
    value = data.draw(VALUES[kind])
    wide = "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in value)
    at = data.draw(st.integers(1, len(value) - 1))
    for written in (wide, value[:at] + "\u200b" + value[at:]):
        assert covered(f"号码为{written}。", written)


@pytest.mark.parametrize("kind", ["resident", "mobile", "card", "ssn"])
@settings(deadline=None, max_examples=12)
@given(data=st.data())
def test_a_number_broken_over_two_lines_is_found(kind: str, data: st.DataObject) -> None:
    value = data.draw(VALUES[kind])
    at = data.draw(st.integers(3, len(value) - 3))
    written = value[:at] + "\n" + value[at:]
    assert covered(f"号码：{written}。", written)


@pytest.mark.parametrize(
    ("check", "right"),
    [
        (checksums.hong_kong_id, "A123456(3)"),
        (checksums.hong_kong_id, "AB987654(3)"),
        (checksums.taiwan_id, "A123456789"),
        (checksums.credit_code, "91350100M000100Y43"),
        (checksums.chinese_id, "11010519491231002X"),
        (checksums.luhn, "6222021234567894"),
    ],
)  # fmt: skip
def test_a_checksum_holds_for_the_published_number_and_for_no_neighbour(check, right):
    assert check(right)
    at = max(i for i, c in enumerate(right) if c.isdigit())
    wrong = [right[:at] + d + right[at + 1 :] for d in DIGITS if d != right[at]]
    assert not any(check(value) for value in wrong)
    assert not check("")
    assert not check("no number")


def test_a_checksum_that_holds_makes_a_hit_certain_and_one_that_fails_does_not_drop_it():
    def best(text):
        hits = recognizers.find(RECOGNIZERS, text, None)
        return max(hit.score for hit in hits if hit.type == "NATIONAL_ID")

    assert best("身份证11010519491231002X") == 1.0
    assert 0.5 < best("身份证110105194912310021") < 1.0


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (json.dumps({"patient_name": "quill", "dx": "gout"}), "quill"),
        ("<Patient><LastName>quill</LastName></Patient>", "quill"),
        ("PID|1||778812^^^H^MR||QUILL^ORLA^^^||19700102|F", "QUILL"),
        ("PID|1||778812^^^H^MR||QUILL^ORLA^^^||19700102|F", "19700102"),
        ("GET /q?user=orla77&ward=3", "orla77"),
        ("open /scans/maria_quennell_chest.dcm", "maria_quennell"),
    ],
)
def test_data_inside_text_is_read_by_its_keys(text, value):
    assert covered(text, value)


@pytest.mark.parametrize(
    "text", ['{"drug_name": "metformin"}', "<TestName>glucose</TestName>", "colour=blue"]
)
def test_keys_of_things_are_left_alone(text):
    assert not list(recognizers.find(RECOGNIZERS, text, None))
