"""The chat page in a real browser: a release that chooses is tried, compared and corrected."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from audit import report_html
from client import folder
from client.gateway.feedback import FeedbackStore
from client.gateway.question import Part, Question
from client.serving import Site
from tests.client.serving_world import Fake, make_app, make_release

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
BROWSER = report_html.find_browser()
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
LABELS = ["cards", "loans", "it's <other>"]


class Chooser(Fake):
    """Takes the first of what it is asked to choose from; else it answers with its words."""

    async def answer(self, question: Question) -> AsyncGenerator[Part, None]:
        self.calls.append(question)
        yield Part(question.choices[0] if question.choices else self.text, 7, 2, "stop")


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[str, Chooser, FeedbackStore]]:
    """Address, engine and judgements of a service with one release trained on labels."""
    plan = {"training": {"objective": "label"}, "task": {"labels": LABELS}}
    make_release(tmp_path, "r1", tmp_path / "key", plan=plan)
    site = folder.create(tmp_path / "clinic", name="clinic", coordinator="h:1")
    engine = Chooser(("r1", "r2"))
    app = make_app(tmp_path, engine, site=Site.of(site))
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, ws="none"))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        end = time.monotonic() + 60
        while not server.started and time.monotonic() < end:
            time.sleep(0.01)
        try:
            store = FeedbackStore(site.path / "serving" / "feedback.sqlite")
            yield f"http://127.0.0.1:{listener.getsockname()[1]}", engine, store
        finally:
            server.should_exit = True
            thread.join(60)
            assert not thread.is_alive()


def test_a_release_that_chooses_is_compared_on_its_labels_and_corrected_by_one(
    served: tuple[str, Chooser, FeedbackStore],
) -> None:
    url, engine, store = served
    flags = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=BROWSER, args=flags, timeout=120_000)
        tab: Any = browser.new_page(viewport={"width": 390, "height": 844})
        tab.set_default_timeout(120_000)
        faults: list[str] = []
        tab.on("pageerror", lambda fault: faults.append(str(fault)))
        tab.goto(f"{url}/chat")
        assert tab.inner_text("#among summary") == "Answers are one of 3 labels"
        tab.fill("#question", "my card is lost")
        tab.click("#send")
        tab.locator(".judge:not([hidden])").nth(1).wait_for()
        assert tab.locator(".said").all_inner_texts() == ["cards", "cards"]
        first = tab.locator(".side").first
        first.locator("summary").click()
        field = first.locator("select[name=correction]")
        assert field.locator("option").all_inner_texts() == ["", *LABELS]
        field.select_option("it's <other>")
        first.locator("form button").click()
        first.get_by_text("Kept at this institution.").wait_for()
        # A release that writes is asked for words, and so is what stands beside it.
        tab.select_option("#first", "r2")
        assert tab.locator("#among").is_hidden()
        tab.click("#clear")
        tab.fill("#question", "and now?")
        tab.click("#send")
        tab.locator(".judge:not([hidden])").nth(1).wait_for()
        assert tab.locator(".said").all_inner_texts() == [engine.text] * 2
        assert tab.evaluate("document.documentElement.scrollWidth") <= 390
        assert not faults
        browser.close()
    asked = [(call.model, call.choices) for call in engine.calls]
    assert sorted(asked[:2]) == [("base", tuple(LABELS)), ("r1", tuple(LABELS))]
    assert sorted(asked[2:]) == [("base", ()), ("r2", ())]
    (row,) = store.rows("new", most=9)
    assert (row.judgement.answer, row.judgement.correction) == ("cards", "it's <other>")
