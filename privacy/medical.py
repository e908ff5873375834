"""What the clinical profile keeps: a small list of medical words that look like names or places.

The list has a say only over hits of the language model and of weak name rules; it never overrules a
pattern, a checksum, or a title such as "Mr." or "患者". Data and two short questions.
"""

from __future__ import annotations

import re
from typing import Final

from privacy.names import COMMON_SURNAMES, FEMALE, MALE, ZH_SURNAMES
from privacy.vocabulary import is_medical_word, is_ordinary


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
    covid-19 english spanish disease diseases disorder disorders cancer cancers tumor lung lungs heart
    brain skin kidney kidneys liver blood bone bones breast cervical ovarian spine throat nose mouth
    eyes ear ears neck head respiratory rate saturation glucose vein veins artery stones failure
    infection infections problems leukemia lymphoma aneurysm pregnancy testing registry genetic
    hereditary familial bilateral gait muscle muscles joint nerve dental vision hearing surgical
    physical examination exam history social hepatitis assistance technology trial study research
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


_BRANDS: Final = frozenset(
    _split(
        """
    abilify accutane actos adderall advair advil afrin albuterol aleve allegra altace amaryl ambien
    amoxil apidra arava aricept armour ativan atrovent augmentin avandia avapro avelox avodart azulfidine
    bactrim bactroban belsomra benadryl benicar bentyl biaxin boniva botox brilinta budeprion bumex
    buspar bydureon byetta bystolic caduet calan carafate cardizem cardura catapres ceftin celebrex
    celexa cellcept chantix cialis cipro claritin cleocin climara clinoril clonidine colace combivent
    concerta copaxone coreg coumadin cozaar crestor cymbalta cytomel dalmane decadron deltasone demadex
    demerol depakote desyrel detrol diabeta diflucan digoxin dilantin dilaudid diovan ditropan dulcolax
    duragesic dyazide effexor elavil elidel enbrel entresto epipen epogen estrace evista exelon farxiga
    feldene fioricet flagyl flexeril flomax flonase flovent fosamax gabapentin geodon gleevec glucophage
    glucotrol glyburide haldol humalog hytrin hyzaar imdur imitrex imodium imuran inderal invokana
    januvia jardiance keflex keppra klonopin klor lamictal lamisil lanoxin lantus latuda lescol levaquin
    levemir levitra levothroid levoxyl lexapro librium lidoderm lodine lomotil lopid lopressor lortab
    lotensin lotrel lovenox lunesta luvox lyrica macrobid maxalt maxzide medrol meridia mevacor micardis
    miralax mirapex mobic motrin mounjaro mucinex namenda naprosyn nasacort nasonex neurontin nexium niaspan
    norco normodyne norvasc novolog nuvigil orudis oxycontin pamelor parlodel paxil pepcid percocet
    plaquenil plavix pradaxa pravachol prednisone premarin prevacid prilosec prinivil procardia prograf
    proscar protonix proventil provera provigil prozac pulmicort reglan relafen remeron remicade
    requip restoril retin risperdal ritalin robaxin robitussin roxicodone rybelsus seroquel simvastatin
    sinemet singulair skelaxin soma sonata spiriva strattera suboxone sudafed symbicort symbyax synthroid
    tagamet tamiflu tegretol tekturna tenormin thorazine tofranil topamax toprol toradol tradjenta
    tricor trileptal trulicity tums ultram uniphyl valium valtrex vaseline vasotec ventolin vesicare
    viagra vicodin victoza voltaren vytorin vyvanse wegovy wellbutrin wixela xalatan xanax xeljanz
    xyzal yasmin zanaflex zantac zaroxolyn zebeta zestoretic zestril zetia ziac zithromax zocor zofran
    zoloft zomig zovirax zyban zyloprim zyprexa zyrtec
        """
    )
)
_WORD: Final = re.compile(r"[a-z0-9]+(?:-[0-9]+)?")


def is_medical(phrase: str, following: str = "") -> bool:
    """Say whether an English phrase that a model took for a name is a medical or everyday word.

    Args:
        phrase: what was taken for a name, place, or institution.
        following: the text right after it; "Bell" before " palsy" is no person.
    """
    if _AFTER.match(following):
        return True
    words = _WORD.findall(phrase.lower().replace("'", "").replace("’", ""))
    if not words:
        return not any(character.isalpha() for character in phrase)
    return all(map(_is_known, words))


def is_term(phrase: str) -> bool:
    """Say whether an English phrase that a model took for a name is one only by mistake.

    One ordinary word that is nobody's name; or several, of which one is medical or small and none
    is a name: "Mouth", "lung cancer", "Respiratory Rate"; but not "Hope Sparrow".
    """
    words = [word for word in re.split(r"[^\w'’-]+", phrase) if any(map(str.isalpha, word))]
    lower = [word.casefold().replace("’", "'").removesuffix("'s") for word in words]
    if any(word in FEMALE or word in MALE or word in COMMON_SURNAMES for word in lower):
        return False
    if not all(is_ordinary(word) or _is_known(word) for word in lower):
        return False
    return len(words) == 1 or any(
        word[0].islower() or _is_known(low) or is_medical_word(low)
        for word, low in zip(words, lower, strict=True)
    )


def _is_known(word: str) -> bool:
    return (
        word in _EPONYMS
        or word in _WORDS
        or word in _BRANDS
        or word.isdigit()
        or _SUFFIXES.search(word) is not None
    )


_ZH_DRUG: Final = re.compile(
    r"(?:芬|洛尔|地平|普利|沙坦|他汀|西林|霉素|沙星|[奥泮兰雷]拉唑|康唑|硝唑|咪唑|替丁|列汀|列净|列奈|鲁肽|双胍|单抗|替尼|胰岛素|西泮|"
    r"唑仑|妥英|巴比妥|卡因|泼尼松|松龙|米松|肝素|华法林|匹林|司特|卡特|罗林|必利|昔布|酚酸|氯吡|格雷|替卡|瑞林|钴胺|他滨|铂|紫杉醇|"
    r"韦|平喘|霉唑|阿奇|头孢\w*|米诺|贝特|甘油|曲坦|沙班|加群|拉西坦|奈哌|金刚|昔韦|片|胶囊|颗粒|口服液|注射液|乳膏|滴眼液|冲剂|丸|"
    r"综合征|综合症|病|症|炎|癌|瘤|疹|疮|疝|痛|酮|酶|素|酸|蛋白|抗体|抗原|因子|球囊|支架|导管|手术|术|检查|试验|测定|造影)$"
)
_ZH_EPONYM: Final = re.compile(
    r"(?:帕金森|阿尔茨海默|阿兹海默|霍奇金|克罗恩|巴雷特|格林巴利|格林-巴利|雷诺|马凡|梅尼埃|库欣|艾迪生|格雷夫斯|桥本|贝赫切特|"
    r"白塞|干燥|川崎|威尔逊|亨廷顿|吉兰|唐氏|特纳|墨菲|麦氏|巴宾斯基|布氏|凯尔尼格|克氏|霍夫曼|罗姆伯格|格拉斯哥|多普勒|幽门|"
    r"卡介|革兰|沃克|华氏|巴氏|肖氏|乔氏|惠普尔|米勒|希氏|浦肯野|浦肯耶|房颤|雷贝|孟鲁|布地|布洛|泰诺|芬必|美林|连花|小柴胡|板蓝|"
    r"阿托|瑞舒|辛伐|匹伐|氨氯|硝苯|非洛|缬|厄贝|氯沙|替米|美托|比索|卡维|阿替|依那|贝那|培哚|雷米|格列|罗格|吡格|西格|达格|恩格|"
    r"利拉|司美|甘精|门冬|赖脯|艾司|奥美|兰索|泮托|埃索|多潘|莫沙|西沙|蒙脱|阿莫|阿奇|克拉|左氧|莫西|环丙|头孢|万古|利奈|美罗|亚胺)"
)
_ZH_FOLLOWS: Final = re.compile(
    r"\s?(?:氏|病|综合征|综合症|征|症|反射|试验|评分|分级|分期|体征|淋巴|细胞|指数|量表|杆菌|球菌|病毒|染色|束|纤维|片|胶囊|颗粒|"
    r"缓释|肠溶|分散|注射|口服|滴|软膏|乳膏|mg|克|毫克)"
)


def is_medical_zh(phrase: str, following: str = "") -> bool:
    """Say whether Chinese characters that look like a name are a medical or everyday word.

    Args:
        phrase: what was taken for a name or a place.
        following: the few characters after it; 霍奇金 before 淋巴瘤 is no person.
    """
    if phrase.startswith(_ZH) or _ZH_EPONYM.match(phrase):
        return True
    # 王桂芬 is a woman and 布洛芬 a drug: a surname in front decides.
    named = phrase[0] in ZH_SURNAMES and len(phrase) == 3 and phrase[-1] in "芬素韦铂"
    if len(phrase) >= 3 and not named and _ZH_DRUG.search(phrase):
        return True
    return _ZH_FOLLOWS.match(following) is not None
