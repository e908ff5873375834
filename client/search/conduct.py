"""A whole search: read what is wished, try settings one by one, write down what came of them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from audit import canonical
from client import border, decisions, estimate
from client import train as training
from client.border import spec
from client.errors import ClientError
from client.folder import Folder
from client.search import page, paid, proxy, space, study, trial
from client.search.study import Open, Study, Trial
from client.search.trial import Progress, Score
from client.trainer import Trains
from configs import files
from configs.load import load
from configs.run import Plan, Run, is_name
from configs.search import Settings, Space
from model import catalog
from privacy.csprng import Csprng
from privacy.errors import PlanInvalid

_MOST = 1000


@dataclass(frozen=True, slots=True)
class Wish:
    """What the person asked for.

    Attributes:
        run_file: RUN.toml, whose ε holds for every trial.
        proxy: public or synthetic records.
        space: SPACE.toml; None searches around the run's own settings.
        trials: how many in all, those of an earlier start included.
        persons: of the institution; None: as many as the proxy has.
        name: of the search, under DIR/search.
        private: train on the institution's own records, at a price.
    """

    run_file: Path
    proxy: Path
    space: Path | None = None
    trials: int = 20
    persons: int | None = None
    name: str = "search"
    private: bool = False


@dataclass(frozen=True, slots=True)
class Cost:
    """ε for one person of the cohort, before and after all of the search's trials."""

    before: float
    after: float
    delta: float
    cap: float


@dataclass(frozen=True, slots=True)
class Found:
    """What a search found.

    Attributes:
        place: its folder.
        base: how the base model does without training.
        trials: all that ended.
        best: the one with the lowest loss, or None.
        toml: the tables of RUN.toml for it, or "".
        cost: of a private search; None of one that opened public records only.
    """

    place: Path
    base: Score
    trials: tuple[Trial, ...]
    best: Trial | None
    toml: str = field(repr=False)
    cost: Cost | None


@dataclass(slots=True)
class _World:
    """What all trials share."""

    folder: Folder
    wish: Wish
    run: Run
    space: Space
    found: Any
    base: Any
    records: proxy.Proxy
    progress: Progress

    def plan(self, settings: Settings, name: str | None = None) -> Plan:
        run = space.applied(self.run, settings, self.found)
        named = run if name is None else run.model_copy(update={"name": name})
        return estimate.proposal(named, self.found)


def search(
    folder: Folder,
    wish: Wish,
    *,
    agree: Callable[[Cost, int], None],
    progress: Progress = lambda what, done, total: None,
    trainer: Trains | None = None,
) -> Found:
    """Search; a search that was stopped goes on.

    Args:
        folder: the institution.
        wish: what to search, and on which records.
        agree: told what a private search will cost and of how many trials, before anything is
            charged; raises to stop.
        progress: called with (what, done, total).
        trainer: of private trials; a process of its own, cut off, unless given.

    Guarantees: without `wish.private` the institution's records are not read, but for comparing
        them with the proxy, so that they are not given by mistake. With it, every trial is charged
        in ledger and log before the first opens a record, and all settings are drawn before that.

    Raises:
        ClientError, ConfigError, ModelError, PrivacyError: it cannot be done, and why.
    """
    if not is_name(wish.name) or not 1 <= wish.trials <= _MOST:
        raise ClientError(
            f"give --name of 1 to 64 of a-z 0-9 . _ - and --trials up to {_MOST}", code="bad-option"
        )
    place = folder.path / "search" / wish.name
    place.mkdir(parents=True, exist_ok=True, mode=0o700)
    busy = ClientError(
        f"a search runs in {place} already; wait for it, or give another --name",
        code="already-running",
        exit_code=3,
    )
    with files.hold(place / "lock", busy):
        world = _world(folder, wish, progress)
        basis = _basis(world)
        trials = Study(place / "study.sqlite", world.space, basis)
        start = _base_score(world, trials)
        if wish.private:
            with folder.lock():
                cost = _pay(world, trials, trainer, agree)
                _go(world, trials, partial(_paid_trial, world, trainer), cost, start, place)
        else:
            cost = None
            if not trials.begun and world.space.holds(
                own := space.of(world.run, world.space, world.found)
            ):
                trials.plan(own)  # what the run says is what is to be beaten
            _go(world, trials, partial(_free_trial, world), cost, start, place)
        return _written(world, trials, cost, start, place)


def _world(folder: Folder, wish: Wish, progress: Progress) -> _World:
    from model import base as base_model

    proxy.check(folder, wish.proxy)  # before a model is loaded
    run = space.read_run(wish.run_file, folder.settings.name)
    found = catalog.find(run.model.name, expect_digest=run.model.digest)
    wanted = load(wish.space, Space) if wish.space else space.default(run, found)
    runtime = folder.settings.runtime
    base = base_model.load(found, threads=runtime.threads or None, precision=runtime.precision)
    labels = training.labels_of(estimate.proposal(run, found), base)
    records = proxy.read(
        folder, wish.proxy, base, max_tokens=run.training.max_tokens, labels=labels,
        whole=wish.private,
    )  # fmt: skip
    return _World(folder, wish, run, wanted, found, base, records, progress)


def _basis(world: _World) -> dict[str, Any]:
    """What makes trials comparable; a change of it is another search."""
    return {
        "run": canonical.digest(
            canonical.encode(estimate.proposal(world.run, world.found).document())
        ),
        "space": "sha256:" + hashlib.sha256(world.space.model_dump_json().encode()).hexdigest(),
        "proxy": world.records.digest,
        "persons": _persons(world),
        "private": world.wish.private,
    }


def _persons(world: _World) -> int:
    return world.wish.persons or len(world.records.people)


def _base_score(world: _World, trials: Study) -> Score:
    held = trials.kept("base")
    if held is not None:
        return Score(*held)
    labels = training.labels_of(estimate.proposal(world.run, world.found), world.base)
    score = trial.score(world.base, world.base.model, world.records, labels, world.progress)
    trials.keep("base", [score.loss, score.accuracy])
    return score


def _pay(
    world: _World, trials: Study, trainer: Trains | None, agree: Callable[[Cost, int], None]
) -> Cost:
    """Draw all settings, and charge for all, unless that was done before the search stopped."""
    folder, budget = world.folder, world.folder.settings.budget
    if trials.kept("paid") is None:
        randomness = Csprng()
        named = paid.names(world.wish.trials)
        own = space.of(world.run, world.space, world.found)
        drawn = [space.draw(world.space, randomness) for _ in named]
        if world.space.holds(own):
            drawn[0] = own
        plans = [world.plan(one, name) for one, name in zip(drawn, named, strict=True)]
        before, after = paid.cost(folder, plans)
        agree(Cost(before, after, budget.delta, budget.epsilon), len(plans))
        paid.check(folder, plans[0], trainer=trainer)
        # Written down before they are charged: what is charged and forgotten would be lost.
        written = [plan.model_dump(mode="json") for plan in plans]
        trials.keep("paid", {"cost": [before, after], "settings": drawn, "plans": written})
    elif trials.waiting:  # or each start would lose one more of them
        paid.check(folder, _plans(trials)[0], trainer=trainer)
    held = trials.kept("paid")
    plans = _plans(trials)
    for settings, plan in list(zip(held["settings"], plans, strict=True))[trials.begun :]:
        trials.plan(settings, {"run": plan.run})
    paid.reserve(folder, plans)
    return Cost(held["cost"][0], held["cost"][1], budget.delta, budget.epsilon)


def _plans(trials: Study) -> list[Plan]:
    return [Plan.model_validate(one) for one in trials.kept("paid")["plans"]]


def _go(
    world: _World,
    trials: Study,
    attempt: Callable[[Open, Study], tuple[Score, dict[str, Any]]],
    cost: Cost | None,
    start: Score,
    place: Path,
) -> None:
    """Try until there are as many trials as were asked for; a paid search has those it paid for."""
    wanted = len(_plans(trials)) if cost else world.wish.trials
    while (done := len(trials.trials())) < wanted and (not cost or trials.waiting):
        world.progress("trials", done, wanted)
        begun = trials.next()
        try:
            score, facts = attempt(begun, trials)
        except PlanInvalid as fault:  # such as: no noise reaches ε at this rate and these steps
            trials.tell(begun, None, {"fault": str(fault)})
            continue
        except ClientError as fault:
            trials.tell(begun, None, {"fault": fault.code})
            raise
        trials.tell(begun, score, facts)
        _written(world, trials, cost, start, place)
    world.progress("trials", wanted, wanted)


def _free_trial(world: _World, begun: Open, trials: Study) -> tuple[Score, dict[str, Any]]:
    plan = world.plan(begun.settings)
    with _attached(world, plan) as model:
        score = trial.rehearse(
            world.base, model, plan, world.records,
            persons=_persons(world),
            chunk_tokens=world.folder.settings.runtime.chunk_tokens,
            progress=world.progress,
        )  # fmt: skip
    return score, _facts(plan)


def _paid_trial(
    world: _World, trainer: Trains | None, begun: Open, trials: Study
) -> tuple[Score, dict[str, Any]]:
    from model import adapter

    plan = _plans(trials)[begun.number]

    with _attached(world, plan) as model:
        trained = paid.train(
            world.folder, plan, adapter.read(model), trainer=trainer, progress=world.progress
        )
        adapter.write(model, trained)
        labels = training.labels_of(plan, world.base)
        score = trial.score(world.base, model, world.records, labels, world.progress)
    return score, {**_facts(plan), "run": plan.run, "plan_digest": decisions.digest(plan)}


@contextmanager
def _attached(world: _World, plan: Plan) -> Iterator[Any]:
    from model import adapter

    columns = border.columns(world.folder, plan)
    model = adapter.attach(world.base, spec(plan.adapter), columns=columns)
    try:
        yield model
    finally:
        adapter.detach(model)


def _facts(plan: Plan) -> dict[str, Any]:
    return {"noise_multiplier": plan.noise_multiplier, "steps": plan.steps}


def _written(world: _World, trials: Study, cost: Cost | None, start: Score, place: Path) -> Found:
    """Write report and settings of what there is so far."""
    ended = trials.trials()
    top = study.best(ended)
    text = ""
    if top is not None:
        text = space.toml(space.applied(world.run, top.settings, world.found))
        files.replace(place / "best.toml", text.encode(), mode=files.PRIVATE)
    found = Found(place, start, ended, top, text, cost)
    shown = page.page(
        page.Facts(
            run=world.run.name,
            records=len(world.records.held),
            persons=_persons(world),
            epsilon=world.run.privacy.epsilon,
            delta=world.run.privacy.delta,
            paid=None if cost is None else (cost.before, cost.after, cost.cap),
        ),
        start,
        ended,
        text,
    )
    files.replace(place / "report.html", shown.encode(), mode=files.PRIVATE)
    return found


def document(found: Found) -> dict[str, Any]:
    """The search as JSON values."""

    def told(one: Trial) -> dict[str, Any]:
        score = one.score
        return {
            "trial": one.number,
            "settings": one.settings,
            "loss": None if score is None else score.loss,
            "accuracy": None if score is None else score.accuracy,
            **one.facts,
        }

    cost = found.cost
    return {
        "base": {"loss": found.base.loss, "accuracy": found.base.accuracy},
        "trials": [told(one) for one in found.trials],
        "best": None if found.best is None else told(found.best),
        "toml": found.toml,
        "report": str(found.place / "report.html"),
        "cost": None
        if cost is None
        else {"epsilon_before": cost.before, "epsilon_after": cost.after, "delta": cost.delta,
              "cap": cost.cap},
    }  # fmt: skip
