"""`privity evaluate`: how a release does beside its base model, before anybody uses it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from client.cli_options import ReleaseFolder, ReleaseKey, SiteFolder

if TYPE_CHECKING:
    from client.acceptance import Held
    from client.evaluation import Arm, Evaluation
    from client.private_score import Foreseen
    from client.ratings import Ratings

_REFUSED = 3


def command(
    release: ReleaseFolder,
    data: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Public or made-up records: JSONL, JSON or CSV."),
    ] = None,
    key: ReleaseKey = None,
    directory: SiteFolder = None,
    against: Annotated[
        Path | None, typer.Option(metavar="RELEASE", help="Another release, same base and key.")
    ] = None,
    limits: Annotated[
        Path | None,
        typer.Option(
            "--thresholds", metavar="FILE.toml", help="See configs/thresholds.example.toml."
        ),
    ] = None,
    general: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="General records to see what was forgotten."),
    ] = None,
    sources: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Training records, to look for copies of them."),
    ] = None,
    canaries: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Records with random secrets that were planted in the training."
        ),
    ] = None,
    limit: Annotated[int, typer.Option(min=2, help="At most so many records.")] = 200,
    description: Annotated[str, typer.Option(help="What the records are, for the report.")] = "",
    out: Annotated[
        Path | None, typer.Option(metavar="FILE.html", help="Write the report with pictures.")
    ] = None,
    sheet: Annotated[
        Path | None, typer.Option(metavar="FILE.csv", help="Write a sheet for two raters.")
    ] = None,
    ratings: Annotated[
        Path | None, typer.Option(metavar="FILE.csv", help="Read a filled sheet; asks no model.")
    ] = None,
    private: Annotated[
        bool,
        typer.Option(
            "--private", help="Score the records of --dir instead; costs ε of its budget."
        ),
    ] = False,
    epsilon: Annotated[
        float, typer.Option(min=0.001, max=2.0, help="What --private may cost, per person.")
    ] = 0.1,
    max_error: Annotated[
        float,
        typer.Option(
            min=0.001, help="Refuse --private, uncharged, if a share's noise is larger (std. dev.)."
        ),
    ] = 0.1,
    precision: Annotated[
        str, typer.Option(help="Of the base model: float32, bfloat16, int8 or nf4.")
    ] = "float32",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")] = False,
) -> None:
    """Compare a release with its base model, and hold it against thresholds.

    Example: privity evaluate release --data heldout.jsonl --dir clinic-a --out evaluation.html

    Ends with 3 if a threshold is missed. With --private, nothing but two noised shares of right
    answers is computed from the institution's records, and the ledger is charged first.
    """
    from client import release_key
    from client.errors import ClientError

    if ratings is not None:
        _rated(ratings, as_json)
        return
    if (data is not None and private) or (data is None and (not private or directory is None)):
        raise ClientError(
            "give --data FILE, or --private with --dir SITE-DIR", code="no-evaluation-data"
        )
    if precision not in ("float32", "bfloat16", "int8", "nf4"):
        raise ClientError("use --precision float32|bfloat16|int8|nf4", code="bad-option")
    if not epsilon <= 2.0:
        raise ClientError("--epsilon must be a number from 0.001 to 2", code="bad-epsilon")
    with release_key.public_key(release, key, directory) as public:
        _check(public, release)
        if against is not None:
            _check(public, against)
    if data is None:
        _private(release, directory or Path(), epsilon, max_error, precision, as_json)
        return
    planted = None if canaries is None else _planted(canaries)
    own = _is_an_institutions(data)
    if own:
        typer.echo(
            f"note: {data} lies in an institution's folder: what comes out tells about its people "
            "and was not charged, so it stays at the institution; --private is the way out",
            err=True,
        )
    found, asked = _evaluate(
        release, data, against, general, sources, planted, limit,
        (description or data.name) + ("; an institution's own, not charged" if own else ""),
        precision, as_json,
    )  # fmt: skip
    held = _held(found, limits)
    _report(found, held, out, sheet, asked, own)
    if as_json:
        typer.echo(json.dumps(_document(found, held)))
    else:
        _show(found, held)
    if not all(one.holds for one in held):
        raise typer.Exit(_REFUSED)


def _is_an_institutions(data: Path) -> bool:
    """Whether the records lie in an institution's folder, behind links too."""
    places = (*data.absolute().parents, *data.resolve().parents)
    return any((place / "site.toml").exists() for place in places)


def _check(public: Path, release: Path) -> None:
    from client import serving

    serving.check_release(release, public)


def _planted(path: Path) -> tuple[tuple[str, str], ...]:
    from client import exposure, records

    return exposure.planted([(r.instruction, r.response) for r in records.read(path).records])


def _evaluate(
    release: Path, data: Path, against: Path | None, general: Path | None, sources: Path | None,
    planted: tuple[tuple[str, str], ...] | None, limit: int, description: str, precision: Any,
    quiet: bool,
) -> tuple[Evaluation, list[str]]:  # fmt: skip
    from client import evaluation, records, released
    from client.general import PAIRS
    from privacy.scrub import Scrubber

    given = evaluation.rows(data, limit=limit)
    usual = PAIRS if general is None else evaluation.rows(general, limit=limit)
    texts = None
    if sources is not None:
        texts = [f"{r.instruction} {r.response}" for r in records.read(sources).records]
    tool = Scrubber.load(secret=bytes(32))

    def identifiers(answer: str, question: str) -> int:
        return _new_identifiers(tool, answer, question)

    with _progress(quiet) as progress:
        one = released.load(release, precision=precision)
        found = evaluation.evaluate(
            one,
            given,
            data=description + ("" if precision == "float32" else f"; base model in {precision}"),
            against=None if against is None else released.load(against, precision=precision),
            general=usual,
            sources=texts,
            canaries=planted or (),
            identifiers=identifiers,
            progress=progress,
        )
    return found, [ask for ask, _ in given]


def _new_identifiers(tool: Any, answer: str, question: str) -> int:
    """Spans that the scrub takes out of an answer and that the question does not hold."""
    from privacy.errors import Quarantined

    try:
        spans = tool.scrub(answer, person="evaluation").spans
    except Quarantined:  # unreadable is no proof of clean
        return 1
    return sum(answer[span.start : span.end] not in question for span in spans)


def _private(
    release: Path, directory: Path, epsilon: float, max_error: float, precision: Any, as_json: bool
) -> None:
    from client import folder, private_score, released

    site = folder.open_folder(directory)
    with _progress(as_json) as progress:
        found = private_score.score(
            site,
            lambda: released.load(release, precision=precision),
            epsilon=epsilon,
            max_error=max_error,
            foreseen=_foretold,
            progress=progress,
        )
    if as_json:
        typer.echo(json.dumps(asdict(found)))
        return
    typer.echo(
        f"share of right answers, noised (standard deviation {found.error:.3f}): base model "
        f"{found.base:.3f}, released {found.released:.3f}"
    )
    typer.echo(
        f"cost: ε {found.epsilon:.4f} per person, at δ {found.delta:g}, under zero-out of all of "
        f"one person's records; with everything of this cohort {found.epsilon_after:.4f} of "
        f"{found.cap:g}"
    )


def _foretold(ahead: Foreseen) -> None:
    typer.echo(
        f"{ahead.persons} persons: noise of standard deviation {ahead.error:.3f} will be added to "
        f"each share, {ahead.gap:.3f} to their difference",
        err=True,
    )


def _held(found: Evaluation, limits: Path | None) -> tuple[Held, ...]:
    if limits is None:
        return ()
    from client import acceptance
    from configs.load import load
    from configs.thresholds import Thresholds

    return acceptance.judge(found, load(limits, Thresholds))


def _report(
    found: Evaluation, held: tuple[Held, ...], out: Path | None, sheet: Path | None,
    asked: list[str], own: bool,
) -> None:  # fmt: skip
    if out is not None:
        from client import evaluation_page
        from configs import files

        mode = files.PRIVATE if own else files.PUBLIC
        files.replace(out, evaluation_page.page(found, held).encode(), mode=mode)
    if sheet is not None:
        from client import ratings

        beside = ratings.sheet(sheet, found, asked)
        typer.echo(f"sheet: {sheet}; keep {beside} from the raters", err=True)


def _rated(path: Path, as_json: bool) -> None:
    from client import ratings

    found: Ratings = ratings.read(path)
    if as_json:
        typer.echo(json.dumps(asdict(found)))
        return
    typer.echo(f"{found.items} answers rated by both; Cohen's κ (quadratic) {found.kappa:.2f}")
    for arm, mean in found.mean.items():
        typer.echo(f"  {arm}: mean mark {mean:.2f} of 5")


def _show(found: Evaluation, held: tuple[Held, ...]) -> None:
    from rich.console import Console
    from rich.table import Table

    from client import evaluation_page

    table = Table(
        "figure", *(arm.name for arm in found.arms),
        title=f"{found.release}: {found.records} records ({found.data})", title_justify="left",
    )  # fmt: skip
    columns = [dict(evaluation_page.figures(arm)) for arm in found.arms]
    for name in columns[0]:
        table.add_row(name, *(column[name] for column in columns))
    console = Console()
    console.print(table)
    for name, gap in found.differences.items():
        console.print(evaluation_page.spoken(name, found.main, gap))
    for arm, bits in found.leaks.exposures.items():
        console.print(f"planted canaries, {arm}: {evaluation_page.recalled(bits)}")
    for one in held:
        word = "reached" if one.holds else "MISSED "
        sign = "at least" if one.least else "at most"
        console.print(f"{word}  {one.what} {one.value:.3f}, {sign} {one.limit:g}")


def _document(found: Evaluation, held: tuple[Held, ...]) -> dict[str, Any]:
    return {
        "release": found.release,
        "data": found.data,
        "records": found.records,
        "kind": found.kind,
        "arms": {arm.name: _arm(arm) for arm in found.arms},
        "differences": {name: asdict(gap) for name, gap in found.differences.items()},
        "leaks": asdict(found.leaks),
        "thresholds": {
            one.what: {"value": one.value, "limit": one.limit, "holds": one.holds} for one in held
        },
    }


def _arm(arm: Arm) -> dict[str, Any]:
    values: dict[str, Any] = {
        "loss": arm.loss,
        "perplexity": arm.perplexity,
        "general_loss": arm.general,
        "changed": dict(arm.changed),
        "attack_success": arm.attack_success,
        **asdict(arm.speed),
    }
    if arm.choice is not None:
        values |= {
            "rule": arm.choice.rule,
            "accuracy": arm.choice.accuracy,
            "macro_f1": arm.choice.macro_f1,
            "calibration_error": arm.choice.calibration_error,
            "risk_coverage_area": arm.choice.coverage.area,
        }
    if arm.nearness is not None:
        values |= {
            "rouge_l": arm.nearness.rouge_l,
            "bleu": arm.nearness.bleu,
            "meteor": arm.nearness.meteor,
        }
    return values


class _progress:  # noqa: N801 - used as a with statement's word
    """A bar on stderr for whatever is under way; nothing where nobody looks."""

    def __init__(self, quiet: bool) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        self._bar = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
            console=Console(stderr=True, quiet=quiet), transient=True,
        )  # fmt: skip
        self._tasks: dict[str, Any] = {}

    def __enter__(self) -> Callable[[str, int, int], None]:
        self._bar.start()
        return self._tell

    def _tell(self, what: str, done: int, total: int) -> None:
        task = self._tasks.get(what)
        if task is None:
            task = self._tasks[what] = self._bar.add_task(what, total=total)
        self._bar.update(task, completed=done, total=total, visible=done < total)

    def __exit__(self, *_: object) -> None:
        self._bar.stop()
