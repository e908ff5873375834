"""Chinese names: what the language model says, mended, and what stands where only a name can stand.

The model cuts given names short, splits foreign ones at the dot, and takes some drugs for people.
Rules over its words put that right; rules over the plain text find names by titles, roles, and the
forms of address around them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import regex

from privacy import medical, names, search
from privacy.lac import Word
from privacy.spans import Hit

_SURNAME: Final = "(?:" + "|".join(names.ZH_DOUBLE_SURNAMES) + f"|[{names.ZH_SURNAMES}])"
_STOP: Final = (
    "的了来在于因有说称已主入男女今昨前后是为等和及与头胸腹发咳想要反自曾患需到去现无未从被把将就也都很不没"
    "给让请对向上下左右双手脚腰背肩膝血心肺肝肾胃诉述经每至疼痛麻晕吐泻出住做行拟收转复查看吃服用问电您你我他她"
    "我他独辞任呢吗啊吧呀么什这那些该其之则并且但又还再才只仅更最太真比跟同携"
)
# 行 ends a name where no word goes on: 郑行, but 郑某行动.
_GIVEN: Final = rf"(?:[\u4e00-\u9fff--[{_STOP}]]|行(?=[\s,.。;:、()]|$|陪|代|先生|女士))"
_FOREIGN: Final = r"\p{Han}{1,8}(?:[·•・‧∙.．]\p{Han}{1,8}){1,3}"
_FULL: Final = rf"(?:{_FOREIGN}|{_SURNAME}[ ]?{_GIVEN}(?:[ ]?{_GIVEN})?|{_SURNAME}[某xX*○〇]{{1,2}}|\p{{Han}}[*○〇]{{1,2}})"
_LATIN: Final = r"\p{Lu}[\p{Latin}'’]+(?:[ ]\p{Lu}[\p{Latin}'’.]*){0,3}"
_ROLE: Final = (
    "患者|病人|病员|姓名|联系人|家属|亲属|客户|户主|户名|持卡人|收款人|付款人|投保人|被保险人|受益人|经办人|申请人|担保人|"
    "本人|我叫|我是|名叫|叫做|名字是|医生|医师|大夫|护士|主任|父亲|母亲|妻子|丈夫|儿子|女儿|配偶|法人|司机|员工|经理|"
    "转来患者|投诉人|柜员|处理人员|办理人|签字|签名|陪护|监护人|其妻|其夫|其子|其女|其父|其母|爱人|老伴|责任护士|"
    "主刀|麻醉师|手术者|助手|主管|专员|顾问|代理人|委托人|借款人|汇款人|开户人|存款人|联络人|紧急联系人|工作人员|"
    "教授|院长|科长|记者|导演|主演|演员|歌手|董事长|总裁|总经理|行长|教练|队长|律师|法官|校长|局长|书记|市长|省长|"
    "部长|主席|委员|代表|同学|老师|业主|嫌疑人|被告人?|原告人?|通讯员|作者|编辑|分析师|专家"
)
_AFTER: Final = regex.compile(
    rf"(?V1)(?:{_ROLE})(?:姓名)?[\s:为是,(“\"]{{0,2}}(?P<v>{_FULL}|{_LATIN})"
)
_BEFORE: Final = regex.compile(
    rf"(?V1)(?:(?<!\p{{Han}})|(?<=[,。;、:和与由给向找请是跟同为但而予]))"
    rf"(?P<v>{_SURNAME}{_GIVEN}{{0,2}})"
    r"(?=先生|女士|小姐|医生|医师|大夫|护士|主任|老师|经理|教授|院长|阿姨|叔叔|奶奶|爷爷|大爷|大妈|同志|的家属|来电|来院|于\d|自诉|主诉|"
    r"同学|师傅|总裁|律师|警官|主管|[,(\s]{1,2}[男女][,.。\s]|[,(]\d{1,3}岁)"
)
_CHUNK: Final = regex.compile(
    rf"(?V1)(?<!\p{{Han}})(?P<v>{_SURNAME}(?P<given>\p{{Han}}{{1,2}}))(?!\p{{Han}})"
)
_NICK: Final = regex.compile(
    rf"(?V1)(?<![\p{{Han}}--[跟和与找给叫问让请的]])(?P<v>[老小阿]{_SURNAME})(?<!小[时计节区说单车号米]|老[师])"
    r"(?=[,。;,;:!?说来的和在要又今昨]|\s|$)"
)
_HONOUR: Final = regex.compile(
    rf"(?V1)(?<![\p{{Han}}--[跟和与找给叫问让请是,由]])(?P<v>{_SURNAME})"
    r"(?=先生|女士|小姐|医生|医师|大夫|护士|主任|老师|经理|教授|院长|阿姨|叔叔|奶奶|爷爷|大爷|大妈|师傅|总|哥|姐|工|局|处|某)"
)
_DOTTED: Final = regex.compile(_FOREIGN)
_MENTION: Final = regex.compile(r"@(?P<v>[\p{Han}\w-]{2,16})")
_GIVEN_SET: Final = names.ZH_GIVEN - set(_STOP)
# Characters that foreign names are written with.
_SOUNDS: Final = frozenset(
    "阿埃艾奥巴白贝本比彼宾波博布查达戴丹德蒂迪杜顿多恩尔法菲费弗夫福盖戈格古哈海汉赫亨霍基吉加贾杰金卡凯坎康考柯"
    "科克库昆拉莱兰朗劳勒雷里利莉林隆卢鲁伦罗洛马玛麦曼梅门蒙米莫姆穆纳奈尼娜南内诺欧帕佩彭皮平普奇齐恰乔琼热荣"
    "瑞萨塞森沙舍圣施史斯丝苏索塔泰坦汤唐特滕提图托瓦万威维韦魏温沃乌西希夏谢辛休雅亚扬耶伊因尤约扎詹珍兹祖佐买"
)
_LEADS: Final = frozenset("老小阿大")
_PLACES: Final = {"LOC": "LOCATION", "ORG": "ORGANIZATION"}
_HOUSE: Final = regex.compile(
    r"(?:医院|诊所|卫生院|保健院|卫生站|门诊部|大学|学院|中学|小学|学校|幼儿园|公司|集团|工厂|厂|支行|分行|银行|营业部|事务所|"
    r"派出所|法院|检察院|养老院|敬老院|福利院|社区|居委会|村委会|药房|药店|研究所|中心|局|酒店|小区|花园|大厦|广场)$"
)
_BODIES: Final = regex.compile(
    r"^(?:我院|本院|本行|我行|贵行|我司|贵司|该院|该行)|^(?:医院|银行|公司|学校|社区|大学)$"
)


def find(text: str) -> Iterator[Hit]:
    """Yield names found by forms of address, roles, dots, and lone surname-given chunks.

    Raises:
        TimeoutError: the text is so odd that a rule takes too long over it.
    """
    for rule in (_AFTER, _BEFORE, _CHUNK, _NICK, _HONOUR, _DOTTED, _MENTION):
        for match in search.matches(rule, text):
            start, end = match.span("v" if "v" in rule.groupindex else 0)
            if medical.is_medical_zh(text[start:end], text[end : end + 4]):
                continue
            if rule is _CHUNK and not _GIVEN_SET.issuperset(match["given"]):
                continue
            yield Hit(start, end, "PERSON", 0.7)


def read(text: str, words: Sequence[Word], *, strict: bool) -> Iterator[Hit]:
    """Yield the people, places, and houses among the model's words, mended.

    Args:
        text: the detection copy.
        words: the model's words over it.
        strict: whether institutions without an address in their name count as well.
    """
    at = 0
    while at < len(words):
        word = words[at]
        if word.tag == "PER":
            last = _whole(text, words, at)
            start, end = word.start, words[last].end
            at = last + 1
            while start < end and not text[start].isalnum():
                start += 1
            long = sum(c.isalnum() for c in text[start:end]) >= 2
            if long and not medical.is_medical_zh(text[start:end], text[end : end + 4]):
                yield Hit(start, end, "PERSON", 0.55)
            continue
        if word.tag in _PLACES:
            surface = text[word.start : word.end]
            named = _BODIES.search(surface) is None
            counts = named and (word.tag == "LOC" or strict or _HOUSE.search(surface))
            if counts and not medical.is_medical_zh(surface, text[word.end : word.end + 4]):
                yield Hit(word.start, word.end, _PLACES[word.tag], 0.5)
        elif (end_at := _unseen(text, words, at)) is not None:
            yield Hit(word.start, words[end_at].end, "PERSON", 0.45)
            at = end_at
        at += 1


def _whole(text: str, words: Sequence[Word], at: int) -> int:
    """Return the last word of the name that begins with word `at`."""
    last = at
    while last + 1 < len(words):
        name, after = text[words[at].start : words[last].end], words[last + 1]
        surface = text[after.start : after.end]
        dotted = name[-1] in "·•・‧∙" or surface in {"·", "•", "・", "‧", "∙"}
        foreign = after.tag == "PER" and _SOUNDS.issuperset(name[-2:]) and len(name) > 3
        if dotted or foreign:
            last += 1
            continue
        if not _fits(name, surface, after.tag):
            return last
        return last + 1
    return last


def _fits(name: str, surface: str, tag: str) -> bool:
    """Say whether a single character that the model cut off belongs to the name before it."""
    if surface == "一" and len(name) == 2 and name[0] in names.ZH_SURNAMES:
        return True
    if len(surface) != 1 or surface in _STOP or tag in {"w", "m", "q", "u", "p", "c", "xc", "r"}:
        return False
    if name[0] not in names.ZH_SURNAMES:
        return False
    return len(name) == 1 or (len(name) == 2 and surface in _GIVEN_SET and tag != "v")


def _unseen(text: str, words: Sequence[Word], at: int) -> int | None:
    """Return the last word of a name that the model did not see, or None if none begins here."""
    word = words[at]
    surface = text[word.start : word.end]
    if word.tag in {"w", "m", "u", "p", "c", "TIME"} or not "\u4e00" <= surface[0] <= "\u9fff":
        return None
    if len(surface) >= 4 and _SOUNDS.issuperset(surface) and word.tag in {"nz", "n"}:
        return None if medical.is_medical_zh(surface, text[word.end : word.end + 4]) else at
    double = surface[:2] in names.ZH_DOUBLE_SURNAMES
    if not double and (surface[0] not in names.ZH_SURNAMES or len(surface) > 3):
        return None
    last = at
    while last + 1 < len(words) and words[last].end - word.start < 3:
        after = words[last + 1]
        piece = text[after.start : after.end]
        if after.tag == "w" or len(piece) + words[last].end - word.start > 3 + double:
            break
        if not all(c in _GIVEN_SET for c in piece) or (last > at and len(piece) > 1):
            break
        last += 1
    whole = text[word.start : words[last].end]
    given = whole[2 if double else 1 :]
    if not given or not _GIVEN_SET.issuperset(given) or len(given) > 2:
        return None
    if medical.is_medical_zh(whole, text[words[last].end : words[last].end + 4]):
        return None
    if double or (last == at and word.tag == "nz"):
        return last
    # Single characters in a row that all belong in names: the model knew no word for them.
    alone = all(w.end - w.start == 1 or w is not word for w in words[at : last + 1])
    return last if last > at and alone and surface not in _COMMON else None


_COMMON: Final = frozenset("高常安平成向时文方和华万白金江海马石叶温明元单古黄红满甘火水木土山花")
