"""The card and the bill of materials say every claim completely and hide no absence."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import re
from datetime import UTC, datetime, timedelta, timezone

import pytest

from server import bom, card, facts
from server.errors import ServerError

DIGEST = "sha256:" + "1" * 64
SITES = ("clinic-a", "clinic-b")
FACTS = facts.ReleaseFacts(
    release="triage-2026-11",
    run="triage",
    coordinator="north-consortium",
    software="privity 0.1.0",
    time=datetime(2026, 11, 22, 9, 30, tzinfo=UTC),
    licence="Apache-2.0",
    base_model="smollm2-135m-instruct",
    base_digest=DIGEST,
    seed="triage/1",
    plan={"rounds": 2, "clip_norm": 1.0},
    plan_digest=DIGEST,
    institutions=SITES,
    claims=tuple(facts.Claim(name, 1.23401, 1e-6, 2.0, "patient", "zero-out") for name in SITES),
    rounds=tuple(facts.Participation(i, SITES) for i in range(2)),
    data={"Languages": "English", "Kind": "referral letters, de-identified"},
    evaluation=facts.Evaluation(
        "generated notes", 640, facts.Scores(0.25, 0.2, 3.5), facts.Scores(0.75, 0.7, 1.5)
    ),
    mark=facts.Mark(0.05, DIGEST, {"clinic-a": DIGEST, "clinic-b": DIGEST}),
)


def render(**changes: object) -> str:
    return card.text(dataclasses.replace(FACTS, **changes), adapter_digest=DIGEST)


def test_each_privacy_claim_stands_complete_in_one_sentence() -> None:
    text = render()
    sentences = [s for s in re.split(r"\.\s", text) if "differentially private" in s.lower()]
    assert len(sentences) == len(SITES)
    for name, sentence in zip(SITES, sentences, strict=True):
        for word in (name, "ε = 1.235", "δ = 1e-06", "patient", "zero-out", "run triage", "cohort"):
            assert word in sentence


def test_a_printed_epsilon_is_never_below_the_computed_one() -> None:
    for epsilon in (0.0, 0.0001, 1.9994, 1.99951, 2.0, 1.2345):
        claim = dataclasses.replace(FACTS.claims[0], epsilon=epsilon)
        shown = float(re.search(r"ε = ([0-9.]+)", card.claim_sentence(claim, run="r"))[1])
        assert epsilon <= shown < epsilon + 0.002


def test_the_card_says_what_is_not_claimed_and_never_calls_anything_secure_or_anonymous() -> None:
    text = render().lower()
    assert "## what is not claimed" in text
    for word in ("anonymous", "secure", "proves", "guaranteed"):
        assert word not in text


def test_a_run_that_ended_on_a_subset_says_so() -> None:
    assert "All invited institutions took part in every round" in render()
    rounds = (FACTS.rounds[0], facts.Participation(1, ("clinic-a",), absent=("clinic-b",)))
    text = render(rounds=rounds)
    assert "Not every invited institution took part in every round" in text
    assert "| 2 | clinic-a | none | clinic-b |" in text


def test_absent_evaluation_watermark_and_data_are_said() -> None:
    text = render(evaluation=None, mark=None, data={})
    assert "was not evaluated" in text
    assert "carries no watermark" in text
    assert "published nothing about their data" in text


def test_the_evaluation_table_names_its_number_of_records() -> None:
    text = render()
    assert "On 640 records" in text
    assert "| this release | 0.750 | 0.700 | 1.500 |" in text


def test_front_matter_is_what_the_hub_reads() -> None:
    yaml = pytest.importorskip("yaml", reason="PyYAML reads the front matter")
    head = yaml.safe_load(render(base_model='x"\nlicense: "mit').split("---")[1])
    assert head["base_model"] == 'x"\nlicense: "mit'
    assert (head["library_name"], head["license"]) == ("peft", "apache-2.0")


def test_free_text_cannot_break_out_of_its_place() -> None:
    text = render(data={"Kind": "a | b\n## Evaluation\n<script>alert(1)</script>"})
    assert text.count("\n## Evaluation") == 1
    assert "<script>" not in text


@pytest.mark.parametrize(
    "change",
    [
        {"claims": FACTS.claims[:1]},
        {"claims": (*FACTS.claims, FACTS.claims[0])},
        {"claims": (dataclasses.replace(FACTS.claims[0], epsilon=2.1), FACTS.claims[1])},
        {"claims": (dataclasses.replace(FACTS.claims[0], epsilon=float("nan")), FACTS.claims[1])},
        {"claims": (dataclasses.replace(FACTS.claims[0], cap=float("nan")), FACTS.claims[1])},
        {"claims": (dataclasses.replace(FACTS.claims[0], delta=0.0), FACTS.claims[1])},
        {"claims": (dataclasses.replace(FACTS.claims[0], unit=""), FACTS.claims[1])},
        {"claims": (dataclasses.replace(FACTS.claims[0], adjacency=""), FACTS.claims[1])},
        {"rounds": ()},
        {"rounds": (facts.Participation(0, (), absent=SITES),)},
        {"rounds": (facts.Participation(0, ("clinic-a",)),)},
        {"rounds": (facts.Participation(0, (*SITES, "stranger")),)},
        {"time": datetime(2026, 1, 1)},
        {"evaluation": dataclasses.replace(FACTS.evaluation, records=0)},
    ],
)
def test_incomplete_or_untrue_facts_are_refused(change: dict) -> None:
    facts.check(FACTS)
    with pytest.raises(ServerError, match="cannot be cut"):
        facts.check(dataclasses.replace(FACTS, **change))


def bill(**changes: object) -> dict:
    stated = dataclasses.replace(FACTS, **changes)
    return json.loads(bom.text(stated, files={"adapter_model.safetensors": DIGEST}))


def test_the_bill_of_materials_carries_hashes_claims_and_scores() -> None:
    document = bill()
    adapter = document["metadata"]["component"]
    assert adapter["components"][0]["hashes"] == [{"alg": "SHA-256", "content": "1" * 64}]
    claims = adapter["modelCard"]["considerations"]["ethicalConsiderations"]
    assert [claim["mitigationStrategy"] for claim in claims] == [
        card.claim_sentence(claim, run="triage") for claim in FACTS.claims
    ]
    metrics = adapter["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]
    assert len(metrics) == 6
    assert all("640 records" in metric["slice"] for metric in metrics)


def test_equal_facts_give_equal_bills_and_others_another_serial_number() -> None:
    assert bill() == bill()
    assert bill()["serialNumber"] != bill(run="other")["serialNumber"]
    shifted = FACTS.time.astimezone(timezone(timedelta(hours=8)))
    assert bill()["metadata"]["timestamp"] == bill(time=shifted)["metadata"]["timestamp"]


PRESENT = importlib.util.find_spec("cyclonedx") and importlib.util.find_spec("jsonschema")


@pytest.mark.skipif(
    not PRESENT, reason="cyclonedx-python-lib[json-validation] is not installed; it has the schema"
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_bill_is_valid_under_the_strict_schema_and_a_bogus_key_is_not() -> None:
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    validator = JsonStrictValidator(SchemaVersion.V1_6)
    for changes in ({}, {"evaluation": None, "mark": None, "data": {}, "licence": "house rules"}):
        document = bill(**changes)
        assert validator.validate_str(json.dumps(document)) is None
    document["metadata"]["component"]["modelCard"]["bogus"] = 1
    assert validator.validate_str(json.dumps(document)) is not None


def test_a_model_that_was_trained_to_choose_is_said_to_choose_and_how_it_was_judged() -> None:
    words = "judged by the label it finds most probable"
    assert words not in render()
    assert words in render(plan={**FACTS.plan, "training": {"objective": "label"}})
