"""What the clinical profile keeps: a small list of medical words that look like names or places.

The list has a say only over hits of the language model and of weak name rules; it never overrules a
pattern, a checksum, or a title such as "Mr." or "患者". Data and two short questions.
"""

from __future__ import annotations

import re
from typing import Final


def _split(words: str) -> tuple[str, ...]:
    return tuple(words.split())


_EPONYMS: Final = frozenset(
    _split(
        """
    addison addisons alzheimer alzheimers apgar babinski barrett barretts barre bartter beers
    behcet bell bells bishop borg braden brugada burkitt celiac chaddock chagas charcot cheyne
    chiari child chvostek coombs crohn crohns cushing cushings danlos dix doppler down downs
    duchenne dupuytren dupuytrens ebola ehlers epstein ewing fabry fallot fanconi foley
    framingham friedreich gaucher gilbert gilles glasgow gleason graves guillain hallpike hashimoto
    hashimotos heimlich henoch hirschsprung hodgkin hodgkins holter hoffman homans horner
    horners huntington huntingtons kaposi kawasaki kernig killip klinefelter korsakoff lachman
    lhermitte likert lou lyme mallory marfan mcburney meckel menieres meniere mohs murphy
    murphys nissen norton osgood paget pagets parkinson parkinsons peyronie peyronies phalen
    pott prader quincke ramsay ranson raynaud raynauds reiter reye rinne romberg rome
    rorschach roux schonlein sheehan sjogren sjogrens snellen stevens stokes sydenham takayasu
    takotsubo tinel tourette tourettes trendelenburg trousseau turner valsalva virchow
    waldenstrom weber wegener wells wernicke whipple wilms wilson wilsons wolff zika zollinger
        """
    )
)
# Words that the model takes for names, places, or institutions in clinical and bank texts.
_WORDS: Final = frozenset(
    _split(
        """
    abdomen acute admission adult aetna aids allergies allergy angiogram antibiotic
    antibiotics aspirin assessment asthma biopsy bmi bowel bp bun cabg cancer cardiology cbc
    cdc chest chief chronic ckd clinic colonoscopy contraindications contact copd covid
    creatinine crp ct cva daily dear dermatology desk diabetes diagnosis discharge dvt ecg
    echo ed eeg egfr ehr ekg elisa emergency er esr evidence fda fever follow gerd gfr gi
    guideline guidelines hba hbv hcv hello hemoglobin hepatitis hi hiv hpi hpv hsv htn
    hypertension iban icd icu inr insulin insurance invoice iv kidney labs latest lasix liver
    loan lpn lumbar management mbbs medical medicare medicaid message metformin mortgage mri
    msk mrn mrsa nausea neurology note npo nsaid nsaids obesity oncology orthopedics oxygen
    pain patient patients pcp pcr pe pediatrics pin plan platelets pmh po prn psa psychosis
    ptsd rbc reason recommend reflux regards review rn sars screening serum sepsis sirs spf
    ssn ssri statin stroke symptoms syndrome tb therapy tia tips tnf transfer treatment triage
    tsh tylenol ultrasound urine uti vaccine vaccines vitamin walk warfarin wbc who xarelto
    eliquis humira lipitor ozempic monday tuesday wednesday thursday friday saturday sunday
    covid-19 english spanish
        """
    )
)
_SUFFIXES: Final = re.compile(
    r"(?:pril|sartan|olol|statin|mab|nib|cillin|mycin|micin|azole|dipine|apine|azepam|azolam|prazole|"
    r"gliptin|gliflozin|formin|tidine|oxetine|triptan|parin|xaban|gatran|vir|cycline|floxacin|setron|"
    r"semide|thiazide|asone|olone|isone|caine|dronate|glutide|barbital|profen|coxib|lukast|terol|"
    r"tropium|fibrate|zosin|amide|idine|itis|osis|emia|oma|opathy|ectomy|plasty|scopy|algia|uria|"
    r"pnea|plegia|rrhea|toxin|kinase|globulin|penia|trophy)s?$"
)
_AFTER: Final = re.compile(
    r"(?:['’]s|s['’])?[ -](?:syndrome|disease|criteria|score|sign|test|palsy|maneuver|scale|index|"
    r"catheter|classification|procedure|phenomenon|lymphoma|tumou?r|virus|fever|contracture|esophagus|"
    r"sarcoma|thyroiditis|monitor|encephalopathy|reflex|fracture|grade|stage|class|coma|rules?)\b",
    re.IGNORECASE,
)
_ZH: Final = (
    "黄疸", "黄斑", "黄体", "高血", "高热", "高烧", "高龄", "高危", "高中", "高度", "高尿", "白细",
    "白血", "白蛋", "白内", "白癜", "马凡", "康复", "安静", "温度", "常规", "常见", "张力", "金属",
    "石膏", "方案", "方面", "时间", "向心", "何时", "何种", "万古", "平时", "雷尼", "单侧", "单纯",
    "全身", "全血", "全麻", "成人", "强直", "关节", "管理", "成功", "武汉", "江苏", "包块", "米诺",
    "连续", "明显", "时有", "解便", "来院", "计划", "查体", "查血", "曲张", "文章", "项目", "简单",
    "甘油", "甘露", "布洛", "华法", "古怪", "盖章", "边缘", "易怒", "易激", "施行", "阳性", "阴性",
    "左侧", "右侧", "左手", "右手", "水肿", "石淋", "钱款", "余额", "申请", "任何", "毛细", "辛伐",
    "童年", "商户", "单位", "路过", "车险", "房贷", "房屋", "成年", "来电", "游离", "金额",
)  # fmt: skip


def is_medical(phrase: str, following: str = "") -> bool:
    """Say whether an English phrase that a model took for a name is a medical or everyday word.

    Args:
        phrase: what was taken for a name, place, or institution.
        following: the text right after it; "Bell" before " palsy" is no person.
    """
    if _AFTER.match(following):
        return True
    words = re.findall(r"[a-z0-9]+(?:-[0-9]+)?", phrase.lower().replace("'", "").replace("’", ""))
    if not words:
        return not any(character.isalpha() for character in phrase)
    return all(
        word in _EPONYMS or word in _WORDS or word.isdigit() or _SUFFIXES.search(word)
        for word in words
    )


def is_medical_zh(phrase: str) -> bool:
    """Say whether Chinese characters that look like a name begin a medical or everyday word."""
    return phrase.startswith(_ZH)
