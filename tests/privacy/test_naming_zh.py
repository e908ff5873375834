"""Chinese names are found whole where a role, a title or a form of address stands beside them."""

from __future__ import annotations

import pytest

from privacy import naming_zh


def found(text: str) -> set[str]:
    return {text[hit.start : hit.end] for hit in naming_zh.find(text)}


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("尊敬的仝若先生:您尾号的账户已结清", "仝若"),
        ("如有疑问请联系客户经理诸葛琪芬,电话", "诸葛琪芬"),
        ("配偶欧阳佳芬,身份证", "欧阳佳芬"),
        ("收款人尉迟芬,收款账号", "尉迟芬"),
        ("现病史:何行于4天前出现恶心", "何行"),
        ("收款人郑行书,收款账号", "郑行书"),
        ("处理人员于行思已于昨日回电", "于行思"),
        ("患者李皓行今日心悸较前好转", "李皓行"),
        ("2003年8月4日,迪丽娜扎主任查房", "迪丽娜扎"),
        ("患者阿卜杜拉·买买提今日关节肿痛", "阿卜杜拉·买买提"),
        ("患者克里斯托弗·诺兰德反复胸闷", "克里斯托弗·诺兰德"),
        ("致安娜·卡列宁娅女士", "安娜·卡列宁娅"),
    ],
)
def test_a_name_beside_what_tells_of_it_is_found_whole(text: str, name: str) -> None:
    assert any(name in one for one in found(text))


def test_a_foreign_name_ends_before_the_complaint() -> None:
    assert found("患者阿卜杜拉·买买提今日关节肿痛较前好转") == {"阿卜杜拉·买买提"}


def test_a_title_is_no_part_of_a_name() -> None:
    assert found("尊敬的王先生:您好") == {"王"}
    assert found("尊敬的仝若先生:您好") == {"仝若"}


def test_a_ward_round_is_nobodys_name() -> None:
    assert found("今日主任查房,患者一般情况可") == set()


@pytest.mark.parametrize("text", ["予布洛芬口服", "双氯芬酸钠,每日两次", "患者拟行手术治疗"])
def test_drugs_and_operations_are_nobodys_name(text: str) -> None:
    assert found(text) == set()
