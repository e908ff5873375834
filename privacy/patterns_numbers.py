"""Patterns of contacts and of the numbers that states, banks and hospitals give."""

from __future__ import annotations

from typing import Final

from privacy.checksums import chinese_id, credit_code, hong_kong_id, iban, luhn, taiwan_id
from privacy.patterns_row import Pattern

_LABEL: Final = (
    r"(?:m\.?r\.?n\.?|medical record|health record|patient (?:id|identifier|number|no)|chart|"
    r"record|"
    r"account|acct|a/c|policy|member(?:ship)?|customer|client|claim|case|file|reference|ref(?:\.? code)?|"
    r"confirmation|ticket|order|invoice|passport|licen[cs]e|driver'?s licen[cs]e|beneficiary|"
    r"insurance|health plan|plan|subscriber|group|nhs|dea|npi|ssn|social security|tax id|tin|"
    r"certificate|device|serial|vin|plate|registration|employee|student|encounter|visit|accession|"
    r"specimen|prescription|rx|user|routing|sort code|swift|bic|pin|id|identifier)"
)
_ZH_LABEL: Final = (
    "(?:病历号?|病案号?|住院号?|门诊号?|就诊卡号?|就诊号|登记号|检查号|标本号|处方号|床号|档案号?|客户号|客户编号|"
    "会员号|保单号?|账号|帐号|账户|卡号|工号|学号|护照号?码?|驾驶证号?|医保卡?号?|社保卡?号?|身份证号?码?|证件号?码?|"
    "军官证号?|订单号|流水号|合同号|编号|单号|车牌号?|微信号?|QQ号?|qq|vx|ID)"
)  # fmt: skip
# What may stand between the digits of one number: a break of the line, a space, a dash.
_GAP: Final = r"[\s\-.·_]{0,2}"
_UNIT: Final = r"(?!\s?(?:/|%|mg|mcg|ml|iu|units?|cells|copies|元|万|美元|单位|次|步))"

NUMBERS: Final[tuple[Pattern, ...]] = (
    # Contacts.
    Pattern(
        "EMAIL_ADDRESS", "email",
        r"(?<![\w.+-])[\w.!#$%&'*+/=?^`{|}~-]{1,64}\s?@\s?"
        r"(?:[\w-]{1,63}\s?\.\s?){1,5}[a-z]{2,24}(?!\w)",
        0.9, needs="",
    ),
    Pattern(
        "EMAIL_ADDRESS", "email-spelled",
        r"(?<!\w)[\w.+-]{1,64}\s?[\[({]?\s?(?:at|@)\s?[\])}]?\s?(?:[\w-]{1,63}\s?[\[({]?\s?"
        r"(?:dot|\.)\s?[\])}]?\s?){1,4}(?:com|org|net|edu|gov|cn|uk|de|info|io)(?!\w)",
        0.85, needs="",
    ),
    Pattern(
        "EMAIL_ADDRESS", "email-spelled-zh",
        r"(?<![a-z\d])[\w.+-]{1,64}\s?(?:@|艾特|\(at\)|\[at\]|\(a\)|#)\s?[\w-]{1,63}\s?(?:\.|点|"
        r"\(dot\)|\[dot\])\s?(?:com|cn|net|org|edu)(?:\s?(?:\.|点)\s?cn)?(?![a-z\d])",
        0.85, needs="",
    ),
    Pattern(
        "RECORD_NUMBER", "handle-clue",
        r"(?:微信|wechat|weixin|vx|qq|line id|telegram|whatsapp|账号名?|用户名|登录名)(?:号|id)?[\s::是为]{0,3}"
        r"(?P<v>[a-z\d][\w\-.]{4,24}[a-z\d])",
        0.75, needs="",
    ),
    Pattern(
        "URL", "url",
        r"(?:https?://|www\.)[^\s<>\"'。、,;)\u4e00-\u9fff]{3,200}",
        0.85, needs="",
    ),
    Pattern(
        "IP_ADDRESS", "ipv4",
        r"(?<![\d.])(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(?:25[0-5]|2[0-4]\d|1?\d?\d)"
        r"(?![\d.]*\d)",
        0.8,
    ),
    Pattern(
        "IP_ADDRESS", "ipv6",
        r"(?<![\w:])(?:[\da-f]{1,4}:){3,7}(?::?[\da-f]{1,4}){1,4}(?![\w:])",
        0.7,
    ),
    Pattern("IP_ADDRESS", "mac", r"(?<![\w:-])(?:[\da-f]{2}[:-]){5}[\da-f]{2}(?![\w:-])", 0.8),
    Pattern(
        "PHONE_NUMBER", "phone-cn",
        r"(?<!\d)(?:\+?(?:00)?86" + _GAP + r")?1" + _GAP + r"[3-9](?:" + _GAP + r"\d){9}(?!\d)",
        0.75,
    ),
    Pattern(
        "PHONE_NUMBER", "phone-cn-land",
        r"(?<!\d)\(?0[1-9]\d{1,2}\)?[ -]?[2-9]\d{2,3}[ -]?\d{4}(?:[-转 ]{1,2}\d{1,5})?(?!\d)",
        0.6,
    ),
    Pattern(
        "PHONE_NUMBER", "phone-cn-service",
        r"(?<!\d)[48]00[ -]?\d{3,4}[ -]?\d{3,4}(?:[-转]\d{1,5})?(?!\d)",
        0.6,
    ),
    Pattern(
        "PHONE_NUMBER", "phone-hk",
        r"(?<!\d)(?:\+?(?:00)?85[23][ -]?)[2-9]\d{3}[ -]?\d{4}(?!\d)|"
        r"(?<!\d)(?:\+?886[ -]?|0)9\d{2}[ -]?\d{3}[ -]?\d{3}(?!\d)",
        0.7,
    ),
    Pattern(
        "PHONE_NUMBER", "phone-words-zh", r"[〇零○一二三四五六七八九幺][〇零○一二三四五六七八九幺\s]{6,}", 0.6,
        needs="han",
    ),
    Pattern(
        "PHONE_NUMBER", "phone-us",
        r"(?<![\w.-])(?:\+?1[ .-]?)?(?:\(\d{3}\)\s?|\d{3}[ .-])\d{3}[ .-]\d{4}(?:\s?(?:x|"
        r"ext\.?|extension)\s?\d{1,6})?(?![\w-])",
        0.75,
    ),
    Pattern("PHONE_NUMBER", "phone-short", r"(?<![\w.-])\d{3}-\d{4}(?![\w-])", 0.5),
    Pattern(
        "PHONE_NUMBER", "phone-world",
        r"(?<!\w)(?:\+|00)[1-9](?:[ ().\-/]{0,2}\d){6,14}(?:\s?(?:x|ext\.?)\s?\d{1,6})?(?!\d)",
        0.7,
    ),
    Pattern(
        "PHONE_NUMBER", "phone-clue",
        r"(?:phone|tel|telephone|mobile|cell|fax|call(?: back)?(?: on| at)?|reach(?:ed)? "
        r"(?:me |him |her |them )?(?:on|at)|电话|手机号?码?|座机|传真|致电)[\s:.#]{0,3}"
        r"(?:is |number |no\.? |at |为|是)?(?P<v>\+?\(?\d(?:[ ().\-/]{0,2}\d){5,14}(?:\s?"
        r"(?:x|ext\.?)\s?\d{1,6})?)(?!\d)",
        0.8,
    ),
    # Numbers that states and banks give.
    Pattern("NATIONAL_ID", "ssn", r"(?<![\d-])\d{3}[- ]\d{2}[- ]\d{4}(?![\d-])", 0.85),
    Pattern(
        "NATIONAL_ID", "ssn-clue",
        r"(?:ssn|social security(?: number)?|social)[\s:#]{0,3}(?:is |no\.? )?"
        r"(?P<v>\d[\d -]{6,12}\d)",
        0.9,
    ),
    Pattern(
        "NATIONAL_ID", "cn-id",
        r"(?<!\d)[1-9](?:" + _GAP + r"\d){5}" + _GAP + r"(?:1" + _GAP + r"[89]|2" + _GAP +
        r"0)(?:" + _GAP + r"\d){2}" + _GAP + r"(?:0" + _GAP + r"[1-9]|1" + _GAP + r"[0-2])" +
        _GAP + r"(?:0" + _GAP + r"[1-9]|[12]" + _GAP + r"\d|3" + _GAP + r"[01])(?:" + _GAP +
        r"\d){3}" + _GAP + r"[\dx](?![\da-z])",
        0.85, chinese_id,
    ),
    Pattern(
        "NATIONAL_ID", "cn-id-old",
        r"(?<!\d)[1-9]\d{5}\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])\d{3}(?!\d)",
        0.6,
    ),
    Pattern(
        "NATIONAL_ID", "hk-id",
        r"(?<![a-z\d])(?-i:[A-Z]{1,2})\d{6} ?(?:\([\dA]\)|(?<=[A-Z]\d{6})[\dA](?=\s|[,.;)]|$|[^\x00-\x7f]))",
        0.7, hong_kong_id,
    ),
    Pattern(
        "NATIONAL_ID", "tw-id", r"(?<![a-z\d])(?-i:[A-Z])[1289]\d{8}(?![a-z\d])", 0.6, taiwan_id,
    ),
    Pattern("NATIONAL_ID", "macau-id", r"(?<![\d/])[157]\d{6} ?\(\d\)", 0.6),
    Pattern(
        "NATIONAL_ID", "cn-travel",
        r"(?<![a-z\d])(?:[hm]\d{8}(?:\d\d)?|[egdsp][a-z]?\d{7,8})(?![a-z\d])",
        0.6,
    ),
    Pattern(
        "NATIONAL_ID", "cn-officer", r"[军武海空]\s?(?:官|士)?[字政参后装]?第?\s?\d{6,8}\s?号?", 0.7,
        needs="han",
    ),
    Pattern(
        "NATIONAL_ID", "credit-code",
        r"(?<![a-z\d])[\da-hj-npqrtuwxy]{2}\d{6}[\da-hj-npqrtuwxy]{10}(?![a-z\d])",
        0.6, credit_code,
    ),
    Pattern(
        "NATIONAL_ID", "uk-nino",
        r"(?-i:(?<!\w)[A-CEGHJ-PR-TW-Z]{2} ?\d{2} ?\d{2} ?\d{2} ?[A-D](?!\w))",
        0.8,
    ),
    Pattern(
        "CREDIT_CARD", "card",
        r"(?<![\w.])\d(?:" + _GAP + r"\d){12,18}(?!\d)", 0.55, luhn,
    ),
    Pattern(
        "IBAN_CODE", "iban",
        r"(?<![a-z\d])(?:(?-i:[A-Z]{2})\d{2}(?: ?(?-i:[A-Z\d]{4})){2,7}(?: ?"
        r"(?-i:[A-Z\d]{1,3}))?|[a-z]{2}\d{2}[a-z\d]{11,30})(?![a-z\d])",
        0.8, iban,
    ),
    Pattern(
        "IBAN_CODE", "iban-broken",
        r"(?<![a-z\d])(?=(?:[\s\-]{0,2}(?:[a-z][\s\-]{0,2}){0,6}[\doil]){10})(?-i:[A-Z]{2})"
        r"(?:[\s\-]{0,2}[\doil]){2}(?:[\s\-]{0,2}(?-i:[A-Z\dl])){9,30}(?![a-z\d])",
        0.6, iban,
    ),
    # Numbers that institutions give.
    Pattern(
        "RECORD_NUMBER", "record-clue",
        r"(?<![a-z])" + _LABEL +
        r"(?:\s?(?:number|num|no\.?|id|code|nr|card))?[\s:#=\-]{0,4}(?:is |was |of )?(?P<v>"
        r"(?=[a-z\d\-/]{0,24}\d)(?!\d{1,2}(?![\w-]))(?!(?:19|20)\d\d"
        r"(?![\w-]))[a-z\d][a-z\d\-/]{2,24})(?!\w)",
        0.8,
    ),
    Pattern(
        "RECORD_NUMBER", "record-clue-zh",
        _ZH_LABEL +
        r"[\s:#为是]{0,3}(?P<v>(?=[a-z\d_\-]{0,24}\d)[a-z\d][a-z\d_\-]{2,24})(?![a-z\d])",
        0.8,
    ),
    Pattern(
        "RECORD_NUMBER", "clue-spaced",
        r"(?<![a-z])" + _LABEL + r"(?:\s?(?:number|num|no\.?|id|code|nr|card))?[\s:#=\-]{0,4}(?:is |was |of )?"
        r"(?P<v>[a-z]{0,4}\d(?:[\s\-]{0,2}\d){5,20})(?![\w%])",
        0.7,
    ),
    Pattern(
        "RECORD_NUMBER", "clue-spaced-zh",
        _ZH_LABEL + r"[\s:#为是]{0,3}(?P<v>[a-z]{0,4}\d(?:[\s\-]{0,2}\d){5,20})(?![a-z\d])",
        0.7,
    ),
    Pattern(
        "RECORD_NUMBER", "broken-line",
        # One number over two lines of a narrow column.
        r"(?<![\w.,$€£¥])(?=(?:[\-\n]{0,2}\d){8})[a-z]{0,4}\d[\d\-]{0,17}\n\-?\d[\d\-]{0,17}(?![\w.,]?\d|[a-z%])",
        0.4,
    ),
    Pattern(
        "RECORD_NUMBER", "plate-cn",
        r"[京津沪渝冀豫云辽黑湘皖鲁新苏浙赣鄂桂甘晋蒙陕吉闽贵粤青藏川宁琼][a-z][·\s]?[a-z\d]{"
        r"5,6}(?![a-z\d])",
        0.8, needs="han",
    ),
    Pattern(
        "RECORD_NUMBER", "uuid",
        r"(?<![\w-])[\da-f]{8}-(?:[\da-f]{4}-){3}[\da-f]{12}(?![\w-])",
        0.85,
    ),
    Pattern(
        "RECORD_NUMBER", "code",
        r"(?<![\w-])(?=[a-z\d-]*\d{4})[a-z]{1,5}-?\d[\da-z]{4,18}(?![\w-])",
        0.5,
    ),
    Pattern(
        "RECORD_NUMBER", "code-dashed",
        r"(?<![\w-])(?=[a-z\d-]*\d{3})(?!\d{4}-\d\d-\d\d(?!\d))[a-z\d]{2,8}"
        r"(?:-[a-z\d]{2,8}){2,5}(?![\w-])",
        0.4,
    ),
    Pattern(
        "RECORD_NUMBER", "digits",
        r"(?<![\w.,$€£¥/-])\d{6,}(?![\d.,]*\d)(?![a-z])" + _UNIT,
        0.4,
    ),
    Pattern(
        "RECORD_NUMBER", "digits-after-han",
        r"(?<=[^\x00-\x7f])\d{7,}(?![\d.,]*\d)" + _UNIT,
        0.4, needs="han",
    ),
    Pattern(
        "RECORD_NUMBER", "digits-misread",
        # A scanner reads O for 0 and l for 1.
        r"(?<![a-z\d$€£¥.,])(?=[\d -]{0,20}[oilsbz|][\doilsbz| -]*)(?=(?:[oilsbz|]{0,3}[ -]?\d){5})[\doilsbz|]"
        r"(?:[ -]?[\doilsbz|]){6,20}(?![a-z\d])",
        0.45,
    ),
    Pattern(
        "RECORD_NUMBER", "digits-strict",
        r"(?<![\w.,$€£¥/-])\d{4,}(?![\d.,]*\d)(?!\w)",
        0.3, None, "strict",
    ),
)  # fmt: skip
