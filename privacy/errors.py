"""What can go wrong in the private core: a code, which may leave, and a sentence, which may not."""

from __future__ import annotations


class PrivacyError(Exception):
    """Base of every refusal in this package.

    `str(error)` is one sentence for the operator: what is wrong, where, what to do. It never holds
    a record's text. Only `code`, a fixed short word, may cross the institution's border.
    """

    code: str = "privacy"
    exit_code: int = 3

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        if code is not None:
            self.code = code


class BudgetExhausted(PrivacyError):
    """The reservation would take the cohort over the cap that its institution set."""

    code = "budget-exhausted"


class RoundSpent(PrivacyError):
    """The round was begun before; its noise is charged once and is never drawn again."""

    code = "round-spent"


class PlanInvalid(PrivacyError):
    """The plan's numbers are impossible, unknown, or differ from what was reserved."""

    code = "plan-invalid"
    exit_code = 2


class LedgerFault(PrivacyError):
    """The ledger is missing, damaged, rolled back, of a newer format, or cannot be written."""

    code = "ledger-fault"
    exit_code = 4


class UnsupportedModel(PrivacyError):
    """One person's gradient cannot be told apart from the others' in this model or loss."""

    code = "unsupported-model"
    exit_code = 2


class EgressDenied(PrivacyError):
    """A message does not fit the list of what may leave the institution."""

    code = "egress-denied"


class Quarantined(PrivacyError):
    """A record is held back on the premises; `code` says which check held it back."""

    code = "quarantined"

    def __init__(self, code: str, message: str | None = None) -> None:
        super().__init__(
            message
            or f"a record was held back ({code}); look at it on site, then correct or drop it",
            code=code,
        )
