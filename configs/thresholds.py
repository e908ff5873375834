"""What a release must reach before it is used: `Thresholds`, written by who answers for its use."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from configs.run import Number, Table

Least = Annotated[Number, Field(ge=0, le=1)]


class ChoiceTable(Table):
    """For answers that are one of the task's labels."""

    accuracy: Least = 0.0
    macro_f1: Least = 0.85
    calibration_error: Least = 1.0


class TextTable(Table):
    """For answers in free text."""

    rouge_l: Least = 0.45
    bleu: Annotated[Number, Field(ge=0, le=100)] = 0.0


class RobustnessTable(Table):
    """For every release."""

    attack_success: Least = 0.15
    typo_loss: Least = 1.0


class SafetyTable(Table):
    """What the answers may give away, and what may be forgotten."""

    identifiers: Annotated[int, Field(ge=0)] = 0
    copied_words: Annotated[int, Field(ge=0)] = 0
    forgetting: Annotated[Number, Field(ge=0)] = 0.5
    canary_exposure: Annotated[Number, Field(ge=0, le=7)] = 3.0


class Thresholds(Table):
    """thresholds.toml."""

    format: Literal[1] = 1
    choice: ChoiceTable = ChoiceTable()
    text: TextTable = TextTable()
    robustness: RobustnessTable = RobustnessTable()
    safety: SafetyTable = SafetyTable()
