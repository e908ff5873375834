"""The officer's page in a real browser: clicked through, at desk and phone width, no script."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from audit import report_html

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
BROWSER = report_html.find_browser()
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
WIDTHS = {"desk": (1280, 900), "phone": (390, 844)}
_ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def link(federate: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The link that the command prints; the page answers until the tests are over."""
    root = tmp_path_factory.mktemp("browser")
    federation = federate(root / "f", absent={1: ("gamma",)}).play()
    bundle = federation.bundle()
    # The command itself, with the stand-in accountant of these made-up logs.
    program = (
        "import math, privity, sys\n"
        "privity._recompute = lambda rows, delta: "
        "sum(q * n / s for s, q, n in rows) - math.log10(delta) / 100\n"
        "raise SystemExit(privity.main(sys.argv[1:]))\n"
    )
    base = [sys.executable, "-c", program, "audit"]
    environment = {**os.environ, "PYTHONPATH": str(_ROOT)}
    subprocess.run(
        [*base, "officer", str(root / "desk"), "--name", "office"], env=environment, check=True,
        capture_output=True,
    )  # fmt: skip
    with subprocess.Popen(
        [*base, "serve", str(bundle), "--port", "0", "--cache", str(root / "cache"),
         "--officer", str(root / "desk")],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    ) as process:  # fmt: skip
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            found = re.search(r"http://\S+", line)
            assert found, line
            yield found[0]
        finally:
            process.terminate()
            process.wait(timeout=30)


@pytest.fixture(scope="module")
def state(link: str) -> Iterator[tuple[Any, str, Any]]:
    """A browser, the page's address, and the cookies of a log-in by the link."""
    flags = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=BROWSER, args=flags)
        context = browser.new_context()
        tab = context.new_page()
        tab.set_default_timeout(60_000)
        tab.goto(link)
        tab.wait_for_url(link.split("login")[0])
        yield browser, link.split("/login")[0], context.storage_state()
        browser.close()


@pytest.fixture(params=[("desk", "light"), ("phone", "dark")], ids="-".join)
def tab(request: pytest.FixtureRequest, state: Any) -> Iterator[Any]:
    """A tab at one width in one colour scheme, with scripts switched off."""
    browser, address, cookies = state
    width, scheme = request.param
    size = dict(zip(("width", "height"), WIDTHS[width], strict=True))
    context = browser.new_context(
        viewport=size, color_scheme=scheme, storage_state=cookies, java_script_enabled=False,
        base_url=address,
    )  # fmt: skip
    found = context.new_page()
    found.set_default_timeout(60_000)
    faults: list[str] = []
    found.on("console", lambda message: faults.append(message.text))
    found.on("requestfailed", lambda asked: faults.append(asked.url))
    yield found
    context.close()
    assert faults == []


def test_an_officer_clicks_from_the_overview_to_a_proof_and_its_receipt(
    tab: Any, tmp_path: Path
) -> None:
    tab.goto("/")
    assert tab.get_by_role("heading", name="Overview").is_visible()
    tab.get_by_role("link", name="Run run-1").click()
    tab.get_by_role("link", name="absent").click()
    assert tab.get_by_text("The signature holds").is_visible()
    assert "round-closed" in tab.content()
    with tab.expect_download() as receipt:
        tab.get_by_role("link", name="Download receipt").click()
    receipt.value.save_as(tmp_path / "r")
    assert (tmp_path / "r").read_text().startswith("c2sp.org/tlog-proof@v1\n")

    tab.get_by_role("link", name="Entries").click()
    tab.get_by_label("Kind").select_option("egress")
    tab.get_by_label("Institution").select_option("beta")
    tab.get_by_role("button", name="Show").click()
    assert tab.get_by_role("status").inner_text() == "2 entries, newest first."
    tab.get_by_role("link", name="Clear").click()
    tab.get_by_label("Problems only").check()
    tab.get_by_role("button", name="Show").click()
    assert tab.get_by_text("Problem: absent: gamma").is_visible()

    for name, heading in (("Release", "Release of run run-1"), ("Witnesses", "Witness board")):
        tab.get_by_role("link", name=name, exact=True).click()
        assert tab.get_by_role("heading", name=heading).is_visible()


def test_a_range_is_signed_off(tab: Any) -> None:
    tab.goto("/b/bundle/signoff")
    before = tab.get_by_text("yes, and only grew since").count()
    tab.get_by_label("Log of").select_option("alpha")
    tab.get_by_label("First entry").fill("0")
    tab.get_by_label("Last entry").fill("5")
    tab.get_by_role("button", name="Sign").click()

    assert tab.get_by_text("yes, and only grew since").count() == before + 1


def test_every_view_fits_its_width_and_names_what_it_shows(state: Any) -> None:
    browser, address, cookies = state
    for width, height in WIDTHS.values():
        context = browser.new_context(
            viewport={"width": width, "height": height}, storage_state=cookies, base_url=address
        )
        tab = context.new_page()
        tab.set_default_timeout(60_000)
        for path in ("/", "/b/bundle", "/b/bundle/entries", "/b/bundle/entry/hub/4",
                     "/b/bundle/release", "/b/bundle/witnesses", "/b/bundle/signoff"):  # fmt: skip
            tab.goto(path)
            assert tab.evaluate("document.documentElement.scrollWidth") <= width, (path, width)
            assert tab.locator("h1").count() == 1
            assert tab.locator("main").count() == 1
            for table in tab.locator("table").all():
                assert table.locator("caption").count() == 1, path
            for field in tab.locator("input:not([type=hidden]), select").all():
                name = field.evaluate("x => x.labels.length && x.labels[0].innerText")
                assert name, path
            for picture in tab.locator("svg").all():
                assert picture.get_attribute("aria-label"), path
        context.close()


def test_the_keyboard_reaches_the_content_first_and_then_every_control(state: Any) -> None:
    browser, address, cookies = state
    context = browser.new_context(storage_state=cookies, base_url=address)
    tab = context.new_page()
    tab.set_default_timeout(60_000)
    tab.goto("/b/bundle/entries")
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.innerText") == "To the content"
    tab.keyboard.press("Enter")
    assert tab.evaluate("document.activeElement.id") == "content"
    reached = set()
    for _ in range(14):
        tab.keyboard.press("Tab")
        reached.add(tab.evaluate("document.activeElement.name || document.activeElement.innerText"))
    assert {"institution", "kind", "run", "round", "since", "until", "problems", "Show"} <= reached
    context.close()


def test_text_stands_out_from_its_ground_in_light_and_dark() -> None:
    """WCAG 2.2 AA: 4.5 to 1 for text, from the colours of the style sheet."""
    style = report_html.STYLE.read_text(encoding="utf-8")
    sets = re.findall(r":root \{(.*?)\}", style, re.DOTALL)[:2]
    for colours in sets:
        found = dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", colours))
        for ground in ("paper", "wash", "goodwash", "badwash"):
            for ink in ("ink", "soft", "link", "good", "bad", "wait"):
                assert _contrast(found[ink], found[ground]) >= 4.5, (ink, ground)


def _contrast(one: str, other: str) -> float:
    def light(colour: str) -> float:
        parts = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((light(one), light(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_the_page_answers_no_stranger(state: Any, link: str) -> None:
    browser, address, _ = state
    context = browser.new_context(base_url=address)
    tab = context.new_page()
    tab.set_default_timeout(60_000)
    for path in ("/", "/b/bundle", link):  # the link was used up
        tab.goto(path)
        assert tab.get_by_role("heading", name="Log in").is_visible()
    context.close()
