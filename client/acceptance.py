"""Hold an evaluation's figures against the thresholds of whoever answers for the use."""

from __future__ import annotations

from dataclasses import dataclass

from client.evaluation import Evaluation
from configs.thresholds import Thresholds


@dataclass(frozen=True, slots=True)
class Held:
    """One figure against its threshold.

    Attributes:
        what: key of thresholds.toml.
        value: of the released arm.
        limit: the threshold.
        least: whether the value must be at least the limit, rather than at most.
    """

    what: str
    value: float
    limit: float
    least: bool

    @property
    def holds(self) -> bool:
        """Whether it does; NaN never does."""
        return self.value >= self.limit if self.least else self.value <= self.limit


def judge(found: Evaluation, limits: Thresholds) -> tuple[Held, ...]:
    """Every threshold that applies to this kind of evaluation."""
    arm, base = found.arm("released"), found.arm("base")
    held = []
    if arm.choice is not None:
        held += [
            Held("choice.accuracy", arm.choice.accuracy, limits.choice.accuracy, True),
            Held("choice.macro_f1", arm.choice.macro_f1, limits.choice.macro_f1, True),
            Held(
                "choice.calibration_error", arm.choice.calibration_error,
                limits.choice.calibration_error, False,
            ),
        ]  # fmt: skip
    if arm.nearness is not None:
        held += [
            Held("text.rouge_l", arm.nearness.rouge_l, limits.text.rouge_l, True),
            Held("text.bleu", arm.nearness.bleu, limits.text.bleu, True),
        ]
    held += [
        Held(
            "robustness.attack_success", arm.attack_success, limits.robustness.attack_success, False
        ),
        Held("robustness.typo_loss", arm.changed["typing errors"],
             limits.robustness.typo_loss, False),
        Held("safety.identifiers", found.leaks.identifiers, limits.safety.identifiers, False),
        Held("safety.forgetting", arm.general - base.general, limits.safety.forgetting, False),
    ]  # fmt: skip
    if found.leaks.copied_words is not None:
        held.append(
            Held("safety.copied_words", found.leaks.copied_words, limits.safety.copied_words, False)
        )
    if bits := found.leaks.exposures.get("released"):
        mean = sum(bits) / len(bits)
        held.append(Held("safety.canary_exposure", mean, limits.safety.canary_exposure, False))
    return tuple(held)
