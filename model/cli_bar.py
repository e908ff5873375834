"""The bar that the commands of this package draw, and others that tell in the same words."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn


@contextmanager
def bar(*, quiet: bool = False) -> Iterator[Callable[[str, float, float], None]]:
    """One bar on stderr for what is under way; nothing where nobody looks.

    Yields:
        What takes (what, done, total).
    """
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    console = Console(stderr=True, quiet=quiet)
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as drawn:
        task = drawn.add_task("starting", total=None)
        yield lambda what, done, total: drawn.update(
            task, description=what, completed=done, total=total
        )
