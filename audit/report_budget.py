"""The report's sections about the privacy loss: what is claimed, and what attacks on it found."""

from __future__ import annotations

from collections.abc import Iterator

from audit import charts
from audit.events import decimal
from audit.findings import InstitutionFinding
from audit.material import Material, moment, ref, refs
from audit.sentences import Figure, Part, say


def claimed(of: Material) -> Iterator[Part]:
    """ε of each institution, recomputed, with its picture, and what the release says of it."""
    for site in of.findings.institutions:
        yield from _site(of, site)
    for name in sorted(set(of.sites) - {site.name for site in of.findings.institutions}):
        yield say("no-epsilon", [of.check("epsilon")], site=name)
    for record in of.of("release", of.coordinator):
        for claim in record.entry.event.fields["claims"]:
            yield say(
                "stated",
                [ref(record)],
                site=claim["institution"],
                scope=_scope(of),
                epsilon=claim["epsilon"],
                delta=claim["delta"],
                unit=claim["unit"],
                adjacency=claim["adjacency"],
            )


def _site(of: Material, site: InstitutionFinding) -> Iterator[Part]:
    reserved = of.reserved(site.name)
    if not site.rounds_reserved or not reserved:
        yield say("not-reserved", [of.check("search")], site=site.name)
        return
    trained = of.of("dp-training", site.name)
    cited = [*refs(reserved), *refs(trained[:1]), of.check("epsilon")]
    if None in (site.epsilon, site.cap, site.delta, site.unit, site.adjacency):
        yield say("no-epsilon", cited, site=site.name)
        return
    assert site.epsilon is not None and site.cap is not None and site.delta is not None  # noqa: S101, PT018
    words = {"unit": site.unit, "adjacency": site.adjacency, "delta": decimal(site.delta)}
    cap = f"{site.cap:g}"
    yield say(
        "epsilon",
        cited,
        site=site.name,
        scope=f"in run {of.run} and in the other runs that its log reserved for the same people",
        epsilon=f"{site.epsilon:.4f}",
        cap=cap,
        **words,
    )
    own = reserved[-1].entry.event.fields
    yield say(
        "mechanism",
        [ref(reserved[-1]), *refs(trained[:1])],
        site=site.name,
        steps=own["steps"],
        sigma=own["noise_multiplier"],
        rate=own["sample_rate"],
        clip=trained[0].entry.event.fields["clip_norm"] if trained else "not logged",
    )
    points = of.curve(site.name)
    if points:
        caption = say(
            "picture",
            [*refs(reserved), *refs(trained), of.check("epsilon")],
            site=site.name,
            scope=f"in run {of.run} after the runs reserved before it",
            first=f"{points[0].epsilon:.4f}",
            epsilon=f"{points[-1].epsilon:.4f}",
            cap=cap,
            **words,
        )
        pairs = [(point.rounds, point.epsilon) for point in points]
        svg = charts.curve(pairs, site.cap, title=f"ε of {site.name}", text=caption.text)
        yield Figure(svg, caption)


def audited(of: Material) -> Iterator[Part]:
    """What attacks on the software with made-up people came to, as the sites logged it."""
    records = of.of("privacy-audit")
    for record in records:
        fields, here = record.entry.event.fields, [ref(record)]
        yield say(
            "attacked",
            here,
            site=record.entry.name,
            time=moment(record),
            effort=fields["effort"],
            verdict=fields["verdict"],
        )
        twin, control = fields["twin"], fields["control"]
        yield say(
            "twin",
            here,
            bound=twin["epsilon_bound"],
            correct=twin["correct"],
            guesses=twin["guesses"],
            tpr=twin["tpr"],
            ceiling=twin["ceiling"],
        )
        yield say("control", here, sigma=control["noise_multiplier"], verdict=control["verdict"])
    if not records:
        yield say("not-attacked", [of.check("search")])


def _scope(of: Material) -> str:
    return f"in run {of.run} and in all earlier runs of the same cohort"
