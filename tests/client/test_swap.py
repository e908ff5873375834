"""Releases come into a running service and leave it; one that does not verify changes nothing."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from audit import signing
from client import engine, serving, swap
from client.errors import ClientError
from configs.serving import EngineTable, Serving
from model import catalog, export, frozen, shapes
from model.errors import ModelError
from tests.client.serving_world import near
from tests.conftest import TINY


@pytest.fixture
def place(tmp_path: Path, tiny_home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PRIVITY_HOME", str(tiny_home))
    signing.create_key(tmp_path / "key")
    return tmp_path


def make(place: Path, name: str, *, seed: str = "public", draws: int = 0) -> Path:
    found = catalog.find(TINY)
    spec = shapes.Spec(seed=seed, rank=2, alpha=4)
    generator = np.random.default_rng(draws)
    arrays = {
        path: generator.standard_normal(shape).astype(np.float32)
        for path, shape in shapes.shapes(found, spec).items()
    }
    fixed = frozen.factors(found, spec)
    export.save_folder(place / name, folder=found, spec=spec, arrays=arrays, a=fixed)
    facts = {
        "format": 1, "release": name, "base_model": TINY, "base_digest": found.digest,
        "seed": "public",
    }  # fmt: skip
    (place / name / "release.json").write_text(json.dumps(facts))
    signing.sign_folder(place / name, place / "key")
    return place / name


@pytest.fixture
def app(place: Path) -> Any:
    settings = EngineTable(rows=4, cache_tokens=2048)
    return serving.create_app(
        [make(place, "r1")],
        key=place / "key.pub",
        load=lambda paths, notary: engine.load(paths, settings),
        settings=Serving(engine=settings),
    )


def ask(client: Any, model: str) -> Any:
    asked = {"model": model, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 12}
    return client.post("/v1/chat/completions", json=asked)


def names(client: Any) -> list[str]:
    return [row["id"] for row in client.get("/v1/models").json()["data"]]


def text(client: Any, model: str) -> str:
    return str(ask(client, model).json()["choices"][0]["message"]["content"])


def test_releases_come_and_go_while_it_runs(app: Any, place: Path) -> None:
    wanted = [make(place, "r2", draws=1)]
    with near(app) as client:
        reload = swap.reloader(lambda: wanted, place / "key.pub")

        def swap_now() -> None:
            client.portal.call(reload, app.state.running)

        assert names(client) == ["r1", "base"]
        before, base = text(client, "r1"), text(client, "base")
        swap_now()
        assert names(client) == ["r1", "r2", "base"]
        assert len({before, base, text(client, "r2")}) == 3
        assert text(client, "r1") == before
        assert set(app.state.running.journal.releases) == {"r1", "r2"}
        wanted.clear()
        swap_now()
        assert names(client) == ["r1", "base"]
        assert ask(client, "r2").status_code == 404
        assert text(client, "r1") == before


def test_the_log_names_what_is_served_even_if_its_folder_was_overwritten(
    app: Any, place: Path
) -> None:
    with near(app) as client:
        before = app.state.running.journal.releases["r1"]
        shutil.rmtree(place / "r1")
        make(place, "r2", draws=1).rename(
            place / "r1"
        )  # the next release, in the first one's place
        reload = swap.reloader(lambda: [place / "r1"], place / "key.pub")
        client.portal.call(reload, app.state.running)
        served = app.state.running.journal.releases
    assert served["r1"] == before
    assert served["r2"] != before


@pytest.mark.parametrize("harm", ["changed", "seed"])
def test_a_release_that_does_not_verify_does_not_come_in(
    app: Any, place: Path, caplog: pytest.LogCaptureFixture, harm: str
) -> None:
    bad = make(place, "r2", seed="other" if harm == "seed" else "public")
    if harm == "changed":
        (bad / "adapter_model.safetensors").write_bytes(b"x")
    with near(app) as client:
        reload = swap.reloader(lambda: [bad], place / "key.pub")
        client.portal.call(reload, app.state.running)
        assert names(client) == ["r1", "base"]
        assert ask(client, "r1").status_code == 200
    assert "the releases stay as they were" in caplog.text


def test_what_is_not_the_base_models_is_refused(place: Path) -> None:
    good, other = make(place, "r1"), make(place, "r2")
    facts = json.loads((other / "release.json").read_text())
    for change, fault in (
        ({"base_digest": "sha256:" + "0" * 64}, ClientError),
        ({"seed": "another"}, ClientError),
        ({"seed": None}, ModelError),
    ):
        values = {name: value for name, value in (facts | change).items() if value is not None}
        (other / "release.json").write_text(json.dumps(values))
        with pytest.raises(fault):
            engine.load([good, other], EngineTable())


def test_the_engine_stops_with_the_service(app: Any) -> None:
    with near(app):
        thread = app.state.running.engine._thread
        assert thread.is_alive()
    assert not thread.is_alive()
    asyncio.run(app.state.running.engine.close())
