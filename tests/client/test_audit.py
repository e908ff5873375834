"""The audit's rules, what it keeps, shows and logs, and how it reaches the release's card."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from copy import deepcopy
from dataclasses import asdict
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

import privity
from client import audit, canaries, estimate, roc, twin, verdicts
from client import folder as folders
from client.audit import CONTROL, Effort
from client.errors import ClientError
from configs.load import load
from configs.run import Plan, Run
from model import catalog
from privacy import attack
from privacy.csprng import Csprng
from privacy.plan import Mechanism, epsilon

SMALL = Effort("quick", persons=3, canaries=80, guesses=70, looks=1)
ROWS = [Mechanism(2.2, 0.1, 20)]
DELTA = 1e-5


def _scores(*, know: bool, count: int = 160, guesses: int = 70) -> dict[str, Any]:
    coins = np.arange(count) % 2 == 0
    draws = np.random.default_rng(8)
    found = attack.evaluate(
        draws.random(count) + 2.0 * know * coins, coins, guesses=guesses, delta=DELTA
    )
    return dict(json.loads(json.dumps(asdict(found))))


def _parts() -> dict[str, Any]:
    """The parts of an audit in which everything is as it should be."""

    def part(noise: float, know: bool) -> dict[str, Any]:
        return {
            "noise_multiplier": noise, "canaries": 160, "verbatim": 0,
            "gradients": _scores(know=know), "losses": _scores(know=False),
        }  # fmt: skip

    return {
        "mechanism": {
            "draws": 1000, "expected": 0.45, "shift": {"estimate": 0.451, "bound": 0.44},
            "tolerance": 0.03, "correlation": 1.0, "passed": True,
        },
        "twin": part(2.2, know=False),
        "control": part(CONTROL, know=True),
    }  # fmt: skip


def _judged(parts: dict[str, Any]) -> dict[str, Any]:
    return verdicts.judge(ROWS, **parts, delta=DELTA, rates=(0.01, 0.1))


def test_a_sound_run_passes_by_every_rule() -> None:
    found = _judged(_parts())
    assert (found["verdict"], found["reasons"]) == ("passed", [])
    parts = [found[name]["verdict"] for name in ("mechanism", "twin", "control")]
    assert parts == ["passed", "passed", "caught"]


def _set(place: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(parts: dict[str, Any]) -> None:
        *path, last = place.split(".")
        for name in path:
            parts = parts[name]
        parts[last] = value

    return change


@pytest.mark.parametrize(
    ("change", "verdict", "parts"),
    [
        (_set("mechanism.passed", False), "failed", ("failed", "passed", "caught")),
        (_set("twin.gradients.epsilon_bound", 2.5), "failed", ("passed", "failed", "caught")),
        (_set("twin.losses.epsilon_bound", 2.5), "failed", ("passed", "failed", "caught")),
        (_set("twin.gradients.epsilon_bound", float("nan")), "failed",
         ("passed", "failed", "caught")),
        (_set("twin.losses.rate.interval.low", 0.5), "failed", ("passed", "failed", "caught")),
        (_set("twin.verbatim", 1), "failed", ("passed", "failed", "caught")),
        (_set("control.gradients.epsilon_bound", 3.0), "blind", ("passed", "passed", "missed")),
        (_set("control.gradients.epsilon_bound", float("nan")), "blind",
         ("passed", "passed", "missed")),
    ],
)  # fmt: skip
def test_each_rule_has_its_verdict(change: Any, verdict: str, parts: tuple[str, ...]) -> None:
    given = _parts()
    change(given)
    found = _judged(given)
    assert found["verdict"] == verdict
    assert len(found["reasons"]) == 1
    assert tuple(found[name]["verdict"] for name in ("mechanism", "twin", "control")) == parts


def _document(**changes: Any) -> dict[str, Any]:
    digest = "sha256:" + "0" * 64
    return {
        "run": "triage", "software": "privity 0", "plan_digest": digest, "core_digest": digest,
        "report_digest": digest, "effort": {"name": "quick"},
        "claim": {
            "epsilon": epsilon(ROWS, delta=DELTA), "delta": DELTA, "unit": "person",
            "adjacency": "zero-out", "noise_multiplier": 2.2, "sample_rate": 0.1, "steps": 20,
        },
        **_judged(_parts()), **changes,
    }  # fmt: skip


def test_the_page_loads_nothing_says_in_words_what_it_draws_and_needs_no_colour() -> None:
    text = roc.page(_document(run="<b>&", reasons=["a < b"]))
    assert "<b>&" not in text
    assert "&lt;b&gt;&amp;" in text
    assert set(re.findall(r"https?://[^\"' ]+", text)) == {"http://www.w3.org/2000/svg"}
    drawn = ElementTree.fromstring(text[text.index("<svg") : text.index("</svg>") + 6])
    space = "{http://www.w3.org/2000/svg}"
    assert [len(drawn.find(space + tag).text) > 40 for tag in ("title", "desc")] == [True, True]
    strokes = [(line.get("stroke-width"), line.get("stroke-dasharray"))
               for line in drawn.iter(space + "polyline")]  # fmt: skip
    assert len(set(strokes)) == len(strokes) == 5
    assert set(re.findall(r'stroke="(#\w+)"', text)) == {"#111", "#ccc"}


def test_no_word_of_a_report_says_that_an_audit_establishes_a_claim() -> None:
    for verdict in ("passed", "failed", "blind"):
        text = roc.page(_document(verdict=verdict)).lower()
        for word in ("prove", "certif", "guarantee", "confirm", "secure", "anonymous"):
            assert word not in text
        assert "it cannot establish one" in text
        assert "half of what it should be" in text


@pytest.fixture
def site(federation: Any) -> Any:
    return federation(("clinic-a",))


@pytest.fixture
def plan(site: Any) -> Plan:
    run = load(site.run_file(), Run)
    return estimate.proposal(run, catalog.find(run.model.name))


@pytest.fixture
def observed(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Twins of no cost: the attack finds everybody without noise, and nobody with it."""
    asked: list[float] = []

    def observe(*_: Any, noise_multiplier: float, **__: Any) -> twin.Observed:
        asked.append(noise_multiplier)
        coins = np.arange(160) % 2 == 0
        scores = np.random.default_rng(8).random(160)
        return twin.Observed(coins, scores + 2.0 * coins * (noise_multiplier == CONTROL), scores, 0)

    monkeypatch.setattr(twin, "observe", observe)
    return asked


def _quick(patch: pytest.MonkeyPatch) -> None:
    """Words of a fixed stream, so that no verdict is a matter of chance."""
    words = np.random.default_rng(1)
    patch.setattr(Csprng, "_words", lambda self, n: words.integers(0, 2**64, n, dtype=np.uint64))


def test_finished_parts_are_kept_privately_and_not_repeated_unless_asked(
    site: Any, plan: Plan, observed: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    _quick(monkeypatch)
    folder = site.sites["clinic-a"]
    first = audit.run(folder, plan, effort=SMALL, draws=5000)
    assert first.verdict == "passed", first.document["reasons"]
    assert observed == [plan.noise_multiplier, CONTROL]
    kept = sorted((folder.path / "audit").iterdir())
    assert len([path for path in kept if re.fullmatch(r"[0-9a-f]{32}\.json", path.name)]) == 3
    assert {path.stat().st_mode & 0o777 for path in kept} == {0o600}
    again = audit.run(folder, plan, effort=SMALL, draws=5000)
    assert again.digest == first.digest
    assert len(observed) == 2
    audit.run(folder, plan, effort=SMALL, draws=5000, again=True)
    assert len(observed) == 4
    audit.run(folder, plan.model_copy(update={"clip_norm": 2.0}), effort=SMALL, draws=5000)
    assert len(observed) == 6
    logged = [e.event.fields["report_digest"] for e in folder.log().entries("privacy-audit")]
    assert len(logged) == len(set(logged)) == 3  # the second asked for nothing new
    assert logged[0] == first.digest


def test_an_interrupted_audit_goes_on_at_the_part_that_was_not_finished(
    site: Any, plan: Plan, observed: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = twin.observe

    def interrupted(*given: Any, **numbers: Any) -> twin.Observed:
        if numbers["noise_multiplier"] == CONTROL:
            raise KeyboardInterrupt
        return whole(*given, **numbers)

    folder = site.sites["clinic-a"]
    with monkeypatch.context() as patch:
        patch.setattr(twin, "observe", interrupted)
        with pytest.raises(KeyboardInterrupt):
            audit.run(folder, plan, effort=SMALL, draws=1000)
    assert not list(folder.log().entries("privacy-audit"))
    audit.run(folder, plan, effort=SMALL, draws=1000)
    assert observed == [plan.noise_multiplier, CONTROL]


def test_a_damaged_part_is_done_again(site: Any, plan: Plan, observed: list[float]) -> None:
    folder = site.sites["clinic-a"]
    audit.run(folder, plan, effort=SMALL, draws=1000)
    for path in (folder.path / "audit").glob("*.json"):
        path.write_text("{}")
    audit.run(folder, plan, effort=SMALL, draws=1000)
    assert len(observed) == 4


def test_made_up_people_leave_the_records_unread_and_own_ones_leave_the_log_alone(
    site: Any, plan: Plan, observed: list[float], plain_scrub: None
) -> None:
    folder = site.sites["clinic-a"]
    size = folder.log().size
    own = audit.run(folder, plan, effort=SMALL, draws=1000, own_records=True)
    assert not own.logged
    assert folder.log().size == size
    folder.data.unlink()
    made_up = audit.run(folder, plan, effort=SMALL, draws=1000)
    assert made_up.logged
    assert folder.log().size == size + 1
    assert len(observed) == 4
    balance = folder.ledger().balance(
        folder.settings.budget.cohort, delta=plan.delta, cap=folder.settings.budget.epsilon
    )
    assert balance.spent == balance.reserved == 0.0


def test_a_part_is_done_again_where_the_machine_or_the_own_records_changed(
    site: Any, plan: Plan, observed: list[float], plain_scrub: None
) -> None:
    folder = site.sites["clinic-a"]

    def runs() -> int:
        audit.run(folder, plan, effort=SMALL, draws=1000, own_records=True)
        return len(observed)

    assert (runs(), runs()) == (2, 2)
    lines = folder.data.read_text().splitlines()
    folder.data.write_text("\n".join(lines[:-1]) + "\n")
    assert (runs(), runs()) == (4, 4)
    toml = folder.path / "site.toml"
    toml.write_text(re.sub(r"(?m)^chunk_tokens = \d+", "chunk_tokens = 512", toml.read_text()))
    folder = folders.open_folder(folder.path)
    assert folder.settings.runtime.chunk_tokens == 512
    assert (runs(), runs()) == (6, 6)


def test_the_whole_command_runs_a_real_twin_and_says_blind_where_it_sees_nothing(
    site: Any, plan: Plan, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The tiny model has fewer weights than there are canaries: an attack cannot tell them."""
    _quick(monkeypatch)
    monkeypatch.setattr(audit, "QUICK", SMALL)
    words = ["client", "audit", str(site.root / "clinic-a"), "--quick", "--draws", "5000"]
    assert privity.main(words) == 2  # no run was proposed
    assert "--plan RUN.toml" in capsys.readouterr().err
    words += ["--plan", str(site.root / "triage.toml")]
    assert privity.main([*words, "--json"]) == 4
    said = json.loads(capsys.readouterr().out)
    assert said["verdict"] == "blind"
    assert said["mechanism"]["verdict"] == "passed"
    assert privity.main(words) == 4
    shown = capsys.readouterr().out
    for part in ("claims ε =", "zero-out", "Blind:", "cannot establish", "report.html"):
        assert part in shown
    assert privity.main([*words, "--records", "theirs"]) == 2


@pytest.mark.parametrize(("objective", "notes"), [("response", 1), ("response", 2), ("label", 1)])
def test_a_twin_leaves_no_trace_in_the_model(
    site: Any, plan: Plan, objective: str, notes: int
) -> None:
    from client.border import spec
    from model import adapter, base

    training = plan.training.model_copy(update={"objective": objective})
    task = plan.task.model_copy(update={"labels": ("ward", "desk", "bank")})
    plan = plan.model_copy(update={"training": training, "task": task, "notes_per_person": notes})
    loaded = base.load(catalog.find(plan.model), threads=1)
    model = adapter.attach(loaded, spec(plan.adapter))
    seen = twin.observe(
        loaded, model, plan, twin.Size(2, 6, 2), noise_multiplier=1.0, chunk_tokens=256,
        progress=lambda what, done, total: None,
    )  # fmt: skip
    assert seen.gradients.shape == seen.losses.shape == seen.included.shape == (6,)
    assert np.isfinite(seen.gradients).all()
    assert all(not array.any() for array in adapter.read(model).values())
    planted = canaries.plant(loaded, 3, (), max_tokens=96)
    assert len({example.ids for example in planted}) == 3
    losses, verbatim = canaries.recall(model, planted, lambda done, total: None)
    assert (losses > 0).all()
    assert verbatim == 0


def test_a_run_that_does_not_invite_the_site_or_was_never_proposed_is_no_plan(site: Any) -> None:
    with pytest.raises(ClientError, match="no run was proposed"):
        audit.chosen_plan(site.sites["clinic-a"])
    path = site.run_file(institutions=["clinic-z"])
    assert privity.main(["client", "audit", str(site.root / "clinic-a"), "--plan", str(path)]) == 2


def test_the_outcome_reaches_the_release_card_and_the_bundle_verifies(
    world: Any, observed: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = world("clinic-a", "clinic-b")
    run_file = made.federation.run_file()
    run = load(run_file, Run)
    plan = estimate.proposal(run, catalog.find(run.model.name))
    report = audit.run(made.sites["clinic-a"], plan, effort=SMALL, draws=5000)
    made.train(run_file)
    assert audit.chosen_plan(made.sites["clinic-a"]) == plan
    released = made.release(run_file)
    assert made.verify(released).ok
    (card,) = made.coordinator.path.glob("releases/triage/coordinator/README.md")
    text = card.read_text()
    assert "## Empirical audits" in text
    assert f"| clinic-a | {report.verdict} |" in text
    assert "No audit of this plan is in the logs of: clinic-b." in text


def test_the_event_holds_numbers_and_words_only() -> None:
    from audit import kinds

    fields = verdicts.event(_document(), "sha256:" + "0" * 64)
    kinds.KINDS["privacy-audit"].check(fields, "privacy-audit")
    wild = deepcopy(_document())
    wild["mechanism"]["shift"]["estimate"] = 1e30
    kinds.KINDS["privacy-audit"].check(verdicts.event(wild, "sha256:" + "0" * 64), "x")
