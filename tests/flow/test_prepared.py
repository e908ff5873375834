"""A run on a prepared set, from which a person withdraws between two rounds."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from client import folder as folders
from client import withdrawals
from client.prepare import pipeline
from client.prepare.draws import Draws
from configs.prepare import Recipe

pytestmark = pytest.mark.base


def test_a_person_who_withdraws_in_a_run_is_in_no_later_round_and_the_run_verifies(
    world: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from client import trainer

    made = world("clinic-a")
    site = made.sites["clinic-a"]
    first = json.loads(site.data.read_text().splitlines()[0])
    person = str(first[site.settings.data.person_column])
    # Everybody trains, so that this person does.
    recipe = Recipe.model_validate({"split": {"ratio": "1:0:0"}})
    assert pipeline.prepare(site, site.data, recipe, name="one").sides["train"][0] > 0
    toml = site.path / "site.toml"
    path = site.settings.data.path
    toml.write_text(
        toml.read_text().replace(f'path = "{path}"', 'path = "prepared/one/train.jsonl"')
    )
    used = folders.open_folder(site.path)
    assert used.data.parent.name == "one"
    trained: list[tuple[int, int]] = []
    real = trainer.train

    def train(model: Any, people: Any, start: Any, plan: Any, **more: Any) -> Any:
        trained.append((len(people), sum(map(len, people))))
        return real(model, people, start, plan, **more)

    monkeypatch.setattr(trainer, "train", train)
    made.sites["clinic-a"] = used
    made.connect()
    left: list[bool] = []

    def tell(event: str, _: Any) -> None:
        if event == "closed" and not left:
            left.append(withdrawals.withdraw(used, person).new)

    made.on_tell = tell
    run = made.federation.run_file()
    state = made.train(run)
    assert (state.round, left) == (2, [True])
    before, after = trained
    assert before[0] == after[0] == len(_persons(used))  # still counted
    assert after[1] < before[1]  # and nothing of them used
    note = json.loads((used.run(state.plan.run) / "lineage.json").read_text())
    assert [name.split()[0] for name in note["sets"]] == ["one"]
    assert withdrawals.withdraw(used, person).runs == (state.plan.run,)
    digest = Draws.of(used.pseudonym_secret()).digest("person", person)
    assert digest in (used.run(state.plan.run) / "lineage.json").read_text()
    found = made.verify(made.release(run))
    assert found.ok, list(found.lines())


def test_a_set_that_was_prepared_across_persons_costs_no_budget(world: Callable[..., Any]) -> None:
    from server.errors import ServerError

    made = world("clinic-a")
    site = made.sites["clinic-a"]
    recipe = Recipe.model_validate({"scope": "all"})
    pipeline.prepare(site, site.data, recipe, name="one")
    toml = site.path / "site.toml"
    path = site.settings.data.path
    toml.write_text(
        toml.read_text().replace(f'path = "{path}"', 'path = "prepared/one/train.jsonl"')
    )
    made.sites["clinic-a"] = folders.open_folder(site.path)
    made.connect()
    with pytest.raises(ServerError):
        made.train(made.federation.run_file(join_timeout_s=1))
    assert made.wire.failures("clinic-a")
    assert set(made.wire.failures("clinic-a")) == {"data-not-usable"}
    assert made.spent("clinic-a").reserved == 0


def _persons(site: folders.Folder) -> set[str]:
    from client.prepare import sets

    return set(sets.open_set(site, "one").people()["train"])
