"""The trials of a search in one SQLite file, so that it can go on; the one door to optuna.

Optuna proposes settings and remembers what came of them. It sees numbers only: no record, and on
private records nothing but scores that were paid for.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from client.errors import ClientError
from client.search.trial import Score
from configs import files
from configs.search import Settings, Space

_NAME = "search"
_STARTS = 8  # drawn at random before anything is inferred


@dataclass(frozen=True, slots=True)
class Trial:
    """One trial, finished or failed.

    Attributes:
        number: from 0, in the order in which trials began.
        settings: what was tried.
        score: None of one that was stopped or could not be trained.
        facts: the trial's σ and steps, and of a paid one its run.
    """

    number: int
    settings: Settings
    score: Score | None
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Open:
    """A trial that has begun."""

    number: int
    settings: Settings
    _inner: Any = field(repr=False)


class Study:
    """A search's trials on disk.

    Args:
        path: the SQLite file; made, mode 0600, if it is not there.
        space: what may be set.
        basis: what the trials share: digests of run, space, proxy and model.

    Raises:
        ClientError: optuna is not installed, or the file is of another search.
    """

    def __init__(self, path: Path, space: Space, basis: Mapping[str, Any]) -> None:
        optuna = _optuna()
        if not path.exists():
            files.replace(path, b"", mode=files.PRIVATE)
        self._optuna = optuna
        self._distributions = _distributions(optuna, space)
        try:
            self._study = optuna.create_study(
                storage=f"sqlite:///{path.absolute()}",
                study_name=_NAME,
                sampler=optuna.samplers.TPESampler(n_startup_trials=_STARTS),
                direction="minimize",
                load_if_exists=True,
            )
            held = self._study.user_attrs.get("basis")
        except Exception as fault:  # of several libraries; the file is what they have in common
            raise ClientError(
                f"{path} is no file of a search ({type(fault).__name__}); move it away, or give "
                "the search another --name",
                code="bad-study",
            ) from None
        if held is None and not self._study.get_trials(deepcopy=False):
            self._study.set_user_attr("basis", dict(basis))
        elif held != dict(basis):
            other = [name for name, value in basis.items() if (held or {}).get(name) != value]
            raise ClientError(
                f"{path} is of a search that differs in {', '.join(other)}; give this one another "
                "--name, or what that one had",
                code="other-search",
                exit_code=3,
            )
        for trial in self._study.get_trials(states=[optuna.trial.TrialState.RUNNING]):
            # Whoever ran it is gone: the folder's search is locked by its caller.
            self._study.tell(trial.number, state=optuna.trial.TrialState.FAIL)

    @property
    def begun(self) -> int:
        """How many trials began or stand in line."""
        return len(self._study.get_trials(deepcopy=False))

    def plan(self, settings: Settings, facts: Mapping[str, Any] | None = None) -> None:
        """Put a trial in line, before whatever optuna would propose."""
        self._study.enqueue_trial(settings, user_attrs=dict(facts or {}))

    @property
    def waiting(self) -> bool:
        """Whether a trial stands in line."""
        return bool(self._study.get_trials(states=[self._optuna.trial.TrialState.WAITING]))

    def next(self) -> Open:
        """Begin a trial: the first in line, else what optuna proposes."""
        trial = self._study.ask(self._distributions)
        return Open(trial.number, dict(trial.params), trial)

    def tell(self, trial: Open, score: Score | None, facts: Mapping[str, Any]) -> None:
        """Keep what came of a trial; None for one that failed."""
        for name, value in facts.items():
            trial._inner.set_user_attr(name, value)
        if score is None:
            self._study.tell(trial._inner, state=self._optuna.trial.TrialState.FAIL)
            return
        if score.accuracy is not None:
            trial._inner.set_user_attr("accuracy", score.accuracy)
        self._study.tell(trial._inner, score.loss)

    def keep(self, name: str, value: Any) -> None:
        """Keep a fact of the whole search."""
        self._study.set_user_attr(name, value)

    def kept(self, name: str) -> Any:
        """A fact of the whole search, or None."""
        return self._study.user_attrs.get(name)

    def trials(self) -> tuple[Trial, ...]:
        """All trials that ended, in the order in which they began; interrupted ones if paid for."""
        found = []
        for trial in self._study.get_trials(deepcopy=False):
            if not trial.state.is_finished():
                continue
            facts = dict(trial.user_attrs)
            accuracy = facts.pop("accuracy", None)
            score = None if trial.value is None else Score(float(trial.value), accuracy)
            if score is None and not facts:
                continue
            found.append(Trial(trial.number, dict(trial.params), score, facts))
        return tuple(found)


def best(trials: Sequence[Trial]) -> Trial | None:
    """The trial with the lowest loss, or None."""
    scored = [trial for trial in trials if trial.score is not None]
    return min(scored, key=lambda trial: trial.score.loss if trial.score else 0.0, default=None)


def _distributions(optuna: Any, space: Space) -> dict[str, Any]:
    made: dict[str, Any] = {
        name: optuna.distributions.FloatDistribution(low, high, log=True)
        for name, (low, high) in space.bounds.items()
    }
    for name, some in space.choices.items():
        made[name] = optuna.distributions.CategoricalDistribution(some)
    return made


def _optuna() -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its libraries about each other
            import optuna
    except ModuleNotFoundError:
        raise ClientError(
            "a search needs one more package; in privity's own folder run: pip install '.[search]'",
            code="needs-search",
        ) from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
