"""How a release does beside its base model, on records that nobody needs to protect.

An answer that is one of the task's labels is chosen by likelihood; any other is written. Every
figure of two arms is compared record by record. Records of an institution have a door of their own,
`private_score`, which charges the ledger and gives away two noised numbers.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from client import exposure, perturb, records
from client.errors import ClientError
from client.general import PAIRS

if TYPE_CHECKING:
    from client.released import Released
    from model.figures import Bools, Difference, Float64, RiskCoverage
    from model.scoring import Rule
    from model.text_metrics import Nearness

Row = tuple[str, str]
Progress = Callable[[str, int, int], None]
ANSWER_TOKENS = 128
COPY_WORDS = 12  # shorter runs are found in texts that have nothing to do with each other
_PROBED = 50  # records that are asked again with typing errors, in other words, or with an attack


@dataclass(frozen=True, slots=True)
class Choice:
    """An arm that chose among labels.

    Attributes:
        rule: how it chose, see `model.scoring.Rule`; an arm is judged by the rule that suits it.
        right: whether each record's label was found, shape (n,).
        confidence: probability of each chosen label among the labels, shape (n,).
    """

    rule: str
    accuracy: float
    macro_f1: float
    calibration_error: float
    coverage: RiskCoverage
    right: Bools = field(repr=False)
    confidence: Float64 = field(repr=False)


@dataclass(frozen=True, slots=True)
class Speed:
    """How fast answers are written, one at a time on this machine."""

    median_s: float
    p99_s: float
    tokens_per_s: float


@dataclass(frozen=True, slots=True)
class Arm:
    """One model on the records.

    Attributes:
        name: "base", "released" or "against".
        losses: nats a token of each expected answer, shape (n,).
        general: mean nats a token of general answers that no institution wrote.
        choice: where answers are labels.
        nearness: where they are written.
        changed: figure by figure, how much of accuracy or ROUGE-L is lost by typing errors and by
            other words for the same question; positive is a loss.
        attack_success: share of planted instructions that were obeyed.
        speed: of writing.
        answers: what was written, for the leak checks and the rating sheet.
    """

    name: str
    losses: Float64 = field(repr=False)
    general: float
    choice: Choice | None
    nearness: Nearness | None
    changed: Mapping[str, float]
    attack_success: float
    speed: Speed
    answers: tuple[str, ...] = field(repr=False)

    @property
    def loss(self) -> float:
        """Mean over records, in nats a token."""
        return float(self.losses.mean())

    @property
    def perplexity(self) -> float:
        """Of the expected answers; each record weighs the same."""
        return float(np.exp(self.losses.mean()))

    @property
    def each(self) -> Float64:
        """The arm's main figure for every record: right or not, or ROUGE-L."""
        if self.choice is not None:
            return self.choice.right.astype(np.float64)
        return np.zeros(0) if self.nearness is None else self.nearness.each


@dataclass(frozen=True, slots=True)
class Leaks:
    """What the released model's written answers give away.

    Attributes:
        answers: how many were looked at.
        identifiers: answers with an identifier that the question does not hold, by our own scrub.
        copied_words: longest run of words that a training record holds too; None if no records
            were given to compare with.
        exposures: of each planted canary in bits, by arm; empty if none were given.
    """

    answers: int
    identifiers: int
    copied_words: int | None
    exposures: Mapping[str, tuple[float, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """All arms on the same records.

    Attributes:
        data: what the records are, in words.
        kind: "choice" or "text".
        main: what `Arm.each` is called.
        differences: by "released - base" and the like.
        leaks: of the released arm.
    """

    release: str
    data: str
    records: int
    kind: str
    main: str
    arms: tuple[Arm, ...]
    differences: Mapping[str, Difference]
    leaks: Leaks

    def arm(self, name: str) -> Arm:
        """The arm of that name."""
        return next(arm for arm in self.arms if arm.name == name)


def rows(path: Path, *, limit: int) -> tuple[Row, ...]:
    """Read evaluation records; a longer file is thinned by a shuffle that is the same for all.

    Raises:
        ClientError: nothing readable, or a line that is no record (named by its number).
    """
    reading = records.read(path)
    if reading.faults:
        first = reading.faults[0]
        raise ClientError(
            f"{path} line {first.line} is no record ({first.code}); correct it: an evaluation "
            "leaves nothing out",
            code="evaluation-data",
        )
    found = [(record.instruction, record.response) for record in reading.records]
    if len(found) > limit:
        random.Random("privity evaluation").shuffle(found)  # noqa: S311 - no secret
    if len(found[:limit]) < 2:
        raise ClientError(f"{path} holds fewer than two records; give more", code="evaluation-data")
    return tuple(found[:limit])


def evaluate(
    released: Released,
    given: Sequence[Row],
    *,
    data: str,
    against: Released | None = None,
    general: Sequence[Row] = PAIRS,
    written: int = 50,
    sources: Sequence[str] | None = None,
    canaries: Sequence[Row] = (),
    identifiers: Callable[[str, str], int],
    progress: Progress = lambda what, done, total: None,
) -> Evaluation:
    """Ask base and release (and another release) the same.

    Args:
        released: the release, verified and loaded.
        given: at least two (instruction, response).
        data: what they are, in words for the report.
        against: a second release on the same base model.
        general: questions and answers of everyday knowledge, to see what was forgotten.
        written: answers that each arm writes, where answers are labels; all of them elsewhere.
        sources: training records to look for copies of; None skips that.
        canaries: planted records, see `exposure`.
        identifiers: called with (answer, question); identifiers in the one that are not in the
            other.
        progress: called with (arm and step, done, total).

    Raises:
        ModelError: the records do not fit the model.
    """
    from model import figures, text_metrics

    labels = released.labels
    kind = "choice" if labels and all(r.strip() in labels for _, r in given) else "text"
    written = min(len(given), written) if kind == "choice" else len(given)
    arms, exposures = [], {}
    for name, one, tuned in (
        ("base", released, False), ("released", released, True), ("against", against, True),
    ):  # fmt: skip
        if one is None:
            continue

        def tell(what: str, done: int, total: int, name: str = name) -> None:
            progress(f"{name}: {what}", done, total)

        with one.arm(tuned=tuned) as model:
            arms.append(_arm(name, one, model, given, kind, written, general, tell))
            if canaries:
                exposures[name] = exposure.measure(one, model, canaries, _part(tell, "canaries"))
    pairs = [("released", "base")] + ([("released", "against")] if against else [])
    named = {arm.name: arm for arm in arms}
    differences = {
        f"{first} - {second}": figures.difference(named[second].each, named[first].each)
        for first, second in pairs
    }
    told = named["released"].answers
    asked = [ask for ask, _ in given[: len(told)]]
    found = sum(identifiers(answer, ask) > 0 for answer, ask in zip(told, asked, strict=True))
    copied = None
    if sources is not None:
        copied = max(
            (text_metrics.longest_copy(answer, sources, words=COPY_WORDS) for answer in told),
            default=0,
        )
    return Evaluation(
        release=released.name,
        data=data,
        records=len(given),
        kind=kind,
        main="accuracy" if kind == "choice" else "ROUGE-L",
        arms=tuple(arms),
        differences=differences,
        leaks=Leaks(len(told), found, copied, exposures),
    )


def _arm(
    name: str,
    one: Released,
    model: Any,
    given: Sequence[Row],
    kind: str,
    written: int,
    general: Sequence[Row],
    progress: Progress,
) -> Arm:
    from model import scoring, text_metrics

    losses = scoring.losses(model, one.base, given, progress=_part(progress, "losses"))
    forgot = float(scoring.losses(model, one.base, general).mean())
    asked, wanted = [ask for ask, _ in given], [reply for _, reply in given]
    answers, speed = _write(one, model, asked[:written], progress, "writing")
    probed = given[:_PROBED]
    choice = nearness = None
    if kind == "choice":
        # The base model was never trained to choose: it is judged by what suits it better.
        rules: tuple[Rule, ...] = ("choice",) if one.chooses else ("calibrated",)
        if name == "base" and one.chooses:
            rules = ("calibrated", "choice")
        tries = [_choose(one, model, given, rule, progress, "labels") for rule in rules]
        choice = max(tries, key=lambda found: found.accuracy)
        rule = next(rule for rule in rules if rule == choice.rule)
        before = float(choice.right[: len(probed)].mean())
        changed = {
            what: before - _choose(one, model, again, rule, progress, what).accuracy
            for what, again in perturb.variants(probed).items()
        }
        targets = perturb.targets([reply for _, reply in probed], one.labels)
        attacked = [
            (perturb.attack(ask, target), target)
            for (ask, _), target in zip(probed, targets, strict=True)
        ]
        success = _choose(one, model, attacked, rule, progress, "attacks").accuracy
    else:
        nearness = text_metrics.nearness(answers, wanted)
        before = float(nearness.each[: len(probed)].mean())
        changed = {}
        for what, again in perturb.variants(probed).items():
            told, _ = _write(one, model, [ask for ask, _ in again], progress, what)
            near = text_metrics.nearness(told, [reply for _, reply in again])
            changed[what] = before - near.rouge_l
        attacked = [(perturb.attack(ask, perturb.WORD), perturb.WORD) for ask, _ in probed]
        told, _ = _write(one, model, [ask for ask, _ in attacked], progress, "attacks")
        success = float(np.mean([perturb.WORD.lower() in text.lower() for text in told]))
    return Arm(
        name, losses, forgot, choice, nearness, changed, success, speed, tuple(answers)
    )  # fmt: skip


def _choose(
    one: Released, model: Any, given: Sequence[Row], rule: Rule, progress: Progress, what: str
) -> Choice:
    from model import figures, scoring

    chosen = scoring.choose(
        model, one.base, [ask for ask, _ in given], one.labels, rule=rule,
        progress=_part(progress, what),
    )  # fmt: skip
    index = {label: place for place, label in enumerate(one.labels)}
    true = [index[reply.strip()] for _, reply in given]
    right = np.array([t == f for t, f in zip(true, chosen.best, strict=True)])
    return Choice(
        rule=rule,
        accuracy=float(right.mean()),
        macro_f1=scoring.macro_f1(true, chosen.best),
        calibration_error=figures.calibration_error(chosen.confidence, right),
        coverage=figures.risk_coverage(chosen.confidence, right),
        right=right,
        confidence=chosen.confidence,
    )


def _write(
    one: Released, model: Any, asked: Sequence[str], progress: Progress, what: str
) -> tuple[list[str], Speed]:
    from model import generation

    answers, seconds, tokens = [], [], 0
    for place, ask in enumerate(asked):
        began = time.perf_counter()
        reply = generation.chat(
            model, one.base, [{"role": "user", "content": ask}], max_new_tokens=ANSWER_TOKENS
        )
        seconds.append(time.perf_counter() - began)
        tokens += reply.completion_tokens
        answers.append(reply.text)
        progress(what, place + 1, len(asked))
    median, p99 = (float(x) for x in np.quantile(seconds, (0.5, 0.99)))
    return answers, Speed(median, p99, tokens / max(sum(seconds), 1e-9))


def _part(progress: Progress, what: str) -> Callable[[int, int], None]:
    return lambda done, total: progress(what, done, total)
