"""What is drawn was charged before, what was charged stays, and what is released was noised."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from safetensors.numpy import save

from client import tasks as site_tasks
from client import train as site_training
from client.trainer import Trainer
from privacy import dpsgd, ledger, plan
from privacy.errors import RoundSpent
from privacy.ledger import Ledger
from privacy.plan import Mechanism
from server.errors import ServerError
from tests.privacy.toy import DELTA, DIGEST, Recording, Scores, applied, person_mean, reserve, sums

ROOT = Path(__file__).parents[2]
Make = Callable[..., Any]


# -- draws and charges ----------------------------------------------------------------------------


def test_draws_of_noise_equal_the_steps_that_are_accounted(tmp_path: Path) -> None:
    """Over rounds, one of them interrupted, with a broken person: no more than was charged."""
    book = Ledger.create(tmp_path / "ledger.db")
    reserve(book, "run", Mechanism(30.0, 0.5, 12), rounds=3)
    drawn = 0

    def one_round(number: int, stop_after: int | None = None) -> None:
        nonlocal drawn
        book.begin_round("run", number, input_digest=DIGEST)
        source = Recording()

        def stop(done: int, _: int) -> None:
            if done == stop_after:
                raise KeyboardInterrupt

        try:
            sums([(1.0,), (math.nan,), (2.0, 1.0)], randomness=source, noise_multiplier=30.0,
                 sample_rate=0.5, steps=4, chunk_tokens=1, on_step=stop)  # fmt: skip
        finally:
            assert len(source.noise) % 2 == 0  # two layers
            drawn += len(source.noise) // 2

    one_round(0)
    assert drawn == 4
    with pytest.raises(KeyboardInterrupt):
        one_round(1, stop_after=2)
    assert drawn == 4 + 2
    with pytest.raises(RoundSpent):
        one_round(1)
    one_round(2)
    (row,) = Ledger.open(book.path).rows("ward")
    assert drawn == 4 + 2 + 4
    assert row.steps // row.rounds * row.rounds_begun == 12


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> list[Recording]:
    """Every source that a site's training makes from here on."""
    made: list[Recording] = []

    def make() -> Recording:
        made.append(Recording())
        return made[-1]

    monkeypatch.setattr(site_training, "Csprng", make)
    return made


def test_what_a_site_draws_is_what_its_plan_ledger_and_log_say_and_what_it_sends(
    world: Make, recorded: list[Recording], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = world("clinic-a")
    folder = made.sites["clinic-a"]
    run = made.federation.run_file(steps_per_round=3)
    run.write_text(run.read_text().replace("[training]", '[training]\noptimizer = "sgd"'))
    rounds: list[npt.NDArray[np.float64]] = []
    trained_on: list[int] = []
    real = dpsgd.train

    def train(model: Any, people: Any, **more: Any) -> Any:
        trained_on.append(len(people))
        with applied(model) as taken:
            done = real(model, people, **more)
        rounds.append(more["settings"].learning_rate * torch.stack(taken).sum(0).numpy())
        return done

    monkeypatch.setattr(dpsgd, "train", train)
    plan_ = made.train(run).plan

    # One rate, one number of people, as many steps as were planned; a source for every round.
    asked = [ask for source in recorded for ask in source.asked]
    assert asked == [(trained_on[0], plan_.sample_rate)] * plan_.steps
    assert (plan_.steps, len(recorded)) == (6, plan_.rounds)
    (row,) = folder.ledger().rows(folder.settings.budget.cohort)
    charged = (row.noise_multiplier, row.sample_rate, row.steps, row.rounds_begun)
    assert charged == (plan_.noise_multiplier, plan_.sample_rate, len(asked), plan_.rounds)
    updates = made.wire.sent("clinic-a", "update")
    stds = [std for source in recorded for std in source.stds]
    assert stds == [row.noise_multiplier * plan_.clip_norm] * (row.steps * len(updates[0].arrays))
    logged = [event.fields for event in made.events("clinic-a", "dp-training")]
    assert sum(fields["steps"] for fields in logged) == row.steps
    for fields in logged:
        stated = tuple(float(fields[k]) for k in ("noise_multiplier", "sample_rate", "clip_norm"))
        assert stated == (row.noise_multiplier, row.sample_rate, plan_.clip_norm)

    # And the update is what the inner optimizer took, steps of noised sums, and nothing else.
    assert len(updates) == len(rounds) == 2
    for update, moved in zip(updates, rounds, strict=True):
        sent = np.concatenate([array.ravel() for array in update.arrays.values()])
        assert sorted(abs(sent)) == pytest.approx(sorted(abs(moved)), abs=1e-6 * abs(moved).max())


def test_a_site_charges_plan_and_round_before_it_opens_a_record_and_never_gives_back(
    world: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    from client import people, trainer

    made = world("clinic-a")
    seen: list[str] = []
    for owner, name in ((ledger.Ledger, "reserve"), (ledger.Ledger, "begin_round"),
                        (people, "read"), (trainer, "train")):  # fmt: skip
        real = getattr(owner, name)

        def told(*given: Any, name: str = name, real: Any = real, **more: Any) -> Any:
            seen.append(name)
            return real(*given, **more)

        monkeypatch.setattr(owner, name, told)

    def fail(*_: Any, **__: Any) -> Any:
        raise ValueError

    monkeypatch.setattr(torch.optim.AdamW, "step", fail)
    with pytest.raises(ServerError, match="round 1 has 0 of 1"):
        made.train(made.federation.run_file())
    assert seen == ["reserve", "begin_round", "read", "train"]
    balance = made.spent("clinic-a")
    assert balance.rows[0].rounds_begun == 1
    assert balance.spent > 0
    assert balance.left < balance.cap


_SITE = """
import os, sys, time
from pathlib import Path
from safetensors.numpy import load
from client import folder, people, tasks, trainer
from privacy.csprng import Csprng
from privacy.scrub import Scrubbed
from privacy.wire import Message

class Plain:
    digest = "sha256:" + "5" * 64
    def scrub_many(self, texts, persons):
        return (Scrubbed(text=text, spans=()) for text in texts)

people.scrubber = lambda folder: Plain()
real = Csprng.normal
left = int(sys.argv[2])

def telling(self, shape, std):
    global left
    os.write(1, b".")
    left -= 1
    if left == 0:
        time.sleep(600)
    return real(self, shape, std)

Csprng.normal = telling
header, arrays = (Path(name).read_bytes() for name in sys.argv[3:])
opened = folder.open_folder(Path(sys.argv[1]))
site = tasks.Tasks(opened, trainer.Trainer(opened))
site.answer(Message("round", header, load(arrays)))
"""


def test_a_site_that_is_killed_in_a_round_has_been_charged_for_what_it_drew(
    world: Make, tmp_path: Path
) -> None:
    made = world("clinic-a")

    class Stop(Exception):
        pass

    def stop(site: str, request: Any) -> None:
        if request.metadata.group_id == "round-0":
            raise Stop

    made.wire.before = stop
    run = made.federation.run_file(steps_per_round=50)
    with pytest.raises(Stop):
        made.train(run)
    message = made.wire.crossings[-1].message
    header, arrays = tmp_path / "header", tmp_path / "arrays"
    header.write_bytes(message.header)
    arrays.write_bytes(save(dict(message.arrays)))
    folder = made.sites["clinic-a"]
    assert not folder.ledger().begun("triage")
    draws = len(message.arrays) * 2 + 1  # it is in its third step
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", _SITE, str(folder.path), str(draws), str(header),
         str(arrays)],
        stdout=subprocess.PIPE, cwd=ROOT,
    ) as site:  # fmt: skip
        assert site.stdout is not None
        assert len(site.stdout.read(draws)) == draws
        site.kill()
    assert site.returncode == -9
    (row,) = folder.ledger().rows(folder.settings.budget.cohort)
    assert row.rounds_begun == 1
    assert row.steps // row.rounds * row.rounds_begun == 50 >= 3
    assert made.spent("clinic-a").spent == plan.epsilon(
        [Mechanism(row.noise_multiplier, row.sample_rate, 50)], delta=DELTA
    )
    with pytest.raises(RoundSpent):
        site_tasks.Tasks(folder, Trainer(folder)).answer(message)


# -- what is released -----------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_the_weights_are_the_sum_of_the_recorded_noisy_steps(optimizer: str) -> None:
    """Nothing un-noised slips into a release: replaying the noisy steps gives the weights."""
    model, shadow, noisy = Scores(), Scores(), []
    chosen = {"sgd": torch.optim.SGD, "adamw": torch.optim.AdamW}[optimizer]
    step = chosen.step

    def recording(self: Any, closure: Any = None) -> Any:
        noisy.append([weight.grad.clone() for weight in model.parameters()])
        return step(self, closure)

    source = Recording()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chosen, "step", recording)
        dpsgd.train(
            model, [(1.0,), (2.0, 0.5)], draw=lambda person, _: person, loss=person_mean, size=len,
            settings=dpsgd.Settings(1.0, 1.0, 0.6, 5, 0.05, optimizer=optimizer),
            randomness=source,
        )  # fmt: skip
    more = {"weight_decay": 0.0} if optimizer == "adamw" else {}
    replay = chosen(shadow.parameters(), lr=0.05, **more)
    assert len(noisy) == 5
    for gradients in noisy:
        for weight, gradient in zip(shadow.parameters(), gradients, strict=True):
            weight.grad = gradient
        replay.step()
    for got, wanted in zip(model.parameters(), shadow.parameters(), strict=True):
        assert torch.allclose(got, wanted, atol=1e-6)
    # Each of them is what was drawn, and at most two people of norm 1.
    for i, gradients in enumerate(noisy):
        people = [
            gradient.double() * (2 * 0.6) - torch.from_numpy(source.noise[2 * i + j])
            for j, gradient in enumerate(gradients)
        ]
        assert torch.cat([part.flatten() for part in people]).norm() <= 2.0 + 1e-3
