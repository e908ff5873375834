"""The live table of a run on the terminal: rounds down, institutions across."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.live import Live as RichLive
from rich.table import Table

_WORDS = {
    "inviting": "waiting for the institutions to agree to the plan",
    "marking": "watermarking one copy for each recipient",
    "evaluating": "scoring base model and release",
    "finished": "training is over",
    "released": "release and bundle are written",
}


class Live:
    """Draws `Progress` events on stderr; a plain line an event where stderr is no terminal."""

    def __init__(self, *, silent: bool = False) -> None:
        self._console = Console(stderr=True, quiet=silent)
        self._cells: dict[int, dict[str, str]] = {}
        self._sites: list[str] = []
        self._line = ""
        self._live = RichLive(
            self._draw(), console=self._console, refresh_per_second=4, transient=False
        )

    def show(self, event: str, facts: dict[str, Any]) -> None:
        """Take one event."""
        if event == "inviting":
            self._sites = list(facts["institutions"])
        if event == "round":
            self._cells[facts["round"]] = dict.fromkeys(self._sites, "training")
        if event == "update":
            cell = "accepted" if facts["accepted"] else facts["reason"]
            self._cells.setdefault(facts["round"], {})[facts["institution"]] = cell
        if event == "closed":
            row = self._cells.setdefault(facts["round"], {})
            row.update(dict.fromkeys(facts["absent"], "absent"))
        line = _sentence(event, facts)
        if line:
            self._line = line
            if not self._console.is_terminal:
                self._console.print(line)
        self._live.update(self._draw())

    def _draw(self) -> Table:
        table = Table("round", *self._sites, caption=self._line, caption_justify="left")
        for number, row in sorted(self._cells.items()):
            table.add_row(str(number + 1), *(row.get(name, "") for name in self._sites))
        return table

    def __enter__(self) -> Live:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._console.is_terminal:
            self._live.stop()


def _sentence(event: str, facts: dict[str, Any]) -> str:
    if event == "answered":
        why = "" if facts["reason"] in ("", "none") else f" ({facts['reason']})"
        return f"{facts['institution']}: {facts['status']}{why}"
    if event == "round":
        return f"round {facts['round'] + 1} of {facts['rounds']}"
    if event == "waiting":
        return (
            f"round {facts['round'] + 1} waits for {', '.join(facts['missing'])} to come back, or "
            "for a file (privity server export-round)"
        )
    if event == "closed" and facts.get("skipped"):
        return f"round {facts['round'] + 1} missed its quorum for good and changed nothing"
    if event == "public-loss":
        return f"round {facts['round'] + 1}: loss {facts['loss']:.4f} on the public records"
    if event == "scored":
        return f"scoring {facts['arm']}: {facts['done']} of {facts['total']}"
    if event == "close-failed":
        return f"no last cosignature from {facts['institution']} ({facts['reason']})"
    return _WORDS.get(event, "")
