"""Serving: tokens a second, latency, overhead, bursts, a thousand streams, memory.

The plain server is FastAPI over transformers' pipeline, without an adapter, which favours it. Both
answer the same questions greedily, one after the other on the same machine. `--soak MINUTES` holds
the memory against a longer run.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import measure

ARMS = Path(__file__).with_name("serving_arms.py")
QUESTIONS = (
    "What is the capital of France?", "Explain what insulin does.", "Name three colours.",
    "Write two sentences about rain.", "What is a savings account?", "How do vaccines work?",
    "Describe a good letter of complaint.", "What should I ask my doctor about blood pressure?",
    "Why is the sky blue?", "Give me a recipe for a soup.", "What is compound interest?",
    "How do I reset a password?", "What does a nurse do?", "Tell me about the sea.",
    "What is a credit score?", "How does a bicycle stay upright?",
)  # fmt: skip
CLIENTS = 16


@dataclass(slots=True)
class Server:
    url: str
    process: subprocess.Popen[str]

    def memory(self) -> int:
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise OSError("the server is gone")


@contextmanager
def serve(kind: str, place: Path, *more: str) -> Iterator[Server]:
    command = [sys.executable, str(ARMS), kind, "--place", str(place), *more]
    # As many threads as the machine has, whatever the shell that measures was told.
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stdout is not None
        port = process.stdout.readline().strip()
        if not port:
            raise RuntimeError(f"the {kind} server did not start")
        yield Server(f"http://127.0.0.1:{port}", process)
    finally:
        process.terminate()
        process.wait(30)


def client() -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=2000)
    return httpx.AsyncClient(timeout=600, limits=limits, trust_env=False)


def question(text: str, tokens: int, **more: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": text}]
    return {"model": "r1", "messages": messages, "max_tokens": tokens, **more}


async def ask(http: httpx.AsyncClient, url: str, body: Mapping[str, Any]) -> tuple[int, Any, float]:
    began = time.perf_counter()
    answer = await http.post(f"{url}/v1/chat/completions", json=body)
    return answer.status_code, answer.json(), time.perf_counter() - began


def p99(values: Sequence[float]) -> float:
    return sorted(values)[math.ceil(0.99 * len(values)) - 1] if values else math.nan


async def crowd(url: str, *, rounds: int, tokens: int) -> tuple[float, list[float], int]:
    """Sixteen clients, each asking in turn: tokens a second, seconds of each, tokens."""

    async def one(http: httpx.AsyncClient, number: int) -> list[tuple[float, int]]:
        done = []
        for turn in range(rounds):
            text = QUESTIONS[(number + 5 * turn) % len(QUESTIONS)]
            status, body, seconds = await ask(http, url, question(text, tokens))
            assert status == 200, body
            count = body["tokens"] if "tokens" in body else body["usage"]["completion_tokens"]
            done.append((seconds, count))
        return done

    async with client() as http:
        await ask(http, url, question("hello", 2))
        began = time.perf_counter()
        found = await asyncio.gather(*(one(http, number) for number in range(CLIENTS)))
        seconds = time.perf_counter() - began
    flat = [pair for each in found for pair in each]
    written = sum(count for _, count in flat)
    return written / seconds, [each for each, _ in flat], written


async def typical(url: str, body: Mapping[str, Any], times: int) -> float:
    """Median seconds of one question after another."""
    async with client() as http:
        for _ in range(5):
            await ask(http, url, body)
        return statistics.median([(await ask(http, url, body))[2] for _ in range(times)])


async def overhead(direct: str, through: str, times: int) -> tuple[float, float]:
    """Median seconds without and with the service in front, taken in turns."""
    body = question("x", 16, stream=True)
    found: dict[str, list[float]] = {direct: [], through: []}
    async with client() as http:
        for turn in range(times + 20):
            for url in (direct, through):
                began = time.perf_counter()
                answer = await http.post(f"{url}/v1/chat/completions", json=body)
                assert answer.text.endswith("data: [DONE]\n\n")
                if turn >= 20:
                    found[url].append(time.perf_counter() - began)
    return statistics.median(found[direct]), statistics.median(found[through])


async def stream(
    http: httpx.AsyncClient, url: str, body: Mapping[str, Any], *, leave_after: int | None
) -> tuple[str, bool]:
    """The text that came, and whether the stream came to its end."""
    text, pieces = "", 0
    async with http.stream("POST", f"{url}/v1/chat/completions", json=body) as answer:
        assert answer.status_code == 200, answer.status_code
        async for line in answer.aiter_lines():
            if line == "data: [DONE]":
                return text, True
            if line.startswith("data:"):
                for choice in json.loads(line[5:])["choices"]:
                    text += choice["delta"].get("content", "")
                    pieces += 1
            if leave_after is not None and pieces > leave_after:
                return text, False
    return text, False


async def thousand(url: str, *, count: int, tokens: int) -> dict[str, int]:
    """Many streams at once, a third of which are left at some point."""
    draws = random.Random(11)
    texts = [f"question number {number}, please" for number in range(40)]
    async with client() as http:
        bodies = [question(text, tokens, stream=True) for text in texts]
        expected = [(await stream(http, url, body, leave_after=None))[0] for body in bodies]
        plan = [
            (
                draws.randrange(len(texts)),
                draws.randrange(4) if draws.random() < 1 / 3 else None,
            )
            for _ in range(count)
        ]
        jobs = (stream(http, url, bodies[which], leave_after=leave) for which, leave in plan)
        found = await asyncio.gather(*jobs, return_exceptions=True)
    lost = mixed = left = 0
    for (which, leave), result in zip(plan, found, strict=True):
        if isinstance(result, BaseException):
            lost += 1
            continue
        text, ended = result
        left += not ended
        lost += leave is None and not ended
        mixed += text != expected[which] if ended else not expected[which].startswith(text)
    idle = await drained(url)
    return {"streams": count, "left": left, "lost": lost, "mixed_up": mixed, "stuck": not idle}


async def drained(url: str) -> bool:
    """Whether the engine comes to hold nothing."""
    async with client() as http:
        for _ in range(100):
            page = (await http.get(f"{url}/metrics")).text
            if "\nprivity_running 0.0" in page and "\nprivity_queue 0.0" in page:
                return True
            await asyncio.sleep(0.1)
    return False


async def burst(url: str, *, capacity: int, tokens: int) -> dict[str, float]:
    """As many as it takes at once, then ten times as many."""

    host, port = url.removeprefix("http://").split(":")
    # Bare sockets, opened beforehand: a client of many layers would take the server's cores.
    wires = [await asyncio.open_connection(host, int(port)) for _ in range(10 * capacity)]

    async def one(number: int) -> tuple[int, float]:
        reader, writer = wires[number]
        body = json.dumps(question(f"burst {number}", tokens)).encode()
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nhost: {host}:{port}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        began = time.perf_counter()
        writer.write(head.encode() + body)
        answer = await reader.readuntil(b"\r\n\r\n")
        length = int(answer.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
        await reader.readexactly(length)
        return int(answer.split()[1]), time.perf_counter() - began

    async def wave(size: int) -> list[tuple[int, float]]:
        found = await asyncio.gather(*(one(number) for number in range(size)))
        await drained(url)
        return found

    await wave(capacity)
    calm = await wave(capacity)
    rush = await wave(10 * capacity)
    for _, writer in wires:
        writer.close()
    taken = [seconds for status, seconds in rush if status == 200]
    turned = [seconds for status, seconds in rush if status == 429]
    other = len(rush) - len(taken) - len(turned)
    return {
        "asked": len(rush), "answered": len(taken), "refused": len(turned), "other": other,
        "calm_p99_s": p99([seconds for status, seconds in calm if status == 200]),
        "answered_p99_s": p99(taken), "refused_p99_s": p99(turned),
    }  # fmt: skip


async def soak(server: Server, *, seconds: float, rest: float) -> dict[str, Any]:
    """Streams, kept and left: memory at each fifth of the time, and what was lost or mixed up.

    Every question is asked twice at once: once to the end, once perhaps left. The model answers
    greedily, so that the second answer is the first, or a beginning of it.
    """
    draws = random.Random(5)
    began = time.monotonic()
    held: list[int] = []
    asked = lost = mixed = 0
    async with client() as http:
        while (passed := time.monotonic() - began) < seconds:
            if passed > seconds / 5 * (len(held) + 1):
                held.append(server.memory())
            jobs = []
            for _ in range(12):
                text = f"soak {draws.randrange(10**9)} " + "x " * draws.randrange(60)
                for leave in (None, draws.choice((None, 3))):
                    body = question(text, 24, stream=True)
                    jobs.append(stream(http, server.url, body, leave_after=leave))
            found = await asyncio.gather(*jobs, return_exceptions=True)
            asked += len(found)
            for kept, other in zip(found[::2], found[1::2], strict=True):
                if isinstance(kept, BaseException) or isinstance(other, BaseException):
                    lost += isinstance(kept, BaseException) + isinstance(other, BaseException)
                    continue
                (whole, ended), (part, other_ended) = kept, other
                lost += not ended
                mixed += part != whole if other_ended else not whole.startswith(part)
            await asyncio.sleep(rest)
    held.append(server.memory())
    return {
        "asked": asked, "lost": lost, "mixed_up": mixed,
        "mib_at_fifths": " ".join(f"{each / 2**20:.1f}" for each in held),
        "growth": held[-1] / held[0] - 1, "minutes": seconds / 60,
    }  # fmt: skip


def run(act: Callable[..., Awaitable[Any]], *values: Any, **named: Any) -> Any:
    async def go() -> Any:
        return await act(*values, **named)

    return asyncio.run(go())


def main() -> None:
    parser = measure.options(__doc__)
    parser.add_argument(
        "--soak", type=float, metavar="MINUTES", help="only the memory, for so long"
    )
    parser.add_argument(
        "--rest", type=float, default=0, metavar="SECONDS", help="between the waves of a soak"
    )
    parser.add_argument("--only", choices=("speed", "gateway", "crowds"), help="one part")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="privity-bench-") as folder:
        figures, bars = measured(Path(folder), given)
    for name, value in figures.items():
        print(f"{name:28}{value:12.4f}" if isinstance(value, float) else f"{name:28}{value:>12}")
    measure.finish("serving", figures, bars, as_json=given.json)


def measured(
    place: Path, given: argparse.Namespace
) -> tuple[dict[str, Any], dict[str, measure.Bar]]:
    figures: dict[str, Any] = {}
    bars: dict[str, measure.Bar] = {}
    parts = (given.only,) if given.only else ("speed", "gateway", "crowds")
    if given.soak:
        parts = ("soak",)
    if "speed" in parts:
        speed(place, given.quick, figures, bars)
    if "gateway" in parts:
        gateway(place, given.quick, figures, bars)
    if "crowds" in parts:
        crowds(place, given.quick, figures, bars)
    if parts == ("soak",) or "crowds" in parts:
        seconds = 60 * given.soak if given.soak else 10 if given.quick else 30
        memory(place, seconds, given.rest, figures, bars)
    return figures, bars


def speed(place: Path, quick: bool, figures: Any, bars: Any) -> None:
    rounds, tokens = (1, 8) if quick else (1, 32)
    (place / "speed").mkdir()
    model = tiny(place) if quick else ()
    with serve("plain", place / "speed", *model) as server:
        plain, slow, plain_count = run(crowd, server.url, rounds=rounds, tokens=tokens)
    with serve("ours", place / "speed", *model, "--cache", "100") as server:
        fast, quick_ones, count = run(crowd, server.url, rounds=rounds, tokens=tokens)
        body = question(QUESTIONS[0], tokens)
        cached = run(typical, server.url, body, 50 if quick else 200)
    figures |= {
        "plain_tokens_per_s": plain, "our_tokens_per_s": fast, "plain_p99_s": p99(slow),
        "our_p99_s": p99(quick_ones), "plain_tokens": plain_count, "our_tokens": count,
        "cached_p50_ms": 1000 * cached,
    }  # fmt: skip
    if not quick:  # a tiny model says nothing about these
        bars["tokens a second, ours / plain"] = measure.at_least(fast / plain, 3)
        bars["P99, ours / plain"] = measure.at_most(p99(quick_ones) / p99(slow), 1)
    bars["cached answer, ms at P50"] = measure.at_most(1000 * cached, 5)


def gateway(place: Path, quick: bool, figures: Any, bars: Any) -> None:
    (place / "gateway").mkdir()
    with serve("stub", place) as behind:
        upstream = (*tiny(place), "--upstream", f"{behind.url}/v1")
        with serve("gateway", place / "gateway", *upstream) as server:
            direct, through = run(overhead, behind.url, server.url, 50 if quick else 300)
    figures |= {"direct_p50_ms": 1000 * direct, "through_p50_ms": 1000 * through}
    bars["overhead of the gateway, ms at P50"] = measure.at_most(1000 * (through - direct), 5)


def tiny(place: Path) -> tuple[str, ...]:
    folder = place / "tiny-model"
    if not folder.exists():
        measure.make_tiny_model(folder)
    return ("--model", str(folder))


def crowds(place: Path, quick: bool, figures: Any, bars: Any) -> None:
    (place / "crowds").mkdir()
    count = 100 if quick else 1000
    model = tiny(place)
    with serve("ours", place / "crowds", *model, "--rows", "32", "--queue", "1000") as server:
        streams = run(thousand, server.url, count=count, tokens=24)
    figures |= streams
    wrong = streams["lost"] + streams["mixed_up"] + streams["stuck"]
    bars["streams lost, mixed up or stuck"] = measure.at_most(float(wrong), 0)
    (place / "burst").mkdir()
    with serve("ours", place / "burst", *(model if quick else ())) as server:
        rush = run(burst, server.url, capacity=32, tokens=8 if quick else 24)
    figures |= {f"burst_{name}": value for name, value in rush.items()}
    unclean = float(rush["other"] + (rush["answered"] < 32))
    bars["burst: neither answered nor refused"] = measure.at_most(unclean, 0)
    kept = rush["answered_p99_s"] / rush["calm_p99_s"]
    if not quick:
        bars["burst: P99 of the answered / at capacity"] = measure.at_most(kept, 1.5)


def memory(place: Path, seconds: float, rest: float, figures: Any, bars: Any) -> None:
    (place / "memory").mkdir()
    with serve("ours", place / "memory", *tiny(place)) as server:
        held = run(soak, server, seconds=seconds, rest=rest)
    figures |= {f"soak_{name}": value for name, value in held.items()}
    bars["memory, growth after the first fifth"] = measure.at_most(held["growth"], 0.05)
    bars["soak: lost or mixed up"] = measure.at_most(float(held["lost"] + held["mixed_up"]), 0)


if __name__ == "__main__":
    main()
