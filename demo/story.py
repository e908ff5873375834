"""A run on this machine, shown while it lasts: what coordinator and institutions tell of it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from demo.processes import Processes
from demo.screen import Screen


class Story:
    """What the coordinator tells of the run, line by line, from the moment of asking on.

    Attributes:
        undecided: whether an institution's last answer was that a person must decide.
    """

    def __init__(self, coordinator: Path, run: str, screen: Screen) -> None:
        self._path = coordinator / "runs" / run / "progress.jsonl"
        self._screen = screen
        self._told = len(self._lines())
        self.undecided = False

    def _lines(self) -> list[str]:
        if not self._path.exists():
            return []
        return self._path.read_text(encoding="utf-8").splitlines()

    def follow(self) -> None:
        """Show the lines that came since the last look."""
        lines = self._lines()
        for line in lines[self._told :]:
            event = json.loads(line)
            if event["event"] == "answered":
                self.undecided = event["status"] == "pending"
            self._screen.event(event)
        self._told = len(lines)


def train(
    processes: Processes,
    screen: Screen,
    coordinator: Path,
    sites: Mapping[str, Path],
    *,
    run: str,
    arguments: Sequence[str],
    undecided: Callable[[], None] = lambda: None,
) -> None:
    """Run the rounds to their end, and show what is told meanwhile.

    Args:
        processes: in which coordinator and institutions run already.
        screen: what is shown.
        coordinator: its folder.
        sites: the institutions' folders by name.
        run: the run's name.
        arguments: of `privity server run DIR`.
        undecided: called when an institution waits for a person's approval.

    Raises:
        DemoError: the run failed, or a process that it needs did.
    """
    training = processes.service("run", ["server", "run", str(coordinator), *arguments, "--json"])
    story = Story(coordinator, run, screen)
    while training.poll() is None:
        story.follow()
        if story.undecided:
            story.undecided = False
            undecided()
        for name, folder in sites.items():
            path = folder / "runs" / run / "progress.json"
            if path.exists():
                screen.steps(name, json.loads(path.read_text(encoding="utf-8")))
        processes.check_others(training)
        time.sleep(0.2)
    story.follow()
    processes.finished(training)
