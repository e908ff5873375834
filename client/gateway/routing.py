"""Which release answers whom: the stable one, or for a share of the users one on trial."""

from __future__ import annotations

import hashlib
import hmac
import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from configs.serving import TrialTable

_SCALE: Final = 1 << 32
_KEPT: Final = 1000  # latest answers by which a release is judged


@dataclass(frozen=True, slots=True)
class Rollback:
    """A trial that ended.

    Attributes:
        candidate: the release that no user gets any more unless they ask for it by name.
        reason: "error-rate" or "p99".
    """

    candidate: str
    reason: str


class Routes:
    """The way from the name that is asked for to the release that answers.

    A user keeps their release as long as the trial lasts, over restarts too: who is in it follows
    from a digest of the user, so that nothing is stored and a larger share only adds users.
    """

    def __init__(
        self,
        models: Sequence[str],
        trial: TrialTable,
        *,
        key: bytes = b"trial",
        on_rollback: Callable[[Rollback], None] = lambda rollback: None,
    ) -> None:
        """Set up.

        Args:
            models: what can be asked for by name; the first is the stable release.
            trial: the candidate and its conditions; without a candidate there is no trial.
            key: of the digest; another one draws other users.
            on_rollback: called once when a canary is rolled back.
        """
        self.models = tuple(models)
        self.stable = self.models[0]
        self.trial = trial
        self.rolled_back: Rollback | None = None
        self._key = key
        self._on_rollback = on_rollback
        self._outcomes: dict[str, deque[tuple[bool, float]]] = {}

    @property
    def candidate(self) -> str | None:
        """The release on trial, if one is and was not rolled back."""
        there = self.trial.candidate in self.models and self.rolled_back is None
        return self.trial.candidate if there else None

    def pick(self, asked: str, user: str) -> str | None:
        """The release that answers this user; None if what they ask for is not served.

        Who asks for the stable release may get the candidate; any other name is taken literally.
        """
        if asked not in self.models:
            return None
        if asked == self.stable and self.candidate is not None and self._in_trial(user):
            return self.candidate
        return asked

    def note(self, model: str, *, fault: bool, seconds: float) -> None:
        """Take down how one question went, and roll a canary back that does badly.

        Args:
            model: the release that answered.
            fault: the service failed; refusing a bad question is no fault.
            seconds: from question to the end of the answer.
        """
        outcomes = self._outcomes.setdefault(model, deque(maxlen=_KEPT))
        outcomes.append((fault, seconds))
        if model != self.candidate or self.trial.kind != "canary":
            return
        if len(outcomes) < self.trial.requests:
            return
        errors, slowest = self.judge(model)
        reason = None
        if not errors <= self.trial.error_rate:
            reason = "error-rate"
        elif not slowest <= self.trial.p99_s:
            reason = "p99"
        if reason is not None:
            self.rolled_back = Rollback(model, reason)
            self._on_rollback(self.rolled_back)

    def judge(self, model: str) -> tuple[float, float]:
        """Share of faults and 99th percentile of seconds among a release's latest answers."""
        outcomes = self._outcomes.get(model)
        if not outcomes:
            return 0.0, 0.0
        times = sorted(seconds for _, seconds in outcomes)
        errors = sum(fault for fault, _ in outcomes) / len(outcomes)
        return errors, times[math.ceil(0.99 * len(times)) - 1]

    def _in_trial(self, user: str) -> bool:
        text = f"{self.trial.candidate}\0{user}".encode()
        draw = int.from_bytes(hmac.digest(self._key, text, hashlib.sha256)[:4], "big")
        return draw < self.trial.share * _SCALE
