"""Identifiers that are hard to see: other characters, misreadings, data in text, pet names.

Each case is a sentence with one value, written in one of many ways. "Numbers" are what states,
banks and hospitals give and how people are reached; "names" is everything else.
"""

from __future__ import annotations

import json
import random
import unicodedata
from collections.abc import Callable

from bench.deid_chinese import GIVEN, SURNAMES, card, resident
from bench.deid_measure import Item

_CYRILLIC = str.maketrans("aceopxyABCEHKMOPT", "асеорхуАВСЕНКМОРТ")
_FIRST = (
    "Maria",
    "James",
    "Elena",
    "Robert",
    "Priya",
    "Thomas",
    "Aisha",
    "Carlos",
    "Hannah",
    "Dmitri",
)
_LAST = (
    "Okonkwo",
    "Halvorsen",
    "Delacroix",
    "Ramirez",
    "Kowalski",
    "Nakamura",
    "O'Sullivan",
    "Whitfield",
    "Castellanos",
    "Petrov",
)
_PET = ("Bobby", "Lizzie", "Jimmy", "Maggie", "Tommy", "Katie", "Billy", "Annie")


def cases(count: int, *, seed: int) -> list[tuple[str, Item]]:
    """`count` cases of each kind: (group, item), the group "numbers" or "names"."""
    draw = random.Random(f"cases/{seed}")
    made = []
    for _ in range(count):
        for number in (_phone, _mobile, _resident, _card, _email, _iban, _ssn, _record):
            label, value = number(draw)
            for write in _WRITTEN:
                made.append(("numbers", _place(draw, label, write(draw, value))))
        for write in _NAMED:
            made.append(("names", write(draw)))
        for write in _DATA:
            made += write(draw)
    return made


def _place(draw: random.Random, label: str, value: str) -> Item:
    frame = draw.choice(_FRAMES[label])
    before, after = frame.split("#")
    return Item(before + value + after, ((len(before), len(before) + len(value), label),))


_FRAMES = {
    "phone": ("Please call # before noon.", "Her phone is #.", "Contact: #, ask for billing."),
    "mobile": ("联系电话#。", "请拨打#联系家属", "手机号：#，谢谢", "电话是#吗"),
    "resident": ("身份证号#。", "身份证：#，男", "证件号码为#请核对"),
    "card": ("卡号#已冻结", "银行卡号：#。", "Card number # was declined.", "尾款打到#这张卡"),
    "email": ("Write to # please.", "邮箱：#。", "My email is #, thanks."),
    "iban": ("Transfer it to # today.", "IBAN: #.", "收款账户#"),
    "ssn": ("SSN: #.", "Her social security number is #."),
    "record": ("MRN: # on file.", "住院号#，三病区", "病历号：#。", "Patient ID # was updated."),
}


def _digits(draw: random.Random, count: int) -> str:
    return "".join(str(draw.randrange(10)) for _ in range(count))


def _phone(draw: random.Random) -> tuple[str, str]:
    return "phone", f"{draw.randrange(212, 980)}-555-{_digits(draw, 4)}"


def _mobile(draw: random.Random) -> tuple[str, str]:
    return "mobile", draw.choice(("138", "150", "187", "199")) + _digits(draw, 8)


def _resident(draw: random.Random) -> tuple[str, str]:
    return "resident", resident(draw, valid=draw.random() < 0.7)


def _card(draw: random.Random) -> tuple[str, str]:
    size = draw.choice((16, 17, 18, 19))
    return "card", card(draw, digits=size, valid=draw.random() < 0.7)


def _email(draw: random.Random) -> tuple[str, str]:
    return (
        "email",
        f"{draw.choice(_FIRST).lower()}.{draw.choice(('lee', 'kim'))}{_digits(draw, 2)}@example.com",
    )


def _iban(draw: random.Random) -> tuple[str, str]:
    return "iban", f"GB{_digits(draw, 2)}WEST{_digits(draw, 14)}"


def _ssn(draw: random.Random) -> tuple[str, str]:
    return "ssn", f"{draw.randrange(100, 660)}-{_digits(draw, 2)}-{_digits(draw, 4)}"


def _record(draw: random.Random) -> tuple[str, str]:
    return "record", draw.choice(("", "MR", "ZY")) + _digits(draw, 8)


def _wide(draw: random.Random, value: str) -> str:
    return "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in value)


def _hidden(draw: random.Random, value: str) -> str:
    mark = draw.choice("\u200b\u200c\u200d\u2060\ufeff\u00ad\u200e")
    at = draw.randrange(1, len(value))
    return value[:at] + mark + value[at:]


def _spelled(draw: random.Random, value: str) -> str:
    """Digits of another script, or in mathematical letters."""
    zero = draw.choice((0x0660, 0x06F0, 0x1D7CE, 0x1D7F6, 0xFF10, 0x0966))
    return "".join(chr(zero + int(c)) if c.isdigit() else c for c in value)


def _spaced(draw: random.Random, value: str) -> str:
    if "@" in value:
        return value.replace("@", draw.choice((" @ ", " (at) ", "[at]"))).replace(
            ".com", draw.choice((" (dot) com", ".com", "[dot]com"))
        )
    size = draw.choice((3, 4))
    plain = value.replace("-", "")
    return draw.choice((" ", "-", " ")).join(
        plain[i : i + size] for i in range(0, len(plain), size)
    )


def _broken(draw: random.Random, value: str) -> str:
    """Broken over two lines, as in a narrow column."""
    if "@" in value:
        return value
    at = draw.randrange(3, len(value) - 2)
    return value[:at] + "\n" + value[at:]


def _misread(draw: random.Random, value: str) -> str:
    """One or two digits as a scanner may read them."""
    if "@" in value:
        return value
    swap = {"0": "O", "1": "l"}
    at = [i for i, c in enumerate(value) if c in swap and i > 0]
    for i in draw.sample(at, min(2, len(at))):
        value = value[:i] + swap[value[i]] + value[i + 1 :]
    return value


def _as_is(draw: random.Random, value: str) -> str:
    return value


_WRITTEN: tuple[Callable[[random.Random, str], str], ...] = (
    _as_is, _wide, _hidden, _spelled, _spaced, _broken, _misread,
)  # fmt: skip


def _name(draw: random.Random) -> str:
    return f"{draw.choice(_FIRST)} {draw.choice(_LAST)}"


def _zh_name(draw: random.Random) -> str:
    return draw.choice(SURNAMES) + "".join(draw.choice(GIVEN) for _ in range(draw.choice((1, 2))))


def _framed(draw: random.Random, frames: tuple[str, ...], value: str, label: str) -> Item:
    before, after = draw.choice(frames).split("#")
    return Item(before + value + after, ((len(before), len(before) + len(value), label),))


_EN = (
    "Seen today: #, stable.",
    "Spoke with # about the bill.",
    "Patient # reports dizziness.",
    "note for # re refill",
)
_ZH = ("患者#今日出院。", "客户#来电咨询。", "今天#来复诊了", "请通知#本人")


def _homoglyph(draw: random.Random) -> Item:
    name = _name(draw)
    at = draw.randrange(len(name) - 1)
    return _framed(draw, _EN, name[:at] + name[at:].translate(_CYRILLIC), "name")


def _upper(draw: random.Random) -> Item:
    return _framed(draw, _EN, _name(draw).upper(), "name")


def _lower(draw: random.Random) -> Item:
    return _framed(draw, _EN, _name(draw).lower(), "name")


def _accents(draw: random.Random) -> Item:
    name = draw.choice(("José Núñez", "Zoë Brontë", "Jürgen Müller", "Siân Llewelyn"))
    return _framed(draw, _EN, unicodedata.normalize("NFD", name), "name")


def _split_name(draw: random.Random) -> Item:
    name = _name(draw)
    return _framed(draw, _EN, name[:3] + draw.choice("\u200b\u00ad\u2060") + name[3:], "name")


def _pet_name(draw: random.Random) -> Item:
    frames = (
        "# came in with his mom.",
        "Grandma # called again.",
        "saw # today, doing well",
        "Tell # to rest.",
    )
    return _framed(draw, frames, draw.choice(_PET), "name")


def _zh_pet_name(draw: random.Random) -> Item:
    family = draw.choice("王李张刘陈杨赵黄周吴")
    value, frames = draw.choice((
        (f"老{family}", ("#说昨晚没睡好。", "今天#又来了")),
        (f"小{family}", ("#，帮我查一下", "让#来取药")),
        (f"{family}阿姨", ("#今天血压偏高", "隔壁床#说头晕")),
        (f"{family}总", ("#要求提高额度", "请联系#确认")),
    ))  # fmt: skip
    item = _framed(draw, frames, value, "name")
    start, _, label = item.gold[0]
    # The form of address may stay; the name may not.
    at = item.text.index(family, start)
    return Item(item.text, ((at, at + 1, label),))


def _zh_spaced(draw: random.Random) -> Item:
    return _framed(draw, ("姓名：#，女", "患者姓名：#\n"), " ".join(_zh_name(draw)), "name")


def _zh_hidden(draw: random.Random) -> Item:
    name = _zh_name(draw)
    return _framed(draw, _ZH, name[0] + "\u200b" + name[1:], "name")


def _mixed(draw: random.Random) -> Item:
    return _framed(draw, ("患者#今日入院", "客户#要求退款", "请联系#（家属）"), _name(draw), "name")


def _mixed_back(draw: random.Random) -> Item:
    return _framed(
        draw, ("Patient # was admitted.", "Attending: #, cardiology."), _zh_name(draw), "name"
    )


_NAMED = (
    _homoglyph, _upper, _lower, _accents, _split_name, _pet_name, _zh_pet_name, _zh_spaced,
    _zh_hidden, _mixed, _mixed_back,
)  # fmt: skip


def _json(draw: random.Random) -> list[tuple[str, Item]]:
    row = {"patient_name": _name(draw), "mrn": _record(draw)[1], "phone": _phone(draw)[1],
           "diagnosis": "hypertension"}  # fmt: skip
    return _find_all(json.dumps(row), row, skip={"diagnosis"})


def _json_zh(draw: random.Random) -> list[tuple[str, Item]]:
    row = {
        "姓名": _zh_name(draw),
        "手机": _mobile(draw)[1],
        "身份证": _resident(draw)[1],
        "诊断": "高血压",
    }
    return _find_all(json.dumps(row, ensure_ascii=False), row, skip={"诊断"})


def _hl7(draw: random.Random) -> list[tuple[str, Item]]:
    row = {"name": draw.choice(_LAST).upper().replace("'", ""), "first": draw.choice(_FIRST).upper(),
           "mrn": _digits(draw, 8), "phone": _phone(draw)[1], "birth": f"19{_digits(draw, 2)}0412"}  # fmt: skip
    text = (
        f"MSH|^~\\&|ADT|HOSP|LAB|HOSP|20240102||ADT^A01|1|P|2.5\nPID|1||{row['mrn']}^^^H^MR||"
        f"{row['name']}^{row['first']}^^^||{row['birth']}|F|||12 ELM ST^^DAYTON^OH^45402||{row['phone']}"
    )
    return _find_all(text, row, skip=set())


def _xml(draw: random.Random) -> list[tuple[str, Item]]:
    row = {"PatientName": _name(draw), "AccountNumber": _digits(draw, 9), "Drug": "Metformin"}
    text = "<r>" + "".join(f"<{k}>{v}</{k}>" for k, v in row.items()) + "</r>"
    return _find_all(text, row, skip={"Drug"})


def _query(draw: random.Random) -> list[tuple[str, Item]]:
    row = {"user": draw.choice(_FIRST).lower() + _digits(draw, 3), "phone": _mobile(draw)[1]}
    return _find_all(
        f"https://portal.example.com/q?user={row['user']}&phone={row['phone']}", row, skip=set()
    )


def _path(draw: random.Random) -> list[tuple[str, Item]]:
    value = f"{draw.choice(_FIRST)}_{draw.choice(_LAST)}".lower().replace("'", "")
    text = f"see /scans/2023/{value}_chest.dcm for details"
    at = text.index(value)
    return [("names", Item(text, ((at, at + len(value), "path"),)))]


_DATA = (_json, _json_zh, _hl7, _xml, _query, _path)
_NUMBER_KEYS = {"mrn", "phone", "手机", "身份证", "AccountNumber"}


def _find_all(text: str, row: dict[str, str], skip: set[str]) -> list[tuple[str, Item]]:
    made = []
    for key, value in row.items():
        if key in skip:
            continue
        at = text.index(value)
        group = "numbers" if key in _NUMBER_KEYS else "names"
        made.append((group, Item(text, ((at, at + len(value), f"data {key}"),))))
    return made
