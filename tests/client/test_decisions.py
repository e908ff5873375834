"""Judging, deciding and remembering: the site's rules, a person's word, and asked-again rounds."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import privity
from client import cli, decisions, trainer
from client import judge as judge_module
from client.errors import ClientError
from client.judge import judge, mechanism
from client.outbox import Outbox
from configs.load import check
from configs.run import Plan
from configs.site import Site
from privacy.plan import epsilon
from privacy.wire import DECLINES
from server.errors import ServerError

DIGEST = "sha256:" + "0" * 64
OTHER = "sha256:" + "1" * 64


def _plan(**changes: Any) -> Plan:
    values: dict[str, Any] = {
        "run": "triage", "model": "smollm2-135m-instruct", "model_digest": DIGEST, "adapter": {},
        "frozen_digest": DIGEST, "epsilon": 2.0, "delta": 1e-5, "noise_multiplier": 2.3854,
        "clip_norm": 1.0, "sample_rate": 0.5, "rounds": 2, "steps_per_round": 2, "training": {},
        "task": {}, "institutions": ["clinic-a"], "quorum": 1, "round_timeout_s": 60.0,
    }  # fmt: skip
    return check(values | changes, Plan, "plan")


def _site(**tables: Any) -> Site:
    return check({"name": "clinic-a", "coordinator": "hub:1", **tables}, Site, "site.toml")


LISTED = decisions.digest(_plan())


@pytest.mark.parametrize(
    ("plan", "site", "reason"),
    [
        ({}, {}, "none"),
        ({"institutions": ["clinic-b"]}, {}, "plan-inconsistent"),
        ({"quorum": 2}, {}, "plan-inconsistent"),
        ({"epsilon": 1.0}, {}, "plan-inconsistent"),
        ({"noise_multiplier": 0.5}, {}, "plan-inconsistent"),
        ({"model": "other"}, {}, "model-not-allowed"),
        ({"delta": 1e-6, "epsilon": 10}, {}, "delta-mismatch"),
        ({}, {"policy": {"max_steps": 3}}, "too-many-steps"),
        ({}, {"policy": {"run_epsilon": 1.9}}, "epsilon-over-policy"),
        ({}, {"budget": {"epsilon": 1.9}}, "epsilon-over-budget"),
        ({"quorum": 1, "institutions": ["clinic-a", "bank-c"]}, {}, "none"),
        ({"model": "other"}, {"policy": {"models": ["other"]}}, "none"),
        ({}, {"policy": {"models": []}}, "model-not-allowed"),
        ({}, {"policy": {"plans": [DIGEST]}}, "plan-not-listed"),
        ({}, {"policy": {"plans": [DIGEST, LISTED]}}, "none"),
        ({"clip_norm": 2.0}, {"policy": {"plans": [LISTED]}}, "plan-not-listed"),
        ({"noise_multiplier": 2.38541}, {"policy": {"plans": [LISTED]}}, "plan-not-listed"),
        ({}, {"policy": {"plans": [LISTED], "run_epsilon": 1.0}}, "epsilon-over-policy"),
        ({}, {"policy": {"plans": [LISTED]}, "budget": {"epsilon": 1.0}}, "epsilon-over-budget"),
        ({}, {"policy": {"max_steps": 4}}, "none"),
        ({"adapter": {"method": "lora"}}, {"runtime": {"columns": 4}}, "needs-all-columns"),
        ({"adapter": {"method": "lora"}}, {"runtime": {"columns": 8}}, "none"),
        ({"adapter": {"method": "lora-xs"}}, {"runtime": {"columns": 4}}, "none"),
        ({}, {"policy": {"run_epsilon": 2.0}}, "none"),
    ],
)
def test_each_rule_has_its_word(plan: Any, site: Any, reason: str) -> None:
    assert judge(_plan(**plan), _site(**site), spent=(), reserved=False).reason == reason


def test_every_reason_is_a_word_of_the_wire() -> None:
    text = inspect.getsource(judge_module._reason)
    words = set(re.findall(r'return "([a-z-]+)"', text))
    assert words <= set(DECLINES)
    assert len(words) == 9


def test_an_acceptable_plan_is_trained_as_it_is_and_another_not_at_all(
    world: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never clamped: what is trained has the proposed numbers, or nothing is trained."""
    made = world("clinic-a", "strict")
    made.federation.set("strict", max_steps=1)
    made.connect()
    seen: list[Any] = []
    real = trainer.train

    def train(model: Any, people: Any, start: Any, plan: Any, **more: Any) -> Any:
        seen.append(plan)
        return real(model, people, start, plan, **more)

    monkeypatch.setattr(trainer, "train", train)
    state = made.train(made.federation.run_file())
    assert seen == [state.plan] * 2
    assert made.wire.sent("strict", "update") == []
    assert not made.spent("strict").rows
    (refused,) = made.events("strict", "request-refused")
    assert refused.fields["word"] == "too-many-steps"
    assert refused.fields["plan_digest"] == decisions.digest(state.plan)


def test_rules_that_became_stricter_hold_for_a_run_that_was_approved(
    world: Callable[..., Any],
) -> None:
    made = world("clinic-a")

    def stricter(site: str, request: Any) -> None:
        if request.metadata.group_id == "round-1":
            made.federation.set(site, max_steps=1)
            made.wire.stations[site].tasks._folder = made.sites[site]

    made.wire.before = stricter
    with pytest.raises(ServerError, match="round 2 has 0 of 1"):
        made.train(made.federation.run_file())
    assert made.wire.failures("clinic-a") == ["not-approved"]
    assert made.sites["clinic-a"].ledger().begun("triage") == {0}


def test_a_plan_that_was_swapped_before_the_approval_is_not_approved(
    federation: Callable[..., Any], capfd: pytest.CaptureFixture[str]
) -> None:
    site = federation(["clinic-a"]).sites["clinic-a"]
    looked_at, swapped = _plan(), _plan(clip_norm=2.0)
    decisions.remember(site, looked_at)
    decisions.remember(site, swapped)
    given = ["client", "approve", str(site.path), "triage", "--digest"]
    assert privity.main([*given, decisions.digest(looked_at)]) == 3
    assert "look at it first" in capfd.readouterr().err
    assert decisions.read(site, swapped) is None
    assert privity.main([*given, decisions.digest(swapped)]) == 0
    assert decisions.read(site, swapped) == "approved"


def test_the_site_believes_its_own_accountant() -> None:
    plan = _plan()
    verdict = judge(plan, _site(), spent=(), reserved=False)
    assert verdict.epsilon_run == verdict.epsilon_after == epsilon([mechanism(plan)], delta=1e-5)
    assert verdict.epsilon_before == 0.0
    again = judge(plan, _site(), spent=(mechanism(plan),), reserved=False)
    assert again.reason == "epsilon-over-budget"
    assert again.epsilon_after > verdict.epsilon_after
    held = judge(plan, _site(), spent=(mechanism(plan),), reserved=True)
    assert held.reason == "none"
    assert held.epsilon_after == verdict.epsilon_after


def test_a_comparison_with_no_number_declines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("privacy.plan.epsilon", lambda rows, delta: float("nan"))
    assert judge(_plan(), _site(), spent=(), reserved=False).reason != "none"


def test_a_decision_counts_for_exactly_its_plan(federation: Callable[..., Any]) -> None:
    site = federation(["clinic-a"]).sites["clinic-a"]
    plan, other = _plan(), _plan(clip_norm=2.0)
    with pytest.raises(ClientError, match="no run was proposed yet"):
        decisions.proposed(site, "triage")
    decisions.remember(site, plan)
    assert decisions.proposed(site, "triage") == plan
    with pytest.raises(ClientError, match="known runs: triage"):
        decisions.proposed(site, "other")
    assert decisions.read(site, plan) is None
    decisions.write(site, site.log(), plan, "approved", "operator")
    assert decisions.read(site, plan) == "approved"
    assert decisions.read(site, other) is None
    decisions.write(site, site.log(), plan, "refused", "operator")
    assert decisions.read(site, plan) == "refused"
    logged = [entry.event.fields["decision"] for entry in site.log().entries("approval")]
    assert logged == ["approved", "refused"]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"decision":"approved"}', b"\xff"])
def test_a_damaged_decision_approves_nothing(
    federation: Callable[..., Any], content: bytes
) -> None:
    site = federation(["clinic-a"]).sites["clinic-a"]
    decisions.remember(site, _plan())
    (site.run("triage") / "decision.json").write_bytes(content)
    assert decisions.read(site, _plan()) != "approved"


def test_the_outbox_answers_the_same_question_only(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "outbox", 3)
    arrays = {"m.B": np.arange(4, dtype=np.float32).reshape(2, 2)}
    assert outbox.read(DIGEST, DIGEST) is None
    outbox.write(DIGEST, OTHER, 7, arrays)
    index, back = outbox.read(DIGEST, OTHER) or (0, {})
    assert index == 7
    assert back["m.B"].tobytes() == arrays["m.B"].tobytes()
    assert outbox.read(DIGEST, DIGEST) is None
    assert outbox.read(OTHER, OTHER) is None
    assert Outbox(tmp_path / "outbox", 4).read(DIGEST, OTHER) is None
    for path in (tmp_path / "outbox").iterdir():
        assert path.stat().st_mode & 0o077 == 0


def test_an_outbox_without_its_facts_was_never_written(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path, 0)
    outbox.write(DIGEST, DIGEST, 1, {"a": np.zeros(1, np.float32)})
    (tmp_path / "round-0.json").unlink()
    assert outbox.read(DIGEST, DIGEST) is None


def test_what_was_decided_about_a_plan_is_about_its_digest() -> None:
    plan = _plan()
    assert decisions.digest(plan) == decisions.digest(check(plan.document(), Plan, "x"))
    for change in ({"clip_norm": 2.0}, {"rounds": 4}, {"noise_multiplier": 3.0}, {"quorum": 1},
                   {"institutions": ["clinic-a", "b"]}):  # fmt: skip
        other = _plan(**change)
        assert (decisions.digest(other) == decisions.digest(plan)) is (other == plan)
    assert json.loads(json.dumps(plan.document()))["noise_multiplier"] == "2.3854"


def test_a_digest_to_be_compared_is_never_cut(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "50")
    digest = "sha256:" + "0123456789abcdef" * 4
    cli._print({"plan_digest": digest, "cap": 2.0}, as_json=False)
    assert digest in "".join(capsys.readouterr().out.split())
