from __future__ import annotations

import pytest

from privacy import medical, naming, patterns, recognizers, search
from privacy.normalise import known_script_share, normalise
from privacy.spans import Hit, resolve


def found(text, profile="clinical"):
    copy = normalise(text)
    hits = recognizers.find(recognizers.build(profile), copy.text, None)
    return {(text[slice(*copy.source(span.start, span.end))], span.type) for span in resolve(hits)}


@pytest.mark.parametrize(
    ("text", "value", "kind"),
    [
        ("Call 617-555-2831 now", "617-555-2831", "PHONE_NUMBER"),
        ("Tel +44 20 7946 0958.", "+44 20 7946 0958", "PHONE_NUMBER"),
        ("电话13800001234。", "13800001234", "PHONE_NUMBER"),
        ("电话４１３８ ", None, None),  # too short for a number
        ("mail ann@example.com today", "ann@example.com", "EMAIL_ADDRESS"),
        ("邮箱ann@example.com。", "ann@example.com", "EMAIL_ADDRESS"),
        ("ann (at) example (dot) com", "ann (at) example (dot) com", "EMAIL_ADDRESS"),
        ("卡号4000247906158307", "4000247906158307", "CREDIT_CARD"),
        ("card 4000 2479 0615 8308", "4000 2479 0615 8308", "CREDIT_CARD"),
        ("卡号6222021234567890123", "6222021234567890123", None),
        ("IBAN DE89 3704 0044 0532 0130 00", "DE89 3704 0044 0532 0130 00", "IBAN_CODE"),
        ("SSN 666-12-3456", "666-12-3456", "NATIONAL_ID"),
        ("身份证号11019919900307123X", "11019919900307123X", "NATIONAL_ID"),
        (
            "身份证１１０１９９１９９００３０７１２３Ｘ",
            "１１０１９９１９９００３０７１２３Ｘ",
            "NATIONAL_ID",
        ),
        ("MRN: 998877", "998877", "RECORD_NUMBER"),
        ("MRN: AB-98127", "AB-98127", "RECORD_NUMBER"),
        ("住院号20348", "20348", "RECORD_NUMBER"),
        ("于2023-05-12入院", "2023-05-12", "DATE_TIME"),
        ("2023年5月12日入院", "2023年5月12日", "DATE_TIME"),
        ("seen on May 30th, 2022", "May 30th, 2022", "DATE_TIME"),
        ("地址192.168.10.25登录", "192.168.10.25", "IP_ADDRESS"),
        ("Lives at 12 Maple Street, Dover.", "12 Maple Street, Dover", "ADDRESS"),
        ("家住广东省深圳市南山区科技路12号。", "广东省深圳市南山区科技路12号", "ADDRESS"),
        ("患者王小明，男", "王小明", "PERSON"),
        ("患者Zbigniew Kowalczyk，头痛", "Zbigniew Kowalczyk", "PERSON"),
        ("seen by Dr. Iyer", "Dr. Iyer", "PERSON"),
        ("Mr O'Neill came", "Mr O'Neill", "PERSON"),
        ("a 93-year-old man", "93", "AGE"),
        ("pat\u200bient MRN 99\u200b8877", "99\u200b8877", "RECORD_NUMBER"),
    ],
)
def test_an_identifier_is_found_whole(text, value, kind):
    hits = found(text)
    if value is None:
        assert hits == set()
    else:
        assert value in {surface for surface, _ in hits}
        assert kind is None or (value, kind) in hits


@pytest.mark.parametrize(
    "text",
    [
        "A 45-year-old takes 20 mg lisinopril twice a day for 3 weeks since 2019.",
        "Bell's palsy, Crohn disease, and a Glasgow Coma Scale of 14",
        "blood pressure 120/80, pulse 88, HbA1c 7.2 %, WBC 12000/uL",
        "患者高血压10年，患者黄疸3天，血压120/80，阿司匹林100mg每日一次",
        "I paid $1200000 and my rate is 3.75 %",
    ],
)
def test_the_clinical_profile_keeps_medicine_ages_doses_durations_and_years(text):
    assert found(text) == set()


def test_the_strict_profile_keeps_neither_years_nor_ages():
    kinds = {kind for _, kind in found("A 45-year-old man, ill since 2019", "strict")}
    assert kinds == {"AGE", "DATE_TIME"}


@pytest.mark.parametrize("digit", "0123456789")
def test_a_failed_checksum_lowers_no_number_to_nothing(digit):
    number = f"400024790615830{digit}"
    assert (number, "CREDIT_CARD") in found(f"card {number}")


def test_flags_are_those_that_see_a_number_next_to_a_chinese_character():
    assert patterns.FLAGS == 154


def test_a_pattern_that_takes_too_long_raises_instead_of_finding_nothing(monkeypatch):
    monkeypatch.setattr(search, "CPU_S", 0.01)
    slow = patterns.Pattern("PERSON", "slow", r"(?:a+)+(?:a+)+(?:a+)+b(?<!ab)", 0.5, needs="")
    with pytest.raises(TimeoutError):
        recognizers.Numbers("PERSON", [slow]).analyze("a" * 5_000, ["PERSON"])


def test_a_search_that_was_only_kept_waiting_gets_a_second_chance(monkeypatch):
    # Time on the wall runs out at once, time of the processor does not.
    limits = []

    class Slow:
        def finditer(self, text, timeout):
            limits.append(timeout)
            if len(limits) == 1:
                raise TimeoutError
            return iter(["found"])

    assert search.matches(Slow(), "text") == ["found"]
    assert limits == [search.CPU_S, search.WALL_S]


def test_a_search_that_is_slow_twice_raises():
    class Stuck:
        def finditer(self, text, timeout):
            raise TimeoutError

    with pytest.raises(TimeoutError):
        search.matches(Stuck(), "text")


def test_pattern_names_are_unique_and_scores_are_inside_their_bounds():
    names = [row.name for row in patterns.PATTERNS]
    assert len(set(names)) == len(names)
    assert all(0 < row.score < 1 for row in patterns.PATTERNS)


def test_overlapping_hits_become_their_union_with_the_surest_type():
    hits = [Hit(0, 5, "PERSON", 0.5), Hit(3, 9, "PHONE_NUMBER", 0.9), Hit(9, 11, "AGE", 0.5)]
    spans = resolve(hits)
    assert [(s.start, s.end, s.type) for s in spans] == [(0, 9, "PHONE_NUMBER"), (9, 11, "AGE")]


def test_a_drug_is_medicine_and_a_surname_is_not():
    assert medical.is_medical("Lisinopril")
    assert medical.is_medical("Bell", "'s palsy")
    assert not medical.is_medical("Bellingham")
    assert medical.is_medical_zh("高血压")
    assert not medical.is_medical_zh("高建国")


def test_a_single_word_is_mentioned_only_as_it_is_written():
    text = "Salter said salter and SALTER, not Salters"
    assert list(naming.mentions(text, naming.fold(text), "Salter")) == [0, 23]


def test_the_copy_leads_back_to_the_original():
    text = "Ｍ\u00adＲＮ：１２３ e\u0301 ①"
    copy = normalise(text)
    assert copy.text == "MRN:123 é 1"
    at = copy.text.index("123")
    assert text[slice(*copy.source(at, at + 3))] == "１２３"
    assert copy.text.isascii() is False


@pytest.mark.parametrize(
    ("text", "share"), [("abc", 1.0), ("王小明", 1.0), ("é", 1.0), ("Привет", 0.0), ("12", 1.0)]
)
def test_the_share_of_scripts_that_can_be_read(text, share):
    assert known_script_share(text) == share
