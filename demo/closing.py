"""The closing table: what happened, in figures that the evidence carries."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.table import Table

_TRAINERS = {
    "cut off": "cut off from the network, keys and disk; or they would not have trained",
    "not cut off": "had the network: this machine does not let them be cut off (client doctor "
    "says why)",
}


def draw(result: dict[str, Any], out: Path) -> Group:
    """The table, the sentences that it needs, and the three commands to try next."""
    sites = Table(
        "institution", "persons", "records kept", "identifiers removed", "ε spent of cap",
        title="privity demo", title_justify="left",
    )  # fmt: skip
    for name, facts in result["institutions"].items():
        caught = f" ({facts['caught']:.1%} of the known ones)" if "caught" in facts else ""
        sites.add_row(
            name,
            str(facts["persons"]),
            f"{facts['kept']} of {facts['records']}",
            f"{facts['removed']}{caught}",
            f"{facts['epsilon']:.4f} of {facts['cap']:g}",
        )
    whole = Table(show_header=False, title="", box=None)
    whole.add_row("institutions", str(len(result["institutions"])))
    whole.add_row("rounds", str(result["rounds"]))
    for row in _utility(result["evaluation"]):
        whole.add_row(*row)
    whole.add_row("watermark", _watermark(result["watermark"]))
    whole.add_row("witnessed by", ", ".join(result["witnesses"]) or "nobody")
    whole.add_row("trainers", _TRAINERS[result["trainer"]])
    verdict = "holds" if result["verified"]["ok"] else "FAULTY"
    whole.add_row("verification", f"{verdict} ({result['verified']['faults']} faults)")
    seconds = result["seconds"]
    whole.add_row("time", f"{seconds['without_model']:.0f} s, and {seconds['model']:.0f} s for the "
                  "base model")  # fmt: skip
    delta = next(iter(result["institutions"].values()))["delta"]
    parts: list[Any] = [sites, whole, _claim(delta)]
    if result["generated"]:
        parts.append(
            "The identifiers come from our own templates: the share caught checks the plumbing and "
            "says little about real notes."
        )
    return Group(*parts, *_next(result, out))


def _claim(delta: float) -> str:
    return (
        f"ε is per person, at δ {delta:g}, under zero-out of all of one person's records, over all "
        "adapter updates that the institution sent in this run (PLD accountant, plan fixed "
        "beforehand)."
    )


def _utility(evaluation: dict[str, Any] | None) -> list[tuple[str, str]]:
    if evaluation is None:
        return [("utility", "not evaluated")]
    base, released = evaluation["base"], evaluation["released"]
    gain = (released["accuracy"] - base["accuracy"]) * 100
    return [
        ("held-out records", f"{evaluation['records']} ({evaluation['data']})"),
        (
            "accuracy",
            f"base model {base['accuracy']:.3f} → released {released['accuracy']:.3f} "
            f"({gain:+.1f} points)",
        ),
        ("macro F1", f"base model {base['macro_f1']:.3f} → released {released['macro_f1']:.3f}"),
        (
            "response loss",
            f"base model {base['loss']:.3f} → released {released['loss']:.3f} nats per token",
        ),
    ]


def _watermark(mark: dict[str, float]) -> str:
    p = f"{mark['p_value']:.1e}" if mark["p_value"] > 1e-300 else "below 1e-300"
    return f"z {mark['z']:.1f}, p-value {p}"


def _next(result: dict[str, Any], out: Path) -> list[str]:
    site = next(iter(result["institutions"]))
    return [
        "",
        "try next:",
        f"  privity audit verify {out / 'bundle'}",
        f"  privity client budget {out / 'institutions' / site}",
        f"  privity serve {out / 'release'} --dir {out / 'institutions' / site}",
    ]


def show(result: dict[str, Any], out: Path) -> None:
    """Print the closing table on standard output."""
    Console().print(draw(result, out))
