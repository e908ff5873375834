"""Where a run stands, on disk: enough to go on after any crash without asking a site twice."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from configs import files
from configs.load import read_plan
from configs.run import Plan
from server import plans
from server.errors import ServerError

_STATE = "state.json"


class Kept(Mapping[str, Any]):
    """The arrays of one file, each read when it is asked for and kept by nobody."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with safe_open(path, framework="numpy") as file:
            self._names = tuple(sorted(file.keys()))

    def __getitem__(self, name: str) -> Any:
        if name not in self._names:
            raise KeyError(name)
        with safe_open(self._path, framework="numpy") as file:
            return file.get_tensor(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


@dataclass(slots=True)
class State:
    """One run.

    Attributes:
        path: the run's folder.
        plan: fixed at the start.
        round: the next round to run; equals the plan's rounds when training is over.
        outcome: "running", "trained", "released", or why it stopped.
        witnessed: per site, the size of our log that it cosigned last.
        participants: sites whose update counted in at least one round.
        by_file: sites that answered last with a file instead of over the network.
    """

    path: Path
    plan: Plan
    round: int = 0
    outcome: str = "running"
    witnessed: dict[str, int] = field(default_factory=dict)
    participants: list[str] = field(default_factory=list)
    by_file: list[str] = field(default_factory=list)

    def save(self) -> None:
        """Write the state durably."""
        document = {
            "format": 1,
            "round": self.round,
            "outcome": self.outcome,
            "witnessed": self.witnessed,
            "participants": sorted(self.participants),
            "by_file": sorted(self.by_file),
        }
        files.replace(self.path / _STATE, json.dumps(document, indent=2).encode())

    def adapter(self, number: int) -> dict[str, Any]:
        """The adapter that round `number` starts from."""
        return dict(load_arrays((self.path / f"adapter-{number}.safetensors").read_bytes()))

    def keep_adapter(self, number: int, arrays: Mapping[str, Any]) -> None:
        """Store the adapter that round `number` starts from."""
        files.replace(
            self.path / f"adapter-{number}.safetensors", save_arrays(dict(arrays)),
            mode=files.PRIVATE,
        )  # fmt: skip

    def keep_update(self, number: int, site: str, arrays: Mapping[str, Any]) -> None:
        """Store an update of an open round, before the log says that it counts."""
        files.replace(self._update(number, site), save_arrays(dict(arrays)), mode=files.PRIVATE)

    def update(self, number: int, site: str) -> Mapping[str, Any]:
        """An update of an open round; its arrays are read one at a time.

        Raises:
            ServerError: it is not there (exit code 4).
        """
        try:
            return Kept(self._update(number, site))
        except (OSError, SafetensorError):
            raise ServerError(
                f"the accepted update of {site} is missing in {self.path}; restore the newest "
                "copy of the whole folder",
                code="update-missing",
                exit_code=4,
            ) from None

    def drop_updates(self, number: int) -> None:
        """Delete the updates of a closed round; its aggregate is kept."""
        for path in self.path.glob(f"update-{number}-*.safetensors"):
            path.unlink()

    def _update(self, number: int, site: str) -> Path:
        return self.path / f"update-{number}-{site}.safetensors"


def create(path: Path, plan: Plan, start: Mapping[str, Any]) -> State:
    """Start the record of a new run.

    Raises:
        ServerError: a run of this name exists; a plan is fixed once and for all.
    """
    check_new(path, plan.run)
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    files.replace(path / "plan.json", plans.document(plan))
    state = State(path, plan)
    state.keep_adapter(0, start)
    state.save()
    return state


def check_new(path: Path, name: str) -> None:
    """Check that no run of this name was started.

    Raises:
        ServerError: one was.
    """
    if (path / _STATE).exists():
        raise ServerError(
            f"a run named {name} exists already; go on with --resume or choose another name",
            code="run-exists",
        )


@contextmanager
def alone(path: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold a run for one process: two would close its rounds against each other.

    Args:
        path: the run's folder.
        wait: wait for the process that holds it, for what is over soon.

    Raises:
        ServerError: another process holds it (exit code 3), or there is no run.
    """
    if not path.is_dir():
        raise _no_run(path)
    busy = ServerError(
        f"run {path.name} is already running in another process; wait for its end, or stop that "
        "process, which may have outlived its terminal; then go on, with --resume where it trains",
        code="already-running",
        exit_code=3,
    )
    with files.hold(path / "lock", None if wait else busy):
        yield


def load(path: Path) -> State:
    """Read the record of a run.

    Raises:
        ServerError: there is none, or a newer version wrote it.
    """
    try:
        values = json.loads((path / _STATE).read_bytes())
        plan = read_plan((path / "plan.json").read_bytes())
    except (OSError, ValueError):
        raise _no_run(path) from None
    if values.get("format") != 1:
        raise ServerError(
            f"{path} was written by a newer version; install the newer privity",
            code="newer-format",
        )
    return State(
        path,
        plan,
        int(values["round"]),
        str(values["outcome"]),
        {str(k): int(v) for k, v in values["witnessed"].items()},
        [str(name) for name in values["participants"]],
        [str(name) for name in values.get("by_file", [])],
    )


def _no_run(path: Path) -> ServerError:
    return ServerError(f"{path} holds no run; start one with privity server run", code="no-run")
