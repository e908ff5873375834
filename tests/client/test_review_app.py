"""A reader clicks through a review over HTTP; nobody else gets in, and nothing is left behind."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from client import people, review, review_app
from client.scrubbing import SiteScrubber
from privacy.surrogates import Surrogates
from tests.client.reader import SECRET, Reader


@pytest.fixture
def site(federation: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Any:
    made = federation(["clinic-a"]).sites["clinic-a"]
    rows = [
        {"unit_id": f"p-{n}", "instruction": f"Mr. Salter <b>&</b> Zebulon{n}", "response": "desk"}
        for n in range(3)
    ]
    made.data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    tool = SiteScrubber(Reader(), surrogates=Surrogates(SECRET), strict=False)
    monkeypatch.setattr(people, "scrubber", lambda folder: tool)
    review.dry_run(made, sample=3)
    return made


@pytest.fixture
def link(site: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The link of a review that is being served by the real server, in a thread."""
    import uvicorn

    servers: list[Any] = []
    made = uvicorn.Server.__init__

    def keep(self: Any, *given: Any, **named: Any) -> None:
        made(self, *given, **named)
        servers.append(self)

    monkeypatch.setattr(uvicorn.Server, "__init__", keep)
    links: list[str] = []
    thread = threading.Thread(
        target=review_app.serve,
        args=(review.open_review(site),),
        kwargs={"port": 0, "ready": links.append},
    )
    thread.start()
    for _ in range(600):
        if links and servers and servers[0].started:
            break
        time.sleep(0.05)
    yield links[0]
    servers[0].should_exit = True
    thread.join(30)
    assert not thread.is_alive()


def _word(page: str) -> str:
    found = re.search(r'name="word" value="([^"]+)"', page)
    assert found is not None
    return found[1]


def test_a_reader_decides_signs_and_exports(link: str, site: Any) -> None:
    base = link.partition("/open")[0]
    with httpx.Client(base_url=base, follow_redirects=True, timeout=60) as browser:
        page = browser.get(link)
        assert page.status_code == 200
        assert "Begin with record 1" in page.text
        for number, verdict in ((1, "accepted"), (2, "missed"), (3, "accepted")):
            page = browser.get(f"/record/{number}")
            assert "Zebulon" in page.text
            assert "<b>&</b>" not in page.text
            fields: dict[str, Any] = {"word": _word(page.text), "verdict": verdict}
            fields["text"] = ["Zebulon", "", "x"] if verdict == "missed" else [""]
            fields["kind"] = ["PERSON", "URL", "NO"] if verdict == "missed" else ["URL"]
            fields["allow"] = ["Mr. Salter", "never there"]
            page = browser.post(f"/record/{number}", data=fields)
            assert page.status_code == 200
        assert "1 miss in 3 reviewed" in page.text
        signed = {"word": _word(page.text), "reviewer": "ada"}
        page = browser.post("/finish", data=signed)
        assert "Read by ada" in page.text
        report = browser.get("/report").text
        assert "Zebulon" not in report
        assert "1 miss in 3 reviewed" in report
        for answer in (page, browser.get("/record/1")):
            assert answer.headers["cache-control"] == "no-store"
            assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert browser.get("/record/4").status_code == 404
        assert browser.get("/docs").status_code == 404
    (entry,) = site.log().entries("scrub-review")
    assert entry.event.fields["missed"] == 1
    kept = review.open_review(site).decisions["1"]
    assert kept == {"verdict": "missed", "deny": [["PERSON", "Zebulon"]], "allow": ["Mr. Salter"]}


def test_the_link_works_once_and_nothing_works_without_it(link: str) -> None:
    base = link.partition("/open")[0]
    with httpx.Client(base_url=base, timeout=60) as browser, httpx.Client(base_url=base) as other:
        assert other.get("/").status_code == 403
        assert other.get("/record/1").status_code == 403
        assert other.post("/finish", data={"reviewer": "eve"}).status_code == 403
        assert other.get("/open?key=wrong").status_code == 403
        entered = browser.get(link)
        assert entered.status_code == 303
        cookie = entered.headers["set-cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=strict" in cookie
        assert other.get(link).status_code == 403
        assert other.get("/").status_code == 403
        assert browser.get("/").status_code == 200
        assert browser.get("/", headers={"host": "evil.example"}).status_code == 403
        forged = browser.post("/record/1", data={"verdict": "accepted", "word": "guess"})
        assert forged.status_code == 400
        huge = browser.post("/record/1", content=b"x" * 100_000)
        assert huge.status_code == 413


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
@pytest.mark.parametrize("width", [390, 1280])
def test_a_real_browser_shows_the_page_without_script_and_without_sideways_scroll(
    site: Any, tmp_path: Path, width: int
) -> None:
    page = review.place(site) / "index.html"
    probe = tmp_path / "probe.html"
    # The page in a frame of the width: the probe may run script, the page may not.
    probe.write_text(
        f'<iframe id=f width={width} height=800 src="{page.as_uri()}"></iframe><p id=o></p><script>'
        "onload=()=>{const d=f.contentDocument.documentElement;"
        "o.textContent=`wide=${d.scrollWidth} title=${f.contentDocument.title} "
        "styled=${getComputedStyle(d.querySelector('article')).borderTopWidth}`}</script>"
    )
    assert CHROMIUM is not None
    done = subprocess.run(
        [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--dump-dom",
         "--allow-file-access-from-files", "--virtual-time-budget=4000",
         f"--user-data-dir={tmp_path}/profile", probe.as_uri()],
        capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip
    found = re.search(r"wide=(\d+) title=(.*?) styled=(\S+?)<", done.stdout)
    assert found is not None, done.stdout[-500:]
    assert int(found[1]) <= width
    assert found[2] == "De-identification: a sample to read"
    assert found[3] == "1px"
