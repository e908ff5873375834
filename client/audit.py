"""`privity client audit`: attack the private core on this machine, and log what came of it.

Three parts. The mechanism: the production step with injected gradients. The twin: a run of the plan
on made-up people and canaries, attacked by whoever sees every noised gradient. The control: the
same with next to no noise, which the attack must notice, or its silence about the twin means
nothing. Each finished part is kept in the institution's folder and is not repeated.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from audit import canonical
from client import decisions, roc, verdicts
from client.errors import ClientError
from client.folder import Folder
from configs import files
from configs.run import Plan
from configs.version import SOFTWARE
from privacy.plan import Mechanism, epsilon

if TYPE_CHECKING:
    from model.base import Base

CONTROL = 0.05  # noise multiplier that hides nobody
_FORMAT = 1
_TOKENS = 40  # of a canary, roughly
_RATES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.035, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.45, 0.6, 0.8)

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Effort:
    """How much the twin and the control do; all fixed before anything is seen.

    Attributes:
        name: "full" or "quick".
        persons: made-up people beside the canaries.
        canaries: each in by its own coin.
        guesses: how many canaries are guessed to be in.
        looks: how often the attacker takes the canaries' gradients anew, at most once a step.
    """

    name: str
    persons: int
    canaries: int
    guesses: int
    looks: int


FULL = Effort("full", persons=100, canaries=500, guesses=100, looks=20)
QUICK = Effort("quick", persons=20, canaries=240, guesses=64, looks=6)


@dataclass(frozen=True, slots=True)
class Report:
    """The outcome: every number and word of it, its digest, and where its picture lies.

    `logged` says whether the institution's log holds it; what depends on own records is not logged.
    """

    document: Mapping[str, Any] = field(repr=False)
    digest: str
    picture: Path
    logged: bool

    @property
    def verdict(self) -> str:
        """Passed, failed, or blind: the attack did not notice the missing noise of the control."""
        return str(self.document["verdict"])


def run(
    folder: Folder,
    plan: Plan,
    *,
    effort: Effort = FULL,
    draws: int | None = None,
    own_records: bool = False,
    again: bool = False,
    progress: Progress = lambda what, done, total: None,
) -> Report:
    """Audit a plan at this institution.

    Args:
        folder: the institution.
        plan: the plan whose numbers, model and adapter are used.
        effort: `FULL` or `QUICK`.
        draws: of the mechanism's part; None for what its noise needs.
        own_records: train the twin on the institution's own people; the result then depends on
            them and stays in the folder.
        again: repeat parts that were finished before.
        progress: called with (what, done, total).

    Guarantees: without own records nothing of a person is read; the log then holds one event about
        the outcome, whatever it is. No budget is charged, since nothing that depends on a record
        leaves.

    Raises:
        ClientError, ModelError, PrivacyError: the plan's model or numbers cannot be used here.
    """
    place = folder.path / "audit"
    place.mkdir(mode=0o700, exist_ok=True)
    core = core_digest()
    common = {"software": SOFTWARE, "core": core, "plan": decisions.digest(plan)}
    shared = _Shared(folder, plan, own_records)

    def part(name: str, inputs: Mapping[str, Any], make: Callable[[], Any]) -> dict[str, Any]:
        key = {"format": _FORMAT, "part": name, **common, **inputs}
        path = place / f"{canonical.digest(canonical.encode(key))[7:39]}.json"
        kept = None if again else _read(path, key)
        if kept is None:
            kept = json.loads(json.dumps(make()))
            document = {"inputs": key, "result": kept}
            files.replace(path, json.dumps(document).encode(), mode=files.PRIVATE)
        return dict(kept)

    attacked = partial(_attacked, shared, effort=effort, progress=progress)
    extent = {"effort": asdict(effort), "records": "own" if own_records else "made-up"}
    inputs = extent | {"machine": _machine(folder)}
    if own_records:
        inputs |= {"people": _people_digest(folder)}
    mechanism = part("mechanism", {"draws": draws or 0}, lambda: _mechanism(plan, draws, progress))
    twin = part("twin", inputs, lambda: attacked("twin", plan.noise_multiplier))
    control = part("control", inputs, lambda: attacked("control", CONTROL))
    rows = [Mechanism(plan.noise_multiplier, plan.sample_rate, plan.steps)]
    document: dict[str, Any] = {
        "format": _FORMAT,
        "software": SOFTWARE,
        "run": plan.run,
        "plan_digest": common["plan"],
        "core_digest": core,
        "claim": {
            "epsilon": epsilon(rows, delta=plan.delta),
            "delta": plan.delta,
            "unit": plan.unit,
            "adjacency": plan.adjacency,
            "noise_multiplier": plan.noise_multiplier,
            "sample_rate": plan.sample_rate,
            "steps": plan.steps,
        },
        **extent,
        **verdicts.judge(rows, mechanism, twin, control, delta=plan.delta, rates=_RATES),
    }
    digest = canonical.digest(canonical.encode(json.loads(json.dumps(document), parse_float=str)))
    document["report_digest"] = digest
    text = json.dumps(document, indent=1).encode()
    files.replace(place / "report.json", text, mode=files.PRIVATE)
    picture = place / "report.html"
    files.replace(picture, roc.page(document).encode(), mode=files.PRIVATE)
    if not own_records:
        _log(folder, plan, document, digest)
    return Report(document, digest, picture, not own_records)


def minutes(plan: Plan, effort: Effort) -> float:
    """Roughly how long twin and control take together on a small machine, at most.

    Raises:
        ModelError: the plan's model is not on this machine.
    """
    from client import estimate
    from model import catalog

    found = catalog.find(plan.model, expect_digest=plan.model_digest)
    looks = (min(plan.steps, effort.looks) + 2) * (effort.persons + effort.canaries)
    trained = plan.steps * plan.sample_rate * (effort.persons + effort.canaries / 2)
    tokens = min(_TOKENS, plan.training.max_tokens)
    return 2.0 * estimate.seconds(found, tokens=(looks + trained) * tokens) / 60.0


def core_digest() -> str:
    """Digest of the private core's source files: what exactly was attacked."""
    from privacy import attack

    place = Path(attack.__file__).parent
    listed = {path.name: canonical.digest(path.read_bytes()) for path in place.glob("*.py")}
    return canonical.digest(canonical.encode(dict(sorted(listed.items()))))


def chosen_plan(folder: Folder) -> Plan:
    """The plan that was proposed to this institution last.

    Raises:
        ClientError: none was.
    """
    found = sorted(
        (folder.path / "runs").glob("*/plan.json"), key=lambda path: path.stat().st_mtime_ns
    )
    if not found:
        raise ClientError(
            f"no run was proposed to {folder.path} yet; give the run's file with --plan RUN.toml",
            code="no-plan",
        )
    return decisions.proposed(folder, found[-1].parent.name)


def _mechanism(plan: Plan, draws: int | None, progress: Progress) -> dict[str, Any]:
    from privacy import attack_mechanism

    found = attack_mechanism.audit(
        noise_multiplier=plan.noise_multiplier,
        clip_norm=plan.clip_norm,
        clipping=plan.clipping,
        draws=draws,
        on_step=lambda done, total: progress("mechanism", done, total),
    )
    return asdict(found)


def _machine(folder: Folder) -> dict[str, Any]:
    """What of the settings decides which arithmetic is attacked."""
    runtime = folder.settings.runtime
    return {name: getattr(runtime, name) for name in ("precision", "threads", "chunk_tokens")}


def _people_digest(folder: Folder) -> str:
    """Changes with the records, with how they are scrubbed, and with each withdrawal."""
    from client import withdrawals

    lists = folder.settings.scrub.lists
    paths = [folder.data, *([folder.path / lists] if lists else [])]
    seen = [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths if path.is_file()]
    settings = folder.settings.model_dump_json(include={"data", "scrub", "columns"})
    return hashlib.sha256(repr((seen, settings, withdrawals.stamp(folder))).encode()).hexdigest()


class _Shared:
    """The model and the people of twin and control, loaded when the first of them needs them."""

    def __init__(self, folder: Folder, plan: Plan, own_records: bool) -> None:
        self.folder = folder
        self.plan = plan
        self.own_records = own_records
        self._model: tuple[Base, Any] | None = None
        self._people: tuple[tuple[Any, ...], ...] | None = None

    def model(self) -> tuple[Base, Any]:
        """The base model, and the same with the plan's adapter attached."""
        if self._model is None:
            from client.border import spec
            from model import adapter, catalog
            from model import base as base_model

            found = catalog.find(self.plan.model, expect_digest=self.plan.model_digest)
            runtime = self.folder.settings.runtime
            base = base_model.load(
                found, threads=runtime.threads or None, precision=runtime.precision
            )
            self._model = base, adapter.attach(base, spec(self.plan.adapter))
        return self._model

    def people(self) -> tuple[tuple[Any, ...], ...] | None:
        """The institution's own people, or None for made-up ones."""
        if self.own_records and self._people is None:
            from client import people, withdrawals
            from client.train import items

            withdrawals.check(self.folder)
            tool = people.scrubber(self.folder)
            said = people.stated(self.folder)
            done = people.scrub(people.read(self.folder), tool, said=said)
            self._people = items(done, *self.model(), self.plan)
        return self._people


def _attacked(
    shared: _Shared, part: str, noise_multiplier: float, *, effort: Effort, progress: Progress
) -> dict[str, Any]:
    from client import twin
    from privacy import attack

    base, model = shared.model()
    plan = shared.plan
    seen = twin.observe(
        base,
        model,
        plan,
        twin.Size(effort.persons, effort.canaries, min(plan.steps, effort.looks)),
        noise_multiplier=noise_multiplier,
        people=shared.people(),
        chunk_tokens=shared.folder.settings.runtime.chunk_tokens,
        progress=lambda what, done, total: progress(f"{part}: {what}", done, total),
    )
    judged = partial(attack.evaluate, included=seen.included, delta=plan.delta)
    return {
        "noise_multiplier": noise_multiplier,
        "canaries": effort.canaries,
        "gradients": asdict(judged(seen.gradients, guesses=effort.guesses)),
        "losses": asdict(judged(seen.losses, guesses=effort.guesses)),
        "verbatim": seen.verbatim,
    }


def _read(path: Path, key: Mapping[str, Any]) -> dict[str, Any] | None:
    """A part that was finished with exactly these inputs, or None."""
    try:
        document = json.loads(path.read_bytes())
        if document["inputs"] != json.loads(json.dumps(dict(key))):
            return None
        return dict(document["result"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _log(folder: Folder, plan: Plan, document: Mapping[str, Any], digest: str) -> None:
    log = folder.log()
    known = {entry.event.fields["report_digest"] for entry in log.entries("privacy-audit")}
    if digest not in known:
        log.append("privacy-audit", verdicts.event(document, digest), run=plan.run)
