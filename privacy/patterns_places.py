"""Patterns of addresses, towns, and institutions."""

from __future__ import annotations

from typing import Final

from privacy.patterns_row import Pattern

_WAY: Final = (
    r"(?:street|st|avenue|ave|road|rd|lane|ln|drive|dr|boulevard|blvd|court|ct|place|pl|square|sq|"
    r"terrace|way|circle|cir|parkway|pkwy|highway|hwy|close|crescent|row|walk|trail)"
)
_FACILITY: Final = (
    r"(?-i:Hospital|Hospitals|Clinic|Clinics|Medical Cent(?:er|re)|Health Cent(?:er|re)|"
    r"Cancer Cent(?:er|re)|Surgery Cent(?:er|re)|Care Cent(?:er|re)|Cent(?:er|re)|Infirmary|"
    r"Hospice|Pharmacy|Nursing Home|Health System|Health|Healthcare|Medical|Urgent Care|Rehab|"
    r"Practice|Office|University|Bank|Institute|Laborator(?:y|ies)|Labs|Facility|Ward|General|Memorial|"
    r"Wellness|ER|ED|Hosp)"
)
# A Chinese address begins after these words, not with them.
_ZH_START: Final = "(?![住在于到自址为是从往来的]|家住|来自|位于|现住|居住|地址|户籍)"

PLACES: Final[tuple[Pattern, ...]] = (
    Pattern(
        "ADDRESS", "street",
        r"(?<![\w$.])\d{1,6}[a-z]?,? (?:(?-i:[A-Z\d][\w'’.\-]*) ){1,4}" + _WAY +
        r"\.?(?!\w)(?:,? (?:apt|apartment|suite|ste|unit|floor|fl|#)\.? ?#?[\w-]{1,6})?"
        r"(?:,\s?(?-i:[A-Z][\w'’\-]+)(?: (?-i:[A-Z][\w'’\-]+)){0,2})?"
        r"(?:,? ?(?-i:[A-Z]{2})(?!\w))?(?:,? \d{5}"
        r"(?:-\d{4})?)?",
        0.85,
    ),
    Pattern(
        "ADDRESS", "address-clue",
        r"(?:address(?: of [\w ]{1,30})?(?: is|:)?|lives? (?:at|on)|living at|located at|"
        r"moved to|resid\w+ (?:at|on)|deliver(?:ed)? to|ship(?:ped)? to) (?P<v>\d{1,6}[a-z]? "
        r"(?-i:[A-Z])[^\n.;?!,]{3,50}(?:, ?(?-i:[A-Z][\w'’\-]+)(?: (?-i:[A-Z][\w'’\-]+))?)?)",
        0.75,
    ),
    Pattern(
        "ADDRESS", "address-flat",
        r"(?<![\w$.])\d{1,6}[a-z]? (?:(?-i:[A-ZÀ-Þ\d])[^\s,;]* ){1,5}(?:apt|apartment|suite|"
        r"ste|unit)\.? ?#?\w{1,6}(?:\s*[\n,]+\s*[^\W_][^\n,;:?!]{1,30}){0,4}",
        0.75,
    ),
    Pattern(
        "LOCATION", "town-state",
        r"(?-i:(?<!\w)[A-Z][a-z]+(?: [A-Z][a-z]+){0,2}, (?:A[LKZR]|C[AOT]|DE|FL|GA|HI|"
        r"I[DLNA]|K[SY]|LA|M[EDAINSOT]|N[EVHJMYCD]|O[HKR]|PA|RI|S[CD]|T[NX]|UT|V[TA]|W[AVIY]|"
        r"DC)(?!\w))",
        0.6, needs="",
    ),
    Pattern("ADDRESS", "po-box", r"(?<!\w)p\.? ?o\.? box \d{1,6}", 0.85),
    Pattern("ADDRESS", "zip", r"(?<!\w)(?-i:[A-Z]{2}),? \d{5}(?:-\d{4})?(?![\w-])", 0.6),
    Pattern(
        "ADDRESS", "zip-clue",
        r"(?:zip(?: code)?|postal code|postcode|邮编)[\s:]{0,3}"
        r"(?P<v>[a-z\d][a-z\d -]{3,8}[a-z\d])(?!\w)",
        0.8,
    ),
    Pattern("ADDRESS", "postcode-uk", r"(?<!\w)(?-i:[A-Z]{1,2}\d[A-Z\d]? \d[A-Z]{2})(?!\w)", 0.6),
    Pattern(
        "ADDRESS", "address-zh",
        _ZH_START + r"(?:[\u4e00-\u9fff]{2,7}?(?:省|自治区|特别行政区))?"
        r"(?:[\u4e00-\u9fff]{2,5}?[市州盟])?(?:[\u4e00-\u9fff]{1,5}?[区县旗])?"
        r"(?:[\u4e00-\u9fff]{1,6}?(?:街道|镇|乡|村|社区))?[\u4e00-\u9fff]{1,8}?(?:大街|大道|"
        r"路|街|巷|弄|胡同|小区|花园|苑|村)[东西南北中]?(?:[\u4e00-\u9fff]{0,8}?\d{1,5}"
        r"(?:-\d{1,4})*(?:号楼|号院|号|弄|栋|幢|座|单元|层|楼|室|户)){1,5}"
        r"(?:[\u4e00-\u9fff]{2,8}(?=[,。;、\s]|$))?",
        0.8, needs="han",
    ),
    Pattern(
        "ADDRESS", "address-zh-levels",
        _ZH_START + r"(?:[\u4e00-\u9fff]{2,7}?(?:省|自治区)[\u4e00-\u9fff]{2,5}?[市州]"
        r"(?:[\u4e00-\u9fff]{1,5}?[区县])?|(?:北京|上海|天津|重庆)市?[\u4e00-\u9fff]{1,4}区|"
        r"[\u4e00-\u9fff]{2,3}市[\u4e00-\u9fff]{1,3}[区县])",
        0.6, needs="han",
    ),
    Pattern(
        "ADDRESS", "address-clue-zh",
        r"(?:住址|地址|家住|现住|居住在|住在|户籍)[\s:为是在]{0,2}"
        r"(?P<v>[\u4e00-\u9fff][\u4e00-\u9fff\da-z\-#]{3,40})",
        0.75, needs="han",
    ),
    Pattern(
        "ORGANIZATION", "known-house",
        r"(?-i:(?<!\w)(?:UCSF|UCLA|UCSD|NYU|MGH|UPMC|UCHealth|Mayo|Stanford|Northwestern|"
        r"Kaiser|Mass General|MD Anderson|Cedars[- ]Sinai|Johns Hopkins|Cleveland Clinic|"
        r"Brigham)(?: (?:clinic|med|[Mm]edical|[Cc]ent(?:er|re)|Clinic|Hospital|Health|"
        r"Permanente|& Women['’]s))*(?!\w))",
        0.6, needs="",
    ),
    Pattern(
        "ORGANIZATION", "facility",
        r"(?-i:(?<!\w)(?:St\.?|Mt\.?|Mount|Saint) [A-Z][\w'’\-]+(?:['’]s)?"
        r"(?: [A-Z][\w'’\-]+){0,2})",
        0.6, needs="",
    ),
    Pattern(
        "ORGANIZATION", "facility-suffix",
        r"(?-i:(?<![\w-])(?!(?:The|Patient|Our|Your|This|At|In|From|For|To|A|An|Is|What|Any|"
        r"How|New)\s)(?:Dr\. )?[A-Z][\w'’.\-]+(?: (?:of|and|&|the|[A-Z][\w'’.\-]*)){0,4} " +
        _FACILITY + r"(?!\w)(?: (?:of|in) [A-Z]\w+)?)",
        0.6, needs="",
    ),
    Pattern(
        "ORGANIZATION", "facility-zh",
        r"[\u4e00-\u9fff]{2,12}?(?:人民医院|中医院|附属医院|中心医院|协和医院|保健院|卫生院|儿童医院|肿瘤医院|"
        r"第[一二三四五六七八九十]+医院|支行|分行)",
        0.55, needs="han",
    ),
)  # fmt: skip
