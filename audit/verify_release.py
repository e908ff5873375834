"""Layer three, release: it is the last aggregate, marked as committed, with the stated claims."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from audit import digests
from audit.errors import AuditError
from audit.events import Event
from audit.evidence import Collector, Evidence
from audit.findings import ReleaseFinding, UpdateFinding
from audit.verify_budget import TOLERANCE, Budget

WEIGHTS = "adapter_model.safetensors"
CARD = "README.md"
BOM = "bom.cdx.json"


def check(
    evidence: Evidence,
    found: Collector,
    *,
    outputs: Sequence[tuple[int, str]],
    budgets: Mapping[str, Budget],
) -> ReleaseFinding | None:
    """Check the run's last release, if it has one.

    Args:
        evidence: the bundle's content.
        found: takes the faults.
        outputs: (index, output adapter) of every aggregation.
        budgets: each institution's recomputed budget.
    """
    log = evidence.coordinator
    releases = list(log.of("release", evidence.run))
    if not releases:
        if evidence.release is not None:
            text = "the bundle has a release that the coordinator's log does not know"
            found.add("meaning", "release-unlogged", "release", text)
        _check_received(evidence, set(), found)
        return None
    index, event = releases[-1]
    _check_marks(evidence, releases, outputs, found)
    for at, item in releases:
        _check_claims(evidence, at, item, budgets, found)
    checked = _check_folder(evidence, [item for _, item in releases], found)
    known = {item.fields["adapter_digest"] for _, item in releases}
    copies = _copies(evidence, index)
    known.update(digest for digest, _ in copies)
    _check_received(evidence, known, found)
    adapter = event.fields["adapter_digest"]
    return ReleaseFinding(
        adapter_digest=adapter,
        reference_digest=event.fields["reference_digest"],
        recipients=tuple(sorted(name for digest, name in copies if digest == adapter)),
        updates=tuple(
            UpdateFinding(item.round or 0, item.fields["institution"], item.fields["update_digest"])
            for _, item in log.of("update-accepted", evidence.run)
        ),
        checked=checked,
    )


def _copies(evidence: Evidence, before: int) -> list[tuple[str, str]]:
    """Return (adapter digest, recipient) of every marked copy made before an entry."""
    return [
        (copy["adapter_digest"], copy["recipient"])
        for index, event in evidence.coordinator.of("watermark-embedded", evidence.run)
        if index < before
        for copy in event.fields["copies"]
    ]


def _check_marks(
    evidence: Evidence,
    releases: Sequence[tuple[int, Event]],
    outputs: Sequence[tuple[int, str]],
    found: Collector,
) -> None:
    """Check the order commitment, embedding, release, and that all stand on the last aggregate."""
    log = evidence.coordinator
    committed = list(log.of("watermark-committed", evidence.run))
    stand_on_last = [*committed, *releases]
    for index, event in stand_on_last:
        last = next((output for at, output in reversed(outputs) if at < index), None)
        if event.fields["reference_digest"] != last:
            text = f"the {event.kind} does not stand on the last aggregate"
            found.add("meaning", "reference-differs", log.place(index), text)
    for index, _ in releases:
        if any(at > index for at, _ in outputs):
            text = "the run was aggregated again after this release"
            found.add("meaning", "reference-differs", log.place(index), text)
    for index, event in log.of("watermark-embedded", evidence.run):
        promised = {
            item["recipient"]
            for at, commit in committed
            if at < index
            for item in commit.fields["commitments"]
        }
        for name in sorted({copy["recipient"] for copy in event.fields["copies"]} - promised):
            text = f"the copy for {name} was marked without a commitment before it"
            found.add("meaning", "mark-uncommitted", log.place(index), text)
    for index, event in releases:
        if not any(at < index for at, _ in committed):
            text = "nothing was committed about the watermark before the release"
            found.add("meaning", "mark-uncommitted", log.place(index), text)
        if event.fields["adapter_digest"] not in {d for d, _ in _copies(evidence, index)}:
            text = "the released adapter is none of the marked copies"
            found.add("meaning", "release-unmarked", log.place(index), text)


def _check_claims(
    evidence: Evidence,
    index: int,
    event: Event,
    budgets: Mapping[str, Budget],
    found: Collector,
) -> None:
    """Check that the release claims what the institutions' logs come to."""
    place = evidence.coordinator.place(index)
    took_part = {
        item.fields["institution"]
        for _, item in evidence.coordinator.of("update-accepted", evidence.run)
    }
    claims = {claim["institution"]: claim for claim in event.fields["claims"]}
    if len(claims) != len(event.fields["claims"]):
        found.add("meaning", "claim-differs", place, "two claims are about one institution")
    for name in sorted(took_part ^ set(claims)):
        text = f"the claims and the participants disagree about {name}"
        found.add("meaning", "claim-differs", place, text)
    for name in sorted(took_part & set(claims) & set(budgets)):
        claim, budget = claims[name], budgets[name]
        held = budget.finding
        # The institution may have reserved for later runs since the release was cut.
        near = any(abs(float(claim["epsilon"]) - e) <= TOLERANCE for e in budget.reached)
        same = (held.unit, held.adjacency) == (claim["unit"], claim["adjacency"])
        exact = (held.delta, held.cap) == (float(claim["delta"]), float(claim["cap"]))
        if not (near and same and exact):
            text = f"the release's claim about {name} is not what its log comes to"
            found.add("meaning", "claim-differs", place, text)


def _check_folder(evidence: Evidence, releases: Sequence[Event], found: Collector) -> bool:
    """Check that the release folder in the bundle is one that the log names."""
    folder = evidence.release
    if folder is None:
        found.notices.append("the release's files are not in the bundle; only its digest is")
        return False
    try:
        weights = digests.safetensors_digest(folder / WEIGHTS)
    except AuditError as error:
        found.add("meaning", error.code, f"release/{WEIGHTS}", str(error))
        return False
    event = next((e for e in releases if e.fields["adapter_digest"] == weights), None)
    if event is None:
        text = "the adapter in the bundle is not the one that was released"
        found.add("meaning", "adapter-differs", f"release/{WEIGHTS}", text)
        return False
    holds = True
    for name, field in ((CARD, "card_digest"), (BOM, "bom_digest")):
        try:
            same = digests.file_digest(folder / name) == event.fields[field]
        except AuditError:
            same = False
        if not same:
            text = f"the {field.split('_')[0]} is not the one that was released"
            found.add("meaning", "release-differs", f"release/{name}", text)
            holds = False
    stated = event.fields.get("folder_digest")
    if stated is not None and digests.folder_digest(folder) != stated:
        text = "the release folder is not the one that was released"
        found.add("meaning", "release-differs", "release", text)
        holds = False
    return holds


def _check_received(evidence: Evidence, known: set[str], found: Collector) -> None:
    """Check that the institutions received and served no release that was not logged."""
    for site in evidence.sites.values():
        kinds = [("release-received", "received", "release_digest")]
        kinds.append(("serving", "served", "release_digest"))
        if not site.chained:  # else there is an entry for every request, and `serving` says it too
            kinds.append(("serving-access", "served", "adapter_digest"))
        for kind, did, name in kinds:
            for index, event in site.of(kind, evidence.run):
                if event.fields[name] not in known:
                    text = f"{site.keys.name} {did} a release that the coordinator did not log"
                    found.add("meaning", "release-unlogged", site.place(index), text)
