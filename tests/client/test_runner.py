"""The runner: installed code answers, a foreign bundle is not opened, errors leave as codes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from flwr.app import Message as FlowerMessage
from flwr.app import RecordDict
from flwr.supercore.task_identity import TaskIdentity

from audit.errors import InconsistentLog, StaleRequest
from client import records, runner
from client.errors import ClientError
from configs import flower_app
from privacy.errors import BudgetExhausted, LedgerFault, PlanInvalid, RoundSpent
from privacy.wire import FAILURES


def _request(kind: str = "query.propose") -> FlowerMessage:
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 7, 1, 1
    request = FlowerMessage(RecordDict(), 9, kind)
    request.metadata.__dict__["_message_id"] = request.object_id
    return request


@pytest.mark.parametrize(
    ("fault", "word"),
    [
        (ClientError("zq", code="not-approved"), "not-approved"),
        (ClientError("zq", code="unknown-run"), "not-approved"),
        (ClientError("zq", code="log-restored"), "evidence-inconsistent"),
        (ClientError("zq", code="adapter-differs"), "plan-not-acceptable"),
        (ClientError("zq", code="all-quarantined"), "data-not-usable"),
        (BudgetExhausted("zq"), "budget-exhausted"),
        (RoundSpent("zq"), "round-already-spent"),
        (LedgerFault("zq"), "ledger-fault"),
        (PlanInvalid("zq"), "plan-not-acceptable"),
        (StaleRequest("zq", size=3), "evidence-inconsistent"),
        (
            InconsistentLog("zq", older="", newer="", proof=(), code="log-forked"),
            "evidence-inconsistent",
        ),
        (records._RecordError("zq"), "data-not-usable"),
        (ClientError("zq", code="records-missing"), "data-not-usable"),
        (ValueError("zq"), "failed"),
        (KeyError("code"), "failed"),
        (MemoryError(), "failed"),
    ],
)
def test_every_fault_leaves_as_a_fixed_word(fault: Exception, word: str) -> None:
    error = runner.error_for(fault)
    assert (error.code, error.reason) == ({w: c for c, w in FAILURES.items()}[word], word)


def test_an_unknown_question_is_not_answered(caplog: pytest.LogCaptureFixture) -> None:
    tasks: Any = SimpleNamespace(answer=lambda message: pytest.fail("it was answered"))
    for kind in ("train", "evaluate", "query.other"):
        assert runner.answer(tasks, _request(kind)).error.reason == "unknown-message"
    assert runner.answer(tasks, _request()).error.reason == "refused-by-gate"


def test_a_foreign_exception_is_named_by_its_type_only(caplog: pytest.LogCaptureFixture) -> None:
    from privacy import flower
    from privacy.wire import Message

    def explode(message: Message) -> Message:
        raise ValueError("zqsecret")

    request = _request()
    request.content = flower.to_records(Message("propose", b"{}"))
    tasks: Any = SimpleNamespace(answer=explode)
    assert runner.answer(tasks, request).error.reason == "failed"
    assert "unforeseen ValueError" in caplog.text
    assert "zqsecret" not in caplog.text


@pytest.mark.parametrize("own", [True, False])
def test_a_run_with_a_foreign_bundle_is_not_answered(
    own: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = _request()
    pushed: list[FlowerMessage] = []
    done: list[str] = []
    fab = SimpleNamespace(content=property(lambda _: pytest.fail("the bundle was opened")))
    digest = flower_app.digest() if own else "0" * 64
    run = SimpleNamespace(fab_hash=digest)
    client = SimpleNamespace(close=lambda: done.append("closed"))
    monkeypatch.setattr(runner.RuntimeHttpClient, "from_server_address", lambda *_, **__: client)
    monkeypatch.setattr(
        runner, "HeartbeatSender",
        lambda beat: SimpleNamespace(start=lambda: None, is_running=False),
    )  # fmt: skip
    monkeypatch.setattr(runner, "make_task_heartbeat_fn_http", lambda client: None)
    monkeypatch.setattr(runner, "pull_task_input", lambda client: (request, None, run, fab))
    monkeypatch.setattr(runner, "push_message", lambda c, message, x: pushed.append(message))
    monkeypatch.setattr(runner, "push_task_output", lambda *_: done.append("output"))
    answered: list[Any] = []

    def answer(tasks: Any, message: FlowerMessage, refusals: Any) -> FlowerMessage:
        answered.append(message)
        return FlowerMessage(RecordDict(), reply_to=message)

    monkeypatch.setattr(runner, "answer", answer)
    tasks: Any = None
    noted: list[tuple[str, str]] = []
    refusals: Any = SimpleNamespace(note=lambda *words: noted.append(words))
    runner._work(tasks, "127.0.0.1:1", "token", refusals)
    assert done == ["output", "closed"]
    assert bool(answered) is own
    assert pushed[0].has_error() is not own
    if not own:
        assert pushed[0].error.reason == "refused-by-gate"
    assert noted == ([] if own else [("task", "refused-by-gate")])
