"""The front door: one command, `privity`, whose groups are imported only when they are used."""

from __future__ import annotations

import ctypes
import importlib
import inspect
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import typer

from configs.version import SOFTWARE

# Flower and the model hub stay silent unless a person asks for a download.
os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

_GROUPS = {
    "model": ("model.cli", "Base models on this machine: pull, list, show."),
    "client": ("client.cli", "One institution: its records, budget, gate and node."),
    "server": ("server.cli", "The coordinator: enrol sites, run rounds, cut releases."),
    "audit": ("audit.cli", "Evidence: verify a bundle offline, show it, detect a watermark."),
}
_COMMANDS = {
    "demo": ("demo.cli", "A whole federation on this machine, from records to verified evidence."),
    "evaluate": ("client.cli_evaluate", "Compare a release with its base model; thresholds."),
    "export": ("client.cli_export", "Write a release merged, as GGUF or ONNX: checked, signed."),
    "serve": ("client.cli_serve", "Serve a release, if it verifies (OpenAI-compatible)."),
}
# A group's commands that another root holds, since they compose both sides.
_GUESTS = {"client": {"train": "demo.cli_alone"}}
# What a command needs beyond the base install, which is enough for `privity audit`.
_EXTRAS = {
    "demo": "client,server",
    "evaluate": "client,serve,evaluate",
    "export": "client,serve,export",
    "serve": "serve",
    "model": "client",
    "client": "client",
    "server": "server",
    "audit": "audit-page",
}
_INTERRUPTED = 130
_OURS = ("configs", "privacy", "model", "audit", "client", "server", "demo")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        0 fine, 2 wrong usage or configuration, 3 refused by policy or budget, 4 verification
        failed, 5 a peer or service is unreachable, 1 anything unforeseen, 130 interrupted.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    if sys.version_info < (3, 11):  # noqa: UP036 - the installer may have been overruled
        return _say("privity needs Python 3.11 or newer; run it with a newer Python", 2)
    _die_with_parent()
    debug = "--debug" in given
    if debug:
        given.remove("--debug")
        os.environ["PRIVITY_DEBUG"] = "1"
    try:
        code = int(_app(given)(given, standalone_mode=False, prog_name="privity") or 0)
        # Typer turns Ctrl-C into this code without a word.
        return code if code != _INTERRUPTED else _say("interrupted", code)
    except click.ClickException as fault:
        fault.show()
        return fault.exit_code
    except (click.Abort, KeyboardInterrupt):
        return _say("interrupted", _INTERRUPTED)
    except typer.Exit as ended:
        return int(ended.exit_code)
    except ModuleNotFoundError as fault:
        if debug:
            raise
        extra = _EXTRAS.get(_chosen(given))
        if extra is None or (fault.name or "").partition(".")[0] in _OURS:
            return _say(f"the module {fault.name} is missing; install privity again", 1)
        return _say(
            f"this command needs more packages; in privity's folder run: pip install '.[{extra}]'",
            2,
        )
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as fault:
        if debug:
            raise
        known = getattr(fault, "exit_code", None)
        if isinstance(known, int):
            return _say(str(fault), known)
        return _say(
            f"an unforeseen {type(fault).__name__} ended this command; run it again with --debug "
            "and report what it prints (look through it for records first)",
            1,
        )


def _app(given: Sequence[str]) -> click.Command:
    """The Typer application with the one group that `given` names, the others as headings."""
    app = typer.Typer(
        name="privity",
        help="Institutions fine-tune one language model together; records never leave them, and "
        "what does leave carries evidence that a stranger can check.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )

    @app.callback()
    def front(
        context: typer.Context,
        version: bool = typer.Option(
            False, "--version", help="Print the version and stop.", is_eager=True, callback=_version
        ),
    ) -> None:
        del version
        context.obj = {
            "recompute": _recompute,
            "tokenize": _tokenize,
            "retention": _retention,
        }

    chosen = _chosen(given)
    for name, (module, text) in _COMMANDS.items():
        if name == chosen:
            app.command(name)(importlib.import_module(module).command)
        else:
            app.command(name, help=text)(_heading)
    for name, (module, text) in _GROUPS.items():
        group = importlib.import_module(module).app if name == chosen else typer.Typer()
        if name != chosen:
            group.command("help", hidden=True)(_heading)
        else:
            for guest, place in _GUESTS.get(name, {}).items():
                group.command(guest)(importlib.import_module(place).command)
        app.add_typer(group, name=name, help=text, no_args_is_help=True)
    return _flowing(typer.main.get_command(app))


def _flowing(command: click.Command) -> click.Command:
    """Let each paragraph of the help fill the terminal's lines; Typer would keep ours."""
    if command.help:
        paragraphs = inspect.cleandoc(command.help).split("\n\n")
        command.help = "\n\n".join(paragraph.replace("\n", " ") for paragraph in paragraphs)
    for inner in getattr(command, "commands", {}).values():
        _flowing(inner)
    return command


def _chosen(given: Sequence[str]) -> str:
    """The group or command that a command line names."""
    return next((word for word in given if not word.startswith("-")), "")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(SOFTWARE)
        raise typer.Exit


def _heading() -> None:
    """Stands for a group that was not asked for."""


def _recompute(rows: Sequence[tuple[float, float, int]], delta: float) -> float:
    """ε by PLD of (σ, q, steps) rows: what the verifier, which knows no mathematics, is handed."""
    from privacy.plan import Mechanism, epsilon

    return epsilon([Mechanism(*row) for row in rows], delta=delta)


def _tokenize(model: str, text: str) -> list[int]:
    """A text in a model's tokens: what the verifier, which knows no models, is handed."""
    from model.text_tokens import tokenize

    return tokenize(model, text)


def _retention(directory: Path) -> tuple[Any, tuple[Any, ...]]:
    """Terms of retention and what else is due, by the settings of whoever owns the folder."""
    if (directory / "coordinator.toml").exists():
        from server import retention as coordinators

        return coordinators.policy(directory), ()
    from client import retention as institutions

    return institutions.policy(directory)


def _die_with_parent() -> None:
    """End when the process that started us dies, if it asked for that (Linux)."""
    parent = os.environ.get("PRIVITY_DIE_WITH_PARENT", "")
    if sys.platform == "linux" and parent.isdigit():
        set_death_signal = 1
        ctypes.CDLL(None).prctl(set_death_signal, signal.SIGTERM)
        if os.getppid() != int(parent):
            raise SystemExit(0)


def _say(sentence: str, code: int) -> int:
    print(f"privity: {sentence}", file=sys.stderr)  # noqa: T201 - the one place that prints errors
    return code


def script() -> None:
    """Console entry point."""
    raise SystemExit(main())


if __name__ == "__main__":
    script()
