"""A run in which one institution has no network: its messages are files that people carry."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import privity
from audit import digests
from client import exchange as at_site
from client.errors import ClientError
from privacy import parcel
from privacy.errors import PrivacyError
from privacy.parcel import ParcelInvalid
from server import conduct, enrolment, exchange
from server.errors import ServerError

Make = Callable[..., Any]


class Courier:
    """Carries every question to its site and every answer back, while the run waits."""

    def __init__(self, world: Any, site: str, *, rounds: int = 2) -> None:
        self.world, self.site, self.rounds = world, site, rounds
        self.folder = world.federation.root / "carried"
        self.folder.mkdir()
        self.carried: list[tuple[str, int, Path, Path]] = []
        real = world.connect().receive

        def receive() -> list[Any]:
            replies: list[Any] = real()
            return replies or self.carry() or []

        world.wire.offline.add(site)
        world.wire.receive = receive

    def question(self) -> Path:
        out = self.folder / f"question-{len(self.carried)}"
        exchange.export(self.world.coordinator, "triage", site=self.site, out=out)
        return out

    def answer(self, question: Path) -> Path:
        out = self.folder / f"answer-{len(self.carried)}"
        done = at_site.answer(self.world.sites[self.site], question, out=out)
        assert not done.repeated
        self.carried.append((done.kind, done.round, question, out))
        return out

    def carry(self) -> None:
        box = exchange.box_of(self.world.coordinator, "triage")
        if self.site in box.left() and not box.incoming(self.site).exists():
            exchange.take(self.world.coordinator, self.answer(self.question()))


def _refused(world: Any, file: Path) -> str:
    with pytest.raises((ServerError, PrivacyError)) as refusal:
        exchange.take(world.coordinator, file)
    last = world.events("hub", "exchange")[-1].fields
    assert last["verdict"] == "refused"
    assert last["file_digest"] == digests.file_digest(file)
    assert last["code"] == refusal.value.code
    return str(refusal.value.code)


def test_a_site_without_network_takes_part_beside_one_that_is_online(world: Make) -> None:
    made = world()
    courier = Courier(made, "clinic-b")
    run = made.federation.run_file(quorum=2)
    state = made.train(run)
    assert [(kind, number) for kind, number, _, _ in courier.carried] == [
        ("propose", -1), ("round", 0), ("round", 1)
    ]  # fmt: skip
    assert state.by_file == ["clinic-b"]
    closed = made.events("hub", "round-closed")
    assert [e.fields["accepted"] for e in closed] == [["clinic-a", "clinic-b"]] * 2
    assert made.sites["clinic-b"].ledger().begun("triage") == {0, 1}
    assert [e.fields["verdict"] for e in made.events("clinic-b", "egress")] == ["cleared"] * 2
    released = made.release(run)
    assert released["witnesses"] == ["clinic-a"]
    assert not made.verify(released).ok, "the quorum of two has not cosigned the end yet"
    courier.carry()
    assert courier.carried[-1][0] == "close"
    assert conduct.take_last_evidence(made.coordinator, "triage") == Path(released["bundle"])
    found = made.verify(released)
    assert found.ok, list(found.lines())
    verdicts = [e.fields["verdict"] for e in made.events("hub", "exchange")]
    assert verdicts == ["written", "taken"] * 4
    assert [c.site for c in made.wire.crossings if c.site == "clinic-b"] == []


def test_an_answer_may_come_while_the_command_does_not_run(world: Make) -> None:
    made = world()
    courier = Courier(made, "clinic-b")
    run = made.federation.run_file(quorum=2, round_timeout_s=2.0)
    made.wire.receive = lambda: []  # nobody carries anything
    made.wire.offline.add("clinic-a")
    with pytest.raises(ServerError, match="not connected"):
        made.train(made.federation.run_file(quorum=2, join_timeout_s=0.2, round_timeout_s=60.0))
    exchange.take(made.coordinator, courier.answer(courier.question()))  # the plan
    courier.world = made
    made.connect().offline.add("clinic-b")
    run = made.federation.run_file(quorum=2, join_timeout_s=0.2, round_timeout_s=60.0)
    waited: list[bool] = []

    def stop(event: str, facts: dict[str, Any]) -> None:
        if event == "update" and facts["institution"] == "clinic-a" and not waited:
            waited.append(True)
            raise KeyboardInterrupt

    made.on_tell = stop
    with pytest.raises(KeyboardInterrupt):
        made.train(run, resume=True)
    exchange.take(made.coordinator, courier.answer(courier.question()))  # round 1
    made.on_tell = lambda event, facts: None
    made.connect().offline.add("clinic-b")
    real = made.wire.receive
    made.wire.receive = lambda: real() or courier.carry() or []
    state = made.train(run, resume=True)
    assert state.round == 2
    assert [kind for kind, *_ in courier.carried] == ["propose", "round", "round"]
    assert made.sites["clinic-a"].ledger().begun("triage") == {0, 1}
    assert made.sites["clinic-b"].ledger().begun("triage") == {0, 1}


def test_an_answer_of_a_site_that_was_revoked_since_is_not_taken(world: Make) -> None:
    made = world()
    courier = Courier(made, "clinic-b")
    run = made.federation.run_file()

    def stop(event: str, facts: dict[str, Any]) -> None:
        if event == "update" and (facts["round"], facts["institution"]) == (1, "clinic-a"):
            raise KeyboardInterrupt

    made.on_tell = stop
    with pytest.raises(KeyboardInterrupt):
        made.train(run)
    courier.carry()
    assert courier.carried[-1][:2] == ("round", 1)
    enrolment.revoke(made.coordinator, "clinic-b")
    made.connect().offline.add("clinic-b")
    made.on_tell = lambda event, facts: None
    state = made.train(run, resume=True)
    closed = made.events("hub", "round-closed")
    assert [e.fields["accepted"] for e in closed] == [["clinic-a", "clinic-b"], ["clinic-a"]]
    assert state.by_file == []
    assert not exchange.box_of(made.coordinator, "triage").left()
    found = made.verify(made.release(run))
    assert found.ok, list(found.lines())


def test_what_is_not_the_answer_is_refused_with_a_code_and_recorded(world: Make) -> None:
    made = world("clinic-a", "clinic-b", "clinic-c")
    courier = Courier(made, "clinic-b")
    seen: dict[str, str] = {}

    def carry() -> None:
        box = exchange.box_of(made.coordinator, "triage")
        if "clinic-b" not in box.left() or box.incoming("clinic-b").exists():
            return
        question = courier.question()
        answer = courier.answer(question)
        kind, number, _, _ = courier.carried[-1]
        if (kind, number) == ("round", 0):
            data = bytearray(answer.read_bytes())
            data[-1] ^= 1  # the last number of the last array
            altered = courier.folder / "altered"
            altered.write_bytes(bytes(data))
            seen["altered"] = _refused(made, altered)
            altered.write_bytes(answer.read_bytes() + b"\0")
            seen["longer"] = _refused(made, altered)
            seen["question"] = _refused(made, question)
            seen["earlier"] = _refused(made, courier.carried[0][3])
            (courier.folder / "none").write_bytes(b"\x08\0\0\0\0\0\0\0{}      ")
            seen["none"] = _refused(made, courier.folder / "none")
            other = parcel.read(answer.read_bytes(), check=lambda *_: None)
            for name, changes in (
                ("site", {"site": "clinic-c"}),
                ("run", {"run": "other"}),
                ("round", {"round": 1}),
                ("exchange", {"exchange": "0" * 32}),
            ):
                facts = {k: getattr(other.facts, k) for k in
                         ("direction", "exchange", "site", "run", "round")}  # fmt: skip
                forged = courier.folder / name
                forged.write_bytes(
                    parcel.write(
                        other.message,
                        sign=made.sites["clinic-b"].keys().event.sign,
                        **(facts | changes),
                    )
                )
                seen[f"other {name}"] = _refused(made, forged)
        exchange.take(made.coordinator, answer)
        if (kind, number) == ("round", 0):
            seen["twice"] = _refused(made, answer)

    courier.carry = carry  # type: ignore[method-assign]
    run = made.federation.run_file(quorum=3)
    made.train(run)
    assert all(
        e.fields["accepted"] == sorted(made.sites) for e in made.events("hub", "round-closed")
    )
    assert seen == {
        "altered": "altered-file",
        "longer": "altered-file",
        "question": "wrong-direction",
        "earlier": "wrong-round",
        "none": "not-a-parcel",
        "other site": "wrong-site",
        "other run": "wrong-run",
        "other round": "wrong-round",
        "other exchange": "replayed",
        "twice": "not-asked",
    }


def test_the_site_answers_only_its_coordinators_newest_question_and_the_same_one_alike(
    world: Make, capfd: pytest.CaptureFixture[str]
) -> None:
    made = world()
    courier = Courier(made, "clinic-b")
    made.train(made.federation.run_file(quorum=2))
    site = made.sites["clinic-b"]
    begun, size = site.ledger().rows("all"), site.log().size
    again = courier.folder / "again"
    *_, (_, _, question, answer) = courier.carried
    done = at_site.answer(site, question, out=again)
    assert done.repeated
    assert again.read_bytes() == answer.read_bytes()
    assert (site.ledger().rows("all"), site.log().size) == (begun, size)

    def refused(file: Path) -> str:
        with pytest.raises((ClientError, ParcelInvalid)) as refusal:
            at_site.answer(site, file, out=courier.folder / "never")
        assert made.events("clinic-b", "exchange")[-1].fields["code"] == refusal.value.code
        return str(refusal.value.code)

    data = bytearray(question.read_bytes())
    data[-1] ^= 1
    (courier.folder / "altered").write_bytes(bytes(data))
    assert refused(courier.folder / "altered") == "altered-file"
    assert refused(answer) == "wrong-direction"
    first = courier.carried[0][2]
    (site.path / "exchange").joinpath(
        parcel.read(first.read_bytes(), check=lambda *_: None).facts.exchange + ".safetensors"
    ).unlink()
    assert refused(first) == "stale-request"
    with pytest.raises(ParcelInvalid) as refusal:
        at_site.answer(made.sites["clinic-a"], question, out=courier.folder / "never")
    assert refusal.value.code == "wrong-site"
    assert not (courier.folder / "never").exists()
    code = privity.main(["client", "answer", str(site.path), str(question), "--out",
                         str(courier.folder / "by-command"), "--json"])  # fmt: skip
    assert code == 0
    assert json.loads(capfd.readouterr().out)["repeated"] is True
    code = privity.main(["client", "answer", str(site.path), str(answer), "--out",
                         str(courier.folder / "no")])  # fmt: skip
    assert code == 4
    assert "privity server import" in capfd.readouterr().err


def test_a_site_whose_budget_is_spent_says_so_in_a_file(world: Make) -> None:
    made = world()
    Courier(made, "clinic-b")
    made.federation.set("clinic-b", epsilon=0.5)
    with pytest.raises(ServerError, match="clinic-b: epsilon-over-budget"):
        made.train(made.federation.run_file(quorum=2))
    assert not made.spent("clinic-b").rows


def test_a_wrong_file_is_named_in_a_sentence(
    world: Make, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    made = world()
    hub = str(made.coordinator.path)
    assert privity.main(["server", "import", hub, str(tmp_path / "nothing")]) == 2
    assert privity.main(["server", "export-round", hub, "triage", "--out", "x"]) == 2
    made.wire.offline |= {"clinic-a", "clinic-b"}
    with pytest.raises(ServerError):
        made.train(made.federation.run_file(join_timeout_s=0.1))
    out = tmp_path / "question"
    assert privity.main(["server", "export-round", hub, "triage", "--out", str(out)]) == 2
    assert "name one with --site" in capfd.readouterr().err
    more = ["--site", "clinic-a", "--out", str(out)]
    assert privity.main(["server", "export-round", hub, "triage", *more]) == 0
    assert "about the plan" in capfd.readouterr().out
    assert out.stat().st_mode & 0o077 == 0
    assert privity.main(["server", "export-round", hub, "triage", *more]) == 2
    assert "exists" in capfd.readouterr().err
