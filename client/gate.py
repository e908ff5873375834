"""Flower's node state with the egress gate inside: an answer is cleared or becomes a fixed word."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Sequence
from typing import Any

from flwr.app import Error, RecordDict
from flwr.app import Message as FlowerMessage
from flwr.common.constant import ErrorCode
from flwr.supercore.constant import TaskType
from flwr.supercore.inflatable.inflatable_object import iterate_object_tree
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supernode.nodestate import NodeStateFactory
from flwr.supernode.nodestate.in_memory_nodestate import InMemoryNodeState

from audit.digests import arrays_digest
from audit.errors import AuditError
from client import border, decisions, identity, moments
from client.errors import ClientError
from client.folder import Folder
from client.refusals import Refusals
from privacy import flower
from privacy.errors import EgressDenied
from privacy.wire import FAILURES, Message, Update, unpack

log = logging.getLogger("privity.gate")

_CODES = {word: number for number, word in FAILURES.items()}
_OBJECTS_DEADLINE_SECONDS = 60.0


class GatedNodeState(InMemoryNodeState):
    """Flower's node state, except that an answer passes the gate or becomes a fixed word."""

    def __init__(self, object_store: Any, folder: Folder) -> None:
        super().__init__(object_store)
        self._folder = folder
        self._store = object_store
        self._refusals = Refusals(folder)
        self._taken: dict[str, float] = {}
        self._answered: set[str] = set()
        self.active_at = time.monotonic()
        self.joined = False  # whether the coordinator's yes has been heard

    def set_node_id(self, node_id: int | None) -> None:
        """Remember the identifier on disk too, so that a successor can release it."""
        super().set_node_id(node_id)
        if node_id is not None:
            self.joined = True
            identity.remember(self._folder, node_id)

    def store_message(self, message: FlowerMessage) -> str | None:
        """Note when the last message came: who is idle asks less often."""
        self.active_at = time.monotonic()
        stored: str | None = super().store_message(message)
        return stored

    def store_message_and_object_tree(
        self, message: FlowerMessage, object_tree: Any, session_id: str
    ) -> tuple[bool, list[str]]:
        """Take answers from the runner, and nothing else.

        A question of its own making would be what a later answer is addressed by: its names and
        identifiers would leave with that answer.
        """
        if not message.metadata.reply_to_message_id:
            log.error("a message of the runner's that answers nothing was held back; restart it")
            self._refusals.note("answer", "refused-by-gate")
            return False, []
        stored: tuple[bool, list[str]] = super().store_message_and_object_tree(
            message, object_tree, session_id
        )
        return stored

    def create_task(self, task_type: str, run_id: int, **more: Any) -> int | None:
        """Only client tasks exist here; agents, simulations and connectors do not."""
        if task_type != TaskType.CLIENT_APP:
            log.error("a task of type %s was refused", task_type)
            self._refusals.note("task", "unknown-message")
            return None
        created: int | None = super().create_task(task_type=task_type, run_id=run_id, **more)
        return created

    def get_message_processing_duration(self, message_id: str) -> float:
        """Always zero: how long training took depends on the records."""
        del message_id
        return 0.0

    def get_messages_legacy(
        self,
        *,
        run_ids: Sequence[int] | None = None,
        is_reply: bool | None = None,
        limit: int | None = None,
    ) -> Sequence[FlowerMessage]:
        """Outgoing answers, each cleared or replaced; everything else as Flower has it.

        What an answer is, it says itself: however it is asked for, it passes the gate.
        """
        given: list[FlowerMessage] = []
        for message in super().get_messages_legacy(run_ids=run_ids, is_reply=is_reply, limit=limit):
            if not message.metadata.reply_to_message_id:
                self._taken[message.metadata.message_id] = time.monotonic()
                given.append(message)
            elif (answer := self._gate(message)) is not None:
                given.append(answer)
        return given

    def delete_messages(self, *, message_ids: Sequence[str] | None = None) -> None:
        """Forget messages, and with a request that it was answered."""
        super().delete_messages(message_ids=message_ids)
        for identifier in (*self._taken, *self._answered) if message_ids is None else message_ids:
            self._taken.pop(identifier, None)
            self._answered.discard(identifier)

    def _gate(self, message: FlowerMessage) -> FlowerMessage | None:
        request = self._asked(message.metadata.run_id)
        if request is None or request.metadata.message_id in self._answered:
            log.error("an answer that nobody asked for was held back; restart the runner")
            self._refusals.note("answer", "refused-by-gate")
            self._discard(message)
            return None
        self._answered.add(request.metadata.message_id)
        if message.has_error():
            # The runner is still handing over the error's objects; replacing them under its hands
            # would fail its upload.
            with contextlib.suppress(Exception):
                self._inflate(message)
            word = FAILURES.get(message.error.code)
            if word is None:
                crashed = message.error.code == ErrorCode.CLIENT_APP_CRASHED
                word = "runner-stopped" if crashed else "failed"
            return self._issue(message, request, _error(word))
        wire = None
        try:
            kind = flower.ANSWERS.get(request.metadata.message_type)
            if message.metadata.reply_to_message_id != request.metadata.message_id:
                raise EgressDenied("an answer to another question was held back")
            if kind is None:
                raise EgressDenied("an answer of an unknown type was held back")
            wire = flower.from_records(self._inflate(message), kind=kind)
            if border.clear(self._folder, wire) is not None:
                state_verdict(self._folder, "cleared", "none", wire)
                wire = border.with_verdict(self._folder, wire)
            return self._issue(message, request, flower.to_records(wire))
        except (EgressDenied, AuditError) as refusal:
            log.error("%s", refusal)
            self._deny(refusal.code, wire)
        except Exception as fault:
            log.error("the gate could not judge an answer (%s)", type(fault).__name__)
            self._deny("unforeseen", wire)
        return self._issue(message, request, _error("refused-by-gate"))

    def _asked(self, run_id: int) -> FlowerMessage | None:
        """The request that the runner has in hand; a node works on one at a time."""
        with self.lock_msg_store:
            for entry in self.msg_store.values():
                asked = entry.message.metadata
                if entry.is_retrieved and asked.run_id == run_id and not asked.reply_to_message_id:
                    return entry.message
        return None

    def _deny(self, code: str, wire: Message | None) -> None:
        """Write down that an answer was held back: as a verdict about an update, or as it is."""
        if not state_verdict(self._folder, "denied", code, wire):
            self._refusals.note("answer", "refused-by-gate")

    def _inflate(self, message: FlowerMessage) -> Any:
        """The whole answer, once the runner has handed over all of its objects."""
        identifier = message.metadata.message_id
        deadline = time.monotonic() + _OBJECTS_DEADLINE_SECONDS
        contents: dict[str, bytes] = {}
        for node in iterate_object_tree(self._store.get_object_tree(identifier)):
            while not (content := self._store.get(node.object_id)):
                if content is None or time.monotonic() > deadline:
                    raise EgressDenied("an answer without its arrays was held back")
                time.sleep(0.02)
            contents[node.object_id] = content
        whole = inflate_object_from_contents(identifier, contents)
        return whole.content

    def _issue(
        self, runner: FlowerMessage, request: FlowerMessage, content: RecordDict | Error
    ) -> FlowerMessage:
        """Put an answer of our own making in the place of the runner's.

        Guarantees: group, type, addressees and every object come from the request and from what
            was cleared; of the runner's own message and object tree no byte is left to send.
        """
        self._discard(runner)
        self._wait(request)
        answer = FlowerMessage(content, reply_to=request)
        answer.metadata.__dict__["_message_id"] = answer.object_id
        self._store_generated_message(answer)
        return answer

    def _wait(self, request: FlowerMessage) -> None:
        """Hold the answer back to the next of few moments: when it leaves could carry a message."""
        began = self._taken.get(request.metadata.message_id)
        if began is not None:
            moments.wait(began)

    def _discard(self, message: FlowerMessage) -> None:
        self._store.delete(message.metadata.message_id)
        self.delete_messages(message_ids=[message.metadata.message_id])


def state_verdict(folder: Folder, verdict: str, code: str, wire: Message | None) -> bool:
    """Sign the verdict about an update into the site's log, which leaves in its turn.

    Of the runner's header it takes the name of a proposed run and one of its rounds only.

    Returns:
        Whether there was an update of a known run to speak of.
    """
    if wire is None or wire.kind != "update":
        return False
    try:
        header = unpack(wire, Update)
        plan = decisions.proposed(folder, header.run)
    except (EgressDenied, ClientError):
        return False
    if not header.round < plan.rounds:
        return False
    folder.log().append(
        "egress",
        {"verdict": verdict, "code": code, "update_digest": arrays_digest(wire.arrays)},
        run=header.run,
        round=header.round,
    )
    return True


def _error(word: str) -> Error:
    return Error(code=_CODES[word], reason=word)


class GatedFactory(NodeStateFactory):
    """Hands Flower's loop the gated state."""

    def __init__(self, folder: Folder) -> None:
        super().__init__(objectstore_factory=ObjectStoreFactory())
        self.state_instance: GatedNodeState | None = None
        self._folder = folder

    def state(self) -> GatedNodeState:
        """The one gated state of this process."""
        with self.lock:
            if self.state_instance is None:
                self.state_instance = GatedNodeState(self.objectstore_factory.store(), self._folder)
            return self.state_instance
