"""Words and templates of the made-up records in Chinese; same tables as `demo.lexicon`."""
# ruff: noqa: RUF001 - full-width punctuation is how Chinese is written.

from __future__ import annotations

from typing import Final

QUESTION: Final = "应由哪个部门处理？"

SURNAMES: Final = (
    "王", "李", "张", "刘", "陈", "杨", "赵", "黄", "周", "吴", "徐", "孙", "胡", "朱", "高", "林",
    "何", "郭", "马", "罗", "梁", "宋", "郑", "谢", "韩", "唐", "冯", "于", "董", "萧", "欧阳",
    "司马",
)  # fmt: skip
GIVEN: Final = (
    "建国", "秀英", "伟", "芳", "志强", "丽娟", "明哲", "雨桐", "海燕", "文博", "静怡", "俊杰",
    "晓梅", "思远", "玉兰", "浩然", "婷婷", "国栋", "春花", "子涵", "立新", "佳琪", "振华", "雪莹",
    "一鸣", "桂芝",
)  # fmt: skip
PLACES: Final = (
    "北京市海淀区中关村大街", "上海市浦东新区世纪大道", "广东省深圳市南山区科技路",
    "浙江省杭州市西湖区文三路", "四川省成都市武侯区人民南路", "江苏省南京市鼓楼区中山路",
    "湖北省武汉市洪山区珞喻路", "陕西省西安市雁塔区长安路",
)  # fmt: skip
MAIL_HOSTS: Final = ("example.com", "example.org", "example.net")
MOBILES: Final = ("130", "135", "138", "150", "159", "177", "180", "186", "189", "198")
# Region codes of the right form that no county holds.
REGIONS: Final = ("110199", "310199", "440399", "330199", "510199", "320199")

FINDINGS: Final[dict[str, dict[str, tuple[str, ...]]]] = {
    "hospital": {
        "cardiology": (
            "近两天胸闷心悸", "爬楼梯时胸口疼", "夜间心跳过快", "血压一直偏高",
            "心脏起搏器需要复查", "心律不齐", "心梗后来复诊", "活动后气短伴心衰",
        ),
        "orthopedics": (
            "打球后膝盖肿痛", "摔倒后手腕疼", "腰部扭伤", "肩膀活动受限", "脚踝扭伤", "石膏太紧",
            "疑似前臂骨折", "髋关节疼痛",
        ),
        "pediatrics": (
            "孩子发烧耳朵疼", "宝宝不肯喝奶", "婴儿鼻塞", "幼儿误吞硬币", "儿童疫苗到期",
            "新生儿皮肤发黄", "孩子夜里咳嗽", "孩子出水痘",
        ),
        "dermatology": (
            "双臂皮疹发痒", "痣的颜色变深", "痤疮加重", "手部皮肤干裂", "头皮脱屑", "湿疹复发",
            "皮肤晒伤起泡", "灰指甲",
        ),
        "neurology": (
            "偏头痛伴闪光", "左手手指麻木", "上周癫痫发作", "头晕看东西重影", "右手发抖",
            "记忆力下降", "突发剧烈头痛", "今早口角歪斜",
        ),
        "billing": (
            "账单重复收费", "咨询未付的发票", "要求分期付款", "退款没有到账", "发票金额有误",
            "要费用明细清单", "咨询检查价格", "补开收据",
        ),
    },
    "bank": {
        "cards": (
            "新办的银行卡刷不了", "忘记信用卡密码", "卡被取款机吞了", "想提高信用卡额度",
            "卡片过期没有换新卡", "想激活新卡", "想注销旧信用卡", "卡片消磁了",
        ),
        "loans": (
            "想贷款买车", "咨询房贷利率", "想提前还贷", "本月贷款还不上", "房贷申请还没批",
            "想延长贷款期限", "想合并两笔贷款", "要助学贷款还款计划",
        ),
        "transfers": (
            "转账一直没有到账", "汇款汇错了人", "想设置定期转账", "跨境汇款被卡住", "要转账凭证",
            "转账手续费太高", "想提高转账限额", "想撤回昨天的转账",
        ),
        "fraud": (
            "有一笔不是本人的消费", "接到诈骗电话要密码", "收到可疑短信链接", "被陌生人盗刷",
            "在假网站输入了验证码", "怀疑身份被冒用", "网购被骗", "有人冒充银行客服",
        ),
        "accounts": (
            "想开储蓄账户", "想销户", "要去年的账户流水", "搬家要改地址", "网银登录被锁",
            "账户管理费变了", "要账户余额证明", "想激活休眠账户",
        ),
        "insurance": (
            "房屋受灾要报保险", "想加旅行保险", "自行车被盗要理赔", "咨询家财险保障", "想退寿险",
            "车险保费涨了", "水管爆裂要理赔", "理赔被拒",
        ),
    },
}  # fmt: skip

OPENINGS: Final[dict[str, tuple[str, ...]]] = {
    "hospital": (
        "患者{name}，{finding}。",
        "{date}就诊，患者{name}，{finding}。",
        "姓名：{name}，主诉：{finding}。",
        "患者{name}，病历号{record}，{finding}。",
        "{name}的家属来电：{finding}。",
        "主治医生{doctor}转来患者{name}：{finding}。",
        "分诊：{finding}，住院号{record}。",
        "患者{name}，{birth}出生，{finding}。",
    ),
    "bank": (
        "您好，我叫{name}，{finding}。",
        "客户{name}来电：{finding}。",
        "{date}起{finding}，我是{name}。",
        "客户号{record}，{finding}。",
        "本人{name}，{finding}，请处理。",
        "姓名：{name}，问题：{finding}。",
        "网点留言：{finding}，联系人{name}。",
        "我叫{name}，{birth}出生，{finding}。",
    ),
}

DETAILS: Final[dict[str, tuple[str, ...]]] = {
    "hospital": (
        "电话{phone}。",
        "住址：{address}。",
        "身份证号{national}。",
        "邮箱{email}。",
        "联系人{relative}，手机{phone}。",
        "复诊时间{date}。",
        "每天服药两次，已三周。",
        "已等候两小时。",
    ),
    "bank": (
        "手机{phone}。",
        "卡号{card}。",
        "身份证号{national}。",
        "请发邮件到{email}。",
        "家住{address}。",
        "联系人{relative}，电话{phone}。",
        "已经三天了。",
        "{date}投诉过。",
    ),
}
