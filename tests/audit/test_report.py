"""The report: every statement carries its reference, and each reference leads somewhere."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import privity
from audit import controls, material, report, report_html
from audit.report import Report
from audit.sentences import Unfounded

_BLOCKS = {"p", "figcaption", "caption", "td", "th", "dd", "dt", "h1", "h2", "li", "title", "svg"}
_VOID = {"meta", "br", "line", "rect", "path", "circle", "link", "input"}


class Reader(HTMLParser):
    """Collects, for each block of text, its text, its links to references and its class."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.blocks: list[tuple[str, str, str, list[str]]] = []
        self.outside: list[str] = []
        self.resources: list[str] = []
        self._open: list[str] = []
        self._part = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if given.get("id"):
            assert given["id"] not in self.ids, f"{given['id']} twice"
            self.ids.add(str(given["id"]))
        for name in ("src", "href", "action", "data"):
            if given.get(name):
                self.resources.append(str(given[name]))
        if tag == "section":
            self._part = str(given.get("id"))
        if tag in _BLOCKS:
            self.blocks.append((self._part, tag, "", []))
        if tag == "a" and given.get("class") == "ref":
            self.blocks[-1][3].append(str(given["href"])[1:])
        if tag not in _VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert tag in _VOID or self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not data.strip() or "style" in self._open:
            return
        if not set(self._open) & _BLOCKS:
            self.outside.append(data)
            return
        part, tag, text, links = self.blocks[-1]
        self.blocks[-1] = (part, tag, text + data, links)


@pytest.fixture(scope="module")
def composed(sound: Any, account: Any) -> Report:
    return report.compose(material.gather(sound.root / "bundle", recompute=account))


@pytest.fixture(scope="module")
def read(composed: Report) -> Reader:
    return Reader(report_html.page(composed))


def test_every_printed_sentence_carries_a_reference_that_is_in_the_list(read: Reader) -> None:
    said = [block for block in read.blocks if block[1] in ("p", "figcaption", "caption")]
    assert len(said) > 40
    for _, _, text, links in said:
        assert links, text
        assert set(links) <= read.ids, text


def test_every_row_of_a_table_carries_a_reference(read: Reader) -> None:
    rows = 0
    cells: list[tuple[str, str, str, list[str]]] = []
    for block in [*read.blocks, ("", "th", "", [])]:
        if block[1] == "td" and block[0].startswith("part-"):
            cells.append(block)
        elif cells:
            assert cells[-1][3], [cell[2] for cell in cells]
            assert set(cells[-1][3]) <= read.ids
            rows += 1
            cells = []
    assert rows > 25


def test_nothing_but_sentences_rows_and_headings_is_printed(read: Reader) -> None:
    assert [text for text in read.outside if text.strip() not in ("To the report",)] == []
    for part, tag, text, _ in read.blocks:
        if part.startswith("part-") and tag in ("h2", "li"):
            assert len(text.split()) <= 9
            assert not text.rstrip().endswith(".")


def test_the_scan_of_the_page_notices_a_sentence_without_reference(composed: Report) -> None:
    html = report_html.page(composed)
    forged = html.replace('<p class="s">', '<p class="s">Trust us.</p><p class="s">', 1)

    with pytest.raises(AssertionError):
        test_every_printed_sentence_carries_a_reference_that_is_in_the_list(Reader(forged))


def test_text_in_place_of_a_sentence_cannot_be_printed(composed: Report) -> None:
    with pytest.raises(Unfounded):
        report_html._part("All is well.")  # type: ignore[arg-type]
    with pytest.raises(Unfounded):
        report_html._said("All is well.")  # type: ignore[arg-type]


def test_the_page_refers_to_nothing_outside_itself_and_runs_nothing(composed: Report) -> None:
    html = report_html.page(composed)

    assert all(target.startswith("#") for target in Reader(html).resources)
    assert not re.search(r"<script|https?://|@import|url\(|\son\w+=", html)


def test_equal_bundles_give_equal_bytes(sound: Any, account: Any, composed: Report) -> None:
    again = report.compose(material.gather(sound.root / "bundle", recompute=account))

    assert report_html.page(again) == report_html.page(composed)


def test_the_report_says_what_left_who_decided_and_what_it_cost(
    composed: Report, account: Any
) -> None:
    text = " ".join(re.sub(r"<[^>]+>", "", report_html.page(composed)).split())
    epsilon = account([(1.5, 0.01, 20)], 0.00001)

    for wanted in (
        "alpha sent 2 updates that the coordinator took",
        "A person at beta approved the plan",
        f"at most ε = {epsilon:.4f} at δ = 0.00001 for one patient under zero-out adjacency",
        "gamma logged on",
        "hub scored the released adapter and the bare model on 10 records (held out).",
        "The logs of this bundle have no audit of the software",
        "The run closed 2 rounds",
        "hub released the adapter",
        "to be confirmed by counsel",
        "The last checkpoint of hub was cosigned by alpha, beta and gamma.",
    ):
        assert wanted in text


def test_the_curve_ends_at_what_was_reserved_and_starts_at_what_came_before(
    sound: Any, account: Any
) -> None:
    gathered = material.gather(sound.root / "bundle", recompute=account)
    points = gathered.curve("alpha")

    assert [point.rounds for point in points] == [0, 1, 2]
    assert points[0].epsilon == 0.0
    assert points[-1].epsilon == pytest.approx(account([(1.5, 0.01, 20)], 0.00001))


def test_a_faulty_bundle_says_so_first(copied: Path, account: Any) -> None:
    (copied / "release" / "README.md").write_text("# another card\n")
    composed = report.compose(material.gather(copied, recompute=account))
    html = report_html.page(composed)

    assert not composed.holds
    assert composed.sections[0].parts[0].template == "faulty"  # type: ignore[union-attr]
    assert "FAULTY" in html
    assert "Fault changed-file in release/README.md" in html
    assert "NOT as bound" in html


@pytest.mark.parametrize("name", ["coordinator/checkpoint", "sites/alpha/checkpoint", "plan.json"])
def test_what_cannot_be_read_is_a_fault_in_the_report_and_no_crash(
    copied: Path, account: Any, name: str
) -> None:
    (copied / name).unlink()
    html = report_html.page(report.compose(material.gather(copied, recompute=account)))

    assert f"in {name}: {name} is missing; fetch the bundle again." in html
    test_every_sentence_that_is_there_carries_a_reference(Reader(html))


def test_every_sentence_that_is_there_carries_a_reference(read: Reader) -> None:
    for _, tag, text, links in read.blocks:
        if tag in ("p", "figcaption", "caption"):
            assert links, text
            assert set(links) <= read.ids


def test_names_from_a_bundle_are_escaped(sound: Any, account: Any, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(sound.root / "bundle", tmp_path / "b"))
    (copy / "<script>alert(1)<b>").write_text("x")
    html = report_html.page(report.compose(material.gather(copy, recompute=account)))

    assert "<script>" not in html
    assert "&lt;script&gt;" in html


def test_the_document_of_controls_is_that_of_the_data() -> None:
    assert controls.DOCUMENT.read_text(encoding="utf-8") == controls.document()


def test_controls_name_kinds_and_checks_that_exist_and_award_no_verdict() -> None:
    from audit import kinds, wording

    names = " ".join(source.name for source in controls.sources())
    for law in ("164.312", "GDPR", "AI Act", "27001", "PIPL", "SR 26-2"):
        assert law in names
    for source in controls.sources():
        assert re.fullmatch(r"\d{4}-\d\d-\d\d|not checked", source.checked)
        for row in source.controls:
            assert set(row.kinds) <= set(kinds.KINDS), row.id
            assert set(row.checks) <= set(wording.CHECKS), row.id
            assert row.gap.endswith("."), row.id
            assert not re.search(r"\b(met|satisf|compli(es|ant)|fulfil)", row.gap), row.id


@pytest.fixture
def say(
    capsys: pytest.CaptureFixture[str], account: Any, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, str, str]]:
    monkeypatch.setattr(privity, "_recompute", account)
    monkeypatch.setenv("PRIVITY_DEBUG", "")

    def run(*words: object) -> tuple[int, str, str]:
        code = privity.main(["audit", *(str(word) for word in words)])
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return code, out, err

    return run


def test_the_command_writes_one_file(say: Any, sound: Any, tmp_path: Path) -> None:
    code, out, err = say("report", sound.root / "bundle", "--out", tmp_path / "r.html")

    assert (code, err) == (0, "")
    assert out == f"written: {tmp_path / 'r.html'}\n"
    assert [path.name for path in tmp_path.iterdir()] == ["r.html"]


def test_the_command_ends_with_4_for_a_faulty_bundle_and_writes_all_the_same(
    say: Any, copied: Path, tmp_path: Path
) -> None:
    (copied / "plan.json").write_text("{}")
    code, _, err = say("report", copied, "--out", tmp_path / "r.html")

    assert code == 4
    assert "plan.json" in err
    assert "FAULTY" in (tmp_path / "r.html").read_text()


def test_the_command_refuses_what_it_cannot_do(
    say: Any, sound: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert say("report", tmp_path, "--out", tmp_path / "r.html")[0] == 2
    assert say("report", sound.root / "bundle", "--out", tmp_path / "no" / "r.html")[0] == 2
    monkeypatch.setenv("PATH", str(tmp_path))
    code, _, err = say("report", sound.root / "bundle", "--out", tmp_path / "r.html", "--pdf")
    assert code == 2
    assert "no browser" in err


@pytest.mark.skipif(report_html.find_browser() is None, reason="no Chromium to print a PDF with")
def test_a_browser_prints_the_report(say: Any, sound: Any, tmp_path: Path) -> None:
    code, _, _ = say("report", sound.root / "bundle", "--out", tmp_path / "r.html", "--pdf")

    assert code == 0
    assert (tmp_path / "r.pdf").read_bytes().startswith(b"%PDF-")
