"""Flower's node state with the egress gate inside: an answer is cleared or becomes a fixed word."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Any

from flwr.app import Error, Metadata
from flwr.app import Message as FlowerMessage
from flwr.app.message import make_message
from flwr.common.constant import ErrorCode
from flwr.supercore.constant import TaskType
from flwr.supercore.inflatable.inflatable_object import iterate_object_tree
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supernode.nodestate import NodeState, NodeStateFactory
from flwr.supernode.nodestate.in_memory_nodestate import InMemoryNodeState

from audit.errors import AuditError
from client import border, identity
from client.folder import Folder
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

    def set_node_id(self, node_id: int | None) -> None:
        """Remember the identifier on disk too, so that a successor can release it."""
        super().set_node_id(node_id)
        if node_id is not None:
            identity.remember(self._folder, node_id)

    def create_task(self, task_type: str, run_id: int, **more: Any) -> int | None:
        """Only client tasks exist here; agents, simulations and connectors do not."""
        if task_type != TaskType.CLIENT_APP:
            log.error("a task of type %s was refused", task_type)
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
        """Outgoing answers, each cleared or replaced; everything else as Flower has it."""
        found = super().get_messages_legacy(run_ids=run_ids, is_reply=is_reply, limit=limit)
        if is_reply is not True:
            return found
        return [self._gate(message) for message in found]

    def _gate(self, message: FlowerMessage) -> FlowerMessage:
        if message.has_error():
            word = FAILURES.get(message.error.code)
            if word is None:
                crashed = message.error.code == ErrorCode.CLIENT_APP_CRASHED
                word = "runner-stopped" if crashed else "failed"
            return self._replace(message, word)
        wire = None
        try:
            kind = flower.ANSWERS.get(message.metadata.message_type)
            if kind is None:
                raise EgressDenied("an answer of an unknown type was held back")
            wire = flower.from_records(self._inflate(message), kind=kind)
            if border.clear(self._folder, wire) is not None:
                self._state("cleared", "none", wire)
            return message
        except (EgressDenied, AuditError) as refusal:
            log.error("%s", refusal)
            self._state("denied", refusal.code, wire)
        except Exception as fault:
            log.error("the gate could not judge an answer (%s)", type(fault).__name__)
            self._state("denied", "unforeseen", wire)
        return self._replace(message, "refused-by-gate")

    def _state(self, verdict: str, code: str, wire: Message | None) -> None:
        """Sign the verdict about an update into the site's log."""
        if wire is None or wire.kind != "update":
            return
        try:
            header = unpack(wire, Update)
        except EgressDenied:
            return
        self._folder.log().append(
            "egress",
            {"verdict": verdict, "code": code, "update_digest": header.update_digest},
            run=header.run,
            round=header.round,
        )

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

    def _replace(self, message: FlowerMessage, word: str) -> FlowerMessage:
        """Put a fixed word in an answer's place, in the node's stores as well."""
        old = message.metadata
        self._store.delete(old.message_id)
        self.delete_messages(message_ids=[old.message_id])
        answer = make_message(
            metadata=Metadata(
                run_id=old.run_id,
                message_id="",
                src_node_id=old.src_node_id,
                dst_node_id=old.dst_node_id,
                reply_to_message_id=old.reply_to_message_id,
                group_id=old.group_id,
                created_at=old.created_at,
                ttl=old.ttl,
                message_type=old.message_type,
            ),
            error=Error(code=_CODES[word], reason=word),
        )
        answer.metadata.__dict__["_message_id"] = answer.object_id
        self._store_generated_message(answer)
        return answer


class GatedFactory(NodeStateFactory):
    """Hands Flower's loop the gated state."""

    def __init__(self, folder: Folder) -> None:
        super().__init__(objectstore_factory=ObjectStoreFactory())
        self._folder = folder

    def state(self) -> NodeState:
        """The one gated state of this process."""
        with self.lock:
            if self.state_instance is None:
                self.state_instance = GatedNodeState(self.objectstore_factory.store(), self._folder)
            return self.state_instance
