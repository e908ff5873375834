"""What the tests of the service share: a signed release, and an engine of fixed words."""

from __future__ import annotations

import asyncio
import json
import warnings
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Any

from audit import signing
from client import serving
from client.gateway.question import Load, Part, Question
from configs.serving import Serving

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the test client warns about its own HTTP library
    from fastapi.testclient import TestClient

SECRET = "Zebulon Quartermaine 4711"
ASK: dict[str, Any] = {"model": "r1", "messages": [{"role": "user", "content": SECRET}]}
NEAR = "http://127.0.0.1"


class Fake:
    """Answers with fixed words, a word a part."""

    def __init__(self, models: Sequence[str] = ("r1",), text: str = "the cards desk") -> None:
        self.models = (*models, "base")
        self.text = text
        self.calls: list[Question] = []
        self.faults: dict[str, Exception] = {}
        self.pause = 0.0
        self.closed = 0

    async def answer(self, question: Question) -> AsyncGenerator[Part, None]:
        self.calls.append(question)
        try:
            if (fault := self.faults.get(question.model)) is not None:
                raise fault
            words = self.text.split(" ")
            for count, word in enumerate(words, start=1):
                await asyncio.sleep(self.pause)
                last = "stop" if count == len(words) else None
                yield Part(word if count == 1 else f" {word}", 7, count, last)
        finally:
            self.closed += 1

    def load(self) -> Load:
        return Load(waiting=3)

    async def close(self) -> None:
        pass


def make_release(folder: Path, name: str, key: Path, **facts: Any) -> Path:
    path = folder / name
    path.mkdir()
    (path / "release.json").write_text(json.dumps({"format": 1, "release": name, **facts}))
    (path / "adapter_model.safetensors").write_bytes(b"weights")
    if not key.exists():
        signing.create_key(key)
    signing.sign_folder(path, key)
    return path


def make_app(
    root: Path,
    behind: Fake,
    *,
    site: serving.Site | None = None,
    **settings: Any,
) -> Any:
    key = root / "key"
    names = [name for name in behind.models if name != "base"]
    for name in names:
        if not (root / name).exists():
            make_release(root, name, key)
    return serving.create_app(
        [root / name for name in names],
        key=root / "key.pub",
        load=lambda paths, notary: behind,
        settings=Serving.model_validate(settings),
        site=site,
    )


def near(app: Any) -> TestClient:
    return TestClient(app, base_url=NEAR)
