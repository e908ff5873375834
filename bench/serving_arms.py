"""The servers that bench/serving.py compares, each in a process of its own.

Started as `python serving_arms.py KIND ...`; prints its port once it takes connections.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import sys
from pathlib import Path
from typing import Any

from pydantic import BaseModel

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

ROWS, QUEUE = 16, 16


class Asked(BaseModel):
    messages: list[dict[str, str]]
    max_tokens: int
    model: str


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=("plain", "ours", "stub", "gateway"))
    parser.add_argument("--place", type=Path, required=True)
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--upstream", default="")
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--queue", type=int, default=QUEUE)
    parser.add_argument("--cache", type=int, default=0)
    given = parser.parse_args()
    if given.kind == "plain":
        run(plain(given.model))
    elif given.kind == "stub":
        run(stub)
    else:
        run(ours(given))


def run(app: Any) -> None:
    import uvicorn

    with socket.create_server(("127.0.0.1", 0), backlog=4096) as listener:
        print(listener.getsockname()[1], flush=True)
        config = uvicorn.Config(app, log_config=None, access_log=False, timeout_keep_alive=75)
        uvicorn.Server(config).run(sockets=[listener])


def plain(name: str) -> Any:
    """What the tutorials show: an endpoint that calls transformers' pipeline."""
    from fastapi import FastAPI
    from transformers import pipeline

    from model import catalog

    pipe = pipeline("text-generation", model=str(catalog.find(name).path))
    app = FastAPI()

    @app.post("/v1/chat/completions")
    def chat(asked: Asked) -> dict[str, Any]:
        found = pipe(asked.messages, max_new_tokens=asked.max_tokens, do_sample=False)
        text = found[0]["generated_text"][-1]["content"]
        return {"text": text, "tokens": len(pipe.tokenizer(text)["input_ids"])}

    return app


def ours(given: argparse.Namespace) -> Any:
    """The service as `privity serve` makes it, over a release with a made-up adapter."""
    from client import serving
    from configs.serving import Serving

    serving.share_time()
    release, key = make_release(given.place, given.model)
    values = {
        "engine": {"rows": given.rows, "queue": given.queue, "upstream": given.upstream},
        "cache": {"entries": given.cache},
        "access": {"per_minute": 1_000_000},
    }
    settings = Serving.model_validate(values)
    return serving.create_app(
        [release],
        key=key,
        load=lambda paths, notary: serving._engine(paths, settings, notary),
        settings=settings,
    )


def make_release(place: Path, name: str) -> tuple[Path, Path]:
    """A signed release whose adapter changes little, so that answers stay of one length."""
    import numpy as np

    from audit import signing
    from model import catalog, export, frozen, shapes

    release, key = place / "r1", place / "key"
    if not release.exists():
        found = catalog.find(name)
        spec = shapes.Spec(seed="bench")
        draws = np.random.default_rng(3)
        arrays = {
            path: (draws.standard_normal(shape) * 1e-3).astype(np.float32)
            for path, shape in shapes.shapes(found, spec).items()
        }
        fixed = frozen.factors(found, spec)
        export.save_folder(release, folder=found, spec=spec, arrays=arrays, a=fixed)
        facts = {
            "format": 1,
            "release": "r1",
            "base_model": name,
            "base_digest": found.digest,
            "seed": "bench",
        }
        (release / "release.json").write_text(json.dumps(facts))
        signing.create_key(key)
        signing.sign_folder(release, key)
    return release, key.with_suffix(".pub")


async def stub(scope: Any, receive: Any, send: Any) -> None:
    """An engine that has its answer ready, in the shape of OpenAI's interface."""
    if scope["type"] == "lifespan":
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    body = b""
    more = True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    asked = json.loads(body)
    head = {"id": "x", "created": 0, "model": asked["model"], "object": "chat.completion.chunk"}
    words = [{"delta": {"content": f"word{n} "}, "finish_reason": None} for n in range(16)]
    choices = [*words, {"delta": {}, "finish_reason": "stop"}]
    lines = [json.dumps({**head, "choices": [{"index": 0, **choice}]}) for choice in choices]
    events = "".join(f"data: {line}\n\n" for line in lines) + "data: [DONE]\n\n"
    headers = [(b"content-type", b"text/event-stream")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": events.encode()})


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    main()
