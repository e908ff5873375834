"""Bring releases in and out of a running service, without an answer being cut."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

from client import engine, serving
from client.gateway.embedded import EmbeddedEngine
from client.gateway.journal import served

_log = logging.getLogger("privity.serving")


def reloader(
    read: Callable[[], Sequence[Path]], key: Path
) -> Callable[[serving.Running], Coroutine[Any, Any, None]]:
    """What to do when the service is told that its releases changed.

    Args:
        read: gives the folders that are to be served now.
        key: the coordinator's public release key.

    Guarantees: a release is verified before it is loaded; one that does not verify or does not fit
        is not served, said on standard error, and the others stay as they were; one that is not
        asked for any more leaves once its last answer has ended. The first release stays.
    """
    lock = asyncio.Lock()

    async def reload(running: serving.Running) -> None:
        async with lock:
            try:
                wanted = await asyncio.to_thread(_check, read, key)
                await exchange(running, wanted)
            except Exception as error:
                code = getattr(error, "code", type(error).__name__)
                _log.error("the releases stay as they were: %s", code)

    return reload


async def exchange(running: serving.Running, wanted: dict[str, Path]) -> None:
    """Serve exactly the releases in `wanted` (name -> verified folder), and the stable one.

    Raises:
        ClientError, ModelError: one of them does not fit the base model; nothing changes then.
    """
    embedded = running.engine
    if not isinstance(embedded, EmbeddedEngine):
        return
    stable = running.service.routes.stable
    wanted = {stable: running.releases[stable], **wanted}
    fresh = [path for name, path in wanted.items() if name not in running.releases]
    found = await asyncio.to_thread(embedded.read, fresh, engine.read)
    for it in found:
        await embedded.change(lambda it=it: engine.put(embedded.shelf, it))  # type: ignore[misc]
    gone = [name for name in running.releases if name not in wanted]
    running.releases = wanted
    rows = running.service.access.take()  # under the names that they were asked by
    # What is loaded stays what it was, whatever lies in its folder by now.
    before = running.journal.releases
    known = {name: before.get(name) or served(path) for name, path in wanted.items()}
    labels = {name: it.labels for name, it in known.items()}
    await asyncio.to_thread(running.journal.exchanged, known, rows)
    embedded.hidden = frozenset(gone)
    running.service.refresh(labels)
    for name in gone:
        await embedded.remove(name)
    embedded.hidden = frozenset()
    running.service.refresh(labels)


def _check(read: Callable[[], Sequence[Path]], key: Path) -> dict[str, Path]:
    return {str(serving.check_release(path, key)["release"]): path for path in read()}
