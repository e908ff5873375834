"""`privity serve`: released models on the institution's own premises."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from client.cli_options import ReleaseFolder, ReleaseKey, SiteFolder

if TYPE_CHECKING:
    from client.serving import Site
    from configs.serving import Serving

_SETTINGS = "serving.toml"


def command(
    release: ReleaseFolder,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free one.")] = 8080,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    key: ReleaseKey = None,
    directory: SiteFolder = None,
    config: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Settings; else SITE-DIR/serving.toml, if it is there."),
    ] = None,
    upstream: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Another engine with OpenAI's interface answers."),
    ] = None,
) -> None:
    """Serve a release in the shape of OpenAI's interface, if it verifies.

    Example: privity serve release --dir clinic-a

    Nothing is loaded unless the coordinator's key signed the whole folder.
    API keys, feedback and the log are in SITE-DIR.
    Without API keys (privity client keys) it answers anyone on this machine.

    Pages: /chat to try it, /feedback to review what people said. /metrics is for Prometheus.
    """
    from client import release_key

    with release_key.public_key(release, key, directory) as public:
        from client import listen, serving

        settings = _settings(config, directory, upstream)
        site = _site(directory, settings, host)
        if not listen.is_loopback(host) and not (site.keys and site.keys.rows()):
            needs = settings.access.keys == "required"
            asks = "nobody gets in before a key exists" if needs else "nothing asks who calls"
            typer.echo(
                f"warning: {host} may be reached from other machines and {asks}; make keys with "
                "privity client keys, or put your own access control in front",
                err=True,
            )
        serving.serve(
            _releases(release, config, directory, settings),
            key=public,
            settings=settings,
            site=site,
            host=host,
            port=port,
            ready=lambda name, address: typer.echo(f"serving {name} on {address}"),
            read_settings=lambda: _releases(
                release, config, directory, _settings(config, directory, upstream)
            ),
        )


def _place(config: Path | None, directory: Path | None) -> Path | None:
    """The file of settings, if there is one."""
    if config is not None:
        return config
    there = directory / _SETTINGS if directory is not None else None
    return there if there is not None and there.exists() else None


def _settings(config: Path | None, directory: Path | None, upstream: str | None) -> Serving:
    from configs.load import check, load
    from configs.serving import Serving

    place = _place(config, directory)
    settings = load(place, Serving) if place is not None else Serving()
    if place is not None:  # paths in the file start at the file
        settings = _anchored(settings, place.parent)
    if upstream is not None:
        values = settings.model_dump()
        values["engine"]["upstream"] = upstream
        settings = check(values, Serving, "--upstream")
    return settings


def _anchored(settings: Serving, folder: Path) -> Serving:
    def at(path: str) -> str:
        return str(folder / path) if path else ""

    tls = settings.tls
    return settings.model_copy(
        update={
            "releases": tuple(at(path) for path in settings.releases),
            "tls": tls.model_copy(update={"certificate": at(tls.certificate), "key": at(tls.key)}),
            "engine": settings.engine.model_copy(
                update={"upstream_key": at(settings.engine.upstream_key)}
            ),
        }
    )


def _releases(
    release: Path, config: Path | None, directory: Path | None, settings: Serving
) -> list[Path]:
    from client.errors import ClientError

    others = [Path(path) for path in settings.releases]
    for other in others:
        if not other.is_dir():
            place = _place(config, directory)
            raise ClientError(
                f"{other} is not a release's folder; correct releases in {place}",
                code="no-release",
            )
    return [release, *others]


def _site(directory: Path | None, settings: Serving, host: str) -> Site:
    from client import folder, serving
    from client.errors import ClientError

    for path in (settings.tls.certificate, settings.tls.key):
        if path and not Path(path).is_file():
            raise ClientError(f"{path} does not exist; correct [tls]", code="no-certificate")
    from client import listen

    # Whoever opens the service to other machines without keys means to be asked under any name.
    anywhere = set() if listen.is_loopback(host) else {"*"}
    hosts = frozenset({*settings.access.hosts, *anywhere})
    if directory is None:
        if settings.access.keys == "required":
            raise ClientError(
                "keys are required, and they are kept in an institution's folder; give --dir",
                code="no-folder",
            )
        return serving.Site(hosts=hosts)
    if not (directory / "site.toml").exists():
        return serving.Site(hosts=hosts)
    return serving.Site.of(folder.open_folder(directory), hosts=hosts)
