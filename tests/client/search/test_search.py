"""A search tries settings on public records, or on private ones, for which it pays."""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from client import cli, people
from client import train as training
from client.cell import Cell
from client.errors import ClientError
from client.search import conduct, paid, space, study
from client.search.conduct import Wish
from client.trainer import Trainer
from configs.errors import ConfigError
from configs.load import check
from configs.search import Space
from demo import generate
from model import catalog
from privacy.csprng import Csprng
from privacy.plan import epsilon

pytest.importorskip("optuna")
SPACE = """\
format = 1
[between]
learning_rate = [0.001, 0.1]
[among]
first_layer = [0, 1]
"""


@pytest.fixture
def world(federation: Callable[..., Any], tmp_path: Path) -> Any:
    made = federation(("clinic-a",))
    made.proxy = tmp_path / "public.jsonl"
    generate.write_jsonl(made.proxy, generate.persons("hospital", count=24, seed=77), "public")
    made.space = tmp_path / "space.toml"
    made.space.write_text(SPACE)
    return made


def _wish(world: Any, **changes: Any) -> Wish:
    file = changes.pop("run_file", None) or world.run_file(rounds=1, sample_rate=1.0)
    values = {"proxy": world.proxy, "space": world.space, "trials": 2, "persons": 10**6}
    return Wish(file, **{**values, **changes})


def _search(world: Any, wish: Wish, **more: Any) -> conduct.Found:
    return conduct.search(world.sites["clinic-a"], wish, agree=lambda cost, count: None, **more)


def _rows(world: Any) -> Any:
    site = world.sites["clinic-a"]
    return site.ledger().rows(site.settings.budget.cohort)


def test_trials_learn_from_public_records_and_cost_nothing(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(people, "read", lambda folder: pytest.fail("records were opened"))
    run_file = world.run_file(rounds=3, sample_rate=1.0)
    text = run_file.read_text().replace("max_tokens = 96", "max_tokens = 96\nlearning_rate = 0.03")
    run_file.write_text(text)
    found = _search(world, _wish(world, run_file=run_file, trials=3))
    assert [one.number for one in found.trials] == [0, 1, 2]
    assert found.trials[0].settings == {"learning_rate": 0.03, "first_layer": 0}  # the run's own
    assert found.best is not None
    assert found.best.score is not None
    assert found.best.score.loss < found.base.loss
    assert found.best.score.loss == min(one.score.loss for one in found.trials if one.score)
    assert _rows(world) == ()
    assert not list(world.sites["clinic-a"].log().entries("budget-reserved"))


def test_the_best_settings_are_tables_of_a_run(world: Any) -> None:
    found = _search(world, _wish(world))
    assert found.best is not None
    import tomllib

    tables = tomllib.loads(found.toml)
    tried = found.best.settings["learning_rate"]
    assert tables["training"]["learning_rate"] == pytest.approx(tried, rel=1e-3)
    layers = {int(path.split(".")[2]) for path in tables["adapter"]["targets"]} or {0, 1}
    assert min(layers) == found.best.settings["first_layer"]
    given = tomllib.loads(_wish(world).run_file.read_text())
    again = world.root / "again.toml"
    merged = check({**given, **tables}, type(space.read_run(_wish(world).run_file, "a")), "again")
    assert merged.privacy.epsilon == 2.0
    del again
    assert (found.place / "best.toml").read_text() == found.toml


def test_a_search_goes_on_where_it_was_stopped(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rehearse, calls = conduct.trial.rehearse, []

    def stopped(*args: Any, **settings: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return rehearse(*args, **settings)

    monkeypatch.setattr(conduct.trial, "rehearse", stopped)
    with pytest.raises(KeyboardInterrupt):
        _search(world, _wish(world))
    found = _search(world, _wish(world))
    assert len(calls) == 3  # one that was finished, the stopped one, one anew
    assert sum(one.score is not None for one in found.trials) == 2
    assert len(_search(world, _wish(world)).trials) == 2
    assert len(calls) == 3


def test_another_space_or_proxy_is_another_search(world: Any) -> None:
    _search(world, _wish(world, trials=1))
    with pytest.raises(ClientError, match="differs in persons; give this one another --name"):
        _search(world, _wish(world, trials=1, persons=7))
    world.space.write_text(SPACE.replace("0.1]", "0.2]"))
    with pytest.raises(ClientError, match="differs in space; give this one another --name"):
        _search(world, _wish(world, trials=1))


def test_a_search_that_was_killed_before_it_wrote_anything_begins(
    world: Any, tmp_path: Path
) -> None:
    wished = check(tomllib.loads(SPACE), Space, "space")
    path = tmp_path / "study.sqlite"
    path.touch()
    begun = study.Study(path, wished, {"run": "a"})
    assert study.Study(path, wished, {"run": "a"}).begun == begun.begun == 0
    with pytest.raises(ClientError, match="differs in run"):
        study.Study(path, wished, {"run": "b"})


@pytest.mark.parametrize("how", ["itself", "copy", "link", "inside"])
def test_the_institutions_own_records_are_no_proxy(world: Any, how: str, tmp_path: Path) -> None:
    site = world.sites["clinic-a"]
    given = {"itself": site.data, "inside": site.path / "prepared.jsonl"}.get(
        how, tmp_path / "given.jsonl"
    )
    if how == "link":
        given.symlink_to(site.data)
    elif how == "inside":
        given.write_bytes(world.proxy.read_bytes())
    elif how == "copy":
        given.write_bytes(site.data.read_bytes())
    with pytest.raises(ClientError, match="cost ε") as fault:
        _search(world, _wish(world, proxy=given))
    assert fault.value.exit_code == 3
    assert fault.value.code == "proxy-is-private"


def test_the_noise_of_a_trial_is_that_of_the_run_in_the_mean_gradient(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, Any]] = []
    train = training.train

    def watched(model: Any, persons: Any, start: Any, plan: Any, **settings: Any) -> Any:
        seen.append((len(persons), plan))
        return train(model, persons, start, plan, **settings)

    monkeypatch.setattr(training, "train", watched)
    found = _search(world, _wish(world, trials=1, persons=1000))
    (count, plan), sigma = seen[0], found.trials[0].facts["noise_multiplier"]
    own = sigma * plan.clip_norm / (plan.sample_rate * 1000)
    assert plan.noise_multiplier * plan.clip_norm / (plan.sample_rate * count) == pytest.approx(own)
    assert epsilon([conduct.paid.mechanism(plan.model_copy(update={"noise_multiplier": sigma}))],
                   delta=1e-5) <= 2.0  # fmt: skip


def test_private_trials_are_all_charged_before_the_first_record_is_opened(
    world: Any, plain_scrub: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    site, held = world.sites["clinic-a"], []
    read = people.read

    def watched(folder: Any) -> Any:
        held.append((len(_rows(world)), sum(row.rounds_begun for row in _rows(world))))
        return read(folder)

    monkeypatch.setattr(people, "read", watched)
    told: list[tuple[conduct.Cost, int]] = []
    wish = _wish(world, run_file=world.run_file(epsilon=1.0), private=True, trials=2)
    found = conduct.search(
        site, wish, agree=lambda cost, count: told.append((cost, count)), trainer=Trainer(site)
    )
    assert held == [(2, 1), (2, 3)]  # both reserved, and the round begun, before either is opened
    rows = _rows(world)
    assert [row.rounds_begun for row in rows] == [2, 2]
    after = epsilon([row.mechanism for row in rows], delta=1e-5)
    assert found.cost is not None
    assert found.cost.after == pytest.approx(after) == told[0][0].after
    assert 1.0 < after <= 2.0
    log = site.log()
    logged = [float(e.event.fields["epsilon_after"]) for e in log.entries("budget-reserved")]
    assert logged[-1] == pytest.approx(after, abs=1e-5)
    assert len(list(log.entries("dp-training"))) == 4
    assert {e.event.run for e in log.entries("approval")} == {row.run for row in rows}
    assert all(one.score is not None for one in found.trials)


def test_private_trials_beyond_the_cap_cost_nothing_and_open_nothing(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(people, "read", lambda folder: pytest.fail("records were opened"))
    with pytest.raises(ClientError, match=r"epsilon-over-budget.*nothing was charged"):
        _search(world, _wish(world, private=True, trials=3))
    assert _rows(world) == ()


def test_whoever_does_not_agree_is_not_charged(world: Any) -> None:
    def refuse(cost: conduct.Cost, count: int) -> None:
        assert count == 1
        raise ClientError("no")

    with pytest.raises(ClientError, match="no"):
        conduct.search(world.sites["clinic-a"], _wish(world, private=True, trials=1), agree=refuse)
    assert _rows(world) == ()


def test_private_settings_are_fixed_before_any_score(
    world: Any, plain_scrub: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second trial's settings are in the ledger's digest before the first trial is scored."""
    site = world.sites["clinic-a"]
    wish = _wish(world, run_file=world.run_file(epsilon=0.9), private=True, trials=2)
    before: list[list[str]] = []
    train = paid.train

    def watched(*args: Any, **settings: Any) -> Any:
        before.append([row.plan_digest for row in _rows(world)])
        return train(*args, **settings)

    monkeypatch.setattr(paid, "train", watched)
    found = _search(world, wish, trainer=Trainer(site))
    assert before[0] == [one.facts["plan_digest"] for one in found.trials]


def test_a_stopped_private_search_charges_nothing_twice(
    world: Any, plain_scrub: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = world.sites["clinic-a"]
    wish = _wish(world, run_file=world.run_file(epsilon=0.9), private=True, trials=2)
    reserve = paid.reserve

    def dies(folder: Any, plans: Any) -> Any:
        reserve(folder, plans[:1])
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(paid, "reserve", dies)
        with pytest.raises(KeyboardInterrupt):
            _search(world, wish, trainer=Trainer(site))
    assert len(_rows(world)) == 1
    found = _search(world, wish, trainer=Trainer(site))
    assert [row.rounds_begun for row in _rows(world)] == [2, 2]
    assert [one.facts["run"] for one in found.trials] == [row.run for row in _rows(world)]
    _search(world, wish, trainer=Trainer(site))
    assert len(_rows(world)) == 2


def test_private_trials_that_the_cell_cannot_train_are_not_paid_for(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def load(self: Cell, plan: Any, digest: str) -> str:
        asked.append(plan.run)
        return "model-not-available"

    monkeypatch.setattr(Cell, "load", load)
    with pytest.raises(ClientError, match="model-not-available"):
        _search(world, _wish(world, private=True, trials=1))
    assert len(asked) == 1
    assert _rows(world) == ()


def test_a_paid_search_loses_no_trial_to_a_trainer_that_does_not_start(
    world: Any, plain_scrub: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = world.sites["clinic-a"]
    wish = _wish(world, run_file=world.run_file(epsilon=0.9), private=True, trials=2)

    def gone(*_: Any) -> Any:
        raise ClientError("no namespaces", code="trainer-not-isolated")

    with monkeypatch.context() as patch:
        patch.setattr(paid, "train", lambda *_, **__: gone())
        with pytest.raises(ClientError, match="no namespaces"):
            _search(world, wish, trainer=Trainer(site))
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "load", gone)
        for _ in range(2):
            with pytest.raises(ClientError, match="no namespaces"):
                _search(world, wish, trainer=Trainer(site))
    scores = [one.score for one in _search(world, wish, trainer=Trainer(site)).trials]
    assert scores[0] is None
    assert scores[1] is not None


def test_points_of_a_space_are_drawn_evenly(world: Any) -> None:
    run = space.read_run(world.run_file(), "clinic-a")
    found = catalog.find(run.model.name)
    among = {"first_layer": [0, 1], "clipping": ["flat", "auto"]}
    wide = check({"between": {"learning_rate": [0.001, 0.1]}, "among": among}, Space, "x")
    source = Csprng()
    drawn = [space.draw(wide, source) for _ in range(2000)]
    assert all(wide.holds(one) for one in drawn)
    middle = sum(one["learning_rate"] < 0.01 for one in drawn)
    first = sum(one["first_layer"] == 0 for one in drawn)
    for count in (middle, first):
        assert abs(count - 1000) < 4.5 * math.sqrt(500)
    assert not wide.holds({**drawn[0], "learning_rate": 0.2})
    assert not wide.holds({**drawn[0], "first_layer": 7})
    one = {"learning_rate": 0.02, "first_layer": 1, "clipping": "auto"}
    made = space.applied(run, one, found)
    assert (made.training.learning_rate, made.privacy.clipping) == (0.02, "auto")
    assert all(".layers.1." in path for path in made.adapter.targets)
    assert space.of(made, wide, found) == one
    with pytest.raises(ClientError, match="lower first_layer"):
        space.applied(run, {"first_layer": 2}, found)


def test_the_default_space_holds_the_runs_own_settings(world: Any) -> None:
    run = space.read_run(world.run_file(), "clinic-a")
    found = catalog.find(run.model.name)
    around = space.default(run, found)
    assert around.holds(space.of(run, around, found))
    assert set(around.bounds) == {"learning_rate", "clip_norm"}
    assert set(around.choices) == {"sample_rate", "steps_per_round", "first_layer"}


@pytest.mark.parametrize(
    "text",
    ["", "format = 1\n", "[between]\nlearning_rate = [0.1]\n", "[between]\nclip_norm = [2, 1]\n",
     "[among]\nclipping = ['none']\n", "[between]\nlearning_rat = [1, 2]\n"],
)  # fmt: skip
def test_a_space_that_cannot_be_searched_is_refused(world: Any, text: str) -> None:
    world.space.write_text(text)
    with pytest.raises(ConfigError):
        _search(world, _wish(world))


def test_the_command_prints_settings_and_writes_a_page_that_escapes(world: Any) -> None:
    run = CliRunner().invoke(
        cli.app,
        ["search", str(world.sites["clinic-a"].path), "--run", str(_wish(world).run_file),
         "--proxy", str(world.proxy), "--space", str(world.space), "--trials", "1", "--json"],
    )  # fmt: skip
    assert run.exit_code == 0, run.output
    told = json.loads(run.stdout.splitlines()[-1])
    assert told["cost"] is None
    assert told["best"]["trial"] == 0
    page = Path(told["report"]).read_text()
    assert "nothing was charged" in page
    assert "<script" not in page
    assert "http" not in page
    facts = conduct.page.Facts("<b>", 3, 4, 2.0, 1e-5, None)
    assert "<b>" not in conduct.page.page(facts, conduct.Score(1.0, None), (), "")


def test_a_private_search_without_a_person_or_yes_is_refused(world: Any) -> None:
    run = CliRunner().invoke(
        cli.app,
        ["search", str(world.sites["clinic-a"].path), "--run", str(_wish(world).run_file),
         "--proxy", str(world.proxy), "--private", "--trials", "1"],
    )  # fmt: skip
    assert isinstance(run.exception, ClientError)
    assert run.exception.exit_code == 3
    assert _rows(world) == ()


def test_the_study_is_private_to_its_owner_and_a_strange_file_is_named(
    world: Any, tmp_path: Path
) -> None:
    found = _search(world, _wish(world, trials=1))
    assert (found.place / "study.sqlite").stat().st_mode & 0o077 == 0
    bad = tmp_path / "bad.sqlite"
    bad.write_bytes(b"no database at all, but long enough to look like one" * 40)
    with pytest.raises(ClientError, match="no file of a search"):
        study.Study(bad, check({"among": {"rank": [1, 2]}}, Space, "x"), {})
