"""Serve releases on the institution's own premises, in the shape of OpenAI's interface.

A release is verified before anything of it is loaded. Questions and answers reach neither logs nor
errors.
"""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import uvicorn
from fastapi import FastAPI

from audit import signing
from audit.errors import AuditError
from client import listen, text_marking
from client.errors import ClientError
from client.folder import Folder
from client.gateway import pages, web
from client.gateway.feedback import FeedbackStore
from client.gateway.guard import Guard
from client.gateway.journal import Journal, served
from client.gateway.keys import KeyFile
from client.gateway.policy import Policy
from client.gateway.question import Engine
from client.gateway.routing import Rollback
from client.gateway.service import Service
from client.text_marking import Notary
from configs.serving import Serving

_FACTS_FILE: Final = "release.json"
_log = logging.getLogger("privity.serving")


@dataclass(frozen=True, slots=True)
class Site:
    """What an institution gives its service: where its keys, feedback and log are.

    Attributes:
        folder: the institution's folder; None serves without log and feedback.
        keys: its API keys; None if there is no place for them.
        hosts: names under which it may be asked without keys, beside loopback addresses.
    """

    folder: Folder | None = None
    keys: KeyFile | None = None
    hosts: frozenset[str] = frozenset()

    @classmethod
    def of(cls, folder: Folder, *, hosts: frozenset[str] = frozenset()) -> Site:
        """The service of an institution's folder."""
        return cls(folder, KeyFile(folder.path / "serving" / "keys.json"), hosts)

    def notary(self, settings: Serving) -> Notary | None:
        """Who marks and signs answers; another engine's choice of words cannot be marked."""
        if self.folder is None:
            return None
        mark = settings.engine.mark_text and not settings.engine.upstream
        return Notary.of(self.folder, mark=mark)

    def feedback(self, settings: Serving) -> FeedbackStore | None:
        """Where judgements are kept, if they are."""
        if self.folder is None or not settings.feedback.keep:
            return None
        return FeedbackStore(self.folder.path / "serving" / "feedback.sqlite")


def check_release(release: Path, key: Path) -> dict[str, Any]:
    """Verify a release folder and return its facts.

    Args:
        release: the release folder.
        key: the coordinator's public release key, which came with the invitation and not with
            the release.

    Raises:
        ClientError: exit code 4; the folder is not exactly what that key signed, or the signed
            folder is not a release that this version can read.
    """
    try:
        signing.verify_folder(release, key)
    except AuditError as error:
        raise ClientError(
            f"the release is not served: {error}", code=error.code, exit_code=error.exit_code
        ) from None
    try:
        facts = json.loads((release / _FACTS_FILE).read_text("utf-8"))
        readable = facts["format"] == 1 and isinstance(facts["release"], str)
    except (OSError, ValueError, KeyError, TypeError):
        readable = False
    if not readable:
        raise ClientError(
            f"{release} is signed but is no release that this version reads; update privity",
            code="unknown-release",
            exit_code=4,
        )
    return dict(facts)


Loader = Callable[[Sequence[Path], Notary | None], Engine]
Reloader = Callable[["Running"], Any]


@dataclass(slots=True)
class Running:
    """What a running service consists of."""

    service: Service
    engine: Engine
    journal: Journal
    releases: dict[str, Path]


def create_app(
    releases: Sequence[Path],
    *,
    key: Path,
    load: Loader,
    settings: Serving | None = None,
    site: Site | None = None,
    reload: Reloader | None = None,
) -> FastAPI:
    """Verify releases, load them and return the service.

    Args:
        releases: release folders, at least one; the first is what its users get.
        key: the coordinator's public release key.
        load: gives the engine, from the releases and who marks and signs what they answer;
            called once, and only after every release verified.
        settings: of the institution; None is the default of everything.
        site: where its keys, feedback and log are.
        reload: called at SIGHUP, to bring other releases in and out.

    Returns:
        An ASGI app with OpenAI's routes, /health, /metrics and the pages. A model's name is its
        release id. Errors are OpenAI error objects without any text of the request.

    Raises:
        ClientError: exit code 4; a release does not verify. Nothing was loaded then.
    """
    settings, site = settings or Serving(), site or Site()
    names = {str(check_release(path, key)["release"]): path for path in releases}
    policy = Policy.load(settings.policy)
    store = site.feedback(settings)
    notary = site.notary(settings)
    engine = load(releases, notary)
    if settings.trial.candidate and settings.trial.candidate not in names:
        _log.warning("trial.candidate is no release that is served, so nobody is on trial")
    journal = Journal(site.folder, settings, upstream=bool(settings.engine.upstream))
    journal.releases = {name: served(path) for name, path in names.items()}

    def rolled_back(rollback: Rollback) -> None:
        _log.warning("%s was rolled back: %s", rollback.candidate, rollback.reason)
        asyncio.get_running_loop().run_in_executor(None, journal.rolled_back, rollback.candidate)

    service = Service(
        engine,
        settings,
        stable=next(iter(names)),
        policy=policy,
        on_rollback=rolled_back,
        record=None if notary is None else partial(text_marking.record, notary),
        labels={name: it.labels for name, it in journal.releases.items()},
    )
    running = Running(service, engine, journal, names)
    # The interactive pages of the framework would fetch scripts from elsewhere.
    app = FastAPI(
        title="Privity",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        lifespan=_lifespan(running, settings, reload),
    )
    app.state.running = running
    app.include_router(web.router(service))
    app.include_router(pages.router(service, store, site.keys))
    web.add_errors(app)
    app.add_middleware(
        Guard,
        keys=site.keys,
        required=settings.access.keys == "required",
        per_minute=settings.access.per_minute,
        open_hosts=site.hosts,
        refused=service.refused_at_the_door,
        patience=lambda: engine.load().patience,
    )
    return app


def serve(
    releases: Sequence[Path],
    *,
    key: Path,
    settings: Serving | None = None,
    site: Site | None = None,
    host: str = "127.0.0.1",
    port: int = 8080,
    ready: Callable[[str, str], None] = lambda name, address: None,
    read_settings: Callable[[], Sequence[Path]] | None = None,
) -> None:
    """Verify releases and serve them until interrupted; then let begun answers end.

    Args:
        releases: release folders, at least one; the first is what its users get.
        key: the coordinator's public release key.
        settings: of the institution; None is the default of everything.
        site: where its keys, feedback and log are.
        host: address to listen on.
        port: port to listen on; 0 takes any free one.
        ready: called with the first release's id and the address once connections are taken.
        read_settings: gives the release folders anew, at SIGHUP.

    Raises:
        ClientError: a release does not verify (4), the port is taken (5), or `host` is not an
            address of this machine (2). ModelError: a base model is not installed or differs.
    """
    settings = settings or Serving()
    reload = None
    if read_settings is not None and not settings.engine.upstream:
        from client import swap

        reload = swap.reloader(read_settings, key)
    share_time()
    with listen.bind(host, port) as listener:
        app = create_app(
            releases,
            key=key,
            load=lambda paths, notary: _engine(paths, settings, notary),
            settings=settings,
            site=site,
            reload=reload,
        )
        running: Running = app.state.running
        listener.listen()
        shown = f"[{host}]" if ":" in host else host
        scheme = "https" if settings.tls.certificate else "http"
        address = f"{scheme}://{shown}:{listener.getsockname()[1]}"
        ready(running.service.routes.stable, address)
        # Access logs hold addresses and paths; the institution's own proxy keeps those it needs.
        # The process's logging is left as it is (log_config): it is not the server's to replace.
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            server_header=False,
            ws="none",
            timeout_keep_alive=75,  # longer than a proxy keeps a connection that it means to use
            timeout_graceful_shutdown=int(settings.drain_s),
            ssl_certfile=settings.tls.certificate or None,
            ssl_keyfile=settings.tls.key or None,
        )
        with suppress(KeyboardInterrupt):
            _Server(config, running.service).run(sockets=[listener])


def share_time() -> None:
    """Let the engine's thread hand over to the web's sooner than Python does by itself (5 ms).

    Else whoever comes in a rush, be it to be turned away, waits that long at every turn.
    """
    sys.setswitchinterval(0.001)


class _Server(uvicorn.Server):
    """Says that it drains as soon as it is told to stop, while begun answers end."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service

    def handle_exit(self, sig: int, frame: Any) -> None:
        """Take no more questions (uvicorn calls this at SIGINT and SIGTERM)."""
        self._service.draining = True
        super().handle_exit(sig, frame)


def _engine(releases: Sequence[Path], settings: Serving, notary: Notary | None) -> Engine:
    if settings.engine.upstream:
        from client.gateway.upstream import UpstreamEngine

        names = tuple(
            str(json.loads((path / _FACTS_FILE).read_text("utf-8"))["release"]) for path in releases
        )
        return UpstreamEngine(settings.engine, names)
    from client import engine

    held = None if notary is None else notary.held
    return engine.load(releases, settings.engine, sampling=text_marking.sampling(held))


def _lifespan(running: Running, settings: Serving, reload: Reloader | None) -> Any:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        loop = asyncio.get_running_loop()
        async with AsyncExitStack() as stack:
            await asyncio.to_thread(running.journal.started)
            entering = asyncio.create_task(_enter_periods(running, settings.log_minutes * 60))
            stack.callback(entering.cancel)
            if reload is not None:
                # Only a process's main thread takes signals.
                with suppress(ValueError, RuntimeError):
                    loop.add_signal_handler(
                        signal.SIGHUP, lambda: asyncio.ensure_future(reload(running))
                    )
            yield
            running.service.draining = True
            await running.engine.close()
            tally = running.service.metrics.take_tally()
            rows = running.service.access.take()
            await asyncio.to_thread(running.journal.period, tally, "stopped", rows)

    return lifespan


async def _enter_periods(running: Running, seconds: float) -> None:
    while True:
        await asyncio.sleep(seconds)
        tally, rows = running.service.metrics.take_tally(), running.service.access.take()
        await asyncio.to_thread(running.journal.period, tally, "going", rows)
