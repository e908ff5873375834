"""Tables from TOML: what is allowed comes through, what is not gives one sentence and no value."""

from __future__ import annotations

import json
import math
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from configs import offered
from configs.errors import ConfigError
from configs.load import check, load, read_plan
from configs.run import Plan, Run, decimal
from configs.site import Coordinator, Site

DIGEST = "sha256:" + "0" * 64
RUN: dict[str, Any] = {"format": 1, "name": "triage",
                       "federation": {"institutions": ["clinic-a"]}}  # fmt: skip
SITE: dict[str, Any] = {"format": 1, "name": "clinic-a", "coordinator": "hub.example.org:8443"}
PLAN: dict[str, Any] = {
    "format": 1, "run": "triage", "model": "tiny", "model_digest": DIGEST, "adapter": {},
    "frozen_digest": DIGEST, "epsilon": "2", "delta": "0.00001", "noise_multiplier": "1.5",
    "clip_norm": "1", "sample_rate": "0.1", "rounds": 5, "steps_per_round": 4, "training": {},
    "task": {}, "institutions": ["clinic-a"], "quorum": 1, "round_timeout_s": "900",
}  # fmt: skip
SECRET = "zqsecretvalue"


def _with(base: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    changed: dict[str, Any] = json.loads(json.dumps(base))
    *parents, last = path.split(".")
    table = changed
    for part in parents:
        table = table.setdefault(part, {})
    table[last] = value
    return changed


NUMBERS = (0, -1, float("nan"), float("inf"), "no", None, [], {})
BAD: list[tuple[Any, dict[str, Any], str, Any]] = [
    *((Run, RUN, "privacy.epsilon", value) for value in (*NUMBERS, 10.5)),
    *((Run, RUN, "privacy.delta", value) for value in (*NUMBERS, 0.001, 1)),
    *((Run, RUN, "privacy.clip_norm", value) for value in (*NUMBERS, 1e7)),
    *((Run, RUN, "privacy.sample_rate", value) for value in (*NUMBERS, 1.01)),
    *((Run, RUN, "privacy.rounds", value) for value in (0, -1, 1.5, 1001, "five")),
    *((Run, RUN, "privacy.steps_per_round", value) for value in (0, 10_001)),
    *((Run, RUN, "training.learning_rate", value) for value in NUMBERS),
    *((Run, RUN, "training.schedule", value) for value in ("step", 1)),
    *((Run, RUN, "training.warmup_steps", value) for value in (-1, 1.5)),
    *((Run, RUN, "training.rate_floor", value) for value in (-0.1, 1.1, float("nan"))),
    *((Run, RUN, "training.weight_decay", value) for value in (-1, 101, float("nan"))),
    *((Run, RUN, "training.label_smoothing", value) for value in (-0.1, 0.6, float("nan"))),
    *((Run, RUN, "training.optimizer", value) for value in ("sgdm", 1)),
    *((Run, RUN, "adapter.rank", value) for value in (0, 257, "8.5")),
    *((Run, RUN, "adapter.method", value) for value in ("dora", SECRET)),
    *((Run, RUN, "name", value) for value in ("", "Über", "a b", "-a", "a" * 65, "../a")),
    *((Run, RUN, "name", value) for value in (SECRET + " ", SECRET + "\n")),
    *((Run, RUN, "federation.institutions", value) for value in ([], ["A"], "a", [SECRET + " "])),
    *((Run, RUN, "federation.quorum", value) for value in (0, -3)),
    *((Run, RUN, "federation.round_timeout_s", value) for value in (*NUMBERS, 86_401)),
    *((Run, RUN, "model.digest", value) for value in ("sha256:0", "md5:" + "0" * 64, SECRET)),
    *((Run, RUN, "evaluation.description", value) for value in ("a\nb", "x" * 129, "\"quoted\"")),
    *((Run, RUN, path, SECRET) for path in ("typo", "privacy.seed", "privacy.noise", "model.path")),
    *((Site, SITE, "budget.epsilon", value) for value in (*NUMBERS, 11)),
    *((Site, SITE, "policy.approve", value) for value in ("yes", True, SECRET)),
    *((Site, SITE, "policy.max_steps", value) for value in (0, -1)),
    *((Site, SITE, "coordinator", value) for value in ("hub", "hub:", "hub:x", "http://h:1")),
    *((Site, SITE, "coordinator", value) for value in ("h:1\n", 'h:1"', "")),
    *((Site, SITE, "runtime.port", value) for value in (-1, 65_536)),
    *((Site, SITE, "data.person_column", value) for value in ("", "x" * 101)),
    *((Site, SITE, path, SECRET) for path in ("budget.cap", "policy.allow", "datas")),
    *((Coordinator, {"name": "hub"}, "port", value) for value in (0, 65_536, "x")),
    *((Plan, PLAN, "unit", value) for value in ("record", SECRET)),
    *((Plan, PLAN, "adjacency", value) for value in ("add-remove", SECRET)),
    *((Plan, PLAN, "accountant", value) for value in ("rdp", SECRET)),
    *((Plan, PLAN, "noise_multiplier", value) for value in ("0", "-1", "nan", "inf", SECRET)),
    *((Plan, PLAN, "code", value) for value in ("import os", SECRET)),
]  # fmt: skip


@pytest.mark.parametrize(("table", "base", "path", "value"), BAD)
def test_a_bad_value_gives_one_sentence_that_names_the_key_and_not_the_value(
    table: Any, base: dict[str, Any], path: str, value: Any
) -> None:
    check(base, table, "run.toml")
    with pytest.raises(ConfigError) as refusal:
        check(_with(base, path, value), table, "run.toml")
    sentence = str(refusal.value)
    assert "\n" not in sentence
    assert sentence.startswith("run.toml: ")
    assert path.rpartition(".")[2] in sentence
    assert SECRET not in sentence
    assert refusal.value.exit_code == 2


@pytest.mark.parametrize("table", [Run, Site, Coordinator])
@pytest.mark.parametrize("written", [2, 99])
def test_a_newer_format_is_refused_by_name(table: Any, written: int) -> None:
    base = {Run: RUN, Site: SITE, Coordinator: {"name": "hub"}}[table]
    with pytest.raises(ConfigError, match=f"format {written} .* newer version"):
        check({**base, "format": written, "unheard-of": 1}, table, "x.toml")


@pytest.mark.parametrize(("table", "base"), [(Run, RUN), (Site, SITE), (Plan, PLAN)])
@pytest.mark.parametrize("written", [0, "1", True, 1.5, None])
def test_a_format_that_is_none_is_refused(table: Any, base: Any, written: Any) -> None:
    with pytest.raises(ConfigError, match="format"):
        check({**base, "format": written}, table, "x.toml")


def test_missing_keys_are_named() -> None:
    with pytest.raises(ConfigError, match="key 'federation' is missing"):
        check({"format": 1, "name": "a"}, Run, "x")
    with pytest.raises(ConfigError, match=r"key 'federation\.institutions' is missing"):
        check({"format": 1, "name": "a", "federation": {}}, Run, "x")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "does not exist"),
        (b"\xff\xfe", "UTF-8"),
        (b"name = ", "not valid TOML"),
        (f'name = "{SECRET}\n'.encode(), "not valid TOML"),
        (f'name = "a"\nname = "{SECRET}"\n'.encode(), "not valid TOML"),
    ],
)
def test_a_file_that_cannot_be_read_says_why(
    tmp_path: Path, content: bytes | None, words: str
) -> None:
    path = tmp_path / "site.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=words) as refusal:
        load(path, Site)
    assert str(path) in str(refusal.value)
    assert SECRET not in str(refusal.value)


@pytest.mark.parametrize("document", [b"", b"[]", b"1", b'"x"', b"\xff", b"{", b"null"])
def test_bytes_that_are_no_plan_are_refused(document: bytes) -> None:
    with pytest.raises(ConfigError, match="plan"):
        read_plan(document)


def test_a_plan_comes_back_from_its_own_document() -> None:
    plan = check(PLAN, Plan, "x")
    assert read_plan(json.dumps(plan.document()).encode()) == plan
    assert plan.document()["delta"] == "0.00001"
    assert plan.steps == 20


def test_tables_are_frozen() -> None:
    plan = check(PLAN, Plan, "x")
    with pytest.raises(ValueError, match="frozen"):
        plan.epsilon = 9.0  # type: ignore[misc]


@settings(max_examples=300)
@given(st.floats(allow_nan=False, allow_infinity=False))
@example(1e-05)
@example(-0.0)
@example(1e22)
@example(5e-324)
@example(1.7976931348623157e308)
def test_a_decimal_is_plain_and_comes_back_exactly(value: float) -> None:
    text = decimal(value)
    assert float(text) == value
    assert "e" not in text.lower()
    assert not (("." in text) and text.endswith(("0", ".")))
    assert Decimal(text) == Decimal(repr(value))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_decimal_of_no_number_is_never_read_back(value: float) -> None:
    with pytest.raises((ConfigError, ValueError)):
        check(_with(PLAN, "epsilon", decimal(value)), Plan, "x")


def test_the_default_bundle_is_the_same_everywhere() -> None:
    import io
    import zipfile

    from configs import flower_app

    with zipfile.ZipFile(io.BytesIO(flower_app.content())) as bundle:
        assert bundle.namelist() == ["pyproject.toml"]
        assert b"dependencies = []" in bundle.read("pyproject.toml")
    assert flower_app.digest() == flower_app.digest()
    assert len(flower_app.content()) < 1000


@pytest.mark.parametrize("labels", [[], ["a"], ["a", "a"]])
def test_the_choice_among_labels_needs_labels_to_choose_from(labels: list[str]) -> None:
    wish = {**RUN, "training": {"objective": "label"}, "task": {"labels": labels}}
    with pytest.raises(ConfigError, match=r"needs two or more distinct task.labels; list them"):
        check(wish, Run, "run.toml")
    assert check({**wish, "task": {"labels": ["a", "b"]}}, Run, "run.toml").task.labels


@pytest.mark.parametrize(
    ("key", "value", "why"),
    [
        *(("adapter.method", m, "watermark") for m in ("bitfit", "prompt-tuning", "prefix-tuning")),
        ("adapter.method", "full", "noise grows"),
        ("adapter.method", "dora", "magnitudes"),
        ("training.objective", "ppo", "preference"),
    ],
)
def test_what_is_not_offered_is_refused_with_its_reason(key: str, value: str, why: str) -> None:
    table, _, name = key.partition(".")
    with pytest.raises(ConfigError, match=f"{value} is not offered: .*{why}"):
        check({**RUN, table: {name: value}}, Run, "RUN.toml")


def test_both_factors_are_trained_at_one_institution_only() -> None:
    wish = {**RUN, "adapter": {"method": "lora"}}
    one = {**RUN["federation"], "institutions": ["clinic-a"], "quorum": 1}
    assert check({**wish, "federation": one}, Run, "RUN.toml").adapter.method == "lora"
    two = {**one, "institutions": ["clinic-a", "clinic-b"]}
    with pytest.raises(ConfigError, match="mean of factors"):
        check({**wish, "federation": two}, Run, "RUN.toml")
    with pytest.raises(ConfigError, match="compares institutions"):
        check({**wish, "federation": one, "aggregation": {"method": "median"}}, Run, "RUN.toml")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"training": {"schedule": "cosine", "warmup_steps": 20}}, "leaves none"),
        ({"training": {"weight_decay": 100, "learning_rate": 0.01}}, "reaches 1"),
        ({"training": {"objective": "preference", "thoughts": "learn"}}, "drop"),
        ({"training": {"objective": "preference", "label_smoothing": 0.1}}, "no place"),
        (
            {"training": {"objective": "preference"}, "privacy": {"notes_per_person": 2}},
            "one pair",
        ),
    ],
)
def test_settings_that_make_no_sense_together_are_refused(changes: Any, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        check({**RUN, **changes}, Run, "RUN.toml")


@pytest.mark.parametrize("key", sorted(offered.KEYS))
def test_a_key_that_is_not_offered_is_refused_with_its_reason(key: str) -> None:
    with pytest.raises(ConfigError, match=f"{key} is not offered: {offered.KEYS[key][:30]}"):
        check({**RUN, "training": {key: 1}}, Run, "RUN.toml")


def test_a_rule_to_stop_names_its_records_by_digest() -> None:
    with pytest.raises(ConfigError, match=r"stopping\.path needs stopping\.digest"):
        check({**RUN, "stopping": {"path": "public.jsonl"}}, Run, "RUN.toml")
    named = {"path": "public.jsonl", "digest": "sha256:" + "1" * 64}
    rule = check({**RUN, "stopping": named}, Run, "RUN.toml").stopping.rule
    assert rule is not None
    assert "path" not in rule.model_dump()
    assert check(RUN, Run, "RUN.toml").stopping.rule is None
