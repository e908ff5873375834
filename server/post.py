"""The way to the sites of one run: over the network, or as files that people carry."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from privacy.wire import Message
from server.box import Box
from server.state import State
from server.turn import Reply


class Post:
    """Joins Flower's link and the run's box of files; the conductor sees one of each site.

    A site whose last answer came as a file is asked by file until it connects again.
    """

    def __init__(self, link: Any, box: Box, state: State) -> None:
        self._link = link
        self._box = box
        self._state = state

    def online(self) -> dict[str, int]:
        """Sites that can be asked: connected ones, and those that answer by file."""
        return {**dict.fromkeys(self._state.by_file, 0), **self._link.online()}

    @property
    def waiting(self) -> frozenset[str]:
        """Sites whose answer is outstanding, over the network or as a file."""
        left = self._box.left() if self._state.by_file else frozenset()
        return frozenset(self._link.waiting | (left & set(self._state.by_file)))

    def send(self, messages: Mapping[str, Message], *, group: str, ttl_s: float) -> None:
        """Queue one message a site, or leave it to be carried."""
        connected = self._link.online()
        over = {name: message for name, message in messages.items() if name in connected}
        for name in over:  # whoever is connected is asked once, and over the network
            self._box.withdraw(name)
        if over:
            self._link.send(over, group=group, ttl_s=ttl_s)
        for name, message in messages.items():
            if name not in connected and name in self._state.by_file:
                self._box.leave(name, message)

    def leave(self, site: str, message: Message) -> None:
        """Keep a message for a site that is not connected."""
        self._box.leave(site, message)

    def receive(self, number: int = -1) -> list[Reply]:
        """Answers since the last call, files first; of files about rounds, round `number` only."""
        replies: list[Reply] = []
        for reply in self._box.arrived(number):
            if reply.site not in self._state.by_file:
                self._state.by_file.append(reply.site)
            replies.append(reply)
        for reply in () if replies else self._link.receive():
            if reply.site in self._state.by_file and reply.message is not None:
                self._state.by_file.remove(reply.site)
            replies.append(reply)
        return replies

    def forget(self) -> None:
        """Stop waiting for answers over the network; what was left as a file stays due."""
        self._link.forget()

    def settle(self) -> None:
        """Take back every file about a round: it is over."""
        self._box.settle()
