"""What a column is, by its name: in English and Chinese, as files of hospitals and banks have it.

A wrong guess towards an identifier costs a value; one in the other direction costs nothing, because
whatever is not recognised here is read as text. So only names that leave no doubt are listed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

from client.forms import TEXT

KEEP: Final = "keep"
"""Role of a value that says little about anybody by itself, such as a code of a classification."""
MAX_TYPED: Final = 200
"""A longer value is no name, number or address, whatever its column is called: it is text."""

_WHO: Final = (
    "patient|customer|client|member|holder|cardholder|account_holder|doctor|physician|provider|"
    "nurse|surgeon|attending|referring|ordering|practitioner|mother|father|parent|guardian|"
    "relative|kin|next_of_kin|nok|contact|emergency_contact|spouse|wife|husband|partner|child|son|"
    "daughter|sender|recipient|payee|payer|beneficiary|insured|subscriber|applicant|guarantor|"
    "employee|staff|teller|author|user|person|maiden|mothers_maiden|alias|display|legal|preferred"
)
_NUMBERED: Final = (
    "patient|person|unit|customer|client|member|account|acct|policy|claim|encounter|visit|case|"
    "record|medical_record|employee|staff|user|device|serial|license|licence|invoice|order|"
    "accession|admission|hospital|chart|contract|loan|transaction|reference|subscriber|group|"
    "certificate|ticket"
)
_RULES: Final = tuple(
    (role, re.compile(rule))
    for role, rule in (
        ("EMAIL_ADDRESS", r"(\w+_)?e_?mail(_address)?|(电子)?邮[箱件](地址)?"),
        ("PHONE_NUMBER", r"(\w+_)?(phone|telephone|tel|mobile|cell|cellphone|fax|pager)"
                         r"(_(no|number|num|home|work|\d))?|(\w*)(电话|手机号?|联系方式|传真)(号码?)?"),
        ("URL", r"(\w+_)?(url|website|homepage|web_page|photo_url)"),
        ("IP_ADDRESS", r"(\w+_)?ip(_addr(ess)?)?"),
        ("IBAN_CODE", r"(\w+_)?iban"),
        ("CREDIT_CARD", r"(\w+_)?(card|pan)(_(no|number|num))|pan|(credit|debit|bank)_card|"
                        r"银行卡号?|卡号|信用卡号?"),
        ("NATIONAL_ID", r"(\w+_)?(ssn|social_security(_(no|number|num))?|national_id"
                        r"(_(no|number))?|passport(_(no|number|num))?|nhs(_(no|number))?|tax_id|tin|"
                        r"drivers?_licen[sc]e(_(no|number))?|id_card(_(no|number))?)|"
                        r"身份证(号码?)?|证件号码?|护照号?码?|社保号码?|军官证号?"),
        ("DATE_TIME", r"dob|(\w+_)?birth_?(date|day)?|(\w+_)?date(time)?|date_(of_)?\w+|timestamp|"
                      r"(\w+_)(timestamp|at|on)|(admitted|discharged)|生日|\w*(日期|时间)"),
        ("AGE", r"(\w+_)?age(_years)?|年龄"),
        ("ADDRESS", r"(\w+_)?(address|addr|street)(_?(line_?)?\d)?|(\w+_)?(zip|post)_?(code)?|"
                    r"zip\d?|postal_code|\w*(住址|地址|邮编|邮政编码)"),
        ("LOCATION", r"(\w+_)?(city|town|village|county|municipality|birth_?place|place_of_birth)|"
                     r"籍贯|出生地|城市"),
        ("ORGANIZATION", r"(\w+_)?(employer|hospital|clinic|school|facility|institution|company|"
                         r"organi[sz]ation|branch)(_name)?|(工作)?单位(名称)?|医院(名称)?|公司(名称)?|支行"),
        ("RECORD_NUMBER", rf"id|mrn|uid|uuid|guid|({_NUMBERED})_?(id|no|number|num|key|identifier)|"
                          r"(account|acct|username|login|user_name|plate|vin|npi|dea|swift|bic)|"
                          r"unit_id|licen[sc]e_plate|\w*(病历|住院|门诊|就诊|保单|账|合同|客户|患者|"
                          r"医保|工|学|床位?|登记)(号码?|编号)|编号|车牌号?|账户"),
        ("PERSON", rf"name|names|surname|forename|({_WHO})(_(full|first|last|given|family))?_names?"
                   r"|(first|last|middle|given|family|full|maiden|nick)_?names?|relatives?|nok|"
                   r"next_of_kin|emergency_contact|(patient|customer|doctor|physician|nurse|"
                   r"guardian|spouse|mother|father|attending|surgeon)|"
                   r"\w*(姓名|名字)|患者|病人|医生|医师|护士|联系人|家属|配偶|父亲|母亲|监护人|持卡人|户主|经办人"),
        (KEEP, r"sex|gender|性别|state|province|country|省份?|国家|race|ethnicity|currency|"
               r"language|status|category|label|institution|units?|icd(_?\d+)?(_code)?|loinc|snomed|cpt|atc|"
               r"ndc|department|科室|priority|type"),
    )
)  # fmt: skip
_KEPT_VALUE: Final = re.compile(r"[^\d@]{0,40}|[A-Za-z]{0,3}\d{0,5}([.\-]\w{1,4}){0,2}")
# A column's name under which the scrubber knows what a value is.
SAID: Final = {
    "PERSON": "name", "RECORD_NUMBER": "record", "NATIONAL_ID": "national",
    "CREDIT_CARD": "card number", "IBAN_CODE": "iban", "PHONE_NUMBER": "phone",
    "EMAIL_ADDRESS": "email", "ADDRESS": "address", "DATE_TIME": "birth date",
}  # fmt: skip
_SITE: Final = {
    "names": "PERSON", "ids": "RECORD_NUMBER", "national_ids": "NATIONAL_ID",
    "phones": "PHONE_NUMBER", "emails": "EMAIL_ADDRESS", "addresses": "ADDRESS",
    "dates": "DATE_TIME", "plain": KEEP,
}  # fmt: skip
_PART: Final = re.compile(
    r"(?P<who>\w+?)??_?(?P<which>first|given|fore|middle|last|family|sur)_?names?"
    r"|(?P<bare>first|given|middle|last|family)"
)
_ISO: Final = re.compile(
    r"(?:19|20)\d\d-\d\d-\d\d(?:[T ]\d\d:\d\d[\d:.]{0,12}(?:Z|[+-]\d\d:?\d\d)?)?"
)
_YEAR: Final = re.compile(r"(?:19|20)\d\d")
_CAMEL: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_OTHER: Final = re.compile(r"[^\w]+|_+")
_OWNERS: Final = (
    "unit_id", "person", "person_id", "patient_id", "customer_id", "client_id", "member_id", "mrn",
    "medical_record_number", "account_number", "account_no", "subject_id",
    "患者编号", "病历号", "住院号", "客户号", "客户编号",
)  # fmt: skip


def plain(name: str) -> str:
    """A column's name in lower case with single underscores: "Patient Name" is patient_name."""
    return _OTHER.sub("_", _CAMEL.sub("_", name.strip())).strip("_").casefold()


def role(name: str, said: Mapping[str, str] | None = None) -> str:
    """What the values of a column are: a type of identifier, `KEEP`, or `TEXT`.

    Args:
        name: as the file has it.
        said: roles by column, as the institution states them; they go first.
    """
    if said is not None and name in said:
        return said[name]
    bare = plain(name)
    return next((found for found, rule in _RULES if rule.fullmatch(bare)), TEXT)


def part(name: str, above: str = "") -> tuple[str, str] | None:
    """Which part of whose name a column holds: ("given", "patient") for patient_first_name.

    Args:
        name: of the column or key.
        above: the key around it, if there is one; below "name", "first" is a part too.
    """
    match = _PART.fullmatch(plain(name))
    if match is None:
        return None
    if match["bare"] and role(above) != "PERSON":
        return None
    given = (match["which"] or match["bare"]) in {"first", "given", "fore", "middle"}
    return ("given" if given else "family"), match["who"] or ""


def cell_role(role: str, value: str) -> str:
    """The role of one value, given its column's: text where it can't be what the column says."""
    if role == TEXT and _ISO.fullmatch(value.strip()):
        return "DATE_TIME"
    if role == KEEP:
        return KEEP if _KEPT_VALUE.fullmatch(value) else TEXT
    if role != TEXT and (len(value) > MAX_TYPED or "\n" in value.strip()):
        return TEXT
    return role


def owner(names: Iterable[str]) -> str | None:
    """The column that says whose record a row is, if one of the usual names is there."""
    bare = {plain(name): name for name in reversed(list(names))}
    return next((bare[name] for name in _OWNERS if name in bare), None)


def stated(tables: Mapping[str, Iterable[str]]) -> dict[str, str]:
    """Roles by column, from the lists of columns in an institution's settings."""
    return {name: _SITE[kind] for kind, names in tables.items() if kind in _SITE for name in names}


def known(values: Iterable[tuple[str, str]], said: Mapping[str, str]) -> dict[str, str]:
    """What a record's columns say about people, under names that tell the scrubber what it is.

    Args:
        values: column and value.
        said: roles by column, as the institution states them.
    """
    found: dict[str, str] = {}
    for number, (name, value) in enumerate(values):
        role_here = cell_role(role(name, said), value)
        if role_here in SAID and not _YEAR.fullmatch(value.strip()):
            found[f"{SAID[role_here]} {number}"] = value.strip()
    return found
