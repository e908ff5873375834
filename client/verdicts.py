"""What the parts of an audit amount to: the rules, the words, and the event for the log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from configs.run import decimal
from privacy import attack
from privacy.plan import Mechanism, attack_ceiling, epsilon

NOTICED = 3.0  # the bound that the control must exceed
_LARGEST = 1e6  # stands for anything beyond it, where a log takes finite numbers only

# Said with every report, whatever its verdict.
LIMITS = (
    "An audit can refute a claim; it cannot establish one. That no attack succeeded says only that "
    "these attacks did not.",
    "The twin sees gross faults: noise that is missing or repeated, clipping that is skipped. It "
    "does not see noise that is half of what it should be: at epsilon 2, a thousand canaries do "
    "not refute that.",
    "Wrong noise and wrong clipping are what the mechanism's part sees, to a few hundredths, with "
    "gradients of its own; and the tests of the software.",
    "The attacker of the twin sees every noised gradient. Whoever has the released adapter alone "
    "sees less.",
    "Nothing is said here of the records of any real person.",
)


def judge(
    rows: Sequence[Mechanism],
    mechanism: Mapping[str, Any],
    twin: Mapping[str, Any],
    control: Mapping[str, Any],
    *,
    delta: float,
    rates: Sequence[float],
) -> dict[str, Any]:
    """Apply the rules to the finished parts.

    The mechanism passes by its own rule. The twin fails if a lower bound of epsilon is over the
    claim, if the interval of a true-positive rate lies over the ceiling at what the false-positive
    rate may be at most, or if one secret is generated to the letter. The control must be noticed.

    Returns:
        "mechanism", "twin", "control", each with its verdict, "ceiling" as a curve, "verdict",
        "reasons" and "limits".
    """
    claimed = epsilon(rows, delta=delta)
    reasons = []
    if not mechanism["passed"]:
        reasons.append("the step's noise or clipping is not what the plan says")
    for score in ("gradients", "losses"):
        found = twin[score]
        if not found["epsilon_bound"] <= claimed:
            reasons.append(f"the guesses by {score} refute the claimed epsilon")
        limit = attack_ceiling(rows, delta=delta, fpr=min(found["rate"]["fpr_high"], 0.999))
        if not found["rate"]["interval"]["low"] <= limit:
            reasons.append(f"the true-positive rate by {score} is over its ceiling")
    if twin["verbatim"]:
        reasons.append("the twin generates a canary's secret to the letter")
    failed = len(reasons) > (0 if mechanism["passed"] else 1)
    noticed = bool(control["gradients"]["epsilon_bound"] > NOTICED)
    verdict = "failed" if reasons else "passed" if noticed else "blind"
    if not noticed:
        reasons.append("the attack did not notice that the control has next to no noise")
    return {
        "mechanism": {**mechanism, "verdict": "passed" if mechanism["passed"] else "failed"},
        "twin": {
            **twin,
            "ceiling": attack_ceiling(rows, delta=delta, fpr=attack.FPR),
            "verdict": "failed" if failed else "passed",
        },
        "control": {**control, "verdict": "caught" if noticed else "missed"},
        "ceiling": attack.ceiling_curve(rows, delta=delta, rates=rates),
        "verdict": verdict,
        "reasons": reasons,
        "limits": list(LIMITS),
    }


def event(document: Mapping[str, Any], digest: str) -> dict[str, Any]:
    """The fields of the log's event: fixed kinds of numbers and words, nothing of a record."""
    claim, mechanism = document["claim"], document["mechanism"]
    twin, control = document["twin"], document["control"]
    seen = twin["gradients"]
    return {
        "plan_digest": document["plan_digest"],
        "core_digest": document["core_digest"],
        "effort": document["effort"]["name"],
        "epsilon": _text(claim["epsilon"]),
        "delta": decimal(claim["delta"]),
        "mechanism": {
            "draws": mechanism["draws"],
            "mu_expected": _text(mechanism["expected"]),
            "mu_estimate": _text(mechanism["shift"]["estimate"]),
            "mu_bound": _text(mechanism["shift"]["bound"]),
            "verdict": mechanism["verdict"],
        },
        "twin": {
            "canaries": twin["canaries"],
            "guesses": seen["guesses"],
            "correct": seen["correct"],
            "epsilon_bound": _text(seen["epsilon_bound"]),
            "auc": _text(seen["auc"]),
            "tpr": _text(seen["rate"]["tpr"]),
            "tpr_low": _text(seen["rate"]["interval"]["low"]),
            "tpr_high": _text(seen["rate"]["interval"]["high"]),
            "ceiling": _text(twin["ceiling"]),
            "verbatim": twin["verbatim"],
            "verdict": twin["verdict"],
        },
        "control": {
            "noise_multiplier": decimal(control["noise_multiplier"]),
            "epsilon_bound": _text(control["gradients"]["epsilon_bound"]),
            "verdict": control["verdict"],
        },
        "verdict": document["verdict"],
        "report_digest": digest,
    }


def _text(value: float) -> str:
    return decimal(round(min(max(float(value), -_LARGEST), _LARGEST), 6))
