"""Made-up Chinese paragraphs of hospitals and banks, and sentences of news and microblogs.

Every identifier's place is known, and so is that of every medical or banking word that must stay.
Names are drawn from surnames by how common they are and from characters of given names, rare ones
too; none of it is anyone's, as numbers come from ranges that nobody has or carry a wrong digit.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from bench.deid_measure import Item
from privacy.checksums import luhn

SURNAMES = tuple(
    "李王张刘陈杨赵黄周吴徐孙胡朱高林何郭马罗梁宋郑谢韩唐冯于董萧程曹袁邓许傅沈曾彭吕苏卢蒋蔡贾丁"
)
RARE = (
    "覃",
    "邝",
    "麦",
    "佘",
    "冼",
    "禤",
    "仝",
    "逄",
    "郗",
    "宗",
    "查",
    "洛",
    "欧阳",
    "司徒",
    "上官",
    "诸葛",
    "尉迟",
    "皇甫",
)
GIVEN = tuple(
    "伟芳娜敏静丽强磊军洋勇艳杰涛明超霞平刚桂英华玉萍红娥玲芬燕彬鹏浩凯秀健俊帆帅旭宁龙林欢佳钰雨晴轩泽宇梓涵诗琪"
    "雅婷思源嘉怡子墨一诺可欣昊然晨曦锦程景行若曦书瑶奕辰沐阳昕怡诗涵皓轩语桐炜烨彦希霖溪楚翘岚筠崧珏骁甫弢赟翀"
)
FOREIGN = (
    "阿卜杜拉·买买提",
    "古丽娜尔·艾山",
    "克里斯托弗·诺兰德",
    "安娜·卡列宁娅",
    "史密斯",
    "巴特尔",
    "迪丽娜扎",
    "爱德华多·桑托斯",
)
CITIES = (
    "杭州市西湖区",
    "成都市武侯区",
    "长沙市岳麓区",
    "北京市朝阳区",
    "广州市天河区",
    "西安市雁塔区",
    "青岛市市南区",
    "沈阳市和平区",
)
PROVINCES = ("浙江省", "四川省", "湖南省", "", "广东省", "陕西省", "山东省", "辽宁省")
ROADS = (
    "文三路",
    "科华北路",
    "解放大道",
    "学院路",
    "体育东路",
    "小寨西路",
    "香港中路",
    "太原街",
    "望江南巷",
    "星湖街",
)
HOMES = ("翠苑小区", "锦绣花园", "阳光家园", "碧桂园", "幸福里", "金色港湾")
HOSPITALS = ("市第一人民医院", "华西医院", "湘雅二医院", "省中医院", "协和医院", "妇幼保健院")
SYMPTOMS = (
    "反复胸闷",
    "咳嗽咳痰",
    "腹痛腹泻",
    "头晕头痛",
    "双下肢水肿",
    "恶心呕吐",
    "关节肿痛",
    "心悸气促",
)
ILLNESSES = (
    "高血压病",
    "2型糖尿病",
    "冠心病",
    "慢性阻塞性肺疾病",
    "甲状腺结节",
    "急性阑尾炎",
    "帕金森病",
    "克罗恩病",
    "白癜风",
)
DRUGS = (
    "布洛芬缓释胶囊",
    "阿司匹林肠溶片",
    "二甲双胍片",
    "氨氯地平",
    "阿托伐他汀",
    "头孢克肟",
    "奥美拉唑",
    "甲钴胺",
    "雷贝拉唑",
    "孟鲁司特",
)
TESTS = ("血常规", "胸部CT", "心电图", "肝功能", "糖化血红蛋白", "甲胎蛋白")
BANKS = ("招商银行", "工商银行", "建设银行", "农业银行")
PRODUCTS = ("信用卡分期", "房贷提前还款", "大额存单", "理财产品赎回", "账单争议", "手续费减免")

MEDICAL = (
    "患者{N}，{sex}，{age}岁，因{S}{n}天于{D}入住{H}。身份证号：{I}，联系电话{M}，家住{A}。既往有{K}病史，长期口服{G}。",
    "姓名：{N} 性别：{sex} 出生日期：{D} 病历号：{R} 住院号：{R}\n住址：{A}\n主诉：{S}{n}天。诊断：{K}。主治医师：{N}。",
    "{N}女士，身份证{I}，手机{M}，{D}来我院复诊，诉{S}，查{T}未见异常，予{G}口服，{N}医生嘱其随访。",
    "病人{N}（病案号{R}）由家属{N}陪同，联系方式{M}，邮箱{E}。查体：神清，{S}。辅助检查：{T}。初步诊断：{K}，建议{G}治疗。",
    "现病史：{N}于{n}天前出现{S}，自服{G}无好转。其妻{N}代诉，电话：{M}。医保卡号{R}。接诊医生{N}，护士{N}。",
    "{D}，{N}主任查房：患者{N}今日{S}较前好转，复查{T}，继续{G}，注意监测。家庭住址{A}，紧急联系人{N}（{M}）。",
    "出院小结：{N}，男，{age}岁，住院号{R}，因“{S}”入院，诊断为{K}。出院带药{G}。随访电话{M}，主管医生：{N}。",
)
BANKING = (
    "客户{N}（身份证号{I}）于{D}致电客服，咨询{P}，预留手机{M}，银行卡号{C}，开户行为{B}{Z}支行。经办人{N}。",
    "尊敬的{N}先生：您尾号的账户{C}于{D}办理{P}，如有疑问请联系客户经理{N}，电话{M}，邮箱{E}。",
    "投诉人：{N}，证件号码{I}，联系地址：{A}，反映{P}问题。处理人员{N}已于{D}回电{M}。",
    "户名{N}，卡号{C}，{D}申请{P}，收款人{N}，收款账号{C}，经办柜员{N}，联系电话{M}。",
    "我是{N}，卡号{C}，想问一下{P}怎么办，我的手机号是{M}，住在{A}，麻烦尽快回复。",
    "贷款申请人{N}，配偶{N}，身份证{I}，现居{A}，单位电话{L}，担保人{N}，保单号{R}，车牌号{V}。",
)
NEWS = (
    "据{N}介绍，该项目预计明年上半年完工。",
    "记者{N}从市教育局获悉，今年招生政策有所调整。",
    "公司董事长{N}在发布会上表示，下半年将继续扩大投资。",
    "{N}的新书上周在上海首发，吸引了上千名读者。",
    "在昨晚的比赛中，{N}独得32分，率队击败对手。",
    "导演{N}携主演{N}、{N}亮相首映礼。",
    "浙江大学教授{N}认为，房价短期内难有大幅波动。",
    "警方随后在一出租屋内将犯罪嫌疑人{N}抓获。",
    "{N}与{N}在决赛中相遇，最终{N}以三比一获胜。",
    "业主{N}告诉记者，小区停水已经三天了。",
    "替补登场的{N}在第八十分钟打入制胜一球。",
    "该银行行长{N}辞任，由{N}接任。",
    "演员{N}昨天在微博晒出近照。",
    "分析师{N}指出，市场情绪正在回暖。",
    "中国队主教练{N}赛后接受了采访。",
    "本报讯（通讯员{N}）近日，一场大雪袭击了北方多地。",
    "他的同学{N}说，他平时话不多。",
    "昨天{N}来到现场看望了受灾群众。",
)
WEIBO = (
    "今天跟{N}一起吃火锅，开心！", "{N}你真的太棒了[鼓掌]", "求{N}的联系方式，急急急", "@{N} 生日快乐呀",
    "刚刚在机场看到{N}了，本人好瘦", "我觉得{N}比{N}唱得好听", "{N}什么时候开演唱会啊", "想念{N}，想念大学的日子",
    "转发微博：{N}老师的课真有意思", "支持{N}！加油", "听说{N}要结婚了？", "{N}那句台词我能记一辈子",
)  # fmt: skip


def name(draw: random.Random, foreign: float = 0.05) -> str:
    """A made-up name of two to four characters, or now and then a foreign one."""
    if draw.random() < foreign:
        return draw.choice(FOREIGN)
    weights = range(len(SURNAMES), 0, -1)
    family = draw.choice(RARE) if draw.random() < 0.08 else draw.choices(SURNAMES, weights)[0]
    return family + "".join(draw.choice(GIVEN) for _ in range(1 if draw.random() < 0.25 else 2))


def resident(draw: random.Random, *, valid: bool = True) -> str:
    """An 18-character resident number in a region that nobody has, its check digit right or wrong."""
    body = f"{draw.choice((110199, 330199, 510199))}19{draw.randrange(40, 99)}"
    body += f"{draw.randrange(1, 13):02d}{draw.randrange(1, 29):02d}{draw.randrange(1000):03d}"
    total = sum(int(d) * pow(2, 17 - i, 11) for i, d in enumerate(body))
    right = "10X98765432"[total % 11]
    return body + (
        right if valid else "0123456789"[(draw.randrange(9) + 1) % 10].replace(right, "X")
    )


def card(draw: random.Random, *, digits: int = 19, valid: bool = True) -> str:
    """A number of 16 to 19 digits that begins as UnionPay's do."""
    body = "62" + "".join(str(draw.randrange(10)) for _ in range(digits - 3))
    ends = [d for d in "0123456789" if luhn(body + d) == valid]
    return body + draw.choice(ends)


def paragraphs(count: int, *, seed: int) -> list[Item]:
    """Paragraphs of hospitals and banks in turn."""
    draw = random.Random(f"paragraphs/{seed}")
    return [_fill(draw, draw.choice(MEDICAL if at % 2 == 0 else BANKING)) for at in range(count)]


def sentences(count: int, *, seed: int, kind: str) -> list[Item]:
    """Sentences of newspapers ("news") or microblogs ("weibo") with names in them."""
    draw = random.Random(f"{kind}/{seed}")
    return [_fill(draw, draw.choice(NEWS if kind == "news" else WEIBO)) for _ in range(count)]


def _fill(draw: random.Random, template: str) -> Item:
    text = ""
    gold: list[tuple[int, int, str]] = []
    keep: list[tuple[int, int]] = []
    for literal, slot in _parts(template):
        text += literal
        if not slot:
            continue
        value, kind = _value(draw, slot)
        if kind == "keep":
            keep.append((len(text), len(text) + len(value)))
        elif kind:
            gold.append((len(text), len(text) + len(value), kind))
        text += value
    return Item(text, tuple(gold), tuple(keep))


def _parts(template: str) -> Iterator[tuple[str, str]]:
    for piece in template.split("{"):
        slot, found, rest = piece.partition("}")
        if found:
            yield "", slot
            yield rest, ""
        else:
            yield piece, ""


def _value(draw: random.Random, slot: str) -> tuple[str, str]:
    def digits(count: int) -> str:
        return "".join(str(draw.randrange(10)) for _ in range(count))

    def pick(values: Sequence[str]) -> str:
        return draw.choice(values)

    valid = draw.random() < 0.8
    made = {
        "N": lambda: (name(draw), "name"),
        "I": lambda: (resident(draw, valid=valid), "id"),
        "M": lambda: (pick(("138", "159", "186", "177", "199")) + digits(8), "phone"),
        "L": lambda: (f"0{pick(('571', '28', '731', '10'))}-{draw.randrange(2, 9)}{digits(7)}", "phone"),
        "C": lambda: (card(draw, digits=pick((16, 18, 19)), valid=valid), "card"),
        "R": lambda: (pick(("", "ZY", "H", "MZ-")) + digits(8), "record"),
        "E": lambda: (f"{pick(('wang', 'li', 'chen'))}{digits(4)}@example.{pick(('com', 'cn'))}", "email"),
        "V": lambda: (pick("浙川湘京粤陕鲁辽") + pick("ABC") + pick(("", "D")) + digits(5), "plate"),
        "A": lambda: (_address(draw), "address"),
        "D": lambda: (_date(draw), "date"),
        "H": lambda: (pick(HOSPITALS), "hospital"),
        "S": lambda: (pick(SYMPTOMS), "keep"),
        "K": lambda: (pick(ILLNESSES), "keep"),
        "G": lambda: (pick(DRUGS), "keep"),
        "T": lambda: (pick(TESTS), "keep"),
        "P": lambda: (pick(PRODUCTS), "keep"),
        "B": lambda: (pick(BANKS), ""),
        "Z": lambda: (pick(("城西", "高新", "五一", "中关村")), ""),
        "n": lambda: (str(draw.randrange(2, 15)), ""),
        "age": lambda: (str(draw.randrange(18, 89)), ""),
        "sex": lambda: (pick("男女"), ""),
    }  # fmt: skip
    return made[slot]()


def _address(draw: random.Random) -> str:
    at = draw.randrange(len(CITIES))
    city = draw.choice((PROVINCES[at], "")) + CITIES[at] if draw.random() < 0.85 else ""
    number = f"{draw.randrange(1, 400)}号"
    home = draw.choice(("", draw.choice(HOMES)))
    room = f"{draw.randrange(1, 30)}栋{draw.randrange(1, 5)}单元{draw.randrange(101, 2800)}室"
    return city + draw.choice(ROADS) + number + home + draw.choice(("", room))


def _date(draw: random.Random) -> str:
    year, month, day = draw.randrange(1950, 2024), draw.randrange(1, 13), draw.randrange(1, 29)
    form = draw.choice(("{}年{}月{}日", "{}-{:02d}-{:02d}", "{}/{}/{}", "{}.{:02d}.{:02d}"))
    return form.format(year, month, day)
