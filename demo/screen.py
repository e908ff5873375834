"""What the demo shows while it runs: the steps, and the rounds with each institution's progress."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table

STEPS = {
    "model": "base model",
    "records": "records",
    "enrol": "coordinator and institutions: keys, ledgers, logs, invitations",
    "connect": "SuperLink behind TLS, one SuperNode and runner per institution",
    "train": "scrub, reserve ε, train privately, gate, aggregate",
    "release": "watermark, evaluate, sign, bundle",
    "verify": "offline verification",
    "stop": "stop every process",
}


class Screen:
    """Draws on stderr; plain lines where stderr is no terminal."""

    def __init__(self, *, silent: bool, steps: Mapping[str, str] = STEPS) -> None:
        self._steps = steps
        self._console = Console(stderr=True, quiet=silent)
        self._current = ""
        self._note = ""
        self._rounds: dict[int, dict[str, str]] = {}
        self._sites: list[str] = []
        self._live = Live(console=self._console, refresh_per_second=4)

    def step(self, name: str) -> None:
        """Begin a step."""
        self._current, self._note = name, ""
        self._say(self._steps[name])

    def part(self, what: str, share: float) -> None:
        """Tell how far a step is, 0 to 1."""
        self._note = f"{what} {share:.0%}"
        self._draw()

    def event(self, event: dict[str, Any]) -> None:
        """Take one of the coordinator's progress events."""
        kind = event["event"]
        if kind == "inviting":
            self._sites = list(event["institutions"])
        elif kind == "answered":
            self._say(f"{event['institution']}: {event['status']}")
        elif kind == "round":
            self._rounds[event["round"]] = dict.fromkeys(self._sites, "…")
            self._say(f"round {event['round'] + 1} of {event['rounds']}")
        elif kind == "update":
            word = "accepted" if event["accepted"] else event["reason"]
            self._rounds[event["round"]][event["institution"]] = word
            self._say(f"round {event['round'] + 1}: {event['institution']} {word}")
        elif kind == "scored":
            self.part(f"scoring the {event['arm']} model", event["done"] / event["total"])
        self._draw()

    def steps(self, site: str, progress: dict[str, int]) -> None:
        """Take one institution's own progress inside a round."""
        row = self._rounds.get(progress["round"])
        if row is not None and row.get(site, "…") not in ("accepted",):
            row[site] = f"step {progress['step']} of {progress['steps']}"
            self._draw()

    def _say(self, line: str) -> None:
        self._note = line
        if not self._console.is_terminal:
            self._console.print(line)
        self._draw()

    def _draw(self) -> None:
        if not self._console.is_terminal:
            return
        order = list(self._steps)
        here = order.index(self._current) if self._current else 0
        steps = Table.grid(padding=(0, 1))
        for number, name in enumerate(order):
            mark = "✓" if number < here else "▸" if number == here else " "
            note = f"[dim]{self._note}[/]" if number == here else ""
            steps.add_row(mark, self._steps[name], note)
        parts: list[Any] = [steps]
        if self._rounds and self._current == "train":
            rounds = Table("round", *self._sites)
            for number, row in sorted(self._rounds.items()):
                rounds.add_row(str(number + 1), *(row.get(site, "") for site in self._sites))
            parts.append(rounds)
        self._live.update(Group(*parts))

    def __enter__(self) -> Screen:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._console.is_terminal:
            self._live.stop()
