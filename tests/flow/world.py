"""A whole run in one process: the real conductor, tasks, gate and serialisation, no sockets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

RUN_ID = 7


@dataclass
class Crossing:
    """One message at the border: between whom, of which kind, and every byte of it."""

    site: str
    up: bool
    kind: str
    message: Any  # privacy.wire.Message, or None for a failure word
    objects: bytes = field(repr=False)


class Station:
    """One institution as its node runs it: Flower's state with the gate, and our runner."""

    def __init__(self, folder: Any, node_id: int) -> None:
        from client.gate import GatedFactory
        from client.refusals import Refusals
        from client.tasks import Tasks
        from client.trainer import Trainer

        self.folder = folder
        self.node_id = node_id
        self.tasks = Tasks(folder, Trainer(folder))
        self.refusals = Refusals(folder)
        self.state: Any = GatedFactory(folder).state()
        self.state.set_node_id(node_id)

    def answer(self, request: Any, *, tamper: Callable[[Any], Any] | None = None) -> Any:
        """Take a request in, let the runner answer, and give out what passes the gate.

        Returns:
            The objects that leave, by identifier, and the message's own identifier.
        """
        from flwr.common.serde import message_from_proto, message_to_proto
        from flwr.supercore.inflatable.inflatable_object import (
            get_all_nested_objects,
            get_object_tree,
            iterate_object_tree,
        )
        from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
        from flwr.supernode import start_client_internal as loop

        from client import runner

        store = self.state.object_store
        loop._insert_message(request, self.state, store)
        (taken,) = self.state.get_messages_legacy(run_ids=[RUN_ID], is_reply=False, limit=1)
        identifier = taken.metadata.message_id
        given = inflate_object_from_contents(identifier, _contents(store, identifier))
        given.metadata.__dict__["_message_id"] = identifier
        store.delete(identifier)
        reply = runner.answer(self.tasks, given, self.refusals)
        if tamper is not None:
            reply = tamper(reply)
        reply.metadata.__dict__["_message_id"] = reply.object_id
        stored, _ = self.state.store_message_and_object_tree(
            message_from_proto(message_to_proto(reply)),
            get_object_tree(reply),
            self.state.start_session(RUN_ID),
        )
        assert stored
        for name, part in get_all_nested_objects(reply).items():
            store.put(name, part.deflate())
        (leaving,) = self.state.get_messages_legacy(is_reply=True)
        sent = leaving.metadata.message_id
        contents = {n.object_id: store.get(n.object_id)
                    for n in iterate_object_tree(store.get_object_tree(sent))}  # fmt: skip
        self.state.delete_messages(message_ids=[sent, identifier])
        store.delete(sent)
        assert len(store) == 0
        return contents, sent


def _contents(store: Any, identifier: str) -> dict[str, bytes]:
    from flwr.supercore.inflatable.inflatable_object import iterate_object_tree

    tree = store.get_object_tree(identifier)
    return {node.object_id: store.get(node.object_id) for node in iterate_object_tree(tree)}


class Wire:
    """Carries messages between conductor and stations; the `Link` of a run without sockets.

    Attributes:
        crossings: everything that crossed, in order.
        offline: sites that are not connected.
        silent: sites that take a message and never answer.
        tamper: what a hostile or broken runner does to its answer, by site; before the gate.
        swap: what a hostile institution sends in place of an answer, by site; behind the gate.
        before: called with (site, request) before a site gets it.
    """

    def __init__(self, sites: Mapping[str, Any]) -> None:
        from flwr.supercore.task_identity import TaskIdentity

        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = RUN_ID, 1, 1
        self.stations = {name: Station(folder, 100 + i)
                         for i, (name, folder) in enumerate(sorted(sites.items()))}  # fmt: skip
        self.crossings: list[Crossing] = []
        self.offline: set[str] = set()
        self.silent: set[str] = set()
        self.tamper: dict[str, Callable[[Any], Any]] = {}
        self.swap: dict[str, Callable[[Any], Any]] = {}
        self.before: Callable[[str, Any], None] = lambda site, message: None
        self._queue: list[tuple[str, Any]] = []
        self._waiting: set[str] = set()

    def online(self) -> dict[str, int]:
        return {n: s.node_id for n, s in self.stations.items() if n not in self.offline}

    @property
    def waiting(self) -> frozenset[str]:
        return frozenset(self._waiting)

    def forget(self) -> None:
        self._waiting.clear()
        self._queue.clear()

    def send(self, messages: Mapping[str, Any], *, group: str, ttl_s: float) -> None:
        from flwr.app import Message as FlowerMessage
        from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects

        from privacy import flower

        for site, message in messages.items():
            if site in self.offline:
                continue
            request = FlowerMessage(
                flower.to_records(message), self.stations[site].node_id,
                flower.TYPES[message.kind], ttl=ttl_s, group_id=group,
            )  # fmt: skip
            blob = b"".join(o.deflate() for o in get_all_nested_objects(request).values())
            self.crossings.append(Crossing(site, False, message.kind, message, blob))
            self._queue.append((site, request))
            self._waiting.add(site)

    def receive(self) -> list[Any]:
        from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents

        from privacy import flower
        from server.flower import Reply, _read

        ready = [(site, request) for site, request in self._queue if site not in self.silent]
        if not ready:
            return []
        site, request = ready[0]
        self._queue.remove(ready[0])
        self.before(site, request)
        contents, sent = self.stations[site].answer(request, tamper=self.tamper.get(site))
        left = b"".join(contents.values())  # inflating takes the contents out one by one
        whole = inflate_object_from_contents(sent, contents)
        reply = _read(whole, site, flower.ANSWERS[request.metadata.message_type])
        kind = reply.message.kind if reply.message else str(reply.failure)
        self.crossings.append(Crossing(site, True, kind, reply.message, left))
        self._waiting.discard(site)
        if site in self.swap and reply.message:
            reply = Reply(site, self.swap[site](reply.message), None)
        return [reply]

    def sent(self, site: str, kind: str) -> list[Any]:
        """Messages of one kind that left a site, in order."""
        return [c.message for c in self.crossings if c.up and (c.site, c.kind) == (site, kind)]

    def failures(self, site: str) -> list[str]:
        """Failure words that left a site, in order."""
        return [c.kind for c in self.crossings if c.up and c.site == site and c.message is None]

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self.forget()


@dataclass
class World:
    """A federation, and the coordinator's two long commands over a wire of ours."""

    federation: Any
    patch: pytest.MonkeyPatch = field(repr=False)
    wire: Any = None
    told: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    on_tell: Callable[[str, dict[str, Any]], None] = lambda event, facts: None

    @property
    def sites(self) -> Any:
        return self.federation.sites

    @property
    def coordinator(self) -> Any:
        return self.federation.coordinator

    def connect(self) -> Wire:
        """Start every institution's node anew."""
        from server import flower

        self.wire = Wire(self.sites)
        self.patch.setattr(flower.Session, "open", classmethod(lambda cls, folder: self.wire))
        return self.wire

    def _show(self, event: str, facts: dict[str, Any]) -> None:
        self.told.append((event, facts))
        self.on_tell(event, facts)

    def conductor(self, state: Any) -> Any:
        """A conductor in the hands of a test, for messages out of turn."""
        from server import conduct
        from server.progress import Progress

        tell = Progress(self.federation.root / "progress.jsonl", self._show)
        return conduct._conductor(self.coordinator, state, self.wire, tell)

    def train(self, run_file: Path, *, resume: bool = False) -> Any:
        """`privity server run`."""
        from server import conduct, store

        run = store.load_run(run_file, self.coordinator, begun=resume)
        return conduct.train(self.coordinator, run, resume=resume, show=self._show)

    def release(self, run_file: Path) -> dict[str, Any]:
        """`privity server release`."""
        from server import conduct, store

        run = store.load_run(run_file, self.coordinator, begun=True)
        return conduct.release(
            self.coordinator, run.name, run, base=run_file.parent, licence="Apache-2.0",
            show=self._show,
        )  # fmt: skip

    def verify(self, released: Mapping[str, Any], **more: Any) -> Any:
        """`privity audit verify`."""
        from audit.verify import verify
        from privacy.plan import Mechanism, epsilon

        return verify(
            Path(released["bundle"]),
            recompute=lambda rows, delta: epsilon([Mechanism(*r) for r in rows], delta=delta),
            **more,
        )

    def events(self, party: str, kind: str) -> list[Any]:
        """Events of one kind in a party's own log; `hub` is the coordinator."""
        log = (self.coordinator if party == "hub" else self.sites[party]).log()
        return [entry.event for entry in log.entries(kind)]

    def spent(self, site: str) -> Any:
        """The ledger's balance."""
        folder = self.sites[site]
        limits = folder.settings.budget
        return folder.ledger().balance(limits.cohort, delta=limits.delta, cap=limits.epsilon)

    def heard(self, event: str) -> list[dict[str, Any]]:
        """Facts of every progress event of one name."""
        return [facts for name, facts in self.told if name == event]


def once(act: Callable[[], None], when: Callable[..., bool]) -> Callable[..., None]:
    """Run `act` the first time that `when` holds."""
    done: list[bool] = []

    def hook(*given: Any) -> None:
        if not done and when(*given):
            done.append(True)
            act()

    return hook


def of_round(number: int, site: str) -> Callable[[str, Any], bool]:
    """Whether a site is given a request of that round."""
    return lambda name, request: name == site and request.metadata.group_id == f"round-{number}"


@pytest.fixture
def world(
    federation: Callable[..., Any], plain_scrub: None, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., World]:
    """A connected federation of the named institutions, without the scrub's cost."""
    del plain_scrub
    return _maker(federation, monkeypatch)


@pytest.fixture
def scrubbing_world(
    federation: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., World]:
    """The same with the real scrub."""
    return _maker(federation, monkeypatch)


def _maker(federation: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Callable[..., World]:
    def make(*names: str) -> World:
        made = World(federation(names or ("clinic-a", "clinic-b")), monkeypatch)
        made.connect()
        return made

    return make
